//! From the ledger's events to the app's words. An event that this version cannot read is a note with its name.

use std::borrow::Cow;

use gatebook_ledger::entry::{Entry, Kind};
use gatebook_ledger::event::{
    self, CommandBody, CommandPayload, Decoded, OutcomeBody, OutcomePayload, Passed, Principal,
    SessionClosedBody, SessionOpenedBody, SessionOpenedPayload, Text,
};

use serde_json::Value;

use super::{NAME_BYTES_MAX, shorten};
use crate::figures;
use crate::message::{Decision, Ending, Note, Outcome, Parameter, SessionRow};

/// What an entry's public part says.
pub(super) enum Head {
    Command { request: u64, prepare: bool, decision: Decision },
    Outcome { request: u64, outcome: Outcome },
    Closed { reason: String },
    Note(Note),
}

/// What an entry's private part says, with what of the public part is worth a line.
#[derive(Default)]
pub(super) struct Words {
    pub(super) statement: Vec<u8>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) policies: Vec<String>,
    pub(super) answer: String,
    pub(super) facts: Vec<(String, String)>,
}

/// Reads the public part.
pub(super) fn head(entry: &Entry<'_>) -> Head {
    let head = match entry.header.kind {
        event::COMMAND => serde_json::from_slice(entry.body).ok().map(|body| command_head(&body)),
        event::OUTCOME => serde_json::from_slice(entry.body).ok().map(|body| outcome_head(entry, &body)),
        Kind::SESSION_CLOSED => serde_json::from_slice(entry.body)
            .ok()
            .map(|body: SessionClosedBody<'_>| Head::Closed { reason: cut(&body.reason) }),
        Kind::SESSION_OPENED => Some(Head::Note(Note::Opened)),
        event::REVOCATION | event::CANCEL => Some(Head::Note(Note::Revoked)),
        event::APPROVAL_REQUESTED => Some(Head::Note(Note::Asked)),
        event::APPROVAL_ANSWERED | event::APPROVAL_USED => Some(Head::Note(Note::Answered)),
        event::APPROVAL_LAPSED => Some(Head::Note(Note::Lapsed)),
        event::GLASS_BROKEN => Some(Head::Note(Note::GlassBroken)),
        Kind::GAP => Some(Head::Note(Note::Gap)),
        _ => None,
    };
    head.unwrap_or_else(|| Head::Note(Note::Other(name(entry.header.kind))))
}

fn command_head(body: &CommandBody<'_>) -> Head {
    let decision = match &*body.decision {
        "permit" => Decision::Permit,
        "refuse" => Decision::Refuse,
        "shadow_refuse" => Decision::ShadowRefuse,
        _ => Decision::Unknown,
    };
    Head::Command { request: body.request, prepare: body.phase == "prepare", decision }
}

fn outcome_head(entry: &Entry<'_>, body: &OutcomeBody<'_>) -> Head {
    let ending = match &*body.ending {
        "completed" => Ending::Completed,
        "suspended" => Ending::Suspended,
        "failed" => Ending::Failed,
        "cut" => Ending::Cut,
        "skipped" => Ending::Skipped,
        "refused" => Ending::Refused,
        _ => Ending::Unknown,
    };
    let outcome = Outcome {
        seq: entry.header.seq,
        at_ns: entry.header.time_ns,
        ending,
        rows: body.rows,
        bytes: body.bytes,
        duration_us: body.duration_us,
    };
    Head::Outcome { request: body.request, outcome }
}

fn name(kind: Kind) -> String {
    event::kind_name(kind).map_or_else(|| format!("event {}", kind.0), str::to_owned)
}

/// Fills a session's row from its opening. A payload that is not `sound` is not what was recorded, and is not shown.
pub(super) fn opened(row: &mut SessionRow, entry: &Entry<'_>, payload: &[u8], sound: bool) {
    if let Ok(body) = serde_json::from_slice::<SessionOpenedBody<'_>>(entry.body) {
        row.protocol = cut(&body.protocol);
    }
    row.opened_ns = entry.header.time_ns;
    let read = serde_json::from_slice::<SessionOpenedPayload<'_>>(payload);
    match read {
        Ok(payload) if sound => {
            row.principal = principal_name(&payload.principal);
            row.through = payload.actors.iter().map(principal_name).collect();
            row.resource = cut(&payload.resource);
            row.database = cut(&payload.database);
            row.role = cut(&payload.role);
            row.client_address = cut(&payload.source);
            row.application = cut(&payload.application);
        }
        _ if payload.is_empty() && sound => row.principal = "(not stored)".to_owned(),
        _ => {
            row.principal = "(not what was recorded)".to_owned();
            row.broken += 1;
        }
    }
}

fn cut(name: &str) -> String {
    let mut name = name.to_owned();
    shorten(&mut name, NAME_BYTES_MAX);
    name
}

fn principal_name(principal: &Principal<'_>) -> String {
    let name = if principal.name.is_empty() { &principal.subject } else { &principal.name };
    if principal.issuer.is_empty() { cut(name) } else { cut(&format!("{}:{name}", principal.issuer)) }
}

/// Reads everything of an entry.
///
/// # Errors
/// Why it cannot be read, in words.
pub(super) fn words(entry: &Entry<'_>, payload: &[u8]) -> Result<Words, String> {
    let kind = entry.header.kind;
    let payload = (!payload.is_empty()).then_some(payload);
    let decoded = event::decode(kind, entry.body, payload)
        .map_err(|error| format!("{} is not spelled as this program knows it: {error}", name(kind)))?;
    Ok(match decoded {
        Decoded::Command(body, Some(payload)) => command(&body, &payload),
        Decoded::Command(_, None) => return Err("the statement is not stored".to_owned()),
        Decoded::Outcome(_, payload) => payload.map_or_else(Words::default, |payload| outcome(&payload)),
        Decoded::SessionOpened(body, Some(payload)) => session_opened(&body, &payload),
        Decoded::SessionOpened(_, None) => return Err("who opened it is not stored".to_owned()),
        Decoded::SessionClosed(body) => session_closed(&body),
        Decoded::Cancel(payload) => sentence(format!("cancel asked for from {}", payload.source)),
        Decoded::LoginRefused(body, payload) => {
            let times = figures::counted(body.count, "time", "times");
            let mut words = sentence(format!("login refused {times}: {}", body.cause));
            if let Some(payload) = payload {
                words
                    .statement
                    .extend(format!(", {} from {}", payload.resource, payload.source).into_bytes());
                words.fact("detail", &payload.detail);
            }
            words
        }
        Decoded::ApprovalRequested(body, payload) => {
            let quorum = figures::counted(body.quorum, "person", "persons");
            let mut words = sentence(format!("approval {} asked of {quorum} for #{}", body.id, body.request));
            if let Some(payload) = payload {
                let demands: Vec<String> = payload.demands.iter().map(ToString::to_string).collect();
                words.statement.extend(format!(": {}", demands.join(", and ")).into_bytes());
                words.policies = owned(&payload.policies);
                words.fact("reason", payload.reason.as_deref().unwrap_or_default());
                let texts = payload.commands.iter().map(|command| bytes(&command.statement));
                texts.for_each(|text| words.fact("statement", &String::from_utf8_lossy(&text)));
                words.fact("objects", &list(&payload.objects));
                words.fact("role", &payload.role);
                words.fact("search path", &payload.search_path);
                words.fact("transaction", if payload.in_transaction { "open" } else { "" });
            }
            words.fact("digest", &body.digest);
            words
        }
        Decoded::ApprovalAnswered(body, payload) => {
            let verb = if body.answer == "approve" { "approved" } else { "denied" };
            let who = payload.as_ref().map_or("(not stored)".into(), |payload| payload.approver.clone());
            let mut words = sentence(format!("{} {verb} by {who}", body.id));
            if let Some(why) = &body.refused {
                words.statement.extend(format!(", which does not count: {why}").into_bytes());
            }
            if let Some(payload) = payload {
                words.fact("reason", &payload.reason);
                words.fact("name", &payload.name);
            }
            words
        }
        Decoded::ApprovalUsed(body, payload) => {
            let by = payload.map_or(String::new(), |payload| {
                format!(", approved by {}", payload.approvers.join(" and "))
            });
            let mut words = sentence(format!("{} used for #{}{by}", body.id, body.request));
            words.fact("digest", &body.digest);
            words
        }
        Decoded::ApprovalLapsed(body) => {
            sentence(format!("{} lapsed: {}", body.id, body.reason.replace('_', " ")))
        }
        Decoded::GlassBroken(body, payload) => {
            let mut words = sentence(format!("#{} goes on without approval", body.request));
            if let Some(payload) = payload {
                words.statement.extend(format!(": {}", payload.reason).into_bytes());
                words.fact("needed", &payload.needed);
            }
            words
        }
        Decoded::Revocation(None) => sentence("whom and why is not stored".to_owned()),
        Decoded::Revocation(Some(payload)) => {
            let mut words = sentence(format!("{} revoked by {}", payload.whom(), payload.by));
            if !payload.reason.is_empty() {
                words.statement.extend(format!(": {}", payload.reason).into_bytes());
            }
            words
        }
        Decoded::AdminAction(body, payload) => {
            let done = if body.decision == "permit" { "" } else { " refused" };
            let mut words = sentence(format!("admin: {}{done}", body.action));
            if let Some(payload) = payload {
                words.statement.extend(format!(" by {}", principal_name(&payload.principal)).into_bytes());
                words.fact("request", &payload.request);
                words.fact("from", &payload.source);
                words.fact("policies", &payload.policies.join(", "));
                words.fact("reason", &payload.reason.unwrap_or_default());
            }
            words
        }
        Decoded::Revoked(body, _) => sentence(format!("{} revoked so far", figures::grouped(body.count))),
        Decoded::DelegationCreated(body, payload) => handed_down(&body, payload.as_deref()),
        Decoded::DelegationEnded(body, payload) => {
            let mut words = sentence(format!("delegation {} {}", body.delegation, body.reason));
            if let Some(payload) = payload {
                words.fact("by", &payload.by);
                words.fact("why", payload.why.as_deref().unwrap_or_default());
            }
            words
        }
        Decoded::Other(body, payload) => other(kind, &body, payload.as_ref()),
        _ => sentence(name(kind)),
    })
}

fn handed_down(
    body: &event::DelegationCreatedBody<'_>,
    made: Option<&event::DelegationCreatedPayload<'_>>,
) -> Words {
    let mut words = sentence(format!("delegation {}", body.delegation));
    words.fact("parent", body.parent.as_deref().unwrap_or_default());
    words.fact("further levels", &body.further.to_string());
    let Some(made) = made else { return words };
    let text = format!(": {} on {}", made.actions.join(" "), made.resources.join(" "));
    words.statement.extend(text.into_bytes());
    words.fact("of", &principal_name(&made.principal));
    words.fact("to", &made.actor.as_ref().map(principal_name).unwrap_or_default());
    words.fact("name", made.name.as_deref().unwrap_or_default());
    let list =
        |names: &Option<Vec<Cow<'_, str>>>| names.as_ref().map(|names| names.join(", ")).unwrap_or_default();
    words.fact("roles", &list(&made.roles));
    words.fact("tables", &list(&made.tables));
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    words.fact("rows", &number(made.rows));
    words.fact("commands", &number(made.commands));
    words.fact("from", &made.source);
    words
}

impl Words {
    fn fact(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.facts.push((name.to_owned(), value.to_owned()));
        }
    }

    /// The fields of an event as they stand.
    fn fields(&mut self, json: &Value) {
        for (name, value) in json.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            self.fact(name, &value);
        }
    }
}

/// An event without words of its own: its name and its short fields, and all fields as they stand.
fn other(kind: Kind, body: &Value, payload: Option<&Value>) -> Words {
    let mut line = name(kind).replace('.', " ");
    for (name, value) in body.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if value.len() <= 32 {
            line.push_str(&format!(" · {name} {value}"));
        }
    }
    let mut words = sentence(line);
    words.fields(body);
    payload.into_iter().for_each(|payload| words.fields(payload));
    words
}

fn sentence(words: String) -> Words {
    Words { statement: words.into_bytes(), ..Words::default() }
}

fn bytes(text: &Text<'_>) -> Vec<u8> {
    text.bytes().map_or_else(|| b"(not base64)".to_vec(), Cow::into_owned)
}

fn list(values: &[Cow<'_, str>]) -> String {
    values.join(", ")
}

fn owned(values: &[Cow<'_, str>]) -> Vec<String> {
    values.iter().map(|value| cut(value)).collect()
}

fn command(body: &CommandBody<'_>, payload: &CommandPayload<'_>) -> Words {
    let parameters = payload.parameters.iter().map(|parameter| Parameter {
        type_oid: parameter.type_oid,
        binary: parameter.binary,
        null: parameter.value.is_none(),
        value: parameter.value.as_ref().map_or_else(Vec::new, bytes),
    });
    let mut words = Words {
        statement: bytes(&payload.statement),
        parameters: parameters.collect(),
        policies: owned(&payload.policies),
        ..Words::default()
    };
    words.fact("actions", &list(&payload.actions));
    words.fact("kind", &payload.kind);
    words.fact("effect", &body.effect.replace('_', " "));
    words.fact("obligations", &list(&payload.obligations));
    words.fact("errors", &list(&payload.errors));
    if let Some(sent) = &payload.sent {
        words.fact("sent as", &String::from_utf8_lossy(&bytes(sent)));
    }
    words
}

fn outcome(payload: &OutcomePayload<'_>) -> Words {
    let answer = payload.code.as_deref().or(payload.tag.as_deref()).unwrap_or_default();
    let mut words = Words { answer: cut(answer), ..Words::default() };
    words.fact("detected", payload.detected.as_deref().unwrap_or_default());
    words.fact("sent BLAKE3", payload.shown_blake3.as_deref().unwrap_or_default());
    words.fact("fed", &payload.fed_bytes.map_or_else(String::new, figures::size));
    words.fact("fed BLAKE3", payload.fed_blake3.as_deref().unwrap_or_default());
    words
}

fn session_opened(body: &SessionOpenedBody<'_>, payload: &SessionOpenedPayload<'_>) -> Words {
    let mut line = format!("{} from {}", body.protocol, payload.source);
    if !payload.application.is_empty() {
        line.push_str(&format!(", {}", payload.application));
    }
    if body.shadow {
        line.push_str(", in shadow mode");
    }
    let mut words = Words { policies: owned(&payload.policies), ..sentence(line) };
    words.fact("principal", &principal_name(&payload.principal));
    words.fact("subject", &payload.principal.subject);
    words.fact("groups", &list(&payload.principal.groups));
    if payload.actors.iter().any(|actor| actor.delegation.is_some()) {
        // One below the other, as each handed down to the next.
        for (depth, actor) in payload.actors.iter().enumerate() {
            let by =
                actor.delegation.as_deref().map_or_else(String::new, |id| format!(", by delegation {id}"));
            words.fact("through", &format!("{}└ {}{by}", "  ".repeat(depth), principal_name(actor)));
        }
    } else {
        let actors: Vec<String> = payload.actors.iter().map(principal_name).collect();
        words.fact("through", &actors.join(" → "));
    }
    words.fact("resource", &payload.resource);
    words.fact("database", &payload.database);
    words.fact("role", &payload.role);
    words.fact("let in by", &list(&payload.policies));
    words.fact("token", &payload.token);
    words.fact("until", &figures::full_date(payload.expires_s.saturating_mul(1_000_000_000)));
    words
}

fn session_closed(body: &SessionClosedBody<'_>) -> Words {
    let mut line = body.reason.replace('_', " ");
    if let Some(commands) = body.commands {
        line.push_str(&format!(" after {}", figures::counted(commands, "command", "commands")));
    }
    let mut words = sentence(line);
    let mut size = |name: &str, bytes: Option<u64>| {
        if let Some(bytes) = bytes {
            words.fact(name, &figures::size(bytes));
        }
    };
    size("shown", body.shown_bytes);
    size("fed", body.fed_bytes);
    if let Some(channels) = &body.channels {
        let mut channel = |name: &str, passed: &Passed| {
            let messages = figures::counted(passed.messages, "message", "messages");
            words.fact(name, &format!("{} in {messages}", figures::size(passed.bytes)));
        };
        channel("client to gateway", &channels.client_to_gateway);
        channel("gateway to upstream", &channels.gateway_to_upstream);
        channel("upstream to gateway", &channels.upstream_to_gateway);
        channel("gateway to client", &channels.gateway_to_client);
    }
    words.fact("refused", &body.refused.map_or_else(String::new, figures::grouped));
    words
}
