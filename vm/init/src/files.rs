//! Files for the host: this program, run by the agent as any other.
//!
//! So a slow or full file system holds up nobody else, and a large file comes in
//! the pieces that programs' input and output come in.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use dmashare_vm_init::{READ_FILE, WRITE_FILE};

/// After so many bytes the host hears that it goes on.
const STEP: usize = 1 << 20;

/// Do what these arguments ask for; its exit status, or `None` where they are
/// not for us.
pub(crate) fn serve(arguments: &[String]) -> Option<i32> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (path, done) = match arguments[..] {
        [WRITE_FILE, path, mode] => (path, write(Path::new(path), mode)),
        [READ_FILE, path] => (path, read(Path::new(path))),
        _ => return None,
    };
    match done {
        Ok(()) => Some(0),
        Err(error) => {
            eprintln!("{path}: {error}");
            Some(1)
        }
    }
}

fn write(path: &Path, mode: &str) -> io::Result<()> {
    let mode = mode.parse().map_err(io::Error::other)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        // Nobody else's until it is whole.
        .mode(0o600)
        .open(path)?;
    let mut buffer = vec![0; STEP];
    let mut since = 0;
    loop {
        let length = io::stdin().read(&mut buffer)?;
        if length == 0 {
            break;
        }
        file.write_all(&buffer[..length])?;
        since += length;
        if since >= STEP {
            since = 0;
            io::stdout().write_all(b".")?;
            io::stdout().flush()?;
        }
    }
    file.set_permissions(Permissions::from_mode(mode))
}

fn read(path: &Path) -> io::Result<()> {
    // A FIFO without a writer, or a device, must not hold it up.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let mut file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        let kind = metadata.file_type();
        let what = match kind {
            _ if kind.is_dir() => "a folder",
            _ if kind.is_char_device() || kind.is_block_device() => "a device",
            _ => "a FIFO or a socket",
        };
        return Err(io::Error::other(format!(
            "is {what}: expected a regular file"
        )));
    }
    let mut out = io::stdout().lock();
    let mode = metadata.permissions().mode() & 0o777;
    writeln!(out, "{mode:o} {}", metadata.len())?;
    io::copy(&mut file, &mut out)?;
    out.flush()
}
