//! What each fuzz target does with its bytes: whatever they are, decoding ends, allocates no more than they have, and
//! accepts one spelling alone. A panic is a finding.

use gatebook_ledger::checkpoint::{Note, Vkey};
use gatebook_ledger::entry::{Entry, check_canonical};
use gatebook_ledger::hash::{self, Committer};
use gatebook_ledger::segment::{
    BLOCK, FRAME_HEADER_BYTES, FRAME_TRAILER_BYTES, Frame, SegmentReader, Step, padded,
};
use gatebook_ledger::storage::{Mode, read};
use gatebook_ledger::verify::{Options, Verdict, verify};
use gatebook_ledger::{Memory, Storage, reader};

/// A segment's file, as it is: read to its end, also behind what is damaged.
pub(crate) fn segment(data: &[u8]) {
    let name = gatebook_ledger::segment::name(0);
    let place = Memory::new();
    place.set_bytes(&name, data);
    let mut steps = SegmentReader::new(place.open(&name, Mode::Read).unwrap()).unwrap();
    let _ = steps.header().unwrap();
    let (mut at, mut goes_on) = (0, true);
    while goes_on {
        assert!(steps.offset() > at || at == 0, "it does not move on from {at}");
        at = steps.offset();
        assert_eq!(at % BLOCK as u64, 0);
        goes_on = match steps.step().unwrap() {
            Step::Frame { frame, .. } => {
                visit(&frame);
                true
            }
            Step::End { offset } => {
                assert!(
                    data.get(usize::try_from(offset).unwrap()..)
                        .unwrap_or_default()
                        .iter()
                        .all(|byte| *byte == 0)
                );
                false
            }
            Step::Footer { .. } | Step::Damaged { .. } => {
                steps.seek(at);
                steps.find_next().unwrap()
            }
        };
    }
    reader::visit(&place, None, |_| std::ops::ControlFlow::Continue(())).unwrap();
}

/// A frame, as it is, and once more with its checksums made right, so that what they guard is reached too.
pub(crate) fn frame(data: &[u8]) {
    for bytes in [data.to_vec(), summed(data)] {
        let Ok(frame) = Frame::decode(&bytes) else { continue };
        visit(&frame);
        let content = frame.header.length();
        for at in [0, 8, 75, content - frame.header.payloads_length as usize - 1, padded(content) - 1] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let payload = at < content && at >= content - frame.header.payloads_length as usize;
            assert!(payload || Frame::decode(&other).is_err(), "byte {at} is not covered");
        }
    }
}

/// The frame's checksums and its chain value, made right as far as its lengths allow.
fn summed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if bytes.len() < FRAME_HEADER_BYTES {
        return bytes;
    }
    let sum = crc32c::crc32c(&bytes[..72]).to_be_bytes();
    bytes[72..76].copy_from_slice(&sum);
    let number = |at: usize| bytes[at..at + 4].iter().fold(0_usize, |n, byte| n << 8 | usize::from(*byte));
    let (entries, count) = (number(8), number(16));
    let signed = FRAME_HEADER_BYTES + entries + 4 * count;
    if signed + FRAME_TRAILER_BYTES <= bytes.len() {
        let chain = hash::frame(&bytes[..signed]);
        bytes[signed..signed + 32].copy_from_slice(&chain.0);
        let sum = crc32c::crc32c(&bytes[..signed + 96]).to_be_bytes();
        bytes[signed + 96..signed + 100].copy_from_slice(&sum);
    }
    bytes
}

fn visit(frame: &Frame<'_>) {
    let mut committer = Committer::new();
    let mut bundle = Vec::new();
    let mut records = 0;
    for record in frame.records() {
        records += 1;
        bundle.extend_from_slice(&u16::try_from(record.entry.len()).unwrap().to_be_bytes());
        bundle.extend_from_slice(record.entry);
        if let Ok(entry) = Entry::decode(record.entry) {
            let _ = record.payload_matches(&entry, &mut committer);
        }
    }
    assert_eq!(records, frame.header.count);
    assert_eq!(bundle, frame.bundle());
}

/// An entry, and its body: what is accepted has one spelling, which another JSON library writes too.
pub(crate) fn entry(data: &[u8]) {
    if let Ok(entry) = Entry::decode(data) {
        let mut again = Vec::new();
        entry.header.encode(&mut again);
        again.extend_from_slice(entry.body);
        assert_eq!(again, data);
        body(entry.body);
    }
    body(data);
}

fn body(data: &[u8]) {
    if check_canonical(data).is_ok() {
        let value: serde_json::Value = serde_json::from_slice(data).expect("canonical, and no JSON");
        assert_eq!(serde_json::to_vec(&value).unwrap(), data, "canonical, and spelled otherwise");
        sorted(&value);
    }
}

fn sorted(value: &serde_json::Value) {
    match value {
        serde_json::Value::Object(object) => {
            assert!(object.keys().is_sorted());
            object.values().for_each(sorted);
        }
        serde_json::Value::Array(list) => list.iter().for_each(sorted),
        _ => {}
    }
}

/// A checkpoint, or a verifier key.
pub(crate) fn checkpoint(data: &[u8]) {
    if let Ok(note) = Note::parse(data) {
        let text = note.unverified().text();
        assert!(data.starts_with(text.as_bytes()), "another text was signed than the one that is read");
        assert_eq!(note.text(), text);
        assert!(note.signatures().count() <= data.len() / 68);
        assert!(note.verify(&[stranger()]).is_err(), "a stranger's signature was forged");
    }
    if let Ok(vkey) = std::str::from_utf8(data).unwrap_or_default().parse::<Vkey>() {
        assert_eq!(vkey.to_string().as_bytes(), data, "a key has another spelling");
    }
}

fn stranger() -> Vkey {
    "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap()
}

/// The golden export with one file replaced: the first byte chooses it, the rest is its content.
pub(crate) fn bundle(data: &[u8]) {
    let Some((choice, content)) = data.split_first() else { return };
    let place = golden();
    let names = place.names();
    let name = &names[usize::from(*choice) % names.len()];
    let good = place.bytes(name).unwrap();
    place.set_bytes(name, content);
    let same = good == content;
    match verify(&place, &Options { threads: 1, ..Options::default() }, &|_| {}) {
        Ok(report) if report.verdict == Verdict::Unanchored => {
            // A line of a signer that nobody knows is passed over, so a known one's may be lost where it is not needed.
            let text = |bytes: &[u8]| Note::parse(bytes).map(|note| note.text().to_owned()).ok();
            let same_text = name == "checkpoint" && text(&good) == text(content);
            assert!(same || same_text, "{name} was changed, and the verifier finds nothing");
        }
        Ok(report) => assert!(!same, "{:?}", report.problems),
        Err(error) => assert!(!same && read(&place, name, good.len()).is_err(), "{name}: {error}"),
    }
}

/// The export in `ledger/tests/golden`.
pub(crate) fn golden() -> Memory {
    fn copy(folder: &std::path::Path, prefix: &str, place: &Memory) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                copy(&path, &format!("{name}/"), place);
            } else {
                place.set_bytes(&name, &std::fs::read(&path).unwrap());
            }
        }
    }
    static GOLDEN: std::sync::LazyLock<Memory> = std::sync::LazyLock::new(|| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let own = folder.join("tests/golden/ledger");
        let folder = if own.exists() { own } else { folder.join("../tests/golden/ledger") };
        let place = Memory::new();
        copy(&folder, "", &place);
        place
    });
    GOLDEN.fork()
}
