//! ListKeys: what a client may use, as it stands at this moment.

use std::sync::Arc;

use segl_hsm::KeyType;
use segl_wire::{Code, Error, Key, KeyState, KeyVersion, Keys, Kind, ListKeys};

use super::{Asked, Refusable};
use crate::{
    certificate::Chain,
    clock,
    keybook::{Cards, Shown},
    policy::{GrantView, KeyEntry},
    reactor::Reactor,
};

impl Asked<'_> {
    pub(super) fn list_keys(&self) -> Refusable {
        let Asked { reactor, connection, client, snapshot, id, .. } = self;
        self.read::<ListKeys<'_>>()?;
        // The shortest question with the longest answer: it waits until the ones before have been read.
        if connection.pending_bytes() > reactor.limits().pending_output_max / 2 {
            let text = "read the answers that wait before you ask for the keys again";
            return Err(Error::of(Code::TooManyInFlight, text));
        }
        let now_unix_s = clock::unix_s();
        let mut granted: Vec<_> =
            client.tenant.grants().filter_map(|grant| Listed::new(grant, &snapshot.cards, reactor)).collect();
        granted.sort_by(|a, b| a.grant.key.name().cmp(b.grant.key.name()));
        let keys = granted.iter().map(|listed| listed.told(now_unix_s)).collect();
        connection.send(Kind::Keys, *id, &Keys { keys }, 0);
        reactor.meters().answered(&client.tenant, "list-keys");
        Ok(())
    }
}

/// A key that its user may see.
struct Listed<'g> {
    grant: GrantView<'g>,
    /// By the time from which they sign; at least one
    versions: Vec<Version<'g>>,
}

/// A version, and what the key book knows of it.
struct Version<'g> {
    entry: &'g KeyEntry,
    shown: Option<Arc<Shown>>,
    state: KeyState,
}

impl<'g> Listed<'g> {
    /// None where it is a key without a version.
    fn new(grant: GrantView<'g>, cards: &Cards, reactor: &Reactor) -> Option<Listed<'g>> {
        let version = |entry: &'g Arc<KeyEntry>| {
            let card = cards.get(&entry.id)?;
            Some(Version { entry, shown: card.shown(), state: card.state(|route| reactor.route_usable(route)) })
        };
        let versions: Vec<_> = grant.key.versions().iter().filter_map(version).collect();
        (!versions.is_empty()).then_some(Listed { grant, versions })
    }

    fn told(&self, now_unix_s: i64) -> Key<'_> {
        let active = self.grant.key.active(now_unix_s);
        let active = self.versions.iter().find(|version| active.is_some_and(|active| active.id == version.entry.id));
        // While no version signs, the first to come says what kind of key it will be.
        let (version, state) = match active {
            Some(version) => (version, version.state),
            None => (&self.versions[0], KeyState::Expired),
        };
        let key_type = version.key_type();
        Key {
            name: (&**self.grant.key.name()).into(),
            purpose: self.grant.key.purpose().name().into(),
            key_type: key_type.map_or("unknown", KeyType::name).into(),
            bits: key_type.map_or(0, KeyType::bits),
            algorithms: self.grant.algorithms().map(|algorithm| algorithm.name().into()).collect(),
            spki_der: version.spki_der().into(),
            certificates: version.certificates().collect(),
            state,
            versions: self.versions.iter().filter_map(|version| version.told(now_unix_s)).collect(),
        }
    }
}

impl Version<'_> {
    fn key_type(&self) -> Option<KeyType> {
        let certificate = self.entry.certificate.as_ref();
        self.shown.as_ref().map(|shown| shown.info.key_type).or(certificate.map(Chain::key_type))
    }

    fn spki_der(&self) -> &[u8] {
        self.shown.as_ref().map_or(&[], |shown| &shown.info.spki_der)
    }

    fn certificates(&self) -> impl Iterator<Item = std::borrow::Cow<'_, [u8]>> {
        let certificates = self.entry.certificate.as_ref().map_or(&[][..], Chain::certificates);
        certificates.iter().map(|der| der.as_ref().into())
    }

    /// None for what is the key's only version.
    fn told(&self, now_unix_s: i64) -> Option<KeyVersion<'_>> {
        let term = self.entry.term.as_ref()?;
        Some(KeyVersion {
            name: (&*term.version).into(),
            phase: term.phase(now_unix_s),
            active_from_unix_s: u64::try_from(term.from_unix_s).unwrap_or_default(),
            spki_der: self.spki_der().into(),
            certificates: self.certificates().collect(),
            state: self.state,
        })
    }
}
