//! No driver leaves the memory of a frame: one in a buffer of exactly its size,
//! with a page behind that cannot be touched. Who does is killed by SIGSEGV, and
//! with it this test.

use std::ffi::c_void;
use std::fs::read_to_string;
use std::ptr;

use dmashare::alloc::Allocate;
use dmashare::buffer::Buffer;
use dmashare::import::egl::{EglError, Hints, Texture};
use dmashare::negotiate::Layout;
use dmashare::share::{Fourcc, Frame, LINEAR};
use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::{Shared, any_way, gpu, is_llvmpipe};
use crate::{ensure, skipped, test, text};

/// Rows that fill pages, of every format: of one byte a sample, with a quarter
/// of the samples in the last plane.
const WIDTH: u32 = 8192;
const HEIGHT: u32 = 4;

/// Reads every texel, as it is and between two.
const READ: &str = "out vec4 color;
void main() {
    ivec2 at = ivec2(gl_FragCoord.xy);
    color = texel(at) * 0.5 + texel(min(at + 1, ivec2(frame_size) - 1)) * 0.5;
}";

const DRAW: &str = "#version 300 es
precision highp float;
out vec4 color;
void main() { color = vec4(1.0); }";

pub(super) fn trials() -> Vec<Trial> {
    let names = ["egl::reads_within_memory", "egl::draws_within_memory"];
    let runs: [fn(&dyn Allocate) -> Verdict; 2] = [reads_within, draws_within];
    let trials = names
        .into_iter()
        .zip(runs)
        .map(|(name, run)| match is_llvmpipe() {
            true => test(name, move || run(&*any_way()?)),
            false => skipped(name, "only the software device maps into this process"),
        });
    trials.collect()
}

fn linear(layouts: Option<impl IntoIterator<Item = Layout>>) -> Vec<Fourcc> {
    let layouts = layouts.into_iter().flatten();
    let linear = layouts.filter(|layout| layout.modifier == LINEAR);
    linear.map(|layout| layout.fourcc).collect()
}

/// A frame that ends with its buffer.
fn exact(way: &dyn Allocate, fourcc: Fourcc) -> Result<Shared, String> {
    let frame = Frame::packed(WIDTH, HEIGHT, fourcc).map_err(text)?;
    let size = frame.size_of_buffer(0).map_err(text)?;
    let shared = Shared::new(way, frame)?;
    ensure(shared.buffer.size() == size, || {
        format!("{fourcc}: {size} bytes became {}", shared.buffer.size())
    })?;
    Ok(shared)
}

fn reads_within(way: &dyn Allocate) -> Verdict {
    let gpu = gpu()?;
    let to = Frame::packed(WIDTH, HEIGHT, Fourcc::XRGB8888).map_err(text)?;
    let to = Shared::new(way, to)?;
    let target = gpu.import_target(&to.frame, &[&to.buffer]).map_err(text)?;
    for fourcc in linear(gpu.texture_taker().map_err(text)?.layouts) {
        let what = |error: String| format!("{fourcc}: {error}");
        let from = exact(way, fourcc).map_err(what)?;
        let read = |texture: &Texture| {
            let shader = gpu.shader(&(texture.prelude() + READ))?;
            gpu.draw(texture, &target, &shader)?;
            gpu.finish()
        };
        let hints = Hints::default();
        let (frame, buffers) = (&from.frame, [&from.buffer]);
        let planes = || gpu.import_planes(frame, &buffers, &hints);
        let whole = || {
            let plain = gpu.import_texture(frame, &buffers);
            plain.or_else(|_| gpu.import_yuv(frame, &buffers, &hints))
        };
        if planes().is_ok() {
            let (planes, _trap) = trapped(&from.buffer, planes).map_err(what)?;
            read(&planes).map_err(text).map_err(what)?;
        }
        let (whole, _trap) = trapped(&from.buffer, whole).map_err(what)?;
        read(&whole).map_err(text).map_err(what)?;
    }
    Ok(())
}

fn draws_within(way: &dyn Allocate) -> Verdict {
    let gpu = gpu()?;
    let from = exact(way, Fourcc::XRGB8888)?;
    let texture = gpu.import_texture(&from.frame, &[&from.buffer]);
    let texture = texture.map_err(text)?;
    let shader = gpu.shader(DRAW).map_err(text)?;
    for fourcc in linear(gpu.target_taker().map_err(text)?.layouts) {
        let what = |error: String| format!("{fourcc}: {error}");
        let to = exact(way, fourcc).map_err(what)?;
        let import = || gpu.import_target(&to.frame, &[&to.buffer]);
        let (target, _trap) = trapped(&to.buffer, import).map_err(what)?;
        let draw = || {
            gpu.draw(&texture, &target, &shader)?;
            gpu.finish()
        };
        draw().map_err(text).map_err(what)?;
        // White, in the first pixel and in the last.
        let drawn = to.read()?;
        let pixel = fourcc.bytes_per_pixel().unwrap_or(1) as usize;
        let (first, last) = (&drawn[..pixel], &drawn[drawn.len() - pixel..]);
        ensure(first == last && first.iter().any(|byte| *byte != 0), || {
            what(format!("{first:?} and {last:?}"))
        })?;
    }
    Ok(())
}

/// What was imported, with a page behind each mapping of the buffer: tried a few
/// times, since the driver and its threads map other things, too.
fn trapped<T>(
    buffer: &Buffer,
    import: impl Fn() -> Result<T, EglError>,
) -> Result<(T, Trap), String> {
    let mut problem = String::new();
    for _ in 0..5 {
        let trap = Trap::new(buffer)?;
        let imported = import().map_err(text)?;
        match trap.has_caught(buffer) {
            Ok(()) => return Ok((imported, trap)),
            Err(missed) => problem = missed,
        }
    }
    Err(problem)
}

/// Memory that nobody may touch, with holes in it of just a buffer's size: what
/// is mapped next lies in one of them, with such a page behind.
struct Trap(Vec<(*mut c_void, usize)>);

impl Trap {
    const HOLES: usize = 8;

    fn new(buffer: &Buffer) -> Result<Trap, String> {
        let size = usize::try_from(buffer.size()).map_err(text)?;
        let mut trap = Trap(Vec::new());
        let step = size + rustix::param::page_size();
        let holes = trap.reserve(Trap::HOLES * step)?;
        trap.0.pop();
        // The kernel takes the highest gap that is large enough. So all above
        // are filled, until one lies below.
        while trap.reserve(size)? > holes {}
        for hole in 0..Trap::HOLES {
            let start = holes.wrapping_byte_add(hole * step);
            let guard = start.wrapping_byte_add(size);
            // SAFETY: reserved above, and nobody knows of it.
            unsafe { munmap(start, size) }.map_err(text)?;
            trap.0.push((guard, step - size));
        }
        // To find it by.
        buffer.set_name("trapped").map_err(text)?;
        Ok(trap)
    }

    fn reserve(&mut self, size: usize) -> Result<*mut c_void, String> {
        let (anywhere, flags) = (ptr::null_mut(), MapFlags::PRIVATE);
        // SAFETY: a new mapping, where the kernel likes.
        let start = unsafe { mmap_anonymous(anywhere, size, ProtFlags::empty(), flags) };
        let start = start.map_err(text)?;
        self.0.push((start, size));
        Ok(start)
    }

    /// Whether each mapping of the buffer is in a hole. Its name goes to the
    /// next one.
    fn has_caught(&self, buffer: &Buffer) -> Verdict {
        let maps = read_to_string("/proc/self/maps").map_err(text)?;
        buffer.set_name("egl test").map_err(text)?;
        let lines: Vec<&str> = maps.lines().collect();
        let mut found = 0;
        for pair in lines
            .windows(2)
            .filter(|pair| pair[0].contains("/dmabuf:trapped"))
        {
            found += 1;
            let end = pair[0].split(['-', ' ']).nth(1).unwrap_or_default();
            // A guard, or nothing at all.
            let is_behind = pair[1].starts_with(&format!("{end}-"));
            ensure(!is_behind || pair[1].contains(" ---p "), || {
                format!("behind {} comes {}", pair[0], pair[1])
            })?;
        }
        ensure(found > 0, || "the driver has not mapped it".to_owned())
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        for (start, size) in &self.0 {
            // SAFETY: mapped by `reserve`, and no one else's.
            let _ = unsafe { munmap(*start, *size) };
        }
    }
}
