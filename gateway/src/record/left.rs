//! What a former run left that goes on: delegations, and requests for approval that were made ahead of time.
//!
//! It is read back from the end of a writer's ledger along its chain, as who was revoked is: whoever can write to the files, and does not hold
//! the keys, brings nothing back to life. What is older than [`LONGEST`] is not read; each segment's list of who was revoked tells how old it
//! is. What cannot be read, because it was moved away or is not what the ledger goes on from, is over with all before it: an end is never before
//! what it ends.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatebook_ledger::event::{self, Decoded};
use gatebook_ledger::{Storage, Writer, reader};

use super::ahead::Requests;
use super::handed::Delegations;
use crate::{approval, delegation};

/// No delegation lasts longer: `delegation.ttl_max` goes no further. A request that is older is asked anew.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

const KINDS: [gatebook_ledger::Kind; 7] = [
    event::DELEGATION_CREATED,
    event::DELEGATION_ENDED,
    event::APPROVAL_REQUESTED,
    event::APPROVAL_ANSWERED,
    event::APPROVAL_USED,
    event::APPROVAL_LAPSED,
    event::REVOKED,
];

/// What may go on.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The delegations whose time is not over and that nobody ended, in the order in which they were made.
    pub(super) delegations: Vec<delegation::Kept>,
    /// The requests that were made ahead of time, were neither used nor denied, and did not lapse, in the order in which they were made.
    pub(super) requests: Vec<approval::Kept>,
}

/// Reads it.
///
/// # Errors
/// Of the storage; also where an entry about any of it cannot be read.
pub(super) fn left(storage: &dyn Storage, writer: &Writer, now: SystemTime) -> io::Result<Left> {
    let oldest = now.checked_sub(LONGEST).unwrap_or(UNIX_EPOCH);
    let (mut delegations, mut requests) = (Delegations::default(), Requests::default());
    let mut behind = writer.chain();
    for number in (0..=writer.segment()).rev() {
        let (mut old, mut unread) = (false, None);
        let known = (delegations.mark(), requests.mark());
        let visited = reader::visit_behind(storage, number, behind, &KINDS, |entry, payload| {
            let (kind, seq) = (entry.header.kind, entry.header.seq);
            let made = UNIX_EPOCH + Duration::from_nanos(entry.header.time_ns);
            match event::decode(kind, entry.body, payload) {
                _ if kind == event::REVOKED => old |= made < oldest,
                Ok(Decoded::DelegationEnded(body, _)) => delegations.ended(&body),
                Ok(Decoded::DelegationCreated(body, payload)) => delegations.made(seq, &body, payload, made),
                Ok(Decoded::ApprovalRequested(body, payload)) => requests.asked(seq, &body, payload),
                Ok(Decoded::ApprovalAnswered(body, payload)) => requests.answered(seq, &body, payload, made),
                Ok(Decoded::ApprovalUsed(body, _)) => requests.over(&body.id),
                Ok(Decoded::ApprovalLapsed(body)) => requests.over(&body.id),
                _ => unread = Some(seq),
            }
        });
        match visited {
            Ok(begins) => behind = begins,
            // What was handed down or asked there or before is over, which is the safe side.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                tracing::warn!(%error, segment = number, "cannot be read; what was handed down or asked for in it or before is over");
                delegations.forget(known.0);
                requests.forget(known.1);
                break;
            }
            Err(error) => return Err(error),
        }
        if let Some(seq) = unread {
            return Err(io::Error::other(format!(
                "entry {seq}, a delegation or an approval, cannot be read, so which of them stand is not known; look with gatebook-ledger verify, and bring the segment back from a backup"
            )));
        }
        if old {
            break;
        }
    }
    Ok(Left { delegations: delegations.left(now), requests: requests.left() })
}
