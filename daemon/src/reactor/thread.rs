//! The thread a reactor lives on: pinned, with its own runtime, told what to do by the main thread.

use std::{
    io,
    net::TcpListener,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::{
    sync::mpsc,
    task::{LocalSet, spawn_local},
};

use super::{Reactor, ReactorInbox};
use crate::{
    state::Shared,
    transport::{Epoll, FromSocket, Io, Uring},
};

/// Submission entries of a ring: operations started between two looks at it. A ring of 256 counts 32 KiB against
/// RLIMIT_MEMLOCK.
pub(crate) const RING_ENTRIES: u32 = 256;

/// Messages that may wait for a reactor: it gets a reload at most every few seconds and one drain.
const CONTROLS_MAX: usize = 16;

/// How long closed connections' tasks are given to come to their end.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// What the main thread tells a reactor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control {
    /// There is a new snapshot: look at every connection again
    Reloaded,
    /// Take no more, finish within the time, end
    Drain(Duration),
}

/// How a reactor is set up.
pub(crate) struct ReactorSetup {
    pub(crate) index: u16,
    pub(crate) core: Option<usize>,
    pub(crate) io: Io,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) inbox: Arc<ReactorInbox>,
}

/// A reactor's thread, seen from the main thread.
pub(crate) struct ReactorThread {
    control: mpsc::Sender<Control>,
    thread: JoinHandle<io::Result<()>>,
}

impl ReactorThread {
    /// Tells it; a reactor that is gone needs telling no more.
    pub(crate) fn tell(&self, control: Control) {
        if self.control.try_send(control).is_err() {
            tracing::warn!(?control, "a reactor does not listen");
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    pub(crate) fn join(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("a reactor panicked")))
    }
}

/// Starts a reactor on a thread of its own.
pub(crate) fn spawn(shared: Arc<Shared>, setup: ReactorSetup) -> io::Result<ReactorThread> {
    let (control, controls) = mpsc::channel(CONTROLS_MAX);
    let thread = thread::Builder::new().name(format!("segl-r-{}", setup.index)).spawn(move || {
        if let Some(core) = setup.core {
            let mut set = CpuSet::new();
            set.set(core);
            sched_setaffinity(None, &set)?;
        }
        match setup.io {
            Io::Uring => {
                let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES))?;
                runtime.block_on(live::<Uring>(shared, setup, controls))
            }
            Io::Epoll => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                LocalSet::new().block_on(&runtime, live::<Epoll>(shared, setup, controls))
            }
        }
    })?;
    Ok(ReactorThread { control, thread })
}

async fn live<S: FromSocket>(
    shared: Arc<Shared>,
    setup: ReactorSetup,
    mut controls: mpsc::Receiver<Control>,
) -> io::Result<()> {
    let reactor = Reactor::new(shared, setup.index, setup.inbox);
    for listener in setup.listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        spawn_local(reactor.clone().accept::<S>(listener));
    }
    spawn_local(reactor.clone().take_completions());
    spawn_local(reactor.clone().sweep());
    loop {
        match controls.recv().await {
            Some(Control::Reloaded) => reactor.verify_again(),
            Some(Control::Drain(limit)) => return reactor.end(limit).await,
            // The main thread is gone; nobody could ever stop this reactor.
            None => return reactor.end(Duration::ZERO).await,
        }
    }
}

impl Reactor {
    async fn end(self: Rc<Self>, limit: Duration) -> io::Result<()> {
        self.draining.set(true);
        self.changed.notify_waiters();
        self.leave_all();
        if tokio::time::timeout(limit, self.until_empty()).await.is_err() {
            tracing::warn!(connections = self.connections.borrow().len(), "closed before all was answered");
            self.close_all();
            if tokio::time::timeout(LAST_TASKS, self.until_empty()).await.is_err() {
                tracing::error!("a closed connection's task did not end");
            }
        }
        self.abandon_requests();
        Ok(())
    }

    async fn until_empty(&self) {
        loop {
            let changed = self.changed.notified();
            if self.connections.borrow().is_empty() {
                return;
            }
            changed.await;
        }
    }
}
