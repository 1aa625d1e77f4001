//! What can be asked for, and what one has to be allowed for it.

use serde::{Deserialize, Serialize};

use super::{REQUEST_MAX, Reason, Refused};

/// A request, as a line of JSON: `{"command":"token-drain","token":"hsm-a"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", rename_all_fields = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Everything there is to see
    Status {},
    /// Read the configuration again
    Reload {
        /// Answer when it is taken or refused, not when it is asked for
        #[serde(default)]
        wait: bool,
    },
    /// Give the token no more work, finish what it has, close its sessions
    TokenDrain {
        /// Its name
        token: String,
        /// Also where keys can sign nowhere else then
        #[serde(default)]
        force: bool,
    },
    /// Take a drained token in again
    TokenResume {
        /// Its name
        token: String,
    },
    /// Begin the token's module anew (C_Finalize, C_Initialize)
    TokenReinit {
        /// Its name
        token: String,
    },
    /// Try the PIN that the token refused once more
    PinRetry {
        /// The token's name
        token: String,
    },
    /// Test keys now, wherever they are held
    Selftest {
        /// A key's name, or `NAME/VERSION`; all keys where it is left out
        #[serde(default)]
        key: Option<String>,
    },
    /// Tell how much is logged, or change it
    LogLevel {
        /// `error`, `warn`, `info`, `debug` or `trace`
        #[serde(default)]
        level: Option<String>,
    },
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Ask how things are
    Look,
    /// Change something, or have a key used
    Change,
}

impl Request {
    /// Reads a line, with or without its end.
    ///
    /// # Errors
    /// What is wrong with it, in an answer's words.
    pub fn parse(line: &[u8]) -> Result<Request, Refused> {
        let malformed = |text: String| {
            let hint = "segl and segld should be of one version: compare `segl --version` and `segld --version`";
            Refused::new(Reason::Malformed, text, hint)
        };
        if line.len() > REQUEST_MAX {
            return Err(malformed(format!("a request has at most {REQUEST_MAX} bytes")));
        }
        serde_json::from_slice(line).map_err(|error| malformed(format!("that is no request: {error}")))
    }

    /// What it takes.
    pub fn access(&self) -> Access {
        match self {
            Request::Status {} | Request::LogLevel { level: None } => Access::Look,
            _ => Access::Change,
        }
    }

    /// As an operator would type it; so it stands in the journal.
    pub fn command_line(&self) -> String {
        match self {
            Request::Status {} => "status".into(),
            Request::Reload { wait: true } => "reload --wait".into(),
            Request::Reload { wait: false } => "reload".into(),
            Request::TokenDrain { token, force: true } => format!("token drain --force {token}"),
            Request::TokenDrain { token, force: false } => format!("token drain {token}"),
            Request::TokenResume { token } => format!("token resume {token}"),
            Request::TokenReinit { token } => format!("token reinit {token}"),
            Request::PinRetry { token } => format!("pin retry {token}"),
            Request::Selftest { key: Some(key) } => format!("selftest {key}"),
            Request::Selftest { key: None } => "selftest".into(),
            Request::LogLevel { level: Some(level) } => format!("log-level {level}"),
            Request::LogLevel { level: None } => "log-level".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_what_it_says_and_nothing_else() {
        let parsed = Request::parse(b"{\"command\":\"token-drain\",\"token\":\"hsm-a\"}\n").unwrap();
        assert_eq!(parsed, Request::TokenDrain { token: "hsm-a".into(), force: false });
        for wrong in [
            &b""[..],
            b"status",
            b"{}",
            b"{\"command\":\"sign\"}",
            b"{\"command\":\"status\",\"token\":\"hsm-a\"}",
            b"{\"command\":\"token-drain\"}",
            b"{\"command\":\"token-drain\",\"token\":\"a\",\"token\":\"b\"}",
            b"{\"command\":\"token-drain\",\"token\":\"a\",\"forced\":true}",
            b"{\"command\":\"status\"}{\"command\":\"status\"}",
            b"{\"command\":\"status\",\"command\":\"reload\"}",
        ] {
            let refused = Request::parse(wrong).unwrap_err();
            assert_eq!(refused.reason, Reason::Malformed, "{}", String::from_utf8_lossy(wrong));
        }
        assert!(Request::parse(&[b' '; REQUEST_MAX + 1]).unwrap_err().text.contains("at most 4096 bytes"));
    }

    #[test]
    fn only_looking_is_free_for_those_who_may_only_look() {
        let look = [Request::Status {}, Request::LogLevel { level: None }];
        assert!(look.iter().all(|request| request.access() == Access::Look));
        let name = || "x".to_owned();
        let change = [
            Request::Reload { wait: true },
            Request::TokenDrain { token: name(), force: true },
            Request::TokenResume { token: name() },
            Request::TokenReinit { token: name() },
            Request::PinRetry { token: name() },
            Request::Selftest { key: None },
            Request::LogLevel { level: Some(name()) },
        ];
        assert!(change.iter().all(|request| request.access() == Access::Change));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..REQUEST_MAX + 10)) {
            let _ = Request::parse(&bytes);
        }

        #[test]
        fn what_is_sent_is_what_is_read(token in ".{0,60}", force in any::<bool>(), key in prop::option::of(".{0,60}")) {
            for request in [Request::TokenDrain { token: token.clone(), force }, Request::Selftest { key: key.clone() }] {
                let line = serde_json::to_vec(&request).unwrap();
                prop_assert!(!line.contains(&b'\n'));
                prop_assert_eq!(Request::parse(&line).unwrap(), request);
            }
        }
    }
}
