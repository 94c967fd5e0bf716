//! Where a conversation gets what the upstream's catalog says.

use std::sync::Arc;
use std::task::Waker;

use crate::sql::Catalog;

/// Hands out the newest snapshot of an upstream's catalog.
pub trait CatalogSource: Send + Sync {
    /// The newest snapshot. Cheap: it is asked for with every statement.
    fn snapshot(&self) -> Arc<Catalog>;

    /// Definitions may have changed upstream: the next snapshot is wanted soon.
    fn look_soon(&self);

    /// The look that was wanted last because somebody's command changed definitions.
    fn defined(&self) -> u64 {
        0
    }

    /// Asks for a look at the upstream's catalog that begins from now on; gives its number.
    fn ask(&self) -> u64 {
        0
    }

    /// How the look of that number stands; `waker` is woken when it has ended.
    fn looked(&self, _number: u64, _waker: Option<&Waker>) -> Look {
        Look::Done
    }
}

/// How a look at the upstream's catalog stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It has not ended.
    Pending,
    /// The snapshot is not older than it.
    Done,
    /// The upstream could not be asked.
    Failed,
}
