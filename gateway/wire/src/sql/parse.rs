//! One call into PostgreSQL's parser, made safe to call on anything.
//!
//! Nesting: the C parser keeps a budget of the stack that is left and fails cleanly, and the decoder stops at a hundred
//! levels of messages, some forty of SQL; both come back as an error here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pg_query::ParserOptions;
use pg_query::protobuf::ParseResult;

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

/// Parses a text. `backslash_quote` does not matter: the parser takes `\'` as `safe_encoding` does, and a server that
/// forbids it refuses the whole text.
pub(super) fn parse(text: &str, strings: Strings) -> Result<ParseResult, Unparsed> {
    if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
        return Err(Unparsed);
    }
    let mut options = ParserOptions::DISABLE_ESCAPE_STRING_WARNING;
    if strings == Strings::Escapes {
        options |= ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS;
    }
    // The binding summarises each tree and panics on shapes that it does not expect.
    match catch_unwind(AssertUnwindSafe(|| pg_query::parse(text, options))) {
        Ok(Ok(parsed)) => Ok(parsed.protobuf),
        Ok(Err(_)) | Err(_) => Err(Unparsed),
    }
}
