//! Reading a journal from one end to the other, also while a daemon writes it.

use std::{
    collections::VecDeque,
    fs::File,
    path::{Path, PathBuf},
};

use crate::{
    record::Entry,
    scan::{self, ReadError, Segment, Tail},
};

/// The records of a journal in their order, everything checked on the way: checksums, hashes, numbers.
///
/// It ends without complaint at the last sound record; bytes after that which may be a write under way, or a torn
/// one, are told by [`Reader::torn_tail`]. After an error it ends.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    segment: Option<Segment>,
    entries: VecDeque<Entry>,
    segments: usize,
    torn: Option<TornTail>,
    over: bool,
}

/// Bytes after the last sound record: a write under way, or one that a crash has torn. The next start of the daemon
/// repairs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment
    pub file: PathBuf,
    /// Where they begin
    pub offset: u64,
    /// How many they are
    pub bytes: u64,
}

impl Reader {
    /// From the first record there is.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Reader, ReadError> {
        Reader::open_at(directory, 0)
    }

    /// From the beginning of the segment that holds this record; what stands in earlier segments is not looked at.
    pub fn open_at(directory: impl Into<PathBuf>, seq: u64) -> Result<Reader, ReadError> {
        let directory = directory.into();
        let segments = scan::list_segments(&directory)?;
        let index = segments.partition_point(|(first_seq, _)| *first_seq <= seq).saturating_sub(1);
        let segment = match segments.get(index) {
            None => None,
            Some((first_seq, path)) => Some(open_segment(path, *first_seq)?),
        };
        Ok(Reader {
            directory,
            segments: usize::from(segment.is_some()),
            segment,
            entries: VecDeque::new(),
            torn: None,
            over: false,
        })
    }

    /// What stood after the last record, once the end is reached.
    pub fn torn_tail(&self) -> Option<&TornTail> {
        self.torn.as_ref()
    }

    /// Segments read so far.
    pub(crate) fn segments(&self) -> usize {
        self.segments
    }

    /// Number and hash of what would follow the last batch read; none when there is no segment.
    pub(crate) fn end(&self) -> Option<(u64, [u8; 32])> {
        self.segment.as_ref().map(|segment| (segment.next_seq, segment.hash))
    }

    /// Reads batches until there are entries. False at the end.
    fn fill(&mut self) -> Result<bool, ReadError> {
        let Some(segment) = &mut self.segment else { return Ok(false) };
        loop {
            if segment.next_batch(&mut |entry| self.entries.push_back(entry))? {
                return Ok(true);
            }
            // First whether there is a successor, then whether this one has really ended: a writer that goes on to
            // the next segment never comes back.
            let successor =
                scan::list_segments(&self.directory)?.into_iter().find(|(seq, _)| *seq > segment.header.first_seq);
            match (segment.tail()?, successor) {
                (None, _) => continue,
                (Some(Tail::Clean), None) => return Ok(false),
                (Some(Tail::Torn { end }), None) => {
                    self.torn = Some(TornTail {
                        file: segment.path.clone(),
                        offset: segment.offset,
                        bytes: end - segment.offset,
                    });
                    return Ok(false);
                }
                (Some(_), Some((first_seq, path))) => {
                    // A writer may have finished its last batch here since.
                    if segment.next_batch(&mut |entry| self.entries.push_back(entry))? {
                        return Ok(true);
                    }
                    segment.ends_clean()?;
                    let next = open_segment(&path, first_seq)?;
                    segment.is_followed_by(&next)?;
                    self.segments += 1;
                    *segment = next;
                }
            }
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        while self.entries.is_empty() {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => {
                    self.over = true;
                    return None;
                }
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        self.entries.pop_front().map(Ok)
    }
}

fn open_segment(path: &Path, first_seq: u64) -> Result<Segment, ReadError> {
    Segment::open(path, first_seq, File::open(path).map_err(ReadError::io(path))?)
}
