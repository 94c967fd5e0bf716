//! Who stays out: what was revoked and could come again. The ledger is the store of it; this is what a start derives from there.

use std::collections::{HashMap, HashSet};

use super::Target;
use crate::identity::{LOGOUT_KEPT_SECONDS, Logout, Principal};

/// Who stays out.
#[derive(Debug, Clone, Default)]
pub(crate) struct StayOut {
    principals: HashSet<String>,
    groups: HashSet<String>,
    tokens: HashSet<String>,
    /// Logins at issuers that are over, as `issuer:sid`.
    logins: HashMap<String, u64>,
    /// Principals whose tokens that name no login are over, if they were issued by then.
    nameless: HashMap<String, u64>,
    /// Principals all of whose tokens are over, if they were issued by then.
    logged_out: HashMap<String, u64>,
}

impl StayOut {
    /// What was revoked stays out, where it is something that could come again.
    pub(crate) fn add(&mut self, target: &Target) {
        match target {
            Target::Principal(id) => drop(self.principals.insert(id.clone())),
            Target::Group(name) => drop(self.groups.insert(name.clone())),
            Target::Token(id) => drop(self.tokens.insert(id.clone())),
            Target::Logout(logout) => self.log_out(logout),
            Target::Resource(_) | Target::Session(_) | Target::Delegation(_) => {}
        }
    }

    fn log_out(&mut self, logout: &Logout) {
        let of_principal = match &logout.login {
            Some(login) => {
                note(&mut self.logins, login, logout.issued_s);
                &mut self.nameless
            }
            None => &mut self.logged_out,
        };
        if let Some(principal) = &logout.principal {
            note(of_principal, principal, logout.issued_s);
        }
    }

    /// A principal's tokens that name no login stay out, if they were issued by then.
    pub(crate) fn log_out_nameless(&mut self, principal: &str, issued_s: u64) {
        note(&mut self.nameless, principal, issued_s);
    }

    /// The principals, the groups and the tokens that stay out.
    pub(crate) fn all(&self) -> [&HashSet<String>; 3] {
        [&self.principals, &self.groups, &self.tokens]
    }

    /// What was logged out, and when: logins, principals as far as their tokens name no login, and principals with all of theirs.
    pub(crate) fn logouts(&self) -> [&HashMap<String, u64>; 3] {
        [&self.logins, &self.nameless, &self.logged_out]
    }

    /// Whether this principal stays out, whatever its token says.
    pub(crate) fn has_principal(&self, id: &str) -> bool {
        self.principals.contains(id)
    }

    /// Whether this principal, or a group that it is in, or its token, or the login that this came of, stays out.
    pub(crate) fn has(&self, principal: &Principal) -> bool {
        let id = &**principal.id();
        let login = principal.login();
        let over =
            |principals: &HashMap<String, u64>| principals.get(id).is_some_and(|at| login.issued_s <= *at);
        self.has_principal(id)
            || self.tokens.contains(&**principal.token_id())
            || principal.groups().iter().any(|group| self.groups.contains(&**group))
            || over(&self.logged_out)
            || login
                .id
                .as_deref()
                .map_or_else(|| over(&self.nameless), |login| self.logins.contains_key(login))
    }
}

/// The latest counts; and what no token can be older than is forgotten.
fn note(known: &mut HashMap<String, u64>, id: &str, issued_s: u64) {
    let at = known.entry(id.to_owned()).or_default();
    *at = issued_s.max(*at);
    // Each time would be work in the square of them.
    if known.len().is_power_of_two() {
        known.retain(|_, at| at.saturating_add(LOGOUT_KEPT_SECONDS) >= issued_s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Login, PrincipalKind};

    fn token(login: Option<&str>, issued_s: u64) -> Principal {
        let login = Login { id: login.map(Into::into), issued_s };
        Principal::recorded(PrincipalKind::User, "idp", "lee", "lee", [], "jti:1", u64::MAX).with_login(login)
    }

    fn logout(login: Option<&str>, principal: Option<&str>) -> Logout {
        Logout { login: login.map(Into::into), principal: principal.map(Into::into), issued_s: 100 }
    }

    #[test]
    fn a_logout_ends_the_tokens_of_its_login_and_no_later_one() {
        let (this, that, none) = (Some("idp:a"), Some("idp:b"), None);
        for (logout, out, stays) in [
            (
                logout(this, Some("idp:lee")),
                vec![(this, 99), (this, 101), (none, 100)],
                vec![(that, 99), (none, 101)],
            ),
            (logout(this, None), vec![(this, 99)], vec![(that, 99), (none, 99)]),
            (logout(None, Some("idp:lee")), vec![(this, 100), (none, 100)], vec![(this, 101), (none, 101)]),
            (logout(None, Some("idp:mia")), vec![], vec![(this, 99), (none, 99)]),
        ] {
            let mut stay_out = StayOut::default();
            stay_out.add(&Target::Logout(logout.clone()));
            for (tokens, is_out) in [(&out, true), (&stays, false)] {
                for (login, issued_s) in tokens {
                    let token = token(*login, *issued_s);
                    let told = format!("{logout:?} {login:?} {issued_s}");
                    assert_eq!((stay_out.has(&token), logout.covers(&token)), (is_out, is_out), "{told}");
                }
            }
        }
    }

    #[test]
    fn what_no_token_can_be_older_than_is_forgotten() {
        let mut stay_out = StayOut::default();
        for second in 0..10_000 {
            let login = Some(format!("idp:{second}"));
            let issued_s = second * 3600;
            stay_out.add(&Target::Logout(Logout { login, principal: None, issued_s }));
        }
        let [logins, ..] = stay_out.logouts();
        assert!(logins.contains_key("idp:9999") && !logins.contains_key("idp:1") && logins.len() < 4096);
        let kept = 9999 - LOGOUT_KEPT_SECONDS / 3600;
        assert!((kept..10_000).all(|second| logins.contains_key(&format!("idp:{second}"))));
    }
}
