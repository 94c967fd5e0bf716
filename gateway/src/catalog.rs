//! Reads an upstream's catalog over a connection of the gateway's own, keeps it fresh, and hands out snapshots.
//!
//! One task for each database of a resource. It asks a cheap question often and reads the whole catalog only when the answer
//! changed. Where no transaction has ended since, the question is cheaper still: nothing can have changed. Looks are numbered, so that a thousand
//! sessions that each want one which begins from now on share the next. While the upstream cannot be asked the last snapshot stays: analysis by it is by design no wider than policy.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use arc_swap::ArcSwap;
use gatebook_wire::postgres::conversation::{CatalogSource, Look};
use gatebook_wire::sql::{CATALOG_QUERIES, CATALOG_SETUP, Catalog, FINGERPRINT_QUERY, Sensitive};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::upstream::{Connected, Upstream, UpstreamError};

/// How often the upstream is asked whether its catalog changed.
const POLL: Duration = Duration::from_secs(1);

/// The same while sessions confirm what they were answered: a change is then mostly known before the next command is decided.
const POLL_CONFIRMED: Duration = Duration::from_millis(50);

/// How often it is asked so after the last of them.
const POLLS_CONFIRMED: u32 = 20;

/// Which transactions have ended, as far as a statement can see: where it is the same, nothing has changed.
const SNAPSHOT_QUERY: &str = "SELECT pg_catalog.pg_current_snapshot()";

/// How long one look may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(60);

/// The longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The catalog of one database, as last seen.
pub(crate) struct Watched {
    newest: ArcSwap<Catalog>,
    sensitive: Arc<[Sensitive]>,
    wanted: Notify,
    looks: Mutex<Looks>,
    known: watch::Sender<bool>,
}

/// Looks at the upstream, by their number.
#[derive(Default)]
struct Looks {
    /// The last that has begun, that has ended well, and that has failed.
    begun: u64,
    done: u64,
    failed: u64,
    /// The last that somebody waits for, that is wanted, and that was wanted because a command changed definitions.
    asked: u64,
    wanted: u64,
    defined: u64,
    waiting: Vec<Waker>,
}

/// What a look goes by: the snapshot and the fingerprint that the one before found.
#[derive(Default)]
struct Last {
    snapshot: String,
    fingerprint: String,
}

impl CatalogSource for Watched {
    fn snapshot(&self) -> Arc<Catalog> {
        self.newest.load_full()
    }

    fn look_soon(&self) {
        {
            let mut looks = self.looks.lock();
            looks.defined = looks.begun + 1;
            // After a change two looks are wanted: a session trusts what two of them agree on.
            looks.wanted = looks.begun + 2;
        }
        self.wanted.notify_one();
    }

    fn defined(&self) -> u64 {
        self.looks.lock().defined
    }

    fn ask(&self) -> u64 {
        let number = {
            let mut looks = self.looks.lock();
            looks.asked = looks.begun + 1;
            looks.wanted = looks.wanted.max(looks.asked);
            looks.asked
        };
        self.wanted.notify_one();
        number
    }

    fn looked(&self, number: u64, waker: Option<&Waker>) -> Look {
        let mut looks = self.looks.lock();
        if number <= looks.done {
            return Look::Done;
        }
        if number <= looks.failed {
            return Look::Failed;
        }
        if let Some(waker) = waker
            && !looks.waiting.iter().any(|waiting| waiting.will_wake(waker))
        {
            looks.waiting.push(waker.clone());
        }
        Look::Pending
    }
}

impl Looks {
    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    /// The last that has begun has ended; a look that somebody waits for and that could not even begin has failed as well. Tells
    /// whether somebody waited for it.
    fn end(&mut self, well: bool) -> bool {
        if well {
            self.done = self.begun;
        } else {
            self.begun = self.begun.max(self.wanted);
            self.failed = self.begun;
        }
        self.waiting.drain(..).for_each(Waker::wake);
        self.asked == self.begun
    }
}

impl Watched {
    /// A catalog that knows nothing yet but which columns are declared sensitive; [`Watched::watch`] fills it.
    pub(crate) fn new(sensitive: Arc<[Sensitive]>) -> Arc<Watched> {
        Arc::new(Watched {
            sensitive,
            newest: ArcSwap::from_pointee(Catalog::empty()),
            wanted: Notify::new(),
            looks: Mutex::default(),
            known: watch::Sender::new(false),
        })
    }

    /// Waits until the catalog has been read once, at most for `deadline`; tells whether it was. Without it everything is opaque, never
    /// permitted by accident.
    pub(crate) async fn wait_known(&self, deadline: Duration) -> bool {
        let mut known = self.known.subscribe();
        timeout(deadline, known.wait_for(|known| *known)).await.is_ok_and(|known| known.is_ok())
    }

    /// Whether the catalog has been read once.
    pub(crate) fn is_known(&self) -> bool {
        *self.known.borrow()
    }

    /// The columns of the database that are declared sensitive.
    pub(crate) fn sensitive(&self) -> &Arc<[Sensitive]> {
        &self.sensitive
    }

    /// Looks again and again, for as long as the gateway runs.
    pub(crate) async fn watch(self: Arc<Watched>, upstream: Arc<Upstream>, database: String) {
        let mut pause = POLL;
        loop {
            match self.follow(&upstream, &database).await {
                Ok(never) => match never {},
                Err(error) => {
                    let resource = &upstream.resource().name;
                    tracing::warn!(resource, database, %error, "cannot read the catalog; statements are decided by the last one known");
                }
            }
            self.looks.lock().end(false);
            sleep(pause).await;
            pause = if *self.known.borrow() { POLL } else { (pause * 2).min(PAUSE_MAX) };
        }
    }

    /// Looks over one connection until it breaks.
    async fn follow(
        &self,
        upstream: &Upstream,
        database: &str,
    ) -> Result<std::convert::Infallible, UpstreamError> {
        let resource = upstream.resource();
        let role = resource
            .role(&resource.catalog_role)
            .ok_or_else(|| UpstreamError::Violation("no catalog role".into()))?;
        let settings = [("application_name", "gatebook catalog"), ("default_transaction_read_only", "on")];
        let mut connected = upstream.connect(role, database, &settings).await?;
        connected.query(CATALOG_SETUP, 0).await?;
        let (mut last, mut soon) = (Last::default(), 0);
        loop {
            let number = self.looks.lock().begin();
            let look = self.look(&mut connected, &mut last);
            timeout(LOOK_DEADLINE, look).await.map_err(|_| UpstreamError::Deadline(LOOK_DEADLINE))??;
            soon = if self.looks.lock().end(true) { POLLS_CONFIRMED } else { soon.saturating_sub(1) };
            let wanted = async {
                while self.looks.lock().wanted <= number {
                    self.wanted.notified().await;
                }
            };
            let _ = timeout(if soon > 0 { POLL_CONFIRMED } else { POLL }, wanted).await;
        }
    }

    async fn look(&self, connected: &mut Connected, last: &mut Last) -> Result<(), UpstreamError> {
        let snapshot = value(connected, SNAPSHOT_QUERY).await?;
        let fingerprint = if snapshot == last.snapshot {
            last.fingerprint.clone()
        } else {
            value(connected, FINGERPRINT_QUERY).await?
        };
        // What ended between the two questions shows in the next snapshot.
        last.snapshot = snapshot;
        if last.fingerprint == fingerprint {
            self.newest.store(Arc::new(self.newest.load().confirmed()));
            return Ok(());
        }
        connected.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 0).await?;
        let mut answers = Vec::with_capacity(CATALOG_QUERIES.len());
        for query in CATALOG_QUERIES {
            // The definition of a view locks what it reads from; going back to here lets go of it before the next query.
            connected.query("SAVEPOINT before", 0).await?;
            answers.push(connected.query(query.sql, query.rows_max).await?);
            connected.query("ROLLBACK TO SAVEPOINT before", 0).await?;
        }
        connected.query("COMMIT", 0).await?;
        let catalog = Catalog::from_rows(answers, &self.sensitive)
            .map_err(|error| UpstreamError::Violation(error.to_string()))?;
        for column in catalog.missing(&self.sensitive) {
            let column = format!("{}.{}.{}", column.schema, column.table, column.column);
            tracing::warn!(
                column,
                "a column that is declared sensitive is not in the upstream's catalog: nothing is masked by that name"
            );
        }
        let catalog = catalog.succeeding(&self.newest.load());
        self.newest.store(Arc::new(catalog));
        last.fingerprint = fingerprint;
        self.known.send_replace(true);
        Ok(())
    }
}

/// The one value that a query answers with.
async fn value(connected: &mut Connected, query: &str) -> Result<String, UpstreamError> {
    let rows = connected.query(query, 1).await?;
    let value = rows.into_iter().flatten().flatten().next();
    value.ok_or_else(|| UpstreamError::Violation("a question about the catalog has no answer".into()))
}
