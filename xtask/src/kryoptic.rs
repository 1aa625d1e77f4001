//! Builds Kryoptic, a PKCS#11 3.2 token in software, for the tests of tokens: once, kept by version in the cache.
//!
//! Its EdDSA wants OpenSSL 3.2 or later and distributions have older ones, so the OpenSSL in the crate `openssl-src`
//! is built with it and linked statically. Kryoptic would configure OpenSSL by itself, but asks for parts that the
//! crate leaves out; where it finds a `libcrypto.a` it takes that, so it is made here first.
//!
//! It takes some three minutes on two cores. Needs, beside a C compiler: make, perl, libclang (bindgen reads headers
//! with it; its own headers too, `libclang-common-*-dev`) and SQLite's headers.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::command::Job;

/// The version that the cache's folder is named after.
const VERSION: &str = "1.5.4";
const OPENSSL_SRC_VERSION: &str = "300.6.1+3.6.3";
const MODULE: &str = "libkryoptic_pkcs11.so";

/// What apt calls the things it needs.
pub(crate) const PACKAGES: &[&str] = &["gcc", "make", "perl", "libclang-dev", "libsqlite3-dev"];

/// For each step: several times what it takes on two slow cores.
const LIMIT: Duration = Duration::from_secs(900);

/// The path of the module, which is built in `cache` if it is not there yet. The tests find it by `SEGL_KRYOPTIC`.
pub(crate) fn ensure(cache: &Path) -> Result<PathBuf, String> {
    let home = cache.join(format!("kryoptic-{VERSION}"));
    let module = home.join(MODULE);
    if module.exists() {
        return Ok(module);
    }
    println!("  building Kryoptic {VERSION} into {}: a second PKCS#11 token for the tests", home.display());
    let build = home.join("build");
    build_in(&build, &home.join("build.log")).map_err(|error| format!("Kryoptic: {error}"))?;
    let publish = || -> io::Result<()> {
        // By rename, so that a half copied module is never taken for one.
        let whole = home.join("new.so");
        fs::copy(build.join("target/release").join(MODULE), &whole)?;
        fs::rename(whole, &module)?;
        fs::remove_dir_all(&build)
    };
    publish().map_err(|error| format!("{}: {error}", module.display()))?;
    Ok(module)
}

fn build_in(build: &Path, log: &Path) -> crate::Result<()> {
    if build.exists() {
        fs::remove_dir_all(build)?;
    }
    let (kryoptic, openssl) = sources(build, log)?;
    let own_kryoptic = build.join("kryoptic");
    let own_openssl = build.join("openssl");
    copy_folder(&kryoptic, &own_kryoptic)?;
    copy_folder(&openssl.join("openssl"), &own_openssl)?;

    let options =
        ["no-shared", "no-module", "no-legacy", "no-tests", "no-apps", "no-docs", "no-deprecated", "no-atexit"];
    Job::new("./Configure", &own_openssl, log.to_path_buf()).args(options).must(LIMIT)?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    Job::new("make", &own_openssl, log.to_path_buf())
        .arg(format!("-j{jobs}"))
        .args(["build_generated", "libcrypto.a"])
        .must(LIMIT)?;
    Job::new("cargo", &own_kryoptic, log.to_path_buf())
        .args(["build", "--release", "--locked", "--no-default-features", "--features", "standard,ossl/ossl-sys"])
        .env("KRYOPTIC_OPENSSL_SOURCES", &own_openssl)
        .env("CARGO_TARGET_DIR", build.join("target"))
        .must(LIMIT)?;
    Ok(())
}

/// Where cargo has put the sources of the two crates, which it is made to fetch by a package that depends on them.
fn sources(build: &Path, log: &Path) -> crate::Result<(PathBuf, PathBuf)> {
    let package = build.join("sources");
    fs::create_dir_all(package.join("src"))?;
    fs::write(package.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"sources\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nkryoptic = \"={VERSION}\"\nopenssl-src = \"={OPENSSL_SRC_VERSION}\"\n"
    );
    fs::write(package.join("Cargo.toml"), manifest)?;
    let metadata_file = build.join("metadata.json");
    Job::new("cargo", &package, log.to_path_buf()).arg("fetch").must(LIMIT)?;
    // Into a file of its own: the last line is the answer, the first the command.
    let metadata = Job::new("cargo", &package, metadata_file).args(["metadata", "--format-version=1", "--quiet"]);
    let output = metadata.must(LIMIT)?.output()?;
    let answer = output.lines().last().unwrap_or_default();
    let metadata: serde_json::Value = serde_json::from_str(answer)?;
    let folder = |name: &str| -> crate::Result<PathBuf> {
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let manifest =
            packages.filter(|package| package["name"] == name).find_map(|package| package["manifest_path"].as_str());
        let manifest = manifest.ok_or_else(|| format!("cargo metadata does not name {name}"))?;
        Ok(Path::new(manifest).parent().ok_or("a manifest without a folder")?.to_path_buf())
    };
    Ok((folder("kryoptic")?, folder("openssl-src")?))
}

/// Files with their permissions; there is nothing else in a crate.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
