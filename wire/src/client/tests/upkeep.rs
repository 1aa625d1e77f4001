//! Keeping the connection: status, pauses between attempts, Pings.

use super::*;

#[tokio::test(start_paused = true)]
async fn failed_attempts_are_repeated_with_growing_pauses_and_requests_fail_at_once() {
    let (client, mut network) = client();
    network.refusing.store(true, Ordering::Relaxed);
    let mut status = client.watch_status();
    status.wait_for(|status| matches!(status, Status::Down { .. })).await.unwrap();
    assert_not_sent(client.sign(&sign("a")).await);
    while network.attempts.lock().unwrap().len() < 9 {
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    let attempts = network.attempts.lock().unwrap().clone();
    for (number, pair) in attempts.windows(2).enumerate() {
        let longest = Duration::from_millis(100 << number).min(Duration::from_secs(5));
        let pause = pair[1] - pair[0];
        // The clock of the test goes in steps of 10 ms.
        let slack = Duration::from_millis(20);
        assert!((longest / 2..=longest + slack).contains(&pause), "{number}: {pause:?} of {longest:?}");
    }
    network.refusing.store(false, Ordering::Relaxed);
    let _server = network.accept(&hello()).await;
    client.ready().await;
    assert_eq!(client.status(), Status::Ready);
    assert_eq!(client.hello().as_deref(), Some(&hello()));
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_first_connection() {
    let (client, mut network) = client();
    assert_eq!(client.status(), Status::Connecting);
    let waiting = spawn_sign(&client, "a");
    tokio::task::yield_now().await;
    assert_eq!(client.in_flight(), 1);
    let mut server = network.accept(&hello()).await;
    let (id, _) = server.next_sign().await;
    server.answer(id, "done").await;
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_without_a_hello_is_down_after_the_connect_timeout() {
    let (client, mut network) = client();
    let _mute = network.arrivals.recv().await.unwrap();
    let waiting = spawn_sign(&client, "a");
    let mut status = client.watch_status();
    let down = status.wait_for(|status| matches!(status, Status::Down { .. })).await.unwrap().clone();
    assert!(matches!(down, Status::Down { error, .. } if &*error == "no connection in time"));
    waiting.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_the_connection_is_quoted() {
    let (client, mut network) = client();
    let mut server = Server { stream: network.arrivals.recv().await.unwrap(), received: FrameBuffer::new(4096) };
    server.send(Kind::Error, 0, &Error::of(Code::TenantLimit, "too many connections")).await;
    let mut status = client.watch_status();
    let down = status.wait_for(|status| matches!(status, Status::Down { .. })).await.unwrap().clone();
    let Status::Down { error, .. } = down else { unreachable!() };
    assert_eq!(&*error, "the server says tenant_limit: too many connections");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_go_away_to_everyone_is_not_asked_without_a_pause() {
    let (client, mut network) = client();
    let going = GoAway { last_id: 0, reason: GoAwayReason::Shutdown, message: "leaving".into() };
    let started = tokio::time::Instant::now();
    for _ in 0..4 {
        let mut server = network.accept(&hello()).await;
        server.send(Kind::GoAway, 0, &going).await;
        assert_eq!(server.next().await, None);
    }
    // 50 + 100 + 200 ms at least before the second, third and fourth.
    assert!(started.elapsed() >= Duration::from_millis(350));
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_gets_pings_and_stays() {
    let (client, mut network) = client();
    let mut server = network.accept(&Hello { idle_ms: 3000, ..hello() }).await;
    client.ready().await;
    let mut times = Vec::new();
    for _ in 0..3 {
        let (kind, id, body) = server.next().await.unwrap();
        assert_eq!((kind, id), (Kind::Ping, 0));
        let limits = Limits { batch_max: 0, message_max: 0, document_max: 1 << 16 };
        server.send(Kind::Pong, id, &Ping::decode(&body, &limits).unwrap()).await;
        times.push(tokio::time::Instant::now());
    }
    assert_eq!(times[2] - times[0], Duration::from_secs(2), "three times within the server's idle_ms");
    assert_eq!(client.status(), Status::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nothing_comes_back_is_given_up() {
    let (client, mut network) = client();
    let _mute = network.accept(&Hello { idle_ms: 3000, ..hello() }).await;
    client.ready().await;
    assert_lost(client.sign(&sign("a")).await);
}

#[tokio::test(start_paused = true)]
async fn ping_measures_the_way_there_and_back() {
    let (client, mut network) = client();
    let mut server = network.accept(&hello()).await;
    client.ready().await;
    let script = async {
        let (_, id, body) = server.next().await.unwrap();
        tokio::time::advance(Duration::from_millis(30)).await;
        let limits = Limits { batch_max: 0, message_max: 0, document_max: 1 << 16 };
        server.send(Kind::Pong, id, &Ping::decode(&body, &limits).unwrap()).await;
    };
    let (took, ()) = tokio::join!(client.ping(Duration::from_secs(1)), script);
    assert_eq!(took.unwrap().as_millis(), 30);
    let error = client.ping(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error, ClientError::TimedOut { signed: SignedState::No });
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_closes_the_connection() {
    let (client, mut network) = client();
    let mut server = network.accept(&hello()).await;
    client.ready().await;
    let other = client.clone();
    drop(client);
    assert_eq!(server.sent_so_far().await, [], "another handle keeps it");
    drop(other);
    assert_eq!(server.next().await, None);
    assert!(network.arrivals.recv().await.is_none(), "and no other is made");
}
