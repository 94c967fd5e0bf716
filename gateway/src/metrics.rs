//! `/metrics` for Prometheus, on a listener of its own: numbers, and names that the configuration has. No principal, no
//! statement and no address of anybody stands in it, so it can be shown to whatever collects numbers.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::gateway::Gateway;

/// The most connections at once; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 16;
/// How long one connection may last.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(30);
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long to wait after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers until `stop` says so.
pub(crate) async fn listen(gateway: Arc<Gateway>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let gateway = gateway.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(&gateway, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(CONNECTION_DEADLINE)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            let _ = timeout(CONNECTION_DEADLINE, served).await;
            drop(permit);
        });
    }
}

fn answer(gateway: &Gateway, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, written(gateway)),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The text format 0.0.4: each metric's help and type, then its samples.
fn written(gateway: &Gateway) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let one = |value: f64| [(String::new(), value)];
    let truth = |value: bool| f64::from(u8::from(value));
    let numbers = gateway.recorder.numbers();
    let version = labels(&[("version", env!("CARGO_PKG_VERSION"))]);
    metric("gatebook_build_info", "gauge", "The gateway's version.", &[(version, 1.0)]);
    metric("gatebook_sessions", "gauge", "Sessions that live.", &one(gateway.registry.len() as f64));
    metric(
        "gatebook_sessions_busy",
        "gauge",
        "Sessions with a command under way.",
        &one(numbers.busy as f64),
    );
    metric(
        "gatebook_commands_total",
        "counter",
        "Commands decided since the start.",
        &one(numbers.commands as f64),
    );
    let refused = gateway.refused_logins() as f64;
    metric(
        "gatebook_logins_refused_total",
        "counter",
        "Logins and tokens refused since the start.",
        &one(refused),
    );
    metric(
        "gatebook_ledger_records_total",
        "counter",
        "Records made durable since the start.",
        &one(numbers.records as f64),
    );
    metric(
        "gatebook_ledger_queued_bytes",
        "gauge",
        "Bytes of records that wait for the writer.",
        &one(numbers.queued_bytes as f64),
    );
    let stalled = gateway.recorder.stalled_for().as_secs_f64();
    metric(
        "gatebook_ledger_stalled_seconds",
        "gauge",
        "How long the oldest write under way has lasted.",
        &one(stalled),
    );
    let trouble = truth(gateway.recorder.trouble().is_some());
    metric(
        "gatebook_ledger_refuses",
        "gauge",
        "Whether new sessions are refused because of the ledger.",
        &one(trouble),
    );
    let alarm = truth(gateway.recorder.alarm().is_some());
    metric("gatebook_ledger_alarm", "gauge", "Whether the ledger was found not to verify.", &one(alarm));
    let streams: Vec<_> = numbers
        .streams
        .iter()
        .map(|(name, waiting)| (labels(&[("stream", name)]), *waiting as f64))
        .collect();
    let help = "Events that a receiver was not sent yet.";
    metric("gatebook_stream_waiting_events", "gauge", help, &streams);
    let delegations = gateway.delegations.as_ref().map_or(0, |delegations| delegations.len()) as f64;
    metric("gatebook_delegations", "gauge", "Delegations that live.", &one(delegations));
    let issuers = gateway.identity.state();
    let keys: Vec<_> =
        issuers.iter().map(|issuer| (labels(&[("issuer", &issuer.name)]), issuer.keys as f64)).collect();
    metric("gatebook_issuer_keys", "gauge", "Keys of an issuer that can be used.", &keys);
    let fetched: Vec<_> = issuers
        .iter()
        .filter_map(|issuer| {
            let since = issuer.fetched?.duration_since(UNIX_EPOCH).ok()?;
            Some((labels(&[("issuer", &issuer.name)]), since.as_secs_f64()))
        })
        .collect();
    let help = "When an issuer's keys were last fetched.";
    metric("gatebook_issuer_keys_fetched_timestamp_seconds", "gauge", help, &fetched);
    let mut catalogs = Vec::new();
    for served in gateway.resources() {
        let resource = served.upstream.resource();
        for database in &resource.databases {
            let known = served.catalog(database).is_some_and(|catalog| catalog.is_known());
            catalogs.push((labels(&[("resource", &resource.name), ("database", database)]), truth(known)));
        }
    }
    catalogs.sort_by(|one, other| one.0.cmp(&other.0));
    metric("gatebook_catalog_known", "gauge", "Whether a database's catalog was read.", &catalogs);
    text
}

/// `{issuer="corp"}`, with backslash, quote and line end escaped.
fn labels(pairs: &[(&str, &str)]) -> String {
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_label_cannot_make_another_sample() {
        assert_eq!(super::labels(&[("a", "x\"} 1\ny\\")]), r#"{a="x\"} 1\ny\\"}"#);
    }
}
