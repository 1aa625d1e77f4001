//! The decision on one request. On the way of every signature: one look-up, a few comparisons, no allocation beyond
//! the message's own bytes.

use std::sync::Arc;

use segl_hsm::{Algorithm, Input, InputError};
use segl_wire::{Class, Payload};

use super::{
    KeyEntry, Policy, Rules, Tenant, algorithm_bit, class_bit,
    document::{jws_algorithm, xml_algorithm},
    operation_bit,
};
use crate::{
    certificate::Validity,
    config::{Operation, Purpose},
};

/// What a client asks for, as it came over the wire.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What shall be done
    pub operation: Operation,
    /// With which key
    pub key: &'a str,
    /// With which algorithm
    pub algorithm: &'a str,
    /// How urgently
    pub class: Class,
    /// When
    pub now_unix_s: i64,
}

/// A request that is allowed, but for what is to be signed: all items of a batch share it.
#[derive(Clone, Debug)]
pub struct Permit {
    tenant: Arc<Tenant>,
    pub(super) key: Arc<KeyEntry>,
    operation: Operation,
    pub(super) algorithm: Algorithm,
    class: Class,
    message_max: u32,
    pub(super) rules: Rules,
    pub(super) now_unix_s: i64,
}

/// One signature that may be made. It exists only where the policy has said so.
#[derive(Debug)]
pub struct Authorised<'p> {
    pub(super) permit: &'p Permit,
    pub(super) input: Input,
    /// The document's ID, when it is one and has one
    pub(super) document: Option<Box<str>>,
}

/// What an [`Authorised`] is made of, for the one who carries it out.
#[derive(Debug)]
pub struct Parts<'p> {
    /// For whom
    pub tenant: &'p Arc<Tenant>,
    /// With which key
    pub key: &'p Arc<KeyEntry>,
    /// What it was allowed as
    pub operation: Operation,
    /// How
    pub algorithm: Algorithm,
    /// What
    pub input: Input,
    /// How urgently
    pub class: Class,
}

/// Why not. Texts are for the client and say nothing about what is not its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// There is no such key, or not for this tenant and operation: the client can not tell which
    #[error("no such key, or not granted: see ListKeys for what this client may use")]
    NotGranted,
    /// The key is for something else
    #[error("the key is for {purpose}: the operation {operation} is not for it")]
    PurposeViolated {
        /// What was asked
        operation: Operation,
        /// What it is for
        purpose: Purpose,
    },
    /// No such algorithm, or not for this key and tenant
    #[error("the algorithm is not among those granted for this key: see ListKeys")]
    AlgorithmNotAllowed,
    /// The class is not granted
    #[error("the class is not granted for this key")]
    ClassNotAllowed,
    /// Its certificate has ended
    #[error("the key's certificate has expired: it signs again when the operator has put a new one there")]
    KeyExpired,
    /// Its first version has not begun
    #[error("no version of the key signs yet: see ListKeys for when the first one does")]
    KeyNotYetActive,
    /// Its certificate has not begun
    #[error("the key's certificate is not valid yet")]
    KeyNotYetValid,
    /// The document is not one that may be signed
    #[error(transparent)]
    Document(segl_assertion::Refusal),
    /// The signature shall say what is not there
    #[error("the key has no certificate for the signature to carry: ask for key_info 0")]
    NoCertificate,
    /// What is to be signed does not go with the algorithm
    #[error(transparent)]
    Input(#[from] InputError),
    /// The message is longer than announced
    #[error("the message has {got} bytes, at most {max} are taken")]
    MessageTooLong {
        /// Its length
        got: usize,
        /// What was announced
        max: u32,
    },
}

impl Policy {
    /// Decides on all that does not depend on what is to be signed. A tenant of another policy than this may do
    /// nothing: its client is identified anew first.
    pub fn permit(&self, tenant: &Arc<Tenant>, request: &Request<'_>) -> Result<Permit, Denied> {
        let of_this_policy = tenant.generation == self.generation;
        let grant = tenant.grants.get(request.key).filter(|_| of_this_policy).ok_or(Denied::NotGranted)?;
        let purpose = grant.key.purpose();
        if !purpose.allows(request.operation) {
            return Err(Denied::PurposeViolated { operation: request.operation, purpose });
        }
        if grant.operations & operation_bit(request.operation) == 0 {
            return Err(Denied::NotGranted);
        }
        let algorithm = algorithm(request).ok_or(Denied::AlgorithmNotAllowed)?;
        if grant.algorithms & algorithm_bit(algorithm) == 0 {
            return Err(Denied::AlgorithmNotAllowed);
        }
        if grant.classes & class_bit(request.class) == 0 {
            return Err(Denied::ClassNotAllowed);
        }
        let key = grant.key.active(request.now_unix_s).ok_or(Denied::KeyNotYetActive)?;
        match key.validity(request.now_unix_s) {
            Validity::Valid => {}
            Validity::Expired => return Err(Denied::KeyExpired),
            Validity::NotYet => return Err(Denied::KeyNotYetValid),
        }
        Ok(Permit {
            tenant: Arc::clone(tenant),
            key: Arc::clone(key),
            operation: request.operation,
            algorithm,
            class: request.class,
            message_max: self.message_max,
            rules: grant.rules.clone(),
            now_unix_s: request.now_unix_s,
        })
    }
}

/// By the name that the operation's own specification gives it.
fn algorithm(request: &Request<'_>) -> Option<Algorithm> {
    match request.operation {
        Operation::Sign => request.algorithm.parse().ok(),
        Operation::SignAssertion => xml_algorithm(request.algorithm),
        Operation::SignJws => jws_algorithm(request.algorithm),
    }
}

impl Permit {
    /// Decides on one signature of what Segl does not look into.
    pub fn sign(&self, payload: &Payload<'_>) -> Result<Authorised<'_>, Denied> {
        // What is asked as another operation is looked into first.
        if self.operation != Operation::Sign {
            return Err(Denied::PurposeViolated { operation: Operation::Sign, purpose: self.key.purpose });
        }
        let input = match payload {
            Payload::Digest(digest) => Input::digest(self.algorithm, digest)?,
            Payload::Message(message) if message.len() as u64 > u64::from(self.message_max) => {
                return Err(Denied::MessageTooLong { got: message.len(), max: self.message_max });
            }
            Payload::Message(message) => Input::message(message),
        };
        Ok(Authorised { permit: self, input, document: None })
    }

    /// With which key: the version that is active.
    pub fn key(&self) -> &Arc<KeyEntry> {
        &self.key
    }

    /// How.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// As what.
    pub fn operation(&self) -> Operation {
        self.operation
    }
}

impl<'p> Authorised<'p> {
    /// For whom.
    pub fn tenant(&self) -> &'p Arc<Tenant> {
        &self.permit.tenant
    }

    /// With which key.
    pub fn key(&self) -> &'p Arc<KeyEntry> {
        &self.permit.key
    }

    /// What it was allowed as.
    pub fn operation(&self) -> Operation {
        self.permit.operation
    }

    /// How.
    pub fn algorithm(&self) -> Algorithm {
        self.permit.algorithm
    }

    /// What.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// The ID of the document that this is the signature of, when it is one and has one.
    pub fn document(&self) -> Option<&str> {
        self.document.as_deref()
    }

    /// How urgently.
    pub fn class(&self) -> Class {
        self.permit.class
    }

    /// Taken apart, to be carried out.
    pub fn into_parts(self) -> Parts<'p> {
        let Permit { tenant, key, operation, algorithm, class, .. } = self.permit;
        Parts { tenant, key, operation: *operation, algorithm: *algorithm, input: self.input, class: *class }
    }
}
