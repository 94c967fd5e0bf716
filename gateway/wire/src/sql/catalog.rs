//! What the upstream's catalog says about names: an immutable snapshot.

use thiserror::Error;

/// The rows of one query: text values, none for NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// One query of [`CATALOG_QUERIES`].
#[derive(Debug, Clone, Copy)]
pub struct CatalogQuery {
    /// What it is for.
    pub name: &'static str,
    /// Its text: one statement, without parameters.
    pub sql: &'static str,
    /// How many columns each row has.
    pub columns: usize,
    /// How many rows are believed; more are an error.
    pub rows_max: usize,
}

/// The queries that fill a [`Catalog`]; they are run in this order, in one connection to the database itself, as
/// simple queries in one `REPEATABLE READ` transaction, and their rows handed to [`Catalog::from_rows`].
pub const CATALOG_QUERIES: &[CatalogQuery] = &[];

/// One row of one column that differs whenever the catalog may have changed.
pub const FINGERPRINT_QUERY: &str = "SELECT 1";

/// Why rows make no catalog.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("catalog query {query}: {reason}")]
pub struct CatalogError {
    query: &'static str,
    reason: String,
}

/// An immutable snapshot of an upstream database's catalog.
#[derive(Debug, Clone)]
pub struct Catalog {}

impl Catalog {
    /// Reads the rows of [`CATALOG_QUERIES`], in their order.
    ///
    /// # Errors
    /// When a query's rows are missing, too many or malformed.
    pub fn from_rows(rows: Vec<Rows>) -> Result<Self, CatalogError> {
        let _ = rows;
        Ok(Self {})
    }

    /// A catalog that knows nothing: every name in a text stays unresolved.
    #[must_use]
    pub fn empty() -> Self {
        Self {}
    }

    /// The same catalog, found unchanged by a later look at it.
    ///
    /// A session that changed definitions distrusts the snapshot until two later looks have confirmed or replaced it.
    #[must_use]
    pub fn confirmed(&self) -> Self {
        self.clone()
    }

    /// The snapshot that replaces `previous`.
    #[must_use]
    pub fn succeeding(self, previous: &Self) -> Self {
        let _ = previous;
        self
    }
}
