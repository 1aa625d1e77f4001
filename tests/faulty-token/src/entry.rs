//! The functions that a caller of PKCS#11 sees, and all the `unsafe` there is. Each turns what C hands over into slices
//! and numbers, asks the module, and writes the answer where C wants it.
//!
//! What it relies on is what PKCS#11 demands of a caller: pointers are null or point to what they claim, for as long as
//! the call lasts.

#![allow(unsafe_code, non_snake_case)]

use std::{
    ffi, fs,
    path::PathBuf,
    ptr, slice,
    sync::{Arc, OnceLock},
};

use cryptoki_sys::*;

use crate::{
    Call,
    keys::{MECHANISMS, Mechanism},
    module::{Module, Whom},
    server,
    signing::Signed,
};

static MODULE: OnceLock<Option<Arc<Module>>> = OnceLock::new();

/// The module of this library, made when the function list is asked for; none if its configuration is no good.
fn module() -> Result<&'static Module, CK_RV> {
    let made = MODULE.get_or_init(|| load().inspect_err(|why| eprintln!("faulty token: {why}")).ok());
    made.as_deref().ok_or(CKR_GENERAL_ERROR)
}

fn load() -> Result<Arc<Module>, String> {
    let file = own_file().map_err(|error| format!("/proc/self/maps: {error}"))?;
    let module = Arc::new(Module::load(&file.with_extension("json"))?);
    let socket = file.with_extension("sock");
    server::listen(module.clone(), &socket).map_err(|error| format!("{}: {error}", socket.display()))?;
    Ok(module)
}

/// The file this code was loaded from: the mapping that holds its address.
fn own_file() -> std::io::Result<PathBuf> {
    let here = C_GetFunctionList as *const () as usize;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mine = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let holds = usize::from_str_radix(from, 16).ok()? <= here && here < usize::from_str_radix(to, 16).ok()?;
        if holds { Some(PathBuf::from(&rest[rest.find('/')?..])) } else { None }
    });
    mine.ok_or_else(|| std::io::Error::other("no mapping holds this code"))
}

fn rv(result: Result<(), CK_RV>) -> CK_RV {
    result.err().unwrap_or(CKR_OK)
}

/// What a caller's pointer and length stand for.
///
/// # Safety
/// `pointer` is null, or readable for `len` values for as long as the call lasts.
unsafe fn slice<'a, T>(pointer: *const T, len: CK_ULONG) -> Result<&'a [T], CK_RV> {
    match (pointer.is_null(), usize::try_from(len)) {
        (_, Ok(0)) => Ok(&[]),
        // SAFETY: not null, and the caller's promise.
        (false, Ok(len)) => Ok(unsafe { slice::from_raw_parts(pointer, len) }),
        _ => Err(CKR_ARGUMENTS_BAD),
    }
}

/// Writes one value.
///
/// # Safety
/// `place` is null or writable.
unsafe fn put<T>(place: *mut T, value: T) -> Result<(), CK_RV> {
    if place.is_null() {
        return Err(CKR_ARGUMENTS_BAD);
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { place.write(value) };
    Ok(())
}

/// Writes a list in the way of PKCS#11 3.1 §5.2: the length alone without a place, and nothing into too small a one.
///
/// # Safety
/// `len` is null or a number to read and write; `place` is null or writable for as many values as it says.
unsafe fn put_list<T: Copy>(place: *mut T, len: *mut CK_ULONG, values: &[T]) -> Result<(), CK_RV> {
    if len.is_null() {
        return Err(CKR_ARGUMENTS_BAD);
    }
    // SAFETY: not null, and the caller's promise.
    let room = unsafe { len.replace(values.len() as CK_ULONG) };
    if place.is_null() {
        return Ok(());
    }
    if (room as usize) < values.len() {
        return Err(CKR_BUFFER_TOO_SMALL);
    }
    // SAFETY: there is room for them, by the caller's promise.
    unsafe { ptr::copy_nonoverlapping(values.as_ptr(), place, values.len()) };
    Ok(())
}

/// Text as PKCS#11 has it: padded with blanks.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [b' '; N];
    let len = text.len().min(N);
    bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
    bytes
}

const MANUFACTURER: &str = "Segl's tests";
const VERSION: CK_VERSION = CK_VERSION { major: 2, minor: 40 };

extern "C" fn initialize(_arguments: *mut ffi::c_void) -> CK_RV {
    rv(module().and_then(Module::initialise))
}

extern "C" fn finalize(_reserved: *mut ffi::c_void) -> CK_RV {
    rv(module().and_then(Module::finalise))
}

unsafe extern "C" fn get_info(info: *mut CK_INFO) -> CK_RV {
    let value = CK_INFO {
        cryptokiVersion: VERSION,
        manufacturerID: padded(MANUFACTURER),
        flags: 0,
        libraryDescription: padded("faulty token"),
        libraryVersion: VERSION,
    };
    rv(module().and_then(|module| {
        module.call(Call::GetInfo, Whom::Module, |_| Ok(()))?;
        // SAFETY: null or writable, as PKCS#11 demands.
        unsafe { put(info, value) }
    }))
}

unsafe extern "C" fn get_slot_list(with_token: CK_BBOOL, list: *mut CK_SLOT_ID, len: *mut CK_ULONG) -> CK_RV {
    rv(module().and_then(|module| {
        let slots = module.call(Call::GetSlotList, Whom::Module, |state| Ok(state.slots(with_token != CK_FALSE)))?;
        // SAFETY: as PKCS#11 demands of both.
        unsafe { put_list(list, len, &slots) }
    }))
}

unsafe extern "C" fn get_slot_info(slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO) -> CK_RV {
    rv(module().and_then(|module| {
        let present = module.call(Call::GetSlotInfo, Whom::Slot(slot), |state| {
            let place = state.token_in(slot)?;
            Ok(state.tokens[place].present)
        })?;
        let value = CK_SLOT_INFO {
            slotDescription: padded("a slot of the faulty token"),
            manufacturerID: padded(MANUFACTURER),
            flags: CKF_HW_SLOT | CKF_REMOVABLE_DEVICE | if present { CKF_TOKEN_PRESENT } else { 0 },
            hardwareVersion: VERSION,
            firmwareVersion: VERSION,
        };
        // SAFETY: null or writable, as PKCS#11 demands.
        unsafe { put(info, value) }
    }))
}

unsafe extern "C" fn get_token_info(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    rv(module().and_then(|module| {
        let value = module.call(Call::GetTokenInfo, Whom::Slot(slot), |state| {
            let place = state.token_present(slot)?;
            let open = state.sessions.of(place);
            let token = &state.tokens[place];
            let most = token.sessions_max.filter(|_| token.sessions_announced).unwrap_or(CK_EFFECTIVELY_INFINITE);
            Ok(CK_TOKEN_INFO {
                label: padded(&token.label),
                manufacturerID: padded(MANUFACTURER),
                model: padded("faulty"),
                serialNumber: padded(&token.serial),
                flags: token.flags(),
                ulMaxSessionCount: most,
                ulSessionCount: open,
                ulMaxRwSessionCount: most,
                ulRwSessionCount: 0,
                ulMaxPinLen: 64,
                ulMinPinLen: 1,
                ulTotalPublicMemory: CK_UNAVAILABLE_INFORMATION,
                ulFreePublicMemory: CK_UNAVAILABLE_INFORMATION,
                ulTotalPrivateMemory: CK_UNAVAILABLE_INFORMATION,
                ulFreePrivateMemory: CK_UNAVAILABLE_INFORMATION,
                hardwareVersion: VERSION,
                firmwareVersion: VERSION,
                utcTime: padded(""),
            })
        })?;
        // SAFETY: null or writable, as PKCS#11 demands.
        unsafe { put(info, value) }
    }))
}

unsafe extern "C" fn get_mechanism_list(slot: CK_SLOT_ID, list: *mut CK_MECHANISM_TYPE, len: *mut CK_ULONG) -> CK_RV {
    rv(module().and_then(|module| {
        module.call(Call::GetMechanismList, Whom::Slot(slot), |state| state.token_present(slot).map(drop))?;
        // SAFETY: as PKCS#11 demands of both.
        unsafe { put_list(list, len, &MECHANISMS) }
    }))
}

unsafe extern "C" fn get_mechanism_info(
    slot: CK_SLOT_ID,
    mechanism: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    rv(module().and_then(|module| {
        module.call(Call::GetMechanismInfo, Whom::Slot(slot), |state| state.token_present(slot).map(drop))?;
        let (least, most) = match mechanism {
            CKM_RSA_PKCS | CKM_RSA_PKCS_PSS => (2048, 8192),
            CKM_ECDSA => (256, 521),
            CKM_EDDSA => (255, 255),
            _ => return Err(CKR_MECHANISM_INVALID),
        };
        // SAFETY: null or writable, as PKCS#11 demands.
        unsafe { put(info, CK_MECHANISM_INFO { ulMinKeySize: least, ulMaxKeySize: most, flags: CKF_SIGN }) }
    }))
}

unsafe extern "C" fn open_session(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    _application: *mut ffi::c_void,
    _notify: CK_NOTIFY,
    handle: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    rv(module().and_then(|module| {
        let opened = module.open_session(slot, flags)?;
        // SAFETY: null or writable, as PKCS#11 demands.
        unsafe { put(handle, opened) }
    }))
}

extern "C" fn close_session(handle: CK_SESSION_HANDLE) -> CK_RV {
    rv(module().and_then(|module| module.close_session(handle)))
}

extern "C" fn close_all_sessions(slot: CK_SLOT_ID) -> CK_RV {
    rv(module().and_then(|module| module.close_all_sessions(slot)))
}

unsafe extern "C" fn get_session_info(handle: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO) -> CK_RV {
    rv(module().and_then(|module| {
        let session = module.session_info(handle)?;
        let state = if session.logged_in { CKS_RO_USER_FUNCTIONS } else { CKS_RO_PUBLIC_SESSION };
        let value = CK_SESSION_INFO { slotID: session.slot, state, flags: CKF_SERIAL_SESSION, ulDeviceError: 0 };
        // SAFETY: null or writable, as PKCS#11 demands.
        unsafe { put(info, value) }
    }))
}

unsafe extern "C" fn login(handle: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut u8, len: CK_ULONG) -> CK_RV {
    rv(module().and_then(|module| {
        // SAFETY: as PKCS#11 demands of both.
        module.log_in(handle, user, unsafe { slice(pin, len) }?)
    }))
}

extern "C" fn logout(handle: CK_SESSION_HANDLE) -> CK_RV {
    rv(module().and_then(|module| module.log_out(handle)))
}

unsafe extern "C" fn get_attribute_value(
    handle: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    rv(module().and_then(|module| {
        // SAFETY: as PKCS#11 demands of both. The slice is not used after the first write below.
        let wanted: Vec<_> = unsafe { slice(template, count) }?.iter().map(|attribute| attribute.type_).collect();
        let values = module.attributes(handle, object, &wanted)?;
        let mut answer = Ok(());
        for (at, value) in values.iter().enumerate() {
            // SAFETY: within the template, which is the caller's to be written to.
            let attribute = unsafe { &mut *template.add(at) };
            let Some(value) = value else {
                attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
                answer = Err(CKR_ATTRIBUTE_TYPE_INVALID);
                continue;
            };
            // SAFETY: the attribute's place is null or writable for the length it says.
            let put = unsafe { put_list(attribute.pValue.cast::<u8>(), &mut attribute.ulValueLen, value) };
            if put.is_err() {
                attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
                answer = put;
            }
        }
        answer
    }))
}

unsafe extern "C" fn find_objects_init(
    handle: CK_SESSION_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    rv(module().and_then(|module| {
        // SAFETY: as PKCS#11 demands of both.
        let attributes = unsafe { slice(template, count) }?;
        let wanted = attributes.iter().map(|attribute| {
            // SAFETY: as PKCS#11 demands of an attribute in a template.
            let value = unsafe { slice(attribute.pValue.cast::<u8>().cast_const(), attribute.ulValueLen) }?;
            Ok((attribute.type_, value.to_vec()))
        });
        module.find_objects_init(handle, &wanted.collect::<Result<_, CK_RV>>()?)
    }))
}

unsafe extern "C" fn find_objects(
    handle: CK_SESSION_HANDLE,
    objects: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    rv(module().and_then(|module| {
        if objects.is_null() || count.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        let found = module.find_objects(handle, usize::try_from(most).unwrap_or(usize::MAX))?;
        // SAFETY: not null, and the caller's: `count` to write, `objects` for as many as `most`, of which no more were
        // found.
        unsafe {
            count.write(most);
            put_list(objects, count, &found)
        }
    }))
}

extern "C" fn find_objects_final(handle: CK_SESSION_HANDLE) -> CK_RV {
    rv(module().and_then(|module| module.find_objects_final(handle)))
}

unsafe extern "C" fn sign_init(
    handle: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    rv(module().and_then(|module| {
        if mechanism.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        // SAFETY: not null, so a mechanism to read.
        let mechanism = unsafe { mechanism.read() };
        let of_pss = mechanism.ulParameterLen as usize == size_of::<CK_RSA_PKCS_PSS_PARAMS>();
        let pss = (mechanism.mechanism == CKM_RSA_PKCS_PSS && of_pss && !mechanism.pParameter.is_null()).then(|| {
            // SAFETY: not null, and as long as the structure that goes with the mechanism.
            let pss = unsafe { mechanism.pParameter.cast::<CK_RSA_PKCS_PSS_PARAMS>().read_unaligned() };
            (pss.hashAlg, pss.mgf, pss.sLen)
        });
        module.sign_init(handle, Mechanism { number: mechanism.mechanism, pss }, key)
    }))
}

unsafe extern "C" fn sign(
    handle: CK_SESSION_HANDLE,
    data: *mut u8,
    data_len: CK_ULONG,
    signature: *mut u8,
    len: *mut CK_ULONG,
) -> CK_RV {
    rv(module().and_then(|module| {
        if len.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        if signature.is_null() {
            let needed = module.signature_len(handle)?;
            // SAFETY: not null, and the caller's to be written to.
            return unsafe { put(len, needed as CK_ULONG) };
        }
        // SAFETY: as PKCS#11 demands of all four.
        let (data, room) = unsafe { (slice(data.cast_const(), data_len)?, len.read() as usize) };
        match module.sign(handle, data, room)? {
            Signed::TooLong(needed) => {
                // SAFETY: not null, and the caller's to be written to.
                unsafe { put(len, needed as CK_ULONG) }?;
                Err(CKR_BUFFER_TOO_SMALL)
            }
            Signed::Signature { bytes, announced } => {
                // SAFETY: `signature` has room for `room` bytes, and no more are written whatever is announced.
                unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), signature, bytes.len().min(room)) };
                // SAFETY: not null, and the caller's to be written to.
                unsafe { put(len, announced) }
            }
        }
    }))
}

unsafe extern "C" fn generate_random(handle: CK_SESSION_HANDLE, place: *mut u8, len: CK_ULONG) -> CK_RV {
    rv(module().and_then(|module| {
        let bytes = module.call(Call::GenerateRandom, Whom::Session(handle), |state| {
            state.session(handle, false)?;
            let mut bytes = vec![0; usize::try_from(len).map_err(|_| CKR_ARGUMENTS_BAD)?];
            getrandom::fill(&mut bytes).map_err(|_| CKR_DEVICE_ERROR)?;
            Ok(bytes)
        })?;
        let mut room = len;
        if place.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        // SAFETY: not null, and the caller's to be written to for `len` bytes.
        unsafe { put_list(place, &mut room, &bytes) }
    }))
}

macro_rules! unsupported {
    ($($name:ident($($argument:ident)*);)*) => {
        $(extern "C" fn $name<$($argument),*>($(_: $argument),*) -> CK_RV {
            CKR_FUNCTION_NOT_SUPPORTED
        })*
    };
}

// By the number of their arguments, whose types the function list tells.
unsupported! {
    unsupported1(A);
    unsupported2(A B);
    unsupported3(A B C);
    unsupported4(A B C D);
    unsupported5(A B C D E);
    unsupported6(A B C D E F);
    unsupported8(A B C D E F G H);
}

/// The one function that a caller finds by name.
///
/// # Safety
/// `list` is null or a place for a pointer.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    // SAFETY: the caller's promise. Nobody writes to a function list.
    rv(module().and_then(|_| unsafe { put(list, (&raw const FUNCTIONS).cast_mut()) }))
}

static FUNCTIONS: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
    version: VERSION,
    C_Initialize: Some(initialize),
    C_Finalize: Some(finalize),
    C_GetInfo: Some(get_info),
    C_GetFunctionList: Some(C_GetFunctionList),
    C_GetSlotList: Some(get_slot_list),
    C_GetSlotInfo: Some(get_slot_info),
    C_GetTokenInfo: Some(get_token_info),
    C_GetMechanismList: Some(get_mechanism_list),
    C_GetMechanismInfo: Some(get_mechanism_info),
    C_InitToken: Some(unsupported4),
    C_InitPIN: Some(unsupported3),
    C_SetPIN: Some(unsupported5),
    C_OpenSession: Some(open_session),
    C_CloseSession: Some(close_session),
    C_CloseAllSessions: Some(close_all_sessions),
    C_GetSessionInfo: Some(get_session_info),
    C_GetOperationState: Some(unsupported3),
    C_SetOperationState: Some(unsupported5),
    C_Login: Some(login),
    C_Logout: Some(logout),
    C_CreateObject: Some(unsupported4),
    C_CopyObject: Some(unsupported5),
    C_DestroyObject: Some(unsupported2),
    C_GetObjectSize: Some(unsupported3),
    C_GetAttributeValue: Some(get_attribute_value),
    C_SetAttributeValue: Some(unsupported4),
    C_FindObjectsInit: Some(find_objects_init),
    C_FindObjects: Some(find_objects),
    C_FindObjectsFinal: Some(find_objects_final),
    C_EncryptInit: Some(unsupported3),
    C_Encrypt: Some(unsupported5),
    C_EncryptUpdate: Some(unsupported5),
    C_EncryptFinal: Some(unsupported3),
    C_DecryptInit: Some(unsupported3),
    C_Decrypt: Some(unsupported5),
    C_DecryptUpdate: Some(unsupported5),
    C_DecryptFinal: Some(unsupported3),
    C_DigestInit: Some(unsupported2),
    C_Digest: Some(unsupported5),
    C_DigestUpdate: Some(unsupported3),
    C_DigestKey: Some(unsupported2),
    C_DigestFinal: Some(unsupported3),
    C_SignInit: Some(sign_init),
    C_Sign: Some(sign),
    C_SignUpdate: Some(unsupported3),
    C_SignFinal: Some(unsupported3),
    C_SignRecoverInit: Some(unsupported3),
    C_SignRecover: Some(unsupported5),
    C_VerifyInit: Some(unsupported3),
    C_Verify: Some(unsupported5),
    C_VerifyUpdate: Some(unsupported3),
    C_VerifyFinal: Some(unsupported3),
    C_VerifyRecoverInit: Some(unsupported3),
    C_VerifyRecover: Some(unsupported5),
    C_DigestEncryptUpdate: Some(unsupported5),
    C_DecryptDigestUpdate: Some(unsupported5),
    C_SignEncryptUpdate: Some(unsupported5),
    C_DecryptVerifyUpdate: Some(unsupported5),
    C_GenerateKey: Some(unsupported5),
    C_GenerateKeyPair: Some(unsupported8),
    C_WrapKey: Some(unsupported6),
    C_UnwrapKey: Some(unsupported8),
    C_DeriveKey: Some(unsupported6),
    C_SeedRandom: Some(unsupported3),
    C_GenerateRandom: Some(generate_random),
    C_GetFunctionStatus: Some(unsupported1),
    C_CancelFunction: Some(unsupported1),
    C_WaitForSlotEvent: Some(unsupported3),
};
