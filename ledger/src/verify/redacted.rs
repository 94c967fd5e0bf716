//! Which payloads may be gone: those that a `redaction` entry names, all before it.

use serde::Deserialize;

/// The body of a `redaction` entry.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Redaction {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// The entries that redactions name, as spans that are sorted and apart: each question is one search, however many there are.
#[derive(Debug, Default)]
pub(super) struct Redacted(Vec<(u64, u64)>);

impl Redacted {
    /// From redactions, each with the number of its entry. One that names what does not come before it permits nothing.
    pub(super) fn new(redactions: impl Iterator<Item = (u64, Redaction)>) -> Redacted {
        let fits = |(at, Redaction { first, last }): &(u64, Redaction)| first <= last && last < at;
        let mut spans: Vec<(u64, u64)> =
            redactions.filter(fits).map(|(_, redaction)| (redaction.first, redaction.last)).collect();
        spans.sort_unstable();
        spans.dedup_by(|next, before| {
            let touches = next.0 <= before.1;
            if touches {
                before.1 = before.1.max(next.1);
            }
            touches
        });
        Redacted(spans)
    }

    /// Whether this entry's payload may be gone.
    pub(super) fn has(&self, seq: u64) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= seq);
        behind.checked_sub(1).is_some_and(|at| seq <= self.0[at].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_say_what_the_redactions_say_one_by_one() {
        let mut chance = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let redactions: Vec<(u64, Redaction)> = (0..chance.u64(0..9))
                .map(|_| {
                    let (first, last) = (chance.u64(0..40), chance.u64(0..40));
                    (chance.u64(0..50), Redaction { first, last })
                })
                .collect();
            let redacted = Redacted::new(redactions.iter().copied());
            for seq in 0..45 {
                let named = |(at, redaction): &(u64, Redaction)| {
                    (redaction.first..=redaction.last).contains(&seq) && redaction.last < *at
                };
                assert_eq!(redacted.has(seq), redactions.iter().any(named), "{seq}: {redactions:?}");
            }
        }
    }
}
