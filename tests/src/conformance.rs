//! What every way to allocate must do, whichever it is.
//!
//! The checks are a list of names and functions, so that a test program can
//! run them for each way that a machine has, on the host and in the guest.
//! Some count the handles of the process: run one at a time.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;

use dmashare::alloc::{AllocError, Allocate, MAX_NAME, Request, Way};
use dmashare::buffer::{Access, Buffer, BufferError, Kind, Mapping, Rows, Seals};
use dmashare::share::{Fourcc, Frame, Socket, Transport};
use rustix::io::Errno;

use crate::held;
use crate::sync_calls::{Answer, watch};

/// What a check found: nothing wrong, or what.
pub type Verdict = Result<(), String>;

/// A check of one way to allocate, by its name.
pub type Check = (&'static str, Box<dyn Fn() -> Verdict + Send>);

type Function = fn(&dyn Allocate) -> Verdict;

/// The checks of this way.
///
/// The program that runs them calls [`child`] before anything else.
///
/// ```
/// use std::sync::Arc;
/// use dmashare::alloc::Memfd;
/// use dmashare_tests::conformance::conformance;
/// let checks = conformance(Arc::new(Memfd::new()));
/// let (name, check) = &checks[0];
/// assert_eq!((*name, check()), ("sizes_are_whole_pages", Ok(())));
/// ```
pub fn conformance(way: Arc<dyn Allocate>) -> Vec<Check> {
    let checks: &[(&'static str, Function)] = &[
        ("sizes_are_whole_pages", sizes_are_whole_pages),
        ("memory_is_zeroed", memory_is_zeroed),
        ("kind_is_what_the_way_says", kind_is_what_the_way_says),
        ("names_are_the_kernels", names_are_the_kernels),
        ("size_is_fixed", size_is_fixed),
        ("handles_close_on_exec", handles_close_on_exec),
        ("absurd_requests_are_refused", absurd_requests_are_refused),
        ("mappings_share_memory", mappings_share_memory),
        ("parts_are_where_they_lie", parts_are_where_they_lie),
        ("access_is_bounded", access_is_bounded),
        ("rows_keep_their_padding", rows_keep_their_padding),
        ("a_socket_passes_it", a_socket_passes_it),
        ("another_process_sees_it", another_process_sees_it),
        ("a_guard_begins_and_ends", a_guard_begins_and_ends),
        (
            "an_interrupted_guard_is_retried",
            an_interrupted_guard_is_retried,
        ),
        ("a_panic_ends_the_guard", a_panic_ends_the_guard),
        ("finish_tells_what_end_said", finish_tells_what_end_said),
        (
            "a_refused_begin_opens_no_guard",
            a_refused_begin_opens_no_guard,
        ),
        ("nothing_leaks", nothing_leaks),
    ];
    checks
        .iter()
        .map(|&(name, check)| {
            let way = Arc::clone(&way);
            let run = move || check(&*way);
            (name, Box::new(run) as Box<dyn Fn() -> Verdict + Send>)
        })
        .collect()
}

const MIB: u64 = 1 << 20;

fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// A request that this way can take.
fn request(way: &dyn Allocate, size: u64) -> Request {
    match way.way().for_devices() {
        true => Request::new(size).for_device(),
        false => Request::new(size),
    }
}

fn buffer(way: &dyn Allocate, size: u64) -> Result<Buffer, String> {
    way.allocate(&request(way, size)).map_err(text)
}

fn mapping(way: &dyn Allocate, size: u64) -> Result<Mapping, String> {
    map(&buffer(way, size)?, Access::ReadWrite)
}

/// Maps what others can make smaller, too: this process is all they are.
fn map(buffer: &Buffer, access: Access) -> Result<Mapping, String> {
    match buffer.kind().is_fixed() {
        true => buffer.map(access).map_err(text),
        false => buffer.map_shrinkable(access).map_err(text),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Verdict {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: {found:?}, expected {expected:?}")),
    }
}

fn ensure(what: &str, holds: bool) -> Verdict {
    holds.then_some(()).ok_or_else(|| what.to_owned())
}

/// Bytes that differ from page to page, so that no swapped page goes unseen.
fn picture(len: u64) -> Vec<u8> {
    let byte = |i: u64| (i ^ (i >> 8) ^ (i >> 16)).to_le_bytes()[0];
    (0..len).map(byte).collect()
}

fn read(mapping: &mut Mapping) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; usize::try_from(mapping.size()).map_err(text)?];
    let guard = mapping.access(Access::Read).map_err(text)?;
    guard.read_at(0, &mut bytes).map_err(text)?;
    guard.finish().map_err(text)?;
    Ok(bytes)
}

fn write(mapping: &mut Mapping, bytes: &[u8]) -> Verdict {
    let mut guard = mapping.access(Access::Write).map_err(text)?;
    guard.write_at(0, bytes).map_err(text)?;
    guard.finish().map_err(text)
}

fn sizes_are_whole_pages(way: &dyn Allocate) -> Verdict {
    for size in [1, page() - 1, page(), page() + 1, 3 * MIB + 1] {
        let buffer = buffer(way, size)?;
        equal("size", buffer.size(), size.next_multiple_of(page()))?;
        // The kernel's word once more, by another call.
        let Ok(fd) = buffer.fd() else {
            equal("the segment's size", segment_size(&buffer)?, buffer.size())?;
            continue;
        };
        let end = rustix::fs::seek(fd, rustix::fs::SeekFrom::End(0)).map_err(text)?;
        equal("lseek", end, buffer.size())?;
    }
    Ok(())
}

/// What /proc tells of a segment: its third field, after key and id, is its
/// mode, and the fourth its size.
fn segment_size(buffer: &Buffer) -> Result<u64, String> {
    let id = buffer
        .segment()
        .ok_or("neither an fd nor an id")?
        .to_string();
    let table = std::fs::read_to_string("/proc/sysvipc/shm").map_err(text)?;
    let size = table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().filter(|field| *field == id)?;
        fields.nth(1)
    });
    size.ok_or("not in /proc/sysvipc/shm")?
        .parse()
        .map_err(text)
}

fn memory_is_zeroed(way: &dyn Allocate) -> Verdict {
    // Dirty some first, for a way that would hand out what was used before.
    for _ in 0..4 {
        let mut mapping = mapping(way, MIB)?;
        let bytes = read(&mut mapping)?;
        ensure(
            "a new buffer holds old bytes",
            bytes.iter().all(|b| *b == 0),
        )?;
        let mut guard = mapping.access(Access::Write).map_err(text)?;
        guard.fill(0xa5).map_err(text)?;
    }
    Ok(())
}

fn kind_is_what_the_way_says(way: &dyn Allocate) -> Verdict {
    let kind = buffer(way, 1)?.kind();
    let device = way.allocate(&Request::new(1).for_device());
    match (way.way(), kind, device) {
        (way, Kind::DmaBuf, Ok(_)) => ensure("not for devices", way.for_devices()),
        (Way::Memfd, Kind::Memfd(seals), Err(AllocError::NotForDevices(_))) => ensure(
            "not sealed against changes of its size",
            seals.contains(Seals::SHRINK | Seals::GROW),
        ),
        (Way::Posix, Kind::Shm, Err(AllocError::NotForDevices(_)))
        | (Way::SysV, Kind::SysV, Err(AllocError::NotForDevices(_))) => Ok(()),
        (way, kind, device) => Err(format!("{way}: {kind:?}, {device:?}")),
    }
}

fn names_are_the_kernels(way: &dyn Allocate) -> Verdict {
    let longest = "n".repeat(MAX_NAME);
    for name in ["a picture", &longest] {
        let buffer = way.allocate(&request(way, 1).named(name)).map_err(text)?;
        let shown = match buffer.kind() {
            Kind::DmaBuf => format!("/dmabuf:{name}"),
            Kind::Shm => format!("/dev/shm/{name}."),
            Kind::SysV => "System V segment ".to_owned(),
            _ => format!("/memfd:{name}"),
        };
        // Two kinds add a number of their own.
        match buffer.kind() {
            Kind::Shm | Kind::SysV => ensure(
                &format!("named {}", buffer.name()),
                buffer.name().starts_with(&shown),
            )?,
            _ => equal("name", buffer.name(), shown)?,
        }
    }
    let too_long = way.allocate(&request(way, 1).named("n".repeat(MAX_NAME + 1)));
    ensure(
        "took a name that is too long",
        matches!(too_long, Err(AllocError::Name { .. })),
    )
}

fn size_is_fixed(way: &dyn Allocate) -> Verdict {
    let buffer = buffer(way, 2 * page())?;
    if way.way() == Way::Posix {
        // Anyone may change it: none but who says so may map it.
        let fd = buffer.fd().map_err(text)?;
        rustix::fs::ftruncate(fd, 3 * page()).map_err(text)?;
        ensure("said to be fixed", !buffer.kind().is_fixed())?;
        return ensure(
            "`map` took what others can make smaller",
            matches!(
                buffer.map(Access::Read),
                Err(BufferError::Shrinkable { .. })
            ),
        );
    }
    // A segment has no call that could.
    if let Ok(fd) = buffer.fd() {
        for size in [0, page(), 3 * page()] {
            ensure(
                "its size can be changed",
                rustix::fs::ftruncate(fd, size).is_err(),
            )?;
        }
    }
    ensure("not said to be fixed", buffer.kind().is_fixed())?;
    equal(
        "size of the mapping",
        buffer.map(Access::Read).map_err(text)?.size(),
        2 * page(),
    )
}

fn handles_close_on_exec(way: &dyn Allocate) -> Verdict {
    let buffer = buffer(way, 1)?;
    if way.way() == Way::SysV {
        let refused = matches!(buffer.fd(), Err(BufferError::NoFd { .. }));
        return ensure("a segment with a handle", refused);
    }
    for buffer in [&buffer, &buffer.try_clone().map_err(text)?] {
        let flags = rustix::io::fcntl_getfd(buffer.fd().map_err(text)?).map_err(text)?;
        let close = rustix::io::FdFlags::CLOEXEC;
        ensure("stays open on exec", flags.contains(close))?;
    }
    Ok(())
}

fn absurd_requests_are_refused(way: &dyn Allocate) -> Verdict {
    let ask = |size| way.allocate(&request(way, size));
    ensure(
        "gave 0 bytes",
        ask(0).is_err_and(|e| e == AllocError::Empty),
    )?;
    for size in [u64::MAX, u64::MAX - page(), 1 << 63] {
        ensure(
            "gave more than a file can have",
            matches!(ask(size), Err(AllocError::TooLarge { .. })),
        )?;
    }
    // Memory for CPUs takes its pages as they are written, and may be larger
    // than there is; the others take them at once.
    if way.way().for_devices() {
        ensure(
            "tried to take more memory than there is",
            matches!(ask(1 << 50), Err(AllocError::TooLarge { .. })),
        )?;
    }
    Ok(())
}

fn mappings_share_memory(way: &dyn Allocate) -> Verdict {
    let buffer = buffer(way, MIB)?;
    let mut writer = map(&buffer, Access::Write)?;
    let mut reader = map(&buffer.try_clone().map_err(text)?, Access::Read)?;
    drop(buffer);
    let picture = picture(MIB);
    write(&mut writer, &picture)?;
    drop(writer);
    ensure(
        "the other mapping shows other bytes",
        read(&mut reader)? == picture,
    )
}

fn parts_are_where_they_lie(way: &dyn Allocate) -> Verdict {
    let buffer = buffer(way, 3 * page())?;
    if !buffer.kind().is_fixed() {
        return ensure(
            "mapped a part of what others can make smaller",
            matches!(
                buffer.map_part(0..1, Access::Read),
                Err(BufferError::Shrinkable { .. })
            ),
        );
    }
    let picture = picture(3 * page());
    write(&mut map(&buffer, Access::Write)?, &picture)?;
    for part in [0..1, 1..page(), page() - 1..2 * page() + 1, 5..3 * page()] {
        let mut mapped = buffer.map_part(part.clone(), Access::Read).map_err(text)?;
        let start = usize::try_from(part.start).map_err(text)?;
        let end = usize::try_from(part.end).map_err(text)?;
        ensure(
            &format!("bytes {part:?} are others"),
            read(&mut mapped)? == picture[start..end],
        )?;
    }
    let beyond = buffer.map_part(page()..3 * page() + 1, Access::Read);
    ensure(
        "mapped a part beyond its end",
        matches!(beyond, Err(BufferError::Part { .. })),
    )
}

fn access_is_bounded(way: &dyn Allocate) -> Verdict {
    let mut mapping = mapping(way, page())?;
    let size = mapping.size();
    let mut guard = mapping.access(Access::ReadWrite).map_err(text)?;
    guard.write_at(size - 4, b"last").map_err(text)?;
    for offset in [size - 3, size, u64::MAX - 1] {
        let range = BufferError::Range {
            offset,
            len: 4,
            size,
        };
        equal("write", guard.write_at(offset, b"over"), Err(range.clone()))?;
        equal("read", guard.read_at(offset, &mut [0; 4]), Err(range))?;
    }
    guard.finish().map_err(text)
}

fn rows_keep_their_padding(way: &dyn Allocate) -> Verdict {
    let mut mapping = mapping(way, MIB)?;
    let rows = Rows {
        offset: 64,
        stride: 1024,
        row: 1000,
        count: 1000,
    };
    let picture = picture(rows.bytes());
    let mut guard = mapping.access(Access::ReadWrite).map_err(text)?;
    guard.fill(0xee).map_err(text)?;
    guard.write_rows(rows, &picture).map_err(text)?;
    let mut back = vec![0; picture.len()];
    guard.read_rows(rows, &mut back).map_err(text)?;
    ensure("the rows come back changed", back == picture)?;
    let mut between = [0; 24];
    guard
        .read_at(64 + 1024 + 1000, &mut between)
        .map_err(text)?;
    equal("between the rows", between, [0xee; 24])?;
    guard.finish().map_err(text)
}

/// A frame of a page, whatever its size.
fn frame() -> Result<Frame, String> {
    let width = u32::try_from(page() / 4 / 16).map_err(text)?;
    Frame::packed(width, 16, Fourcc::XRGB8888).map_err(text)
}

fn a_socket_passes_it(way: &dyn Allocate) -> Verdict {
    [Transport::Packet, Transport::Stream]
        .into_iter()
        .try_for_each(|transport| {
            passes_by(way, transport).map_err(|error| format!("{transport:?}: {error}"))
        })
}

fn passes_by(way: &dyn Allocate, transport: Transport) -> Verdict {
    let buffer = buffer(way, page())?;
    let picture = picture(page());
    write(&mut map(&buffer, Access::Write)?, &picture)?;
    let (here, there) = Socket::pair_with(transport).map_err(text)?;
    let sent = here.send(&frame()?, &[&buffer]);
    if way.way() == Way::SysV {
        return ensure(
            &format!("what no socket passes: {sent:?}"),
            sent.is_err_and(|error| error.to_string().contains("no file descriptor")),
        );
    }
    sent.map_err(text)?;
    let (kind, size) = (buffer.kind(), buffer.size());
    drop(buffer);
    let (frame, buffers) = there.recv().map_err(text)?;
    equal("frame", frame, self::frame()?)?;
    equal("kind", buffers[0].kind(), kind)?;
    equal("size", buffers[0].size(), size)?;
    let bytes = read(&mut map(&buffers[0], Access::Read)?)?;
    ensure("the receiver sees other bytes", bytes == picture)
}

/// The word by which a test program starts itself as [`child`].
const CHILD: &str = "conformance-child";

/// Does the part of the other process where this program was started for it,
/// and does not return then. To be called first in `main`.
pub fn child() {
    if std::env::args().nth(1).as_deref() != Some(CHILD) {
        return;
    }
    let done = match std::env::args().nth(2) {
        Some(id) => invert_segment(&id),
        None => invert_what_comes_by_stdin(),
    };
    if let Err(error) = &done {
        eprintln!("{error}");
    }
    std::process::exit(done.is_err().into());
}

fn invert_what_comes_by_stdin() -> Verdict {
    let stdin: OwnedFd = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).map_err(text)?;
    let socket = Socket::from_fd(stdin).map_err(text)?;
    let (frame, buffers) = socket.recv().map_err(text)?;
    invert(&buffers[0])?;
    socket.send(&frame, &buffers).map_err(text)
}

fn invert_segment(id: &str) -> Verdict {
    let id = id.parse().map_err(text)?;
    invert(&Buffer::from_segment(id).map_err(text)?)
}

fn invert(buffer: &Buffer) -> Verdict {
    let mut mapping = map(buffer, Access::ReadWrite)?;
    let bytes: Vec<u8> = read(&mut mapping)?.iter().map(|byte| !byte).collect();
    write(&mut mapping, &bytes)
}

fn another_process_sees_it(way: &dyn Allocate) -> Verdict {
    let buffer = buffer(way, page())?;
    let mut mapping = map(&buffer, Access::ReadWrite)?;
    let picture = picture(page());
    write(&mut mapping, &picture)?;
    let program = std::env::current_exe().map_err(text)?;
    let mut other = Command::new(program);
    other.arg(CHILD);
    let (here, there) = Socket::pair().map_err(text)?;
    match buffer.segment() {
        // No socket passes it: its id is all there is to tell.
        Some(id) => other.arg(id.to_string()),
        None => {
            here.send(&frame()?, &[&buffer]).map_err(text)?;
            let there = there.as_fd().try_clone_to_owned().map_err(text)?;
            other.stdin(Stdio::from(there))
        }
    };
    let ended = other.output().map_err(text)?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure(
        &format!("the other process: {said}"),
        ended.status.success(),
    )?;
    let bytes = read(&mut mapping)?;
    let inverted = bytes.iter().zip(&picture).all(|(b, p)| *b == !p);
    ensure("not what the other process wrote", inverted)
}

const READ: u64 = 1;
const WRITE: u64 = 2;
const END: u64 = 4;

/// The SYNC calls that `body` makes on a mapping, each answered by `answer`;
/// none on memory that has no exporter to tell. And what became of `body`.
fn syncs<T: Send>(
    way: &dyn Allocate,
    mut answer: impl FnMut(usize) -> Answer,
    body: impl FnOnce(&mut Mapping) -> T + Send,
) -> Result<(Vec<u64>, std::thread::Result<T>), String> {
    let mut mapping = mapping(way, page())?;
    let mut seen = Vec::new();
    let on_call = |flags| {
        seen.push(flags);
        answer(seen.len() - 1)
    };
    let result = watch(on_call, || body(&mut mapping)).map_err(text)?;
    Ok((seen, result))
}

/// What a dma-buf is told, and other memory is not.
fn told(way: &dyn Allocate, flags: &[u64]) -> Vec<u64> {
    match way.way().for_devices() {
        true => flags.to_vec(),
        false => Vec::new(),
    }
}

fn a_guard_begins_and_ends(way: &dyn Allocate) -> Verdict {
    for (access, flags) in [
        (Access::Read, READ),
        (Access::Write, WRITE),
        (Access::ReadWrite, READ | WRITE),
    ] {
        for finish in [true, false] {
            let body = |mapping: &mut Mapping| {
                let guard = mapping.access(access).map_err(text)?;
                match finish {
                    true => guard.finish().map_err(text),
                    false => {
                        drop(guard);
                        Ok(())
                    }
                }
            };
            let (seen, result) = syncs(way, |_| Answer::Kernel, body)?;
            result.map_err(|_| "panicked")??;
            equal("calls", seen, told(way, &[flags, flags | END]))?;
        }
    }
    Ok(())
}

fn an_interrupted_guard_is_retried(way: &dyn Allocate) -> Verdict {
    // START: EINTR, EAGAIN, done. END: EAGAIN, EINTR, done.
    let answer = |call| match call {
        0 | 4 => Answer::Errno(libc::EINTR),
        1 | 3 => Answer::Errno(libc::EAGAIN),
        _ => Answer::Kernel,
    };
    let body = |mapping: &mut Mapping| mapping.access(Access::Read)?.finish();
    let (seen, result) = syncs(way, answer, body)?;
    result.map_err(|_| "panicked")?.map_err(text)?;
    let end = READ | END;
    equal("calls", seen, told(way, &[READ, READ, READ, end, end, end]))
}

fn a_panic_ends_the_guard(way: &dyn Allocate) -> Verdict {
    let body = |mapping: &mut Mapping| {
        let _guard = mapping.access(Access::Write);
        // Not panic!, whose message would look like a failure in the output.
        std::panic::resume_unwind(Box::new("as planned"));
    };
    let (seen, result) = syncs(way, |_| Answer::Kernel, body)?;
    let payload = result.map(|()| "nothing").err();
    ensure(
        "the panic got lost",
        payload.is_some_and(|p| p.downcast_ref() == Some(&"as planned")),
    )?;
    equal("calls", seen, told(way, &[WRITE, WRITE | END]))
}

fn finish_tells_what_end_said(way: &dyn Allocate) -> Verdict {
    let answer = |call| match call {
        1 => Answer::Errno(libc::EIO),
        _ => Answer::Kernel,
    };
    let body = |mapping: &mut Mapping| mapping.access(Access::Write)?.finish();
    let (seen, result) = syncs(way, answer, body)?;
    let said = result.map_err(|_| "panicked")?;
    equal("calls", seen, told(way, &[WRITE, WRITE | END]))?;
    match (way.way().for_devices(), said) {
        (false, Ok(())) => Ok(()),
        (
            true,
            Err(BufferError::Os {
                operation,
                source: Errno::IO,
                ..
            }),
        ) => equal("operation", operation, "DMA_BUF_IOCTL_SYNC(END)"),
        (_, said) => Err(format!("finish said {said:?}")),
    }
}

fn a_refused_begin_opens_no_guard(way: &dyn Allocate) -> Verdict {
    let body = |mapping: &mut Mapping| mapping.access(Access::Read).map(drop);
    let (seen, result) = syncs(way, |_| Answer::Errno(libc::ENOMEM), body)?;
    let said = result.map_err(|_| "panicked")?;
    // No END without a START.
    equal("calls", seen, told(way, &[READ]))?;
    match (way.way().for_devices(), said) {
        (false, Ok(())) => Ok(()),
        (
            true,
            Err(BufferError::Os {
                operation,
                source: Errno::NOMEM,
                ..
            }),
        ) => equal("operation", operation, "DMA_BUF_IOCTL_SYNC(START)"),
        (_, said) => Err(format!("access said {said:?}")),
    }
}

fn nothing_leaks(way: &dyn Allocate) -> Verdict {
    // The first round may open what stays open, such as a locale.
    round(way)?;
    let before = held::by_process()?;
    for _ in 0..100 {
        round(way)?;
    }
    equal("held", held::by_process()?, before)
}

/// Allocations that succeed and that fail, mapped, passed on and dropped.
fn round(way: &dyn Allocate) -> Verdict {
    let buffer = buffer(way, page())?;
    let mut mapping = map(&buffer, Access::ReadWrite)?;
    drop(mapping.access(Access::Read).map_err(text)?);
    let (here, there) = Socket::pair().map_err(text)?;
    let sent = here.send(&frame()?, &[&buffer]);
    if way.way() != Way::SysV {
        sent.map_err(text)?;
        here.send(&frame()?, &[&buffer]).map_err(text)?; // never received
        there.recv().map_err(text)?;
    }
    let _ = way.allocate(&request(way, 0));
    let _ = way.allocate(&request(way, u64::MAX));
    let _ = way.allocate(&request(way, 1).named("x".repeat(100)));
    Ok(())
}
