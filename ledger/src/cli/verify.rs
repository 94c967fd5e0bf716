//! `verify`: judges a ledger and prints the verdict.

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use gatebook_ledger::text::{self, line};
use gatebook_ledger::verify::{Earlier, Options, Problem, Progress, Report, Verdict, resume, verify};

use super::{age, instant, open, read_key, read_small, read_witness};

/// Reads every byte and says whether anything was changed or is missing.
///
/// Exits 0 when verified under a pinned key and anchored by a checkpoint kept elsewhere or by each pinned witness, 1 when tampered with, 2 when
/// something is missing, 3 when it cannot be read, 4 when nothing is wrong but no key is pinned or nothing anchors it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory, an export, or a bundle of a part of one.
    dir: PathBuf,
    /// The pinned verifier key, or a file that holds it. Take it from a place that the ledger's machine cannot write.
    #[arg(long, value_name = "VKEY|FILE")]
    key: Option<String>,
    /// A checkpoint that was kept outside the ledger's directory; may be given again.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// A witness's verifier key, or a file that holds it: it must have cosigned a checkpoint that is here; may be given again.
    #[arg(long, value_name = "VKEY|FILE")]
    witness: Vec<String>,
    /// How many threads; as many as there are cores by default.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// The report of an earlier run, as `--json` printed it: what it read is not read again. The verdict says so, and is never
    /// better than 4.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let storage = open(&arguments.dir)?;
    let key = arguments.key.as_deref().map(|key| read_key("--key", key)).transpose()?;
    let witnesses =
        arguments.witness.iter().map(|key| read_witness("--witness", key)).collect::<io::Result<_>>()?;
    let mut options = Options { key, checkpoints: Vec::new(), witnesses, threads: arguments.threads };
    for path in &arguments.checkpoint {
        let bytes = read_small(path)?;
        options.checkpoints.push((path.display().to_string(), bytes));
    }
    let started = std::time::Instant::now();
    let shows = io::stderr().is_terminal();
    let earlier = arguments.resume.as_deref().map(read_earlier).transpose()?;
    let meter = |progress| {
        if shows {
            show_progress(progress);
        }
    };
    let report = match &earlier {
        Some(earlier) => resume(&storage, &options, earlier, &meter)?,
        None => verify(&storage, &options, &meter)?,
    };
    if shows {
        eprint!("\r\u{1b}[K");
    }
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", text::json(&report)?)?;
    } else {
        print_report(&mut out, &report, started.elapsed().as_secs_f64())?;
    }
    Ok(report.verdict.exit_code())
}

/// The longest report that is read: room for a million open sessions.
const REPORT_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// What an earlier report left behind.
fn read_earlier(path: &Path) -> io::Result<Earlier> {
    #[derive(serde::Deserialize)]
    struct Kept {
        earlier: Option<Earlier>,
    }
    let failed = |kind, why: &dyn std::fmt::Display| {
        io::Error::new(kind, format!("--resume {}: {why}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| failed(error.kind(), &error))?;
    let reader = io::BufReader::new(io::Read::take(file, REPORT_BYTES_MAX));
    let kept: Kept =
        serde_json::from_reader(reader).map_err(|error| failed(io::ErrorKind::InvalidData, &error))?;
    kept.earlier.ok_or_else(|| {
        failed(io::ErrorKind::InvalidData, &"nothing can be resumed from this report; verify without it")
    })
}

const BAR_CELLS: u8 = 30;

fn show_progress(progress: Progress) {
    let percent =
        progress.bytes.saturating_mul(100).checked_div(progress.bytes_total).unwrap_or(100).min(100);
    let filled = usize::try_from(percent * u64::from(BAR_CELLS) / 100).unwrap_or(0);
    let bar = "█".repeat(filled) + &"░".repeat(usize::from(BAR_CELLS) - filled);
    eprint!("\r{bar} {percent:3} %  {} entries", progress.entries);
}

fn print_report(out: &mut impl Write, report: &Report, seconds: f64) -> io::Result<()> {
    let bad = report.problem_count > 0;
    let Report { entries, segments, frames, sessions, sessions_open, .. } = report;
    let mark = if bad { '✘' } else { '✔' };
    writeln!(
        out,
        "{mark} {entries} entries in {frames} frames, {segments} segments, {sessions} sessions ({sessions_open} open)  {seconds:.1} s"
    )?;
    let key = report.key.as_deref().unwrap_or("unknown");
    if report.key_pinned {
        writeln!(out, "✔ log key   {key}   pinned by you")?;
    } else {
        writeln!(out, "– log key   {key}   not pinned")?;
    }
    match &report.anchor {
        Some(anchor) => writeln!(
            out,
            "✔ anchored  {} at {}, signed {}, {} ago; {} entries are newer than any anchor",
            line(&anchor.source),
            anchor.size,
            instant(anchor.time_ns),
            age(anchor.time_ns),
            report.entries_after_anchor
        )?,
        None => writeln!(out, "– anchored  by nothing")?,
    }
    for problem in &report.problems {
        writeln!(out, "✘ {}", line(&sentence(problem)))?;
    }
    if report.problem_count > report.problems.len() as u64 {
        writeln!(out, "✘ and {} more", report.problem_count - report.problems.len() as u64)?;
    }
    for note in &report.notes {
        writeln!(out, "– {}", line(note))?;
    }
    let verdict = match report.verdict {
        Verdict::Verified => "verified and anchored",
        Verdict::Tampered => "TAMPERED",
        Verdict::Incomplete => "INCOMPLETE",
        Verdict::Unanchored if report.resumed > 0 => {
            "nothing is wrong in what was read; the rest was not read again"
        }
        Verdict::Unanchored if report.key_pinned => "verified, but nothing anchors it",
        Verdict::Unanchored => "nothing is wrong, but no pinned key vouches for it",
    };
    writeln!(out, "{verdict}")
}

fn sentence(problem: &Problem) -> String {
    let mut text = String::new();
    match (problem.entry, problem.entry_last) {
        (Some(first), Some(last)) => text.push_str(&format!("entries {first} to {last}: ")),
        (Some(entry), None) => text.push_str(&format!("entry {entry}: ")),
        _ => {}
    }
    text.push_str(&problem.what);
    match (&problem.file, problem.offset) {
        (Some(file), Some(offset)) => text.push_str(&format!(" ({file}, offset {offset})")),
        (Some(file), None) => text.push_str(&format!(" ({file})")),
        _ => {}
    }
    text
}
