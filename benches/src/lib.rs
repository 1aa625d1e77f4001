//! What criterion and `segl-bench` share: the parts of a request's way.
//!
//! `cargo bench -p segl-bench` times single parts, so that a regression has an address; `segl-bench instructions` counts
//! them.

#![warn(missing_docs)]

pub mod hot_path;
