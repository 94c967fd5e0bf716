//! The events of the gateway itself: its start and stop, what it loaded, and what went wrong with its ledger.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// See [`super::GATEWAY_STARTED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStartedBody<'a> {
    /// The gateway's version.
    #[serde(borrow)]
    pub version: Cow<'a, str>,
}

/// See [`super::GATEWAY_STOPPED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStoppedBody<'a> {
    /// Why: `signal`, `error`.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
}

/// See [`super::CONFIG_LOADED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigLoadedBody<'a> {
    /// BLAKE3 of the text, in hex.
    #[serde(borrow)]
    pub hash: Cow<'a, str>,
    /// How many resources are served.
    pub resources: u64,
}

/// See [`super::CONFIG_LOADED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigLoadedPayload<'a> {
    /// The text, which holds references to secrets and no secret.
    #[serde(borrow)]
    pub text: Cow<'a, str>,
}

/// See [`super::POLICY_LOADED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLoadedBody<'a> {
    /// BLAKE3 over the files' names and texts, in hex.
    #[serde(borrow)]
    pub hash: Cow<'a, str>,
    /// How many policies there are.
    pub policies: u64,
}

/// See [`super::POLICY_LOADED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLoadedPayload<'a> {
    /// The files, in the order of their names.
    #[serde(borrow)]
    pub files: Vec<PolicyFile<'a>>,
}

/// One file of policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFile<'a> {
    /// Its name within the folder.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Its text.
    #[serde(borrow)]
    pub text: Cow<'a, str>,
}

/// See [`super::POLICY_REJECTED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRejectedBody<'a> {
    /// BLAKE3 of the set that stays, in hex.
    #[serde(borrow)]
    pub stays: Cow<'a, str>,
}

/// See [`super::POLICY_REJECTED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRejectedPayload<'a> {
    /// What is wrong with it, a line a mistake.
    #[serde(borrow)]
    pub mistakes: Vec<Cow<'a, str>>,
}

/// See [`Kind::GAP`]: recording was impossible from then until this entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapBody<'a> {
    /// Why: `write_failed`.
    #[serde(borrow)]
    pub cause: Cow<'a, str>,
    /// Since when, in milliseconds since 1970 UTC.
    pub from_ms: u64,
    /// How many records were lost. None of what they tell of was acknowledged.
    pub lost: u64,
    /// How many sessions were ended by it.
    pub sessions: u64,
}

/// See [`super::LEDGER_ALARM`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerAlarmBody<'a> {
    /// How many problems there are.
    pub problems: u64,
    /// `tampered` or `incomplete`.
    #[serde(borrow)]
    pub verdict: Cow<'a, str>,
}

/// See [`super::LEDGER_ALARM`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerAlarmPayload<'a> {
    /// The first of them.
    #[serde(borrow)]
    pub what: Vec<Cow<'a, str>>,
}
