//! The sweep: ten times a second it looks at every connection's deadlines. It drops nothing; it calls closers.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use segl_wire::GoAwayReason;

use super::Reactor;
use crate::connection::{Connection, Phase};

/// How late a deadline may be noticed.
const SWEEP: Duration = Duration::from_millis(100);

/// How often living connections' chains are verified again without a reload: a certificate or a CRL may run out while
/// a connection lives. In sweeps.
const REVERIFY_EVERY: u64 = 600;

/// How long a client may take over one frame: the longest comes in well under a second.
const FRAME: Duration = Duration::from_secs(30);

/// How long a client may take to close its side after everything has been said.
const LINGER: Duration = Duration::from_secs(2);

impl Reactor {
    /// Sweeps for as long as the reactor lives.
    pub(super) async fn sweep(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for sweeps in 1u64.. {
            ticks.tick().await;
            let now_ns = self.now_ns();
            self.shared.progress[usize::from(self.index)].made(now_ns);
            for connection in self.living() {
                self.look_at(&connection, now_ns);
            }
            self.give_up_on_the_journal(now_ns);
            if sweeps.is_multiple_of(REVERIFY_EVERY) {
                self.verify_again().await;
            }
        }
    }

    fn living(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().iter().map(|(_, connection)| connection.clone()).collect()
    }

    fn look_at(&self, connection: &Connection, now_ns: u64) {
        let limits = self.limits();
        let past = |since_ns: u64, limit: Duration| now_ns.saturating_sub(since_ns) > limit.as_nanos() as u64;
        if connection.writing_since_ns.get().is_some_and(|since_ns| past(since_ns, limits.write_timeout)) {
            tracing::info!(connection = connection.id, "closed: the client does not take its answers");
            self.meters.closed("slow-reader");
            return connection.close(now_ns);
        }
        match connection.phase() {
            Phase::Handshake if past(connection.opened_ns, limits.handshake_timeout) => {
                tracing::info!(connection = connection.id, peer = %connection.peer, "closed: no handshake in time");
                self.meters.closed("handshake-timeout");
                connection.close(now_ns);
            }
            Phase::Open if connection.in_flight() == 0 && past(connection.heard_ns.get(), limits.idle_timeout) => {
                self.meters.closed("idle");
                connection.leave(GoAwayReason::Idle, "nothing was said for too long", now_ns);
            }
            Phase::Leaving if past(connection.phase_since_ns.get(), limits.drain_timeout) => {
                self.meters.closed("drain-timeout");
                connection.close(now_ns);
            }
            Phase::Open if connection.frame_since_ns.get().is_some_and(|since_ns| past(since_ns, FRAME)) => {
                self.meters.closed("slow-writer");
                connection.close(now_ns);
            }
            Phase::Finished if past(connection.phase_since_ns.get(), LINGER) => connection.close(now_ns),
            _ => {}
        }
    }

    /// Verifies every living connection's chain as a new handshake would: those that would fail now are sent away.
    pub(super) async fn verify_again(self: &Rc<Self>) {
        let snapshot = Arc::clone(&self.snapshot());
        let now = SystemTime::now();
        for connection in self.living() {
            // A chain's verification takes as long as a few signatures: requests go on between two of them.
            tokio::task::yield_now().await;
            let Some(client) = connection.client().filter(|_| connection.phase() == Phase::Open) else { continue };
            match snapshot.tls.verify_again(&client.chain, now) {
                // The policy may have changed as well.
                Ok(()) => drop(self.client_under(&connection, &snapshot)),
                Err(error) => self.send_away(&connection, &client, &format!("its certificate: {error}")),
            }
        }
    }

    /// GoAway to everyone.
    pub(super) fn leave_all(&self) {
        for connection in self.living() {
            connection.leave(GoAwayReason::Shutdown, "segld is stopping", self.now_ns());
        }
    }

    /// Closes what is still there.
    pub(super) fn close_all(&self) {
        for connection in self.living() {
            connection.close(self.now_ns());
        }
    }
}
