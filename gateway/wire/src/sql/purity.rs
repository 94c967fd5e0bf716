//! Which functions of PostgreSQL's own change nothing and show no table's rows.
//!
//! The list is a file, so that it can be read and regenerated; each line is a name. It says nothing about functions that
//! somebody added: those are called by permission.

use std::collections::HashSet;
use std::sync::OnceLock;

/// Whether every function of `pg_catalog` by that name is pure.
pub(super) fn is_pure(function: &str) -> bool {
    static PURE: OnceLock<HashSet<&'static str>> = OnceLock::new();
    PURE.get_or_init(|| {
        include_str!("pure_functions.txt")
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .collect()
    })
    .contains(function)
}

/// Whether it only takes or gives advisory locks, or seeds the session's own random numbers. That touches no object,
/// so it needs no permission; but other sessions can notice it, so it is no mere read.
pub(super) fn is_harmless(function: &str) -> bool {
    matches!(
        function,
        "pg_advisory_lock"
            | "pg_advisory_lock_shared"
            | "pg_advisory_unlock"
            | "pg_advisory_unlock_all"
            | "pg_advisory_unlock_shared"
            | "pg_advisory_xact_lock"
            | "pg_advisory_xact_lock_shared"
            | "pg_try_advisory_lock"
            | "pg_try_advisory_lock_shared"
            | "pg_try_advisory_xact_lock"
            | "pg_try_advisory_xact_lock_shared"
            | "setseed"
    )
}

/// Whether it runs a text as SQL, or reads relations that a value names: then it may do anything that the role may.
pub(super) fn runs_values(function: &str) -> bool {
    const RUNS: [&str; 16] = [
        "query_to_xml",
        "query_to_xml_and_xmlschema",
        "query_to_xmlschema",
        "cursor_to_xml",
        "cursor_to_xmlschema",
        "ts_stat",
        "ts_rewrite",
        "table_to_xml",
        "table_to_xml_and_xmlschema",
        "table_to_xmlschema",
        "schema_to_xml",
        "schema_to_xml_and_xmlschema",
        "schema_to_xmlschema",
        "database_to_xml",
        "database_to_xml_and_xmlschema",
        "database_to_xmlschema",
    ];
    RUNS.contains(&function)
}

/// Whether a call of it shows nothing of any table's values, nor lets them travel. What is not on this list may: it reads files, pages, logs.
pub(super) fn shows_nothing(function: &str) -> bool {
    matches!(
        function,
        "nextval"
            | "setval"
            | "set_config"
            | "pg_notify"
            | "pg_sleep"
            | "pg_sleep_for"
            | "pg_sleep_until"
            | "pg_cancel_backend"
            | "pg_terminate_backend"
            | "pg_reload_conf"
    )
}

/// Whether a relation of PostgreSQL's own holds samples of other tables' values.
pub(super) fn shows_values(relation: &str) -> bool {
    matches!(
        relation,
        "pg_statistic"
            | "pg_statistic_ext_data"
            | "pg_stats"
            | "pg_stats_ext"
            | "pg_stats_ext_exprs"
            | "pg_largeobject"
    )
}

/// Whether a relation of PostgreSQL's own holds the texts of statements that other sessions run.
pub(super) fn shows_statements(relation: &str) -> bool {
    relation == "pg_stat_activity"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_without_doubles_and_holds_nothing_that_acts() {
        let names: Vec<&str> = include_str!("pure_functions.txt")
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .collect();
        assert!(names.is_sorted_by(|a, b| a < b));
        for acts in [
            "nextval",
            "setval",
            "set_config",
            "lo_create",
            "pg_notify",
            "pg_read_file",
            "dblink",
            "domain_in",
        ] {
            assert!(!is_pure(acts), "{acts}");
        }
        for name in names {
            assert!(!is_harmless(name) && !runs_values(name), "{name}");
        }
    }
}
