//! The two threads of the journal: the writer, which turns what is pending into batches on disk, and the allocator,
//! which has the next segment ready before it is needed.
//!
//! A tree over the records (for proofs of inclusion), signed checkpoints and copies to other places belong between
//! `sync` and the watermark's rise in [`Writer::commit`], where a batch has its final bytes and its last hash.

use std::{
    fs::File,
    io,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::{PoisonError, atomic::Ordering},
};

use crate::{
    disk::sync_directory,
    format::{self, HEADER_LEN, Hash, SegmentHeader},
    journal::Shared,
    ledger::{Batch, Target},
    pace::Next,
};

/// Name of the segment that waits for its turn.
pub(crate) const SPARE: &str = "segl-spare";
/// Name of one that is being allocated.
pub(crate) const SPARE_IN_WORK: &str = "segl-spare.new";

/// Where the next batch goes.
#[derive(Debug)]
pub(crate) struct Place {
    /// None before the first segment
    pub(crate) file: Option<File>,
    pub(crate) offset: u64,
    /// Hash of the last record
    pub(crate) hash: Hash,
}

/// The writer thread's own.
pub(crate) struct Writer<'s> {
    shared: &'s Shared,
    place: Place,
    batch: Batch,
}

/// The writer thread: runs until the journal is closed and all is written, or the disk fails.
pub(crate) fn write(shared: &Shared, place: Place) {
    or_fail(shared, "writer", || write_batches(shared, place));
}

fn write_batches(shared: &Shared, place: Place) {
    let mut writer = Writer { shared, place, batch: Batch::default() };
    while let Some(target) = writer.next() {
        let last_seq = writer.batch.first_seq + u64::from(writer.batch.records) - 1;
        if let Err(failure) = writer.commit(target) {
            shared.fail(failure);
            return;
        }
        let mut ledger = shared.ledger();
        // The other thread may have failed meanwhile: what has been called lost stays lost.
        if shared.has_failed() {
            return;
        }
        // Under the lock: whoever has looked at the watermark under it waits already and is woken.
        shared.durable.store(last_seq, Ordering::Release);
        let room_needed = ledger.committed(writer.batch.bytes.len() as u64);
        drop(ledger);
        if room_needed {
            shared.need.notify_one();
        }
        shared.tell();
    }
}

impl Writer<'_> {
    /// Waits for records, and for company to them. None when the journal is closed.
    fn next(&mut self) -> Option<Target> {
        let mut ledger = self.shared.ledger();
        loop {
            ledger.settle_debts((self.shared.config.clock)());
            ledger = match ledger.writers_next() {
                Next::Commit => return ledger.take(&mut self.batch),
                Next::Rest if ledger.has_ended() => return None,
                Next::Rest => self.shared.work.wait(ledger).unwrap_or_else(PoisonError::into_inner),
                Next::Wait(left) => {
                    self.shared.work.wait_timeout(ledger, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Writes the batch and makes it durable. An error says what it means.
    fn commit(&mut self, target: Target) -> Result<(), String> {
        let Shared { config, .. } = self.shared;
        let Batch { bytes, records, first_seq, open_from, .. } = &mut self.batch;
        let previous = self.place.hash;
        let hash = format::seal(bytes, *records, *first_seq, previous);
        let failed = |call: &str, path: PathBuf, error: io::Error| {
            format!(
                "{}: {call}: {error}. Records up to {} may be lost; nothing is recorded, and so nothing signed, until \
                 the disk is sound and segld has been restarted",
                path.display(),
                *first_seq + u64::from(*records) - 1,
            )
        };
        let disk = &config.disk;
        match target {
            Target::Current => {
                let file = self.place.file.as_ref().expect("room in the current segment means that there is one");
                let path = || config.directory.clone();
                disk.write_at(file, bytes, self.place.offset).map_err(|error| failed("write", path(), error))?;
                disk.sync(file).map_err(|error| failed("fdatasync", path(), error))?;
            }
            Target::Next(file) => {
                // Its name is given last: a segment always has a sound header and a first batch.
                let (spare, name) =
                    (config.directory.join(SPARE), config.directory.join(format::segment_name(*first_seq)));
                let header = SegmentHeader {
                    first_seq: *first_seq,
                    segment_bytes: file.metadata().map_err(|error| failed("stat", spare.clone(), error))?.len(),
                    created_ns: (config.clock)(),
                    previous,
                    host: config.host.clone(),
                    open_from: *open_from,
                };
                let write = |bytes: &[u8], offset| {
                    disk.write_at(&file, bytes, offset).map_err(|error| failed("write", spare.clone(), error))
                };
                write(&header.encode(), 0)?;
                write(bytes, HEADER_LEN)?;
                disk.sync(&file).map_err(|error| failed("fdatasync", spare.clone(), error))?;
                std::fs::rename(&spare, &name).map_err(|error| failed("rename", spare.clone(), error))?;
                sync_directory(&config.directory).map_err(|error| failed("fsync", config.directory.clone(), error))?;
                (self.place.file, self.place.offset) = (Some(file), HEADER_LEN);
            }
        }
        self.place.offset += bytes.len() as u64;
        self.place.hash = hash;
        Ok(())
    }
}

/// The allocator thread: runs until the journal is closed.
pub(crate) fn allocate_ahead(shared: &Shared) {
    or_fail(shared, "allocator", || allocate_when_needed(shared));
}

fn allocate_when_needed(shared: &Shared) {
    let mut ledger = shared.ledger();
    loop {
        if ledger.has_ended() {
            return;
        }
        if !ledger.wants_spare() {
            ledger = shared.need.wait(ledger).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        if ledger.may_rest() {
            ledger = shared.need.wait_timeout(ledger, shared.config.retry).unwrap_or_else(PoisonError::into_inner).0;
            if ledger.has_ended() {
                return;
            }
        }
        drop(ledger);
        let made = make_spare(&shared.config, &|| shared.ledger().has_ended());
        ledger = shared.ledger();
        let tell = match made {
            Ok(spare) => {
                shared.complain(None);
                ledger.spare_ready(spare)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted && ledger.has_ended() => return,
            Err(error) => {
                shared.complain(Some(format!(
                    "{}: the next segment can not be allocated: {error}; no key is used once there is no room left; it \
                     is tried again every {:?}",
                    shared.config.directory.display(),
                    shared.config.retry
                )));
                ledger.spare_failed()
            }
        };
        if tell {
            ledger.wake_writer();
            drop(ledger);
            // What is owed can be written now.
            shared.work.notify_one();
            shared.tell();
            ledger = shared.ledger();
        }
    }
}

/// Allocates the next segment under its waiting name.
pub(crate) fn make_spare(config: &crate::Config, stop: &dyn Fn() -> bool) -> io::Result<File> {
    let (in_work, spare) = (config.directory.join(SPARE_IN_WORK), config.directory.join(SPARE));
    let file = config.disk.allocate(&in_work, config.segment_bytes, stop)?;
    std::fs::rename(&in_work, &spare)?;
    sync_directory(&config.directory)?;
    Ok(file)
}

/// A thread that dies by a panic leaves no journal that seems to work.
fn or_fail(shared: &Shared, what: &str, run: impl FnOnce()) {
    if panic::catch_unwind(AssertUnwindSafe(run)).is_err() {
        shared.fail(format!("the journal's {what} has panicked; segld has to be restarted"));
    }
}
