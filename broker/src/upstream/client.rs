//! The real road: segl-wire's client behind [`Segld`].

use std::{fmt, sync::Arc, time::Duration};

use segl_wire::{
    self as wire, SignedState,
    client::{self, ClientConfig, ClientError, Status},
};

use super::segld::{Answer, Failure, Segld, Signature, Wait};
use crate::problem::Code;

/// How long an answer may be on its way beyond the request's own timeout: `segld` answers at the timeout itself.
const GRACE: Duration = Duration::from_millis(500);

/// A connection, kept up, of one tenant to one `segld`.
pub struct Client {
    address: String,
    client: client::Client,
}

impl Client {
    /// Starts connecting; inside a Tokio runtime only.
    pub fn start(address: &str, server_name: &str, tls: Arc<rustls::ClientConfig>, connect_timeout: Duration) -> Self {
        let mut config = ClientConfig::new(address, server_name, tls);
        config.connect_timeout = connect_timeout;
        config.grace = GRACE;
        Self { address: address.to_owned(), client: client::Client::start(config) }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Segld for Client {
    fn is_ready(&self) -> bool {
        matches!(self.client.status(), Status::Ready)
    }

    fn ready(&self) -> Wait<'_> {
        Box::pin(self.client.ready())
    }

    fn state(&self) -> String {
        match self.client.status() {
            Status::Connecting => "connecting".into(),
            Status::Ready => "ready".into(),
            Status::Draining => "draining".into(),
            Status::Down { error, .. } => format!("down: {error}"),
        }
    }

    fn in_flight(&self) -> usize {
        self.client.in_flight()
    }

    fn capacity(&self) -> usize {
        self.client.hello().map_or(0, |hello| hello.in_flight_max as usize)
    }

    fn sign<'a>(&'a self, request: &'a wire::Sign<'a>) -> Answer<'a, Signature> {
        Box::pin(async { self.client.sign(request).await.map(Signature::from).map_err(Failure::from) })
    }

    fn sign_assertion<'a>(&'a self, request: &'a wire::SignAssertion<'a>) -> Answer<'a, Signature> {
        Box::pin(async { self.client.sign_assertion(request).await.map(Signature::from).map_err(Failure::from) })
    }

    fn sign_jws<'a>(&'a self, request: &'a wire::SignJws<'a>) -> Answer<'a, Signature> {
        Box::pin(async {
            let signed = self.client.sign_jws(request).await.map_err(Failure::from)?;
            let version = signed.version.map(|version| version.into_owned());
            Ok(Signature { bytes: signed.compact.into_owned(), timings: signed.timings, version, offset: None })
        })
    }

    fn sign_batch<'a>(&'a self, request: &'a wire::SignBatch<'a>) -> Answer<'a, Vec<Result<Signature, Failure>>> {
        Box::pin(async {
            let items = self.client.sign_batch(request).await.map_err(Failure::from)?;
            Ok(items.into_iter().map(|item| item.map(Signature::from).map_err(Failure::from)).collect())
        })
    }

    fn sign_assertion_batch<'a>(
        &'a self,
        request: &'a wire::SignAssertionBatch<'a>,
    ) -> Answer<'a, Vec<Result<Signature, Failure>>> {
        Box::pin(async {
            let items = self.client.sign_assertion_batch(request).await.map_err(Failure::from)?;
            Ok(items.into_iter().map(|item| item.map(Signature::from).map_err(Failure::from)).collect())
        })
    }

    fn list_keys(&self, timeout: Duration) -> Answer<'_, Vec<wire::Key<'static>>> {
        Box::pin(async move {
            let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
            let meta = wire::Meta { timeout_ms, class: wire::Class::default(), context: wire::Context::default() };
            let keys = self.client.list_keys(&wire::ListKeys { meta }).await?;
            Ok(keys.keys)
        })
    }
}

impl From<client::Signature> for Signature {
    fn from(signature: client::Signature) -> Self {
        Self { bytes: signature.bytes, timings: signature.timings, version: signature.version, offset: None }
    }
}

impl From<wire::SignedAssertion<'_>> for Signature {
    fn from(signed: wire::SignedAssertion<'_>) -> Self {
        let version = signed.version.map(|version| version.into_owned());
        Self { bytes: signed.xml.into_owned(), timings: signed.timings, version, offset: signed.offset }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(error) => error.into(),
            ClientError::NotSent { cause } => Failure::not_sent(format!("segld was not reached: {cause}")),
            ClientError::TimedOut { signed: SignedState::No } => Failure {
                code: Code::Expired,
                ..Failure::not_sent("the deadline passed before segld took the request")
            },
            ClientError::TimedOut { signed: SignedState::Unknown } => {
                Failure::unanswered(Code::AnswerTimeout, "the deadline passed and segld had not answered")
            }
            ClientError::Lost { signed: SignedState::Unknown, cause, .. } => {
                Failure::unanswered(Code::AnswerLost, format!("the connection to segld ended: {cause}"))
            }
            ClientError::Lost { signed: SignedState::No, cause, .. } => {
                Failure::not_sent(format!("the connection to segld ended: {cause}"))
            }
        }
    }
}
