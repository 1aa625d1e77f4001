//! What each return value of PKCS#11 means for us: one table, a row a code, each with its reason.
//!
//! The reasons rest on PKCS#11 3.1 §5.1 and on what modules are known to do. For a call before or beside C_Sign
//! nothing was signed. For C_Sign itself a row says whether the code rules a signature out; and since a failed
//! C_Sign may leave its operation active, it costs the session at least.
//!
//! No row says that trying again is pointless everywhere: a broken module may answer anything, and what one token
//! refuses another may do. And what only an operator can mend is believed where it is said of that: of a PIN by
//! C_Login, of the process by C_Initialize. From any other call the same code costs the token's generation, and the
//! next login hears the truth.

use cryptoki::error::{Error as CryptokiError, Rv, RvError};
use cryptoki_sys::*;

use crate::{Error, Fault, Kind, Retry, Rung, Signed, Verdict};

use Fault::{Operator, Segl};
use Retry::{Elsewhere, Here};
use Signed::{No, Unknown};

struct Row {
    code: CK_RV,
    name: &'static str,
    kind: Kind,
    fault: Fault,
    /// Whether C_Sign, having returned this, may have signed.
    after_sign: Signed,
    retry: Retry,
    rung: Rung,
    reason: &'static str,
}

macro_rules! table {
    ($($code:ident: $kind:ident, $fault:expr, $signed:expr, $retry:expr, $rung:ident, $reason:literal;)*) => {
        &[$(Row {
            code: $code,
            name: stringify!($code),
            kind: Kind::$kind,
            fault: $fault,
            after_sign: $signed,
            retry: $retry,
            rung: Rung::$rung,
            reason: $reason,
        }),*]
    };
}

/// The token's fault; `Token` alone would read like the rung.
const TOKEN: Fault = Fault::Token;
/// The request's fault.
const CLIENT: Fault = Fault::Client;

/// Sorted by code.
#[rustfmt::skip]
const TABLE: &[Row] = table! {
    CKR_CANCEL: Other, TOKEN, Unknown, Here, Session, "a callback asked to stop; we give none";
    CKR_HOST_MEMORY: Overloaded, TOKEN, Unknown, Elsewhere, None, "this host is out of memory";
    CKR_SLOT_ID_INVALID: TokenAbsent, TOKEN, No, Elsewhere, Token, "slots were renumbered: find the token again";
    CKR_GENERAL_ERROR: Device, TOKEN, Unknown, Elsewhere, Token, "unrecoverable by the standard's own words; also what some modules say under load";
    CKR_FUNCTION_FAILED: Device, TOKEN, Unknown, Here, Session, "this call failed, the same call may pass";
    CKR_ARGUMENTS_BAD: Other, Segl, No, Elsewhere, Session, "checked before anything is done; we passed nonsense, in this module's opinion";
    CKR_NO_EVENT: Other, TOKEN, Unknown, Elsewhere, Session, "only C_WaitForSlotEvent says so; a module out of its mind";
    CKR_NEED_TO_CREATE_THREADS: Module, Operator, No, Elsewhere, Operator, "only C_Initialize: the module can not run as we run it";
    CKR_CANT_LOCK: Module, Operator, No, Elsewhere, Operator, "only C_Initialize: no OS locking, so no threads";
    CKR_ATTRIBUTE_READ_ONLY: Other, Segl, No, Elsewhere, None, "we write no attribute";
    CKR_ATTRIBUTE_SENSITIVE: KeyUnusable, Operator, No, Elsewhere, None, "a public attribute we must read is hidden";
    CKR_ATTRIBUTE_TYPE_INVALID: KeyUnusable, Operator, No, Elsewhere, None, "the object has no such attribute";
    CKR_ATTRIBUTE_VALUE_INVALID: KeyUnusable, Operator, No, Elsewhere, None, "a search template the token does not take";
    CKR_ACTION_PROHIBITED: KeyUnusable, Operator, No, Elsewhere, None, "the token's policy forbids it";
    CKR_DATA_INVALID: InputRefused, CLIENT, No, Elsewhere, None, "the input was looked at and refused; we have checked it, so another token may think otherwise";
    CKR_DATA_LEN_RANGE: InputRefused, CLIENT, No, Elsewhere, None, "the input's length was refused; we have checked it, so another token may think otherwise";
    CKR_DEVICE_ERROR: Device, TOKEN, Unknown, Elsewhere, Token, "the device broke off; often all its sessions are gone as well";
    CKR_DEVICE_MEMORY: Overloaded, TOKEN, Unknown, Elsewhere, None, "the device is out of memory";
    CKR_DEVICE_REMOVED: TokenAbsent, TOKEN, Unknown, Elsewhere, Token, "removed while it worked";
    CKR_ENCRYPTED_DATA_INVALID: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we decrypt nothing";
    CKR_ENCRYPTED_DATA_LEN_RANGE: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we decrypt nothing";
    CKR_AEAD_DECRYPT_FAILED: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we decrypt nothing";
    CKR_FUNCTION_CANCELED: Other, TOKEN, Unknown, Here, Session, "cancelled by an operator at the device, or by its own time-out";
    CKR_FUNCTION_NOT_PARALLEL: Nonsense, TOKEN, Unknown, Elsewhere, Session, "a legacy call's answer";
    CKR_FUNCTION_NOT_SUPPORTED: AlgorithmUnsupported, Operator, No, Elsewhere, None, "the module has a stub there";
    CKR_KEY_HANDLE_INVALID: KeyHandle, TOKEN, No, Here, Token, "the handle is stale, so all of its generation are";
    CKR_KEY_SIZE_RANGE: KeyUnusable, Operator, No, Elsewhere, None, "the token can not use a key of that size";
    CKR_KEY_TYPE_INCONSISTENT: KeyHandle, TOKEN, No, Here, Token, "we checked the type at login, so the handle names another key now";
    CKR_KEY_NOT_NEEDED: Nonsense, TOKEN, Unknown, Elsewhere, Session, "only C_SetOperationState";
    CKR_KEY_CHANGED: Nonsense, TOKEN, Unknown, Elsewhere, Session, "only C_SetOperationState";
    CKR_KEY_NEEDED: Nonsense, TOKEN, Unknown, Elsewhere, Session, "only C_SetOperationState";
    CKR_KEY_INDIGESTIBLE: Nonsense, TOKEN, Unknown, Elsewhere, Session, "only C_DigestKey";
    CKR_KEY_FUNCTION_NOT_PERMITTED: KeyUnusable, Operator, No, Elsewhere, None, "CKA_SIGN or the key's policy forbids it";
    CKR_KEY_NOT_WRAPPABLE: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we wrap nothing";
    CKR_KEY_UNEXTRACTABLE: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we extract nothing";
    CKR_MECHANISM_INVALID: AlgorithmUnsupported, Operator, No, Elsewhere, None, "the token lacks it, or the key may not do it";
    CKR_MECHANISM_PARAM_INVALID: AlgorithmUnsupported, Operator, No, Elsewhere, None, "this token does not do these PSS parameters";
    CKR_OBJECT_HANDLE_INVALID: KeyHandle, TOKEN, No, Here, Token, "the handle is stale, so all of its generation are";
    CKR_OPERATION_ACTIVE: Session, TOKEN, No, Here, Session, "something before left an operation in this session";
    CKR_OPERATION_NOT_INITIALIZED: Session, TOKEN, No, Here, Session, "the session lost our C_SignInit";
    CKR_PIN_INCORRECT: PinIncorrect, Operator, No, Elsewhere, Operator, "never try that PIN again";
    CKR_PIN_INVALID: PinIncorrect, Operator, No, Elsewhere, Operator, "it has characters the token does not take";
    CKR_PIN_LEN_RANGE: PinIncorrect, Operator, No, Elsewhere, Operator, "too short or too long; some count it as a try";
    CKR_PIN_EXPIRED: PinIncorrect, Operator, No, Elsewhere, Operator, "the operator must set another";
    CKR_PIN_LOCKED: PinLocked, Operator, No, Elsewhere, Operator, "the security officer must unlock it";
    CKR_SESSION_CLOSED: Session, TOKEN, Unknown, Here, Session, "closed while the call ran";
    CKR_SESSION_COUNT: SessionCount, TOKEN, No, Elsewhere, None, "the token has no session left";
    CKR_SESSION_HANDLE_INVALID: Session, TOKEN, No, Here, Session, "judged before anything is done; idle sessions are closed by some devices";
    CKR_SESSION_PARALLEL_NOT_SUPPORTED: Other, Segl, No, Elsewhere, Session, "we always ask for a serial session";
    CKR_SESSION_READ_ONLY: Other, Segl, No, Elsewhere, None, "we change nothing";
    CKR_SESSION_EXISTS: Other, Segl, No, Elsewhere, None, "only C_InitToken";
    CKR_SESSION_READ_ONLY_EXISTS: Other, Operator, No, Elsewhere, Operator, "only a security officer's login";
    CKR_SESSION_READ_WRITE_SO_EXISTS: Other, Operator, No, Elsewhere, Operator, "the security officer is logged in from this process";
    CKR_SIGNATURE_INVALID: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we verify nothing in the token; some check their own signature and fail";
    CKR_SIGNATURE_LEN_RANGE: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we verify nothing in the token";
    CKR_TEMPLATE_INCOMPLETE: Other, Segl, No, Elsewhere, None, "we create nothing";
    CKR_TEMPLATE_INCONSISTENT: KeyUnusable, Operator, No, Elsewhere, None, "a search template the token does not take";
    CKR_TOKEN_NOT_PRESENT: TokenAbsent, TOKEN, No, Elsewhere, Token, "gone before the call";
    CKR_TOKEN_NOT_RECOGNIZED: TokenAbsent, TOKEN, No, Elsewhere, Token, "there is something else in the slot";
    CKR_TOKEN_WRITE_PROTECTED: Other, Segl, No, Elsewhere, None, "we write nothing";
    CKR_UNWRAPPING_KEY_HANDLE_INVALID: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we wrap nothing";
    CKR_UNWRAPPING_KEY_SIZE_RANGE: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we wrap nothing";
    CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we wrap nothing";
    CKR_USER_ALREADY_LOGGED_IN: Other, TOKEN, No, Here, None, "success of a login; elsewhere out of place";
    CKR_USER_NOT_LOGGED_IN: NotLoggedIn, TOKEN, No, Here, Token, "a logout voids the handles of private objects, so the generation goes";
    CKR_USER_PIN_NOT_INITIALIZED: PinUnavailable, Operator, No, Elsewhere, Operator, "the token has no user PIN yet";
    CKR_USER_TYPE_INVALID: Other, Segl, No, Elsewhere, None, "we log in as the user only";
    CKR_USER_ANOTHER_ALREADY_LOGGED_IN: Other, Operator, No, Elsewhere, Operator, "the security officer is logged in from this process";
    CKR_USER_TOO_MANY_TYPES: Overloaded, TOKEN, No, Elsewhere, Token, "the token has no room for another user now";
    CKR_WRAPPED_KEY_INVALID: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we wrap nothing";
    CKR_WRAPPED_KEY_LEN_RANGE: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we wrap nothing";
    CKR_WRAPPING_KEY_HANDLE_INVALID: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we wrap nothing";
    CKR_WRAPPING_KEY_SIZE_RANGE: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we wrap nothing";
    CKR_WRAPPING_KEY_TYPE_INCONSISTENT: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we wrap nothing";
    CKR_RANDOM_SEED_NOT_SUPPORTED: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we seed nothing";
    CKR_RANDOM_NO_RNG: Device, TOKEN, Unknown, Elsewhere, Token, "no random numbers, so neither PSS nor ECDSA";
    CKR_DOMAIN_PARAMS_INVALID: KeyUnusable, Operator, No, Elsewhere, None, "the token does not take the key's curve";
    CKR_CURVE_NOT_SUPPORTED: KeyUnusable, Operator, No, Elsewhere, None, "the token does not take the key's curve";
    CKR_BUFFER_TOO_SMALL: Nonsense, TOKEN, Unknown, Elsewhere, Session, "there was room for any signature";
    CKR_SAVED_STATE_INVALID: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we save no state";
    CKR_INFORMATION_SENSITIVE: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we ask for nothing of the kind";
    CKR_STATE_UNSAVEABLE: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we save no state";
    CKR_CRYPTOKI_NOT_INITIALIZED: Module, TOKEN, No, Elsewhere, Module, "somebody finalised the module, or we forked";
    CKR_CRYPTOKI_ALREADY_INITIALIZED: Module, Operator, No, Elsewhere, Operator, "something else in this process uses the module";
    CKR_MUTEX_BAD: Module, TOKEN, Unknown, Elsewhere, Module, "the module's locks are broken";
    CKR_MUTEX_NOT_LOCKED: Module, TOKEN, Unknown, Elsewhere, Module, "the module's locks are broken";
    CKR_NEW_PIN_MODE: PinIncorrect, Operator, No, Elsewhere, Operator, "a one-time password's mode; a person must act";
    CKR_NEXT_OTP: PinIncorrect, Operator, No, Elsewhere, Operator, "a one-time password's mode; a person must act";
    CKR_EXCEEDED_MAX_ITERATIONS: Device, TOKEN, Unknown, Elsewhere, Session, "a search for parameters gave up";
    CKR_FIPS_SELF_TEST_FAILED: Device, TOKEN, Unknown, Elsewhere, Module, "the module has taken itself out of service";
    CKR_LIBRARY_LOAD_FAILED: Module, Operator, No, Elsewhere, Module, "a library behind the module is missing";
    CKR_PIN_TOO_WEAK: PinIncorrect, Operator, No, Elsewhere, Operator, "the operator must set another";
    CKR_PUBLIC_KEY_INVALID: KeyUnusable, Operator, No, Elsewhere, None, "the token does not take the public key";
    CKR_FUNCTION_REJECTED: KeyUnusable, Operator, No, Elsewhere, None, "rejected by somebody who must agree, so not done";
    CKR_TOKEN_RESOURCE_EXCEEDED: Overloaded, TOKEN, Unknown, Elsewhere, None, "not completed for want of some resource";
    CKR_OPERATION_CANCEL_FAILED: Session, TOKEN, Unknown, Here, Session, "an operation that will not end";
    CKR_KEY_EXHAUSTED: KeyUnusable, Operator, No, Elsewhere, None, "the key has made all the signatures it may";
    CKR_PENDING: Nonsense, TOKEN, Unknown, Elsewhere, Session, "we opened no asynchronous session";
    CKR_SESSION_ASYNC_NOT_SUPPORTED: Other, Segl, No, Elsewhere, Session, "we ask for no asynchronous session";
    CKR_SEED_RANDOM_REQUIRED: Device, Operator, No, Elsewhere, Token, "the token wants a seed before it does anything";
    CKR_OPERATION_NOT_VALIDATED: AlgorithmUnsupported, Operator, No, Elsewhere, None, "the token's validated mode forbids it";
    CKR_TOKEN_NOT_INITIALIZED: TokenAbsent, Operator, No, Elsewhere, Token, "the token is there, but blank: to look again harms nobody";
    CKR_PARAMETER_SET_NOT_SUPPORTED: AlgorithmUnsupported, Operator, No, Elsewhere, None, "the token does not take the key's parameters";
};

/// Vendors' own codes and what is in no standard: no telling what happened.
const OTHER: Row = Row {
    code: CKR_VENDOR_DEFINED,
    name: "CKR_VENDOR_DEFINED",
    kind: Kind::Device,
    fault: TOKEN,
    after_sign: Unknown,
    retry: Elsewhere,
    rung: Rung::Session,
    reason: "known to the vendor only",
};

fn row(code: CK_RV) -> &'static Row {
    TABLE.binary_search_by_key(&code, |row| row.code).map_or(&OTHER, |place| &TABLE[place])
}

/// The calls after which [`Rung::Operator`] is meant.
const SPEAKS_OF_THE_OPERATOR: [&str; 4] = ["load", "C_Initialize", "C_Login", "login"];

/// A call that is not C_Sign failed.
pub(super) fn beside_sign(context: &'static str, code: CK_RV) -> Error {
    let row = row(code);
    let out_of_place = row.rung == Rung::Operator && !SPEAKS_OF_THE_OPERATOR.contains(&context);
    let rung = if out_of_place { Rung::Token } else { row.rung };
    let verdict = Verdict { fault: row.fault, signed: No, retry: row.retry, rung };
    Error::new(row.kind, verdict, context, describe(row, code)).with_code(row.name)
}

/// C_Sign failed.
pub(super) fn in_sign(code: CK_RV) -> Error {
    let row = row(code);
    let rung = if row.rung == Rung::Operator { Rung::Token } else { row.rung.max(Rung::Session) };
    let verdict = Verdict { fault: row.fault, signed: row.after_sign, retry: row.retry, rung };
    Error::new(row.kind, verdict, "C_Sign", describe(row, code)).with_code(row.name)
}

fn describe(row: &Row, code: CK_RV) -> String {
    format!("{} ({code:#x}): {}", row.name, row.reason)
}

/// What a call through cryptoki gave, classified by the same table.
pub(super) fn from_cryptoki(context: &'static str, error: CryptokiError) -> Error {
    match error {
        CryptokiError::Pkcs11(rv, _) => beside_sign(context, code_of(rv)),
        CryptokiError::NullFunctionPointer => beside_sign(context, CKR_FUNCTION_NOT_SUPPORTED),
        CryptokiError::LibraryLoading(_) | CryptokiError::MissingSymbol(_) => {
            Error::of(Kind::Module, context, error.to_string())
        }
        other => {
            // It answered with something cryptoki can not read; nothing was signed by a call beside C_Sign.
            let verdict = Verdict { signed: No, ..Kind::Nonsense.verdict() };
            Error::new(Kind::Nonsense, verdict, context, other.to_string())
        }
    }
}

/// Whether C_Login, having returned this, did not get as far as to look at the PIN. Of what is not named here nobody
/// knows: the token may have counted a try.
pub(super) fn pin_not_looked_at(code: CK_RV) -> bool {
    matches!(
        code,
        CKR_SLOT_ID_INVALID
            | CKR_ARGUMENTS_BAD
            | CKR_DEVICE_REMOVED
            | CKR_FUNCTION_NOT_SUPPORTED
            | CKR_OPERATION_ACTIVE
            | CKR_SESSION_CLOSED
            | CKR_SESSION_HANDLE_INVALID
            | CKR_SESSION_READ_ONLY_EXISTS
            | CKR_SESSION_READ_WRITE_SO_EXISTS
            | CKR_TOKEN_NOT_PRESENT
            | CKR_TOKEN_NOT_RECOGNIZED
            | CKR_USER_ALREADY_LOGGED_IN
            | CKR_USER_PIN_NOT_INITIALIZED
            | CKR_USER_TYPE_INVALID
            | CKR_USER_ANOTHER_ALREADY_LOGGED_IN
            | CKR_USER_TOO_MANY_TYPES
            | CKR_CRYPTOKI_NOT_INITIALIZED
    )
}

/// The number behind cryptoki's enumeration.
pub(super) fn code_of(rv: RvError) -> CK_RV {
    match rv {
        RvError::VendorDefined(code) | RvError::UnknownErrorCode(code) => code,
        known => {
            let found = TABLE.iter().find(|row| Rv::from(row.code) == Rv::Error(known));
            found.map_or(CKR_VENDOR_DEFINED, |row| row.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_code_twice() {
        assert!(TABLE.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    /// The list of codes is read from the source of the bindings, so that a new version can not add one unseen.
    #[test]
    fn every_code_the_bindings_know_has_its_own_verdict() {
        let bindings = bindings_source();
        let codes: Vec<(&str, CK_RV)> = bindings
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub const CKR_")?.split_once(": CK_RV = "))
            .map(|(name, value)| (name, value.trim_end_matches(';').parse().unwrap()))
            .filter(|(name, _)| !matches!(*name, "OK" | "VENDOR_DEFINED"))
            .collect();
        assert!(codes.len() > 90, "{}", codes.len());
        for (name, code) in codes {
            let row = row(code);
            assert_eq!(row.name.strip_prefix("CKR_"), Some(name), "{code:#x}");
        }
    }

    #[test]
    fn every_code_comes_back_out_of_cryptoki() {
        for row in TABLE {
            let Rv::Error(rv) = Rv::from(row.code) else { panic!("{} is no error", row.name) };
            assert_eq!(code_of(rv), row.code, "{}", row.name);
        }
        assert_eq!(code_of(RvError::VendorDefined(0x8000_1234)), 0x8000_1234);
    }

    #[test]
    fn only_what_certainly_did_not_sign_says_so() {
        for code in [CKR_GENERAL_ERROR, CKR_DEVICE_ERROR, CKR_FUNCTION_FAILED, CKR_SESSION_CLOSED, 0x8000_0001, 0x7777]
        {
            assert_eq!(in_sign(code).verdict().signed, Unknown, "{code:#x}");
            assert_eq!(beside_sign("C_SignInit", code).verdict().signed, No, "{code:#x}");
        }
        for code in [CKR_DATA_LEN_RANGE, CKR_KEY_HANDLE_INVALID, CKR_USER_NOT_LOGGED_IN, CKR_SESSION_HANDLE_INVALID] {
            assert_eq!(in_sign(code).verdict().signed, No, "{code:#x}");
        }
    }

    #[test]
    fn a_failed_c_sign_costs_the_session_at_least() {
        assert!(TABLE.iter().all(|row| in_sign(row.code).verdict().rung >= Rung::Session));
    }

    #[test]
    fn no_code_but_a_login_s_or_a_beginning_s_takes_a_token_out_for_good() {
        for row in TABLE {
            for error in
                [in_sign(row.code), beside_sign("C_SignInit", row.code), beside_sign("C_OpenSession", row.code)]
            {
                assert!(error.verdict().rung < Rung::Operator, "{}", row.name);
                assert_ne!(error.verdict().retry, Retry::Never, "{}: another token may do it", row.name);
                assert_eq!(error.code(), row.name);
            }
        }
        for (context, code) in [("C_Login", CKR_PIN_INCORRECT), ("C_Initialize", CKR_CANT_LOCK)] {
            assert_eq!(beside_sign(context, code).verdict().rung, Rung::Operator);
        }
        assert_eq!(beside_sign("C_GetSlotList", CKR_CRYPTOKI_NOT_INITIALIZED).verdict().rung, Rung::Module);
    }

    #[test]
    fn a_token_s_failure_is_never_the_client_s_fault() {
        let client: Vec<_> = TABLE.iter().filter(|row| row.fault == CLIENT).map(|row| row.name).collect();
        assert_eq!(client, ["CKR_DATA_INVALID", "CKR_DATA_LEN_RANGE"]);
    }

    fn bindings_source() -> String {
        let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
        let metadata = std::process::Command::new(cargo)
            .args(["metadata", "--format-version=1", "--offline", "--filter-platform=x86_64-unknown-linux-gnu"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let metadata = String::from_utf8(metadata.stdout).unwrap();
        let marker = metadata
            .match_indices("/cryptoki-sys-")
            .map(|(place, _)| place)
            .find(|place| metadata[*place..].split('"').next().is_some_and(|path| path.ends_with("/Cargo.toml")))
            .expect("cargo metadata names the bindings' manifest");
        let start = metadata[..marker].rfind('"').unwrap() + 1;
        let manifest = metadata[start..].split('"').next().unwrap();
        let source = manifest.replace("Cargo.toml", "src/bindings/x86_64-unknown-linux-gnu.rs");
        std::fs::read_to_string(source).unwrap()
    }
}
