//! Evidence before effect, when the gateway dies or its disk is full.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gatebook_tests::gateway::PERMIT_ALL;
use gatebook_tests::machine::{self, ANSWER_MAX, START_MAX, until};
use gatebook_tests::postgres::{APP, DATABASE};
use gatebook_tests::wire::{self, Client};
use gatebook_tests::{Gateway, World};

/// How often the gateway is killed: a few times in every run, many in the nightly one.
fn kills() -> u64 {
    if std::env::var_os("GATEBOOK_NIGHTLY").is_some() { 100 } else { 10 }
}

const WORKERS: u64 = 4;

/// A few numbers that look random and are the same in each run (xorshift64, Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// What one client saw happen before its connection broke.
#[derive(Default)]
struct Seen {
    inserted: Vec<u64>,
    read: Vec<u64>,
}

/// Inserts and reads through the gateway until the connection breaks; `done` counts what came back.
fn work(mut client: Client, next: &AtomicU64, done: &AtomicU64, how: u64) -> Seen {
    let mut seen = Seen::default();
    loop {
        let id = next.fetch_add(1, Ordering::SeqCst);
        let insert = format!("INSERT INTO journal (id, body) VALUES ({id}, 'x')");
        let (frames, read) = match how % 3 {
            0 => (wire::query(&insert), false),
            1 => {
                let sql = "INSERT INTO journal (id, body) VALUES ($1, 'x')";
                ([wire::extended(sql, &[Some(&id.to_string())]), wire::sync()].concat(), false)
            }
            _ => (wire::query(&format!("SELECT {id}")), true),
        };
        if client.send(&frames).is_err() {
            return seen;
        }
        // What counts as seen is the answer itself, whether or not the rest of it arrives.
        loop {
            match client.receive() {
                Ok(Some(message)) if message.tag == b'Z' => break,
                Ok(Some(message)) if message.tag == b'C' && !read => seen.inserted.push(id),
                Ok(Some(message)) if message.tag == b'D' && read => seen.read.push(id),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return seen,
            }
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
}

/// The numbers that the ledger's permitted commands name, each with how often.
fn recorded(gateway: &Gateway) -> BTreeMap<u64, usize> {
    let mut all = BTreeMap::new();
    for command in gateway.ledger().commands() {
        if command.phase != "execute" || command.decision != "permit" {
            continue;
        }
        let from_parameter = command
            .parameters
            .first()
            .and_then(|parameter| std::str::from_utf8(parameter.value.as_deref()?).ok()?.parse::<u64>().ok());
        let from_text =
            || command.statement.split(|c: char| !c.is_ascii_digit()).find_map(|word| word.parse().ok());
        if let Some(id) = from_parameter.or_else(from_text) {
            *all.entry(id).or_default() += 1;
        }
    }
    all
}

fn rows(world: &World) -> BTreeSet<u64> {
    let text = world.postgres.admin("SELECT id FROM journal");
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn whatever_a_client_saw_is_in_the_ledger_after_a_kill_at_any_moment() {
    let mut world = World::new(PERMIT_ALL);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let next = Arc::new(AtomicU64::new(1));
    let (mut inserted, mut read) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..kills() {
        let done = Arc::new(AtomicU64::new(0));
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let client = world.client();
                let (next, done) = (Arc::clone(&next), Arc::clone(&done));
                std::thread::spawn(move || work(client, &next, &done, worker))
            })
            .collect();
        // At any moment: after some number of answers, and then some of an answer's time.
        let enough = numbers.next() % 100;
        until("load", START_MAX, || (done.load(Ordering::SeqCst) >= enough).then_some(()));
        for _ in 0..numbers.next() % 200_000 {
            std::hint::spin_loop();
        }
        world.gateway.kill();
        for worker in workers {
            let seen = worker.join().expect("no worker panics");
            inserted.extend(seen.inserted);
            read.extend(seen.read);
        }
        world.gateway.restart();
        world.gateway.ledger().assert_sound();
        let recorded = recorded(&world.gateway);
        let missing: Vec<&u64> =
            inserted.iter().chain(&read).filter(|id| !recorded.contains_key(id)).collect();
        assert!(missing.is_empty(), "round {round}: seen and not recorded: {missing:?}");
        let twice: Vec<_> = recorded.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "round {round}: recorded twice: {twice:?}");
        let unexplained: Vec<u64> =
            rows(&world).into_iter().filter(|id| !recorded.contains_key(id)).collect();
        assert!(unexplained.is_empty(), "round {round}: an effect without evidence: {unexplained:?}");
    }
    assert!(inserted.len() as u64 > kills(), "the load was real: {} inserts seen", inserted.len());
    assert!(!read.is_empty());
    // Every session that a kill cut off was closed as such.
    assert!(world.gateway.stop().success());
    let told = world.gateway.ledger().told();
    let count = |name: &str| told.iter().filter(|event| event.name == name).count();
    assert_eq!(count("session.opened"), count("session.closed"));
}

/// A small file system of its own; it is unmounted with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }

    /// Leaves only so many kilobytes free.
    fn fill(&self, kilobytes: u64) {
        let free = rustix::fs::statvfs(&self.0).unwrap();
        let fill = (free.f_bavail * free.f_frsize).saturating_sub(kilobytes * 1024);
        let zeros = vec![0; 64 * 1024];
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let mut left = usize::try_from(fill).unwrap();
        while left > 0 {
            let step = left.min(zeros.len());
            std::io::Write::write_all(&mut file, &zeros[..step]).unwrap();
            left -= step;
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_stops_effects_and_space_brings_them_back() {
    let place = machine::temporary();
    let Some(disk) = SmallDisk::mount(&place.path().join("disk"), 32) else {
        eprintln!("SKIPPED: a_full_disk_stops_effects: this user may not mount a small tmpfs; run as root");
        return;
    };
    let ledger = disk.0.join("ledger");
    let mut world = World::with(|setup| setup.policies(PERMIT_ALL).ledger(&ledger));
    let mut client = world.client();
    assert_eq!(client.simple("INSERT INTO journal (id) VALUES (1)"), ["C INSERT 0 1", "Z I"]);
    disk.fill(512);
    let mut seen = vec![1];
    let mut last = Vec::new();
    for id in 2..20_000 {
        let body = "x".repeat(2000);
        if client
            .send(&wire::query(&format!("INSERT INTO journal (id, body) VALUES ({id}, '{body}')")))
            .is_err()
        {
            break;
        }
        let answer = client.receive_until(b"Z");
        if answer.iter().any(|message| message.tag == b'C') {
            seen.push(id);
        }
        if answer.last().is_none_or(|message| message.tag != b'Z') {
            last = answer;
            break;
        }
    }
    let report = last.iter().rev().find_map(wire::Message::report).expect("the client is told why");
    assert_eq!((&*report.severity, &*report.code), ("FATAL", "57P01"), "{report:?}");
    assert!(report.message.contains("ledger"), "{report:?}");
    // The operator is told what, where, and what happened instead.
    world.gateway.process_ref().line_from(0, "words about the full disk", ANSWER_MAX, |line| {
        (line.contains("ERROR") && line.contains("ledger")).then_some(())
    });
    let refused =
        Client::tls(world.gateway.address(), world.gateway.tls()).login(APP, DATABASE, &world.token());
    assert_eq!(refused.expect_err("nothing passes unrecorded").severity, "FATAL");
    disk.free();
    let mut client = until("a session after the space came back", START_MAX, || {
        let mut client = Client::tls(world.gateway.address(), world.gateway.tls());
        client.login(APP, DATABASE, &world.token()).ok().map(|()| client)
    });
    assert_eq!(client.simple("INSERT INTO journal (id) VALUES (20001)"), ["C INSERT 0 1", "Z I"]);
    seen.push(20_001);
    drop(client);
    assert!(world.gateway.stop().success());
    world.gateway.ledger().assert_sound();
    let recorded = recorded(&world.gateway);
    let effects = rows(&world);
    assert!(seen.iter().all(|id| effects.contains(id)), "what was answered is there");
    let unexplained: Vec<u64> = effects.into_iter().filter(|id| !recorded.contains_key(id)).collect();
    assert!(unexplained.is_empty(), "an effect without evidence: {unexplained:?}");
}

/// From `negatives`: "audit on a lossy channel: 72 of 29,134 queries recorded, none after".
#[test]
fn a_burst_is_recorded_whole() {
    let burst: u64 = if std::env::var_os("GATEBOOK_NIGHTLY").is_some() { 100_000 } else { 20_000 };
    let mut world = World::new(PERMIT_ALL);
    let clients: Vec<Client> = (0..4).map(|_| world.client()).collect();
    let each = burst / 4;
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = clients
        .into_iter()
        .zip(0_u64..)
        .map(|(mut client, worker)| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                // Batches are pipelined, so that the recorder is as busy as clients can make it.
                for batch in 0..each / 500 {
                    let first = worker * each + batch * 500;
                    let frames: Vec<u8> = (first..first + 500)
                        .flat_map(|id| wire::extended(&format!("SELECT {id}"), &[]))
                        .collect();
                    let answer = client.ask(&[frames, wire::sync()]);
                    assert_eq!(answer.iter().filter(|message| message.tag == b'D').count(), 500);
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        if worker.join().is_err() {
            stop.store(true, Ordering::SeqCst);
            panic!("a client did not get all answers");
        }
    }
    assert!(world.gateway.stop().success());
    world.gateway.ledger().assert_sound();
    let recorded = recorded(&world.gateway);
    assert_eq!(recorded.len() as u64, burst);
    assert!(recorded.values().all(|count| *count == 1));
}
