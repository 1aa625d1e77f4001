//! What the world is told of keys.

use rcgen::{KeyPair, PublicKeyData as _};

use super::*;
use crate::config::PublishedKey;

fn spki() -> Vec<u8> {
    KeyPair::generate().unwrap().subject_public_key_info()
}

/// A key with a public key of its own, without certificate.
fn real(name: &str) -> wire::Key<'static> {
    let spki_der = spki().into();
    wire::Key { spki_der, certificates: vec![], ..key(name, wire::KeyState::Usable) }
}

fn version(name: &str, phase: wire::VersionPhase, from: u64, state: wire::KeyState) -> wire::KeyVersion<'static> {
    let name = name.to_owned().into();
    let (spki_der, certificates) = (spki().into(), vec![]);
    wire::KeyVersion { name, phase, active_from_unix_s: from, spki_der, certificates, state }
}

fn of(tenant: &str, key: &str) -> PublishedKey {
    PublishedKey { tenant: at(tenant.into()), key: key.into() }
}

impl Setup {
    /// With these keys at each segld of north, and `keys` of them in both documents.
    async fn publishing(shown: [Vec<wire::Key<'static>>; 2], keys: &[&str]) -> Self {
        let setup = setup().await;
        let [one, two] = shown;
        setup.one.set_keys(one);
        setup.two.set_keys(two);
        let tenant = setup.north_anew();
        tokio::join!(tenant.members()[0].seen(), tenant.members()[1].seen());
        setup.change(|snapshot| {
            snapshot.tenants.insert("north".into(), Arc::new(tenant));
            let keys: Vec<_> = keys.iter().map(|key| of("north", key)).collect();
            snapshot.publish = Publish { jwks: keys.clone(), key_descriptors: keys, ..snapshot.publish.clone() };
        });
        setup
    }

    fn north_anew(&self) -> Tenant {
        let member = |name: &str, segld: &Arc<SimulatedSegld>| Member::start(name.into(), segld.clone(), REFRESH);
        Tenant::new("north".into(), vec![member("one", &self.one), member("two", &self.two)])
    }

    async fn jwks(&self) -> Got {
        self.send(Request::get("/.well-known/jwks.json"), "").await
    }
}

fn kids(got: &Got) -> Vec<&str> {
    assert_eq!(got.status, 200, "{}", got.body);
    got.body["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn anybody_is_told_of_the_keys_that_are_configured_and_of_no_other() {
    let setup = Setup::publishing([vec![real("a-key"), real("login")], vec![]], &["a-key"]).await;
    let got = setup.jwks().await;
    assert_eq!(kids(&got), ["a-key"]);
    let key = &got.body["keys"][0];
    assert_eq!((&key["kty"], &key["crv"], &key["alg"]), (&"EC".into(), &"P-256".into(), &"ES256".into()));
    assert_eq!(got.headers["content-type"], "application/jwk-set+json");
    assert_eq!(
        (&got.headers["cache-control"], &got.headers["age"]),
        (&"public, max-age=300".parse().unwrap(), &"0".parse().unwrap())
    );
    let got = setup.send(Request::get("/v1/metadata/key-descriptors"), "").await;
    let descriptor = &got.body["keys"][0];
    assert_eq!((&descriptor["key"], descriptor["version"].is_null()), (&"a-key".into(), true), "{}", got.body);
    assert!(descriptor["key_descriptor"].as_str().unwrap().starts_with("<md:KeyDescriptor "), "{descriptor}");
}

#[tokio::test]
async fn a_version_is_told_of_before_it_signs_and_until_it_is_taken_out() {
    use wire::{KeyState::*, VersionPhase::*};
    let logical = |versions: Vec<wire::KeyVersion<'static>>| wire::Key { versions, ..real("tokens") };
    let (former, active) = (version("1", Former, 100, Expired), version("2", Active, 200, Usable));
    let (next, faulty) = (version("3", Next, 300, Unavailable), version("4", Next, 400, Faulty));
    // One segld has been reloaded already.
    let shown = [
        vec![logical(vec![former.clone(), active.clone()])],
        vec![logical(vec![former, active.clone(), next, faulty])],
    ];
    let setup = Setup::publishing(shown, &["tokens"]).await;
    assert_eq!(kids(&setup.jwks().await), ["tokens/1", "tokens/2", "tokens/3"]);
    let got = setup.send(Request::get("/v1/metadata/key-descriptors"), "").await;
    let next = &got.body["keys"][2];
    assert_eq!((&next["key"], &next["version"], &next["active_from"]), (&"tokens".into(), &"3".into(), &300.into()));

    let setup = Setup::publishing([vec![logical(vec![active])], vec![]], &["tokens"]).await;
    assert_eq!(kids(&setup.jwks().await), ["tokens/2"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_last_is_told_with_its_age_when_every_road_is_closed_even_after_a_reload() {
    let setup = Setup::publishing([vec![real("a-key")], vec![]], &["a-key"]).await;
    setup.one.set_ready(false);
    setup.two.set_ready(false);
    tokio::time::advance(Duration::from_secs(1_000)).await;
    let before = setup.jwks().await;
    assert_eq!(kids(&before), ["a-key"]);
    assert_eq!(before.headers["age"], "1000");
    let anew = Arc::new(setup.north_anew());
    setup.change(|snapshot| drop(snapshot.tenants.insert("north".into(), anew)));
    tokio::time::advance(Duration::from_secs(1_000)).await;
    let after = setup.jwks().await;
    assert_eq!((&after.body, &after.headers["age"]), (&before.body, &"2000".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn one_rendering_serves_everybody_for_a_second() {
    let setup = Setup::publishing([vec![real("a-key")], vec![]], &["a-key"]).await;
    assert_eq!(kids(&setup.jwks().await), ["a-key"]);
    setup.change(|snapshot| snapshot.publish.jwks = vec![of("north", "a-key"), of("south", "missing")]);
    assert_eq!(setup.jwks().await.headers["cache-control"], "public, max-age=300", "as it was a moment ago");
    tokio::time::advance(crate::published::RENEWAL).await;
    let got = setup.jwks().await;
    assert_eq!(kids(&got), ["a-key"]);
    assert_eq!(got.headers["cache-control"], "public, max-age=0", "one of them is missing");
}

#[tokio::test]
async fn while_nothing_is_known_that_is_said_and_where_nothing_is_published_too() {
    let setup = setup().await;
    setup.jwks().await.is_problem(Code::NoSuchRoute);
    setup.change(|snapshot| snapshot.publish.jwks = vec![of("north", "unheard-of")]);
    let got = setup.jwks().await;
    got.is_problem(Code::NothingKnown);
    assert_eq!((&got.body["retry"], got.headers.contains_key("retry-after")), (&"here".into(), true));
    setup.send(Request::get("/v1/metadata/key-descriptors"), "").await.is_problem(Code::NoSuchRoute);
}
