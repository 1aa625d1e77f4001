//! The HTTP interface over simulated `segld`.

mod documents;
mod once;
mod published;
mod roads;
mod shown;

use std::sync::atomic::Ordering;

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt as _;
use segl_wire as wire;
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
    let snapshot = Snapshot {
        callers: callers(),
        tenants: [north, south_tenant].into_iter().map(|tenant| (tenant.name.clone(), Arc::new(tenant))).collect(),
        repeatable_keys: ["login".to_owned()].into(),
        publish: Publish { max_age: Duration::from_secs(300), jwks: vec![], key_descriptors: vec![] },
        providers: Providers::default(),
    };
    let broker = Arc::new(Broker {
        snapshot: ArcSwap::from_pointee(snapshot),
        idempotency: Idempotency::new(Duration::from_secs(600), 3, 1 << 20),
        in_flight: InFlight::new(100),
        published: Published::default(),
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

fn callers() -> Callers {
    let caller = |name: &str, tenant: &str, token: &str, operations: &[Operation]| config::Caller {
        name: at(name.into()),
        tenant: at(tenant.into()),
        tokens: vec![at(TokenHash::of(token.as_bytes()))],
        certificates: vec![at(CertificateName { san: format!("{name}.example"), spki_sha256: None })],
        keys: ["a-key".to_owned(), "login".to_owned()].into(),
        operations: operations.iter().copied().collect(),
    };
    let all = [Operation::Sign, Operation::SignBatch, Operation::SignAssertion, Operation::SignJws, Operation::Keys];
    Callers::new(&[
        caller("idp", "north", "n-token", &all),
        caller("reader", "north", "r-token", &[Operation::Keys]),
        caller("portal", "south", "s-token", &all),
    ])
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

    /// As a reload does.
    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        let old = self.broker.snapshot.load_full();
        let mut snapshot = Snapshot {
            callers: callers(),
            tenants: old.tenants.clone(),
            repeatable_keys: old.repeatable_keys.clone(),
            publish: old.publish.clone(),
            providers: old.providers.clone(),
        };
        change(&mut snapshot);
        self.broker.published.look(&old);
        self.broker.snapshot.store(Arc::new(snapshot));
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
        post_as("n-token", "/v1/sign").header("authorization", "Bearer n-token"),
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
    let twice = post_as("n-token", "/v1/sign").header("content-type", "application/json");
    setup.send(twice, sign_body("a-key").to_string()).await.is_problem(Code::UnsupportedMediaType);
    let twice = post_as("n-token", "/v1/sign").header("idempotency-key", "k").header("idempotency-key", "k");
    setup.send(twice, sign_body("a-key").to_string()).await.is_problem(Code::BadIdempotencyKey);
    assert_eq!(setup.asked_in_all(), 0);
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
