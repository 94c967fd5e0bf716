//! What an auditor sees, judged by the screen and by real ledgers.

mod app;
mod book;
mod ledger;
mod screens;
mod support;
