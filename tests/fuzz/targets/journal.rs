//! A segment of the journal, as a crash or a hand may have left it: as it came, and with checksums and hashes put right,
//! so that what is behind them is reached too. It is read from the folder for temporary files, which `cargo xtask fuzz`
//! puts into memory.
#![no_main]

use std::{fs, path::Path, sync::OnceLock};

use libfuzzer_sys::fuzz_target;
use ring::digest::{Context, SHA256};
use segl_audit::{Filter, Format};

/// The first segment of a journal.
const NAME: &str = "segl-00000000000000000001.journal";

/// Long enough for a segment with many batches.
const SEGMENT_MAX: u64 = 64 << 10;

// Of the format in audit/src/format.rs.
const BLOCK: usize = 512;
const BATCH_HEADER: usize = 32;
const FRAME_HEADER: usize = 40;

fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<std::path::PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("segl-fuzz-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a folder can be made");
        directory
    })
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

/// Makes it the first segment, and puts right every checksum and hash of what batches and frames there seem to be.
fn repaired(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    let header = bytes.get_mut(..BLOCK)?;
    header[..8].copy_from_slice(b"SEGLJNL1");
    header[8..24].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    header[40..72].fill(0);
    let checksum = crc32c::crc32c(&header[..508]);
    put(header, 508, checksum);
    let mut hash = [0_u8; 32];
    let (mut at, mut next) = (BLOCK, 1_u64);
    while bytes.len() - at >= BATCH_HEADER && bytes[at..].starts_with(b"SEGL") {
        let room = bytes.len() - at;
        let len = number(&bytes, at + 12).clamp(BATCH_HEADER, room);
        let batch = &mut bytes[at..at + len];
        let (mut frame, mut records) = (BATCH_HEADER, 0);
        while len - frame >= FRAME_HEADER {
            let body = number(batch, frame).min(len - frame - FRAME_HEADER);
            // The last one takes what is left.
            let body = if len - frame - FRAME_HEADER - body < FRAME_HEADER { len - frame - FRAME_HEADER } else { body };
            put(batch, frame, body as u32);
            let end = frame + FRAME_HEADER + body;
            let mut context = Context::new(&SHA256);
            context.update(&hash);
            context.update(&batch[frame + FRAME_HEADER..end]);
            hash.copy_from_slice(context.finish().as_ref());
            batch[frame + 8..frame + FRAME_HEADER].copy_from_slice(&hash);
            let checksum = crc32c::crc32c(&batch[frame + 8..end]);
            put(batch, frame + 4, checksum);
            (frame, records) = (end, records + 1);
        }
        batch[..8].copy_from_slice(b"SEGLBAT1");
        put(batch, 12, frame as u32);
        put(batch, 16, records);
        put(batch, 20, 0);
        batch[24..32].copy_from_slice(&next.to_le_bytes());
        let checksum = crc32c::crc32c(&batch[12..frame]);
        put(batch, 8, checksum);
        batch[frame..].fill(0);
        next += u64::from(records);
        at += len.next_multiple_of(BLOCK);
    }
    Some(bytes)
}

/// Whether the journal is found sound; what is sound can be shown.
fn read(bytes: &[u8]) -> bool {
    let segment = directory().join(NAME);
    fs::write(&segment, bytes).expect("a file can be written");
    // Zeros to the size that the header tells, as a segment has them.
    if let Some(size) = bytes.get(24..32).and_then(|size| size.try_into().ok()).map(u64::from_le_bytes) {
        let file = fs::OpenOptions::new().write(true).open(&segment).expect("it was written");
        file.set_len(size.clamp(bytes.len() as u64, SEGMENT_MAX.max(bytes.len() as u64))).expect("it grows");
    }
    let Ok(report) = segl_audit::verify(directory()) else { return false };
    for format in [Format::Text, Format::Json] {
        let mut shown = Vec::new();
        let count = segl_audit::show(directory(), &Filter::default(), format, &mut shown);
        assert_eq!(count.expect("what is sound can be shown"), report.records);
        assert!(shown.iter().all(|byte| *byte == b'\n' || *byte >= b' '), "a control character reaches a terminal");
    }
    true
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    if let Some(repaired) = repaired(bytes) {
        read(&repaired);
    }
});
