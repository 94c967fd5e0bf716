//! `gatebook serve`: from a checked configuration to the last session's end.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gatebook_wire::protocol::EndReason;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin;
use crate::approval;
use crate::config::tls::{ServerTls, TlsError};
use crate::config::{self, Config};
use crate::control::{self, ControlError};
use crate::delegation::Delegations;
use crate::gateway::{Gateway, Listening};
use crate::identity::{Identity, IssuerConfig, OwnKeys, PrincipalKind};
use crate::listen::{Doorkeeper, listen};
use crate::metrics;
use crate::policy;
use crate::record::{Recorder, StartError, Unavailable};
use crate::revalidate;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;
/// How often time, disk and policies are looked at.
const TURN: Duration = Duration::from_millis(500);
/// How many turns lie between two looks at policies and certificates.
const FILE_TURNS: u32 = 4;
/// How long the last records have at the end.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Why nothing is served.
#[derive(Debug, Error)]
pub(crate) enum ServeError {
    /// The ledger.
    #[error("ledger: {0}")]
    Ledger(#[from] StartError),
    /// The ledger, later.
    #[error("ledger: {0}")]
    Unavailable(#[from] Unavailable),
    /// An issuer.
    #[error("identity: {0}")]
    Identity(String),
    /// The keys that sign what is handed down.
    #[error("delegation.keys: {0}")]
    Keys(String),
    /// The policies.
    #[error("policies: {0}")]
    Policies(String),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its own HTTPS server.
    #[error(transparent)]
    Admin(#[from] admin::ServerError),
    /// The control socket.
    #[error("control socket: {0}")]
    Control(#[from] ControlError),
    /// An address.
    #[error("cannot listen at {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// Signals.
    #[error("cannot watch for signals: {0}")]
    Signals(std::io::Error),
}

/// A gateway that serves.
pub(crate) struct Running {
    pub(crate) gateway: Arc<Gateway>,
    /// Where it listens, by resource.
    pub(crate) addresses: Vec<(String, SocketAddr)>,
    listenings: Vec<Arc<Listening>>,
    /// Its own HTTPS server, and where that listens.
    admin: Option<(Arc<admin::Server>, SocketAddr)>,
    /// Where numbers are to be had.
    metrics: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Serves until a signal says stop.
pub(crate) async fn serve(config: Config) -> ExitCode {
    start_logging(&config.log);
    match serve_until_told(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gatebook: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve_until_told(config: Config) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(ServeError::Signals)?;
    let running = start(config).await?;
    for (resource, address) in &running.addresses {
        println!("{resource}: listening on {address}");
    }
    if let Some((_, address)) = &running.admin {
        println!("admin: listening on {address}");
    }
    if let Some(address) = running.metrics {
        println!("metrics: listening on {address}");
    }
    let mut turn = tokio::time::interval(TURN);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut turns = 0u32;
    let mut warned = 0;
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => running.reload().await,
            _ = turn.tick() => {
                turns = turns.wrapping_add(1);
                running.look_after(&mut warned).await;
                if turns.is_multiple_of(FILE_TURNS) {
                    running.reload_certificates();
                    if running.gateway.policy.has_changed() {
                        running.reload_policies().await;
                    }
                }
            }
        }
    }
    running.drain().await;
    Ok(())
}

/// Starts a gateway: ledger first, then listeners.
pub(crate) async fn start(config: Config) -> Result<Running, ServeError> {
    let issuers: Vec<IssuerConfig> = config.issuers.iter().map(|known| issuer(&config, known)).collect();
    let identity = Identity::new(&issuers).map_err(|mistakes| ServeError::Identity(mistakes.join("; ")))?;
    let live = policy::Live::open(&config.policies).map_err(|mistakes| {
        ServeError::Policies(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })?;
    let listenings = config
        .listeners()
        .into_iter()
        .map(|listener| Ok(Arc::new(Listening { tls: ServerTls::new(&config, &listener)?, listener })))
        .collect::<Result<Vec<_>, TlsError>>()?;
    let sockets =
        listenings.iter().map(|listening| bind(listening.listener.address)).collect::<Result<Vec<_>, _>>()?;
    let admin_socket = config.admin.as_ref().map(|admin| bind(admin.listen)).transpose()?;
    let metrics_socket = config.metrics.map(bind).transpose()?;
    let control = control::bind(&config.control).await?;

    let delegations = delegations(&config)?;
    let (recorder, mut found) = Recorder::start(&config.ledger)?;
    if found.abandoned > 0 || found.cut {
        tracing::warn!(
            entries = found.entries,
            closed = found.abandoned,
            cut = found.cut,
            "ledger: recovered after a crash"
        );
    }
    recorder.attend_witnesses(&config.ledger)?;
    recorder.stream(&config.ledger, &config.streams)?;
    let deadline = config.limits.durable_deadline;
    recorder.record_start(config.redacted_text(), config.resources.len(), deadline).await?;
    recorder.record_policies(&live.current(), deadline).await?;
    let revoked = found.revoked().clone();
    let (handed_down, asked) = found.take_left();
    if let Some(delegations) = &delegations {
        delegations.restore(handed_down, SystemTime::now());
    }
    let doorkeeper = Doorkeeper::new(&config.limits);
    let names: Vec<String> = config.resources.iter().map(|resource| resource.name.clone()).collect();
    let gateway = Gateway::new(config, identity, delegations, Arc::new(live), recorder, revoked)?;
    gateway.restore_approvals(asked);
    gateway.start_watching();
    revalidate::start(&gateway).map_err(ServeError::Identity)?;
    let page = gateway.config.admin.as_ref().filter(|admin| admin.login.is_some());
    let page = page.map(|admin| admin.url.as_str());
    approval::tell_webhooks(&gateway.approvals, &gateway.config.webhooks, page);
    if gateway.policy.load().limits_days() {
        gateway.restore_tallies()?;
    }

    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut addresses = Vec::new();
    for (listening, socket) in listenings.iter().zip(sockets) {
        let address = socket.local_addr().unwrap_or(listening.listener.address);
        addresses.extend(listening.listener.resources.iter().map(|at| (names[*at].clone(), address)));
        tasks.spawn(listen(gateway.clone(), listening.clone(), socket, doorkeeper.clone(), stopped.clone()));
    }
    let admin = match (gateway.config.admin.clone(), admin_socket) {
        (Some(config), Some(socket)) => {
            let address = socket.local_addr().unwrap_or(config.listen);
            let server = admin::Server::new(gateway.clone(), config)?;
            tasks.spawn(server.clone().listen(socket, stopped.clone()));
            Some((server, address))
        }
        _ => None,
    };
    let metrics = metrics_socket.as_ref().and_then(|socket| socket.local_addr().ok());
    if let Some(socket) = metrics_socket {
        tasks.spawn(metrics::listen(gateway.clone(), socket, stopped.clone()));
    }
    tokio::spawn(control::serve(control, gateway.clone()));
    let identities = gateway.clone();
    tokio::spawn(async move {
        loop {
            identities.identity.maintain().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    Ok(Running { gateway, addresses, listenings, admin, metrics, stop, tasks })
}

impl Running {
    /// One turn of what time brings: expiry, idleness, a stalled disk, a full one, sums of refused logins.
    pub(crate) async fn look_after(&self, warned: &mut u8) {
        let gateway = &self.gateway;
        gateway.registry.expire(SystemTime::now(), Instant::now());
        gateway.expire_approvals(SystemTime::now());
        gateway.sum_up_logins(Instant::now(), false);
        if let Some(delegations) = &gateway.delegations {
            delegations.sweep(SystemTime::now());
            if let Err(error) = delegations.keys.rotate(SystemTime::now()) {
                tracing::error!(error, "delegation: the keys stay as they were");
            }
        }
        let stalled = gateway.recorder.stalled_for();
        if stalled > gateway.config.limits.durable_deadline {
            let sessions = gateway.recorder.end_all();
            if sessions > 0 {
                tracing::error!(
                    ?stalled,
                    sessions,
                    "ledger: the disk does not answer; these sessions ended and new ones are refused"
                );
            }
        }
        self.look_at_space(warned);
    }

    /// Warns as the ledger's disk fills, and refuses sessions before it is full.
    fn look_at_space(&self, warned: &mut u8) {
        let ledger = &self.gateway.config.ledger;
        let Some(free) = free_percent(&ledger.path) else { return };
        let level = match free {
            free if free < ledger.free_refuse => 3,
            free if free < ledger.free_alarm => 2,
            free if free < ledger.free_warn => 1,
            _ => 0,
        };
        self.gateway.recorder.refuse_sessions(level == 3);
        if level != *warned {
            let path = ledger.path.display();
            match level {
                3 => {
                    tracing::error!(%path, free, "ledger: the disk is nearly full; new sessions are refused. Free space or set another ledger.path")
                }
                2 => {
                    tracing::error!(%path, free, "ledger: the disk fills up; new sessions will be refused soon")
                }
                1 => tracing::warn!(%path, free, "ledger: the disk fills up"),
                _ => tracing::info!(%path, free, "ledger: the disk has room again"),
            }
            *warned = level;
        }
    }

    /// Reads certificates and policies anew.
    async fn reload(&self) {
        self.reload_certificates();
        self.reload_policies().await;
    }

    /// Reads certificates anew where they changed. What cannot be read leaves what was there.
    fn reload_certificates(&self) {
        for listening in &self.listenings {
            match listening.tls.as_ref().map(ServerTls::reload) {
                Some(Ok(true)) => {
                    tracing::info!(address = %listening.listener.address, "certificates read anew")
                }
                Some(Err(error)) => tracing::error!(%error, "certificates stay as they were"),
                _ => {}
            }
        }
        match self.admin.as_ref().map(|(server, _)| server.reload()) {
            Some(Ok(true)) => tracing::info!("the admin server's certificate read anew"),
            Some(Err(error)) => {
                tracing::error!(%error, "the admin server's certificate stays as it was");
            }
            _ => {}
        }
        for served in self.gateway.resources() {
            if let Err(error) = served.upstream.reload() {
                tracing::error!(resource = served.upstream.resource().name, %error, "the upstream's authorities stay as they were");
            }
        }
    }

    /// Reads policies anew. A broken edit leaves those in force, and says so.
    async fn reload_policies(&self) {
        let gateway = &self.gateway;
        let mistaken = |mistakes: Vec<policy::Mistake>| {
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            gateway.recorder.record_rejected_policies(&gateway.policy.current(), &lines);
            for line in &lines {
                tracing::error!("policies stay as they were: {line}");
            }
        };
        let set = match gateway.policy.reload() {
            Ok(Some(set)) => set,
            Ok(None) => return,
            Err(mistakes) => return mistaken(mistakes),
        };
        let unknown = set.check_against(&crate::cli::known(&gateway.config));
        if !unknown.is_empty() {
            return mistaken(unknown);
        }
        if let Err(error) =
            gateway.recorder.record_policies(&set, gateway.config.limits.durable_deadline).await
        {
            tracing::error!(%error, "policies stay as they were");
            return;
        }
        gateway.policy.install(set);
        let ended = gateway.recheck();
        gateway.approvals.wake();
        tracing::info!(sessions_ended = ended.sessions, "policies read anew");
    }

    /// Takes no more connections, lets sessions end, ends the rest, and closes the ledger.
    pub(crate) async fn drain(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        let gateway = &self.gateway;
        let sessions = gateway.registry.len();
        if sessions > 0 {
            tracing::info!(sessions, deadline = ?gateway.config.limits.drain_deadline, "stopping: waiting for sessions to end");
        }
        let until = Instant::now() + gateway.config.limits.drain_deadline;
        while gateway.registry.len() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gateway.registry.end(EndReason::Shutdown, |_| true);
        let until = Instant::now() + STOP_DEADLINE;
        while gateway.registry.len() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gateway.sum_up_logins(Instant::now(), true);
        let recorder = gateway.recorder.clone();
        let _ = tokio::task::spawn_blocking(move || recorder.stop(STOP_DEADLINE)).await;
        let _ = std::fs::remove_file(&gateway.config.control);
    }
}

/// What may be handed down: nothing yet, with the keys that sign it.
fn delegations(config: &Config) -> Result<Option<Delegations>, ServeError> {
    let (Some(admin), Some(delegation)) = (&config.admin, &config.delegation) else { return Ok(None) };
    let config::DelegationConfig { keys, key_age, depth_max, ttl_max } = delegation;
    let keys =
        OwnKeys::open(keys, &admin.url, *key_age, *ttl_max, SystemTime::now()).map_err(ServeError::Keys)?;
    Ok(Some(Delegations::new(keys, *depth_max, *ttl_max)))
}

fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |error| ServeError::Listen { address, error };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)
}

fn free_percent(path: &Path) -> Option<u8> {
    let space = rustix::fs::statvfs(path).ok()?;
    let percent = (u128::from(space.f_bavail) * 100).checked_div(u128::from(space.f_blocks))?;
    u8::try_from(percent).ok()
}

/// An issuer as identity wants it.
fn issuer(config: &Config, issuer: &config::IssuerConfig) -> IssuerConfig {
    let mut wanted = IssuerConfig::new(&issuer.name, &issuer.url, "");
    wanted.audience.clone_from(&issuer.audience);
    wanted.access_token_audience.clone_from(&issuer.access_token_audience);
    wanted.authorized_parties.clone_from(&issuer.authorized_parties);
    wanted.groups_claim.clone_from(&issuer.groups_claim);
    wanted.groups.clone_from(&issuer.groups);
    wanted.principal = match issuer.principal {
        config::PrincipalKind::User => PrincipalKind::User,
        config::PrincipalKind::Service => PrincipalKind::Service,
    };
    wanted.ca.clone_from(&issuer.ca);
    wanted.algorithms = issuer.algorithms.iter().filter_map(|name| name.parse().ok()).collect();
    wanted.logout_audience.clone_from(&issuer.logout_audience);
    wanted.keeps_tokens = config.introspections.iter().any(|asked| asked.issuer == issuer.name);
    wanted.clock_skew = issuer.clock_skew;
    wanted.keys_max_age = issuer.keys_max_age;
    wanted.danger_http = issuer.danger_http;
    wanted
}

/// What the operator is told goes to standard error.
pub(crate) fn start_logging(log: &config::Log) {
    let filter = tracing_subscriber::EnvFilter::new(format!("warn,gatebook={}", log.level));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    // A second start in one process keeps the first.
    let _ = if log.json { builder.json().try_init() } else { builder.with_ansi(ansi).try_init() };
}
