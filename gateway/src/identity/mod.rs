//! Identity: from a [`Credential`] to a [`Principal`], by the tokens of OpenID Connect issuers.
//!
//! [`Identity::verify`] is the one door. It takes ID tokens and RFC 9068 access tokens of several issuers, each
//! with an audience of its own, and refuses everything else: see [`Cause`] for the list. It sets up no session,
//! knows no protocol and decides nothing; what a principal may do is policy's.
//!
//! What a newcomer gets wrong: the token's `iss` only selects the configuration to hold it against. Until the
//! signature is checked nothing that a token says is believed, and nothing of it reaches the caller except in
//! the operator's [`Rejected::detail`].

mod cache;
mod claims;
mod groups;
pub(crate) mod http;
mod introspect;
mod json;
mod jws;
mod keys;
mod logout;
mod own;
mod principal;
mod provider;
#[cfg(test)]
mod real_provider;
mod rejected;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openidconnect::url::Url;
use subtle::ConstantTimeEq as _;
use tokio::task::JoinSet;

use self::cache::{Cache, Verified};
pub(crate) use self::claims::LOGOUT_KEPT_SECONDS;
use self::claims::Rules;
use self::groups::GroupRules;
use self::http::Http;
pub(crate) use self::introspect::{Endpoint, Introspector};
pub use self::jws::TOKEN_BYTES_MAX;
use self::jws::Unverified;
pub use self::keys::Algorithm;
use self::keys::{Keys, SignatureVerdict};
pub(crate) use self::logout::Logout;
pub(crate) use self::own::OwnKeys;
pub(crate) use self::principal::Login;
use self::principal::Shown;
pub use self::principal::{Credential, Principal, PrincipalKind};
use self::provider::Provider;
pub(crate) use self::rejected::quoted;
pub use self::rejected::{Cause, Rejected};

/// The most verified tokens that are remembered, of all issuers together.
const REMEMBERED_MAX: usize = 8192;
/// The most clock skew that can be configured: it lengthens every token's life.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);
/// The least and the most time for which keys may serve without a fetch.
const KEYS_MAX_AGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 3600);

/// An issuer whose tokens are accepted.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// Its name in policies, in the ledger and in the ids of its principals; without a colon.
    pub name: String,
    /// Its issuer identifier, letter for letter as tokens name it in `iss`.
    pub url: String,
    /// The `aud` of ID tokens, and of workload tokens without a type; without it they are refused.
    pub audience: Option<String>,
    /// The `aud` of access tokens (`typ: at+jwt`); without it they are refused.
    pub access_token_audience: Option<String>,
    /// The clients that a token may have been given to (`azp`, `client_id`). For ID tokens they stand beside
    /// the audience itself; for access tokens an empty list means any client.
    pub authorized_parties: Vec<String>,
    /// The claim that holds groups; a JSON Pointer where it begins with a slash.
    pub groups_claim: Option<String>,
    /// Groups made of claims: `project_path` → `ci/{project_path}`.
    pub groups: BTreeMap<String, String>,
    /// What kind of subject it speaks for.
    pub principal: PrincipalKind,
    /// The certificates (PEM) that it is trusted by, instead of the public ones.
    pub ca: Option<Vec<u8>>,
    /// The signature algorithms that its tokens may use.
    pub algorithms: Vec<Algorithm>,
    /// The `aud` of its logout tokens; without it they are refused.
    pub logout_audience: Option<String>,
    /// Whether a principal keeps its token, to ask the issuer whether it still holds.
    pub keeps_tokens: bool,
    /// How far its clock may be from ours; at most five minutes.
    pub clock_skew: Duration,
    /// For how long keys serve after their last fetch, while it cannot be reached; a minute to thirty days.
    pub keys_max_age: Duration,
    /// Whether it may be asked over clear-text HTTP, on a loopback address.
    pub danger_http: bool,
}

impl IssuerConfig {
    /// An issuer with the default of everything that can be left out.
    #[must_use]
    pub fn new(name: impl Into<String>, url: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            audience: Some(audience.into()),
            access_token_audience: None,
            authorized_parties: Vec::new(),
            groups_claim: None,
            groups: BTreeMap::new(),
            principal: PrincipalKind::User,
            ca: None,
            algorithms: Algorithm::DEFAULT.to_vec(),
            logout_audience: None,
            keeps_tokens: false,
            clock_skew: Duration::from_secs(30),
            keys_max_age: Duration::from_secs(24 * 3600),
            danger_http: false,
        }
    }
}

/// The issuers that are known, their keys, and the tokens that were verified.
pub struct Identity {
    issuers: Vec<Issuer>,
    /// The place of each issuer by its URL.
    places: BTreeMap<String, usize>,
    remembered: Cache,
    logouts: logout::Seen,
}

#[derive(Clone)]
struct Issuer {
    name: Arc<str>,
    kind: PrincipalKind,
    algorithms: BTreeSet<Algorithm>,
    rules: Rules,
    groups: GroupRules,
    keeps_tokens: bool,
    provider: Arc<Provider>,
}

/// How it stands with one issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerState {
    /// The issuer's name.
    pub name: Arc<str>,
    /// How many of its keys can be used.
    pub keys: usize,
    /// When they were last fetched.
    pub fetched: Option<SystemTime>,
    /// Why the last fetch failed, where it did.
    pub failure: Option<String>,
}

impl Identity {
    /// Takes the issuers. No network is touched: keys are fetched by [`Identity::maintain`], or when a token
    /// first needs them.
    ///
    /// # Errors
    /// Every mistake of every issuer, each a lower-case fragment that begins with the issuer's name.
    pub fn new(configs: &[IssuerConfig]) -> Result<Self, Vec<String>> {
        let mut identity = Self {
            issuers: Vec::new(),
            places: BTreeMap::new(),
            remembered: Cache::new(REMEMBERED_MAX),
            logouts: logout::Seen::default(),
        };
        let mut mistakes = Vec::new();
        for config in configs {
            let mut mistaken =
                |mistake: String| mistakes.push(format!("issuer {:?}: {mistake}", config.name));
            if identity.issuers.iter().any(|issuer| *issuer.name == *config.name) {
                mistaken("the name stands twice".to_owned());
            }
            if identity.places.insert(config.url.clone(), identity.issuers.len()).is_some() {
                mistaken(format!("the url {:?} stands twice", config.url));
            }
            match Issuer::new(config) {
                Ok(issuer) => identity.issuers.push(issuer),
                Err(found) => found.into_iter().for_each(mistaken),
            }
        }
        if mistakes.is_empty() { Ok(identity) } else { Err(mistakes) }
    }

    /// Verifies a token and says who it speaks for.
    ///
    /// It may wait for the issuer's keys, for twenty seconds at most and only where the token passes every check
    /// but the signature's. A verified token is remembered; at each further use its times and the keys are
    /// compared anew. Cancel-safe.
    ///
    /// # Errors
    /// [`Rejected`], of which a client is told no more than [`Rejected::CLIENT_TEXT`].
    pub async fn verify(&self, credential: &Credential, now: SystemTime) -> Result<Arc<Principal>, Rejected> {
        let token = credential.expose();
        let digest = *blake3::hash(&token[..token.len().min(TOKEN_BYTES_MAX + 1)]).as_bytes();
        if let Some(principal) = self.recall(&digest, now)? {
            return Ok(principal);
        }
        let token = Unverified::parse(token)?;
        let place = self.place(&token)?;
        let issuer = &self.issuers[place];
        let rejected = |rejected: Rejected| rejected.of(&issuer.name);
        let (mut principal, keys) = issuer.verify(&token, now).await.map_err(rejected)?;
        if issuer.keeps_tokens {
            principal.shown = Shown(Some(Arc::new(Credential::new(credential.expose().to_vec()))));
        }
        let principal = Arc::new(principal);
        self.remembered.insert(digest, Verified { principal: Arc::clone(&principal), issuer: place, keys });
        Ok(principal)
    }

    /// Verifies the ID token that the issuer of this name made for one login, and says who it speaks for. Nothing of it is remembered: it is
    /// shown once.
    ///
    /// # Errors
    /// As [`Identity::verify`]; also where it is another issuer's, no ID token, or made for another login than the one that sent `nonce`
    /// (OpenID Connect Core, section 3.1.3.7, points 2 and 11).
    pub(crate) async fn verify_login(
        &self,
        issuer: &str,
        credential: &Credential,
        nonce: &str,
        now: SystemTime,
    ) -> Result<Arc<Principal>, Rejected> {
        let token = Unverified::parse(credential.expose())?;
        let of = &self.issuers[self.place(&token)?];
        let rejected = |cause, detail: &str| Rejected::new(cause, detail).of(&of.name);
        if *of.name != *issuer {
            return Err(rejected(Cause::UnknownIssuer, "people log in at another issuer"));
        }
        if token.header.typ.as_deref() == Some("at+jwt") {
            return Err(rejected(Cause::WrongPurpose, "an access token, and no ID token"));
        }
        let (principal, _) = of.verify(&token, now).await.map_err(|error| error.of(&of.name))?;
        match json::optional_str(&token.claims, "nonce") {
            Ok(Some(named)) if bool::from(named.as_bytes().ct_eq(nonce.as_bytes())) => {
                Ok(Arc::new(principal))
            }
            _ => Err(rejected(Cause::WrongNonce, "made for another login")),
        }
    }

    /// The same issuers and keys, for tokens that were made for another audience: what is accepted here is refused there.
    #[must_use]
    pub fn for_audience(&self, audience: &str) -> Identity {
        let issuers = self.issuers.iter().cloned().map(|mut issuer| {
            issuer.rules.audience = Some(audience.to_owned());
            issuer.rules.access_token_audience = Some(audience.to_owned());
            issuer.keeps_tokens = false;
            issuer
        });
        Identity {
            issuers: issuers.collect(),
            places: self.places.clone(),
            remembered: Cache::new(REMEMBERED_MAX),
            logouts: logout::Seen::default(),
        }
    }

    /// Keeps the keys of all issuers fresh for as long as it is polled; it never returns. Without it keys are
    /// fetched when a token needs them, and a withdrawn key serves until its keys are too old.
    pub async fn maintain(&self) {
        let mut issuers = JoinSet::new();
        for issuer in &self.issuers {
            issuers.spawn(Arc::clone(&issuer.provider).maintain(SystemTime::now, tokio::time::sleep));
        }
        while issuers.join_next().await.is_some() {}
        std::future::pending().await
    }

    /// How it stands with each issuer, in the order of the configuration.
    #[must_use]
    pub fn state(&self) -> Vec<IssuerState> {
        let state = |issuer: &Issuer| {
            let (fetched, keys, failure) = issuer.provider.state();
            IssuerState { name: Arc::clone(&issuer.name), keys, fetched, failure }
        };
        self.issuers.iter().map(state).collect()
    }

    /// A token that was verified with the keys that still hold, and whose time it is.
    fn recall(&self, digest: &[u8; 32], now: SystemTime) -> Result<Option<Arc<Principal>>, Rejected> {
        let Some(verified) = self.remembered.find(digest) else { return Ok(None) };
        let issuer = &self.issuers[verified.issuer];
        if !issuer.provider.keys(now).is_some_and(|keys| Arc::ptr_eq(&keys, &verified.keys)) {
            self.remembered.remove(digest);
            return Ok(None);
        }
        verified.principal.validity.check(unix(now)).map_err(|rejected| rejected.of(&issuer.name))?;
        Ok(Some(verified.principal))
    }

    fn place(&self, token: &Unverified<'_>) -> Result<usize, Rejected> {
        let unknown = |detail: String| Rejected::new(Cause::UnknownIssuer, detail);
        let url = json::optional_str(&token.claims, "iss").map_err(unknown)?;
        let url = url.ok_or_else(|| unknown("claim iss is missing".to_owned()))?;
        let place = self.places.get(url).copied();
        place.ok_or_else(|| unknown(format!("{} is not configured", quoted(url))))
    }
}

impl Issuer {
    fn new(config: &IssuerConfig) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let name_fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if config.name.is_empty() || config.name.len() > 64 || !config.name.chars().all(name_fits) {
            mistakes.push("a name is 1 to 64 letters, digits, '-', '_', '.'".to_owned());
        }
        let http = Http::new(config.ca.as_deref(), config.danger_http)
            .map_err(|error| mistakes.push(format!("ca: {error}")))
            .ok();
        match (Url::parse(&config.url), &http) {
            (Err(error), _) => mistakes.push(format!("url: {error}")),
            (Ok(url), _) if url.query().is_some() || url.fragment().is_some() => {
                mistakes.push("url: an issuer's URL has neither a query nor a fragment".to_owned());
            }
            (Ok(url), Some(http)) => {
                http.permits(&url).unwrap_or_else(|error| mistakes.push(format!("url: {error}")));
            }
            (Ok(_), None) => {}
        }
        let audiences = [&config.audience, &config.access_token_audience];
        if audiences.iter().all(|audience| audience.is_none()) {
            mistakes.push("neither audience nor access_token_audience is set".to_owned());
        }
        if audiences.into_iter().flatten().any(String::is_empty) {
            mistakes.push("an audience is empty".to_owned());
        }
        if config.algorithms.is_empty() {
            mistakes.push("algorithms is empty".to_owned());
        }
        if config.clock_skew > CLOCK_SKEW_MAX {
            mistakes.push(format!("clock_skew is more than {} s", CLOCK_SKEW_MAX.as_secs()));
        }
        if !KEYS_MAX_AGE.contains(&config.keys_max_age) {
            let (least, most) = (KEYS_MAX_AGE.start().as_secs(), KEYS_MAX_AGE.end().as_secs());
            mistakes.push(format!("keys_max_age is not between {least} s and {most} s"));
        }
        let groups = GroupRules::new(config.groups_claim.as_deref(), &config.groups)
            .map_err(|found| mistakes.extend(found))
            .ok();
        let (Some(http), Some(groups), true) = (http, groups, mistakes.is_empty()) else {
            return Err(mistakes);
        };
        let name: Arc<str> = config.name.as_str().into();
        Ok(Self {
            name: Arc::clone(&name),
            kind: config.principal,
            algorithms: config.algorithms.iter().copied().collect(),
            rules: Rules {
                audience: config.audience.clone(),
                access_token_audience: config.access_token_audience.clone(),
                authorized_parties: config.authorized_parties.clone(),
                logout_audience: config.logout_audience.clone(),
                clock_skew_seconds: config.clock_skew.as_secs(),
            },
            groups,
            keeps_tokens: config.keeps_tokens,
            provider: Arc::new(Provider::new(name, config.url.clone(), http, config.keys_max_age)),
        })
    }

    /// The cheap checks come first, so that only a token that lacks nothing but a known key causes a fetch.
    async fn verify(
        &self,
        token: &Unverified<'_>,
        now: SystemTime,
    ) -> Result<(Principal, Arc<Keys>), Rejected> {
        let algorithm = self.algorithm(token)?;
        let claims = self.rules.check(token, unix(now))?;
        let groups = self.groups.groups(&token.claims);
        let groups = groups.map_err(|error| Rejected::new(Cause::BadClaim, error))?;
        let keys = self.check_signature(token, algorithm, now).await?;
        // Of what is signed, and not of the signature: of some algorithms whoever holds one can make another (ECDSA's s and n - s).
        let token_id = claims
            .token_id
            .unwrap_or_else(|| format!("blake3:{}", blake3::hash(token.signed).to_hex()).into());
        let principal = Principal {
            kind: self.kind,
            id: format!("{}:{}", self.name, claims.subject).into(),
            issuer: Arc::clone(&self.name),
            subject: claims.subject,
            name: claims.name,
            groups,
            client: claims.client,
            token_id,
            login: Login {
                id: claims.sid.map(|sid| format!("{}:{sid}", self.name).into()),
                issued_s: claims.issued_s,
            },
            validity: claims.validity,
            shown: Shown::default(),
        };
        Ok((principal, keys))
    }

    fn algorithm(&self, token: &Unverified<'_>) -> Result<Algorithm, Rejected> {
        let named = &token.header.algorithm;
        let algorithm = named.parse().ok().filter(|algorithm| self.algorithms.contains(algorithm));
        algorithm.ok_or_else(|| Rejected::new(Cause::AlgorithmNotAllowed, quoted(named)))
    }

    /// Tries the keys that are there, and once more after a fetch where none of them fits.
    async fn check_signature(
        &self,
        token: &Unverified<'_>,
        algorithm: Algorithm,
        now: SystemTime,
    ) -> Result<Arc<Keys>, Rejected> {
        let kid = token.header.kid.as_deref();
        let check = |keys: &Keys| keys.verify(kid, algorithm, token.signed, &token.signature);
        let mut keys = self.provider.keys(now);
        let mut verdict = keys.as_deref().map_or(SignatureVerdict::NoKey, check);
        if verdict == SignatureVerdict::NoKey {
            let unreachable = |error| Rejected::new(Cause::ProviderUnreachable, error);
            self.provider.fetch(now).await.map_err(unreachable)?;
            keys = self.provider.keys(now);
            verdict = keys.as_deref().map_or(SignatureVerdict::NoKey, check);
        }
        let no_key = |detail: String| Err(Rejected::new(Cause::UnknownKey, detail));
        match (verdict, keys) {
            (SignatureVerdict::Good, Some(keys)) => Ok(keys),
            (SignatureVerdict::Bad, _) => {
                Err(Rejected::new(Cause::BadSignature, format!("by {algorithm} and the issuer's key")))
            }
            (SignatureVerdict::Ambiguous, _) => no_key("it names no key, and several fit".to_owned()),
            (SignatureVerdict::NoKey | SignatureVerdict::Good, _) => {
                let named = kid.map_or_else(|| "no key id".to_owned(), rejected::quoted);
                no_key(format!("{named} with {algorithm} is not among the issuer's keys"))
            }
        }
    }
}

fn unix(now: SystemTime) -> u64 {
    // A clock before 1970 makes every token not yet valid.
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
