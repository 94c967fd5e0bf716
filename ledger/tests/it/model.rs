//! Writer and reader against the plainest model there is: a list of what was staged, and how long it was when it
//! was last acknowledged.

use std::ops::ControlFlow;

use gatebook_ledger::reader::{self, Item};
use gatebook_ledger::storage::Crash;
use gatebook_ledger::{Draft, Kind, Limits, Memory, MemoryKeys, Writer};
use proptest::prelude::*;

use crate::common::EVENT;
use crate::simulated::{Book, Staged, open};

/// What may be done to a ledger.
#[derive(Debug, Clone)]
enum Step {
    /// An entry; the session is one of those that are open, or none.
    Stage {
        session: Option<u8>,
        payload: Vec<u8>,
    },
    OpenSession,
    CloseSession(u8),
    /// What the writer must refuse, and be none the worse.
    Refused(u8),
    Write,
    Sync,
    Publish,
    /// The epoch ends.
    Rotate,
    /// The process dies.
    Reopen,
    /// The power fails.
    Crash {
        seed: u64,
        small: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let payload = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => (0_usize..9000).prop_map(|length| vec![7; length]),
    ];
    let step = prop_oneof![
        8 => (any::<Option<u8>>(), payload).prop_map(|(session, payload)| Step::Stage { session, payload }),
        2 => Just(Step::OpenSession),
        1 => any::<u8>().prop_map(Step::CloseSession),
        1 => any::<u8>().prop_map(Step::Refused),
        2 => Just(Step::Write),
        3 => Just(Step::Sync),
        1 => Just(Step::Publish),
        1 => Just(Step::Rotate),
        1 => Just(Step::Reopen),
        1 => (any::<u64>(), any::<bool>()).prop_map(|(seed, small)| Step::Crash { seed, small }),
    ];
    proptest::collection::vec(step, 1..40)
}

fn limits_of() -> impl Strategy<Value = Limits> {
    (8_u64..64, 0_u64..8, 300_usize..2000, 100_usize..9000).prop_map(|(segment, fill, entries, payloads)| {
        Limits {
            segment_bytes: segment * 1024,
            fill_bytes: fill * 4096,
            frame_entries_bytes_max: entries,
            frame_payloads_bytes_max: payloads,
            ..Limits::default()
        }
    })
}

/// The model.
#[derive(Default)]
struct Model {
    list: Vec<Option<Staged>>,
    acknowledged: usize,
}

impl Model {
    fn stage(&mut self, writer: &mut Writer, kind: Kind, session: u64, payload: Vec<u8>) {
        let body = format!(r#"{{"n":{}}}"#, self.list.len()).into_bytes();
        let seq = writer.stage(&Draft { kind, time_ns: 5, session, body: &body, payload: &payload }).unwrap();
        assert_eq!(seq, self.list.len() as u64, "numbers have no gaps");
        self.list.push(Some(Staged { kind, session, body, payload }));
    }

    /// Takes over the entries that the writer itself has added.
    fn follow(&mut self, writer: &Writer) {
        self.list.resize(usize::try_from(writer.next_seq()).unwrap(), None);
    }

    fn acknowledge(&mut self, writer: &Writer) {
        self.acknowledged = usize::try_from(writer.durable()).unwrap();
    }

    fn reopen(&mut self, storage: &Memory, keys: &MemoryKeys, limits: Limits) -> Writer {
        let (writer, recovery) = open(storage, keys, limits).unwrap();
        let found = usize::try_from(recovery.entries).unwrap();
        assert!((self.acknowledged..=self.list.len()).contains(&found), "{found}");
        self.list.truncate(found);
        self.follow(&writer);
        self.acknowledge(&writer);
        writer
    }

    /// What a reader finds is the list.
    fn compare(&self, storage: &Memory) {
        let mut at = 0;
        reader::visit(storage, None, |item| {
            let Item::Entry { entry, payload, .. } = item else { panic!("{item:?}") };
            assert_eq!(entry.header.seq, at as u64);
            if let Some(staged) = &self.list[at] {
                assert_eq!((staged.kind, staged.session), (entry.header.kind, entry.header.session));
                assert_eq!((staged.body.as_slice(), Some(staged.payload.as_slice())), (entry.body, payload));
            }
            at += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(at >= self.acknowledged, "{at} of {}", self.acknowledged);
    }
}

fn run(limits: Limits, steps: Vec<Step>) {
    let mut storage = Memory::new();
    let mut book = Book::default();
    let mut writer = book.create(&storage, limits).unwrap();
    let mut model = Model::default();
    model.follow(&writer);
    for step in steps {
        let sessions = writer.open_sessions();
        let one_of = |n: u8| (!sessions.is_empty()).then(|| sessions[usize::from(n) % sessions.len()]);
        match step {
            Step::Stage { session, payload } => {
                let session = session.and_then(one_of).unwrap_or(0);
                model.stage(&mut writer, EVENT, session, payload);
            }
            Step::OpenSession => {
                let session = writer.next_session();
                model.stage(&mut writer, Kind::SESSION_OPENED, session, b"who".to_vec());
            }
            Step::CloseSession(n) => {
                if let Some(session) = one_of(n) {
                    model.stage(&mut writer, Kind::SESSION_CLOSED, session, Vec::new());
                }
            }
            Step::Refused(n) => {
                let unknown = writer.next_session() + u64::from(n) + 1;
                for (session, body) in
                    [(unknown, &b"{}"[..]), (0, b"{ }"), (0, b""), (0, br#"{"b":1,"a":2}"#)]
                {
                    let draft = Draft { kind: EVENT, time_ns: 5, session, body, payload: b"" };
                    assert!(writer.stage(&draft).is_err());
                }
            }
            Step::Write => writer.write().unwrap(),
            Step::Sync => {
                writer.sync().unwrap();
                model.acknowledge(&writer);
            }
            Step::Publish => {
                if let Some(publication) = writer.publish(9).unwrap() {
                    assert_eq!(publication.checkpoint.size, writer.next_seq());
                    publication.store(&storage).unwrap();
                    book.checkpoint = Some(publication.note.into_bytes());
                }
                model.follow(&writer);
                model.acknowledge(&writer);
            }
            Step::Rotate => {
                writer.rotate(6).unwrap();
                model.follow(&writer);
                model.acknowledge(&writer);
            }
            Step::Reopen => {
                drop(writer);
                writer = model.reopen(&storage, &book.keys, limits);
            }
            Step::Crash { seed, small } => {
                let bytes = if small { 512 } else { 4096 };
                storage = storage.crash(Crash::Sectors { seed, bytes });
                drop(writer);
                writer = model.reopen(&storage, &book.keys, limits);
            }
        }
        model.compare(&storage);
    }
    writer.write().unwrap();
    writer.sync().unwrap();
    model.acknowledge(&writer);
    assert_eq!(model.acknowledged, model.list.len());
    drop(writer);
    model.compare(&storage);
    let report = book.judge(&storage);
    assert_eq!((report.problems.as_slice(), report.entries), (&[][..], model.list.len() as u64));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("GATEBOOK_NIGHTLY").is_some() { 20_000 } else { 400 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_ledger_is_the_list_of_what_was_staged(limits in limits_of(), steps in steps()) {
        run(limits, steps);
    }
}
