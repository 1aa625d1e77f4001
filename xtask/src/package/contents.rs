//! What goes where in which package.

use std::path::Path;

use super::deb::Tree;
use crate::Result;

/// One package. Sources are the workspace's; a directory as destination ends in `/`.
pub(super) struct Package {
    pub(super) name: &'static str,
    /// Into `/usr/bin`
    programs: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
}

const SEGLD_DOC: &str = "usr/share/doc/segld/";
const SEGLD_EXAMPLES: &str = "usr/share/doc/segld/examples/";
const BROKER_DOC: &str = "usr/share/doc/segl-broker/";
const BROKER_EXAMPLES: &str = "usr/share/doc/segl-broker/examples/";
const UNITS: &str = "usr/lib/systemd/system/";
const SYSUSERS: &str = "usr/lib/sysusers.d/";
const TMPFILES: &str = "usr/lib/tmpfiles.d/";
const MONITORING: &str = "usr/share/segl/monitoring/";

pub(super) const PACKAGES: &[Package] = &[
    Package {
        name: "segld",
        programs: &["segld", "segl"],
        files: &[
            ("systemd/segld.service", UNITS),
            ("systemd/segld.socket", UNITS),
            ("systemd/segld-doctor.service", UNITS),
            ("systemd/sysusers.d/segld.conf", SYSUSERS),
            ("systemd/tmpfiles.d/segld.conf", TMPFILES),
            ("systemd/monitoring/segl.rules.yml", MONITORING),
            ("systemd/monitoring/segl-dashboard.json", MONITORING),
            ("README.md", SEGLD_DOC),
            ("docs/ARCHITECTURE.md", SEGLD_DOC),
            ("docs/CONFIGURATION.md", SEGLD_DOC),
            ("docs/OPERATIONS.md", SEGLD_DOC),
            ("docs/PROTOCOL.md", SEGLD_DOC),
            ("docs/protocol.cddl", SEGLD_DOC),
            ("docs/SECURITY.md", SEGLD_DOC),
            // Never where a unit would find it: its keys and tenants are nobody's.
            ("docs/samples/segld.toml", SEGLD_EXAMPLES),
            ("systemd/examples/cores.conf", SEGLD_EXAMPLES),
            ("systemd/examples/network-hsm.conf", SEGLD_EXAMPLES),
            ("systemd/examples/pcie-hsm.conf", SEGLD_EXAMPLES),
            ("systemd/examples/plain-credentials.conf", SEGLD_EXAMPLES),
        ],
    },
    Package {
        name: "segl-broker",
        programs: &["segl-broker"],
        files: &[
            ("systemd/segl-broker.service", UNITS),
            ("systemd/segl-broker.socket", UNITS),
            ("systemd/sysusers.d/segl-broker.conf", SYSUSERS),
            ("systemd/tmpfiles.d/segl-broker.conf", TMPFILES),
            ("docs/CONFIGURATION.md", BROKER_DOC),
            ("docs/OPERATIONS.md", BROKER_DOC),
            ("docs/SECURITY.md", BROKER_DOC),
            ("docs/samples/segl-broker.toml", BROKER_EXAMPLES),
            ("systemd/examples/broker-credentials.conf", BROKER_EXAMPLES),
        ],
    },
];

impl Package {
    /// Puts everything into its tree.
    pub(super) fn fill(&self, tree: &Tree, root: &Path, programs: &Path, share: &Path) -> Result<()> {
        for program in self.programs {
            tree.program(&programs.join(program), &format!("usr/bin/{program}"))?;
        }
        for (from, to) in self.files {
            let name = from.rsplit('/').next().unwrap_or(from);
            tree.file(&root.join(from), &format!("{to}{name}"))?;
        }
        for section in ["man1", "man5", "man7", "man8"] {
            for page in names(&share.join("man").join(section))?.iter().filter(|page| self.has_page(page)) {
                tree.compressed(
                    &share.join("man").join(section).join(page),
                    &format!("usr/share/man/{section}/{page}"),
                )?;
            }
        }
        for program in self.programs {
            for file in [
                format!("bash-completion/completions/{program}"),
                format!("zsh/vendor-completions/_{program}"),
                format!("fish/vendor_completions.d/{program}.fish"),
            ] {
                tree.file(&share.join(&file), &format!("usr/share/{file}"))?;
            }
        }
        let debian = root.join("debian");
        let doc = format!("usr/share/doc/{}", self.name);
        tree.file(&debian.join("copyright"), &format!("{doc}/copyright"))?;
        tree.compressed(&debian.join("changelog"), &format!("{doc}/changelog"))?;
        let overrides = debian.join(format!("{}.lintian-overrides", self.name));
        tree.file(&overrides, &format!("usr/share/lintian/overrides/{}", self.name))?;
        for script in ["postinst", "prerm", "postrm"] {
            tree.script(&debian.join(format!("{}.{script}", self.name)), script)?;
        }
        tree.control(&debian.join(format!("{}.control", self.name)))
    }

    /// Whether a man page is of one of its programs, or about their files.
    fn has_page(&self, page: &str) -> bool {
        page.starts_with("segl-broker") == (self.name == "segl-broker")
    }
}

/// The names in a directory, sorted; none where there is no directory.
fn names(directory: &Path) -> Result<Vec<String>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
