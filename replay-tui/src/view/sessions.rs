//! The list of sessions.

use ratatui::style::{Modifier, Style};

use super::{Canvas, GAP, Row, faint, listens};
use crate::app::App;
use crate::app::sessions::Sort;
use crate::figures;
use crate::layout::Focus;
use crate::message::SessionRow;
use crate::signs::Tone;
use crate::theme::Theme;

/// How wide each column is; 0 where it is left out.
struct Columns {
    started: usize,
    principal: usize,
    resource: usize,
    through: usize,
    commands: usize,
    refused: usize,
    ended: usize,
}

impl Columns {
    fn of(inner: usize) -> Self {
        let mut columns = Columns {
            started: 12,
            principal: 0,
            resource: 0,
            through: 0,
            commands: 6,
            refused: 7,
            ended: 11,
        };
        match inner {
            0..64 => (columns.refused, columns.ended) = (0, 0),
            64..90 => columns.refused = 4,
            _ => columns.through = (inner - 64) / 4,
        }
        let fixed = columns.started + columns.through + columns.commands + columns.refused + columns.ended;
        let gaps =
            [columns.through, columns.refused, columns.ended].iter().filter(|wide| **wide > 0).count() + 3;
        let rest = inner.saturating_sub(3 + fixed + gaps * GAP.len() + 1);
        columns.principal = rest * 2 / 3;
        columns.resource = rest - columns.principal;
        columns
    }

    /// The widths in order, with the alignment of each: to the right for numbers.
    fn cells(&self) -> [(usize, bool); 7] {
        [
            (self.started, false),
            (self.principal, false),
            (self.resource, false),
            (self.through, false),
            (self.commands, true),
            (self.refused, true),
            (self.ended, false),
        ]
    }
}

pub(super) fn draw(canvas: &mut Canvas<'_>, app: &App, y: u16, rows: usize) {
    let columns = Columns::of(canvas.inner());
    heading(canvas, app, &columns, y);
    let first = app.sessions.first;
    for at in 0..rows {
        let y = y + 1 + u16::try_from(at).unwrap_or(u16::MAX);
        let row = match app.sessions.row(first + at) {
            Some(session) => session_row(canvas.theme, app, &columns, session, first + at),
            None if at == 0 => empty(canvas.theme, app),
            None => Row::default(),
        };
        canvas.row(y, row);
    }
    canvas.thumb(y + 1, rows, first, app.sessions.len());
}

fn heading(canvas: &mut Canvas<'_>, app: &App, columns: &Columns, y: u16) {
    let theme = canvas.theme;
    let names = [
        ("started", Some(Sort::Started)),
        ("principal", Some(Sort::Principal)),
        ("resource", Some(Sort::Resource)),
        ("through", None),
        ("cmds", Some(Sort::Commands)),
        // Where there is little room, the sign that refused steps have.
        (if columns.refused < 7 { "✘" } else { "refused" }, Some(Sort::Refused)),
        ("ended", Some(Sort::Ended)),
    ];
    let mut row = Row::default();
    row.push("   ", Style::new());
    for ((name, sort), (width, right)) in names.into_iter().zip(columns.cells()) {
        if width == 0 {
            continue;
        }
        let sorted = sort == Some(app.sessions.sort);
        let arrow = if app.sessions.descending { "▾" } else { "▴" };
        let name = match (sorted, right) {
            (true, true) => format!("{arrow}{name}"),
            (true, false) => format!("{name} {arrow}"),
            (false, _) => name.to_owned(),
        };
        let style = if sorted { faint(theme).add_modifier(Modifier::BOLD) } else { faint(theme) };
        // An arrow before a name that fills its column stands in the gap.
        let over = if right { name.chars().count().saturating_sub(width) } else { 0 };
        if row.columns > 3 {
            row.push(&GAP[over..], Style::new());
        }
        if right {
            row.cell_right(&name, width + over, style, theme);
        } else {
            row.cell(&name, width, style, theme);
        }
    }
    canvas.row(y, row);
}

fn session_row(theme: Theme, app: &App, columns: &Columns, session: &SessionRow, at: usize) -> Row {
    let chosen = at == app.sessions.cursor();
    let mut row = Row::default();
    let marker = theme.marker(listens(app, Focus::Sessions));
    row.push(if chosen { " ▸ " } else { "   " }, marker);
    let base = if chosen { theme.style(Tone::Strong) } else { Style::new() };
    let (ended, ended_tone) = ended(session);
    let outside = session.id == 0;
    let principal = if outside { "outside of sessions" } else { session.principal.as_str() };
    let number = |number: u64| if outside { "–".to_owned() } else { figures::grouped(number) };
    let refused_style = if session.refused > 0 { theme.style(Tone::Refused) } else { faint(theme) };
    let started = match session.opened_ns {
        0 => "–".to_owned(),
        opened_ns => figures::day_and_minute(opened_ns, app.now.wall_ns),
    };
    let values = [
        (started, base),
        (principal.to_owned(), if outside { faint(theme) } else { base }),
        (dash(&session.resource), base),
        (dash(&session.through.join(" → ")), faint(theme)),
        (number(session.commands), base),
        (number(session.refused), refused_style),
        (ended, base.patch(theme.style(ended_tone))),
    ];
    for ((value, style), (width, right)) in values.into_iter().zip(columns.cells()) {
        if width == 0 {
            continue;
        }
        if row.columns > 3 {
            row.push(GAP, Style::new());
        }
        if right {
            row.cell_right(&value, width, style, theme);
        } else {
            row.cell(&value, width, style, theme);
        }
    }
    row
}

fn dash(value: &str) -> String {
    if value.is_empty() { "–".to_owned() } else { value.to_owned() }
}

fn ended(session: &SessionRow) -> (String, Tone) {
    if session.broken > 0 {
        return (format!("▲ {} broken", figures::grouped(session.broken)), Tone::Bad);
    }
    match &session.ended {
        _ if session.id == 0 => ("–".to_owned(), Tone::Faint),
        None => ("live".to_owned(), Tone::Strong),
        Some((_, reason)) if reason == "revoked" => ("revoked".to_owned(), Tone::Human),
        Some((_, reason)) => (reason.replace('_', " "), Tone::Faint),
    }
}

fn empty(theme: Theme, app: &App) -> Row {
    let (read, size) = app.read;
    let words = if !app.filter.is_empty() {
        "no session matches the filter; esc clears it".to_owned()
    } else if size > 0 && read < size {
        format!("reading … {} %", u128::from(read) * 100 / u128::from(size.max(1)))
    } else if app.sessions.is_empty() && app.entries == 0 {
        "reading …".to_owned()
    } else {
        "no sessions yet".to_owned()
    };
    let mut row = Row::default();
    row.push("   ", Style::new()).push(words, faint(theme));
    row
}
