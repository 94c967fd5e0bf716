//! `show`: the entries, one a line.

use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use gatebook_ledger::entry::Entry;
use gatebook_ledger::event::{self, Account, Decoded};
use gatebook_ledger::index::{Query, find};
use gatebook_ledger::reader::{Item, Place};
use gatebook_ledger::text::{self, line};
use serde_json::{Value, json};

use super::find::index_of;
use super::{instant, open};

/// Shows the entries, or those of one session with their payloads.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory, or an export.
    dir: PathBuf,
    /// A session's number.
    session: Option<u64>,
    /// Ask the index: quick, and only as good as the index, which verification does not cover.
    #[arg(long)]
    index: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let query = Query { session: arguments.session, ..Query::default() };
    let shown = show(&arguments.dir, &query, arguments.index, arguments.json)?;
    match arguments.session {
        Some(session) if shown.entries == 0 => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no session {session} in this ledger"),
        )),
        _ => Ok(u8::from(shown.broken)),
    }
}

/// What was shown.
pub(crate) struct Shown {
    /// How many entries.
    pub(crate) entries: u64,
    /// Whether something could not be read.
    pub(crate) broken: bool,
}

/// Shows the entries that fit, one a line.
pub(crate) fn show(dir: &Path, query: &Query, indexed: bool, as_json: bool) -> io::Result<Shown> {
    let storage = open(dir)?;
    // Whoever delivers a ledger may deliver an index that hides entries, and to open one writes to it. So it is asked for;
    // and one that is no help to a question about everything is not opened for one.
    let indexed = indexed && *query != Query::default();
    let index = if indexed { index_of(dir, &storage) } else { None };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (mut failed, mut shown) = (None, Shown { entries: 0, broken: false });
    // Counts are compared where all entries of a session are shown.
    let whole = *query == Query { session: query.session, ..Query::default() };
    let mut accounts: HashMap<u64, Account> = HashMap::new();
    let mut differences = Vec::new();
    let distrusted = find(&storage, index.as_ref(), event::words, query, |item| {
        let told = match item {
            Item::Entry { place, entry, payload } => {
                shown.entries += 1;
                if whole && entry.header.session != 0 {
                    differences.extend(settle(&mut accounts, &entry, payload));
                }
                if as_json {
                    show_json(&mut out, place, &entry, payload)
                } else {
                    show_line(&mut out, &entry, payload)
                }
            }
            Item::Broken { place, why, unfinished } => {
                shown.broken |= !unfinished;
                let (segment, offset) = (place.segment, place.offset);
                if as_json {
                    let broken = json!({"broken": why.0, "segment": segment, "offset": offset, "unfinished": unfinished});
                    text::json(&broken).map_err(io::Error::from).and_then(|json| writeln!(out, "{json}"))
                } else {
                    writeln!(out, "✘ segment {segment:08}, offset {offset}: {why}")
                }
            }
        };
        match told {
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
    shown.broken |= !differences.is_empty();
    for difference in differences {
        eprintln!("gatebook-ledger: {difference}");
    }
    if index.is_some() && distrusted.is_none() {
        eprintln!("gatebook-ledger: answered from the index, which verification does not cover");
    }
    if let Some(why) = distrusted {
        let why = line(&why);
        eprintln!("gatebook-ledger: {why}, so everything was read; `gatebook-ledger rebuild-index` mends it");
    }
    Ok(shown)
}

/// Counts an entry for its session; where that closes, gives what its close counts otherwise.
fn settle(accounts: &mut HashMap<u64, Account>, entry: &Entry<'_>, payload: Option<&[u8]>) -> Vec<String> {
    let session = entry.header.session;
    match event::decode(entry.header.kind, entry.body, payload) {
        Ok(Decoded::SessionClosed(closed)) => {
            let account = accounts.remove(&session).unwrap_or_default();
            let tell = |difference| format!("session {session}: {difference}");
            account.differences(&closed).into_iter().map(tell).collect()
        }
        Ok(event) => {
            accounts.entry(session).or_default().take(&event);
            Vec::new()
        }
        // That it cannot be read is shown in its line.
        Err(_) => Vec::new(),
    }
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

/// One entry as a JSON object.
pub(super) fn show_json(
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
    writeln!(out, "{}", text::json(&object)?)
}
