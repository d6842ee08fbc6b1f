//! The independent programs in C, of `tests/peers/`: a writer and a reader for
//! each way to share, as a textbook would write them.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Each by its name, as build.rs compiled it.
const PROGRAMS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/peers.rs"));

/// The programs, unpacked into a folder that goes with this.
#[derive(Debug)]
pub struct Peers(TempDir);

impl Peers {
    /// Unpacks them.
    ///
    /// # Errors
    /// Where there is no room for them.
    ///
    /// ```
    /// let peers = dmashare_tests::peers::Peers::unpack()?;
    /// let wrong = peers.command("sysv_reader").output()?;
    /// assert_eq!(wrong.status.code(), Some(2));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn unpack() -> io::Result<Peers> {
        let folder = tempfile::tempdir()?;
        for (name, program) in PROGRAMS {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o755)
                .open(folder.path().join(name))?;
            file.write_all(program)?;
        }
        Ok(Peers(folder))
    }

    /// One of them, to be run. A name that is none fails when it is.
    pub fn command(&self, name: &str) -> Command {
        Command::new(self.0.path().join(name))
    }

    /// The folder, for what a test leaves there: sockets, files to make keys of.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}
