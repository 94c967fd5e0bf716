//! Pages to read from top to bottom: an opened step, the verdict, a proof, the help.
//!
//! A page is plain lines of text that `text` has made harmless, already broken for its columns.

use crate::app::moved;
use crate::figures;
use crate::keys::{BINDINGS, Key, Place};
use crate::message::{Problem, Proof, Step, StepText, UnixNs, VerdictState, What};
use crate::parameter;
use crate::signs::{self, Tone};
use crate::text::{self, Shown};

/// The columns of labels and the blank after them.
pub const LABEL_COLUMNS: usize = 11;

/// One line of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// What it is about; empty where it goes on with the line above.
    pub label: String,
    /// What it says.
    pub text: Shown,
    /// Its tone.
    pub tone: Tone,
}

/// A page, and where it is scrolled to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// All lines.
    pub lines: Vec<Line>,
    /// The first line on the screen.
    pub first: usize,
}

impl Page {
    /// Scrolls, where the key is one that scrolls; says whether it was. The last line stays at the bottom.
    pub fn scroll(&mut self, key: Key, rows: usize) -> bool {
        let last = self.lines.len().saturating_sub(rows);
        let moved = moved(key, self.first.min(last), last, rows.max(2) - 1);
        self.first = moved.unwrap_or(self.first);
        moved.is_some()
    }

    /// The lines on a screen of so many rows.
    #[must_use]
    pub fn visible(&self, rows: usize) -> &[Line] {
        let first = self.first.min(self.lines.len().saturating_sub(rows));
        &self.lines[first..self.lines.len().min(first + rows)]
    }
}

struct Writer {
    lines: Vec<Line>,
    columns: usize,
}

impl Writer {
    fn new(columns: usize) -> Self {
        Writer { lines: Vec::new(), columns: columns.saturating_sub(LABEL_COLUMNS).max(12) }
    }

    fn write(&mut self, label: &str, recorded: impl AsRef<[u8]>, tone: Tone) {
        for (at, text) in text::wrapped(recorded.as_ref(), self.columns).into_iter().enumerate() {
            self.lines.push(Line {
                label: if at == 0 { label.to_owned() } else { String::new() },
                text,
                tone,
            });
        }
    }

    fn blank(&mut self) {
        self.lines.push(Line::default());
    }
}

/// An opened step.
#[must_use]
pub fn step(step: &Step, text: &StepText, problem: Option<&Problem>, columns: usize) -> Vec<Line> {
    let mut page = Writer::new(columns);
    let sign = signs::step(&step.what);
    if let What::Broken { segment, offset, length, why } = &step.what {
        page.write("broken", why, Tone::Bad);
        let length = length.map_or_else(
            || "to an unknown end".to_owned(),
            |length| figures::counted(length, "byte", "bytes"),
        );
        let place = format!("segment {segment} at byte {}, {length}", figures::grouped(*offset));
        page.write("where", place, Tone::Bad);
    }
    if let Some(problem) = problem {
        page.write("in doubt", format!("{}: {}", problem.place, problem.why), Tone::Bad);
        page.blank();
    }
    if !text.statement.is_empty() {
        let label = if matches!(step.what, What::Command { .. }) { "statement" } else { "event" };
        page.write(label, &text.statement, Tone::Strong);
        let shown = text.statement.len() as u64;
        if text.statement_bytes > shown {
            let left = figures::size(text.statement_bytes - shown);
            page.write("", format!("{left} more: gatebook-replay show"), Tone::Faint);
        }
        page.blank();
    }
    if let Some(missing) = &text.missing {
        page.write("no words", missing, Tone::Doubt);
        page.blank();
    }
    if !text.parameters.is_empty() {
        for (at, value) in text.parameters.iter().enumerate() {
            let kind = parameter::type_name(value.type_oid).map_or(String::new(), |name| format!("  {name}"));
            let mut shown = parameter::value(value);
            shown.extend(kind.into_bytes());
            page.write(&format!("${}", at + 1), shown, Tone::Plain);
        }
        if text.parameters_count > text.parameters.len() {
            let left = figures::grouped((text.parameters_count - text.parameters.len()) as u64);
            page.write("", format!("{left} more: gatebook-replay show"), Tone::Faint);
        }
        page.blank();
    }
    if let What::Command { request, prepare, outcome, .. } = &step.what {
        let by = if text.policies.is_empty() {
            String::new()
        } else {
            format!(" by {}", text.policies.join(", "))
        };
        page.write("decision", format!("{} {}{by}", sign.sign, sign.words), sign.tone);
        match outcome {
            Some(outcome) => {
                let (mut words, tone) = signs::outcome(outcome, &text.answer);
                if !words.contains(&text.answer) {
                    words = format!("{words} · {}", text.answer);
                }
                let sent = figures::size(outcome.bytes);
                let took = figures::duration(outcome.duration_us);
                let tone = if tone == Tone::Faint { Tone::Plain } else { tone };
                page.write("outcome", format!("{words} · {sent} sent · {took}"), tone);
            }
            None if *prepare => {}
            None => page.write("outcome", "not recorded yet", Tone::Doubt),
        }
        page.write("request", figures::grouped(*request), Tone::Plain);
    }
    page.write("at", figures::full_date(step.at_ns), Tone::Plain);
    for (name, value) in &text.facts {
        let name = text::summary(name.as_bytes(), LABEL_COLUMNS - 1).plain();
        page.write(&name, value, Tone::Plain);
    }
    page.blank();
    page.write("entry", figures::grouped(step.seq), Tone::Plain);
    if !text.leaf.is_empty() {
        page.write("leaf", &text.leaf, Tone::Plain);
    }
    if let Some((segment, offset)) = text.place {
        page.write("stored", format!("segment {segment} at byte {}", figures::grouped(offset)), Tone::Plain);
    }
    page.lines
}

/// What the verifier found.
#[must_use]
pub fn verdict(state: &VerdictState, now_ns: UnixNs, columns: usize) -> Vec<Line> {
    let mut page = Writer::new(columns);
    let sign = signs::verdict(state, now_ns);
    page.write("verdict", format!("{} {}", sign.sign, sign.words), sign.tone);
    match state {
        VerdictState::Unreadable(why) => page.write("because", why, Tone::Bad),
        VerdictState::Done(done) => {
            if !done.key_pinned {
                page.write("key", "none pinned: give the log's key with --key", Tone::Doubt);
            }
            page.blank();
            for problem in &done.problems {
                let label = problem
                    .seqs
                    .as_ref()
                    .map_or_else(|| "broken".to_owned(), |seqs| figures::grouped(seqs.start));
                page.write(&label, format!("{}: {}", problem.place, problem.why), Tone::Bad);
            }
            let left = done.problems_count.saturating_sub(done.problems.len() as u64);
            if left > 0 {
                page.write("", format!("{} more: gatebook-ledger verify", figures::grouped(left)), Tone::Bad);
            }
            if done.problems_count > 0 {
                page.blank();
            }
            for remark in &done.remarks {
                page.write("", remark, Tone::Plain);
            }
        }
        VerdictState::Waiting | VerdictState::Running { .. } => {}
    }
    page.lines
}

/// Why an entry can be believed.
#[must_use]
pub fn proof(seq: u64, proof: Option<&Result<Proof, String>>, columns: usize) -> Vec<Line> {
    let mut page = Writer::new(columns);
    page.write("entry", figures::grouped(seq), Tone::Strong);
    match proof {
        None => page.write("", "proving …", Tone::Faint),
        Some(Err(why)) => page.write("no proof", why, Tone::Bad),
        Some(Ok(proof)) => {
            for (name, value) in &proof.facts {
                let name = text::summary(name.as_bytes(), LABEL_COLUMNS - 1).plain();
                page.write(&name, value, Tone::Plain);
            }
            page.blank();
            if proof.holds {
                page.write("", "✔ the path leads to the signed root", Tone::Good);
            } else {
                page.write("", "▲ the path does not lead to a signed root", Tone::Bad);
            }
        }
    }
    page.lines
}

/// The keys.
#[must_use]
pub fn help(columns: usize) -> Vec<Line> {
    let mut page = Writer::new(columns);
    for (place, name) in [
        (Place::Sessions, "Sessions"),
        (Place::Timeline, "Timeline"),
        (Place::Step, "An opened step"),
        (Place::Everywhere, "Everywhere"),
    ] {
        page.lines.push(Line {
            text: text::summary(name.as_bytes(), 40),
            tone: Tone::Strong,
            ..Line::default()
        });
        for binding in BINDINGS.iter().filter(|binding| binding.place == place) {
            page.write(binding.keys, binding.does, Tone::Plain);
        }
        page.blank();
    }
    let signs = "✔ permitted  ✘ refused  ◌ shadow: would be refused  ▲ broken  ● opened  ○ closed  ■ revoked";
    page.write("signs", signs, Tone::Plain);
    page.write("", "spelled out where it is not safe to show: \u{1b} \u{202e} \u{301}", Tone::Faint);
    page.lines
}
