//! A request as people and programs are shown it: over the control socket, the API, the web page and webhooks alike.

use std::time::{SystemTime, UNIX_EPOCH};

use gatebook_wire::action::Effect;
use gatebook_wire::protocol::{Circumstances, Command};
use serde::{Deserialize, Serialize};

/// How much of a value is shown.
const VALUE_BYTES_MAX: usize = 1024;
/// How many values of a command are shown.
const PARAMETERS_MAX: usize = 1024;
/// How much of a request's statements and values is shown in all.
const SHOWN_BYTES_MAX: usize = 64 << 10;

/// A request as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// Its id.
    pub(crate) id: String,
    /// `pending`, `granted`, `used`, `denied`, `expired`, `cancelled`, ….
    pub(crate) state: String,
    /// Who asks: `issuer:subject`.
    pub(crate) principal: String,
    /// Through whom, from the principal towards the gateway.
    pub(crate) through: Vec<String>,
    /// The resource and the database.
    pub(crate) resource: String,
    /// The role in use.
    pub(crate) role: String,
    /// Where names without a schema are looked for.
    pub(crate) search_path: String,
    /// The session; none where it is asked ahead of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<u64>,
    /// What is to run, in its order.
    pub(crate) commands: Vec<ShownCommand>,
    /// The objects that the catalog knows, with their numbers.
    pub(crate) objects: Vec<String>,
    /// Why the caller wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Which policies want the approval.
    pub(crate) policies: Vec<String>,
    /// Whose approval it takes, all of them: `dba`, `2 of security or ops`.
    pub(crate) approvers: Vec<String>,
    /// How many persons it takes at least.
    pub(crate) quorum: u8,
    /// Who did.
    pub(crate) approved_by: Vec<String>,
    /// Who said no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) denied_by: Option<String>,
    /// Why they said no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) answer_reason: Option<String>,
    /// Whether a transaction is open.
    pub(crate) in_transaction: bool,
    /// The locks that it holds, once that is known.
    pub(crate) locks: Vec<String>,
    /// When it was asked, in seconds since 1970 UTC.
    pub(crate) asked_s: u64,
    /// Until when it waits, in seconds since 1970 UTC.
    pub(crate) until_s: u64,
    /// What the approval is bound to, in hex.
    pub(crate) digest: String,
}

/// A command as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShownCommand {
    /// The statement; bytes that are no text as `\u{fffd}`.
    pub(crate) statement: String,
    /// The statement as it is sent, where masks make it another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sent: Option<String>,
    /// Whether any of it is too long to be shown whole.
    pub(crate) cut: bool,
    /// Its parameters: text as it is, binary in hex, NULL as none.
    pub(crate) parameters: Vec<Option<String>>,
    /// What it does to what.
    pub(crate) actions: Vec<String>,
    /// The kind of statement.
    pub(crate) kind: String,
    /// Whether it is proven to only read.
    pub(crate) reads: bool,
    /// Whether it has a condition.
    pub(crate) has_where: bool,
}

/// What there is of a command to be shown, whole.
pub(crate) struct ShownParts<'a> {
    pub(crate) statement: &'a [u8],
    pub(crate) sent: Option<&'a [u8]>,
    /// Each with whether it is binary; none for NULL.
    pub(crate) parameters: Vec<(bool, Option<&'a [u8]>)>,
    pub(crate) actions: Vec<String>,
    pub(crate) kind: &'a str,
    pub(crate) reads: bool,
    pub(crate) has_where: bool,
}

/// Commands as they are shown; what is more than [`SHOWN_BYTES_MAX`] of them is cut, and said to be.
pub(crate) fn commands(commands: &[Command]) -> Vec<ShownCommand> {
    let parts: Vec<_> = commands.iter().map(ShownParts::of).collect();
    shown_parts(&parts)
}

/// The same of their parts.
pub(crate) fn shown_parts(commands: &[ShownParts<'_>]) -> Vec<ShownCommand> {
    let mut room = SHOWN_BYTES_MAX;
    let mut shown = Vec::new();
    for command in commands {
        shown.push(ShownCommand::new(command, &mut room));
        if room == 0 {
            break;
        }
    }
    if shown.len() < commands.len()
        && let Some(last) = shown.last_mut()
    {
        last.cut = true;
    }
    shown
}

impl Shown {
    /// What is remembered of a request that is over.
    pub(crate) fn shorten(&mut self) {
        self.commands.truncate(1);
        for command in &mut self.commands {
            command.cut |= command.statement.len() > VALUE_BYTES_MAX || !command.parameters.is_empty();
            let end = (0..=command.statement.len().min(VALUE_BYTES_MAX))
                .rev()
                .find(|at| command.statement.is_char_boundary(*at));
            command.statement.truncate(end.unwrap_or_default());
            command.statement.shrink_to_fit();
            (command.sent, command.parameters) = (None, Vec::new());
        }
    }
}

impl ShownParts<'_> {
    fn of(command: &Command) -> ShownParts<'_> {
        let meaning = &command.meaning;
        let parameters = command.parameters.iter();
        let actions = meaning.actions.iter();
        ShownParts {
            statement: &command.statement,
            sent: command.sent.as_deref(),
            parameters: parameters.map(|one| (one.binary, one.value.as_deref())).collect(),
            actions: actions.map(|action| format!("{} {}", action.verb.name(), action.object)).collect(),
            kind: &meaning.facts.kind,
            reads: meaning.effect == Effect::Reads,
            has_where: meaning.facts.has_where,
        }
    }
}

impl ShownCommand {
    /// A command as it is shown, in as much room as is left.
    fn new(parts: &ShownParts<'_>, room: &mut usize) -> ShownCommand {
        let mut cut = false;
        let mut text = |bytes: &[u8], binary: bool, most: usize| {
            let most = most.min(*room / if binary { 2 } else { 1 });
            cut |= bytes.len() > most;
            let bytes = &bytes[..bytes.len().min(most)];
            let text = match binary {
                false => String::from_utf8_lossy(bytes).into_owned(),
                true => format!("\\x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
            };
            // Something is shown even of what is empty.
            *room = room.saturating_sub(text.len() + 1);
            text
        };
        let statement = text(parts.statement, false, SHOWN_BYTES_MAX);
        let sent = parts.sent.map(|sent| text(sent, false, SHOWN_BYTES_MAX));
        let parameters = parts.parameters.iter();
        let parameters =
            parameters.map(|(binary, value)| value.map(|value| text(value, *binary, VALUE_BYTES_MAX)));
        let parameters = parameters.take(PARAMETERS_MAX).collect();
        ShownCommand {
            statement,
            sent,
            cut: cut || parts.parameters.len() > PARAMETERS_MAX,
            parameters,
            actions: parts.actions.clone(),
            kind: parts.kind.to_owned(),
            reads: parts.reads,
            has_where: parts.has_where,
        }
    }
}

/// The objects as they are shown and recorded: `public.orders (16402)`.
pub(crate) fn objects(circumstances: &Circumstances) -> Vec<String> {
    circumstances.objects.iter().map(|(number, name)| format!("{name} ({number})")).collect()
}

/// A time in seconds since 1970 UTC.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
