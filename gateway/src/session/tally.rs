//! How much was shown: to a principal in a day, and how much a command may still show of it.
//!
//! Days are those of UTC. What is counted is what was sent to clients, whichever session and policy it went by.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gatebook_wire::protocol::Excess;
use parking_lot::{Mutex, MutexGuard};

use crate::policy::{Decision, Limit};

/// How many principals are kept before those of earlier days are forgotten.
const PRINCIPALS_MAX: usize = 4096;

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// What one principal was shown today.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Day>);

/// What was shown in one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Day {
    number: u64,
    /// How many rows.
    pub(crate) rows: u64,
    /// How many bytes.
    pub(crate) bytes: u64,
}

impl Day {
    /// Nothing yet, in the day of that time.
    pub(crate) fn of(time: SystemTime) -> Day {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Day { number: seconds / DAY_SECONDS, rows: 0, bytes: 0 }
    }

    /// When it began, in nanoseconds since 1970.
    pub(crate) fn begins_ns(&self) -> u64 {
        self.number.saturating_mul(DAY_SECONDS * 1_000_000_000)
    }

    /// Whether both are of one day.
    pub(crate) fn is_with(&self, other: Day) -> bool {
        self.number == other.number
    }
}

impl Tally {
    /// What was shown so far in the day of now.
    pub(super) fn today(&self) -> Day {
        *self.of(SystemTime::now())
    }

    /// The day of that time, which begins with nothing.
    fn of(&self, time: SystemTime) -> MutexGuard<'_, Day> {
        let (mut day, now) = (self.0.lock(), Day::of(time));
        if !day.is_with(now) {
            *day = now;
        }
        day
    }

    /// So much more was shown.
    pub(super) fn add(&self, rows: u64, bytes: u64) {
        self.add_at(SystemTime::now(), rows, bytes);
    }

    fn add_at(&self, time: SystemTime, rows: u64, bytes: u64) {
        let mut day = self.of(time);
        day.rows = day.rows.saturating_add(rows);
        day.bytes = day.bytes.saturating_add(bytes);
    }
}

/// The tallies of all principals.
#[derive(Debug, Default)]
pub(crate) struct Tallies(Mutex<HashMap<Arc<str>, Arc<Tally>>>);

impl Tallies {
    /// The tally of a principal, by its id.
    pub(crate) fn of(&self, principal: &Arc<str>) -> Arc<Tally> {
        let mut tallies = self.0.lock();
        if tallies.len() >= PRINCIPALS_MAX && !tallies.contains_key(principal) {
            let now = Day::of(SystemTime::now());
            tallies.retain(|_, tally| Arc::strong_count(tally) > 1 || tally.0.lock().is_with(now));
        }
        tallies.entry(principal.clone()).or_default().clone()
    }

    /// Takes over what was shown before this gateway started.
    pub(crate) fn restore(&self, principal: &Arc<str>, shown: Day) {
        let tally = self.of(principal);
        let mut day = tally.0.lock();
        if !day.is_with(shown) {
            *day = Day { rows: 0, bytes: 0, ..shown };
        }
        day.rows = day.rows.saturating_add(shown.rows);
        day.bytes = day.bytes.saturating_add(shown.bytes);
    }
}

/// The limits of one command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    rows: Option<u64>,
    pub(super) seconds: Option<u64>,
    session_bytes: Option<u64>,
    day_rows: Option<u64>,
    day_bytes: Option<u64>,
}

/// What was shown when a limit is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    /// Rows of this result.
    pub(super) rows: u64,
    /// Bytes of this session.
    pub(super) session_bytes: u64,
    /// To this principal today.
    pub(super) day: Day,
}

impl Bounds {
    pub(super) fn of(decision: &Decision) -> Bounds {
        if decision.obligations.is_empty() {
            return Bounds::default();
        }
        Bounds {
            rows: decision.at_most(Limit::Rows),
            seconds: decision.at_most(Limit::Seconds),
            session_bytes: decision.at_most(Limit::SessionBytes),
            day_rows: decision.at_most(Limit::DayRows),
            day_bytes: decision.at_most(Limit::DayBytes),
        }
    }

    /// Whether there are any.
    pub(super) fn are_any(&self) -> bool {
        *self != Bounds::default()
    }

    /// What is used up before anything of the command is shown.
    pub(super) fn used_up(&self, shown: Shown) -> Option<Excess> {
        let reached = |most: Option<u64>, shown: u64| most.is_some_and(|most| shown >= most);
        if reached(self.session_bytes, shown.session_bytes) {
            Some(Excess::Session)
        } else if reached(self.day_rows, shown.day.rows) || reached(self.day_bytes, shown.day.bytes) {
            Some(Excess::Day)
        } else {
            None
        }
    }

    /// How many of the next `rows` rows, of `bytes` bytes, may be shown, where that is not all of them; of rows that do not fit by their bytes none.
    pub(super) fn over(&self, shown: Shown, rows: u64, bytes: u64) -> Option<(u64, Excess)> {
        let by_rows = |most: Option<u64>, shown: u64, excess| {
            let left = most?.saturating_sub(shown);
            (rows > left).then_some((left, excess))
        };
        let by_bytes = |most: Option<u64>, shown: u64, excess| {
            (shown.saturating_add(bytes) > most?).then_some((0, excess))
        };
        [
            by_rows(self.rows, shown.rows, Excess::Shown),
            by_rows(self.day_rows, shown.day.rows, Excess::Day),
            by_bytes(self.session_bytes, shown.session_bytes, Excess::Session),
            by_bytes(self.day_bytes, shown.day.bytes, Excess::Day),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(rows, _)| *rows)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What was shown after midnight in an answer that had begun before was counted for the day before.
    #[test]
    fn what_is_shown_in_a_day_is_counted_in_that_day() {
        let tally = Tally::default();
        let at = |day: u64| UNIX_EPOCH + Duration::from_secs(day * DAY_SECONDS + 5);
        tally.add_at(at(7), 3, 30);
        tally.add_at(at(8), 1, 10);
        let day = *tally.of(at(8));
        assert_eq!((day.rows, day.bytes), (1, 10));
    }
}
