//! Which session settings are harmless to change.
//!
//! A harmless one changes neither what a text means, nor whom the session acts as, nor what others can see or must wait for, nor whether
//! triggers, constraints and row security apply. (`transaction_read_only` is no fence: whoever may speak may lift it, and what
//! is written afterwards is decided by itself. Only a session that the gateway itself holds to reading may not.) Everything else is [`Verb::Set`](crate::action::Verb::Set) on its name.

/// Settings that anybody may change, in lower case.
const HARMLESS: [&str; 55] = [
    "application_name",
    "array_nulls",
    "backend_flush_after",
    "bytea_output",
    "client_connection_check_interval",
    "client_min_messages",
    "constraint_exclusion",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
    "cpu_tuple_cost",
    "cursor_tuple_fraction",
    "datestyle",
    "deadlock_timeout",
    "default_statistics_target",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "effective_cache_size",
    "effective_io_concurrency",
    "escape_string_warning",
    "extra_float_digits",
    "force_parallel_mode",
    "from_collapse_limit",
    "geqo",
    "geqo_threshold",
    "gin_fuzzy_search_limit",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "join_collapse_limit",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "max_parallel_workers_per_gather",
    "parallel_setup_cost",
    "parallel_tuple_cost",
    "plan_cache_mode",
    "quote_all_identifiers",
    "random_page_cost",
    "seed",
    "seq_page_cost",
    "statement_timeout",
    "timezone",
    "timezone_abbreviations",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
    "transaction_timeout",
    "xmlbinary",
    "xmloption",
    "debug_parallel_query",
    "default_text_search_config",
];

/// Whether `name`, in lower case, is harmless to change.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name) || name.starts_with("enable_")
}

/// A setting's name as the server compares it.
pub(super) fn fold(name: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "time zone" => "timezone".to_owned(),
        folded => folded.to_owned(),
    }
}
