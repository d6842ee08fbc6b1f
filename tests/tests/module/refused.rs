//! Wrong arguments of each call: each has its errno, leaves the argument as it
//! was, and takes nothing.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use dmashare_tests::conformance::Verdict;
use drm::buffer::DrmFourcc;
use drm::control::Device as _;
use libtest_mimic::Trial;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, open};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::device::{
    ALLOC, ALLOC_SIZE, Alloc, Argument, BELOW_4G, Device, INFO, INFO_SIZE, Info, MAX_RANGES, MIB,
    Node, PAGE, QUERY, QUERY_SIZE, Query, Range, WRAP, WRAP_SIZE, WRITE_COMBINED, Wrap, owned,
};
use crate::gem::Vgem;
use crate::memfd;
use crate::{ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("module::struct_wrong_size_is_refused", struct_sizes),
        test("module::alloc_bad_length_is_refused", bad_lengths),
        test("module::alloc_bad_max_chunk_is_refused", bad_chunks),
        test("module::undefined_flags_are_refused", undefined_flags),
        test("module::fd_flags_undefined_are_refused", fd_flags),
        test("module::reserved_not_zero_is_refused", reserved),
        test("module::wrap_bad_fd_is_refused", bad_fds),
        test("module::query_foreign_fd_is_refused", foreign_fds),
        test("module::wrap_wrong_seals_is_refused", wrong_seals),
        test("module::wrap_bad_range_is_refused", bad_ranges),
        test("module::wrap_bad_count_is_refused", bad_counts),
        test("module::node_other_request_is_enotty", other_requests),
        test("module::unknown_request_is_enotty", unknown_requests),
        test("module::no_free_fd_is_emfile", no_free_fd),
    ]
}

/// What a call that fails must not change: INFO of the nodes, and open fds.
pub(crate) type State = ([Info; 3], usize);

pub(crate) fn state(device: &Device) -> Result<State, String> {
    let fds = std::fs::read_dir("/proc/self/fd").map_err(text)?.count();
    let [system, contiguous, memfd] = Node::ALL.map(|node| device.info_of(node).map_err(text));
    Ok(([system?, contiguous?, memfd?], fds))
}

/// That a call fails with this errno and changes nothing.
fn refused<T: Argument>(
    device: &Device,
    what: &str,
    node: Node,
    request: libc::Ioctl,
    argument: T,
    expected: Errno,
) -> Verdict {
    refused_with_tail(device, what, node, request, (argument, &[]), expected)
}

fn refused_with_tail<T: Argument>(
    device: &Device,
    what: &str,
    node: Node,
    request: libc::Ioctl,
    (argument, tail): (T, &[u8]),
    expected: Errno,
) -> Verdict {
    let before = state(device)?;
    let mut given = argument;
    let answer = device.call_with_tail(node, request, &mut given, tail);
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

fn alloc_refused(device: &Device, what: &str, node: Node, alloc: Alloc, errno: Errno) -> Verdict {
    let what = format!("{what}, {node:?}");
    refused(device, &what, node, ALLOC, alloc, errno)
}

fn wrap_refused(device: &Device, what: &str, ranges: &[Range], errno: Errno) -> Verdict {
    refused(device, what, Node::Memfd, WRAP, Wrap::new(ranges), errno)
}

/// Requests of a node: with `first` as the size of the argument's first version.
fn sizes_of<T: Argument>(
    device: &Device,
    node: Node,
    request: libc::Ioctl,
    first: u32,
    good: T,
) -> Verdict {
    let page = u32::try_from(PAGE).map_err(text)?;
    let sized = |size| {
        let mut argument = good;
        *argument.size() = size;
        argument
    };
    let what = |size| format!("ioctl {request:#x} on {node:?}, {size} bytes");
    for size in [0, 1, 3, 4, 8, first - 8, first - 4, first - 1] {
        refused(
            device,
            &what(size),
            node,
            request,
            sized(size),
            Errno::INVAL,
        )?;
    }
    for size in [page + 1, 2 * page, 1 << 31, u32::MAX] {
        refused(
            device,
            &what(size),
            node,
            request,
            sized(size),
            Errno::TOOBIG,
        )?;
    }
    // A byte that the module does not know, at each end of the rest.
    for (size, at) in [
        (first + 1, first),
        (first + 8, first),
        (first + 8, first + 7),
        (page, first),
        (page, page - 1),
    ] {
        let mut tail = [0; 4096];
        tail[usize::try_from(at - first).map_err(text)?] = 1;
        let what = format!("{}, byte {at} is set", what(size));
        let argument = (sized(size), &tail[..]);
        refused_with_tail(device, &what, node, request, argument, Errno::TOOBIG)?;
    }
    for size in [first, first + 1, first + 8, page - 1, page] {
        let mut argument = sized(size);
        // A byte behind the structure is not its own.
        let mut tail = [0; 4096];
        tail[usize::try_from(size - first).map_err(text)?..].fill(1);
        let answer = device.call_with_tail(node, request, &mut argument, &tail);
        let returned = answer.map_err(|errno| format!("{}: {errno}", what(size)))?;
        let answers = request == INFO || request == QUERY;
        match answers {
            true => ensure(returned == 0, || format!("{}: {returned}", what(size)))?,
            false => drop(owned(returned)),
        }
        ensure(*argument.size() == size, || {
            format!("{}: {argument:?}", what(size))
        })?;
        ensure((argument != sized(size)) == answers, || {
            format!("{}: {argument:?} of {:?}", what(size), sized(size))
        })?;
    }
    Ok(())
}

fn struct_sizes() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    let made = device.alloc(Alloc::new(PAGE)).map_err(text)?;
    for node in Node::ALL {
        sizes_of(&device, node, INFO, INFO_SIZE, Info::new())?;
        sizes_of(&device, node, QUERY, QUERY_SIZE, Query::new(&made.fd))?;
    }
    for node in [Node::System, Node::Contiguous] {
        sizes_of(&device, node, ALLOC, ALLOC_SIZE, Alloc::new(PAGE))?;
    }
    sizes_of(&device, Node::Memfd, WRAP, WRAP_SIZE, Wrap::new(&ranges))
}

fn bad_lengths() -> Verdict {
    let device = Device::open()?;
    let most = device.info().map_err(text)?.buffer_max;
    for node in [Node::System, Node::Contiguous] {
        for (length, flags, errno) in [
            (0, 0, Errno::INVAL),
            (0, BELOW_4G, Errno::INVAL),
            (most + 1, 0, Errno::FBIG),
            (1 << 32, 0, Errno::FBIG),
            ((1 << 32) + 1, 0, Errno::FBIG),
            (1 << 40, 0, Errno::FBIG),
            (1 << 63, 0, Errno::FBIG),
            ((1 << 63) - 1, WRITE_COMBINED, Errno::FBIG),
            (u64::MAX - PAGE + 1, 0, Errno::FBIG),
            (u64::MAX - PAGE + 2, 0, Errno::FBIG),
            (u64::MAX, 0, Errno::FBIG),
        ] {
            let alloc = Alloc::new(length).flags(flags);
            let what = format!("{length} bytes, flags {flags}");
            alloc_refused(&device, &what, node, alloc, errno)?;
        }
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
        // A power of two where only 32 bits of it are read.
        (1 << 32) + PAGE,
        (1 << 32) + 1,
        (1 << 63) + PAGE,
        u64::MAX,
        u64::MAX - PAGE + 1,
    ] {
        let alloc = Alloc::new(MIB).max_chunk(max_chunk);
        let what = format!("chunks of {max_chunk}");
        alloc_refused(&device, &what, Node::System, alloc, Errno::INVAL)?;
    }
    for max_chunk in [1, PAGE, MIB, 1 << 32, 1 << 63] {
        let alloc = Alloc::new(MIB).max_chunk(max_chunk);
        let what = format!("chunks of {max_chunk}");
        alloc_refused(&device, &what, Node::Contiguous, alloc, Errno::INVAL)?;
    }
    Ok(())
}

fn undefined_flags() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    let known = BELOW_4G | WRITE_COMBINED;
    for bit in 0..32 {
        let flags = 1 << bit;
        for node in [Node::System, Node::Contiguous] {
            let refused = |flags| {
                let alloc = Alloc::new(PAGE).flags(flags);
                let what = format!("ALLOC with flags {flags:#x}");
                alloc_refused(&device, &what, node, alloc, Errno::INVAL)
            };
            if flags & known == 0 {
                refused(flags)?;
                refused(flags | known)?;
            }
        }
        let wrap = Wrap {
            flags,
            ..Wrap::new(&ranges)
        };
        let what = format!("WRAP with flags {flags:#x}");
        refused(&device, &what, Node::Memfd, WRAP, wrap, Errno::INVAL)?;
    }
    Ok(())
}

fn fd_flags() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    let known = libc::O_CLOEXEC | libc::O_ACCMODE;
    let undefined = (0..32).map(|bit| 1 << bit).filter(|bit| bit & known == 0);
    let bad = undefined.chain([libc::O_ACCMODE, libc::O_ACCMODE | libc::O_CLOEXEC, -1]);
    for fd_flags in bad {
        for node in [Node::System, Node::Contiguous] {
            let alloc = Alloc::new(PAGE).fd_flags(fd_flags);
            let what = format!("ALLOC with fd_flags {fd_flags:#o}");
            alloc_refused(&device, &what, node, alloc, Errno::INVAL)?;
        }
        let wrap = Wrap::new(&ranges).fd_flags(fd_flags);
        let what = format!("WRAP with fd_flags {fd_flags:#o}");
        refused(&device, &what, Node::Memfd, WRAP, wrap, Errno::INVAL)?;
    }
    Ok(())
}

fn reserved() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let made = device.alloc(Alloc::new(PAGE)).map_err(text)?;
    for bit in 0..32 {
        let reserved = 1 << bit;
        for node in Node::ALL {
            let what = format!("reserved {reserved:#x}, {node:?}");
            let info = Info {
                reserved,
                ..Info::new()
            };
            refused(&device, &what, node, INFO, info, Errno::INVAL)?;
            let query = Query {
                reserved,
                ..Query::new(&made.fd)
            };
            refused(&device, &what, node, QUERY, query, Errno::INVAL)?;
            if node != Node::Memfd {
                let alloc = Alloc {
                    reserved,
                    ..Alloc::new(PAGE)
                };
                alloc_refused(&device, &what, node, alloc, Errno::INVAL)?;
            }
        }
        let good = Range::new(&memfd, 0, PAGE);
        let bad = Range { reserved, ..good };
        for ranges in [vec![bad], vec![good, bad], vec![bad, good]] {
            let what = format!("range with reserved {reserved:#x}");
            wrap_refused(&device, &what, &ranges, Errno::INVAL)?;
        }
    }
    Ok(())
}

/// Fds that are not memfds, or not open for writing.
fn bad_fds() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let wrap = |what: &str, memfd: i32, expected| {
        let range = Range::new(device.node(Node::Memfd), 0, PAGE);
        wrap_refused(&device, what, &[Range { memfd, ..range }], expected)
    };
    for (what, number) in bad_numbers(&memfd)? {
        wrap(what, number, Errno::BADF)?;
    }

    let wrap = |what: &str, fd: &OwnedFd, expected| wrap(what, fd.as_raw_fd(), expected);
    let file = |path: &str| open(path, OFlags::RDONLY | OFlags::CLOEXEC, 0.into());
    for path in ["/proc/self/exe", "/", "/dev/shm", "/dev/null", "/proc/self"] {
        wrap(path, &file(path).map_err(text)?, Errno::BADFD)?;
    }
    for (what, fd) in not_files()? {
        wrap(what, &fd, Errno::BADFD)?;
    }
    let own = device.node(Node::Memfd).try_clone_to_owned();
    wrap("the node", &own.map_err(text)?, Errno::BADFD)?;
    let ours = device.alloc(Alloc::new(PAGE)).map_err(text)?.fd;
    wrap("a dma-buf", &ours, Errno::BADFD)?;
    let wrapped = device.wrap(&[Range::new(&memfd, 0, PAGE)]);
    wrap(
        "a dma-buf of a memfd",
        &wrapped.map_err(text)?.fd,
        Errno::BADFD,
    )?;

    let link = format!("/proc/self/fd/{}", memfd.as_raw_fd());
    let again = |flags| open(&link, flags | OFlags::CLOEXEC, 0.into()).map_err(text);
    // It names a memfd, but is no open file.
    wrap("O_PATH of a memfd", &again(OFlags::PATH)?, Errno::BADF)?;
    wrap("a memfd, read-only", &again(OFlags::RDONLY)?, Errno::ACCESS)?;
    // It is of the file system of memfds, and has no seals like one without.
    let tmpfs: OwnedFd = tempfile::tempfile_in("/dev/shm").map_err(text)?.into();
    File::from(tmpfs.try_clone().map_err(text)?)
        .set_len(PAGE)
        .map_err(text)?;
    wrap("a file in /dev/shm", &tmpfs, Errno::INVAL)
}

/// Numbers that are not open fds.
fn bad_numbers(fd: &OwnedFd) -> Result<[(&'static str, i32); 5], String> {
    let closed = {
        let another = fd.try_clone().map_err(text)?;
        another.as_raw_fd()
    };
    Ok([
        ("-1", -1),
        ("AT_FDCWD", libc::AT_FDCWD),
        ("the lowest number", i32::MIN),
        ("the highest number", i32::MAX),
        ("a closed one", closed),
    ])
}

fn not_files() -> Result<[(&'static str, OwnedFd); 3], String> {
    let (pipe, _) = rustix::pipe::pipe().map_err(text)?;
    let event = eventfd(0, EventfdFlags::CLOEXEC).map_err(text)?;
    let socket = std::os::unix::net::UnixDatagram::unbound().map_err(text)?;
    Ok([
        ("a pipe", pipe),
        ("an eventfd", event),
        ("a socket", socket.into()),
    ])
}

/// Fds that are not dma-bufs of this module.
fn foreign_fds() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let query = |what: &str, fd: i32, expected| {
        for node in Node::ALL {
            let query = Query {
                fd,
                ..Query::new(&memfd)
            };
            refused(&device, what, node, QUERY, query, expected)?;
        }
        Ok::<(), String>(())
    };
    for (what, number) in bad_numbers(&memfd)? {
        query(what, number, Errno::BADF)?;
    }
    let ours = device.alloc(Alloc::new(PAGE)).map_err(text)?.fd;
    let link = format!("/proc/self/fd/{}", ours.as_raw_fd());
    match open(&link, OFlags::PATH | OFlags::CLOEXEC, 0.into()) {
        Ok(path) => query("O_PATH of a dma-buf", path.as_raw_fd(), Errno::BADF)?,
        Err(errno) => return Err(format!("{link}: {errno}")),
    }
    for (what, fd) in not_files()? {
        query(what, fd.as_raw_fd(), Errno::INVAL)?;
    }
    query("a memfd", memfd.as_raw_fd(), Errno::INVAL)?;
    let node = device.node(Node::System).as_raw_fd();
    query("the node", node, Errno::INVAL)?;
    // The driver of a device exports its own memory.
    let vgem = Vgem::open()?;
    let dumb = vgem.create_dumb_buffer((16, 16), DrmFourcc::Xrgb8888, 32);
    let handle = drm::buffer::Buffer::handle(&dumb.map_err(text)?);
    let foreign = vgem.buffer_to_prime_fd(handle, libc::O_CLOEXEC.cast_unsigned());
    query(
        "a dma-buf of vgem",
        foreign.map_err(text)?.as_raw_fd(),
        Errno::INVAL,
    )
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
        wrap_refused(&device, &what, &ranges, Errno::INVAL)?;
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
    for (offset, length, errno) in [
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
        // Past what 64 bits can count.
        (u64::MAX - PAGE + 1, PAGE, Errno::INVAL),
        // More than the limits, or than the module can count.
        (0, 1 << 32, Errno::FBIG),
        (0, (1 << 32) + PAGE, Errno::FBIG),
        (0, 1 << 40, Errno::FBIG),
        (0, 1 << 62, Errno::FBIG),
    ] {
        let bad = Range::new(&memfd, offset, length);
        for (place, ranges) in [
            ("alone", vec![bad]),
            ("first", vec![bad, good]),
            ("last", vec![good, good, bad]),
        ] {
            let what = format!("{place}, {length} bytes at {offset}");
            wrap_refused(&device, &what, &ranges, errno)?;
        }
    }
    // Each of them can be counted, and they all together cannot.
    for (count, length) in [
        (2, 1 << 62),
        (4, 1 << 62),
        (5, 1 << 62),
        (MAX_RANGES, 1 << 62),
        (MAX_RANGES, (1 << 32) - PAGE),
    ] {
        let ranges = vec![Range::new(&memfd, 0, length); count];
        let what = format!("{count} times {length} bytes");
        wrap_refused(&device, &what, &ranges, Errno::FBIG)?;
    }
    // A bad fd behind good ones.
    let ranges = [good, good, Range { memfd: -1, ..good }];
    wrap_refused(&device, "-1 at last", &ranges, Errno::BADF)?;

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
        refused(&device, &what, Node::Memfd, WRAP, wrap, Errno::INVAL)?;
    }
    let made = device.wrap(&ranges[..MAX_RANGES]).map_err(text)?;
    ensure(made.chunks == 1024, || format!("{} chunks", made.chunks))
}

/// Each node has the requests of its kind of memory, whatever the argument is.
fn other_requests() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    let refused = |node, request, alloc: Alloc, wrap: Wrap| {
        let what = format!("ioctl {request:#x} on {node:?}");
        match request {
            ALLOC => refused(&device, &what, node, request, alloc, Errno::NOTTY),
            _ => refused(&device, &what, node, request, wrap, Errno::NOTTY),
        }
    };
    for (node, request) in [
        (Node::System, WRAP),
        (Node::Contiguous, WRAP),
        (Node::Memfd, ALLOC),
    ] {
        let (alloc, wrap) = (Alloc::new(PAGE), Wrap::new(&ranges));
        refused(node, request, alloc, wrap)?;
        let (bad_alloc, bad_wrap) = (Alloc { size: 0, ..alloc }, Wrap { size: 0, ..wrap });
        refused(node, request, bad_alloc, bad_wrap)?;
    }
    Ok(())
}

/// Numbers that are near to those of the requests.
fn unknown_requests() -> Verdict {
    let device = Device::open()?;
    for node in Node::ALL {
        let refused = |request| {
            let what = format!("ioctl {request:#x} on {node:?}");
            let alloc = Alloc::new(PAGE);
            refused(&device, &what, node, request, alloc, Errno::NOTTY)
        };
        for number in [4, 5, 0x7f, 0xfe, 0xff] {
            refused(ALLOC & !0xff | number)?;
        }
        for kind in [b'D', b'b', b'u', b'H', 0xd9, 0xdb, 0x5a] {
            for request in [INFO, ALLOC, WRAP, QUERY] {
                refused(request & !0xff00 | libc::Ioctl::from(kind) << 8)?;
            }
        }
        // With a size or a direction, which these requests do not have.
        for request in [INFO, ALLOC, WRAP, QUERY] {
            for size in [1, 8, 24, 32, 88] {
                refused(request | size << 16)?;
            }
            for direction in 1..4 {
                refused(request | direction << 30)?;
                refused(request | direction << 30 | 32 << 16)?;
            }
        }
    }
    Ok(())
}

/// Whatever the call: nothing is made that no one could close.
fn no_free_fd() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    let before = state(&device)?;
    let (mut alloc, mut wrap) = (Alloc::new(PAGE), Wrap::new(&ranges));
    let answers = without_free_fds(&memfd, || {
        [
            device.call(Node::System, ALLOC, &mut alloc),
            device.call(Node::Contiguous, ALLOC, &mut alloc),
            device.call(Node::Memfd, WRAP, &mut wrap),
        ]
    })?;
    ensure(answers == [Err(Errno::MFILE); 3], || {
        format!("without a free fd: {answers:?}")
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

/// Calls it while no fd is left to this process.
pub(crate) fn without_free_fds<T>(any: &OwnedFd, call: impl FnOnce() -> T) -> Result<T, String> {
    let limits = getrlimit(Resource::Nofile);
    // All numbers below the next one are taken.
    let next = rustix::io::dup(any).map_err(text)?.as_raw_fd();
    let next = u64::try_from(next).map_err(text)?;
    let mut none_left = limits;
    none_left.current = Some(next);
    setrlimit(Resource::Nofile, none_left).map_err(text)?;
    let answer = call();
    setrlimit(Resource::Nofile, limits).map_err(text)?;
    Ok(answer)
}
