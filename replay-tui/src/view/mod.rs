//! From the state to a screen. Nothing here remembers anything, and only what is visible is looked at.

mod proof;
mod sessions;
mod status;
mod timeline;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::app::App;
use crate::layout::{self, Focus};
use crate::signs::{self, Tone};
use crate::text::{self, PieceKind, Shown};
use crate::theme::Theme;

/// Draws the whole screen.
pub fn draw(frame: &mut Frame<'_>, app: &App, theme: Theme) {
    let area = frame.area();
    let mut canvas = Canvas { columns: area.width, rows: area.height, buffer: frame.buffer_mut(), theme };
    if area.width < layout::COLUMNS_MIN || area.height < layout::ROWS_MIN {
        too_small(&mut canvas, app);
        return;
    }
    let rows = app.rows();
    let height = |rows: usize| u16::try_from(rows).unwrap_or(u16::MAX);
    status::top(&mut canvas, app);
    let mut y = 1;
    if rows.sessions > 0 {
        status::filter(&mut canvas, app, y);
        canvas.rule(y + 1, ['├', '┤'], Vec::new(), Vec::new());
        sessions::draw(&mut canvas, app, y + 2, rows.sessions);
        y += 3 + height(rows.sessions);
    }
    if rows.timeline > 0 {
        timeline::title(&mut canvas, app, y);
        timeline::draw(&mut canvas, app, y + 1, rows.timeline);
        y += 1 + height(rows.timeline);
    }
    if rows.step > 0 {
        timeline::title(&mut canvas, app, y);
        proof::opened(&mut canvas, app, y + 1, rows.step);
        y += 1 + height(rows.step);
    }
    canvas.rule(y, ['├', '┤'], Vec::new(), Vec::new());
    status::status(&mut canvas, app, y + 1);
    status::keys(&mut canvas, app, y + 2);
    if app.overlay.is_some() {
        proof::overlay(&mut canvas, app);
    }
}

fn too_small(canvas: &mut Canvas<'_>, app: &App) {
    let verdict = signs::verdict(&app.verdict, app.now.wall_ns);
    let words = format!("{} {}", verdict.sign, verdict.words);
    let style = canvas.theme.style(verdict.tone);
    let columns = usize::from(canvas.columns);
    canvas.spans(0, 0, vec![Span::styled(text::summary(words.as_bytes(), columns).plain(), style)]);
    let need = format!("needs {} × {}", layout::COLUMNS_MIN, layout::ROWS_MIN);
    canvas.spans(0, 1, vec![Span::raw(text::summary(need.as_bytes(), columns).plain())]);
}

/// The screen, and how to write on it.
struct Canvas<'a> {
    columns: u16,
    rows: u16,
    buffer: &'a mut Buffer,
    theme: Theme,
}

impl Canvas<'_> {
    /// The columns between the frame's sides.
    fn inner(&self) -> usize {
        usize::from(self.columns.saturating_sub(2))
    }

    fn spans(&mut self, x: u16, y: u16, spans: Vec<Span<'_>>) {
        if y >= self.rows || x >= self.columns {
            return;
        }
        let line = Line::from(spans);
        // What stood there before must leave no style behind.
        let width = u16::try_from(line.width()).unwrap_or(u16::MAX).min(self.columns - x);
        (x..x + width).for_each(|x| self.buffer[(x, y)].reset());
        self.buffer.set_line(x, y, &line, self.columns - x);
    }

    /// Writes a row between the frame's sides.
    fn row(&mut self, y: u16, row: Row) {
        let side = self.theme.frame();
        self.spans(0, y, vec![Span::styled("│", side)]);
        self.spans(self.columns - 1, y, vec![Span::styled("│", side)]);
        self.spans(1, y, row.cut(self.inner()));
    }

    /// Draws a line across, with words in it at the left and the right. Where both do not fit, the right ones stay.
    fn rule(&mut self, y: u16, ends: [char; 2], left: Vec<Span<'static>>, right: Vec<Span<'static>>) {
        let style = self.theme.frame();
        let line = format!("{}{}{}", ends[0], "─".repeat(self.inner()), ends[1]);
        self.spans(0, y, vec![Span::styled(line, style)]);
        let inner = self.inner();
        let mut right_row = Row::new(right);
        if right_row.columns > 0 {
            right_row = Row::new([vec![Span::raw(" ")], right_row.spans, vec![Span::raw(" ")]].concat());
        }
        let right_columns = right_row.columns.min(inner.saturating_sub(2));
        let left_row = Row::new(left);
        if left_row.columns > 0 {
            let left_columns = inner.saturating_sub(right_columns + 3);
            let mut spans = vec![Span::raw(" ")];
            spans.extend(left_row.cut(left_columns));
            spans.push(Span::raw(" "));
            self.spans(2, y, spans);
        }
        let x = self.columns.saturating_sub(2 + u16::try_from(right_columns).unwrap_or(0));
        let spans = right_row.cut(right_columns);
        self.spans(x, y, spans);
    }

    /// Marks on the right side which part of a longer list is on the screen.
    fn thumb(&mut self, y: u16, rows: usize, first: usize, count: usize) {
        if count <= rows || rows == 0 {
            return;
        }
        let size = (rows * rows / count).max(1);
        let at = (rows - size) * first.min(count - rows) / (count - rows);
        let style = self.theme.frame();
        for row in at..at + size {
            let y = y + u16::try_from(row).unwrap_or(0);
            self.spans(self.columns - 1, y, vec![Span::styled("┃", style)]);
        }
    }
}

/// Spans in a row, and their columns.
#[derive(Debug, Clone, Default)]
struct Row {
    spans: Vec<Span<'static>>,
    columns: usize,
}

impl Row {
    fn new(spans: Vec<Span<'static>>) -> Self {
        let columns = spans.iter().map(Span::width).sum();
        Row { spans, columns }
    }

    fn push(&mut self, words: impl Into<String>, style: Style) -> &mut Self {
        let span = Span::styled(words.into(), style);
        self.columns += span.width();
        self.spans.push(span);
        self
    }

    fn push_shown(&mut self, shown: &Shown, style: Style, theme: Theme) -> &mut Self {
        for piece in &shown.pieces {
            let style = match piece.kind {
                PieceKind::Recorded => style,
                PieceKind::Spelled => style.patch(theme.mark()),
                PieceKind::Cut => faint(theme),
            };
            self.push(piece.text.clone(), style);
        }
        self
    }

    /// Fills with blanks up to a column.
    fn to(&mut self, column: usize) -> &mut Self {
        let blanks = column.saturating_sub(self.columns);
        self.push(" ".repeat(blanks), Style::new())
    }

    /// Writes words in a cell of their own, cut to fit, from the left.
    fn cell(&mut self, words: &str, columns: usize, style: Style, theme: Theme) -> &mut Self {
        let end = self.columns + columns;
        self.push_shown(&text::summary(words.as_bytes(), columns), style, theme).to(end)
    }

    /// The same, from the right.
    fn cell_right(&mut self, words: &str, columns: usize, style: Style, theme: Theme) -> &mut Self {
        let shown = text::summary(words.as_bytes(), columns);
        let start = self.columns + columns - shown.columns;
        self.to(start).push_shown(&shown, style, theme)
    }

    /// The spans that fit.
    fn cut(self, columns: usize) -> Vec<Span<'static>> {
        if self.columns <= columns {
            return self.spans;
        }
        let mut left = columns;
        let mut kept = Vec::new();
        for span in self.spans {
            let width = span.width();
            if width <= left {
                left -= width;
                kept.push(span);
                continue;
            }
            // What is in a row was made safe before, but its marks would be spelled out if it passed `text` again.
            let mut words = String::new();
            for character in span.content.chars() {
                let width = Span::raw(character.to_string()).width();
                if width + 1 > left {
                    break;
                }
                left -= width;
                words.push(character);
            }
            if left > 0 {
                words.push('…');
            }
            kept.push(Span::styled(words, span.style));
            break;
        }
        kept
    }
}

/// Blanks between columns.
const GAP: &str = "  ";

fn listens(app: &App, focus: Focus) -> bool {
    app.focus == focus && app.overlay.is_none()
}

fn faint(theme: Theme) -> Style {
    theme.style(Tone::Faint)
}
