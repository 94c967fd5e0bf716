//! A connection to an upstream: address, TLS, and the credential that only the gateway knows.
//!
//! What a newcomer gets wrong: the answer to an SSLRequest is read as one byte and no more, so that bytes sent in clear behind
//! it can only reach the TLS handshake, which refuses them.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gatebook_wire::postgres::frame::{Decoder, Frame, Message};
use gatebook_wire::postgres::login::{self, CancelKey};
use gatebook_wire::postgres::report::{self, Report};
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::tls::{ClientTls, TlsError, end_point_hash};
use crate::config::{Resource, Role, SecretError};
use crate::stream::Stream;

/// The longest message of an upstream that must be whole: an error or a notice, whose texts may be long.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Why there is no connection to an upstream. For the operator; the client is told only that there is none.
#[derive(Debug, Error)]
pub(crate) enum UpstreamError {
    /// It does not answer at its address.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// Where it should be.
        address: String,
        /// What happened.
        error: std::io::Error,
    },
    /// It answered too slowly.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
    /// It has no TLS.
    #[error("it does not offer TLS; set danger_disable_tls only where the network itself is trusted")]
    NoTls,
    /// Our side of TLS is not in order.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The role's password cannot be read.
    #[error("role \"{role}\": {error}")]
    Secret {
        /// The role.
        role: String,
        /// What happened.
        error: SecretError,
    },
    /// It does not take our credential, or asks for one that we do not give.
    #[error("login as \"{role}\" failed: {what}")]
    Login {
        /// The role.
        role: String,
        /// What happened.
        what: String,
    },
    /// It refused with a report of its own.
    #[error("it refused: {} {}", .0.code, .0.message)]
    Refused(Report),
    /// It broke the protocol.
    #[error("it broke the protocol: {0}")]
    Violation(String),
}

/// How to reach one upstream.
pub(crate) struct Upstream {
    resource: Resource,
    tls: Option<ClientTls>,
    connect_deadline: Duration,
}

/// A session with an upstream, logged in and idle.
pub(crate) struct Connected {
    stream: Stream,
    decoder: Decoder,
    incoming: BytesMut,
    /// What it reported of its settings, in its order.
    pub(crate) parameters: Vec<(Bytes, Bytes)>,
    /// What cancels its commands.
    pub(crate) cancel_key: Option<CancelKey>,
}

impl Upstream {
    /// The way to the upstream of `resource`.
    pub(crate) fn new(resource: &Resource, connect_deadline: Duration) -> Result<Upstream, TlsError> {
        let tls = ClientTls::new(&resource.upstream_tls)?;
        Ok(Upstream { resource: resource.clone(), tls, connect_deadline })
    }

    /// The resource as it was configured.
    pub(crate) fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Reads certificates anew.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        self.tls.as_ref().map_or(Ok(false), ClientTls::reload)
    }

    /// Connects and logs in as `role`.
    ///
    /// # Errors
    /// [`UpstreamError`] by who is at fault; the deadline covers everything up to the upstream's readiness.
    pub(crate) async fn connect(
        &self,
        role: &Role,
        database: &str,
        settings: &[(&str, &str)],
    ) -> Result<Connected, UpstreamError> {
        match self.try_connect(role, database, settings).await {
            // The password may have been changed a moment ago: it is read anew, once.
            Err(UpstreamError::Refused(report)) if report.code == report::INVALID_PASSWORD => {
                if let Some(password) = &role.password {
                    password.forget().await;
                }
                self.try_connect(role, database, settings).await
            }
            other => other,
        }
    }

    async fn try_connect(
        &self,
        role: &Role,
        database: &str,
        settings: &[(&str, &str)],
    ) -> Result<Connected, UpstreamError> {
        let connect = async {
            let (stream, binding) = self.open().await?;
            let mut connected = Connected {
                stream,
                decoder: Decoder::upstream(MESSAGE_BYTES_MAX),
                incoming: BytesMut::new(),
                parameters: Vec::new(),
                cancel_key: None,
            };
            let named = [("user", role.name.as_str()), ("database", database), ("client_encoding", "UTF8")];
            let packet = login::startup_packet(named.into_iter().chain(settings.iter().copied()));
            connected.send(&packet).await?;
            connected.log_in(role, binding).await?;
            connected.settle().await?;
            Ok(connected)
        };
        timeout(self.connect_deadline, connect)
            .await
            .map_err(|_| UpstreamError::Deadline(self.connect_deadline))?
    }

    /// Asks the upstream to cancel what the session of `key` runs. Like every client's request it may come too late.
    pub(crate) async fn cancel(&self, key: &CancelKey) -> Result<(), UpstreamError> {
        let cancel = async {
            let (mut stream, _) = self.open().await?;
            stream.write_all(&login::cancel_request(key)).await?;
            stream.flush().await?;
            // It closes without a word once it has dealt with the request.
            let _ = stream.read(&mut [0; 1]).await;
            Ok(())
        };
        timeout(self.connect_deadline, cancel)
            .await
            .map_err(|_| UpstreamError::Deadline(self.connect_deadline))?
    }

    /// Opens the connection and its TLS; gives back the channel binding that TLS offers.
    async fn open(&self) -> Result<(Stream, ChannelBinding), UpstreamError> {
        let target = (self.resource.upstream.host.as_str(), self.resource.upstream.port);
        let mut stream = TcpStream::connect(target).await.map_err(|error| UpstreamError::Connect {
            address: format!("{}:{}", target.0, target.1),
            error,
        })?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok((Stream::Clear(stream), ChannelBinding::unsupported())) };
        stream.write_all(&login::ssl_request()).await?;
        if stream.read_u8().await? != b'S' {
            return Err(UpstreamError::NoTls);
        }
        let stream = TlsConnector::from(tls.config()).connect(tls.server_name(), stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let binding = certificate
            .and_then(|certificate| end_point_hash(certificate))
            .map_or_else(ChannelBinding::unrequested, ChannelBinding::tls_server_end_point);
        Ok((Stream::Tls(Box::new(stream.into())), binding))
    }
}

impl Connected {
    /// The parts that a relay takes over.
    pub(crate) fn into_parts(self) -> (Stream, Decoder, BytesMut) {
        (self.stream, self.decoder, self.incoming)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), UpstreamError> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    async fn frame(&mut self) -> Result<Frame, UpstreamError> {
        loop {
            match self.decoder.decode(&mut self.incoming) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(malformed) => return Err(UpstreamError::Violation(malformed.to_string())),
            }
            self.incoming.reserve(4096);
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(UpstreamError::Broken(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    async fn message(&mut self) -> Result<Message, UpstreamError> {
        match self.frame().await? {
            Frame::Message(message) if message.tag() == b'E' => {
                Err(UpstreamError::Refused(read_report(&message)?))
            }
            Frame::Message(message) => Ok(message),
            Frame::Run(_) => Err(UpstreamError::Violation("data during login".into())),
        }
    }

    /// Answers what the upstream asks for until it is satisfied.
    async fn log_in(&mut self, role: &Role, binding: ChannelBinding) -> Result<(), UpstreamError> {
        let failed = |what: &str| UpstreamError::Login { role: role.name.clone(), what: what.to_owned() };
        let mut binding = Some(binding);
        let mut scram: Option<ScramSha256> = None;
        let mut verified = true;
        loop {
            let message = self.message().await?;
            let (code, rest) = match message.tag() {
                b'R' => message.parse(|fields| Some((fields.i32()?, fields.rest()))).map_err(violated)?,
                b'N' | b'v' => continue,
                tag => {
                    return Err(UpstreamError::Violation(format!(
                        "message {:?} during login",
                        char::from(tag)
                    )));
                }
            };
            match code {
                0 if verified => return Ok(()),
                0 => return Err(failed("it did not prove that it knows the password")),
                3 if matches!(self.stream, Stream::Tls(_)) => {
                    let password = self.password(role).await?;
                    self.send(login::password(&password).bytes()).await?;
                }
                3 => return Err(failed("it asks for the password in clear, without TLS")),
                10 => {
                    let mechanisms: Vec<&[u8]> =
                        rest.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
                    let binding = binding.take().ok_or_else(|| failed("it began SASL twice"))?;
                    let plus = matches!(self.stream, Stream::Tls(_))
                        && mechanisms.contains(&SCRAM_SHA_256_PLUS.as_bytes());
                    if !plus && !mechanisms.contains(&SCRAM_SHA_256.as_bytes()) {
                        return Err(failed("it offers no SCRAM-SHA-256"));
                    }
                    // Without PLUS on offer, "unrequested" tells the server that we could have: a stripped offer is found out.
                    let binding = if plus || matches!(self.stream, Stream::Clear(_)) {
                        binding
                    } else {
                        ChannelBinding::unrequested()
                    };
                    let mechanism = if plus { SCRAM_SHA_256_PLUS } else { SCRAM_SHA_256 };
                    let password = self.password(role).await?;
                    let exchange = ScramSha256::new(password.as_bytes(), binding);
                    self.send(login::sasl_initial_response(mechanism, exchange.message()).bytes()).await?;
                    scram = Some(exchange);
                    verified = false;
                }
                11 => {
                    let exchange =
                        scram.as_mut().ok_or_else(|| failed("it continued what it had not begun"))?;
                    exchange.update(&rest).map_err(|error| failed(&error.to_string()))?;
                    let response = Bytes::copy_from_slice(exchange.message());
                    self.send(login::sasl_response(&response).bytes()).await?;
                }
                12 => {
                    let exchange =
                        scram.as_mut().ok_or_else(|| failed("it finished what it had not begun"))?;
                    exchange.finish(&rest).map_err(|error| failed(&error.to_string()))?;
                    verified = true;
                }
                5 => {
                    return Err(failed(
                        "it asks for MD5; set password_encryption = scram-sha-256 there, and the password anew",
                    ));
                }
                other => {
                    return Err(failed(&format!(
                        "it asks for authentication method {other}, which is not supported"
                    )));
                }
            }
        }
    }

    async fn password(&self, role: &Role) -> Result<Arc<zeroize::Zeroizing<String>>, UpstreamError> {
        let secret = role.password.as_ref().ok_or_else(|| UpstreamError::Login {
            role: role.name.clone(),
            what: "it asks for a password, and none is configured".into(),
        })?;
        let read = secret.read().await;
        read.map(Arc::new).map_err(|error| UpstreamError::Secret { role: role.name.clone(), error })
    }

    /// Takes what the upstream tells between login and its readiness.
    async fn settle(&mut self) -> Result<(), UpstreamError> {
        loop {
            let message = self.message().await?;
            match message.tag() {
                b'S' => {
                    let parameter = message
                        .parse(|fields| Some((fields.string()?, fields.string()?)))
                        .map_err(violated)?;
                    self.parameters.push(parameter);
                }
                b'K' => {
                    let (process_id, secret) =
                        message.parse(|fields| Some((fields.u32()?, fields.rest()))).map_err(violated)?;
                    self.cancel_key = Some(CancelKey { process_id, secret });
                }
                b'Z' => return Ok(()),
                b'N' => {}
                tag => {
                    return Err(UpstreamError::Violation(format!(
                        "message {:?} after login",
                        char::from(tag)
                    )));
                }
            }
        }
    }

    /// Runs one statement of ours and gives back its rows, in text format.
    ///
    /// # Errors
    /// [`UpstreamError::Refused`] with the upstream's report, or when there are more than `rows_max` rows.
    pub(crate) async fn query(
        &mut self,
        sql: &str,
        rows_max: usize,
    ) -> Result<Vec<Vec<Option<String>>>, UpstreamError> {
        self.send(Message::build(b'Q', |out| report::put_string(out, sql)).bytes()).await?;
        let mut rows = Vec::new();
        let mut partial = BytesMut::new();
        let mut refused = None;
        loop {
            match self.frame().await? {
                Frame::Run(run) => {
                    partial.extend_from_slice(&run.bytes);
                    let mut whole = Decoder::client(MESSAGE_BYTES_MAX);
                    while let Some(Frame::Message(row)) = whole.decode(&mut partial).map_err(violated)? {
                        if rows.len() == rows_max {
                            return Err(UpstreamError::Violation(format!("more than {rows_max} rows")));
                        }
                        rows.push(read_row(&row)?);
                    }
                }
                Frame::Message(message) => match message.tag() {
                    b'E' => refused = Some(read_report(&message)?),
                    b'Z' => return refused.map_or(Ok(rows), |report| Err(UpstreamError::Refused(report))),
                    b'T' | b'C' | b'N' | b'S' | b'A' => {}
                    tag => {
                        return Err(UpstreamError::Violation(format!(
                            "message {:?} in answer to a query",
                            char::from(tag)
                        )));
                    }
                },
            }
        }
    }
}

fn read_row(row: &Message) -> Result<Vec<Option<String>>, UpstreamError> {
    row.parse(|fields| {
        let count = fields.count()?;
        fields.many(count, |fields| match fields.i32()? {
            -1 => Some(None),
            length => Some(Some(
                String::from_utf8_lossy(&fields.bytes(usize::try_from(length).ok()?)?).into_owned(),
            )),
        })
    })
    .map_err(violated)
}

fn read_report(message: &Message) -> Result<Report, UpstreamError> {
    Report::read(message).map_err(violated)
}

fn violated(malformed: gatebook_wire::postgres::frame::Malformed) -> UpstreamError {
    UpstreamError::Violation(malformed.to_string())
}
