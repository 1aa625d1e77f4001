//! Every code of the standard, and every call: full load on two HSMs of which one answers so, and no client hears of it.

use std::ops::RangeInclusive;

use segl_faulty_token::{Call, Command, Does, Revives, Violations, When, cryptoki_sys::CKR_DEVICE_REMOVED};

use segl_tests::journal::Calls;

use crate::{
    fire::{Fire, Load, TOKEN},
    room::until,
};

const TWO: [&str; 2] = ["one", "two"];

/// The codes that PKCS#11 3.1 and 3.2 know, one that they do not, and a vendor's.
const CODES: [RangeInclusive<u64>; 39] = [
    0x01..=0x0a,
    0x10..=0x13,
    0x1b..=0x1b,
    0x20..=0x21,
    0x30..=0x32,
    0x40..=0x42,
    0x50..=0x51,
    0x54..=0x54,
    0x60..=0x60,
    0x62..=0x6a,
    0x70..=0x71,
    0x82..=0x82,
    0x90..=0x91,
    0xa0..=0xa4,
    0xb0..=0xb1,
    0xb3..=0xb8,
    0xc0..=0xc1,
    0xd0..=0xd1,
    0xe0..=0xe2,
    0xf0..=0xf2,
    0x100..=0x104,
    0x110..=0x115,
    0x120..=0x121,
    0x130..=0x130,
    0x140..=0x141,
    0x150..=0x150,
    0x160..=0x160,
    0x170..=0x170,
    0x180..=0x180,
    0x190..=0x191,
    0x1a0..=0x1a1,
    0x1b0..=0x1b1,
    0x1b5..=0x1b9,
    0x1ff..=0x1ff,
    0x200..=0x202,
    0x203..=0x203,
    0x8000_0000..=0x8000_0000,
    0x8000_1234..=0x8000_1234,
    0xffff_ffff..=0xffff_ffff,
];

/// Two HSMs whose keys may be signed with twice; a token is tried again soon after each of many failures.
fn light() -> Fire {
    Fire::light_site(&[&["one"], &["two"]], TOKEN, "repeatable = true", |site| {
        site.segld_toml.push_str("\n[pool]\nbackoff_min = \"10ms\"\nbackoff_max = \"100ms\"\n");
    })
}

/// Each code once, one after the other, under full load.
fn every_code_from(call: Call) {
    let fire = light();
    let calls = || fire.hsms[0].counts().unwrap().of(call);
    let accounts = fire.load(|load| {
        for code in CODES.into_iter().flatten() {
            let before = calls();
            fire.hsms[0].fault(call, When::Times(1), Does::Answer(code)).unwrap();
            load.answers(32);
            // Its call may be a self-test's, if the one before has cost the token.
            until("it has answered so", || calls() > before);
        }
        fire.recovered();
    });
    let ashes = fire.put_out(&accounts, &[]);
    let Calls { failed, unknown, .. } = ashes.calls("one");
    assert!(failed + unknown >= CODES.into_iter().flatten().count() as u64, "{failed} failed and {unknown} unknown");
}

#[test]
fn no_code_that_c_signinit_can_answer_reaches_a_client() {
    every_code_from(Call::SignInit);
}

#[test]
fn no_code_that_c_sign_can_answer_reaches_a_client_of_a_repeatable_key() {
    every_code_from(Call::Sign);
}

/// The call fails from now on, and something has it made; then it does not fail any more.
fn fails_for_a_while(fire: &Fire, load: &Load, call: Call, why: Command) {
    let calls = || fire.hsms[0].counts().unwrap().of(call);
    let before = calls();
    let fault = fire.hsms[0].fault(call, When::Always, Does::Answer(CKR_DEVICE_REMOVED)).unwrap();
    fire.tell(why);
    load.answers(500);
    until(&format!("{call:?} is made"), || calls() > before);
    fire.hsms[0].clear(fault).unwrap();
    fire.recovered();
}

#[test]
fn no_call_that_fails_for_a_while_reaches_a_client_and_afterwards_the_token_signs_again() {
    let fire = light();
    let accounts = fire.load(|load| {
        for call in [
            Call::GetSlotList,
            Call::GetTokenInfo,
            Call::OpenSession,
            Call::GetSessionInfo,
            Call::Login,
            Call::FindObjectsInit,
            Call::FindObjects,
            Call::FindObjectsFinal,
            Call::GetAttributeValue,
            Call::SignInit,
            Call::Sign,
            Call::CloseSession,
        ] {
            fails_for_a_while(&fire, load, call, Command::LogOut { token: None });
        }
        fails_for_a_while(&fire, load, Call::Initialize, dies());
    });
    fire.put_out(&accounts, &[]);
}

#[test]
fn a_module_that_will_not_end_for_a_while_costs_no_request_anything_and_is_begun_anew_afterwards() {
    let fire = light();
    let mut in_vain = 0;
    let accounts = fire.load(|load| {
        let finalised = || fire.hsms[0].counts().unwrap().of(Call::Finalize);
        let before = finalised();
        let fault = fire.hsms[0].fault(Call::Finalize, When::Always, Does::Answer(CKR_DEVICE_REMOVED)).unwrap();
        fire.tell(dies());
        load.answers(500);
        until("C_Finalize is tried", || finalised() > before);
        fire.hsms[0].clear(fault).unwrap();
        fire.recovered();
        // The last one succeeded; whether one that failed has ended the module after all, only C_Initialize tells.
        in_vain = finalised() - before - 1;
    });
    assert!(in_vain > 0);
    fire.put_out_but(&accounts, &[], Violations { second_initialise: in_vain, ..Violations::default() });
}

fn dies() -> Command {
    Command::Die { token: None, opens: true, until: Revives::Finalise }
}

#[test]
fn a_keep_alive_that_fails_costs_no_request_anything() {
    const FAILS: u64 = 4;
    let fire = Fire::light_with(&TWO, "sessions = 4\nkeep_alive = \"50ms\"", "");
    let mut accounts = fire.load(|_| fire.recovered());
    for call in [Call::GetSessionInfo, Call::GenerateRandom] {
        let asked = fire.hsms[0].counts().unwrap().of(call);
        fire.hsms[0].fault(call, When::Times(FAILS), Does::Answer(CKR_DEVICE_REMOVED)).unwrap();
        until("it has failed", || fire.hsms[0].counts().unwrap().of(call) >= asked + FAILS);
        accounts.extend(fire.load(|_| fire.recovered()));
    }
    fire.put_out(&accounts, &[]);
}
