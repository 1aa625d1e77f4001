//! `Idempotency-Key`.

use super::*;

#[tokio::test]
async fn the_same_key_and_body_are_signed_once() {
    let setup = setup().await;
    let first = setup.sign_once("\"k-1\"", sign_body("a-key")).await;
    let second = setup.sign_once("\"k-1\"", sign_body("a-key")).await;
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(first.body, second.body, "the made reference too");
    assert!(first.headers.get("idempotency-replayed").is_none());
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(setup.asked_in_all(), 1);
    setup.sign_once("\"k-1\"", sign_body("login")).await.is_problem(Code::IdempotencyMismatch);
    setup.sign_once("", sign_body("a-key")).await.is_problem(Code::BadIdempotencyKey);
    let other = post_as("s-token", "/v1/sign").header("idempotency-key", "k-1");
    assert_eq!(setup.send(other, sign_body("login").to_string()).await.status, 200, "another caller's key");
}

#[tokio::test]
async fn who_asks_again_meanwhile_waits_even_when_the_first_connection_breaks() {
    let setup = setup().await;
    setup.one.busy.store(1, Ordering::Relaxed);
    let go = Arc::new(Notify::new());
    setup.two.will(Deed::Hold(go.clone()));
    {
        let first = setup.sign_once("k", sign_body("a-key"));
        tokio::select! {
            _ = first => panic!("it is held"),
            () = setup.two.wait_asked(1) => {}
        }
    }
    let (second, ()) = tokio::join!(setup.sign_once("k", sign_body("a-key")), async { go.notify_one() });
    assert_eq!((second.status, setup.asked_in_all()), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_still_to_come_is_a_conflict() {
    let setup = setup().await;
    setup.one.will(Deed::Never);
    setup.two.will(Deed::Never);
    let body = || {
        let mut body = sign_body("a-key");
        body["timeout_ms"] = 100.into();
        body
    };
    tokio::select! {
        _ = setup.sign_once("k", body()) => panic!("it never answers"),
        got = async {
            tokio::task::yield_now().await;
            setup.sign_once("k", body()).await
        } => {
            got.is_problem(Code::IdempotencyInProgress);
            assert_eq!(got.body["signed"], "unknown");
            let asked = [setup.one.asked(), setup.two.asked()].concat();
            assert_eq!(got.body["reference"], asked[0].context.reference.as_deref().unwrap(), "the first one's");
        }
    }
}

#[tokio::test]
async fn a_definite_failure_may_be_tried_again_with_the_same_key() {
    let setup = setup().await;
    setup.both_will(&failure(Code::Overloaded, Signed::No, Retry::Here));
    setup.sign_once("k", sign_body("a-key")).await.is_problem(Code::Overloaded);
    setup.sign_once("k", sign_body("a-key")).await.is_problem(Code::Overloaded);
    assert_eq!(setup.sign_once("k", sign_body("a-key")).await.status, 200);
    assert_eq!(setup.asked_in_all(), 3);
}

#[tokio::test]
async fn an_unknown_outcome_is_kept_and_never_signed_again() {
    let setup = setup().await;
    setup.both_will(&failure(Code::AnswerLost, Signed::Unknown, Retry::Elsewhere));
    let first = setup.sign_once("k", sign_body("a-key")).await;
    first.is_problem(Code::AnswerLost);
    let second = setup.sign_once("k", sign_body("a-key")).await;
    assert!(first.headers.get("idempotency-replayed").is_none());
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!((first.body, setup.asked_in_all()), (second.body, 1));
}

#[tokio::test]
async fn a_batch_is_kept_only_if_something_was_or_may_have_been_signed() {
    for (signed, then) in [(Signed::No, 2), (Signed::Unknown, 0)] {
        let setup = setup().await;
        setup.one.busy.store(1, Ordering::Relaxed);
        let one = failure(Code::BadInput, signed, Retry::Never);
        setup.two.will(Deed::FailEach(vec![one, failure(Code::Expired, Signed::No, Retry::Never)]));
        for expected in [0, then] {
            let request = post_as("n-token", "/v1/sign-batch").header("idempotency-key", "k");
            let got = setup.send(request, batch_body(2).to_string()).await;
            assert_eq!((got.status, &got.body["signed"]), (200, &expected.into()), "{}", got.body);
        }
    }
}

#[tokio::test]
async fn too_many_keys_are_refused_before_anything_is_signed() {
    let setup = setup().await;
    for key in ["1", "2", "3"] {
        assert_eq!(setup.sign_once(key, sign_body("a-key")).await.status, 200);
    }
    let got = setup.sign_once("4", sign_body("a-key")).await;
    got.is_problem(Code::IdempotencyFull);
    assert!(got.headers.contains_key("retry-after"));
    assert_eq!(setup.asked_in_all(), 3);
    assert_eq!(setup.sign_once("1", sign_body("a-key")).await.headers["idempotency-replayed"], "true");
}
