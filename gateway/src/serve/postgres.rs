//! PostgreSQL from the first byte of a connection to its last: TLS, login, session, relay.
//!
//! The order is the point: the token is verified and the login decided before anything is recorded as a session, and the session is
//! durable in the ledger before the upstream hears of it. Until then a client is told nothing that depends on who it is.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gatebook_wire::limits;
use gatebook_wire::postgres::conversation::Conversation;
use gatebook_wire::postgres::frame::{Decoder, Frame, Message};
use gatebook_wire::postgres::login::{self, Bearer, CancelKey, Opening, Request, Startup};
use gatebook_wire::postgres::report::{self, Severity};
use gatebook_wire::protocol::EndReason;
use gatebook_wire::sql::{Session, Start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;

use crate::config;
use crate::gateway::{Admission, Denied, Gateway, Listening, Served};
use crate::identity::Credential;
use crate::link::Framed;
use crate::session::relay;
use crate::stream::Stream;
use crate::upstream::Connected;

/// The first byte of a TLS record that holds a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection on its way to a session.
struct Arriving {
    stream: Stream,
    incoming: BytesMut,
    server_name: Option<String>,
}

/// Why a connection comes to nothing before it is a session.
enum Turned {
    /// It is over, and nothing is left to say.
    Away,
    /// It is told why.
    Back { code: &'static str, message: String, hint: Option<&'static str> },
}

impl From<std::io::Error> for Turned {
    fn from(_: std::io::Error) -> Turned {
        Turned::Away
    }
}

fn back(code: &'static str, message: impl Into<String>) -> Turned {
    Turned::Back { code, message: message.into(), hint: None }
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    gateway: Arc<Gateway>,
    listening: Arc<Listening>,
    stream: TcpStream,
    source: SocketAddr,
    slot: crate::listen::LoginSlot,
) {
    let _ = stream.set_nodelay(true);
    let deadline = gateway.config.limits.login_deadline;
    let Ok(Ok((arriving, startup))) = timeout(deadline, arrive(&gateway, &listening, stream, source)).await
    else {
        return;
    };
    let mut arriving = arriving;
    let admitted = match timeout(deadline, admit(&gateway, &listening, &mut arriving, &startup, source)).await
    {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(Turned::Back { code, message, hint })) => {
            let words = report::error(Severity::Fatal, code, &message, hint);
            let _ = timeout(deadline, farewell(&mut arriving.stream, &words)).await;
            return;
        }
        Ok(Err(Turned::Away)) | Err(_) => return,
    };
    drop(slot);
    converse(&gateway, arriving, &startup, admitted).await;
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Says why, and closes in the way that TLS calls closing: a client takes any other for an attack.
async fn farewell(stream: &mut Stream, words: &Message) -> std::io::Result<()> {
    send(stream, words.bytes()).await?;
    stream.shutdown().await
}

/// From the first byte to the startup packet: TLS, or a cancel request.
async fn arrive(
    gateway: &Arc<Gateway>,
    listening: &Listening,
    stream: TcpStream,
    source: SocketAddr,
) -> Result<(Arriving, Startup), Turned> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(Turned::Away);
    }
    let mut arriving =
        Arriving { stream: Stream::Clear(stream), incoming: BytesMut::with_capacity(512), server_name: None };
    if first[0] == TLS_HANDSHAKE {
        arriving = accept_tls(gateway, listening, arriving, source, true).await?;
    }
    let mut asked = 0;
    loop {
        match opening(&mut arriving).await? {
            Opening::Tls if matches!(arriving.stream, Stream::Clear(_)) && asked < 2 => {
                // Whatever came in clear behind the request would be taken for a part of the TLS conversation (CVE-2021-23214).
                if !arriving.incoming.is_empty() {
                    return Err(Turned::Away);
                }
                if listening.tls.is_some() {
                    send(&mut arriving.stream, b"S").await?;
                    arriving = accept_tls(gateway, listening, arriving, source, false).await?;
                } else {
                    send(&mut arriving.stream, b"N").await?;
                }
            }
            Opening::Gss if matches!(arriving.stream, Stream::Clear(_)) && asked < 2 => {
                if !arriving.incoming.is_empty() {
                    return Err(Turned::Away);
                }
                send(&mut arriving.stream, b"N").await?;
            }
            Opening::Cancel(key) => {
                gateway.cancel(&key, source).await;
                arriving.stream.shutdown().await?;
                return Err(Turned::Away);
            }
            Opening::Startup(startup) => return Ok((arriving, startup)),
            Opening::Tls | Opening::Gss => return Err(Turned::Away),
        }
        asked += 1;
    }
}

async fn opening(arriving: &mut Arriving) -> Result<Opening, Turned> {
    loop {
        match login::decode_opening(&mut arriving.incoming) {
            Ok(Some(opening)) => return Ok(opening),
            Ok(None) => {}
            Err(error) => {
                let words =
                    report::error(Severity::Fatal, report::PROTOCOL_VIOLATION, &error.to_string(), None);
                farewell(&mut arriving.stream, &words).await?;
                return Err(Turned::Away);
            }
        }
        if arriving.stream.read_buf(&mut arriving.incoming).await? == 0 {
            return Err(Turned::Away);
        }
    }
}

/// Takes TLS up. A client that begins with it must say by ALPN that it means PostgreSQL.
async fn accept_tls(
    gateway: &Gateway,
    listening: &Listening,
    arriving: Arriving,
    source: SocketAddr,
    direct: bool,
) -> Result<Arriving, Turned> {
    let (Stream::Clear(tcp), Some(tls)) = (arriving.stream, &listening.tls) else { return Err(Turned::Away) };
    let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
    let server_name = hello.client_hello().server_name().map(str::to_owned);
    if gateway.reached(listening, server_name.as_deref()).is_none() {
        gateway.unknown_server_name(server_name.as_deref(), source);
    }
    // Where no resource is reached there is no certificate to be shown, and this fails.
    let tls = hello.into_stream(tls.config()).await?;
    if direct && tls.get_ref().1.alpn_protocol() != Some(login::ALPN) {
        return Err(Turned::Away);
    }
    Ok(Arriving {
        stream: Stream::Tls(Box::new(tls.into())),
        incoming: BytesMut::with_capacity(512),
        server_name,
    })
}

/// From the startup packet to the decision that this principal may be this role here.
async fn admit(
    gateway: &Arc<Gateway>,
    listening: &Listening,
    arriving: &mut Arriving,
    startup: &Startup,
    source: SocketAddr,
) -> Result<(Arc<Served>, Request, Admission), Turned> {
    let served = gateway.reached(listening, arriving.server_name.as_deref());
    let clear = matches!(arriving.stream, Stream::Clear(_));
    if clear && !served.as_ref().is_some_and(|served| served.upstream.resource().danger_cleartext_loopback) {
        return Err(Turned::Back {
            code: report::INVALID_AUTHORIZATION,
            message: "this gateway takes tokens only over TLS".into(),
            hint: Some("connect with sslmode=verify-full, or at least sslmode=require"),
        });
    }
    let served = served
        .ok_or_else(|| back(report::INVALID_AUTHORIZATION, "no resource is served under this server name"))?;
    let resource = served.upstream.resource();
    let request =
        startup.request().map_err(|error| back(report::INVALID_PARAMETER_VALUE, error.to_string()))?;
    if startup.minor_version > login::MINOR_VERSION_MAX || !startup.protocol_options.is_empty() {
        let minor = startup.minor_version.min(login::MINOR_VERSION_MAX);
        send(
            &mut arriving.stream,
            report::negotiate_protocol_version(minor, &startup.protocol_options).bytes(),
        )
        .await?;
    }
    let credential = match resource.login {
        config::Login::Password => password(arriving).await?,
        config::Login::OAuthBearer => bearer(arriving, gateway.issuer_url()).await?,
    };
    match gateway.admit(&served, &request.database, &request.user, &credential, source).await {
        Ok(admission) => Ok((served, request, admission)),
        Err(words) => {
            if resource.login == config::Login::OAuthBearer && words == Denied::Token {
                bearer_refused(arriving, gateway.issuer_url()).await?;
            }
            Err(Turned::Back { code: words.code(), message: words.to_string(), hint: words.hint() })
        }
    }
}

/// The token in place of a password.
async fn password(arriving: &mut Arriving) -> Result<Credential, Turned> {
    send(&mut arriving.stream, report::authentication_cleartext_password().bytes()).await?;
    let message = login_message(arriving).await?;
    let token =
        report::string_body(&message).map_err(|error| back(report::PROTOCOL_VIOLATION, error.to_string()))?;
    Ok(Credential::new(token.to_vec()))
}

/// The token in a SASL message, RFC 7628.
async fn bearer(arriving: &mut Arriving, issuer: &str) -> Result<Credential, Turned> {
    send(&mut arriving.stream, report::authentication_sasl(&["OAUTHBEARER"]).bytes()).await?;
    let message = login_message(arriving).await?;
    let initial = message.parse(|fields| {
        let mechanism = fields.string()?;
        let response = match fields.i32()? {
            -1 => Bytes::new(),
            length => fields.bytes(usize::try_from(length).ok()?)?,
        };
        Some((mechanism, response))
    });
    let (mechanism, response) =
        initial.map_err(|error| back(report::PROTOCOL_VIOLATION, error.to_string()))?;
    if &mechanism[..] != b"OAUTHBEARER" {
        return Err(back(report::PROTOCOL_VIOLATION, "client chose a SASL mechanism that was not on offer"));
    }
    match login::bearer(&response) {
        Some(Bearer::Token(token)) => Ok(Credential::new(token.to_vec())),
        Some(Bearer::Discovery) => {
            bearer_refused(arriving, issuer).await?;
            Err(back(report::INVALID_AUTHORIZATION, "no token was presented"))
        }
        None => Err(back(report::PROTOCOL_VIOLATION, "malformed OAUTHBEARER message")),
    }
}

/// Tells a client without a token, or with one that is not accepted, where tokens are to be had; only after its answer may the
/// exchange fail (RFC 7628, section 3.2.3).
async fn bearer_refused(arriving: &mut Arriving, issuer: &str) -> Result<(), Turned> {
    let challenge = login::bearer_challenge(issuer);
    send(&mut arriving.stream, report::authentication_sasl_continue(challenge.as_bytes()).bytes()).await?;
    login_message(arriving).await.map(drop)
}

/// The next message of a login: short, and a `p`.
async fn login_message(arriving: &mut Arriving) -> Result<Message, Turned> {
    let mut decoder = Decoder::client(limits::LOGIN_MESSAGE_BYTES_MAX);
    loop {
        match decoder.decode(&mut arriving.incoming) {
            Ok(Some(Frame::Message(message))) if message.tag() == b'p' => return Ok(message),
            Ok(Some(_)) => {
                return Err(back(report::PROTOCOL_VIOLATION, "a message that is not expected during login"));
            }
            Ok(None) => {}
            Err(error) => return Err(back(report::PROTOCOL_VIOLATION, error.to_string())),
        }
        if arriving.stream.read_buf(&mut arriving.incoming).await? == 0 {
            return Err(Turned::Away);
        }
    }
}

/// From the decision to the end of the session.
async fn converse(
    gateway: &Arc<Gateway>,
    mut arriving: Arriving,
    startup: &Startup,
    admitted: (Arc<Served>, Request, Admission),
) {
    let (served, request, admission) = admitted;
    let deadline = gateway.config.limits.login_deadline;
    let turn_back = async |stream: &mut Stream, code: &str, message: &str| {
        let words = report::error(Severity::Fatal, code, message, None);
        let _ = timeout(deadline, farewell(stream, &words)).await;
    };
    let book = match gateway.open_session(&admission, &request.application_name).await {
        Ok(book) => book,
        Err(error) => {
            tracing::error!(%error, "session refused: its opening cannot be recorded");
            return turn_back(
                &mut arriving.stream,
                report::CANNOT_CONNECT_NOW,
                "the ledger cannot be written, and nothing passes unrecorded",
            )
            .await;
        }
    };
    let catalog = served.catalog(&request.database);
    let search_path = request.settings.get("search_path").cloned();
    let connected = match connect(&served, &request, &admission).await {
        Ok(connected) => connected,
        Err(error) => {
            tracing::error!(resource = served.upstream.resource().name, %error, "cannot connect to the upstream");
            book.close(EndReason::UpstreamLeft, &crate::session::Totals::default());
            return turn_back(
                &mut arriving.stream,
                report::CONNECTION_FAILURE,
                "the upstream cannot be reached; its operators have been told",
            )
            .await;
        }
    };
    let upstream_key = connected.cancel_key.clone();
    let key = cancel_key(startup.minor_version);
    let mut welcome = BytesMut::new();
    welcome.extend_from_slice(report::authentication_ok().bytes());
    for (name, value) in &connected.parameters {
        welcome.extend_from_slice(report::parameter_status(name, value).bytes());
    }
    welcome.extend_from_slice(report::backend_key_data(key.process_id, &key.secret).bytes());
    welcome.extend_from_slice(report::ready_for_query(b'I').bytes());

    if let Some(catalog) = &catalog {
        let _ = catalog.wait_known(gateway.config.limits.connect_deadline).await;
    }
    let snapshot = gateway.snapshot(catalog.as_ref());
    let start = Start {
        database: request.database.as_str().into(),
        role: request.user.as_str().into(),
        search_path,
        masking: gateway.masking(&admission, catalog.as_ref()),
    };
    let mut session = Session::new(start, &snapshot);
    if admission.read_only {
        session = session.read_only();
    }
    for (name, value) in &connected.parameters {
        session.parameter_status(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
    }
    let resource = served.upstream.resource();
    let mut machine = Conversation::new(session, gateway.catalog_source(catalog))
        .detecting(resource.detect, !resource.shadow);
    if resource.confirm_catalog && !resource.shadow {
        machine = machine.confirming();
    }
    let (stream, mut decoder, incoming) = connected.into_parts();
    if resource.detect.any() {
        decoder.keep_whole();
    }
    let upstream = Framed::new(stream, decoder, incoming);
    let client_decoder = Decoder::client(gateway.config.limits.message_bytes_max);
    if timeout(deadline, send(&mut arriving.stream, &welcome)).await.is_err() {
        book.close(EndReason::ClientLeft, &crate::session::Totals::default());
        return;
    }
    let client = Framed::new(arriving.stream, client_decoder, arriving.incoming);
    let mut live = gateway.enter(&served, &admission, book, &key, upstream_key, &request.for_gateway);
    let reason = relay(machine, client, upstream, &mut live.exchange).await;
    gateway.leave(&served, live, reason);
}

async fn connect(
    served: &Served,
    request: &Request,
    admission: &Admission,
) -> Result<Connected, crate::upstream::UpstreamError> {
    let name = application_name(&request.application_name, admission.principal());
    let mut settings: Vec<(&str, &str)> = vec![("application_name", &name)];
    settings.extend(request.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if admission.read_only {
        settings.push(("default_transaction_read_only", "on"));
    }
    served.upstream.connect(&admission.role, &request.database, &settings).await
}

/// What the upstream's own logs and views call the session: the client's name for itself, and the principal. PostgreSQL keeps 63 bytes.
fn application_name(client: &str, principal: &str) -> String {
    let printable =
        |text: &str| text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect::<String>();
    let principal = format!("[{}]", printable(principal));
    let room = 63usize.saturating_sub(principal.len() + 1);
    let client: String = printable(client).chars().take(room).collect();
    let name = if client.is_empty() { principal } else { format!("{client} {principal}") };
    name.chars().take(63).collect()
}

/// Our own key for a session: 64 random bits as protocol 3.0 has room for, 256 and more in 3.2.
fn cancel_key(minor_version: u16) -> CancelKey {
    let length = if minor_version >= 2 { 32 } else { 4 };
    let mut random = [0; 36];
    getrandom::fill(&mut random).expect("the operating system has randomness");
    let (process_id, secret) = random.split_at(4);
    let process_id = u32::from_be_bytes(process_id.try_into().expect("four bytes")) & 0x7fff_ffff;
    CancelKey { process_id, secret: Bytes::copy_from_slice(&secret[..length]) }
}
