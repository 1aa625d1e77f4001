//! `[publish]` and `[[provider]]`: which keys the world is told of, and whom assertions may be encrypted for.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{At, read_name, read_path, reader::Section};

/// `[publish]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// How long others may keep what they fetched, from when `segld` said it
    pub max_age: Duration,
    /// Keys in `/.well-known/jwks.json`
    pub jwks: Vec<PublishedKey>,
    /// Keys in `/v1/metadata/key-descriptors`
    pub key_descriptors: Vec<PublishedKey>,
}

/// A key that the world is told of.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedKey {
    /// On whose road it is looked at
    pub tenant: At<String>,
    /// Its name
    pub key: String,
}

/// `[[provider]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// Its SAML metadata: one `md:EntityDescriptor`
    pub metadata: At<PathBuf>,
}

impl Publish {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let max_age = Duration::from_secs(section.number("max_age_s", 1..=86_400, 300));
        let mut keys = |list| section.sections(list).into_iter().filter_map(PublishedKey::read).collect();
        let (jwks, key_descriptors) = (keys("jwks"), keys("key_descriptors"));
        section.finish();
        Self { max_age, jwks, key_descriptors }
    }

    /// All of both lists.
    pub fn keys(&self) -> impl Iterator<Item = &PublishedKey> {
        self.jwks.iter().chain(&self.key_descriptors)
    }
}

impl PublishedKey {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let tenant = read_name(&mut section, "tenant", true);
        let key = section.required("key");
        section.finish();
        Some(Self { tenant: tenant?, key: key?.value })
    }
}

impl Provider {
    pub(super) fn read(mut section: Section<'_>, base: &Path) -> Option<Self> {
        section.demand("metadata");
        let metadata = read_path(&mut section, "metadata", base);
        section.finish();
        Some(Self { metadata: metadata? })
    }
}
