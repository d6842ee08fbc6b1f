//! CPU accesses of several processes at once, while a device has the buffer mapped
//! through a bounce buffer: no write is lost, whatever the others begin, end or
//! unmap.
//!
//! For guests with `swiotlb=force` on the kernel's command line: then every mapping
//! for a device is a copy of the memory, made by the kernel at each turn, and a
//! turn taken too early shows.

use std::fs::{File, read_to_string};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use dmashare::buffer::{Access, Buffer, Mapping};
use dmashare::import::v4l2;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::guest::kernel_version;
use dmashare_tests::held;
use drm::control::Device as _;
use libtest_mimic::Trial;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::device::{Alloc, CONTIGUOUS, Device, PAGE};
use crate::forked::{Forked, in_another_process};
use crate::gem::Vgem;
use crate::{ensure, skipped, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    type Check = (&'static str, fn() -> Verdict);
    let tests: [Check; 10] = [
        ("writers::overlapping_writes_are_kept", overlapping_writes),
        ("writers::nested_writes_are_kept", nested_writes),
        ("writers::reads_keep_open_writes", reads_keep_writes),
        ("writers::unmapping_keeps_open_writes", unmapping_keeps),
        ("writers::importing_keeps_open_writes", importing_keeps),
        ("writers::killed_writer_blocks_nothing", killed_writer),
        ("writers::stray_end_undoes_nothing", stray_end),
        ("writers::each_end_hands_over", each_end_hands_over),
        ("writers::ended_write_outlives_begin", outlives_begin),
        (
            "writers::ended_write_outlives_unmapping",
            outlives_unmapping,
        ),
    ];
    let forced = read_to_string("/proc/cmdline").is_ok_and(|line| line.contains("swiotlb=force"));
    let trial = |(name, check)| match forced {
        true => test(name, check),
        false => skipped(
            name,
            "mappings are not bounced: the kernel was booted without swiotlb=force",
        ),
    };
    tests.into_iter().map(trial).collect()
}

/// A device that has the buffer mapped, until this is dropped.
#[expect(dead_code, reason = "they are held, and looked at by nobody")]
enum Importer {
    /// vgem maps what it imports, in both directions, before Linux 7.0.
    Vgem(Vgem),
    /// A camera for contiguous memory maps what is queued, to write to it.
    Camera(Box<v4l2::Stream>),
}

/// Content of the buffer when the device got it, and so of the bounce buffer.
const OLD: u8 = 0x11;

/// A buffer of contiguous memory, which the camera demands, full of [`OLD`].
fn buffer() -> Result<Buffer, String> {
    let device = Device::open()?;
    let made = device.alloc(Alloc::new(SIZE).flags(CONTIGUOUS));
    let buffer = made.map_err(text)?.buffer()?;
    let mut mapping = map(&buffer)?;
    let mut guard = mapping.access(Access::Write).map_err(text)?;
    guard.fill(OLD).map_err(text)?;
    guard.finish().map_err(text)?;
    drop(mapping);
    Ok(buffer)
}

/// A frame of the camera, and less than what swiotlb can bounce in one piece.
const SIZE: u64 = 64 * PAGE;

fn import(buffer: &Buffer) -> Result<Importer, String> {
    if kernel_version() < (7, 0) {
        let vgem = Vgem::open()?;
        let fd = buffer.fd().map_err(text)?;
        vgem.prime_fd_to_buffer(fd).map_err(text)?;
        return Ok(Importer::Vgem(vgem));
    }
    let camera = v4l2::Device::find("vivid", "platform:vivid-001").map_err(text)?;
    let queue = camera.capture().map_err(text)?;
    let wanted = v4l2::Wanted::new(320, 180, dmashare::frame::Fourcc::XRGB8888);
    let format = queue.set_format(&wanted).map_err(text)?;
    ensure(format.sizes.iter().all(|size| *size <= SIZE), || {
        format!("frames of {:?} bytes, more than {SIZE}", format.sizes)
    })?;
    let fd = buffer.fd().map_err(text)?;
    let copy = Buffer::from_fd(fd.try_clone_to_owned().map_err(text)?).map_err(text)?;
    let mut stream = queue.stream(vec![vec![copy]]).map_err(text)?;
    stream.queue(0, None).map_err(text)?;
    Ok(Importer::Camera(Box::new(stream)))
}

/// That the device has it mapped: a test of nothing would pass, too.
fn is_mapped(buffer: &Buffer, mapped: bool) -> Verdict {
    let inode = rustix::fs::fstat(buffer.fd().map_err(text)?).map_err(text)?;
    let inode = inode.st_ino.to_string();
    held::comes_back_to(mapped, || {
        let table = read_to_string("/sys/kernel/debug/dmashare/buffers").map_err(text)?;
        let mut lines = table.lines();
        lines.find(|line| line.split('\t').next() == Some(&inode));
        let attached = lines.next().unwrap_or_default();
        Ok(attached.starts_with('\t') && attached.ends_with("mappings 1"))
    })
}

/// A buffer that a device has mapped.
fn mapped() -> Result<(Buffer, Importer), String> {
    let buffer = buffer()?;
    let importer = import(&buffer)?;
    is_mapped(&buffer, true)?;
    Ok((buffer, importer))
}

fn map(buffer: &Buffer) -> Result<Mapping, String> {
    buffer.map(Access::ReadWrite).map_err(text)
}

fn write(mapping: &mut Mapping, offset: u64, byte: u8) -> Verdict {
    let mut guard = mapping.access(Access::Write).map_err(text)?;
    guard.write(offset, &byte).map_err(text)?;
    guard.finish().map_err(text)
}

/// The byte as it is after the devices' turn: a begin and an end of its own.
fn reads(buffer: &Buffer, offset: u64, expected: u8, what: &str) -> Verdict {
    let mut mapping = map(buffer)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    let found: u8 = guard.read(offset).map_err(text)?;
    guard.finish().map_err(text)?;
    ensure(found == expected, || {
        format!("{what} is {found:#x}, expected {expected:#x}")
    })
}

fn overlapping_writes() -> Verdict {
    let (buffer, _importer) = mapped()?;
    let mut mapping = map(&buffer)?;
    let mut first = mapping.access(Access::ReadWrite).map_err(text)?;
    first.write(0, &0x41_u8).map_err(text)?;
    in_another_process(|| write(&mut map(&buffer)?, PAGE, 0x42))?;
    let mine: u8 = first.read(0).map_err(text)?;
    let other: u8 = first.read(PAGE).map_err(text)?;
    ensure((mine, other) == (0x41, 0x42), || {
        format!("{mine:#x} and {other:#x}, expected 0x41 and 0x42")
    })?;
    first.finish().map_err(text)
}

/// By two mappings of one process.
fn nested_writes() -> Verdict {
    let (buffer, _importer) = mapped()?;
    let mut mapping = map(&buffer)?;
    let mut first = mapping.access(Access::Write).map_err(text)?;
    first.write(0, &0x41_u8).map_err(text)?;
    write(&mut map(&buffer)?, PAGE, 0x42)?;
    reads(&buffer, 0, 0x41, "the outer access's byte")?;
    reads(&buffer, PAGE, 0x42, "the inner access's byte")?;
    first.finish().map_err(text)
}

/// One access after the other, which is all that most programs do.
fn outlives_begin() -> Verdict {
    let (buffer, _importer) = mapped()?;
    write(&mut map(&buffer)?, 0, 0x41)?;
    reads(&buffer, 0, 0x41, "the byte of an access that ended")?;
    write(&mut map(&buffer)?, PAGE, 0x42)?;
    reads(&buffer, 0, 0x41, "the byte of the first access")
}

fn outlives_unmapping() -> Verdict {
    let (buffer, importer) = mapped()?;
    write(&mut map(&buffer)?, 0, 0x41)?;
    drop(importer);
    is_mapped(&buffer, false)?;
    reads(&buffer, 0, 0x41, "the byte of an access that ended")
}

fn reads_keep_writes() -> Verdict {
    let (buffer, _importer) = mapped()?;
    let mut mapping = map(&buffer)?;
    let mut first = mapping.access(Access::ReadWrite).map_err(text)?;
    first.write(0, &0x41_u8).map_err(text)?;
    in_another_process(|| reads(&buffer, 0, 0x41, "the writer's byte, to a reader"))?;
    let mine: u8 = first.read(0).map_err(text)?;
    ensure(mine == 0x41, || format!("{mine:#x} after a reader"))?;
    first.finish().map_err(text)
}

/// To unmap a bounced mapping copies the bounce buffer back.
fn unmapping_keeps() -> Verdict {
    let (buffer, importer) = mapped()?;
    let mut mapping = map(&buffer)?;
    let mut guard = mapping.access(Access::ReadWrite).map_err(text)?;
    guard.write(0, &0x41_u8).map_err(text)?;
    drop(importer);
    is_mapped(&buffer, false)?;
    let mine: u8 = guard.read(0).map_err(text)?;
    ensure(mine == 0x41, || format!("{mine:#x} after it was unmapped"))?;
    guard.finish().map_err(text)
}

/// What is written after a device has mapped the buffer reaches it at the end.
fn importing_keeps() -> Verdict {
    let buffer = buffer()?;
    let mut mapping = map(&buffer)?;
    let mut guard = mapping.access(Access::ReadWrite).map_err(text)?;
    guard.write(0, &0x41_u8).map_err(text)?;
    let importer = import(&buffer)?;
    is_mapped(&buffer, true)?;
    guard.write(1, &0x42_u8).map_err(text)?;
    let mine: [u8; 2] = guard.read(0).map_err(text)?;
    ensure(mine == [0x41, 0x42], || {
        format!("{mine:#x?} while it is mapped")
    })?;
    guard.finish().map_err(text)?;
    drop(importer);
    is_mapped(&buffer, false)?;
    reads(&buffer, 0, 0x41, "the byte written before the import")?;
    reads(&buffer, 1, 0x42, "the byte written after the import")
}

/// A process that began to write and was killed: the next access is a turn again,
/// and sees what the device has.
fn killed_writer() -> Verdict {
    let (buffer, _importer) = mapped()?;
    let (says, say) = pipe_with(PipeFlags::CLOEXEC).map_err(text)?;
    let writer = Forked::start(|| {
        let mut mapping = map(&buffer)?;
        let mut guard = mapping.access(Access::Write).map_err(text)?;
        guard.write(0, &0x41_u8).map_err(text)?;
        File::from(say.try_clone().map_err(text)?)
            .write_all(b"!")
            .map_err(text)?;
        loop {
            std::thread::park();
        }
    })?;
    drop(say);
    File::from(says).read_exact(&mut [0]).map_err(text)?;
    // As long as it lives its write is not undone.
    reads(&buffer, 0, 0x41, "the living writer's byte")?;
    writer.kill()?;
    writer.wait()?;
    reads(&buffer, 0, OLD, "the killed writer's byte")
}

/// linux/dma-buf.h
const DMA_BUF_IOCTL_SYNC: libc::Ioctl = 0x4008_6200;
const SYNC_WRITE: u64 = 2;
const SYNC_END: u64 = 4;

/// The end of an access that was not begun hands nothing to the device: it would
/// undo what that wrote.
fn stray_end() -> Verdict {
    let (buffer, _importer) = mapped()?;
    let fd = buffer.fd().map_err(text)?.as_raw_fd();
    // SAFETY: a new mapping of a page, where nothing is; the byte is written, once, by
    // us alone, outside of any access, as no program may; and eight bytes are read.
    let ended = unsafe {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let page = libc::mmap(null_mut(), 4096, both, libc::MAP_SHARED, fd, 0);
        ensure(page != libc::MAP_FAILED, || "mmap failed".to_owned())?;
        page.cast::<u8>().write_volatile(0x77);
        libc::munmap(page, 4096);
        let end: u64 = SYNC_WRITE | SYNC_END;
        libc::ioctl(fd, DMA_BUF_IOCTL_SYNC, &end)
    };
    ensure(ended == 0, || "DMA_BUF_SYNC_END failed".to_owned())?;
    reads(&buffer, 0, OLD, "the device's byte after a stray end")
}

/// The end of one write access is seen by the device, though another is open: that
/// one is killed, and what the device has comes back.
fn each_end_hands_over() -> Verdict {
    let (buffer, _importer) = mapped()?;
    let (says, say) = pipe_with(PipeFlags::CLOEXEC).map_err(text)?;
    let writer = Forked::start(|| {
        let mut mapping = map(&buffer)?;
        let _guard = mapping.access(Access::Write).map_err(text)?;
        File::from(say.try_clone().map_err(text)?)
            .write_all(b"!")
            .map_err(text)?;
        loop {
            std::thread::park();
        }
    })?;
    drop(say);
    File::from(says).read_exact(&mut [0]).map_err(text)?;
    write(&mut map(&buffer)?, 0, 0x42)?;
    writer.kill()?;
    writer.wait()?;
    reads(&buffer, 0, 0x42, "the byte of the access that ended")
}
