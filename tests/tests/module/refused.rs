//! Arguments that are wrong, of each call: each has its errno, leaves the
//! argument as it was, and takes nothing.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, open};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::device::{
    ALLOC, Alloc, Argument, BELOW_4G, CONTIGUOUS, Device, INFO, Info, MAX_RANGES, MIB, PAGE, Range,
    WRAP, WRITE_COMBINED, Wrap,
};
use crate::memfd;
use crate::{ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("module::refuses_bad_sizes", bad_sizes),
        test("module::refuses_bad_chunks", bad_chunks),
        test("module::refuses_what_is_reserved", reserved),
        test("module::refuses_bad_names", bad_names),
        test("module::refuses_bad_handles", bad_handles),
        test("module::refuses_wrong_seals", wrong_seals),
        test("module::refuses_bad_ranges", bad_ranges),
        test("module::refuses_bad_counts", bad_counts),
        test("module::knows_three_calls", knows_three_calls),
        test("module::needs_a_free_handle", needs_a_free_handle),
    ]
}

/// What a call that fails must not change.
pub(crate) fn state(device: &Device) -> Result<(Info, usize), String> {
    let handles = std::fs::read_dir("/proc/self/fd").map_err(text)?.count();
    Ok((device.info().map_err(text)?, handles))
}

/// That a call fails with this errno and changes nothing.
fn refused<T: Argument>(
    device: &Device,
    what: &str,
    request: libc::Ioctl,
    argument: T,
    expected: Errno,
) -> Verdict {
    let before = state(device)?;
    let mut given = argument;
    let answer = device.call(request, &mut given);
    ensure(answer == Err(expected), || {
        format!("{what}: {answer:?}, expected {expected}")
    })?;
    ensure(given == argument, || {
        format!("{what}: it wrote {given:?} over {argument:?}")
    })?;
    let after = state(device)?;
    ensure(after == before, || {
        format!("{what}: before {before:?}, after {after:?}")
    })
}

fn bad_sizes() -> Verdict {
    let device = Device::open()?;
    let too_big = Errno::TOOBIG;
    let most = device.info().map_err(text)?.max_buffer;
    for (size, flags, errno) in [
        (0, 0, Errno::INVAL),
        (0, CONTIGUOUS, Errno::INVAL),
        (most + 1, 0, too_big),
        (most + 1, CONTIGUOUS, too_big),
        (1 << 32, CONTIGUOUS, too_big),
        ((1 << 32) + 1, CONTIGUOUS, too_big),
        (1 << 40, 0, too_big),
        (1 << 63, 0, too_big),
        ((1 << 63) - 1, WRITE_COMBINED, too_big),
        (u64::MAX - PAGE + 1, 0, too_big),
        (u64::MAX - PAGE + 2, 0, too_big),
        (u64::MAX, 0, too_big),
        (u64::MAX, CONTIGUOUS, too_big),
    ] {
        let alloc = Alloc::new(size).flags(flags);
        let what = format!("{size} bytes, flags {flags}");
        refused(&device, &what, ALLOC, alloc, errno)?;
    }
    Ok(())
}

fn bad_chunks() -> Verdict {
    let device = Device::open()?;
    for max_chunk in [
        1,
        2,
        PAGE - 1,
        PAGE + 1,
        3 * PAGE,
        PAGE / 2,
        MIB + PAGE,
        u64::MAX,
        u64::MAX - PAGE + 1,
    ] {
        let alloc = Alloc::new(MIB).max_chunk(max_chunk);
        let what = format!("chunks of {max_chunk}");
        refused(&device, &what, ALLOC, alloc, Errno::INVAL)?;
    }
    for max_chunk in [1, PAGE, MIB, 1 << 63] {
        let alloc = Alloc::new(MIB).max_chunk(max_chunk).flags(CONTIGUOUS);
        let what = format!("contiguous, in chunks of {max_chunk}");
        refused(&device, &what, ALLOC, alloc, Errno::INVAL)?;
    }
    Ok(())
}

fn reserved() -> Verdict {
    let device = Device::open()?;
    let alloc = |what: &str, alloc| refused(&device, what, ALLOC, alloc, Errno::INVAL);
    let good = Alloc::new(PAGE);
    let known = CONTIGUOUS | BELOW_4G | WRITE_COMBINED;
    for bit in 0..32 {
        let flags = 1 << bit;
        if flags & known == 0 {
            alloc(&format!("ALLOC: flag {bit}"), good.flags(flags))?;
            alloc(&format!("ALLOC: flag {bit} too"), good.flags(flags | known))?;
        }
    }
    for bit in [0, 31] {
        let reserved0 = 1 << bit;
        alloc("ALLOC: reserved0", Alloc { reserved0, ..good })?;
    }
    for reserved in [[1, 0], [0, 1], [1 << 63, 0], [0, 1 << 63]] {
        alloc("ALLOC: reserved", Alloc { reserved, ..good })?;
    }

    let memfd = memfd(PAGE)?;
    let mut ranges = [Range::new(&memfd, 0, PAGE)];
    let wrap = |what: &str, wrap| refused(&device, what, WRAP, wrap, Errno::INVAL);
    let good = Wrap::new(&ranges);
    for bit in 0..32 {
        let flags = 1 << bit;
        wrap(&format!("WRAP: flag {bit}"), Wrap { flags, ..good })?;
    }
    for reserved in [[1, 0], [0, 1], [1 << 63, 0], [0, 1 << 63]] {
        wrap("WRAP: reserved", Wrap { reserved, ..good })?;
    }
    for bit in [0, 31] {
        ranges[0].reserved = 1 << bit;
        wrap("WRAP: reserved of a range", Wrap::new(&ranges))?;
    }
    Ok(())
}

fn bad_names() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    for name in [[b'n'; 32], [0xff; 32]] {
        let alloc = Alloc {
            name,
            ..Alloc::new(PAGE)
        };
        refused(&device, "ALLOC: no end", ALLOC, alloc, Errno::INVAL)?;
        let wrap = Wrap {
            name,
            ..Wrap::new(&ranges)
        };
        refused(&device, "WRAP: no end", WRAP, wrap, Errno::INVAL)?;
    }
    Ok(())
}

/// What is no memfd.
fn bad_handles() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let wrap = |what: &str, memfd: i32, expected| {
        let ranges = [Range {
            memfd,
            reserved: 0,
            offset: 0,
            size: PAGE,
        }];
        refused(&device, what, WRAP, Wrap::new(&ranges), expected)
    };
    let closed = {
        let another = memfd.try_clone().map_err(text)?;
        another.as_raw_fd()
    };
    for (what, number) in [
        ("-1", -1),
        ("AT_FDCWD", libc::AT_FDCWD),
        ("the lowest number", i32::MIN),
        ("the highest number", i32::MAX),
        ("a closed one", closed),
    ] {
        wrap(what, number, Errno::BADF)?;
    }

    let wrap = |what: &str, handle: &OwnedFd, expected| {
        let number = handle.as_raw_fd();
        wrap(what, number, expected)
    };
    let file = |path: &str| open(path, OFlags::RDONLY | OFlags::CLOEXEC, 0.into());
    for path in ["/proc/self/exe", "/", "/dev/shm", "/dev/null", "/proc/self"] {
        wrap(path, &file(path).map_err(text)?, Errno::BADFD)?;
    }
    let (pipe, _) = rustix::pipe::pipe().map_err(text)?;
    wrap("a pipe", &pipe, Errno::BADFD)?;
    let event = eventfd(0, EventfdFlags::CLOEXEC).map_err(text)?;
    wrap("an eventfd", &event, Errno::BADFD)?;
    let socket: OwnedFd = std::os::unix::net::UnixDatagram::unbound()
        .map_err(text)?
        .into();
    wrap("a socket", &socket, Errno::BADFD)?;
    let own = device.as_fd().try_clone_to_owned().map_err(text)?;
    wrap("the device", &own, Errno::BADFD)?;
    let ours = device.alloc(Alloc::new(PAGE)).map_err(text)?.fd;
    wrap("a dma-buf", &ours, Errno::BADFD)?;
    let wrapped = device
        .wrap(&[Range::new(&memfd, 0, PAGE)])
        .map_err(text)?
        .fd;
    wrap("a dma-buf of a memfd", &wrapped, Errno::BADFD)?;

    // It names a memfd, but is no open file.
    let link = format!("/proc/self/fd/{}", memfd.as_raw_fd());
    let path = open(link, OFlags::PATH | OFlags::CLOEXEC, 0.into()).map_err(text)?;
    wrap("an O_PATH of a memfd", &path, Errno::BADF)?;
    // It is of the file system of memfds, and has no seals like one without.
    let tmpfs: OwnedFd = tempfile::tempfile_in("/dev/shm").map_err(text)?.into();
    File::from(tmpfs.try_clone().map_err(text)?)
        .set_len(PAGE)
        .map_err(text)?;
    wrap("a file in /dev/shm", &tmpfs, Errno::INVAL)
}

fn wrong_seals() -> Verdict {
    let device = Device::open()?;
    let make = |flags, seals| -> Result<OwnedFd, String> {
        let memfd = rustix::fs::memfd_create("seals", flags).map_err(text)?;
        rustix::fs::ftruncate(&memfd, PAGE).map_err(text)?;
        if let Some(seals) = seals {
            fcntl_add_seals(&memfd, seals).map_err(text)?;
        }
        Ok(memfd)
    };
    let sealable = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    for (what, memfd) in [
        ("that takes no seals", make(MemfdFlags::CLOEXEC, None)?),
        ("without seals", make(sealable, None)?),
        ("sealed to grow", make(sealable, Some(SealFlags::GROW))?),
        (
            "sealed to write",
            make(sealable, Some(SealFlags::SHRINK | SealFlags::WRITE))?,
        ),
        (
            "sealed to write from now on",
            make(sealable, Some(SealFlags::SHRINK | SealFlags::FUTURE_WRITE))?,
        ),
    ] {
        let ranges = [Range::new(&memfd, 0, PAGE)];
        let what = format!("a memfd {what}");
        refused(&device, &what, WRAP, Wrap::new(&ranges), Errno::INVAL)?;
    }
    for seals in [
        SealFlags::SHRINK,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    ] {
        let memfd = make(sealable, Some(seals))?;
        let made = device.wrap(&[Range::new(&memfd, 0, PAGE)]);
        ensure(made.is_ok(), || format!("{seals:?}: {made:?}"))?;
    }
    Ok(())
}

fn bad_ranges() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(4 * PAGE)?;
    let good = Range::new(&memfd, PAGE, PAGE);
    for (offset, size, errno) in [
        (0, 0, Errno::INVAL),
        (4 * PAGE, 0, Errno::INVAL),
        (1, PAGE, Errno::INVAL),
        (PAGE - 1, PAGE, Errno::INVAL),
        (0, 1, Errno::INVAL),
        (0, PAGE + 1, Errno::INVAL),
        (0, 2 * PAGE - 1, Errno::INVAL),
        // Past the end: by all of it, by a page, and far.
        (4 * PAGE, PAGE, Errno::INVAL),
        (3 * PAGE, 2 * PAGE, Errno::INVAL),
        (0, 5 * PAGE, Errno::INVAL),
        (0, MIB, Errno::INVAL),
        (1 << 44, PAGE, Errno::INVAL),
        // Past what a file can have.
        ((1 << 63) - PAGE, PAGE, Errno::INVAL),
        ((1 << 63) - PAGE, 2 * PAGE, Errno::INVAL),
        (1 << 63, PAGE, Errno::INVAL),
        (PAGE, 1 << 63, Errno::INVAL),
        // Past what 64 bits can count.
        (u64::MAX - PAGE + 1, PAGE, Errno::INVAL),
        (PAGE, u64::MAX - PAGE + 1, Errno::INVAL),
        (u64::MAX - PAGE + 1, u64::MAX - PAGE + 1, Errno::INVAL),
        // More than the limits, or than the module can count.
        (0, 1 << 40, Errno::TOOBIG),
        (0, 1 << 62, Errno::TOOBIG),
    ] {
        let bad = Range::new(&memfd, offset, size);
        for (place, ranges) in [
            ("alone", vec![bad]),
            ("first", vec![bad, good]),
            ("last", vec![good, good, bad]),
        ] {
            let what = format!("{place}, {size} bytes at {offset}");
            refused(&device, &what, WRAP, Wrap::new(&ranges), errno)?;
        }
    }
    // Each of them can be counted, and they all together cannot.
    for count in [2, 4, 5, MAX_RANGES] {
        let ranges = vec![Range::new(&memfd, 0, 1 << 62); count];
        let what = format!("{count} times 4 EiB");
        refused(&device, &what, WRAP, Wrap::new(&ranges), Errno::TOOBIG)?;
    }
    // A bad handle behind good ones.
    let ranges = [good, good, Range { memfd: -1, ..good }];
    refused(&device, "-1 at last", WRAP, Wrap::new(&ranges), Errno::BADF)?;

    // Had any of them kept a page, this would be EBUSY.
    fcntl_add_seals(&memfd, SealFlags::WRITE)
        .map_err(|errno| format!("sealing the memfd after all failed: {errno}"))
}

fn bad_counts() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = vec![Range::new(&memfd, 0, PAGE); MAX_RANGES + 1];
    let good = Wrap::new(&ranges[..1]);
    for count in [0, 1025, 1 << 16, 1 << 31, u32::MAX] {
        let what = format!("{count} ranges");
        let wrap = Wrap { count, ..good };
        refused(&device, &what, WRAP, wrap, Errno::INVAL)?;
    }
    let made = device.wrap(&ranges[..MAX_RANGES]).map_err(text)?;
    ensure(made.chunks == 1024, || format!("{} chunks", made.chunks))
}

/// Numbers that are near to those of the three calls.
fn knows_three_calls() -> Verdict {
    let device = Device::open()?;
    let refused = |request| {
        let what = format!("ioctl {request:#x}");
        refused(&device, &what, request, Alloc::new(PAGE), Errno::NOTTY)
    };
    for number in [0, 4, 5, 0x7f, 0xff] {
        refused(ALLOC & !0xff | number)?;
    }
    for kind in ['b', 'u', 'H', 'd', '\0'] {
        refused(ALLOC & !0xff00 | libc::Ioctl::from(kind as u32) << 8)?;
    }
    // Of another size, shorter ones than the argument, or of none.
    for size in [0, 32, 72, 79] {
        refused(ALLOC & !0x3fff_0000 | size << 16)?;
    }
    // Of another direction.
    for call in [ALLOC, WRAP] {
        for direction in 0..3 {
            refused(call & 0x3fff_ffff | direction << 30)?;
        }
    }
    refused(INFO & 0x3000_ffff | 72 << 16)
}

/// Whatever the call: nothing is made that no one could close.
fn needs_a_free_handle() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    let before = state(&device)?;
    let limits = getrlimit(Resource::Nofile);
    // All numbers below the next one are taken.
    let next = rustix::io::dup(&memfd).map_err(text)?.as_raw_fd();
    let next = u64::try_from(next).map_err(text)?;
    let mut none_left = limits;
    none_left.current = Some(next);
    setrlimit(Resource::Nofile, none_left).map_err(text)?;
    let mut alloc = Alloc::new(PAGE);
    let mut large = Alloc::new(MIB).flags(CONTIGUOUS);
    let mut wrap = Wrap::new(&ranges);
    let answers = [
        device.call(ALLOC, &mut alloc),
        device.call(ALLOC, &mut large),
        device.call(WRAP, &mut wrap),
    ];
    setrlimit(Resource::Nofile, limits).map_err(text)?;
    ensure(answers == [Err(Errno::MFILE); 3], || {
        format!("without a free handle: {answers:?}")
    })?;
    ensure(
        (alloc, wrap) == (Alloc::new(PAGE), Wrap::new(&ranges)),
        || format!("it wrote {alloc:?} and {wrap:?}"),
    )?;
    let after = state(&device)?;
    ensure(after == before, || {
        format!("before {before:?}, after {after:?}")
    })
}
