//! The fast path, and all the `unsafe` there is: C_SignInit and one single C_Sign into a buffer that is used again.
//! (`cryptoki::Session::sign` makes three calls, asks for the length first, and allocates.)
//!
//! What it relies on: the module keeps the promises of PKCS#11 (a module is trusted code in this process), and a
//! session is used by one thread at a time, which holds because `cryptoki::session::Session` is not `Sync`.

#![allow(unsafe_code)]

use std::{ffi::c_void, path::Path, ptr};

use cryptoki::{object::ObjectHandle, session::Session};
use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_INFO, CK_MECHANISM, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_RSA_PKCS_MGF_TYPE,
    CK_RSA_PKCS_PSS_PARAMS, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_OK,
};

use crate::{SIGNATURE_LEN_MAX, Signature};

type GetInfo = unsafe extern "C" fn(*mut CK_INFO) -> CK_RV;
type SignInit = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE) -> CK_RV;
type Sign = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> CK_RV;

/// The functions, and the library they live in.
pub(super) struct FastPath {
    get_info: GetInfo,
    sign_init: SignInit,
    sign: Sign,
    /// Holds the library loaded while the pointers are in use.
    _library: cryptoki_sys::Pkcs11,
}

/// A mechanism as C_SignInit takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mechanism {
    pub(super) number: CK_MECHANISM_TYPE,
    pub(super) pss: Option<PssParameters>,
}

/// CK_RSA_PKCS_PSS_PARAMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PssParameters {
    pub(super) hash: CK_MECHANISM_TYPE,
    pub(super) mgf: CK_RSA_PKCS_MGF_TYPE,
    pub(super) salt_len: CK_ULONG,
}

/// Which of the two calls failed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Before C_Sign was entered: nothing was signed
    SignInit(CK_RV),
    /// C_Sign was entered
    Sign(CK_RV),
    /// C_Sign says it wrote more than there was room for
    Overrun(CK_ULONG),
}

impl FastPath {
    /// Loads the function list. The library should be the one `cryptoki` has loaded already, since the loader gives
    /// the same handle for the same file; [`FastPath::check_initialised`] looks whether it is.
    pub(super) fn load(path: &Path) -> Result<FastPath, String> {
        // SAFETY: the library's initialisers run; it is the operator's choice of trusted code and was loaded before.
        let library = unsafe { cryptoki_sys::Pkcs11::new(path) }.map_err(|error| error.to_string())?;
        let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
        let entry = library.C_GetFunctionList.as_ref().map_err(|error| error.to_string())?;
        // SAFETY: the symbol has this signature by PKCS#11 (v2.40 §5.4), and `list` is a place to write one pointer.
        let rv = unsafe { entry(&mut list) };
        if rv != CKR_OK || list.is_null() {
            return Err(format!("C_GetFunctionList: CKR {rv:#x}"));
        }
        // SAFETY: not null, and the list belongs to the library, which stays loaded as long as `library` lives; the
        // fields stand at the same place in every version of the structure. They are read by value and unaligned,
        // since some modules pack their list.
        let (get_info, sign_init, sign) = unsafe {
            (
                (&raw const (*list).C_GetInfo).read_unaligned(),
                (&raw const (*list).C_SignInit).read_unaligned(),
                (&raw const (*list).C_Sign).read_unaligned(),
            )
        };
        let (Some(get_info), Some(sign_init), Some(sign)) = (get_info, sign_init, sign) else {
            return Err("the module has no C_GetInfo, no C_SignInit or no C_Sign".into());
        };
        Ok(FastPath { get_info, sign_init, sign, _library: library })
    }

    /// Whether the library of these functions is the one that C_Initialize was said to.
    pub(super) fn check_initialised(&self) -> Result<(), &'static str> {
        let mut info = CK_INFO::default();
        // SAFETY: `info` is a place to write one CK_INFO; the function may be called at any time.
        match unsafe { (self.get_info)(&mut info) } {
            CKR_CRYPTOKI_NOT_INITIALIZED => Err("the library was loaded twice, as if its file had been exchanged"),
            // A module that can not tell about itself may sign for all that.
            _ => Ok(()),
        }
    }

    /// Signs `data`, already in the form the mechanism wants it; the signature replaces what was in `out`.
    pub(super) fn sign(
        &self,
        session: &Session,
        mechanism: Mechanism,
        key: ObjectHandle,
        data: &mut [u8],
        out: &mut Signature,
    ) -> Result<(), Failure> {
        let mut pss =
            mechanism.pss.map(|pss| CK_RSA_PKCS_PSS_PARAMS { hashAlg: pss.hash, mgf: pss.mgf, sLen: pss.salt_len });
        let mut call = match &mut pss {
            None => CK_MECHANISM { mechanism: mechanism.number, pParameter: ptr::null_mut(), ulParameterLen: 0 },
            Some(parameters) => CK_MECHANISM {
                mechanism: mechanism.number,
                pParameter: ptr::from_mut(parameters).cast::<c_void>(),
                ulParameterLen: size_of::<CK_RSA_PKCS_PSS_PARAMS>() as CK_ULONG,
            },
        };
        // SAFETY: `call`, and what it points to, live to the end of this function; the module copies what it keeps.
        let rv = unsafe { (self.sign_init)(session.handle(), &mut call, key.handle()) };
        if rv != CKR_OK {
            return Err(Failure::SignInit(rv));
        }
        out.resize(SIGNATURE_LEN_MAX, 0);
        let mut len = SIGNATURE_LEN_MAX as CK_ULONG;
        // SAFETY: `data` is readable for its length (and ours alone, should the module write to it); `out` is
        // writable for `len` bytes, which are initialised; neither overlaps the other or `len`.
        let rv = unsafe {
            (self.sign)(session.handle(), data.as_mut_ptr(), data.len() as CK_ULONG, out.as_mut_ptr(), &mut len)
        };
        let written = usize::try_from(len).ok().filter(|len| *len <= SIGNATURE_LEN_MAX);
        match (rv, written) {
            (CKR_OK, Some(written)) => {
                out.truncate(written);
                Ok(())
            }
            (CKR_OK, None) => {
                out.clear();
                Err(Failure::Overrun(len))
            }
            (rv, _) => {
                out.clear();
                Err(Failure::Sign(rv))
            }
        }
    }
}

impl std::fmt::Debug for FastPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FastPath")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_nobody_has_initialised_is_not_signed_with() {
        let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"];
        let place = places.iter().map(Path::new).find(|path| path.exists());
        let softhsm = place.expect("SoftHSM2 is not installed: `cargo xtask test` installs what the tests need");
        // Under plain `cargo test` no other test of this crate's unit tests initialises it in this process either.
        assert!(FastPath::load(softhsm).unwrap().check_initialised().unwrap_err().contains("loaded twice"));
    }
}
