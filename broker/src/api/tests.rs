//! The HTTP interface over simulated `segld`.

use std::sync::atomic::Ordering;

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt as _;

use super::*;
use crate::{
    callers::{CertificateName, TokenHash},
    config::{self, At},
    upstream::{
        Failure, Member,
        simulated::{Deed, SimulatedSegld, failure, key},
    },
};

const DIGEST: [u8; 32] = [7; 32];
const REFRESH: Duration = Duration::from_secs(60);

/// Two callers of two tenants, two `segld` each, each with the keys `a-key` and `login`.
struct Setup {
    broker: Arc<Broker>,
    /// Of the tenant `north`
    one: Arc<SimulatedSegld>,
    two: Arc<SimulatedSegld>,
    /// Of the tenant `south`
    south: Arc<SimulatedSegld>,
}

async fn setup() -> Setup {
    let keys = || ["a-key", "login", "secret"].map(|name| key(name, wire::KeyState::Usable)).to_vec();
    let (one, two, south) = (SimulatedSegld::new(keys()), SimulatedSegld::new(keys()), SimulatedSegld::new(keys()));
    let member = |name: &str, segld: &Arc<SimulatedSegld>| Member::start(name.into(), segld.clone(), REFRESH);
    let north = Tenant::new("north".into(), vec![member("one", &one), member("two", &two)]);
    let south_tenant = Tenant::new("south".into(), vec![member("one", &south)]);
    for tenant in [&north, &south_tenant] {
        for member in tenant.members() {
            member.seen().await;
        }
    }
    let caller = |name: &str, tenant: &str, token: &str, operations: &[Operation]| config::Caller {
        name: at(name.into()),
        tenant: at(tenant.into()),
        tokens: vec![at(TokenHash::of(token.as_bytes()))],
        certificates: vec![at(CertificateName { san: format!("{name}.example"), spki_sha256: None })],
        keys: ["a-key".to_owned(), "login".to_owned()].into(),
        operations: operations.iter().copied().collect(),
    };
    let all = [Operation::Sign, Operation::SignBatch, Operation::Keys];
    let callers = Callers::new(&[
        caller("idp", "north", "n-token", &all),
        caller("reader", "north", "r-token", &[Operation::Keys]),
        caller("portal", "south", "s-token", &all),
    ]);
    let snapshot = Snapshot {
        callers,
        tenants: [north, south_tenant].into_iter().map(|tenant| (tenant.name.clone(), Arc::new(tenant))).collect(),
        repeatable_keys: ["login".to_owned()].into(),
    };
    let broker = Arc::new(Broker {
        snapshot: ArcSwap::from_pointee(snapshot),
        idempotency: Idempotency::new(Duration::from_secs(600), 3, 1 << 20),
        limits: Limits {
            body_max: 16 << 10,
            body_timeout: Duration::from_secs(5),
            batch_max: 4,
            timeout: Duration::from_secs(10),
            timeout_max: Duration::from_secs(30),
        },
        draining: AtomicBool::new(false),
    });
    Setup { broker, one, two, south }
}

fn at<T>(value: T) -> At<T> {
    At { value, line: 1 }
}

struct Got {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Got {
    #[track_caller]
    fn is_problem(&self, code: Code) -> &Self {
        assert_eq!(self.body["code"], code.name(), "{}", self.body);
        assert_eq!(self.status, code.status().as_u16());
        assert_eq!(self.body["status"], self.status);
        assert_eq!(self.body["type"], format!("urn:segl:problem:{}", code.name()));
        assert_eq!(self.headers["content-type"], "application/problem+json");
        self
    }

    #[track_caller]
    fn points_at(&self, pointer: &str) {
        assert_eq!(self.body["errors"][0]["pointer"], pointer, "{}", self.body);
    }
}

impl Setup {
    async fn send(&self, request: axum::http::request::Builder, body: impl Into<Body>) -> Got {
        let response = router(self.broker.clone()).oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
        Got { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn post(&self, path: &str, body: Value) -> Got {
        self.send(post_as("n-token", path), body.to_string()).await
    }

    async fn sign(&self, key: &str) -> Got {
        self.post("/v1/sign", sign_body(key)).await
    }

    async fn sign_once(&self, idempotency_key: &str, body: Value) -> Got {
        self.send(post_as("n-token", "/v1/sign").header("idempotency-key", idempotency_key), body.to_string()).await
    }

    fn asked_in_all(&self) -> usize {
        self.one.asked().len() + self.two.asked().len()
    }

    /// Both of north do this with their next request.
    fn both_will(&self, failure: &Failure) {
        self.one.will(Deed::Fail(failure.clone()));
        self.two.will(Deed::Fail(failure.clone()));
    }
}

fn post_as(token: &str, path: &str) -> axum::http::request::Builder {
    let request = Request::post(path).header("content-type", "application/json");
    request.header("authorization", format!("Bearer {token}"))
}

fn get_as(token: &str, path: &str) -> axum::http::request::Builder {
    Request::get(path).header("authorization", format!("Bearer {token}"))
}

fn sign_body(key: &str) -> Value {
    json!({"key": key, "algorithm": "ecdsa-p256-sha256", "digest": STANDARD.encode(DIGEST)})
}

fn batch_body(items: usize) -> Value {
    let items: Vec<_> = (0..items).map(|at| json!({"digest": STANDARD.encode([at as u8; 32])})).collect();
    json!({"key": "a-key", "algorithm": "ecdsa-p256-sha256", "reference": "batch", "items": items})
}

fn signed(bytes: &[u8]) -> String {
    STANDARD.encode([b"signed:", bytes].concat())
}

#[tokio::test]
async fn a_request_is_signed_on_the_callers_own_tenants_road() {
    let setup = setup().await;
    let body = json!({
        "key": "a-key", "algorithm": "ecdsa-p256-sha256", "digest": STANDARD.encode(DIGEST), "class": "signature",
        "reference": "order-1", "capacity": {"type": "company", "cvr": "12345678"}, "timings": true,
    });
    let got = setup.send(post_as("s-token", "/v1/sign"), body.to_string()).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(got.body["signature"], signed(&DIGEST));
    assert_eq!((&got.body["reference"], &got.body["timings"]["token_us"]), (&"order-1".into(), &2.into()));
    assert_eq!(setup.asked_in_all(), 0);
    let asked = &setup.south.asked()[0];
    assert_eq!(asked.class, wire::Class::Signature);
    assert_eq!(asked.context.on_behalf_of.as_deref(), Some("portal"));
    assert_eq!(asked.context.capacity, wire::Cvr::new("12345678").map(wire::Capacity::Company));
}

#[tokio::test]
async fn who_gives_no_reference_gets_one_of_128_bits() {
    let setup = setup().await;
    let (first, second) = (setup.sign("a-key").await, setup.sign("a-key").await);
    let reference = first.body["reference"].as_str().unwrap();
    assert_eq!(reference.len(), 32);
    assert_ne!(first.body["reference"], second.body["reference"]);
    let asked: Vec<_> = setup.one.asked().into_iter().chain(setup.two.asked()).collect();
    assert!(asked.iter().any(|asked| asked.context.reference.as_deref() == Some(reference)));
}

#[tokio::test]
async fn nobody_known_is_turned_away_before_the_body_is_read() {
    let setup = setup().await;
    for request in [
        Request::post("/v1/sign"),
        Request::post("/v1/sign").header("authorization", "Bearer wrong"),
        Request::post("/v1/sign-batch").header("authorization", "Basic bjp0"),
        Request::get("/v1/keys"),
    ] {
        let got = setup.send(request, Body::new(NeverPolled)).await;
        got.is_problem(Code::Unauthenticated);
        assert!(got.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
}

/// A body that must not be asked for.
struct NeverPolled;

impl hyper::body::Body for NeverPolled {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        panic!("the body was read")
    }
}

#[tokio::test]
async fn a_certificate_is_as_good_as_a_token() {
    let setup = setup().await;
    let peer = PeerCertificate {
        sans: vec!["portal.example".into()],
        spki_sha256: TokenHash::of(b"spki"),
        not_after_s: i64::MAX,
    };
    let request = Request::post("/v1/sign").header("content-type", "application/json").extension(Arc::new(peer));
    let got = setup.send(request, sign_body("a-key").to_string()).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(setup.south.asked().len(), 1);
}

#[tokio::test]
async fn what_is_not_granted_is_denied_and_looks_like_what_does_not_exist() {
    let setup = setup().await;
    let reader = setup.send(post_as("r-token", "/v1/sign"), sign_body("a-key").to_string()).await;
    reader.is_problem(Code::OperationNotGranted);
    let (secret, missing) = (setup.sign("secret").await, setup.sign("missing").await);
    secret.is_problem(Code::NotGranted).points_at("#/key");
    assert_eq!(secret.body, missing.body);
    assert_eq!(setup.asked_in_all(), 0);
}

#[tokio::test]
async fn bad_input_is_told_with_its_field_and_goes_nowhere() {
    let setup = setup().await;
    let with = |field: &str, value: Value| {
        let mut body = sign_body("a-key");
        body[field] = value;
        body
    };
    for (body, code, pointer) in [
        (with("digest", "AAAA".into()), Code::BadInput, "#/digest"),
        (with("digest", "-_".into()), Code::BadInput, "#/digest"),
        (with("message", "AAAA".into()), Code::BadInput, "#/message"),
        (with("reference", "".into()), Code::BadInput, "#/reference"),
        (with("reference", "a\nb".into()), Code::BadInput, "#/reference"),
        (with("timeout_ms", 0.into()), Code::BadInput, "#/timeout_ms"),
        (with("capacity", json!({"type": "company", "cvr": "1234567"})), Code::BadInput, "#/capacity/cvr"),
        (with("capacity", json!({"type": "king"})), Code::BadJson, "#/capacity/type"),
        (with("algorithm", "a".repeat(65).into()), Code::BadInput, "#/algorithm"),
        (with("on_behalf_of", "someone".into()), Code::BadJson, "#/on_behalf_of"),
    ] {
        let got = setup.post("/v1/sign", body.clone()).await;
        got.is_problem(code).points_at(pointer);
        assert_eq!((&got.body["signed"], &got.body["fault"]), (&"no".into(), &"client".into()));
    }
    setup.send(post_as("n-token", "/v1/sign"), "{").await.is_problem(Code::BadJson);
    assert_eq!(setup.asked_in_all(), 0);
}

#[tokio::test]
async fn limits_come_before_meaning() {
    let setup = setup().await;
    setup.send(post_as("n-token", "/v1/sign"), "x".repeat(17 << 10)).await.is_problem(Code::BodyTooLarge);
    let text = Request::post("/v1/sign").header("authorization", "Bearer n-token").header("content-type", "text/plain");
    setup.send(text, sign_body("a-key").to_string()).await.is_problem(Code::UnsupportedMediaType);
    setup.post("/v1/sign-batch", batch_body(5)).await.is_problem(Code::BadBatch).points_at("#/items");
    setup.post("/v1/sign-batch", batch_body(0)).await.is_problem(Code::BadBatch);
    setup.send(Request::get("/v2/sign"), "").await.is_problem(Code::NoSuchRoute);
    setup.send(Request::get("/v1/sign"), "").await.is_problem(Code::MethodNotAllowed);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    struct Silent;
    impl hyper::body::Body for Silent {
        type Data = Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }
    let setup = setup().await;
    setup.send(post_as("n-token", "/v1/sign"), Body::new(Silent)).await.is_problem(Code::BodyTimeout);
}

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
    assert_eq!((first.body, setup.asked_in_all()), (second.body, 1));
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

#[tokio::test]
async fn keys_are_shown_as_far_as_granted_with_their_state_everywhere() {
    let setup = setup().await;
    let got = setup.send(get_as("r-token", "/v1/keys"), "").await;
    let keys = got.body["keys"].as_array().unwrap();
    assert_eq!(keys.iter().map(|key| key["name"].as_str().unwrap()).collect::<Vec<_>>(), ["a-key", "login"]);
    let key = &keys[0];
    assert_eq!((&key["state"], &key["bits"], &key["type"]), (&"usable".into(), &256.into(), &"ec-p256".into()));
    let states = json!([{"segld": "one", "state": "usable"}, {"segld": "two", "state": "usable"}]);
    assert_eq!(key["upstreams"], states);
    assert_eq!(STANDARD.decode(key["spki"].as_str().unwrap()).unwrap(), [0x30; 91]);
    let pem = key["public_key_pem"].as_str().unwrap();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n") && pem.ends_with("\n-----END PUBLIC KEY-----\n"));
    assert!(pem.lines().all(|line| line.len() <= 64));
}

#[tokio::test]
async fn readiness_needs_a_segld_for_every_tenant_and_nobody_leaving() {
    let setup = setup().await;
    assert_eq!(setup.send(Request::get("/readyz"), "").await.status, 200);
    setup.one.set_ready(false);
    assert_eq!(setup.send(Request::get("/readyz"), "").await.status, 200);
    setup.south.set_ready(false);
    assert_eq!(setup.send(Request::get("/readyz"), "").await.status, 503);
    setup.south.set_ready(true);
    setup.broker.draining.store(true, Ordering::Relaxed);
    assert_eq!(setup.send(Request::get("/readyz"), "").await.status, 503);
    assert_eq!(setup.send(Request::get("/healthz"), "").await.status, 200);
}

#[tokio::test]
async fn the_operator_sees_every_road_and_every_count() {
    let setup = setup().await;
    metrics::exposition();
    setup.sign("a-key").await;
    setup.sign("missing").await;
    let ask = |path: &str| admin_router(setup.broker.clone()).oneshot(Request::get(path).body(Body::empty()).unwrap());
    let text = async |path: &str| {
        let body = ask(path).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    };
    let ready: Value = serde_json::from_str(&text("/readyz").await).unwrap();
    let road = json!({"segld": "two", "state": "ready", "in_flight": 0, "keys_usable": 3, "keys": 3});
    assert_eq!(ready["tenants"][0]["upstreams"][1], road);
    let exposition = text("/metrics").await;
    for line in [
        r#"segl_broker_requests_total{caller="idp",operation="sign",outcome="ok"}"#,
        r#"segl_broker_requests_total{caller="idp",operation="sign",outcome="not-granted"}"#,
        r#"segl_broker_signatures_total{caller="idp",outcome="signed"}"#,
        r#"segl_broker_request_seconds_bucket{operation="sign",le="0.001"}"#,
        r#"segl_broker_upstream_ready{tenant="south",segld="one"} 1"#,
    ] {
        assert!(exposition.contains(line), "{line} is not in\n{exposition}");
    }
}

#[tokio::test]
async fn the_document_lists_every_route_and_every_code() {
    let setup = setup().await;
    let document = setup.send(Request::get("/openapi.json"), "").await.body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    let listed: BTreeSet<_> = paths.keys().map(String::as_str).collect();
    let source = include_str!("mod.rs");
    let callers_routes = source.split("pub fn admin_router").next().unwrap();
    let routes = callers_routes.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next());
    assert_eq!(listed, routes.collect());
    let codes = document["components"]["schemas"]["Code"].to_string();
    let description = document["info"]["description"].as_str().unwrap();
    for code in Code::ALL {
        assert!(codes.contains(&format!("\"{}\"", code.name())), "{} is not in the schema", code.name());
        assert!(description.contains(&format!("`{}` | {}", code.name(), code.status().as_u16())));
    }
    for reference in references(&document) {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let inner = fields.values().flat_map(references);
            fields
                .get("$ref")
                .and_then(|reference| reference.as_str().map(str::to_owned))
                .into_iter()
                .chain(inner)
                .collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let setup = setup().await;
    let got = setup.send(Request::get("/docs"), "").await;
    let page = got.body.as_str().unwrap();
    assert!(!page.contains("://") && !page.contains("innerHTML"), "no address and no HTML from data");
    assert!(got.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
}
