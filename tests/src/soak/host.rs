//! What a process takes of its host.

use std::fmt;

use serde_json::{Value, json};

use crate::{Result, process::Service};

/// Memory, descriptors and threads of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Footprint {
    pub(super) resident_kib: u64,
    pub(super) descriptors: u64,
    /// Those that segld starts and names. Beside them there are the kernel's io_uring workers, Tokio's thread for
    /// reloads, which goes after ten idle seconds, and the faulty tokens' own, one a command
    pub(super) threads: u64,
}

impl Footprint {
    pub(super) fn of(service: &Service) -> Result<Footprint> {
        let process = format!("/proc/{}", service.pid());
        let status = std::fs::read_to_string(format!("{process}/status"))?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
            Ok::<u64, Box<dyn std::error::Error + Send + Sync>>(
                line.split_whitespace().next().unwrap_or_default().parse()?,
            )
        };
        let descriptors = std::fs::read_dir(format!("{process}/fd"))?.count() as u64;
        let tasks = std::fs::read_dir(format!("{process}/task"))?.flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        let threads = names.filter(|name| name.starts_with("segl")).count() as u64;
        Ok(Footprint { resident_kib: number("VmRSS:")?, descriptors, threads })
    }

    pub(super) fn to_json(self) -> Value {
        let Footprint { resident_kib, descriptors, threads } = self;
        json!({ "resident_kib": resident_kib, "descriptors": descriptors, "threads": threads })
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Footprint { resident_kib, descriptors, threads } = self;
        write!(f, "{} MiB resident, {descriptors} descriptors, {threads} threads of its own", resident_kib / 1024)
    }
}
