//! Patterns for audiences: a value as it stands, or everything below a prefix.

use std::fmt;

/// A value, or a prefix and `*`. Both are anchored at both ends and compared byte for byte, as the readers of an
/// audience do.
///
/// A star stands at the end only, right after a `/` or `:` that ends a part of the name, so that `https://sp.example/*`
/// is every address of that host and never `https://sp.example.evil.example/`. What is before it must name something:
/// an authority after `://`, and two parts of a URN.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: String,
    glob: bool,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Empty
    #[error("a pattern is not empty")]
    Empty,
    /// A star elsewhere than at the end
    #[error("a `*` stands at the end only")]
    StarInside,
    /// A star after something else than `/` or `:`, such as within a host's name
    #[error("a `*` stands after a `/` (or after a `:` in a URN), so that it extends no name")]
    StarInName,
    /// A star after so little that it would match nearly anything
    #[error("before a `*` stands an authority (`https://host/`) or two parts of a URN (`urn:dk:`)")]
    TooWide,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is empty or its star stands where it must not.
    pub fn new(pattern: &str) -> Result<Pattern, PatternError> {
        let Some(prefix) = pattern.strip_suffix('*') else {
            return match pattern {
                "" => Err(PatternError::Empty),
                text if text.contains('*') => Err(PatternError::StarInside),
                text => Ok(Pattern { text: text.to_owned(), glob: false }),
            };
        };
        if prefix.contains('*') {
            return Err(PatternError::StarInside);
        }
        match prefix.split_once("://") {
            Some((_, rest)) if !rest.is_empty() && !rest.ends_with('/') => return Err(PatternError::StarInName),
            Some((scheme, rest)) if scheme.is_empty() || rest.is_empty() || rest.starts_with('/') => {
                return Err(PatternError::TooWide);
            }
            Some(_) => {}
            None if !prefix.is_empty() && !prefix.ends_with(['/', ':']) => return Err(PatternError::StarInName),
            None => {
                let parts = prefix.split([':', '/']).filter(|part| !part.is_empty()).count();
                if parts < 2 || !prefix.starts_with("urn:") {
                    return Err(PatternError::TooWide);
                }
            }
        }
        Ok(Pattern { text: prefix.to_owned(), glob: true })
    }

    /// Whether a value is this, or lies below the prefix (and is longer than it).
    pub fn matches(&self, value: &str) -> bool {
        match self.glob {
            false => value == self.text,
            true => value.len() > self.text.len() && value.starts_with(&self.text),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str(if self.glob { "*" } else { "" })
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_matches_what_lies_below_and_nothing_beside() {
        let pattern = Pattern::new("https://sp.example/*").unwrap();
        assert!(pattern.matches("https://sp.example/saml"));
        for other in ["https://sp.example/", "https://sp.example", "https://sp.example.evil/", "xhttps://sp.example/a"]
        {
            assert!(!pattern.matches(other), "{other}");
        }
        assert!(Pattern::new("urn:dk:*").unwrap().matches("urn:dk:korsbaek"));
        assert!(Pattern::new("https://sp.example").unwrap().matches("https://sp.example"));
        assert!(!Pattern::new("https://sp.example").unwrap().matches("https://sp.example/"));
    }

    #[test]
    fn a_star_that_would_match_too_much_is_no_pattern() {
        for (pattern, error) in [
            ("", PatternError::Empty),
            ("*", PatternError::TooWide),
            ("https://*", PatternError::TooWide),
            ("https:*", PatternError::TooWide),
            ("https:///*", PatternError::TooWide),
            ("urn:*", PatternError::TooWide),
            ("/*", PatternError::TooWide),
            ("https://sp.example*", PatternError::StarInName),
            ("https://sp.example:*", PatternError::StarInName),
            ("urn:dk*", PatternError::StarInName),
            ("https://*.example/", PatternError::StarInside),
            ("https://*.example/*", PatternError::StarInside),
            ("https://sp.example/**", PatternError::StarInside),
        ] {
            assert_eq!(Pattern::new(pattern), Err(error), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn what_matches_begins_with_the_pattern_s_authority(host in "[a-z]{1,8}", value in "https://[a-z.:@/]{0,20}") {
            let pattern = Pattern::new(&format!("https://{host}/*")).unwrap();
            let authority = value["https://".len()..].split('/').next().unwrap();
            prop_assert!(!pattern.matches(&value) || authority == host);
        }
    }
}
