//! The judge: reads every stored byte and says what is wrong, and where. It believes nothing but the key that
//! the auditor brings.
//!
//! Segments are checked on all cores, each for itself; then their ends are joined in order: chain, tree,
//! sessions. What a newcomer gets wrong: a ledger that is whole and unanchored may still have lost its newest
//! end, or be an older copy. Only a checkpoint that was kept elsewhere tells, so without one, and without a
//! pinned key, the verdict is never the best one.

mod bundle;
mod claims;
mod earlier;
mod epochs;
mod join;
mod parallel;
mod part;
mod pin;
mod range;
mod redacted;
mod report;
mod tiles;
mod witnesses;

use std::io;

pub use self::earlier::Earlier;
pub use self::report::{Anchor, Problem, Report, Verdict};

use self::claims::claims;
use self::epochs::EpochKeys;
use self::join::Joined;
use self::parallel::Bench;
use self::report::Court;
use self::tiles::check_tiles;
use crate::bundle::Part;
use crate::checkpoint::Vkey;
use crate::manifest::{self, MANIFEST_BYTES_MAX, Manifest};
use crate::merkle::Range;
use crate::merkle::proof::Head;
use crate::segment::name;
use crate::storage::{Storage, read};
use crate::witness::Cosigner;
use crate::writer::CHECKPOINT;

/// What the auditor brings.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The log key that was pinned.
    pub key: Option<Vkey>,
    /// Checkpoints that were kept outside the ledger's directory: a name for each, and its bytes.
    pub checkpoints: Vec<(String, Vec<u8>)>,
    /// Witnesses that were pinned: each must have cosigned a checkpoint that is here.
    pub witnesses: Vec<Cosigner>,
    /// How many threads; 0 for as many as there are cores.
    pub threads: usize,
}

/// How far verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many bytes of segments were checked.
    pub bytes: u64,
    /// How many bytes of segments there are.
    pub bytes_total: u64,
    /// How many entries were checked.
    pub entries: u64,
}

/// Verifies a ledger, live or at rest, or an export.
///
/// # Errors
/// Of the storage: where the ledger cannot be read at all.
pub fn verify(
    storage: &dyn Storage,
    options: &Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> io::Result<Report> {
    verify_from(storage, options, None, progress)
}

/// Verifies a ledger from where an earlier verdict got to. The verdict says what was not read again, and is never the best.
///
/// # Errors
/// As [`verify`].
pub fn resume(
    storage: &dyn Storage,
    options: &Options,
    earlier: &Earlier,
    progress: &(dyn Fn(Progress) + Sync),
) -> io::Result<Report> {
    verify_from(storage, options, Some(earlier), progress)
}

fn verify_from(
    storage: &dyn Storage,
    options: &Options,
    earlier: Option<&Earlier>,
    progress: &(dyn Fn(Progress) + Sync),
) -> io::Result<Report> {
    let cover = match crate::bundle::cover(storage) {
        Ok(cover) => cover,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let mut court = Court::default();
            court.tampered(Some(crate::bundle::COVER.to_owned()), None, None, error.to_string());
            return Ok(court.report(None, options));
        }
        Err(error) => return Err(error),
    };
    if let Some(cover) = &cover
        && cover.part != Part::Ledger
    {
        return bundle::judge(storage, cover, options);
    }
    let mut court = Court::default();
    let text = read(storage, manifest::NAME, MANIFEST_BYTES_MAX)?;
    let manifest = match Manifest::parse(&text) {
        Ok(manifest) => manifest,
        Err(why) => {
            court.tampered(Some(manifest::NAME.to_owned()), None, None, why.to_string());
            return Ok(court.report(None, options));
        }
    };
    // What was signed is read before the entries: a live ledger grows meanwhile, and never the other way.
    let live = storage.has_writer();
    court.claims = claims(storage, &manifest, options, live, &mut court.findings)?;
    let numbers = crate::reader::segments(storage)?;
    let mut expected = 0;
    for number in &numbers {
        if *number != expected {
            court.missing(Some(name(expected)), None, None, "segment is missing".to_owned());
        }
        expected = number + 1;
    }
    if numbers.is_empty() {
        court.missing(Some(name(0)), None, None, "segment is missing".to_owned());
    }
    let epochs = EpochKeys::read(storage, &manifest, &numbers)?;
    let (claims, last) = (court.claims.clone(), numbers.last().copied());
    let bench = Bench { storage, manifest: &manifest, claims: &claims, epochs: &epochs, last, live };
    let mut joined = Joined::new(&manifest);
    let mut rest = &numbers[..];
    if let Some(earlier) = earlier {
        match earlier.joined(storage, &manifest)? {
            Ok(resumed) => {
                joined = resumed;
                court.resumed = joined.resumed;
                rest = &numbers[numbers.partition_point(|number| *number < earlier.segments)..];
            }
            Err(why) => court.tampered(None, None, None, why.to_string()),
        }
    }
    bench.check_all(rest, options.threads, progress, &mut |part| {
        joined.join(&manifest, part, &mut court);
    })?;
    if let Some(claim) = court.claims.iter().find(|claim| claim.source == CHECKPOINT).cloned() {
        court.published = Some(claim.size);
        let bundled = (!storage.list("tile/entries")?.is_empty()).then_some(0..=u64::MAX);
        let head = Head { size: claim.size, root: claim.root };
        check_tiles(storage, head, bundled, live, options.threads, &mut court.findings)?;
    }
    joined.judge_redactions(&mut court);
    joined.judge_claims(&epochs, options.key.as_ref(), &mut court);
    joined.judge_pin(options.key.as_ref(), &mut court);
    let agreeing = std::mem::take(&mut court.agreeing);
    witnesses::judge(&options.witnesses, &agreeing, &mut court);
    if let Some(cover) = &cover {
        bundle::judge_whole(storage, cover, &manifest, &mut court)?;
    }
    court.entries = joined.next_seq;
    court.root = joined.range.as_ref().and_then(Range::root);
    court.earlier = joined.earlier.take();
    court.sessions = joined.sessions.next - 1;
    court.sessions_open = joined.sessions.open.len() as u64;
    court.epoch = joined.epoch.map_or(0, |epoch| epoch.number);
    Ok(court.report(Some(&manifest), options))
}
