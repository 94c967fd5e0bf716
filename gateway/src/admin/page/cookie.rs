//! Cookies (RFC 6265bis): read strictly, and written so that only this very host, over TLS, has them back, and no script sees them.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::HeaderMap;
use hyper::header::{COOKIE, HeaderValue, SET_COOKIE};
use hyper::http::request::Parts;
use zeroize::Zeroizing;

/// What a cookie is known by here: the hash of its value, so that whoever reads the memory of this process cannot show the cookie.
pub(super) type Known = [u8; 32];

/// 32 random bytes, as text.
///
/// # Panics
/// Where the operating system has no randomness.
pub(super) fn random() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).expect("the operating system has randomness");
    Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*bytes))
}

/// What a value is known by.
pub(super) fn known(value: &str) -> Known {
    *blake3::hash(value.as_bytes()).as_bytes()
}

/// The value of a cookie; none where it stands twice, as one of them is somebody else's.
pub(super) fn find<'h>(head: &'h Parts, name: &str) -> Option<&'h str> {
    let headers = head.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = headers.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value);
    values.next().filter(|_| values.next().is_none())
}

/// Has the browser keep a cookie for so long.
pub(super) fn set(headers: &mut HeaderMap, name: &str, value: &str, same_site: &str, life: Duration) {
    let text =
        format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite={same_site}; Max-Age={}", life.as_secs());
    // Names and values are ours, and plain.
    if let Ok(mut value) = HeaderValue::try_from(text) {
        value.set_sensitive(true);
        headers.append(SET_COOKIE, value);
    }
}

/// Has the browser forget a cookie.
pub(super) fn clear(headers: &mut HeaderMap, name: &str) {
    set(headers, name, "", "Strict", Duration::ZERO);
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    #[test]
    fn a_cookie_that_stands_twice_is_none() {
        let head = |cookies: &[&str]| {
            let mut request = Request::new(());
            for cookie in cookies {
                let value = HeaderValue::from_str(cookie).expect("a header");
                request.headers_mut().append(COOKIE, value);
            }
            request.into_parts().0
        };
        assert_eq!(find(&head(&["a=1; __Host-x=2"]), "__Host-x"), Some("2"));
        assert_eq!(find(&head(&["a=1", "__Host-x=2=="]), "__Host-x"), Some("2=="));
        assert_eq!(find(&head(&["__Host-x=2; __Host-x=3"]), "__Host-x"), None);
        assert_eq!(find(&head(&["__Host-x=2", "__Host-x=2"]), "__Host-x"), None);
        assert_eq!(find(&head(&["__host-x=2; x=3"]), "__Host-x"), None);
    }

    #[test]
    fn two_random_values_differ() {
        let (one, other) = (random(), random());
        assert_eq!(one.len(), 43);
        assert_ne!(known(&one), known(&other));
    }
}
