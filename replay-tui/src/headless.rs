//! The same without a screen: sessions and exact query sequences, for people and for programs.
//!
//! Standard output holds what was recorded and nothing else; the verdict goes to standard error and into the exit
//! code. Text for people is spelled as `text` spells it. JSON is exact, one object a line, and holds no character
//! that could act on a terminal either: those are `\u` escapes.

use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use crate::figures;
use crate::load::{LoadError, Loader, Pins, exit_code, verify};
use crate::message::{
    Decision, Ending, Note, Parameter, SessionId, SessionRow, Step, StepText, VerdictState, What,
};
use crate::parameter;
use crate::signs;
use crate::text;

/// Why nothing could be printed.
#[derive(Debug, thiserror::Error)]
pub enum HeadlessError {
    /// The ledger cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Prints every session, a line each; gives the verdict's exit code.
///
/// # Errors
/// [`HeadlessError`].
pub fn sessions(directory: &Path, pins: &Pins, json: bool) -> Result<u8, HeadlessError> {
    let mut loader = Loader::open(directory, pins.clone())?;
    loader.read_all()?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for row in loader.rows() {
        if json {
            json_line(&mut out, &SessionLine::of(row))?;
        } else if row.id != 0 || row.broken > 0 {
            writeln!(out, "{}", session_line(row))?;
        }
    }
    out.flush()?;
    Ok(say_verdict(directory, pins))
}

/// Prints everything that one session did, in order; gives the verdict's exit code.
///
/// # Errors
/// [`HeadlessError`].
pub fn show(directory: &Path, session: SessionId, pins: &Pins, json: bool) -> Result<u8, HeadlessError> {
    let mut loader = Loader::open(directory, pins.clone())?;
    loader.read_all()?;
    let (row, steps) = loader.session(session)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if !json {
        writeln!(out, "{}\n", session_line(&row))?;
    }
    for (index, step) in steps.iter().enumerate() {
        let words = loader.words(index);
        if json {
            json_line(&mut out, &StepLine::of(step, &words))?;
        } else {
            step_lines(&mut out, step, &words)?;
        }
    }
    out.flush()?;
    Ok(say_verdict(directory, pins))
}

fn say_verdict(directory: &Path, pins: &Pins) -> u8 {
    let verdict = verify(directory, pins, &|_| {});
    let sign = signs::verdict(&verdict, now_ns());
    eprintln!("{} {}", sign.sign, text::exact(sign.words.as_bytes()));
    if let VerdictState::Done(done) = &verdict {
        for problem in &done.problems {
            let line = format!("{}: {}", problem.place, problem.why);
            eprintln!("  {}", text::exact(line.as_bytes()));
        }
    }
    exit_code(&verdict)
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn session_line(row: &SessionRow) -> String {
    let shown = |recorded: &str| text::exact(recorded.as_bytes());
    let mut line = format!("session {}  {}  ", row.id, figures::rfc3339(row.opened_ns));
    line.push_str(&shown(&row.principal));
    for actor in row.through.iter().chain([&row.resource]).filter(|part| !part.is_empty()) {
        line.push_str(&format!(" → {}", shown(actor)));
    }
    if !row.database.is_empty() {
        line.push_str(&format!("/{}", shown(&row.database)));
    }
    if !row.role.is_empty() {
        line.push_str(&format!(" as {}", shown(&row.role)));
    }
    let ended = row.ended.as_ref().map_or("live".to_owned(), |(_, reason)| shown(reason));
    line.push_str(&format!("  {} commands, {} refused, {ended}", row.commands, row.refused));
    if row.broken > 0 {
        line.push_str(&format!(", ▲ {} broken", row.broken));
    }
    line
}

fn step_lines(out: &mut impl Write, step: &Step, words: &StepText) -> io::Result<()> {
    let sign = signs::step(&step.what);
    writeln!(out, "{}  {} {}  entry {}", figures::rfc3339(step.at_ns), sign.sign, sign.words, step.seq)?;
    let mut line = |name: &str, value: &[u8]| writeln!(out, "  {name:<11} {}", text::exact(value));
    if let What::Broken { segment, offset, length, why } = &step.what {
        let length = length.map_or("to an unknown end".to_owned(), |length| format!("{length} bytes"));
        line("broken", format!("segment {segment} at byte {offset}, {length}: {why}").as_bytes())?;
    }
    if let Some(missing) = &words.missing {
        line("no words", missing.as_bytes())?;
    }
    if !words.statement.is_empty() {
        let name = if matches!(step.what, What::Command { .. }) { "statement" } else { "event" };
        line(name, &words.statement)?;
    }
    for (at, value) in words.parameters.iter().enumerate() {
        line(&format!("${}", at + 1), &parameter::value(value))?;
    }
    if !words.policies.is_empty() {
        line("policies", words.policies.join(", ").as_bytes())?;
    }
    if let What::Command { outcome: Some(outcome), .. } = &step.what {
        let (came, _) = signs::outcome(outcome, &words.answer);
        let took = figures::duration(outcome.duration_us);
        line("outcome", format!("{came} · {} bytes sent · {took}", outcome.bytes).as_bytes())?;
    }
    Ok(())
}

/// A session as a program reads it.
#[derive(Serialize)]
struct SessionLine<'a> {
    session: SessionId,
    opened: String,
    opened_ns: u64,
    ended_ns: Option<u64>,
    ended: Option<&'a str>,
    protocol: &'a str,
    principal: &'a str,
    through: &'a [String],
    resource: &'a str,
    database: &'a str,
    role: &'a str,
    client_address: &'a str,
    application: &'a str,
    commands: u64,
    refused: u64,
    broken: u64,
}

impl<'a> SessionLine<'a> {
    fn of(row: &'a SessionRow) -> Self {
        SessionLine {
            session: row.id,
            opened: figures::rfc3339(row.opened_ns),
            opened_ns: row.opened_ns,
            ended_ns: row.ended.as_ref().map(|(at_ns, _)| *at_ns),
            ended: row.ended.as_ref().map(|(_, reason)| reason.as_str()),
            protocol: &row.protocol,
            principal: &row.principal,
            through: &row.through,
            resource: &row.resource,
            database: &row.database,
            role: &row.role,
            client_address: &row.client_address,
            application: &row.application,
            commands: row.commands,
            refused: row.refused,
            broken: row.broken,
        }
    }
}

/// A step as a program reads it.
#[derive(Serialize)]
struct StepLine<'a> {
    seq: u64,
    at: String,
    at_ns: u64,
    event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(flatten)]
    statement: Recorded<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parameters: Vec<ParameterLine<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    policies: &'a [String],
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    facts: serde_json::Map<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<BrokenLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<&'a str>,
    leaf: &'a str,
}

/// Bytes: as text where they are text.
#[derive(Serialize)]
struct Recorded<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement_hex: Option<String>,
    /// What an event that is no command has to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<&'a str>,
}

#[derive(Serialize)]
struct ParameterLine<'a> {
    type_oid: u32,
    binary: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    null: bool,
    shown: String,
}

#[derive(Serialize)]
struct OutcomeLine<'a> {
    seq: u64,
    at_ns: u64,
    ending: &'static str,
    answer: &'a str,
    rows: u64,
    bytes: u64,
    duration_us: u64,
}

#[derive(Serialize)]
struct BrokenLine<'a> {
    segment: u64,
    offset: u64,
    length: Option<u64>,
    why: &'a str,
}

impl<'a> StepLine<'a> {
    fn of(step: &'a Step, words: &'a StepText) -> Self {
        let mut line = StepLine {
            seq: step.seq,
            at: figures::rfc3339(step.at_ns),
            at_ns: step.at_ns,
            event: String::new(),
            request: None,
            phase: None,
            decision: None,
            statement: Recorded::of(step, words),
            parameters: words.parameters.iter().map(ParameterLine::of).collect(),
            policies: &words.policies,
            facts: words.facts.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect(),
            outcome: None,
            broken: None,
            missing: words.missing.as_deref(),
            leaf: &words.leaf,
        };
        match &step.what {
            What::Command { request, prepare, decision, outcome } => {
                line.event = "command".to_owned();
                line.request = Some(*request);
                line.phase = Some(if *prepare { "prepare" } else { "execute" });
                line.decision = Some(match decision {
                    Decision::Permit => "permit",
                    Decision::Refuse => "refuse",
                    Decision::ShadowRefuse => "shadow_refuse",
                    Decision::Unknown => "unknown",
                });
                line.outcome = outcome.as_ref().map(|outcome| OutcomeLine {
                    seq: outcome.seq,
                    at_ns: outcome.at_ns,
                    ending: match outcome.ending {
                        Ending::Completed => "completed",
                        Ending::Suspended => "suspended",
                        Ending::Failed => "failed",
                        Ending::Cut => "cut",
                        Ending::Skipped => "skipped",
                        Ending::Refused => "refused",
                        Ending::Unknown => "unknown",
                    },
                    answer: &words.answer,
                    rows: outcome.rows,
                    bytes: outcome.bytes,
                    duration_us: outcome.duration_us,
                });
            }
            What::Note(note) => {
                line.event = match note {
                    Note::Opened => "session.opened",
                    Note::Closed => "session.closed",
                    Note::Revoked => "revocation",
                    Note::Asked => "approval.requested",
                    Note::Answered => "approval.answered",
                    Note::Lapsed => "approval.lapsed",
                    Note::GlassBroken => "glass.broken",
                    Note::Gap => "gap",
                    Note::Other(name) => name,
                }
                .to_owned();
            }
            What::Broken { segment, offset, length, why } => {
                line.event = "broken".to_owned();
                line.broken = Some(BrokenLine { segment: *segment, offset: *offset, length: *length, why });
            }
        }
        line
    }
}

impl<'a> Recorded<'a> {
    fn of(step: &Step, words: &'a StepText) -> Self {
        let recorded = std::str::from_utf8(&words.statement);
        let (mut statement, mut statement_hex, mut note) = (None, None, None);
        match (&step.what, recorded) {
            _ if words.missing.is_some() => {}
            (What::Command { .. }, Ok(text)) => statement = Some(text),
            (What::Command { .. }, Err(_)) => statement_hex = Some(hex(&words.statement)),
            (What::Note(_), Ok(text)) => note = Some(text),
            (What::Note(_) | What::Broken { .. }, _) => {}
        }
        Recorded { statement, statement_hex, words: note }
    }
}

impl<'a> ParameterLine<'a> {
    fn of(parameter: &'a Parameter) -> Self {
        let text = if parameter.null || parameter.binary {
            None
        } else {
            std::str::from_utf8(&parameter.value).ok()
        };
        let hex = (text.is_none() && !parameter.null).then(|| hex(&parameter.value));
        let shown = text::exact(&parameter::value(parameter));
        ParameterLine {
            type_oid: parameter.type_oid,
            binary: parameter.binary,
            text,
            hex,
            null: parameter.null,
            shown,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(&mut *out, Harmless)).map_err(io::Error::other)?;
    out.write_all(b"\n")
}

/// JSON in which every character that does not stand alone on a terminal is an escape.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut passed = 0;
        for (at, character) in
            fragment.char_indices().filter(|(_, character)| !text::stands_alone(*character))
        {
            CompactFormatter.write_string_fragment(writer, &fragment[passed..at])?;
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            passed = at + character.len_utf8();
        }
        CompactFormatter.write_string_fragment(writer, &fragment[passed..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_exact_and_harmless() {
        for recorded in [
            "plain",
            "a\u{1b}[2J\u{9b}\u{7f}\u{202e}\u{301}",
            "quote \" slash \\ newline \n",
            "\u{e0001}漢字",
            "ü",
        ] {
            let mut out = Vec::new();
            json_line(&mut out, &recorded).unwrap();
            let line = String::from_utf8(out).unwrap();
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), recorded);
            assert!(line.trim_end().chars().all(text::stands_alone), "{line:?}");
        }
    }
}
