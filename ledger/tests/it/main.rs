//! What the ledger promises, judged from outside it: one program, so that what its parts share is compiled once.

mod attacks;
mod common;
mod epochs;
mod export;
mod forged;
mod fuzz;
mod golden;
mod keys;
mod model;
mod operations;
mod processes;
mod recording;
mod rules;
mod simulated;
mod simulator;
mod strangers;
mod sweep;
mod verdicts;
mod verify;
mod witness;
mod writer;
