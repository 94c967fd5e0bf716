//! A ledger of plain values, an app over it, and a screen to look at.

use std::path::PathBuf;

use gatebook_replay::app::{App, Now};
use gatebook_replay::keys::Key;
use gatebook_replay::message::*;
use gatebook_replay::theme::Theme;
use gatebook_replay::view;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

pub(crate) const S: u64 = 1_000_000_000;
/// 22 November 2026, 14:02:07 UTC.
pub(crate) const START_NS: u64 = 1_795_356_127 * S;

/// The world that answers an app's wishes at once, from values.
pub(crate) struct World {
    pub(crate) app: App,
    pub(crate) sessions: Vec<SessionRow>,
    pub(crate) steps: Vec<(Step, StepText)>,
    pub(crate) steady_ns: u64,
    pub(crate) quit: bool,
    /// Every range of words that was asked for.
    pub(crate) asked: Vec<std::ops::Range<usize>>,
    pub(crate) verifications: usize,
    pub(crate) proof: Result<Proof, String>,
}

impl World {
    pub(crate) fn new(
        columns: u16,
        rows: u16,
        sessions: Vec<SessionRow>,
        steps: Vec<(Step, StepText)>,
    ) -> Self {
        let now = Now { wall_ns: START_NS + 3600 * S, steady_ns: 0 };
        let app = App::new("./ledger".to_owned(), (columns, rows), None, now);
        let mut world = World {
            app,
            sessions,
            steps,
            steady_ns: 0,
            quit: false,
            asked: Vec::new(),
            verifications: 0,
            proof: Err("none".to_owned()),
        };
        let wishes = world.app.first_wishes();
        world.grant(wishes);
        world
    }

    pub(crate) fn now(&self) -> Now {
        Now { wall_ns: START_NS + 3600 * S + self.steady_ns, steady_ns: self.steady_ns }
    }

    pub(crate) fn send(&mut self, message: Message) {
        let now = self.now();
        let wishes = self.app.update(message, now);
        self.grant(wishes);
    }

    pub(crate) fn keys(&mut self, keys: &str) {
        for key in keys.chars() {
            self.key(match key {
                '\n' => Key::Enter,
                '\u{1b}' => Key::Escape,
                '\t' => Key::Tab,
                '↑' => Key::Up,
                '↓' => Key::Down,
                '←' => Key::Left,
                '→' => Key::Right,
                '⇞' => Key::PageUp,
                '⇟' => Key::PageDown,
                '⌫' => Key::Backspace,
                other => Key::Char(other),
            });
        }
    }

    pub(crate) fn key(&mut self, key: Key) {
        self.send(Message::Key(key));
    }

    pub(crate) fn pass(&mut self, ns: u64) {
        self.steady_ns += ns;
        self.send(Message::Tick);
    }

    fn grant(&mut self, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Refresh => {
                    let (changed, entries) = (self.sessions.clone(), 1_204_903);
                    self.send(Message::Sessions { changed, entries, read: (10, 10) });
                    self.send(Message::Idle);
                }
                Wish::Open(session) => {
                    let steps = self.steps.iter().map(|(step, _)| step.clone()).collect();
                    self.send(Message::Steps { session, from: 0, steps });
                }
                Wish::Texts { session, range } => {
                    self.asked.push(range.clone());
                    let texts = self.steps[range.clone()].iter().map(|(_, text)| text.clone()).collect();
                    self.send(Message::Texts { session, from: range.start, texts });
                }
                Wish::Whole { session, index } => {
                    let text = Box::new(self.steps[index].1.clone());
                    self.send(Message::Whole { session, index, text });
                }
                Wish::Find { session, needle, from, backwards } => {
                    let count = self.steps.len();
                    let index =
                        (0..count)
                            .map(|ahead| {
                                if backwards {
                                    (from + count - ahead) % count
                                } else {
                                    (from + ahead) % count
                                }
                            })
                            .find(|index| {
                                String::from_utf8_lossy(&self.steps[*index].1.statement)
                                    .to_lowercase()
                                    .contains(&needle.to_lowercase())
                            });
                    self.send(Message::Found { session, index });
                }
                Wish::Prove(seq) => {
                    let proof = self.proof.clone();
                    self.send(Message::Proof { seq, proof });
                }
                Wish::Verify => self.verifications += 1,
                Wish::Quit => self.quit = true,
            }
        }
    }

    /// The screen without colours.
    pub(crate) fn screen(&self) -> String {
        text_of(&self.buffer(false))
    }

    pub(crate) fn buffer(&self, colour: bool) -> Buffer {
        let (columns, rows) = self.app.size;
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| view::draw(frame, &self.app, Theme::new(colour))).unwrap();
        terminal.backend().buffer().clone()
    }
}

pub(crate) fn text_of(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        let mut covered = 0;
        for x in 0..buffer.area.width {
            if covered > 0 {
                covered -= 1;
                continue;
            }
            let symbol = buffer[(x, y)].symbol();
            covered = ratatui::text::Span::raw(symbol).width().saturating_sub(1);
            line.push_str(symbol);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Compares a screen with the one stored under a name; stores it where `BLESS_SCREENS` is set.
#[track_caller]
pub(crate) fn check(name: &str, screen: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("BLESS_SCREENS").is_some() {
        std::fs::write(&path, screen).unwrap();
        return;
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == screen,
        "{name} differs; BLESS_SCREENS=1 stores it anew. It was:\n{stored}\nIt is:\n{screen}"
    );
}

pub(crate) fn session(id: u64, principal: &str, minutes_ago: u64) -> SessionRow {
    let opened_ns = START_NS - minutes_ago * 60 * S;
    SessionRow {
        id,
        opened_ns,
        last_ns: opened_ns + 250 * S,
        protocol: "postgres".into(),
        principal: principal.into(),
        resource: "orders-db".into(),
        database: "orders".into(),
        role: "app_ro".into(),
        client_address: "10.0.4.9:51234".into(),
        application: "psql".into(),
        commands: 18,
        ..SessionRow::default()
    }
}

pub(crate) fn sessions() -> Vec<SessionRow> {
    let ended = |row: &SessionRow, reason: &str| Some((row.last_ns, reason.to_owned()));
    let mut shop = session(3, "gitlab:shop/deploy#881", 0);
    shop.through = vec!["ssh:web-1".into()];
    (shop.commands, shop.refused, shop.role) = (132, 1, "app_rw".into());
    shop.ended = ended(&shop, "revoked");
    let lee = session(2, "corp:lee", 22);
    let mut nightly = session(1, "gitlab:shop/nightly#1204", 65);
    (nightly.commands, nightly.resource, nightly.database) = (2_204, "reports-db".into(), "reports".into());
    nightly.ended = ended(&nightly, "client_left");
    let mut dana = session(4, "corp:dana", 90);
    (dana.commands, dana.refused, dana.resource) = (7, 3, "billing-db".into());
    dana.ended = ended(&dana, "idle");
    let outside = SessionRow { id: 0, opened_ns: START_NS - 7200 * S, ..SessionRow::default() };
    vec![outside, nightly, lee, shop, dana]
}

pub(crate) fn command(
    at_ns: u64,
    statement: &str,
    decision: Decision,
    outcome: Option<Outcome>,
) -> (Step, StepText) {
    let seq = 1_204_000 + (at_ns - START_NS) / 100_000_000;
    let what = What::Command { request: 1, prepare: false, decision, outcome };
    let text = StepText {
        statement: statement.into(),
        statement_bytes: statement.len() as u64,
        leaf: "9be1f00dcafe9be1f00dcafe9be1f00dcafe9be1f00dcafe9be1f00dcafe9be1".into(),
        place: Some((3, 88_213)),
        ..StepText::default()
    };
    (Step { seq, at_ns, what }, text)
}

pub(crate) fn outcome(at_ns: u64, rows: u64, duration_us: u64) -> Option<Outcome> {
    Some(Outcome {
        seq: 1_204_000 + (at_ns - START_NS) / 100_000_000 + 1,
        at_ns: at_ns + duration_us * 1000,
        ending: Ending::Completed,
        rows,
        bytes: rows * 64,
        duration_us,
    })
}

pub(crate) fn note(at_ns: u64, note: Note, words: &str) -> (Step, StepText) {
    let (step, text) = command(at_ns, words, Decision::Permit, None);
    (Step { what: What::Note(note), ..step }, text)
}

pub(crate) fn steps() -> Vec<(Step, StepText)> {
    let at = |millis: u64| START_NS + millis * 1_000_000;
    let mut steps = vec![
        note(at(0), Note::Opened, "postgres from 10.0.4.9:51234, application psql"),
        command(
            at(113),
            "select id, email from customers limit 2",
            Decision::Permit,
            outcome(at(113), 2, 3_120),
        ),
        command(at(2_871), "drop table orders", Decision::Refuse, None),
        command(
            at(3_402),
            "update orders set state = 'paid' where id = $1",
            Decision::Permit,
            outcome(at(3_402), 0, 41_000),
        ),
        command(
            at(400_950),
            "select count(*) from shipments\n  where left_at is null",
            Decision::Permit,
            outcome(at(400_950), 1, 840),
        ),
        command(at(402_100), "selct 1", Decision::Permit, outcome(at(402_100), 0, 300)),
        command(at(403_000), "truncate audit", Decision::ShadowRefuse, outcome(at(403_000), 0, 9_000)),
        command(at(404_000), "select pg_sleep(60)", Decision::Permit, None),
        note(at(405_000), Note::Revoked, "access of gitlab:shop/deploy revoked by corp:dana: contract ended"),
        note(at(405_020), Note::Closed, "revoked after 7 commands"),
    ];
    steps[2].1.policies = vec!["ci.cedar:3".into()];
    steps[3].1.parameters =
        vec![Parameter { type_oid: 23, binary: true, value: vec![0, 0, 0x12, 0x67], ..Parameter::default() }];
    steps[3].1.parameters_count = 1;
    steps[3].1.answer = "UPDATE 1".into();
    steps[3].1.policies = vec!["ci.cedar:7".into()];
    steps[3].1.facts = vec![("actions".into(), "update orders/public.orders".into())];
    steps[5].1.answer = "42601".into();
    if let What::Command { outcome: Some(outcome), .. } = &mut steps[5].0.what {
        outcome.ending = Ending::Failed;
    }
    steps[6].1.policies = vec!["ci.cedar:9".into()];
    steps
}

pub(crate) fn world(columns: u16, rows: u16) -> World {
    let mut world = World::new(columns, rows, sessions(), steps());
    world.send(Message::Verdict(anchored()));
    world
}

pub(crate) fn anchored() -> VerdictState {
    VerdictState::Done(Verdict {
        standing: Standing::Anchored,
        entries: 1_204_903,
        anchored_entries: Some(1_204_881),
        anchored_at_ns: Some(START_NS + 3_588 * S),
        key_pinned: true,
        remarks: vec!["19 segments, 8 412 sessions, 0 gaps".into(), "not checked: no witness".into()],
        ..Verdict::default()
    })
}

pub(crate) fn tampered(seqs: std::ops::Range<u64>) -> VerdictState {
    VerdictState::Done(Verdict {
        standing: Standing::Tampered,
        entries: 1_204_903,
        key_pinned: true,
        problems: vec![Problem {
            seqs: Some(seqs),
            place: "segment 3 at byte 88 213".into(),
            why: "the entry does not have the hash that its frame signed".into(),
        }],
        problems_count: 1,
        ..Verdict::default()
    })
}
