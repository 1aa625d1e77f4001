//! An HTTPS client that trusts one authority: JSON in, JSON out.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::Value;
use ureq::{
    Agent,
    tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig},
};

use crate::{Result, pki::Identity};

/// Whole requests, connecting included: long after the server's own deadlines.
const LIMIT: Duration = Duration::from_secs(30);

/// A client of one address.
pub struct Http {
    agent: Agent,
    base: String,
    bearer: Option<String>,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's status code
    pub status: u16,
    /// The body's type
    pub content_type: String,
    /// The body, or `null` when it is no JSON
    pub json: Value,
    /// The body as it came
    pub text: String,
}

impl Http {
    /// Of `https://...` with this authority and, if given, a client's certificate; or of `http://...`.
    pub fn new(base: &str, authority_pem: &str, identity: Option<&Identity>) -> Result<Self> {
        let mut tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&[Certificate::from_pem(authority_pem.as_bytes())?]));
        if let Some(identity) = identity {
            let chain = [Certificate::from_pem(identity.certificate_pem.as_bytes())?];
            let key = PrivateKey::from_pem(identity.key_pem.as_bytes())?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .timeout_global(Some(LIMIT))
            .build()
            .new_agent();
        Ok(Http { agent, base: base.trim_end_matches('/').to_owned(), bearer: None })
    }

    /// Sends this bearer token (RFC 6750) with every request.
    pub fn with_bearer(mut self, token: &str) -> Self {
        self.bearer = Some(format!("Bearer {token}"));
        self
    }

    /// GET
    pub fn get(&self, path: &str) -> Result<Answer> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        answer(request.call()?)
    }

    /// The sum of a metric's samples whose lines contain these labels, from `/metrics`; nought when there is none.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = self.get("/metrics")?.text;
        let mine = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        Ok(text.lines().filter(mine).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// POST with a JSON body and further headers.
    pub fn post(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Result<Answer> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send_json(body)?)
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("base", &self.base).finish_non_exhaustive()
    }
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Result<Answer> {
    let status = response.status().as_u16();
    let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    let text = response.body_mut().read_to_string()?;
    Ok(Answer { status, content_type, json: serde_json::from_str(&text).unwrap_or(Value::Null), text })
}
