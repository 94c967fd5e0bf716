//! Reads an upstream's catalog over a connection of the gateway's own, keeps it fresh, and hands out snapshots.
//!
//! One task for each database of a resource. It asks a cheap question often and reads the whole catalog only when the answer
//! changed. While the upstream cannot be asked the last snapshot stays: analysis by it is by design no wider than policy.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gatebook_wire::postgres::conversation::CatalogSource;
use gatebook_wire::sql::{CATALOG_QUERIES, CATALOG_SETUP, Catalog, FINGERPRINT_QUERY, Sensitive};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::upstream::{Connected, Upstream, UpstreamError};

/// How often the upstream is asked whether its catalog changed.
const POLL: Duration = Duration::from_secs(1);

/// How long one look may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(60);

/// The longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The catalog of one database, as last seen.
pub(crate) struct Watched {
    newest: ArcSwap<Catalog>,
    sensitive: Arc<[Sensitive]>,
    wanted: Notify,
    known: watch::Sender<bool>,
}

impl CatalogSource for Watched {
    fn snapshot(&self) -> Arc<Catalog> {
        self.newest.load_full()
    }

    fn look_soon(&self) {
        self.wanted.notify_one();
    }
}

impl Watched {
    /// A catalog that knows nothing yet but which columns are declared sensitive; [`Watched::watch`] fills it.
    pub(crate) fn new(sensitive: Arc<[Sensitive]>) -> Arc<Watched> {
        Arc::new(Watched {
            sensitive,
            newest: ArcSwap::from_pointee(Catalog::empty()),
            wanted: Notify::new(),
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
        let mut last = None;
        loop {
            let look = self.look(&mut connected, &mut last);
            timeout(LOOK_DEADLINE, look).await.map_err(|_| UpstreamError::Deadline(LOOK_DEADLINE))??;
            // After a change two looks are wanted: a session trusts what two of them agree on.
            if timeout(POLL, self.wanted.notified()).await.is_ok() {
                let look = self.look(&mut connected, &mut last);
                timeout(LOOK_DEADLINE, look).await.map_err(|_| UpstreamError::Deadline(LOOK_DEADLINE))??;
            }
        }
    }

    async fn look(&self, connected: &mut Connected, last: &mut Option<String>) -> Result<(), UpstreamError> {
        let rows = connected.query(FINGERPRINT_QUERY, 1).await?;
        let fingerprint = rows.into_iter().flatten().flatten().next().unwrap_or_default();
        if last.as_ref() == Some(&fingerprint) {
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
        *last = Some(fingerprint);
        self.known.send_replace(true);
        Ok(())
    }
}
