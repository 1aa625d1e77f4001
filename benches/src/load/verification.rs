//! Whether what came are signatures: looked at when the clock has stopped, so that it costs the measurement nothing.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD};
use clap::ValueEnum;
use segl_hsm::verify::Verifier;
use segl_tests::{Result, documents};
use serde::Serialize;

use super::{Operation, Work, observations::Sample};
use crate::key::payload;

/// Most samples that are kept, so that a long run does not fill the memory.
const KEPT_MAX: usize = 4_000_000;

/// The same of documents, which are longer.
const DOCUMENTS_MAX: usize = 20_000;

/// One in so many of a sample.
const ONE_IN: u64 = 64;

/// Most assertions that are given to xmlsec1, each a process.
const ASSERTIONS_MAX: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verification {
    /// Every signature
    All,
    /// One in 64
    Sample,
    /// None
    Off,
}

impl Verification {
    /// Whether a signature of this number is kept, when so many are.
    pub(crate) fn keeps(self, operation: Operation, number: u64, kept: usize) -> bool {
        let most = match operation {
            Operation::Digest | Operation::Message => KEPT_MAX,
            Operation::Assertion | Operation::Jws => DOCUMENTS_MAX,
        };
        kept < most
            && match self {
                Verification::All => true,
                Verification::Sample => number.is_multiple_of(ONE_IN),
                Verification::Off => false,
            }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Verified {
    pub(crate) good: u64,
    pub(crate) wrong: u64,
    /// In words
    pub(crate) which: String,
}

impl Verified {
    /// Says that these signatures can not be verified, and why.
    pub(crate) fn not(why: &str) -> Verified {
        Verified { which: why.to_owned(), ..Verified::default() }
    }

    /// Verifies the samples with the public keys of the work's tasks.
    pub(crate) fn look_at(
        verification: Verification,
        work: &Work,
        spkis_der: &[Vec<u8>],
        samples: &[Sample],
        signatures: u64,
    ) -> Result<Verified> {
        let mut verified = Verified::default();
        let verifiers: Vec<Verifier> = spkis_der.iter().map(|spki| Verifier::new(spki)).collect::<Result<_, _>>()?;
        let mut assertions = 0;
        for sample in samples {
            let task = &work.tasks[sample.task];
            let good = match task.operation {
                Operation::Assertion if assertions == ASSERTIONS_MAX => continue,
                Operation::Assertion => {
                    assertions += 1;
                    documents::xmlsec1(&sample.signature, &spkis_der[sample.task]).is_ok()
                }
                Operation::Jws => jws(&verifiers[sample.task], task.algorithm, &sample.signature).is_some(),
                Operation::Digest | Operation::Message => {
                    let input = task.payload().input(&payload(sample.number));
                    verifiers[sample.task].verify(task.algorithm, &input, &sample.signature).is_ok()
                }
            };
            *(if good { &mut verified.good } else { &mut verified.wrong }) += 1;
        }
        let looked_at = verified.good + verified.wrong;
        verified.which = match verification {
            Verification::Off => "none verified".to_owned(),
            _ if looked_at == signatures => format!("all {looked_at} verified"),
            _ => format!("{looked_at} of {signatures} verified"),
        };
        if assertions > 0 {
            verified.which += &format!(" ({assertions} assertions by xmlsec1)");
        }
        Ok(verified)
    }
}

/// A compact JWS (RFC 7515 §7.1).
fn jws(verifier: &Verifier, algorithm: segl_hsm::Algorithm, compact: &[u8]) -> Option<()> {
    let dot = compact.iter().rposition(|byte| *byte == b'.')?;
    let signature = URL_SAFE_NO_PAD.decode(&compact[dot + 1..]).ok()?;
    verifier.verify(algorithm, &segl_hsm::Input::message(&compact[..dot]), &signature).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_one_in_64_and_bounded() {
        let keeps = |number| Verification::Sample.keeps(Operation::Digest, number, 0);
        assert_eq!((0..6400).filter(|number| keeps(*number)).count(), 100);
        assert!(!Verification::All.keeps(Operation::Digest, 0, KEPT_MAX));
        assert!(!Verification::All.keeps(Operation::Assertion, 0, DOCUMENTS_MAX));
        assert!(!Verification::Off.keeps(Operation::Digest, 0, 0));
    }
}
