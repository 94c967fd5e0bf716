//! Durable appends beside a bare file that writes and syncs the same bytes.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use gatebook_ledger::Directory;
use gatebook_ledger::segment::{SegmentReader, Step, name};
use gatebook_ledger::storage::{Mode, Storage as _};
use serde_json::{Value, json};

use crate::{Outcome, create, stage};

const PAYLOAD: [u8; 300] = [b'p'; 300];
/// As far ahead as the writer fills its segment with zeros.
const FILL_BYTES: u64 = 1024 * 1024;

/// Commits `rounds` batches, in turns with the bare file, so that a noisy moment hurts both alike.
pub(crate) fn append(dir: &Path, batch: u64, rounds: u64) -> Outcome<Value> {
    let mut writer = create(&dir.join(format!("append-{batch}")))?;
    let storage = Directory::open(&dir.join(format!("append-{batch}")))?;
    let mut reader = SegmentReader::new(storage.open(&name(0), Mode::Read)?)?;
    let _ = written(&mut reader)?;
    let bare = OpenOptions::new().create(true).truncate(true).write(true).open(dir.join("bare"))?;
    let (mut nth, mut at, mut filled) = (0, 0, 0);
    let (mut ours, mut theirs, mut staging, mut writing) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..batch {
            stage(&mut writer, nth, &PAYLOAD)?;
            nth += 1;
        }
        let staged = Instant::now();
        writer.write()?;
        let wrote = Instant::now();
        writer.sync()?;
        ours.push(start.elapsed());
        staging.push(staged - start);
        writing.push(wrote - staged);
        // Just as many bytes, into a file that is filled ahead in the same way.
        let bytes = vec![0xa5; usize::try_from(written(&mut reader)?)?];
        let start = Instant::now();
        let end = at + bytes.len() as u64;
        if end > filled {
            filled = end.next_multiple_of(FILL_BYTES);
            bare.write_all_at(&vec![0; usize::try_from(filled - end)?], end)?;
        }
        bare.write_all_at(&bytes, at)?;
        bare.sync_data()?;
        theirs.push(start.elapsed());
        at = end;
    }
    writer.close(9)?;
    for times in [&mut ours, &mut theirs, &mut staging, &mut writing] {
        times.sort_unstable();
    }
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    // The quicker rounds: those that nothing else interrupted.
    let per_entry = |times: &[Duration]| (times[times.len() / 5].as_nanos() as f64 / batch as f64).round();
    let share = |part: usize| {
        let at = |times: &[Duration]| times[times.len() * part / 100].as_secs_f64();
        (100.0 * at(&theirs) / at(&ours)).round()
    };
    let half = ours.len() / 2;
    Ok(json!({
        "batch": batch,
        "ledger_us": {"p20": micros(ours[ours.len() / 5]), "p50": micros(ours[half])},
        "bare_us": {"p20": micros(theirs[theirs.len() / 5]), "p50": micros(theirs[half])},
        "percent_of_bare": {"p20": share(20), "p50": share(50)},
        "stage_ns_an_entry": per_entry(&staging),
        "write_ns_an_entry": per_entry(&writing),
    }))
}

/// How many bytes of frames were written since the last call.
fn written(reader: &mut SegmentReader) -> Outcome<u64> {
    reader.refresh()?;
    let before = reader.offset();
    while let Step::Frame { .. } = reader.step()? {}
    Ok(reader.offset() - before)
}
