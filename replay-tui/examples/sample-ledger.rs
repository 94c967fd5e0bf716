//! Writes a small ledger with invented sessions, to look at: `cargo run --example sample-ledger DIR`.

#[path = "../tests/support/book.rs"]
mod book;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let Some(directory) = std::env::args().nth(1) else {
        eprintln!("usage: sample-ledger DIR");
        std::process::exit(2);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let revoked = book::morning(Path::new(&directory), now * book::S);
    println!("session {revoked} is the one that was revoked; the log key is");
    println!("{}", book::vkey(Path::new(&directory)));
}
