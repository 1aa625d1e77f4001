//! The next version of a key takes over while clients go on signing.

use std::{collections::BTreeMap, ops::RangeInclusive, rc::Rc};

use segl_wire::{KeyState, Keys, Kind, Signed, VersionPhase};

use super::{
    client::Client,
    stage::{Stage, on_epoll_with, sockets},
};
use crate::{
    clock,
    transport::{Epoll, Stream},
};

/// 2100-01-01
const SWITCH: i64 = 4_102_444_800;

const SEAL: &str = r#"
[[tenant.grant]]
key = "seal"

[[key]]
name = "seal"
purpose = "digest"
tokens = ["embedded"]
algorithms = ["ecdsa-p256-sha256"]
[[key.version]]
name = "first"
file = "seal-1.pem"
active_from = 2020-01-01T00:00:00Z
[[key.version]]
name = "second"
file = "seal-2.pem"
active_from = 2100-01-01T00:00:00Z
"#;

/// Which version answered which request.
type Answered = BTreeMap<u64, String>;

async fn say<S: Stream>(stage: &Stage, client: &mut Client<S>, ids: RangeInclusive<u64>) {
    ids.for_each(|id| client.say_sign(id, &stage.sign("seal")));
    client.flush().await.unwrap();
}

/// Takes in so many answers, each a signature that its version's public key accepts.
async fn hear<S: Stream>(stage: &Stage, client: &mut Client<S>, count: usize, answered: &mut Answered) {
    for _ in 0..count {
        let said = client.hear().await.unwrap();
        assert_eq!(said.kind, Kind::Signed, "no request is refused or lost");
        let signed = said.read::<Signed<'_>>();
        let version = signed.version.unwrap().into_owned();
        stage.verify(&format!("seal/{version}"), &signed.signature);
        assert!(answered.insert(said.id, version).is_none());
    }
}

/// The key's public key, and of each version the phase and public key.
async fn listed<S: Stream>(client: &mut Client<S>, id: u64) -> (Vec<u8>, Vec<(String, VersionPhase, Vec<u8>)>) {
    client.say_list_keys(id);
    client.flush().await.unwrap();
    let said = client.hear().await.unwrap();
    let keys = said.read::<Keys<'_>>();
    let seal = keys.keys.iter().find(|key| key.name == "seal").unwrap();
    assert_eq!(seal.state, KeyState::Usable);
    assert!(seal.versions.iter().all(|version| version.state == KeyState::Usable));
    assert!(keys.keys.iter().all(|key| key.name == "seal" || key.versions.is_empty()));
    let version = |of: &segl_wire::KeyVersion<'_>| (of.name.to_string(), of.phase, of.spki_der.to_vec());
    (seal.spki_der.to_vec(), seal.versions.iter().map(version).collect())
}

#[test]
fn under_load_the_next_version_takes_over_at_its_instant_and_no_request_is_lost() {
    const ROUND: u64 = 50;
    const ROUNDS: u64 = 20;
    on_epoll_with(SEAL, |stage: Rc<Stage>| async move {
        clock::set::set(SWITCH - 1);
        let (near, far) = sockets::<Epoll>();
        let mut client = stage.connect(near, far).await.unwrap();
        let mut answered = Answered::new();
        let mut before = 0;
        for round in 0..ROUNDS {
            // Half a round is in flight at any time.
            say(&stage, &mut client, round * ROUND + 1..=(round + 1) * ROUND).await;
            let heard = if round == 0 { ROUND / 2 } else { ROUND };
            hear(&stage, &mut client, heard as usize, &mut answered).await;
            if round == ROUNDS / 2 {
                assert!(answered.values().all(|version| version == "first"), "not a second too early");
                before = (round + 1) * ROUND;
                clock::set::set(SWITCH);
            }
        }
        hear(&stage, &mut client, ROUND as usize / 2, &mut answered).await;
        assert!(answered.keys().copied().eq(1..=ROUNDS * ROUND));
        assert!(answered.range(before + 1..).all(|(_, version)| version == "second"), "not a request too late");
        assert!(answered.values().is_sorted(), "in the order of the requests: {answered:?}");
        client.leave().await;
        stage.reactor_is_clean().await;
        let signed = answered.values().filter(|version| *version == "second").count();
        assert_eq!(stage.state_and_uses("seal/second"), (KeyState::Usable, signed), "the record names the version");
    });
}

#[test]
fn a_version_is_listed_before_its_time_and_after_it_and_used_in_it_only() {
    on_epoll_with(SEAL, |stage: Rc<Stage>| async move {
        let (near, far) = sockets::<Epoll>();
        clock::set::set(SWITCH - 1);
        assert_eq!(stage.state_and_uses("seal/first"), (KeyState::Usable, 1));
        assert_eq!(stage.state_and_uses("seal/second"), (KeyState::Usable, 0), "it was looked at only");
        let mut client = stage.connect(near, far).await.unwrap();
        let (key, versions) = listed(&mut client, 1).await;
        let [first, second] = <[_; 2]>::try_from(versions).unwrap();
        assert_eq!((&first.0[..], first.1, &key), ("first", VersionPhase::Active, &first.2));
        assert_eq!((&second.0[..], second.1), ("second", VersionPhase::Next));
        assert_ne!(first.2, second.2);
        clock::set::set(SWITCH);
        let (key, versions) = listed(&mut client, 2).await;
        assert_eq!(key, second.2);
        assert_eq!(versions[0], (first.0, VersionPhase::Former, first.2));
        assert_eq!(versions[1], (second.0, VersionPhase::Active, second.2));
        client.leave().await;
        stage.reactor_is_clean().await;
    });
}
