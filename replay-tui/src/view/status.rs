//! The frame: the verdict above, the filter, the chosen entry, the keys below.

use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use super::{Canvas, Row, faint};
use crate::app::{App, Input};
use crate::figures;
use crate::keys::{BINDINGS, Place};
use crate::layout::Focus;
use crate::message::{Standing, VerdictState, What};
use crate::signs::{self, Tone};
use crate::text;
use crate::theme::Theme;

/// The top of the frame: the ledger's name and the verdict.
pub(super) fn top(canvas: &mut Canvas<'_>, app: &App) {
    let theme = canvas.theme;
    let verdict = signs::verdict(&app.verdict, app.now.wall_ns);
    let mut left = Row::default();
    left.push("Gatebook replay", theme.style(Tone::Strong)).push("  ", Style::new());
    left.push_shown(&text::summary(app.ledger.as_bytes(), 60), faint(theme), theme);
    let mut right =
        vec![Span::styled(format!("{} {}", verdict.sign, verdict.words), theme.style(verdict.tone))];
    if let Some(share) = app.verifying_again {
        right.push(Span::styled(format!(" ⋯ again {:.0} %", (share * 100.0).floor()), faint(theme)));
    }
    canvas.rule(0, ['╭', '╮'], left.spans, right);
}

/// The filter, and how many sessions passed it.
pub(super) fn filter(canvas: &mut Canvas<'_>, app: &App, y: u16) {
    let theme = canvas.theme;
    let (sessions, refused) = app.sessions.counts();
    let mut right = Row::default();
    let style = if refused > 0 { theme.style(Tone::Refused) } else { faint(theme) };
    right.push(figures::counted(sessions as u64, "session", "sessions"), faint(theme));
    right.push(" · ", faint(theme)).push(format!("{} refused ", figures::grouped(refused)), style);
    let room = canvas.inner().saturating_sub(right.columns + 4);
    let mut row = Row::default();
    match (&app.input, app.focus) {
        (Some(input), Focus::Sessions) => {
            row.push(" / ", theme.marker(true));
            typed(&mut row, input, room, theme);
        }
        _ if app.filter.is_empty() => {
            row.push(" / ", faint(theme)).push("filter", faint(theme));
        }
        _ => {
            row.push(" / ", theme.marker(true));
            row.push_shown(&text::summary(app.filter.as_bytes(), room), Style::new(), theme);
        }
    }
    if let Some(mistake) = app.sessions.mistake() {
        let room = room.saturating_sub(row.columns);
        row.push("  ", Style::new());
        row.push_shown(&text::summary(mistake.as_bytes(), room), theme.style(Tone::Doubt), theme);
    }
    row.to(canvas.inner().saturating_sub(right.columns));
    row.columns += right.columns;
    row.spans.extend(right.spans);
    canvas.row(y, row);
}

/// A line being typed, its end in sight.
fn typed(row: &mut Row, input: &Input, room: usize, theme: Theme) {
    let skipped = input.text.chars().count().saturating_sub(room.saturating_sub(2));
    let end: String = input.text.chars().skip(skipped).collect();
    row.push(text::exact(end.as_bytes()), Style::new());
    row.push(" ", theme.marker(true).add_modifier(Modifier::REVERSED));
}

/// The chosen entry and how far it can be believed; or what there is to say.
pub(super) fn status(canvas: &mut Canvas<'_>, app: &App, y: u16) {
    let theme = canvas.theme;
    let inner = canvas.inner();
    let mut row = Row::default();
    row.push(" ", Style::new());
    if let (Some(input), true) = (&app.input, app.focus != Focus::Sessions) {
        row.push("find ", theme.marker(true));
        typed(&mut row, input, inner.saturating_sub(8), theme);
    } else if let Some(notice) = &app.notice {
        row.push_shown(&text::summary(notice.as_bytes(), inner - 2), theme.style(Tone::Doubt), theme);
    } else {
        entry(&mut row, app, theme);
    }
    canvas.row(y, row);
}

fn entry(row: &mut Row, app: &App, theme: Theme) {
    let Some(step) = app.timeline.steps.get(app.timeline.cursor) else { return };
    let broken = matches!(step.what, What::Broken { .. })
        || app.timeline.text(app.timeline.cursor).is_some_and(|text| text.broken);
    let (words, tone) = if broken { ("▲ broken", Tone::Bad) } else { belief(app, step.seq) };
    row.push(format!("entry {} ", figures::grouped(step.seq)), Style::new()).push(words, theme.style(tone));
    if let What::Broken { segment, offset, .. } = &step.what {
        row.push(format!(" · segment {segment} at {}", figures::grouped(*offset)), faint(theme));
    } else if let Some(text) = app.timeline.text(app.timeline.cursor) {
        if text.leaf.len() >= 8 && text.leaf.is_ascii() {
            row.push(format!(" · leaf {}…", &text.leaf[..8]), faint(theme));
        }
        if let Some((segment, offset)) = text.place {
            row.push(format!(" · segment {segment} at {}", figures::grouped(offset)), faint(theme));
        }
    }
}

/// How far one entry can be believed, by the verdict.
fn belief(app: &App, seq: u64) -> (&'static str, Tone) {
    if app.problem(seq).is_some() {
        return ("▲ broken", Tone::Bad);
    }
    match &app.verdict {
        VerdictState::Done(done) if seq >= done.entries => ("⋯ newer than the verification", Tone::Doubt),
        VerdictState::Done(done)
            if done.anchored_entries.is_some_and(|anchored| seq < anchored) && done.key_pinned =>
        {
            ("✔ verified and anchored", Tone::Good)
        }
        VerdictState::Done(done) if matches!(done.standing, Standing::Tampered | Standing::Incomplete) => {
            ("◐ nothing is wrong with this entry itself", Tone::Doubt)
        }
        VerdictState::Done(done) if done.key_pinned => ("◐ verified, newer than any anchor", Tone::Doubt),
        VerdictState::Done(_) => ("◐ verified, no key pinned", Tone::Doubt),
        VerdictState::Unreadable(_) => ("▲ not verified", Tone::Bad),
        VerdictState::Waiting | VerdictState::Running { .. } => ("⋯ verifying", Tone::Doubt),
    }
}

/// The bottom of the frame: what the keys do here.
pub(super) fn keys(canvas: &mut Canvas<'_>, app: &App, y: u16) {
    let theme = canvas.theme;
    let place = match app.focus {
        Focus::Sessions => Place::Sessions,
        Focus::Timeline => Place::Timeline,
        Focus::Step => Place::Step,
    };
    let here = BINDINGS.iter().filter(|binding| binding.place == place);
    let everywhere = BINDINGS.iter().filter(|binding| binding.place == Place::Everywhere);
    let shown: Vec<_> = here.chain(everywhere).filter(|binding| !binding.short.is_empty()).collect();
    let room = canvas.inner().saturating_sub(4);
    let mut left = Row::default();
    // Help and quit are always there; the others as far as they fit.
    let (first, last) = shown.split_at(shown.len().saturating_sub(2));
    let mut needed: usize =
        last.iter().map(|binding| binding.keys.chars().count() + binding.short.len() + 3).sum();
    for binding in first {
        let columns = binding.keys.chars().count() + binding.short.chars().count() + 3;
        if needed + columns > room {
            continue;
        }
        needed += columns;
        key(&mut left, binding.keys, binding.short, theme);
    }
    for binding in last {
        key(&mut left, binding.keys, binding.short, theme);
    }
    canvas.rule(y, ['╰', '╯'], left.spans, Vec::new());
}

fn key(row: &mut Row, keys: &'static str, short: &'static str, theme: Theme) {
    if row.columns > 0 {
        row.push("  ", Style::new());
    }
    row.push(keys, Style::new()).push(" ", Style::new()).push(short, faint(theme));
}
