//! The event vocabulary: what a gateway writes into its ledger, and how it is read back.
//!
//! An event is a body, which is public, and a payload, which is private and only committed to. A body carries no statement,
//! parameter, personal name or address. Both are canonical JSON: fields stand in alphabetical order below because that is the order
//! in which they are written. `docs/event-schema.md` is the same list for people.
//!
//! What a newcomer gets wrong: the log layer knows none of this. It knows the numbers of a session's opening and close, no more.

mod account;
mod approval;
mod describe;
mod words;

use std::borrow::Cow;
use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

pub use account::Account;
pub use approval::*;
pub use describe::describe;
pub use words::words;

use crate::entry::Kind;

/// The gateway began to serve.
pub const GATEWAY_STARTED: Kind = Kind(256);
/// The gateway stopped in good order.
pub const GATEWAY_STOPPED: Kind = Kind(257);
/// A configuration took effect.
pub const CONFIG_LOADED: Kind = Kind(258);
/// A set of policies took effect.
pub const POLICY_LOADED: Kind = Kind(259);
/// A set of policies was not taken; the one before it stays.
pub const POLICY_REJECTED: Kind = Kind(260);
/// Logins were refused before there was a session.
pub const LOGIN_REFUSED: Kind = Kind(272);
/// A command was decided.
pub const COMMAND: Kind = Kind(288);
/// A command came out.
pub const OUTCOME: Kind = Kind(289);
/// A client asked to cancel what its session runs.
pub const CANCEL: Kind = Kind(290);
/// Somebody else's approval was asked for.
pub const APPROVAL_REQUESTED: Kind = Kind(296);
/// Somebody answered, whether or not the answer counted.
pub const APPROVAL_ANSWERED: Kind = Kind(297);
/// A command goes on because of an approval.
pub const APPROVAL_USED: Kind = Kind(298);
/// A request came to nothing.
pub const APPROVAL_LAPSED: Kind = Kind(299);
/// A command goes on without the approval that it needed: its caller broke the glass.
pub const GLASS_BROKEN: Kind = Kind(300);
/// A principal or a session was revoked.
pub const REVOCATION: Kind = Kind(304);
/// Who was revoked so far: what was recorded before need not be read to know it.
pub const REVOKED: Kind = Kind(305);

/// Somebody did something to the gateway itself, or was refused it.
pub const ADMIN_ACTION: Kind = Kind(336);

/// A part of somebody's rights was handed down.
pub const DELEGATION_CREATED: Kind = Kind(352);
/// What was handed down was ended before its time.
pub const DELEGATION_ENDED: Kind = Kind(353);

/// The gateway found that its own ledger does not verify.
pub const LEDGER_ALARM: Kind = Kind(320);

/// The name of a kind, as `show` and `--json` spell it; none where this version does not know it.
#[must_use]
pub fn kind_name(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::LEDGER_OPENED => "ledger.opened",
        Kind::CHAIN_HEAD => "chain.head",
        Kind::RECOVERY => "recovery",
        Kind::KEYS_CHANGED => "keys.changed",
        Kind::EPOCH_SEAL => "epoch.seal",
        Kind::GAP => "gap",
        Kind::REDACTION => "redaction",
        Kind::WITNESS => "witness",
        Kind::PRUNING => "pruning",
        Kind::SESSION_KEY => "session.key",
        Kind::SESSION_SHREDDED => "session.shredded",
        Kind::SESSION_OPENED => "session.opened",
        Kind::SESSION_CLOSED => "session.closed",
        LEDGER_ALARM => "ledger.alarm",
        GATEWAY_STARTED => "gateway.started",
        GATEWAY_STOPPED => "gateway.stopped",
        CONFIG_LOADED => "config.loaded",
        POLICY_LOADED => "policy.loaded",
        POLICY_REJECTED => "policy.rejected",
        LOGIN_REFUSED => "login.refused",
        COMMAND => "command",
        OUTCOME => "outcome",
        CANCEL => "cancel",
        APPROVAL_REQUESTED => "approval.requested",
        APPROVAL_ANSWERED => "approval.answered",
        APPROVAL_USED => "approval.used",
        APPROVAL_LAPSED => "approval.lapsed",
        GLASS_BROKEN => "glass.broken",
        REVOCATION => "revocation",
        ADMIN_ACTION => "admin.action",
        REVOKED => "revoked",
        DELEGATION_CREATED => "delegation.created",
        DELEGATION_ENDED => "delegation.ended",
        _ => return None,
    })
}

/// The kind of a name that [`kind_name`] gives.
#[must_use]
pub fn kind_named(name: &str) -> Option<Kind> {
    (0..=u16::MAX).map(Kind).find(|kind| kind_name(*kind) == Some(name))
}

/// The public part of an event of one kind.
pub trait Body: Serialize {
    /// The kind.
    const KIND: Kind;
    /// The private part that goes with it; `()` where there is none.
    type Payload: Serialize;
}

/// Appends body and payload to `out`; gives back the length of the body. No payload is written as no bytes at all.
///
/// # Panics
/// Never: the types below hold nothing that JSON cannot, and a vector takes every byte.
pub fn encode<B: Body>(body: &B, payload: Option<&B::Payload>, out: &mut Vec<u8>) -> usize {
    let before = out.len();
    serde_json::to_writer(&mut *out, body).expect("a body is always JSON");
    let body_bytes = out.len() - before;
    if let Some(payload) = payload {
        serde_json::to_writer(&mut *out, payload).expect("a payload is always JSON");
    }
    body_bytes
}

/// The part of a command's payload that stays the same for as long as the same meaning is decided alike, written once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandTemplate {
    before_parameters: Vec<u8>,
    before_statement: Vec<u8>,
}

impl CommandTemplate {
    /// A template from a payload, whose parameters and statement do not matter.
    ///
    /// # Panics
    /// Never: see [`encode`].
    #[must_use]
    pub fn new(payload: &CommandPayload<'_>) -> CommandTemplate {
        let mut before_parameters = b"{\"actions\":".to_vec();
        let list = |name: &str, values: &[Cow<'_, str>], out: &mut Vec<u8>| {
            if !values.is_empty() {
                out.extend_from_slice(name.as_bytes());
                serde_json::to_writer(out, values).expect("a list of texts is always JSON");
            }
        };
        serde_json::to_writer(&mut before_parameters, &payload.actions)
            .expect("a list of texts is always JSON");
        list(",\"errors\":", &payload.errors, &mut before_parameters);
        before_parameters.extend_from_slice(b",\"kind\":");
        serde_json::to_writer(&mut before_parameters, &payload.kind).expect("a text is always JSON");
        list(",\"obligations\":", &payload.obligations, &mut before_parameters);
        let mut before_statement = b",\"policies\":".to_vec();
        serde_json::to_writer(&mut before_statement, &payload.policies)
            .expect("a list of texts is always JSON");
        CommandTemplate { before_parameters, before_statement }
    }

    /// Appends a command to `out` exactly as [`encode`] would; gives back the length of the body.
    ///
    /// # Panics
    /// Never: see [`encode`].
    pub fn encode(
        &self,
        body: &CommandBody<'_>,
        parameters: &[Parameter<'_>],
        sent: Option<&Text<'_>>,
        statement: &Text<'_>,
        out: &mut Vec<u8>,
    ) -> usize {
        let body_bytes = encode(body, None, out);
        out.extend_from_slice(&self.before_parameters);
        if !parameters.is_empty() {
            out.extend_from_slice(b",\"parameters\":");
            serde_json::to_writer(&mut *out, parameters).expect("parameters are always JSON");
        }
        out.extend_from_slice(&self.before_statement);
        if let Some(sent) = sent {
            out.extend_from_slice(b",\"sent\":");
            serde_json::to_writer(&mut *out, sent).expect("a text is always JSON");
        }
        out.extend_from_slice(b",\"statement\":");
        serde_json::to_writer(&mut *out, statement).expect("a text is always JSON");
        out.push(b'}');
        body_bytes
    }
}

macro_rules! bodies {
    ($($body:ty => $kind:expr, $payload:ty;)*) => {
        $(impl<'a> Body for $body {
            const KIND: Kind = $kind;
            type Payload = $payload;
        })*
    };
}

bodies! {
    GatewayStartedBody<'a> => GATEWAY_STARTED, ();
    GatewayStoppedBody<'a> => GATEWAY_STOPPED, ();
    ConfigLoadedBody<'a> => CONFIG_LOADED, ConfigLoadedPayload<'a>;
    PolicyLoadedBody<'a> => POLICY_LOADED, PolicyLoadedPayload<'a>;
    PolicyRejectedBody<'a> => POLICY_REJECTED, PolicyRejectedPayload<'a>;
    LoginRefusedBody<'a> => LOGIN_REFUSED, LoginRefusedPayload<'a>;
    SessionOpenedBody<'a> => Kind::SESSION_OPENED, SessionOpenedPayload<'a>;
    SessionClosedBody<'a> => Kind::SESSION_CLOSED, ();
    CommandBody<'a> => COMMAND, CommandPayload<'a>;
    OutcomeBody<'a> => OUTCOME, OutcomePayload<'a>;
    CancelBody<'a> => CANCEL, CancelPayload<'a>;
    ApprovalRequestedBody<'a> => APPROVAL_REQUESTED, ApprovalRequestedPayload<'a>;
    ApprovalAnsweredBody<'a> => APPROVAL_ANSWERED, ApprovalAnsweredPayload<'a>;
    ApprovalUsedBody<'a> => APPROVAL_USED, ApprovalUsedPayload<'a>;
    ApprovalLapsedBody<'a> => APPROVAL_LAPSED, ();
    GlassBrokenBody<'a> => GLASS_BROKEN, GlassBrokenPayload<'a>;
    RevocationBody<'a> => REVOCATION, RevocationPayload<'a>;
    AdminActionBody<'a> => ADMIN_ACTION, AdminActionPayload<'a>;
    DelegationCreatedBody<'a> => DELEGATION_CREATED, DelegationCreatedPayload<'a>;
    DelegationEndedBody<'a> => DELEGATION_ENDED, DelegationEndedPayload<'a>;
    GapBody<'a> => Kind::GAP, ();
    LedgerAlarmBody<'a> => LEDGER_ALARM, LedgerAlarmPayload<'a>;
}

impl Body for RevokedBody {
    const KIND: Kind = REVOKED;
    type Payload = RevokedPayload;
}

/// Any event of the vocabulary, read back from an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decoded<'a> {
    /// A session's opening.
    SessionOpened(SessionOpenedBody<'a>, Option<SessionOpenedPayload<'a>>),
    /// A session's close.
    SessionClosed(SessionClosedBody<'a>),
    /// A command's decision.
    Command(CommandBody<'a>, Option<CommandPayload<'a>>),
    /// A command's outcome.
    Outcome(OutcomeBody<'a>, Option<OutcomePayload<'a>>),
    /// A cancel request.
    Cancel(CancelPayload<'a>),
    /// Refused logins.
    LoginRefused(LoginRefusedBody<'a>, Option<LoginRefusedPayload<'a>>),
    /// An approval that was asked for.
    ApprovalRequested(ApprovalRequestedBody<'a>, Option<ApprovalRequestedPayload<'a>>),
    /// An answer to it.
    ApprovalAnswered(ApprovalAnsweredBody<'a>, Option<ApprovalAnsweredPayload<'a>>),
    /// An approval that was used.
    ApprovalUsed(ApprovalUsedBody<'a>, Option<ApprovalUsedPayload<'a>>),
    /// A request that came to nothing.
    ApprovalLapsed(ApprovalLapsedBody<'a>),
    /// A command that went on without the approval that it needed.
    GlassBroken(GlassBrokenBody<'a>, Option<GlassBrokenPayload<'a>>),
    /// A revocation.
    Revocation(Option<RevocationPayload<'a>>),
    /// Something done to the gateway itself.
    AdminAction(AdminActionBody<'a>, Option<AdminActionPayload<'a>>),
    /// Who was revoked so far.
    Revoked(RevokedBody, Option<RevokedPayload>),
    /// Rights handed down.
    DelegationCreated(DelegationCreatedBody<'a>, Option<Box<DelegationCreatedPayload<'a>>>),
    /// Their end.
    DelegationEnded(DelegationEndedBody<'a>, Option<DelegationEndedPayload<'a>>),
    /// Anything else, as JSON.
    Other(serde_json::Value, Option<serde_json::Value>),
}

/// Reads an event from the body and payload of an entry; `payload` is none where it is absent or redacted.
///
/// # Errors
/// When the bytes are not what this version writes under that kind.
pub fn decode<'a>(kind: Kind, body: &'a [u8], payload: Option<&'a [u8]>) -> serde_json::Result<Decoded<'a>> {
    let payload = payload.filter(|bytes| !bytes.is_empty());
    Ok(match kind {
        Kind::SESSION_OPENED => Decoded::SessionOpened(read(body)?, payload.map(read).transpose()?),
        Kind::SESSION_CLOSED => Decoded::SessionClosed(read(body)?),
        COMMAND => Decoded::Command(read(body)?, payload.map(read).transpose()?),
        OUTCOME => Decoded::Outcome(read(body)?, payload.map(read).transpose()?),
        CANCEL => Decoded::Cancel(payload.map_or(Ok(CancelPayload { source: Cow::Borrowed("") }), read)?),
        LOGIN_REFUSED => Decoded::LoginRefused(read(body)?, payload.map(read).transpose()?),
        APPROVAL_REQUESTED => Decoded::ApprovalRequested(read(body)?, payload.map(read).transpose()?),
        APPROVAL_ANSWERED => Decoded::ApprovalAnswered(read(body)?, payload.map(read).transpose()?),
        APPROVAL_USED => Decoded::ApprovalUsed(read(body)?, payload.map(read).transpose()?),
        APPROVAL_LAPSED => Decoded::ApprovalLapsed(read(body)?),
        GLASS_BROKEN => Decoded::GlassBroken(read(body)?, payload.map(read).transpose()?),
        REVOCATION => Decoded::Revocation(payload.map(read).transpose()?),
        ADMIN_ACTION => Decoded::AdminAction(read(body)?, payload.map(read).transpose()?),
        REVOKED => Decoded::Revoked(read(body)?, payload.map(read).transpose()?),
        DELEGATION_CREATED => {
            Decoded::DelegationCreated(read(body)?, payload.map(read).transpose()?.map(Box::new))
        }
        DELEGATION_ENDED => Decoded::DelegationEnded(read(body)?, payload.map(read).transpose()?),
        _ => Decoded::Other(read(body)?, payload.map(read).transpose()?),
    })
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    serde_json::from_slice(json)
}

/// See [`GATEWAY_STARTED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStartedBody<'a> {
    /// The gateway's version.
    #[serde(borrow)]
    pub version: Cow<'a, str>,
}

/// See [`GATEWAY_STOPPED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStoppedBody<'a> {
    /// Why: `signal`, `error`.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
}

/// See [`CONFIG_LOADED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigLoadedBody<'a> {
    /// BLAKE3 of the text, in hex.
    #[serde(borrow)]
    pub hash: Cow<'a, str>,
    /// How many resources are served.
    pub resources: u64,
}

/// See [`CONFIG_LOADED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigLoadedPayload<'a> {
    /// The text, which holds references to secrets and no secret.
    #[serde(borrow)]
    pub text: Cow<'a, str>,
}

/// See [`POLICY_LOADED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLoadedBody<'a> {
    /// BLAKE3 over the files' names and texts, in hex.
    #[serde(borrow)]
    pub hash: Cow<'a, str>,
    /// How many policies there are.
    pub policies: u64,
}

/// See [`POLICY_LOADED`].
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

/// See [`POLICY_REJECTED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRejectedBody<'a> {
    /// BLAKE3 of the set that stays, in hex.
    #[serde(borrow)]
    pub stays: Cow<'a, str>,
}

/// See [`POLICY_REJECTED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRejectedPayload<'a> {
    /// What is wrong with it, a line a mistake.
    #[serde(borrow)]
    pub mistakes: Vec<Cow<'a, str>>,
}

/// See [`LOGIN_REFUSED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginRefusedBody<'a> {
    /// Why: `expired`, `wrong_audience`, `policy`, ….
    #[serde(borrow)]
    pub cause: Cow<'a, str>,
    /// How many times since the last such entry.
    pub count: u64,
}

/// See [`LOGIN_REFUSED`].
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
    /// The name that people know it by.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The name that the issuer knows it by.
    #[serde(borrow)]
    pub subject: Cow<'a, str>,
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

/// See [`COMMAND`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandBody<'a> {
    /// `permit`, `refuse`, or `shadow_refuse`: refused by policy and let pass by a resource in shadow mode.
    #[serde(borrow)]
    pub decision: Cow<'a, str>,
    /// `reads` or `may_change`.
    #[serde(borrow)]
    pub effect: Cow<'a, str>,
    /// `prepare` or `execute`.
    #[serde(borrow)]
    pub phase: Cow<'a, str>,
    /// Its number within its session, from 0.
    pub request: u64,
}

/// See [`COMMAND`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandPayload<'a> {
    /// What it does to what: `select orders/public.customers`.
    #[serde(borrow)]
    pub actions: Vec<Cow<'a, str>>,
    /// What went wrong while deciding.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Cow<'a, str>>,
    /// The kind of statement.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// What must be kept along with a permission.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub obligations: Vec<Cow<'a, str>>,
    /// Its parameters.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter<'a>>,
    /// The policies that made the decision: `ci.cedar:3`.
    #[serde(borrow)]
    pub policies: Vec<Cow<'a, str>>,
    /// The statement as it was sent to the upstream, where masks made it another.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Text<'a>>,
    /// The statement.
    #[serde(borrow)]
    pub statement: Text<'a>,
}

/// From how many bytes on a text is held against its length in base64.
const LONG_TEXT_BYTES: usize = 64 << 10;

/// How many bytes the escapes of canonical JSON add.
fn escapes(bytes: &[u8]) -> usize {
    let added = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0..=0x1f => 5,
        _ => 0,
    };
    bytes.iter().map(added).sum()
}

/// Bytes that are usually text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Text<'a> {
    /// They are not UTF-8, or mostly what JSON escapes: in base64.
    Base64(#[serde(borrow)] Cow<'a, str>),
    /// They are.
    Text(#[serde(borrow)] Cow<'a, str>),
}

impl<'a> Text<'a> {
    /// These bytes: as text where they are UTF-8 and their escapes take less room than base64.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Text<'a> {
        match std::str::from_utf8(bytes) {
            Ok(text) if bytes.len() < LONG_TEXT_BYTES || escapes(bytes) <= bytes.len() / 3 => {
                Text::Text(Cow::Borrowed(text))
            }
            _ => Text::base64(bytes),
        }
    }

    /// These bytes, text or not.
    #[must_use]
    pub fn base64(bytes: &[u8]) -> Text<'static> {
        Text::Base64(Cow::Owned(STANDARD.encode(bytes)))
    }

    /// The bytes; none where the base64 is none.
    #[must_use]
    pub fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Text::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
            Text::Base64(text) => STANDARD.decode(&**text).ok().map(Cow::Owned),
        }
    }
}

/// One parameter of a command, as it travelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter<'a> {
    /// Whether it is in the protocol's binary format.
    pub binary: bool,
    /// Its type's number; 0 where the client left it to the server.
    #[serde(rename = "type")]
    pub type_oid: u32,
    /// Its value; none for NULL.
    #[serde(borrow)]
    pub value: Option<Text<'a>>,
}

/// See [`OUTCOME`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeBody<'a> {
    /// How many bytes were sent to the client.
    pub bytes: u64,
    /// From the decision to the end, in microseconds.
    pub duration_us: u64,
    /// `completed`, `suspended`, `failed`, `cut`, `skipped`, `refused` or `unknown`.
    #[serde(borrow)]
    pub ending: Cow<'a, str>,
    /// The command's number within its session.
    pub request: u64,
    /// How many rows were shown.
    pub rows: u64,
}

/// See [`OUTCOME`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomePayload<'a> {
    /// The upstream's error code.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Cow<'a, str>>,
    /// BLAKE3 of the data that the client fed to the upstream, in hex.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub fed_blake3: Option<Cow<'a, str>>,
    /// How many bytes of data the client fed to the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fed_bytes: Option<u64>,
    /// BLAKE3 of what was sent to the client, in hex.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub shown_blake3: Option<Cow<'a, str>>,
    /// The upstream's tag: `UPDATE 1`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Cow<'a, str>>,
}

/// See [`CANCEL`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelBody<'a> {
    /// How it came: `client`.
    #[serde(borrow)]
    pub by: Cow<'a, str>,
}

/// See [`CANCEL`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelPayload<'a> {
    /// The address that it came from.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
}

/// See [`REVOCATION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationBody<'a> {
    /// `principal`, `group`, `token`, `resource` or `session`.
    #[serde(borrow)]
    pub target: Cow<'a, str>,
}

/// See [`REVOCATION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationPayload<'a> {
    /// Who revoked.
    #[serde(borrow)]
    pub by: Cow<'a, str>,
    /// The group's name.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Cow<'a, str>>,
    /// The principal's id.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Cow<'a, str>>,
    /// Why.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
    /// The resource's name.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Cow<'a, str>>,
    /// The session's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// The token's id.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Cow<'a, str>>,
}

impl RevocationPayload<'_> {
    /// What was revoked, in words.
    #[must_use]
    pub fn whom(&self) -> String {
        let named = [
            ("group ", &self.group),
            ("", &self.principal),
            ("resource ", &self.resource),
            ("token ", &self.token),
        ];
        let named = named.into_iter().find_map(|(kind, name)| Some(format!("{kind}{}", name.as_ref()?)));
        named.unwrap_or_else(|| {
            self.session.map_or("a session".to_owned(), |number| format!("session {number}"))
        })
    }
}

/// See [`ADMIN_ACTION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminActionBody<'a> {
    /// The action, as policy spells it: `read_sessions`, `revoke`, ….
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    /// `permit` or `refuse`.
    #[serde(borrow)]
    pub decision: Cow<'a, str>,
}

/// See [`ADMIN_ACTION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminActionPayload<'a> {
    /// The policies that made the decision: `ci.cedar:3`.
    #[serde(borrow)]
    pub policies: Vec<Cow<'a, str>>,
    /// Who did it.
    #[serde(borrow)]
    pub principal: Principal<'a>,
    /// What stood in the way beside policy.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
    /// What was asked of the server: method and path.
    #[serde(borrow)]
    pub request: Cow<'a, str>,
    /// The address that it came from.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
}

/// See [`REVOKED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedBody {
    /// How many there are in all.
    pub count: u64,
}

/// See [`REVOKED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedPayload {
    /// The groups' names.
    pub groups: BTreeSet<String>,
    /// The principals' ids.
    pub principals: BTreeSet<String>,
    /// The tokens' ids.
    pub tokens: BTreeSet<String>,
}

/// See [`DELEGATION_CREATED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationCreatedBody<'a> {
    /// Its id.
    #[serde(borrow)]
    pub delegation: Cow<'a, str>,
    /// When it ends at the latest, in seconds since 1970 UTC.
    pub expires_s: u64,
    /// How many more levels may come after it.
    pub further: u8,
    /// The id of the one before it; absent for the first of a chain.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Cow<'a, str>>,
}

/// See [`DELEGATION_CREATED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationCreatedPayload<'a> {
    /// The actions: verbs, and groups of them.
    #[serde(borrow)]
    pub actions: Vec<Cow<'a, str>>,
    /// Who acts, where they showed who they are.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Principal<'a>>,
    /// How many commands may be executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<u64>,
    /// What it was called.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    /// Whose rights they are.
    #[serde(borrow)]
    pub principal: Principal<'a>,
    /// The resources.
    #[serde(borrow)]
    pub resources: Vec<Cow<'a, str>>,
    /// The upstream's roles; absent for any.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<Cow<'a, str>>>,
    /// The most rows that one command may show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The address that it was asked for from.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// The tables; absent for anything.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<Vec<Cow<'a, str>>>,
    /// The id of the principal's own token, with which the chain began.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
}

/// See [`DELEGATION_ENDED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationEndedBody<'a> {
    /// Its id. All that came after it ended with it.
    #[serde(borrow)]
    pub delegation: Cow<'a, str>,
    /// Why: `ended` by whoever held it, `revoked` by an operator.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
}

/// See [`DELEGATION_ENDED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationEndedPayload<'a> {
    /// Who ended it.
    #[serde(borrow)]
    pub by: Cow<'a, str>,
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

/// See [`LEDGER_ALARM`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerAlarmBody<'a> {
    /// How many problems there are.
    pub problems: u64,
    /// `tampered` or `incomplete`.
    #[serde(borrow)]
    pub verdict: Cow<'a, str>,
}

/// See [`LEDGER_ALARM`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerAlarmPayload<'a> {
    /// The first of them.
    #[serde(borrow)]
    pub what: Vec<Cow<'a, str>>,
}

#[cfg(test)]
mod template_tests {
    use super::*;

    #[test]
    fn a_template_writes_what_the_types_write() {
        let texts =
            |texts: &[&'static str]| texts.iter().map(|text| Cow::Borrowed(*text)).collect::<Vec<_>>();
        let value = Parameter { binary: false, type_oid: 23, value: Some(Text::new(b"4711\n\"")) };
        for (errors, obligations, parameters, sent) in [
            (vec![], vec![], vec![], None),
            (
                texts(&["a \"b\""]),
                texts(&["max_rows 5"]),
                vec![value.clone(), Parameter { value: None, ..value.clone() }],
                Some(Text::new(b"select 1")),
            ),
        ] {
            let payload = CommandPayload {
                actions: texts(&["select d/s.t", "insert d/s.u"]),
                errors,
                kind: "select".into(),
                obligations,
                parameters,
                policies: texts(&["ci.cedar:3"]),
                sent: sent.clone(),
                statement: Text::new("select '\u{1}ä' -- \\".as_bytes()),
            };
            let body = CommandBody {
                decision: "permit".into(),
                effect: "reads".into(),
                phase: "execute".into(),
                request: 7,
            };
            let (mut whole, mut templated) = (Vec::new(), Vec::new());
            let body_bytes = encode(&body, Some(&payload), &mut whole);
            let template = CommandTemplate::new(&payload);
            assert_eq!(
                template.encode(
                    &body,
                    &payload.parameters,
                    payload.sent.as_ref(),
                    &payload.statement,
                    &mut templated
                ),
                body_bytes
            );
            assert_eq!(String::from_utf8_lossy(&templated), String::from_utf8_lossy(&whole));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_of_escapes_is_base64_and_comes_back() {
        let controls = vec![1; LONG_TEXT_BYTES];
        let text = Text::new(&controls);
        assert!(matches!(text, Text::Base64(_)));
        assert_eq!(text.bytes().as_deref(), Some(&controls[..]));
        // Ordinary text has some escapes.
        let quoted = "select 'it''s', \"a\"\n".repeat(LONG_TEXT_BYTES / 16);
        assert!(matches!(Text::new(quoted.as_bytes()), Text::Text(_)));
        assert_eq!(
            serde_json::to_string(&quoted).map_or(0, |json| json.len()),
            quoted.len() + 2 + escapes(quoted.as_bytes())
        );
    }
}
