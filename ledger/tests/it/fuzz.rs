//! The fuzz targets over their seeds and over mutated seeds, without a fuzzer: so that they hold every day, and
//! that a fuzzer has seeds to begin with.

use std::path::Path;

use fastrand::Rng;
use gatebook_ledger::checkpoint::Vkey;
use gatebook_ledger::reader;
use gatebook_ledger::segment::{SegmentReader, Step, padded};
use gatebook_ledger::storage::Mode;
use gatebook_ledger::{Memory, Storage};

#[path = "../../fuzz/targets.rs"]
mod targets;

/// Runs a target over its seeds and mutations of them.
fn fuzz(name: &str, seeds: &[Vec<u8>], mutations: usize, target: impl Fn(&[u8])) {
    assert!(!seeds.is_empty());
    if std::env::var_os("GATEBOOK_WRITE_SEEDS").is_some() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(number.to_string()), seed).unwrap();
        }
    }
    seeds.iter().for_each(|seed| target(seed));
    let nightly = std::env::var_os("GATEBOOK_NIGHTLY").is_some();
    let mut chance = Rng::with_seed(1);
    for number in 0..if nightly { mutations * 100 } else { mutations } {
        let mut data = seeds[number % seeds.len()].clone();
        for _ in 0..chance.usize(1..4) {
            mutate(&mut chance, &mut data, seeds);
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&data)));
        if result.is_err() {
            let path = std::env::temp_dir().join(format!("gatebook-fuzz-{name}-{number}"));
            std::fs::write(&path, &data).unwrap();
            panic!("{name}: mutation {number}; its bytes are in {}", path.display());
        }
    }
}

fn mutate(chance: &mut Rng, data: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = chance.usize(..data.len().max(1));
    match chance.u8(..7) {
        0 => data.truncate(at),
        1 => data.extend(std::iter::repeat_n(chance.u8(..), chance.usize(..5000))),
        2 => {
            let other = &seeds[chance.usize(..seeds.len())];
            let from = chance.usize(..=other.len());
            data.truncate(at);
            data.extend_from_slice(&other[from..]);
        }
        // Numbers at the edge of what fits, where lengths often stand.
        3 if data.len() > 8 => {
            let number = [0, 1, 0xff, 0xffff, 0x7fff_ffff, u32::MAX][chance.usize(..6)];
            let at =
                if chance.bool() { chance.usize(..data.len().min(80) - 4) } else { at.min(data.len() - 4) };
            data[at..at + 4].copy_from_slice(&u32::to_be_bytes(number));
        }
        4 if at < data.len() => drop(data.remove(at)),
        5 => data.insert(at.min(data.len()), chance.u8(..)),
        _ if at < data.len() => data[at] ^= 1 << chance.u8(..8),
        _ => {}
    }
}

fn golden_files(prefix: &str) -> Vec<Vec<u8>> {
    let place = targets::golden();
    place
        .names()
        .iter()
        .filter(|name| name.starts_with(prefix))
        .map(|name| place.bytes(name).unwrap())
        .collect()
}

/// The golden ledger's frames with their padding, and its entries.
fn frames_and_entries() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let place: Memory = targets::golden();
    let (mut frames, mut entries) = (Vec::new(), Vec::new());
    for number in reader::segments(&place).unwrap() {
        let name = gatebook_ledger::segment::name(number);
        let bytes = place.bytes(&name).unwrap();
        let mut steps = SegmentReader::new(place.open(&name, Mode::Read).unwrap()).unwrap();
        while let Step::Frame { offset, frame } = steps.step().unwrap() {
            let start = usize::try_from(offset).unwrap();
            frames.push(bytes[start..start + padded(frame.header.length())].to_vec());
            entries.extend(frame.records().map(|record| record.entry.to_vec()));
        }
    }
    (frames, entries)
}

#[test]
fn no_bytes_break_the_reader_of_segments() {
    fuzz("segment", &golden_files("segments/"), 3_000, targets::segment);
}

#[test]
fn no_bytes_break_the_reader_of_frames() {
    fuzz("frame", &frames_and_entries().0, 5_000, targets::frame);
}

#[test]
fn no_bytes_break_the_reader_of_entries_and_one_spelling_is_accepted() {
    let mut seeds = frames_and_entries().1;
    let strange = r#"{"a":[],"b":[null,true,false,-9007199254740991,"\u0000\"\\\n\u007f é"],"c":{"":{}}}"#;
    seeds.extend([strange.as_bytes().to_vec(), br#"{"a":1,"b":{"c":[0,-1,12]}}"#.to_vec()]);
    fuzz("entry", &seeds, 40_000, targets::entry);
}

#[test]
fn no_bytes_break_the_reader_of_checkpoints_and_keys() {
    let mut seeds = golden_files("checkpoint");
    let manifest = reader::manifest(&targets::golden()).unwrap();
    seeds.push(Vkey::log(&manifest.origin, manifest.log_key).to_string().into_bytes());
    fuzz("checkpoint", &seeds, 20_000, targets::checkpoint);
}

#[test]
fn an_export_with_any_file_replaced_is_no_longer_the_same() {
    let place = targets::golden();
    let seeds: Vec<Vec<u8>> =
        (0..).zip(place.names()).map(|(n, name)| [vec![n], place.bytes(&name).unwrap()].concat()).collect();
    fuzz("bundle", &seeds, 600, targets::bundle);
}
