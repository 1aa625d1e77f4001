//! The command's end of the control socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{ANSWER_MAX, Answer, Refused, Request};

/// How long segld may take to take a request.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// A connection to a segld; one request after the other.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there, or nobody lets us in
    #[error("{}: {error}", path.display())]
    Unreachable {
        /// The socket
        path: PathBuf,
        /// The system's word
        error: io::Error,
    },
    /// It was there, and is not any more, or does not answer
    #[error("segld does not answer: {0}")]
    Broken(io::Error),
    /// What it says makes no sense here
    #[error("segld's answer can not be read: {0}")]
    Unreadable(String),
    /// It does not do it
    #[error("{0}")]
    Refused(Refused),
}

impl ClientError {
    /// What to do about it; empty where the error says so itself.
    pub fn hint(&self) -> &'static str {
        match self {
            ClientError::Unreachable { error, .. } => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    "segld does not run here, or has its socket elsewhere: systemctl status segld; --socket PATH"
                }
                io::ErrorKind::PermissionDenied => {
                    "only root and members of the group segl-operator may speak to it: usermod -aG segl-operator USER, \
                     then log in again"
                }
                _ => "",
            },
            ClientError::Broken(error) if error.kind() == io::ErrorKind::WouldBlock => {
                "it may still be at it: segl status, journalctl -u segld"
            }
            ClientError::Broken(_) => "systemctl status segld; journalctl -u segld",
            ClientError::Unreadable(_) => {
                "segl and segld should be of one version: compare segl --version and segld --version"
            }
            ClientError::Refused(_) => "",
        }
    }
}

impl Client {
    /// Connects to the socket.
    ///
    /// # Errors
    /// When nobody is there, or the kernel lets us not in.
    pub fn connect(socket: &Path) -> Result<Client, ClientError> {
        let connected = UnixStream::connect(socket).and_then(|stream| {
            stream.set_write_timeout(Some(WRITE_LIMIT))?;
            Ok(Client { stream: BufReader::new(stream) })
        });
        connected.map_err(|error| ClientError::Unreachable { path: socket.to_owned(), error })
    }

    /// Asks, and waits for the answer, each part of it for at most so long.
    ///
    /// # Errors
    /// When it does not come, or is a refusal.
    pub fn ask(&mut self, request: &Request, limit: Duration) -> Result<Answer, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|error| ClientError::Unreadable(error.to_string()))?;
        line.push(b'\n');
        self.stream.get_ref().set_read_timeout(Some(limit)).map_err(ClientError::Broken)?;
        // Who was turned away is told before he has asked; what could not be written matters less than that.
        let written = self.stream.get_mut().write_all(&line);
        let mut answer = Vec::new();
        let read = (&mut self.stream).take(ANSWER_MAX as u64).read_until(b'\n', &mut answer);
        match (read, written) {
            (Ok(0), Err(error)) => return Err(ClientError::Broken(error)),
            (Ok(0), Ok(())) => return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into())),
            (Err(error), _) => return Err(ClientError::Broken(error)),
            (Ok(_), _) => {}
        }
        match serde_json::from_slice(&answer) {
            Ok(Answer::Refused(refused)) => Err(ClientError::Refused(refused)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(ClientError::Unreadable(error.to_string())),
        }
    }
}
