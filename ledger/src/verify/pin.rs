//! Whether the key that the auditor pinned is this ledger's. What a newcomer gets wrong: a key's name in a ledger says
//! nothing about who holds it. Only a note that it signed, and that agrees with what is here, leads to this genesis.

use super::report::Court;
use crate::checkpoint::Vkey;
use crate::orders::Authority;
use crate::signature::Origin;

/// Judges the pinned key by what was in force from which entry on, at the time when it ends. Where not all is known because
/// something is missing, a key that is not known is no tampering.
pub(super) fn judge(
    origin: &Origin,
    authorities: &[(u64, Authority)],
    ends_ns: u64,
    whole: bool,
    pinned: Option<&Vkey>,
    court: &mut Court,
) {
    let vkey = |key| Vkey::log(origin, key);
    let Some((_, authority)) = authorities.last() else { return };
    court.key = Some(vkey(authority.log.key));
    let Some(pinned) = pinned else { return };
    let in_force = authority.signers(ends_ns).any(|key| vkey(key.key) == *pinned);
    let was_ours = authorities.iter().any(|(_, before)| vkey(before.log.key) == *pinned);
    if !in_force && !was_ours && whole {
        court.tampered(None, None, None, "the key pinned is not this ledger's log key".to_owned());
    } else if !court.pin_signed {
        let note =
            "no note that the pinned key signed is here, or was brought: nothing says whose ledger this is";
        court.findings.notes.insert(0, note.to_owned());
    } else if in_force {
        court.key_pinned = true;
    } else {
        let note = format!("the key pinned was replaced; pin {}", vkey(authority.log.key));
        court.findings.notes.insert(0, note);
    }
}
