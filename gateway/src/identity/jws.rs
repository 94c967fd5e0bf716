//! The compact form of a signed token (RFC 7515 section 7.1), taken apart and not yet believed.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::json::{self, Object};
use super::rejected::{Cause, Rejected, quoted};

/// The longest token that is looked at.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// The longest key id in a header.
const KID_BYTES_MAX: usize = 512;

/// A token of which nothing was verified.
pub(super) struct Unverified<'a> {
    pub(super) header: Header,
    pub(super) claims: Object,
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
}

/// The header's members that decide. Keys that a token brings along (`jwk`, `jku`, `x5c`, `x5u`) are not read.
pub(super) struct Header {
    pub(super) algorithm: String,
    pub(super) kid: Option<String>,
    /// In lower case and without `application/` (RFC 7515 section 4.1.9).
    pub(super) typ: Option<String>,
}

impl<'a> Unverified<'a> {
    pub(super) fn parse(token: &'a [u8]) -> Result<Self, Rejected> {
        if token.len() > TOKEN_BYTES_MAX {
            let detail = format!("{} bytes, where {TOKEN_BYTES_MAX} are looked at", token.len());
            return Err(Rejected::new(Cause::Oversized, detail));
        }
        let dots: Vec<usize> = (0..token.len()).filter(|at| token[*at] == b'.').collect();
        let [first, second] = dots[..] else {
            let detail = match dots.len() {
                4 => "an encrypted token".to_owned(),
                dots => format!("{} parts instead of three", dots + 1),
            };
            return Err(malformed(detail));
        };
        let header = Header::parse(&token[..first])?;
        let claims = part("the claims", &token[first + 1..second])?;
        let claims = json::object(&claims).map_err(|error| malformed(format!("the claims: {error}")))?;
        let signature = part("the signature", &token[second + 1..])?;
        Ok(Self { header, claims, signed: &token[..second], signature })
    }
}

impl Header {
    fn parse(encoded: &[u8]) -> Result<Self, Rejected> {
        let wrong = |error: String| malformed(format!("the header: {error}"));
        let header = json::object(&part("the header", encoded)?).map_err(wrong)?;
        if header.contains_key("crit") {
            let detail = "the header demands extensions that are not known here";
            return Err(Rejected::new(Cause::CriticalHeader, detail));
        }
        if let Some(content) = json::optional_str(&header, "cty").map_err(wrong)? {
            return Err(Rejected::new(Cause::WrongPurpose, format!("its content is {}", quoted(content))));
        }
        let algorithm = json::optional_str(&header, "alg").map_err(wrong)?;
        let algorithm = algorithm.ok_or_else(|| wrong("member alg is missing".to_owned()))?.to_owned();
        let kid = json::optional_str(&header, "kid").map_err(wrong)?;
        if kid.is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
            return Err(wrong(format!("member kid is longer than {KID_BYTES_MAX} bytes")));
        }
        let typ = json::optional_str(&header, "typ").map_err(wrong)?.map(|typ| {
            let typ = typ.to_ascii_lowercase();
            typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned)
        });
        Ok(Self { algorithm, kid: kid.map(str::to_owned), typ })
    }
}

/// Base64url without padding, and with one spelling only: no stray bits at the end.
fn part(name: &str, encoded: &[u8]) -> Result<Vec<u8>, Rejected> {
    BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed(format!("{name}: no base64url")))
}

fn malformed(detail: impl Into<String>) -> Rejected {
    Rejected::new(Cause::Malformed, detail)
}
