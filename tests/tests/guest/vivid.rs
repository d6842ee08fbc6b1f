//! A camera captures into the dma-bufs of every way: vivid, the kernel's virtual
//! one, driven by a C program that knows nothing of us.
//!
//! Its first, by `allocators=0,1`, writes by the CPU, through the exporter's
//! vmap, and takes any memory. The second attaches and maps as hardware without
//! an IOMMU does, and takes contiguous memory only.

use std::fs::{File, read_dir, read_to_string};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;

use dmashare::alloc::{Allocate, Memfd, Module, Piece, Request, Way, probe};
use dmashare::buffer::{Access, Buffer};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use dmashare_tests::peers::Peers;
use libtest_mimic::Trial;

use crate::{crtc, ensure, skipped, test, text};

/// The camera that writes by the CPU.
pub(crate) const BY_CPU: &str = "platform:vivid-000";
/// The camera that needs contiguous memory.
pub(crate) const CONTIGUOUS: &str = "platform:vivid-001";

/// XRGB8888; a size that vivid has on every kernel.
pub(crate) const WIDTH: usize = 640;
pub(crate) const HEIGHT: usize = 360;
const FRAME: usize = WIDTH * HEIGHT * 4;

const BUFFERS: usize = 3;
/// Each buffer gets its second.
const FRAMES: usize = 2 * BUFFERS;

const PAGE: u64 = 4096;

pub(crate) fn trials() -> Vec<Trial> {
    if let Err(reason) = &probe().row(Way::Module).verdict {
        return vec![skipped("vivid::shapes_of_the_module", reason)];
    }
    type Shape = fn(Module) -> Module;
    let shapes: [(&str, &str, Shape); 4] = [
        ("fills_single_pages", BY_CPU, |module| {
            module.max_chunk(PAGE)
        }),
        (
            "fills_write_combined_memory",
            BY_CPU,
            Module::write_combined,
        ),
        ("fills_contiguous_memory", CONTIGUOUS, for_contiguous),
        (
            "fills_contiguous_write_combined_memory",
            CONTIGUOUS,
            |module| for_contiguous(module).write_combined(),
        ),
    ];
    let mut trials: Vec<Trial> = shapes
        .into_iter()
        .map(|(name, place, shape)| {
            let check = move || {
                let module = shape(Module::open().map_err(text)?);
                captures(place, &buffers_of(&module)?)
            };
            test(&format!("vivid::{name}"), check)
        })
        .collect();
    let name = "vivid::refuses_scattered_pages";
    trials.push(match memory_beyond_32_bits() {
        Ok(false) => test(name, refuses_pages),
        Ok(true) => skipped(
            name,
            "with memory beyond 32 bits, bounce buffers may put pages in a row; take 2 GiB",
        ),
        Err(error) => test(name, || Err(error)),
    });
    trials.push(test("vivid::is_seen_attached", is_seen_attached));
    trials
}

/// What the second camera takes: it reaches 32 bits, and bounce buffers for what
/// lies above would scatter what is contiguous.
pub(crate) fn for_contiguous(module: Module) -> Module {
    module.contiguous().below_4g()
}

pub(crate) fn trials_of(way: &Arc<dyn Allocate>) -> Vec<Trial> {
    let name = format!("{}::vivid_captures", way.way());
    let way = Arc::clone(way);
    vec![test(&name, move || captures(BY_CPU, &buffers_of(&*way)?))]
}

fn buffers_of(way: &dyn Allocate) -> Result<Vec<Buffer>, String> {
    let request = Request::new(FRAME as u64).named("vivid test").for_device();
    (0..BUFFERS)
        .map(|_| way.allocate(&request).map_err(text))
        .collect()
}

/// `struct v4l2_capability`
#[repr(C)]
struct Capability {
    driver: [u8; 16],
    card: [u8; 32],
    bus_info: [u8; 32],
    numbers: [u32; 6],
}

const QUERYCAP: libc::Ioctl = 0x8068_5600;

/// The camera at this place, whatever its number is.
fn camera(place: &str) -> Result<PathBuf, String> {
    let mut found = Vec::new();
    for entry in read_dir("/dev").map_err(text)?.flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with("video") {
            continue;
        }
        let device = File::open(&path).map_err(text)?;
        let mut capability = Capability {
            driver: [0; 16],
            card: [0; 32],
            bus_info: [0; 32],
            numbers: [0; 6],
        };
        // SAFETY: the ioctl writes one `struct v4l2_capability`.
        let said = unsafe { libc::ioctl(device.as_raw_fd(), QUERYCAP, &raw mut capability) };
        let word = |bytes: &[u8]| {
            let word = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(word).into_owned()
        };
        let (driver, bus) = (word(&capability.driver), word(&capability.bus_info));
        if said == 0 && driver == "vivid" && bus == place {
            return Ok(path);
        }
        found.push(format!("{} ({driver}, {bus})", path.display()));
    }
    Err(format!("no camera {place}, only {found:?}"))
}

/// The C program at work on a camera.
struct Capture {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// Its file.
    _peers: Peers,
}

/// A frame that came, as it says.
#[derive(Debug, PartialEq)]
struct Captured {
    buffer: usize,
    checksum: u64,
}

impl Capture {
    /// Into these buffers, or without any into the driver's own.
    fn start(place: &str, buffers: &[Buffer]) -> Result<Capture, String> {
        let peers = Peers::unpack().map_err(text)?;
        // Unlike ours, these stay open on exec; tests run one at a time.
        let inherited = buffers
            .iter()
            .map(|buffer| rustix::io::dup(buffer.fd().map_err(text)?).map_err(text))
            .collect::<Result<Vec<OwnedFd>, String>>()?;
        let mut child = peers
            .command("vivid_capture")
            .arg(camera(place)?)
            .args([WIDTH, HEIGHT, FRAMES].map(|number| number.to_string()))
            .args(inherited.iter().map(|fd| fd.as_raw_fd().to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(text)?;
        let lines = child.stdout.take().ok_or("no output")?;
        Ok(Capture {
            child,
            lines: BufReader::new(lines),
            _peers: peers,
        })
    }

    /// All frames; it holds its buffers still.
    fn frames(&mut self) -> Result<Vec<Captured>, String> {
        (0..FRAMES).map(|_| self.frame()).collect()
    }

    fn frame(&mut self) -> Result<Captured, String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).map_err(text)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["buffer", buffer, "bytes", bytes, "checksum", checksum] = words[..] else {
            return Err(self.complaint(&line));
        };
        ensure(bytes.parse() == Ok(FRAME), || {
            format!("a frame of {bytes} bytes")
        })?;
        Ok(Captured {
            buffer: buffer.parse().map_err(text)?,
            checksum: u64::from_str_radix(checksum, 16).map_err(text)?,
        })
    }

    /// Why it ended.
    fn complaint(&mut self, line: &str) -> String {
        drop(self.child.stdin.take());
        let mut said = line.to_owned();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        said.trim_end().to_owned()
    }

    /// Lets it go, and waits for it.
    fn end(mut self) -> Verdict {
        let said = self.complaint("");
        let status = self.child.wait().map_err(text)?;
        ensure(status.success(), || format!("{status}: {said}"))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What this camera's picture is in its own memory.
pub(crate) fn own_picture(place: &str) -> Result<u64, String> {
    let mut capture = Capture::start(place, &[])?;
    let frames = capture.frames()?;
    capture.end()?;
    let checksum = frames[0].checksum;
    ensure(
        frames.iter().all(|frame| frame.checksum == checksum),
        || format!("the picture changes: {frames:?}"),
    )?;
    Ok(checksum)
}

/// The camera's frames are in these buffers, for whom they were given to and for
/// us, and the same as in the camera's own memory; and it lets the buffers go.
fn captures(place: &str, buffers: &[Buffer]) -> Verdict {
    let expected = own_picture(place)?;
    let held = || buffers.iter().map(held::of_dma_buf).collect();
    let before: Vec<u64> = held()?;
    let mut capture = Capture::start(place, buffers)?;
    let frames = capture.frames()?;
    capture.end()?;
    for frame in &frames {
        ensure(frame.checksum == expected, || {
            format!("{frame:x?}, but {expected:x} in the camera's own memory")
        })?;
    }
    for (at, buffer) in buffers.iter().enumerate() {
        ensure(frames.iter().any(|frame| frame.buffer == at), || {
            format!("nothing came into buffer {at}: {frames:?}")
        })?;
        let pixels = read(buffer)?;
        ensure(checksum(&pixels) == expected, || {
            format!("buffer {at} looks another way from here")
        })?;
        shows_colour_bars(&pixels)?;
    }
    held::comes_back_to(before, held)
}

fn read(buffer: &Buffer) -> Result<Vec<u8>, String> {
    let mut pixels = vec![0; FRAME];
    let mut mapping = buffer.map(Access::Read).map_err(text)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    guard.read_at(0, &mut pixels).map_err(text)?;
    guard.finish().map_err(text)?;
    Ok(pixels)
}

/// FNV-1a, as the C program has it.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Eight bars from top to bottom, from light to dark.
pub(crate) fn shows_colour_bars(pixels: &[u8]) -> Verdict {
    let (first, others) = pixels.split_at(WIDTH * 4);
    ensure(
        others.chunks_exact(WIDTH * 4).all(|row| row == first),
        || "the rows differ".to_owned(),
    )?;
    let luma = |bar: usize| {
        let at = (2 * bar + 1) * WIDTH / 16 * 4;
        let [b, g, r] = [0, 1, 2].map(|part| u32::from(first[at + part]));
        2 * r + 5 * g + b
    };
    let bars: Vec<u32> = (0..8).map(luma).collect();
    ensure(bars.is_sorted_by(|a, b| a > b), || {
        format!("no colour bars: {bars:?}")
    })
}

/// Whether there are pages that the second camera cannot reach.
pub(crate) fn memory_beyond_32_bits() -> Result<bool, String> {
    let zones = read_to_string("/proc/zoneinfo").map_err(text)?;
    let normal = zones
        .split("\nNode ")
        .find(|zone| zone.contains("zone   Normal"));
    let present = |zone: &str| {
        let mut lines = zone.lines().map(str::trim);
        lines.find_map(|line| line.strip_prefix("present ")?.trim().parse::<u64>().ok())
    };
    Ok(normal
        .and_then(present)
        .ok_or("no zone Normal in /proc/zoneinfo")?
        > 0)
}

/// A page of each half by turns, and none twice: no run, unless the kernel handed
/// them out in just this order.
fn refuses_pages() -> Verdict {
    let request = Request::new(FRAME as u64).named("vivid test");
    let memfd = Memfd::new().allocate(&request).map_err(text)?;
    let pages = FRAME as u64 / PAGE;
    let pieces: Vec<Piece> = (0..pages)
        .map(|at| at / 2 + at % 2 * pages.div_ceil(2))
        .map(|page| Piece {
            memfd: &memfd,
            range: page * PAGE..(page + 1) * PAGE,
        })
        .collect();
    let module = Module::open().map_err(text)?;
    let buffer = module.wrap(&pieces, "vivid test").map_err(text)?;
    // vivid wants more than one; the first is refused.
    let again = || buffer.try_clone().map_err(text);
    let buffers = [again()?, again()?, again()?];
    let mut capture = Capture::start(CONTIGUOUS, &buffers)?;
    match capture.frame() {
        Err(said) if said == "VIDIOC_QBUF: Bad address" => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// While a camera has them, the module tells so.
fn is_seen_attached() -> Verdict {
    let buffers = buffers_of(&for_contiguous(Module::open().map_err(text)?))?;
    let attached = || -> Result<usize, String> {
        let mut attached = 0;
        for buffer in &buffers {
            attached += vivid_of(crtc::inode(buffer.fd().map_err(text)?)?)?;
        }
        Ok(attached)
    };
    ensure(attached()? == 0, || "attached before".to_owned())?;
    let mut capture = Capture::start(CONTIGUOUS, &buffers)?;
    capture.frames()?;
    let during = attached()?;
    capture.end()?;
    ensure(during == BUFFERS, || {
        format!("{during} of {BUFFERS} buffers attached")
    })?;
    held::comes_back_to(0, attached)
}

/// How often vivid has this buffer attached and mapped, by the module's list.
fn vivid_of(inode: u64) -> Result<usize, String> {
    let list = read_to_string("/sys/kernel/debug/dmashare/buffers").map_err(text)?;
    let inode = format!("{inode}\t");
    let mut lines = list.lines().skip_while(|line| !line.starts_with(&inode));
    lines.next().ok_or("the buffer is not listed")?;
    let devices = lines.take_while(|line| line.starts_with('\t'));
    Ok(devices
        .filter(|line| line.ends_with("driver vivid mappings 1"))
        .count())
}
