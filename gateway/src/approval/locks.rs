//! What a waiting transaction holds, so that whoever is asked sees who else may be waiting.

use std::sync::Arc;
use std::time::Duration;

use gatebook_wire::postgres::login::CancelKey;
use tokio::time::timeout;

use super::Request;
use crate::gateway::{Gateway, Served};
use crate::session::Locks;
use crate::upstream::{Upstream, UpstreamError};

/// How long the upstream may take to tell.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many locks are shown.
const LOCKS_MAX: usize = 64;

impl Gateway {
    /// What finds out the locks of the upstream session that `key` cancels: its process is named there.
    pub(crate) fn locks(&self, served: &Arc<Served>, database: &str, key: &CancelKey) -> Locks {
        let (upstream, database, process) = (served.upstream.clone(), database.to_owned(), key.process_id);
        let approvals = self.approvals.clone();
        Box::new(move |request: Arc<Request>| {
            let (upstream, database, approvals) = (upstream.clone(), database.clone(), approvals.clone());
            tokio::spawn(async move {
                match timeout(DEADLINE, held(&upstream, &database, process)).await {
                    Ok(Ok(locks)) => request.holds(locks),
                    Ok(Err(error)) => {
                        tracing::warn!(id = %request.id, %error, "cannot find out what a waiting transaction holds")
                    }
                    Err(_) => {
                        tracing::warn!(id = %request.id, "cannot find out in time what a waiting transaction holds")
                    }
                }
                approvals.changed();
            });
        })
    }
}

/// The relations that a process of the upstream has locked, each with its mode.
async fn held(upstream: &Upstream, database: &str, process: u32) -> Result<Vec<String>, UpstreamError> {
    let resource = upstream.resource();
    let role = resource
        .role(&resource.catalog_role)
        .ok_or_else(|| UpstreamError::Violation("no catalog role".into()))?;
    let settings = [("application_name", "gatebook locks"), ("default_transaction_read_only", "on")];
    let mut connected = upstream.connect(role, database, &settings).await?;
    let sql = format!(
        "SELECT DISTINCT n.nspname || '.' || c.relname || ' ' || l.mode FROM pg_catalog.pg_locks l \
         JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE l.pid = {process} AND l.granted AND n.nspname <> 'pg_catalog' AND c.relkind <> 'i' ORDER BY 1 LIMIT {LOCKS_MAX}"
    );
    let rows = connected.query(&sql, LOCKS_MAX).await?;
    Ok(rows.into_iter().flatten().flatten().collect())
}
