//! Connections that leave or die with requests in flight.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_request_in_flight_on_a_dead_connection_is_lost_and_never_sent_again() {
    let (client, mut network) = client();
    let mut server = network.accept(&hello()).await;
    client.ready().await;
    let waiting = [spawn_sign(&client, "a"), spawn_sign(&client, "b")];
    let (first, _) = server.next_sign().await;
    let (second, _) = server.next_sign().await;
    server.answer(first, "done").await;
    drop(server);
    let [answered, lost] = waiting;
    assert!(answered.await.unwrap().is_ok());
    assert_lost(lost.await.unwrap());

    let mut server = network.accept(&hello()).await;
    client.ready().await;
    let next = spawn_sign(&client, "c");
    let (id, request) = server.next_sign().await;
    assert_eq!((id, &*request.key), (1, "c"), "a new connection begins with what is asked anew");
    assert_eq!(server.sent_so_far().await, []);
    server.answer(id, "done").await;
    assert!(next.await.unwrap().is_ok());
    let closed = TraceEvent::ClosedWith { connection: 1, pending: vec![second] };
    assert!(network.events().contains(&closed));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_never_written_is_reported_as_not_sent() {
    // The first frame fills the pipe, so the second stays at home.
    let (client, mut network) = client_over(64);
    let server = network.accept(&hello()).await;
    client.ready().await;
    let first = spawn_sign(&client, "a-name-that-makes-the-frame-longer-than-the-pipe-is");
    while client.in_flight() == 0 || network.events().is_empty() {
        tokio::task::yield_now().await;
    }
    let second = spawn_sign(&client, "b");
    while client.in_flight() < 2 {
        tokio::task::yield_now().await;
    }
    drop(server);
    assert_lost(first.await.unwrap());
    assert_not_sent(second.await.unwrap());
    let closed = TraceEvent::ClosedWith { connection: 1, pending: vec![1] };
    assert_eq!(network.events().last(), Some(&closed));
}

#[tokio::test(start_paused = true)]
async fn go_away_hands_back_what_was_not_looked_at_and_the_rest_is_finished_beside_a_new_connection() {
    let (client, mut network) = client();
    let mut leaving = network.accept(&hello()).await;
    client.ready().await;
    let done = spawn_sign(&client, "z");
    let (id, _) = leaving.next_sign().await;
    leaving.answer(id, "done").await;
    done.await.unwrap().unwrap();
    let waiting = [spawn_sign(&client, "a"), spawn_sign(&client, "b"), spawn_sign(&client, "c")];
    for _ in 0..3 {
        leaving.next_sign().await;
    }
    let going = GoAway { last_id: 2, reason: GoAwayReason::Shutdown, message: "update".into() };
    leaving.send(Kind::GoAway, 0, &going).await;
    let mut staying = network.accept(&hello()).await;
    let [first, second, third] = waiting;
    assert_not_sent(second.await.unwrap());
    assert_not_sent(third.await.unwrap());
    client.ready().await;
    let next = spawn_sign(&client, "d");
    let (id, request) = staying.next_sign().await;
    assert_eq!((id, &*request.key), (1, "d"));
    staying.answer(id, "new").await;
    assert_eq!(next.await.unwrap().unwrap().bytes, b"new");
    leaving.answer(2, "old").await;
    assert_eq!(first.await.unwrap().unwrap().bytes, b"old");
    assert_eq!(leaving.next().await, None, "a drained connection is closed, with nothing more said on it");
    assert!(network.events().contains(&TraceEvent::GoAway { connection: 1, last_id: 2 }));
    assert!(network.events().contains(&TraceEvent::ClosedWith { connection: 1, pending: vec![] }));
}

#[tokio::test(start_paused = true)]
async fn a_request_waiting_for_a_slot_moves_to_the_next_connection() {
    let (client, mut network) = client();
    let mut leaving = network.accept(&Hello { in_flight_max: 1, ..hello() }).await;
    client.ready().await;
    let _first = spawn_sign(&client, "a");
    leaving.next_sign().await;
    let second = spawn_sign(&client, "b");
    assert_eq!(leaving.sent_so_far().await, []);
    let going = GoAway { last_id: 1, reason: GoAwayReason::Shutdown, message: "update".into() };
    leaving.send(Kind::GoAway, 0, &going).await;
    leaving.answer(1, "done").await;
    let mut staying = network.accept(&hello()).await;
    let (id, request) = staying.next_sign().await;
    assert_eq!((id, &*request.key), (1, "b"));
    staying.answer(id, "done").await;
    assert!(second.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_error_about_the_connection_lets_answers_come_and_sends_nothing_more() {
    let (client, mut network) = client();
    let mut server = network.accept(&hello()).await;
    client.ready().await;
    let first = spawn_sign(&client, "a");
    let (id, _) = server.next_sign().await;
    server.send(Kind::Error, 0, &Error::of(Code::BadId, "ids must rise")).await;
    let mut next = network.accept(&hello()).await;
    server.answer(id, "still").await;
    assert_eq!(first.await.unwrap().unwrap().bytes, b"still");
    let _second = spawn_sign(&client, "b");
    assert_eq!(next.next_sign().await.1.key, "b");
    assert_eq!(server.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_makes_no_sense_ends_the_connection() {
    type Nonsense = fn(u64) -> (Kind, u64, Vec<u8>);
    let nonsense: [Nonsense; 4] = [
        |id| (Kind::Signed, id + 1, b"\xa1\x01\x41s".to_vec()),
        |id| (Kind::Keys, id, b"\xa1\x01\x80".to_vec()),
        |id| (Kind::Signed, id, b"\xa1\x01".to_vec()),
        |_| (Kind::Hello, 0, vec![]),
    ];
    for nonsense in nonsense {
        let (client, mut network) = client();
        let mut server = network.accept(&hello()).await;
        client.ready().await;
        let waiting = spawn_sign(&client, "a");
        let (id, _) = server.next_sign().await;
        let (kind, id, body) = nonsense(id);
        let header = Header { len: body.len() as u32, kind: kind as u8, id };
        server.stream.write_all(&[header.encode().as_slice(), &body].concat()).await.unwrap();
        assert_lost(waiting.await.unwrap());
        assert_eq!(server.next().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_answer_to_a_request_ends_the_connection() {
    let (client, mut network) = client();
    let mut server = network.accept(&hello()).await;
    client.ready().await;
    let first = spawn_sign(&client, "a");
    let (id, _) = server.next_sign().await;
    server.answer(id, "one").await;
    server.answer(id, "two").await;
    assert_eq!(first.await.unwrap().unwrap().bytes, b"one");
    assert_eq!(server.next().await, None);
}
