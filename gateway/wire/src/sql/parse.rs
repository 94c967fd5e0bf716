//! One call into PostgreSQL's parser, made safe to call on anything.
//!
//! Nesting: the C parser keeps a budget of the stack that is left and fails cleanly, and the decoder stops at a hundred
//! levels of messages, some forty of SQL; both come back as an error here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pg_query::protobuf::ParseResult;
use pg_query::{FingerprintOptions, ParserOptions};

use super::TEXT_BYTES_MAX;

/// How backslashes in plain string constants are read (`standard_conforming_strings`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Strings {
    /// As letters.
    Standard,
    /// As escapes.
    Escapes,
}

/// The text is no SQL, or too long, or nested too deeply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unparsed;

/// The longest statement that gets a fingerprint.
const FINGERPRINT_BYTES_MAX: usize = 16 * 1024;

/// What statements share that differ in constants alone; nothing where there is none.
///
/// Only for what [`parse`] has taken: it walks the tree without a budget, and that one is known to be shallow.
pub(super) fn fingerprint(statement: &str, strings: Strings) -> Option<String> {
    if statement.len() > FINGERPRINT_BYTES_MAX {
        return None;
    }
    let made = catch_unwind(AssertUnwindSafe(|| {
        // Without these a schema does not count, and an alias stands for the relation that it hides.
        let exact = FingerprintOptions::RANGEVAR_PG17_COMPAT | FingerprintOptions::FULL_RELNAME;
        pg_query::fingerprint(statement, options(strings), exact)
    }));
    made.ok()?.ok().map(|fingerprint| fingerprint.hex)
}

fn options(strings: Strings) -> ParserOptions {
    let mut options = ParserOptions::DISABLE_ESCAPE_STRING_WARNING;
    if strings == Strings::Escapes {
        options |= ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS;
    }
    options
}

/// Parses a text. `backslash_quote` does not matter: the parser takes `\'` as `safe_encoding` does, and a server that
/// forbids it refuses the whole text.
pub(super) fn parse(text: &str, strings: Strings) -> Result<ParseResult, Unparsed> {
    if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
        return Err(Unparsed);
    }
    // The binding summarises each tree and panics on shapes that it does not expect.
    match catch_unwind(AssertUnwindSafe(|| pg_query::parse(text, options(strings)))) {
        Ok(Ok(parsed)) => Ok(parsed.protobuf),
        Ok(Err(_)) | Err(_) => Err(Unparsed),
    }
}
