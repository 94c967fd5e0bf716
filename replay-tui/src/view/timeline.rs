//! The timeline of one session.

use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use super::{Canvas, Row, faint, listens};
use crate::app::App;
use crate::app::timeline::WRAPPED_ROWS_MAX;
use crate::figures;
use crate::layout::{self, Focus, TimelineColumns};
use crate::message::{Outcome, Step, StepText, What};
use crate::parameter;
use crate::signs::{self, Sign, Tone};
use crate::text;
use crate::theme::Theme;

pub(super) fn title(canvas: &mut Canvas<'_>, app: &App, y: u16) {
    let theme = canvas.theme;
    let timeline = &app.timeline;
    let mut left = Row::default();
    if let Some(session) = app.sessions.session(timeline.session) {
        if session.id == 0 {
            left.push("outside of sessions", theme.style(Tone::Strong));
        } else {
            let part = |row: &mut Row, words: &str, style| {
                row.push_shown(&text::summary(words.as_bytes(), 48), style, theme);
            };
            part(&mut left, &session.principal, theme.style(Tone::Strong));
            for actor in &session.through {
                left.push(" → ", faint(theme));
                part(&mut left, actor, Style::new());
            }
            left.push(" → ", faint(theme));
            part(&mut left, &session.resource, Style::new());
            if !session.database.is_empty() {
                left.push("/", faint(theme));
                part(&mut left, &session.database, Style::new());
            }
            if !session.role.is_empty() {
                left.push(" as ", faint(theme));
                part(&mut left, &session.role, Style::new());
            }
        }
    }
    let right = match (timeline.player.on, timeline.steps.len()) {
        (_, 0) => Vec::new(),
        (true, _) => {
            let sign = if timeline.player.playing { "▶" } else { "‖" };
            let head = figures::play_time(timeline.player.head_ns);
            let length = figures::play_time(timeline.schedule().length_ns());
            vec![
                Span::styled(format!("{sign} {}", timeline.player.speed_name()), theme.style(Tone::Strong)),
                Span::styled(format!("  {head} / {length}"), Style::new()),
            ]
        }
        (false, steps) => {
            let at = figures::grouped(timeline.cursor as u64 + 1);
            vec![Span::styled(format!("step {at} of {}", figures::grouped(steps as u64)), faint(theme))]
        }
    };
    canvas.rule(y, ['├', '┤'], left.spans, right);
}

pub(super) fn draw(canvas: &mut Canvas<'_>, app: &App, y: u16, rows: usize) {
    let columns = layout::timeline_columns(canvas.columns);
    let mut lines = Vec::with_capacity(rows);
    let first = app.timeline.first;
    for index in first..app.timeline.steps.len() {
        if lines.len() >= rows {
            break;
        }
        lines.extend(step_rows(canvas.theme, app, &columns, index));
    }
    if lines.is_empty() {
        let words = match () {
            () if app.sessions.is_empty() => "",
            () if app.timeline.arrived => "nothing was recorded here",
            () => "reading …",
        };
        let mut row = Row::default();
        row.push("   ", Style::new()).push(words, faint(canvas.theme));
        lines.push(row);
    }
    lines.resize(rows, Row::default());
    for (at, row) in lines.into_iter().enumerate() {
        canvas.row(y + u16::try_from(at).unwrap_or(u16::MAX), row);
    }
    canvas.thumb(y, rows, first, app.timeline.steps.len());
}

/// The rows of one step: the silence before it, where it was long, and itself.
fn step_rows(theme: Theme, app: &App, columns: &TimelineColumns, index: usize) -> Vec<Row> {
    let timeline = &app.timeline;
    let step = &timeline.steps[index];
    let text = timeline.text(index);
    let mut rows = Vec::with_capacity(2);
    if let Some(idle) = timeline.schedule().idle_before(index) {
        let mut row = Row::default();
        let words = format!("┄┄ {} of silence", figures::age(idle.length_ns / 1_000_000_000));
        row.push("   ", Style::new()).push(words, faint(theme));
        rows.push(row);
    }
    // What cannot be read says by itself where it is; what can be read, and is in doubt, the verifier says.
    let broken = matches!(step.what, What::Broken { .. });
    let problem = app.problem(step.seq).filter(|_| !broken);
    let ahead = timeline.is_ahead(index);
    let sign = match () {
        _ if problem.is_some() || text.is_some_and(|text| text.broken) => {
            Sign { sign: '▲', words: "BROKEN".to_owned(), tone: Tone::Bad }
        }
        _ => signs::step(&step.what),
    };
    let chosen = index == timeline.cursor;
    let base = match () {
        () if ahead => faint(theme),
        () if chosen => theme.style(Tone::Strong),
        () => Style::new(),
    };
    let sign_style = if ahead { base } else { base.patch(theme.style(sign.tone)) };
    let mut row = Row::default();
    row.push(if chosen { " ▸ " } else { "   " }, theme.marker(listens(app, Focus::Timeline)));
    let time_style = if chosen && !ahead { base } else { faint(theme) };
    row.push(figures::clock(step.at_ns, columns.milliseconds), time_style);
    row.push("  ", Style::new());
    row.push(format!("{} ", sign.sign), sign_style).cell(&sign.words, 8, sign_style, theme);
    row.to(layout::before_statement(columns.milliseconds));

    let doubt = problem.map(|problem| format!("{} · {}", problem.why, problem.place));
    let statement_style = match sign.tone {
        _ if ahead => base,
        Tone::Bad | Tone::Refused | Tone::Faint | Tone::Human => base.patch(theme.style(sign.tone)),
        _ => base,
    };
    // Bold cyan for the sign alone; the words of a refused statement keep the weight but not the colour.
    let statement_style = if sign.tone == Tone::Refused && !ahead {
        base.add_modifier(Modifier::BOLD)
    } else {
        statement_style
    };
    let start = row.columns;
    let lines = words(step, text, doubt.as_deref(), columns, timeline.wrap);
    for (at, line) in lines.iter().enumerate().take(WRAPPED_ROWS_MAX) {
        let mut this = if at == 0 { std::mem::take(&mut row) } else { Row::default() };
        this.to(start);
        this.push_shown(&line.0, statement_style, theme);
        if let Some(parameters) = &line.1 {
            this.push("  ", Style::new()).push_shown(parameters, faint(theme), theme);
        }
        if at == 0 {
            this.to(start + columns.statement + 2);
            answer(&mut this, theme, app, step, text, columns, ahead);
        }
        rows.push(this);
    }
    rows
}

type Words = (text::Shown, Option<text::Shown>);

/// What a step says: the statement with its parameters, a note, or what is wrong.
fn words(
    step: &Step,
    text: Option<&StepText>,
    doubt: Option<&str>,
    columns: &TimelineColumns,
    wrap: bool,
) -> Vec<Words> {
    let width = columns.statement;
    let alone = |shown| vec![(shown, None)];
    if let Some(doubt) = doubt {
        return alone(text::summary(doubt.as_bytes(), width));
    }
    if let What::Broken { segment, offset, why, .. } = &step.what {
        let words = format!("{why} · segment {segment} at byte {}", figures::grouped(*offset));
        return alone(text::summary(words.as_bytes(), width));
    }
    let Some(text) = text else { return alone(text::summary("…".as_bytes(), width)) };
    if let Some(missing) = &text.missing {
        return alone(text::summary(format!("({missing})").as_bytes(), width));
    }
    if wrap {
        return text::wrapped(&text.in_one(), width).into_iter().map(|line| (line, None)).collect();
    }
    let list = parameter::list(&text.parameters, text.parameters_count);
    if list.is_empty() {
        return alone(text::summary(&text.statement, width));
    }
    let parameters = text::summary(&list, (width / 3).max(8));
    let statement = text::summary(&text.statement, width.saturating_sub(parameters.columns + 2));
    vec![(statement, Some(parameters))]
}

/// What came of it: rows, an error, the policy that refused; and how long it took.
fn answer(
    row: &mut Row,
    theme: Theme,
    app: &App,
    step: &Step,
    text: Option<&StepText>,
    columns: &TimelineColumns,
    ahead: bool,
) {
    let What::Command { prepare, outcome, .. } = &step.what else { return };
    if ahead {
        return;
    }
    let refused = signs::step(&step.what).tone == Tone::Refused;
    let policies = text.map_or(String::new(), |text| text.policies.join(", "));
    let answered = outcome.as_ref().filter(|outcome| !app.timeline.is_pending(outcome.at_ns));
    let (words, tone) = match answered {
        _ if refused && !policies.is_empty() => (policies, Tone::Refused),
        _ if refused && text.is_some_and(|text| text.missing.is_none()) => {
            ("no policy permits it".to_owned(), Tone::Refused)
        }
        _ if refused => return,
        Some(outcome) => signs::outcome(outcome, text.map_or("", |text| text.answer.as_str())),
        None if *prepare => return,
        None => ("…".to_owned(), Tone::Faint),
    };
    row.cell(&words, columns.answer, theme.style(tone), theme);
    if let (Some(Outcome { duration_us, .. }), true, false) = (answered, columns.duration > 0, refused) {
        row.cell_right(&figures::duration(*duration_us), columns.duration, faint(theme), theme);
    }
}
