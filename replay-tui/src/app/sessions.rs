//! The list of sessions: what passes the filter, in the order of a column.

use std::collections::HashMap;

use crate::filter::Filter;
use crate::message::{SessionId, SessionRow, UnixNs};

/// What the list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// When they opened.
    Started,
    /// Who.
    Principal,
    /// To which upstream.
    Resource,
    /// How many commands.
    Commands,
    /// How many were refused.
    Refused,
    /// How they ended.
    Ended,
}

impl Sort {
    const ALL: [Sort; 6] =
        [Sort::Started, Sort::Principal, Sort::Resource, Sort::Commands, Sort::Refused, Sort::Ended];

    fn next(self) -> Self {
        let at = Sort::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Sort::ALL[(at + 1) % Sort::ALL.len()]
    }

    /// Numbers begin with the largest, names with the first.
    fn begins_with_largest(self) -> bool {
        matches!(self, Sort::Started | Sort::Commands | Sort::Refused)
    }
}

/// The list.
#[derive(Debug, Clone)]
pub struct Sessions {
    rows: Vec<SessionRow>,
    by_id: HashMap<SessionId, usize>,
    order: Vec<usize>,
    filter: Filter,
    /// What the list is sorted by.
    pub sort: Sort,
    /// Whether the largest stands first.
    pub descending: bool,
    chosen: Option<SessionId>,
    /// The first row on the screen.
    pub first: usize,
}

impl Default for Sessions {
    fn default() -> Self {
        Sessions {
            rows: Vec::new(),
            by_id: HashMap::new(),
            order: Vec::new(),
            filter: Filter::default(),
            sort: Sort::Started,
            descending: true,
            chosen: None,
            first: 0,
        }
    }
}

impl Sessions {
    /// Takes new and changed rows.
    pub fn take(&mut self, changed: Vec<SessionRow>) {
        if changed.is_empty() {
            return;
        }
        for row in changed {
            match self.by_id.get(&row.id) {
                Some(at) => self.rows[*at] = row,
                None => {
                    self.by_id.insert(row.id, self.rows.len());
                    self.rows.push(row);
                }
            }
        }
        self.arrange();
    }

    /// Filters by what the auditor typed.
    pub fn filter(&mut self, typed: &str, now_ns: UnixNs) {
        self.filter = Filter::read(typed, now_ns);
        self.arrange();
    }

    /// What was not understood of the filter.
    #[must_use]
    pub fn mistake(&self) -> Option<&str> {
        self.filter.mistake.as_deref()
    }

    /// Sorts by the next column.
    pub fn sort_by_next(&mut self) {
        self.sort = self.sort.next();
        self.descending = self.sort.begins_with_largest();
        self.arrange();
    }

    /// Turns the order round.
    pub fn reverse(&mut self) {
        self.descending = !self.descending;
        self.arrange();
    }

    fn arrange(&mut self) {
        let rows = &self.rows;
        let filter = &self.filter;
        let sort = self.sort;
        self.order = (0..rows.len()).filter(|at| filter.is_empty() || filter.passes(&rows[*at])).collect();
        let end = |row: &SessionRow| row.ended.as_ref().map(|(_, reason)| reason.clone());
        self.order.sort_by(|a, b| {
            let (a, b) = (&rows[*a], &rows[*b]);
            let by_column = match sort {
                Sort::Started => a.opened_ns.cmp(&b.opened_ns),
                Sort::Principal => a.principal.cmp(&b.principal),
                Sort::Resource => a.resource.cmp(&b.resource),
                Sort::Commands => a.commands.cmp(&b.commands),
                Sort::Refused => a.refused.cmp(&b.refused),
                Sort::Ended => end(a).cmp(&end(b)),
            };
            let by_column = if self.descending { by_column.reverse() } else { by_column };
            // What was recorded outside of any session stands last in every order.
            (a.id == 0).cmp(&(b.id == 0)).then(by_column).then(b.id.cmp(&a.id))
        });
    }

    /// How many rows are in the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// How many sessions are in the list, and how many of their commands were refused.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        let sessions = self.order.iter().filter(|at| self.rows[**at].id != 0).count();
        (sessions, self.order.iter().map(|at| self.rows[*at].refused).sum())
    }

    /// A row of the list.
    #[must_use]
    pub fn row(&self, at: usize) -> Option<&SessionRow> {
        self.order.get(at).map(|row| &self.rows[*row])
    }

    /// A session, in the list or not.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&SessionRow> {
        self.by_id.get(&id).map(|at| &self.rows[*at])
    }

    /// Where the chosen session stands in the list; the first where none was chosen, or it was filtered out.
    #[must_use]
    pub fn cursor(&self) -> usize {
        let Some(chosen) = self.chosen.and_then(|id| self.by_id.get(&id)) else { return 0 };
        self.order.iter().position(|at| at == chosen).unwrap_or(0)
    }

    /// The chosen session.
    #[must_use]
    pub fn chosen(&self) -> Option<&SessionRow> {
        self.row(self.cursor())
    }

    /// Chooses a row of the list.
    pub fn choose(&mut self, at: usize) {
        self.chosen = self.row(at.min(self.len().saturating_sub(1))).map(|row| row.id);
    }

    /// Chooses a session by its number.
    pub fn choose_session(&mut self, id: SessionId) {
        self.chosen = Some(id);
    }
}
