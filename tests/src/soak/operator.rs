//! Who has segld read its configuration again: the same, another, a wrong one, and what helps a token.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{dice::Dice, ground::pin_file};
use crate::{
    Result,
    http::Http,
    pki::write_private,
    process::{Service, Signal},
    site::Site,
};

/// A reload looks up keys on tokens that may be ill, and tests them.
const RELOAD_MAX: Duration = Duration::from_secs(40);

pub(super) struct Operator<'a> {
    site: &'a Site,
    segld: &'a Mutex<Service>,
    admin: Http,
    done: Mutex<Reloads>,
    /// The latest revocation list's number, which must rise
    crl: AtomicU64,
}

/// What the operator has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reloads {
    pub(super) taken: u64,
    pub(super) refused: u64,
    pub(super) longest: Duration,
}

impl<'a> Operator<'a> {
    pub(super) fn new(site: &'a Site, segld: &'a Mutex<Service>) -> Result<Self> {
        Ok(Operator { site, segld, admin: site.segld_admin()?, done: Mutex::default(), crl: AtomicU64::new(1) })
    }

    /// The configuration as it is.
    pub(super) fn reload(&self) -> Result<()> {
        self.reload_with(&self.site.segld_toml, true)
    }

    /// One of the things that operators do.
    pub(super) fn does_something(&self, dice: &mut Dice) -> Result<()> {
        let toml = &self.site.segld_toml;
        match dice.below(4) {
            0 => self.reload(),
            1 => {
                let number = self.crl.fetch_add(1, Ordering::Relaxed) + 1;
                let crl = self.site.clients.crl(number, &[], Duration::from_secs(30 * 86_400))?;
                std::fs::write(self.site.crl(), crl)?;
                self.reload()
            }
            2 => {
                let share = format!("name = \"tenant-2\"\nin_flight_max = {}\n", dice.between(4_000, 8_000));
                self.reload_with(&toml.replace("name = \"tenant-2\"\n", &share), true)
            }
            _ => self.reload_with(&format!("{toml}\n[[key]]\nname = \"nowhere\"\n"), false),
        }
    }

    /// The token's PIN, as the operator knows it from now on.
    pub(super) fn learn_pin(&self, token: usize, pin: &str) -> Result<()> {
        // A reload in between would find no file.
        let _segld = lock(self.segld);
        write_private(&pin_file(&self.site.dir, token), pin.as_bytes())
    }

    pub(super) fn reloads(&self) -> Reloads {
        *lock(&self.done)
    }

    fn reload_with(&self, toml: &str, right: bool) -> Result<()> {
        let mut segld = lock(self.segld);
        std::fs::write(self.site.segld_config(), toml)?;
        let began = Instant::now();
        segld.signal(Signal::HUP)?;
        segld.notified("RELOADING=1", RELOAD_MAX)?;
        segld.ready(RELOAD_MAX)?;
        let taken = self.admin.metric("segl_reload_ok", &[])? > 0.0;
        let mut done = lock(&self.done);
        done.longest = done.longest.max(began.elapsed());
        *(if taken { &mut done.taken } else { &mut done.refused }) += 1;
        if taken == right {
            return Ok(());
        }
        let log = segld.log();
        let said = log.lines().rev().find(|line| line.contains("reload")).unwrap_or_default();
        Err(format!("a reload that was to be {}: {said}", if right { "taken" } else { "refused" }).into())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
