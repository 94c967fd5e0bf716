//! Logins that are under way: what each was begun with, kept here, bound to one browser, and taken once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::cookie::{self, Known};

/// How many may be under way at once, and of one address: the oldest is given up for another.
const LOGINS_MAX: usize = 4096;
const LOGINS_OF_ONE_MAX: usize = 32;

/// What a login was begun with.
pub(super) struct Login {
    /// Says that who comes back was sent by us (RFC 6749, section 10.12).
    pub(super) state: Zeroizing<String>,
    /// Stands in the token that is made for this login (OpenID Connect Core, section 3.1.2.1).
    pub(super) nonce: Zeroizing<String>,
    /// Says that who brings the code is who asked for it (RFC 7636).
    pub(super) verifier: Zeroizing<String>,
}

impl Login {
    fn new() -> Login {
        Login { state: cookie::random(), nonce: cookie::random(), verifier: cookie::random() }
    }

    /// The verifier's hash, which is shown first (RFC 7636, section 4.2: `S256`).
    pub(super) fn challenge(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.as_bytes()))
    }
}

/// What is shown of a login to whoever is asked to carry it out.
pub(super) struct Begun {
    pub(super) state: Zeroizing<String>,
    pub(super) nonce: Zeroizing<String>,
    pub(super) challenge: String,
}

struct Entry {
    login: Login,
    source: IpAddr,
    began: Instant,
}

/// The logins under way, by what their browser's cookie is known by.
pub(super) struct Logins {
    wait: Duration,
    entries: Mutex<HashMap<Known, Entry>>,
}

impl Logins {
    /// None yet; each may take so long.
    pub(super) fn new(wait: Duration) -> Logins {
        Logins { wait, entries: Mutex::default() }
    }

    /// Begins one; gives back its browser's cookie.
    pub(super) fn begin(&self, source: IpAddr, now: Instant) -> (Zeroizing<String>, Begun) {
        let (value, login) = (cookie::random(), Login::new());
        let begun =
            Begun { state: login.state.clone(), nonce: login.nonce.clone(), challenge: login.challenge() };
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| now.duration_since(entry.began) < self.wait);
        give_up_oldest(&mut entries, LOGINS_OF_ONE_MAX, |entry| entry.source == source);
        give_up_oldest(&mut entries, LOGINS_MAX, |_| true);
        entries.insert(cookie::known(&value), Entry { login, source, began: now });
        (value, begun)
    }

    /// Takes the one that was begun in the browser with this cookie. It is gone then.
    pub(super) fn take(&self, value: &str, now: Instant) -> Option<Login> {
        let entry = self.entries.lock().remove(&cookie::known(value))?;
        (now.duration_since(entry.began) < self.wait).then_some(entry.login)
    }
}

/// Makes room for one more among those that are `counted`.
fn give_up_oldest(entries: &mut HashMap<Known, Entry>, most: usize, counted: impl Fn(&Entry) -> bool) {
    if entries.values().filter(|entry| counted(entry)).count() < most {
        return;
    }
    let oldest = entries.iter().filter(|(_, entry)| counted(entry)).min_by_key(|(_, entry)| entry.began);
    if let Some(oldest) = oldest.map(|(known, _)| *known) {
        entries.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(600);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_login_is_taken_once_and_in_time() {
        let (logins, now) = (Logins::new(WAIT), Instant::now());
        let (cookie, begun) = logins.begin(address(1), now);
        assert!(logins.take(&cookie::random(), now).is_none(), "another browser");
        let login = logins.take(&cookie, now).expect("its own browser");
        assert_eq!((&login.state, &login.nonce), (&begun.state, &begun.nonce));
        assert_eq!(login.challenge(), begun.challenge);
        assert!(logins.take(&cookie, now).is_none(), "once");
        let (cookie, _) = logins.begin(address(1), now);
        assert!(logins.take(&cookie, now + WAIT).is_none(), "too late");
    }

    #[test]
    fn no_two_logins_share_anything() {
        let (logins, now) = (Logins::new(WAIT), Instant::now());
        let (one, first) = logins.begin(address(1), now);
        let (other, second) = logins.begin(address(1), now);
        assert!(one != other && first.state != second.state && first.nonce != second.nonce);
        assert!(first.challenge != second.challenge && first.state != first.nonce);
    }

    /// RFC 7636, appendix B.
    #[test]
    fn the_challenge_is_the_hash_of_the_verifier() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let login = Login { verifier: Zeroizing::new(verifier), ..Login::new() };
        assert_eq!(login.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn one_address_cannot_push_out_the_logins_of_others() {
        let (logins, now) = (Logins::new(WAIT), Instant::now());
        let (kept, _) = logins.begin(address(1), now);
        let later = |number: u64| now + Duration::from_millis(number);
        let many: Vec<_> = (1..=100).map(|number| logins.begin(address(2), later(number)).0).collect();
        assert!(logins.take(&kept, now).is_some());
        let left = many.iter().filter(|cookie| logins.take(cookie, now + WAIT / 2).is_some()).count();
        assert_eq!(left, LOGINS_OF_ONE_MAX);
    }
}
