//! What Core hears and what it asks for: the whole of its conversation with the world.

use std::sync::Arc;

use segl_hsm::{Algorithm, Error, KeyId, ModuleId, Signature};

use crate::{Completion, Discard, Job, TokenSet, Work};

/// A session's place in the pool. The session there changes, its place does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u16);

/// Counts the sessions of one place: what an earlier one still has to say is not the present one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u32);

/// One attempt at one job; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What Core hears.
#[derive(Clone, Debug)]
pub enum Event<P> {
    /// A job; it ends in exactly one [`Action::Complete`], at once if it is refused
    Submit(Job<P>),
    /// Its owner wants no answer any more: a waiting job completes as cancelled, one in a token is not tried again
    Cancel {
        /// The job's inbox
        inbox: u16,
        /// The job's tag
        tag: u64,
    },
    /// The answer to [`Action::Open`]
    Opened {
        /// The session's place
        session: SessionId,
        /// As asked for
        generation: Generation,
        /// How it went
        result: Result<(), Error>,
    },
    /// The answer to [`Action::Login`]
    LoggedIn {
        /// The session's place
        session: SessionId,
        /// As asked for
        generation: Generation,
        /// How it went; what the keys are is no concern of Core's
        result: Result<(), Error>,
    },
    /// The answer to [`Action::Sign`]
    Returned {
        /// The session's place
        session: SessionId,
        /// As asked for
        generation: Generation,
        /// As asked for
        call: CallId,
        /// How it went
        result: CallResult,
        /// When the call began
        started_ns: u64,
        /// How long it took; without meaning where none was begun
        token_ns: u64,
    },
    /// The answer to [`Action::Close`], however it went
    Closed {
        /// The session's place
        session: SessionId,
        /// As asked for
        generation: Generation,
    },
    /// The answer to [`Action::KeepAlive`]
    KeptAlive {
        /// The session's place
        session: SessionId,
        /// As asked for
        generation: Generation,
        /// How it went
        result: Result<(), Error>,
    },
    /// The answer to [`Action::Reinitialise`]
    Reinitialised {
        /// As asked for
        module: ModuleId,
        /// The place whose thread did it
        session: SessionId,
        /// As asked for
        generation: Generation,
        /// How it went
        result: Result<(), Error>,
    },
    /// The thread that [`Action::Replace`] gave up came back after all, has closed what it held and is at its end. The
    /// last that is heard of this generation
    Gone {
        /// The place it had
        session: SessionId,
        /// The generation it was given up in
        generation: Generation,
    },
    /// [`super::Core::next_timeout_ns`] has come. Only then stuck calls are given up, so whoever says so tells first
    /// what has come back
    Timer,
    /// Whether a token on probation ([`Alarm::Probation`]) may sign: then it is ready, else it is away again for a while.
    /// A word on an earlier probation than the present one says nothing of that
    Vouch {
        /// Its index
        token: u16,
        /// The probation's, as told
        round: u64,
        /// Whether its self-test passed
        ok: bool,
    },
    /// The token may be used; all are out at first
    Join {
        /// Its index
        token: u16,
    },
    /// The token is to be left alone: what runs there ends, nothing new begins
    Leave {
        /// Its index
        token: u16,
    },
    /// Log in again, now: for keys added since, or since the operator has changed something
    Refresh {
        /// Its index
        token: u16,
    },
    /// Begin the token's module anew, for an operator who knows that it helps. Where there is an
    /// [`super::Core::obstacle`], nothing is done
    Reinitialise {
        /// Its index
        token: u16,
    },
    /// The table that [`Job::route`] points into. Entries beyond its end stay; jobs that wait keep their set
    Routes(Vec<TokenSet>),
    /// Take no more jobs; finish those that are here
    Drain,
    /// Wait no longer for the calls under way: their jobs complete as stuck
    Abandon,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub enum CallResult {
    /// With a signature, an empty one for [`Work::Presence`]
    Signed(Signature),
    /// With an error
    Failed(Error),
    /// Not begun: its deadline had passed
    Expired,
    /// Not begun: an earlier call of its batch had spoilt the session
    Skipped,
}

/// One call to a session. It owns its input, so a thread that never returns holds nothing of Core's.
#[derive(Clone, Debug)]
pub struct Call<P> {
    /// Names it in [`Event::Returned`]
    pub id: CallId,
    /// What is to be done
    pub work: Work,
    /// The key
    pub key: KeyId,
    /// The algorithm
    pub algorithm: Algorithm,
    /// What is signed
    pub input: P,
    /// To be looked at right before the call: at or after it the answer is [`CallResult::Expired`]
    pub deadline_ns: u64,
}

/// What Core asks for.
///
/// A session is asked for nothing while it owes an answer, but for the further calls of the same batch: so it does
/// not matter in which order two threads carry out what they were asked.
#[derive(Clone, Debug)]
// Completions are what most of them are, beside calls; their attempts are inline so that none costs an allocation.
#[allow(clippy::large_enum_variant)]
pub enum Action<P> {
    /// Open a session; answered by [`Event::Opened`]
    Open {
        /// Its place
        session: SessionId,
        /// Its generation from now on
        generation: Generation,
    },
    /// Log in on it, which counts for the whole token; answered by [`Event::LoggedIn`]
    Login {
        /// Its place
        session: SessionId,
        /// Its generation
        generation: Generation,
    },
    /// Sign; answered by [`Event::Returned`]. The calls of one batch follow each other
    Sign {
        /// Its place
        session: SessionId,
        /// Its generation
        generation: Generation,
        /// The call
        call: Call<P>,
    },
    /// Take a call back that the session has not begun: then it is answered as [`CallResult::Skipped`] or, past its
    /// deadline, as [`CallResult::Expired`]. If it was begun or is back, nothing is to be done
    TakeBack {
        /// Its place
        session: SessionId,
        /// Its generation
        generation: Generation,
        /// The call
        call: CallId,
    },
    /// Close it, on its own thread; answered by [`Event::Closed`]
    Close {
        /// Its place
        session: SessionId,
        /// Its generation
        generation: Generation,
    },
    /// Let the token know that the session is still wanted; answered by [`Event::KeptAlive`]
    KeepAlive {
        /// Its place
        session: SessionId,
        /// Its generation
        generation: Generation,
    },
    /// C_Finalize and C_Initialize, by the thread of this place, which holds no session; answered by
    /// [`Event::Reinitialised`]. No session of any token of the module is open then, and no call inside it
    Reinitialise {
        /// The module
        module: ModuleId,
        /// The place whose thread does it
        session: SessionId,
        /// The place's generation from now on
        generation: Generation,
    },
    /// Give the thread at that place up: it is stuck in the token's code. Another one takes the place, in a later
    /// generation. What the first still says comes under this one; it closes what it holds by itself, on its own
    /// thread, and ends, which is answered by [`Event::Gone`]
    Replace {
        /// Its place
        session: SessionId,
        /// The generation that is given up
        generation: Generation,
    },
    /// Answer a job
    Complete {
        /// Where to
        inbox: u16,
        /// The answer
        completion: Completion,
        /// The job's payload, so that it is freed outside the lock
        input: P,
    },
    /// Tell whoever watches
    Alarm(Alarm),
}

/// What somebody should know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Alarm {
    /// A session was spoilt by an error and is replaced
    SessionLost {
        /// The token's index
        token: u16,
        /// The error
        error: Error,
    },
    /// A token can not be reached or logged in to; said once, until it is back
    TokenAway {
        /// The token's index
        token: u16,
        /// The error
        error: Error,
    },
    /// It was away and signs again
    TokenBack {
        /// The token's index
        token: u16,
    },
    /// Only an operator can help the token; it is not tried again before a refresh
    NeedsOperator {
        /// The token's index
        token: u16,
        /// The error
        error: Error,
    },
    /// A token that signs could not be refreshed: keys added since are not known there
    RefreshFailed {
        /// The token's index
        token: u16,
        /// The error
        error: Error,
    },
    /// A token came back, or is here for the first time: it signs only what is marked [`Job::probe`] until
    /// [`Event::Vouch`]
    Probation {
        /// The token's index
        token: u16,
        /// Which of its probations this is
        round: u64,
    },
    /// A token gave a signature that its own public key refuses. It was taken out: only a refresh brings it back
    WrongSignature {
        /// The token's index
        token: u16,
        /// The error
        error: Error,
    },
    /// A call did not return in time and is waited for no longer
    Stuck {
        /// The token's index
        token: u16,
        /// What it was: `sign`, `open`, `login`, `close`, `keep-alive` or `reinitialise`
        call: &'static str,
        /// Whether another thread took the place; else it is lost until the call returns
        replaced: bool,
    },
    /// No thread could be had in the place of one that was given up: its session is lost until one can, which is tried
    /// again once a second. Told by the driver, since Core knows no threads
    NoThread {
        /// The token's index
        token: u16,
        /// What the system says
        error: Arc<str>,
    },
    /// A call that had been given up returned after all; what it gave is discarded
    Discarded {
        /// The job's
        reference: u64,
        /// The token's index
        token: u16,
        /// Why
        reason: Discard,
        /// Whether it gave a signature
        signed: bool,
    },
    /// A module was finalised and initialised anew
    ModuleReinitialised {
        /// The module
        module: ModuleId,
    },
    /// A module could not be finalised and initialised anew; it is tried again
    ReinitialiseFailed {
        /// The module
        module: ModuleId,
        /// The error
        error: Error,
    },
    /// A module should be initialised anew, but a call is stuck inside it: its tokens stay away until that returns or
    /// the process is started anew. Said once for each time
    ModuleWedged {
        /// The module
        module: ModuleId,
    },
    /// The token gives fewer sessions than configured
    FewerSessions {
        /// The token's index
        token: u16,
        /// How many it gives
        sessions: u16,
    },
}
