//! Segl as a whole: its programs as processes, over real sockets, judged from outside.

#![expect(clippy::unwrap_used, reason = "in a test it is the failure")]

mod bad_input;
mod brokers;
mod crowds;
mod documents;
mod documents_broker;
mod faults;
mod faults_alone;
mod faults_codes;
mod faults_operator;
mod fire;
mod first_light;
mod hazards;
mod journal;
mod lifecycle;
mod load;
mod monitoring;
mod operator;
mod operator_top;
mod packages;
mod python;
mod reload;
mod rollover;
mod rollover_documents;
mod room;
mod service;
mod systemd;
mod tokens;
mod workspace;
