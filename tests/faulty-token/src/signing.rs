//! C_SignInit and C_Sign: where the time goes, and most of the faults.

use std::{sync::PoisonError, thread};

use cryptoki_sys::*;

use crate::{
    Call, KeyCounts,
    keys::Mechanism,
    module::{Module, State, Whom, caller},
};

/// What C_Sign answers.
#[derive(Debug)]
pub(crate) enum Signed {
    /// A signature, and the length to announce for it
    Signature { bytes: Vec<u8>, announced: u64 },
    /// There is too little room for so many bytes; the operation stays
    TooLong(usize),
}

/// A C_Sign under way.
struct Job {
    token: usize,
    key: usize,
    mechanism: Mechanism,
    /// Of the session
    serial: u64,
}

impl Module {
    pub(crate) fn sign_init(
        &self,
        handle: CK_SESSION_HANDLE,
        mechanism: Mechanism,
        object: CK_OBJECT_HANDLE,
    ) -> Result<(), CK_RV> {
        self.call(Call::SignInit, Whom::Object(handle, object), |state| state.sign_init(handle, mechanism, object))
    }

    /// The length of the signature to come.
    pub(crate) fn signature_len(&self, handle: CK_SESSION_HANDLE) -> Result<usize, CK_RV> {
        let mut state = self.state();
        if !state.initialised {
            return Err(CKR_CRYPTOKI_NOT_INITIALIZED);
        }
        let session = state.session(handle, false)?;
        let (token, (key, _)) = (session.token, session.operation.ok_or(CKR_OPERATION_NOT_INITIALIZED)?);
        Ok(state.tokens[token].keys.key(key).signature_len())
    }

    /// C_Sign with room for so many bytes.
    pub(crate) fn sign(&self, handle: CK_SESSION_HANDLE, data: &[u8], room: usize) -> Result<Signed, CK_RV> {
        let _inside = self.enter(Call::Sign)?;
        let job = {
            let mut state = self.state();
            match state.begin_signing(handle, room)? {
                Ok(job) => job,
                Err(len) => return Ok(Signed::TooLong(len)),
            }
        };
        let spoilt = self.misbehave(Call::Sign, Whom::Key(job.token, job.key));
        let made = match spoilt.answer {
            Some(code) => Err(code),
            None => self.serve(handle, &job, data),
        };
        let mut state = self.state();
        if let Some(session) = state.sessions.same(handle, job.serial) {
            session.signing = false;
        }
        let mut bytes = made?;
        let count = state.count_of_key(job.token, job.key);
        count.signed += 1;
        if let Some(code) = spoilt.answer_after {
            count.withheld += 1;
            return Err(code);
        }
        if spoilt.wrong {
            count.wrong += 1;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        let announced = spoilt.length.unwrap_or(bytes.len() as u64);
        if announced != bytes.len() as u64 {
            count.cut += 1;
            // Where there is room the rest is there indeed.
            bytes.resize(usize::try_from(announced).unwrap_or(usize::MAX).min(room), 0xa5);
        }
        Ok(Signed::Signature { bytes, announced })
    }

    /// Waits for its turn, takes its time, and signs if the session is still there.
    fn serve(&self, handle: CK_SESSION_HANDLE, job: &Job, data: &[u8]) -> Result<Vec<u8>, CK_RV> {
        let mut state = self.state();
        let ticket = state.tokens[job.token].service.queue_up();
        while !state.tokens[job.token].service.let_in(ticket) {
            self.counted.notify_all();
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let takes = state.tokens[job.token].service.draw();
        drop(state);
        // The next in the queue may have a place as well.
        self.freed.notify_all();
        self.counted.notify_all();
        if !takes.is_zero() {
            thread::sleep(takes);
        }
        let keys = {
            let mut state = self.state();
            state.still_there(handle, job).map(|()| state.tokens[job.token].keys.clone())
        };
        let made = keys.and_then(|keys| keys.sign(job.key, job.mechanism, data));
        self.state().tokens[job.token].service.busy -= 1;
        self.freed.notify_all();
        made
    }
}

impl State {
    /// The key that an object handle names, whether the caller may know it or not.
    pub(crate) fn key_of(&mut self, token: usize, object: CK_OBJECT_HANDLE) -> Result<usize, CK_RV> {
        let handles = &self.tokens[token].handles;
        self.counts.violations.stale_objects += u64::from(handles.is_stale(object));
        handles.key(object).ok_or(CKR_KEY_HANDLE_INVALID)
    }

    fn sign_init(
        &mut self,
        handle: CK_SESSION_HANDLE,
        mechanism: Mechanism,
        object: CK_OBJECT_HANDLE,
    ) -> Result<(), CK_RV> {
        let session = self.session(handle, false)?;
        let (token, serial) = (session.token, session.serial);
        if session.operation.is_some() || session.signing {
            return Err(CKR_OPERATION_ACTIVE);
        }
        if !self.tokens[token].login.logged_in {
            return Err(CKR_USER_NOT_LOGGED_IN);
        }
        let key = self.key_of(token, object)?;
        self.tokens[token].keys.key(key).check(mechanism)?;
        let session = self.sessions.same(handle, serial).expect("the lock was held since it was looked up");
        session.operation = Some((key, mechanism));
        self.sessions.begun.insert(caller(), (token, key));
        Ok(())
    }

    /// Takes the session's operation, or says how much room it needs.
    fn begin_signing(&mut self, handle: CK_SESSION_HANDLE, room: usize) -> Result<Result<Job, usize>, CK_RV> {
        let operation = self.session(handle, false).and_then(|session| {
            let (key, mechanism) = session.operation.ok_or(CKR_OPERATION_NOT_INITIALIZED)?;
            Ok((session.token, session.serial, key, mechanism))
        });
        let (token, serial, key, mechanism) = operation.inspect_err(|_| {
            if let Some((token, key)) = self.sessions.begun.remove(&caller()) {
                self.count_of_key(token, key).entered += 1;
            }
        })?;
        let len = self.tokens[token].keys.key(key).signature_len();
        if room < len {
            return Ok(Err(len));
        }
        let session = self.sessions.same(handle, serial).expect("the lock was held since it was looked up");
        session.operation = None;
        session.signing = true;
        self.sessions.begun.remove(&caller());
        self.count_of_key(token, key).entered += 1;
        Ok(Ok(Job { token, key, mechanism, serial }))
    }

    /// Whether a session that was signing may go on; if not, what the token says of it.
    fn still_there(&mut self, handle: CK_SESSION_HANDLE, job: &Job) -> Result<(), CK_RV> {
        let open = self.initialised && self.sessions.same(handle, job.serial).is_some();
        let token = &mut self.tokens[job.token];
        if let Some(death) = &mut token.dead {
            death.told = true;
            self.end_sessions(job.token);
            return Err(CKR_DEVICE_ERROR);
        }
        match (token.present, open, token.login.logged_in) {
            (false, ..) => Err(CKR_DEVICE_REMOVED),
            (_, false, _) => Err(CKR_SESSION_CLOSED),
            (_, _, false) => Err(CKR_USER_NOT_LOGGED_IN),
            _ => Ok(()),
        }
    }

    fn count_of_key(&mut self, token: usize, key: usize) -> &mut KeyCounts {
        let keys = self.tokens[token].keys.clone();
        let count = self.count_of(token).keys.get_mut(&keys.key(key).label);
        count.expect("made for every key at the start")
    }
}
