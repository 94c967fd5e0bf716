//! The auditor's terminal: reads a ledger, verifies it, and replays any session.
//!
//! [`app`] is a state that takes messages; [`view`] draws it; [`load`] is the only part that knows the ledger, and
//! `main` is the loop between them and the terminal.

#![forbid(unsafe_code)]

pub mod app;
pub mod figures;
pub mod filter;
pub mod headless;
pub mod keys;
pub mod layout;
pub mod load;
pub mod message;
pub mod page;
pub mod parameter;
pub mod player;
pub mod run;
pub mod signs;
pub mod terminal;
pub mod text;
pub mod theme;
pub mod view;
