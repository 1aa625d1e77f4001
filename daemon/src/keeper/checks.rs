//! What came of a self-test, and what it casts doubt on when it failed.

use metrics::counter;
use segl_audit::{OutcomeResult, Settled};
use segl_hsm::{Rung, Signed, verify::verify};
use segl_pool::{Completion, Failure};

use super::{
    WRONG_SIGNATURES,
    trials::{Question, RECORD_TIMEOUT, Test, Trials},
};
use crate::signing::SelfTestOrder;

/// What a failed self-test casts doubt on.
pub(super) enum Doubt {
    /// The key on that token: it is not used there until it passes
    Key(String),
    /// Only the moment: session, load, disk. The pool deals with those for every request
    Circumstances(String),
    /// The whole token failed: whether by this key's doing, time tells
    Token(String),
}

impl Trials {
    /// Whether the key is well.
    pub(super) fn check(&self, test: &Test, completion: &Completion) -> Result<(), Doubt> {
        match &test.question {
            Question::Signature { intent, order } => self.check_signature(test, *intent, order, completion),
            Question::Presence => completion.result.as_ref().map(drop).map_err(doubt),
        }
    }

    /// Whether the signature is right; it is destroyed in any case.
    fn check_signature(
        &self,
        test: &Test,
        intent: u64,
        order: &SelfTestOrder,
        completion: &Completion,
    ) -> Result<(), Doubt> {
        let token = &self.shared.token_names[usize::from(test.token)];
        let settled = self.shared.desk.wait_until_settled(intent, RECORD_TIMEOUT);
        let outcome = match &completion.result {
            Err(failure) => Err(doubt(failure)),
            Ok(_) if settled != Settled::Durable => Err(Doubt::Circumstances("its intent was not recorded".into())),
            Ok(signature) => match test.card.shown() {
                Some(shown) => {
                    verify(&shown.info.spki_der, order.algorithm, order.message(), signature).map_err(|_| {
                        counter!(WRONG_SIGNATURES, "token" => token.to_string()).increment(1);
                        Doubt::Key("it made a WRONG signature".into())
                    })
                }
                None => Err(Doubt::Circumstances("no token has shown its public key".into())),
            },
        };
        let reason = match &outcome {
            Ok(()) => "self-test passed".to_owned(),
            Err(Doubt::Key(why) | Doubt::Circumstances(why) | Doubt::Token(why)) => format!("self-test failed: {why}"),
        };
        let result = || match completion.verdict() {
            None => OutcomeResult::Discarded { reason: reason.into(), signature_sha256: None },
            Some(verdict) if verdict.signed == Signed::Unknown => OutcomeResult::Unknown { code: reason.into() },
            Some(_) => OutcomeResult::NotSigned { code: reason.into() },
        };
        self.shared.desk.close(intent, result, Some(token), completion);
        outcome
    }
}

fn doubt(failure: &Failure) -> Doubt {
    match failure {
        Failure::Token(error) if error.verdict().rung == Rung::None => Doubt::Key(error.to_string()),
        Failure::Token(error) if matches!(error.verdict().rung, Rung::Token | Rung::Module) => {
            Doubt::Token(error.to_string())
        }
        other => Doubt::Circumstances(other.to_string()),
    }
}
