//! Whether the host's clock is synchronised, in the time daemon's own words.
//!
//! The kernel knows too, but asking it (adjtimex) is denied to whoever may not set the clock, and the unit's sandbox
//! leaves segld no such right. What every sandbox leaves: a file that systemd-timesyncd touches, and the loopback, on
//! which chronyd and NTP daemons answer anybody on this host. Their ports are below 1024, so that only root's own
//! daemons answer there.

mod chrony;
mod marker;
mod ntp;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long a daemon on this host may take to answer.
const ANSWER: Duration = Duration::from_millis(500);

/// Longest answer that is looked at, in bytes.
const ANSWER_MAX: usize = 512;

/// What is known of the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// The time daemon says so
    Synchronised,
    /// The time daemon says that it is not, or has not said anything for too long
    Unsynchronised,
    /// No time daemon was found
    #[default]
    Unknown,
}

/// What was seen when the clock was last looked after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// What is known
    pub(crate) state: State,
    /// Who said so; empty when nobody did
    pub(crate) source: String,
    /// In words
    pub(crate) detail: String,
}

impl Sighting {
    fn new(state: State, source: impl Into<String>, detail: impl Into<String>) -> Sighting {
        Sighting { state, source: source.into(), detail: detail.into() }
    }

    /// Whether the clock is known to be synchronised.
    pub(crate) fn is_good(&self) -> bool {
        self.state == State::Synchronised
    }
}

impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            State::Synchronised => write!(f, "synchronised: {} says {}", self.source, self.detail),
            State::Unsynchronised => write!(f, "not synchronised: {} says {}", self.source, self.detail),
            State::Unknown => f.write_str("nobody knows whether it is synchronised: no time daemon was found"),
        }
    }
}

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    /// Files that are touched at each synchronisation
    markers: Vec<PathBuf>,
    chrony: SocketAddr,
    ntp: SocketAddr,
    /// A time daemon that has not heard of its sources for so long says nothing
    age_max: Duration,
}

impl Sources {
    /// The daemons of this host, and a marker of the operator's for those that none of these is (PTP).
    pub(crate) fn of_host(marker: Option<PathBuf>, age_max: Duration) -> Sources {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let markers = [Some(PathBuf::from(marker::TIMESYNCD)), marker].into_iter().flatten().collect();
        Sources { markers, chrony: at(chrony::PORT), ntp: at(ntp::PORT), age_max }
    }

    /// A marker alone.
    #[cfg(test)]
    pub(crate) fn of_marker(marker: PathBuf, age_max: Duration) -> Sources {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Sources { markers: vec![marker], chrony: nowhere, ntp: nowhere, age_max }
    }

    /// Asks all of them: one that is sure wins, else one that says no. Takes a second at most.
    pub(crate) fn look(&self) -> Sighting {
        let now = SystemTime::now();
        let seen = self.markers.iter().filter_map(|path| marker::look(path, now, self.age_max));
        let seen = seen.chain(std::iter::once_with(|| chrony::look(self.chrony, now, self.age_max)).flatten());
        let seen = seen.chain(std::iter::once_with(|| ntp::look(self.ntp, now, self.age_max)).flatten());
        let mut worst = Sighting::default();
        for sighting in seen {
            match sighting.state {
                State::Synchronised => return sighting,
                _ if worst.state == State::Unknown => worst = sighting,
                _ => {}
            }
        }
        worst
    }
}

/// What was seen last, for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Watch(Mutex<Sighting>);

impl Watch {
    pub(crate) fn latest(&self) -> Sighting {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in what was seen now, and says whether it is something else than before, details apart.
    pub(crate) fn saw(&self, sighting: Sighting) -> bool {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = (latest.state, &latest.source) != (sighting.state, &sighting.source);
        *latest = sighting;
        changed
    }
}

/// Judges a time daemon by when it last heard of its source.
fn by_age(source: &str, heard: SystemTime, now: SystemTime, age_max: Duration) -> Sighting {
    // Its last adjustment may have set the clock back a little; by more than that, somebody else did.
    let (age, ahead) = match now.duration_since(heard) {
        Ok(age) => (age, false),
        Err(ahead) => (ahead.duration(), true),
    };
    if age > age_max && ahead {
        let detail = format!("that it adjusted the clock {} ahead of the time that the clock shows", minutes(age));
        return Sighting::new(State::Unsynchronised, source, detail);
    }
    if age > age_max {
        let detail = format!("nothing: it last adjusted the clock {} ago", minutes(age));
        return Sighting::new(State::Unsynchronised, source, detail);
    }
    Sighting::new(State::Synchronised, source, format!("so, and adjusted the clock {} ago", minutes(age)))
}

fn minutes(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

fn unix_time(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Sends a datagram to a daemon of this host and gives its answer; none where nobody answers.
fn ask(at: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let asked = || -> io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        // From then on only that address is heard, and a port that nobody listens on is an error at once.
        socket.connect(at)?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.send(question)?;
        let mut answer = vec![0; ANSWER_MAX];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    };
    asked().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host on which nobody answers.
    fn silent(markers: Vec<PathBuf>) -> Sources {
        // A port that was free a moment ago: nobody listens there.
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        Sources { markers, chrony: free, ntp: free, age_max: Duration::from_secs(7200) }
    }

    /// One answer of a simulated daemon.
    fn simulated(answer: impl FnOnce(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            let (length, from) = socket.recv_from(&mut question).unwrap();
            socket.send_to(&answer(&question[..length]), from).unwrap();
        });
        address
    }

    #[test]
    fn without_a_time_daemon_nobody_knows() {
        let seen = silent(vec!["/nowhere/synchronized".into()]).look();
        assert_eq!(seen, Sighting::default());
        assert!(!seen.is_good());
    }

    #[test]
    fn one_daemon_that_is_sure_outweighs_another_that_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("synchronized");
        std::fs::File::create(&marker).unwrap();
        let unsure = simulated(|question| ntp::tests::answer_to(question, 3, 0, 0));
        let sources = Sources { ntp: unsure, ..silent(vec![marker.clone()]) };
        assert_eq!(sources.look().state, State::Synchronised);
        let old = SystemTime::now() - Duration::from_secs(7300);
        std::fs::File::options().write(true).open(&marker).unwrap().set_modified(old).unwrap();
        let seen = sources.look();
        assert_eq!(seen.state, State::Unsynchronised, "{seen}");
        assert!(seen.to_string().contains("121 min ago"), "{seen}");
    }

    #[test]
    fn daemons_on_the_loopback_are_heard() {
        let chronyd = simulated(|_| chrony::tests::answer(0, 8, SystemTime::now()));
        let seen = Sources { chrony: chronyd, ..silent(Vec::new()) }.look();
        assert_eq!((seen.state, &*seen.source), (State::Synchronised, "chronyd"), "{seen}");
        let ntpd = simulated(|question| ntp::tests::answer_to(question, 0, 2, ntp::tests::seconds_now() - 64));
        let seen = Sources { ntp: ntpd, ..silent(Vec::new()) }.look();
        assert_eq!((seen.state, &*seen.source), (State::Synchronised, "the NTP daemon"), "{seen}");
    }
}
