//! Writes a small ledger with invented sessions, to look at: `cargo run --example sample-ledger DIR`. With a number
//! behind it, one session of so many commands is added before them, to see how a large one feels.

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/book.rs"]
mod book;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let Some(directory) = std::env::args().nth(1) else {
        eprintln!("usage: sample-ledger DIR");
        std::process::exit(2);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let commands = std::env::args().nth(2).and_then(|commands| commands.parse().ok()).unwrap_or(0);
    let revoked = book::morning_after(Path::new(&directory), now * book::S, commands);
    println!("session {revoked} is the one that was revoked; the log key is");
    println!("{}", book::vkey(Path::new(&directory)));
}
