//! The gateway verifies its own ledger while it writes it, against the last checkpoint that it published and holds in
//! memory. What was changed beneath it, also by putting back an older copy, raises an alarm that stays.
//!
//! What a newcomer gets wrong: this is no audit. Whoever owns the machine owns this thread too; it catches the disk
//! that rots, the hand that slips, and the thief who does not know of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gatebook_ledger::checkpoint::Vkey;
use gatebook_ledger::verify::{Earlier, Options, Report, Verdict, resume, verify};
use gatebook_ledger::{Storage, event};

use super::Shared;

/// How often an alarm is told again.
const ALARM_PAUSE: Duration = Duration::from_secs(60);
/// Each of so many verifications reads everything again.
const WHOLE_EVERY: u64 = 24;
/// So many problems go into the ledger's own record.
const PROBLEMS_MAX: usize = 20;

pub(super) struct Watch {
    pub(super) shared: Arc<Shared>,
    pub(super) storage: Arc<dyn Storage>,
    /// The log key that this gateway wrote with when it started.
    pub(super) key: Vkey,
    pub(super) interval: Duration,
    /// How far the last verdict got; what is before it is read again each day.
    pub(super) earlier: Option<Earlier>,
    pub(super) looks: u64,
}

impl Watch {
    /// Verifies at each interval until the recorder has stopped.
    pub(super) fn run(mut self) {
        let mut next = Instant::now() + self.interval;
        loop {
            let alarm = self.shared.alarm.lock().clone();
            let pause = if alarm.is_some() { ALARM_PAUSE } else { self.interval };
            let until = next.min(Instant::now() + pause);
            let mut stopped = self.shared.stopped.lock();
            self.shared.stopped_changed.wait_while_until(&mut stopped, |stopped| !*stopped, until);
            if *stopped {
                return;
            }
            drop(stopped);
            if Instant::now() >= next {
                self.look();
                next = Instant::now() + self.interval;
            }
            if let Some(alarm) = &*self.shared.alarm.lock() {
                tracing::error!(what = %alarm, "ALARM: this gateway's ledger does not verify. Take it out of service, keep its disk, and run gatebook-ledger verify on it");
            }
        }
    }

    /// Verifies once, from where the last verdict got to, and from the beginning now and then.
    fn look(&mut self) {
        if self.looks.is_multiple_of(WHOLE_EVERY) {
            self.earlier = None;
        }
        self.looks += 1;
        let kept = self.shared.published.lock().clone();
        let checkpoints = kept.map(|note| ("the last published".to_owned(), note.into_bytes()));
        let options = Options {
            key: Some(self.key.clone()),
            checkpoints: checkpoints.into_iter().collect(),
            threads: 1,
            witnesses: Vec::new(),
        };
        let bad = |report: &Report| matches!(report.verdict, Verdict::Tampered | Verdict::Incomplete);
        let failed = || self.shared.failed.load(Ordering::Acquire);
        let judge = || match &self.earlier {
            Some(earlier) => resume(self.storage.as_ref(), &options, earlier, &|_| {}),
            None => verify(self.storage.as_ref(), &options, &|_| {}),
        };
        let mut judged = judge();
        if judged.as_ref().is_ok_and(bad) {
            // The ledger may have been closed and opened again meanwhile, after its disk had failed.
            judged = judge();
        }
        match judged {
            Ok(_) if failed() => {}
            Ok(report) if bad(&report) => self.raise(&report),
            Ok(report) => {
                self.earlier = report.earlier;
                tracing::info!(entries = report.entries, epoch = report.epoch, "ledger: verified itself");
            }
            Err(error) => tracing::error!(%error, "ledger: cannot be read to verify it"),
        }
    }

    fn raise(&self, report: &Report) {
        let what: Vec<String> = report
            .problems
            .iter()
            .take(PROBLEMS_MAX)
            .map(|problem| match (&problem.file, problem.entry) {
                (Some(file), Some(entry)) => format!("{file}, entry {entry}: {}", problem.what),
                (Some(file), None) => format!("{file}: {}", problem.what),
                _ => problem.what.clone(),
            })
            .collect();
        let told = what.first().cloned().unwrap_or_default();
        let first = self.shared.alarm.lock().replace(told).is_none();
        if first {
            let verdict = if report.verdict == Verdict::Tampered { "tampered" } else { "incomplete" };
            let body = event::LedgerAlarmBody { problems: report.problem_count, verdict: verdict.into() };
            let payload =
                event::LedgerAlarmPayload { what: what.iter().map(|line| line.as_str().into()).collect() };
            self.shared.push(None, &body, Some(&payload));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use gatebook_ledger::reader::{self, Item};
    use gatebook_ledger::{Memory, event};

    use super::*;
    use crate::config::LedgerConfig;
    use crate::record::Recorder;

    fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_ledger_that_is_changed_beneath_its_gateway_raises_an_alarm() {
        let folder = tempfile::tempdir().unwrap();
        for refuses in [true, false] {
            let storage = Memory::new();
            let config = LedgerConfig {
                keys: folder.path().join(format!("keys-{refuses}")),
                checkpoint_interval: Duration::from_millis(50),
                verify_interval: Duration::from_millis(50),
                refuse_when_tampered: refuses,
                ..LedgerConfig::for_test(folder.path())
            };
            let (recorder, _) = Recorder::over(&config, Arc::new(storage.clone())).unwrap();
            until("it publishes", || storage.bytes("checkpoint").is_some());
            std::thread::yield_now();
            assert_eq!(recorder.alarm(), None);
            let name = "segments/00000000.seg";
            let mut bytes = storage.bytes(name).unwrap();
            bytes[4096 + 300] ^= 1;
            // The writer goes on in the file that it has open; the one under the name is another now.
            storage.set_bytes(name, &bytes);
            until("it raises an alarm", || recorder.alarm().is_some());
            assert!(recorder.alarm().unwrap().contains(name), "{:?}", recorder.alarm());
            assert_eq!(recorder.refuses_sessions(), refuses);
            recorder.stop(Duration::from_secs(10));
        }
    }

    #[test]
    fn what_the_gateway_writes_over_many_epochs_verifies_and_raises_none() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Memory::new();
        let config = LedgerConfig {
            checkpoint_interval: Duration::from_millis(30),
            epoch: Duration::from_millis(100),
            verify_interval: Duration::from_millis(20),
            ..LedgerConfig::for_test(folder.path())
        };
        let (recorder, _) = Recorder::over(&config, Arc::new(storage.clone())).unwrap();
        until("epochs end", || storage.bytes("segments/00000004.seg").is_some());
        recorder.stop(Duration::from_secs(30));
        assert_eq!(recorder.alarm(), None);
        let mut alarms = 0;
        reader::visit(&storage, None, |item| {
            alarms += usize::from(
                matches!(item, Item::Entry { entry, .. } if entry.header.kind == event::LEDGER_ALARM),
            );
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(alarms, 0);
        let held = std::fs::read_dir(folder.path().join("keys")).unwrap().filter_map(Result::ok);
        let epochs =
            held.filter(|file| file.file_name().to_string_lossy().starts_with("ledger-epoch")).count();
        assert_eq!(epochs, 1, "every key but the last is erased");
    }
}
