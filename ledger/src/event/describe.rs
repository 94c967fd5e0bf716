//! Events in one line, for people.

use super::{Decoded, decode};
use crate::entry::Kind;

/// The event in one line. Not escaped: whoever prints it uses [`crate::text::line`].
#[must_use]
pub fn describe(kind: Kind, body: &[u8], payload: Option<&[u8]>) -> String {
    let Ok(decoded) = decode(kind, body, payload) else {
        return format!("not as its kind wants it: {}", String::from_utf8_lossy(body));
    };
    match decoded {
        Decoded::SessionOpened(body, None) => format!("{} (who is absent)", body.protocol),
        Decoded::SessionOpened(_, Some(who)) => {
            let mut text = format!("{}:{}", who.principal.issuer, who.principal.name);
            for actor in &who.actors {
                text.push_str(&format!(" through {}:{}", actor.issuer, actor.name));
            }
            format!("{text} → {}/{} as {} from {}", who.resource, who.database, who.role, who.source)
        }
        Decoded::SessionClosed(body) => match (body.commands, body.refused) {
            (Some(commands), Some(refused)) => {
                format!("{}; {commands} commands, {refused} refused", body.reason)
            }
            _ => body.reason.into_owned(),
        },
        Decoded::Command(body, payload) => {
            let phase = if body.phase == "execute" { String::new() } else { format!("{} ", body.phase) };
            let head = format!("#{} {} {phase}", body.request, body.decision);
            let Some(payload) = payload else { return head + "(statement is absent)" };
            let statement = payload.statement.bytes().unwrap_or_default();
            let mut text = head + &String::from_utf8_lossy(&statement);
            if !payload.parameters.is_empty() {
                let shown: Vec<String> = payload.parameters.iter().map(parameter).collect();
                text.push_str(&format!("  [{}]", shown.join(", ")));
            }
            if !payload.policies.is_empty() {
                text.push_str(&format!("  ({})", payload.policies.join(", ")));
            }
            text
        }
        Decoded::Outcome(body, payload) => {
            let said = payload.and_then(|payload| payload.tag.or(payload.code)).unwrap_or_default();
            let (rows, bytes, ms) = (body.rows, body.bytes, body.duration_us / 1000);
            format!("#{} {} {said}  {rows} rows, {bytes} bytes, {ms} ms", body.request, body.ending)
        }
        Decoded::Cancel(payload) => format!("from {}", payload.source),
        Decoded::LoginRefused(body, payload) => {
            let head = format!("{} times {}", body.count, body.cause);
            payload.map_or(head.clone(), |payload| {
                format!("{head} from {} for {}: {}", payload.source, payload.resource, payload.detail)
            })
        }
        Decoded::AdminAction(body, payload) => {
            let head = format!("{} {}", body.decision, body.action);
            payload.map_or(head.clone(), |payload| {
                let who = payload.principal;
                let why = payload.reason.map_or_else(String::new, |why| format!(": {why}"));
                format!(
                    "{head} ({}) by {}:{} from {}{why}",
                    payload.request, who.issuer, who.name, payload.source
                )
            })
        }
        Decoded::ApprovalRequested(body, payload) => {
            let head = format!("{} for #{}", body.id, body.request);
            payload.map_or(head.clone(), |payload| {
                let said = payload.reason.map_or(String::new(), |reason| format!("; {reason}"));
                let demands: Vec<String> = payload.demands.iter().map(ToString::to_string).collect();
                format!("{head} from {}{said}", demands.join(", and "))
            })
        }
        Decoded::ApprovalAnswered(body, payload) => {
            let counted = body.refused.map_or(String::new(), |why| format!(" (does not count: {why})"));
            let head = format!("{} {}{counted}", body.id, body.answer);
            payload.map_or(head.clone(), |payload| match &*payload.reason {
                "" => format!("{head} by {}", payload.approver),
                reason => format!("{head} by {}: {reason}", payload.approver),
            })
        }
        Decoded::ApprovalUsed(body, payload) => {
            let by = payload.map_or(String::new(), |payload| {
                format!(", approved by {}", payload.approvers.join(" and "))
            });
            format!("{} for #{}{by}", body.id, body.request)
        }
        Decoded::ApprovalLapsed(body) => format!("{} {}", body.id, body.reason),
        Decoded::GlassBroken(body, payload) => {
            let why = payload.map_or(String::new(), |payload| format!(": {}", payload.reason));
            format!("#{} without approval{why}", body.request)
        }
        Decoded::DelegationCreated(body, None) => format!("{} (whose is absent)", body.delegation),
        Decoded::DelegationCreated(body, Some(made)) => {
            let before = body.parent.map_or_else(String::new, |parent| format!(" after {parent}"));
            let to = match (&made.actor, &made.name) {
                (Some(actor), _) => format!(" to {}:{}", actor.issuer, actor.name),
                (None, Some(name)) => format!(" to {name}"),
                (None, None) => String::new(),
            };
            let (actions, resources) = (made.actions.join(" "), made.resources.join(" "));
            let whose = format!("{}:{}", made.principal.issuer, made.principal.name);
            format!("{}{before}: {actions} on {resources}, of {whose}{to}", body.delegation)
        }
        Decoded::DelegationEnded(body, payload) => {
            let by = payload.map_or_else(String::new, |payload| {
                let why = payload.why.map_or_else(String::new, |why| format!(": {why}"));
                format!(" by {}{why}", payload.by)
            });
            format!("{} {}{by}", body.delegation, body.reason)
        }
        Decoded::Revocation(Some(payload)) => {
            format!("{} by {}: {}", payload.whom(), payload.by, payload.reason)
        }
        Decoded::Revoked(body, _) => format!("{} so far", body.count),
        Decoded::Revocation(None) | Decoded::Other(..) => String::from_utf8_lossy(body).into_owned(),
    }
}

fn parameter(parameter: &super::Parameter<'_>) -> String {
    match &parameter.value {
        None => "NULL".to_owned(),
        Some(super::Text::Text(text)) => format!("'{text}'"),
        Some(super::Text::Base64(text)) => format!("base64:{text}"),
    }
}
