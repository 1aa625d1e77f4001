//! Finding objects and reading their attributes. The objects are private keys, so only who is logged in sees any.

use std::collections::VecDeque;

use cryptoki_sys::*;

use crate::{
    Call,
    module::{Module, State, Whom},
};

/// Attributes and their values, as a search wants them.
pub(crate) type Template = Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>;

impl State {
    fn begin_search(&mut self, handle: CK_SESSION_HANDLE, template: &Template) -> Result<(), CK_RV> {
        let session = self.session(handle, false)?;
        if session.search.is_some() {
            return Err(CKR_OPERATION_ACTIVE);
        }
        let (place, serial) = (session.token, session.serial);
        let token = &mut self.tokens[place];
        let mut found = VecDeque::new();
        if token.login.logged_in {
            let keys = token.keys.clone();
            for (at, key) in keys.all().iter().enumerate() {
                if template.iter().all(|(attribute, value)| key.attribute(*attribute).as_ref() == Some(value)) {
                    found.push_back(token.handles.find(at));
                }
            }
        }
        let session = self.sessions.same(handle, serial).expect("the lock was held since it was looked up");
        session.search = Some(found);
        Ok(())
    }
}

impl Module {
    pub(crate) fn find_objects_init(&self, handle: CK_SESSION_HANDLE, template: &Template) -> Result<(), CK_RV> {
        self.call(Call::FindObjectsInit, Whom::Session(handle), |state| state.begin_search(handle, template))
    }

    pub(crate) fn find_objects(&self, handle: CK_SESSION_HANDLE, most: usize) -> Result<Vec<CK_OBJECT_HANDLE>, CK_RV> {
        self.call(Call::FindObjects, Whom::Session(handle), |state| {
            let search = state.session(handle, false)?.search.as_mut().ok_or(CKR_OPERATION_NOT_INITIALIZED)?;
            Ok(search.drain(..most.min(search.len())).collect())
        })
    }

    pub(crate) fn find_objects_final(&self, handle: CK_SESSION_HANDLE) -> Result<(), CK_RV> {
        self.call(Call::FindObjectsFinal, Whom::Session(handle), |state| {
            let search = state.session(handle, false)?.search.take();
            search.map(drop).ok_or(CKR_OPERATION_NOT_INITIALIZED)
        })
    }

    /// The values of these attributes, none where the object has no such.
    pub(crate) fn attributes(
        &self,
        handle: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        wanted: &[CK_ATTRIBUTE_TYPE],
    ) -> Result<Vec<Option<Vec<u8>>>, CK_RV> {
        self.call(Call::GetAttributeValue, Whom::Object(handle, object), |state| {
            let token = state.session(handle, false)?.token;
            let key = state.key_of(token, object).map_err(|_| CKR_OBJECT_HANDLE_INVALID)?;
            let key = state.tokens[token].keys.key(key);
            Ok(wanted.iter().map(|attribute| key.attribute(*attribute)).collect())
        })
    }
}
