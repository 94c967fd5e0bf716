//! A PostgreSQL session after login, as a deterministic machine.
//!
//! It follows what the client has sent and what the server has answered, so that each answer is known to belong to
//! one command, and it turns queries, parses and executes into intents. It never decides.
//!
//! What a newcomer gets wrong:
//! - The server answers in order, and after an error in an extended query passes over everything up to the next Sync.
//!   `outstanding` is that order; what we know to be passed over is not sent at all.
//! - A refusal must have an error's effect at its place in the order. So a message that fails in the server's parser
//!   (*poison*) is sent in place of the refused one, and the server's error is swapped for ours: an open transaction
//!   fails, the rest of the batch is passed over, and `ReadyForQuery` is the server's own.
//! - While COPY reads from the client, the server ignores Sync; one that was sent too early is never answered.

mod answer;
mod confirm;
mod limit;
mod source;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Waker;

use bytes::{BufMut, Bytes};
pub use source::{CatalogSource, Look};

use super::cells;
use super::frame::{Fields, Frame, Malformed, Message, Run};
use super::names::{Batch, Lookup, Names};
use super::report::{self, Severity, put_string};
use crate::action::{Action, Effect, Facts, Verb};
use crate::detect::{Classes, Found};
use crate::limits;
use crate::protocol::{
    Circumstances, ClientStep, Command, Confirmed, Cut, Disclosure, EndReason, Ended, Excess, Intent,
    Meaning, Parameter, Phase, Protocol, Refusal, RefusalKind, Refused, RequestId, Roles, UpstreamStep,
    Violation,
};
use crate::sql::{Analysis, Renames, Sending, Sent, Session, Statement};

/// One PostgreSQL session after login.
pub struct Conversation {
    catalog: Arc<dyn CatalogSource>,
    session: Session,
    statements: Names<Arc<Prepared>>,
    portals: Names<Arc<Portal>>,
    /// At least as many bytes as the statements' texts and the portals' parameters keep; counted anew where it is over a limit.
    statement_bytes: usize,
    portal_bytes: usize,
    /// What was sent and is not yet answered, in order.
    outstanding: VecDeque<Expected>,
    /// What was asked for and is neither sent nor refused yet.
    asked: Option<Asked>,
    /// The batch that the client is writing.
    batch: Batch,
    /// Whether the server passes over what comes, up to the next Sync.
    skipping: bool,
    copy: Copy,
    /// How many Syncs the COPY that is under way was thought to swallow: one that fails before it reads leaves them to be answered.
    swallowed: usize,
    next_request: RequestId,
    ended: VecDeque<Ended>,
    /// Whether something that may change definitions was sent since the server was last idle.
    defining: bool,
    /// Whether messages of the server may hold values that are masked: something was sent that is not proven to only read.
    hushed: bool,
    /// Whether the server has said its own last words: ours would come too late.
    speechless: bool,
    /// Whether the server last said that a transaction is open.
    in_transaction: bool,
    limits: limit::Limits,
    /// What answers are looked through for, and whether it is overwritten there or only counted.
    detect: Classes,
    overwrite: bool,
    confirming: Option<confirm::Confirming>,
}

/// A statement that was parsed upstream.
#[derive(Debug)]
struct Prepared {
    text: Bytes,
    /// What the upstream keeps in its place.
    sending: Option<Arc<Sending>>,
    types: Vec<u32>,
}

/// A statement with its parameters bound.
#[derive(Debug)]
struct Portal {
    /// The text that it runs; the statement's name where SQL made that and we do not know its text.
    text: Bytes,
    analysis: Arc<Analysis>,
    sending: Option<Arc<Sending>>,
    understood: Option<confirm::Understood>,
    parameters: Vec<Parameter>,
    bytes: usize,
    /// How many of its rows were shown so far.
    shown_rows: Arc<AtomicU64>,
}

/// An answer that the server owes.
#[derive(Debug)]
enum Expected {
    /// A simple query: an answer for each statement, then ReadyForQuery.
    Simple {
        next: RequestId,
        left: usize,
        sent: VecDeque<Sent>,
        /// Whether any statement may ask for COPY data, and whether the last one may.
        copies_in: bool,
        copies_last: bool,
        last_tag: Option<String>,
        sending: Option<Arc<Sending>>,
    },
    /// ParseComplete.
    Parse {
        requests: std::ops::Range<RequestId>,
        name: Bytes,
        sent: Option<Sent>,
        sending: Option<Arc<Sending>>,
    },
    /// BindComplete.
    Bind { name: Bytes, sent: Vec<Sent>, portal: Arc<Portal> },
    /// ParameterDescription and RowDescription or NoData, or only the latter for a portal.
    Describe,
    /// Rows and a completion.
    Execute {
        requests: std::ops::Range<RequestId>,
        sent: VecDeque<Sent>,
        copies_in: bool,
        sending: Option<Arc<Sending>>,
    },
    /// CloseComplete.
    Close { kind: u8, name: Bytes, sent: Option<Sent> },
    /// ReadyForQuery.
    Sync,
    /// Nothing: marks where the client ended its COPY data, sent before the server asked for them.
    CopyEnd,
    /// An error, in place of what we refused; without a refusal it is to be told to nobody.
    Poison { requests: std::ops::Range<RequestId>, refusal: Option<Refusal>, instead_of: Poisoned },
}

/// What a poison stands in for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Poisoned {
    /// A message that the server answers with ReadyForQuery, error or not.
    Query,
    /// The Parse of this name.
    Parse(Bytes),
    /// Another message of an extended query.
    Execute,
}

impl Portal {
    /// What executing it asks for; its rows are counted together, however it is executed.
    fn commands(&self, analysis: &Analysis) -> Vec<Command> {
        let mut commands = commands(&self.text, analysis, Phase::Execute, &self.parameters);
        commands.iter_mut().for_each(|command| command.shown_rows = Some(self.shown_rows.clone()));
        commands
    }
}

/// Whether COPY data may come from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    No,
    /// The server has asked for them.
    Open {
        request: RequestId,
        client_done: bool,
    },
}

/// What COPY data that come now belong to.
enum CopyTarget {
    Request(RequestId),
    Unsettled,
    Nothing,
}

/// What will be outstanding once the frame that was asked for has been sent.
struct Asked {
    expected: Expected,
    /// For a Parse: what the name will stand for.
    prepared: Option<Arc<Prepared>>,
    /// What runs, so that the session's state follows.
    runs: Arc<Analysis>,
    requests: std::ops::Range<RequestId>,
    /// What it was understood by, where that has to be confirmed.
    understood: Option<confirm::Understood>,
}

/// Text that no PostgreSQL grammar takes, and that tells who reads the server's log what it is.
const POISON: &str = "gatebook refused this command";
/// A name that no client can have given: a poison's Parse fails before the name would be used.
const POISON_NAME: &str = "gatebook refused";

impl Conversation {
    /// A conversation that starts where login ended: nothing outstanding, `session` as the startup packet made it.
    #[must_use]
    pub fn new(session: Session, catalog: Arc<dyn CatalogSource>) -> Conversation {
        Conversation {
            catalog,
            session,
            statements: Names::new(),
            portals: Names::new(),
            statement_bytes: 0,
            portal_bytes: 0,
            outstanding: VecDeque::new(),
            asked: None,
            batch: 0,
            skipping: false,
            copy: Copy::No,
            swallowed: 0,
            next_request: 0,
            ended: VecDeque::new(),
            defining: false,
            hushed: false,
            speechless: false,
            in_transaction: false,
            limits: limit::Limits::default(),
            detect: Classes::default(),
            overwrite: true,
            confirming: None,
        }
    }

    /// Looks through answers for these classes; without `overwrite` they are only counted. Rows must come whole
    /// ([`Decoder::keep_whole`](super::frame::Decoder::keep_whole)).
    #[must_use]
    pub fn detecting(mut self, classes: Classes, overwrite: bool) -> Conversation {
        (self.detect, self.overwrite) = (classes, overwrite);
        self
    }

    /// What was asked for was permitted and sent.
    fn settle_asked(&mut self) {
        let Some(mut asked) = self.asked.take() else { return };
        self.keep_understood(&mut asked);
        match &mut asked.expected {
            Expected::Parse { name, sent, .. } => {
                if let (Some(prepared), Ok(name)) = (&asked.prepared, std::str::from_utf8(name)) {
                    let masked = prepared.sending.as_ref().map(|sending| sending.text.as_str());
                    let text = String::from_utf8_lossy(&prepared.text);
                    *sent = Some(self.session.prepare_sent(name, &text, &prepared.types, masked));
                }
                self.statements.sent(name, self.batch, asked.prepared);
            }
            Expected::Simple { sent, .. } | Expected::Execute { sent, .. } => {
                for statement in &asked.runs.statements {
                    self.defining |= may_define(&statement.meaning);
                    self.hushed |= self.session.masks() && statement.meaning.effect == Effect::MayChange;
                    self.follow_names(statement);
                    sent.push_back(self.session.sent(statement));
                }
            }
            _ => {}
        }
        self.outstanding.push_back(asked.expected);
    }

    /// SQL shares its namespaces with the protocol: what SQL may have renamed is forgotten, and decided as unknown.
    fn follow_names(&mut self, statement: &Statement) {
        match statement.renames() {
            Renames::Nothing => {}
            Renames::Statement(name) => self.statements.forget(name.as_bytes()),
            Renames::Portal(name) => self.portals.forget(name.as_bytes()),
            Renames::AllPortals => self.portals.forget_all(),
            Renames::AllStatements => self.statements.forget_all(),
            // What it did cannot be read: the names keep their texts for the record, and are decided as what they may be.
            Renames::Everything => {
                self.statements.doubt_all();
                self.portals.doubt_all();
            }
        }
    }

    fn analyze(&self, text: &[u8]) -> Arc<Analysis> {
        match std::str::from_utf8(text) {
            Ok(text) => self.session.analyze(text, &self.catalog.snapshot()),
            Err(_) => Arc::new(self.session.opaque(text.len())),
        }
    }

    /// The same where the client says what types its parameters have.
    fn analyze_with(&self, text: &[u8], types: &[u32]) -> Arc<Analysis> {
        self.session.with_parameters(self.analyze(text), types, text.len(), &self.catalog.snapshot())
    }

    /// What takes the text's place, where masks make it another.
    fn sending(analysis: &Analysis, text: &[u8]) -> Option<Arc<Sending>> {
        std::str::from_utf8(text).ok().and_then(|text| analysis.sent(text)).map(Arc::new)
    }

    /// Gives ids to `count` commands.
    fn requests(&mut self, count: usize) -> std::ops::Range<RequestId> {
        let first = self.next_request;
        self.next_request += count as RequestId;
        first..self.next_request
    }

    fn query(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        let text = report::string_body(&message)?;
        let analysis = self.analyze(&text);
        let commands = commands(&text, &analysis, Phase::Execute, &[]);
        let requests = self.requests(commands.len());
        let sending = Self::sending(&analysis, &text);
        let message = match &sending {
            Some(sending) => Message::build(b'Q', |out| put_string(out, &sending.text)),
            None => message,
        };
        let sent = sending.clone();
        let expected = Expected::Simple {
            next: requests.start,
            left: commands.len(),
            sent: VecDeque::new(),
            copies_in: analysis.statements.iter().any(may_copy_in),
            copies_last: analysis.statements.last().is_some_and(may_copy_in),
            last_tag: None,
            sending,
        };
        let understood = self.understood(Some(text), sent);
        let asked = Asked { expected, prepared: None, runs: analysis, requests, understood };
        Ok(self.ask(asked, commands, message, None))
    }

    fn parse(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        let (name, text, types) = message.parse(|fields| {
            let (name, text) = (fields.string()?, fields.string()?);
            let count = fields.count()?;
            Some((name, text, fields.many(count, |fields| fields.u32())?))
        })?;
        short(&[&name])?;
        let analysis = self.analyze_with(&text, &types);
        let commands = commands(&text, &analysis, Phase::Prepare, &[]);
        let requests = self.requests(commands.len());
        if self.statement_bytes + text.len() > limits::STATEMENT_BYTES_MAX {
            self.statement_bytes = self.statements.values().map(|prepared| prepared.text.len()).sum();
        }
        self.statement_bytes += text.len();
        let too_many =
            self.statements.len() >= limits::NAMES_MAX || self.statement_bytes > limits::STATEMENT_BYTES_MAX;
        let forbidden = too_many.then(|| Refusal {
            kind: RefusalKind::NotPermitted,
            message: "so many prepared statements in one session".into(),
            hint: Some("close what is no longer needed".into()),
        });
        let sending = Self::sending(&analysis, &text);
        let message = match &sending {
            Some(sending) => parse_of(&name, &sending.text, &types),
            None => message,
        };
        let prepared = Some(Arc::new(Prepared { text, sending: sending.clone(), types }));
        let expected = Expected::Parse { requests: requests.clone(), name, sent: None, sending };
        let asked = Asked { expected, prepared, runs: analysis, requests, understood: None };
        Ok(self.ask(asked, commands, message, forbidden))
    }

    fn bind(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        let (portal, statement, formats, values) = message.parse(|fields| {
            let (portal, statement) = (fields.string()?, fields.string()?);
            let (formats, values) = values(fields)?;
            let count = fields.count()?;
            fields.many(count, |fields| fields.i16())?;
            Some((portal, statement, formats, values))
        })?;
        short(&[&portal, &statement])?;
        let (prepared, certain) = match self.statements.lookup(&statement, self.batch) {
            Lookup::Found(prepared) => (Some(prepared), true),
            Lookup::Doubted(prepared) => (Some(prepared), false),
            Lookup::Unknown => (None, false),
            Lookup::Unsettled => return Ok(ClientStep::Wait(message.into())),
        };
        let bytes = message.bytes().len();
        if self.portal_bytes + bytes > limits::PORTAL_BYTES_MAX {
            self.portal_bytes = self.portals.values().map(|portal| portal.bytes).sum();
        }
        let parameters = parameters(prepared.as_deref(), &formats, values)?;
        // The server plans anew with the settings of now, so the text is analysed anew.
        let sending = prepared.as_ref().and_then(|prepared| prepared.sending.clone());
        let text = prepared.as_ref().map_or_else(|| statement.clone(), |prepared| prepared.text.clone());
        let types = prepared.as_ref().map_or(&[][..], |prepared| &prepared.types);
        let analysis = if certain {
            let sent = sending.as_ref().map(|sending| sending.text.as_str());
            self.analyze_with(&text, types).kept(&String::from_utf8_lossy(&text), sent)
        } else {
            self.session.prepared(&String::from_utf8_lossy(&statement), &self.catalog.snapshot())
        };
        if self.portals.len() >= limits::NAMES_MAX || self.portal_bytes + bytes > limits::PORTAL_BYTES_MAX {
            return Ok(self.refuse_bind(&text, analysis, message));
        }
        self.portal_bytes += bytes;
        let understood = self.understood(certain.then(|| text.clone()), sending.clone());
        let name = String::from_utf8_lossy(&portal);
        let sent =
            analysis.statements.iter().map(|statement| self.session.bind_sent(&name, statement)).collect();
        let bound = Arc::new(Portal {
            text,
            analysis,
            sending,
            understood,
            parameters,
            bytes,
            shown_rows: Arc::default(),
        });
        self.portals.sent(&portal, self.batch, Some(bound.clone()));
        self.outstanding.push_back(Expected::Bind { name: portal, sent, portal: bound });
        Ok(ClientStep::Relay(message.into()))
    }

    /// More portals, or more bytes in them, than are kept: no Bind is a command, but this one is refused like one.
    fn refuse_bind(&mut self, text: &Bytes, runs: Arc<Analysis>, message: Message) -> ClientStep<Frame> {
        let commands = commands(text, &runs, Phase::Prepare, &[]);
        let requests = self.requests(commands.len());
        let expected = Expected::Execute {
            requests: requests.clone(),
            sent: VecDeque::new(),
            copies_in: false,
            sending: None,
        };
        let refusal = Refusal {
            kind: RefusalKind::NotPermitted,
            message: "so many open portals, or so many bytes of parameters in them".into(),
            hint: Some("end the transaction, or send a Sync more often".into()),
        };
        let asked = Asked { expected, prepared: None, runs, requests, understood: None };
        self.ask(asked, commands, message, Some(refusal))
    }

    fn execute(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        let name = message.parse(|fields| {
            let name = fields.string()?;
            fields.i32()?;
            Some(name)
        })?;
        short(&[&name])?;
        let (runs, commands, sending, understood) = match self.portals.lookup(&name, self.batch) {
            Lookup::Found(portal) => {
                let commands = portal.commands(&portal.analysis);
                (portal.analysis.clone(), commands, portal.sending.clone(), portal.understood.clone())
            }
            Lookup::Doubted(portal) => {
                let analysis = self.session.portal(&String::from_utf8_lossy(&name));
                let commands = portal.commands(&analysis);
                (analysis, commands, None, portal.understood.clone().map(confirm::Understood::unread))
            }
            // A portal that SQL made (DECLARE): we know its name, and what it may do.
            Lookup::Unknown => {
                let analysis = self.session.portal(&String::from_utf8_lossy(&name));
                let commands = commands(&name, &analysis, Phase::Execute, &[]);
                (analysis, commands, None, None)
            }
            Lookup::Unsettled => return Ok(ClientStep::Wait(message.into())),
        };
        let requests = self.requests(commands.len());
        let copies_in = runs.statements.iter().any(may_copy_in);
        let expected =
            Expected::Execute { requests: requests.clone(), sent: VecDeque::new(), copies_in, sending };
        Ok(self.ask(Asked { expected, prepared: None, runs, requests, understood }, commands, message, None))
    }

    fn describe(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        message.parse(|fields| {
            let kind = fields.u8().filter(|kind| matches!(kind, b'S' | b'P'))?;
            fields.string()?;
            Some(kind)
        })?;
        self.outstanding.push_back(Expected::Describe);
        Ok(ClientStep::Relay(message.into()))
    }

    fn close(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        let (kind, name) = message.parse(|fields| {
            Some((fields.u8().filter(|kind| matches!(kind, b'S' | b'P'))?, fields.string()?))
        })?;
        short(&[&name])?;
        match kind {
            b'S' => self.statements.sent(&name, self.batch, None),
            _ => self.portals.sent(&name, self.batch, None),
        }
        let text = String::from_utf8_lossy(&name);
        let sent = Some(if kind == b'S' {
            self.session.unprepare_sent(&text)
        } else {
            self.session.close_sent(&text)
        });
        self.outstanding.push_back(Expected::Close { kind, name, sent });
        Ok(ClientStep::Relay(message.into()))
    }

    fn sync(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        message.parse(|_| Some(()))?;
        if !matches!(self.copy, Copy::Open { client_done: false, .. }) {
            self.outstanding.push_back(Expected::Sync);
            self.batch += 1;
        }
        self.skipping = false;
        Ok(ClientStep::Relay(message.into()))
    }

    /// FunctionCall runs a function by its number: the same as calling it by its name.
    fn function_call(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        let (oid, formats, values) = message.parse(|fields| {
            let oid = fields.u32()?;
            let (formats, values) = values(fields)?;
            fields.i16()?;
            Some((oid, formats, values))
        })?;
        let parameters = parameters(None, &formats, values)?;
        let (text, analysis) = self.session.function_call(oid, &self.catalog.snapshot());
        let commands = commands(&text.into(), &analysis, Phase::Execute, &parameters);
        let requests = self.requests(commands.len());
        let expected = Expected::Simple {
            next: requests.start,
            left: 1,
            sent: VecDeque::new(),
            copies_in: false,
            copies_last: false,
            last_tag: None,
            sending: None,
        };
        let understood = self.understood(None, None);
        let asked = Asked { expected, prepared: None, runs: analysis, requests, understood };
        Ok(self.ask(asked, commands, message, None))
    }

    fn ask(
        &mut self,
        asked: Asked,
        commands: Vec<Command>,
        message: Message,
        forbidden: Option<Refusal>,
    ) -> ClientStep<Frame> {
        let first = asked.requests.start;
        self.asked = Some(asked);
        ClientStep::Ask(Intent { commands, first, frame: message.into(), forbidden })
    }

    /// What COPY data from the client belong to.
    fn copy_target(&self) -> CopyTarget {
        if let Copy::Open { request, client_done: false } = self.copy {
            return CopyTarget::Request(request);
        }
        // The client may send data right behind its COPY, before the server has asked for them.
        match self.outstanding.iter().rev().find(|expected| !matches!(expected, Expected::Sync)) {
            Some(Expected::Simple { next, left: 1, copies_last: true, .. }) => CopyTarget::Request(*next),
            // Which of several statements they are for is known when the server asks.
            Some(Expected::Simple { left: 2.., copies_in: true, .. }) => CopyTarget::Unsettled,
            Some(Expected::Execute { requests, copies_in: true, .. }) => CopyTarget::Request(requests.start),
            _ => CopyTarget::Nothing,
        }
    }

    fn copy_data(&mut self, run: Run) -> ClientStep<Frame> {
        match self.copy_target() {
            CopyTarget::Request(request) => ClientStep::Feed(request, Frame::Run(run)),
            CopyTarget::Unsettled => ClientStep::Wait(Frame::Run(run)),
            CopyTarget::Nothing => ClientStep::Hold,
        }
    }

    fn copy_end(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        if message.tag() == b'f' {
            report::string_body(&message)?;
        } else {
            message.parse(|_| Some(()))?;
        }
        let request = match self.copy_target() {
            CopyTarget::Request(request) => request,
            CopyTarget::Unsettled => return Ok(ClientStep::Wait(message.into())),
            CopyTarget::Nothing => return Ok(ClientStep::Hold),
        };
        match &mut self.copy {
            Copy::Open { client_done, .. } => *client_done = true,
            Copy::No => self.outstanding.push_back(Expected::CopyEnd),
        }
        Ok(ClientStep::Feed(request, message.into()))
    }

    /// The server asks for COPY data: a Sync that was sent before their end is ignored by it.
    fn copy_in_asked(&mut self, message: Message) -> Result<UpstreamStep<Frame>, Violation> {
        let request = self.running().ok_or_else(|| unexpected(&message))?;
        let end = self.outstanding.iter().position(|expected| matches!(expected, Expected::CopyEnd));
        let before = self.outstanding.len();
        let mut index = 0;
        self.outstanding.retain(|expected| {
            let ignored = index < end.unwrap_or(usize::MAX) && matches!(expected, Expected::Sync);
            let ended = Some(index) == end;
            index += 1;
            !(ignored || ended)
        });
        self.swallowed = before - self.outstanding.len() - usize::from(end.is_some());
        self.copy = Copy::Open { request, client_done: end.is_some() };
        Ok(disclose(Some(request), 0, message))
    }

    /// Takes a client's frame that need not wait.
    fn take(&mut self, frame: Frame) -> Result<ClientStep<Frame>, Violation> {
        let message = match frame {
            Frame::Run(run) => return Ok(self.copy_data(run)),
            Frame::Message(message) => message,
        };
        match message.tag() {
            b'X' => Ok(ClientStep::Farewell(message.into())),
            b'S' => self.sync(message),
            b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'F' if self.skipping => Ok(ClientStep::Hold),
            b'Q' => self.query(message),
            b'P' => self.parse(message),
            b'B' => self.bind(message),
            b'D' => self.describe(message),
            b'E' => self.execute(message),
            b'C' => self.close(message),
            b'H' => {
                message.parse(|_| Some(()))?;
                Ok(ClientStep::Relay(message.into()))
            }
            b'c' | b'f' => self.copy_end(message),
            b'F' => self.function_call(message),
            tag => Err(Violation(format!("message {:?} is not known", char::from(tag)))),
        }
    }
}

impl Protocol for Conversation {
    type ClientFrame = Frame;
    type UpstreamFrame = Frame;

    fn on_client(&mut self, frame: Frame) -> Result<ClientStep<Frame>, Violation> {
        self.settle_asked();
        if self.outstanding.len() >= limits::OUTSTANDING_MAX || self.holds_back(&frame) {
            return Ok(ClientStep::Wait(frame));
        }
        if self.confirming.is_some() {
            return self.take_confirmed(frame);
        }
        self.take(frame)
    }

    fn confirm(&mut self, disclosure: &Disclosure<Frame>, waker: &Waker) -> Confirmed {
        self.confirm_answer(disclosure, waker)
    }

    fn awaited(&mut self, waker: &Waker) -> bool {
        self.has_looked(waker)
    }

    fn on_upstream(&mut self, frame: Frame) -> Result<UpstreamStep<Frame>, Violation> {
        self.settle_asked();
        if self.limits.is_cutting() {
            return self.drain(frame);
        }
        match frame {
            Frame::Run(run) => {
                let request =
                    self.running().ok_or_else(|| Violation("data that nothing asked for".into()))?;
                Ok(UpstreamStep::Disclose(Disclosure {
                    request: Some(request),
                    rows: run.completed,
                    goes_on: run.goes_on,
                    frame: Frame::Run(run),
                }))
            }
            Frame::Message(message) => {
                let step = self.on_upstream_message(message);
                self.tell_limits();
                step
            }
        }
    }

    fn refuse(&mut self, refusal: &Refusal) -> Refused<Frame> {
        let Some(Asked { expected, requests, .. }) = self.asked.take() else {
            // Nothing was asked: a Flush changes nothing.
            return Refused { upstream: Message::build(b'H', |_| ()).into() };
        };
        let (instead_of, upstream) = match expected {
            Expected::Parse { name, .. } => {
                let poison = poison_parse(&name);
                self.statements.sent(&name, self.batch, None);
                // It fails for certain, so the server will pass over the rest of the batch.
                self.skipping = true;
                (Poisoned::Parse(name), poison)
            }
            Expected::Execute { .. } => {
                self.skipping = true;
                (Poisoned::Execute, poison_parse(POISON_NAME.as_bytes()))
            }
            _ => (Poisoned::Query, Message::build(b'Q', |out| put_string(out, POISON))),
        };
        self.outstanding.push_back(Expected::Poison { requests, refusal: Some(refusal.clone()), instead_of });
        Refused { upstream: upstream.into() }
    }

    fn withdraw(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.next_request = asked.requests.start;
        }
    }

    fn circumstances(&self, commands: &[Command]) -> Circumstances {
        let holds =
            |expected: &Expected| matches!(expected, Expected::Simple { .. } | Expected::Execute { .. });
        Circumstances {
            in_transaction: self.in_transaction || self.outstanding.iter().any(holds),
            ..self.session.circumstances(commands, &self.catalog.snapshot())
        }
    }

    fn look_through(&self, frame: &mut Frame) -> Found {
        if !self.detect.any() {
            return Found::default();
        }
        let (found, looked) = cells::look_through(frame, self.detect);
        if let Some(looked) = looked.filter(|_| self.overwrite) {
            *frame = looked;
        }
        found
    }

    fn tell(&self, words: &str) -> Option<Frame> {
        (!self.speechless).then(|| report::error(Severity::Notice, report::SUCCESSFUL, words, None).into())
    }

    fn limit(&mut self) -> Option<Frame> {
        self.limit_asked()
    }

    fn cut(&mut self, over: Disclosure<Frame>, rows: u64, excess: &Excess) -> Option<Cut<Frame>> {
        self.cut_running(over, rows, *excess)
    }

    fn expire(&mut self, request: RequestId, excess: &Excess) {
        self.limits.expire(request, *excess);
    }

    fn owed(&mut self) -> Option<Frame> {
        self.limits.owed()
    }

    fn terminate(&mut self, reason: EndReason) -> Vec<Frame> {
        if self.speechless {
            return Vec::new();
        }
        let (code, message) = match reason {
            EndReason::ClientLeft => return Vec::new(),
            EndReason::UpstreamLeft => (report::CONNECTION_FAILURE, "the upstream closed the connection"),
            EndReason::ClientViolation => (report::PROTOCOL_VIOLATION, "protocol violation"),
            EndReason::UpstreamViolation => {
                (report::CONNECTION_FAILURE, "the upstream said what this gateway does not understand")
            }
            EndReason::Revoked => (report::ADMIN_SHUTDOWN, "terminating connection: access was revoked"),
            EndReason::Expired => (
                report::ADMIN_SHUTDOWN,
                "terminating connection: the token has expired; connect again with a new one",
            ),
            EndReason::PolicyChanged => {
                (report::ADMIN_SHUTDOWN, "terminating connection: policy no longer allows it")
            }
            EndReason::Idle => ("57P05", "terminating connection: idle for too long"),
            EndReason::Limit => (report::ADMIN_SHUTDOWN, "terminating connection: a limit was reached"),
            EndReason::DefinitionsChanged => (
                report::ADMIN_SHUTDOWN,
                "terminating connection: definitions changed while a command ran; connect again",
            ),
            EndReason::LedgerUnavailable => (
                report::ADMIN_SHUTDOWN,
                "terminating connection: the ledger cannot be written, and nothing passes unrecorded",
            ),
            EndReason::Shutdown => (report::ADMIN_SHUTDOWN, "terminating connection: the gateway stops"),
        };
        vec![report::error(Severity::Fatal, code, message, None).into()]
    }

    fn ended(&mut self) -> &mut VecDeque<Ended> {
        &mut self.ended
    }
}

/// Refuses names that the server would cut (`NAMEDATALEN`): two of them would be one to it and two to us.
fn short(names: &[&Bytes]) -> Result<(), Violation> {
    let fits = names.iter().all(|name| name.len() < limits::NAME_BYTES);
    if fits {
        Ok(())
    } else {
        Err(Violation("a name of a statement or portal is longer than 63 bytes".into()))
    }
}

/// A Parse of another text.
fn parse_of(name: &[u8], text: &str, types: &[u32]) -> Message {
    Message::build(b'P', |out| {
        out.put_slice(name);
        out.put_u8(0);
        put_string(out, text);
        out.put_u16(u16::try_from(types.len()).expect("they came counted in 16 bits"));
        types.iter().for_each(|oid| out.put_u32(*oid));
    })
}

/// A Parse that fails in the server's parser, before its name is looked at; the unnamed statement is dropped by it, as by any failed Parse.
fn poison_parse(name: &[u8]) -> Message {
    Message::build(b'P', |out| {
        out.put_slice(name);
        out.put_u8(0);
        put_string(out, POISON);
        out.put_i16(0);
    })
}

/// One command for each statement of a text; a text without statements is one that does nothing.
fn commands(text: &Bytes, analysis: &Analysis, phase: Phase, parameters: &[Parameter]) -> Vec<Command> {
    let command = |statement: Bytes, sent: Option<&str>, meaning: &Arc<Meaning>| Command {
        phase,
        statement,
        parameters: parameters.to_vec(),
        sent: sent.map(|text| Bytes::copy_from_slice(text.as_bytes())),
        meaning: meaning.clone(),
        shown_rows: None,
    };
    if let [statement] = &analysis.statements[..] {
        return vec![command(text.clone(), statement.masked(), &statement.meaning)];
    }
    let commands: Vec<Command> = analysis
        .statements
        .iter()
        .map(|statement| command(text.slice(statement.range.clone()), statement.masked(), &statement.meaning))
        .collect();
    if commands.is_empty() { vec![command(text.clone(), None, &nothing())] } else { commands }
}

/// What an empty statement means.
fn nothing() -> Arc<Meaning> {
    static NOTHING: std::sync::OnceLock<Arc<Meaning>> = std::sync::OnceLock::new();
    let nothing = || Meaning {
        actions: Vec::new(),
        effect: Effect::Reads,
        facts: Facts { kind: "empty".into(), resolved: true, ..Facts::default() },
        masks: Vec::new(),
        roles: Roles::default(),
    };
    NOTHING.get_or_init(|| Arc::new(nothing())).clone()
}

/// Whether a command may change what names mean to later ones.
fn may_define(meaning: &Meaning) -> bool {
    let defines = |verb| {
        matches!(verb, Verb::Create | Verb::Alter | Verb::Drop | Verb::Administer | Verb::Call | Verb::Opaque)
    };
    meaning.actions.iter().any(|action| defines(action.verb))
}

fn is_opaque(meaning: &Meaning) -> bool {
    meaning.actions.iter().any(|Action { verb, .. }| *verb == Verb::Opaque)
}

/// Whether the server may answer this statement by asking for COPY data.
fn may_copy_in(statement: &Statement) -> bool {
    statement.meaning.facts.kind == "copy_from" || is_opaque(&statement.meaning)
}

/// The formats and the values of a Bind or a FunctionCall.
fn values(fields: &mut Fields) -> Option<(Vec<i16>, Vec<Option<Bytes>>)> {
    let count = fields.count()?;
    let formats = fields.many(count, |fields| fields.i16())?;
    let count = fields.count()?;
    let values = fields.many(count, |fields| match fields.i32()? {
        -1 => Some(None),
        length => Some(Some(fields.bytes(usize::try_from(length).ok()?)?)),
    })?;
    Some((formats, values))
}

/// Joins a Bind's values with their formats and the types that the Parse named.
fn parameters(
    prepared: Option<&Prepared>,
    formats: &[i16],
    values: Vec<Option<Bytes>>,
) -> Result<Vec<Parameter>, Violation> {
    let format = |index: usize| match formats {
        [] => Some(0),
        [one] => Some(*one),
        many => many.get(index).copied(),
    };
    let types = prepared.map_or(&[][..], |prepared| &prepared.types);
    let parameter = |(index, value): (usize, Option<Bytes>)| match format(index) {
        Some(format @ (0 | 1)) => {
            Ok(Parameter { type_oid: types.get(index).copied().unwrap_or(0), binary: format == 1, value })
        }
        _ => Err(Violation("a parameter's format is missing or not known".into())),
    };
    values.into_iter().enumerate().map(parameter).collect()
}

fn disclose(request: Option<RequestId>, rows: u64, message: Message) -> UpstreamStep<Frame> {
    UpstreamStep::Disclose(Disclosure { request, rows, goes_on: false, frame: message.into() })
}

fn unexpected(message: &Message) -> Violation {
    Violation(format!("message {:?} is not expected here", char::from(message.tag())))
}

impl From<Malformed> for Violation {
    fn from(malformed: Malformed) -> Violation {
        Violation(malformed.to_string())
    }
}
