//! Messages that outlive the frame they came in.

use std::borrow::Cow;

use crate::{
    BatchItem, Context, GoAway, Hello, Key, KeyVersion, Keys, ListKeys, Meta, Payload, Ping, Sign, SignBatch, Signed,
    SignedBatch,
};

fn own<T: ToOwned + ?Sized + 'static>(value: Cow<'_, T>) -> Cow<'static, T> {
    Cow::Owned(value.into_owned())
}

impl Context<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> Context<'static> {
        Context { reference: self.reference.map(own), on_behalf_of: self.on_behalf_of.map(own), ..self }
    }
}

impl Meta<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> Meta<'static> {
        Meta { context: self.context.into_owned(), ..self }
    }
}

impl Payload<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> Payload<'static> {
        match self {
            Payload::Digest(digest) => Payload::Digest(own(digest)),
            Payload::Message(message) => Payload::Message(own(message)),
        }
    }
}

impl ListKeys<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> ListKeys<'static> {
        ListKeys { meta: self.meta.into_owned() }
    }
}

impl Sign<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> Sign<'static> {
        Sign {
            meta: self.meta.into_owned(),
            key: own(self.key),
            algorithm: own(self.algorithm),
            payload: self.payload.into_owned(),
            ..self
        }
    }
}

impl SignBatch<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> SignBatch<'static> {
        SignBatch {
            meta: self.meta.into_owned(),
            key: own(self.key),
            algorithm: own(self.algorithm),
            items: self.items.into_iter().map(BatchItem::into_owned).collect(),
            ..self
        }
    }
}

impl BatchItem<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> BatchItem<'static> {
        BatchItem { payload: self.payload.into_owned(), reference: self.reference.map(own) }
    }
}

impl Signed<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> Signed<'static> {
        Signed { signature: own(self.signature), version: self.version.map(own), ..self }
    }
}

impl SignedBatch<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> SignedBatch<'static> {
        let own = |item: Result<Signed<'_>, crate::Error<'_>>| match item {
            Ok(signed) => Ok(signed.into_owned()),
            Err(error) => Err(error.into_owned()),
        };
        SignedBatch { items: self.items.into_iter().map(own).collect() }
    }
}

impl Keys<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> Keys<'static> {
        Keys { keys: self.keys.into_iter().map(Key::into_owned).collect() }
    }
}

impl Key<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> Key<'static> {
        Key {
            name: own(self.name),
            purpose: own(self.purpose),
            key_type: own(self.key_type),
            algorithms: self.algorithms.into_iter().map(own).collect(),
            spki_der: own(self.spki_der),
            certificates: self.certificates.into_iter().map(own).collect(),
            versions: self.versions.into_iter().map(KeyVersion::into_owned).collect(),
            ..self
        }
    }
}

impl KeyVersion<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> KeyVersion<'static> {
        KeyVersion {
            name: own(self.name),
            spki_der: own(self.spki_der),
            certificates: self.certificates.into_iter().map(own).collect(),
            ..self
        }
    }
}

impl Hello<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> Hello<'static> {
        Hello { server: own(self.server), ..self }
    }
}

impl Ping<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> Ping<'static> {
        Ping { data: own(self.data) }
    }
}

impl GoAway<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> GoAway<'static> {
        GoAway { message: own(self.message), ..self }
    }
}
