//! A token whose signatures are verified with the public key before anybody sees them.
//!
//! HSMs have computed wrongly: a broken core, a bit that flipped in a key, a session whose answers were exchanged. A
//! client would notice late or never, and of an RSA signature with one wrong half (CRT) the private key can be
//! computed. So [`VerifiedToken`] stands around any token and looks at what comes out, all of it or a share, as
//! [`VerifyModes`] says key by key. A signature that does not verify is wiped; the caller hears
//! [`Kind::WrongSignature`].
//!
//! The time it takes is the session's: a P-256 or RSA digest costs some 0.1 to 0.3 ms of this machine's cores.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Algorithm, Error, Input, KeyId, KeyReport, KeySpec, Kind, ModuleId, Result, Session, Signature, Token,
    verify::Verifier,
};

/// How many of a key's signatures are verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// None
    #[default]
    Off,
    /// Each session's first one, and from there one in so many
    Sample(NonZeroU32),
    /// Every one
    Always,
}

/// Which keys' signatures are verified; shared by all tokens, and changed while they sign.
#[derive(Debug, Default)]
pub struct VerifyModes {
    modes: Mutex<BTreeMap<KeyId, Mode>>,
    /// Goes up with each change
    version: AtomicU64,
}

impl VerifyModes {
    /// Puts these in the place of all there were; a key that is not among them is not verified.
    pub fn replace(&self, modes: impl IntoIterator<Item = (KeyId, Mode)>) {
        *lock(&self.modes) = modes.into_iter().filter(|(_, mode)| *mode != Mode::Off).collect();
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// What is in force for a key.
    pub fn mode(&self, key: KeyId) -> Mode {
        lock(&self.modes).get(&key).copied().unwrap_or_default()
    }
}

/// Any token, with its signatures verified.
pub struct VerifiedToken {
    inner: Arc<dyn Token>,
    shared: Arc<Shared>,
}

impl fmt::Debug for VerifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifiedToken").field(&self.inner.name()).finish()
    }
}

/// What the token's sessions share.
struct Shared {
    modes: Arc<VerifyModes>,
    /// What the token showed at its latest login; an error where there is no verifying with it
    keys: Mutex<BTreeMap<KeyId, Result<Arc<Verifier>>>>,
    /// Goes up with each login
    version: AtomicU64,
}

impl VerifiedToken {
    /// Puts itself around a token.
    pub fn new(inner: Arc<dyn Token>, modes: Arc<VerifyModes>) -> VerifiedToken {
        let shared = Shared { modes, keys: Mutex::default(), version: AtomicU64::new(1) };
        VerifiedToken { inner, shared: Arc::new(shared) }
    }
}

impl Token for VerifiedToken {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn module(&self) -> ModuleId {
        self.inner.module()
    }

    fn add_keys(&self, keys: &[KeySpec]) {
        self.inner.add_keys(keys);
    }

    fn open(&self) -> Result<Box<dyn Session>> {
        let inner = self.inner.open()?;
        Ok(Box::new(VerifiedSession { inner, shared: self.shared.clone(), seen: None, keys: BTreeMap::new() }))
    }

    fn reinitialise(&self) -> Result<()> {
        self.inner.reinitialise()
    }

    fn retry_pin(&self) -> Result<()> {
        self.inner.retry_pin()
    }
}

struct VerifiedSession {
    inner: Box<dyn Session>,
    shared: Arc<Shared>,
    /// The versions of modes and keys that `keys` was made of
    seen: Option<(u64, u64)>,
    /// This session's own, so that signing takes no lock. A key that is not verified is not in it
    keys: BTreeMap<KeyId, Watch>,
}

/// One key in one session.
struct Watch {
    verifier: Result<Arc<Verifier>>,
    one_in: u32,
    /// Signatures since one was verified
    since: u32,
}

impl VerifiedSession {
    fn look_up_to_date(&mut self) {
        let modes = &self.shared.modes;
        let now = (modes.version.load(Ordering::Acquire), self.shared.version.load(Ordering::Acquire));
        if self.seen == Some(now) {
            return;
        }
        let (known, modes) = (lock(&self.shared.keys), lock(&modes.modes));
        let watches = modes.iter().map(|(&id, &mode)| {
            let one_in = match mode {
                Mode::Sample(one_in) => one_in.get(),
                Mode::Always | Mode::Off => 1,
            };
            let unknown = || Err(Error::of(Kind::KeyMissing, "verify", "the token has not shown this key"));
            let verifier = known.get(&id).cloned().unwrap_or_else(unknown);
            // Whoever reloads often must not verify more, or less.
            let since = self.keys.get(&id).filter(|watch| watch.one_in == one_in).map_or(0, |watch| watch.since);
            (id, Watch { verifier, one_in, since })
        });
        let keys = watches.collect();
        drop((known, modes));
        self.keys = keys;
        self.seen = Some(now);
    }

    /// What this signature is to be verified with, if it is.
    fn verifier(&mut self, id: KeyId) -> Result<Option<Arc<Verifier>>> {
        self.look_up_to_date();
        let Some(watch) = self.keys.get_mut(&id) else { return Ok(None) };
        let turn = watch.since == 0;
        watch.since = (watch.since + 1) % watch.one_in;
        // Before anything is signed: what can not be verified is not made.
        if turn { watch.verifier.clone().map(Some) } else { Ok(None) }
    }
}

impl Session for VerifiedSession {
    fn login(&mut self) -> Result<Vec<KeyReport>> {
        let reports = self.inner.login()?;
        let keys = reports.iter().map(|report| {
            let verifier = report.result.clone().and_then(|info| {
                Verifier::new(&info.spki_der)
                    .map(Arc::new)
                    .map_err(|error| Error::of(Kind::KeyUnusable, "verify", error.to_string()))
            });
            (report.id, verifier)
        });
        let keys = keys.collect();
        *lock(&self.shared.keys) = keys;
        self.shared.version.fetch_add(1, Ordering::AcqRel);
        Ok(reports)
    }

    fn sign(&mut self, key: KeyId, algorithm: Algorithm, input: &Input, out: &mut Signature) -> Result<()> {
        out.clear();
        let verifier = self.verifier(key)?;
        self.inner.sign(key, algorithm, input, out)?;
        let Some(verifier) = verifier else { return Ok(()) };
        verifier.verify(algorithm, input, out).map_err(|error| {
            out.fill(0);
            out.clear();
            // The key may be another one than its handle named once.
            self.inner.distrust();
            Error::of(Kind::WrongSignature, "verify", format!("{algorithm}: {error}; it was destroyed unseen"))
        })
    }

    fn presence(&mut self, key: KeyId) -> Result<()> {
        self.inner.presence(key)
    }

    fn keep_alive(&mut self) -> Result<()> {
        self.inner.keep_alive()
    }

    fn distrust(&mut self) {
        self.inner.distrust();
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.inner.close()
    }
}

/// Nothing is left half done under any of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use p256::ecdsa::{Signature as P256, SigningKey, signature::hazmat::PrehashSigner};

    use super::*;
    use crate::{KeyInfo, KeyType, Retry, Rung, Signed, spki::PublicKey};

    const KEY: KeyId = KeyId(7);

    /// Signs, and one signature in `wrong_in` wrongly; 0: none.
    #[derive(Default)]
    struct Forgetful {
        wrong_in: AtomicU32,
        signatures: AtomicU32,
        shows_nonsense: bool,
    }

    struct ForgetfulSession(Arc<Forgetful>);

    fn secret() -> SigningKey {
        SigningKey::from_slice(&[7; 32]).unwrap()
    }

    struct Handle(Arc<Forgetful>);

    impl Token for Handle {
        fn name(&self) -> &str {
            "forgetful"
        }

        fn module(&self) -> ModuleId {
            ModuleId(3)
        }

        fn add_keys(&self, _keys: &[KeySpec]) {}

        fn open(&self) -> Result<Box<dyn Session>> {
            Ok(Box::new(ForgetfulSession(self.0.clone())))
        }

        fn reinitialise(&self) -> Result<()> {
            Ok(())
        }
    }

    impl Session for ForgetfulSession {
        fn login(&mut self) -> Result<Vec<KeyReport>> {
            let point = secret().verifying_key().to_sec1_point(false);
            let mut spki_der = PublicKey { key_type: KeyType::EcP256, key: point.as_bytes() }.to_spki_der();
            if self.0.shows_nonsense {
                spki_der.pop();
            }
            Ok(vec![KeyReport { id: KEY, result: Ok(KeyInfo { key_type: KeyType::EcP256, spki_der }) }])
        }

        fn sign(&mut self, _key: KeyId, _algorithm: Algorithm, input: &Input, out: &mut Signature) -> Result<()> {
            let Input::Digest(digest) = input else { panic!("digests only") };
            let signature: P256 = secret().sign_prehash(digest.as_slice()).unwrap();
            out.extend_from_slice(&signature.to_bytes());
            let number = self.0.signatures.fetch_add(1, Ordering::Relaxed) + 1;
            let wrong_in = self.0.wrong_in.load(Ordering::Relaxed);
            if wrong_in > 0 && number.is_multiple_of(wrong_in) {
                out[40] ^= 1;
            }
            Ok(())
        }

        fn presence(&mut self, _key: KeyId) -> Result<()> {
            Ok(())
        }

        fn keep_alive(&mut self) -> Result<()> {
            Ok(())
        }

        fn close(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }

    fn session(token: &Arc<Forgetful>, modes: &Arc<VerifyModes>) -> Box<dyn Session> {
        let mut session = VerifiedToken::new(Arc::new(Handle(token.clone())), modes.clone()).open().unwrap();
        session.login().unwrap();
        session
    }

    fn modes(mode: Mode) -> Arc<VerifyModes> {
        let modes = VerifyModes::default();
        modes.replace([(KEY, mode)]);
        Arc::new(modes)
    }

    fn sign(session: &mut Box<dyn Session>, seed: u8) -> (Result<()>, Signature) {
        let algorithm = Algorithm::EcdsaP256Sha256;
        let mut out = vec![1; 5];
        let result = session.sign(KEY, algorithm, &Input::digest(algorithm, &[seed; 32]).unwrap(), &mut out);
        (result, out)
    }

    fn wrong(one_in: u32) -> Arc<Forgetful> {
        Arc::new(Forgetful { wrong_in: AtomicU32::new(one_in), ..Forgetful::default() })
    }

    #[test]
    fn a_wrong_signature_never_leaves_a_token_that_is_always_verified() {
        let mut session = session(&wrong(3), &modes(Mode::Always));
        for number in 1..=30u8 {
            let (result, out) = sign(&mut session, number);
            if number.is_multiple_of(3) {
                let error = result.unwrap_err();
                assert_eq!((error.kind(), error.code()), (Kind::WrongSignature, "wrong-signature"));
                let verdict = error.verdict();
                assert_eq!((verdict.signed, verdict.retry), (Signed::No, Retry::Elsewhere));
                assert_eq!(verdict.rung, Rung::Operator);
                assert!(out.is_empty());
            } else {
                result.unwrap();
                assert_eq!(out.len(), 64);
            }
        }
    }

    #[test]
    fn a_sample_is_the_first_of_a_session_and_one_in_so_many_after_it() {
        let mut session = session(&wrong(1), &modes(Mode::Sample(NonZeroU32::new(10).unwrap())));
        let caught: Vec<u8> = (0..30).filter(|number| sign(&mut session, *number).0.is_err()).collect();
        assert_eq!(caught, [0, 10, 20]);
    }

    #[test]
    fn what_is_not_to_be_verified_is_left_alone_and_a_change_is_heeded_at_once() {
        let modes = modes(Mode::Off);
        let mut session = session(&wrong(1), &modes);
        assert!(sign(&mut session, 1).0.is_ok());
        modes.replace([(KEY, Mode::Always)]);
        assert_eq!(modes.mode(KEY), Mode::Always);
        assert!(sign(&mut session, 2).0.is_err());
        modes.replace([]);
        assert!(sign(&mut session, 3).0.is_ok());
    }

    #[test]
    fn what_can_not_be_verified_is_not_signed() {
        let token = Arc::new(Forgetful { shows_nonsense: true, ..Forgetful::default() });
        let mut session = session(&token, &modes(Mode::Always));
        assert_eq!(sign(&mut session, 1).0.unwrap_err().kind(), Kind::KeyUnusable);
        assert_eq!(token.signatures.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn another_digest_s_signature_is_a_wrong_one() {
        let token = wrong(0);
        let mut session = session(&token, &modes(Mode::Off));
        let (_, signature) = sign(&mut session, 1);
        let algorithm = Algorithm::EcdsaP256Sha256;
        let point = secret().verifying_key().to_sec1_point(false);
        let spki_der = PublicKey { key_type: KeyType::EcP256, key: point.as_bytes() }.to_spki_der();
        let verifier = Verifier::new(&spki_der).unwrap();
        let digest = |seed| Input::digest(algorithm, &[seed; 32]).unwrap();
        assert_eq!(verifier.verify(algorithm, &digest(1), &signature), Ok(()));
        assert!(verifier.verify(algorithm, &digest(2), &signature).is_err());
    }
}
