//! One session's steps, the words of those near the screen, and the play head over them.
//!
//! Steps are small and all here; words are large, and only those near the screen are kept.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::layout;
use crate::message::{Decision, Ending, SessionId, Step, StepText, What};
use crate::player::{Player, Schedule};
use crate::text;

/// A step fills no more rows than this in the timeline, even where statements are wrapped.
pub const WRAPPED_ROWS_MAX: usize = 12;

/// The timeline of one session.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    /// Whose.
    pub session: SessionId,
    /// All steps.
    pub steps: Vec<Step>,
    /// Whether the first steps have arrived.
    pub arrived: bool,
    /// The chosen step.
    pub cursor: usize,
    /// The first step on the screen.
    pub first: usize,
    /// Whether statements are wrapped.
    pub wrap: bool,
    /// The play head.
    pub player: Player,
    schedule: Schedule,
    texts: BTreeMap<usize, StepText>,
    asked: Option<Range<usize>>,
}

impl Timeline {
    /// The empty timeline of a session, before its steps arrive.
    #[must_use]
    pub fn new(session: SessionId, wrap: bool) -> Self {
        Timeline { session, wrap, ..Timeline::default() }
    }

    /// Takes steps from `from` on. A cursor on the last step stays on the last.
    pub fn take_steps(&mut self, from: usize, steps: Vec<Step>) {
        let at_end = self.arrived && self.cursor + 1 == self.steps.len() && self.steps.len() > 1;
        self.steps.truncate(from);
        self.steps.extend(steps);
        self.texts.split_off(&from);
        self.asked = None;
        self.arrived = true;
        let last = self.steps.len().saturating_sub(1);
        self.cursor = if at_end && !self.player.on { last } else { self.cursor.min(last) };
        let mut times = Vec::with_capacity(self.steps.len() * 2);
        for (index, step) in self.steps.iter().enumerate() {
            times.push((step.at_ns, Some(index)));
            if let What::Command { outcome: Some(outcome), .. } = &step.what {
                times.push((outcome.at_ns, None));
            }
        }
        self.schedule = Schedule::new(times);
    }

    /// Takes the words of steps.
    pub fn take_texts(&mut self, from: usize, texts: Vec<StepText>) {
        self.asked = None;
        let count = self.steps.len();
        self.texts.extend((from..count).zip(texts));
    }

    /// The words of a step, if they are here.
    #[must_use]
    pub fn text(&self, index: usize) -> Option<&StepText> {
        self.texts.get(&index)
    }

    /// How much memory the words take, about.
    #[must_use]
    pub fn texts_weight(&self) -> usize {
        self.texts.values().map(StepText::weight).sum()
    }

    /// The schedule of the replay.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// How many rows a step fills.
    #[must_use]
    pub fn height(&self, index: usize, statement_columns: usize) -> usize {
        let idle = usize::from(self.schedule.idle_before(index).is_some());
        let lines = match self.text(index) {
            Some(text) if self.wrap => {
                text::wrapped(&text.in_one(), statement_columns).len().clamp(1, WRAPPED_ROWS_MAX)
            }
            _ => 1,
        };
        idle + lines
    }

    /// Brings the cursor into sight, forgets words that are far from the screen, and says which are missing on it.
    pub fn settle(&mut self, rows: usize, statement_columns: usize) -> Option<Range<usize>> {
        self.first =
            layout::first_visible(self.first, self.cursor, rows, |at| self.height(at, statement_columns));
        let near = self.first.saturating_sub(2 * rows)..self.first.saturating_add(3 * rows);
        self.texts.retain(|index, _| near.contains(index));
        let visible = self.first..self.first.saturating_add(rows).min(self.steps.len());
        let missing = visible.clone().find(|index| !self.texts.contains_key(index))?..visible.end;
        if self.asked.as_ref().is_some_and(|asked| asked.start <= missing.start && missing.end <= asked.end) {
            return None;
        }
        self.asked = Some(missing.clone());
        Some(missing)
    }

    /// Lets everything be asked for again.
    pub fn forget_asked(&mut self) {
        self.asked = None;
    }

    /// Chooses a step; in a replay the head goes there too.
    pub fn choose(&mut self, index: usize) {
        self.cursor = index.min(self.steps.len().saturating_sub(1));
        if let Some(step) = self.steps.get(self.cursor) {
            self.player.seek(self.schedule.offset_ns(step.at_ns));
        }
    }

    /// Plays from the chosen step, from the start when it is the last, or pauses.
    pub fn play_or_pause(&mut self) {
        if self.steps.is_empty() {
            return;
        }
        if self.player.playing {
            self.player.playing = false;
            return;
        }
        if !self.player.on || self.player.head_ns >= self.schedule.length_ns() {
            let last = self.cursor + 1 >= self.steps.len();
            self.choose(if last { 0 } else { self.cursor });
        }
        self.player.on = true;
        self.player.playing = true;
    }

    /// Goes one step on or back, and pauses there.
    pub fn step(&mut self, forward: bool) {
        self.player.on = true;
        self.player.playing = false;
        let to = if forward { self.cursor.saturating_add(1) } else { self.cursor.saturating_sub(1) };
        self.choose(to);
    }

    /// Ends the replay; the cursor stays.
    pub fn stop(&mut self) {
        self.player.on = false;
        self.player.playing = false;
    }

    /// Lets time pass: the head moves, and the cursor with it.
    pub fn pass(&mut self, elapsed_ns: u64) {
        if !self.player.playing {
            return;
        }
        self.player.pass(elapsed_ns, self.schedule.length_ns());
        let head_ns = self.player.head_ns;
        let mut cursor = self.cursor;
        while self.steps.get(cursor + 1).is_some_and(|next| self.schedule.offset_ns(next.at_ns) <= head_ns) {
            cursor += 1;
        }
        self.cursor = cursor;
    }

    /// Whether the replay has not come to a step yet.
    #[must_use]
    pub fn is_ahead(&self, index: usize) -> bool {
        self.player.on && index > self.cursor
    }

    /// Whether the replay has not come to a recorded time yet.
    #[must_use]
    pub fn is_pending(&self, at_ns: u64) -> bool {
        self.player.on && self.schedule.offset_ns(at_ns) > self.player.head_ns
    }

    /// The next step after the cursor that was refused, failed or cannot be believed; from the start after the last.
    #[must_use]
    pub fn next_trouble(&self, doubtful: impl Fn(u64) -> bool) -> Option<usize> {
        let is_trouble = |step: &Step| match &step.what {
            What::Broken { .. } => true,
            What::Command { decision, outcome, .. } => {
                *decision != Decision::Permit
                    || outcome
                        .is_some_and(|outcome| matches!(outcome.ending, Ending::Failed | Ending::Unknown))
            }
            What::Note(_) => false,
        };
        let count = self.steps.len();
        (1..=count).map(|ahead| (self.cursor + ahead) % count).find(|index| {
            let step = &self.steps[*index];
            is_trouble(step) || doubtful(step.seq)
        })
    }
}
