//! The Debian packages, as `cargo xtask package` makes them of the programs that are built: what is in them, and what
//! Debian's own judge says.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use segl_tests::programs;

/// The packages made into `out`: `segld`, then `segl-broker`.
pub(crate) fn make(out: &Path) -> [PathBuf; 2] {
    said(programs::xtask().args(["package", "--profile", "dev", "--out"]).arg(out));
    ["segld_", "segl-broker_"].map(|begin| {
        let mut made = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
        let named = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(begin) && name.ends_with(".deb")
        };
        made.find(named).unwrap_or_else(|| panic!("no package {begin}... in {}", out.display()))
    })
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Rights and owner of everything in a package, by path.
fn contents(package: &Path) -> BTreeMap<String, String> {
    let listed = said(Command::new("dpkg-deb").arg("--contents").arg(package));
    let entry = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields[5].trim_start_matches('.').to_owned(), format!("{} {}", fields[0], fields[1]))
    };
    listed.lines().map(entry).collect()
}

fn field(package: &Path, name: &str) -> String {
    said(Command::new("dpkg-deb").arg("--field").arg(package).arg(name)).trim().to_owned()
}

#[test]
fn the_packages_hold_what_an_operator_needs_and_nothing_that_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let packages = make(dir.path());
    let programs = [&["segld", "segl"][..], &["segl-broker"]];
    let others = [
        &[
            "/usr/lib/systemd/system/segld.service",
            "/usr/lib/systemd/system/segld.socket",
            "/usr/lib/sysusers.d/segld.conf",
            "/usr/lib/tmpfiles.d/segld.conf",
            "/usr/share/segl/monitoring/segl.rules.yml",
            "/usr/share/segl/monitoring/segl-dashboard.json",
            "/usr/share/doc/segld/examples/segld.toml",
            "/usr/share/doc/segld/OPERATIONS.md",
            "/usr/share/doc/segld/copyright",
            "/usr/share/doc/segld/changelog.gz",
            "/usr/share/man/man1/segl.1.gz",
            "/usr/share/man/man1/segl-audit-verify.1.gz",
            "/usr/share/man/man5/segld.toml.5.gz",
            "/usr/share/man/man7/segl-operations.7.gz",
            "/usr/share/man/man8/segld.8.gz",
        ][..],
        &[
            "/usr/lib/systemd/system/segl-broker.service",
            "/usr/lib/systemd/system/segl-broker.socket",
            "/usr/lib/sysusers.d/segl-broker.conf",
            "/usr/share/doc/segl-broker/examples/segl-broker.toml",
            "/usr/share/doc/segl-broker/copyright",
            "/usr/share/man/man5/segl-broker.toml.5.gz",
            "/usr/share/man/man8/segl-broker.8.gz",
        ],
    ];
    for ((package, programs), others) in packages.iter().zip(programs).zip(others) {
        let contents = contents(package);
        for (path, who) in &contents {
            assert!(who.ends_with(" root/root"), "{path}: {who}");
            assert!(who.starts_with("drwxr-xr-x") || who.starts_with("-rw"), "{path}: {who}");
            // Configuration is the operator's alone: no package brings, replaces or asks about it.
            assert!(path == "/" || path.starts_with("/usr"), "{path}");
        }
        for program in programs {
            let path = format!("/usr/bin/{program}");
            assert_eq!(contents[&path], "-rwxr-xr-x root/root");
            for completion in [
                format!("/usr/share/bash-completion/completions/{program}"),
                format!("/usr/share/zsh/vendor-completions/_{program}"),
                format!("/usr/share/fish/vendor_completions.d/{program}.fish"),
            ] {
                assert!(contents.contains_key(&completion), "{completion}");
            }
        }
        for other in others {
            assert_eq!(contents.get(*other).map(String::as_str), Some("-rw-r--r-- root/root"), "{other}");
        }
        // Worked out from the programs.
        assert!(field(package, "Depends").contains("libc6 (>= "), "{}", field(package, "Depends"));
    }
    let both = packages.each_ref().map(|package| contents(package));
    let shared: Vec<_> = both[0].keys().filter(|path| !path.ends_with('/') && both[1].contains_key(*path)).collect();
    assert!(shared.is_empty(), "both packages bring {shared:?}");
}

#[test]
fn the_same_commit_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let [once, again] = ["once", "again"].map(|name| make(&dir.path().join(name)));
    for (once, again) in once.iter().zip(&again) {
        assert_eq!(once.file_name(), again.file_name());
        let same = std::fs::read(once).unwrap() == std::fs::read(again).unwrap();
        assert!(same, "{} differs", once.display());
    }
}

#[test]
fn every_command_has_a_man_page_that_man_can_set() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let manual = dir.path().join("share/man");
    let mut pages = 0;
    for section in std::fs::read_dir(&manual).unwrap() {
        for page in std::fs::read_dir(section.unwrap().path()).unwrap() {
            let page = page.unwrap().path();
            let set =
                Command::new("groff").args(["-man", "-Tutf8", "-Kutf8", "-ww", "-z"]).arg(&page).output().unwrap();
            let said = String::from_utf8_lossy(&set.stderr);
            assert!(set.status.success() && said.is_empty(), "{}: {said}", page.display());
            pages += 1;
        }
    }
    assert!(pages > 8, "{pages} pages");
}

#[test]
fn lintian_has_nothing_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let packages = make(dir.path());
    // As root only when it is told that this is meant. `--tag-display-limit 0`: each of them.
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--tag-display-limit", "0", "--info", "--fail-on", "error,warning"]).args(&packages);
    let output = lintian.output().unwrap_or_else(|error| panic!("lintian: {error}; cargo xtask test installs it"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
