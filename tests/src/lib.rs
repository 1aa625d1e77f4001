//! What the end-to-end tests and the demo share: a PKI, tokens, the built programs as processes, and `openssl` as the
//! judge of what comes out.
//!
//! Everything here works on real files, processes and sockets in a directory that its caller owns, and waits for
//! events with a deadline: readiness is the notification that a service manager would get.

#![warn(missing_docs)]

pub mod conversation;
pub mod documents;
pub mod faulty;
pub mod http;
pub mod journal;
pub mod openssl;
pub mod pki;
pub mod process;
pub mod programs;
pub mod signing;
pub mod site;
pub mod soak;
pub mod softhsm;

/// A failure of the surroundings, as a sentence: tests unwrap it, the demo prints it.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Runs a program to its end and returns its standard output; anything but success is an error with what it said.
pub fn run(command: &mut std::process::Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(std::process::Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        return Err(format!("{program}: {}\n{out}{err}", output.status).into());
    }
    Ok(output.stdout)
}
