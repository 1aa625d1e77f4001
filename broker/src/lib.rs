//! `segl-broker`: HTTP in, mutual TLS to `segld` out.
//!
//! A caller is told apart by bearer token or client certificate ([`callers`]), belongs to one tenant, and travels on
//! that tenant's own connections ([`upstream`]). What it may send and what it gets back stands in [`api`]; every way to
//! fail stands in [`problem`].
#![warn(missing_docs)]

pub mod api;
pub mod callers;
pub mod cli;
mod clock;
pub mod config;
mod files;
mod hardening;
pub mod idempotency;
pub mod in_flight;
mod metrics;
pub mod problem;
pub mod published;
mod run;
mod server;
mod tls;
pub mod upstream;
