//! The packages on a fresh host: installed, configured, started, upgraded, removed, purged.

use std::collections::BTreeSet;

use segl_tests::site::{Site, Token, await_keys};

use super::{
    container::Container,
    host::{Host, with_a_clock},
    sign,
};
use crate::packages;

/// Puts both packages into the container and installs them.
fn install(container: &Container) {
    let made = tempfile::tempdir().unwrap();
    let names = packages::make(made.path()).map(|package| {
        let name = format!("/root/{}", package.file_name().unwrap().to_str().unwrap());
        container.put(&name, &std::fs::read(package).unwrap()).unwrap();
        name
    });
    container.run(&["dpkg", "--install", &names[0], &names[1]]).unwrap();
}

/// Every path of the container, but for what comes and goes with a running system.
fn paths(container: &Container) -> BTreeSet<String> {
    let passing = ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/root", "/var/log", "/var/lib/systemd"];
    let mut find = vec!["find", "/"];
    for path in passing {
        find.extend(["-path", path, "-prune", "-o"]);
    }
    find.push("-print");
    container.run(&find).unwrap().lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn packages_start_nothing_sign_once_configured_and_leave_the_journal_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::create(&dir.path().join("site"), Token::Embedded, &[]).unwrap();
    let mut container = Container::prepare("segl-packages").unwrap();
    container.boot().unwrap();
    let before = paths(&container);
    install(&container);

    for user in ["segl", "segl-broker"] {
        container.run(&["id", user]).unwrap();
    }
    assert_eq!(container.run(&["stat", "--format=%U:%G %a", "/etc/segl/credentials"]).unwrap(), "root:root 700");
    assert_eq!(container.run(&["stat", "--format=%U:%G %a", "/etc/segl/broker"]).unwrap(), "root:segl-broker 750");
    assert_eq!(container.run(&["find", "/etc/segl", "-type", "f"]).unwrap(), "", "no configuration comes with it");
    let units = ["segld.service", "segld.socket", "segl-broker.service", "segl-broker.socket"];
    for unit in units {
        assert_eq!(container.show(unit, "ActiveState").unwrap(), "inactive", "{unit}");
        assert_eq!(container.show(unit, "UnitFileState").unwrap(), "disabled", "{unit}");
    }
    assert_eq!(container.run(&["dpkg", "--verify", "segld", "segl-broker"]).unwrap(), "");

    with_a_clock(&container, &mut site);
    let host = Host::configured(container, site, dir);
    let container = &host.container;
    host.seal_all();
    container.run(&["segld", "check", "--config", "/etc/segl/segld/segld.toml"]).unwrap();
    container.run(&["systemctl", "enable", "segld.service"]).unwrap();
    container.run(&["systemctl", "enable", "--now", "segld.socket"]).unwrap();
    assert_eq!(
        container.show("segld.service", "ActiveState").unwrap(),
        "inactive",
        "the broker's connection starts it"
    );
    container.run(&["systemctl", "enable", "--now", "segl-broker.socket", "segl-broker.service"]).unwrap();
    let ready = || host.inside(|| await_keys(&host.site.broker_admin()?)).unwrap();
    ready();
    sign(container, &host.site, "installed");
    host.is_well();

    // An upgrade, here to the same version, leaves the change-over to the operator.
    let pids = || ["segld.service", "segl-broker.service"].map(|unit| container.show(unit, "MainPID").unwrap());
    let running = pids();
    install(container);
    assert_eq!(pids(), running);
    container.run(&["systemctl", "restart", "segld.service", "segl-broker.service"]).unwrap();
    ready();
    sign(container, &host.site, "upgraded");
    host.is_well();

    container.run(&["dpkg", "--remove", "segld", "segl-broker"]).unwrap();
    for unit in units {
        assert_eq!(container.show(unit, "ActiveState").unwrap(), "inactive", "{unit}");
    }
    container.run(&["test", "-f", "/etc/segl/segld/segld.toml"]).unwrap();

    let purged = container.try_run(&["dpkg", "--purge", "segld", "segl-broker"]).unwrap();
    let said = String::from_utf8_lossy(&purged.stderr);
    assert!(purged.status.success() && said.contains("KEPT: /var/lib/segl"), "{said}");
    let after = paths(container);
    let left: Vec<_> = after.difference(&before).filter(|path| !is_bookkeeping(path)).collect();
    assert!(left.iter().all(|path| path.starts_with("/var/lib/segl")), "{left:?}");
    assert!(left.iter().any(|path| path.ends_with(".journal")), "the journal is kept: {left:?}");
    let lost: Vec<_> = before.difference(&after).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

/// What Debian itself notes of packages and users that were there; the users stay, since the journal is theirs.
fn is_bookkeeping(path: &str) -> bool {
    path.starts_with("/var/lib/dpkg/")
        || path.starts_with("/var/cache/")
        || ["/etc/.pwd.lock", "/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-"].contains(&path)
}
