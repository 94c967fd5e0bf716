//! Why a credential was not accepted: a cause to count and to record, a detail for the operator, and one
//! constant text for whoever presented it.

use std::fmt;
use std::sync::Arc;

/// What kind of fault it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// It is no compact, signed JSON Web Token, or holds a member that stands twice.
    Malformed,
    /// It is longer than [`super::TOKEN_BYTES_MAX`].
    Oversized,
    /// No configured issuer has the URL that it names.
    UnknownIssuer,
    /// Its algorithm is not on the issuer's list. Unsigned tokens and shared secrets never are.
    AlgorithmNotAllowed,
    /// It demands a header extension that we do not know (`crit`).
    CriticalHeader,
    /// It was made for something else: its type, or a claim that changes what it means.
    WrongPurpose,
    /// It was made for another audience.
    WrongAudience,
    /// It was given to a client that may not present it here (`azp`, `client_id`).
    WrongParty,
    /// It was made for another login (`nonce`).
    WrongNonce,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It names nobody.
    NoSubject,
    /// A claim that must be there is not, or has a form that it must not have.
    BadClaim,
    /// The issuer publishes no key that could have signed it.
    UnknownKey,
    /// The signature is not the key's.
    BadSignature,
    /// It may be shown once, and was.
    Replayed,
    /// The issuer's keys are needed and cannot be had.
    ProviderUnreachable,
}

impl Cause {
    /// All causes, in the order of their declaration.
    pub const ALL: [Cause; 17] = [
        Cause::Malformed,
        Cause::Oversized,
        Cause::UnknownIssuer,
        Cause::AlgorithmNotAllowed,
        Cause::CriticalHeader,
        Cause::WrongPurpose,
        Cause::WrongAudience,
        Cause::WrongParty,
        Cause::WrongNonce,
        Cause::Expired,
        Cause::NotYetValid,
        Cause::NoSubject,
        Cause::BadClaim,
        Cause::UnknownKey,
        Cause::BadSignature,
        Cause::Replayed,
        Cause::ProviderUnreachable,
    ];

    /// The cause as ledger, metrics and logs spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cause::Malformed => "malformed",
            Cause::Oversized => "oversized",
            Cause::UnknownIssuer => "unknown_issuer",
            Cause::AlgorithmNotAllowed => "algorithm_not_allowed",
            Cause::CriticalHeader => "critical_header",
            Cause::WrongPurpose => "wrong_purpose",
            Cause::WrongAudience => "wrong_audience",
            Cause::WrongParty => "wrong_party",
            Cause::WrongNonce => "wrong_nonce",
            Cause::Expired => "expired",
            Cause::NotYetValid => "not_yet_valid",
            Cause::NoSubject => "no_subject",
            Cause::BadClaim => "bad_claim",
            Cause::UnknownKey => "unknown_key",
            Cause::BadSignature => "bad_signature",
            Cause::Replayed => "replayed",
            Cause::ProviderUnreachable => "provider_unreachable",
        }
    }
}

/// A credential was not accepted.
///
/// `Display` is for the operator: it may quote claims, escaped and cut, but never the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    cause: Cause,
    detail: String,
    issuer: Option<Arc<str>>,
}

impl Rejected {
    /// The whole of what a client is told, whatever the cause.
    pub const CLIENT_TEXT: &'static str = "the token was not accepted";

    pub(super) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into(), issuer: None }
    }

    /// A refusal of a credential of the gateway's own making.
    pub(crate) fn of_ours(cause: Cause, detail: impl Into<String>) -> Self {
        Self::new(cause, detail)
    }

    pub(super) fn of(mut self, issuer: &Arc<str>) -> Self {
        self.issuer = Some(Arc::clone(issuer));
        self
    }

    /// What kind of fault it was.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// What was wrong, as a lower-case fragment for the operator.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The configured issuer that the credential names, where it names one. It need not come from there.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.issuer {
            Some(issuer) => write!(f, "issuer {issuer}: {}: {}", self.cause.name(), self.detail),
            None => write!(f, "{}: {}", self.cause.name(), self.detail),
        }
    }
}

impl std::error::Error for Rejected {}

/// Foreign text for an operator's eyes: escaped, so that it cannot steer a terminal, and cut.
pub(crate) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 96;
    match text.char_indices().nth(CHARS_MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}
