//! What is shown: keys, readiness, counts, the document.

use super::*;

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
async fn readiness_needs_a_segld_for_some_tenant_and_nobody_leaving() {
    let setup = setup().await;
    assert_eq!(setup.send(Request::get("/readyz"), "").await.status, 200);
    setup.one.set_ready(false);
    assert_eq!(setup.send(Request::get("/readyz"), "").await.status, 200);
    setup.two.set_ready(false);
    assert_eq!(setup.send(Request::get("/readyz"), "").await.status, 200, "the other tenant can");
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
    setup.send(Request::get("/v1/keys"), "").await.is_problem(Code::Unauthenticated);
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
        r#"segl_broker_unauthenticated_total{reason="nothing"}"#,
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
    let source = include_str!("../mod.rs");
    let callers_routes = source.split("pub fn admin_router").next().unwrap();
    let routes = callers_routes.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next());
    assert_eq!(listed, routes.collect());
    let codes = document["components"]["schemas"]["Code"].to_string();
    let description = document["info"]["description"].as_str().unwrap();
    for code in Code::ALL {
        assert!(codes.contains(&format!("\"{}\"", code.name())), "{} is not in the schema", code.name());
        assert!(description.contains(&format!("`{}` | {}", code.name(), code.status().as_u16())));
    }
    assert!(description.contains("for 600 s"), "the window as configured: {description}");
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
