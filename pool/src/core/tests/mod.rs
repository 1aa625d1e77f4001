//! Core's promises, each in a small scene in virtual time; `crate::simulator` puts it under random fire.

mod comeback;
mod modules;
mod opening;
mod placement;
mod queueing;
mod rungs;
mod scene;
mod sharing;
mod stuck;
mod traffic;

use segl_hsm::{Algorithm, Error, Fault, KeyId, Kind, Retry, Rung, Signed, Verdict};

use crate::{Class, Job, RouteId, Work};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// A login of tenant 1 on route 0 with a minute's time, nothing special about it.
fn job(tag: u64) -> Job<u64> {
    Job {
        work: Work::Sign,
        key: KeyId(1),
        algorithm: Algorithm::EcdsaP256Sha256,
        input: tag,
        route: RouteId(0),
        only_token: None,
        class: Class::Login,
        tenant: 1,
        deadline_ns: 60 * SECOND,
        repeatable: false,
        probe: false,
        reference: 0,
        inbox: 0,
        tag,
    }
}

/// A token's error.
fn error(signed: Signed, retry: Retry, rung: Rung) -> Error {
    Error::new(Kind::Other, Verdict { fault: Fault::Token, signed, retry, rung }, "C_Sign", "as the test wants it")
}
