//! Promises of the workspace as such: which way its arrows point, what is not in it, where its versions stand.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use segl_tests::programs::workspace;

/// The packages that a package of the workspace is built from, itself included, by `cargo tree`.
fn tree(package: &str, arguments: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args(["tree", "--offline", "--locked", "--prefix", "none", "--format", "{p}"]);
    let output = cargo.args(["--package", package]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn ours(package: &str) -> BTreeSet<String> {
    tree(package, &["--edges", "normal,build", "--all-features"])
        .into_iter()
        .filter(|name| name.starts_with("segl-") && name != package)
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_pool_knows_no_token_no_tls_and_no_runtime() {
    let pool = tree("segl-pool", &["--edges", "normal,build"]);
    for stranger in ["cryptoki", "cryptoki-sys", "ring", "rustls", "tokio", "tokio-uring", "p256", "rsa"] {
        assert!(!pool.contains(stranger), "segl-pool is built from {stranger}");
    }
    assert!(pool.contains("segl-hsm"), "cargo tree said nothing of use: {pool:?}");
}

#[test]
fn segld_is_built_without_encryption_which_is_the_brokers() {
    let [daemon, broker] = ["segl-daemon", "segl-broker"].map(|of| tree(of, &["--edges", "normal,build"]));
    for cipher in ["aes", "cbc", "sha1"] {
        assert!(!daemon.contains(cipher) && broker.contains(cipher), "{cipher}");
    }
}

#[test]
fn dependencies_between_the_crates_point_one_way() {
    for leaf in ["segl-hsm", "segl-wire", "segl-assertion", "segl-audit"] {
        assert_eq!(ours(leaf), set(&[]), "{leaf} depends on nothing of ours");
    }
    assert_eq!(ours("segl-pool"), set(&["segl-hsm"]));
    let daemon = ours("segl-daemon");
    let allowed = set(&["segl-hsm", "segl-pool", "segl-wire", "segl-assertion", "segl-audit"]);
    assert!(daemon.is_subset(&allowed), "segl-daemon is built from {daemon:?}");
    let broker = ours("segl-broker");
    assert!(broker.is_subset(&set(&["segl-wire", "segl-assertion"])), "segl-broker is built from {broker:?}");
}

#[test]
fn nothing_brings_in_aws_lc() {
    // The lock file would not do: an optional dependency that nobody asks for stands in it too.
    let mut everything = BTreeSet::new();
    for manifest in manifests() {
        let package = name_in(&manifest);
        everything.extend(tree(&package, &["--all-features", "--target", "all"]));
    }
    assert!(everything.contains("ring"), "cargo tree said nothing of use");
    let foreign: Vec<_> = everything.iter().filter(|name| name.starts_with("aws-lc")).collect();
    assert!(foreign.is_empty(), "{foreign:?} in the tree: cargo tree --workspace --invert NAME tells through whom");
}

#[test]
fn versions_stand_in_the_workspace_manifest_and_nowhere_else() {
    for manifest in manifests() {
        let text = std::fs::read_to_string(&manifest).unwrap();
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if let Some(header) = line.strip_prefix('[') {
                section = header.trim_end_matches(']');
            } else if section.ends_with("dependencies") && line.contains('=') && !line.starts_with('#') {
                // A crate may name itself, to have its own features in its tests.
                let itself = line.contains("path = \".\"") && !line.contains("version");
                assert!(line.contains("workspace = true") || itself, "{}: {line}", manifest.display());
            } else if section.contains("dependencies.") {
                assert!(!line.starts_with("version"), "{}: {line} in [{section}]", manifest.display());
            }
        }
        assert!(text.contains("[lints]\nworkspace = true"), "{} has lints of its own", manifest.display());
    }
}

#[test]
fn unsafe_code_stands_in_one_module_of_hsm_alone() {
    let mut places = Vec::new();
    for file in files(&workspace(), "rs") {
        let text = std::fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(workspace()).unwrap().to_path_buf();
        // This file speaks of it; the faulty and the simulated token are PKCS#11 modules, which are C's by nature; and the
        // bench's bare loop must not go through hsm, since it is what hsm is measured against.
        let modules = ["tests/faulty-token", "benches/simulated-token"].iter().any(|module| path.starts_with(module));
        if modules || path.ends_with("e2e/workspace.rs") || path.ends_with("benches/src/bare.rs") {
            continue;
        }
        if text.contains("allow(unsafe_code)") || text.contains("expect(unsafe_code)") {
            places.push(path);
        }
    }
    assert!(places.len() <= 1, "unsafe code is allowed in more than one place: {places:?}");
    assert!(places.iter().all(|path| path.starts_with("hsm/src")), "unsafe code outside hsm: {places:?}");
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for document in files(&workspace(), "md") {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            if !document.parent().unwrap().join(path).exists() {
                broken.push(format!("{}: {link}", document.strip_prefix(workspace()).unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The targets of `[text](target)` outside code blocks.
fn links(text: &str) -> Vec<&str> {
    let mut code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        } else if !code {
            found.extend(line.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
        }
    }
    found
}

/// The package's name: the first `name` in a manifest.
fn name_in(manifest: &Path) -> String {
    let text = std::fs::read_to_string(manifest).unwrap();
    let name = text.lines().find_map(|line| line.strip_prefix("name = ")).unwrap();
    name.trim_matches('"').to_owned()
}

fn manifests() -> Vec<PathBuf> {
    let manifests: Vec<PathBuf> = std::fs::read_dir(workspace())
        .unwrap()
        .map(|entry| entry.unwrap().path().join("Cargo.toml"))
        .chain([workspace().join("tests/faulty-token/Cargo.toml")])
        .filter(|manifest| manifest.exists())
        .collect();
    assert!(manifests.len() >= 10, "{manifests:?}");
    manifests
}

/// Files with this extension under `dir`, without what is built, hidden or fetched.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(files(&path, extension));
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}
