//! The words that an entry can be found by: who, and what.

use super::{Decoded, Principal, decode};
use crate::entry::Entry;
use crate::index::Field;

/// Tells the words of an entry, for [`crate::index`]. A principal is found by its id (`issuer:subject`), its subject and
/// the name that people know it by; so is every actor of a chain.
pub fn words(entry: &Entry<'_>, payload: Option<&[u8]>, tell: &mut dyn FnMut(Field, &str)) {
    match decode(entry.header.kind, entry.body, payload) {
        Ok(Decoded::SessionOpened(_, Some(opened))) => {
            tell(Field::Resource, &opened.resource);
            opened.actors.iter().chain([&opened.principal]).for_each(|who| principal(who, tell));
        }
        Ok(Decoded::DelegationCreated(_, Some(made))) => {
            made.resources.iter().for_each(|resource| tell(Field::Resource, resource));
            made.actor.iter().chain([&made.principal]).for_each(|who| principal(who, tell));
        }
        Ok(Decoded::AdminAction(_, Some(done))) => principal(&done.principal, tell),
        Ok(Decoded::LoginRefused(_, Some(refused))) => tell(Field::Resource, &refused.resource),
        Ok(Decoded::ApprovalAnswered(_, Some(answered))) => {
            tell(Field::Principal, &answered.approver);
            if answered.name != answered.approver {
                tell(Field::Principal, &answered.name);
            }
        }
        Ok(Decoded::Revocation(Some(revoked))) => {
            let logged_out = revoked.logout.as_ref().and_then(|logout| logout.principal.as_ref());
            if let Some(id) = revoked.principal.as_ref().or(logged_out) {
                tell(Field::Principal, id);
                if let Some((_, subject)) = id.split_once(':') {
                    tell(Field::Principal, subject);
                }
            }
        }
        _ => {}
    }
}

fn principal(who: &Principal<'_>, tell: &mut dyn FnMut(Field, &str)) {
    tell(Field::Principal, &format!("{}:{}", who.issuer, who.subject));
    tell(Field::Principal, &who.subject);
    if who.name != who.subject {
        tell(Field::Principal, &who.name);
    }
}
