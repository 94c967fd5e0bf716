//! The filter over sessions: `principal:shop resource:orders since:7d refused:yes words`.
//!
//! Every term must match. A word without the name of a column is looked for in every column. A term with a mistake
//! is said and left out: it never hides a session.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use crate::message::{SessionRow, UnixNs};

const DAY_NS: u64 = 86_400_000_000_000;

/// What the auditor typed, understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
    /// What was not understood, for the status line.
    pub mistake: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Column(Column, String),
    Anywhere(String),
    Since(UnixNs),
    Until(UnixNs),
    Refused(bool),
    Broken(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Principal,
    Through,
    Resource,
    Database,
    Role,
    Address,
    Application,
    Ended,
}

impl Filter {
    /// Reads a filter. `now_ns` is what `since:7d` counts from.
    #[must_use]
    pub fn read(typed: &str, now_ns: UnixNs) -> Self {
        let mut filter = Filter::default();
        for word in words(typed) {
            match term(&word, now_ns) {
                Ok(term) => filter.terms.push(term),
                Err(mistake) => filter.mistake = filter.mistake.or(Some(mistake)),
            }
        }
        filter
    }

    /// Whether a session passes.
    #[must_use]
    pub fn passes(&self, row: &SessionRow) -> bool {
        self.terms.iter().all(|term| match term {
            Term::Column(column, text) => column.matches(row, text),
            Term::Anywhere(text) => Column::ALL.iter().any(|column| column.matches(row, text)),
            Term::Since(since_ns) => row.last_ns >= *since_ns,
            Term::Until(until_ns) => row.opened_ns < *until_ns,
            Term::Refused(refused) => (row.refused > 0) == *refused,
            Term::Broken(broken) => (row.broken > 0) == *broken,
        })
    }

    /// Whether it lets everything pass.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }
}

impl Column {
    const ALL: [Column; 8] = [
        Column::Principal,
        Column::Through,
        Column::Resource,
        Column::Database,
        Column::Role,
        Column::Address,
        Column::Application,
        Column::Ended,
    ];

    fn matches(self, row: &SessionRow, text: &str) -> bool {
        let holds = |recorded: &str| recorded.to_lowercase().contains(text);
        match self {
            Column::Principal => holds(&row.principal),
            Column::Through => row.through.iter().any(|actor| holds(actor)),
            Column::Resource => holds(&row.resource),
            Column::Database => holds(&row.database),
            Column::Role => holds(&row.role),
            Column::Address => holds(&row.client_address),
            Column::Application => holds(&row.application),
            Column::Ended => holds(row.ended.as_ref().map_or("live", |(_, reason)| reason.as_str())),
        }
    }
}

/// Splits at blanks, but not inside of double quotes.
fn words(typed: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for character in typed.chars() {
        match character {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            _ => word.push(character),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

fn term(word: &str, now_ns: UnixNs) -> Result<Term, String> {
    let Some((name, value)) = word.split_once(':') else {
        return Ok(Term::Anywhere(word.to_lowercase()));
    };
    let column = match name {
        "principal" => Column::Principal,
        "through" => Column::Through,
        "resource" => Column::Resource,
        "database" => Column::Database,
        "role" => Column::Role,
        "address" => Column::Address,
        "application" => Column::Application,
        "ended" => Column::Ended,
        "since" => return moment(value, now_ns).map(Term::Since),
        "until" => return moment(value, now_ns).map(Term::Until),
        "refused" => return yes_or_no(value).map(Term::Refused),
        "broken" => return yes_or_no(value).map(Term::Broken),
        // Names of principals hold colons themselves.
        _ => return Ok(Term::Anywhere(word.to_lowercase())),
    };
    Ok(Term::Column(column, value.to_lowercase()))
}

fn yes_or_no(value: &str) -> Result<bool, String> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("yes or no".to_owned()),
    }
}

/// `90s`, `30m`, `2h`, `7d`, `4w` ago; a day, `2026-11-22`; or a moment, `2026-11-22T14:00:00Z`.
fn moment(value: &str, now_ns: UnixNs) -> Result<UnixNs, String> {
    let mistake = || "a time is like 30m, 2h, 7d, 2026-11-22 or 2026-11-22T14:00:00Z".to_owned();
    let at = if value.len() > 10 {
        OffsetDateTime::parse(value, &Rfc3339).map_err(|_| mistake())?
    } else if value.contains('-') {
        let day = Date::parse(value, format_description!("[year]-[month]-[day]")).map_err(|_| mistake())?;
        day.midnight().assume_utc()
    } else {
        let unit_ns = match value.chars().last() {
            Some('s') => 1_000_000_000,
            Some('m') => 60_000_000_000,
            Some('h') => 3_600_000_000_000,
            Some('d') => DAY_NS,
            Some('w') => 7 * DAY_NS,
            _ => return Err(mistake()),
        };
        let number: u64 = value[..value.len() - 1].parse().map_err(|_| mistake())?;
        return Ok(now_ns.saturating_sub(number.saturating_mul(unit_ns)));
    };
    u64::try_from(at.unix_timestamp_nanos()).map_err(|_| mistake())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 100 * DAY_NS;

    fn row() -> SessionRow {
        SessionRow {
            principal: "gitlab:Shop/deploy#881".into(),
            through: vec!["ssh:web-1".into()],
            resource: "orders-db".into(),
            opened_ns: 98 * DAY_NS,
            last_ns: 99 * DAY_NS,
            refused: 1,
            ..SessionRow::default()
        }
    }

    #[test]
    fn every_term_must_match() {
        for (typed, passes) in [
            ("", true),
            ("shop", true),
            ("SHOP web-1", true),
            ("shop nobody", false),
            ("principal:shop resource:orders since:7d", true),
            ("resource:shop", false),
            ("since:12h", false),
            ("since:1970-04-10", true),
            ("until:1970-04-08", false),
            ("since:1970-04-10T00:00:00Z", true),
            ("refused:no", false),
            ("ended:live", true),
            ("\"shop/deploy#881\"", true),
            ("\"shop deploy\"", false),
            ("gitlab:shop", true),
        ] {
            let filter = Filter::read(typed, NOW_NS);
            assert_eq!(filter.mistake, None, "{typed}");
            assert_eq!(filter.passes(&row()), passes, "{typed}");
        }
    }

    #[test]
    fn a_mistake_is_said_and_hides_nothing() {
        for typed in ["since:soon", "since:é", "since:2026-99-99", "refused:perhaps"] {
            let filter = Filter::read(typed, NOW_NS);
            assert!(filter.mistake.is_some(), "{typed}");
            assert!(filter.passes(&row()), "{typed}");
        }
    }
}
