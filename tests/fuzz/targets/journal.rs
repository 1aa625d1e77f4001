//! A segment of the journal, as a crash or a hand may have left it. It is read from the folder for temporary files,
//! which `cargo xtask fuzz` puts into memory.
#![no_main]

use std::{fs, path::Path, sync::OnceLock};

use libfuzzer_sys::fuzz_target;

/// The first segment of a journal.
const NAME: &str = "segl-00000000000000000001.journal";

/// Long enough for a segment with many batches.
const SEGMENT_MAX: u64 = 64 << 10;

fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<std::path::PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("segl-fuzz-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a folder can be made");
        directory
    })
}

fuzz_target!(|bytes: &[u8]| {
    let segment = directory().join(NAME);
    fs::write(&segment, bytes).expect("a file can be written");
    // Zeros to the size that the header tells, as a segment has them.
    if let Some(size) = bytes.get(24..32).and_then(|size| size.try_into().ok()).map(u64::from_le_bytes) {
        let file = fs::OpenOptions::new().write(true).open(&segment).expect("it was written");
        file.set_len(size.clamp(bytes.len() as u64, SEGMENT_MAX.max(bytes.len() as u64))).expect("it grows");
    }
    let _ = segl_audit::verify(directory());
});
