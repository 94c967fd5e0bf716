//! The harness: real servers, real clients, the real binaries, and nothing mocked.
//!
//! A test starts what it needs ([`Postgres`], [`Issuer`], [`Gateway`]), speaks to it as a stranger would, and asks
//! the ledger afterwards. Everything started here ends with its value; a test that is killed takes its
//! servers with it. Nothing sleeps: whoever must wait waits for a condition, with a deadline.
//!
//! What a newcomer gets wrong: the harness never reaches into the gateway. If a test cannot see something from
//! outside, neither can an auditor, and that is the finding.
#![forbid(unsafe_code)]

pub mod approvals;
pub mod browser;
pub mod certificates;
pub mod child;
pub mod corpus;
pub mod driver;
pub mod gateway;
pub mod https;
pub mod issuer;
pub mod ledger;
pub mod machine;
pub mod postgres;
pub mod provider;
pub mod wire;
pub mod world;

pub use browser::Browser;
pub use certificates::Authority;
pub use child::Child;
pub use gateway::Gateway;
pub use issuer::Issuer;
pub use ledger::Ledger;
pub use postgres::Postgres;
pub use provider::Provider;
pub use world::World;
