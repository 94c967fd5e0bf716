//! Peers that break the protocol, or keep to it too slowly: nobody else notices, and nothing is believed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use gatebook_tests::World;
use gatebook_tests::gateway::PERMIT_ALL;
use gatebook_tests::machine::ANSWER_MAX;
use gatebook_tests::postgres::{APP, DATABASE};
use gatebook_tests::wire::{self, Client, GSS_REQUEST, SSL_REQUEST, frame, query, startup};

/// A gateway whose patience before login is short.
fn impatient() -> World {
    World::with(|setup| {
        setup
            .policies(PERMIT_ALL)
            .top("[limits]\nlogin_deadline = \"2s\"\nlogins_max = 4000\nlogins_per_source_max = 4000\n")
    })
}

/// How far a client is when it goes wrong.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Connected, nothing said.
    Clear,
    /// TLS was granted and has not begun.
    Granted,
    /// TLS stands, no startup message yet.
    Tls,
    /// The startup message was sent and the token is asked for.
    Token,
    /// Logged in.
    Session,
}

fn at(world: &World, step: Step) -> Client {
    let address = world.gateway.address();
    match step {
        Step::Clear => Client::clear(address),
        Step::Granted => {
            let mut client = Client::clear(address);
            client.send(&SSL_REQUEST).unwrap();
            let mut answer = [0];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, *b"S");
            client
        }
        Step::Tls => Client::tls(address, world.gateway.tls()),
        Step::Token => {
            let mut client = Client::tls(address, world.gateway.tls());
            client.send(&startup(&[("user", APP), ("database", DATABASE)])).unwrap();
            assert_eq!(client.receive().unwrap().unwrap().tag, b'R');
            client
        }
        Step::Session => world.client(),
    }
}

/// A message that announces a length and brings nothing.
fn announced(tag: &[u8], length: u32) -> Vec<u8> {
    [tag, &length.to_be_bytes()].concat()
}

/// What is sent at each step, each a way to be wrong.
fn wrongs() -> Vec<(Step, &'static str, Vec<u8>)> {
    let garbage: Vec<u8> = (0..4096_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    let mut all = Vec::new();
    for step in [Step::Clear, Step::Granted, Step::Tls] {
        all.push((step, "garbage", garbage.clone()));
        all.push((step, "http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()));
        all.push((step, "zeros", vec![0; 512]));
    }
    for step in [Step::Clear, Step::Tls] {
        all.push((step, "a startup of 1 GB", announced(b"", 1 << 30)));
        all.push((step, "a startup of 4 GB", announced(b"", u32::MAX)));
        all.push((step, "a startup of 3 bytes", announced(b"", 3)));
        all.push((step, "version 2", [announced(b"", 8), vec![0, 2, 0, 0]].concat()));
        all.push((step, "version 4", [announced(b"", 8), vec![0, 4, 0, 0]].concat()));
        all.push((
            step,
            "a startup without an end",
            [announced(b"", 13), vec![0, 3, 0, 0], b"user\0".to_vec()].concat(),
        ));
        all.push((
            step,
            "a cancel request without a key",
            [announced(b"", 8), vec![4, 0xd2, 0x16, 0x2e]].concat(),
        ));
        all.push((step, "an unknown cancel key", wire::cancel(&[1, 2, 3, 4, 5, 6, 7, 8])));
    }
    all.push((Step::Clear, "a login in clear", startup(&[("user", APP), ("database", DATABASE)])));
    all.push((
        Step::Tls,
        "replication",
        startup(&[("user", APP), ("database", DATABASE), ("replication", "true")]),
    ));
    all.push((
        Step::Tls,
        "another encoding",
        startup(&[("user", APP), ("database", DATABASE), ("client_encoding", "LATIN1")]),
    ));
    all.push((
        Step::Tls,
        "an unknown parameter",
        startup(&[("user", APP), ("database", DATABASE), ("session_preload_libraries", "x")]),
    ));
    all.push((
        Step::Tls,
        "options that set what is not listed",
        startup(&[("user", APP), ("database", DATABASE), ("options", "-c session_preload_libraries=x")]),
    ));
    all.push((
        Step::Tls,
        "a database that is not listed",
        startup(&[("user", APP), ("database", "postgres")]),
    ));
    all.push((
        Step::Tls,
        "a user that is not listed",
        startup(&[("user", "postgres"), ("database", DATABASE)]),
    ));
    all.push((Step::Token, "a query in place of the token", query("SELECT 1")));
    all.push((Step::Token, "a token of 1 GB", announced(b"p", 1 << 30)));
    all.push((Step::Token, "a token of 3 bytes", announced(b"p", 3)));
    all.push((Step::Token, "a token without its end", frame(b'p', b"token")));
    all.push((Step::Token, "an empty token", frame(b'p', b"\0")));
    all.push((Step::Token, "garbage", garbage.clone()));
    all.push((Step::Session, "garbage", garbage));
    all.push((Step::Session, "an unknown frame", frame(b'@', b"")));
    all.push((Step::Session, "a query of 1 GB", announced(b"Q", 1 << 30)));
    all.push((Step::Session, "a query of 3 bytes", announced(b"Q", 3)));
    all.push((Step::Session, "a query without its end", frame(b'Q', b"SELECT 1")));
    all.push((Step::Session, "a bind that promises more than it holds", frame(b'B', b"\0\0\0\0\xff\xff")));
    all.push((
        Step::Session,
        "a parse that promises more than it holds",
        frame(b'P', b"\0SELECT 1\0\x7f\xff"),
    ));
    all.push((Step::Session, "another token", frame(b'p', b"token\0")));
    all
}

#[test]
fn a_broken_peer_is_cut_off_and_nobody_else_notices() {
    let world = impatient();
    let mut other = world.client();
    for (step, what, bytes) in wrongs() {
        let mut client = at(&world, step);
        // The gateway may close while we still send: that is an answer too.
        let _ = client.send(&bytes);
        assert_eq!(other.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"], "after {what} at {step:?}");
        if matches!(step, Step::Tls) {
            // Where the token is asked for all the same, a good one must not help.
            let token = world.token();
            let _ = client.send(&frame(b'p', &[token.as_bytes(), b"\0"].concat()));
        }
        // A half frame in a session is no crime until the deadline of the session: hang up instead.
        if !matches!((step, what), (Step::Session, "a query of 1 GB")) {
            let answer = ended(client);
            assert!(!answer.contains(&b'Z'), "{what} at {step:?} logged in: {answer:?}");
        }
    }
    assert_eq!(world.client().simple("SELECT 2"), ["T", "D 2", "C SELECT 1", "Z I"]);
    world.gateway.ledger().assert_sound();
}

/// The tags of everything up to the end of the connection.
fn ended(mut client: Client) -> Vec<u8> {
    let mut tags = Vec::new();
    loop {
        match client.receive() {
            Ok(Some(message)) => tags.push(message.tag),
            Ok(None) => return tags,
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                panic!("the connection is not closed; it said {tags:?}")
            }
            // What is no message (a TLS alert, a reset) ends it as well.
            Err(_) => return tags,
        }
    }
}

/// From `negatives`: "handshake in the accept loop without deadline: one idle client blocks all".
#[test]
fn a_client_that_stops_at_any_step_is_let_go_and_holds_up_nobody() {
    let world = impatient();
    let mut stopped: Vec<Client> = Vec::new();
    for step in [Step::Clear, Step::Granted, Step::Tls, Step::Token] {
        stopped.push(at(&world, step));
    }
    for cut in 1..SSL_REQUEST.len() {
        let mut client = at(&world, Step::Clear);
        client.send(&SSL_REQUEST[..cut]).unwrap();
        stopped.push(client);
    }
    let whole = startup(&[("user", APP), ("database", DATABASE)]);
    for cut in [1, 4, 7, 8, whole.len() - 1] {
        let mut client = at(&world, Step::Tls);
        client.send(&whole[..cut]).unwrap();
        stopped.push(client);
    }
    let token = frame(b'p', &[world.token().as_bytes(), b"\0"].concat());
    for cut in [1, 4, 5, 6, token.len() - 1] {
        let mut client = at(&world, Step::Token);
        client.send(&token[..cut]).unwrap();
        stopped.push(client);
    }
    assert_eq!(world.client().simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    for client in stopped {
        assert!(!ended(client).contains(&b'Z'));
    }
    assert_eq!(world.client().simple("SELECT 2"), ["T", "D 2", "C SELECT 1", "Z I"]);
}

/// CVE-2021-23214: what was sent in clear behind the request must not count as part of the conversation.
#[test]
fn bytes_in_clear_behind_an_ssl_request_end_the_connection() {
    let world = impatient();
    let mut client = Client::clear(world.gateway.address());
    let injected = [&SSL_REQUEST[..], &startup(&[("user", APP), ("database", DATABASE)])].concat();
    client.send(&injected).unwrap();
    let mut answer = [0];
    let answered = client.read_exact(&mut answer);
    assert!(answered.is_err() || client.upgrade(world.gateway.tls()).is_err(), "it went on with {answer:?}");
    assert_eq!(world.client().simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
}

/// CVE-2021-23222: the same from the server's side.
#[test]
fn bytes_in_clear_behind_the_upstreams_answer_end_the_session() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 8];
            stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
            if stream.read_exact(&mut request).is_ok() {
                // TLS is granted, and an AuthenticationOk in clear comes along.
                let _ = stream.write_all(b"SR\0\0\0\x08\0\0\0\0");
                let _ = stream.read(&mut request);
            }
        }
    });
    let world = World::with(|setup| setup.policies(PERMIT_ALL).upstream(address));
    let mut client = Client::tls(world.gateway.address(), world.gateway.tls());
    let refused = client.login(APP, DATABASE, &world.token()).expect_err("nothing is behind this gateway");
    assert_eq!(refused.severity, "FATAL", "{refused:?}");
}

#[test]
fn gss_encryption_is_declined_and_tls_is_still_to_be_had() {
    let world = impatient();
    let mut client = Client::clear(world.gateway.address());
    client.send(&GSS_REQUEST).unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
    client.send(&SSL_REQUEST).unwrap();
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"S");
    let mut client = client.upgrade(world.gateway.tls()).unwrap();
    client.login(APP, DATABASE, &world.token()).unwrap();
    assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
}

#[test]
fn tls_from_the_first_byte_needs_the_protocols_name() {
    let world = impatient();
    let mut client = Client::direct_tls(world.gateway.address(), world.gateway.tls()).unwrap();
    client.login(APP, DATABASE, &world.token()).unwrap();
    assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    // Without ALPN some other protocol could be talking (ALPACA).
    let nameless = Client::clear(world.gateway.address()).upgrade(world.gateway.tls());
    if let Ok(mut nameless) = nameless {
        let _ = nameless.send(&startup(&[("user", APP), ("database", DATABASE)]));
        assert!(ended(nameless).iter().all(|tag| *tag == b'E'));
    }
}

/// CVE-2024-43410: memory from a length that a stranger announces.
#[test]
fn a_thousand_strangers_that_announce_a_gigabyte_cost_nothing() {
    let world = impatient();
    let peak = |world: &World| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", world.gateway.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    world.client().simple("SELECT 1");
    let before = peak(&world);
    let strangers: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut stream = TcpStream::connect_timeout(&world.gateway.address(), ANSWER_MAX).unwrap();
            stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
            let _ = stream.write_all(&announced(b"", 1 << 30));
            stream
        })
        .collect();
    assert_eq!(world.client().simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    for mut stream in strangers {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let grown_kb = peak(&world) - before;
    assert!(grown_kb < 100 * 1024, "{grown_kb} KB for 1,000 connections");
}

/// A session's own silence is not cut off by what is for logins.
#[test]
fn a_session_that_is_silent_longer_than_the_login_deadline_lives_on() {
    let world = impatient();
    let mut client = world.client();
    let slept = client.simple("SELECT pg_sleep(2.5)");
    assert_eq!(slept, ["T", "D ", "C SELECT 1", "Z I"]);
}
