//! The way to `segld`: a road for each tenant and each `segld`, and the choice among them.

mod ask;
mod client;
mod segld;
#[cfg(test)]
pub(crate) mod simulated;
mod tenant;

pub use ask::{Ask, Items, Outcome, SignedForm, What};
pub use client::Client;
pub use segld::{Answer, Failure, Segld, Signature, Wait};
pub use tenant::{Member, SeenKey, Tenant};
