//! One suite over every token: the embedded one, SoftHSM2, Kryoptic and the faulty one keep the same promises, and the `openssl`
//! command, which shares no code with any of them, judges their signatures.

#![allow(clippy::unwrap_used)]

mod contract;
mod embedded;
mod faulty;
mod kryoptic;
mod openssl;
mod pin;
mod process;
mod softhsm;
