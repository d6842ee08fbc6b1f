//! The GPU reads and draws in the dma-bufs of every way, in place.

mod bounds;
mod device;
mod export;
mod fence;
mod refusals;
mod taker;
mod yuv;

use std::sync::Arc;

use dmashare::alloc::{Allocate, Memfd, Request, Way};
use dmashare::buffer::{Access, Buffer};
use dmashare::import::HandleError;
use dmashare::import::egl::{Device, EglError, Gpu};
use dmashare::share::{Fourcc, Frame};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;

use crate::{ensure, test, text};

pub(crate) use device::child;

/// Names a node whose GPU is to be tested in place of the software device.
const DEVICE: &str = "DMASHARE_EGL_DEVICE";

/// Whether a device was chosen to be tested.
pub(crate) fn is_chosen() -> bool {
    std::env::var_os(DEVICE).is_some()
}

fn gpu() -> Result<Gpu, String> {
    let device = match std::env::var_os(DEVICE) {
        Some(node) => Device::Node(node.into()),
        None => Device::Software,
    };
    Gpu::open(&device).map_err(text)
}

/// Some of this is told of llvmpipe alone.
fn is_llvmpipe() -> bool {
    !is_chosen()
}

/// Gives every texel another colour, exactly: red and blue swapped, green
/// inverted, mirrored left to right.
const SHADER: &str = "#version 300 es
precision highp float;
precision highp int;
uniform sampler2D frame;
out vec4 color;
void main() {
    ivec2 at = ivec2(gl_FragCoord.xy);
    at.x = textureSize(frame, 0).x - 1 - at.x;
    ivec3 rgb = ivec3(texelFetch(frame, at, 0).rgb * 255.0 + 0.5);
    color = vec4(vec3(rgb.b, 255 - rgb.g, rgb.r) / 255.0, 1.0);
}";

pub(crate) fn trials_of(way: &Arc<dyn Allocate>) -> Vec<Trial> {
    let name = way.way();
    let trial = |check: &str, run: fn(&dyn Allocate) -> Verdict| {
        let way = Arc::clone(way);
        test(&format!("{name}::{check}"), move || run(&*way))
    };
    let mut trials = vec![
        trial("egl_reads_and_draws_in_place", reads_and_draws_in_place),
        trial("egl_keeps_to_offset_and_stride", keeps_to_offset_and_stride),
        trial("egl_draws_no_further_than_memory", draws_no_further),
        trial(
            "egl_refuses_a_frame_beyond_its_buffer",
            refuses_a_frame_beyond_its_buffer,
        ),
        trial("egl_sees_later_writes", sees_later_writes),
        trial("egl_imports_leak_nothing", imports_leak_nothing),
    ];
    trials.extend(yuv::trials_of(way));
    trials
}

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("egl::lists_what_it_imports", lists_what_it_imports),
        test("egl::refuses_a_memfd", refuses_a_memfd),
        test("egl::tells_what_a_shader_lacks", tells_what_a_shader_lacks),
    ];
    trials.extend(bounds::trials());
    trials.extend(device::trials());
    trials.extend(export::trials());
    trials.extend(fence::trials());
    trials.extend(refusals::trials());
    trials.extend(taker::trials());
    trials.extend(yuv::trials());
    trials
}

/// A way that makes dma-bufs, for what is not asked of each.
fn any_way() -> Result<Box<dyn Allocate>, String> {
    let ways = [Way::DmaHeap, Way::Udmabuf, Way::Module, Way::Dumb];
    let mut opened = ways.into_iter().filter_map(|way| way.open().ok());
    opened
        .next()
        .ok_or_else(|| "no way makes dma-bufs".to_owned())
}

/// A frame in a buffer, and the pixels as they lie in memory.
pub(crate) struct Shared {
    pub(crate) frame: Frame,
    pub(crate) buffer: Buffer,
}

impl Shared {
    pub(crate) fn new(way: &dyn Allocate, frame: Frame) -> Result<Shared, String> {
        let size = frame.size_of_buffer(0).map_err(text)?;
        let request = Request::new(size).named("egl test").for_device();
        Ok(Shared {
            buffer: way.allocate(&request).map_err(text)?,
            frame,
        })
    }

    pub(crate) fn write(&self, pixels: &[u8]) -> Verdict {
        self.write_plane(0, pixels)
    }

    fn write_plane(&self, plane: usize, pixels: &[u8]) -> Verdict {
        let mut mapping = self.buffer.map(Access::Write).map_err(text)?;
        let mut guard = mapping.access(Access::Write).map_err(text)?;
        let rows = self.frame.rows(plane).map_err(text)?;
        guard.write_rows(rows, pixels).map_err(text)?;
        guard.finish().map_err(text)
    }

    pub(crate) fn read(&self) -> Result<Vec<u8>, String> {
        let rows = self.frame.rows(0).map_err(text)?;
        let mut pixels = vec![0; usize::try_from(rows.bytes()).map_err(text)?];
        let mut mapping = self.buffer.map(Access::Read).map_err(text)?;
        let guard = mapping.access(Access::Read).map_err(text)?;
        guard.read_rows(rows, &mut pixels).map_err(text)?;
        guard.finish().map_err(text)?;
        Ok(pixels)
    }
}

/// A frame of 64 x 48 pixels, no two of which are the same.
pub(crate) fn frame() -> Result<Frame, String> {
    Frame::packed(64, 48, Fourcc::XRGB8888).map_err(text)
}

pub(crate) fn pixels(seed: u8) -> Vec<u8> {
    let pixel = |x: u8, y: u8| [x ^ seed, y, x.wrapping_mul(3) ^ y, 0xff];
    (0..48)
        .flat_map(|y| (0..64).flat_map(move |x| pixel(x, y)))
        .collect()
}

/// What [`SHADER`] makes of them.
pub(crate) fn drawn(pixels: &[u8]) -> Vec<u8> {
    let rows = pixels.chunks_exact(64 * 4);
    let mirrored = rows.flat_map(|row| row.chunks_exact(4).rev());
    mirrored
        .flat_map(|pixel| [pixel[2], 255 - pixel[1], pixel[0], 0xff])
        .collect()
}

/// Draws `from` into `to` once.
fn draw(gpu: &Gpu, from: &Shared, to: &Shared) -> Result<(), EglError> {
    let texture = gpu.import_texture(&from.frame, &[&from.buffer])?;
    let target = gpu.import_target(&to.frame, &[&to.buffer])?;
    let shader = gpu.shader(SHADER)?;
    gpu.draw(&texture, &target, &shader)?;
    gpu.finish()
}

pub(crate) fn compare(got: &[u8], expected: &[u8]) -> Verdict {
    let pairs = got.chunks_exact(4).zip(expected.chunks_exact(4));
    // The x of XRGB8888 is nobody's.
    let wrong = pairs
        .enumerate()
        .find(|(_, (got, expected))| got[..3] != expected[..3]);
    match wrong {
        None if got.len() == expected.len() => Ok(()),
        None => Err(format!("{} bytes, expected {}", got.len(), expected.len())),
        Some((at, (got, expected))) => {
            let (x, y) = (at % 64, at / 64);
            Err(format!(
                "pixel ({x}, {y}) is {got:?}, expected {expected:?}"
            ))
        }
    }
}

fn reads_and_draws_in_place(way: &dyn Allocate) -> Verdict {
    let gpu = gpu()?;
    let (from, to) = (Shared::new(way, frame()?)?, Shared::new(way, frame()?)?);
    from.write(&pixels(0))?;
    draw(&gpu, &from, &to).map_err(text)?;
    compare(&to.read()?, &drawn(&pixels(0)))?;
    // And it has not touched what it read.
    compare(&from.read()?, &pixels(0))
}

/// Two frames that begin within their buffers, and whose rows do not touch each
/// other, filled with a byte.
pub(crate) fn padded(way: &dyn Allocate) -> Result<(Shared, Shared), String> {
    let mut frame = frame()?;
    frame.planes[0].offset = 4096;
    frame.planes[0].stride = 64 * 4 + 256;
    let (from, to) = (Shared::new(way, frame.clone())?, Shared::new(way, frame)?);
    fill(&from.buffer, 0x5a)?;
    fill(&to.buffer, 0x5a)?;
    Ok((from, to))
}

pub(crate) fn fill(buffer: &Buffer, byte: u8) -> Verdict {
    let mut mapping = buffer.map(Access::Write).map_err(text)?;
    let mut guard = mapping.access(Access::Write).map_err(text)?;
    guard.fill(byte).map_err(text)?;
    guard.finish().map_err(text)
}

/// What lies before and between the rows of a [`padded`] frame is as it was.
pub(crate) fn keeps_its_padding(to: &Shared) -> Verdict {
    let mut mapping = to.buffer.map(Access::Read).map_err(text)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    let mut between = [0; 256];
    for row in 0..47_u64 {
        let end = 4096 + row * 512 + 256;
        guard.read_at(end, &mut between).map_err(text)?;
        ensure(between == [0x5a; 256], || {
            format!("it wrote behind the end of row {row}")
        })?;
    }
    let mut before = [0; 4096];
    guard.read_at(0, &mut before).map_err(text)?;
    ensure(before == [0x5a; 4096], || {
        "it wrote before the plane".to_owned()
    })
}

fn keeps_to_offset_and_stride(way: &dyn Allocate) -> Verdict {
    let gpu = gpu()?;
    let (from, to) = padded(way)?;
    from.write(&pixels(1))?;
    draw(&gpu, &from, &to).map_err(text)?;
    compare(&to.read()?, &drawn(&pixels(1)))?;
    keeps_its_padding(&to)
}

/// Frames of few rows, in buffers of just their size: the software device draws
/// four rows at a time, and is kept from those that are not there. Where they
/// are, they keep what is in them.
fn draws_no_further(way: &dyn Allocate) -> Verdict {
    let gpu = gpu()?;
    let shader = gpu.shader(SHADER).map_err(text)?;
    for height in [1, 2, 3, 4, 5] {
        // A row is a page, so no page is left over at the end of the buffer.
        let frame = Frame::packed(1024, height, Fourcc::XRGB8888).map_err(text)?;
        let exact = Shared::new(way, frame.clone())?;
        ensure(exact.buffer.size() == u64::from(height) * 4096, || {
            format!("{} bytes for {height} pages", exact.buffer.size())
        })?;
        let texture = gpu.import_texture(&frame, &[&exact.buffer]).map_err(text)?;
        match gpu.import_target(&frame, &[&exact.buffer]) {
            Err(EglError::Block { block: 4, .. }) if height != 4 => {}
            Ok(_) if height == 4 => {}
            other => return Err(format!("{height} rows: {other:?}")),
        }

        let mut room = frame.clone();
        room.height = height.next_multiple_of(4);
        let room = Shared::new(way, room)?;
        let rows = room.frame.rows(0).map_err(text)?;
        let all = usize::try_from(rows.bytes()).map_err(text)?;
        room.write(&vec![0x5a; all])?;
        exact.write(&vec![0x10; height as usize * 4096])?;
        let target = gpu.import_target(&frame, &[&room.buffer]).map_err(text)?;
        gpu.draw(&texture, &target, &shader).map_err(text)?;
        gpu.finish().map_err(text)?;
        let pixels = room.read()?;
        let (drawn, below) = pixels.split_at(height as usize * 4096);
        let is_drawn = |pixel: &[u8]| pixel[..3] == [0x10, 0xef, 0x10];
        ensure(drawn.chunks_exact(4).all(is_drawn), || {
            format!("{height} rows: not all of them are drawn")
        })?;
        ensure(below.iter().all(|byte| *byte == 0x5a), || {
            format!("{height} rows: those below have changed")
        })?;
    }
    Ok(())
}

fn sees_later_writes(way: &dyn Allocate) -> Verdict {
    let gpu = gpu()?;
    let (from, to) = (Shared::new(way, frame()?)?, Shared::new(way, frame()?)?);
    let texture = gpu
        .import_texture(&from.frame, &[&from.buffer])
        .map_err(text)?;
    let target = gpu.import_target(&to.frame, &[&to.buffer]).map_err(text)?;
    let shader = gpu.shader(SHADER).map_err(text)?;
    for seed in [3, 4, 5] {
        // Written after the import: a copy made then would be stale.
        from.write(&pixels(seed))?;
        gpu.draw(&texture, &target, &shader).map_err(text)?;
        gpu.finish().map_err(text)?;
        compare(&to.read()?, &drawn(&pixels(seed)))?;
    }
    Ok(())
}

fn imports_leak_nothing(way: &dyn Allocate) -> Verdict {
    let gpu = gpu()?;
    let (from, to) = (Shared::new(way, frame()?)?, Shared::new(way, frame()?)?);
    from.write(&pixels(0))?;
    // The first draw starts the driver's threads, with their handles.
    draw(&gpu, &from, &to).map_err(text)?;
    let held = || {
        let of_both = (
            held::of_dma_buf(&from.buffer)?,
            held::of_dma_buf(&to.buffer)?,
        );
        Ok((held::by_process()?, of_both))
    };
    let before = held()?;
    for _ in 0..20 {
        draw(&gpu, &from, &to).map_err(text)?;
    }
    held::comes_back_to(before, held)
}

fn lists_what_it_imports() -> Verdict {
    let gpu = gpu()?;
    let formats = gpu.formats().map_err(text)?;
    let has = |fourcc| formats.iter().any(|format| format.fourcc == fourcc);
    ensure(has(Fourcc::XRGB8888) && has(Fourcc::ARGB8888), || {
        format!("no XR24 or no AR24 among {formats:?}")
    })
}

fn refuses_a_memfd() -> Verdict {
    let gpu = gpu()?;
    let frame = frame()?;
    let size = frame.size_of_buffer(0).map_err(text)?;
    let memfd = Memfd::new().allocate(&Request::new(size)).map_err(text)?;
    match gpu.import_texture(&frame, &[&memfd]) {
        Err(EglError::Handle(HandleError::NotADmaBuf { index: 0, .. })) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn refuses_a_frame_beyond_its_buffer(way: &dyn Allocate) -> Verdict {
    let gpu = gpu()?;
    let mut shared = Shared::new(way, frame()?)?;
    shared.frame.height += 1;
    match gpu.import_target(&shared.frame, &[&shared.buffer]) {
        Err(EglError::Handle(HandleError::Frame(_))) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn tells_what_a_shader_lacks() -> Verdict {
    let gpu = gpu()?;
    match gpu.shader("#version 300 es\nvoid main() { no_such_name = 1.0; }") {
        Err(EglError::Shader { log, .. }) if log.contains("no_such_name") => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
