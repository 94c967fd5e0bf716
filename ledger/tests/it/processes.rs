//! Real processes on a real file system: writers that are killed, limited in what they may write, out of room, on a
//! medium that turned read-only, or not alone. Judged by opening again, by reading, and by `gatebook-ledger verify`.
//!
//! The writer is this very program, started again to run [`child`] alone. It prints a line for each
//! acknowledgement, so that whatever it printed must be there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use gatebook_ledger::reader::{self, Item};
use gatebook_ledger::{
    Directory, Draft, Kind, Limits, OpenError, Origin, Recovery, SystemSalts, Writer, keys,
};

const EVENT: Kind = Kind(256);
/// Tells the program that it is the writer, and where.
const PLACE: &str = "GATEBOOK_TEST_WRITER";
const DEADLINE: Duration = Duration::from_secs(120);

/// Where a test's ledger and keys lie.
#[derive(Clone)]
struct Place(PathBuf);

impl Place {
    fn ledger(&self) -> PathBuf {
        self.0.join("ledger")
    }

    fn open(&self) -> Result<(Writer, Recovery), OpenError> {
        let keys = keys::load_or_create(&self.0.join("keys"))?;
        let storage = Arc::new(Directory::create(&self.ledger())?);
        let limits = Limits { segment_bytes: 64 * 1024, fill_bytes: 16 * 1024, ..Limits::default() };
        let salts = || Box::new(SystemSalts::default());
        if !self.ledger().join("ledger.toml").exists() {
            let origin = Origin::new("test.example/processes").unwrap();
            let writer = Writer::create(storage, &origin, Box::new(keys), salts(), limits, 1)?;
            return Ok((writer, Recovery::default()));
        }
        Writer::open(storage, Box::new(keys), salts(), limits, 2)
    }

    /// The exit code of the verifier.
    fn verify(&self) -> i32 {
        let program = env!("CARGO_BIN_EXE_gatebook-ledger");
        let output = Command::new(program).arg("verify").arg(self.ledger()).output().unwrap();
        let code = output.status.code().unwrap();
        if code != 4 {
            println!("{}", String::from_utf8_lossy(&output.stdout));
        }
        code
    }

    /// Reads everything, and wants each entry's payload to be the one that follows from its number.
    fn read(&self) -> u64 {
        let mut entries = 0;
        reader::visit(&Directory::open(&self.ledger()).unwrap(), None, |item| {
            let Item::Entry { entry, payload, .. } = item else { panic!("{item:?}") };
            assert_eq!(entry.header.seq, entries);
            if entry.header.kind == EVENT {
                assert_eq!(payload, Some(payload_of(entries).as_slice()));
            }
            entries += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        entries
    }

    /// Opens again behind a writer that is gone: everything acknowledged is there, unchanged, and verifies.
    fn check(&self, acknowledged: u64) {
        let (writer, recovery) = self.open().unwrap_or_else(|error| panic!("cannot be opened: {error}"));
        assert!(recovery.entries >= acknowledged, "{} of {acknowledged}", recovery.entries);
        let entries = writer.next_seq();
        drop(writer);
        assert_eq!(self.read(), entries);
        assert_eq!(self.verify(), 4, "nothing is wrong, and no key is pinned");
    }
}

fn payload_of(seq: u64) -> Vec<u8> {
    let length = usize::try_from(seq * 37 % 900).unwrap();
    seq.to_be_bytes().into_iter().cycle().take(length).collect()
}

/// The writer: it goes on until it is killed or fails.
#[test]
#[ignore = "other tests start it as a program of its own"]
fn child() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let mut writer = match Place(place.into()).open() {
        Ok((writer, _)) => writer,
        Err(error) => return say(&format!("refused {error}")),
    };
    say(&format!("acknowledged {}", writer.durable()));
    for round in 1_u64.. {
        if let Err(error) = turn(&mut writer, round) {
            let again = writer.write().is_err() && writer.sync().is_err() && writer.publish(9).is_err();
            assert!(writer.is_poisoned() && again, "it goes on behind {error}");
            return say(&format!("failed {error}"));
        }
        say(&format!("acknowledged {}", writer.durable()));
    }
}

fn turn(writer: &mut Writer, round: u64) -> Result<(), Box<dyn std::error::Error>> {
    for _ in 0..round % 4 + 1 {
        let payload = payload_of(writer.next_seq());
        writer.stage(&Draft { kind: EVENT, time_ns: 5, session: 0, body: b"{}", payload: &payload })?;
    }
    writer.write()?;
    writer.sync()?;
    if round.is_multiple_of(7)
        && let Some(publication) = writer.publish(9)?
    {
        let storage = Directory::open(&Place(std::env::var_os(PLACE).unwrap().into()).ledger())?;
        // Tiles are derived; the writer goes on without them.
        drop(publication.store(&storage));
    }
    if round.is_multiple_of(23) {
        writer.rotate(6)?;
    }
    Ok(())
}

fn say(line: &str) {
    // A parent that is gone hears nothing, and kills nobody.
    drop(writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush()));
}

/// A writer that runs, and what it says.
struct Running {
    child: Child,
    lines: Receiver<String>,
    acknowledged: u64,
}

impl Running {
    /// Starts a writer, behind a program that limits it, or by itself.
    fn start(place: &Place, behind: &[&str]) -> Running {
        let own = std::env::current_exe().unwrap();
        let arguments = ["--exact", "processes::child", "--ignored", "--nocapture", "--test-threads=1"];
        let mut command = match behind {
            [] => Command::new(&own),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(&own);
                command
            }
        };
        command.args(arguments).env(PLACE, &place.0).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, lines, acknowledged: 0 }
    }

    /// The next line but those of the test runner; none where the writer has ended.
    fn next(&mut self) -> Option<String> {
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => {
                    // The runner says "test child ... " without ending its line.
                    let line = line.rsplit("... ").next().unwrap_or_default().to_owned();
                    if let Some(number) = line.strip_prefix("acknowledged ") {
                        self.acknowledged = number.parse().unwrap();
                        return Some(line);
                    }
                    if line.starts_with("refused ") || line.starts_with("failed ") {
                        return Some(line);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("the writer says nothing"),
            }
        }
    }

    /// Kills it, and gives what it had acknowledged until then.
    fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        while self.next().is_some() {}
        self.acknowledged
    }

    /// Waits for its end, and gives its last words.
    fn last_words(mut self) -> (String, u64) {
        let mut last = String::new();
        while let Some(line) = self.next() {
            last = line;
        }
        self.child.wait().unwrap();
        (last, self.acknowledged)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already, unless a test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place(folder.path().to_owned());
    let rounds = if std::env::var_os("GATEBOOK_NIGHTLY").is_some() { 300 } else { 12 };
    let mut chance = fastrand::Rng::with_seed(7);
    let mut acknowledged = 0;
    for round in 0..rounds {
        let mut running = Running::start(&place, &[]);
        for _ in 0..chance.u32(..40) {
            assert!(running.next().is_some_and(|line| line.starts_with("acknowledged ")), "round {round}");
        }
        acknowledged = running.kill().max(acknowledged);
        place.check(acknowledged);
    }
    assert!(acknowledged > 100, "{acknowledged}");
}

#[test]
fn a_file_that_may_not_grow_stops_the_writer_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place(folder.path().to_owned());
    // The signal would kill it, as kill -9 does; without the signal the write fails.
    let limited = ["prlimit", "--fsize=40000", "env", "--ignore-signal=XFSZ"];
    let (last, acknowledged) = Running::start(&place, &limited).last_words();
    assert!(last.starts_with("failed ") && last.contains("cannot write"), "{last}");
    assert!(acknowledged > 0);
    place.check(acknowledged);
    let (_, acknowledged) = Running::start(&place, &["prlimit", "--fsize=40000"]).last_words();
    place.check(acknowledged);
}

/// A small file system of its own.
struct Mount(PathBuf);

impl Mount {
    /// None where this machine cannot, with the reason printed.
    fn new(folder: &Path, size: &str) -> Option<Mount> {
        let options = format!("size={size}");
        let output =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "gatebook-test"]).arg(folder).output();
        match output {
            Ok(output) if output.status.success() => Some(Mount(folder.to_owned())),
            Ok(output) => {
                println!("skipped: cannot mount: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("skipped: cannot mount: {error}");
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_full_file_system_stops_the_writer_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(folder.path(), "300k") else { return };
    let place = Place(folder.path().to_owned());
    let (last, acknowledged) = Running::start(&place, &[]).last_words();
    assert!(last.starts_with("failed ") && last.contains("No space left"), "{last}");
    assert!(acknowledged > 10, "{acknowledged}");
    // There is no room to go on, and it says so, again and again, and loses nothing by it.
    for _ in 0..3 {
        let (last, _) = Running::start(&place, &[]).last_words();
        assert!(last.contains("No space left"), "{last}");
        assert!(place.read() >= acknowledged);
    }
    mount.remount("size=4m");
    place.check(acknowledged);
}

#[test]
fn a_medium_that_turned_read_only_is_refused_and_can_still_be_verified() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(folder.path(), "4m") else { return };
    let place = Place(folder.path().to_owned());
    let mut running = Running::start(&place, &[]);
    for _ in 0..30 {
        running.next().unwrap();
    }
    let acknowledged = running.kill();
    mount.remount("ro");
    let (last, _) = Running::start(&place, &[]).last_words();
    assert!(last.starts_with("refused ") && last.contains("Read-only file system"), "{last}");
    assert!(place.read() >= acknowledged);
    assert!(matches!(place.verify(), 2 | 4), "nothing was changed; the last write may be unfinished");
    mount.remount("rw");
    place.check(acknowledged);
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place(folder.path().to_owned());
    let mut running = Running::start(&place, &[]);
    running.next().unwrap();
    for _ in 0..3 {
        let (last, _) = Running::start(&place, &[]).last_words();
        assert_eq!(last, "refused another writer has this ledger");
        assert!(matches!(place.open(), Err(OpenError::Locked)));
    }
    running.next().unwrap();
    let acknowledged = running.kill();
    place.check(acknowledged);
}
