//! Who is at the other end, and what he may do.
//!
//! User, group and process are the kernel's word (SO_PEERCRED). Which groups a user belongs to is the host's database's,
//! asked at each connection: who is taken out of the group has lost its rights at once, whatever shell he still has.

use std::{ffi::CString, time::Duration};

use nix::unistd::{Gid, Uid, User, getgrouplist};
use tokio::net::unix::UCred;

use crate::control::Access;

/// How long the host's database may take; it may be a network's.
const LOOK_UP: Duration = Duration::from_secs(2);

/// The groups whose members may do something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peers {
    operators: Option<u32>,
    watchers: Option<u32>,
    own_uid: u32,
}

/// Somebody at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) pid: Option<u32>,
    /// The user's name, or the number where the host knows no name
    pub(super) name: String,
    /// What he may do, if anything
    pub(super) access: Option<Access>,
}

impl Peers {
    pub(super) fn new(operators: Option<u32>, watchers: Option<u32>) -> Peers {
        Peers { operators, watchers, own_uid: rustix::process::geteuid().as_raw() }
    }

    /// Looks him up. A database that does not answer makes nobody an operator but root and ourselves.
    pub(super) async fn identify(self, peer: UCred) -> Caller {
        let (uid, gid) = (peer.uid(), peer.gid());
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
        let looked_up = tokio::task::spawn_blocking(move || look_up(uid, gid));
        let (name, groups) = match tokio::time::timeout(LOOK_UP, looked_up).await {
            Ok(Ok(found)) => found,
            _ => (None, vec![gid]),
        };
        let name = name.unwrap_or_else(|| uid.to_string());
        Caller { uid, pid, name, access: self.access(uid, &groups) }
    }

    fn access(self, uid: u32, groups: &[u32]) -> Option<Access> {
        let is_in = |group: Option<u32>| group.is_some_and(|gid| groups.contains(&gid));
        if uid == 0 || uid == self.own_uid || is_in(self.operators) {
            Some(Access::Change)
        } else {
            is_in(self.watchers).then_some(Access::Look)
        }
    }
}

/// The user's name and groups, that of the process among them.
fn look_up(uid: u32, gid: u32) -> (Option<String>, Vec<u32>) {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return (None, vec![gid]) };
    let groups = CString::new(user.name.as_str()).ok().and_then(|name| getgrouplist(&name, user.gid).ok());
    let groups = groups.unwrap_or_default().into_iter().map(Gid::as_raw).chain([gid]).collect();
    (Some(user.name), groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_operators_may_change_watchers_may_look_and_nobody_else_may_anything() {
        let peers = Peers { operators: Some(990), watchers: Some(991), own_uid: 997 };
        assert_eq!(peers.access(0, &[0]), Some(Access::Change));
        assert_eq!(peers.access(997, &[997]), Some(Access::Change));
        assert_eq!(peers.access(1000, &[1000, 990]), Some(Access::Change));
        assert_eq!(peers.access(1000, &[1000, 991, 990]), Some(Access::Change));
        assert_eq!(peers.access(1000, &[1000, 991]), Some(Access::Look));
        assert_eq!(peers.access(1000, &[1000, 0, 997]), None);
        assert_eq!(peers.access(65_534, &[]), None);
        let closed = Peers { operators: None, watchers: None, own_uid: 997 };
        assert_eq!(closed.access(1000, &[0, 990, u32::MAX]), None);
    }

    #[test]
    fn a_user_is_found_with_name_and_groups() {
        let (name, groups) = look_up(0, 12_345);
        assert_eq!(name.as_deref(), Some("root"));
        assert!(groups.contains(&0) && groups.contains(&12_345), "{groups:?}");
        assert_eq!(look_up(4_000_000_123, 7), (None, vec![7]));
    }
}
