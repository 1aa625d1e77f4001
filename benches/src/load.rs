//! The load on a segld: connections that sign without a pause, or at a rate.
//!
//! Not segl-wire's client, which is made for brokers, but its codec on rustls and epoll with one thread: on a machine
//! that both sides share, what the load burns is missing in the measurement.

mod connection;
mod engine;
mod manners;
mod observations;
mod pace;
mod verification;
mod work;

pub(crate) use connection::Target;
pub(crate) use engine::{Edge, Engine, Length, Pace, Progress, Run};
pub(crate) use manners::Patience;
pub(crate) use observations::{Interval, Latencies, Observations};
pub(crate) use pace::{Schedule, Stretch};
pub(crate) use verification::{Verification, Verified};
pub(crate) use work::{Operation, Task, Work};
