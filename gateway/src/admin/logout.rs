//! Where issuers tell that a login of theirs is over (OpenID Connect Back-Channel Logout 1.0, section 2.5).

use std::time::SystemTime;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Visit;
use super::answer::{Answer, Problem, json as answer};
use super::openapi::{object, text};
use super::token::Form;
use crate::identity::Credential;
use crate::session::Target;

/// Ends what came of the login. It is in the ledger first; a refusal is, too.
pub(super) async fn logout(visit: Visit) -> Answer {
    let gateway = visit.gateway();
    let bad = |detail: &'static str| Problem::oauth("invalid_request", detail);
    let form = Form::read(&visit)?;
    let token = form.one("logout_token")?.ok_or_else(|| bad("logout_token is missing"))?;
    let told = gateway.identity.verify_logout(&Credential::from(token.as_str()), SystemTime::now()).await;
    let told = told.map_err(|rejected| {
        gateway.refused_login(visit.source, super::RESOURCE, rejected.cause().name(), rejected.detail());
        bad("the logout token was not accepted")
    })?;
    let target = Target::Logout(told.logout.clone());
    match gateway.revoke(&target, "logged out at the issuer", "back-channel logout").await {
        Ok(ended) => {
            tracing::warn!(source = %visit.source, ?target, sessions = ended.sessions, "logged out");
            answer(StatusCode::OK, &json!({}))
        }
        // The issuer is told what the standard has for it, and may tell again.
        Err(_) => {
            told.forget();
            Err(Problem::oauth(
                "server_error",
                "the ledger cannot be written, and nothing is done unrecorded",
            ))
        }
    }
}

pub(super) fn takes() -> Value {
    object([("logout_token", text())], [])
}

pub(super) fn gives() -> Value {
    object([], [])
}
