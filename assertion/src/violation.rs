//! What a policy has to say against a document, one entry for each rule that is broken.

/// Most violations told at once. A document with more is told that there are more.
pub const VIOLATIONS_MAX: usize = 32;

/// Longest place in bytes; a longer one is cut, since a part of it may be the caller's text.
pub const PLACE_MAX: usize = 256;

/// One broken rule. Neither `place` nor `text` repeats a value of the document: it says what was expected, since a
/// refusal ends in logs where no name and no CPR number may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule's name: lower case with hyphens, stable between versions
    pub rule: &'static str,
    /// Where: an XPath in an XML document; in a JWS a JSON pointer (RFC 6901) into
    /// `{"header": ..., "payload": ...}`. Empty for the document as a whole.
    pub place: String,
    /// A sentence: what was expected
    pub text: String,
}

/// Why a document is not signed: always the caller's fault, and the same again when asked again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not well-formed, or beyond a limit, or written in a way that readers disagree on
    #[error("the document is malformed: {} at `{}`: {}", .0.rule, .0.place, .0.text)]
    Malformed(Violation),
    /// It is well-formed, and the policy denies it: the violations, one at least and [`VIOLATIONS_MAX`] at most
    #[error("the policy refuses the document: {} violations, the first is {} at `{}`", .0.len(), .0[0].rule, .0[0].place)]
    Policy(Vec<Violation>),
}

/// Collects violations up to [`VIOLATIONS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Violations {
    told: Vec<Violation>,
}

impl Violations {
    /// Adds one. A place costs a walk through the document, so it is asked for only while there is room.
    pub(crate) fn add<P: Into<String>>(
        &mut self,
        rule: &'static str,
        place: impl FnOnce() -> P,
        text: impl Into<String>,
    ) {
        match self.told.len() {
            n if n + 1 < VIOLATIONS_MAX => {
                self.told.push(Violation { rule, place: cut(place().into()), text: text.into() });
            }
            n if n < VIOLATIONS_MAX => self.told.push(Violation {
                rule: "more",
                place: String::new(),
                text: "there are more violations than are told".to_owned(),
            }),
            _ => {}
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Violation> {
        self.told
    }
}

/// Cuts a place to [`PLACE_MAX`] bytes at a character's boundary.
pub(crate) fn cut(mut place: String) -> String {
    if place.len() > PLACE_MAX {
        place.truncate(place.floor_char_boundary(PLACE_MAX - 3));
        place.push_str("...");
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_bounded_and_the_last_says_that_there_are_more() {
        let mut violations = Violations::default();
        for _ in 0..100 {
            violations.add("rule", || "ø".repeat(PLACE_MAX), "text");
        }
        let told = violations.into_vec();
        assert_eq!(told.len(), VIOLATIONS_MAX);
        assert_eq!(told.last().unwrap().rule, "more");
        assert!(told.iter().all(|violation| violation.place.len() <= PLACE_MAX));
    }
}
