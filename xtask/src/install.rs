//! What the tests need from the machine: Debian packages, and a Python environment of their own.
//!
//! Everything is looked for first. Nothing is installed, and root is not needed, when nothing is missing.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Result, cache, command::Job, workspace};

/// How a package's presence is seen.
enum Sign {
    /// A program of this name on PATH
    Program(&'static str),
    /// A file
    File(&'static str),
    /// Python can import these
    Python(&'static str),
}

/// A Debian package and what it is for.
struct Package {
    name: &'static str,
    sign: Sign,
    why: &'static str,
}

const PACKAGES: &[Package] = &[
    Package {
        name: "softhsm2",
        sign: Sign::File("/usr/lib/softhsm/libsofthsm2.so"),
        why: "a PKCS#11 token in software: the tests of tokens and the demo run on it",
    },
    Package { name: "opensc", sign: Sign::Program("pkcs11-tool"), why: "makes keys in that token, and looks into it" },
    Package { name: "openssl", sign: Sign::Program("openssl"), why: "the independent judge of every signature" },
    Package { name: "xmlsec1", sign: Sign::Program("xmlsec1"), why: "the independent judge of XML signatures" },
    Package { name: "acl", sign: Sign::Program("setfacl"), why: "makes PIN files that only an ACL gives away" },
    Package {
        name: "systemd-container",
        sign: Sign::Program("systemd-nspawn"),
        why: "boots a real systemd for the tests of the units",
    },
    Package { name: "mmdebstrap", sign: Sign::Program("mmdebstrap"), why: "makes that container's root directory" },
    Package {
        name: "swtpm",
        sign: Sign::Program("swtpm"),
        why: "a TPM in software, to seal PINs to in that container",
    },
    Package {
        name: "python3-venv",
        sign: Sign::Python("venv, ensurepip"),
        why: "an environment for the protocol's client in Python, and for judges of signatures",
    },
    Package { name: "dpkg-dev", sign: Sign::Program("dpkg-shlibdeps"), why: "works out what the packages depend on" },
    Package { name: "lintian", sign: Sign::Program("lintian"), why: "Debian's own judge of packages" },
    Package {
        name: "groff-base",
        sign: Sign::Program("groff"),
        why: "sets man pages, and says what is wrong with them",
    },
    Package { name: "nodejs", sign: Sign::Program("node"), why: "an independent judge of JWS" },
    Package { name: "npm", sign: Sign::Program("npm"), why: "installs that judge" },
];

/// Longest an installation may take: a slow mirror, not a dead one.
const LIMIT: Duration = Duration::from_secs(600);

impl Package {
    fn present(&self) -> bool {
        match self.sign {
            Sign::Program(name) => on_path(name),
            Sign::File(path) => Path::new(path).exists(),
            Sign::Python(modules) => std::process::Command::new("python3")
                .args(["-c", &format!("import {modules}")])
                .stderr(std::process::Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
        }
    }
}

/// Installs whatever is missing, saying what and why; with `only`, nothing but these.
pub(crate) fn packages(only: &[&str], log: &Path) -> Result<()> {
    let wanted = |package: &&Package| only.is_empty() || only.contains(&package.name);
    let missing: Vec<&Package> = PACKAGES.iter().filter(wanted).filter(|package| !package.present()).collect();
    apt(&missing, log)
}

/// Installs those of these packages that dpkg does not know as installed.
pub(crate) fn debian(names: &[&'static str], why: &'static str, log: &Path) -> Result<()> {
    let installed = |name: &str| {
        let mut dpkg = std::process::Command::new("dpkg-query");
        let output = dpkg.args(["--show", "--showformat=${db:Status-Status}", name]).output();
        output.is_ok_and(|output| output.stdout == b"installed")
    };
    let missing: Vec<Package> = names
        .iter()
        .filter(|name| !installed(name))
        .map(|name| Package { name, sign: Sign::Program(name), why })
        .collect();
    apt(&missing.iter().collect::<Vec<_>>(), log)
}

fn apt(missing: &[&Package], log: &Path) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    for package in missing {
        println!("  {} is missing: {}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if !rustix::process::geteuid().is_root() {
        return Err(format!("only root can install them: sudo apt-get install {}", names.join(" ")).into());
    }
    let apt = || {
        Job::new("apt-get", &workspace(), log.to_path_buf())
            .env("DEBIAN_FRONTEND", "noninteractive")
            .arg("-qq")
            // Another apt at work (an image's first boot) is waited for, not fought.
            .arg("-oDPkg::Lock::Timeout=120")
    };
    apt().arg("update").must(LIMIT)?;
    apt().args(["install", "-y", "--no-install-recommends"]).args(names).must(LIMIT)?;
    Ok(())
}

/// A Python with the packages of tests/python/requirements.txt, kept under their text's own copy: other text, new
/// installation.
pub(crate) fn python(log: &Path) -> Result<PathBuf> {
    let requirements = workspace().join("tests/python/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).map_err(|e| format!("{}: {e}", requirements.display()))?;
    let venv = cache()?.join("venv");
    let python = venv.join("bin/python");
    let stamp = venv.join("requirements.txt");
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    println!(
        "  making a Python environment in {}: the protocol's client in another language, and judges",
        venv.display()
    );
    let run = |program: &Path| Job::new(program, &workspace(), log.to_path_buf());
    run(Path::new("python3")).args(["-m", "venv", "--clear"]).arg(&venv).must(LIMIT)?;
    run(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&requirements).must(LIMIT)?;
    std::fs::write(&stamp, wanted)?;
    Ok(python)
}

/// A folder with the packages of tests/node/package.json in its node_modules, kept as the Python environment is.
pub(crate) fn node(log: &Path) -> Result<PathBuf> {
    let package = workspace().join("tests/node/package.json");
    let wanted = std::fs::read_to_string(&package).map_err(|e| format!("{}: {e}", package.display()))?;
    let folder = cache()?.join("node");
    let stamp = folder.join("installed.json");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(folder);
    }
    println!("  installing packages for Node in {}: an independent judge of JWS", folder.display());
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(&package, folder.join("package.json"))?;
    let npm = Job::new("npm", &folder, log.to_path_buf());
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]).must(LIMIT)?;
    std::fs::write(&stamp, wanted)?;
    Ok(folder)
}

/// promtool, which judges alert rules. It comes with Prometheus, a service with a dozen other packages: of the package
/// nothing but this program is taken, and nothing is installed.
pub(crate) fn promtool(log: &Path) -> Result<PathBuf> {
    let folder = cache()?.join("promtool");
    let program = folder.join("usr/bin/promtool");
    if program.exists() {
        return Ok(program);
    }
    println!("  fetching promtool into {}: the judge of alert rules", folder.display());
    let download = folder.join("download");
    std::fs::create_dir_all(&download)?;
    let run = |program: &str| Job::new(program, &download, log.to_path_buf());
    // A machine that has installed nothing so far has no lists.
    if run("apt-get").args(["download", "-qq", "prometheus"]).must(LIMIT).is_err() {
        run("apt-get").args(["update", "-qq"]).must(LIMIT)?;
        run("apt-get").args(["download", "-qq", "prometheus"]).must(LIMIT)?;
    }
    let extract = "dpkg-deb --fsys-tarfile prometheus_*.deb | tar --extract --directory .. ./usr/bin/promtool";
    run("sh").args(["-c", extract]).must(LIMIT)?;
    std::fs::remove_dir_all(&download)?;
    Ok(program)
}

/// Whether a program of this name can be found.
pub(crate) fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}
