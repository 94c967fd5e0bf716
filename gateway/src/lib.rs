//! Gatebook: a layer-7 gateway whose every decision is evidence before it is effect.
//!
//! A connection is logged in by [`serve`], which yields a session; its frames go through [`session`]'s one loop, where each command
//! is decided by [`policy`], recorded by [`record`], and only then sent. Begin reading there.
#![forbid(unsafe_code)]

mod admin;
mod approval;
mod catalog;
pub mod cli;
pub mod config;
mod control;
mod delegation;
mod demo;
mod descriptors;
mod explain;
mod gateway;
pub mod identity;
pub mod init;
pub mod issuer;
mod link;
mod listen;
mod metrics;
pub mod pki;
pub mod policy;
mod record;
mod remote;
mod revalidate;
mod run;
mod serve;
mod session;
mod stream;
pub mod token;
mod upstream;
