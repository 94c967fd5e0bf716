//! `show`: the entries, one a line.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use gatebook_ledger::entry::Entry;
use gatebook_ledger::reader::{self, Item, Place};
use gatebook_ledger::text::line;
use gatebook_ledger::{Storage, event};
use serde_json::{Value, json};

use super::{instant, open};

/// Shows the entries, or those of one session with their payloads.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory, or an export.
    dir: PathBuf,
    /// A session's number.
    session: Option<u64>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let (session, as_json) = (arguments.session, arguments.json);
    let storage = open(&arguments.dir)?;
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
