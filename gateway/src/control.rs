//! The operator's local socket: who may open it may list sessions and revoke. To answer a
//! request for approval takes a token besides: what counts there is who it is. It is the file's mode (0600) that guards it.
//!
//! One request a connection, one line of JSON each way.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use zeroize::Zeroize;

use crate::approval::{self, Id, Shown};
use crate::gateway::Gateway;
use crate::identity::{Credential, Principal, Rejected};
use crate::session::Target;

/// The longest request or answer.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// How long either side has.
const DEADLINE: Duration = Duration::from_secs(30);

/// What an operator asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub(crate) enum Ask {
    /// To revoke.
    Revoke {
        /// Whom.
        target: Target,
        /// Why.
        reason: String,
    },
    /// The sessions that live now.
    Sessions,
    /// The requests for approval that are known.
    Approvals,
    /// To answer one of them.
    Answer {
        /// Which one.
        id: Id,
        /// Whether to approve it.
        approve: bool,
        /// For how many seconds the like of it in the same session is approved too.
        session_s: Option<u64>,
        /// Why.
        reason: String,
        /// Who answers: their token.
        token: Token,
    },
}

/// A token on its way through the socket. It is wiped when dropped, and never shown.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Token(String);

impl Token {
    /// A token.
    pub(crate) fn new(token: &str) -> Token {
        Token(token.trim().to_owned())
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What the gateway answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub(crate) enum Answer {
    /// It was revoked.
    Revoked {
        /// How many sessions were ended.
        sessions: u64,
        /// How long it took, in milliseconds.
        ms: u64,
    },
    /// The sessions.
    Sessions {
        /// Each of them.
        sessions: Vec<SessionLine>,
        /// Why the ledger does not verify, where the gateway found so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        alarm: Option<String>,
    },
    /// The requests for approval.
    Approvals {
        /// Each of them, the oldest first.
        approvals: Vec<Shown>,
    },
    /// An answer was taken.
    Answered {
        /// What has become of the request.
        approval: Box<Shown>,
    },
    /// It could not be done.
    Failed {
        /// Why.
        error: String,
    },
}

/// A session in a list.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SessionLine {
    /// Its number.
    pub(crate) session: u64,
    /// Its principal.
    pub(crate) principal: String,
    /// Its resource and database.
    pub(crate) resource: String,
    /// Its role.
    pub(crate) role: String,
    /// When it began, in seconds since 1970 UTC.
    pub(crate) started_s: u64,
    /// When it ends at the latest, in seconds since 1970 UTC.
    pub(crate) expires_s: u64,
}

/// Why the socket is of no use.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    /// It cannot be made or reached.
    #[error("{path}: {error}")]
    Socket {
        /// Where it is.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// Another gateway has it.
    #[error("{0}: another gateway serves with this configuration")]
    Taken(PathBuf),
    /// The answer is none.
    #[error("the gateway gave no answer that this version understands")]
    Garbled,
}

/// Makes the socket, owned by us alone.
pub(crate) async fn bind(path: &Path) -> Result<UnixListener, ControlError> {
    let failed = |error| ControlError::Socket { path: path.to_owned(), error };
    if UnixStream::connect(path).await.is_ok() {
        return Err(ControlError::Taken(path.to_owned()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    // The mask holds between making the socket and setting its mode.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    let listener = listener.map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Answers operators for as long as the gateway runs.
pub(crate) async fn serve(listener: UnixListener, gateway: Arc<Gateway>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let gateway = gateway.clone();
                tokio::spawn(async move {
                    let _ = timeout(DEADLINE, answer(stream, &gateway)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, gateway: &Arc<Gateway>) -> std::io::Result<()> {
    let by =
        stream.peer_cred().map_or_else(|_| "local".to_owned(), |peer| format!("local uid {}", peer.uid()));
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(LINE_BYTES_MAX).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(Ask::Revoke { target, reason }) => {
            let started = Instant::now();
            match gateway.revoke(&target, &reason, &by).await {
                Ok(ended) => {
                    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    tracing::warn!(?target, reason, by, sessions = ended.sessions, "revoked");
                    Answer::Revoked { sessions: ended.sessions, ms }
                }
                Err(error) => Answer::Failed { error: error.to_string() },
            }
        }
        Ok(Ask::Sessions) => {
            let sessions = gateway.registry.all().iter().map(|live| line_of(live)).collect();
            Answer::Sessions { sessions, alarm: gateway.recorder.alarm() }
        }
        Ok(Ask::Approvals) => {
            let now = SystemTime::now();
            let approvals = gateway.approvals.all().iter().map(|request| request.shown(now)).collect();
            Answer::Approvals { approvals }
        }
        Ok(Ask::Answer { id, approve, session_s, reason, token }) => {
            let answer = match approve {
                true => approval::Answer::Approve { session: session_s.map(Duration::from_secs) },
                false => approval::Answer::Deny,
            };
            let credential = Credential::from(&*token.0);
            match approver(gateway, &credential).await {
                Err(rejected) => {
                    let (cause, detail) = (rejected.cause().name(), rejected.detail());
                    tracing::warn!(
                        by,
                        cause,
                        detail,
                        "an answer to a request for approval is refused: no good token"
                    );
                    Answer::Failed { error: Rejected::CLIENT_TEXT.into() }
                }
                Ok(who) => match gateway.answer_approval(&who, id, &answer, &reason).await {
                    Ok(request) => Answer::Answered { approval: Box::new(request.shown(SystemTime::now())) },
                    Err(error) => Answer::Failed { error: error.to_string() },
                },
            }
        }
        // What stands in the line is not repeated: it may be a token.
        Err(error) => Answer::Failed { error: format!("not understood at column {}", error.column()) },
    };
    let mut text = serde_json::to_string(&answer).map_err(std::io::Error::other)?;
    text.push('\n');
    stream.get_mut().write_all(text.as_bytes()).await
}

/// Who answers: by a token for the admin server where there is one, as over HTTPS.
async fn approver(gateway: &Gateway, credential: &Credential) -> Result<Arc<Principal>, Rejected> {
    let now = SystemTime::now();
    match &gateway.config.admin {
        Some(admin) => gateway.identity.for_audience(&admin.audience).verify(credential, now).await,
        None => gateway.identity.verify(credential, now).await,
    }
}

/// A live session as lists spell it.
pub(crate) fn line_of(live: &crate::session::Live) -> SessionLine {
    let seconds =
        |time: std::time::SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    SessionLine {
        session: live.number,
        principal: live.standing.chain.first().map_or_else(String::new, |first| first.id().to_string()),
        resource: format!("{}/{}", live.standing.resource, live.standing.database),
        role: live.standing.role.to_string(),
        started_s: seconds(live.started),
        expires_s: seconds(live.expires),
    }
}

/// Asks the gateway behind a socket.
pub(crate) async fn ask(path: &Path, ask: &Ask) -> Result<Answer, ControlError> {
    let failed = |error| ControlError::Socket { path: path.to_owned(), error };
    let exchange = async {
        let mut stream = BufReader::new(UnixStream::connect(path).await?);
        let mut text = serde_json::to_string(ask).map_err(std::io::Error::other)?;
        text.push('\n');
        stream.get_mut().write_all(text.as_bytes()).await?;
        let mut line = String::new();
        (&mut stream).take(LINE_BYTES_MAX).read_line(&mut line).await?;
        Ok(line)
    };
    let line = timeout(DEADLINE, exchange)
        .await
        .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    serde_json::from_str(&line).map_err(|_| ControlError::Garbled)
}
