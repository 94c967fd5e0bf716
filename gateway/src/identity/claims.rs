//! What a token says, held against what its issuer's configuration expects. The signature is not looked at here.
//!
//! ID tokens and access tokens are kept apart by their header's `typ` (RFC 9068 section 2.1), and each has an
//! audience of its own: a token that was made for one use is never taken for the other.

use std::sync::Arc;

use serde_json::Value;

use super::json::{self, Object};
use super::jws::Unverified;
use super::principal::Validity;
use super::rejected::{Cause, Rejected, quoted};

/// The last second of the year 9999: what is later is no time.
pub(super) const SECONDS_MAX: u64 = 253_402_300_799;
/// The longest subject. OpenID Connect Core allows 255, which branch names in CI tokens exceed.
const SUBJECT_BYTES_MAX: usize = 1024;
/// The longest name for people, and the longest id of a token that is used as it is.
const NAME_BYTES_MAX: usize = 128;

/// The member of `events` that makes a token a logout token.
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// How long a logout is remembered. Where an issuer tells of logouts, no token of it may live longer.
pub(crate) const LOGOUT_KEPT_SECONDS: u64 = 31 * 86_400;

/// What one issuer's tokens must say.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) audience: Option<String>,
    pub(super) access_token_audience: Option<String>,
    pub(super) authorized_parties: Vec<String>,
    pub(super) logout_audience: Option<String>,
    pub(super) clock_skew_seconds: u64,
}

/// The claims that make a principal.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) subject: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) client: Option<Arc<str>>,
    pub(super) token_id: Option<Arc<str>>,
    /// The issuer's name for the login (`sid`), where the issuer tells of logouts.
    pub(super) sid: Option<Arc<str>>,
    pub(super) issued_s: u64,
    pub(super) validity: Validity,
}

/// The claims of a logout token.
#[derive(Debug)]
pub(super) struct LoggedOut {
    pub(super) id: Arc<str>,
    pub(super) sid: Option<Arc<str>>,
    pub(super) subject: Option<Arc<str>>,
    pub(super) issued_s: u64,
    /// The first second at which it is refused as expired.
    pub(super) until: u64,
}

impl Rules {
    pub(super) fn check(&self, token: &Unverified<'_>, now: u64) -> Result<Accepted, Rejected> {
        let claims = &token.claims;
        let audiences = audiences(claims)?;
        let client = client(claims)?;
        match token.header.typ.as_deref() {
            None | Some("jwt") => self.check_id_token(&audiences, client)?,
            Some("at+jwt") => self.check_access_token(&audiences, client)?,
            Some(other) => {
                return Err(Rejected::new(Cause::WrongPurpose, format!("a token of type {}", quoted(other))));
            }
        }
        check_meaning(claims)?;
        let validity = self.validity(claims)?;
        validity.check(now)?;
        let issued_s = date(claims, "iat")?.map_or(0, |date| date.floor);
        let mut sid = None;
        if self.logout_audience.is_some() {
            if validity.until.saturating_sub(issued_s) > LOGOUT_KEPT_SECONDS {
                let days = LOGOUT_KEPT_SECONDS / 86_400;
                return Err(bad(format!(
                    "it lives for more than {days} days, for which a logout is remembered"
                )));
            }
            sid = named(claims, "sid", SUBJECT_BYTES_MAX)?;
        }
        let subject = subject(claims)?;
        let name = ["preferred_username", "email", "name"]
            .iter()
            .find_map(|claim| claims.get(*claim)?.as_str().filter(|name| fit_to_show(name, NAME_BYTES_MAX)))
            .map_or_else(|| Arc::clone(&subject), Arc::from);
        let token_id = json::optional_str(claims, "jti").map_err(bad)?;
        let token_id =
            token_id.filter(|id| fit_to_show(id, NAME_BYTES_MAX)).map(|id| format!("jti:{id}").into());
        Ok(Accepted { subject, name, client: client.map(Arc::from), token_id, sid, issued_s, validity })
    }

    /// A logout token: OpenID Connect Back-Channel Logout 1.0, section 2.6.
    pub(super) fn check_logout(&self, token: &Unverified<'_>, now: u64) -> Result<LoggedOut, Rejected> {
        let claims = &token.claims;
        let wrong = |detail: &str| Rejected::new(Cause::WrongPurpose, detail);
        match token.header.typ.as_deref() {
            None | Some("jwt" | "logout+jwt") => {}
            Some(other) => return Err(wrong(&format!("a token of type {}", quoted(other)))),
        }
        let Some(expected) = &self.logout_audience else {
            return Err(wrong("no logout_audience is configured for this issuer"));
        };
        check_audience(&audiences(claims)?, expected)?;
        let validity = self.validity(claims)?;
        validity.check(now)?;
        let event = claims.get("events").and_then(|events| events.get(LOGOUT_EVENT));
        if !event.is_some_and(Value::is_object) {
            return Err(wrong("it tells of no logout (claim events)"));
        }
        if claims.contains_key("nonce") {
            return Err(wrong("it has a nonce, as an ID token has and a logout token must not"));
        }
        let sid = named(claims, "sid", SUBJECT_BYTES_MAX)?;
        let subject = claims.contains_key("sub").then(|| subject(claims)).transpose()?;
        if sid.is_none() && subject.is_none() {
            return Err(Rejected::new(Cause::NoSubject, "neither sub nor sid is there"));
        }
        let id = named(claims, "jti", SUBJECT_BYTES_MAX)?.ok_or_else(|| bad("claim jti is missing"))?;
        let issued_s = date(claims, "iat")?.map_or(0, |date| date.floor);
        Ok(LoggedOut { id, sid, subject, issued_s, until: validity.until })
    }

    /// OpenID Connect Core section 3.1.3.7, points 3 to 5. Another audience beside ours could replay the token
    /// here, so it takes an authorized party that we know.
    fn check_id_token(&self, audiences: &[&str], party: Option<&str>) -> Result<(), Rejected> {
        let Some(expected) = &self.audience else {
            let detail = "no access token, and no audience is configured for others";
            return Err(Rejected::new(Cause::WrongPurpose, detail));
        };
        check_audience(audiences, expected)?;
        match party {
            Some(party) if party == expected || self.authorized(party) => Ok(()),
            Some(party) => {
                let detail = format!("the token was given to {}", quoted(party));
                Err(Rejected::new(Cause::WrongParty, detail))
            }
            None if audiences.len() > 1 => {
                Err(Rejected::new(Cause::WrongParty, "several audiences and no authorized party (azp)"))
            }
            None => Ok(()),
        }
    }

    /// RFC 9068 section 4.
    fn check_access_token(&self, audiences: &[&str], client: Option<&str>) -> Result<(), Rejected> {
        let Some(expected) = &self.access_token_audience else {
            let detail = "an access token, and no access_token_audience is configured";
            return Err(Rejected::new(Cause::WrongPurpose, detail));
        };
        check_audience(audiences, expected)?;
        if self.authorized_parties.is_empty() || client.is_some_and(|client| self.authorized(client)) {
            return Ok(());
        }
        let detail = format!("the token was given to {}", client.map_or_else(|| "nobody".to_owned(), quoted));
        Err(Rejected::new(Cause::WrongParty, detail))
    }

    fn authorized(&self, party: &str) -> bool {
        self.authorized_parties.iter().any(|authorized| authorized == party)
    }

    fn validity(&self, claims: &Object) -> Result<Validity, Rejected> {
        let missing = |name| bad(format!("claim {name} is missing"));
        let expires = date(claims, "exp")?.ok_or_else(|| missing("exp"))?;
        let issued = date(claims, "iat")?.ok_or_else(|| missing("iat"))?;
        let from = date(claims, "nbf")?.map_or(issued.ceiling, |date| date.ceiling.max(issued.ceiling));
        Ok(Validity {
            from: from.saturating_sub(self.clock_skew_seconds),
            until: expires.floor + self.clock_skew_seconds,
        })
    }
}

impl Validity {
    /// # Errors
    /// [`Cause::Expired`] or [`Cause::NotYetValid`].
    pub(super) fn check(self, now: u64) -> Result<(), Rejected> {
        if now >= self.until {
            let detail = format!("for {} s, clock skew included", now - self.until);
            return Err(Rejected::new(Cause::Expired, detail));
        }
        if now < self.from {
            let detail = format!("{} s too early, clock skew included", self.from - now);
            return Err(Rejected::new(Cause::NotYetValid, detail));
        }
        Ok(())
    }
}

/// Refuses claims that change what a token means, and that we would have to understand to honour.
fn check_meaning(claims: &Object) -> Result<(), Rejected> {
    for (claim, meaning) in [
        ("events", "it tells of an event (a logout token, RFC 8417)"),
        ("act", "its bearer acts for the subject (RFC 8693), and delegation is not known here"),
        ("cnf", "it is bound to a key (RFC 7800), and the proof of possession is not checked here"),
    ] {
        if claims.contains_key(claim) {
            return Err(Rejected::new(Cause::WrongPurpose, meaning));
        }
    }
    Ok(())
}

fn check_audience(audiences: &[&str], expected: &str) -> Result<(), Rejected> {
    if audiences.contains(&expected) {
        return Ok(());
    }
    let named: Vec<String> = audiences.iter().take(8).map(|audience| quoted(audience)).collect();
    let named = if named.is_empty() { "nobody".to_owned() } else { named.join(", ") };
    let detail = format!("made for {named}, expected {}", quoted(expected));
    Err(Rejected::new(Cause::WrongAudience, detail))
}

fn audiences(claims: &Object) -> Result<Vec<&str>, Rejected> {
    let unusable = || bad("claim aud is neither a string nor an array of strings");
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(audience)) => Ok(vec![audience]),
        Some(Value::Array(array)) => {
            array.iter().map(|audience| audience.as_str().ok_or_else(unusable)).collect()
        }
        Some(_) => Err(unusable()),
    }
}

/// Who the token was given to: `azp` of OpenID Connect, `client_id` of RFC 9068.
fn client(claims: &Object) -> Result<Option<&str>, Rejected> {
    let party = json::optional_str(claims, "azp").map_err(bad)?;
    let client = json::optional_str(claims, "client_id").map_err(bad)?;
    match (party, client) {
        (Some(party), Some(client)) if party != client => {
            Err(bad(format!("azp {} and client_id {} differ", quoted(party), quoted(client))))
        }
        _ => Ok(party.or(client)),
    }
}

/// A name that the issuer gives something, where it does: a claim that must be fit to be kept.
fn named(claims: &Object, name: &str, bytes_max: usize) -> Result<Option<Arc<str>>, Rejected> {
    let Some(text) = json::optional_str(claims, name).map_err(bad)? else { return Ok(None) };
    if !fit_to_show(text, bytes_max) {
        return Err(bad(format!("claim {name} is empty, too long, or holds control characters")));
    }
    Ok(Some(text.into()))
}

fn subject(claims: &Object) -> Result<Arc<str>, Rejected> {
    let nobody = |detail: &str| Rejected::new(Cause::NoSubject, detail);
    let subject = claims.get("sub").ok_or_else(|| nobody("claim sub is missing"))?;
    let subject = subject.as_str().ok_or_else(|| nobody("claim sub is not a string"))?;
    if !fit_to_show(subject, SUBJECT_BYTES_MAX) {
        let detail = "claim sub is empty, too long, or holds control characters";
        return Err(nobody(detail));
    }
    Ok(subject.into())
}

fn fit_to_show(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control)
}

/// A NumericDate (RFC 7519 section 2), which may have a fraction.
struct Date {
    floor: u64,
    ceiling: u64,
}

fn date(claims: &Object, name: &str) -> Result<Option<Date>, Rejected> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let wrong = || bad(format!("claim {name} is no time"));
    if let Some(seconds) = value.as_u64() {
        return (seconds <= SECONDS_MAX)
            .then_some(Some(Date { floor: seconds, ceiling: seconds }))
            .ok_or_else(wrong);
    }
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0).ok_or_else(wrong)?;
    let span = std::time::Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    if span.as_secs() >= SECONDS_MAX {
        return Err(wrong());
    }
    Ok(Some(Date { floor: span.as_secs(), ceiling: span.as_secs() + u64::from(span.subsec_nanos() > 0) }))
}

fn bad(detail: impl Into<String>) -> Rejected {
    Rejected::new(Cause::BadClaim, detail)
}
