//! Durability is real: over a storage whose sync can be stalled and can fail, with the relay, the recorder and the writer's thread as they run.
//!
//! While a sync hangs, no byte of a write reaches the upstream and no byte of a read's answer reaches the client; when it fails, none ever does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use gatebook_ledger::event::{self, Account, Decoded};
use gatebook_ledger::reader::{self, Item};
use gatebook_ledger::{Kind, Memory};
use gatebook_wire::postgres::conversation::{CatalogSource, Conversation};
use gatebook_wire::postgres::frame::{Decoder, Frame, Message};
use gatebook_wire::postgres::report::{put_string, ready_for_query};
use gatebook_wire::protocol::EndReason;
use gatebook_wire::sql::{Catalog, Masking, Session, Start};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::{Exchange, People, Presented, Terms, relay};
use crate::config::LedgerConfig;
use crate::identity::{Principal, PrincipalKind};
use crate::link::Framed;
use crate::policy::{Live, Standing, Subject, SubjectKind, login};
use crate::record::{Book, Opened, Recorder, Unavailable};

const DEADLINE: Duration = Duration::from_secs(10);
/// So often the relay is given its turn before nothing is concluded: on one thread it runs whenever it was woken.
const TURNS: usize = 200;

struct NoCatalog;

impl CatalogSource for NoCatalog {
    fn snapshot(&self) -> Arc<Catalog> {
        Arc::new(Catalog::empty())
    }

    fn look_soon(&self) {}
}

/// A session between a client and an upstream that the test plays, over a ledger in memory.
struct Stage {
    storage: Memory,
    client: Peer,
    upstream: Peer,
    relay: tokio::task::JoinHandle<EndReason>,
    _folder: tempfile::TempDir,
}

struct Peer {
    stream: DuplexStream,
    decoder: Decoder,
    incoming: BytesMut,
}

impl Peer {
    fn new(stream: DuplexStream, decoder: Decoder) -> Peer {
        Peer { stream, decoder, incoming: BytesMut::new() }
    }

    async fn say(&mut self, messages: &[Message]) {
        for message in messages {
            self.stream.write_all(message.bytes()).await.expect("the relay listens");
        }
    }

    /// The tags of what arrives, up to and with `last`.
    async fn hear(&mut self, last: u8) -> Vec<char> {
        let hear = async {
            let mut tags = Vec::new();
            loop {
                while let Some(frame) =
                    self.decoder.decode(&mut self.incoming).expect("frames are well formed")
                {
                    tags.push(char::from(frame.tag()));
                    if frame.tag() == last && !matches!(&frame, Frame::Run(run) if run.goes_on) {
                        return tags;
                    }
                }
                assert_ne!(
                    self.stream.read_buf(&mut self.incoming).await.expect("the relay speaks"),
                    0,
                    "closed after {tags:?}"
                );
            }
        };
        tokio::time::timeout(DEADLINE, hear).await.expect("the message comes")
    }

    /// Whether nothing arrives, however often the relay has its turn.
    async fn hears_nothing(&mut self) -> bool {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        let mut byte = [0];
        let read = tokio::select! {
            biased;
            read = self.stream.read(&mut byte) => Some(read),
            () = std::future::ready(()) => None,
        };
        read.is_none()
    }
}

/// A recorder over a ledger in memory, and somebody who may open sessions.
struct Desk {
    storage: Memory,
    recorder: Recorder,
    standing: Arc<Standing>,
    policy: Arc<Live>,
    folder: tempfile::TempDir,
}

impl Desk {
    fn set() -> Desk {
        let folder = tempfile::tempdir().expect("a folder");
        let policies = folder.path().join("policies");
        std::fs::create_dir(&policies).expect("a folder");
        std::fs::write(policies.join("all.cedar"), "permit (principal, action, resource);")
            .expect("a policy");
        let storage = Memory::new();
        let config = LedgerConfig::for_test(folder.path());
        let (recorder, _) = Recorder::over(&config, Arc::new(storage.clone())).expect("the recorder starts");
        let subject = Subject::new(SubjectKind::User, "test", "someone", []).expect("a subject");
        let standing = Arc::new(Standing {
            scopes: Vec::new(),
            chain: vec![subject],
            resource: "db".into(),
            database: "d".into(),
            role: "r".into(),
            protocol: "postgres",
        });
        let policy = Arc::new(Live::open(&policies).expect("the policy loads"));
        Desk { storage, recorder, standing, policy, folder }
    }

    async fn open(&self, deadline: Duration) -> Result<Book, Unavailable> {
        let decision = self.policy.load().decide(&self.standing, &login("r"));
        let principal = Principal::for_test(PrincipalKind::User, "test", "someone", &[]);
        let opened = Opened {
            principal: &principal,
            delegation: None,
            standing: &self.standing,
            decision: &decision,
            source: ([127, 0, 0, 1], 1).into(),
            application: "test",
            expires: SystemTime::now() + DEADLINE,
            shadow: false,
        };
        self.recorder.open_session(&opened, deadline).await
    }
}

impl Stage {
    async fn set() -> Stage {
        Stage::set_behind(Arc::default(), 1 << 20).await
    }

    /// With a client behind a dam, and an upstream that has so much room for what it has not read.
    async fn set_behind(dam: Arc<Mutex<Dam>>, upstream_bytes: usize) -> Stage {
        let desk = Desk::set();
        let book = desk.open(DEADLINE).await.expect("the session opens");
        let Desk { storage, standing, policy, folder, .. } = desk;
        let catalog = Catalog::empty();
        let start =
            Start { database: "d".into(), role: "r".into(), search_path: None, masking: Masking::default() };
        let machine = Conversation::new(Session::new(start, &catalog), Arc::new(NoCatalog));
        let (client, ours) = tokio::io::duplex(1 << 19);
        let (upstream, theirs) = tokio::io::duplex(upstream_bytes);
        let terms = Terms {
            standing,
            shadow: false,
            allowances: Vec::new(),
            reads_when_written: false,
            tally: Arc::default(),
            cancel: None,
        };
        let relay = tokio::spawn(async move {
            let people = People {
                approvals: Arc::default(),
                presented: Presented::Nothing,
                locks: None,
                stays_out: Box::new(|_| false),
            };
            let mut exchange = Exchange::new(terms, policy, book, people);
            let ours = Dammed { stream: ours, dam };
            let client = Framed::new(ours, Decoder::client(1 << 20), BytesMut::new());
            let upstream = Framed::new(theirs, Decoder::upstream(1 << 20), BytesMut::new());
            let reason = relay(machine, client, upstream, &mut exchange).await;
            let (book, _, totals, _) = exchange.close();
            book.close(reason, &totals);
            reason
        });
        Stage {
            storage,
            client: Peer::new(client, Decoder::upstream(1 << 20)),
            upstream: Peer::new(upstream, Decoder::client(1 << 20)),
            relay,
            _folder: folder,
        }
    }

    /// Waits until the writer hangs in its sync.
    async fn stalled(&self) {
        let stalled = async {
            while self.storage.stalled_syncs() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, stalled).await.expect("the writer reaches its sync");
    }
}

fn query(sql: &str) -> Message {
    Message::build(b'Q', |out| put_string(out, sql))
}

fn complete(tag: &str) -> Message {
    Message::build(b'C', |out| put_string(out, tag))
}

fn row(value: &str) -> Message {
    Message::build(b'D', |out| {
        out.put_i16(1);
        out.put_i32(i32::try_from(value.len()).expect("short"));
        out.put_slice(value.as_bytes());
    })
}

fn description() -> Message {
    Message::build(b'T', |out| {
        out.put_i16(1);
        put_string(out, "c");
        out.put_slice(&[0; 18]);
    })
}

#[tokio::test]
async fn no_byte_of_a_write_reaches_the_upstream_while_the_disk_stalls() {
    let mut stage = Stage::set().await;
    stage.storage.stall_sync(true);
    stage.client.say(&[query("insert into t values (1)")]).await;
    stage.stalled().await;
    assert!(stage.upstream.hears_nothing().await, "the write went before its record was durable");
    stage.storage.stall_sync(false);
    assert_eq!(stage.upstream.hear(b'Q').await, ['Q']);
    stage.upstream.say(&[complete("INSERT 0 1"), ready_for_query(b'I')]).await;
    assert_eq!(stage.client.hear(b'Z').await, ['C', 'Z']);
}

#[tokio::test]
async fn no_byte_of_a_reads_answer_reaches_the_client_while_the_disk_stalls() {
    let mut stage = Stage::set().await;
    stage.storage.stall_sync(true);
    stage.client.say(&[query("select 1")]).await;
    // It overlaps the disk: the upstream has it, and answers.
    assert_eq!(stage.upstream.hear(b'Q').await, ['Q']);
    stage.upstream.say(&[description(), row("1"), complete("SELECT 1"), ready_for_query(b'I')]).await;
    stage.stalled().await;
    assert!(stage.client.hears_nothing().await, "the answer went before its command's record was durable");
    stage.storage.stall_sync(false);
    assert_eq!(stage.client.hear(b'Z').await, ['T', 'D', 'C', 'Z']);
}

#[tokio::test]
async fn a_failed_disk_ends_the_session_and_neither_write_nor_answer_ever_goes() {
    for (sql, overlaps) in [("insert into t values (1)", false), ("select 1", true)] {
        let mut stage = Stage::set().await;
        stage.storage.stall_sync(true);
        stage.client.say(&[query(sql)]).await;
        if overlaps {
            assert_eq!(stage.upstream.hear(b'Q').await, ['Q']);
            stage.upstream.say(&[description(), row("1"), complete("SELECT 1"), ready_for_query(b'I')]).await;
        }
        stage.stalled().await;
        stage.storage.fail_from(0);
        stage.storage.stall_sync(false);
        assert_eq!(stage.client.hear(b'E').await, ['E'], "{sql}: nothing but the last words");
        assert_eq!(
            tokio::time::timeout(DEADLINE, stage.relay).await.expect("it ends").expect("it does not panic"),
            EndReason::LedgerUnavailable
        );
        let mut rest = Vec::new();
        stage.upstream.stream.read_to_end(&mut rest).await.expect("the relay is gone");
        assert!(rest.is_empty(), "{sql}: {rest:?}");
    }
}

#[tokio::test]
async fn pipelined_writes_share_their_waits() {
    let mut stage = Stage::set().await;
    let before = stage.storage.calls();
    let inserts: Vec<Message> =
        (0..1000).map(|number| query(&format!("insert into t values ({number})"))).collect();
    let mut bytes = BytesMut::new();
    inserts.iter().for_each(|insert| bytes.extend_from_slice(insert.bytes()));
    stage.client.stream.write_all(&bytes).await.expect("the relay listens");
    for _ in 0..1000 {
        assert_eq!(stage.upstream.hear(b'Q').await, ['Q']);
    }
    let calls = stage.storage.calls() - before;
    assert!(calls <= 60, "{calls} writes and syncs for 1,000 pipelined inserts");
}

#[tokio::test]
async fn what_passed_in_each_channel_is_sealed_in_the_close_and_agrees_with_the_outcomes() {
    let mut stage = Stage::set().await;
    let asked = query("select 1");
    stage.client.say(std::slice::from_ref(&asked)).await;
    assert_eq!(stage.upstream.hear(b'Q').await, ['Q']);
    let answer = [description(), row("1"), row("2"), complete("SELECT 2"), ready_for_query(b'I')];
    stage.upstream.say(&answer).await;
    stage.client.hear(b'Z').await;
    let bye = Message::build(b'X', |_| ());
    stage.client.say(std::slice::from_ref(&bye)).await;
    assert_eq!(stage.upstream.hear(b'X').await, ['X']);
    drop((stage.client, stage.upstream));
    stage.relay.await.expect("it does not panic");
    let closed = async {
        loop {
            if let Some(closed) = session_of(&stage.storage) {
                return closed;
            }
            tokio::task::yield_now().await;
        }
    };
    let (account, closed) = tokio::time::timeout(DEADLINE, closed).await.expect("the close is recorded");
    assert_eq!(account.differences(&closed), Vec::<String>::new());
    let bytes = |messages: &[Message]| -> u64 { messages.iter().map(|one| one.bytes().len() as u64).sum() };
    let passed =
        |messages: &[Message]| event::Passed { bytes: bytes(messages), messages: messages.len() as u64 };
    let up = passed(&[asked, bye]);
    assert_eq!(
        closed.channels,
        Some(event::Channels {
            client_to_gateway: up,
            gateway_to_client: passed(&answer),
            gateway_to_upstream: up,
            upstream_to_gateway: passed(&answer),
        })
    );
    assert!(closed.shown_bytes.is_some_and(|shown| shown > 0 && shown <= bytes(&answer)), "{closed:?}");
}

/// What the entries of session 1 come to, and its close, once that is there.
fn session_of(storage: &Memory) -> Option<(Account, event::SessionClosedBody<'static>)> {
    let (mut account, mut close) = (Account::default(), None);
    reader::visit(storage, None, |item| {
        if let Item::Entry { entry, payload, .. } = item
            && entry.header.session == 1
        {
            match event::decode(entry.header.kind, entry.body, payload) {
                Ok(Decoded::SessionClosed(body)) => {
                    let reason = body.reason.into_owned().into();
                    close = Some(event::SessionClosedBody { reason, ..body });
                }
                Ok(event) => account.take(&event),
                Err(error) => panic!("{error}"),
            }
        }
        std::ops::ControlFlow::Continue(())
    })
    .expect("the ledger is read");
    close.map(|close| (account, close))
}

/// Its record was on its way when the one who waited for it gave up: without a close the session would stay open in the ledger for ever.
#[tokio::test]
async fn a_session_whose_opening_nobody_waited_for_is_closed_behind_it() {
    let desk = Desk::set();
    desk.storage.stall_sync(true);
    let refused = desk.open(Duration::from_millis(20)).await;
    assert!(matches!(refused, Err(Unavailable::Deadline)), "the disk stalls");
    desk.storage.stall_sync(false);
    desk.recorder.stop(DEADLINE);
    let mut closes = Vec::new();
    reader::visit(&desk.storage, None, |item| {
        if let Item::Entry { entry, .. } = item
            && entry.header.kind == Kind::SESSION_CLOSED
            && let Ok(Decoded::SessionClosed(body)) = event::decode(entry.header.kind, entry.body, None)
        {
            closes.push((entry.header.session, body.reason.into_owned()));
        }
        std::ops::ControlFlow::Continue(())
    })
    .expect("the ledger is read");
    assert_eq!(closes, [(1, "ledger_unavailable".to_owned())]);
}

/// What waits for the upstream has passed its gate, and only the upstream, which is not read while an answer is held, could make room for it: so what is
/// waited for is the held answer's record alone.
#[tokio::test]
async fn a_full_outbox_does_not_hide_the_record_that_an_answer_waits_for() {
    let mut stage = Stage::set_behind(Arc::default(), 64 << 10).await;
    stage.storage.stall_sync(true);
    stage.client.say(&[query("notify c")]).await;
    stage.stalled().await;
    let wide = query(&format!("select '{}'", "x".repeat(120 << 10)));
    for _ in 0..8 {
        stage.client.say(std::slice::from_ref(&wide)).await;
    }
    assert!(stage.upstream.hears_nothing().await);
    // The change goes, and behind it reads, until nothing more fits; their own records hang.
    stage.storage.pass_syncs();
    assert_eq!(stage.upstream.hear(b'Q').await, ['Q']);
    stage.upstream.say(&[complete("NOTIFY"), ready_for_query(b'I'), description()]).await;
    assert_eq!(stage.client.hear(b'Z').await, ['C', 'Z']);
    stage.stalled().await;
    assert!(stage.client.hears_nothing().await, "the answer went before its command's record was durable");
    stage.storage.stall_sync(false);
    assert_eq!(stage.client.hear(b'T').await, ['T']);
}

/// A client that takes nothing while the dam is closed, and everything at once when it opens.
struct Dammed {
    stream: DuplexStream,
    dam: Arc<Mutex<Dam>>,
}

#[derive(Default)]
struct Dam {
    closed: bool,
    waiting: Option<Waker>,
}

impl AsyncRead for Dammed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Dammed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut dam = self.dam.lock();
        if dam.closed {
            dam.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(dam);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The pumps stopped at a full outbox; when it emptied within one turn of the loop nothing woke the relay for the frames that it still held,
/// and the client waited for its CommandComplete until the session idled out.
#[tokio::test]
async fn an_outbox_that_empties_at_once_does_not_strand_what_waits_behind_it() {
    let wide = row(&"x".repeat(1000));
    // Where the outbox is full just as the last read has come depends on how much is read at once: so sizes are tried.
    for rows in (240..360).step_by(10) {
        let dam = Arc::new(Mutex::new(Dam::default()));
        let mut stage = Stage::set_behind(dam.clone(), 1 << 20).await;
        stage.client.say(&[query("select 1")]).await;
        assert_eq!(stage.upstream.hear(b'Q').await, ['Q']);
        // Once the answer's beginning is shown, the command's record is durable and nothing but the client holds the rest.
        stage.upstream.say(&[description()]).await;
        assert_eq!(stage.client.hear(b'T').await, ['T']);
        dam.lock().closed = true;
        let mut answer = BytesMut::new();
        (0..rows).for_each(|_| answer.extend_from_slice(wide.bytes()));
        answer.extend_from_slice(complete("SELECT").bytes());
        answer.extend_from_slice(ready_for_query(b'I').bytes());
        stage.upstream.stream.write_all(&answer).await.expect("the relay listens");
        assert!(stage.client.hears_nothing().await);
        let waiting = {
            let mut dam = dam.lock();
            dam.closed = false;
            dam.waiting.take()
        };
        waiting.expect("the relay waits for the client").wake();
        assert!(stage.client.hear(b'Z').await.ends_with(&['C', 'Z']), "{rows} rows");
    }
}
