//! Which `segld` is asked, and when another one is.

use super::*;
use crate::problem::Fault;

#[tokio::test]
async fn the_least_busy_gets_the_request() {
    let setup = setup().await;
    setup.one.busy.store(5, Ordering::Relaxed);
    for _ in 0..4 {
        assert_eq!(setup.sign("a-key").await.status, 200);
    }
    assert_eq!((setup.one.asked().len(), setup.two.asked().len()), (0, 4));
    setup.two.busy.store(5, Ordering::Relaxed);
    for _ in 0..4 {
        assert_eq!(setup.sign("a-key").await.status, 200);
    }
    assert_eq!((setup.one.asked().len(), setup.two.asked().len()), (2, 6), "equals take turns");
}

#[tokio::test]
async fn a_segld_that_leaves_or_cannot_use_the_key_is_avoided() {
    let setup = setup().await;
    setup.one.set_ready(false);
    for _ in 0..2 {
        assert_eq!(setup.sign("a-key").await.status, 200);
    }
    assert_eq!((setup.one.asked().len(), setup.two.asked().len()), (0, 2));

    setup.one.set_ready(true);
    setup.two.set_keys(vec![key("a-key", wire::KeyState::Unavailable)]);
    setup.two.will(Deed::Fail(failure(Code::KeyUnavailable, Signed::No, Retry::Elsewhere)));
    setup.one.busy.store(9, Ordering::Relaxed);
    let looks = *setup.two.looks.borrow();
    assert_eq!(setup.sign("a-key").await.status, 200);
    assert_eq!((setup.one.asked().len(), setup.two.asked().len()), (1, 3), "it failed and the other was asked");
    setup.two.looks.subscribe().wait_for(|now| *now > looks).await.unwrap();
    // What was looked at is stored right after the look.
    tokio::task::yield_now().await;
    assert_eq!(setup.sign("a-key").await.status, 200);
    assert_eq!((setup.one.asked().len(), setup.two.asked().len()), (2, 3), "busy, but its key is usable");
}

#[tokio::test(start_paused = true)]
async fn a_segld_that_fails_fast_does_not_draw_the_traffic() {
    let setup = setup().await;
    setup.one.busy.store(9, Ordering::Relaxed);
    let broken = || Deed::Fail(failure(Code::Internal, Signed::No, Retry::Elsewhere));
    let asked = async |one: usize, two: usize| {
        assert_eq!(setup.sign("a-key").await.status, 200);
        assert_eq!((setup.one.asked().len(), setup.two.asked().len()), (one, two));
    };
    setup.two.will(broken());
    asked(1, 1).await;
    asked(2, 1).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    setup.two.will(broken());
    asked(3, 2).await;
    tokio::time::advance(Duration::from_millis(1_500)).await;
    asked(4, 2).await;
    tokio::time::advance(Duration::from_millis(500)).await;
    asked(4, 3).await;
    asked(4, 4).await;
    let own = Failure { fault: Fault::Client, ..failure(Code::BadInput, Signed::No, Retry::Elsewhere) };
    setup.two.will(Deed::Fail(own));
    asked(5, 5).await;
    asked(5, 6).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_never_sent_goes_once_more_to_the_only_seglds_next_connection() {
    let setup = setup().await;
    let sign = || async { setup.send(post_as("s-token", "/v1/sign"), sign_body("a-key").to_string()).await };
    let left = || Deed::Fail(Failure::not_sent("it leaves"));
    setup.south.will(left());
    assert_eq!(sign().await.status, 200);
    assert_eq!(setup.south.asked().len(), 2);
    setup.south.will(left());
    setup.south.will(left());
    sign().await.is_problem(Code::UpstreamUnavailable);
    assert_eq!(setup.south.asked().len(), 4, "and no third time");
    setup.south.will(Deed::Leave);
    let began = Instant::now();
    let got = sign().await;
    got.is_problem(Code::UpstreamUnavailable);
    assert_eq!((&got.body["signed"], setup.south.asked().len()), (&"no".into(), 5));
    assert!(began.elapsed() <= Duration::from_secs(1), "a next connection is not waited for for long");
}

#[tokio::test]
async fn only_what_was_certainly_not_signed_is_tried_elsewhere() {
    for (code, signed, retry, key, tries) in [
        (Code::Draining, Signed::No, Retry::Elsewhere, "a-key", 2),
        (Code::Overloaded, Signed::No, Retry::Here, "a-key", 1),
        (Code::BadInput, Signed::No, Retry::Never, "a-key", 1),
        (Code::TokenFailed, Signed::Unknown, Retry::Elsewhere, "a-key", 1),
        (Code::TokenFailed, Signed::Unknown, Retry::Elsewhere, "login", 2),
        (Code::TokenFailed, Signed::Unknown, Retry::Never, "login", 1),
    ] {
        let setup = setup().await;
        setup.both_will(&failure(code, signed, retry));
        let got = setup.sign(key).await;
        got.is_problem(code);
        assert_eq!(got.body["signed"], serde_json::to_value(signed).unwrap());
        assert_eq!(got.body["retry"], serde_json::to_value(retry).unwrap());
        assert!(got.body["reference"].is_string(), "{}", got.body);
        assert_eq!(setup.asked_in_all(), tries, "{code:?} {signed:?} {retry:?} {key}");
    }
}

#[tokio::test]
async fn what_may_have_been_signed_stays_so_whatever_comes_after() {
    let setup = setup().await;
    setup.one.busy.store(1, Ordering::Relaxed);
    setup.two.will(Deed::Fail(failure(Code::AnswerLost, Signed::Unknown, Retry::Elsewhere)));
    setup.one.will(Deed::Fail(failure(Code::Draining, Signed::No, Retry::Elsewhere)));
    let got = setup.sign("login").await;
    got.is_problem(Code::Draining);
    assert_eq!(got.body["signed"], "unknown");
}

#[tokio::test(start_paused = true)]
async fn without_a_segld_the_answer_comes_soon_and_says_that_nothing_was_signed() {
    let setup = setup().await;
    setup.one.set_ready(false);
    setup.two.set_ready(false);
    let got = setup.sign("a-key").await;
    got.is_problem(Code::UpstreamUnavailable);
    assert_eq!((&got.body["signed"], &got.headers["retry-after"]), (&"no".into(), &"1".parse().unwrap()));
    setup.send(get_as("n-token", "/v1/keys"), "").await.is_problem(Code::UpstreamUnavailable);
    setup.south.set_ready(false);
    let ready = setup.send(Request::get("/readyz"), "").await;
    assert_eq!((ready.status, ready.body), (503, json!({"ready": false, "draining": false})));
}

#[tokio::test(start_paused = true)]
async fn a_reconnection_is_waited_for() {
    let setup = setup().await;
    setup.one.set_ready(false);
    setup.two.set_ready(false);
    let (got, ()) = tokio::join!(setup.sign("a-key"), async {
        tokio::time::advance(Duration::from_millis(50)).await;
        setup.two.set_ready(true);
    });
    assert_eq!(got.status, 200, "{}", got.body);
}

#[tokio::test]
async fn each_item_of_a_batch_has_its_own_answer() {
    let setup = setup().await;
    let refused = failure(Code::BadInput, Signed::No, Retry::Never);
    for segld in [&setup.one, &setup.two] {
        segld.will(Deed::FailItems(vec![1], refused.clone()));
    }
    let mut body = batch_body(3);
    body["items"][1]["reference"] = "item-1".into();
    let got = setup.post("/v1/sign-batch", body).await;
    assert_eq!((got.status, &got.body["signed"]), (200, &2.into()), "{}", got.body);
    assert_eq!(got.body["items"][0]["signature"], signed(&[0; 32]));
    assert_eq!(got.body["items"][1]["problem"]["code"], "bad-input");
    assert_eq!(got.body["items"][1]["problem"]["reference"], "item-1");
    assert_eq!(got.body["items"][2]["signature"], signed(&[2; 32]));
}

#[tokio::test]
async fn only_the_failed_items_of_a_batch_go_elsewhere() {
    let setup = setup().await;
    setup.one.busy.store(1, Ordering::Relaxed);
    setup.two.will(Deed::FailItems(vec![0, 2], failure(Code::Draining, Signed::No, Retry::Elsewhere)));
    let got = setup.post("/v1/sign-batch", batch_body(4)).await;
    assert_eq!((got.status, &got.body["signed"]), (200, &4.into()), "{}", got.body);
    let again = &setup.one.asked()[0].payloads;
    assert_eq!(*again, [0, 2].map(|at| wire::Payload::Digest(vec![at; 32].into())));
    for at in 0..4 {
        assert_eq!(got.body["items"][at]["signature"], signed(&[at as u8; 32]));
    }
}

#[tokio::test]
async fn a_batch_that_failed_as_a_whole_is_one_problem() {
    let setup = setup().await;
    setup.both_will(&failure(Code::Overloaded, Signed::No, Retry::Here));
    let got = setup.post("/v1/sign-batch", batch_body(3)).await;
    got.is_problem(Code::Overloaded);
    assert_eq!(got.body["reference"], "batch");
    let setup = self::setup().await;
    setup.both_will(&failure(Code::AnswerLost, Signed::Unknown, Retry::Elsewhere));
    let got = setup.post("/v1/sign-batch", batch_body(3)).await;
    assert_eq!((got.status, &got.body["signed"]), (200, &0.into()));
    assert_eq!(got.body["items"][2]["problem"]["signed"], "unknown");
}

#[tokio::test]
async fn a_caller_has_no_more_in_flight_than_room_is_left_on_the_roads() {
    let setup = setup().await;
    setup.one.capacity.store(3, Ordering::Relaxed);
    setup.two.capacity.store(1, Ordering::Relaxed);
    for segld in [&setup.one, &setup.two] {
        segld.will(Deed::Never);
        segld.will(Deed::Never);
    }
    let held = async { tokio::join!(setup.sign("a-key"), setup.sign("a-key")) };
    tokio::select! {
        _ = held => panic!("they are never answered"),
        () = async {
            while setup.asked_in_all() < 2 {
                tokio::task::yield_now().await;
            }
            let got = setup.sign("a-key").await;
            got.is_problem(Code::CallerLimit);
            assert_eq!((&got.body["retry"], &got.body["signed"]), (&"here".into(), &"no".into()));
            assert_eq!((got.status, got.headers.contains_key("retry-after")), (429, true));
            assert!(got.body["reference"].is_string());
            assert_eq!(setup.asked_in_all(), 2);
        } => {}
    }
}
