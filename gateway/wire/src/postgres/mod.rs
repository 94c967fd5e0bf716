//! PostgreSQL's frontend/backend protocol, versions 3.0 and 3.2.

mod cells;
pub mod conversation;
pub mod frame;
pub mod login;
mod names;
pub mod report;
