//! Crowds before HSMs that take their time: what a flood costs others, who is turned away and what he is told.
//!
//! The time is the HSMs': theirs is simulated and long, so that it governs what is measured and not the machine, and
//! what is compared was measured in one run.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    thread,
    time::{Duration, Instant},
};

use segl_faulty_token::{Call, Command, Does, Tempo, When};
use segl_tests::{
    conversation::{Conversation, Frame, sign_request},
    site::{ED25519, P256},
};
use segl_wire::{Class, Code, Error, Kind, Payload, Sign, encode_frame};

use crate::{
    fire::{Fire, OnDrop},
    room::{DIGEST, connect, until},
};

const TWO: [&str; 2] = ["one", "two"];
/// Of a signature.
const SERVICE: Duration = Duration::from_millis(100);
/// Of both HSMs together: 320 signatures a second, of which two tenants have 160 each.
const SESSIONS: usize = 32;
/// Tenants, by their place.
const FLOODS: usize = 0;
const MODEST: usize = 1;

/// HSMs with this tempo and so many sessions each. It is theirs from the start, so that segld knows it.
fn slow_hsms(names: &[&str], sessions: usize, tempo: Tempo, pool: &str) -> Fire {
    let hsms: Vec<_> = names.chunks(1).collect();
    let token = format!("sessions = {sessions}\nstuck_after = \"60s\"");
    Fire::light_told(&hsms, &[Command::Tempo { token: None, tempo }], &token, "", |site| {
        site.segld_toml.push_str(&format!("\n[pool]\n{pool}\n"));
    })
}

fn steady(service: Duration) -> Tempo {
    Tempo { base_us: u64::try_from(service.as_micros()).unwrap(), ..Tempo::default() }
}

fn request(class: Class, timeout: Duration) -> Sign<'static> {
    let mut request = sign_request(P256, "ecdsa-p256-sha256", &DIGEST);
    request.meta.class = class;
    request.meta.timeout_ms = u32::try_from(timeout.as_millis()).unwrap();
    request
}

/// Has always so many requests in flight until it is over, and tells when each that was signed was sent. Then it goes
/// without waiting for the rest.
fn ask(
    mut conversation: Conversation,
    class: Class,
    in_flight: usize,
    over: &AtomicBool,
    signed: &Sender<(Class, Instant)>,
) {
    // As long as a flood may take to be served.
    let request = request(class, Duration::from_secs(30));
    let mut sent = std::collections::HashMap::new();
    while !over.load(Ordering::Relaxed) {
        while sent.len() < in_flight {
            sent.insert(conversation.send(Kind::Sign, &request).unwrap(), Instant::now());
        }
        let frame = conversation.receive().unwrap().unwrap();
        let at = sent.remove(&frame.header.id).unwrap();
        assert_eq!(frame.header.known_kind(), Some(Kind::Signed), "{:?}", conversation.error(&frame));
        // Nobody listens any more once the test has seen enough.
        let _ = signed.send((class, at));
    }
}

/// The time that one in a hundred exceeds.
fn p99(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort();
    latencies[latencies.len() * 99 / 100]
}

#[test]
fn a_tenant_that_floods_segld_with_ten_times_its_share_costs_another_one_little() {
    const SAMPLES: usize = 350;
    let fire = slow_hsms(&TWO, SESSIONS / 2, steady(SERVICE), "");
    let site = &fire.room.site;
    let over = AtomicBool::new(false);
    let (mut calm, mut flooded) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        // Whatever happens, the clients come to their end.
        let _end = OnDrop(|| over.store(true, Ordering::Relaxed));
        let (signed, answers) = std::sync::mpsc::channel();
        // Two connections of half its share each.
        for _ in 0..2 {
            let (conversation, signed, over) = (connect(site, MODEST), signed.clone(), &over);
            scope.spawn(move || ask(conversation, Class::Login, SESSIONS / 4, over, &signed));
        }
        let measure = |latencies: &mut Vec<Duration>, since: Instant| {
            let until = latencies.len() + SAMPLES;
            while latencies.len() < until {
                let (_, sent) = answers.recv_timeout(crate::room::SOON).unwrap();
                if sent > since {
                    latencies.push(sent.elapsed());
                }
            }
        };
        // All sessions are open, and what a signature takes is known.
        measure(&mut Vec::new(), Instant::now());
        for _ in 0..2 {
            for (connections, in_flight, latencies) in [
                // The other tenant has its share, and then ten times as much as that comes to in a second.
                (1, SESSIONS / 2, &mut calm),
                (4, 400, &mut flooded),
            ] {
                let enough = AtomicBool::new(false);
                thread::scope(|scope| {
                    let _end = OnDrop(|| enough.store(true, Ordering::Relaxed));
                    let (signed, served) = std::sync::mpsc::channel();
                    for _ in 0..connections {
                        let (conversation, signed, enough) = (connect(site, FLOODS), signed.clone(), &enough);
                        scope.spawn(move || ask(conversation, Class::Login, in_flight, enough, &signed));
                    }
                    served.recv_timeout(crate::room::SOON).unwrap();
                    measure(latencies, Instant::now());
                });
                // What it had waiting was taken back with its connections.
                until("the flood is over", || {
                    fire.room.metric("segl_tenant_in_flight", &["tenant=\"town-hall\""]) == 0.0
                });
            }
        }
    });
    let (calm, flooded) = (p99(calm), p99(flooded));
    eprintln!("p99 {calm:?}, beside a flood {flooded:?}");
    assert!(calm >= SERVICE, "{calm:?}");
    assert!(flooded <= 2 * calm + SERVICE, "p99 {calm:?}, beside a flood {flooded:?}");
    fire.put_out(&[], &[]);
}

#[test]
fn bulk_gets_its_part_however_many_logins_wait() {
    const LOGINS: usize = 900;
    let fire = slow_hsms(&TWO, SESSIONS / 2, steady(SERVICE), "bulk_one_in = 16");
    let site = &fire.room.site;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = OnDrop(|| over.store(true, Ordering::Relaxed));
        let (signed, answers) = std::sync::mpsc::channel();
        for (class, tenant, in_flight) in
            [(Class::Login, FLOODS, 400), (Class::Login, MODEST, 400), (Class::Bulk, MODEST, 8)]
        {
            let (conversation, signed, over) = (connect(site, tenant), signed.clone(), &over);
            scope.spawn(move || ask(conversation, class, in_flight, over, &signed));
        }
        let (mut logins, mut bulk, mut longest, mut latest) = (0, 0, Duration::ZERO, Instant::now());
        while logins < LOGINS {
            match answers.recv_timeout(crate::room::SOON).unwrap() {
                (Class::Bulk, _) => {
                    bulk += 1;
                    longest = longest.max(latest.elapsed());
                    latest = Instant::now();
                }
                _ => logins += 1,
            }
        }
        eprintln!("{bulk} of bulk beside {logins} logins, {longest:?} between two at most");
        // One dispatch in sixteen, less what was under way at either end.
        assert!(bulk * 20 >= logins, "{bulk} of bulk beside {logins} logins");
    });
    fire.put_out(&[], &[]);
}

/// Sends all of it in one write, so that segld sees all before it answers any.
fn send_at_once(conversation: &mut Conversation, first_id: u64, count: u64, request: &Sign<'_>) {
    let mut frames = Vec::new();
    for id in first_id..first_id + count {
        encode_frame(Kind::Sign, id, request, &mut frames);
    }
    conversation.send_bytes(&frames).unwrap();
}

/// So many answers, the errors only.
fn refusals(conversation: &mut Conversation, answers: usize) -> Vec<Error<'static>> {
    let frames: Vec<Frame> = (0..answers).map(|_| conversation.receive().unwrap().unwrap()).collect();
    let errors = frames.iter().filter(|frame| frame.header.known_kind() == Some(Kind::Error));
    errors.map(|frame| conversation.error(frame).unwrap()).collect()
}

#[test]
fn what_may_wait_is_bounded_for_each_token_tenant_and_class_and_nobody_else_pays() {
    let pool = "batch_max = 1\nqueue_depth_login = 60\ntenant_depth_max = 40";
    let (token, hsms) = ("sessions = 2\nstuck_after = \"60s\"", [&["one"][..], &["two"]]);
    let fire = Fire::light_site(&hsms, token, "", |site| {
        site.segld_toml.push_str(&format!("\n[pool]\n{pool}\n"));
        // A key on each, so that each has a queue of its own.
        let both = "tokens = [\"one\", \"two\"]";
        site.segld_toml =
            site.segld_toml.replacen(both, "tokens = [\"one\"]", 1).replacen(both, "tokens = [\"two\"]", 1);
    });
    let hangs = fire.hsms[0].fault(Call::Sign, When::Always, Does::Hang { for_ms: None }).unwrap();
    let (mut greedy, mut modest) = (connect(&fire.room.site, FLOODS), connect(&fire.room.site, MODEST));
    let waiting = |class: &str| fire.room.metric("segl_queue_depth", &[&format!("class=\"{class}\"")]);
    let login = request(Class::Login, Duration::from_secs(20));

    // Two are inside the token, forty wait, and the tenant has no room for more.
    for id in 1..=2 {
        send_at_once(&mut greedy, id, 1, &login);
        fire.hsms[0].wait_for("hanging", id).unwrap();
    }
    send_at_once(&mut greedy, 3, 98, &login);
    let refused = refusals(&mut greedy, 58);
    assert_eq!(refused.len(), 58);
    for error in refused {
        assert_eq!((error.code, error.signed), (Code::TenantLimit, segl_wire::SignedState::No), "{error}");
        assert!(error.retry_after_ms.is_some_and(|ms| ms > 0), "{error}");
    }
    assert_eq!(waiting("login"), 40.0);
    // Another tenant finds room, and where the queue is full who has more in it gives way.
    send_at_once(&mut modest, 1, 30, &login);
    let displaced = refusals(&mut greedy, 10);
    assert!(displaced.len() == 10 && displaced.iter().all(|error| error.code == Code::Overloaded), "{displaced:?}");
    assert_eq!(waiting("login"), 60.0);
    // Another class has a bound of its own, and so has another token.
    send_at_once(&mut modest, 31, 5, &request(Class::Signature, Duration::from_secs(20)));
    until("they wait", || waiting("signature") == 5.0);
    let mut elsewhere = connect(&fire.room.site, FLOODS);
    let mut on_two = sign_request(ED25519, "ed25519", &DIGEST);
    on_two.payload = Payload::Message(DIGEST.to_vec().into());
    elsewhere.sign(&on_two).unwrap().unwrap();

    fire.hsms[0].clear(hangs).unwrap();
    fire.tell(Command::Release);
    assert_eq!(refusals(&mut greedy, 32), []);
    assert_eq!(refusals(&mut modest, 35), []);
    fire.put_out(&[], &[]);
}

#[test]
fn what_can_not_be_served_in_time_is_refused_at_once_and_told_when_it_can() {
    const WAITING: usize = 100;
    // Four sessions and two places inside: what the token really does is half of what its sessions seem to promise.
    let tempo = Tempo { parallel: 2, ..steady(Duration::from_millis(80)) };
    let fire = slow_hsms(&["one"], 4, tempo, "");
    let mut conversation = connect(&fire.room.site, FLOODS);
    // Sessions are opened and their pace is measured.
    send_at_once(&mut conversation, 1, 40, &request(Class::Login, Duration::from_secs(20)));
    assert_eq!(refusals(&mut conversation, 40), []);

    let began = Instant::now();
    send_at_once(&mut conversation, 41, WAITING as u64, &request(Class::Login, Duration::from_secs(20)));
    send_at_once(&mut conversation, 41 + WAITING as u64, 1, &request(Class::Login, Duration::from_millis(500)));
    let first = loop {
        if let Some(error) = refusals(&mut conversation, 1).pop() {
            break error;
        }
    };
    let told_after = began.elapsed();
    assert_eq!((first.code, first.signed), (Code::Overloaded, segl_wire::SignedState::No), "{first}");
    let retry_after = Duration::from_millis(first.retry_after_ms.unwrap().into());
    until("all that waited before it is served", || fire.room.metric("segl_tenant_in_flight", &[]) == 0.0);
    let served_after = began.elapsed();
    eprintln!("told after {told_after:?} to come back after {retry_after:?}; what waited took {served_after:?}");
    assert!(told_after < served_after / 4, "at once: {told_after:?} of {served_after:?}");
    assert!((served_after / 2..served_after * 3 / 2).contains(&retry_after), "{retry_after:?} of {served_after:?}");
    // Who comes back then is served in that time.
    let mut conversation = connect(&fire.room.site, FLOODS);
    conversation.sign(&request(Class::Login, Duration::from_millis(500))).unwrap().unwrap();
    fire.put_out(&[], &[]);
}
