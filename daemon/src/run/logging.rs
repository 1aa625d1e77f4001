//! The log, to standard error, where journald takes it.
//!
//! A thread of its own writes it: a pipe that nobody empties must not stop a reactor. When too much waits, lines are
//! dropped, which is why nothing that has to stay is only logged; what has to stay stands in the journal.

use std::io;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// Starts it; it ends when the guard is dropped, with its last lines written. The environment's `SEGL_LOG` outdoes the configured level, for an operator's quick look.
pub(super) fn start(settings: &Log) -> WorkerGuard {
    let filter = EnvFilter::try_from_env("SEGL_LOG").unwrap_or_else(|_| EnvFilter::new(settings.level.name()));
    let (writer, guard) = tracing_appender::non_blocking(io::stderr());
    let log = fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    // A second start in one process keeps the first one's log.
    let _ = match settings.format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    guard
}
