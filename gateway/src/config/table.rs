//! Reads one table of the document key by key and writes down every mistake on the way.
//!
//! Nothing here stops at the first mistake: a wrong value yields its default, or nothing, and the reader goes on,
//! so that all mistakes are reported together. What comes out is used only if there were none.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Absent, Takes};
use super::report::Mistake;
use super::secret::{Secret, Source};
use super::units;

/// Where mistakes go, and what turns a place in the text into a line.
pub(super) struct Sink {
    /// Offsets at which the lines begin.
    starts: Vec<usize>,
    folder: PathBuf,
    /// Whether the document could not be read in full, so that what is missing proves nothing.
    partial: bool,
    pub(super) mistakes: RefCell<Vec<Mistake>>,
    pub(super) warnings: RefCell<Vec<Mistake>>,
    /// Arguments of secret commands: they may be telling, so the recorded text does not show them.
    pub(super) hidden: RefCell<Vec<Range<usize>>>,
    #[cfg(test)]
    pub(super) asked: RefCell<std::collections::BTreeSet<&'static str>>,
}

impl Sink {
    pub(super) fn new(text: &str, folder: &Path, partial: bool) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Sink {
            starts,
            folder: folder.to_path_buf(),
            partial,
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
            hidden: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    /// The line, counted from 1, that the offset stands in.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    pub(super) fn mistake(&self, line: usize, text: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake { line, text: self.shortened(text.into()) });
    }

    pub(super) fn warning(&self, line: usize, text: impl Into<String>) {
        self.warnings.borrow_mut().push(Mistake { line, text: self.shortened(text.into()) });
    }

    /// Paths below the configuration's folder read as they were written.
    fn shortened(&self, text: String) -> String {
        match self.folder.to_str() {
            Some(folder) if folder.len() > 1 => text.replace(&format!("{folder}/"), ""),
            _ => text,
        }
    }

    /// A mistake about something that is not there, which a half-read document cannot show.
    pub(super) fn missing(&self, line: usize, text: impl Into<String>) {
        if !self.partial {
            self.mistake(line, text);
        }
    }

    /// A path as the operator wrote it, made absolute from the configuration's folder.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }
}

/// A value and the line that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// One table of the document, at one place of the table of keys.
pub(super) struct Table<'d> {
    sink: &'d Sink,
    place: &'static str,
    /// What mistakes in it begin with, such as `resource "orders-db": `.
    title: String,
    entries: Option<&'d DeTable<'d>>,
    line: usize,
}

impl<'d> Table<'d> {
    /// The whole document.
    pub(super) fn root(entries: &'d DeTable<'d>, sink: &'d Sink) -> Self {
        Table::new(sink, "", String::new(), Some(entries), 1)
    }

    fn new(
        sink: &'d Sink,
        place: &'static str,
        title: String,
        entries: Option<&'d DeTable<'d>>,
        line: usize,
    ) -> Self {
        let table = Table { sink, place, title, entries, line };
        table.refuse_unknown();
        table
    }

    /// Whether the table was written at all.
    pub(super) fn is_written(&self) -> bool {
        self.entries.is_some()
    }

    /// The line that the table begins in.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The line of a value, or of the table where the key was left out.
    pub(super) fn line_of(&self, name: &'static str) -> usize {
        self.peek(name).map_or(self.line(), |value| self.sink.line(value.span().start))
    }

    pub(super) fn mistake(&self, line: usize, text: impl AsRef<str>) {
        self.sink.mistake(line, format!("{}{}", self.title, text.as_ref()));
    }

    pub(super) fn warning(&self, line: usize, text: impl AsRef<str>) {
        self.sink.warning(line, format!("{}{}", self.title, text.as_ref()));
    }

    pub(super) fn missing(&self, text: impl AsRef<str>) {
        self.sink.missing(self.line(), format!("{}{}", self.title, text.as_ref()));
    }

    pub(super) fn text(&self, name: &'static str) -> Option<At<String>> {
        let (value, line) = self.value(name)?;
        let DeValue::String(text) = value.get_ref() else {
            return self.wrong_type(name, value);
        };
        if text.is_empty() || text.chars().any(char::is_control) {
            self.mistake(line, format!("{name} must not be empty or hold control characters"));
            return None;
        }
        Some(At { value: text.to_string(), line })
    }

    /// One string or several; none may stand twice.
    pub(super) fn texts(&self, name: &'static str) -> Vec<At<String>> {
        let Some((value, line)) = self.value(name) else { return Vec::new() };
        let single = matches!(self.key(name).takes, Takes::OneOrTexts);
        let items: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            DeValue::String(_) if single => vec![value],
            _ => {
                self.wrong_type::<()>(name, value);
                return Vec::new();
            }
        };
        if items.is_empty() {
            let instead = match self.key(name).absent {
                Absent::Refused => "",
                _ => "; leave the key out instead",
            };
            self.mistake(line, format!("{name} must not be empty{instead}"));
        }
        let mut texts: Vec<At<String>> = Vec::new();
        for item in items {
            let line = self.sink.line(item.span().start);
            match item.get_ref() {
                DeValue::String(text) if texts.iter().any(|known| known.value == *text) => {
                    self.mistake(line, format!("{name}: \"{text}\" stands there twice"));
                }
                DeValue::String(text) if !text.is_empty() && !text.chars().any(char::is_control) => {
                    texts.push(At { value: text.to_string(), line });
                }
                DeValue::String(_) => {
                    self.mistake(line, format!("{name}: an entry is empty or holds control characters"));
                }
                _ => {
                    self.wrong_type::<()>(name, item);
                }
            }
        }
        texts
    }

    pub(super) fn path(&self, name: &'static str) -> Option<At<PathBuf>> {
        if let Some(text) = self.text(name) {
            return Some(At { value: self.sink.resolve(&text.value), line: text.line });
        }
        match self.key(name).absent {
            Absent::Is(default) => Some(At { value: self.sink.resolve(default), line: self.line() }),
            _ => None,
        }
    }

    pub(super) fn paths(&self, name: &'static str) -> Vec<At<PathBuf>> {
        let texts = self.texts(name).into_iter();
        texts.map(|text| At { value: self.sink.resolve(&text.value), line: text.line }).collect()
    }

    /// False when left out.
    pub(super) fn flag(&self, name: &'static str) -> At<bool> {
        let absent = At { value: false, line: self.line() };
        let Some((value, line)) = self.value(name) else { return absent };
        match value.get_ref() {
            DeValue::Boolean(flag) => At { value: *flag, line },
            _ => {
                self.wrong_type::<()>(name, value);
                absent
            }
        }
    }

    /// One of the key's words; the default when left out or mistaken.
    pub(super) fn choice(&self, name: &'static str) -> Option<At<&'static str>> {
        let key = self.key(name);
        let (Takes::Choice(words) | Takes::ChoiceOrTable(words)) = key.takes else {
            unreachable!("{name} is no choice");
        };
        let default = match key.absent {
            Absent::Is(default) => Some(At { value: default, line: self.line() }),
            _ => None,
        };
        let Some(text) = self.text(name) else { return default };
        match words.iter().find(|word| **word == text.value) {
            Some(word) => Some(At { value: word, line: text.line }),
            None => {
                let meant = keys::meant(&text.value, words.iter().copied());
                let takes = key.takes.words();
                self.mistake(text.line, format!("{name} takes {takes}, not \"{}\"{meant}", text.value));
                default
            }
        }
    }

    /// Several of the key's words; the default when left out.
    pub(super) fn choices(&self, name: &'static str) -> Vec<&'static str> {
        let key = self.key(name);
        let Takes::Choices(words) = key.takes else { unreachable!("{name} is no list of choices") };
        if self.peek(name).is_none() {
            let Absent::Is(default) = key.absent else { return Vec::new() };
            let defaults = default.split(", ");
            return defaults.filter_map(|word| words.iter().copied().find(|known| *known == word)).collect();
        }
        let mut chosen = Vec::new();
        for text in self.texts(name) {
            match words.iter().find(|word| **word == text.value) {
                Some(word) => chosen.push(*word),
                None => {
                    let meant = keys::meant(&text.value, words.iter().copied());
                    self.mistake(text.line, format!("{name}: \"{}\" is never accepted{meant}", text.value));
                }
            }
        }
        chosen
    }

    /// The duration, or the default where the key has one.
    pub(super) fn duration(&self, name: &'static str) -> Option<At<Duration>> {
        let Takes::Duration(least, most) = self.key(name).takes else {
            unreachable!("{name} is no duration");
        };
        self.quantity(name, units::duration, Some((least, most)))
    }

    /// The size in bytes.
    pub(super) fn size(&self, name: &'static str) -> Option<At<u64>> {
        let Takes::Size(least, most) = self.key(name).takes else { unreachable!("{name} is no size") };
        self.quantity(name, units::size, Some((least, most)))
    }

    /// The share, in percent.
    pub(super) fn percent(&self, name: &'static str) -> Option<At<u8>> {
        self.quantity(name, units::percent, None)
    }

    fn quantity<T: PartialOrd>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        bounds: Option<(&str, &str)>,
    ) -> Option<At<T>> {
        let key = self.key(name);
        let default = match key.absent {
            Absent::Is(default) => parse(default).ok().map(|value| At { value, line: self.line() }),
            _ => None,
        };
        let Some(text) = self.text(name) else { return default };
        let value = match parse(&text.value) {
            Ok(value) => value,
            Err(wanted) => {
                self.mistake(text.line, format!("{name} takes {wanted}; not \"{}\"", text.value));
                return default;
            }
        };
        if let Some((least, most)) = bounds {
            let within =
                parse(least).is_ok_and(|least| least <= value) && parse(most).is_ok_and(|most| value <= most);
            if !within {
                let takes = key.takes.words();
                self.mistake(text.line, format!("{name} takes {takes}, not {}", text.value));
                return default;
            }
        }
        Some(At { value, line: text.line })
    }

    /// The number, or the default; the key must have one.
    pub(super) fn count(&self, name: &'static str) -> u64 {
        let key = self.key(name);
        let (Takes::Count(least, most), Absent::Is(default)) = (key.takes, key.absent) else {
            unreachable!("{name} is no number");
        };
        let default = default.parse().unwrap_or(least);
        let Some((value, line)) = self.value(name) else { return default };
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type::<()>(name, value);
            return default;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if (least..=most).contains(&number) => number,
            _ => {
                self.mistake(line, format!("{name} takes {}, not {integer}", key.takes.words()));
                default
            }
        }
    }

    /// A table below this one. Left out, it reads as an empty table, whose required keys are then not missed.
    pub(super) fn table(&self, name: &'static str, title: &str) -> Table<'d> {
        let entries = self.value(name).and_then(|(value, line)| match value.get_ref() {
            DeValue::Table(entries) => Some((entries, line)),
            _ => self.wrong_type(name, value),
        });
        let title = format!("{}{title}", self.title);
        let line = entries.map_or(self.line(), |(_, line)| line);
        Table::new(self.sink, self.key(name).path, title, entries.map(|(entries, _)| entries), line)
    }

    /// The tables of a list below this one. Mistakes in each begin with what it is, such as `role`, and its `name`.
    pub(super) fn tables(&self, name: &'static str, what: &str) -> Vec<Table<'d>> {
        let Some((value, line)) = self.value(name) else { return Vec::new() };
        let items: Vec<_> = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            DeValue::Table(_) => {
                let path = self.key(name).path;
                self.mistake(line, format!("{name} takes a list of tables; write [[{path}]]"));
                return Vec::new();
            }
            _ => {
                self.wrong_type::<()>(name, value);
                return Vec::new();
            }
        };
        if items.is_empty() {
            self.mistake(line, format!("{name} must not be empty"));
        }
        let mut tables = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::Table(entries) => {
                    let line = self.sink.line(item.span().start);
                    let title = match entries.get("name").map(Spanned::get_ref) {
                        Some(DeValue::String(named)) => format!("{}{what} \"{named}\": ", self.title),
                        _ => format!("{}{what}: ", self.title),
                    };
                    tables.push(Table::new(self.sink, self.key(name).path, title, Some(entries), line));
                }
                _ => {
                    self.wrong_type::<()>(name, item);
                }
            }
        }
        tables
    }

    /// A table whose keys the operator chooses.
    pub(super) fn open(&self, name: &'static str) -> BTreeMap<String, At<String>> {
        let Some((value, _)) = self.value(name) else { return BTreeMap::new() };
        let DeValue::Table(entries) = value.get_ref() else {
            self.wrong_type::<()>(name, value);
            return BTreeMap::new();
        };
        let mut open = BTreeMap::new();
        for (key, value) in entries {
            match value.get_ref() {
                DeValue::String(text) => {
                    let line = self.sink.line(value.span().start);
                    open.insert(key.get_ref().to_string(), At { value: text.to_string(), line });
                }
                _ => {
                    self.wrong_type::<()>(name, value);
                }
            }
        }
        open
    }

    /// A secret by reference. An inline one is a mistake that says how, and is never repeated.
    pub(super) fn secret(&self, name: &'static str) -> Option<At<Secret>> {
        const HOW: &str = "write { env = \"NAME\" }, { file = \"path\" } or { command = [\"/path/of/program\", \"argument\"] }";
        let (value, line) = self.value(name)?;
        let entries = match value.get_ref() {
            DeValue::Table(entries) => entries,
            DeValue::String(_) => {
                self.mistake(
                    line,
                    format!("{name} must not stand in this file; {HOW}, and change the password"),
                );
                return None;
            }
            _ => {
                self.mistake(line, format!("{name} takes a reference; {HOW}"));
                return None;
            }
        };
        let mut all = entries.iter();
        let source = match (all.next(), all.next()) {
            (Some((kind, value)), None) => match (kind.get_ref().as_ref(), value.get_ref()) {
                ("env", DeValue::String(variable)) => Source::env(variable),
                ("file", DeValue::String(path)) => Source::file(&self.sink.resolve(path)),
                ("command", DeValue::Array(words)) => {
                    self.hide(words.iter().skip(1));
                    let words: Option<Vec<String>> = words.iter().map(as_text).collect();
                    words.ok_or_else(|| String::from("takes a list of strings")).and_then(Source::command)
                }
                (kind @ ("env" | "file"), _) => Err(format!("{kind} takes a string")),
                ("command", _) => Err("command takes a list of strings".into()),
                (other, _) => {
                    let meant = keys::meant(other, ["env", "file", "command"]);
                    Err(format!("unknown kind of reference \"{other}\"{meant}; {HOW}"))
                }
            },
            _ => Err(format!("takes exactly one of env, file and command; {HOW}")),
        };
        match source {
            Ok(source) => Some(At { value: Secret::new(source), line }),
            Err(wrong) => {
                self.mistake(line, format!("{name}: {wrong}"));
                None
            }
        }
    }

    fn hide<'v>(&self, values: impl Iterator<Item = &'v Spanned<DeValue<'v>>>) {
        self.sink.hidden.borrow_mut().extend(values.map(Spanned::span));
    }

    /// Whether the key was written as a table.
    pub(super) fn holds_table(&self, name: &'static str) -> bool {
        matches!(self.peek(name).map(Spanned::get_ref), Some(DeValue::Table(_)))
    }

    /// Whether the key was written, whatever its value.
    pub(super) fn holds(&self, name: &'static str) -> bool {
        self.peek(name).is_some()
    }

    fn peek(&self, name: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.entries?.get(name)
    }

    fn value(&self, name: &'static str) -> Option<(&'d Spanned<DeValue<'d>>, usize)> {
        let key = self.key(name);
        #[cfg(test)]
        self.sink.asked.borrow_mut().insert(key.path);
        match self.peek(name) {
            Some(value) => Some((value, self.sink.line(value.span().start))),
            None => {
                let top = self.place.is_empty();
                if key.absent == Absent::Refused && (self.is_written() || top) {
                    self.missing(format!("{name} is missing: it takes {}", key.takes.words()));
                }
                None
            }
        }
    }

    fn key(&self, name: &str) -> &'static keys::Key {
        match self.place {
            "" => keys::key(name),
            place => keys::key(&format!("{place}.{name}")),
        }
    }

    fn wrong_type<T>(&self, name: &'static str, value: &Spanned<DeValue<'_>>) -> Option<T> {
        let is = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let (line, takes) = (self.sink.line(value.span().start), self.key(name).takes.words());
        self.mistake(line, format!("{name} takes {takes}, not {is}"));
        None
    }

    fn refuse_unknown(&self) {
        let Some(entries) = self.entries else { return };
        for key in entries.keys() {
            let written = key.get_ref().as_ref();
            if keys::below(self.place).any(|known| known == written) {
                continue;
            }
            let line = self.sink.line(key.span().start);
            let path =
                if self.place.is_empty() { written.into() } else { format!("{}.{written}", self.place) };
            if let Some((_, why)) = keys::NOT_YET.iter().find(|(name, _)| *name == path) {
                self.mistake(line, format!("{written}: {why}"));
                continue;
            }
            let meant = keys::meant(written, keys::below(self.place));
            self.mistake(line, format!("unknown key \"{written}\"{meant}{}", hint(self.place, written)));
        }
    }
}

/// What people write in the place of another key.
fn hint(place: &str, written: &str) -> &'static str {
    match (place, written) {
        ("resource.tls", "certificate" | "chain" | "key") => {
            "; tls is about the upstream: what clients are shown stands in certificate = { chain, key }"
        }
        ("resource.certificate" | "certificate", "ca") => {
            "; what the upstream is verified against stands in the resource's tls = { ca }"
        }
        ("resource", "password" | "user" | "role") => {
            "; the upstream's roles stand in roles = [{ name, password }]"
        }
        ("resource", "database" | "dbname") => "; write databases = [\"…\"]",
        ("resource", "port" | "host") => "; write listen = \"address:port\" and upstream = \"host:port\"",
        ("", "listen" | "upstream") => "; it belongs into a [[resource]]",
        ("", "issuer") => "; write [[identity.issuer]]",
        _ => "",
    }
}

fn as_text(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        _ => None,
    }
}
