use super::*;
use crate::storage::read;

fn seeds(bytes: usize) -> impl Iterator<Item = Crash> {
    (0..200).map(move |seed| Crash::Sectors { seed, bytes })
}

/// A file of two synced sectors of `a`, the second and a third then overwritten with `b`.
fn half_synced() -> Memory {
    let memory = Memory::new();
    let mut file = memory.open("x", Mode::Create).unwrap();
    file.write_at(0, &[b'a'; 1024]).unwrap();
    file.sync().unwrap();
    memory.sync_folder("").unwrap();
    file.write_at(512, &[b'b'; 1024]).unwrap();
    memory
}

#[test]
fn unsynced_sectors_are_lost_kept_or_garbled_each_for_itself_and_synced_ones_never() {
    let memory = half_synced();
    let mut seen = std::collections::BTreeSet::new();
    for crash in seeds(512) {
        let bytes = memory.crash(crash).bytes("x").unwrap();
        assert_eq!(bytes, memory.crash(crash).bytes("x").unwrap(), "the same seed gives the same");
        assert_eq!(bytes[..512], [b'a'; 512]);
        let name = |sector: &[u8]| match sector {
            [] => "short",
            _ if sector.iter().all(|byte| *byte == b'a') => "old",
            _ if sector.iter().all(|byte| *byte == b'b') => "new",
            _ if sector.iter().all(|byte| *byte == 0) => "zero",
            _ => "garbled",
        };
        seen.insert((name(&bytes[512..1024]), name(&bytes[1024..])));
    }
    for second in ["old", "new", "garbled"] {
        for third in ["short", "zero", "new", "garbled"] {
            assert!(seen.contains(&(second, third)), "{second}, {third}: {seen:?}");
        }
    }
}

#[test]
fn names_are_lost_without_a_sync_of_their_folder() {
    let memory = Memory::new();
    memory.open("a/x", Mode::Create).unwrap().sync().unwrap();
    assert!(memory.crash(Crash::LosesAll).names().is_empty());
    memory.sync_folder("b").unwrap();
    assert!(memory.crash(Crash::LosesAll).names().is_empty());
    let kept = seeds(512).filter(|crash| !memory.crash(*crash).names().is_empty()).count();
    assert!((50..150).contains(&kept), "{kept}");
    memory.sync_folder("a").unwrap();
    memory.remove("a/x").unwrap();
    assert_eq!(memory.crash(Crash::LosesAll).names(), ["a/x"]);
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_wherever_it_stops() {
    for calls in 0..5 {
        let memory = Memory::new();
        memory.replace("x", b"old").unwrap();
        memory.fail_from(calls);
        assert!(memory.replace("x", b"new").is_err());
        for crash in seeds(512).chain([Crash::LosesAll, Crash::LosesNothing]) {
            let bytes = memory.crash(crash).bytes("x").unwrap();
            assert!(bytes == b"old" || bytes == b"new" && calls == 4, "{calls}, {crash:?}: {bytes:?}");
        }
    }
}

#[test]
fn a_failed_sync_hides_what_it_lost() {
    let memory = half_synced();
    let mut file = memory.open("x", Mode::Write).unwrap();
    memory.fault_once(0, Fault::Failed);
    assert!(file.sync().is_err());
    file.sync().unwrap();
    let seen = memory.bytes("x").unwrap();
    assert_eq!(seen[512..], [b'b'; 1024]);
    assert_ne!(memory.crash(Crash::LosesNothing).bytes("x").unwrap(), seen);
    file.write_at(512, &[b'b'; 1024]).unwrap();
    file.sync().unwrap();
    assert_eq!(memory.crash(Crash::LosesAll).bytes("x").unwrap(), seen);
}

#[test]
fn a_fault_strikes_once_in_its_own_way() {
    for (fault, fails, left) in [
        (Fault::Failed, true, &b""[..]),
        (Fault::NoSpace, true, b"wri"),
        (Fault::Short(5), true, b"writt"),
        (Fault::Misplaced(2), false, b"\0\0writte"),
        (Fault::Dropped, false, b""),
    ] {
        let memory = Memory::new();
        let mut file = memory.open("x", Mode::Create).unwrap();
        memory.fault_once(0, fault);
        let result = file.write_at(0, b"writte");
        assert_eq!(
            result.as_ref().err().map(io::Error::kind) == Some(io::ErrorKind::StorageFull),
            fault == Fault::NoSpace
        );
        assert_eq!(result.is_err(), fails, "{fault:?}");
        assert_eq!(memory.bytes("x").unwrap(), left, "{fault:?}");
        file.write_at(0, b"whole!!!").unwrap();
        assert_eq!(memory.bytes("x").unwrap(), b"whole!!!");
    }
    let memory = half_synced();
    memory.fail_read_once(1);
    assert!(read(&memory, "x", 4096).is_err());
    assert!(read(&memory, "x", 4096).is_ok());
}
