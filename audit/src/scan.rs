//! Reading one segment: batch after batch, everything checked, and the judgement of what stands after the last.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    codec,
    format::{
        self, BATCH_HEADER_LEN, BLOCK, BatchHeader, GENESIS, HEADER_LEN, Hash, SEGMENT_BYTES_MAX, SegmentHeader, align,
    },
    record::Entry,
};

/// Something in a journal that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}, byte {offset}, record {seq}: {what}", file.display())]
pub struct Defect {
    /// The segment
    pub file: PathBuf,
    /// Where the batch, or the header, begins
    pub offset: u64,
    /// The record that was expected there
    pub seq: u64,
    /// What is wrong
    pub what: String,
}

/// Why a journal can not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system refused
    #[error("{}: {source}", path.display())]
    Io {
        /// What was read
        path: PathBuf,
        /// Why it can not be
        source: io::Error,
    },
    /// It is not as it was written
    #[error(transparent)]
    Defect(#[from] Defect),
}

impl ReadError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> ReadError + '_ {
        |source| ReadError::Io { path: path.to_owned(), source }
    }
}

/// The segments of a directory by first sequence number.
pub(crate) fn list_segments(directory: &Path) -> Result<Vec<(u64, PathBuf)>, ReadError> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(ReadError::io(directory))? {
        let path = entry.map_err(ReadError::io(directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(first_seq) = name.and_then(format::parse_segment_name) {
            segments.push((first_seq, path));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// A segment being read from its beginning.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) header: SegmentHeader,
    /// Where the next batch begins
    pub(crate) offset: u64,
    /// The next record
    pub(crate) next_seq: u64,
    /// Hash of the record before
    pub(crate) hash: Hash,
    batch: Vec<u8>,
}

/// What stands where a batch may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// A batch of that many bytes, its checksum right; it is in the buffer
    Batch(u32),
    /// Nothing: zeros, or the file's end
    Nothing,
    /// Something else
    Broken(&'static str),
}

/// What stands after the last sound batch of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Zeros
    Clean,
    /// One torn batch, or less, up to `end`; then zeros
    Torn { end: u64 },
}

impl Segment {
    /// Opens it and checks its header.
    pub(crate) fn open(path: &Path, first_seq: u64, file: File) -> Result<Segment, ReadError> {
        let defect = |what: &str| Defect { file: path.to_owned(), offset: 0, seq: first_seq, what: what.to_owned() };
        let mut block = [0; HEADER_LEN as usize];
        match file.read_exact_at(&mut block, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(defect("the file ends within its header").into());
            }
            read => read.map_err(ReadError::io(path))?,
        }
        let header = SegmentHeader::decode(&block).map_err(defect)?;
        if header.first_seq != first_seq || first_seq == 0 {
            return Err(defect("the header's sequence number is not that of the file's name").into());
        }
        if first_seq == 1 && header.previous != GENESIS {
            return Err(defect("the first segment says that there was one before it").into());
        }
        Ok(Segment {
            path: path.to_owned(),
            file,
            offset: HEADER_LEN,
            next_seq: first_seq,
            hash: header.previous,
            header,
            batch: Vec::new(),
        })
    }

    /// Length of the file in bytes, as it is now.
    pub(crate) fn len(&self) -> Result<u64, ReadError> {
        Ok(self.file.metadata().map_err(ReadError::io(&self.path))?.len())
    }

    /// Reads the next batch and hands its records to `each`. False at the end of what is sound: [`Segment::tail`]
    /// then says what the end is. A batch with the right checksum and wrong content is a defect at once.
    pub(crate) fn next_batch(&mut self, each: &mut dyn FnMut(Entry)) -> Result<bool, ReadError> {
        let Found::Batch(len) = self.look(self.offset)? else { return Ok(false) };
        let batch = std::mem::take(&mut self.batch);
        let result = self.read_records(&batch, each);
        self.batch = batch;
        result?;
        self.offset += align(len.into());
        Ok(true)
    }

    /// Judges what stands at [`Segment::offset`], where no sound batch begins. A writer writes one batch at a time and
    /// waits for the disk, so a crash leaves at most one torn batch, and nothing but zeros after it: a sound batch
    /// anywhere later means that something else happened.
    ///
    /// None when a sound batch stands there after all, because a writer is at work.
    pub(crate) fn tail(&mut self) -> Result<Option<Tail>, ReadError> {
        let len = self.len()?;
        let mut end = self.offset;
        let mut chunk = vec![0; 1 << 20];
        let mut at = self.offset;
        while at < len {
            let want = chunk.len().min((len - at) as usize);
            let got = self.file.read_at(&mut chunk[..want], at).map_err(ReadError::io(&self.path))?;
            if got == 0 {
                break;
            }
            let read = &chunk[..got];
            if let Some(last) = read.iter().rposition(|&byte| byte != 0) {
                end = at + last as u64 + 1;
                for block in (0..got).step_by(BLOCK as usize) {
                    let candidate = at + block as u64;
                    if candidate > self.offset
                        && BatchHeader::decode(&read[block..]).is_some()
                        && matches!(self.look(candidate)?, Found::Batch(_))
                    {
                        return match self.look(self.offset)? {
                            Found::Batch(_) => Ok(None),
                            Found::Nothing => Err(self.defect("zeros where a batch has been").into()),
                            Found::Broken(what) => Err(self.defect(what).into()),
                        };
                    }
                }
            }
            // Blocks, not bytes, so that no header falls between two chunks; less only at the file's end.
            at += if got >= BLOCK as usize { got as u64 / BLOCK * BLOCK } else { got as u64 };
        }
        Ok(Some(if end == self.offset { Tail::Clean } else { Tail::Torn { end } }))
    }

    /// Sees that nothing stands after the last batch of a segment that has a successor.
    pub(crate) fn ends_clean(&mut self) -> Result<(), ReadError> {
        match self.tail()? {
            Some(Tail::Clean) => Ok(()),
            Some(Tail::Torn { .. }) => {
                let what = self.complaint()?;
                Err(self.defect(what).into())
            }
            None => Err(self.defect("a batch that was not there a moment ago").into()),
        }
    }

    /// Sees that `next` begins where this one, read to its end, has ended.
    pub(crate) fn is_followed_by(&self, next: &Segment) -> Result<(), Defect> {
        let defect = |what: String| Err(Defect { file: next.path.clone(), offset: 0, seq: self.next_seq, what });
        if next.header.first_seq != self.next_seq {
            return defect(format!("records {} to {} are missing before this segment", self.next_seq, {
                next.header.first_seq.saturating_sub(1)
            }));
        }
        if next.header.previous != self.hash {
            return defect("the segment does not follow from the one before: the hashes differ".to_owned());
        }
        Ok(())
    }

    /// What is wrong at the present place.
    pub(crate) fn defect(&self, what: impl Into<String>) -> Defect {
        Defect { file: self.path.clone(), offset: self.offset, seq: self.next_seq, what: what.into() }
    }

    /// Says why no batch begins at the present place.
    fn complaint(&mut self) -> Result<&'static str, ReadError> {
        Ok(match self.look(self.offset)? {
            Found::Broken(what) => what,
            _ => "bytes that belong to no batch",
        })
    }

    fn look(&mut self, offset: u64) -> Result<Found, ReadError> {
        let left = self.len()?.saturating_sub(offset).min(SEGMENT_BYTES_MAX);
        if left == 0 {
            return Ok(Found::Nothing);
        }
        let mut start = [0; BATCH_HEADER_LEN];
        let start = &mut start[..left.min(BATCH_HEADER_LEN as u64) as usize];
        if !self.read_at(start, offset)? {
            return Ok(Found::Nothing);
        }
        if start.iter().all(|&byte| byte == 0) {
            return Ok(Found::Nothing);
        }
        let Some(header) = BatchHeader::decode(start) else {
            return Ok(Found::Broken("no batch begins here"));
        };
        if u64::from(header.len) > left || (header.len as usize) < BATCH_HEADER_LEN {
            return Ok(Found::Broken("the batch's length can not be"));
        }
        // The padding belongs to it: nothing may hide there.
        let padded = align(header.len.into()).min(left) as usize;
        let mut batch = std::mem::take(&mut self.batch);
        batch.resize(padded, 0);
        let whole = self.read_at(&mut batch, offset)?;
        let (batch_bytes, padding) = batch.split_at(header.len as usize);
        let found = if !whole || !format::batch_checksum_holds(batch_bytes) {
            Found::Broken("the batch's checksum is wrong")
        } else if padding.iter().any(|&byte| byte != 0) {
            Found::Broken("bytes between two batches")
        } else {
            batch.truncate(header.len as usize);
            Found::Batch(header.len)
        };
        self.batch = batch;
        Ok(found)
    }

    /// False when the file ends before.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<bool, ReadError> {
        match self.file.read_exact_at(bytes, offset) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(ReadError::io(&self.path)(error)),
        }
    }

    fn read_records(&mut self, batch: &[u8], each: &mut dyn FnMut(Entry)) -> Result<(), ReadError> {
        let header = BatchHeader::decode(batch).expect("look() has decoded it");
        if header.first_seq != self.next_seq {
            return Err(self.defect(format!("the batch begins with record {}", header.first_seq)).into());
        }
        let mut frames = &batch[BATCH_HEADER_LEN..];
        let mut records = 0;
        while !frames.is_empty() {
            let frame = format::split_frame(frames, &self.hash).map_err(|what| self.defect(what))?;
            let entry = codec::decode(frame.body).map_err(|error| self.defect(error.to_string()))?;
            if entry.seq != self.next_seq {
                return Err(self.defect(format!("the record has the number {}", entry.seq)).into());
            }
            let Some(next_seq) = self.next_seq.checked_add(1) else {
                return Err(self.defect("the numbers have come to their end").into());
            };
            self.hash = frame.hash;
            self.next_seq = next_seq;
            records += 1;
            frames = frame.rest;
            each(entry);
        }
        if records != header.records || records == 0 {
            return Err(self.defect("the batch holds another number of records than it says").into());
        }
        Ok(())
    }
}
