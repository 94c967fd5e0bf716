//! Who is there: the [`Principal`], and the [`Credential`] that was presented for it.
//!
//! A `Principal` has no public maker. Whoever holds one knows that a token was verified for it, which is why
//! policy and the session take one and never a name.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

/// What kind of subject an issuer speaks for; the name of a Cedar entity type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A job, a workload, a machine.
    Service,
}

impl PrincipalKind {
    /// The kind as policy and ledger spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PrincipalKind::User => "User",
            PrincipalKind::Service => "Service",
        }
    }
}

/// An authenticated subject. Only [`super::Identity::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub(super) kind: PrincipalKind,
    pub(super) id: Arc<str>,
    pub(super) issuer: Arc<str>,
    pub(super) subject: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) groups: Arc<[Arc<str>]>,
    pub(super) client: Option<Arc<str>>,
    pub(super) token_id: Arc<str>,
    pub(super) login: Login,
    pub(super) validity: Validity,
    pub(super) shown: Shown,
}

/// The login at the issuer that a token came of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Login {
    /// As `issuer:sid`, where the token names it and its issuer tells of logouts.
    pub(crate) id: Option<Arc<str>>,
    /// When the token was issued, in Unix seconds of the issuer's clock.
    pub(crate) issued_s: u64,
}

/// The token itself, kept where its issuer is asked whether it still holds. It shows nothing, and decides nothing about who
/// a principal is.
#[derive(Clone, Default)]
pub(super) struct Shown(pub(super) Option<Arc<Credential>>);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

impl PartialEq for Shown {
    fn eq(&self, _: &Shown) -> bool {
        true
    }
}

impl Eq for Shown {}

impl Principal {
    /// Whether it is a person or a workload.
    #[must_use]
    pub fn kind(&self) -> PrincipalKind {
        self.kind
    }

    /// The id that policy, revocation and the ledger use: `{issuer}:{subject}`. An issuer's name holds no
    /// colon, so the first one parts the two.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The configured name of the issuer, not its URL.
    #[must_use]
    pub fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    /// The token's `sub`.
    #[must_use]
    pub fn subject(&self) -> &Arc<str> {
        &self.subject
    }

    /// A name to show to people. It decides nothing, and two principals may share it.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The groups that the issuer's configuration draws from the token, sorted and without doubles.
    #[must_use]
    pub fn groups(&self) -> &Arc<[Arc<str>]> {
        &self.groups
    }

    /// The OAuth client that the token was given to, where the token says so.
    #[must_use]
    pub fn client(&self) -> Option<&Arc<str>> {
        self.client.as_ref()
    }

    /// Names the token and tells nothing about it: `jti:` with its own id, or `blake3:` with the hash of what is signed of it.
    #[must_use]
    pub fn token_id(&self) -> &Arc<str> {
        &self.token_id
    }

    /// The first moment at which the token is accepted, clock skew included.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.validity.from)
    }

    /// The first moment at which the token is refused, clock skew included: when its sessions must end.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.validity.until)
    }

    /// The login that the token came of.
    #[must_use]
    pub(crate) fn login(&self) -> &Login {
        &self.login
    }

    /// The token itself, where its issuer is to be asked whether it still holds.
    #[must_use]
    pub(crate) fn shown(&self) -> Option<&Arc<Credential>> {
        self.shown.0.as_ref()
    }

    /// A principal as the ledger kept it, for what was handed down before a restart. It was verified then, and the ledger is what
    /// nobody changes unseen; nothing else may make one.
    pub(crate) fn recorded(
        kind: PrincipalKind,
        issuer: &str,
        subject: &str,
        name: &str,
        groups: impl IntoIterator<Item = Arc<str>>,
        token_id: &str,
        until: u64,
    ) -> Self {
        Self {
            kind,
            id: format!("{issuer}:{subject}").into(),
            issuer: issuer.into(),
            subject: subject.into(),
            name: name.into(),
            groups: groups.into_iter().collect(),
            client: None,
            token_id: token_id.into(),
            login: Login::default(),
            validity: Validity { from: 0, until },
            shown: Shown::default(),
        }
    }

    /// The same, by this login, as the ledger kept that too.
    pub(crate) fn with_login(self, login: Login) -> Self {
        Self { login, ..self }
    }

    /// A principal that nobody verified, for tests of what comes after identity.
    #[cfg(test)]
    pub(crate) fn for_test(kind: PrincipalKind, issuer: &str, subject: &str, groups: &[&str]) -> Self {
        let groups: std::collections::BTreeSet<Arc<str>> =
            groups.iter().map(|group| Arc::from(*group)).collect();
        Self {
            kind,
            id: format!("{issuer}:{subject}").into(),
            issuer: issuer.into(),
            subject: subject.into(),
            name: subject.into(),
            groups: groups.into_iter().collect(),
            client: None,
            token_id: "jti:test".into(),
            login: Login::default(),
            validity: Validity { from: 0, until: super::claims::SECONDS_MAX },
            shown: Shown::default(),
        }
    }
}

/// The half-open span of Unix seconds in which a token is accepted, clock skew included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: u64,
    pub(super) until: u64,
}

/// What a client presented. It is wiped when dropped, and has neither `Debug` nor `Display`.
pub struct Credential(Zeroizing<Vec<u8>>);

impl Credential {
    /// Takes what was presented as a bearer token: for PostgreSQL the password, without its terminator.
    #[must_use]
    pub fn new(token: impl Into<Zeroizing<Vec<u8>>>) -> Self {
        Self(token.into())
    }

    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Credential {
    fn from(token: &str) -> Self {
        Self(Zeroizing::new(token.as_bytes().to_vec()))
    }
}
