//! Real ledgers, written by the real writer with invented sessions in them.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use gatebook_ledger::event::*;
use gatebook_ledger::{Directory, Draft, Limits, MemoryKeys, Origin, SystemSalts, Writer};

pub(crate) const S: u64 = 1_000_000_000;
pub(crate) const MS: u64 = 1_000_000;

/// A ledger being written.
pub(crate) struct Book {
    pub(crate) writer: Writer,
    pub(crate) now_ns: u64,
    /// Whether each entry is made durable by itself.
    pub(crate) prompt: bool,
    requests: std::collections::HashMap<u64, u64>,
}

impl Book {
    pub(crate) fn create(directory: &Path, now_ns: u64) -> Book {
        let storage = Arc::new(Directory::create(directory).unwrap());
        let keys = MemoryKeys::new(Some(&[1; 32]), &[2; 32], &[3; 32]);
        let origin = Origin::new("gw1.corp.example/ledger").unwrap();
        let limits = Limits { segment_bytes: 256 * 1024, fill_bytes: 64 * 1024, ..Limits::default() };
        let writer = Writer::create(
            storage,
            &origin,
            Box::new(keys),
            Box::new(SystemSalts::default()),
            limits,
            now_ns,
        )
        .unwrap();
        Book { writer, now_ns, prompt: true, requests: Default::default() }
    }

    pub(crate) fn stage<B: Body>(&mut self, session: u64, body: &B, payload: Option<&B::Payload>) -> u64 {
        let mut bytes = Vec::new();
        let split = encode(body, payload, &mut bytes);
        let (body, payload) = bytes.split_at(split);
        self.writer.stage(&Draft { kind: B::KIND, time_ns: self.now_ns, session, body, payload }).unwrap()
    }

    /// Makes everything so far durable: one frame, or several.
    fn commit(&mut self) {
        if self.prompt {
            self.sync();
        }
    }

    pub(crate) fn sync(&mut self) {
        self.writer.write().unwrap();
        self.writer.sync().unwrap();
    }

    pub(crate) fn close(self) {
        self.writer.close(self.now_ns).unwrap();
    }

    pub(crate) fn open(
        &mut self,
        principal: &str,
        through: &[&str],
        resource: &str,
        database: &str,
        role: &str,
    ) -> u64 {
        let session = self.writer.next_session();
        let body = SessionOpenedBody { protocol: "postgres".into(), shadow: false };
        let payload = SessionOpenedPayload {
            actors: through.iter().map(|actor| person(actor)).collect(),
            application: "psql".into(),
            database: Cow::Owned(database.to_owned()),
            expires_s: self.now_ns / S + 3_600,
            policies: vec!["ci.cedar:1".into()],
            principal: person(principal),
            resource: Cow::Owned(resource.to_owned()),
            role: Cow::Owned(role.to_owned()),
            source: "10.0.4.9:51234".into(),
            token: "3f0c9a".into(),
        };
        self.stage(session, &body, Some(&payload));
        self.commit();
        session
    }

    pub(crate) fn command(
        &mut self,
        session: u64,
        statement: &[u8],
        decision: &str,
        policies: &[&str],
    ) -> u64 {
        self.command_with(session, statement, decision, policies, Vec::new())
    }

    pub(crate) fn command_with(
        &mut self,
        session: u64,
        statement: &[u8],
        decision: &str,
        policies: &[&str],
        parameters: Vec<Parameter<'_>>,
    ) -> u64 {
        let request = self.requests.entry(session).or_default();
        *request += 1;
        let request = *request - 1;
        let body = CommandBody {
            decision: decision.into(),
            effect: "may_change".into(),
            phase: "execute".into(),
            request,
        };
        let first =
            std::str::from_utf8(statement).unwrap_or_default().split_whitespace().next().unwrap_or("opaque");
        let payload = CommandPayload {
            actions: vec![format!("{first} orders/public.orders").into()],
            errors: Vec::new(),
            kind: first.into(),
            obligations: Vec::new(),
            parameters,
            policies: policies.iter().map(|policy| Cow::Owned((*policy).to_owned())).collect(),
            sent: None,
            statement: Text::new(statement),
        };
        self.stage(session, &body, Some(&payload));
        self.commit();
        request
    }

    pub(crate) fn outcome(
        &mut self,
        session: u64,
        request: u64,
        ending: &str,
        rows: u64,
        tag: &str,
        duration_ns: u64,
    ) {
        self.now_ns += duration_ns;
        let body = OutcomeBody {
            bytes: rows * 57,
            duration_us: duration_ns / 1_000,
            ending: ending.into(),
            request,
            rows,
        };
        let failed = ending == "failed";
        let payload = OutcomePayload {
            code: failed.then(|| tag.into()),
            detected: None,
            fed_blake3: None,
            fed_bytes: None,
            shown_blake3: None,
            tag: (!failed).then(|| tag.into()),
        };
        self.stage(session, &body, Some(&payload));
        self.commit();
    }

    pub(crate) fn end(&mut self, session: u64, reason: &str, commands: u64, refused: u64) {
        let body = SessionClosedBody {
            channels: None,
            commands: Some(commands),
            fed_bytes: Some(0),
            reason: reason.into(),
            refused: Some(refused),
            shown_bytes: Some(4_711),
        };
        self.stage(session, &body, None);
        self.commit();
    }

    pub(crate) fn revoke(&mut self, session: u64, principal: &str, by: &str, reason: &str) {
        let payload = RevocationPayload {
            by: by.into(),
            group: None,
            logout: None,
            principal: Some(principal.into()),
            reason: reason.into(),
            resource: None,
            session: None,
            token: None,
        };
        self.stage(session, &RevocationBody { target: "principal".into() }, Some(&payload));
        self.commit();
    }

    pub(crate) fn started(&mut self) {
        self.stage(0, &GatewayStartedBody { version: "0.1.0".into() }, None);
        let files = vec![PolicyFile {
            name: "ci.cedar".into(),
            text: "permit (principal, action, resource);".into(),
        }];
        let body = PolicyLoadedBody { hash: "5c1fd0e8".repeat(8).into(), policies: 12 };
        self.stage(0, &body, Some(&PolicyLoadedPayload { files }));
        self.commit();
    }

    pub(crate) fn login_refused(&mut self, cause: &str, count: u64) {
        let payload = LoginRefusedPayload {
            detail: "the token expired 4 min before".into(),
            resource: "orders-db".into(),
            source: "203.0.113.7:40112".into(),
        };
        self.stage(0, &LoginRefusedBody { cause: cause.into(), count }, Some(&payload));
        self.commit();
    }
}

fn person(name: &str) -> Principal<'static> {
    let (issuer, name) = name.split_once(':').unwrap_or(("", name));
    Principal {
        delegation: None,
        groups: vec!["ci/shop/deploy".into()],
        issuer: Cow::Owned(issuer.to_owned()),
        kind: "service".into(),
        login: None,
        name: Cow::Owned(name.to_owned()),
        subject: Cow::Owned(name.to_owned()),
    }
}

pub(crate) fn int4(value: i32) -> Parameter<'static> {
    Parameter { binary: true, type_oid: 23, value: Some(Text::base64(&value.to_be_bytes())) }
}

pub(crate) fn text(value: &str) -> Parameter<'_> {
    Parameter { binary: false, type_oid: 25, value: Some(Text::new(value.as_bytes())) }
}

/// The verifier key of a ledger's log key, as an auditor would have pinned it.
pub(crate) fn vkey(directory: &Path) -> String {
    let storage = Directory::open(directory).unwrap();
    gatebook_ledger::reader::manifest(&storage).unwrap().vkey().to_string()
}

/// A morning's worth of sessions; gives the session that was revoked.
pub(crate) fn morning(directory: &Path, now_ns: u64) -> u64 {
    morning_after(directory, now_ns, 0)
}

/// The same after one session of many commands.
pub(crate) fn morning_after(directory: &Path, now_ns: u64, commands: u64) -> u64 {
    let mut book = Book::create(directory, now_ns - 7_500 * S - commands * 10 * MS);
    book.started();
    if commands > 0 {
        let batch = book.open("corp:batch", &[], "orders-db", "orders", "app_rw");
        book.prompt = false;
        for number in 0..commands {
            book.now_ns += 10 * MS;
            let statement = format!("update stock set left = left - 1 where item = {number}");
            let request = book.command(batch, statement.as_bytes(), "permit", &["ci.cedar:7"]);
            book.outcome(batch, request, "completed", 0, "UPDATE 1", 400_000);
            if number % 50 == 0 {
                book.sync();
            }
        }
        book.prompt = true;
        book.end(batch, "client_left", commands, 0);
    }
    let nightly = book.open("gitlab:shop/nightly#1204", &[], "reports-db", "reports", "report_ro");
    for day in 0..40 {
        book.now_ns += 900 * MS;
        let statement = format!(
            "select region, sum(total) from sales\n  where day = date '2026-11-{:02}'\n  group by region",
            1 + day % 22
        );
        let request = book.command(nightly, statement.as_bytes(), "permit", &["reports.cedar:2"]);
        book.outcome(nightly, request, "completed", 12, "SELECT 12", (2_400 + day * 37) * 1_000);
    }
    book.end(nightly, "client_left", 40, 0);
    book.now_ns += 1_300 * S;
    let dana = book.open("corp:dana", &[], "billing-db", "billing", "dba");
    for (statement, ending, tag) in [
        ("begin", "completed", "BEGIN"),
        ("select * from invoices where id = 9113 for update", "completed", "SELECT 1"),
        ("update invoices set paid = true where id = 9113", "completed", "UPDATE 1"),
        ("grant all on invoices to public", "refused", ""),
        ("rollback", "completed", "ROLLBACK"),
        ("truncate audit_trail", "refused", ""),
        ("selct 1", "failed", "42601"),
    ] {
        book.now_ns += 2 * S + 313 * MS;
        if ending == "refused" {
            book.command(dana, statement.as_bytes(), "refuse", &["dba.cedar:9"]);
        } else {
            let request = book.command(dana, statement.as_bytes(), "permit", &["dba.cedar:1"]);
            book.outcome(dana, request, ending, u64::from(tag == "SELECT 1"), tag, 740_000);
        }
    }
    book.now_ns += 600 * S;
    book.end(dana, "idle", 7, 2);
    book.now_ns += 500 * S;
    book.login_refused("expired", 3);
    let lee = book.open("corp:lee", &[], "orders-db", "orders", "app_ro");
    let request =
        book.command(lee, b"select state, count(*) from orders group by state", "permit", &["team.cedar:4"]);
    book.outcome(lee, request, "completed", 5, "SELECT 5", 6_200_000);
    book.now_ns = now_ns - 400 * S;
    let shop = book.open("gitlab:shop/deploy#881", &["ssh:web-1"], "orders-db", "orders", "app_rw");
    book.now_ns += 113 * MS;
    let request = book.command(shop, b"select id, email from customers limit 2", "permit", &["ci.cedar:1"]);
    book.outcome(shop, request, "completed", 2, "SELECT 2", 3_120_000);
    book.now_ns += 2_400 * MS;
    let parameters = vec![text("paid"), int4(4711)];
    let request = book.command_with(
        shop,
        b"update orders set state = $1 where id = $2",
        "permit",
        &["ci.cedar:7"],
        parameters,
    );
    book.outcome(shop, request, "completed", 0, "UPDATE 1", 4_870_000);
    book.now_ns += 1_900 * MS;
    book.command(shop, b"drop table orders", "refuse", &["ci.cedar:3"]);
    book.now_ns += 5_100 * MS;
    let request = book.command_with(
        shop,
        b"insert into shipments (order_id, carrier, note)\nvalues ($1, $2, $3)",
        "permit",
        &["ci.cedar:7"],
        vec![int4(4711), text("dhl"), text("leave at the \"back\" door")],
    );
    book.outcome(shop, request, "completed", 0, "INSERT 0 1", 2_210_000);
    book.now_ns += 312 * S;
    let request = book.command(
        shop,
        b"select count(*) from shipments where left_at is null",
        "permit",
        &["ci.cedar:1"],
    );
    book.outcome(shop, request, "completed", 1, "SELECT 1", 840_000);
    book.now_ns += 1_350 * MS;
    let request = book.command(shop, b"selct now()", "permit", &["ci.cedar:1"]);
    book.outcome(shop, request, "failed", 0, "42601", 290_000);
    book.now_ns += 2_700 * MS;
    let hostile = "select 'done' -- \u{1b}[2J\u{1b}[1;1H\u{202e}stnemyap morf eteled\u{202c}";
    let request = book.command(shop, hostile.as_bytes(), "permit", &["ci.cedar:1"]);
    book.outcome(shop, request, "completed", 1, "SELECT 1", 410_000);
    book.now_ns += 3_300 * MS;
    book.command(shop, b"select pg_sleep(60)", "permit", &["ci.cedar:1"]);
    book.now_ns += 1_020 * MS;
    book.revoke(shop, "gitlab:shop/deploy", "corp:dana", "contract ended");
    book.end(shop, "revoked", 8, 1);
    book.close();
    shop
}
