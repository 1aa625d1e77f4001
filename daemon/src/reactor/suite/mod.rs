//! One suite for connections, on every transport: io_uring, epoll, and the simulated network under faults. A real
//! pool, journal and embedded token stand behind it; only the network differs.

mod client;
mod rollover;
mod stage;

use std::rc::Rc;

use segl_wire::{Code, Error, GoAway, Keys, Kind, Ping, Signed};

use self::{
    client::Said,
    stage::{Stage, on_epoll, on_uring},
};
use crate::transport::{
    Epoll, Stream, Uring,
    memory::{Faults, simulated_pair},
};

/// Signatures asked for at once by a test that wants many.
const MANY: u64 = 100;

async fn every_request_is_answered_whatever_the_pieces_it_comes_in<A: Stream, B: Stream>(
    stage: &Stage,
    (near, far): (A, B),
) {
    let mut client = stage.connect(near, far).await.unwrap();
    for id in 1..=MANY {
        client.say_sign(id, &stage.sign("documents"));
    }
    client.flush().await.unwrap();
    let mut answered: Vec<u64> = Vec::new();
    while answered.len() < MANY as usize {
        let said = client.hear().await.unwrap();
        assert_eq!(said.kind, Kind::Signed);
        stage.verify("documents", &said.read::<Signed<'_>>().signature);
        answered.push(said.id);
    }
    answered.sort_unstable();
    assert!(answered.into_iter().eq(1..=MANY), "each id is answered once");
    client.leave().await;
    stage.reactor_is_clean().await;
}

async fn a_bad_request_is_refused_and_its_neighbours_are_answered<A: Stream, B: Stream>(
    stage: &Stage,
    (near, far): (A, B),
) {
    let mut client = stage.connect(near, far).await.unwrap();
    client.say_sign(1, &stage.sign("documents"));
    client.say_sign(2, &stage.sign("no-such-key"));
    client.say(Kind::Ping, 3, &Ping { data: b"still there?".into() });
    client.say_sign(4, &stage.sign("documents"));
    client.flush().await.unwrap();
    let mut heard: Vec<(u64, Kind)> = Vec::new();
    for _ in 0..4 {
        let said = client.hear().await.unwrap();
        if said.kind == Kind::Error {
            assert_eq!(said.read::<Error<'_>>().code, Code::NotGranted);
        }
        heard.push((said.id, said.kind));
    }
    heard.sort_by_key(|(id, _)| *id);
    assert_eq!(heard, [(1, Kind::Signed), (2, Kind::Error), (3, Kind::Pong), (4, Kind::Signed)]);
    client.leave().await;
    stage.reactor_is_clean().await;
}

async fn bytes_that_are_no_tls_end_the_connection_and_leave_nothing_behind<A: Stream, B: Stream>(
    stage: &Stage,
    (near, far): (A, B),
) {
    stage.serve(far);
    client::send_raw_and_read_to_the_end(near, b"GET / HTTP/1.1\r\n\r\n").await;
    stage.reactor_is_clean().await;
}

async fn a_silent_handshake_is_closed<A: Stream, B: Stream>(stage: &Stage, (near, far): (A, B)) {
    stage.serve(far);
    // Nothing is said, and the end comes all the same.
    client::send_raw_and_read_to_the_end(near, b"").await;
    stage.reactor_is_clean().await;
}

async fn an_idle_client_is_told_goaway_and_closed<A: Stream, B: Stream>(stage: &Stage, (near, far): (A, B)) {
    let mut client = stage.connect(near, far).await.unwrap();
    let said = client.hear().await.unwrap();
    assert_eq!(said.kind, Kind::GoAway);
    assert_eq!(said.read::<GoAway<'_>>().reason, segl_wire::GoAwayReason::Idle);
    assert!(client.hear().await.is_none(), "after GoAway and nothing in flight comes the end");
    client.leave().await;
    stage.reactor_is_clean().await;
}

async fn a_client_that_takes_no_answers_is_closed_and_holds_no_more_than_its_budget<A: Stream, B: Stream>(
    stage: &Stage,
    (near, far): (A, B),
) {
    let mut client = stage.connect(near, far).await.unwrap();
    // Keys is the longest answer for the shortest question.
    let mut id = 1;
    loop {
        for _ in 0..200 {
            client.say_list_keys(id);
            id += 1;
        }
        if client.flush().await.is_err() {
            break;
        }
    }
    let (held, budget) = (stage.most_pending_bytes(), stage.pending_output_max());
    // One read's worth of requests may be answered on top of the budget before reading stops.
    assert!(held > budget / 2, "the test never came near the limit: {held} of {budget} bytes");
    assert!(held < budget + stage.longest_answers_to_one_read(), "{held} bytes pending with a budget of {budget}");
    stage.reactor_is_clean().await;
}

async fn keys_are_listed_with_their_live_state<A: Stream, B: Stream>(stage: &Stage, (near, far): (A, B)) {
    let mut client = stage.connect(near, far).await.unwrap();
    client.say_list_keys(1);
    client.flush().await.unwrap();
    let said: Said = client.hear().await.unwrap();
    let keys = said.read::<Keys<'_>>();
    assert_eq!(keys.keys.len(), 1);
    assert_eq!((&*keys.keys[0].name, keys.keys[0].state), ("documents", segl_wire::KeyState::Usable));
    client.leave().await;
    stage.reactor_is_clean().await;
}

/// A faulty network may end the connection at any byte; whatever it does, nothing stays behind in the daemon.
async fn a_network_that_fails_leaves_nothing_behind(stage: &Stage, seed: u64) {
    let faults = Faults { piece_max: 700, stall_one_in: 4, error_one_in: 25, seed };
    let (near, far) = simulated_pair(4_000, faults);
    let Ok(mut client) = stage.connect(near, far).await else { return stage.reactor_is_clean().await };
    for id in 1..=MANY {
        client.say_sign(id, &stage.sign("documents"));
    }
    if client.flush().await.is_ok() {
        while client.hear().await.is_some_and(|said| said.id != MANY) {}
    }
    client.leave().await;
    stage.reactor_is_clean().await;
}

#[test]
fn simulated_faults_of_every_kind_leave_nothing_behind() {
    on_epoll(|stage: Rc<Stage>| async move {
        for seed in 0..40 {
            a_network_that_fails_leaves_nothing_behind(&stage, seed).await;
        }
    });
}

#[test]
fn a_key_that_is_only_looked_at_is_usable_and_was_never_used() {
    on_epoll(|stage: Rc<Stage>| async move {
        assert_eq!(stage.state_and_uses("ca"), (segl_wire::KeyState::Usable, 0));
        assert_eq!(stage.state_and_uses("documents"), (segl_wire::KeyState::Usable, 1));
    });
}

macro_rules! on_every_transport {
    ($($promise:ident),*) => {
        mod uring {
            $(#[test] fn $promise() {
                super::on_uring(|stage| async move { super::$promise(&stage, super::stage::sockets::<super::Uring>()).await })
            })*
        }
        mod epoll {
            $(#[test] fn $promise() {
                super::on_epoll(|stage| async move { super::$promise(&stage, super::stage::sockets::<super::Epoll>()).await })
            })*
        }
        mod simulated {
            $(#[test] fn $promise() {
                super::on_epoll(|stage| async move {
                    for seed in 0..3 {
                        let faults = super::Faults { piece_max: 999, stall_one_in: 3, error_one_in: 0, seed };
                        super::$promise(&stage, super::simulated_pair(8_000, faults)).await
                    }
                })
            })*
        }
    };
}

on_every_transport!(
    every_request_is_answered_whatever_the_pieces_it_comes_in,
    a_bad_request_is_refused_and_its_neighbours_are_answered,
    bytes_that_are_no_tls_end_the_connection_and_leave_nothing_behind,
    a_silent_handshake_is_closed,
    an_idle_client_is_told_goaway_and_closed,
    a_client_that_takes_no_answers_is_closed_and_holds_no_more_than_its_budget,
    keys_are_listed_with_their_live_state
);
