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

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::frame::{Frame, Malformed, Message, Run};
use super::login::is_utf8;
use super::names::{Batch, Lookup, Names, Naming};
use super::report::{self, Report, Severity, put_string};
use crate::action::{Action, Effect, Facts, Verb};
use crate::limits;
use crate::protocol::{
    ClientStep, Command, Disclosure, EndReason, Ended, Ending, Intent, Meaning, Parameter, Phase, Protocol,
    Refusal, Refused, RequestId, UpstreamStep, Violation,
};
use crate::sql::{Analysis, Catalog, Renames, Sent, Session, Statement, Transaction};

/// Hands out the newest snapshot of an upstream's catalog.
pub trait CatalogSource: Send + Sync {
    /// The newest snapshot. Cheap: it is asked for with every statement.
    fn snapshot(&self) -> Arc<Catalog>;

    /// Definitions may have changed upstream: the next snapshot is wanted soon.
    fn look_soon(&self);
}

/// One PostgreSQL session after login.
pub struct Conversation {
    catalog: Arc<dyn CatalogSource>,
    session: Session,
    database: Arc<str>,
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
    /// Whether the server has said its own last words: ours would come too late.
    speechless: bool,
}

/// A statement that was parsed upstream.
#[derive(Debug)]
struct Prepared {
    text: Bytes,
    types: Vec<u32>,
}

/// A statement with its parameters bound.
#[derive(Debug)]
struct Portal {
    /// The text that it runs; the statement's name where SQL made that and we do not know its text.
    text: Bytes,
    analysis: Arc<Analysis>,
    parameters: Vec<Parameter>,
    bytes: usize,
}

/// An answer that the server owes.
#[derive(Debug)]
enum Expected {
    /// A simple query: an answer for each statement, then ReadyForQuery.
    Simple { next: RequestId, left: usize, sent: VecDeque<Sent>, copies_in: bool, last_tag: Option<String> },
    /// ParseComplete.
    Parse { requests: std::ops::Range<RequestId>, name: Bytes, sent: Option<Sent> },
    /// BindComplete.
    Bind { name: Bytes, sent: Vec<Sent> },
    /// ParameterDescription and RowDescription or NoData, or only the latter for a portal.
    Describe,
    /// Rows and a completion.
    Execute { requests: std::ops::Range<RequestId>, sent: VecDeque<Sent>, copies_in: bool },
    /// CloseComplete.
    Close { kind: u8, name: Bytes, sent: Option<Sent> },
    /// ReadyForQuery.
    Sync,
    /// Nothing: marks where the client ended its COPY data, sent before the server asked for them.
    CopyEnd,
    /// An error, in place of what we refused.
    Poison { requests: std::ops::Range<RequestId>, refusal: Refusal, instead_of: Poisoned },
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

/// What will be outstanding once the frame that was asked for has been sent.
struct Asked {
    expected: Expected,
    /// For a Parse: what the name will stand for.
    prepared: Option<Arc<Prepared>>,
    /// What runs, so that the session's state follows.
    runs: Arc<Analysis>,
    requests: std::ops::Range<RequestId>,
}

/// Text that no PostgreSQL grammar takes, and that tells who reads the server's log what it is.
const POISON: &str = "gatebook refused this command";
/// A name that no client can have given: a poison's Parse fails before the name would be used.
const POISON_NAME: &str = "gatebook refused";

impl Conversation {
    /// A conversation that starts where login ended: nothing outstanding, `session` as the startup packet made it.
    #[must_use]
    pub fn new(database: Arc<str>, session: Session, catalog: Arc<dyn CatalogSource>) -> Conversation {
        Conversation {
            catalog,
            session,
            database,
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
            speechless: false,
        }
    }

    /// What was asked for was permitted and sent.
    fn settle_asked(&mut self) {
        let Some(mut asked) = self.asked.take() else { return };
        match &mut asked.expected {
            Expected::Parse { name, sent, .. } => {
                if let (Some(prepared), Ok(name)) = (&asked.prepared, std::str::from_utf8(name)) {
                    *sent = Some(self.session.prepare_sent(name, &String::from_utf8_lossy(&prepared.text)));
                }
                self.statements.sent(name, self.batch, asked.prepared);
            }
            Expected::Simple { sent, .. } | Expected::Execute { sent, .. } => {
                for statement in &asked.runs.statements {
                    self.defining |= may_define(&statement.meaning);
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
            Err(_) => Arc::new(Analysis::opaque(&self.database, text.len())),
        }
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
        let expected = Expected::Simple {
            next: requests.start,
            left: commands.len(),
            sent: VecDeque::new(),
            copies_in: analysis.statements.last().is_some_and(may_copy_in),
            last_tag: None,
        };
        Ok(self.ask(Asked { expected, prepared: None, runs: analysis, requests }, commands, message, None))
    }

    fn parse(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        let (name, text, types) = message.parse(|fields| {
            let (name, text) = (fields.string()?, fields.string()?);
            let count = fields.count()?;
            Some((name, text, fields.many(count, |fields| fields.u32())?))
        })?;
        short(&[&name])?;
        let analysis = self.analyze(&text);
        let mut commands = commands(&text, &analysis, Phase::Prepare, &[]);
        // A type whose values are checked by a function runs it when they are bound.
        let catalog = self.catalog.snapshot();
        if types.iter().any(|oid| *oid != 0 && !catalog.parameter_is_inert(*oid)) {
            commands
                .iter_mut()
                .for_each(|command| Arc::make_mut(&mut command.meaning).effect = Effect::MayChange);
        }
        let requests = self.requests(commands.len());
        if self.statement_bytes + text.len() > limits::STATEMENT_BYTES_MAX {
            self.statement_bytes = self.statements.values().map(|prepared| prepared.text.len()).sum();
        }
        self.statement_bytes += text.len();
        let too_many =
            self.statements.len() >= limits::NAMES_MAX || self.statement_bytes > limits::STATEMENT_BYTES_MAX;
        let forbidden = too_many.then(|| Refusal {
            message: "so many prepared statements in one session".into(),
            hint: Some("close what is no longer needed".into()),
        });
        let prepared = Some(Arc::new(Prepared { text, types }));
        let expected = Expected::Parse { requests: requests.clone(), name, sent: None };
        let asked = Asked { expected, prepared, runs: analysis, requests };
        Ok(self.ask(asked, commands, message, forbidden))
    }

    fn bind(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        let (portal, statement, formats, values) = message.parse(|fields| {
            let (portal, statement) = (fields.string()?, fields.string()?);
            let count = fields.count()?;
            let formats = fields.many(count, |fields| fields.i16())?;
            let count = fields.count()?;
            let values = fields.many(count, |fields| match fields.i32()? {
                -1 => Some(None),
                length => Some(Some(fields.bytes(usize::try_from(length).ok()?)?)),
            })?;
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
        let text = prepared.map_or_else(|| statement.clone(), |prepared| prepared.text.clone());
        let analysis = if certain {
            self.analyze(&text)
        } else {
            self.session.prepared(&String::from_utf8_lossy(&statement), &self.catalog.snapshot())
        };
        if self.portals.len() >= limits::NAMES_MAX || self.portal_bytes + bytes > limits::PORTAL_BYTES_MAX {
            return Ok(self.refuse_bind(&text, analysis, message));
        }
        self.portal_bytes += bytes;
        let name = String::from_utf8_lossy(&portal);
        let sent =
            analysis.statements.iter().map(|statement| self.session.bind_sent(&name, statement)).collect();
        self.portals.sent(&portal, self.batch, Some(Arc::new(Portal { text, analysis, parameters, bytes })));
        self.outstanding.push_back(Expected::Bind { name: portal, sent });
        Ok(ClientStep::Relay(message.into()))
    }

    /// More portals, or more bytes in them, than are kept: no Bind is a command, but this one is refused like one.
    fn refuse_bind(&mut self, text: &Bytes, runs: Arc<Analysis>, message: Message) -> ClientStep<Frame> {
        let commands = commands(text, &runs, Phase::Prepare, &[]);
        let requests = self.requests(commands.len());
        let expected =
            Expected::Execute { requests: requests.clone(), sent: VecDeque::new(), copies_in: false };
        let refusal = Refusal {
            message: "so many open portals, or so many bytes of parameters in them".into(),
            hint: Some("end the transaction, or send a Sync more often".into()),
        };
        self.ask(Asked { expected, prepared: None, runs, requests }, commands, message, Some(refusal))
    }

    fn execute(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        let name = message.parse(|fields| {
            let name = fields.string()?;
            fields.i32()?;
            Some(name)
        })?;
        short(&[&name])?;
        let (runs, commands) = match self.portals.lookup(&name, self.batch) {
            Lookup::Found(portal) => {
                let commands = commands(&portal.text, &portal.analysis, Phase::Execute, &portal.parameters);
                (portal.analysis.clone(), commands)
            }
            Lookup::Doubted(portal) => {
                let analysis = self.session.portal(&String::from_utf8_lossy(&name));
                let commands = commands(&portal.text, &analysis, Phase::Execute, &portal.parameters);
                (analysis, commands)
            }
            // A portal that SQL made (DECLARE): we know its name, and what it may do.
            Lookup::Unknown => {
                let analysis = self.session.portal(&String::from_utf8_lossy(&name));
                let commands = commands(&name, &analysis, Phase::Execute, &[]);
                (analysis, commands)
            }
            Lookup::Unsettled => return Ok(ClientStep::Wait(message.into())),
        };
        let requests = self.requests(commands.len());
        let copies_in = runs.statements.iter().any(may_copy_in);
        let expected = Expected::Execute { requests: requests.clone(), sent: VecDeque::new(), copies_in };
        Ok(self.ask(Asked { expected, prepared: None, runs, requests }, commands, message, None))
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

    /// FunctionCall runs a function by its number: nothing here reads it, so it is refused whatever policy says.
    fn function_call(&mut self, message: Message) -> ClientStep<Frame> {
        let analysis = Arc::new(Analysis::opaque(&self.database, FUNCTION_CALL.len()));
        let commands =
            commands(&Bytes::from_static(FUNCTION_CALL.as_bytes()), &analysis, Phase::Execute, &[]);
        let requests = self.requests(commands.len());
        let expected = Expected::Simple {
            next: requests.start,
            left: 1,
            sent: VecDeque::new(),
            copies_in: false,
            last_tag: None,
        };
        let refusal = Refusal {
            message: "a function call by number".into(),
            hint: Some("call the function in a SELECT".into()),
        };
        self.ask(
            Asked { expected, prepared: None, runs: analysis, requests },
            commands,
            message,
            Some(refusal),
        )
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

    /// The command that COPY data from the client belong to, if any may come.
    fn copy_request(&self) -> Option<RequestId> {
        if let Copy::Open { request, client_done: false } = self.copy {
            return Some(request);
        }
        // The client may send data right behind its COPY, before the server has asked for them.
        match self.outstanding.iter().rev().find(|expected| !matches!(expected, Expected::Sync))? {
            Expected::Simple { next, left: 1, copies_in: true, .. } => Some(*next),
            Expected::Execute { requests, copies_in: true, .. } => Some(requests.start),
            _ => None,
        }
    }

    fn copy_data(&mut self, run: Run) -> ClientStep<Frame> {
        match self.copy_request() {
            Some(request) => ClientStep::Feed(request, Frame::Run(run)),
            None => ClientStep::Hold,
        }
    }

    fn copy_end(&mut self, message: Message) -> Result<ClientStep<Frame>, Violation> {
        if message.tag() == b'f' {
            report::string_body(&message)?;
        } else {
            message.parse(|_| Some(()))?;
        }
        let Some(request) = self.copy_request() else { return Ok(ClientStep::Hold) };
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

    /// The command whose rows or completion come next.
    fn running(&self) -> Option<RequestId> {
        match self.outstanding.front()? {
            Expected::Simple { next, left, .. } if *left > 0 => Some(*next),
            Expected::Execute { requests, .. } => Some(requests.start),
            _ => None,
        }
    }

    /// The command that a notice comes from.
    fn speaking(&self) -> Option<RequestId> {
        match self.outstanding.front()? {
            Expected::Parse { requests, .. } => Some(requests.start),
            _ => self.running(),
        }
    }

    /// A command is complete (`C`, `I`) or suspended (`s`).
    fn completed(&mut self, message: Message) -> Result<UpstreamStep<Frame>, Violation> {
        let ending = match message.tag() {
            b'C' => Ending::Completed(String::from_utf8_lossy(&report::string_body(&message)?).into_owned()),
            b'I' => Ending::Completed(String::new()),
            _ => Ending::Suspended,
        };
        self.copy = Copy::No;
        self.swallowed = 0;
        match self.outstanding.front_mut() {
            Some(Expected::Simple { next, left, sent, last_tag, .. })
                if *left > 0 && ending != Ending::Suspended =>
            {
                let request = *next;
                // The last one ends with ReadyForQuery: what our grammar took for one statement may be several to the server.
                if *left == 1 {
                    if let Ending::Completed(tag) = ending {
                        *last_tag = Some(tag);
                    }
                } else {
                    if let Some(sent) = sent.pop_front() {
                        self.session.ended(sent, true);
                    }
                    *next += 1;
                    *left -= 1;
                    self.ended.push_back(Ended { request, ending });
                }
                Ok(disclose(Some(request), 0, message))
            }
            Some(Expected::Execute { requests, sent, .. }) => {
                let (requests, sent) = (requests.clone(), std::mem::take(sent));
                let request = requests.start;
                self.outstanding.pop_front();
                self.ended_all(sent, true);
                self.end(requests, &ending);
                self.pass_copy_ends();
                Ok(disclose(Some(request), 0, message))
            }
            _ => Err(unexpected(&message)),
        }
    }

    fn end(&mut self, requests: std::ops::Range<RequestId>, ending: &Ending) {
        self.ended.extend(requests.map(|request| Ended { request, ending: ending.clone() }));
    }

    fn ended_all(&mut self, sent: impl IntoIterator<Item = Sent>, completed: bool) {
        for sent in sent {
            self.session.ended(sent, completed);
        }
    }

    fn close_settled(&mut self, kind: u8, name: &[u8], naming: Naming) {
        match kind {
            b'S' => self.statements.settled(name, naming),
            _ => self.portals.settled(name, naming),
        }
    }

    fn pass_copy_ends(&mut self) {
        while matches!(self.outstanding.front(), Some(Expected::CopyEnd)) {
            self.outstanding.pop_front();
        }
    }

    fn ready(&mut self, message: Message) -> Result<UpstreamStep<Frame>, Violation> {
        let status =
            message.parse(|fields| fields.u8().filter(|status| matches!(status, b'I' | b'T' | b'E')))?;
        self.copy = Copy::No;
        self.pass_copy_ends();
        match self.outstanding.pop_front() {
            Some(Expected::Sync) => {}
            Some(Expected::Simple { next, left, sent, last_tag, .. }) => {
                if let Some(tag) = last_tag.filter(|_| left > 0) {
                    self.ended_all(sent, true);
                    self.ended.push_back(Ended { request: next, ending: Ending::Completed(tag) });
                } else if left > 0 {
                    return Err(unexpected(&message));
                }
            }
            // A COPY that failed before it read anything did not swallow the Sync that came with it.
            None if self.swallowed > 0 => {
                self.swallowed -= 1;
                self.skipping = false;
                self.batch += 1;
            }
            other => {
                self.outstanding.extend(other);
                return Err(unexpected(&message));
            }
        }
        if status == b'I' {
            self.portals.forget_confirmed();
            if std::mem::take(&mut self.defining) {
                self.catalog.look_soon();
            }
        }
        self.session.ready(match status {
            b'I' => Transaction::Idle,
            b'T' => Transaction::Open,
            _ => Transaction::Failed,
        });
        self.pass_copy_ends();
        Ok(UpstreamStep::Relay(message.into()))
    }

    /// An error, which ends what runs and, in an extended query, the rest of its batch.
    fn error(&mut self, message: Message) -> Result<UpstreamStep<Frame>, Violation> {
        let report = Report::read(&message)?;
        if report.severity != "ERROR" {
            self.speechless = true;
            return Ok(disclose(self.running(), 0, message));
        }
        self.copy = Copy::No;
        self.session.failed();
        self.pass_copy_ends();
        match self.outstanding.front_mut() {
            // An error of the commit that a Sync makes, or one that nothing caused.
            None | Some(Expected::Sync) => Ok(disclose(None, 0, message)),
            Some(Expected::Simple { next, left, sent, .. }) => {
                let (first, count, sent) = (*next, std::mem::take(left), std::mem::take(sent));
                self.ended_all(sent, false);
                for request in first..first + count as RequestId {
                    let ending =
                        if request == first { Ending::Failed(report.code.clone()) } else { Ending::Skipped };
                    self.ended.push_back(Ended { request, ending });
                }
                Ok(disclose((count > 0).then_some(first), 0, message))
            }
            Some(Expected::Poison { .. }) => self.refused(&report),
            Some(_) => {
                let failed = self.outstanding.pop_front().expect("the front is there");
                let request = self.drop_expected(failed, &Ending::Failed(report.code), Naming::Failed);
                self.pass_over();
                Ok(disclose(request, 0, message))
            }
        }
    }

    /// A poison failed, as it must: the client gets our words.
    fn refused(&mut self, report: &Report) -> Result<UpstreamStep<Frame>, Violation> {
        let Some(Expected::Poison { requests, refusal, instead_of }) = self.outstanding.pop_front() else {
            return Err(Violation("no refusal is under way".into()));
        };
        if report.code != "42601" {
            return Err(Violation(format!("the upstream answered a refused command with {}", report.code)));
        }
        let request = requests.start;
        self.end(requests, &Ending::Refused);
        match instead_of {
            Poisoned::Query => self.outstanding.push_front(Expected::Sync),
            Poisoned::Parse(name) => {
                self.statements.settled(&name, Naming::Failed);
                self.pass_over();
            }
            Poisoned::Execute => self.pass_over(),
        }
        Ok(disclose(Some(request), 0, report::refusal(&refusal)))
    }

    /// After an error in an extended query the server passes over everything up to the next Sync.
    fn pass_over(&mut self) {
        while let Some(expected) = self.outstanding.pop_front() {
            if matches!(expected, Expected::Sync) {
                self.outstanding.push_front(expected);
                return;
            }
            self.drop_expected(expected, &Ending::Skipped, Naming::PassedOver);
        }
        self.skipping = true;
    }

    /// Ends what was expected without having come; tells which command it was.
    fn drop_expected(&mut self, expected: Expected, ending: &Ending, naming: Naming) -> Option<RequestId> {
        match expected {
            Expected::Parse { requests, name, sent } => {
                self.statements.settled(&name, naming);
                self.ended_all(sent, false);
                let first = requests.start;
                self.end(requests, ending);
                Some(first)
            }
            Expected::Bind { name, sent } => {
                self.portals.settled(&name, naming);
                self.ended_all(sent, false);
                None
            }
            Expected::Close { kind, name, sent } => {
                self.close_settled(kind, &name, Naming::PassedOver);
                self.ended_all(sent, false);
                None
            }
            Expected::Execute { requests, sent, .. } => {
                self.ended_all(sent, false);
                let first = requests.start;
                self.end(requests, ending);
                Some(first)
            }
            Expected::Simple { next, left, sent, .. } => {
                self.ended_all(sent, false);
                self.end(next..next + left as RequestId, ending);
                Some(next)
            }
            Expected::Poison { requests, instead_of, .. } => {
                if let Poisoned::Parse(name) = instead_of {
                    self.statements.settled(&name, Naming::PassedOver);
                }
                let first = requests.start;
                self.end(requests, &Ending::Refused);
                Some(first)
            }
            Expected::Describe | Expected::Sync | Expected::CopyEnd => None,
        }
    }

    /// Takes the front when it is what `message` answers.
    fn answer(
        &mut self,
        message: &Message,
        matches: impl FnOnce(&Expected) -> bool,
    ) -> Result<Expected, Violation> {
        match self.outstanding.pop_front() {
            Some(expected) if matches(&expected) => Ok(expected),
            other => {
                if let Some(other) = other {
                    self.outstanding.push_front(other);
                }
                Err(unexpected(message))
            }
        }
    }

    fn parameter_status(&mut self, message: Message) -> Result<UpstreamStep<Frame>, Violation> {
        let (name, value) = message.parse(|fields| Some((fields.string()?, fields.string()?)))?;
        let (name, value) = (String::from_utf8_lossy(&name), String::from_utf8_lossy(&value));
        if name.eq_ignore_ascii_case("client_encoding") && !is_utf8(&value) {
            return Err(Violation(format!("client_encoding became {value}")));
        }
        self.session.parameter_status(&name, &value);
        Ok(UpstreamStep::Relay(message.into()))
    }

    fn on_upstream_message(&mut self, message: Message) -> Result<UpstreamStep<Frame>, Violation> {
        match message.tag() {
            b'1' => {
                let expected =
                    self.answer(&message, |expected| matches!(expected, Expected::Parse { .. }))?;
                let Expected::Parse { requests, name, sent } = expected else {
                    return Err(unexpected(&message));
                };
                self.statements.settled(&name, Naming::Done);
                self.ended_all(sent, true);
                let request = requests.start;
                self.end(requests, &Ending::Completed(String::new()));
                Ok(disclose(Some(request), 0, message))
            }
            b'2' => {
                let expected = self.answer(&message, |expected| matches!(expected, Expected::Bind { .. }))?;
                if let Expected::Bind { name, sent } = expected {
                    self.portals.settled(&name, Naming::Done);
                    self.ended_all(sent, true);
                }
                Ok(UpstreamStep::Relay(message.into()))
            }
            b'3' => {
                let expected =
                    self.answer(&message, |expected| matches!(expected, Expected::Close { .. }))?;
                if let Expected::Close { kind, name, sent } = expected {
                    self.close_settled(kind, &name, Naming::Done);
                    self.ended_all(sent, true);
                }
                Ok(UpstreamStep::Relay(message.into()))
            }
            b't' if matches!(self.outstanding.front(), Some(Expected::Describe)) => {
                Ok(UpstreamStep::Relay(message.into()))
            }
            b'n' => {
                self.answer(&message, |expected| matches!(expected, Expected::Describe))?;
                Ok(UpstreamStep::Relay(message.into()))
            }
            b'T' if matches!(self.outstanding.front(), Some(Expected::Describe)) => {
                self.outstanding.pop_front();
                Ok(UpstreamStep::Relay(message.into()))
            }
            b'T' | b'H' | b'c' => {
                let request = self.running().ok_or_else(|| unexpected(&message))?;
                Ok(disclose(Some(request), 0, message))
            }
            b'G' => self.copy_in_asked(message),
            b'C' | b'I' | b's' => self.completed(message),
            b'Z' => self.ready(message),
            b'E' => self.error(message),
            b'N' => Ok(disclose(self.speaking(), 0, message)),
            b'A' => Ok(disclose(None, 0, message)),
            b'S' => self.parameter_status(message),
            _ => Err(unexpected(&message)),
        }
    }
}

const FUNCTION_CALL: &str = "function call by number";

impl Protocol for Conversation {
    type ClientFrame = Frame;
    type UpstreamFrame = Frame;

    fn on_client(&mut self, frame: Frame) -> Result<ClientStep<Frame>, Violation> {
        self.settle_asked();
        if self.outstanding.len() >= limits::OUTSTANDING_MAX {
            return Ok(ClientStep::Wait(frame));
        }
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
            b'F' => Ok(self.function_call(message)),
            tag => Err(Violation(format!("message {:?} is not known", char::from(tag)))),
        }
    }

    fn on_upstream(&mut self, frame: Frame) -> Result<UpstreamStep<Frame>, Violation> {
        self.settle_asked();
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
            Frame::Message(message) => self.on_upstream_message(message),
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
        self.outstanding.push_back(Expected::Poison { requests, refusal: refusal.clone(), instead_of });
        Refused { upstream: upstream.into() }
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
            EndReason::RowLimit => {
                (report::ADMIN_SHUTDOWN, "terminating connection: more rows than may be shown; add a LIMIT")
            }
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
    let command = |statement: Bytes, meaning: &Arc<Meaning>| Command {
        phase,
        statement,
        parameters: parameters.to_vec(),
        meaning: meaning.clone(),
    };
    if let [statement] = &analysis.statements[..] {
        return vec![command(text.clone(), &statement.meaning)];
    }
    let commands: Vec<Command> = analysis
        .statements
        .iter()
        .map(|statement| command(text.slice(statement.range.clone()), &statement.meaning))
        .collect();
    if commands.is_empty() { vec![command(text.clone(), &nothing())] } else { commands }
}

/// What an empty statement means.
fn nothing() -> Arc<Meaning> {
    static NOTHING: std::sync::OnceLock<Arc<Meaning>> = std::sync::OnceLock::new();
    let facts = || Facts { kind: "empty".into(), resolved: true, ..Facts::default() };
    NOTHING
        .get_or_init(|| Arc::new(Meaning { actions: Vec::new(), effect: Effect::Reads, facts: facts() }))
        .clone()
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
    statement.meaning.facts.kind.starts_with("copy") || is_opaque(&statement.meaning)
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
