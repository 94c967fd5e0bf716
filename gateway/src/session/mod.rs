//! The spine: one exchange after another, decided, recorded, relayed, for every protocol alike.

mod cleared;
mod exchange;
mod registry;
mod relay;
mod signal;
mod stay_out;
mod tally;

#[cfg(test)]
mod durability_tests;

pub(crate) use exchange::{Cancel, Exchange, Locks, Passed, People, Presented, Terms, Totals};
pub(crate) use registry::{Ended, Entered, Live, Registry, Signals, Target};
pub(crate) use relay::relay;
pub(crate) use signal::{Signal, Ticket, Withdrawn};
pub(crate) use stay_out::StayOut;
pub(crate) use tally::{Day, Tallies};
