//! Telling others of requests for approval: a signed message for each thing that happens, delivered in order, and again where it fails.
//!
//! What a newcomer gets wrong: a webhook decides nothing and holds nothing up. Each has a task and a bounded queue of its own; what it
//! missed is in the ledger, and a gap shows by its numbers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use openidconnect::HttpRequest;
use openidconnect::http::{HeaderValue, Method};
use openidconnect::url::Url;
use ring::hmac;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Approvals, Happened, Shown, seconds};
use crate::config::WebhookConfig;
use crate::identity::http::Http;

/// How many messages wait for a receiver.
const QUEUE_MAX: usize = 1_000;
/// How often a message is tried.
const TRIES_MAX: u32 = 10;
/// The pause after the first failure; each further one is twice as long, up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The shortest secret.
const SECRET_BYTES_MIN: usize = 16;
/// How much of a statement a message for people holds.
const STATEMENT_CHARACTERS_MAX: usize = 2_000;
/// How much of anything else.
const FIELD_CHARACTERS_MAX: usize = 500;

/// Tells each of these from now on; `page` is where people answer in a browser.
pub(crate) fn tell_webhooks(approvals: &Approvals, webhooks: &[WebhookConfig], page: Option<&str>) {
    for (number, config) in webhooks.iter().enumerate() {
        let happened = approvals.tell(QUEUE_MAX);
        let page = page.map(str::to_owned);
        let webhook = Webhook { number: number + 1, config: config.clone(), page, delivery: 0 };
        tokio::spawn(webhook.run(happened));
    }
}

struct Webhook {
    /// Its place in the configuration, from 1: its URL may be a credential, and is never logged.
    number: usize,
    config: WebhookConfig,
    page: Option<String>,
    /// Counts messages from 1.
    delivery: u64,
}

/// Why a message was not taken.
enum Failure {
    /// It may be taken later.
    Later(String),
    /// It never will.
    Never(String),
}

fn never(why: &str) -> Failure {
    Failure::Never(why.to_owned())
}

impl Webhook {
    async fn run(mut self, mut happened: mpsc::Receiver<Arc<Happened>>) {
        while let Some(happened) = happened.recv().await {
            self.delivery += 1;
            let page = self.page.as_ref().filter(|_| happened.event == "approval.requested");
            let page = page.map(|page| format!("{page}/#{}", happened.approval.id));
            let mut body = match self.config.slack {
                true => slack(&happened, page.as_deref()),
                false => json!({
                    "delivery": self.delivery,
                    "event": happened.event,
                    "time_s": seconds(SystemTime::now()),
                    "approval": happened.approval,
                }),
            };
            if let Some(page) = page.filter(|_| !self.config.slack) {
                body["page"] = page.into();
            }
            self.deliver(&body).await;
        }
    }

    async fn deliver(&self, body: &Value) {
        let body = body.to_string().into_bytes();
        let mut pause = PAUSE_FIRST;
        for tried in 1..=TRIES_MAX {
            let (why, last) = match self.send(&body).await {
                Ok(()) => return,
                Err(Failure::Later(why)) => (why, tried == TRIES_MAX),
                Err(Failure::Never(why)) => (why, true),
            };
            let (webhook, delivery) = (self.number, self.delivery);
            if last {
                tracing::error!(webhook, delivery, tried, why, "a webhook was not told");
                return;
            }
            tracing::warn!(
                webhook,
                delivery,
                tried,
                why,
                "a webhook does not take a message; it is tried again"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One try. References are read each time, so that what was rotated holds at once.
    async fn send(&self, body: &[u8]) -> Result<(), Failure> {
        let http = Http::new(self.config.ca.as_deref(), self.config.danger_http).map_err(Failure::Later)?;
        let unread = |error: crate::config::SecretError| Failure::Later(error.to_string());
        let url = self.config.url.read().await.map_err(unread)?;
        let secret = self.config.secret.read().await.map_err(unread)?;
        let secret = secret.trim().as_bytes();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(never("its secret is shorter than 16 bytes"));
        }
        // Neither the URL nor what is wrong with it in detail is told: it may be a credential.
        let url = Url::parse(url.trim()).map_err(|_| never("its URL is none"))?;
        http.permits(&url).map_err(|_| never("its URL must be https, without user and password"))?;
        let timestamp = seconds(SystemTime::now()).to_string();
        let mut request = HttpRequest::new(body.to_vec());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.as_str().parse().map_err(|_| never("its URL is none"))?;
        for (name, value) in [
            ("content-type", "application/json".to_owned()),
            ("gatebook-delivery", self.delivery.to_string()),
            ("gatebook-signature", signature(secret, &timestamp, body)),
            ("gatebook-timestamp", timestamp),
        ] {
            let value = HeaderValue::try_from(value).map_err(|_| never("a header cannot be written"))?;
            request.headers_mut().insert(name, value);
        }
        let answer = http.send(request).await.map_err(|_| Failure::Later("it cannot be reached".into()))?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            status @ (408 | 425 | 429 | 500..=599) => Err(Failure::Later(format!("it answered {status}"))),
            status => Err(Failure::Never(format!("it answered {status}"))),
        }
    }
}

/// `v1=` and HMAC-SHA-256 (RFC 2104) over the timestamp, a dot and the body, in hex.
fn signature(secret: &[u8], timestamp: &str, body: &[u8]) -> String {
    let mut signed = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    signed.update(timestamp.as_bytes());
    signed.update(b".");
    signed.update(body);
    let hex: String = signed.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={hex}")
}

/// The same for people: a message of Slack's blocks. What callers wrote stands in plain text or in code, and means nothing there.
fn slack(happened: &Happened, page: Option<&str>) -> Value {
    let shown = &happened.approval;
    let head = match happened.event {
        "approval.requested" => format!("Approval wanted: {}", shown.id),
        "glass.broken" => "GLASS BROKEN".to_owned(),
        _ => format!("{}: {}", shown.id, shown.state),
    };
    let statements: Vec<&str> = shown.commands.iter().map(|command| &*command.statement).collect();
    let statement = short(&statements.join(";\n"), STATEMENT_CHARACTERS_MAX);
    let plain = |text: &str| json!({ "type": "plain_text", "text": short(text, FIELD_CHARACTERS_MAX), "emoji": false });
    let mut fields = vec![
        plain(&format!("Who: {}", who(shown))),
        plain(&format!("Where: {} as {}", shown.resource, shown.role)),
        plain(&format!("Approvers: {}", shown.approvers.join(", and "))),
    ];
    fields.extend(shown.reason.iter().map(|reason| plain(&format!("Why: {reason}"))));
    let code = escaped(&statement).replace('`', "'");
    let mut next = vec![plain(&format!("gatebook approvals show {}", shown.id))];
    next.extend(
        page.map(|page| json!({ "type": "mrkdwn", "text": format!("<{page}|answer in the browser>") })),
    );
    json!({
        "text": escaped(&format!("{head}: {}", who(shown))),
        "blocks": [
            { "type": "header", "text": plain(&head) },
            { "type": "section", "fields": fields },
            { "type": "section", "text": { "type": "mrkdwn", "text": format!("```{code}```"), "verbatim": true } },
            { "type": "context", "elements": next },
        ],
    })
}

fn short(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn who(shown: &Shown) -> String {
    let through = shown.through.iter().map(|actor| format!(" through {actor}"));
    shown.principal.clone() + &through.collect::<String>()
}

/// The three characters that Slack gives a meaning (Slack, "Formatting text for app surfaces").
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approval::shown::ShownCommand;

    #[test]
    fn the_signature_is_hmac_sha_256_over_timestamp_dot_and_body() {
        let signed = signature(b"a secret of some length", "1700000000", b"{}");
        let whole =
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"a secret of some length"), b"1700000000.{}");
        let hex: String = whole.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(signed, format!("v1={hex}"));
        assert_ne!(signature(b"key", "1", b"2.3"), signature(b"key", "12", b".3"));
    }

    #[test]
    fn what_a_caller_wrote_means_nothing_to_slack() {
        let command = ShownCommand {
            statement: "```<!channel> & <https://evil.example|approve here>```".into(),
            sent: None,
            cut: false,
            parameters: Vec::new(),
            actions: Vec::new(),
            kind: "update".into(),
            reads: false,
            has_where: true,
        };
        let approval = Shown {
            id: "7Q5K-M2XW".into(),
            principal: "corp:<!here>".into(),
            approvers: vec!["dba".into()],
            commands: vec![command],
            ..Shown::default()
        };
        let page = "https://gw.example/#7Q5K-M2XW";
        let message = slack(&Happened { event: "approval.requested", approval }, Some(page));
        assert_eq!(message["blocks"][3]["elements"][1]["text"], format!("<{page}|answer in the browser>"));
        let code = message["blocks"][2]["text"]["text"].as_str().expect("a text");
        assert!(!code.contains('<') && code.matches('`').count() == 6, "{code}");
        assert!(!message["text"].as_str().expect("a text").contains('<'));
        assert_eq!(message["blocks"][1]["fields"][0]["type"], "plain_text");
    }
}
