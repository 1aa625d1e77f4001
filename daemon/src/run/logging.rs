//! The log, to standard error, where journald takes it.
//!
//! A thread of its own writes it: a pipe that nobody empties must not stop a reactor. When too much waits, lines are
//! dropped, which is why nothing that has to stay is only logged; what has to stay stands in the journal.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// How much is logged, for an operator to change while segld runs: until the next start, which reads the configuration.
#[derive(Clone)]
pub(crate) struct LogLevels {
    now: Arc<Mutex<String>>,
    change: Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl LogLevels {
    /// The level, or the filter in `SEGL_LOG`.
    pub(crate) fn now(&self) -> String {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs this much from now on.
    ///
    /// # Errors
    /// When the log is another's, as for a second daemon in one process.
    pub(crate) fn set(&self, level: &str) -> Result<(), String> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        (self.change)(EnvFilter::new(level))?;
        level.clone_into(&mut now);
        Ok(())
    }
}

/// Starts it; it ends when the guard is dropped, with its last lines written. The environment's `SEGL_LOG` outdoes the configured level, for an operator's quick look.
pub(super) fn start(settings: &Log) -> (WorkerGuard, LogLevels) {
    let configured = || EnvFilter::new(settings.level.name());
    let filter = EnvFilter::try_from_env("SEGL_LOG").unwrap_or_else(|_| configured());
    let now = Arc::new(Mutex::new(filter.to_string()));
    let (writer, guard) = tracing_appender::non_blocking(io::stderr());
    let log = fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    // A second start in one process keeps the first one's log.
    let change: Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync> = match settings.format {
        LogFormat::Text => {
            let log = log.with_ansi(false).with_filter_reloading();
            let handle = log.reload_handle();
            let _ = log.try_init();
            Arc::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        }
        LogFormat::Json => {
            let log = log.json().flatten_event(true).with_filter_reloading();
            let handle = log.reload_handle();
            let _ = log.try_init();
            Arc::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        }
    };
    (guard, LogLevels { now, change })
}
