//! Handing down rights over HTTP: token exchange (RFC 8693), token revocation (RFC 7009), and the keys (RFC 7517).
//!
//! Whoever asks shows a token for sessions, their own or one that was handed down to them; a token for this server does not
//! count, and one of these opens nothing else here. Every refusal is in the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use openidconnect::url::form_urlencoded;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Visit;
use super::answer::{Answer, Problem, json as answer};
use super::openapi::{list, number, object, text};
use crate::delegation::{Caller, Delegation, Delegations, Refused, Wanted};
use crate::identity::{Credential, Principal};
use crate::policy::ScopeText;
use crate::session::Target;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// What a token that is shown may be called (RFC 8693, section 3): they are told apart by what they are.
const TOKEN_TYPES: [&str; 3] =
    [JWT, "urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:access_token"];

/// A form: each value of each name, in the order sent.
pub(super) struct Form(BTreeMap<String, Vec<Zeroizing<String>>>);

impl Form {
    pub(super) fn read(visit: &Visit) -> Result<Form, Problem> {
        let kind =
            visit.head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(bad("the body must be application/x-www-form-urlencoded"));
        }
        let mut form: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(&visit.body) {
            form.entry(name.into_owned()).or_default().push(Zeroizing::new(value.into_owned()));
        }
        Ok(Form(form))
    }

    /// The value of a name that stands once at most; one without a value is left out (RFC 6749, section 3.2).
    pub(super) fn one(&self, name: &str) -> Result<Option<&Zeroizing<String>>, Problem> {
        match self.0.get(name).map(Vec::as_slice) {
            None | Some([]) => Ok(None),
            Some([value]) => Ok(Some(value).filter(|value| !value.is_empty())),
            Some(_) => Err(bad(format!("{name} stands twice"))),
        }
    }

    /// All values of a name.
    fn all(&self, name: &str) -> Vec<String> {
        self.0.get(name).into_iter().flatten().map(|value| value.to_string()).collect()
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let read =
            |value: &Zeroizing<String>| value.parse().map_err(|_| bad(format!("{name} is a whole number")));
        self.one(name)?.map(read).transpose()
    }

    /// A token, and what it is called.
    fn token(&self, name: &'static str) -> Result<Option<Credential>, Problem> {
        let kind = self.one(&format!("{name}_type"))?;
        let Some(token) = self.one(name)? else { return Ok(None) };
        if !kind.is_some_and(|kind| TOKEN_TYPES.contains(&kind.as_str())) {
            return Err(bad(format!(
                "{name}_type is missing, or is none that is taken: {}",
                TOKEN_TYPES.join(", ")
            )));
        }
        Ok(Some(Credential::from(token.as_str())))
    }
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::oauth("invalid_request", detail.into())
}

fn delegations(visit: &Visit) -> Result<&Delegations, Problem> {
    visit.gateway().delegations.as_ref().ok_or_else(Problem::not_found)
}

/// Exchanges a token for one that can do less.
pub(super) async fn exchange(visit: Visit) -> Answer {
    let delegations = delegations(&visit)?;
    let form = Form::read(&visit)?;
    if form.one("grant_type")?.is_none_or(|grant| grant.as_str() != GRANT) {
        return Err(Problem::oauth("unsupported_grant_type", format!("grant_type must be {GRANT}")));
    }
    if form.one("requested_token_type")?.is_some_and(|kind| !TOKEN_TYPES.contains(&kind.as_str())) {
        return Err(bad(format!("requested_token_type: {JWT} is what there is")));
    }
    if form.0.contains_key("resource") {
        return Err(Problem::oauth(
            "invalid_target",
            "name resources by audience: they have names here, and no URIs",
        ));
    }
    let Some(subject) = form.token("subject_token")? else { return Err(bad("subject_token is missing")) };
    let actor = form.token("actor_token")?;
    let wanted = wanted(&form)?;
    let caller = caller(&visit, &subject).await?;
    let actor = match actor {
        None => None,
        Some(credential) => Some(actor_of(&visit, &credential).await?),
    };
    let made = visit.gateway().delegate(delegations, &caller, actor, wanted, visit.source).await;
    let (delegation, token) = made.map_err(|refused| problem(&refused))?;
    let left = delegation.expires.duration_since(SystemTime::now()).unwrap_or_default();
    answer(
        StatusCode::OK,
        &json!({
            "access_token": token.as_str(),
            "issued_token_type": JWT,
            "token_type": "N_A",
            "expires_in": left.as_secs(),
            "scope": delegation.text.actions.join(" "),
            "delegation": *delegation.id,
        }),
    )
}

pub(super) fn exchange_takes() -> Value {
    object(
        [
            ("grant_type", json!({ "const": GRANT })),
            ("subject_token", text()),
            ("subject_token_type", json!({ "enum": TOKEN_TYPES })),
        ],
        [
            ("actor_token", text()),
            ("actor_token_type", json!({ "enum": TOKEN_TYPES })),
            ("requested_token_type", json!({ "enum": TOKEN_TYPES })),
            ("audience", list(text())),
            ("scope", text()),
            ("role", list(text())),
            ("table", list(text())),
            ("rows", number()),
            ("commands", number()),
            ("expires_in", number()),
            ("depth", number()),
            ("name", text()),
        ],
    )
}

pub(super) fn exchange_gives() -> Value {
    object(
        [
            ("access_token", text()),
            ("issued_token_type", text()),
            ("token_type", text()),
            ("expires_in", number()),
            ("scope", text()),
            ("delegation", text()),
        ],
        [],
    )
}

fn wanted(form: &Form) -> Result<Wanted, Problem> {
    let several = |name: &str| Some(form.all(name)).filter(|values| !values.is_empty());
    let actions = form.one("scope")?.map(|scope| scope.split(' ').map(str::to_owned).collect());
    let further = form.number("depth")?.unwrap_or(0);
    Ok(Wanted {
        scope: ScopeText {
            resources: form.all("audience"),
            actions: actions.unwrap_or_default(),
            roles: several("role"),
            tables: several("table"),
            rows: form.number("rows")?,
        },
        ttl: form.number("expires_in")?.map(Duration::from_secs),
        commands: form.number("commands")?,
        further: u8::try_from(further).map_err(|_| bad("depth is deeper than allowed"))?,
        name: form.one("name")?.map(|name| name.to_string()),
    })
}

/// Who asks. A refusal is recorded as a refused login is.
async fn caller(visit: &Visit, credential: &Credential) -> Result<Caller, Problem> {
    let gateway = visit.gateway();
    let refused = |cause, detail: &str| {
        gateway.refused_login(visit.source, super::RESOURCE, cause, detail);
        bad("the token was not accepted")
    };
    let verified = gateway.authenticate(credential, SystemTime::now()).await;
    let caller = verified.map_err(|rejected| refused(rejected.cause().name(), rejected.detail()))?;
    match gateway.revoked_of(&caller) {
        Some(who) => Err(refused("revoked", &who)),
        None => Ok(caller),
    }
}

/// Who shall act: somebody with a token of an issuer, and no delegation of their own in it.
async fn actor_of(visit: &Visit, credential: &Credential) -> Result<Arc<Principal>, Problem> {
    let caller = caller(visit, credential).await?;
    if caller.delegation.is_some() {
        return Err(bad("actor_token must say who the actor is: a token of an issuer"));
    }
    Ok(caller.principal)
}

fn problem(refused: &Refused) -> Problem {
    let reason = refused.reason().to_owned();
    match refused {
        Refused::Request(_) | Refused::Over => bad(reason),
        Refused::Target(_) => Problem::oauth("invalid_target", reason),
        Refused::Scope(_) => Problem::oauth("invalid_scope", reason),
        Refused::Policy => Problem::oauth("unauthorized_client", reason),
        Refused::TooMany => Problem::new(StatusCode::TOO_MANY_REQUESTS, reason),
        Refused::Unrecorded => Problem::unrecorded(),
    }
}

/// Ends what a token was handed down for: whoever holds it may. A token that is over already is no mistake (RFC 7009, section 2.2).
pub(super) async fn revoke(visit: Visit) -> Answer {
    let delegations = delegations(&visit)?;
    let form = Form::read(&visit)?;
    let Some(token) = form.one("token")? else { return Err(bad("token is missing")) };
    let credential = Credential::from(token.as_str());
    let now = SystemTime::now();
    let found = delegations.keys.verify(&credential, now).ok().and_then(|id| delegations.find(&id, now));
    if let Some(delegation) = found {
        let by = format!("{} from {}", delegation.id, visit.source.ip());
        let ended = visit.gateway().end_delegation(&delegation.id, &by).await;
        ended.map_err(|_| Problem::unrecorded())?;
    }
    answer(StatusCode::OK, &json!({}))
}

pub(super) fn revoke_takes() -> Value {
    object([("token", text())], [("token_type_hint", text())])
}

pub(super) fn revoke_gives() -> Value {
    object([], [])
}

/// The keys that sign what is handed down.
pub(super) async fn keys(visit: Visit) -> Answer {
    answer(StatusCode::OK, &delegations(&visit)?.keys.published())
}

pub(super) fn keys_schema() -> Value {
    object([("keys", list(json!({ "type": "object" })))], [])
}

/// The delegations that live.
pub(super) async fn all(visit: Visit, _: Arc<Principal>) -> Answer {
    let all: Vec<Value> = delegations(&visit)?.all().iter().map(|delegation| told(delegation)).collect();
    answer(StatusCode::OK, &json!({ "delegations": all }))
}

fn told(delegation: &Delegation) -> Value {
    let seconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let text = &delegation.text;
    json!({
        "delegation": *delegation.id,
        "parent": delegation.parent.as_ref().map(|parent| parent.id.to_string()),
        "principal": **delegation.principal.id(),
        "actor": delegation.actor.as_ref().map(|actor| actor.id().to_string()),
        "name": delegation.name.as_deref(),
        "resources": text.resources,
        "actions": text.actions,
        "roles": text.roles,
        "tables": text.tables,
        "rows": text.rows,
        "commands": delegation.commands.as_ref().map(|commands| commands.max),
        "commands_used": delegation.commands.as_ref().map(|commands| commands.used()),
        "depth": delegation.further,
        "created_s": seconds(delegation.created),
        "expires_s": seconds(delegation.expires),
    })
}

pub(super) fn all_schema() -> Value {
    object([("delegations", list(json!({ "type": "object" })))], [])
}

/// Ends one, by an operator.
pub(super) async fn end(visit: Visit, by: Arc<Principal>) -> Answer {
    let delegations = delegations(&visit)?;
    let Some(id) = visit.place.first() else { return Err(Problem::not_found()) };
    if delegations.find(id, SystemTime::now()).is_none() {
        return Err(Problem::new(StatusCode::NOT_FOUND, "no such delegation lives"));
    }
    let ended = visit.gateway().revoke(&Target::Delegation(id.clone()), "", by.id()).await;
    let ended = ended.map_err(|_| Problem::unrecorded())?;
    answer(StatusCode::OK, &json!({ "sessions": ended.sessions }))
}

pub(super) fn end_gives() -> Value {
    object([("sessions", number())], [])
}
