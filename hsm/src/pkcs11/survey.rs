//! A look at a module from outside of the daemon: is the token there, and how is its PIN.

use super::{Module, Uri, generation};
use crate::Result;

/// A token as its module shows it, without a session or a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Label, serial number, model and maker
    pub identity: String,
    /// How the user's PIN stands
    pub pin: PinState,
}

/// How the user's PIN stands, as far as a token tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinState {
    /// Nothing speaks against a login
    Good,
    /// It was given wrongly at least once since the last login
    TriedWrongly,
    /// One more wrong try locks it
    FinalTry,
    /// It is locked
    Locked,
}

impl Module {
    /// Finds the token that `uri` selects. Initialises the module, which some devices allow one process at a time: so
    /// ask in a process of your own, and not while a daemon signs with the same module.
    ///
    /// # Errors
    /// As the daemon would meet them: the module does not begin, or no token matches, or several do.
    pub fn survey(&self, uri: &Uri) -> Result<Seen> {
        self.initialise()?;
        let (identity, info) = generation::look(self, uri)?;
        let pin = match info {
            info if info.user_pin_locked() => PinState::Locked,
            info if info.user_pin_final_try() => PinState::FinalTry,
            info if info.user_pin_count_low() => PinState::TriedWrongly,
            _ => PinState::Good,
        };
        Ok(Seen { identity: identity.to_string(), pin })
    }
}
