//! `find`: the entries of a session, a principal, a resource, a time, a kind.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use gatebook_ledger::entry::Kind;
use gatebook_ledger::index::{self, Index, Query, Sled};
use gatebook_ledger::text::line;
use gatebook_ledger::{Storage, event};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::show::show;

/// How long to wait for an index that the gateway is just taking further.
const BUSY_WAIT: Duration = Duration::from_millis(100);
const BUSY_WAITS_MAX: u32 = 30;

/// Finds entries; one that fits all that is given is shown.
///
/// By reading everything, or through the index where that is asked for. Exits 0 where something was found, 1 where nothing was,
/// and 1 too where something cannot be read.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory, or an export.
    dir: PathBuf,
    /// Of this session.
    #[arg(long)]
    session: Option<u64>,
    /// Of sessions of this principal, or in which it acts for another: `issuer:subject`, its subject, or its name.
    #[arg(long)]
    principal: Option<String>,
    /// Of sessions that reached this resource.
    #[arg(long)]
    resource: Option<String>,
    /// Not before this: `2026-01-31` or `2026-01-31T12:00:00Z`.
    #[arg(long, value_parser = parse_time)]
    since: Option<u64>,
    /// Not after this; a day alone is meant whole.
    #[arg(long, value_parser = parse_time_end)]
    until: Option<u64>,
    /// Of this kind, as `show` names it: `session.opened`, `command`, `revocation`, ….
    #[arg(long, value_parser = parse_kind)]
    kind: Option<Kind>,
    /// Ask the index: quick, and only as good as the index, which verification does not cover.
    #[arg(long)]
    index: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let query = Query {
        session: arguments.session,
        principal: arguments.principal.clone(),
        resource: arguments.resource.clone(),
        since_ns: arguments.since,
        until_ns: arguments.until,
        kind: arguments.kind,
    };
    let shown = show(&arguments.dir, &query, arguments.index, arguments.json)?;
    Ok(u8::from(shown.broken || shown.entries == 0))
}

/// The ledger's index, where there is one that can be used; says on standard error where there is one that cannot.
pub(crate) fn index_of(dir: &Path, storage: &dyn Storage) -> Option<Index<Sled>> {
    let folder = dir.join(index::NAME);
    for _ in 0..BUSY_WAITS_MAX {
        match index::open_existing(&folder, storage, event::words) {
            Ok(index) => return index,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(BUSY_WAIT),
            Err(error) => {
                let error = line(&error.to_string());
                eprintln!(
                    "gatebook-ledger: {error}; everything is read. `gatebook-ledger rebuild-index` mends it"
                );
                return None;
            }
        }
    }
    eprintln!("gatebook-ledger: the index is in use by another process; everything is read");
    None
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    let number = text.parse().ok().map(Kind);
    number.or_else(|| event::kind_named(text)).ok_or_else(|| "there is no such kind".to_owned())
}

fn parse_time(text: &str) -> Result<u64, String> {
    parse(text, 0)
}

fn parse_time_end(text: &str) -> Result<u64, String> {
    parse(text, 24 * 3600 * 1_000_000_000 - 1)
}

/// A time, or a day and how far into it.
fn parse(text: &str, into_day_ns: i128) -> Result<u64, String> {
    let day = Date::parse(text, format_description!("[year]-[month]-[day]"))
        .map(|day| day.midnight().assume_utc().unix_timestamp_nanos() + into_day_ns);
    let time = day.or_else(|_| OffsetDateTime::parse(text, &Rfc3339).map(|time| time.unix_timestamp_nanos()));
    let time = time.ok().and_then(|time| u64::try_from(time).ok());
    time.ok_or_else(|| "not a time like 2026-01-31 or 2026-01-31T12:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_meant_whole() {
        let since = parse_time("1970-01-02").unwrap();
        assert_eq!(since, 86_400_000_000_000);
        assert_eq!(parse_time_end("1970-01-02").unwrap(), 2 * since - 1);
        assert_eq!(parse_time("1970-01-02T01:00:00+01:00").unwrap(), since);
        for bad in ["", "yesterday", "1969-12-31", "2026-13-01", "9999-01-01"] {
            assert!(parse_time(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_kind_is_a_name_or_a_number() {
        assert_eq!(parse_kind("command"), Ok(event::COMMAND));
        assert_eq!(parse_kind("16"), Ok(Kind::SESSION_OPENED));
        assert!(parse_kind("no.such").is_err());
    }
}
