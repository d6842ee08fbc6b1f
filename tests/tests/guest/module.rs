//! Our module's own word: what /dev/dmashare refuses, and when it can be
//! unloaded. What it shares with other ways is in the conformance suite.

use std::fs::{File, OpenOptions, read_to_string, write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

use dmashare::alloc::{Allocate, Module, Request, Way, probe};
use dmashare::buffer::{Access, Buffer};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libc::{
    E2BIG, EACCES, EFAULT, EINVAL, ENOTTY, EPERM, MAP_FAILED, MAP_PRIVATE, MAP_SHARED, PROT_EXEC,
    PROT_READ,
};
use libtest_mimic::Trial;

use crate::{ensure, skipped, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    if let Err(reason) = &probe().row(Way::Module).verdict {
        return vec![skipped("module::dev_dmashare", reason)];
    }
    vec![
        test("module::allocates_by_its_ioctl", allocates),
        test("module::refuses_what_it_should", refuses),
        test("module::maps_shared_and_never_to_run", maps_shared_only),
        test("module::bounds_one_buffer", bounds_one_buffer),
        test("module::bounds_a_file", bounds_a_file),
        test("module::bounds_all_buffers", bounds_all_buffers),
        test("module::counts_pages_in_32_bits", counts_pages),
        test(
            "module::stays_while_a_buffer_lives",
            stays_while_a_buffer_lives,
        ),
    ]
}

/// `struct dmashare_alloc` of kmod/dmashare_uapi.h, written down once more so
/// that the library's own is checked by it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Alloc {
    size: u64,
    flags: u32,
    fd: i32,
    reserved: [u64; 2],
}

/// `_IOWR('D', 0x01, struct dmashare_alloc)`
const ALLOC: libc::Ioctl = 0xC020_4401;

fn device() -> Result<File, String> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/dmashare");
    file.map_err(text)
}

/// The ioctl as a C program would call it; its errno where it fails.
fn ioctl(device: &File, request: libc::Ioctl, argument: *mut Alloc) -> Result<(), i32> {
    // SAFETY: the kernel writes no more than a `struct dmashare_alloc` there,
    // and is to answer EFAULT where it cannot.
    match unsafe { libc::ioctl(device.as_raw_fd(), request, argument) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
}

/// A buffer of this many bytes, or the errno.
fn alloc(device: &File, size: u64) -> Result<OwnedFd, i32> {
    let mut alloc = Alloc {
        size,
        ..Alloc::default()
    };
    ioctl(device, ALLOC, &raw mut alloc)?;
    // SAFETY: the kernel made this handle for us, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(alloc.fd) })
}

fn allocates() -> Verdict {
    let fd = taken("1 byte", alloc(&device()?, 1))?;
    let flags = rustix::io::fcntl_getfd(&fd).map_err(text)?;
    ensure(flags.contains(rustix::io::FdFlags::CLOEXEC), || {
        "its handle does not close on exec".to_owned()
    })?;
    let buffer = Buffer::from_fd(fd).map_err(text)?;
    let page = rustix::param::page_size() as u64;
    ensure(buffer.size() == page, || format!("{} bytes", buffer.size()))
}

fn refuses() -> Verdict {
    let device = device()?;
    let good = Alloc {
        size: 4096,
        fd: -7,
        ..Alloc::default()
    };
    let cases = [
        ("no size", EINVAL, ALLOC, Alloc { size: 0, ..good }),
        ("a flag", EINVAL, ALLOC, Alloc { flags: 1, ..good }),
        (
            "reserved[0]",
            EINVAL,
            ALLOC,
            Alloc {
                reserved: [1, 0],
                ..good
            },
        ),
        (
            "reserved[1]",
            EINVAL,
            ALLOC,
            Alloc {
                reserved: [0, 1],
                ..good
            },
        ),
        (
            "all memory",
            E2BIG,
            ALLOC,
            Alloc {
                size: u64::MAX,
                ..good
            },
        ),
        (
            "all pages",
            E2BIG,
            ALLOC,
            Alloc {
                size: u64::MAX - 4095,
                ..good
            },
        ),
        (
            "1 TiB",
            E2BIG,
            ALLOC,
            Alloc {
                size: 1 << 40,
                ..good
            },
        ),
        ("another ioctl", ENOTTY, ALLOC + 1, good),
    ];
    for (what, errno, request, mut alloc) in cases {
        let answer = ioctl(&device, request, &raw mut alloc);
        ensure(answer == Err(errno), || {
            format!("{what}: {answer:?}, expected errno {errno}")
        })?;
        ensure(alloc.fd == -7, || {
            format!("{what}: it wrote fd {}", alloc.fd)
        })?;
    }
    let answer = ioctl(&device, ALLOC, std::ptr::null_mut());
    ensure(answer == Err(EFAULT), || format!("no argument: {answer:?}"))
}

fn taken(what: &str, answer: Result<OwnedFd, i32>) -> Result<OwnedFd, String> {
    answer.map_err(|errno| format!("{what}: errno {errno}"))
}

fn refused(what: &str, answer: Result<OwnedFd, i32>) -> Verdict {
    let errno = answer.map(drop).err();
    ensure(errno == Some(E2BIG), || {
        format!("{what}: errno {errno:?}, expected E2BIG")
    })
}

fn maps_shared_only() -> Verdict {
    let buffer = taken("a page", alloc(&device()?, 4096))?;
    let map = |prot, flags| {
        // SAFETY: a new mapping, where nothing is; no one reads or writes it.
        unsafe { libc::mmap(null_mut(), 4096, prot, flags, buffer.as_raw_fd(), 0) }
    };
    let errno = || std::io::Error::last_os_error().raw_os_error();
    for (what, prot, flags, expected) in [
        ("MAP_PRIVATE", PROT_READ, MAP_PRIVATE, EINVAL),
        ("PROT_EXEC", PROT_READ | PROT_EXEC, MAP_SHARED, EPERM),
        ("PROT_EXEC alone", PROT_EXEC, MAP_SHARED, EPERM),
    ] {
        let errno = (map(prot, flags) == MAP_FAILED).then(errno).flatten();
        ensure(errno == Some(expected), || {
            format!("mmap with {what}: errno {errno:?}, expected {expected}")
        })?;
    }
    let mapped = map(PROT_READ, MAP_SHARED);
    ensure(mapped != MAP_FAILED, || format!("mmap: {:?}", errno()))?;
    // SAFETY: the mapping is ours, and nothing refers into it.
    let changed = unsafe { libc::mprotect(mapped, 4096, PROT_READ | PROT_EXEC) };
    let refusal = (changed == -1).then(errno).flatten();
    // SAFETY: as above.
    unsafe { libc::munmap(mapped, 4096) };
    ensure(refusal == Some(EACCES), || {
        format!("mprotect to PROT_EXEC: errno {refusal:?}, expected EACCES")
    })
}

/// A limit of the module, set until this is dropped.
struct Limit {
    parameter: String,
    before: String,
}

impl Limit {
    fn set(name: &str, mib: u32) -> Result<Limit, String> {
        let parameter = format!("/sys/module/dmashare/parameters/{name}");
        let before = read_to_string(&parameter).map_err(text)?;
        write(&parameter, mib.to_string()).map_err(text)?;
        Ok(Limit { parameter, before })
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        write(&self.parameter, &self.before).expect("what was read can be written");
    }
}

const MIB: u64 = 1 << 20;

fn bounds_one_buffer() -> Verdict {
    let _limit = Limit::set("max_buffer_mb", 1)?;
    let device = device()?;
    let _first = taken("1 MiB", alloc(&device, MIB))?;
    let _second = taken("another MiB", alloc(&device, MIB))?;
    refused("a byte over the limit", alloc(&device, MIB + 1))
}

fn bounds_a_file() -> Verdict {
    let _limit = Limit::set("max_file_mb", 1)?;
    let (device, other) = (device()?, device()?);
    let first = taken("1 MiB", alloc(&device, MIB))?;
    refused("a second buffer", alloc(&device, 1))?;
    let _others = taken("1 MiB of another open file", alloc(&other, MIB))?;
    // It counts as long as anyone uses it, here a mapping.
    let first = Buffer::from_fd(first).map_err(text)?;
    let mapping = first.map(Access::Read).map_err(text)?;
    drop(first);
    refused("a second buffer, the first only mapped", alloc(&device, 1))?;
    drop(mapping);
    taken("1 MiB after the first is gone", alloc(&device, MIB)).map(drop)
}

fn bounds_all_buffers() -> Verdict {
    // Those of the tests before would count.
    held::comes_back_to(0, users)?;
    let _limit = Limit::set("max_total_mb", 1)?;
    let (device, other) = (device()?, device()?);
    let first = taken("1 MiB", alloc(&device, MIB))?;
    refused("a second buffer", alloc(&device, 1))?;
    refused("another file's buffer", alloc(&other, 1))?;
    drop(first);
    taken("1 MiB after the first is gone", alloc(&other, MIB)).map(drop)
}

/// With limits above what the module can count it must not lose the upper bits.
fn counts_pages() -> Verdict {
    let limits = ["max_buffer_mb", "max_file_mb", "max_total_mb"];
    let _limits: Vec<Limit> = limits
        .iter()
        .map(|name| Limit::set(name, u32::MAX))
        .collect::<Result<_, _>>()?;
    let device = device()?;
    let page = rustix::param::page_size() as u64;
    for pages in [1 << 32, (1 << 32) + 1] {
        refused(&format!("{pages} pages"), alloc(&device, pages * page))?;
    }
    Ok(())
}

fn stays_while_a_buffer_lives() -> Verdict {
    let before = users()?;
    let buffer = Module::open()
        .and_then(|module| module.allocate(&Request::new(4096).for_device()))
        .map_err(text)?;
    // The device is closed again: it is the buffer that counts.
    let with = users()?;
    ensure(with == before + 1, || {
        format!("{before} users before, {with} with a buffer")
    })?;
    let mapping = buffer.map(Access::Read).map_err(text)?;
    drop(buffer);
    let mapped = users()?;
    ensure(mapped == with, || {
        format!("{mapped} users with a mapping alone")
    })?;
    drop(mapping);
    let after = users()?;
    ensure(after == before, || {
        format!("{before} users before, {after} after")
    })
}

/// How many keep the module from being unloaded.
fn users() -> Result<u64, String> {
    let count = read_to_string("/sys/module/dmashare/refcnt").map_err(text)?;
    count.trim().parse().map_err(text)
}
