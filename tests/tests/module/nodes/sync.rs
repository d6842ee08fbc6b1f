//! `DMA_BUF_IOCTL_SYNC`: accesses of the CPU that begin and end, in any order.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

use dmashare_tests::conformance::Verdict;
use rustix::io::Errno;

use super::table::{Answer, Table, answer};
use super::{heap, udmabuf};

const SYNC: libc::Ioctl = 0x4008_6200;
pub(super) const READ: u64 = 1;
const WRITE: u64 = 2;
const END: u64 = 4;

/// `DMA_BUF_IOCTL_SYNC` with these flags.
pub(super) fn sync(buffer: &OwnedFd, flags: u64) -> Answer {
    // SAFETY: reads the eight bytes of the flags.
    answer(unsafe { libc::ioctl(buffer.as_raw_fd(), SYNC, &raw const flags) } != -1)
}

/// The first START makes what every END needs, whatever both are for.
pub(super) fn udmabuf() -> Verdict {
    rows(&udmabuf::buffer(1)?, Err(Errno::INVAL))
}

pub(super) fn heap() -> Verdict {
    rows(&heap::buffer(1)?, Ok(()))
}

fn rows(buffer: &OwnedFd, before: Answer) -> Verdict {
    let mut table = Table::new();
    for (what, flags, expected) in [
        ("END of a read, first", END | READ, before),
        ("END of a write, first", END | WRITE, before),
        ("END of both, first", END | READ | WRITE, before),
        ("START of nothing", 0, Err(Errno::INVAL)),
        ("END of nothing", END, Err(Errno::INVAL)),
        ("START with an unknown flag", READ | 8, Err(Errno::INVAL)),
        (
            "START with the highest flag",
            READ | 1 << 63,
            Err(Errno::INVAL),
        ),
        ("END after no START but failed ones", END | READ, before),
        ("START of a read", READ, Ok(())),
        ("END of a write", END | WRITE, Ok(())),
        ("END of a read", END | READ, Ok(())),
        ("END of both", END | READ | WRITE, Ok(())),
        ("START of a write", WRITE, Ok(())),
        ("START of both", WRITE | READ, Ok(())),
        ("END once for two", END | READ | WRITE, Ok(())),
        ("END of a write again", END | WRITE, Ok(())),
        ("END of a write once more", END | WRITE, Ok(())),
    ] {
        table.row(what, sync(buffer, flags), expected);
    }
    // SAFETY: there is nothing at zero to be read.
    let found = answer(unsafe { libc::ioctl(buffer.as_raw_fd(), SYNC, null_mut::<u8>()) } != -1);
    table.row("NULL", found, Err(Errno::FAULT));
    table.verdict()
}
