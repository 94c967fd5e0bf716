//! The whole program as a state: a message and the time go in, wishes come out. No I/O, no clock, no thread.
//!
//! What a newcomer gets wrong: nothing here waits. Steps, words and verdicts arrive as messages when they do, and
//! until then the state says that they are not here.

pub mod sessions;
pub mod timeline;

use crate::keys::Key;
use crate::layout::{self, Focus, Rows};
use crate::message::{Message, Problem, Proof, SessionId, StepText, UnixNs, VerdictState, Wish};
use crate::page::{self, Page};

use sessions::Sessions;
use timeline::Timeline;

/// How often the tail of the ledger is read.
const REFRESH_NS: u64 = 1_000_000_000;
/// A grown ledger is verified again no sooner than this after the last verification …
const VERIFY_AGAIN_MIN_NS: u64 = 10_000_000_000;
/// … and not before this many times as long as that one took.
const VERIFY_AGAIN_TIMES: u64 = 20;
/// No more is typed than this.
const INPUT_CHARS_MAX: usize = 256;

/// The time, as the world says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// The date.
    pub wall_ns: UnixNs,
    /// A clock that never goes back.
    pub steady_ns: u64,
}

/// A line being typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What is typed so far.
    pub text: String,
    /// What it was before.
    before: String,
}

/// What lies over the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    /// The keys.
    Help,
    /// What the verifier found.
    Verdict,
    /// Why an entry can be believed; none while it is computed.
    Proof(u64, Option<Result<Proof, String>>),
}

/// The state.
#[derive(Debug, Clone)]
pub struct App {
    /// The ledger's directory as it was given.
    pub ledger: String,
    /// Columns and rows.
    pub size: (u16, u16),
    /// Which part listens to keys.
    pub focus: Focus,
    /// What lies over the screen.
    pub overlay: Option<Overlay>,
    /// The page in the overlay.
    pub overlay_page: Page,
    /// The sessions.
    pub sessions: Sessions,
    /// The filter as typed.
    pub filter: String,
    /// A line being typed: the filter, or what to find, by the focus.
    pub input: Option<Input>,
    /// What was last searched for.
    pub needle: String,
    /// The timeline of the chosen session.
    pub timeline: Timeline,
    /// The words of the opened step, once they are here.
    opened: Option<Box<StepText>>,
    /// The page of the opened step.
    pub opened_page: Page,
    /// How the verification stands.
    pub verdict: VerdictState,
    /// How far it is verified again, from 0 to 1, while [`App::verdict`] is still the last one.
    pub verifying_again: Option<f64>,
    /// How many entries have been read.
    pub entries: u64,
    /// How many bytes have been read, and how many there are.
    pub read: (u64, u64),
    /// The last thing that went wrong or was not found.
    pub notice: Option<String>,
    /// The time of the last message.
    pub now: Now,
    wanted: Option<SessionId>,
    open_session: Option<SessionId>,
    refreshing: bool,
    refreshed_ns: u64,
    verify_began_ns: u64,
    verify_ended_ns: Option<u64>,
    verified_entries: u64,
}

impl App {
    /// The state before anything is known. `session` is to be opened as soon as it is read.
    #[must_use]
    pub fn new(ledger: String, size: (u16, u16), session: Option<SessionId>, now: Now) -> Self {
        App {
            ledger,
            size,
            focus: Focus::Sessions,
            overlay: None,
            overlay_page: Page::default(),
            sessions: Sessions::default(),
            filter: String::new(),
            input: None,
            needle: String::new(),
            timeline: Timeline::default(),
            opened: None,
            opened_page: Page::default(),
            verdict: VerdictState::Waiting,
            verifying_again: None,
            entries: 0,
            read: (0, 0),
            notice: None,
            now,
            wanted: session,
            open_session: None,
            refreshing: true,
            refreshed_ns: now.steady_ns,
            verify_began_ns: now.steady_ns,
            verify_ended_ns: None,
            verified_entries: 0,
        }
    }

    /// What to ask for before the first message.
    #[must_use]
    pub fn first_wishes(&self) -> Vec<Wish> {
        vec![Wish::Refresh, Wish::Verify]
    }

    /// Takes a message, and says what to ask of the world.
    pub fn update(&mut self, message: Message, now: Now) -> Vec<Wish> {
        let elapsed_ns = now.steady_ns.saturating_sub(self.now.steady_ns);
        self.now = now;
        self.timeline.pass(elapsed_ns);
        let mut wishes = Vec::new();
        match message {
            Message::Key(key) => {
                self.notice = None;
                self.key(key, &mut wishes);
            }
            Message::Resize(columns, rows) => {
                self.size = (columns, rows);
                self.lay_out();
            }
            Message::Tick => {}
            Message::Sessions { changed, entries, read } => {
                self.sessions.take(changed);
                (self.entries, self.read) = (entries, read);
            }
            Message::Steps { session, from, steps } if session == self.timeline.session => {
                self.timeline.take_steps(from, steps);
            }
            Message::Texts { session, from, texts } if session == self.timeline.session => {
                self.timeline.take_texts(from, texts);
            }
            Message::Whole { session, index, text }
                if session == self.timeline.session && index == self.timeline.cursor =>
            {
                self.opened = Some(text);
                self.lay_out();
            }
            Message::Found { session, index } if session == self.timeline.session => match index {
                Some(index) => self.choose_step(index, &mut wishes),
                None => self.notice = Some(format!("not found: {}", self.needle)),
            },
            // Answers about a session that was left meanwhile.
            Message::Steps { .. } | Message::Texts { .. } | Message::Whole { .. } | Message::Found { .. } => {
            }
            Message::Proof { seq, proof } => {
                if let Some(Overlay::Proof(of, found)) = &mut self.overlay
                    && *of == seq
                {
                    *found = Some(proof);
                    self.lay_out();
                }
            }
            Message::Verdict(verdict) => self.take_verdict(verdict),
            Message::Idle => self.refreshing = false,
            Message::Trouble(trouble) => self.notice = Some(trouble),
            Message::Quit => wishes.push(Wish::Quit),
        }
        self.settle(&mut wishes);
        wishes
    }

    /// What the rows of the screen are for.
    #[must_use]
    pub fn rows(&self) -> Rows {
        layout::rows(self.size.1, self.focus, self.sessions.len())
    }

    /// The problem that puts an entry in doubt, if the verifier found one.
    #[must_use]
    pub fn problem(&self, seq: u64) -> Option<&Problem> {
        let VerdictState::Done(verdict) = &self.verdict else { return None };
        verdict.problems.iter().find(|problem| problem.seqs.as_ref().is_some_and(|seqs| seqs.contains(&seq)))
    }

    /// Whether anything moves by itself, so that the screen is drawn without a key.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.timeline.player.playing
    }

    fn take_verdict(&mut self, verdict: VerdictState) {
        // While it is verified again, the last verdict stays on the screen.
        match verdict {
            VerdictState::Running { share }
                if !matches!(self.verdict, VerdictState::Waiting | VerdictState::Running { .. }) =>
            {
                self.verifying_again = Some(share);
                return;
            }
            VerdictState::Waiting | VerdictState::Running { .. } => {}
            VerdictState::Done(_) | VerdictState::Unreadable(_) => {
                self.verifying_again = None;
                self.verify_ended_ns = Some(self.now.steady_ns);
                self.verified_entries =
                    if let VerdictState::Done(done) = &verdict { done.entries } else { self.entries };
            }
        }
        self.verdict = verdict;
        self.lay_out();
    }

    /// Writes the pages anew: their words or their width have changed.
    fn lay_out(&mut self) {
        let columns = layout::page_columns(self.size.0);
        if self.focus == Focus::Step
            && let (Some(text), Some(step)) = (&self.opened, self.timeline.steps.get(self.timeline.cursor))
        {
            self.opened_page.lines = page::step(step, text, self.problem(step.seq), columns);
        }
        let columns = layout::overlay_columns(self.size.0);
        match &self.overlay {
            Some(Overlay::Help) => self.overlay_page.lines = page::help(columns),
            Some(Overlay::Verdict) => {
                self.overlay_page.lines = page::verdict(&self.verdict, self.now.wall_ns, columns)
            }
            Some(Overlay::Proof(seq, proof)) => {
                self.overlay_page.lines = page::proof(*seq, proof.as_ref(), columns)
            }
            None => {}
        }
    }

    fn show(&mut self, overlay: Overlay) {
        self.overlay = Some(overlay);
        self.overlay_page = Page::default();
        self.lay_out();
    }

    /// Follows from the state, whatever the message was.
    fn settle(&mut self, wishes: &mut Vec<Wish>) {
        if !self.refreshing && self.now.steady_ns.saturating_sub(self.refreshed_ns) >= REFRESH_NS {
            self.refreshing = true;
            self.refreshed_ns = self.now.steady_ns;
            wishes.push(Wish::Refresh);
        }
        self.verify_grown(wishes);
        if let Some(wanted) = self.wanted
            && self.sessions.session(wanted).is_some()
        {
            self.wanted = None;
            self.sessions.choose_session(wanted);
            self.focus = Focus::Timeline;
        }
        self.follow_choice(wishes);
        let rows = self.rows();
        self.sessions.first =
            layout::first_visible(self.sessions.first, self.sessions.cursor(), rows.sessions.max(1), |_| 1);
        if rows.timeline > 0 {
            let columns = layout::timeline_columns(self.size.0).statement;
            if let Some(range) = self.timeline.settle(rows.timeline, columns) {
                wishes.push(Wish::Texts { session: self.timeline.session, range });
            }
        }
    }

    /// Opens the timeline of the session under the cursor.
    fn follow_choice(&mut self, wishes: &mut Vec<Wish>) {
        let chosen = self.sessions.chosen().map(|row| row.id);
        if self.open_session == chosen {
            return;
        }
        self.open_session = chosen;
        self.timeline = Timeline::new(chosen.unwrap_or(0), self.timeline.wrap);
        wishes.extend(chosen.map(Wish::Open));
    }

    /// Gives the keys to the timeline; its session stays chosen while the list changes.
    fn enter_timeline(&mut self) {
        if !self.sessions.is_empty() {
            self.sessions.choose(self.sessions.cursor());
            self.focus = Focus::Timeline;
        }
    }

    fn verify_grown(&mut self, wishes: &mut Vec<Wish>) {
        let Some(ended_ns) = self.verify_ended_ns else { return };
        let took_ns = ended_ns.saturating_sub(self.verify_began_ns);
        let rest_ns = VERIFY_AGAIN_MIN_NS.max(took_ns.saturating_mul(VERIFY_AGAIN_TIMES));
        let rested = self.now.steady_ns.saturating_sub(ended_ns) >= rest_ns;
        if rested && self.entries > self.verified_entries {
            self.verify(wishes);
        }
    }

    fn verify(&mut self, wishes: &mut Vec<Wish>) {
        self.verify_began_ns = self.now.steady_ns;
        self.verify_ended_ns = None;
        self.verifying_again = Some(0.0);
        wishes.push(Wish::Verify);
    }

    fn key(&mut self, key: Key, wishes: &mut Vec<Wish>) {
        if key == Key::Control('c') {
            wishes.push(Wish::Quit);
        } else if self.input.is_some() {
            self.key_in_input(key, wishes);
        } else if self.overlay.is_some() {
            self.key_in_overlay(key, wishes);
        } else if !self.key_everywhere(key, wishes) {
            match self.focus {
                Focus::Sessions => self.key_in_sessions(key),
                Focus::Timeline => self.key_in_timeline(key, wishes),
                Focus::Step => self.key_in_step(key, wishes),
            }
        }
    }

    fn key_everywhere(&mut self, key: Key, wishes: &mut Vec<Wish>) -> bool {
        match key {
            Key::Char('q') => wishes.push(Wish::Quit),
            Key::Char('?') => self.show(Overlay::Help),
            Key::Char('v') => self.show(Overlay::Verdict),
            Key::Char('p') => {
                if let Some(step) = self.timeline.steps.get(self.timeline.cursor) {
                    let seq = step.seq;
                    self.show(Overlay::Proof(seq, None));
                    wishes.push(Wish::Prove(seq));
                }
            }
            Key::Tab => {
                if self.focus == Focus::Sessions {
                    self.enter_timeline();
                } else {
                    self.focus = Focus::Sessions;
                }
            }
            Key::Char('/') if self.focus == Focus::Sessions => {
                self.input = Some(Input { text: self.filter.clone(), before: self.filter.clone() });
            }
            Key::Char('/') => self.input = Some(Input { text: String::new(), before: self.needle.clone() }),
            _ => return false,
        }
        true
    }

    fn key_in_overlay(&mut self, key: Key, wishes: &mut Vec<Wish>) {
        if key == Key::Char('v') && self.overlay == Some(Overlay::Verdict) {
            if self.verify_ended_ns.is_some() {
                self.verify(wishes);
            }
            return;
        }
        let rows = layout::overlay_rows(self.size.1);
        let key = if key == Key::Char(' ') { Key::PageDown } else { key };
        if !self.overlay_page.scroll(key, rows) {
            self.overlay = None;
        }
    }

    fn key_in_input(&mut self, key: Key, wishes: &mut Vec<Wish>) {
        let Some(mut input) = self.input.take() else { return };
        let filtering = self.focus == Focus::Sessions;
        match key {
            Key::Escape => {
                if filtering {
                    self.set_filter(input.before);
                }
                return;
            }
            Key::Enter => {
                if !filtering {
                    self.needle = if input.text.is_empty() { input.before } else { input.text };
                    self.find(false, wishes);
                }
                return;
            }
            Key::Char(character) if input.text.chars().count() < INPUT_CHARS_MAX => {
                input.text.push(character)
            }
            Key::Backspace => drop(input.text.pop()),
            Key::Control('u') => input.text.clear(),
            Key::Control('w') => {
                let kept = input.text.trim_end().rfind(' ').map_or(0, |blank| blank + 1);
                input.text.truncate(kept);
            }
            _ => {}
        }
        if filtering {
            self.set_filter(input.text.clone());
        }
        self.input = Some(input);
    }

    fn set_filter(&mut self, typed: String) {
        self.sessions.filter(&typed, self.now.wall_ns);
        self.filter = typed;
    }

    fn key_in_sessions(&mut self, key: Key) {
        let page = self.rows().sessions.max(2) - 1;
        let last = self.sessions.len().saturating_sub(1);
        match key {
            Key::Char('s') => self.sessions.sort_by_next(),
            Key::Char('S') => self.sessions.reverse(),
            Key::Enter | Key::Right => self.enter_timeline(),
            Key::Escape if !self.filter.is_empty() => self.set_filter(String::new()),
            _ => {
                if let Some(to) = moved(key, self.sessions.cursor(), last, page) {
                    self.sessions.choose(to);
                }
            }
        }
    }

    fn key_in_timeline(&mut self, key: Key, wishes: &mut Vec<Wish>) {
        let page = self.rows().timeline.max(2) - 1;
        let last = self.timeline.steps.len().saturating_sub(1);
        match key {
            Key::Char(' ') => self.timeline.play_or_pause(),
            Key::Left | Key::Char('h') => self.timeline.step(false),
            Key::Right | Key::Char('l') => self.timeline.step(true),
            Key::Char('+' | '=') => self.timeline.player.faster(),
            Key::Char('-') => self.timeline.player.slower(),
            Key::Char('w') => self.timeline.wrap = !self.timeline.wrap,
            Key::Char('n') => self.find(false, wishes),
            Key::Char('N') => self.find(true, wishes),
            Key::Char('!') => self.go_to_trouble(),
            Key::Enter if !self.timeline.steps.is_empty() => self.open_step(wishes),
            Key::Escape if self.timeline.player.on => self.timeline.stop(),
            Key::Escape => self.focus = Focus::Sessions,
            _ => {
                if let Some(to) = moved(key, self.timeline.cursor, last, page) {
                    self.timeline.choose(to);
                }
            }
        }
    }

    fn key_in_step(&mut self, key: Key, wishes: &mut Vec<Wish>) {
        match key {
            Key::Escape | Key::Enter => self.focus = Focus::Timeline,
            Key::Left | Key::Char('h') => self.choose_step(self.timeline.cursor.saturating_sub(1), wishes),
            Key::Right | Key::Char('l') => self.choose_step(self.timeline.cursor.saturating_add(1), wishes),
            Key::Char('n') => self.find(false, wishes),
            Key::Char('N') => self.find(true, wishes),
            _ => drop(self.opened_page.scroll(key, self.rows().step)),
        }
    }

    fn open_step(&mut self, wishes: &mut Vec<Wish>) {
        self.timeline.player.playing = false;
        self.focus = Focus::Step;
        self.opened = None;
        self.opened_page = Page::default();
        wishes.push(Wish::Whole { session: self.timeline.session, index: self.timeline.cursor });
    }

    fn choose_step(&mut self, index: usize, wishes: &mut Vec<Wish>) {
        let before = self.timeline.cursor;
        self.timeline.choose(index);
        if self.focus == Focus::Step && self.timeline.cursor != before {
            self.open_step(wishes);
        }
    }

    fn find(&mut self, backwards: bool, wishes: &mut Vec<Wish>) {
        let count = self.timeline.steps.len();
        if self.needle.is_empty() || count == 0 {
            return;
        }
        let cursor = self.timeline.cursor;
        let from = if backwards { (cursor + count - 1) % count } else { (cursor + 1) % count };
        let (session, needle) = (self.timeline.session, self.needle.clone());
        wishes.push(Wish::Find { session, needle, from, backwards });
    }

    fn go_to_trouble(&mut self) {
        let found = self.timeline.next_trouble(|seq| self.problem(seq).is_some());
        match found {
            Some(index) => self.timeline.choose(index),
            None => self.notice = Some("nothing refused, failed or broken here".to_owned()),
        }
    }
}

/// Where a key that moves a cursor puts it; none for any other key.
pub(crate) fn moved(key: Key, cursor: usize, last: usize, page: usize) -> Option<usize> {
    Some(match key {
        Key::Up | Key::Char('k') => cursor.saturating_sub(1),
        Key::Down | Key::Char('j') => cursor.saturating_add(1).min(last),
        Key::PageUp => cursor.saturating_sub(page),
        Key::PageDown => cursor.saturating_add(page).min(last),
        Key::Home | Key::Char('g') => 0,
        Key::End | Key::Char('G') => last,
        _ => return None,
    })
}
