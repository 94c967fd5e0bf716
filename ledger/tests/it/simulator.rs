//! Crashes and failing disks, by the ten thousand: whatever the storage does, everything that was acknowledged is
//! there and verifies, or an error names what is not.
//!
//! A failure prints its seed; `GATEBOOK_SIM_SEED=N` runs that one alone. `GATEBOOK_NIGHTLY=1` runs many more.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use gatebook_ledger::hash::{Digest, plain};
use gatebook_ledger::storage::{Crash, Fault};
use gatebook_ledger::{Memory, OpenError};

use crate::simulated::{Book, Stop, limits, open};

/// Runs a check over seeds on all cores; tells the first failure with its seed, and how many points were tried.
fn simulate(
    name: &str,
    seeds: u64,
    points_min: u64,
    check: impl Fn(u64, &Points) -> Result<(), String> + Sync,
) {
    let only: Option<u64> = std::env::var("GATEBOOK_SIM_SEED").ok().map(|seed| seed.parse().unwrap());
    let nightly = std::env::var_os("GATEBOOK_NIGHTLY").is_some();
    let (first, count) = match only {
        Some(seed) => (seed, 1),
        None => (0, if nightly { seeds * 100 } else { seeds }),
    };
    let (next, points, failed) = (AtomicU64::new(first), Points::default(), Mutex::new(None));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failed.lock().unwrap().is_some() {
                        return;
                    }
                    let result =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(seed, &points)));
                    if let Err(why) = result.unwrap_or_else(|_| Err("it panicked".to_owned())) {
                        *failed.lock().unwrap() =
                            Some(format!("{why}; run it again with GATEBOOK_SIM_SEED={seed}"));
                    }
                }
            });
        }
    });
    if let Some(failure) = failed.into_inner().unwrap() {
        panic!("{name}: {failure}");
    }
    let points = points.0.into_inner();
    println!("{name}: {points} points, {count} seeds");
    assert!(only.is_some() || points >= points_min, "only {points} points were tried");
}

/// Counts what was tried.
#[derive(Default)]
struct Points(AtomicU64);

impl Points {
    fn tried(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The disks of one run that were judged already: many a crash leaves the same, and the same is judged alike.
#[derive(Default)]
struct Judged(HashSet<Digest>);

impl Judged {
    fn is_new(&mut self, image: &Memory, book: &Book) -> bool {
        let mut all = book.acknowledged.to_be_bytes().to_vec();
        for name in image.names() {
            all.extend_from_slice(name.as_bytes());
            all.extend_from_slice(&image.bytes(&name).unwrap());
        }
        self.0.insert(plain(&all))
    }
}

/// How many calls a run makes when nothing fails.
fn calls_of(seed: u64) -> u64 {
    let storage = Memory::new();
    let (_, result) = Book::write(seed, &storage, 0);
    assert!(result.is_ok(), "seed {seed}: {result:?}");
    storage.calls()
}

fn crashes(seed: u64) -> impl Iterator<Item = Crash> {
    let sectors = (0..3).flat_map(move |n| {
        [512, 4096].map(|bytes| Crash::Sectors { seed: seed.wrapping_mul(31) + n, bytes })
    });
    [Crash::LosesAll, Crash::LosesNothing].into_iter().chain(sectors)
}

/// Runs until the call at which the process dies.
fn die_at(seed: u64, call: u64) -> Result<(Memory, Book), String> {
    let storage = Memory::new();
    storage.fail_from(call);
    let (book, result) = Book::write(seed, &storage, 0);
    storage.heal();
    match result {
        Err(Stop::Wrong(why)) => Err(format!("dying at call {call}: {why}")),
        _ => Ok((storage, book)),
    }
}

#[test]
fn whatever_a_crash_leaves_of_each_sector_nothing_acknowledged_is_lost() {
    simulate("crash", 20, 10_000, |seed, points| {
        let mut judged = Judged::default();
        for call in 0..calls_of(seed) {
            let (storage, book) = die_at(seed, call)?;
            for crash in crashes(seed * 1000 + call) {
                points.tried();
                let image = storage.crash(crash);
                let limits = limits(&mut Rng::with_seed(seed));
                if !judged.is_new(&image, &book) {
                    continue;
                }
                book.check_crash(&image, limits)
                    .map_err(|why| format!("power failed at call {call}, {crash:?}: {why}"))?;
            }
        }
        Ok(())
    });
}

#[test]
fn recovery_may_crash_too_again_and_again() {
    simulate("recovery", 20, 5_000, |seed, points| {
        let mut chance = Rng::with_seed(seed ^ 0xa5a5);
        for call in 0..calls_of(seed) {
            let (mut storage, mut book) = die_at(seed, call)?;
            let mut story = format!("died at call {call}");
            for _ in 0..3 {
                // The power fails, or the process alone died.
                if chance.bool() {
                    let crash =
                        Crash::Sectors { seed: chance.u64(..), bytes: [512, 4096][chance.usize(..2)] };
                    storage = storage.crash(crash);
                    story.push_str(&format!(", {crash:?}"));
                }
                let limits = limits(&mut chance);
                let dies = chance.u64(..14);
                storage.fail_from(dies);
                match open(&storage, &book.keys, limits) {
                    Ok((writer, recovery)) => {
                        book.recovered(&recovery, &writer).map_err(|why| format!("{story}: {why}"))?;
                    }
                    Err(_) => book.forget_unacknowledged(),
                }
                points.tried();
                storage.heal();
                story.push_str(&format!(", recovery died at call {dies}"));
            }
            points.tried();
            let limits = limits(&mut chance);
            let image = storage.crash(Crash::Sectors { seed: chance.u64(..), bytes: 512 });
            book.check_crash(&image, limits)
                .map_err(|why| format!("{story}, and the power failed: {why}"))?;
            book.check_crash(&storage, limits).map_err(|why| format!("{story}: {why}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_call_that_fails_once_poisons_the_writer_and_the_next_one_loses_nothing() {
    simulate("fault", 12, 5_000, |seed, points| {
        let mut judged = Judged::default();
        for call in 0..calls_of(seed) {
            for fault in [Fault::Failed, Fault::NoSpace, Fault::Short(700)] {
                let storage = Memory::new();
                storage.fault_once(call, fault);
                let (book, result) = Book::write(seed, &storage, 2);
                if let Err(stop) = result {
                    return Err(format!("{fault:?} at call {call}: {stop:?}"));
                }
                for crash in crashes(seed * 1000 + call).step_by(3) {
                    points.tried();
                    let image = storage.crash(crash);
                    let limits = limits(&mut Rng::with_seed(seed));
                    if !judged.is_new(&image, &book) {
                        continue;
                    }
                    book.check_crash(&image, limits)
                        .map_err(|why| format!("{fault:?} at call {call}, then {crash:?}: {why}"))?;
                }
            }
        }
        Ok(())
    });
}

/// What may be told of a ledger whose disk lied: the right entries and no others, and an end that is missing only
/// above what was signed.
fn check_named(book: &Book, image: &Memory, seed: u64) -> Result<(), String> {
    let before = book.judge(image);
    let sound = before.problems.is_empty();
    book.compare(image)?;
    let mut book = book.clone();
    match open(image, &book.keys.fork(), limits(&mut Rng::with_seed(seed))) {
        Ok((writer, recovery)) => {
            let told = !sound || recovery.cut.is_some();
            if recovery.entries < book.acknowledged && !told && recovery.entries < book.published {
                return Err(format!(
                    "{} of {} entries, and nobody says so",
                    recovery.entries, book.acknowledged
                ));
            }
            // From there on stand other entries, recovery's own.
            book.staged.retain(|seq, _| *seq < recovery.entries);
            drop(writer);
        }
        Err(OpenError::Locked | OpenError::Exists | OpenError::OtherKey(_)) => {
            return Err("it is refused for a reason that is none".to_owned());
        }
        Err(error) if sound => return Err(format!("the verifier finds nothing, and opening says: {error}")),
        Err(_) => {}
    }
    book.compare(image).map(drop)
}

#[test]
fn rotten_bits_and_lying_writes_are_told_or_harmless_and_never_wrong_bytes() {
    simulate("lies", 10, 5_000, |seed, points| {
        let mut chance = Rng::with_seed(seed ^ 0x5a5a);
        for call in 0..calls_of(seed) {
            for fault in
                [Fault::Dropped, Fault::Misplaced(512), Fault::Misplaced(4096), Fault::Misplaced(8192)]
            {
                points.tried();
                let storage = Memory::new();
                storage.fault_once(call, fault);
                let (book, result) = Book::write(seed, &storage, 0);
                if !book.created || storage.bytes("ledger.toml").is_none() {
                    continue;
                }
                // The run itself may notice; that is what we want.
                drop(result);
                check_named(&book, &storage.crash(Crash::LosesNothing), seed)
                    .map_err(|why| format!("{fault:?} at call {call}: {why}"))?;
            }
        }
        let storage = Memory::new();
        let (book, _) = Book::write(seed, &storage, 0);
        let names = storage.names();
        for _ in 0..300 {
            points.tried();
            let image = storage.crash(Crash::LosesNothing);
            let name = &names[chance.usize(..names.len())];
            let mut bytes = storage.bytes(name).unwrap();
            if bytes.is_empty() {
                continue;
            }
            let bit = chance.usize(..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            image.set_bytes(name, &bytes);
            check_named(&book, &image, seed).map_err(|why| format!("bit {bit} of {name} rotted: {why}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_read_that_fails_gives_an_error_and_no_other_answer() {
    simulate("reads", 20, 500, |seed, points| {
        let storage = Memory::new();
        let (book, _) = Book::write(seed, &storage, 0);
        let good = book.judge(&storage);
        let options = gatebook_ledger::verify::Options { key: book.key.clone(), ..Default::default() };
        let before = storage.reads();
        gatebook_ledger::verify::verify(&storage, &options, &|_| {}).map_err(|error| error.to_string())?;
        for number in 0..storage.reads() - before {
            points.tried();
            storage.fail_read_once(number);
            if let Ok(report) = gatebook_ledger::verify::verify(&storage, &options, &|_| {}) {
                return Err(format!("read {number} failed, and the verifier says {:?}", report.verdict));
            }
        }
        let image = storage.fork();
        let before = image.reads();
        drop(open(&image, &book.keys.fork(), limits(&mut Rng::with_seed(seed))));
        for number in 0..image.reads() - before {
            points.tried();
            let image = storage.fork();
            image.fail_read_once(number);
            match open(&image, &book.keys.fork(), limits(&mut Rng::with_seed(seed))) {
                Err(OpenError::Storage(_)) => {}
                Err(error) => return Err(format!("read {number} failed, and opening says: {error}")),
                Ok(_) => return Err(format!("read {number} failed, and it was opened")),
            }
            image.heal();
            book.check_crash(&image, limits(&mut Rng::with_seed(seed)))
                .map_err(|why| format!("behind a failed read {number}: {why}"))?;
        }
        assert_eq!(book.judge(&storage), good);
        Ok(())
    });
}
