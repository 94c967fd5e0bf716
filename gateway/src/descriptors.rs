//! How many files the system lets this process have open, which bounds the connections that it can serve.
//!
//! Out of descriptors the gateway could not open its next segment, and every session would end. So connections stop before
//! that, and the rest is kept for the ledger.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are no session's: segments, tiles, the index, the control socket, catalogs, connections to issuers.
const RESERVED: u64 = 128;

/// Raises the limit as far as the system allows, and says how many connections fit, at most `configured`. A session is two open
/// files: its client's connection and its upstream's.
pub(crate) fn connections_max(configured: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "cannot raise the number of open files");
    }
    let fit = fitting(getrlimit(Resource::Nofile).current);
    if fit < configured {
        tracing::warn!(
            configured,
            serving = fit,
            "the system allows this process too few open files for limits.connections_max (see ulimit -n, LimitNOFILE=)"
        );
    }
    fit.min(configured)
}

/// How many connections fit into so many open files; none is no limit.
fn fitting(files: Option<u64>) -> usize {
    let sessions = files.map_or(u64::MAX, |files| files.saturating_sub(RESERVED) / 2);
    usize::try_from(sessions).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_is_two_files_and_some_are_kept_for_the_ledger() {
        assert_eq!(fitting(None), usize::MAX);
        assert_eq!(fitting(Some(20_128)), 10_000);
        assert_eq!(fitting(Some(1024)), 448);
        assert_eq!(fitting(Some(16)), 0);
    }
}
