//! The events of a session: who was let in or not, and what went through it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// See [`super::LOGIN_REFUSED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginRefusedBody<'a> {
    /// Why: `expired`, `wrong_audience`, `policy`, ….
    #[serde(borrow)]
    pub cause: Cow<'a, str>,
    /// How many times since the last such entry.
    pub count: u64,
}

/// See [`super::LOGIN_REFUSED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginRefusedPayload<'a> {
    /// What the operator may know, of the first of them. Never the token.
    #[serde(borrow)]
    pub detail: Cow<'a, str>,
    /// What it wanted to reach.
    #[serde(borrow)]
    pub resource: Cow<'a, str>,
    /// The address that it came from.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
}

/// See [`Kind::SESSION_OPENED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpenedBody<'a> {
    /// The protocol: `postgres`.
    #[serde(borrow)]
    pub protocol: Cow<'a, str>,
    /// Whether refusals are only recorded, and not made.
    pub shadow: bool,
}

/// See [`Kind::SESSION_OPENED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpenedPayload<'a> {
    /// Who acts on the principal's behalf, from it towards the gateway.
    #[serde(borrow)]
    pub actors: Vec<Principal<'a>>,
    /// What the client calls itself.
    #[serde(borrow)]
    pub application: Cow<'a, str>,
    /// The database.
    #[serde(borrow)]
    pub database: Cow<'a, str>,
    /// When the session ends at the latest, in seconds since 1970 UTC.
    pub expires_s: u64,
    /// The policies that let it in.
    #[serde(borrow)]
    pub policies: Vec<Cow<'a, str>>,
    /// Who it is.
    #[serde(borrow)]
    pub principal: Principal<'a>,
    /// The resource's name.
    #[serde(borrow)]
    pub resource: Cow<'a, str>,
    /// The role of the upstream.
    #[serde(borrow)]
    pub role: Cow<'a, str>,
    /// The address that it came from.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// The token's own id.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
}

/// An authenticated subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal<'a> {
    /// The id of the delegation by which it acts, where it is an actor of a chain.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub delegation: Option<Cow<'a, str>>,
    /// The groups that it is in.
    #[serde(borrow)]
    pub groups: Vec<Cow<'a, str>>,
    /// The issuer's name.
    #[serde(borrow)]
    pub issuer: Cow<'a, str>,
    /// `user`, `service`, or `agent` where it acts by a delegation and showed no identity of its own.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// By which login at the issuer, where something must be held against it later.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login<'a>>,
    /// The name that people know it by.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The name that the issuer knows it by.
    #[serde(borrow)]
    pub subject: Cow<'a, str>,
}

/// A login at an issuer, as a token tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login<'a> {
    /// When the token was issued, in seconds since 1970 UTC.
    pub issued_s: u64,
    /// The issuer's name for the login (`sid`).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<Cow<'a, str>>,
}

/// See [`Kind::SESSION_CLOSED`]. Recovery closes what a crash left open with the reason `crash`, and the counts that it cannot know absent.
/// [`Account`] holds them against the session's other entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct SessionClosedBody<'a> {
    /// What passed in each channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// How many commands were decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<u64>,
    /// How many bytes of data the client fed to the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fed_bytes: Option<u64>,
    /// Why it ended.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
    /// How many commands were refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
    /// How many bytes commands showed to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_bytes: Option<u64>,
}

/// What passed in each channel of a session, commands or not, from its first message to our last words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Channels {
    /// Taken from the client.
    pub client_to_gateway: Passed,
    /// Let go to the client.
    pub gateway_to_client: Passed,
    /// Let go to the upstream.
    pub gateway_to_upstream: Passed,
    /// Taken from the upstream.
    pub upstream_to_gateway: Passed,
}

/// What passed one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Passed {
    /// Bytes, headers included.
    pub bytes: u64,
    /// Messages of the protocol that ended.
    pub messages: u64,
}
