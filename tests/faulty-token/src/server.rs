//! The control socket: a thread that listens, and one for each who commands.

use std::{
    fs, io,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::Arc,
    thread,
};

use crate::{Answer, module::Module};

/// Longest command, in bytes.
const COMMAND_MAX: u64 = 64 * 1024;

/// Listens at `path`, in place of an earlier process's module.
pub(crate) fn listen(module: Arc<Module>, path: &Path) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    thread::Builder::new().name("faulty-control".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let module = module.clone();
            // Without a thread the connection ends, and who commands hears so.
            let _ = thread::Builder::new().name("faulty-command".into()).spawn(move || obey(&module, &stream));
        }
    })?;
    Ok(())
}

/// Until the connection ends, in whatever way.
fn obey(module: &Module, stream: &UnixStream) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    loop {
        let mut line = String::new();
        if reader.by_ref().take(COMMAND_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str(&line) {
            Ok(command) => module.carry_out(command),
            Err(error) => Answer::Refused(format!("not understood: {error}")),
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        writer.write_all(&line)?;
    }
}
