//! The ceiling's own road to a PKCS#11 token, without segl-hsm: C_SignInit and one C_Sign, by the module's function list,
//! as tight as a loop can be. If it went through segl-hsm, a slower segl-hsm would flatter every ratio.
//!
//! All `unsafe` of the bench is here. What it relies on: the module keeps the promises of PKCS#11, and a session is used
//! by one thread at a time.

#![allow(unsafe_code)]

use std::{path::Path, ptr};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    object::{Attribute, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    types::AuthPin,
};
use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_MECHANISM, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CKM_ECDSA,
    CKM_EDDSA, CKM_RSA_PKCS, CKR_OK,
};
use segl_hsm::pkcs11::Uri;
use segl_tests::Result;

use crate::key::{Key, PAYLOAD_LEN};

type SignInit = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE) -> CK_RV;
type Sign = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> CK_RV;

/// A module that was loaded and initialised, and the slot of the token in it.
pub(crate) struct BareModule {
    context: Pkcs11,
    slot: cryptoki::slot::Slot,
    pin: AuthPin,
    key_uri: Uri,
    sign_init: SignInit,
    sign: Sign,
    /// Holds the library loaded while the pointers are in use
    _library: cryptoki_sys::Pkcs11,
}

/// A session, logged in, and the handle of the key.
pub(crate) struct BareSession<'a> {
    module: &'a BareModule,
    session: Session,
    key: ObjectHandle,
    mechanism: CK_MECHANISM_TYPE,
    /// What stands before a digest in PKCS#1 v1.5 (RFC 8017 §9.2, note 1: SHA-256), nothing for others
    head: &'static [u8],
}

const DIGEST_INFO_SHA256: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];

impl BareModule {
    /// Loads it. `token` and `key` are RFC 7512 URIs.
    pub(crate) fn load(path: &Path, token: &str, key: &str, pin_file: &Path) -> Result<BareModule> {
        let context = Pkcs11::new(path)?;
        context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
        let wanted: Uri = token.parse()?;
        let mut found = Vec::new();
        for slot in context.get_slots_with_token()? {
            let info = context.get_token_info(slot)?;
            let is = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|wanted| wanted == has.trim_end());
            if info.token_initialized()
                && is(&wanted.token, info.label())
                && is(&wanted.serial, info.serial_number())
                && is(&wanted.manufacturer, info.manufacturer_id())
                && is(&wanted.model, info.model())
                && wanted.slot_id.is_none_or(|id| id == slot.id())
            {
                found.push(slot);
            }
        }
        let [slot] = found[..] else { return Err(format!("{token}: {} tokens are like that", found.len()).into()) };
        let pin = std::fs::read_to_string(pin_file).map_err(|error| format!("{}: {error}", pin_file.display()))?;
        // SAFETY: the library's initialisers run; it is the operator's choice of trusted code and was loaded before.
        let library = unsafe { cryptoki_sys::Pkcs11::new(path) }?;
        let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
        let entry = library.C_GetFunctionList.as_ref().map_err(ToString::to_string)?;
        // SAFETY: the symbol has this signature by PKCS#11, and `list` is a place to write one pointer.
        let rv = unsafe { entry(&mut list) };
        if rv != CKR_OK || list.is_null() {
            return Err(format!("C_GetFunctionList: CKR {rv:#x}").into());
        }
        // SAFETY: not null, and the list belongs to the library, which stays loaded as long as `library` lives.
        let functions =
            unsafe { ((&raw const (*list).C_SignInit).read_unaligned(), (&raw const (*list).C_Sign).read_unaligned()) };
        let (Some(sign_init), Some(sign)) = functions else { return Err("the module can not sign".into()) };
        let pin = AuthPin::new(pin.trim_end().into());
        Ok(BareModule { context, slot, pin, key_uri: key.parse()?, sign_init, sign, _library: library })
    }

    /// Opens a session on the calling thread.
    pub(crate) fn open(&self, key: Key) -> Result<BareSession<'_>> {
        let session = self.context.open_ro_session(self.slot)?;
        match session.login(UserType::User, Some(&self.pin)) {
            // The login is the application's: the first session has done it for all.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => return Err(error.into()),
        }
        let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Token(true)];
        template.extend(self.key_uri.object.iter().map(|label| Attribute::Label(label.as_bytes().to_vec())));
        template.extend(self.key_uri.id.iter().map(|id| Attribute::Id(id.clone())));
        let found = session.find_objects(&template)?;
        let [handle] = found[..] else { return Err(format!("{} keys are like that", found.len()).into()) };
        let (mechanism, head): (_, &[u8]) = match key {
            Key::P256 => (CKM_ECDSA, &[]),
            Key::Rsa2048 | Key::Rsa3072 => (CKM_RSA_PKCS, &DIGEST_INFO_SHA256),
            Key::Ed25519 => (CKM_EDDSA, &[]),
        };
        Ok(BareSession { module: self, session, key: handle, mechanism, head })
    }
}

impl BareSession<'_> {
    /// Signs, and returns the signature's length in `out`.
    pub(crate) fn sign(&self, payload: &[u8; PAYLOAD_LEN], out: &mut [u8; 1024]) -> Result<usize, String> {
        let mut data = [0; DIGEST_INFO_SHA256.len() + PAYLOAD_LEN];
        let len = self.head.len() + PAYLOAD_LEN;
        data[..self.head.len()].copy_from_slice(self.head);
        data[self.head.len()..len].copy_from_slice(payload);
        let mut mechanism = CK_MECHANISM { mechanism: self.mechanism, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        // SAFETY: `mechanism` lives to the end of this function; the module copies what it keeps.
        let rv = unsafe { (self.module.sign_init)(self.session.handle(), &mut mechanism, self.key.handle()) };
        if rv != CKR_OK {
            return Err(format!("C_SignInit: CKR {rv:#x}"));
        }
        let mut written = out.len() as CK_ULONG;
        // SAFETY: `data` is readable for `len` bytes, `out` writable for `written`; neither overlaps the other.
        let rv = unsafe {
            (self.module.sign)(
                self.session.handle(),
                data.as_mut_ptr(),
                len as CK_ULONG,
                out.as_mut_ptr(),
                &mut written,
            )
        };
        if rv == CKR_OK { Ok(written as usize) } else { Err(format!("C_Sign: CKR {rv:#x}")) }
    }
}
