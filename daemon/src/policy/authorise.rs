//! The decision on one request. On the way of every signature: one look-up, a few comparisons, no allocation beyond
//! the message's own bytes.

use std::sync::Arc;

use segl_hsm::{Algorithm, Input, InputError};
use segl_wire::{Class, Payload};

use super::{KeyEntry, Policy, Tenant, algorithm_bit, class_bit, operation_bit};
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
    key: Arc<KeyEntry>,
    operation: Operation,
    algorithm: Algorithm,
    class: Class,
    message_max: u32,
}

/// One signature that may be made. It exists only where the policy has said so.
#[derive(Debug)]
pub struct Authorised {
    permit: Permit,
    input: Input,
}

/// What an [`Authorised`] is made of, for the one who carries it out.
#[derive(Debug)]
pub struct Parts {
    /// For whom
    pub tenant: Arc<Tenant>,
    /// With which key
    pub key: Arc<KeyEntry>,
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
    /// Its certificate has not begun
    #[error("the key's certificate is not valid yet")]
    KeyNotYetValid,
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
        let purpose = grant.key.purpose;
        if !purpose.allows(request.operation) {
            return Err(Denied::PurposeViolated { operation: request.operation, purpose });
        }
        if grant.operations & operation_bit(request.operation) == 0 {
            return Err(Denied::NotGranted);
        }
        let algorithm = request.algorithm.parse().map_err(|_| Denied::AlgorithmNotAllowed)?;
        if grant.algorithms & algorithm_bit(algorithm) == 0 {
            return Err(Denied::AlgorithmNotAllowed);
        }
        if grant.classes & class_bit(request.class) == 0 {
            return Err(Denied::ClassNotAllowed);
        }
        match grant.key.validity(request.now_unix_s) {
            Validity::Valid => {}
            Validity::Expired => return Err(Denied::KeyExpired),
            Validity::NotYet => return Err(Denied::KeyNotYetValid),
        }
        Ok(Permit {
            tenant: Arc::clone(tenant),
            key: Arc::clone(&grant.key),
            operation: request.operation,
            algorithm,
            class: request.class,
            message_max: self.message_max,
        })
    }
}

impl Permit {
    /// Decides on one signature.
    pub fn sign(&self, payload: &Payload<'_>) -> Result<Authorised, Denied> {
        let input = match payload {
            Payload::Digest(digest) => Input::digest(self.algorithm, digest)?,
            Payload::Message(message) if message.len() as u64 > u64::from(self.message_max) => {
                return Err(Denied::MessageTooLong { got: message.len(), max: self.message_max });
            }
            Payload::Message(message) => Input::message(message),
        };
        Ok(Authorised { permit: self.clone(), input })
    }

    /// With which key.
    pub fn key(&self) -> &Arc<KeyEntry> {
        &self.key
    }

    /// How.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Authorised {
    /// For whom.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.permit.tenant
    }

    /// With which key.
    pub fn key(&self) -> &Arc<KeyEntry> {
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

    /// How urgently.
    pub fn class(&self) -> Class {
        self.permit.class
    }

    /// Taken apart, to be carried out.
    pub fn into_parts(self) -> Parts {
        let Permit { tenant, key, operation, algorithm, class, message_max: _ } = self.permit;
        Parts { tenant, key, operation, algorithm, input: self.input, class }
    }
}
