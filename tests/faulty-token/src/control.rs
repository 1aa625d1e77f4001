//! What a test may say to the module: one JSON document a line, answered by one line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Counts;

/// What an HSM is made of: the file `NAME.json` beside the module `NAME.so`, read when that is loaded. Its control socket
/// is `NAME.sock`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Configuration {
    /// Its tokens, one a slot
    pub tokens: Vec<TokenConfiguration>,
    /// Commands carried out before anything else: for faults that are there from the start
    #[serde(default)]
    pub commands: Vec<Command>,
}

/// A token. Commands name it by its serial number, since labels may be shared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenConfiguration {
    /// Its slot's number
    pub slot: u64,
    /// CK_TOKEN_INFO's label
    pub label: String,
    /// CK_TOKEN_INFO's serial number, no two alike in a module
    pub serial: String,
    /// The user's PIN
    pub pin: String,
    /// Wrong PINs in a row that lock it
    pub tries: u32,
    /// Where the keys' files are, mode 0700
    pub keys_directory: PathBuf,
    /// Its keys
    pub keys: Vec<KeyConfiguration>,
}

/// A private key. It shows its public half as CKA_PUBLIC_KEY_INFO, and there is no object for that half.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyConfiguration {
    /// CKA_LABEL, by which commands name it
    pub label: String,
    /// CKA_ID
    pub id: Vec<u8>,
    /// PKCS#8, PEM or DER, mode 0600
    pub file: String,
}

/// A command. `token` is a serial number; none means every token of the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Command {
    /// How long C_Sign takes
    Tempo {
        /// Which
        token: Option<String>,
        /// From now on
        tempo: Tempo,
    },
    /// Sessions the token gives; those that are open stay so
    Sessions {
        /// Which
        token: Option<String>,
        /// None: as many as are asked for
        max: Option<u64>,
        /// Whether CK_TOKEN_INFO tells
        announced: bool,
    },
    /// Sessions that nobody uses for so long are closed by the token
    IdleLimit {
        /// Which
        token: Option<String>,
        /// None: they stay
        limit_ms: Option<u64>,
    },
    /// One more fault, answered with its number. Of several that fit a call the oldest speaks, after all that hang
    Fault(Fault),
    /// Takes faults back; calls that hang go on hanging
    Clear {
        /// None: all of them
        fault: Option<u64>,
    },
    /// Lets the calls that hang go on; later ones hang again while their fault stands
    Release,
    /// Takes all faults and limits back, unlocks PINs, revives tokens and lets all calls go on. Slots, handles and
    /// tempo stay
    Heal,
    /// Somebody else logs the application out
    LogOut {
        /// Which
        token: Option<String>,
    },
    /// The next call that uses a session answers CKR_DEVICE_ERROR, all later ones CKR_SESSION_HANDLE_INVALID
    Die {
        /// Which
        token: Option<String>,
        /// Whether C_OpenSession goes on giving sessions, which are as dead; else it answers CKR_DEVICE_ERROR
        opens: bool,
        /// What ends it, besides [`Command::Heal`]
        until: Revives,
    },
    /// Takes the token out of its slot
    Remove {
        /// Which
        token: Option<String>,
    },
    /// Puts it back
    Insert {
        /// Which
        token: Option<String>,
        /// Into this slot; none: the one it was in
        slot: Option<u64>,
        /// When that shows
        seen: Seen,
    },
    /// The token starts anew: sessions and login are gone, session handles begin at 1 again, and object handles too,
    /// each naming the key after the one it named
    Restart {
        /// Which
        token: Option<String>,
    },
    /// Object handles change their meaning, each naming the key after the one it named, and nothing else shows it
    Reshuffle {
        /// Which
        token: Option<String>,
    },
    /// Another PIN, with all tries
    Pin {
        /// Which
        token: Option<String>,
        /// The PIN
        pin: String,
    },
    /// So many wrong PINs more, and it locks
    TriesLeft {
        /// Which
        token: Option<String>,
        /// Until a right one
        tries: u32,
    },
    /// What was done to the module so far
    Counts,
    /// Answers as [`Command::Counts`] once a count is that high
    Await {
        /// Its path within [`Counts`], as `calls/C_Sign` or `tokens/SERIAL/keys/LABEL/signed`
        count: String,
        /// This high
        at_least: u64,
        /// Refused after so long
        limit_ms: u64,
    },
}

/// What becomes of a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Done
    Done,
    /// Done; the fault's number
    Fault(u64),
    /// As asked for
    Counts(Box<Counts>),
    /// Not done, and why
    Refused(String),
}

/// How long C_Sign takes, simulated by sleeping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tempo {
    /// Shortest time, in microseconds
    pub base_us: u64,
    /// Up to so much more, evenly distributed
    pub spread_us: u64,
    /// One call in so many takes the tail's time on top; 0: none
    pub tail_one_in: u64,
    /// The tail's time
    pub tail_us: u64,
    /// Calls that are served at once, others queue inside in the order they came; 0: all
    pub parallel: u32,
}

/// A fault of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// The function
    pub call: Call,
    /// Only on this token; a call that concerns no token does not fit
    pub token: Option<String>,
    /// Only with this key; a call that concerns no key does not fit
    pub key: Option<String>,
    /// Which of the calls that fit
    pub when: When,
    /// What they do
    pub does: Does,
}

/// Which calls are hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// All of them
    Always,
    /// The first so many
    Times(u64),
    /// Each so-many-th: of 10 the tenth, the twentieth ...
    OneIn(u64),
}

/// What a call that is hit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Does {
    /// Answers with this CKR and does nothing
    Answer(u64),
    /// Does everything, then answers with this CKR as if nothing had come of it
    AnswerAfter(u64),
    /// Waits, then goes on as it should
    Hang {
        /// For so long, or none: until [`Command::Release`] or [`Command::Heal`]
        for_ms: Option<u64>,
    },
    /// C_Sign: a signature of the right length that does not verify
    WrongSignature,
    /// C_Sign: says that its signature has this length, which it writes as far as there is room
    Length(u64),
}

/// What revives a dead token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revives {
    /// C_Finalize
    Finalise,
    /// Nothing the caller does
    Healing,
}

/// When the module shows a token that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// At once
    AtOnce,
    /// After C_Finalize and C_Initialize
    Reinitialised,
}

macro_rules! calls {
    ($($name:ident $spelt:literal)*) => {
        /// A function of PKCS#11 that the module has.
        #[expect(missing_docs, reason = "their names say what they are")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Call {
            $(#[serde(rename = $spelt)] $name,)*
        }

        impl Call {
            /// All of them.
            pub const ALL: &[Call] = &[$(Call::$name),*];
        }
    };
}

calls! {
    Initialize "C_Initialize"
    Finalize "C_Finalize"
    GetInfo "C_GetInfo"
    GetSlotList "C_GetSlotList"
    GetSlotInfo "C_GetSlotInfo"
    GetTokenInfo "C_GetTokenInfo"
    GetMechanismList "C_GetMechanismList"
    GetMechanismInfo "C_GetMechanismInfo"
    OpenSession "C_OpenSession"
    CloseSession "C_CloseSession"
    CloseAllSessions "C_CloseAllSessions"
    GetSessionInfo "C_GetSessionInfo"
    Login "C_Login"
    Logout "C_Logout"
    GetAttributeValue "C_GetAttributeValue"
    FindObjectsInit "C_FindObjectsInit"
    FindObjects "C_FindObjects"
    FindObjectsFinal "C_FindObjectsFinal"
    SignInit "C_SignInit"
    Sign "C_Sign"
    GenerateRandom "C_GenerateRandom"
}
