//! The module as its callers see it, through cryptoki: what it can do, and that each fault does what it says.

#![expect(clippy::unwrap_used, reason = "in a test it is the failure")]

use std::{
    sync::{Barrier, mpsc},
    thread,
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use segl_faulty_token::{
    Call, Command, Configuration, Does, Fault, FaultyHsm, KeyConfiguration, KeyType, Revives, Seen, Tempo,
    TokenConfiguration, When,
    cryptoki_sys::{CKR_DEVICE_ERROR, CKR_FUNCTION_FAILED, CKR_GENERAL_ERROR},
};

const PIN: &str = "271828";
const DIGEST: [u8; 32] = [7; 32];

/// An HSM with one token in slot 11, which holds two P-256 keys, loaded and initialised.
struct Bench {
    hsm: FaultyHsm,
    context: Pkcs11,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let keys_directory = directory.path().join("keys");
        let files = ["one.pem", "two.pem"].map(|file| (file.to_owned(), KeyType::EcP256));
        FaultyHsm::make_keys(&keys_directory, &files).unwrap();
        let keys = ["one", "two"].map(|label| KeyConfiguration {
            label: label.into(),
            id: label.into(),
            file: format!("{label}.pem"),
        });
        let token = TokenConfiguration {
            slot: 11,
            label: "segl".into(),
            serial: "S1".into(),
            pin: PIN.into(),
            tries: 3,
            keys_directory,
            keys: keys.into(),
        };
        let configuration = Configuration { tokens: vec![token], commands: Vec::new() };
        let hsm = FaultyHsm::install(directory.path(), "hsm", &configuration).unwrap();
        let context = Pkcs11::new(hsm.module()).unwrap();
        let bench = Bench { hsm, context, _directory: directory };
        bench.initialise().unwrap();
        bench
    }

    fn initialise(&self) -> Result<(), Error> {
        self.context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
    }

    fn slot(&self) -> Slot {
        self.context.get_slots_with_token().unwrap()[0]
    }

    fn open(&self) -> Result<Session, Error> {
        self.context.open_ro_session_no_drop(self.slot())
    }

    /// A session that is logged in.
    fn session(&self) -> Session {
        let session = self.open().unwrap();
        log_in(&session, PIN).unwrap();
        session
    }

    fn tell(&self, command: Command) {
        self.hsm.command(&command).unwrap();
    }

    fn fault(&self, call: Call, when: When, does: Does) -> u64 {
        self.hsm.fault(call, when, does).unwrap()
    }

    fn violations(&self) -> segl_faulty_token::Violations {
        self.hsm.counts().unwrap().violations
    }
}

fn log_in(session: &Session, pin: &str) -> Result<(), Error> {
    session.login(UserType::User, Some(&AuthPin::new(pin.into())))
}

fn key(session: &Session, label: &str) -> ObjectHandle {
    let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.into())];
    session.find_objects(&template).unwrap()[0]
}

fn sign(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, Error> {
    session.sign(&Mechanism::Ecdsa, key, &DIGEST)
}

/// The code that a call answered.
fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> RvError {
    match result.unwrap_err() {
        Error::Pkcs11(code, _) => code,
        other => panic!("{other}"),
    }
}

#[test]
fn it_signs_counts_by_key_and_finds_nothing_wrong_with_a_caller_who_behaves() {
    let bench = Bench::new();
    let session = bench.session();
    let (one, two) = (key(&session, "one"), key(&session, "two"));
    for _ in 0..3 {
        assert_eq!(sign(&session, one).unwrap().len(), 64);
    }
    sign(&session, two).unwrap();
    session.close().unwrap();
    let counts = bench.hsm.counts().unwrap();
    let token = &counts.tokens["S1"];
    let of = |label: &str| (token.keys[label].entered, token.keys[label].signed);
    assert_eq!((of("one"), of("two"), counts.of(Call::Sign)), ((3, 3), (1, 1), 4));
    assert_eq!((token.sessions, token.sessions_most, token.logins), (0, 1, 1));
    assert_eq!(counts.violations, Default::default());
    // Only who is logged in sees keys, and the login went with the last session.
    let session = bench.open().unwrap();
    assert!(session.find_objects(&[]).unwrap().is_empty());
}

#[test]
fn two_copies_are_two_hsms() {
    let (one, other) = (Bench::new(), Bench::new());
    one.fault(Call::OpenSession, When::Always, Does::Answer(CKR_GENERAL_ERROR));
    assert_eq!(code(one.open()), RvError::GeneralError);
    other.open().unwrap();
}

#[test]
fn any_call_fails_as_told_once_for_a_share_or_until_that_is_taken_back() {
    let bench = Bench::new();
    let session = bench.session();
    let one = key(&session, "one");
    bench.fault(Call::SignInit, When::Times(1), Does::Answer(CKR_DEVICE_ERROR));
    assert_eq!(code(sign(&session, one)), RvError::DeviceError);
    sign(&session, one).unwrap();

    let share = bench.fault(Call::Sign, When::OneIn(3), Does::Answer(CKR_FUNCTION_FAILED));
    // cryptoki asks for the length first, which counts for nothing.
    assert_eq!((0..9).filter(|_| sign(&session, one).is_err()).count(), 3);
    bench.hsm.clear(share).unwrap();

    let only_two = Fault {
        call: Call::GetAttributeValue,
        token: Some("S1".into()),
        key: Some("two".into()),
        when: When::Always,
        does: Does::Answer(CKR_GENERAL_ERROR),
    };
    bench.hsm.add(only_two).unwrap();
    let label = [cryptoki::object::AttributeType::Label];
    session.get_attributes(one, &label).unwrap();
    assert_eq!(code(session.get_attributes(key(&session, "two"), &label)), RvError::GeneralError);
    bench.hsm.heal().unwrap();
    session.get_attributes(key(&session, "two"), &label).unwrap();
}

#[test]
fn a_signature_may_be_wrong_cut_or_made_and_withheld_and_each_is_counted() {
    let bench = Bench::new();
    let session = bench.session();
    let one = key(&session, "one");
    let before = sign(&session, one).unwrap();
    bench.fault(Call::Sign, When::Times(1), Does::WrongSignature);
    assert_eq!(sign(&session, one).unwrap().len(), before.len());
    bench.fault(Call::Sign, When::Times(1), Does::AnswerAfter(CKR_DEVICE_ERROR));
    assert_eq!(code(sign(&session, one)), RvError::DeviceError);
    bench.fault(Call::Sign, When::Times(1), Does::Length(63));
    assert_eq!(sign(&session, one).unwrap().len(), 63);
    let counts = bench.hsm.counts().unwrap().all_keys();
    assert_eq!((counts.entered, counts.signed, counts.wrong, counts.withheld, counts.cut), (4, 4, 1, 1, 1));
}

#[test]
fn after_a_device_error_every_session_is_invalid_until_c_finalize_or_until_it_is_healed() {
    let bench = Bench::new();
    for (opens, until) in [(true, Revives::Finalise), (false, Revives::Healing)] {
        let session = bench.session();
        let one = key(&session, "one");
        bench.tell(Command::Die { token: None, opens, until });
        assert_eq!(code(sign(&session, one)), RvError::DeviceError);
        for _ in 0..3 {
            assert_eq!(code(sign(&session, one)), RvError::SessionHandleInvalid);
        }
        match opens {
            true => assert_eq!(code(log_in(&bench.open().unwrap(), PIN)), RvError::SessionHandleInvalid),
            false => assert_eq!(code(bench.open()), RvError::DeviceError),
        }
        match until {
            Revives::Finalise => {
                bench.context.clone().finalize().unwrap();
                bench.initialise().unwrap();
            }
            Revives::Healing => bench.hsm.heal().unwrap(),
        }
        let session = bench.session();
        sign(&session, key(&session, "one")).unwrap();
        session.close().unwrap();
    }
}

#[test]
fn a_logout_from_elsewhere_voids_the_key_handles() {
    let bench = Bench::new();
    let session = bench.session();
    let one = key(&session, "one");
    bench.tell(Command::LogOut { token: None });
    assert_eq!(code(sign(&session, one)), RvError::UserNotLoggedIn);
    log_in(&session, PIN).unwrap();
    assert_eq!(code(sign(&session, one)), RvError::KeyHandleInvalid);
    assert_eq!(bench.violations().stale_objects, 1);
    sign(&session, key(&session, "one")).unwrap();
}

#[test]
fn wrong_pins_lock_the_token_and_one_tried_again_is_a_violation() {
    let bench = Bench::new();
    let session = bench.open().unwrap();
    let info = || bench.context.get_token_info(bench.slot()).unwrap();
    assert_eq!(code(log_in(&session, "1")), RvError::PinIncorrect);
    assert!(info().user_pin_count_low() && !info().user_pin_final_try());
    assert_eq!(code(log_in(&session, "1")), RvError::PinIncorrect);
    assert!(info().user_pin_final_try());
    assert_eq!(code(log_in(&session, "2")), RvError::PinIncorrect);
    assert!(info().user_pin_locked());
    assert_eq!(code(log_in(&session, PIN)), RvError::PinLocked);
    let counts = bench.hsm.counts().unwrap();
    assert_eq!((counts.violations.refused_pins, counts.tokens["S1"].logins), (1, 4));
    bench.hsm.heal().unwrap();
    log_in(&session, PIN).unwrap();
}

#[test]
fn sessions_are_capped_and_those_nobody_uses_end() {
    let bench = Bench::new();
    bench.tell(Command::Sessions { token: None, max: Some(1), announced: true });
    let session = bench.session();
    let one = key(&session, "one");
    assert_eq!(code(bench.open()), RvError::SessionCount);
    bench.tell(Command::IdleLimit { token: None, limit_ms: Some(0) });
    assert_eq!(code(sign(&session, one)), RvError::SessionHandleInvalid);
    assert_eq!(bench.hsm.counts().unwrap().tokens["S1"].dead_handles, 1);
    bench.hsm.heal().unwrap();
    bench.session();
}

#[test]
fn a_token_that_was_removed_comes_back_in_another_slot_at_once_or_after_initialising() {
    let bench = Bench::new();
    let session = bench.session();
    let one = key(&session, "one");
    let old = bench.slot();
    bench.tell(Command::Remove { token: None });
    assert_eq!(code(sign(&session, one)), RvError::SessionHandleInvalid);
    assert!(bench.context.get_slots_with_token().unwrap().is_empty());
    assert_eq!(code(bench.context.open_ro_session(old)), RvError::TokenNotPresent);
    bench.tell(Command::Insert { token: None, slot: Some(12), seen: Seen::AtOnce });
    assert_eq!((bench.slot().id(), code(bench.context.get_token_info(old))), (12, RvError::SlotIdInvalid));

    bench.tell(Command::Remove { token: None });
    bench.tell(Command::Insert { token: None, slot: Some(13), seen: Seen::Reinitialised });
    assert!(bench.context.get_slots_with_token().unwrap().is_empty());
    bench.context.clone().finalize().unwrap();
    bench.initialise().unwrap();
    assert_eq!(bench.slot().id(), 13);
    let session = bench.session();
    sign(&session, key(&session, "one")).unwrap();
}

#[test]
fn after_a_restart_old_numbers_name_other_sessions_and_keys_and_whoever_uses_them_is_caught() {
    let bench = Bench::new();
    let old = bench.session();
    let one = key(&old, "one");
    bench.tell(Command::Restart { token: None });
    let number = old.handle();
    let (opened, closed) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let new = bench.session();
            assert_eq!((number, new.handle()), (1, 1));
            opened.wait();
            closed.wait();
            assert_eq!(bench.violations().strangers_closed, 0, "it may have been on its behalf");
            assert_eq!(code(new.get_session_info()), RvError::SessionHandleInvalid);
            assert_eq!(bench.violations().strangers_closed, 1);
        });
        opened.wait();
        // The old number is another thread's session now.
        assert!(key(&old, "two") == one, "the handle names the key after the one it named");
        assert_eq!(bench.violations().strangers_used, 3, "C_FindObjectsInit, C_FindObjects, C_FindObjectsFinal");
        old.close().unwrap();
        closed.wait();
    });
    assert_eq!(bench.hsm.counts().unwrap().tokens["S1"].sessions, 0, "a stranger's session was closed");
}

#[test]
fn a_handle_that_changed_its_meaning_signs_with_another_key_and_is_counted() {
    let bench = Bench::new();
    let session = bench.session();
    let one = key(&session, "one");
    bench.tell(Command::Reshuffle { token: None });
    sign(&session, one).unwrap();
    let counts = bench.hsm.counts().unwrap();
    assert_eq!(counts.tokens["S1"].keys["two"].signed, 1);
    assert_eq!(counts.violations.stale_objects, 1);
    sign(&session, key(&session, "one")).unwrap();
    assert_eq!(bench.hsm.counts().unwrap().tokens["S1"].keys["one"].signed, 1);
}

#[test]
fn calls_hang_until_they_are_let_go_or_for_a_time_and_c_finalize_meanwhile_is_a_violation() {
    let bench = Bench::new();
    let session = bench.session();
    let one = key(&session, "one");
    let hangs = bench.fault(Call::Sign, When::Always, Does::Hang { for_ms: None });
    let (done, ended) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            done.send(code(sign(&session, one))).unwrap();
        });
        let counts = bench.hsm.wait_for("hanging", 1).unwrap();
        assert_eq!((counts.inside[&Call::Sign], counts.all_keys().entered, counts.all_keys().signed), (1, 1, 0));
        assert!(ended.try_recv().is_err());
        bench.context.clone().finalize().unwrap();
        assert_eq!(bench.violations().finalised_with_calls_inside, 1);
        bench.tell(Command::Release);
        assert_eq!(ended.recv().unwrap(), RvError::SessionClosed);
    });
    bench.hsm.clear(hangs).unwrap();
    bench.initialise().unwrap();
    for call in [Call::OpenSession, Call::Login, Call::CloseSession, Call::Finalize] {
        bench.fault(call, When::Times(1), Does::Hang { for_ms: Some(1) });
    }
    bench.session().close().unwrap();
    bench.context.clone().finalize().unwrap();
    assert_eq!(bench.violations().finalised_with_calls_inside, 1, "nothing was inside this time");
}

#[test]
fn calls_beyond_its_parallel_ones_queue_inside() {
    let bench = Bench::new();
    bench.tell(Command::Tempo { token: None, tempo: Tempo { base_us: 200_000, parallel: 1, ..Tempo::default() } });
    let first = bench.session();
    let one = key(&first, "one");
    let second = bench.open().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || sign(&first, one).unwrap());
        bench.hsm.wait_for("tokens/S1/busy", 1).unwrap();
        scope.spawn(move || sign(&second, one).unwrap());
        let counts = bench.hsm.wait_for("tokens/S1/queued", 1).unwrap();
        assert_eq!(counts.tokens["S1"].busy, 1);
    });
    assert_eq!(bench.hsm.counts().unwrap().all_keys().signed, 2);
}

#[test]
fn what_no_caller_may_do_is_counted() {
    let bench = Bench::new();
    assert_eq!(code(bench.initialise()), RvError::CryptokiAlreadyInitialized);
    let session = bench.session();
    session.close().unwrap();
    let session = bench.session();
    bench.context.clone().finalize().unwrap();
    assert_eq!(code(session.get_session_info()), RvError::CryptokiNotInitialized);
    bench.initialise().unwrap();
    assert_eq!(code(session.get_session_info()), RvError::SessionHandleInvalid);
    let violations = bench.violations();
    assert_eq!((violations.second_initialise, violations.not_initialised, violations.finalised_handles), (1, 1, 1));
}

#[test]
fn a_count_that_does_not_exist_is_refused() {
    let bench = Bench::new();
    assert!(bench.hsm.wait_for("calls/C_Sing", 0).unwrap_err().to_string().contains("no count"));
}
