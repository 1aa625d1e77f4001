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
use tokio::{sync::mpsc, task::LocalSet};

use super::{Reactor, ReactorInbox, rest};
use crate::{
    state::Shared,
    transport::{Epoll, FromSocket, Io, Uring},
    vital::spawn_vital,
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
    teller: Teller,
    thread: JoinHandle<io::Result<()>>,
}

/// The way to tell a reactor something.
#[derive(Clone)]
pub(crate) struct Teller(mpsc::Sender<Control>);

impl Teller {
    /// Tells it; a reactor that is gone needs telling no more.
    pub(crate) fn tell(&self, control: Control) {
        if self.0.try_send(control).is_err() {
            tracing::warn!(?control, "a reactor does not listen");
        }
    }
}

impl ReactorThread {
    pub(crate) fn teller(&self) -> Teller {
        self.teller.clone()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    pub(crate) fn join(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("a reactor panicked")))
    }
}

/// Starts a reactor on a thread of its own and waits until its runtime stands.
pub(crate) fn spawn(shared: Arc<Shared>, setup: ReactorSetup) -> io::Result<ReactorThread> {
    let (control, controls) = mpsc::channel(CONTROLS_MAX);
    let (report, standing) = std::sync::mpsc::sync_channel(1);
    let name = format!("segl-r-{}", setup.index);
    let thread = thread::Builder::new().name(name).spawn(move || {
        let runtime = match Runtime::new(setup.io, setup.core) {
            Ok(runtime) => runtime,
            Err(error) => {
                // The starter waits for exactly one report.
                let _ = report.send(Err(error));
                return Ok(());
            }
        };
        let _ = report.send(Ok(()));
        match runtime {
            Runtime::Uring(runtime) => runtime.block_on(live::<Uring>(shared, setup, controls)),
            Runtime::Epoll(runtime) => LocalSet::new().block_on(&runtime, live::<Epoll>(shared, setup, controls)),
        }
    })?;
    standing.recv().unwrap_or_else(|_| Err(io::Error::other("the reactor's thread ended at once")))?;
    Ok(ReactorThread { teller: Teller(control), thread })
}

enum Runtime {
    Uring(tokio_uring::Runtime),
    Epoll(tokio::runtime::Runtime),
}

impl Runtime {
    /// On the calling thread, which is pinned first so that the ring's memory is near its core.
    fn new(io: Io, core: Option<usize>) -> io::Result<Runtime> {
        if let Some(core) = core {
            let mut set = CpuSet::new();
            set.set(core);
            sched_setaffinity(None, &set)?;
        }
        Ok(match io {
            Io::Uring => Runtime::Uring(tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES))?),
            Io::Epoll => {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                runtime.enable_all().on_thread_park(rest::before_parking);
                Runtime::Epoll(runtime.build()?)
            }
        })
    }
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
        spawn_vital("accepting", reactor.clone().accept::<S>(listener));
    }
    spawn_vital("taking completions", reactor.clone().take_completions());
    spawn_vital("the sweep", reactor.clone().sweep());
    loop {
        match controls.recv().await {
            Some(Control::Reloaded) => reactor.verify_again().await,
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
