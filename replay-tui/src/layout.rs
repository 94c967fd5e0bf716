//! Where things stand on a screen of a given size. App and view both ask here, so that paging and drawing agree.

/// No screen is drawn on fewer columns.
pub const COLUMNS_MIN: u16 = 40;
/// No screen is drawn on fewer rows.
pub const ROWS_MIN: u16 = 10;
/// From this many rows on, sessions and timeline stand above each other.
const SPLIT_ROWS: u16 = 20;

/// Frame, filter, heading, rules, status and keys.
const CHROME_SPLIT: u16 = 8;
const CHROME_SESSIONS: u16 = 7;
const CHROME_TIMELINE: u16 = 5;

/// Which part of the screen listens to keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    /// The list of sessions.
    Sessions,
    /// The timeline of the chosen session.
    Timeline,
    /// One opened step.
    Step,
}

/// How many rows each part has; 0 where it is not on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Rows for sessions, below their heading.
    pub sessions: usize,
    /// Rows for steps.
    pub timeline: usize,
    /// Rows for an opened step.
    pub step: usize,
}

/// Shares out the rows of a screen.
#[must_use]
pub fn rows(screen_rows: u16, focus: Focus, sessions: usize) -> Rows {
    let below = |chrome: u16| usize::from(screen_rows.saturating_sub(chrome).max(1));
    match focus {
        Focus::Step => Rows { sessions: 0, timeline: 0, step: below(CHROME_TIMELINE) },
        Focus::Sessions if screen_rows < SPLIT_ROWS => {
            Rows { sessions: below(CHROME_SESSIONS), timeline: 0, step: 0 }
        }
        Focus::Timeline if screen_rows < SPLIT_ROWS => {
            Rows { sessions: 0, timeline: below(CHROME_TIMELINE), step: 0 }
        }
        _ => {
            let both = below(CHROME_SPLIT);
            let share = if focus == Focus::Sessions { both * 3 / 5 } else { both * 3 / 10 };
            let sessions = sessions.clamp(1, share.max(3));
            Rows { sessions, timeline: both - sessions, step: 0 }
        }
    }
}

/// How the columns of a timeline are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineColumns {
    /// Whether the time has milliseconds.
    pub milliseconds: bool,
    /// Columns for the statement and its parameters.
    pub statement: usize,
    /// Columns for rows, errors and policies.
    pub answer: usize,
    /// Columns for the duration; 0 where there is none.
    pub duration: usize,
}

/// The columns before the statement: frame, marker, time, decision and the blanks between them.
#[must_use]
pub fn before_statement(milliseconds: bool) -> usize {
    3 + if milliseconds { 12 } else { 8 } + 2 + 9 + 1
}

/// Shares out the columns of a timeline.
#[must_use]
pub fn timeline_columns(screen_columns: u16) -> TimelineColumns {
    let columns = usize::from(screen_columns);
    let milliseconds = columns >= 96;
    let (answer, duration) = match columns {
        120.. => (22, 9),
        96..120 => (16, 9),
        72..96 => (13, 8),
        _ => (9, 0),
    };
    let taken = before_statement(milliseconds) + answer + duration + 5;
    TimelineColumns { milliseconds, statement: columns.saturating_sub(taken).max(8), answer, duration }
}

/// The columns of an opened step.
#[must_use]
pub fn page_columns(screen_columns: u16) -> usize {
    usize::from(screen_columns.saturating_sub(4))
}

/// The columns of what lies over the screen, without its frame.
#[must_use]
pub fn overlay_columns(screen_columns: u16) -> usize {
    usize::from(screen_columns.saturating_sub(10).min(100))
}

/// The most rows of what lies over the screen, without its frame.
#[must_use]
pub fn overlay_rows(screen_rows: u16) -> usize {
    usize::from(screen_rows.saturating_sub(4))
}

/// Moves the first visible row no further than needed for the cursor to be seen.
///
/// `height` says how many screen rows an item fills; it is asked only for items near the cursor.
#[must_use]
pub fn first_visible(first: usize, cursor: usize, rows: usize, height: impl Fn(usize) -> usize) -> usize {
    if cursor <= first {
        return cursor;
    }
    let mut lowest = cursor;
    let mut filled = height(cursor);
    while lowest > first {
        filled += height(lowest - 1);
        if filled > rows {
            break;
        }
        lowest -= 1;
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_every_screen_are_used_up() {
        for screen_rows in ROWS_MIN..200 {
            for sessions in [0, 1, 5, 1_000] {
                let split = rows(screen_rows, Focus::Timeline, sessions);
                let chrome = if split.sessions > 0 { CHROME_SPLIT } else { CHROME_TIMELINE };
                assert_eq!(split.sessions + split.timeline + usize::from(chrome), usize::from(screen_rows));
                assert!(split.timeline >= 5, "{screen_rows} rows: {split:?}");
            }
        }
    }

    #[test]
    fn the_cursor_is_always_in_sight() {
        let height = |index: usize| 1 + index % 3;
        for cursor in 0..50 {
            for first in 0..50 {
                let first = first_visible(first, cursor, 10, height);
                assert!(first <= cursor);
                assert!((first..=cursor).map(height).sum::<usize>() <= 10);
            }
        }
        assert_eq!(first_visible(3, 5, 10, |_| 1), 3, "no further than needed");
        assert_eq!(first_visible(0, 99_999, 10, |_| 1), 99_990);
    }
}
