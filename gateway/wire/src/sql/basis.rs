//! Whether what analysis found still holds once the catalog has been read anew.
//!
//! What a newcomer gets wrong: it is not enough that a text means the same by both catalogs. A table may have been renamed away, another
//! into its place, and both back in between; so each object that the text names must be the same and untouched.

use std::sync::Arc;

use super::state::State;
use super::{Analysis, Catalog, Session};

/// What a text was analysed by.
#[derive(Debug, Clone)]
pub struct Basis {
    state: Arc<State>,
    catalog: Arc<Catalog>,
}

impl Session {
    /// What a text is analysed by now, with this catalog.
    #[must_use]
    pub fn basis(&self, catalog: Arc<Catalog>) -> Basis {
        Basis { state: self.state_for(&catalog), catalog }
    }

    /// Whether what was found in `text`, of which the upstream was sent `sent` if it is another, is what is found in it by `now`, and of objects
    /// that nobody has touched. Where the text is not known it is so only while nothing has changed at all.
    #[must_use]
    pub fn holds(
        &self,
        basis: &Basis,
        found: &Analysis,
        text: Option<&str>,
        sent: Option<&str>,
        now: &Catalog,
    ) -> bool {
        if basis.catalog.is_same(now) {
            return true;
        }
        let Some(text) = text else { return false };
        let strings = basis.state.names.strings;
        let again = self.analyze_in(text, strings, false, &basis.state, now, 0).kept(text, sent);
        let mut objects = found.statements.iter().flat_map(|statement| &statement.meaning.actions);
        again.statements == found.statements
            && objects.all(|action| {
                basis.catalog.known().version(&action.object) == now.known().version(&action.object)
            })
    }
}
