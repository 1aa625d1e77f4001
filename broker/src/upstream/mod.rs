//! The way to `segld`: a road for each tenant and each `segld`, and the choice among them.

mod client;
mod segld;
mod tenant;

pub use client::Client;
pub use segld::{Answer, Failure, Segld, Signature};
pub use tenant::{Ask, Member, Outcome, Tenant};
