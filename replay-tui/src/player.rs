//! Replay: from the times at which things were recorded to a clock that can be played.
//!
//! Long silences are drawn together: what was [`IDLE_MAX_NS`] or longer plays as [`IDLE_PLAYED_NS`], and is named
//! so that it can be marked. Nothing else is changed: order and pace are those of the record.

use std::collections::BTreeMap;

use crate::message::UnixNs;

/// A silence this long is drawn together.
pub const IDLE_MAX_NS: u64 = 10_000_000_000;
/// What it plays as.
pub const IDLE_PLAYED_NS: u64 = 1_000_000_000;

/// The speeds, as numerator and denominator.
const SPEEDS: [(u64, u64); 6] = [(1, 2), (1, 1), (2, 1), (4, 1), (8, 1), (16, 1)];
const NORMAL: usize = 1;

/// A silence that was drawn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle {
    /// When it began.
    pub from_ns: UnixNs,
    /// How long it was.
    pub length_ns: u64,
    /// All that was cut up to its end.
    cut_ns: u64,
}

/// Recorded times, and where they stand in the play.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    start_ns: Option<UnixNs>,
    end_ns: UnixNs,
    idles: Vec<Idle>,
    before: BTreeMap<usize, usize>,
}

impl Schedule {
    /// Makes a schedule of recorded times, in any order; each names the step that began with it, if one did.
    #[must_use]
    pub fn new(mut times: Vec<(UnixNs, Option<usize>)>) -> Self {
        times.sort_by_key(|(at_ns, _)| *at_ns);
        let mut schedule = Schedule::default();
        for (at_ns, begins) in times {
            schedule.add(at_ns, begins);
        }
        schedule
    }

    fn add(&mut self, at_ns: UnixNs, begins: Option<usize>) {
        if self.start_ns.is_none() {
            self.start_ns = Some(at_ns);
            self.end_ns = at_ns;
        }
        let length_ns = at_ns.saturating_sub(self.end_ns);
        if length_ns >= IDLE_MAX_NS {
            let cut_ns = self.cut_ns() + length_ns - IDLE_PLAYED_NS;
            if let Some(step) = begins {
                self.before.insert(step, self.idles.len());
            }
            self.idles.push(Idle { from_ns: self.end_ns, length_ns, cut_ns });
        }
        self.end_ns = self.end_ns.max(at_ns);
    }

    fn cut_ns(&self) -> u64 {
        self.idles.last().map_or(0, |idle| idle.cut_ns)
    }

    /// Where a recorded time stands in the play, in nanoseconds from its start.
    #[must_use]
    pub fn offset_ns(&self, at_ns: UnixNs) -> u64 {
        let Some(start_ns) = self.start_ns else { return 0 };
        let at_ns = at_ns.clamp(start_ns, self.end_ns.max(start_ns));
        let passed = self.idles.partition_point(|idle| idle.from_ns + idle.length_ns <= at_ns);
        let cut_ns = passed.checked_sub(1).map_or(0, |last| self.idles[last].cut_ns);
        let elapsed_ns = at_ns - start_ns - cut_ns;
        match self.idles.get(passed) {
            // Inside of a silence: no further than the silence plays.
            Some(idle) if idle.from_ns < at_ns => {
                let before_ns = idle.from_ns - start_ns - cut_ns;
                elapsed_ns.min(before_ns + IDLE_PLAYED_NS)
            }
            _ => elapsed_ns,
        }
    }

    /// How long the play is.
    #[must_use]
    pub fn length_ns(&self) -> u64 {
        self.offset_ns(self.end_ns)
    }

    /// The silence that a step ended, if it ended one that was drawn together.
    #[must_use]
    pub fn idle_before(&self, step: usize) -> Option<&Idle> {
        self.before.get(&step).map(|idle| &self.idles[*idle])
    }
}

/// The play head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Player {
    /// Whether a replay is on, playing or not.
    pub on: bool,
    /// Whether the head moves.
    pub playing: bool,
    /// Where it stands, in nanoseconds from the start of the play.
    pub head_ns: u64,
    speed: usize,
}

impl Default for Player {
    fn default() -> Self {
        Player { on: false, playing: false, head_ns: 0, speed: NORMAL }
    }
}

impl Player {
    /// Moves the head by the time that has passed; pauses at the end of the play.
    pub fn pass(&mut self, elapsed_ns: u64, length_ns: u64) {
        if !self.playing {
            return;
        }
        let (times, over) = SPEEDS[self.speed];
        self.head_ns = self.head_ns.saturating_add(elapsed_ns.saturating_mul(times) / over);
        if self.head_ns >= length_ns {
            self.head_ns = length_ns;
            self.playing = false;
        }
    }

    /// Puts the head somewhere.
    pub fn seek(&mut self, head_ns: u64) {
        self.head_ns = head_ns;
    }

    /// One speed up.
    pub fn faster(&mut self) {
        self.speed = (self.speed + 1).min(SPEEDS.len() - 1);
    }

    /// One speed down.
    pub fn slower(&mut self) {
        self.speed = self.speed.saturating_sub(1);
    }

    /// The speed as it is shown.
    #[must_use]
    pub fn speed_name(&self) -> &'static str {
        ["½×", "1×", "2×", "4×", "8×", "16×"][self.speed]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn schedule(times: &[u64]) -> Schedule {
        Schedule::new(times.iter().enumerate().map(|(step, at)| (1_000 * S + at, Some(step))).collect())
    }

    #[test]
    fn order_and_pace_are_those_of_the_record() {
        let schedule = schedule(&[0, S, S + 7, 4 * S]);
        let played: Vec<u64> =
            [0, S, S + 7, 4 * S].iter().map(|at| schedule.offset_ns(1_000 * S + at)).collect();
        assert_eq!(played, [0, S, S + 7, 4 * S]);
        assert_eq!(schedule.length_ns(), 4 * S);
    }

    #[test]
    fn a_long_silence_is_drawn_together_and_named() {
        let schedule = schedule(&[0, S, 301 * S, 302 * S, 902 * S]);
        assert_eq!(schedule.offset_ns(1_301 * S), 2 * S);
        assert_eq!(schedule.offset_ns(1_302 * S), 3 * S);
        assert_eq!(schedule.length_ns(), 4 * S);
        assert_eq!(schedule.idle_before(2).map(|idle| idle.length_ns), Some(300 * S));
        assert_eq!(schedule.idle_before(3), None);
        assert_eq!(schedule.offset_ns(1_100 * S), 2 * S, "inside of the silence");
    }

    #[test]
    fn a_clock_that_went_back_breaks_nothing() {
        let back = schedule(&[18 * S, 2 * S, 19 * S]);
        assert_eq!(back.length_ns(), 2 * S, "sixteen seconds of silence play as one");
        let extreme = Schedule::new(vec![(0, Some(0)), (u64::MAX, Some(1)), (0, Some(2))]);
        assert_eq!(extreme.length_ns(), IDLE_PLAYED_NS);
    }

    #[test]
    fn waiting_for_an_answer_is_drawn_together_but_is_no_silence() {
        let waiting = Schedule::new(vec![(0, Some(0)), (60 * S, None), (61 * S, Some(1))]);
        assert_eq!(waiting.length_ns(), 2 * S);
        assert_eq!(waiting.idle_before(0).or(waiting.idle_before(1)), None);
    }

    #[test]
    fn offsets_never_go_back() {
        let schedule = schedule(&[0, 3 * S, 20 * S, 20 * S, 21 * S, 90 * S]);
        let offsets: Vec<u64> =
            (0..=950).map(|tenth| schedule.offset_ns(1_000 * S + tenth * S / 10)).collect();
        assert!(offsets.is_sorted());
    }

    #[test]
    fn the_head_moves_by_its_speed_and_stops_at_the_end() {
        let mut player = Player { on: true, playing: true, ..Player::default() };
        player.pass(S, 10 * S);
        assert_eq!(player.head_ns, S);
        player.faster();
        player.faster();
        player.pass(S, 10 * S);
        assert_eq!((player.head_ns, player.speed_name()), (5 * S, "4×"));
        for _ in 0..9 {
            player.slower();
        }
        player.pass(S, 10 * S);
        assert_eq!((player.head_ns, player.speed_name()), (5 * S + S / 2, "½×"));
        player.pass(u64::MAX, 10 * S);
        assert_eq!((player.head_ns, player.playing), (10 * S, false));
    }
}
