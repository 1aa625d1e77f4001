//! The daemon's end of the control socket: on the main thread's runtime, away from every request of a client.

mod act;
mod converse;
mod findings;
mod gather;
mod peers;
mod socket;
mod window;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use segl_hsm::Token;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};

use self::{peers::Peers, socket::SocketFile};
pub(crate) use self::{socket::SocketError, window::Window};
use crate::{clock, config, keeper::Keeper, run::LogLevels, state::Shared};

/// Reloads that may be asked for before one is done; they are all done at once.
const RELOADS_MAX: usize = 64;

/// What the server is made of.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) keeper: Arc<Keeper>,
    /// By their index in the pool
    pub(crate) tokens: Vec<Arc<dyn Token>>,
    pub(crate) facts: Facts,
    pub(crate) reloads: Reloads,
    pub(crate) levels: LogLevels,
    pub(crate) window: Arc<Window>,
    /// Whether the daemon's own threads are well
    pub(crate) health: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// What does not change while the process lives.
pub(crate) struct Facts {
    pub(crate) host: config::Host,
    /// In the order of the pool's indices
    pub(crate) tokens: Vec<config::Token>,
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) control: config::Control,
    pub(crate) started: SystemTime,
    pub(crate) began: Instant,
}

/// The way to a reload, and what became of the last one.
#[derive(Clone)]
pub(crate) struct Reloads {
    wanted: mpsc::Sender<Wanted>,
    last: Arc<Mutex<Last>>,
}

/// Somebody wants a reload, and to hear what comes of it, or not.
pub(crate) type Wanted = Option<oneshot::Sender<Result<String, String>>>;

/// What is known of the configuration in force.
#[derive(Clone, Debug)]
pub(crate) struct Last {
    pub(crate) config_digest: [u8; 32],
    pub(crate) reload: Option<Seen>,
}

/// A reload that is over.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at_s: i64,
    pub(crate) outcome: Result<String, String>,
}

impl Reloads {
    /// Of a configuration with this digest; the other end is for whoever reloads.
    pub(crate) fn new(config_digest: [u8; 32]) -> (Reloads, mpsc::Receiver<Wanted>) {
        let (wanted, asked) = mpsc::channel(RELOADS_MAX);
        (Reloads { wanted, last: Arc::new(Mutex::new(Last { config_digest, reload: None })) }, asked)
    }

    /// Wants one. With so many waiting already, what they get is what this one would have got.
    pub(crate) fn want(&self) {
        let _ = self.wanted.try_send(None);
    }

    /// Wants one, and is told what came of it; none where too many wait.
    fn want_and_hear(&self) -> Option<oneshot::Receiver<Result<String, String>>> {
        let (tell, told) = oneshot::channel();
        self.wanted.try_send(Some(tell)).ok().map(|()| told)
    }

    /// One is over.
    pub(crate) fn done(&self, outcome: Result<String, String>, config_digest: [u8; 32]) {
        let reload = Some(Seen { at_s: clock::unix_s(), outcome });
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Last { config_digest, reload };
    }

    fn last(&self) -> Last {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The socket, bound and not yet served.
pub(crate) struct Door {
    listener: UnixListener,
    file: SocketFile,
}

/// Binds the socket; none where the file does not ask for it and its directory is not there. Within the main thread's
/// runtime.
///
/// # Errors
/// When it can not be had, or another segld serves it.
pub(crate) fn open(settings: &config::Control) -> Result<Option<Door>, SocketError> {
    let directory = settings.socket.parent().map_or_else(PathBuf::new, PathBuf::from);
    if !settings.demanded && !directory.is_dir() {
        let (path, directory) = (settings.socket.display(), directory.display());
        tracing::error!(
            "NO CONTROL SOCKET: segl can not ask this segld anything, since {directory} is not there for {path}; \
             [control] `socket` puts it elsewhere"
        );
        return Ok(None);
    }
    let (listener, file) = socket::bind(settings)?;
    Ok(Some(Door { listener, file }))
}

/// Serves until the runtime ends; what is returned takes the socket's file away when it is dropped.
pub(crate) fn serve(door: Door, context: Context) -> SocketFile {
    let Door { listener, file } = door;
    let control = &context.facts.control;
    let groups = (control.operators.gid, control.watchers.as_ref().and_then(|group| group.gid));
    if groups.0.is_none() {
        let group = &*control.operators.name;
        tracing::warn!(group, "there is no such group: only root and segld's own user may speak to the control socket");
    }
    let (path, peers) = (control.socket.display().to_string(), Peers::new(groups.0, groups.1));
    tracing::info!(path, "the control socket is served");
    let context = Arc::new(context);
    tokio::spawn(window::keep(context.window.clone(), context.shared.clone()));
    tokio::spawn(converse::accept(listener, peers, context));
    file
}
