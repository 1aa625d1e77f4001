//! The bytes of a segment file. All integers are little-endian.
//!
//! ```text
//! segment  = header, batch*, zeros to the end
//! header   = one block:  "SEGLJNL1", version u32, 0 u32, first seq u64, size of the segment u64, created u64 (UTC ns),
//!            hash of the record before [32], length of the host's name u8, the name [<= 64], zeros to byte 144,
//!            first open intent u64, zeros, CRC-32C u32 of all before it
//! batch    = "SEGLBAT1", CRC-32C u32 of all after it, length u32 (header and frames), records u32, 0 u32,
//!            first seq u64, frame*, zeros to the next block
//! frame    = length u32 (of the body), CRC-32C u32 (of hash and body), hash [32] = SHA-256(hash before || body), body
//! ```
//!
//! A batch begins a block of 512 bytes, so writing one never touches a sector that holds an acknowledged one; and
//! since the rest is zeros, a block of zeros that only zeros follow is the end.

use ring::digest::{Context, SHA256};

/// What batches are aligned to: the smallest sector a disk writes.
pub(crate) const BLOCK: u64 = 512;
/// Bytes of a segment's header.
pub(crate) const HEADER_LEN: u64 = BLOCK;
/// Bytes of a batch's header.
pub(crate) const BATCH_HEADER_LEN: usize = 32;
/// Bytes of a frame before its body.
pub(crate) const FRAME_HEADER_LEN: usize = 40;
/// Longest segment, so also the longest batch, in bytes.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;

const SEGMENT_MAGIC: &[u8; 8] = b"SEGLJNL1";
const BATCH_MAGIC: &[u8; 8] = b"SEGLBAT1";
const VERSION: u32 = 1;
const HOST_MAX: usize = 64;

/// SHA-256 of a record chained to those before it.
pub(crate) type Hash = [u8; 32];

/// What the first record of a journal is chained to.
pub(crate) const GENESIS: Hash = [0; 32];

/// Rounds up to whole blocks.
pub(crate) const fn align(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK)
}

/// Name of the segment whose first record has this number.
pub(crate) fn segment_name(first_seq: u64) -> String {
    format!("segl-{first_seq:020}.journal")
}

/// The number in a segment's name; none when it is another file.
pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segl-")?.strip_suffix(".journal")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) first_seq: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) created_ns: u64,
    pub(crate) previous: Hash,
    pub(crate) host: String,
    /// No record before this one waits for an outcome that does not stand before this segment; the first record of
    /// the segment when none waits, or when the segment was written before this was
    pub(crate) open_from: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut block = [0; HEADER_LEN as usize];
        let host = &self.host.as_bytes()[..self.host.floor_char_boundary(HOST_MAX)];
        block[..8].copy_from_slice(SEGMENT_MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[16..24].copy_from_slice(&self.first_seq.to_le_bytes());
        block[24..32].copy_from_slice(&self.segment_bytes.to_le_bytes());
        block[32..40].copy_from_slice(&self.created_ns.to_le_bytes());
        block[40..72].copy_from_slice(&self.previous);
        block[72] = host.len() as u8;
        block[73..73 + host.len()].copy_from_slice(host);
        block[144..152].copy_from_slice(&self.open_from.to_le_bytes());
        let crc = crc32c::crc32c(&block[..508]);
        block[508..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    pub(crate) fn decode(block: &[u8; HEADER_LEN as usize]) -> Result<SegmentHeader, &'static str> {
        if &block[..8] != SEGMENT_MAGIC {
            return Err("this is no segment of a journal");
        }
        if u32_at(block, 508) != crc32c::crc32c(&block[..508]) {
            return Err("the header's checksum is wrong");
        }
        if u32_at(block, 8) != VERSION {
            return Err("the header is of another version of the format");
        }
        let host = block.get(73..73 + usize::from(block[72])).and_then(|host| std::str::from_utf8(host).ok());
        let (first_seq, open_from) = (u64_at(block, 16), u64_at(block, 144));
        if open_from > first_seq {
            return Err("the header speaks of an open intent that comes later");
        }
        Ok(SegmentHeader {
            first_seq,
            open_from: if open_from == 0 { first_seq } else { open_from },
            segment_bytes: u64_at(block, 24),
            created_ns: u64_at(block, 32),
            previous: block[40..72].try_into().expect("32 bytes"),
            host: host.ok_or("the header's host name is no text")?.to_owned(),
        })
    }
}

/// A batch's header, its magic checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchHeader {
    pub(crate) crc: u32,
    /// Of the whole batch, padding aside
    pub(crate) len: u32,
    pub(crate) records: u32,
    pub(crate) first_seq: u64,
}

impl BatchHeader {
    /// None when it is no batch's header.
    pub(crate) fn decode(bytes: &[u8]) -> Option<BatchHeader> {
        (bytes.len() >= BATCH_HEADER_LEN && &bytes[..8] == BATCH_MAGIC && u32_at(bytes, 20) == 0).then(|| BatchHeader {
            crc: u32_at(bytes, 8),
            len: u32_at(bytes, 12),
            records: u32_at(bytes, 16),
            first_seq: u64_at(bytes, 24),
        })
    }
}

/// Whether this, a batch as long as its header says, has the checksum of its header.
pub(crate) fn batch_checksum_holds(batch: &[u8]) -> bool {
    BatchHeader::decode(batch).is_some_and(|header| header.crc == crc32c::crc32c(&batch[12..]))
}

/// Makes room for a batch's header at the beginning of an empty buffer.
pub(crate) fn begin_batch(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(BATCH_HEADER_LEN, 0);
}

/// Appends a frame without checksum and hash; `put` appends the body.
pub(crate) fn put_frame(buffer: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.resize(start + FRAME_HEADER_LEN, 0);
    put(buffer);
    let len = (buffer.len() - start - FRAME_HEADER_LEN) as u32;
    buffer[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// Fills in hashes and checksums of a batch's frames and its header, pads it to whole blocks, and returns the hash
/// of its last record. `previous` is that of the record before.
pub(crate) fn seal(buffer: &mut Vec<u8>, records: u32, first_seq: u64, previous: Hash) -> Hash {
    let len = buffer.len();
    let mut hash = previous;
    let mut rest = &mut buffer[BATCH_HEADER_LEN..];
    while !rest.is_empty() {
        let body_len = u32_at(rest, 0) as usize;
        let (frame, after) = rest.split_at_mut(FRAME_HEADER_LEN + body_len);
        hash = chain(&hash, &frame[FRAME_HEADER_LEN..]);
        frame[8..40].copy_from_slice(&hash);
        let crc = crc32c::crc32c(&frame[8..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        rest = after;
    }
    buffer[..8].copy_from_slice(BATCH_MAGIC);
    buffer[12..16].copy_from_slice(&(len as u32).to_le_bytes());
    buffer[16..20].copy_from_slice(&records.to_le_bytes());
    buffer[24..32].copy_from_slice(&first_seq.to_le_bytes());
    let crc = crc32c::crc32c(&buffer[12..]);
    buffer[8..12].copy_from_slice(&crc.to_le_bytes());
    buffer.resize(align(len as u64) as usize, 0);
    hash
}

/// The hash of a record, from that of the one before and its body.
pub(crate) fn chain(previous: &Hash, body: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(previous);
    context.update(body);
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    ring::digest::digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Takes the first frame off a batch's frames, its checksum and its place in the chain checked.
pub(crate) fn split_frame<'b>(frames: &'b [u8], previous: &Hash) -> Result<Frame<'b>, &'static str> {
    if frames.len() < FRAME_HEADER_LEN {
        return Err("a frame that ends too early");
    }
    let end = FRAME_HEADER_LEN.saturating_add(u32_at(frames, 0) as usize);
    let frame = frames.get(..end).ok_or("a frame that ends too early")?;
    if u32_at(frame, 4) != crc32c::crc32c(&frame[8..]) {
        return Err("the record's checksum is wrong");
    }
    let body = &frame[FRAME_HEADER_LEN..];
    let hash = chain(previous, body);
    if frame[8..40] != hash {
        return Err("the record's hash does not follow from the record before");
    }
    Ok(Frame { body, hash, rest: &frames[end..] })
}

/// A record's bytes, and the frames after it.
pub(crate) struct Frame<'b> {
    pub(crate) body: &'b [u8],
    pub(crate) hash: Hash,
    pub(crate) rest: &'b [u8],
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
