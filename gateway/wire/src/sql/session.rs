//! The possible states of one upstream session.

use std::sync::Arc;

use super::{Analysis, Catalog, Renames, Statement};

/// What is known of a session when its login ends.
#[derive(Debug, Clone)]
pub struct Start {
    /// The database that it is in.
    pub database: Arc<str>,
    /// The role that it logged in as.
    pub role: Arc<str>,
    /// The search path that a startup parameter set, where one did.
    pub search_path: Option<String>,
}

/// What a statement does to the state of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It may do anything.
    Anything,
}

/// The transaction status that `ReadyForQuery` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    /// None is open (`I`).
    Idle,
    /// One is open (`T`).
    Open,
    /// One is open and has failed (`E`).
    Failed,
}

/// A statement that was sent and has not ended: to be handed back to [`Session::ended`].
#[derive(Debug)]
#[must_use = "a statement that was sent has an end"]
pub struct Sent {
    steps: Arc<[Step]>,
}

/// The possible states of one upstream session.
#[derive(Debug, Clone)]
pub struct Session {
    start: Start,
}

impl Session {
    /// The state right after login.
    #[must_use]
    pub fn new(start: Start, catalog: &Catalog) -> Self {
        let _ = catalog;
        Self { start }
    }

    /// What the statements of `text` want, in every state that is possible now. It never fails: see the module.
    #[must_use]
    pub fn analyze(&self, text: &str, catalog: &Catalog) -> Arc<Analysis> {
        let _ = catalog;
        Arc::new(Analysis::opaque(&self.start.database, text.len()))
    }

    /// What running the prepared statement `name` wants, as the upstream would plan it now. This covers names made by
    /// [`Session::prepare_sent`] and by `PREPARE`, which share one namespace.
    #[must_use]
    pub fn prepared(&self, name: &str, catalog: &Catalog) -> Arc<Analysis> {
        let _ = (name, catalog);
        Arc::new(Analysis::opaque(&self.start.database, 0))
    }

    /// What running the portal `name` wants: one made by [`Session::bind_sent`] or by `DECLARE`.
    #[must_use]
    pub fn portal(&self, name: &str) -> Arc<Analysis> {
        let _ = name;
        Arc::new(Analysis::opaque(&self.start.database, 0))
    }

    /// The statement was forwarded: its effects are possible from now on.
    pub fn sent(&mut self, statement: &Statement) -> Sent {
        Sent { steps: statement.steps.clone() }
    }

    /// A Parse message was forwarded that names `text` (the empty name too).
    pub fn prepare_sent(&mut self, name: &str, text: &str) -> Sent {
        let _ = (name, text);
        Sent { steps: Arc::new([]) }
    }

    /// A Bind message was forwarded that makes the portal `portal` of an analysed statement.
    pub fn bind_sent(&mut self, portal: &str, statement: &Statement) -> Sent {
        let _ = (portal, statement);
        Sent { steps: Arc::new([]) }
    }

    /// A Close message for a prepared statement was forwarded.
    pub fn unprepare_sent(&mut self, name: &str) -> Sent {
        let _ = name;
        Sent { steps: Arc::new([]) }
    }

    /// A Close message for a portal was forwarded.
    pub fn close_sent(&mut self, portal: &str) -> Sent {
        let _ = portal;
        Sent { steps: Arc::new([]) }
    }

    /// The upstream told how what was sent came out; `completed` is false where it failed or was passed over. To be
    /// called once for each [`Sent`], in their order.
    pub fn ended(&mut self, sent: Sent, completed: bool) {
        let _ = (sent.steps, completed);
    }

    /// The upstream is ready for the next batch.
    pub fn ready(&mut self, transaction: Transaction) {
        let _ = transaction;
    }

    /// The upstream reported a setting.
    pub fn parameter_status(&mut self, name: &str, value: &str) {
        let _ = (name, value);
    }
}

/// What running `steps` does to names that the extended protocol shares with SQL.
pub(super) fn renames(steps: &[Step]) -> Renames<'_> {
    if steps.is_empty() { Renames::Nothing } else { Renames::Everything }
}
