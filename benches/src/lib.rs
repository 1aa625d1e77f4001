//! Benches of single parts, by criterion: a regression there has an address. They are in `benches/`, one file a part;
//! `cargo bench -p segl-bench` runs them.
