//! The event vocabulary: what a gateway writes into its ledger, and how it is read back.
//!
//! An event is a body, which is public, and a payload, which is private and only committed to. A body carries no statement,
//! parameter, personal name or address. Both are canonical JSON: fields stand in alphabetical order below because that is the order
//! in which they are written. `docs/event-schema.md` is the same list for people.
//!
//! What a newcomer gets wrong: the log layer knows none of this. It knows the numbers of a session's opening and close, no more.

mod access;
mod account;
mod approval;
mod command;
mod describe;
mod gateway;
mod session;
mod words;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use access::*;
pub use account::Account;
pub use approval::*;
pub use command::*;
pub use describe::describe;
pub use gateway::*;
pub use session::*;
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
