//! Every fault of a kind, on one small ledger: what the verifier says, what opening does, what is lost, and what
//! the verifier says then. The matrix is published as `docs/ledger-faults.md`, and this test holds it.
//!
//! Every day a sample is tried, and each outcome of it must stand in the matrix. `GATEBOOK_NIGHTLY=1` tries every
//! bit, byte and sector, and the matrix must be exactly what it finds; `GATEBOOK_WRITE_FAULTS=1` writes it so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatebook_ledger::segment::{BLOCK, SegmentReader, Step};
use gatebook_ledger::storage::{Crash, Mode};
use gatebook_ledger::verify::{Verdict, verify};
use gatebook_ledger::{Kind, Limits, Memory, OpenError, Storage, Writer};

use crate::common::EVENT;
use crate::simulated::{Book, open};

const SECTOR: usize = 512;

/// The ledger that is harmed, and how it was earlier.
struct Subject {
    place: Memory,
    book: Book,
    earlier: Vec<Memory>,
    limits: Limits,
}

/// Two sealed segments; an open one with a frame under the checkpoint, and two acknowledged behind it.
fn subject() -> Subject {
    let limits = Limits {
        segment_bytes: 20 * 1024,
        fill_bytes: 4 * BLOCK as u64,
        frame_entries_bytes_max: 600,
        ..Limits::default()
    };
    let place = Memory::new();
    let mut book = Book::default();
    let mut earlier = Vec::new();
    let mut writer = book.create(&place, limits).unwrap();
    let stage = |book: &mut Book, writer: &mut Writer, kind, session, payload: &[u8]| {
        book.stage_one(writer, kind, session, br#"{"n":1}"#, payload.to_vec()).unwrap();
    };
    stage(&mut book, &mut writer, Kind::SESSION_OPENED, 1, b"who");
    for commits in [1, 5] {
        for _ in 0..commits {
            stage(&mut book, &mut writer, EVENT, 1, &[b'p'; 700]);
            book.commit(&mut writer).unwrap();
        }
        earlier.push(place.fork());
        book.publish(&mut writer, &place).unwrap();
    }
    stage(&mut book, &mut writer, Kind::SESSION_CLOSED, 1, b"");
    for payload in [600, 40] {
        stage(&mut book, &mut writer, EVENT, 0, &vec![b'q'; payload]);
        book.commit(&mut writer).unwrap();
    }
    let subject = Subject { place: place.crash(Crash::LosesNothing), book, earlier, limits };
    let segments = gatebook_ledger::reader::segments(&subject.place).unwrap();
    let report = subject.book.judge(&subject.place);
    assert_eq!((report.verdict, segments.len()), (Verdict::Verified, 3), "{:?}", report.problems);
    assert!(subject.book.acknowledged > subject.book.published, "something stands behind the checkpoint");
    subject
}

/// A harm: its kind, where it strikes, and what the files hold then; none for a file that is gone.
struct Harm {
    kind: &'static str,
    place: String,
    files: Vec<(String, Option<Vec<u8>>)>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    /// What the verifier says, with the key pinned and the newest checkpoint kept elsewhere.
    found: &'static str,
    opening: &'static str,
    lost: &'static str,
    /// What the verifier says behind the opening.
    after: &'static str,
}

fn exit(place: &Memory, book: &Book) -> &'static str {
    let checkpoints = book.checkpoint.iter().map(|note| ("kept".to_owned(), note.clone())).collect();
    let options = gatebook_ledger::verify::Options {
        key: book.key.clone(),
        checkpoints,
        threads: 1,
        ..Default::default()
    };
    match verify(place, &options, &|_| {}).map(|report| report.verdict) {
        Ok(Verdict::Verified) => "0 verified",
        Ok(Verdict::Tampered) => "1 tampered",
        Ok(Verdict::Incomplete) => "2 incomplete",
        Ok(Verdict::Unanchored) => "4 unanchored",
        Err(_) => "3 unreadable",
    }
}

impl Subject {
    /// Does the harm to a copy, and judges from outside. Whatever else happens, no wrong byte may be read, and
    /// nothing may be lost in silence.
    fn judge(&self, harm: &Harm) -> Outcome {
        let place = self.place.crash(Crash::LosesNothing);
        for (name, bytes) in &harm.files {
            match bytes {
                Some(bytes) => place.set_bytes(name, bytes),
                None => place.remove(name).unwrap(),
            }
        }
        let told = format!("{} ({})", harm.kind, harm.place);
        let mut book = self.book.clone();
        book.compare(&place).unwrap_or_else(|why| panic!("{told}: {why}"));
        let found = exit(&place, &book);
        let before: Vec<_> = place.names().iter().map(|name| (name.clone(), place.bytes(name))).collect();
        let (opening, lost) = match open(&place, &self.book.keys.fork(), self.limits) {
            Ok((writer, recovery)) => {
                drop(writer);
                let lost = self.book.acknowledged.saturating_sub(recovery.entries);
                // An end that is gone just behind a frame, or an older copy, tells nothing of itself.
                let said = recovery.cut.is_some() || found != "0 verified" || harm.kind != "bit flipped";
                assert!(lost == 0 || said, "{told}: lost in silence");
                let whole = harm.place == "the whole directory";
                assert!(whole || recovery.entries >= book.published, "{told}: lost below the checkpoint");
                book.staged.retain(|seq, _| *seq < recovery.entries);
                let opening = if recovery.cut.is_some() { "opens, and records what it cut" } else { "opens" };
                (opening, if lost > 0 { "what was newer than the checkpoint" } else { "nothing" })
            }
            Err(error) => {
                let after: Vec<_> =
                    place.names().iter().map(|name| (name.clone(), place.bytes(name))).collect();
                assert_eq!(before, after, "{told}: refused, and something was changed");
                (refusal(&error), "nothing more")
            }
        };
        if opening.starts_with("refuses") {
            return Outcome { found, opening, lost, after: found };
        }
        book.compare(&place).unwrap_or_else(|why| panic!("{told}: once opened, {why}"));
        Outcome { found, opening, lost, after: exit(&place, &book) }
    }

    /// All names that a ledger has, and what stands where in each.
    fn region(&self, name: &str, at: usize) -> String {
        let Some(number) = name.strip_prefix("segments/") else {
            return match (name, at / BLOCK) {
                ("state", slot) => {
                    let newest = self.newest_slot();
                    format!("`state`, {} slot", if slot == newest { "newest" } else { "older" })
                }
                _ if name.starts_with("tile/") => {
                    let newest = name.ends_with(&format!(".p/{}", self.book.published));
                    format!("a tile of {} checkpoint", if newest { "the newest" } else { "an older" })
                }
                _ => format!("`{name}`"),
            };
        };
        let open = number == "00000002.seg";
        let file = if open { "open segment" } else { "sealed segment" };
        if at < BLOCK {
            return format!("{file}, header");
        }
        let mut reader = SegmentReader::new(self.place.open(name, Mode::Read).unwrap()).unwrap();
        loop {
            let end = match reader.step().unwrap() {
                Step::Footer { .. } => return format!("{file}, footer"),
                Step::Frame { offset, frame } => {
                    let header = frame.header;
                    let start = usize::try_from(offset).unwrap();
                    let content = start + header.length();
                    let which = match (open, header.first_seq, u64::from(header.count)) {
                        (true, first, count) if first + count == self.book.acknowledged => "last frame",
                        (true, first, _) if first >= self.book.published => "frame newer than the checkpoint",
                        _ => "frame",
                    };
                    let part = match at {
                        _ if at < content - header.payloads_length as usize => "",
                        _ if at < content => ", payloads",
                        _ => ", padding",
                    };
                    (content.next_multiple_of(BLOCK), format!("{file}, {which}{part}"))
                }
                Step::End { .. } => return format!("{file}, unused room"),
                Step::Damaged { why, .. } => panic!("{name}: {why}"),
            };
            if at < end.0 {
                return end.1;
            }
        }
    }

    fn newest_slot(&self) -> usize {
        let state = self.place.bytes("state").unwrap();
        let generation = |slot: usize| state[slot * BLOCK + 8..slot * BLOCK + 16].to_vec();
        usize::from(generation(1) > generation(0))
    }

    /// Every harm, or so many of each kind that a day has time for them.
    fn harms(&self, all: bool) -> Vec<Harm> {
        let mut harms = Vec::new();
        let names: Vec<String> =
            self.place.names().into_iter().filter(|name| name != "lock" && !name.ends_with(".new")).collect();
        let every = |n: usize| if all { 1 } else { n };
        for name in &names {
            let good = self.place.bytes(name).unwrap();
            let with = |bytes: Vec<u8>| vec![(name.clone(), Some(bytes))];
            for bit in 0..good.len() * 8 {
                // A prime, so that all bits and all bytes of a block come up; what is not padding more often.
                let step = if good[bit / 8] == 0 { 1013 } else { 29 };
                if bit % every(step) != 0 {
                    continue;
                }
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                harms.push(Harm {
                    kind: "bit flipped",
                    place: self.region(name, bit / 8),
                    files: with(bytes),
                });
            }
            for length in (0..good.len()).filter(|length| length % every(67) == 0 || length % SECTOR < 2) {
                let place = self.region(name, length);
                harms.push(Harm { kind: "cut off here", place, files: with(good[..length].to_vec()) });
            }
            let sectors = good.len().div_ceil(SECTOR);
            let range = |sector: usize| sector * SECTOR..((sector + 1) * SECTOR).min(good.len());
            for sector in 0..sectors {
                let mut harm = |kind, bytes: Vec<u8>| {
                    if bytes != good {
                        harms.push(Harm {
                            kind,
                            place: self.region(name, sector * SECTOR),
                            files: with(bytes),
                        });
                    }
                };
                let mut bytes = good.clone();
                bytes[range(sector)].fill(0);
                harm("sector zeroed", bytes);
                for other in (0..sectors).filter(|other| *other != sector) {
                    if !(sector * sectors + other).is_multiple_of(every(7))
                        && other != sector + 1
                        && other != sector + 8
                    {
                        continue;
                    }
                    let length = range(sector).len().min(range(other).len());
                    let (here, there) = (sector * SECTOR, other * SECTOR);
                    let mut bytes = good.clone();
                    bytes.copy_within(there..there + length, here);
                    harm("sector overwritten by another", bytes.clone());
                    bytes[there..there + length].copy_from_slice(&good[here..here + length]);
                    harm("sector swapped with another", bytes);
                }
            }
            harms.push(Harm {
                kind: "file removed",
                place: self.region(name, 0),
                files: vec![(name.clone(), None)],
            });
            for earlier in &self.earlier {
                let kind = "older copy put back";
                let old = earlier.bytes(name);
                if old.as_ref() != Some(&good) {
                    harms.push(Harm { kind, place: self.region(name, 0), files: vec![(name.clone(), old)] });
                }
            }
        }
        let segments: Vec<&String> = names.iter().filter(|name| name.starts_with("segments/")).collect();
        for (n, one) in segments.iter().enumerate() {
            for other in &segments[n + 1..] {
                let bytes = |name: &str| self.place.bytes(name);
                let files = vec![((*one).clone(), bytes(other)), ((*other).clone(), bytes(one))];
                harms.push(Harm { kind: "segments swapped", place: "two segments".to_owned(), files });
            }
            let next = format!("segments/{:08}.seg", segments.len());
            let files = vec![(next, self.place.bytes(one))];
            harms.push(Harm { kind: "segment once more at the end", place: self.region(one, 0), files });
        }
        for earlier in &self.earlier {
            let files = names.iter().map(|name| (name.clone(), earlier.bytes(name))).collect();
            harms.push(Harm { kind: "older copy put back", place: "the whole directory".to_owned(), files });
        }
        harms
    }
}

fn refusal(error: &OpenError) -> &'static str {
    match error {
        OpenError::Damaged { .. } => "refuses: damaged",
        OpenError::Rollback(_) => "refuses: cut, or an older copy",
        OpenError::Manifest(_) => "refuses: no manifest",
        OpenError::Storage(_) => "refuses: unreadable",
        error => panic!("refused for a reason that is none: {error}"),
    }
}

/// For each kind and place, the outcomes that were seen.
type Matrix = BTreeMap<(String, String), BTreeSet<[String; 4]>>;

fn sweep(subject: &Subject, all: bool) -> Matrix {
    let harms = subject.harms(all);
    let (matrix, next) = (Mutex::new(Matrix::new()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                while let Some(harm) = harms.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Outcome { found, opening, lost, after } = subject.judge(harm);
                    let outcome = [found, opening, lost, after].map(str::to_owned);
                    let row = (harm.kind.to_owned(), harm.place.clone());
                    matrix.lock().unwrap().entry(row).or_default().insert(outcome);
                }
            });
        }
    });
    println!("{} faults, {} rows", harms.len(), matrix.lock().unwrap().len());
    matrix.into_inner().unwrap()
}

const HEAD: &str = "\
# What faults do to a ledger

Made by `ledger/tests/it/sweep.rs`, which holds it to what runs; do not edit it by hand.

One small ledger, two segments sealed and one open, is harmed: each bit flipped, each file cut at each byte, each sector of 512 bytes zeroed, overwritten by and swapped with each
other one, files removed, older copies put back. *Found* is the exit code of `gatebook-ledger verify` with the log key pinned and the newest checkpoint kept elsewhere; then the ledger is opened to be written, as the
gateway does; *after* is the exit code then. Several lines for one place say that it depends on the bit, byte or sector.

No fault makes a reader show a wrong byte, and none loses anything below a checkpoint. An end that is damaged and newer than the newest checkpoint cannot be told from a write that a crash tore: opening cuts it off, keeps it in `quarantine/`
and records the cut in the ledger, and the verifier says so before. What no checkpoint covers can also be gone just behind a frame, or be put back as it was earlier, and then nothing in the directory tells (*0 verified*, and something lost):
that is what checkpoints kept elsewhere, and often, are for. Where opening refuses, it changed nothing.

";
const TABLE: &str = "\
| fault | where | found | opening | acknowledged entries lost | after |
|---|---|---|---|---|---|
";

fn print(matrix: &Matrix, all: bool) -> String {
    let from = if all {
        "all of these faults"
    } else {
        "a sample of these faults; the nightly form of the test tries all"
    };
    let mut text = format!("{HEAD}This table was written from {from}.\n\n{TABLE}");
    for ((kind, place), outcomes) in matrix {
        for [found, opening, lost, after] in outcomes {
            text.push_str(&format!("| {kind} | {place} | {found} | {opening} | {lost} | {after} |\n"));
        }
    }
    text
}

fn parse(text: &str) -> Matrix {
    let rows = text.strip_prefix(HEAD).and_then(|text| text.split_once(TABLE)).map(|(_, rows)| rows);
    let rows = rows.expect("docs/ledger-faults.md has another head: GATEBOOK_WRITE_FAULTS=1 writes it");
    let mut matrix = Matrix::new();
    for row in rows.lines().take_while(|row| row.starts_with('|')) {
        let cells: Vec<String> =
            row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        let [kind, place, outcome @ ..] = cells.as_slice() else { panic!("{row}") };
        let outcome = outcome.to_vec().try_into().unwrap();
        matrix.entry((kind.clone(), place.clone())).or_default().insert(outcome);
    }
    matrix
}

#[test]
fn every_fault_has_the_outcome_that_the_documentation_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ledger-faults.md");
    let write = std::env::var_os("GATEBOOK_WRITE_FAULTS").is_some();
    let all = std::env::var_os("GATEBOOK_NIGHTLY").is_some();
    let found = sweep(&subject(), all);
    if write {
        // What stands below the table is another test's.
        let before = std::fs::read_to_string(&path).unwrap();
        let below = before.find("\n## ").map_or("", |at| &before[at..]);
        std::fs::write(&path, print(&found, all) + below).unwrap();
    }
    let said = parse(&std::fs::read_to_string(&path).unwrap());
    for (row, outcomes) in &found {
        let known = said.get(row).unwrap_or_else(|| panic!("{row:?} is not in the matrix: {outcomes:?}"));
        let others: Vec<_> = outcomes.difference(known).collect();
        assert!(others.is_empty(), "{row:?} also comes to {others:?}");
    }
    for (row, outcomes) in &said {
        let found = found.get(row).unwrap_or_else(|| panic!("{row:?} is in the matrix, and was not tried"));
        assert!(!all || found == outcomes, "{row:?} comes to {found:?}, and the matrix says {outcomes:?}");
    }
}
