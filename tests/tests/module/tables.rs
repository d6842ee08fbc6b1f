//! Scatter lists for importers: charged to the process that imports, and freed when
//! the importer unmaps.
//!
//! One entry for each page of a buffer takes 32 bytes, and an importer can map a
//! buffer any number of times.

use std::fs::{File, OpenOptions, read_to_string};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use dmashare::frame::Fourcc;
use dmashare::import::drm::Card;
use dmashare::import::v4l2;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::guest::kernel_version;
use dmashare_tests::held;
use drm::control::Device as _;
use libtest_mimic::{Completion, Trial};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::cgroup::{Group, with_group};
use crate::device::{
    Alloc, BELOW_4G, CONTIGUOUS, Device, MIB, Made, PAGE, Range, WRITE_COMBINED, ioctl,
};
use crate::forked::in_another_process;
use crate::gem::Vgem;
use crate::{ensure, memfd, test_or_skip, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test_or_skip("tables::vgem_imports_are_charged", vgem_charged),
        test_or_skip("tables::vgem_imports_hit_limit", vgem_limit),
        test_or_skip("tables::camera_imports_are_charged", camera_charged),
        test_or_skip("tables::camera_imports_hit_limit", camera_limit),
        test_or_skip("tables::contiguous_buffer_is_one_entry", one_entry),
        test_or_skip("tables::buffers_hit_limit_anywhere", anywhere),
    ]
}

/// Times that a buffer is imported; as many buffers as a queue of V4L2 has.
const IMPORTS: u32 = 32;
const SIZE: u64 = 16 * MIB;
/// Least bytes of an entry: `struct scatterlist` without CONFIG_NEED_SG_DMA_LENGTH.
const ENTRY: u64 = 24;
/// Least bytes of the tables of all imports of a buffer of single pages.
const TABLES: u64 = IMPORTS as u64 * SIZE / PAGE * ENTRY;
/// What a processor may have charged in advance: 64 pages, and what the importers
/// themselves take.
const SLACK: u64 = 512 << 10;

/// Single pages as entries, of memory that a device without an IOMMU takes: blocks of
/// 2 MiB lie behind the entries of write-combined memory.
fn single_pages() -> Alloc {
    let flags = WRITE_COMBINED | BELOW_4G;
    Alloc::new(SIZE).max_chunk(PAGE).flags(flags)
}

/// Imports, until this is dropped.
trait Importer {
    /// Imports it once more.
    fn import(&mut self, made: &Made) -> Result<(), Errno>;
}

/// vgem, opened for each import: an open file imports a buffer once.
struct Files {
    card: Card,
    open: Vec<Vgem>,
}

impl Files {
    fn new() -> Result<Files, String> {
        let card = Card::find("vgem").map_err(text)?;
        Ok(Files {
            card,
            open: Vec::new(),
        })
    }
}

impl Importer for Files {
    fn import(&mut self, made: &Made) -> Result<(), Errno> {
        let vgem = Vgem::at(self.card.path()).map_err(|_| Errno::NODEV)?;
        let imported = vgem.prime_fd_to_buffer(made.fd.as_fd());
        self.open.push(vgem);
        match imported {
            Ok(_) => Ok(()),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
}

/// `struct v4l2_requestbuffers`
#[repr(C)]
struct RequestBuffers {
    count: u32,
    kind: u32,
    memory: u32,
    capabilities: u32,
    flags: u32,
}

/// `struct v4l2_buffer`
#[repr(C)]
#[derive(Default)]
struct QueueBuffer {
    index: u32,
    kind: u32,
    bytesused: u32,
    flags: u32,
    field: u32,
    timestamp: [i64; 2],
    timecode: [u32; 4],
    sequence: u32,
    memory: u32,
    /// A union, of which the fd is as long as an `int`.
    fd: i32,
    fd_padding: u32,
    length: u32,
    reserved: [u32; 2],
}

const REQBUFS: libc::Ioctl = 0xc014_5608;
const QBUF: libc::Ioctl = 0xc058_560f;
const CAPTURE: u32 = 1;
const DMABUF: u32 = 4;

/// The camera of vivid that maps what it imports, as hardware without an IOMMU does.
/// It looks at the first 2 MiB only, for which one frame is enough.
struct Camera {
    node: File,
    queued: u32,
}

impl Camera {
    fn new() -> Result<Camera, String> {
        let device = v4l2::Device::find("vivid", "platform:vivid-001").map_err(text)?;
        let wanted = v4l2::Wanted::new(640, 360, Fourcc::XRGB8888);
        let queue = device.capture().map_err(text)?;
        queue.set_format(&wanted).map_err(text)?;
        let node = OpenOptions::new()
            .read(true)
            .write(true)
            .open(device.path());
        let camera = Camera {
            node: node.map_err(text)?,
            queued: 0,
        };
        let given = camera.request(IMPORTS)?;
        ensure(given == IMPORTS, || format!("REQBUFS: {given} buffers"))?;
        Ok(camera)
    }

    fn request(&self, count: u32) -> Result<u32, String> {
        let mut argument = RequestBuffers {
            count,
            kind: CAPTURE,
            memory: DMABUF,
            capabilities: 0,
            flags: 0,
        };
        // SAFETY: the request reads and writes one `struct v4l2_requestbuffers`.
        let answer = unsafe { ioctl(&self.node, REQBUFS, (&raw mut argument).cast()) };
        answer.map_err(|errno| format!("REQBUFS: {errno}"))?;
        Ok(argument.count)
    }
}

impl Importer for Camera {
    fn import(&mut self, made: &Made) -> Result<(), Errno> {
        let mut argument = QueueBuffer {
            index: self.queued,
            kind: CAPTURE,
            memory: DMABUF,
            fd: made.fd.as_raw_fd(),
            length: 2 << 20,
            ..QueueBuffer::default()
        };
        // SAFETY: the request reads and writes one `struct v4l2_buffer`.
        unsafe { ioctl(&self.node, QBUF, (&raw mut argument).cast()) }?;
        self.queued += 1;
        Ok(())
    }
}

/// Shows that the tables are charged to the importer, and kept no longer than its
/// mappings: the buffer outlives them.
fn charged<I: Importer>(group: &Group, importer: fn() -> Result<I, String>) -> Verdict {
    in_another_process(|| {
        let made = Device::open()?.alloc(single_pages()).map_err(text)?;
        ensure(u64::from(made.chunks) == SIZE / PAGE, || {
            format!("{} entries", made.chunks)
        })?;
        // The buffer itself is not the group's.
        group.enter()?;
        let mut importer = importer()?;
        let before = group.used()?;
        for time in 0..IMPORTS {
            let imported = importer.import(&made);
            imported.map_err(|errno| format!("import {time}: {errno}"))?;
        }
        let charged = group.used()?.saturating_sub(before);
        ensure(charged + SLACK >= TABLES, || {
            format!("{charged} bytes charged for {IMPORTS} imports, expected {TABLES} at least")
        })?;
        drop(importer);
        held::comes_back_to(true, || Ok(group.used()? <= before + SLACK)).map_err(|_| {
            format!(
                "{:?} bytes charged after the imports, {before} before",
                group.used()
            )
        })
    })
}

/// Shows that the importer's limit ends the imports, by an error and no kill.
fn limited<I: Importer>(
    group: &Group,
    importer: fn() -> Result<I, String>,
    expected: Errno,
) -> Verdict {
    in_another_process(|| {
        let made = Device::open()?.alloc(single_pages()).map_err(text)?;
        group.enter()?;
        let mut importer = importer()?;
        group.set("memory.max", group.used()? + TABLES / 2)?;
        let answer = (0..IMPORTS).try_for_each(|_| importer.import(&made));
        ensure(answer == Err(expected), || {
            format!("{IMPORTS} imports over the limit: {answer:?}, expected {expected}")
        })
    })?;
    group.has_killed_nothing()
}

/// Runs a test that imports a buffer many times.
fn with_imports(body: impl FnOnce(&Group) -> Verdict) -> Result<Completion, String> {
    if Path::new("/sys/kernel/debug/dma-api").exists() {
        let reason = "checks of DMA report one memory mapped more than 7 times, and segments \
                      over 64 KiB for a driver that never set a limit";
        return Ok(Completion::ignored_with(reason));
    }
    let words = read_to_string("/proc/cmdline").map_err(text)?;
    let bounced = |word: &str| word.starts_with("swiotlb=") && word.contains("force");
    if words.split_whitespace().any(bounced) {
        let reason = "swiotlb=force: each import takes bounce buffers, too few for these";
        return Ok(Completion::ignored_with(reason));
    }
    with_group("memory", body)
}

/// Since 7.0, vgem attaches to what it imports, and maps nothing.
fn with_vgem(body: impl FnOnce(&Group) -> Verdict) -> Result<Completion, String> {
    if kernel_version() >= (7, 0) {
        let reason = "vgem maps nothing since Linux 7.0; the camera shows the same";
        return Ok(Completion::ignored_with(reason));
    }
    with_imports(body)
}

fn vgem_charged() -> Result<Completion, String> {
    with_vgem(|group| charged(group, Files::new))
}

fn vgem_limit() -> Result<Completion, String> {
    with_vgem(|group| limited(group, Files::new, Errno::NOMEM))
}

fn camera_charged() -> Result<Completion, String> {
    with_imports(|group| charged(group, Camera::new))
}

/// vb2 makes EINVAL of every error of an exporter.
fn camera_limit() -> Result<Completion, String> {
    with_imports(|group| limited(group, Camera::new, Errno::INVAL))
}

/// Shows by the size of the tables that a contiguous buffer is one entry, also for a
/// driver that set no maximum segment size, as vivid: at 64 KiB each, which is assumed
/// then, these would take a MiB.
fn one_entry() -> Result<Completion, String> {
    with_imports(|group| {
        in_another_process(|| {
            let alloc = Alloc::new(64 * MIB).flags(CONTIGUOUS | BELOW_4G);
            let made = Device::open()?.alloc(alloc).map_err(text)?;
            group.enter()?;
            let mut camera = Camera::new()?;
            let before = group.used()?;
            for time in 0..IMPORTS {
                let imported = camera.import(&made);
                imported.map_err(|errno| format!("import {time}: {errno}"))?;
            }
            let charged = group.used()?.saturating_sub(before);
            ensure(charged <= SLACK, || {
                format!("{charged} bytes charged for {IMPORTS} imports of a contiguous buffer")
            })
        })
    })
}

/// Shows that a cgroup's limit ends a request by ENOMEM and no kill wherever it is hit,
/// also where the pages still fit, but not their tables.
fn anywhere() -> Result<Completion, String> {
    const SIZE: u64 = 2 * MIB;
    let kinds = [
        ("blocks", Alloc::new(SIZE)),
        ("single pages", Alloc::new(SIZE).max_chunk(PAGE)),
        ("contiguous", Alloc::new(SIZE).flags(CONTIGUOUS)),
    ];
    with_group("memory", |group| {
        let device = Device::open()?;
        for (kind, alloc) in kinds {
            // The limit is raised in small steps from nothing to enough.
            let from_nothing_to_enough = || {
                group.enter()?;
                let start = group.used()?;
                for more in (0..SIZE + SLACK).step_by(16 << 10) {
                    group.set("memory.max", start + more)?;
                    match device.alloc(alloc) {
                        Err(Errno::NOMEM) => {}
                        Ok(_) if more > 0 => return Ok(()),
                        answer => return Err(format!("{more} bytes more allowed: {answer:?}")),
                    }
                }
                Err(format!("ENOMEM with {} bytes more allowed", SIZE + SLACK))
            };
            group.set("memory.max", "max")?;
            let ended = in_another_process(from_nothing_to_enough);
            ended
                .and_then(|()| group.has_killed_nothing())
                .map_err(|error| format!("{kind}: {error}"))?;
        }
        // The pages of a memfd are charged to whom they were before: all that is left are
        // tables, of which many are needed.
        let memfd = memfd(SIZE)?;
        fallocate(&memfd, FallocateFlags::empty(), 0, SIZE).map_err(text)?;
        let ranges = (0..SIZE / PAGE).map(|page| Range::new(&memfd, page * PAGE, PAGE));
        let ranges: Vec<Range> = ranges.collect();
        group.set("memory.max", "max")?;
        in_another_process(|| {
            group.enter()?;
            group.set("memory.max", group.used()? + SLACK)?;
            let wraps: Result<Vec<Made>, Errno> = (0..128).map(|_| device.wrap(&ranges)).collect();
            let answer = wraps.map(drop);
            ensure(answer == Err(Errno::NOMEM), || {
                format!("128 times a memfd: {answer:?}, expected ENOMEM")
            })
        })?;
        let killed = group.has_killed_nothing();
        killed.map_err(|error| format!("a memfd: {error}"))
    })
}
