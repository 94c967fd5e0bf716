//! What all connections share: configuration, identity, policy, the recorder, the live sessions; and the steps of a session's life
//! that are the same for every protocol.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use gatebook_wire::postgres::conversation::CatalogSource;
use gatebook_wire::postgres::login::CancelKey;
use gatebook_wire::postgres::report;
use gatebook_wire::protocol::EndReason;
use gatebook_wire::sql::{Catalog, Masking, Sensitive};
use parking_lot::{Mutex, RwLock};

use crate::approval::Approvals;
use crate::catalog::Watched;
use crate::config::tls::ServerTls;
use crate::config::{self, Config, Listener, Role};
use crate::delegation::{Caller, Delegation, Delegations};
use crate::identity::{Cause, Credential, Identity, Principal, PrincipalKind, Rejected};
use crate::policy::{self, AdminAction, Decision, Standing, Subject, SubjectKind};
use crate::record::{Book, Opened, Recorder, RefusedLogin, Revoked, Unavailable};
use crate::session::{
    Ended, Entered, Exchange, Live, People, Presented, Registry, Signals, StayOut, Tallies, Target, Terms,
    Withdrawn,
};
use crate::upstream::Upstream;

/// One gateway.
pub(crate) struct Gateway {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    /// What was handed down; none where nothing may be.
    pub(crate) delegations: Option<Delegations>,
    pub(crate) policy: Arc<policy::Live>,
    pub(crate) recorder: Recorder,
    pub(crate) registry: Arc<Registry>,
    pub(crate) approvals: Arc<Approvals>,
    tallies: Tallies,
    served: HashMap<String, Arc<Served>>,
    revoked: Arc<RwLock<StayOut>>,
    no_catalog: Arc<Watched>,
    logins: Mutex<Logins>,
    /// How many were refused since the start.
    logins_refused: AtomicU64,
}

/// A resource as it is served.
pub(crate) struct Served {
    pub(crate) upstream: Arc<Upstream>,
    catalogs: HashMap<String, Arc<Watched>>,
}

impl Served {
    /// A resource behind `upstream`, with a catalog for each of its databases.
    pub(crate) fn new(upstream: Upstream) -> Served {
        let databases = upstream.resource().databases.iter();
        let catalogs = databases
            .map(|database| (database.clone(), Watched::new(upstream.resource().sensitive(database))))
            .collect();
        Served { upstream: Arc::new(upstream), catalogs }
    }

    /// The catalog of a database.
    pub(crate) fn catalog(&self, database: &str) -> Option<Arc<Watched>> {
        self.catalogs.get(database).cloned()
    }

    /// Starts reading every catalog.
    fn watch(&self) {
        for (database, watched) in &self.catalogs {
            tokio::spawn(watched.clone().watch(self.upstream.clone(), database.clone()));
        }
    }
}

/// One address at which something is served.
pub(crate) struct Listening {
    /// What is served there.
    pub(crate) listener: Listener,
    /// TLS towards its clients, where it has any.
    pub(crate) tls: Option<ServerTls>,
}

/// A principal that may be this role here: the only way to a session.
pub(crate) struct Admission {
    principal: Arc<Principal>,
    /// What was handed down to whoever is there, where it is not the principal itself.
    delegation: Option<Arc<Delegation>>,
    standing: Arc<Standing>,
    decision: Decision,
    expires: SystemTime,
    source: SocketAddr,
    shadow: bool,
    /// Whether policy lets it do nothing but read: the upstream then holds it to that, too.
    pub(crate) read_only: bool,
    /// The role, with its password's reference.
    pub(crate) role: Role,
}

impl Admission {
    /// The principal's id.
    pub(crate) fn principal(&self) -> &str {
        self.principal.id()
    }
}

/// Why a login is refused, in words for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The token was not accepted.
    Token,
    /// It was, and this principal may not be this role in this database; whether those exist is not told.
    Access,
    /// The ledger cannot be written.
    Unavailable,
}

impl Denied {
    /// The SQLSTATE.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Denied::Token => report::INVALID_PASSWORD,
            Denied::Access => report::INVALID_AUTHORIZATION,
            Denied::Unavailable => report::CANNOT_CONNECT_NOW,
        }
    }

    /// What the client can do.
    pub(crate) fn hint(self) -> Option<&'static str> {
        match self {
            Denied::Token => {
                Some("present a fresh token of an issuer that this gateway knows; gatebook token prints one")
            }
            Denied::Access => {
                Some("ask the operators of this gateway for access, or name another user or database")
            }
            Denied::Unavailable => None,
        }
    }
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Denied::Token => Rejected::CLIENT_TEXT,
            Denied::Access => "not permitted: this role in this database",
            Denied::Unavailable => "the ledger cannot be written, and nothing passes unrecorded",
        })
    }
}

/// A session that lives.
pub(crate) struct Session {
    /// Its exchange.
    pub(crate) exchange: Exchange,
    _entered: Entered,
    upstream_key: Option<CancelKey>,
}

/// How many sources of refused logins are told apart in one minute; more are summed under none.
const LOGIN_SOURCES_MAX: usize = 4096;

/// How long refused logins are summed up.
const LOGIN_WINDOW: Duration = Duration::from_secs(60);

/// Logins that were refused in this minute, by source and cause.
struct Logins {
    since: Instant,
    counts: HashMap<(String, &'static str), RefusedLogin>,
}

impl Gateway {
    /// A gateway over its parts; `revoked` are those who stay out.
    pub(crate) fn new(
        config: Config,
        identity: Identity,
        delegations: Option<Delegations>,
        policy: Arc<policy::Live>,
        recorder: Recorder,
        revoked: StayOut,
    ) -> Result<Arc<Gateway>, config::tls::TlsError> {
        let mut served = HashMap::new();
        for resource in &config.resources {
            let upstream = Upstream::new(resource, config.limits.connect_deadline)?;
            served.insert(resource.name.clone(), Arc::new(Served::new(upstream)));
        }
        Ok(Arc::new(Gateway {
            config,
            identity,
            delegations,
            policy,
            recorder,
            registry: Arc::default(),
            approvals: Arc::default(),
            tallies: Tallies::default(),
            served,
            revoked: Arc::new(RwLock::new(revoked)),
            no_catalog: Watched::new(Arc::default()),
            logins_refused: AtomicU64::new(0),
            logins: Mutex::new(Logins { since: Instant::now(), counts: HashMap::new() }),
        }))
    }

    /// Counts what principals were shown today before this start.
    pub(crate) fn restore_tallies(&self) -> Result<(), crate::record::StartError> {
        for (principal, shown) in self.recorder.shown_today(&self.config.ledger)? {
            self.tallies.restore(&principal, shown);
        }
        Ok(())
    }

    /// Starts what runs beside the sessions.
    pub(crate) fn start_watching(self: &Arc<Gateway>) {
        self.served.values().for_each(|served| served.watch());
    }

    /// The resource that a connection reaches.
    pub(crate) fn reached(&self, listening: &Listening, server_name: Option<&str>) -> Option<Arc<Served>> {
        let resource = self.config.reached(&listening.listener, server_name)?;
        self.served.get(&resource.name).cloned()
    }

    /// Records that a connection asked for a server name under which nothing is served, or for none where one is needed.
    pub(crate) fn unknown_server_name(&self, server_name: Option<&str>, source: SocketAddr) {
        let detail = server_name
            .map_or("no server name".into(), |name| format!("asked for server name {}", named(name)));
        self.refused_login(source, "", "server_name", &detail);
    }

    /// Every resource.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.served.values()
    }

    /// The catalog of a resource's database.
    pub(crate) fn catalog(&self, resource: &str, database: &str) -> Option<Arc<Watched>> {
        self.served.get(resource)?.catalog(database)
    }

    /// The first issuer's address, for clients that ask where tokens are to be had.
    pub(crate) fn issuer_url(&self) -> &str {
        self.config.issuers.first().map_or("", |issuer| &issuer.url)
    }

    /// Verifies a credential and decides whether its principal may be `role` in `database`. Every refusal is recorded.
    pub(crate) async fn admit(
        &self,
        served: &Served,
        database: &str,
        role: &str,
        credential: &Credential,
        source: SocketAddr,
    ) -> Result<Admission, Denied> {
        let resource = served.upstream.resource();
        let now = SystemTime::now();
        let caller = match self.authenticate(credential, now).await {
            Ok(caller) => caller,
            Err(rejected) => {
                self.refused_login(source, &resource.name, cause_name(rejected.cause()), rejected.detail());
                return Err(Denied::Token);
            }
        };
        let refused = |cause: &'static str, detail: &str| {
            self.refused_login(source, &resource.name, cause, detail);
            Err(Denied::Access)
        };
        if let Some(who) = self.revoked_of(&caller) {
            return refused("revoked", &who);
        }
        let until = caller.expires();
        let Caller { principal, delegation } = caller;
        let who = principal.id();
        if !resource.databases.iter().any(|known| known == database) {
            return refused("database", &format!("{who} asked for database {}", named(database)));
        }
        let Some(role) = resource.role(role) else {
            return refused("role", &format!("{who} asked for role {}", named(role)));
        };
        let chain = match &delegation {
            Some(last) => last.subjects(),
            None => subject(&principal).map(|subject| vec![subject]),
        };
        let Some(chain) = chain else {
            return refused("principal", "the issuer's name cannot stand in a principal's id");
        };
        let links = delegation.iter().flat_map(|last| last.chain());
        let standing = Arc::new(Standing {
            chain,
            scopes: links.map(|link| link.scope.clone()).collect(),
            resource: resource.name.as_str().into(),
            database: database.into(),
            role: role.name.as_str().into(),
            protocol: "postgres",
        });
        let policy = self.policy.current();
        let decision = policy.decide(&standing, &policy::login(&role.name));
        if decision.beyond {
            return refused("delegation", &format!("{who}: {}", decision.errors.join("; ")));
        }
        let read_only = !resource.shadow && policy.only_reads(&standing);
        if !decision.is_permit() && !resource.shadow {
            return refused("policy", &format!("{who} may not be role {:?} in {database:?}", role.name));
        }
        if self.recorder.refuses_sessions() {
            return Err(Denied::Unavailable);
        }
        let expires = match resource.session_max {
            None => until,
            // What was handed down ends when it ends, whatever a session may last.
            Some(limit) if delegation.is_some() => until.min(now + limit),
            Some(limit) => now + limit,
        };
        Ok(Admission {
            principal,
            delegation,
            standing,
            decision,
            expires,
            source,
            shadow: resource.shadow,
            read_only,
            role: role.clone(),
        })
    }

    /// Which sensitive columns of its database a session is shown masked.
    pub(crate) fn masking(&self, admission: &Admission, catalog: Option<&Arc<Watched>>) -> Masking {
        let sensitive = catalog.map(|catalog| catalog.sensitive().clone()).unwrap_or_default();
        masking(&self.policy.load(), &admission.standing, admission.shadow, sensitive)
    }

    /// Records a session's opening; durable when it returns.
    pub(crate) async fn open_session(
        &self,
        admission: &Admission,
        application: &str,
    ) -> Result<Book, Unavailable> {
        let opened = Opened {
            principal: &admission.principal,
            delegation: admission.delegation.as_deref(),
            standing: &admission.standing,
            decision: &admission.decision,
            source: admission.source,
            application,
            expires: admission.expires,
            shadow: admission.shadow,
        };
        self.recorder.open_session(&opened, self.config.limits.durable_deadline).await
    }

    /// Enters a session among the living; `brought` are the settings for the gateway itself that its client came with.
    pub(crate) fn enter(
        self: &Arc<Gateway>,
        served: &Arc<Served>,
        admission: &Admission,
        book: Book,
        cancel_key: &CancelKey,
        upstream_key: Option<CancelKey>,
        brought: &BTreeMap<String, String>,
    ) -> Session {
        let canceller = book.canceller();
        let slot = book.slot();
        let upstream = served.upstream.clone();
        let key = upstream_key.clone();
        let live = Live {
            number: book.number(),
            standing: admission.standing.clone(),
            principal: admission.principal.clone(),
            signal: book.slot(),
            expires: admission.expires,
            idle_timeout: served.upstream.resource().idle_timeout,
            started: SystemTime::now(),
            cancel_key: cancel_key.bytes(),
            cancel: Box::new(move |source| {
                let (canceller, upstream, key) = (canceller.clone(), upstream.clone(), key.clone());
                let slot = slot.clone();
                tokio::spawn(async move {
                    if canceller.record(source).await.is_err() {
                        return;
                    }
                    if slot.signal().withdraw() == Withdrawn::Alone {
                        return;
                    }
                    if let Some(key) = key
                        && let Err(error) = upstream.cancel(&key).await
                    {
                        tracing::warn!(resource = upstream.resource().name, %error, "cannot pass on a cancel request");
                    }
                })
            }),
            seen: Mutex::new((0, Instant::now())),
        };
        let terms = Terms {
            standing: admission.standing.clone(),
            shadow: admission.shadow,
            allowances: admission
                .delegation
                .iter()
                .flat_map(|last| last.chain())
                .filter_map(|link| link.commands.clone())
                .collect(),
            reads_when_written: served.upstream.resource().durability != config::Durability::Strict,
            tally: self.tallies.of(admission.principal.id()),
            cancel: upstream_key.clone().map(|key| canceller_of(served.upstream.clone(), key)),
        };
        let entered = self.registry.enter(live);
        // So may a change of policy.
        let login = policy::login(&admission.standing.role);
        if !admission.shadow && !self.policy.load().decide(&admission.standing, &login).is_permit() {
            book.signal().end(EndReason::PolicyChanged);
        }
        // A revocation may have come between the decision and this entry: it finds the session here, or we find it there.
        if self.is_over(admission) {
            book.signal().end(EndReason::Revoked);
        }
        let people = People {
            approvals: self.approvals.clone(),
            presented: presented(brought),
            locks: upstream_key.as_ref().map(|key| self.locks(served, &admission.standing.database, key)),
            stays_out: {
                let revoked = self.revoked.clone();
                Box::new(move |who| revoked.read().has(who))
            },
        };
        let exchange = Exchange::new(terms, self.policy.clone(), book, people);
        Session { exchange, _entered: entered, upstream_key }
    }

    /// Ends a session: records its close, and cancels what it left running upstream.
    pub(crate) fn leave(&self, served: &Arc<Served>, session: Session, reason: EndReason) {
        let (book, under_way, totals, violation) = session.exchange.close();
        if let Some(violation) = violation {
            tracing::warn!(session = book.number(), reason = reason.name(), %violation, "session ended: protocol violated");
        }
        book.close(reason, &totals);
        if under_way && let Some(key) = session.upstream_key {
            let upstream = served.upstream.clone();
            tokio::spawn(async move {
                if let Err(error) = upstream.cancel(&key).await {
                    tracing::warn!(resource = upstream.resource().name, %error, "cannot cancel what a session left running");
                }
            });
        }
    }

    /// Passes on a client's cancel request, if its key is one of ours, and waits until the upstream has dealt with it: what the
    /// client sends afterwards must not be what is cancelled.
    pub(crate) async fn cancel(&self, key: &CancelKey, source: SocketAddr) {
        let passing_on = self.registry.by_cancel_key(&key.bytes()).map(|live| (live.cancel)(source));
        if let Some(passing_on) = passing_on {
            let _ = passing_on.await;
        }
    }

    /// Whether policy lets this principal do this to the gateway itself, today.
    pub(crate) fn permits(&self, who: &Principal, action: AdminAction) -> bool {
        subject(who).is_some_and(|subject| {
            self.policy.load().decide_admin(&[subject], action, &self.config.ledger.origin).is_permit()
        })
    }

    /// Revokes: the ledger first, then the principal stays out and its sessions end. It goes on to its end where whoever asked does
    /// not wait for it.
    pub(crate) async fn revoke(
        self: &Arc<Gateway>,
        target: &Target,
        reason: &str,
        by: &str,
    ) -> Result<Ended, Unavailable> {
        let (gateway, target) = (self.clone(), target.clone());
        let (reason, by) = (reason.to_owned(), by.to_owned());
        to_its_end(async move { gateway.revoke_now(&target, &reason, &by).await }).await
    }

    async fn revoke_now(&self, target: &Target, reason: &str, by: &str) -> Result<Ended, Unavailable> {
        let recorded = self
            .recorder
            .record_revocation(&Revoked { target, reason, by }, self.config.limits.durable_deadline)
            .await;
        // Ending is the safe direction: it is done also where the record is late.
        self.revoked.write().add(target);
        self.revoke_consents();
        let mut ended = self.registry.revoke(target);
        // What was handed down by, or through, who stays out is over.
        if let Some(delegations) = &self.delegations {
            let stays_out = |principal: &Arc<Principal>| self.is_revoked(principal);
            let is_meant = |link: &Delegation| matches!(target, Target::Delegation(id) if *link.id == **id);
            delegations.end(|link| {
                is_meant(link) || stays_out(&link.principal) || link.actor.as_ref().is_some_and(stays_out)
            });
            let now = SystemTime::now();
            ended.sessions += self
                .registry
                .end(EndReason::Revoked, |live| {
                    let last = live.standing.scopes.last();
                    last.is_some_and(|last| delegations.find(last.delegation(), now).is_none())
                })
                .sessions;
        }
        recorded.map(|()| ended)
    }

    /// Whether anybody of an admission's chain was revoked, or what was handed down is over.
    fn is_over(&self, admission: &Admission) -> bool {
        let Some(last) = &admission.delegation else { return self.is_revoked(&admission.principal) };
        let lives = |delegations: &Delegations| delegations.find(&last.id, SystemTime::now()).is_some();
        !self.delegations.as_ref().is_some_and(lives)
            || last.principals().any(|principal| self.is_revoked(principal))
    }

    /// Who stays out.
    pub(crate) fn stay_out(&self) -> StayOut {
        self.revoked.read().clone()
    }

    /// Whether this principal stays out: it was revoked, or a group that it is in, or its token.
    pub(crate) fn is_revoked(&self, principal: &Principal) -> bool {
        self.revoked.read().has(principal)
    }

    /// Ends the sessions whose principal may no longer be their role under the policies in force.
    pub(crate) fn recheck(&self) -> Ended {
        let set = self.policy.current();
        self.registry.end(EndReason::PolicyChanged, |live| {
            let shadow = self
                .served
                .get(&*live.standing.resource)
                .is_some_and(|served| served.upstream.resource().shadow);
            !shadow && !set.decide(&live.standing, &policy::login(&live.standing.role)).is_permit()
        })
    }

    /// Keeps count of a refused login: the first of its kind is recorded at once, the rest summed up by the minute.
    pub(crate) fn refused_login(
        &self,
        source: SocketAddr,
        resource: &str,
        cause: &'static str,
        detail: &str,
    ) {
        tracing::warn!(%source, resource, cause, detail, "login refused");
        self.logins_refused.fetch_add(1, Ordering::Relaxed);
        let mut logins = self.logins.lock();
        let key = (source.ip().to_string(), cause);
        let known = logins.counts.len();
        let key = if known >= LOGIN_SOURCES_MAX && !logins.counts.contains_key(&key) {
            (String::new(), cause)
        } else {
            key
        };
        let source = key.0.clone();
        match logins.counts.entry(key) {
            std::collections::hash_map::Entry::Occupied(mut summed) => summed.get_mut().count += 1,
            std::collections::hash_map::Entry::Vacant(place) => {
                let refused = RefusedLogin {
                    source,
                    resource: resource.to_owned(),
                    cause,
                    detail: detail.to_owned(),
                    count: 1,
                };
                self.recorder.record_refused_login(&refused);
                place.insert(RefusedLogin { count: 0, ..refused });
            }
        }
    }

    /// How many logins and tokens were refused since the start.
    pub(crate) fn refused_logins(&self) -> u64 {
        self.logins_refused.load(Ordering::Relaxed)
    }

    /// Records what was summed up, once a minute.
    pub(crate) fn sum_up_logins(&self, now: Instant, all: bool) {
        let mut logins = self.logins.lock();
        if !all && now.duration_since(logins.since) < LOGIN_WINDOW {
            return;
        }
        logins.since = now;
        for refused in std::mem::take(&mut logins.counts).into_values().filter(|refused| refused.count > 0) {
            self.recorder.record_refused_login(&refused);
        }
    }

    /// The newest snapshot of a catalog, or one that knows nothing.
    pub(crate) fn snapshot(&self, catalog: Option<&Arc<Watched>>) -> Arc<Catalog> {
        catalog.unwrap_or(&self.no_catalog).snapshot()
    }

    /// Where a conversation gets its snapshots.
    pub(crate) fn catalog_source(&self, catalog: Option<Arc<Watched>>) -> Arc<dyn CatalogSource> {
        catalog.unwrap_or_else(|| self.no_catalog.clone())
    }
}

/// Which of these columns are shown masked: those that policy does not let one see in clear. In shadow none is.
pub(crate) fn masking(
    set: &policy::PolicySet,
    standing: &Standing,
    shadow: bool,
    sensitive: Arc<[Sensitive]>,
) -> Masking {
    Masking::new(sensitive, |column| {
        let unmask = policy::unmask(column.object(&standing.database));
        !shadow && !set.decide(standing, &unmask).is_permit()
    })
}

/// Does what has to be done whole once it has begun, as a record and its effect: it goes on where whoever waits for it goes away.
pub(crate) async fn to_its_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// What a client brings of approvals. What is no id presents one that is not known.
fn presented(brought: &BTreeMap<String, String>) -> Presented {
    match brought.get("approval").map(String::as_str) {
        None | Some("") => Presented::Nothing,
        Some("ask") => Presented::Ask,
        Some(id) => Presented::Approved(id.parse().ok()),
    }
}

/// Has an upstream cancel what a session runs that reached a limit.
fn canceller_of(upstream: Arc<Upstream>, key: CancelKey) -> crate::session::Cancel {
    Box::new(move || {
        let (upstream, key) = (upstream.clone(), key.clone());
        tokio::spawn(async move {
            if let Err(error) = upstream.cancel(&key).await {
                tracing::warn!(resource = upstream.resource().name, %error, "cannot cancel what reached a limit");
            }
        })
    })
}

/// A name that a client gave, for the operator. What is longer than any name may be a token in the wrong place, and is not repeated.
fn named(name: &str) -> String {
    if name.len() < gatebook_wire::limits::NAME_BYTES {
        format!("{name:?}")
    } else {
        format!("of {} bytes", name.len())
    }
}

fn cause_name(cause: Cause) -> &'static str {
    cause.name()
}

/// A principal as policy sees it.
pub(crate) fn subject(principal: &Principal) -> Option<Subject> {
    let kind = match principal.kind() {
        PrincipalKind::User => SubjectKind::User,
        PrincipalKind::Service => SubjectKind::Service,
    };
    Subject::new(kind, principal.issuer(), principal.subject(), principal.groups().iter().cloned())
}
