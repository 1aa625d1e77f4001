//! The functions that a caller of PKCS#11 sees, and all the `unsafe` there is. What it relies on is what PKCS#11 demands
//! of a caller: pointers are null or point to what they claim, for as long as the call lasts.

#![allow(unsafe_code, non_snake_case)]

use std::{
    collections::BTreeSet,
    ffi, ptr, slice,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use cryptoki_sys::*;

use crate::{CONFIGURATION_VARIABLE, Configuration, service::Service};

const SLOT: CK_SLOT_ID = 1;
const KEY: CK_OBJECT_HANDLE = 1;
const VERSION: CK_VERSION = CK_VERSION { major: 2, minor: 40 };
const MECHANISMS: [CK_MECHANISM_TYPE; 4] = [CKM_RSA_PKCS, CKM_RSA_PKCS_PSS, CKM_ECDSA, CKM_EDDSA];

struct Module {
    configuration: Configuration,
    service: Service,
    /// What every call gives
    signature: Vec<u8>,
    sessions: AtomicU64,
    /// Sessions whose search has found nothing yet
    searches: Mutex<BTreeSet<CK_SESSION_HANDLE>>,
}

static MODULE: OnceLock<Option<Module>> = OnceLock::new();

fn module() -> Result<&'static Module, CK_RV> {
    let made = MODULE.get_or_init(|| load().inspect_err(|why| eprintln!("simulated token: {why}")).ok());
    made.as_ref().ok_or(CKR_GENERAL_ERROR)
}

fn load() -> Result<Module, String> {
    let path =
        std::env::var_os(CONFIGURATION_VARIABLE).ok_or_else(|| format!("{CONFIGURATION_VARIABLE} is not set"))?;
    let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let configuration: Configuration = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    // Two halves that are numbers between 1 and any curve's order, so that an ECDSA encoding of it can be made.
    let mut signature = vec![0x5e; configuration.signature_len];
    let half = signature.len() / 2;
    signature[0] = 0x1e;
    signature[half] = 0x1e;
    let service = Service::new(configuration.tempo);
    Ok(Module { configuration, service, signature, sessions: AtomicU64::new(0), searches: Mutex::default() })
}

impl Module {
    fn searches(&self) -> MutexGuard<'_, BTreeSet<CK_SESSION_HANDLE>> {
        self.searches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attribute of the key's private object.
    fn attribute(&self, attribute: CK_ATTRIBUTE_TYPE) -> Option<Vec<u8>> {
        let number = |value: CK_ULONG| Some(value.to_ne_bytes().to_vec());
        match attribute {
            CKA_CLASS => number(CKO_PRIVATE_KEY),
            CKA_KEY_TYPE => number(self.configuration.key_type as CK_ULONG),
            CKA_LABEL => Some(self.configuration.key_label.clone().into_bytes()),
            CKA_ID => Some(vec![1]),
            CKA_TOKEN | CKA_PRIVATE | CKA_SIGN | CKA_SENSITIVE => Some(vec![CK_TRUE]),
            CKA_ALWAYS_AUTHENTICATE | CKA_EXTRACTABLE | CKA_MODIFIABLE => Some(vec![CK_FALSE]),
            CKA_PUBLIC_KEY_INFO => Some(self.configuration.spki_der.clone()),
            _ => None,
        }
    }
}

fn rv(result: Result<(), CK_RV>) -> CK_RV {
    result.err().unwrap_or(CKR_OK)
}

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

extern "C" fn initialize(_arguments: *mut ffi::c_void) -> CK_RV {
    rv(module().map(drop))
}

extern "C" fn nothing_to_do1<A>(_: A) -> CK_RV {
    CKR_OK
}

unsafe extern "C" fn get_info(info: *mut CK_INFO) -> CK_RV {
    let value = CK_INFO {
        cryptokiVersion: VERSION,
        manufacturerID: padded("Segl's benches"),
        flags: 0,
        libraryDescription: padded("simulated token"),
        libraryVersion: VERSION,
    };
    // SAFETY: null or writable, as PKCS#11 demands.
    rv(unsafe { put(info, value) })
}

unsafe extern "C" fn get_slot_list(_with_token: CK_BBOOL, list: *mut CK_SLOT_ID, len: *mut CK_ULONG) -> CK_RV {
    // SAFETY: as PKCS#11 demands of both.
    rv(unsafe { put_list(list, len, &[SLOT]) })
}

unsafe extern "C" fn get_slot_info(_slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO) -> CK_RV {
    let value = CK_SLOT_INFO {
        slotDescription: padded("simulated"),
        manufacturerID: padded("Segl's benches"),
        flags: CKF_HW_SLOT | CKF_TOKEN_PRESENT,
        hardwareVersion: VERSION,
        firmwareVersion: VERSION,
    };
    // SAFETY: null or writable, as PKCS#11 demands.
    rv(unsafe { put(info, value) })
}

unsafe extern "C" fn get_token_info(_slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    rv(module().and_then(|module| {
        let value = CK_TOKEN_INFO {
            label: padded(&module.configuration.label),
            manufacturerID: padded("Segl's benches"),
            model: padded("simulated"),
            serialNumber: padded("1"),
            flags: CKF_TOKEN_INITIALIZED | CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED,
            ulMaxSessionCount: CK_EFFECTIVELY_INFINITE,
            ulSessionCount: CK_UNAVAILABLE_INFORMATION,
            ulMaxRwSessionCount: CK_EFFECTIVELY_INFINITE,
            ulRwSessionCount: CK_UNAVAILABLE_INFORMATION,
            ulMaxPinLen: 255,
            ulMinPinLen: 1,
            ulTotalPublicMemory: CK_UNAVAILABLE_INFORMATION,
            ulFreePublicMemory: CK_UNAVAILABLE_INFORMATION,
            ulTotalPrivateMemory: CK_UNAVAILABLE_INFORMATION,
            ulFreePrivateMemory: CK_UNAVAILABLE_INFORMATION,
            hardwareVersion: VERSION,
            firmwareVersion: VERSION,
            utcTime: padded(""),
        };
        // SAFETY: null or writable, as PKCS#11 demands.
        unsafe { put(info, value) }
    }))
}

unsafe extern "C" fn get_mechanism_list(_slot: CK_SLOT_ID, list: *mut CK_MECHANISM_TYPE, len: *mut CK_ULONG) -> CK_RV {
    // SAFETY: as PKCS#11 demands of both.
    rv(unsafe { put_list(list, len, &MECHANISMS) })
}

unsafe extern "C" fn get_mechanism_info(
    _slot: CK_SLOT_ID,
    _mechanism: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    // SAFETY: null or writable, as PKCS#11 demands.
    rv(unsafe { put(info, CK_MECHANISM_INFO { ulMinKeySize: 255, ulMaxKeySize: 8192, flags: CKF_SIGN }) })
}

unsafe extern "C" fn open_session(
    _slot: CK_SLOT_ID,
    _flags: CK_FLAGS,
    _application: *mut ffi::c_void,
    _notify: CK_NOTIFY,
    handle: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    rv(module().and_then(|module| {
        let opened = module.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        // SAFETY: null or writable, as PKCS#11 demands.
        unsafe { put(handle, opened as CK_SESSION_HANDLE) }
    }))
}

unsafe extern "C" fn get_session_info(_handle: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO) -> CK_RV {
    let value =
        CK_SESSION_INFO { slotID: SLOT, state: CKS_RO_USER_FUNCTIONS, flags: CKF_SERIAL_SESSION, ulDeviceError: 0 };
    // SAFETY: null or writable, as PKCS#11 demands.
    rv(unsafe { put(info, value) })
}

extern "C" fn login(_handle: CK_SESSION_HANDLE, _user: CK_USER_TYPE, _pin: *mut u8, _len: CK_ULONG) -> CK_RV {
    CKR_OK
}

unsafe extern "C" fn get_attribute_value(
    _handle: CK_SESSION_HANDLE,
    _object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    rv(module().and_then(|module| {
        let mut answer = Ok(());
        for at in 0..if template.is_null() { 0 } else { count as usize } {
            // SAFETY: within the template, which is the caller's to be written to.
            let attribute = unsafe { &mut *template.add(at) };
            let Some(value) = module.attribute(attribute.type_) else {
                attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
                answer = Err(CKR_ATTRIBUTE_TYPE_INVALID);
                continue;
            };
            // SAFETY: the attribute's place is null or writable for the length it says.
            let put = unsafe { put_list(attribute.pValue.cast::<u8>(), &mut attribute.ulValueLen, &value) };
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
        let wanted = unsafe { slice(template.cast_const(), count) }?;
        let matches = wanted.iter().map(|attribute| {
            // SAFETY: as PKCS#11 demands of an attribute in a template.
            let value = unsafe { slice(attribute.pValue.cast::<u8>().cast_const(), attribute.ulValueLen) }?;
            Ok(module.attribute(attribute.type_).as_deref() == Some(value))
        });
        if matches.collect::<Result<Vec<_>, CK_RV>>()?.into_iter().all(|fits| fits) {
            module.searches().insert(handle);
        }
        Ok(())
    }))
}

unsafe extern "C" fn find_objects(
    handle: CK_SESSION_HANDLE,
    objects: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    rv(module().and_then(|module| {
        if objects.is_null() || count.is_null() || most == 0 {
            return Err(CKR_ARGUMENTS_BAD);
        }
        let found = module.searches().remove(&handle);
        // SAFETY: neither is null, both are the caller's to be written to, and there is room for one at least.
        unsafe {
            objects.write(KEY);
            put(count, CK_ULONG::from(found))
        }
    }))
}

extern "C" fn find_objects_final(handle: CK_SESSION_HANDLE) -> CK_RV {
    rv(module().map(|module| {
        module.searches().remove(&handle);
    }))
}

/// A caller that means to sign is taken at his word: nothing is kept of it, so that a session costs nothing.
extern "C" fn sign_init(_handle: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) -> CK_RV {
    if key == KEY { CKR_OK } else { CKR_KEY_HANDLE_INVALID }
}

unsafe extern "C" fn sign(
    _handle: CK_SESSION_HANDLE,
    _data: *mut u8,
    _data_len: CK_ULONG,
    signature: *mut u8,
    len: *mut CK_ULONG,
) -> CK_RV {
    rv(module().and_then(|module| {
        if !signature.is_null() {
            module.service.serve();
        }
        // SAFETY: as PKCS#11 demands of both.
        unsafe { put_list(signature, len, &module.signature) }
    }))
}

unsafe extern "C" fn generate_random(_handle: CK_SESSION_HANDLE, place: *mut u8, len: CK_ULONG) -> CK_RV {
    if place.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: not null, and the caller's to be written to for `len` bytes.
    unsafe { ptr::write_bytes(place, 0x5e, len as usize) };
    CKR_OK
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
    rv(unsafe { put(list, (&raw const FUNCTIONS).cast_mut()) })
}

static FUNCTIONS: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
    version: VERSION,
    C_Initialize: Some(initialize),
    C_Finalize: Some(nothing_to_do1),
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
    C_CloseSession: Some(nothing_to_do1),
    C_CloseAllSessions: Some(nothing_to_do1),
    C_GetSessionInfo: Some(get_session_info),
    C_GetOperationState: Some(unsupported3),
    C_SetOperationState: Some(unsupported5),
    C_Login: Some(login),
    C_Logout: Some(nothing_to_do1),
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
