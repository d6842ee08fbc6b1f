//! Buffers, mappings and guards on memory that every kernel has.

use std::os::fd::OwnedFd;

use dmashare::Errno;
use dmashare::alloc::{AllocError, Allocate, DmaHeap, Memfd, Request, Way, allocate, probe};
use dmashare::buffer::{Access, Buffer, BufferError, Kind, Mapping, Rows, Seals};
use rustix::fs::{MemfdFlags, OFlags, ftruncate, memfd_create};

fn memfd(size: u64) -> Buffer {
    Memfd::new().allocate(&Request::new(size)).unwrap()
}

fn memory(size: u64) -> Mapping {
    memfd(size).map(Access::ReadWrite).unwrap()
}

/// A second handle that is open for less.
fn reopened(buffer: &Buffer, flags: OFlags) -> OwnedFd {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", buffer.fd().unwrap().as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, rustix::fs::Mode::empty()).unwrap()
}

#[test]
fn a_memfd_cannot_change_its_size_or_be_executed() {
    let buffer = memfd(1);
    assert_eq!(buffer.size(), rustix::param::page_size() as u64);
    for size in [0, 1, 1 << 20] {
        assert_eq!(
            ftruncate(buffer.fd().unwrap(), size),
            Err(Errno::PERM),
            "{size}"
        );
    }
    let Kind::Memfd(seals) = buffer.kind() else {
        panic!("{:?}", buffer.kind());
    };
    assert!(seals.contains(Seals::SHRINK | Seals::GROW), "{seals:?}");
    // MFD_NOEXEC_SEAL is of 6.3: elsewhere the flag is left out.
    let knows_noexec = memfd_create("", MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL).is_ok();
    assert_eq!(seals.contains(Seals::EXEC), knows_noexec);
}

/// The same memory seen through one mapping after being written through
/// another, whose handle is long closed.
#[test]
fn mappings_share_their_memory() {
    let buffer = memfd(1 << 20);
    let second = buffer.try_clone().unwrap();
    let mut writer = buffer.map(Access::Write).unwrap();
    drop(buffer);
    let mut reader = second.map(Access::Read).unwrap();
    drop(second);
    let picture: Vec<u8> = (0..=255).cycle().take(99_999).collect();
    let mut guard = writer.access(Access::Write).unwrap();
    guard.write_at(12_345, &picture).unwrap();
    guard.finish().unwrap();
    let mut seen = vec![0; picture.len()];
    let guard = reader.access(Access::Read).unwrap();
    guard.read_at(12_345, &mut seen).unwrap();
    assert_eq!(seen, picture);
}

#[test]
fn access_beyond_the_end_is_an_error() {
    let mut memory = memory(4096);
    let size = memory.size();
    let mut guard = memory.access(Access::ReadWrite).unwrap();
    let mut four = [0; 4];
    for offset in [size - 3, size, size + 1, u64::MAX - 3, u64::MAX] {
        let range = BufferError::Range {
            offset,
            len: 4,
            size,
        };
        assert_eq!(guard.read_at(offset, &mut four), Err(range.clone()));
        assert_eq!(guard.write_at(offset, &four), Err(range));
    }
    guard.write_at(size - 4, b"last").unwrap();
    guard.read_at(size - 4, &mut four).unwrap();
    assert_eq!(&four, b"last");
    guard.read_at(size, &mut []).unwrap();
    assert!(guard.read_at(size + 1, &mut []).is_err());
}

#[test]
fn rows_leave_alone_what_lies_between_them() {
    let mut memory = memory(4096);
    let mut guard = memory.access(Access::ReadWrite).unwrap();
    guard.fill(0xaa).unwrap();
    let rows = Rows {
        offset: 5,
        stride: 17,
        row: 11,
        count: 13,
    };
    let picture: Vec<u8> = (0..11 * 13).collect();
    guard.write_rows(rows, &picture).unwrap();

    let mut all = vec![0; 4096];
    guard.read_at(0, &mut all).unwrap();
    let mut expected = vec![0xaa; 4096];
    for (y, row) in picture.chunks(11).enumerate() {
        expected[5 + 17 * y..][..11].copy_from_slice(row);
    }
    assert_eq!(all, expected);

    let mut back = vec![0; picture.len()];
    guard.read_rows(rows, &mut back).unwrap();
    assert_eq!(back, picture);
}

#[test]
fn rows_that_do_not_fit_are_an_error() {
    let mut memory = memory(4096);
    let mut guard = memory.access(Access::ReadWrite).unwrap();
    let rows = Rows {
        offset: 0,
        stride: 64,
        row: 64,
        count: 64,
    };
    guard.fill(1).unwrap();
    guard.write_rows(rows, &[2; 4096]).unwrap();
    let refused = [
        (Rows { offset: 1, ..rows }, 4096),
        (Rows { stride: 65, ..rows }, 4096),
        (Rows { count: 65, ..rows }, 65 * 64),
        (Rows { row: 65, ..rows }, 65 * 64), // overlapping
        (
            Rows {
                offset: u64::MAX,
                ..rows
            },
            4096,
        ),
        (rows, 4095),
        (rows, 4097),
    ];
    for (rows, len) in refused {
        assert!(
            guard.write_rows(rows, &vec![3; len]).is_err(),
            "{rows:?} {len}"
        );
        assert!(
            guard.read_rows(rows, &mut vec![3; len]).is_err(),
            "{rows:?} {len}"
        );
    }
    let stride = u32::MAX;
    let huge = Rows {
        stride,
        row: 0,
        count: stride,
        ..rows
    };
    assert!(guard.write_rows(huge, &[]).is_err());
    for nothing in [Rows { count: 0, ..rows }, Rows { row: 0, ..rows }] {
        guard.write_rows(nothing, &[]).unwrap();
        guard.read_rows(nothing, &mut []).unwrap();
    }
    // Nothing was written in part.
    let mut all = [0; 4096];
    guard.read_at(0, &mut all).unwrap();
    assert_eq!(all, [2; 4096]);
}

#[test]
fn a_guard_does_what_it_was_opened_for() {
    let buffer = memfd(4096);
    for (mapped, asked) in [
        (Access::Read, Access::Write),
        (Access::Read, Access::ReadWrite),
        (Access::Write, Access::Read),
        (Access::Write, Access::ReadWrite),
    ] {
        let mut mapping = buffer.map(mapped).unwrap();
        let granted = mapped;
        let error = mapping.access(asked).unwrap_err();
        assert_eq!(error, BufferError::Access { asked, granted });
    }
    let mut mapping = buffer.map(Access::ReadWrite).unwrap();
    let rows = Rows {
        offset: 0,
        stride: 4,
        row: 4,
        count: 1,
    };
    let mut guard = mapping.access(Access::Read).unwrap();
    let denied = BufferError::Access {
        asked: Access::Write,
        granted: Access::Read,
    };
    assert_eq!(guard.write_at(0, &[1]), Err(denied.clone()));
    assert_eq!(guard.write_rows(rows, &[1; 4]), Err(denied.clone()));
    assert_eq!(guard.fill(1), Err(denied));
    drop(guard);
    let guard = mapping.access(Access::Write).unwrap();
    assert!(guard.read_at(0, &mut [1]).is_err());
    assert!(guard.read_rows(rows, &mut [1; 4]).is_err());
}

/// A receiver makes a memfd safe to map by sealing it.
#[test]
fn an_unsealed_memfd_can_be_sealed_by_its_receiver() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("theirs", flags).unwrap();
    ftruncate(&fd, 8192).unwrap();
    let mut buffer = Buffer::from_fd(fd).unwrap();
    let error = buffer.map(Access::Read).unwrap_err();
    assert_eq!(
        error,
        BufferError::Shrinkable {
            name: "/memfd:theirs".to_owned()
        }
    );
    // Its owner shrinks it meanwhile: the size is read anew.
    ftruncate(buffer.fd().unwrap(), 4096).unwrap();
    buffer.seal(Seals::SHRINK).unwrap();
    assert_eq!(buffer.size(), 4096);
    assert_eq!(buffer.map(Access::Read).unwrap().size(), 4096);
}

#[test]
fn sealed_against_writing_it_can_still_be_read() {
    let mut buffer = memfd(4096);
    let mut mapping = buffer.map(Access::Write).unwrap();
    mapping.access(Access::Write).unwrap().fill(7).unwrap();
    let error = buffer.seal(Seals::WRITE).unwrap_err();
    assert!(
        matches!(
            error,
            BufferError::Os {
                source: Errno::BUSY,
                ..
            }
        ),
        "{error}"
    );
    drop(mapping);
    buffer.seal(Seals::WRITE).unwrap();
    let error = buffer.map(Access::Write).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/memfd:dmashare: mmap failed: Operation not permitted (os error 1); \
         it is sealed against writing: map it for reading"
    );
    let mut mapping = buffer.map(Access::Read).unwrap();
    let mut byte = [0];
    mapping
        .access(Access::Read)
        .unwrap()
        .read_at(4095, &mut byte)
        .unwrap();
    assert_eq!(byte, [7]);
}

#[test]
fn a_handle_for_reading_maps_for_reading() {
    let buffer = memfd(4096);
    let reader = Buffer::from_fd(reopened(&buffer, OFlags::RDONLY)).unwrap();
    assert!(reader.map(Access::Read).is_ok());
    let error = reader.map(Access::Write).unwrap_err();
    assert!(
        matches!(
            error,
            BufferError::Os {
                source: Errno::ACCESS,
                ..
            }
        ),
        "{error}"
    );
    // A handle that names a file, and opens nothing.
    let named = Buffer::from_fd(reopened(&buffer, OFlags::PATH));
    assert!(matches!(named, Err(BufferError::Os { .. })), "{named:?}");
}

#[test]
fn every_handle_closes_on_exec() {
    let buffer = memfd(4096);
    let plain = rustix::io::dup(buffer.fd().unwrap()).unwrap();
    let from_elsewhere = Buffer::from_fd(plain).unwrap();
    for buffer in [&buffer, &buffer.try_clone().unwrap(), &from_elsewhere] {
        let flags = rustix::io::fcntl_getfd(buffer.fd().unwrap()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}

#[test]
fn no_way_gives_less_than_was_asked() {
    let device = Request::new(4096).for_device();
    let refused = Memfd::new().allocate(&device);
    assert_eq!(refused.unwrap_err(), AllocError::NotForDevices(Way::Memfd));
    match allocate(&device) {
        Ok(made) => {
            assert_eq!(made.buffer.kind(), Kind::DmaBuf);
            assert!(made.way.for_devices());
        }
        Err(AllocError::NoWay(reasons)) => {
            let asked: Vec<Way> = reasons.iter().map(|(way, _)| *way).collect();
            assert_eq!(asked, [Way::DmaHeap, Way::Udmabuf, Way::Module, Way::Dumb]);
        }
        Err(other) => panic!("{other}"),
    }
    assert_eq!(allocate(&Request::new(0)).unwrap_err(), AllocError::Empty);
    let long = Request::new(1).named("x".repeat(32));
    assert!(matches!(allocate(&long), Err(AllocError::Name { .. })));
}

/// The probe's verdict is what an allocation then gives.
#[test]
fn the_probe_tells_the_truth() {
    let probe = probe();
    for row in probe.rows() {
        let mut request = Request::new(1);
        if row.way.for_devices() {
            request = request.for_device();
        }
        let allocated = row.way.open().and_then(|way| way.allocate(&request));
        let told = row.verdict.clone();
        assert_eq!(allocated.map(drop), told.map(drop), "{row}");
    }
    assert_eq!(probe.to_string().lines().count(), Way::ALL.len(), "{probe}");
}

#[test]
fn a_heap_is_named_by_one_step_of_a_path() {
    for name in ["", ".", "..", "../null", "a/b"] {
        let error = DmaHeap::open(name).unwrap_err();
        assert!(
            matches!(
                error,
                AllocError::Os {
                    source: Errno::INVAL,
                    ..
                }
            ),
            "{error}"
        );
    }
}

/// A segment whose key is gone lives as long as a buffer or a mapping of it.
#[test]
fn a_segment_is_a_buffer() {
    // SAFETY: takes three numbers.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 5000, 0o600) };
    assert!(id >= 0);
    let buffer = Buffer::from_segment(id).unwrap();
    // SAFETY: IPC_RMID uses no third argument.
    let removed = unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    assert_eq!(removed, 0);
    assert_eq!((buffer.kind(), buffer.size()), (Kind::SysV, 5000));
    assert_eq!(buffer.segment(), Some(id));
    assert!(matches!(buffer.fd(), Err(BufferError::NoFd { .. })));

    let again = Buffer::from_segment(id).unwrap();
    let mut writer = buffer.map_part(4990..5000, Access::Write).unwrap();
    writer.access(Access::Write).unwrap().fill(7).unwrap();
    drop((buffer, writer));
    let mut reader = again.map(Access::Read).unwrap();
    let mut bytes = [0; 12];
    let guard = reader.access(Access::Read).unwrap();
    guard.read_at(4988, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
    drop((guard, again));
    drop(reader);
    assert!(Buffer::from_segment(id).is_err());
}

/// What is mapped is the part that was asked for, and no more of it is reached.
#[test]
fn parts_are_parts() {
    let buffer = Memfd::new().allocate(&Request::new(4 * 4096)).unwrap();
    let mut whole = buffer.map(Access::ReadWrite).unwrap();
    let bytes: Vec<u8> = (0..4 * 4096u32)
        .map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1])
        .collect();
    whole
        .access(Access::Write)
        .unwrap()
        .write_at(0, &bytes)
        .unwrap();
    for part in [
        0..1,
        1..2,
        4095..4097,
        4096..8192,
        5000..16384,
        16383..16384,
    ] {
        let mut mapping = buffer.map_part(part.clone(), Access::Read).unwrap();
        let len = part.end - part.start;
        assert_eq!(mapping.size(), len);
        let index = |at: u64| usize::try_from(at).unwrap();
        let mut read = vec![0; index(len)];
        let guard = mapping.access(Access::Read).unwrap();
        guard.read_at(0, &mut read).unwrap();
        assert_eq!(read, bytes[index(part.start)..index(part.end)]);
        assert!(guard.read_at(len, &mut [0]).is_err());
    }
    for (start, end) in [
        (0, 0),
        (2, 1),
        (0, 16385),
        (16384, 16385),
        (u64::MAX - 1, u64::MAX),
    ] {
        let refused = buffer.map_part(start..end, Access::Read);
        assert!(
            matches!(refused, Err(BufferError::Part { .. })),
            "{start}..{end}"
        );
    }
}

/// Who made a buffer chose its name: it is shown, and does nothing to a terminal.
#[test]
fn names_are_printable() {
    let fd = memfd_create("a\nfd 1: forged\u{1b}[31m", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, 4096).unwrap();
    let name = Buffer::from_fd(fd).unwrap().name();
    assert_eq!(name, r"/memfd:a\nfd 1: forged\u{1b}[31m");
    // An escape is told from its text; what reorders or ends a line is escaped.
    for (chosen, shown) in [
        (r"a\nb", r"/memfd:a\\nb"),
        ("a\u{202e}b\u{2028}c", r"/memfd:a\u{202e}b\u{2028}c"),
    ] {
        let fd = memfd_create(chosen, MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, 4096).unwrap();
        assert_eq!(Buffer::from_fd(fd).unwrap().name(), shown);
    }
}
