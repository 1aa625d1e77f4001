//! What a network does to a server: clients that say nothing, take nothing, stay for ever, or are too many. Each is
//! dealt with, counted, and disturbs nobody else.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::Command,
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use segl_tests::{
    conversation::{Conversation, sign_request},
    process::Service,
    site::{P256, Token},
};
use segl_wire::{Code, GoAwayReason, Kind, ListKeys, encode_frame};

use crate::{
    load::resident_kib,
    room::{DIGEST, Room, SOON, after, connect, sent_away, site, sound, try_connect, until},
};

fn room_with_limits(limits: &str) -> Room {
    Room::open(Token::Embedded, |site| site.segld_toml.push_str(&format!("\n[limits]\n{limits}\n")))
}

/// A connection of somebody who says only this.
fn says(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// Waits until the server has ended it, whatever it said before.
fn ended(mut stream: &TcpStream) {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the server holds on to it: {error}"),
        }
    }
}

/// A sound ClientHello.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn silent_connections_and_half_open_handshakes_are_ended_in_time_and_counted() {
    let room = room_with_limits("handshake_timeout = \"500ms\"");
    let mut neighbour = connect(&room.site, 0);
    let hello = client_hello();
    let silent = [&b""[..], &hello[..3], &hello[..hello.len() / 2], &hello].map(|said| says(room.site.segld, said));
    sound(&mut neighbour);
    silent.iter().for_each(ended);
    assert_eq!(room.metric("segl_connections_closed_total", &["reason=\"handshake-timeout\""]), 4.0);
    assert_eq!(room.metric("segl_connections{", &["phase=\"handshake\""]), 0.0);
    sound(&mut neighbour);
    sound(&mut connect(&room.site, 1));
}

#[test]
fn no_more_handshakes_than_allowed_are_under_way_and_the_oldest_makes_room_for_who_finishes() {
    let room = room_with_limits("handshakes = 4\nhandshake_timeout = \"30s\"");
    let mut neighbour = connect(&room.site, 0);
    let under_way = || room.metric("segl_connections{", &["phase=\"handshake\""]);
    let silent: Vec<_> = (0..10).map(|_| says(room.site.segld, b"")).collect();
    // Whoever was first goes first: six of ten have made room.
    silent[..6].iter().for_each(ended);
    until("the handshakes of the others are under way", || under_way() == 4.0);
    assert_eq!(room.metric("segl_connections_closed_total", &["reason=\"handshake-displaced\""]), 6.0);

    sound(&mut connect(&room.site, 1));
    ended(&silent[6]);
    sound(&mut neighbour);
    drop(silent);
    until("the handshakes are over", || under_way() == 0.0);
}

#[test]
fn without_descriptors_accepting_backs_off_and_what_is_connected_goes_on_signing() {
    const DESCRIPTORS: usize = 64;
    let (mut site, dir) = site(Token::Embedded);
    site.segld_toml.push_str("\n[limits]\nhandshake_timeout = \"60s\"\n");
    site.write().unwrap();
    let command = after(&format!("ulimit -n {DESCRIPTORS}"), &site.segld_command());
    let mut segld = Service::start(command, &site.dir, "segld").unwrap();
    segld.ready(SOON).unwrap();
    let room = Room::around(site, segld, dir);
    let mut neighbours = [connect(&room.site, 0), connect(&room.site, 1)];

    let crowd: Vec<_> = (0..2 * DESCRIPTORS).map(|_| says(room.site.segld, b"")).collect();
    let complaints = || room.segld.log().matches("a connection could not be accepted").count();
    until("segld has no descriptors left", || complaints() > 0);
    for _ in 0..200 {
        neighbours.iter_mut().for_each(sound);
    }
    assert_eq!(complaints(), 1, "one line for a storm");

    drop(crowd);
    sound(&mut connect(&room.site, 0));
    neighbours.iter_mut().for_each(sound);
    let failures = room.metric("segl_accept_failures_total", &[]);
    assert!((1.0..200.0).contains(&failures), "{failures} failed accepts");
}

/// Asks for the keys, whose answer is many times the question, and takes no answer, until the server ends it.
fn takes_nothing(mut conversation: Conversation) {
    let mut id = 0;
    loop {
        let mut frames = Vec::new();
        for _ in 0..500 {
            id += 1;
            encode_frame(Kind::ListKeys, id, &ListKeys { meta: sign_request("", "", &[]).meta }, &mut frames);
        }
        if conversation.send_bytes(&frames).is_err() {
            return;
        }
    }
}

#[test]
fn a_slow_reader_is_ended_and_fills_no_memory_while_its_neighbour_is_answered() {
    let room = room_with_limits("write_timeout = \"1s\"");
    let mut neighbour = connect(&room.site, 0);
    sound(&mut neighbour);
    let before_kib = resident_kib(&room.segld);
    let slow = connect(&room.site, 1);
    let mut most_kib = before_kib;
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| takes_nothing(slow));
        while !slow.is_finished() {
            sound(&mut neighbour);
            most_kib = most_kib.max(resident_kib(&room.segld));
        }
    });
    assert_eq!(room.metric("segl_connections_closed_total", &["reason=\"slow-reader\""]), 1.0);
    assert!(most_kib < before_kib + 8 * 1024, "{before_kib} KiB before, {most_kib} KiB at the most");
    sound(&mut neighbour);
    until("only the neighbour is left", || room.metric("segl_connections{", &["phase=\"all\""]) == 1.0);
}

#[test]
fn an_idle_connection_is_told_to_go() {
    let room = room_with_limits("idle_timeout = \"1s\"");
    let mut idle = connect(&room.site, 0);
    sound(&mut idle);
    assert_eq!(sent_away(&mut idle), GoAwayReason::Idle);
    assert_eq!(room.metric("segl_connections_closed_total", &["reason=\"idle\""]), 1.0);
    sound(&mut connect(&room.site, 0));
}

#[test]
fn a_client_that_goes_without_a_word_leaves_nothing_behind() {
    let room = Room::open(Token::Embedded, |_| {});
    let mut neighbour = connect(&room.site, 0);
    for _ in 0..20 {
        let mut leaves = connect(&room.site, 1);
        leaves.send(Kind::Sign, &sign_request("seal-p256", "ecdsa-p256-sha256", &[7; 32])).unwrap();
        drop(leaves);
        says(room.site.segld, &client_hello()).shutdown(Shutdown::Both).unwrap();
    }
    sound(&mut neighbour);
    until("only the neighbour is left", || room.metric("segl_connections{", &["phase=\"all\""]) == 1.0);
    until("nothing is in flight", || room.metric("segl_tenant_in_flight", &[]) == 0.0);
}

#[test]
fn more_connections_than_allowed_are_turned_away_and_places_are_given_again() {
    let room = room_with_limits("connections = 3");
    let mut inside: Vec<_> = (0..3).map(|_| connect(&room.site, 0)).collect();
    assert!(try_connect(&room.site, 1).is_err());
    inside.iter_mut().for_each(sound);
    assert_eq!(room.metric("segl_connections_closed_total", &["reason=\"too-many\""]), 1.0);
    inside.pop();
    until("a place is free", || room.metric("segl_connections{", &["phase=\"all\""]) == 2.0);
    sound(&mut connect(&room.site, 1));
    inside.iter_mut().for_each(sound);
}

/// Sends so many requests in one write, so that segld sees all before it answers any; counts the answers by code.
fn at_once(conversation: &mut Conversation, requests: u64) -> (usize, Vec<Code>) {
    let mut frames = Vec::new();
    for id in 1..=requests {
        encode_frame(Kind::Sign, id, &sign_request(P256, "ecdsa-p256-sha256", &DIGEST), &mut frames);
    }
    conversation.send_bytes(&frames).unwrap();
    let (mut signed, mut refused) = (0, Vec::new());
    for _ in 0..requests {
        let frame = conversation.receive().unwrap().unwrap();
        match frame.header.known_kind() {
            Some(Kind::Signed) => signed += 1,
            _ => refused.push(conversation.error(&frame).unwrap().code),
        }
    }
    (signed, refused)
}

#[test]
fn what_a_connection_has_in_flight_is_bounded_and_the_rest_refused_without_harm() {
    let room = room_with_limits("in_flight_per_connection = 4\nbatch_max = 4");
    let mut neighbour = connect(&room.site, 1);
    let mut greedy = connect(&room.site, 0);
    assert_eq!(greedy.hello().in_flight_max, 4, "the limit was announced");
    let (signed, refused) = at_once(&mut greedy, 12);
    assert_eq!((signed, refused), (4, vec![Code::TooManyInFlight; 8]));
    sound(&mut neighbour);
}

#[test]
fn what_a_tenant_has_in_flight_is_bounded_over_its_connections_and_no_other_tenant_pays() {
    let room = Room::open(Token::Embedded, |site| {
        let tenant = "name = \"town-hall\"\n";
        site.segld_toml = site.segld_toml.replacen(tenant, &format!("{tenant}in_flight_max = 3\n"), 1);
    });
    let mut neighbour = connect(&room.site, 1);
    let mut greedy = connect(&room.site, 0);
    let (signed, refused) = at_once(&mut greedy, 10);
    assert_eq!((signed, refused), (3, vec![Code::TenantLimit; 7]));
    let (signed, refused) = at_once(&mut neighbour, 10);
    assert_eq!((signed, refused), (10, vec![]));
    until("nothing is in flight", || room.metric("segl_tenant_in_flight", &[]) == 0.0);
    sound(&mut connect(&room.site, 0));
}

/// io_uring_setup denied fails at once; io_uring_enter denied alone would wait for ever.
#[test]
fn where_the_kernel_denies_io_uring_segld_says_so_and_runs_on_epoll() {
    const SETUP_AND_ENTER: [(u32, &str); 2] = [(425, "Operation not permitted"), (426, "a no-op did not come back")];
    for (number, why) in SETUP_AND_ENTER {
        let (site, dir) = site(Token::Embedded);
        site.write().unwrap();
        let deny = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/deny_syscall.py");
        let segld = site.segld_command();
        let mut command = Command::new("python3");
        command.arg(deny).arg(number.to_string()).arg(segld.get_program()).args(segld.get_args());
        let mut segld = Service::start(command, &site.dir, "segld").unwrap();
        segld.ready(SOON).unwrap();
        let room = Room::around(site, segld, dir);
        until("it says so", || {
            let log = room.segld.log();
            log.contains("IO_URING IS NOT AVAILABLE HERE") && log.contains(why) && log.contains("io=\"epoll\"")
        });
        sound(&mut connect(&room.site, 0));
    }
}
