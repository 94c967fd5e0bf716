//! What each fuzz target does with its bytes. A panic is a finding.

#[path = "model.rs"]
mod model;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use gatebook_wire::action::Effect;
use gatebook_wire::postgres::conversation::{CatalogSource, Conversation};
use gatebook_wire::postgres::frame::{Decoder, Frame, Message, Run};
use gatebook_wire::postgres::report::{Report, put_string};
use gatebook_wire::protocol::{ClientStep, Excess, Protocol, Refusal, RefusalKind, RequestId, UpstreamStep};
use gatebook_wire::sql::{Catalog, Masking, Session, Start};
use model::Server;

/// The decoders by bytes: however a stream is torn, it is cut alike, and nothing is lost of it.
pub(crate) fn frames(data: &[u8]) {
    let Some((&torn, stream)) = data.split_first() else { return };
    for decoder in [Decoder::client, Decoder::upstream] {
        let whole = cut(decoder(1 << 16), stream, stream.len().max(1));
        let pieces = cut(decoder(1 << 16), stream, usize::from(torn) + 1);
        assert_eq!(whole, pieces);
    }
}

/// The messages of a stream by tag and bytes, runs joined, and whether it ended in something that is none.
fn cut(mut decoder: Decoder, stream: &[u8], step: usize) -> (Vec<(u8, Vec<u8>, u64)>, bool) {
    let mut buffer = BytesMut::new();
    let mut found: Vec<(u8, Vec<u8>, u64)> = Vec::new();
    let mut total = 0;
    for piece in stream.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(None) => break,
                Err(_) => return (found, true),
                Ok(Some(frame)) => {
                    total += frame.bytes().len();
                    match (&frame, found.last_mut()) {
                        (Frame::Run(run), Some(last)) if last.0 == run.tag => {
                            last.1.extend_from_slice(&run.bytes);
                            last.2 += run.completed;
                        }
                        (Frame::Run(run), _) => found.push((run.tag, run.bytes.to_vec(), run.completed)),
                        (Frame::Message(message), _) => {
                            found.push((message.tag(), message.bytes().to_vec(), 1))
                        }
                    }
                }
            }
        }
    }
    assert_eq!(total + buffer.len(), stream.len(), "bytes were lost or made up");
    (found, false)
}

/// The analyser on texts: it ends, says the same twice, and never calls a read what the text's own first word says is none.
pub(crate) fn analysis(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let session = session();
    let analysis = session.analyze(&text, &Catalog::empty());
    assert_eq!(*session.analyze(&text, &Catalog::empty()), *analysis);
    let mut end = 0;
    for statement in &analysis.statements {
        assert!(statement.range.start >= end && statement.range.end <= text.len(), "{:?}", statement.range);
        end = statement.range.end;
        let source = &text[statement.range.clone()];
        let word: String = source.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
        let changes = [
            "insert", "update", "delete", "merge", "create", "drop", "alter", "truncate", "grant", "call",
            "do",
        ];
        if changes.contains(&word.to_ascii_lowercase().as_str()) {
            assert_eq!(statement.meaning.effect, Effect::MayChange, "{source}");
            assert!(!statement.meaning.actions.is_empty(), "{source}");
        }
    }
    // PostgreSQL's parser takes what the analysis understood.
    let opaque = |kind: &str| kind == "opaque";
    if analysis.statements.iter().all(|statement| !opaque(&statement.meaning.facts.kind)) {
        assert!(
            pg_query::parse(&text, pg_query::ParserOptions::DISABLE_ESCAPE_STRING_WARNING).is_ok(),
            "{text}"
        );
    }
}

struct NoCatalog;

impl CatalogSource for NoCatalog {
    fn snapshot(&self) -> Arc<Catalog> {
        Arc::new(Catalog::empty())
    }

    fn look_soon(&self) {}
}

fn session() -> Session {
    let start =
        Start { database: "d".into(), role: "r".into(), search_path: None, masking: Masking::default() };
    Session::new(start, &Catalog::empty())
}

/// What is never to be found upstream.
const SECRET: &str = "SELECT 'rows 7'";

const TEXTS: [&str; 12] = [
    "SELECT 'rows 1'",
    "SELECT 'rows 3'",
    "SELECT 'rows 0'",
    "SELECT 'fails'",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "COPY t FROM STDIN",
    "",
    SECRET,
    "SELECT 'rows 2'; SELECT 'rows 1'",
    "SELECT 'rows 1'; COPY t FROM STDIN; SELECT 'rows 1'",
];

const NAMES: [&str; 3] = ["", "a", "b"];

/// The conversation by operations, between a client that says anything and a server that keeps to the protocol.
pub(crate) fn conversation(data: &[u8]) {
    let mut stage = Stage {
        machine: Conversation::new(session(), Arc::new(NoCatalog)),
        upstream: Server::new(),
        direct: Server::new(),
        open: BTreeMap::new(),
        shown: Vec::new(),
        was_cut: false,
        choices: data.iter().copied().collect(),
    };
    while !stage.choices.is_empty() {
        if stage.choose(4) == 0 {
            stage.hear();
        } else if stage.upstream.is_copying() {
            // A server drops whatever else comes while it reads COPY data, with an error: no client sends any.
            while stage.hear() {}
            let frame = stage.copy_frame();
            stage.say(frame);
        } else {
            let frame = stage.frame();
            stage.say(frame);
        }
    }
    // COPY ends, the batch ends, everything is answered.
    for tag in [b'c', b'S', b'S'] {
        stage.say(Message::build(tag, |_| ()).into());
        while stage.hear() {}
    }
    assert!(stage.open.is_empty(), "without an end: {:?}", stage.open);
    assert!(!stage.upstream.texts.iter().any(|text| text.contains(SECRET)), "what was refused went on");
    if !stage.was_cut {
        let expected: Vec<String> = stage.direct.said.iter().map(brief).collect();
        assert_eq!(stage.shown, expected);
    }
}

struct Stage {
    machine: Conversation,
    upstream: Server,
    /// What would have happened without a gateway, were refused commands ones that fail.
    direct: Server,
    /// Commands that have not ended, and whether they run under limits.
    open: BTreeMap<RequestId, bool>,
    shown: Vec<String>,
    was_cut: bool,
    choices: VecDeque<u8>,
}

fn brief(frame: &Frame) -> String {
    match frame {
        Frame::Message(message) if message.tag() == b'E' => {
            let code = Report::read(message).expect("a report").code;
            // What is refused fails in the parser where there is no gateway.
            format!("E {}", if code == "42501" { "42601" } else { &code })
        }
        Frame::Message(message) if message.tag() == b'Z' => format!("Z {:?}", message.body()),
        frame => char::from(frame.tag()).to_string(),
    }
}

impl Stage {
    fn choose(&mut self, below: u8) -> u8 {
        self.choices.pop_front().unwrap_or(0) % below
    }

    fn frame(&mut self) -> Frame {
        let text = TEXTS[usize::from(self.choose(12))];
        let (name, portal) = (NAMES[usize::from(self.choose(3))], NAMES[usize::from(self.choose(2))]);
        let strings = |out: &mut BytesMut, all: &[&str]| all.iter().for_each(|text| put_string(out, text));
        let kind = if self.choose(2) == 0 { b'S' } else { b'P' };
        let message = match self.choose(14) {
            0 | 1 => Message::build(b'Q', |out| strings(out, &[text])),
            2 | 3 => Message::build(b'P', |out| {
                strings(out, &[name, text]);
                out.put_i16(0);
            }),
            4 | 5 => Message::build(b'B', |out| {
                strings(out, &[portal, name]);
                out.put_slice(&[0; 6]);
            }),
            6 | 7 => {
                let rows = self.choose(3);
                Message::build(b'E', |out| {
                    strings(out, &[portal]);
                    out.put_u32(rows.into());
                })
            }
            8 => Message::build(b'D', |out| {
                out.put_u8(kind);
                strings(out, &[if kind == b'S' { name } else { portal }]);
            }),
            9 => Message::build(b'C', |out| {
                out.put_u8(kind);
                strings(out, &[if kind == b'S' { name } else { portal }]);
            }),
            10 => Message::build(b'F', |out| {
                out.put_u32(4_000_000_000);
                out.put_slice(&[0; 6]);
            }),
            11 => Message::build(b'H', |_| ()),
            12 => return self.copy_frame(),
            _ => Message::build(b'S', |_| ()),
        };
        message.into()
    }

    /// COPY data, or their end.
    fn copy_frame(&mut self) -> Frame {
        match self.choose(4) {
            0 => Message::build(b'c', |_| ()).into(),
            1 => Message::build(b'f', |out| put_string(out, "no")).into(),
            _ => {
                let message = Message::build(b'd', |out| out.put_u8(b'1'));
                let bytes = message.bytes().clone();
                Frame::Run(Run { tag: b'd', bytes, resumes: 0, completed: 1, goes_on: false })
            }
        }
    }

    /// The client says something; what must wait for the upstream waits.
    fn say(&mut self, frame: Frame) {
        let mut frame = frame;
        let mut instead = frame.clone();
        loop {
            match self.machine.on_client(frame).expect("the client keeps to the protocol") {
                ClientStep::Ask(intent) => {
                    for request in (intent.first..).take(intent.commands.len()) {
                        assert_eq!(self.open.insert(request, false), None, "one number twice");
                    }
                    let secret = intent.commands.iter().any(|command| {
                        command.statement.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
                    });
                    if secret || intent.forbidden.is_some() {
                        let refusal =
                            Refusal { kind: RefusalKind::NotPermitted, message: "no".into(), hint: None };
                        instead = self.machine.refuse(&refusal).upstream;
                        self.upstream.take(&instead);
                    } else {
                        self.upstream.take(&intent.frame);
                        if self.choose(2) == 0 {
                            self.open.insert(intent.first, true);
                            if let Some(frame) = self.machine.limit() {
                                self.upstream.take(&frame);
                            }
                        }
                    }
                    break;
                }
                ClientStep::Relay(frame) | ClientStep::Feed(_, frame) | ClientStep::Farewell(frame) => {
                    self.upstream.take(&frame);
                    break;
                }
                ClientStep::Hold => break,
                ClientStep::Wait(again) => {
                    assert!(self.hear(), "it waits for what never comes");
                    frame = again;
                }
            }
        }
        self.direct.take(&instead);
    }

    /// The upstream says something; whether it had anything to say.
    fn hear(&mut self) -> bool {
        let Some(frame) = self.upstream.said.pop_front() else { return false };
        let mut step = self.machine.on_upstream(frame).expect("the upstream keeps to the protocol");
        if let UpstreamStep::Account(intent, disclosure) = step {
            self.open.extend((intent.first..).take(intent.commands.len()).map(|request| (request, false)));
            step = UpstreamStep::Disclose(disclosure);
        }
        match step {
            UpstreamStep::Disclose(disclosure) | UpstreamStep::Account(_, disclosure) => {
                let limited = disclosure.request.and_then(|request| self.open.get(&request).copied());
                if disclosure.rows > 0 && limited == Some(true) && self.choose(2) == 0 {
                    let request = disclosure.request;
                    let cut =
                        self.machine.cut(disclosure, 0, &Excess::Shown).expect("between rows it can be said");
                    assert!(cut.shown.is_none());
                    self.shown.push(brief(cut.error.as_ref().expect("rows are cut by an error")));
                    self.was_cut = true;
                    request.map(|request| self.open.insert(request, false));
                    if self.choose(2) == 0 {
                        self.upstream.cancel();
                    }
                } else {
                    self.shown.push(brief(&disclosure.frame));
                }
            }
            UpstreamStep::Relay(frame) => self.shown.push(brief(&frame)),
            UpstreamStep::Hold => {}
        }
        while let Some(frame) = self.machine.owed() {
            self.upstream.take(&frame);
        }
        while let Some(ended) = self.machine.ended().pop_front() {
            let known = self.open.remove(&ended.request);
            assert!(known.is_some(), "request {} ends and is not open", ended.request);
        }
        true
    }
}
