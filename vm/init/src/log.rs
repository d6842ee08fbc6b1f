//! The kernel's log, sent to the host as it grows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use dmashare_vm_init::{Frame, Kind, Port};

/// The longest record that `/dev/kmsg` gives, escapes and all.
const RECORD: usize = 8192;

/// How much is sent at once: in a flood, programs' output comes in between.
const BATCH: usize = 32 * 1024;

/// How many batches are sent for the sake of a program that ended: what the kernel
/// said of it is among them, unless there is a flood without end.
const LAST_BATCHES: usize = 8;

/// A reader of `/dev/kmsg`.
pub(crate) struct Log(File);

impl Log {
    /// `None` on a kernel that has none.
    pub(crate) fn open() -> Option<Log> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        options.open("/dev/kmsg").ok().map(Log)
    }

    /// Send on what is there now, up to a batch; whether there was any.
    pub(crate) fn forward(&mut self, port: &mut Port<File>) -> io::Result<bool> {
        let mut batch = vec![0; BATCH + RECORD];
        let mut length = 0;
        while length < BATCH {
            match self.0.read(&mut batch[length..]) {
                Ok(0) => break,
                Ok(record) => length += record,
                // Records were overwritten before they were read: on to the next.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if length > 0 {
            Frame::data(Kind::Log, 0, &batch[..length]).write(port)?;
        }
        Ok(length > 0)
    }

    /// Send on what the kernel has said so far.
    pub(crate) fn catch_up(&mut self, port: &mut Port<File>) -> io::Result<()> {
        for _ in 0..LAST_BATCHES {
            if !self.forward(port)? {
                break;
            }
        }
        Ok(())
    }
}

impl AsFd for Log {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
