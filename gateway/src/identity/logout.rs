//! Logout tokens: an issuer tells, over the back channel, that a login of its own is over (OpenID Connect Back-Channel Logout 1.0).
//!
//! A logout token is held against the same configuration and the same keys as any other, and is none of the others: what tells
//! of a logout opens nothing, and what opens something tells of no logout. What a newcomer gets wrong: a logout is no revocation of
//! the person. Tokens that were issued by then stay out; whoever logs in again gets new ones.

use std::collections::HashMap;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::jws::Unverified;
use super::rejected::{Cause, Rejected};
use super::{Credential, Identity, Principal, unix};

/// The most logout tokens that are remembered until they expire.
const SEEN_MAX: usize = 65_536;

/// The end of a login at an issuer, or of all logins of a principal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Logout {
    /// The login, as `issuer:sid`, where the issuer names it.
    pub(crate) login: Option<String>,
    /// Whose it was, as `issuer:subject`. One of the two is there.
    pub(crate) principal: Option<String>,
    /// When, in Unix seconds of the issuer's clock.
    pub(crate) issued_s: u64,
}

impl Logout {
    /// Whether the token of this principal came of what is over. One that names no login may have come of any of its subject's.
    pub(crate) fn covers(&self, principal: &Principal) -> bool {
        let of = principal.login();
        match (&self.login, &of.id) {
            (Some(over), Some(login)) => **over == **login,
            (Some(_), None) | (None, _) => {
                self.principal.as_deref() == Some(&**principal.id()) && of.issued_s <= self.issued_s
            }
        }
    }
}

/// The logout tokens that were taken, until they expire.
#[derive(Default)]
pub(super) struct Seen(Mutex<HashMap<String, u64>>);

impl Seen {
    /// Takes note of one; false where it was taken before.
    fn enter(&self, id: &str, until: u64, now: u64) -> bool {
        let mut seen = self.0.lock();
        if seen.len() >= SEEN_MAX {
            seen.retain(|_, until| *until > now);
        }
        // A logout that is told twice does what it did: with no room left, it is rather taken than refused.
        if seen.get(id).is_some_and(|until| *until > now) {
            return false;
        }
        if seen.len() < SEEN_MAX {
            seen.insert(id.to_owned(), until);
        }
        true
    }
}

/// A logout that was told and has not been acted on.
pub(crate) struct Told<'a> {
    pub(crate) logout: Logout,
    seen: &'a Seen,
    id: String,
}

impl Told<'_> {
    /// It could not be acted on: it may be told again.
    pub(crate) fn forget(self) {
        self.seen.0.lock().remove(&self.id);
    }
}

impl Identity {
    /// Verifies a logout token and says what is over. Each is taken once. It may wait for the issuer's keys, as
    /// [`Identity::verify`] does.
    ///
    /// # Errors
    /// [`Rejected`].
    pub(crate) async fn verify_logout(
        &self,
        credential: &Credential,
        now: SystemTime,
    ) -> Result<Told<'_>, Rejected> {
        let token = Unverified::parse(credential.expose())?;
        let issuer = &self.issuers[self.place(&token)?];
        let rejected = |rejected: Rejected| rejected.of(&issuer.name);
        let algorithm = issuer.algorithm(&token).map_err(rejected)?;
        let claims = issuer.rules.check_logout(&token, unix(now)).map_err(rejected)?;
        issuer.check_signature(&token, algorithm, now).await.map_err(rejected)?;
        let id = format!("{}:{}", issuer.name, claims.id);
        if !self.logouts.enter(&id, claims.until, unix(now)) {
            return Err(rejected(Rejected::new(Cause::Replayed, "this logout was told before")));
        }
        let named = |name: std::sync::Arc<str>| format!("{}:{name}", issuer.name);
        let logout = Logout {
            login: claims.sid.map(named),
            principal: claims.subject.map(named),
            issued_s: claims.issued_s,
        };
        Ok(Told { logout, seen: &self.logouts, id })
    }
}
