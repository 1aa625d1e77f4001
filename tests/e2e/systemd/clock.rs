//! The clock in chronyd's own words, heard from inside the sandbox.

use segl_tests::site::Token;

use super::{host::Host, journal};
use crate::room::until;

/// As if it followed a source; `-x` in the container's defaults keeps it from touching the host's clock.
const CHRONY: &[u8] = b"local stratum 10\ndriftfile /var/lib/chrony/drift\n";

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn a_clock_that_is_required_is_waited_for_at_the_start_and_looked_after_from_then_on() {
    let host = Host::boot_with("segl-clock", Token::Embedded, |container, site| {
        container.put("/etc/chrony/chrony.conf", CHRONY).unwrap();
        site.segld_toml.push_str("\n[host]\nclock = \"required\"\n");
    });
    host.seal_all();
    host.systemctl(&["start", "--no-block", "segld.socket", "segld.service"]).unwrap();
    let log = || host.container.log("segld.service").unwrap();
    until("segld waits for the clock", || log().contains("waiting for it"));
    assert_eq!(host.container.show("segld.service", "ActiveState").unwrap(), "activating");

    host.systemctl(&["start", "chrony.service"]).unwrap();
    host.await_property("segld.service", "ActiveState", "active");
    host.await_keys();
    let synchronised = || host.inside(|| host.admin()?.metric("segl_clock_synchronised", &[])).unwrap();
    assert_eq!(synchronised(), 1.0);
    until("it is logged", || log().contains("the clock is synchronised: chronyd says"));

    host.systemctl(&["stop", "chrony.service"]).unwrap();
    until("its loss is seen", || synchronised() == 0.0);
    until("and logged", || log().contains("no time daemon was found"));
    host.systemctl(&["start", "chrony.service"]).unwrap();
    until("its return is seen", || synchronised() == 1.0);

    host.systemctl(&["stop", "segld.socket", "segld.service"]).unwrap();
    let recorded: Vec<_> = journal(&host).into_iter().filter(|entry| entry["kind"] == "clock").collect();
    let seen: Vec<_> = recorded.iter().map(|entry| entry["synchronised"].as_bool().unwrap()).collect();
    assert_eq!(seen, [true, false, true], "{recorded:?}");
    assert_eq!(recorded[0]["source"], "chronyd");
}
