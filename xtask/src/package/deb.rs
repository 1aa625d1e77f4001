//! A package's tree of files, and the package that dpkg-deb makes of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::LIMIT;
use crate::{Result, command::Job};

/// What will be installed, and beside it in `DEBIAN` what dpkg wants to know.
pub(super) struct Tree {
    root: PathBuf,
    log: PathBuf,
    /// It serves a test: neither its size nor what a trace says matters
    quickly: bool,
}

impl Tree {
    /// An empty one, in place of what was there.
    pub(super) fn new(root: &Path, log: &Path, quickly: bool) -> Result<Tree> {
        if root.exists() {
            fs::remove_dir_all(root)?;
        }
        let tree = Tree { root: root.to_path_buf(), log: log.to_path_buf(), quickly };
        tree.directory(&root.join("DEBIAN"))?;
        Ok(tree)
    }

    /// A program; what it links to becomes a dependency. Its symbols and line tables stay, for traces.
    pub(super) fn program(&self, from: &Path, to: &str) -> Result<()> {
        self.put(from, to, 0o755)?;
        if self.quickly {
            self.job("strip").args(["--strip-all", to]).must(LIMIT)?;
        }
        Ok(())
    }

    /// A file that everybody may read.
    pub(super) fn file(&self, from: &Path, to: &str) -> Result<()> {
        self.put(from, to, 0o644)
    }

    /// A file that is installed with gzip, as policy wants man pages and changelogs.
    pub(super) fn compressed(&self, from: &Path, to: &str) -> Result<()> {
        self.put(from, to, 0o644)?;
        // Without name and time: they would differ from build to build.
        self.job("gzip").args(["--best", "--no-name", to]).must(LIMIT)?;
        Ok(())
    }

    /// A script that dpkg runs.
    pub(super) fn script(&self, from: &Path, name: &str) -> Result<()> {
        self.put(from, &format!("DEBIAN/{name}"), 0o755)
    }

    /// The package's description, to which [`Tree::build`] adds what it finds out.
    pub(super) fn control(&self, from: &Path) -> Result<()> {
        self.put(from, "DEBIAN/control", 0o644)
    }

    /// Makes the package, beside the tree.
    pub(super) fn build(self, name: &str, version: &str, epoch_s: u64) -> Result<PathBuf> {
        let architecture = said(Command::new("dpkg").arg("--print-architecture"))?;
        let installed_kib = self.sums()?.div_ceil(1024);
        let control = self.root.join("DEBIAN/control");
        let text = fs::read_to_string(&control)?.replace("${shlibs:Depends}", &self.libraries()?);
        let (first, rest) = text.split_once('\n').ok_or("a package's description begins with its name")?;
        fs::write(
            &control,
            format!(
                "{first}\nSource: segl\nVersion: {version}\nArchitecture: {architecture}\n\
                 Installed-Size: {installed_kib}\n{rest}"
            ),
        )?;
        let made = self.root.with_file_name(format!("{name}_{version}_{architecture}.deb"));
        let compression: &[&str] = if self.quickly { &["-Zgzip", "-z1"] } else { &["-Zxz"] };
        self.job("dpkg-deb")
            .env("SOURCE_DATE_EPOCH", epoch_s.to_string())
            .args(["--root-owner-group"])
            .args(compression)
            .arg("--build")
            .arg(&self.root)
            .arg(&made)
            .must(LIMIT)?;
        fs::remove_dir_all(&self.root)?;
        Ok(made)
    }

    /// Writes `md5sums`, by which `dpkg --verify` tells a file that was changed; returns the bytes of all files.
    fn sums(&self) -> Result<u64> {
        let mut files = Vec::new();
        gather(&self.root, &mut files)?;
        let inside = |path: &PathBuf| path.strip_prefix(&self.root).map(Path::to_path_buf);
        let mut files = files.iter().map(inside).collect::<std::result::Result<Vec<_>, _>>()?;
        files.retain(|path| !path.starts_with("DEBIAN"));
        files.sort();
        let mut bytes = 0;
        for file in &files {
            bytes += fs::metadata(self.root.join(file))?.len();
        }
        let sums = said(Command::new("md5sum").current_dir(&self.root).args(&files))?;
        let to = self.root.join("DEBIAN/md5sums");
        fs::write(&to, sums + "\n")?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o644))?;
        Ok(bytes)
    }

    /// What the programs link to, as dependencies on packages.
    fn libraries(&self) -> Result<String> {
        // dpkg-shlibdeps wants to run where a source package is.
        let source = self.root.with_extension("source");
        fs::create_dir_all(source.join("debian"))?;
        fs::write(source.join("debian/control"), "Source: segl\n\nPackage: segl\nArchitecture: any\n")?;
        let mut programs = Vec::new();
        gather(&self.root.join("usr/bin"), &mut programs)?;
        let found = said(Command::new("dpkg-shlibdeps").current_dir(&source).arg("-O").args(&programs));
        fs::remove_dir_all(&source)?;
        let found = found?;
        let depends = found.strip_prefix("shlibs:Depends=").ok_or("dpkg-shlibdeps found no dependency")?;
        Ok(depends.to_owned())
    }

    fn put(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let to = self.root.join(to);
        self.directory(to.parent().ok_or("a file's path has a directory")?)?;
        fs::copy(from, &to).map_err(|error| format!("{}: {error}", from.display()))?;
        Ok(fs::set_permissions(&to, fs::Permissions::from_mode(mode))?)
    }

    /// Made with the rights that it will have, whatever the umask here is.
    fn directory(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        let inside = directory.ancestors().take_while(|above| above.starts_with(&self.root));
        for directory in inside {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    fn job(&self, program: &str) -> Job {
        Job::new(program, &self.root, self.log.clone())
    }
}

fn gather(directory: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { gather(&path, into)? } else { into.push(path) }
    }
    Ok(())
}

/// What a command says.
fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
