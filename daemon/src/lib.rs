//! segld, the signing daemon, and what `segl`, the operator's command, shares with it.

#![warn(missing_docs)]

pub mod certificate;
pub mod cli;
mod clock;
pub mod config;
mod connection;
pub mod control;
mod dispatch;
mod gate;
mod histogram;
mod keeper;
mod keybook;
mod meters;
pub mod operator;
pub mod policy;
mod reactor;
mod refusal;
mod run;
mod signing;
mod state;
mod synchronisation;
mod tls;
mod transport;
mod vital;

pub use run::{SOFTWARE, check, run};
