//! Wire protocols as deterministic machines: frames in, steps out.
//!
//! Nothing here does I/O, reads a clock, or knows of TLS, policy, principals or the ledger.
#![forbid(unsafe_code)]

pub mod action;
pub mod detect;
pub mod limits;
pub mod postgres;
pub mod protocol;
pub mod sql;
