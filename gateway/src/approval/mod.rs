//! Approvals: somebody else's consent to one exact command.
//!
//! A request is made by a session whose command needs consent, is answered by persons, and is used once by the command that it was made
//! for. [`Request`] is what moves, from [`Pending`] to exactly one of granted, denied, expired and lapsed, and never back; [`Digest`] is what
//! binds it to the command; [`Approvals`] are those that are known now.
//!
//! What a newcomer gets wrong: nothing here lets a command go. A grant is looked at by the session that waits, which computes the digest
//! anew, asks today's policy again, and takes the grant only if both still fit.

mod answer;
mod command;
mod digest;
mod id;
mod known;
mod locks;
mod request;
mod shown;
mod webhook;

pub(crate) use answer::AnswerError;
pub(crate) use command::ApprovalsArgs;
pub(crate) use digest::{Bound, Digest, Scope};
pub(crate) use id::Id;
pub(crate) use known::{Approvals, Full, Happened};
pub(crate) use request::{Answer, Consent, Draft, Kept, Lapse, Request, Standpoint, Unfit, suffice};
pub(crate) use shown::{Shown, ShownCommand, ShownParts, commands, objects, seconds, shown_parts};
pub(crate) use webhook::tell_webhooks;
