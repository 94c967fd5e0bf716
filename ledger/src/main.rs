//! `gatebook-ledger`: what an auditor runs. It opens files for reading alone, and the export for writing.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal as _, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gatebook_ledger::checkpoint::{NOTE_BYTES_MAX, Vkey};
use gatebook_ledger::entry::Entry;
use gatebook_ledger::reader::{self, Item, Place};
use gatebook_ledger::text::line;
use gatebook_ledger::verify::{Options, Problem, Progress, Report, Verdict, verify};
use gatebook_ledger::{Directory, Storage, event, export};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Usage, or unreadable.
const UNREADABLE: u8 = 3;

/// Verifies, shows and exports a Gatebook ledger.
#[derive(Parser)]
#[command(name = "gatebook-ledger", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Reads every byte and says whether anything was changed or is missing.
    ///
    /// Exits 0 when verified under a pinned key and anchored by a checkpoint kept elsewhere, 1 when tampered with, 2 when
    /// something is missing, 3 when it cannot be read, 4 when nothing is wrong but no key is pinned or nothing anchors it.
    Verify {
        /// The ledger's directory, or an export.
        dir: PathBuf,
        /// The pinned verifier key, or a file that holds it. Take it from a place that the ledger's machine cannot write.
        #[arg(long, value_name = "VKEY|FILE")]
        key: Option<String>,
        /// A checkpoint that was kept outside the ledger's directory; may be given again.
        #[arg(long, value_name = "FILE")]
        checkpoint: Vec<PathBuf>,
        /// How many threads; as many as there are cores by default.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        threads: usize,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows the entries, or those of one session with their payloads.
    Show {
        /// The ledger's directory, or an export.
        dir: PathBuf,
        /// A session's number.
        session: Option<u64>,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Copies the ledger, with a whole tlog-tiles directory, into a new directory.
    Export {
        /// The ledger's directory.
        dir: PathBuf,
        /// The directory to make.
        #[arg(long)]
        out: PathBuf,
    },
    /// Shows the ledger's keys.
    Key {
        /// The ledger's directory, or an export.
        dir: PathBuf,
        /// Print the verifier key of the log key alone: what an auditor pins.
        #[arg(long)]
        vkey: bool,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { UNREADABLE } else { 0 };
            // Where even this cannot be printed, the exit code still says it.
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match run(arguments.verb) {
        Ok(code) => ExitCode::from(code),
        // A reader that closed the pipe has seen what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gatebook-ledger: {}", line(&error.to_string()));
            ExitCode::from(UNREADABLE)
        }
    }
}

fn run(verb: Verb) -> io::Result<u8> {
    match verb {
        Verb::Verify { dir, key, checkpoint, threads, json } => {
            judge(&dir, key.as_deref(), &checkpoint, threads, json)
        }
        Verb::Show { dir, session, json } => show(&dir, session, json),
        Verb::Export { dir, out } => {
            let to = Directory::create(&out)?;
            let exported = export::export(&open(&dir)?, &to)?;
            let (segments, published) = (exported.segments, exported.published);
            println!(
                "{}: {segments} segments, {published} entries under the checkpoint",
                line(&out.to_string_lossy())
            );
            Ok(0)
        }
        Verb::Key { dir, vkey } => {
            let manifest = reader::manifest(&open(&dir)?)?;
            if vkey {
                println!("{}", manifest.vkey());
            } else {
                let [log, epoch] = manifest.checkpoint_keys();
                println!("log    {log}\nepoch  {epoch}\nroot   {:?}", manifest.root_key);
            }
            Ok(0)
        }
    }
}

fn open(dir: &Path) -> io::Result<Directory> {
    let storage = Directory::open(dir)?;
    if reader::segments(&storage)?.is_empty() && !dir.join("ledger.toml").exists() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} holds no ledger", dir.display())));
    }
    Ok(storage)
}

fn judge(
    dir: &Path,
    key: Option<&str>,
    checkpoints: &[PathBuf],
    threads: usize,
    json: bool,
) -> io::Result<u8> {
    let storage = open(dir)?;
    let mut options = Options { key: key.map(read_key).transpose()?, checkpoints: Vec::new(), threads };
    for path in checkpoints {
        let bytes = read_small(path)?;
        options.checkpoints.push((path.display().to_string(), bytes));
    }
    let started = std::time::Instant::now();
    let shows = io::stderr().is_terminal();
    let report = verify(&storage, &options, &|progress| {
        if shows {
            show_progress(progress);
        }
    })?;
    if shows {
        eprint!("\r\u{1b}[K");
    }
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print_report(&mut out, &report, started.elapsed().as_secs_f64())?;
    }
    Ok(report.verdict.exit_code())
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let error =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(error)?;
    io::Read::read_to_end(&mut io::Read::take(file, NOTE_BYTES_MAX as u64 + 1), &mut bytes).map_err(error)?;
    Ok(bytes)
}

/// A verifier key, given as itself or as the name of a file.
fn read_key(given: &str) -> io::Result<Vkey> {
    let bad = |error| io::Error::new(io::ErrorKind::InvalidInput, format!("--key: {error}"));
    if let Ok(key) = given.parse() {
        return Ok(key);
    }
    let bytes = read_small(Path::new(given))?;
    String::from_utf8_lossy(&bytes).trim().parse().map_err(bad)
}

fn show_progress(progress: Progress) {
    let percent =
        progress.bytes.saturating_mul(100).checked_div(progress.bytes_total).unwrap_or(100).min(100);
    eprint!("\r{percent:3} %  {} entries", progress.entries);
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
            "✔ anchored  {} at {}, signed {}; {} entries are newer than any anchor",
            line(&anchor.source),
            anchor.size,
            instant(anchor.time_ns),
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
        Verdict::Unanchored if report.key_pinned => "verified, but nothing anchors it",
        Verdict::Unanchored => "nothing is wrong, but no key is pinned",
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

fn instant(time_ns: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ns)).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| time_ns.to_string())
}

fn show(dir: &Path, session: Option<u64>, as_json: bool) -> io::Result<u8> {
    let storage = open(dir)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (mut failed, mut broken, mut found) = (None, false, session.is_none());
    reader::visit(&storage as &dyn Storage, None, |item| {
        let shown = match item {
            Item::Entry { entry, .. } if session.is_some_and(|session| session != entry.header.session) => {
                Ok(())
            }
            Item::Entry { place, entry, payload } => {
                found = true;
                if as_json {
                    show_json(&mut out, place, &entry, payload)
                } else {
                    show_line(&mut out, &entry, payload)
                }
            }
            Item::Broken { place, why, unfinished } => {
                broken |= !unfinished;
                let (segment, offset) = (place.segment, place.offset);
                if as_json {
                    writeln!(
                        out,
                        "{}",
                        json!({"broken": why.0, "segment": segment, "offset": offset, "unfinished": unfinished})
                    )
                } else {
                    writeln!(out, "✘ segment {segment:08}, offset {offset}: {why}")
                }
            }
        };
        match shown {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    out.flush()?;
    if !found {
        let session = session.unwrap_or_default();
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no session {session} in this ledger"),
        ));
    }
    Ok(u8::from(broken))
}

fn show_line(out: &mut impl Write, entry: &Entry<'_>, payload: Option<&[u8]>) -> io::Result<()> {
    let header = &entry.header;
    let name = event::kind_name(header.kind).map_or_else(|| format!("kind {}", header.kind.0), str::to_owned);
    let session = if header.session == 0 {
        "-".to_owned()
    } else {
        format!("{}/{}", header.session, header.session_seq)
    };
    let words = event::describe(header.kind, entry.body, payload);
    writeln!(out, "{:>8}  {}  {session:>8}  {name:<16} {}", header.seq, instant(header.time_ns), line(&words))
}

fn show_json(
    out: &mut impl Write,
    place: Place,
    entry: &Entry<'_>,
    payload: Option<&[u8]>,
) -> io::Result<()> {
    let header = &entry.header;
    let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap_or(Value::Null);
    let mut object = json!({
        "seq": header.seq,
        "time": instant(header.time_ns),
        "event": event::kind_name(header.kind),
        "kind": header.kind,
        "session": header.session,
        "session_seq": header.session_seq,
        "leaf": gatebook_ledger::hash::leaf(entry.bytes),
        "segment": place.segment,
        "offset": place.offset,
        "body": parse(entry.body),
    });
    match payload {
        Some(b"") => {}
        Some(payload) => object["payload"] = parse(payload),
        None => object["payload_broken"] = Value::Bool(true),
    }
    writeln!(out, "{object}")
}
