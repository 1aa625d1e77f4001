//! Judges that we did not write look at everything that is made here: libraries for JWS in Python and Node, XML
//! signatures' libraries and SAML service providers in Python, and xmlsec1.

#![allow(clippy::unwrap_used, reason = "a test that can not go on says where")]

mod encryption;
mod jws;
mod published;
mod readers;
mod signatures;
mod tools;
