//! The PostgreSQL machine alone: message sequences and what it makes of them. No server, no policy; a test plays both.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BufMut;
use gatebook_wire::postgres::conversation::{CatalogSource, Conversation};
use gatebook_wire::postgres::frame::{Frame, Message};
use gatebook_wire::postgres::report::{Report, Severity, error, put_string, ready_for_query};
use gatebook_wire::protocol::{ClientStep, Ended, Ending, Protocol, Refusal, RefusalKind, UpstreamStep};
use gatebook_wire::sql::{Catalog, Masking, Session, Start};

struct NoCatalog;

impl CatalogSource for NoCatalog {
    fn snapshot(&self) -> Arc<Catalog> {
        Arc::new(Catalog::empty())
    }

    fn look_soon(&self) {}
}

fn conversation() -> Conversation {
    let start =
        Start { database: "d".into(), role: "r".into(), search_path: None, masking: Masking::default() };
    Conversation::new(Session::new(start, &Catalog::empty()), Arc::new(NoCatalog))
}

fn query(sql: &str) -> Frame {
    Message::build(b'Q', |out| put_string(out, sql)).into()
}

fn parse(name: &str, sql: &str) -> Frame {
    let body = |out: &mut bytes::BytesMut| {
        put_string(out, name);
        put_string(out, sql);
        out.put_i16(0);
    };
    Message::build(b'P', body).into()
}

fn bind(portal: &str, statement: &str) -> Frame {
    let body = |out: &mut bytes::BytesMut| {
        put_string(out, portal);
        put_string(out, statement);
        out.put_slice(&[0; 6]);
    };
    Message::build(b'B', body).into()
}

fn execute(portal: &str) -> Frame {
    let body = |out: &mut bytes::BytesMut| {
        put_string(out, portal);
        out.put_i32(0);
    };
    Message::build(b'E', body).into()
}

fn bare(tag: u8) -> Frame {
    Message::build(tag, |_| ()).into()
}

fn complete(tag: &str) -> Frame {
    Message::build(b'C', |out| put_string(out, tag)).into()
}

fn ready(status: u8) -> Frame {
    ready_for_query(status).into()
}

fn failure(code: &str) -> Frame {
    error(Severity::Error, code, "it failed", None).into()
}

fn copy_in() -> Frame {
    Message::build(b'G', |out| out.put_slice(&[0, 0, 0])).into()
}

/// What became of a client's frame, in a word; the tag of what goes on.
fn say(machine: &mut Conversation, frame: Frame) -> String {
    match machine.on_client(frame).expect("the client keeps to the protocol") {
        ClientStep::Ask(intent) => {
            format!("ask {} ×{}", char::from(intent.frame.tag()), intent.commands.len())
        }
        ClientStep::Relay(frame) => format!("relay {}", char::from(frame.tag())),
        ClientStep::Feed(request, _) => format!("feed {request}"),
        ClientStep::Hold => "hold".into(),
        ClientStep::Wait(_) => "wait".into(),
        ClientStep::Farewell(_) => "farewell".into(),
    }
}

/// What the client is told of an upstream's frame.
fn hear(machine: &mut Conversation, frame: Frame) -> Frame {
    match machine.on_upstream(frame).expect("the upstream keeps to the protocol") {
        UpstreamStep::Disclose(disclosure) | UpstreamStep::Account(_, disclosure) => disclosure.frame,
        UpstreamStep::Relay(frame) => frame,
        UpstreamStep::Hold => panic!("nothing is held here"),
    }
}

fn endings(machine: &mut Conversation) -> Vec<(u64, Ending)> {
    let ended: VecDeque<Ended> = std::mem::take(machine.ended());
    ended.into_iter().map(|ended| (ended.request, ended.ending)).collect()
}

fn no() -> Refusal {
    Refusal { kind: RefusalKind::NotPermitted, message: "this".into(), hint: None }
}

fn code(frame: &Frame) -> String {
    match frame {
        Frame::Message(message) => Report::read(message).expect("a report").code,
        Frame::Run(_) => panic!("not a report"),
    }
}

#[test]
fn a_refused_parse_fails_upstream_and_the_rest_of_its_batch_goes_nowhere() {
    let mut machine = conversation();
    assert_eq!(say(&mut machine, parse("", "drop table t")), "ask P ×1");
    let poison = machine.refuse(&no()).upstream;
    assert_eq!(poison.tag(), b'P');
    assert!(!poison.bytes().windows(4).any(|window| window == b"drop"), "nothing of it goes on");
    for frame in [bind("", ""), execute(""), query("select 1")] {
        assert_eq!(say(&mut machine, frame), "hold");
    }
    assert_eq!(say(&mut machine, bare(b'S')), "relay S");
    assert_eq!(code(&hear(&mut machine, failure("42601"))), "42501");
    assert_eq!(hear(&mut machine, ready(b'I')), ready(b'I'));
    assert_eq!(endings(&mut machine), [(0, Ending::Refused)]);
    assert_eq!(say(&mut machine, query("select 1")), "ask Q ×1", "the connection lives on");
}

#[test]
fn a_poison_that_does_not_fail_as_it_must_ends_the_session() {
    let mut machine = conversation();
    say(&mut machine, query("drop table t"));
    let _ = machine.refuse(&no());
    assert!(machine.on_upstream(complete("DROP TABLE")).is_err());
}

#[test]
fn names_that_the_server_would_cut_are_refused() {
    let long = "n".repeat(64);
    for frame in [parse(&long, "select 1"), bind(&long, ""), bind("", &long), execute(&long)] {
        assert!(conversation().on_client(frame).is_err());
    }
    assert!(conversation().on_client(parse(&long[..63], "select 1")).is_ok());
}

#[test]
fn a_name_of_an_earlier_batch_waits_for_its_answer() {
    let mut machine = conversation();
    assert_eq!(say(&mut machine, parse("s", "select 1")), "ask P ×1");
    assert_eq!(say(&mut machine, bind("", "s")), "relay B", "within the batch there is no doubt");
    assert_eq!(say(&mut machine, bare(b'S')), "relay S");
    assert_eq!(say(&mut machine, bind("", "s")), "wait");
    for tag in [b'1', b'2'] {
        hear(&mut machine, bare(tag));
    }
    hear(&mut machine, ready(b'I'));
    assert_eq!(say(&mut machine, bind("", "s")), "relay B");
}

#[test]
fn every_statement_of_a_parse_that_holds_several_has_an_end() {
    let mut machine = conversation();
    assert_eq!(say(&mut machine, parse("", "select 1; select 2")), "ask P ×2");
    say(&mut machine, bare(b'S'));
    hear(&mut machine, failure("42601"));
    hear(&mut machine, ready(b'I'));
    assert_eq!(endings(&mut machine).len(), 2);
}

#[test]
fn each_statement_of_a_text_has_its_own_outcome() {
    let mut machine = conversation();
    assert_eq!(say(&mut machine, query("select 1; select 2; select 3")), "ask Q ×3");
    hear(&mut machine, complete("SELECT 1"));
    hear(&mut machine, failure("22012"));
    hear(&mut machine, ready(b'I'));
    let ended = endings(&mut machine);
    assert_eq!(
        ended,
        [
            (0, Ending::Completed("SELECT 1".into())),
            (1, Ending::Failed("22012".into())),
            (2, Ending::Skipped)
        ]
    );
}

/// The server ignores a Sync while COPY reads from the client; one that it did not come to read, because COPY failed before its
/// first read, is answered all the same. Taking that answer for a violation ended sessions whose COPY met a trigger's error.
#[test]
fn a_copy_that_fails_before_it_reads_leaves_its_sync_to_be_answered() {
    let mut machine = conversation();
    for frame in [parse("", "copy t from stdin"), bind("", ""), execute(""), bare(b'S')] {
        say(&mut machine, frame);
    }
    for tag in [b'1', b'2'] {
        hear(&mut machine, bare(tag));
    }
    hear(&mut machine, copy_in());
    hear(&mut machine, failure("55000"));
    hear(&mut machine, ready(b'I'));
    assert_eq!(say(&mut machine, query("select 1")), "ask Q ×1");
}

#[test]
fn a_sync_that_copy_swallowed_is_not_waited_for() {
    let mut machine = conversation();
    for frame in [parse("", "copy t from stdin"), bind("", ""), execute(""), bare(b'S')] {
        say(&mut machine, frame);
    }
    for tag in [b'1', b'2'] {
        hear(&mut machine, bare(tag));
    }
    hear(&mut machine, copy_in());
    assert_eq!(say(&mut machine, bare(b'c')), "feed 1");
    assert_eq!(say(&mut machine, bare(b'S')), "relay S");
    hear(&mut machine, complete("COPY 0"));
    hear(&mut machine, ready(b'I'));
    assert!(
        machine.on_upstream(ready(b'I')).is_err(),
        "one Sync was swallowed, one answered, and no more are owed"
    );
}

#[test]
fn an_encoding_other_than_utf8_ends_the_session() {
    let status = |value: &'static str| {
        let body = |out: &mut bytes::BytesMut| {
            put_string(out, "client_encoding");
            put_string(out, value);
        };
        Frame::from(Message::build(b'S', body))
    };
    assert!(conversation().on_upstream(status("UTF8")).is_ok());
    assert!(conversation().on_upstream(status("SJIS")).is_err());
}

#[test]
fn frames_that_nobody_knows_are_violations() {
    for tag in (0..=u8::MAX).filter(|tag| !b"QPBDECSHFXcfd".contains(tag)) {
        assert!(conversation().on_client(bare(tag)).is_err(), "{:?}", char::from(tag));
    }
    // Of the server: those of a login and of replication, and what nothing has asked for.
    for tag in (0..=u8::MAX).filter(|tag| !b"NA".contains(tag)) {
        assert!(conversation().on_upstream(bare(tag)).is_err(), "{:?}", char::from(tag));
    }
    assert!(conversation().on_client(Message::build(b'Q', |out| out.put_slice(b"a\0b\0")).into()).is_err());
}

#[test]
fn the_texts_of_prepared_statements_are_bounded_in_bytes() {
    let mut machine = conversation();
    let text = format!("select '{}'", "x".repeat(16 << 20));
    let forbidden = |machine: &mut Conversation, name: &str| match machine.on_client(parse(name, &text)) {
        Ok(ClientStep::Ask(intent)) => intent.forbidden.is_some(),
        other => panic!("not asked: {other:?}"),
    };
    for name in 0..7 {
        assert!(!forbidden(&mut machine, &name.to_string()));
        say(&mut machine, bare(b'S'));
        hear(&mut machine, bare(b'1'));
        hear(&mut machine, ready(b'I'));
    }
    assert!(forbidden(&mut machine, "8"));
    let mut machine = conversation();
    for _ in 0..20 {
        assert!(!forbidden(&mut machine, ""), "the same name again takes no more room");
        say(&mut machine, bare(b'S'));
        hear(&mut machine, bare(b'1'));
        hear(&mut machine, ready(b'I'));
    }
}

#[test]
fn a_portal_too_many_is_refused_and_the_connection_lives_on() {
    let mut machine = conversation();
    let bound = || -> Frame { Message::build(b'2', |_| ()).into() };
    let parsed = || -> Frame { Message::build(b'1', |_| ()).into() };
    assert_eq!(say(&mut machine, parse("s", "select 1")), "ask P ×1");
    hear(&mut machine, parsed());
    for number in 0..gatebook_wire::limits::NAMES_MAX {
        assert_eq!(say(&mut machine, bind(&format!("p{number}"), "s")), "relay B");
        hear(&mut machine, bound());
    }
    endings(&mut machine);
    assert_eq!(say(&mut machine, bind("one more", "s")), "ask B ×1");
    assert_eq!(machine.refuse(&no()).upstream.tag(), b'P', "nothing of it goes on");
    assert_eq!(say(&mut machine, execute("one more")), "hold");
    assert_eq!(say(&mut machine, bare(b'S')), "relay S");
    assert_eq!(code(&hear(&mut machine, failure("42601"))), "42501");
    hear(&mut machine, ready(b'I'));
    assert_eq!(endings(&mut machine), [(1, Ending::Refused)]);
    // The end of the transaction closed them all.
    assert_eq!(say(&mut machine, bind("p0", "s")), "relay B");
}

#[test]
fn a_notice_belongs_to_the_command_that_it_comes_from() {
    let mut machine = conversation();
    say(&mut machine, parse("", "select 1"));
    say(&mut machine, bare(b'H'));
    let notice: Frame = Message::build(b'N', |out| out.put_u8(0)).into();
    let step = machine.on_upstream(notice).expect("the upstream keeps to the protocol");
    assert!(matches!(step, UpstreamStep::Disclose(disclosure) if disclosure.request == Some(0)));
}
