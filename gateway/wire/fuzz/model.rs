//! A small server that keeps to the protocol, for the machine to be held against: it answers as PostgreSQL does, and runs texts that say what
//! they do.

use std::collections::{HashMap, VecDeque};

use bytes::{BufMut, Bytes};
use gatebook_wire::postgres::frame::{Frame, Message};
use gatebook_wire::postgres::report::{Severity, error, put_string, ready_for_query};

/// A server after login.
pub(crate) struct Server {
    /// What it has said and nobody has taken yet.
    pub(crate) said: VecDeque<Frame>,
    transaction: u8,
    skipping: bool,
    /// It reads COPY data; whether for an Execute, and otherwise what comes behind in the text.
    copying: Option<(bool, VecDeque<String>)>,
    statements: HashMap<Bytes, String>,
    portals: HashMap<Bytes, (String, u32)>,
    /// Every text that it was given.
    pub(crate) texts: Vec<String>,
}

/// What a text does.
enum Does {
    Rows(u32),
    Begin,
    Commit,
    Rollback,
    CopyIn,
    Nothing,
    Fails(&'static str),
}

fn does(text: &str) -> Does {
    match text.trim() {
        "" => Does::Nothing,
        "BEGIN" => Does::Begin,
        "COMMIT" => Does::Commit,
        "ROLLBACK" => Does::Rollback,
        "COPY t FROM STDIN" => Does::CopyIn,
        "SELECT 'fails'" => Does::Fails("22012"),
        text => match text.strip_prefix("SELECT 'rows ").and_then(|rest| rest.strip_suffix('\'')) {
            Some(count) => Does::Rows(count.parse().unwrap_or(0)),
            None => Does::Fails("42601"),
        },
    }
}

fn bare(tag: u8) -> Message {
    Message::build(tag, |_| ())
}

fn complete(tag: &str) -> Message {
    Message::build(b'C', |out| put_string(out, tag))
}

impl Server {
    pub(crate) fn new() -> Server {
        Server {
            said: VecDeque::new(),
            transaction: b'I',
            skipping: false,
            copying: None,
            statements: HashMap::new(),
            portals: HashMap::new(),
            texts: Vec::new(),
        }
    }

    /// Whether it reads COPY data.
    pub(crate) fn is_copying(&self) -> bool {
        self.copying.is_some()
    }

    fn say(&mut self, message: Message) {
        self.said.push_back(message.into());
    }

    fn row(&mut self) {
        let row = Message::build(b'D', |out| {
            out.put_i16(1);
            out.put_i32(1);
            out.put_u8(b'x');
        });
        let run = gatebook_wire::postgres::frame::Run {
            tag: b'D',
            bytes: row.bytes().clone(),
            resumes: 0,
            completed: 1,
            goes_on: false,
        };
        self.said.push_back(Frame::Run(run));
    }

    fn fail(&mut self, code: &str) {
        if self.transaction == b'T' {
            self.transaction = b'E';
        }
        if self.transaction == b'I' {
            self.portals.clear();
        }
        self.say(error(Severity::Error, code, "it fails", None));
    }

    fn ready(&mut self) {
        if self.transaction == b'I' {
            self.portals.clear();
        }
        self.say(ready_for_query(self.transaction));
    }

    /// Takes one frame from a client.
    pub(crate) fn take(&mut self, frame: &Frame) {
        let message = match frame {
            Frame::Run(_) => return,
            Frame::Message(message) => message.clone(),
        };
        if let Some((extended, behind)) = &mut self.copying {
            let (extended, behind) = (*extended, std::mem::take(behind));
            match message.tag() {
                b'H' | b'S' => {
                    self.copying = Some((extended, behind));
                    return;
                }
                b'c' => {
                    self.copying = None;
                    self.say(complete("COPY 1"));
                    if !extended {
                        self.simple(behind);
                    }
                    return;
                }
                tag => {
                    self.copying = None;
                    self.fail(if tag == b'f' { "57014" } else { "08P01" });
                    self.skipping = extended;
                    if !extended {
                        self.ready();
                    }
                    return;
                }
            }
        }
        match message.tag() {
            b'S' => {
                self.skipping = false;
                self.ready();
            }
            _ if self.skipping => {}
            b'Q' => self.query(&message),
            b'F' => {
                if self.transaction == b'E' {
                    self.fail("25P02");
                } else {
                    self.say(Message::build(b'V', |out| out.put_i32(-1)));
                }
                self.ready();
            }
            b'P' | b'B' | b'D' | b'E' | b'C' => {
                if let Err(code) = self.extended(&message) {
                    self.fail(code);
                    self.skipping = true;
                }
            }
            _ => {}
        }
    }

    fn query(&mut self, message: &Message) {
        let text = String::from_utf8_lossy(&message.body()).trim_end_matches('\0').to_owned();
        self.texts.push(text.clone());
        // The whole text is parsed before any of it runs.
        if text.split(';').any(|text| matches!(does(text), Does::Fails("42601"))) {
            self.fail("42601");
            return self.ready();
        }
        let statements: VecDeque<String> =
            text.split(';').filter(|text| !text.trim().is_empty()).map(str::to_owned).collect();
        if statements.is_empty() {
            self.say(bare(b'I'));
        }
        self.simple(statements);
    }

    fn simple(&mut self, mut statements: VecDeque<String>) {
        while let Some(text) = statements.pop_front() {
            match self.run(&text, u32::MAX, true) {
                Ok(true) => {}
                Ok(false) => {
                    self.copying = Some((false, statements));
                    return;
                }
                Err(code) => {
                    self.fail(code);
                    break;
                }
            }
        }
        self.ready();
    }

    /// Runs a text to its completion; false where it has begun to read COPY data.
    fn run(&mut self, text: &str, rows_max: u32, describes: bool) -> Result<bool, &'static str> {
        let does = does(text);
        if self.transaction == b'E' && !matches!(does, Does::Commit | Does::Rollback) {
            return Err("25P02");
        }
        match does {
            Does::Rows(rows) => {
                if describes {
                    self.say(Message::build(b'T', |out| out.put_i16(0)));
                }
                (0..rows.min(rows_max)).for_each(|_| self.row());
                self.say(if rows > rows_max { bare(b's') } else { complete("SELECT") });
            }
            Does::Begin => {
                self.transaction = b'T';
                self.say(complete("BEGIN"));
            }
            Does::Commit | Does::Rollback => {
                self.transaction = b'I';
                self.portals.clear();
                self.say(complete("COMMIT"));
            }
            Does::CopyIn => {
                self.say(Message::build(b'G', |out| out.put_slice(&[0, 0, 0])));
                return Ok(false);
            }
            Does::Nothing => self.say(bare(b'I')),
            Does::Fails(code) => return Err(code),
        }
        Ok(true)
    }

    fn extended(&mut self, message: &Message) -> Result<(), &'static str> {
        let body = message.body();
        let mut parts = body.split(|byte| *byte == 0).map(Bytes::copy_from_slice);
        let mut part = || parts.next().unwrap_or_default();
        match message.tag() {
            b'P' => {
                let (name, text) = (part(), part());
                let text = String::from_utf8_lossy(&text).into_owned();
                self.texts.push(text.clone());
                if name.is_empty() {
                    self.statements.remove(&name);
                }
                if text.matches(';').count() > 0 || matches!(does(&text), Does::Fails("42601")) {
                    return Err("42601");
                }
                self.allowed(&text)?;
                if self.statements.contains_key(&name) {
                    return Err("42P05");
                }
                self.statements.insert(name, text);
                self.say(bare(b'1'));
            }
            b'B' => {
                let (portal, name) = (part(), part());
                let text = self.statements.get(&name).cloned().ok_or("26000")?;
                self.allowed(&text)?;
                if !portal.is_empty() && self.portals.contains_key(&portal) {
                    return Err("42P03");
                }
                self.portals.insert(portal, (text, 0));
                self.say(bare(b'2'));
            }
            b'D' => {
                let name = Bytes::copy_from_slice(&body[1..body.len() - 1]);
                let text = if body[0] == b'S' {
                    self.statements.get(&name).cloned().ok_or("26000")?
                } else {
                    self.portals.get(&name).map(|(text, _)| text.clone()).ok_or("34000")?
                };
                self.allowed(&text)?;
                if body[0] == b'S' {
                    self.say(Message::build(b't', |out| out.put_i16(0)));
                }
                self.say(match does(&text) {
                    Does::Rows(_) => Message::build(b'T', |out| out.put_i16(0)),
                    _ => bare(b'n'),
                });
            }
            b'E' => {
                let name = part();
                let rows_max = body.last_chunk::<4>().map_or(0, |rows| u32::from_be_bytes(*rows));
                let rows_max = if rows_max == 0 { u32::MAX } else { rows_max };
                let (text, shown) = self.portals.get(&name).cloned().ok_or("34000")?;
                let left = match does(&text) {
                    Does::Rows(rows) => format!("SELECT 'rows {}'", rows.saturating_sub(shown)),
                    _ => text.clone(),
                };
                if let Some((_, shown)) = self.portals.get_mut(&name) {
                    *shown = shown.saturating_add(rows_max);
                }
                if !self.run(&left, rows_max, false)? {
                    self.copying = Some((true, VecDeque::new()));
                }
            }
            _ => {
                let name = Bytes::copy_from_slice(&body[1..body.len() - 1]);
                if body[0] == b'S' {
                    self.statements.remove(&name);
                } else {
                    self.portals.remove(&name);
                }
                self.say(bare(b'3'));
            }
        }
        Ok(())
    }

    /// In a failed transaction only what ends it is.
    fn allowed(&self, text: &str) -> Result<(), &'static str> {
        let ends = matches!(does(text), Does::Commit | Does::Rollback);
        if self.transaction == b'E' && !ends { Err("25P02") } else { Ok(()) }
    }

    /// A cancel request that comes in time: what is still to be said of the statement that runs is an error, if it is one statement.
    pub(crate) fn cancel(&mut self) {
        let end = self.said.iter().position(|frame| matches!(frame.tag(), b'C' | b's'));
        let rest: Vec<u8> = self.said.iter().skip(end.map_or(0, |end| end + 1)).map(Frame::tag).collect();
        let Some(end) = end.filter(|_| rest.iter().all(|tag| *tag == b'Z')) else { return };
        if self.said.iter().take(end).any(|frame| frame.tag() != b'D') {
            return;
        }
        self.said.clear();
        self.fail("57014");
        if rest.is_empty() {
            self.skipping = true;
        } else {
            self.ready();
        }
    }
}
