//! Requests and their answers: order, slots, time-outs, what is refused at home.

use super::*;

#[tokio::test(start_paused = true)]
async fn answers_in_any_order_reach_their_own_requests() {
    let (client, mut network) = client();
    let mut server = network.accept(&hello()).await;
    client.ready().await;
    let waiting = [spawn_sign(&client, "a"), spawn_sign(&client, "b"), spawn_sign(&client, "c")];
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(server.next_sign().await);
    }
    assert!(requests.is_sorted_by(|(one, _), (other, _)| one < other), "ids rise");
    assert_eq!(client.in_flight(), 3);
    for (id, request) in requests.iter().rev() {
        server.answer(*id, &format!("by {}", request.key)).await;
    }
    for (request, key) in waiting.into_iter().zip(["a", "b", "c"]) {
        assert_eq!(request.await.unwrap().unwrap().bytes, format!("by {key}").as_bytes());
    }
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_request_gets_its_kind_of_answer() {
    let (client, mut network) = client();
    let mut server = network.accept(&hello()).await;
    let keys = Keys {
        keys: vec![Key {
            name: "k".into(),
            purpose: "digest".into(),
            key_type: "ec-p256".into(),
            bits: 256,
            algorithms: vec!["ecdsa-p256-sha256".into()],
            spki_der: [1, 2].as_slice().into(),
            certificates: vec![],
            state: KeyState::Usable,
            versions: vec![],
        }],
    };
    let refusal = Error::of(Code::KeyUnavailable, "no token").retry_after(7);
    let timings = Some(Timings { queue_us: 3, token_us: 55 });
    let script = async {
        assert_eq!(server.next().await.unwrap().0, Kind::ListKeys);
        server.send(Kind::Keys, 1, &keys).await;
        assert_eq!(server.next().await.unwrap().0, Kind::SignBatch);
        let items =
            vec![Ok(Signed { signature: b"s".as_slice().into(), timings, version: None }), Err(refusal.clone())];
        server.send(Kind::SignedBatch, 2, &SignedBatch { items }).await;
        server.next_sign().await;
        server.send(Kind::Error, 3, &refusal).await;
    };
    let calls = async {
        let meta = sign("k").meta;
        assert_eq!(client.list_keys(&ListKeys { meta }).await.unwrap(), keys);
        let items = client.sign_batch(&batch(2)).await.unwrap();
        assert_eq!(items, [Ok(Signature { bytes: b"s".to_vec(), timings, version: None }), Err(refusal.clone())]);
        let error = client.sign(&sign("k")).await.unwrap_err();
        assert_eq!((error.code(), error.signed()), (Some(Code::KeyUnavailable), SignedState::No));
        assert_eq!(error, ClientError::Refused(refusal.clone()));
    };
    tokio::join!(script, calls);
    let kinds: Vec<TraceEvent> = network.events();
    assert!(kinds.contains(&TraceEvent::Sent { connection: 1, id: 3 }));
    assert!(kinds.contains(&TraceEvent::Answered { connection: 1, id: 2 }));
    assert!(kinds.contains(&TraceEvent::Refused { connection: 1, id: 3, code: Code::KeyUnavailable }));
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_are_sent_than_the_hello_allows_in_flight() {
    let (client, mut network) = client();
    let mut server = network.accept(&Hello { in_flight_max: 2, ..hello() }).await;
    client.ready().await;
    let waiting = [spawn_sign(&client, "a"), spawn_sign(&client, "b"), spawn_sign(&client, "c")];
    let (first, _) = server.next_sign().await;
    server.next_sign().await;
    assert_eq!(server.sent_so_far().await, []);
    assert_eq!(client.in_flight(), 3);
    server.answer(first, "done").await;
    let (third, _) = server.next_sign().await;
    assert_eq!(third, 3);
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_n_takes_n_slots() {
    let (client, mut network) = client();
    let mut server = network.accept(&Hello { in_flight_max: 4, ..hello() }).await;
    client.ready().await;
    let other = client.clone();
    let batch = tokio::spawn(async move { other.sign_batch(&batch(3)).await });
    let (kind, id, _) = server.next().await.unwrap();
    assert_eq!(kind, Kind::SignBatch);
    let _one = spawn_sign(&client, "a");
    let _other = spawn_sign(&client, "b");
    server.next_sign().await;
    assert_eq!(server.sent_so_far().await, [], "one of three slots was left");
    let items = vec![Err(Error::of(Code::Expired, "late")); 3];
    server.send(Kind::SignedBatch, id, &SignedBatch { items }).await;
    server.next_sign().await;
    assert_eq!(batch.await.unwrap().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn asking_for_the_keys_takes_no_slot() {
    let (client, mut network) = client();
    let mut server = network.accept(&Hello { in_flight_max: 1, ..hello() }).await;
    client.ready().await;
    let _first = spawn_sign(&client, "a");
    let _waits = spawn_sign(&client, "b");
    server.next_sign().await;
    let other = client.clone();
    let listed = tokio::spawn(async move { other.list_keys(&ListKeys { meta: sign("k").meta }).await });
    let (kind, id, _) = server.next().await.unwrap();
    assert_eq!((kind, client.in_flight()), (Kind::ListKeys, 2), "the only slot is taken, and one waits for it");
    server.send(Kind::Keys, id, &Keys { keys: vec![] }).await;
    assert_eq!(listed.await.unwrap().unwrap().keys, []);
}

#[tokio::test(start_paused = true)]
async fn what_the_hello_forbids_is_refused_before_it_is_sent() {
    let (client, mut network) = client();
    let mut server = network.accept(&hello()).await;
    client.ready().await;
    let long = [0; 1025];
    let message = Sign { payload: Payload::Message(long.as_slice().into()), ..sign("k") };
    assert_eq!(client.sign(&message).await.unwrap_err().code(), Some(Code::BadInput));
    assert_eq!(client.sign_batch(&batch(9)).await.unwrap_err().code(), Some(Code::BadBatch));
    assert_eq!(client.sign_batch(&batch(0)).await.unwrap_err().code(), Some(Code::BadBatch));
    let name = "k".repeat(5000);
    assert_eq!(client.sign(&sign(&name)).await.unwrap_err().code(), Some(Code::FrameTooLong));
    assert_eq!(server.sent_so_far().await, []);
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_the_request_times_out_as_unknown_and_is_taken_back() {
    let (client, mut network) = client();
    let mut server = network.accept(&Hello { in_flight_max: 1, ..hello() }).await;
    client.ready().await;
    let waiting = spawn_sign(&client, "a");
    let (id, request) = server.next_sign().await;
    assert_eq!(request.meta.timeout_ms, 5000);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error, ClientError::TimedOut { signed: SignedState::Unknown });
    assert_eq!(server.sent_so_far().await, [(Kind::Cancel, id)]);
    assert_eq!(client.in_flight(), 1, "the slot is held until the final answer");
    let error = client.sign(&sign("b")).await.unwrap_err();
    assert_eq!(error, ClientError::TimedOut { signed: SignedState::No }, "no slot came free");
    server.answer(id, "late").await;
    let third = spawn_sign(&client, "c");
    assert_eq!(server.next_sign().await.1.key, "c");
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn time_spent_waiting_for_a_slot_is_taken_off_the_timeout() {
    let (client, mut network) = client();
    let mut server = network.accept(&Hello { in_flight_max: 1, ..hello() }).await;
    client.ready().await;
    let _first = spawn_sign(&client, "a");
    let (id, _) = server.next_sign().await;
    let _second = spawn_sign(&client, "b");
    assert_eq!(server.sent_so_far().await, []);
    tokio::time::advance(Duration::from_millis(1200)).await;
    server.answer(id, "slow").await;
    assert_eq!(server.next_sign().await.1.meta.timeout_ms, 3800);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_takes_the_request_back() {
    let (client, mut network) = client();
    let mut server = network.accept(&hello()).await;
    client.ready().await;
    let waiting = spawn_sign(&client, "a");
    let (id, _) = server.next_sign().await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    assert_eq!(server.sent_so_far().await, [(Kind::Cancel, id)]);
    assert_eq!(client.in_flight(), 1);
    server.send(Kind::Error, id, &Error::of(Code::Cancelled, "as you wish")).await;
    server.send(Kind::Ping, 0, &Ping::default()).await;
    assert_eq!(server.next().await.unwrap().0, Kind::Pong);
    assert_eq!(client.in_flight(), 0);
}
