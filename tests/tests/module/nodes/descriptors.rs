//! Open files: the nodes' own, and those of the buffers that they make.

use std::fs::read_to_string;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libc::{F_GETFL, MAP_FAILED, MAP_SHARED, PROT_READ, SEEK_END, SEEK_SET};
use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::table::{Answer, Table, answer};
use super::{SYSTEM, UDMABUF, call, handles, heap, lowest_free_fd, open, udmabuf};
use crate::{text, users};

pub(super) fn of_udmabuf_node() -> Verdict {
    of_node(UDMABUF, Errno::INVAL, Errno::NOTTY)
}

/// The heap's is not seekable, and looks at a request's number alone.
pub(super) fn of_heap_node() -> Verdict {
    of_node(SYSTEM, Errno::SPIPE, Errno::INVAL)
}

/// Calls that a node has no operation for.
fn of_node(path: &str, positioned: Errno, terminal: Errno) -> Verdict {
    let file = open(path, true)?;
    let fd = file.as_raw_fd();
    let mut bytes = [0_u8; 64];
    let at = bytes.as_mut_ptr();
    let mut table = Table::new();
    let mut row = |what, succeeded, expected| table.row(what, answer(succeeded), Err(expected));
    // SAFETY: none uses more than the 64 bytes at hand, and nothing gets mapped.
    unsafe {
        row(
            "lseek to 0",
            libc::lseek(fd, 0, SEEK_SET) != -1,
            Errno::SPIPE,
        );
        row(
            "lseek to the end",
            libc::lseek(fd, 0, SEEK_END) != -1,
            Errno::SPIPE,
        );
        row("read", libc::read(fd, at.cast(), 8) != -1, Errno::INVAL);
        row("write", libc::write(fd, at.cast(), 8) != -1, Errno::INVAL);
        row("pread", libc::pread(fd, at.cast(), 8, 0) != -1, positioned);
        row(
            "pwrite",
            libc::pwrite(fd, at.cast(), 8, 0) != -1,
            positioned,
        );
        row("ftruncate", libc::ftruncate(fd, 0) != -1, Errno::INVAL);
        row(
            "fallocate",
            libc::fallocate(fd, 0, 0, 4096) != -1,
            Errno::NODEV,
        );
        row("fsync", libc::fsync(fd) != -1, Errno::INVAL);
        row("TCGETS", libc::ioctl(fd, libc::TCGETS, at) != -1, terminal);
        row(
            "F_GET_SEALS",
            libc::fcntl(fd, libc::F_GET_SEALS) != -1,
            Errno::INVAL,
        );
        let mapped = libc::mmap(null_mut(), 4096, PROT_READ, MAP_SHARED, fd, 0);
        row("mmap", mapped != MAP_FAILED, Errno::NODEV);
    }
    table.verdict()
}

/// The fields of its fdinfo that the dma-buf core writes, with their values.
fn fields(fd: &OwnedFd) -> Result<Vec<(String, String)>, String> {
    let info = read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).map_err(text)?;
    let fields = info.lines().filter_map(|line| line.split_once(':'));
    let core = ["size", "count", "exp_name", "name"];
    Ok(fields
        .filter(|(name, _)| core.contains(name))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect())
}

/// The node gives its buffers no name, and keeps no reference of its own.
fn of_buffer(buffer: &OwnedFd, size: &str, exporter: &str) -> Verdict {
    let mut table = Table::new();
    let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = vec![
        owned("size", size),
        owned("count", "1"),
        owned("exp_name", exporter),
    ];
    table.row("fdinfo", fields(buffer)?, expected);
    // SAFETY: only reads the flags.
    let flags = unsafe { libc::fcntl(buffer.as_raw_fd(), F_GETFL) };
    table.row("F_GETFL", flags & !libc::O_LARGEFILE, libc::O_RDWR);
    table.verdict()
}

pub(super) fn of_udmabuf_buffer() -> Verdict {
    of_buffer(&udmabuf::buffer(3)?, "12288", "udmabuf")
}

pub(super) fn of_heap_buffer() -> Verdict {
    of_buffer(&heap::buffer(3)?, "12288", "system")
}

/// A limit on fds under which none is free, until this is dropped.
struct NoFreeFd(Rlimit);

impl NoFreeFd {
    fn new() -> Result<NoFreeFd, String> {
        let before = getrlimit(Resource::Nofile);
        let next = u64::try_from(lowest_free_fd()?).map_err(text)?;
        let limit = Rlimit {
            current: Some(next),
            ..before
        };
        setrlimit(Resource::Nofile, limit).map_err(text)?;
        Ok(NoFreeFd(before))
    }
}

impl Drop for NoFreeFd {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).expect("it was the limit before");
    }
}

/// Calls that find no free fd, of which the last has a good argument: arguments
/// are checked first, and what was made for the last is freed.
fn without_fds<T: Copy>(path: &str, request: libc::Ioctl, rows: &[(&str, T, Errno)]) -> Verdict {
    let node = open(path, true)?;
    let mut table = Table::new();
    let (fds, references) = (handles()?, users()?);
    let none_free = NoFreeFd::new()?;
    let answers: Vec<Answer> = rows
        .iter()
        .map(|(_, argument, _)| call(&node, request, &mut argument.clone()).map(drop))
        .collect();
    drop(none_free);
    for ((what, _, expected), found) in rows.iter().zip(answers) {
        table.row(what, found, Err(*expected));
    }
    table.row("fds afterwards", handles()?, fds);
    table.row("references to the module", users()?, references);
    table.verdict()
}

pub(super) fn heap_without_fds() -> Verdict {
    let good = heap::data(4096);
    let rows = [
        ("no bytes", heap::data(0), Errno::INVAL),
        (
            "a heap flag",
            heap::Data {
                heap_flags: 1,
                ..good
            },
            Errno::INVAL,
        ),
        ("a good argument", good, Errno::MFILE),
    ];
    without_fds(SYSTEM, heap::ALLOC, &rows)
}

pub(super) fn udmabuf_without_fds() -> Verdict {
    let memfd = udmabuf::sealed(4)?;
    let good = udmabuf::create(&memfd, 0, 4096);
    let closed = udmabuf::Create { memfd: -1, ..good };
    let rows = [
        ("no bytes", udmabuf::create(&memfd, 0, 0), Errno::INVAL),
        (
            "past the end",
            udmabuf::create(&memfd, 16384, 4096),
            Errno::INVAL,
        ),
        ("no file", closed, Errno::BADFD),
        ("a good argument", good, Errno::MFILE),
    ];
    without_fds(UDMABUF, udmabuf::CREATE, &rows)?;
    // No page stayed pinned.
    held::comes_back_to(Ok(()), || Ok(fcntl_add_seals(&memfd, SealFlags::WRITE)))
}
