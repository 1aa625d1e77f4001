//! The log, to standard error, where journald takes it.

use std::io;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// Starts it. The environment's `SEGL_LOG` outdoes the configured level, for an operator's quick look.
pub(super) fn start(settings: &Log) {
    let filter = EnvFilter::try_from_env("SEGL_LOG").unwrap_or_else(|_| EnvFilter::new(settings.level.name()));
    let log = fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // A second start in one process keeps the first one's log.
    let _ = match settings.format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}
