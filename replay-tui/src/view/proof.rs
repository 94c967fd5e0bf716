//! Pages: the opened step, and what lies over the screen.

use ratatui::style::Style;
use ratatui::text::Span;

use super::{Canvas, Row, faint};
use crate::app::{App, Overlay};
use crate::layout;
use crate::page::{LABEL_COLUMNS, Line};
use crate::signs::Tone;
use crate::theme::Theme;

/// Draws the opened step.
pub(super) fn opened(canvas: &mut Canvas<'_>, app: &App, y: u16, rows: usize) {
    let page = &app.opened_page;
    let visible = page.visible(rows);
    for at in 0..rows {
        let row = match visible.get(at) {
            Some(line) => line_row(canvas.theme, line, "  "),
            None if at == 0 && page.lines.is_empty() => {
                let mut row = Row::default();
                row.push("  reading …", faint(canvas.theme));
                row
            }
            None => Row::default(),
        };
        canvas.row(y + u16::try_from(at).unwrap_or(u16::MAX), row);
    }
    canvas.thumb(y, rows, page.first, page.lines.len());
}

/// Draws what lies over the screen, in a frame of its own.
pub(super) fn overlay(canvas: &mut Canvas<'_>, app: &App) {
    let page = &app.overlay_page;
    let title = match &app.overlay {
        Some(Overlay::Help) => "keys",
        Some(Overlay::Verdict) => "verdict",
        Some(Overlay::Proof(..)) => "proof",
        None => return,
    };
    let theme = canvas.theme;
    let inner = layout::overlay_columns(canvas.columns) + 2;
    let rows = page.lines.len().clamp(1, layout::overlay_rows(canvas.rows));
    let x = (canvas.columns - u16::try_from(inner + 2).unwrap_or(canvas.columns)) / 2;
    let y = (canvas.rows - u16::try_from(rows + 2).unwrap_or(canvas.rows)) / 2;
    let visible = page.visible(rows);
    let more = page.lines.len() > rows;
    let top = format!("╭ {title} {}╮", "─".repeat(inner.saturating_sub(title.len() + 2)));
    let hint = if more { " ↑↓ more · esc " } else { " esc " };
    let bottom = format!("╰{}{hint}─╯", "─".repeat(inner.saturating_sub(hint.chars().count() + 1)));
    let frame = theme.marker(true);
    canvas.spans(x, y, vec![Span::styled(top, frame)]);
    for at in 0..rows {
        let mut row = Row::default();
        row.push("│", frame);
        if let Some(line) = visible.get(at) {
            let line = Row::new(line_row(theme, line, " ").cut(inner));
            row.columns += line.columns;
            row.spans.extend(line.spans);
        }
        row.to(inner + 1).push("│", frame);
        canvas.spans(x, y + 1 + u16::try_from(at).unwrap_or(u16::MAX), row.spans);
    }
    canvas.spans(x, y + 1 + u16::try_from(rows).unwrap_or(u16::MAX), vec![Span::styled(bottom, frame)]);
}

fn line_row(theme: Theme, line: &Line, indent: &'static str) -> Row {
    let mut row = Row::default();
    row.push(indent, Style::new());
    // A heading fills the place of the label too.
    let heading = line.label.is_empty() && line.tone == Tone::Strong && indent == " ";
    if !heading {
        row.push(line.label.clone(), faint(theme)).to(indent.len() + LABEL_COLUMNS);
    }
    row.push_shown(&line.text, theme.style(line.tone), theme);
    row
}
