//! Vulkan reads and draws in the dma-bufs of every way, in place, and the
//! validation layer has nothing to say of it.
//!
//! On the software device, or on that of the node in `DMASHARE_VULKAN_DEVICE`:
//! with it these tests run on a machine that is no guest, too.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dmashare::alloc::{Allocate, Memfd, Request, Way};
use dmashare::buffer::{Access, Buffer};
use dmashare::fence::{Fence, Status};
use dmashare::frame::{Fourcc, Frame, INVALID, LINEAR};
use dmashare::import::HandleError;
use dmashare::import::vulkan::{Allocation, Device, Gpu, Shader, Texture, VulkanError};
use dmashare::negotiate::{Layout, Sync};
use dmashare::share::Socket;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;
use naga::back::spv;

use crate::egl::{Shared, compare, drawn, fill, frame, keeps_its_padding, padded, pixels};
use crate::kms::dumb_is_in_ram;
use crate::vgem::{Job, Vgem};
use crate::{ensure, test, text};

/// The node whose device is to be tested.
const CHOICE: &str = "DMASHARE_VULKAN_DEVICE";

/// The words by which this program starts itself as [`child`].
const CHILD: &str = "vulkan-child";

/// Long enough to be told from no wait at all.
const WHILE: Duration = Duration::from_millis(200);

/// Long enough for a draw, also under emulation.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// Gives every texel another colour, exactly: red and blue swapped, green
/// inverted, mirrored left to right.
const SHADER: &str = "
@group(0) @binding(0) var frame: texture_2d<f32>;
@fragment fn main(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    var at = vec2<i32>(position.xy);
    at.x = i32(textureDimensions(frame).x) - 1 - at.x;
    let rgb = vec3<i32>(textureLoad(frame, at, 0).rgb * 255.0 + 0.5);
    return vec4(vec3<f32>(vec3(rgb.b, 255 - rgb.g, rgb.r)) / 255.0, 1.0);
}";

pub(crate) fn trials_of(way: &Arc<dyn Allocate>) -> Vec<Trial> {
    let name = way.way();
    let trial = |check: &str, run: fn(&Gpu, &dyn Allocate) -> Verdict| {
        let way = Arc::clone(way);
        let run = move || validated(|gpu| run(gpu, &*way));
        test(&format!("{name}::vulkan_{check}"), run)
    };
    let mut trials = vec![
        trial("reads_and_draws_in_place", reads_and_draws_in_place),
        trial("keeps_to_offset_and_stride", keeps_to_offset_and_stride),
        trial("draws_no_further_than_memory", draws_no_further),
        trial("refuses_what_it_cannot", refuses_what_it_cannot),
        trial("reads_planes", reads_planes),
        trial("sees_later_writes", sees_later_writes),
        trial("imports_leak_nothing", imports_leak_nothing),
        trial("another_process_draws", another_process_draws),
    ];
    // vgem, whose fences these are, cannot import what lies in the card.
    if name != Way::Dumb || dumb_is_in_ram() {
        trials.push(trial("waits_for_a_fence", waits_for_a_fence));
    }
    trials
}

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |check: &str, run: fn(&Gpu) -> Verdict| {
        test(&format!("vulkan::{check}"), move || validated(run))
    };
    vec![
        trial("lists_what_it_shares", lists_what_it_shares),
        trial("says_what_it_takes", says_what_it_takes),
        trial("allocates_and_exports", allocates_and_exports),
        trial("exports_leak_nothing", exports_leak_nothing),
        trial("refuses_to_allocate", refuses_to_allocate),
        trial("refuses_a_memfd", refuses_a_memfd),
        trial(
            "what_the_driver_refuses_is_closed_once",
            what_the_driver_refuses_is_closed_once,
        ),
        trial("shaders_are_looked_at", shaders_are_looked_at),
        trial(
            "what_is_of_another_is_refused",
            what_is_of_another_is_refused,
        ),
        test("vulkan::the_layer_is_heard", the_layer_is_heard),
        test("vulkan::names_the_devices_it_has", names_the_devices_it_has),
        test(
            "vulkan::says_what_opens_no_udmabuf",
            says_what_opens_no_udmabuf,
        ),
        test(
            "vulkan::missing_driver_says_remedy",
            missing_driver_says_remedy,
        ),
    ]
}

/// Whether a device was chosen to be tested.
pub(crate) fn is_chosen() -> bool {
    std::env::var_os(CHOICE).is_some()
}

fn device() -> Device {
    match std::env::var_os(CHOICE) {
        Some(node) => Device::Node(node.into()),
        None => Device::Software,
    }
}

/// What `check` finds with the device open; and that nothing that was called
/// was against the rules, up to the device's end.
fn validated(check: impl FnOnce(&Gpu) -> Verdict) -> Verdict {
    let gpu = Gpu::open_validated(&device()).map_err(text)?;
    let messages = gpu.messages();
    let found = check(&gpu);
    drop(gpu);
    let said: Vec<String> = messages.all().iter().map(ToString::to_string).collect();
    match (found, said.is_empty()) {
        (found, true) => found,
        (Ok(()), false) => Err(said.join("\n")),
        (Err(error), false) => Err(format!("{error}\n{}", said.join("\n"))),
    }
}

fn compile(wgsl: &str) -> Result<Vec<u32>, String> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(text)?;
    let mut validator = naga::valid::Validator::new(
        naga::valid::ValidationFlags::all(),
        naga::valid::Capabilities::empty(),
    );
    let info = validator.validate(&module).map_err(text)?;
    spv::write_vec(&module, &info, &spv::Options::default(), None).map_err(text)
}

fn shader(gpu: &Gpu, wgsl: &str) -> Result<Shader, String> {
    let words = compile(wgsl)?;
    // SAFETY: naga has validated the module that it wrote these words of.
    unsafe { gpu.shader(&words) }.map_err(text)
}

/// Draws `from` into `to` once.
fn draw(gpu: &Gpu, from: &Shared, to: &Shared) -> Verdict {
    let texture = gpu.import_texture(&from.frame, &[&from.buffer]);
    let texture = texture.map_err(text)?;
    let target = gpu.import_target(&to.frame, &[&to.buffer]).map_err(text)?;
    let shader = shader(gpu, SHADER)?;
    let drawing = gpu.draw(&[&texture], &target, &shader, &[]).map_err(text)?;
    drawing.wait(PATIENCE).map_err(text)?;
    ensure(drawing.is_done().map_err(text)?, || {
        "done, and not done".to_owned()
    })
}

fn reads_and_draws_in_place(gpu: &Gpu, way: &dyn Allocate) -> Verdict {
    let (from, to) = (Shared::new(way, frame()?)?, Shared::new(way, frame()?)?);
    from.write(&pixels(0))?;
    draw(gpu, &from, &to)?;
    compare(&to.read()?, &drawn(&pixels(0)))?;
    // And it has not touched what it read.
    compare(&from.read()?, &pixels(0))
}

fn keeps_to_offset_and_stride(gpu: &Gpu, way: &dyn Allocate) -> Verdict {
    let (from, to) = padded(way)?;
    from.write(&pixels(1))?;
    draw(gpu, &from, &to)?;
    compare(&to.read()?, &drawn(&pixels(1)))?;
    keeps_its_padding(&to)
}

/// Frames of few rows, in buffers of just their size: lavapipe requires and
/// draws four rows at a time, and is kept from those that are not there. Where
/// they are, they keep what is in them.
fn draws_no_further(gpu: &Gpu, way: &dyn Allocate) -> Verdict {
    let shader = shader(gpu, SHADER)?;
    let is_software = device() == Device::Software;
    for height in [1, 2, 3, 4, 5] {
        // A row is a page, so no page is left over at the end of the buffer.
        let frame = Frame::packed(1024, height, Fourcc::XRGB8888).map_err(text)?;
        let exact = Shared::new(way, frame.clone())?;
        if exact.buffer.size() == u64::from(height) * 4096 && is_software {
            match gpu.import_texture(&frame, &[&exact.buffer]) {
                Err(VulkanError::Room { .. }) if height != 4 => {}
                Ok(_) if height == 4 => {}
                other => return Err(format!("{height} rows to read: {other:?}")),
            }
            match gpu.import_target(&frame, &[&exact.buffer]) {
                Err(VulkanError::Block { block: 4, .. }) if height != 4 => {}
                Ok(_) if height == 4 => {}
                other => return Err(format!("{height} rows to draw into: {other:?}")),
            }
        }

        let mut rows = frame.clone();
        rows.height = height.next_multiple_of(4);
        let (from, to) = (Shared::new(way, rows.clone())?, Shared::new(way, rows)?);
        fill(&from.buffer, 0x10)?;
        fill(&to.buffer, 0x5a)?;
        let texture = gpu.import_texture(&frame, &[&from.buffer]).map_err(text)?;
        let target = gpu.import_target(&frame, &[&to.buffer]).map_err(text)?;
        let drawing = gpu.draw(&[&texture], &target, &shader, &[]).map_err(text)?;
        drawing.wait(PATIENCE).map_err(text)?;
        let pixels = to.read()?;
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

/// What is wrong with a frame is named, whatever it is.
fn refuses_what_it_cannot(gpu: &Gpu, way: &dyn Allocate) -> Verdict {
    let shared = Shared::new(way, frame()?)?;
    let refused = |change: fn(&mut Frame), is_it: fn(&VulkanError) -> bool| {
        let mut frame = shared.frame.clone();
        change(&mut frame);
        let texture = gpu.import_texture(&frame, &[&shared.buffer]).map(drop);
        let target = gpu.import_target(&frame, &[&shared.buffer]).map(drop);
        for imported in [texture, target] {
            match imported {
                Err(error) if is_it(&error) => {}
                other => return Err(format!("{frame:?}: {other:?}")),
            }
        }
        Ok(())
    };
    refused(
        |frame| frame.height += 16,
        |error| matches!(error, VulkanError::Handle(HandleError::Frame(_))),
    )?;
    refused(
        |frame| frame.planes[0].stride = 64,
        |error| matches!(error, VulkanError::Handle(HandleError::Frame(_))),
    )?;
    refused(
        |frame| frame.fourcc = Fourcc::new(*b"ABCD"),
        |error| matches!(error, VulkanError::Format { advice, .. } if advice.contains("XR24")),
    )?;
    refused(
        |frame| frame.modifier = 0x00aa_0000_0000_0001,
        |error| matches!(error, VulkanError::Modifier { advice, .. } if advice.contains("0x0")),
    )?;
    refused(
        |frame| frame.modifier = INVALID,
        |error| matches!(error, VulkanError::Implicit { .. }),
    )?;
    refused(
        |frame| frame.planes.push(frame.planes[0]),
        |error| {
            matches!(
                error,
                VulkanError::Planes {
                    found: 2,
                    expected: 1,
                    ..
                }
            )
        },
    )?;

    let nv12 = Frame::packed(64, 32, Fourcc::new(*b"NV12")).map_err(text)?;
    match gpu.import_texture(&nv12, &[&shared.buffer]) {
        Err(VulkanError::Format { advice, .. }) if advice.contains("import_planes") => {}
        other => return Err(format!("NV12 as one texture: {other:?}")),
    }
    match gpu.import_planes(&shared.frame, &[&shared.buffer]) {
        Err(VulkanError::Format { .. }) => {}
        other => return Err(format!("planes of XR24: {other:?}")),
    }
    if device() != Device::Software {
        return Ok(());
    }
    // Where lavapipe would crash.
    let mut odd = shared.frame.clone();
    odd.height = 32;
    odd.planes[0].stride += 4;
    match gpu.import_target(&odd, &[&shared.buffer]) {
        Err(VulkanError::Alignment { alignment: 16, .. }) => Ok(()),
        other => Err(format!("a stride of {}: {other:?}", odd.planes[0].stride)),
    }
}

/// Y, U and V of a pixel; two by two of them share U and V.
fn yuv(x: usize, y: usize) -> [u8; 3] {
    let (column, row) = (x / 2, y / 2);
    [x * 3 + y, column * 5 + row, 200 - column - row].map(|value| value.to_le_bytes()[0])
}

/// The bytes of a plane of a picture of 64 x 48 pixels.
fn plane(code: &[u8; 4], plane: usize) -> Vec<u8> {
    let [across, down] = match (code, plane) {
        (b"YUYV" | b"UYVY" | b"YVYU" | b"VYUY", _) => [2, 1],
        (_, 0) => [1, 1],
        _ => [2, 2],
    };
    let texel = |x: usize, y: usize| {
        let ([left, u, v], [right, ..]) = (yuv(x, y), yuv(x + 1, y));
        match (code, plane) {
            (b"YUYV", _) => vec![left, u, right, v],
            (b"YVYU", _) => vec![left, v, right, u],
            (b"UYVY", _) => vec![u, left, v, right],
            (b"VYUY", _) => vec![v, left, u, right],
            (_, 0) => vec![left],
            (b"NV12", _) => vec![u, v],
            (b"NV21", _) => vec![v, u],
            (b"YU12", 1) | (b"YV12", 2) => vec![u],
            _ => vec![v],
        }
    };
    let row = |y| (0..64).step_by(across).flat_map(move |x| texel(x, y));
    (0..48).step_by(down).flat_map(row).collect()
}

/// Y as red, U as green, V as blue, of planes or of pixel pairs.
const PLANES: &str = "
@group(0) @binding(0) var y: texture_2d<f32>;
@group(0) @binding(1) var uv: texture_2d<f32>;
@fragment fn main(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let at = vec2<i32>(position.xy);
    return vec4(textureLoad(y, at, 0).r, textureLoad(uv, at / 2, 0).rg, 1.0);
}";
const THREE_PLANES: &str = "
@group(0) @binding(0) var y: texture_2d<f32>;
@group(0) @binding(1) var u: texture_2d<f32>;
@group(0) @binding(2) var v: texture_2d<f32>;
@fragment fn main(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let at = vec2<i32>(position.xy);
    let uv = vec2(textureLoad(u, at / 2, 0).r, textureLoad(v, at / 2, 0).r);
    return vec4(textureLoad(y, at, 0).r, uv, 1.0);
}";
const PAIRS: &str = "
@group(0) @binding(0) var pairs: texture_2d<f32>;
@fragment fn main(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let at = vec2<i32>(position.xy);
    let pair = textureLoad(pairs, vec2(at.x / 2, at.y), 0);
    return vec4(select(pair.r, pair.b, at.x % 2 == 1), pair.g, pair.a, 1.0);
}";

/// Y, U and V, whatever their order in memory, in one buffer and in several.
fn reads_planes(gpu: &Gpu, way: &dyn Allocate) -> Verdict {
    let to = Shared::new(way, frame()?)?;
    let target = gpu.import_target(&to.frame, &[&to.buffer]).map_err(text)?;
    let shaders = [PAIRS, PLANES, THREE_PLANES];
    let [pairs, two, three] = shaders.map(|wgsl| shader(gpu, wgsl));
    let (pairs, two, three) = (pairs?, two?, three?);
    for (code, shader) in [
        (b"NV12", &two),
        (b"NV21", &two),
        (b"YU12", &three),
        (b"YV12", &three),
        (b"YUYV", &pairs),
        (b"UYVY", &pairs),
        (b"YVYU", &pairs),
        (b"VYUY", &pairs),
    ] {
        let together = Frame::packed(64, 48, Fourcc::new(*code)).map_err(text)?;
        let mut apart = together.clone();
        for (number, plane) in (0..).zip(&mut apart.planes) {
            (plane.buffer, plane.offset) = (number, 0);
        }
        for frame in [together, apart] {
            let size = frame.size_of_buffer(0).map_err(text)?;
            let request = Request::new(size).for_device();
            let last = frame.planes.iter().map(|plane| plane.buffer).max();
            let buffers = (0..=last.unwrap_or(0)).map(|_| way.allocate(&request));
            let buffers = buffers.collect::<Result<Vec<_>, _>>().map_err(text)?;
            for (number, of) in frame.planes.iter().enumerate() {
                let buffer = &buffers[usize::from(of.buffer)];
                let mut mapping = buffer.map(Access::Write).map_err(text)?;
                let mut guard = mapping.access(Access::Write).map_err(text)?;
                let rows = frame.rows(number).map_err(text)?;
                guard.write_rows(rows, &plane(code, number)).map_err(text)?;
                guard.finish().map_err(text)?;
            }
            let planes = gpu.import_planes(&frame, &buffers).map_err(text)?;
            let planes: Vec<&Texture> = planes.iter().collect();
            let drawing = gpu.draw(&planes, &target, shader, &[]).map_err(text)?;
            drawing.wait(PATIENCE).map_err(text)?;

            let is_pair = planes.len() == 1;
            let pixel = |x: usize, y: usize| {
                // A pair has U and V of its own row.
                let ([luma, ..], [_, u, v]) =
                    (yuv(x, y), yuv(x, if is_pair { y } else { y / 2 * 2 }));
                [v, u, luma, 0xff]
            };
            let expected = (0..48).flat_map(|y| (0..64).flat_map(move |x| pixel(x, y)));
            let expected = expected.collect::<Vec<_>>();
            compare(&to.read()?, &expected).map_err(|error| {
                format!("{} in {} buffers: {error}", frame.fourcc, buffers.len())
            })?;
        }
    }
    Ok(())
}

fn sees_later_writes(gpu: &Gpu, way: &dyn Allocate) -> Verdict {
    let (from, to) = (Shared::new(way, frame()?)?, Shared::new(way, frame()?)?);
    let texture = gpu.import_texture(&from.frame, &[&from.buffer]);
    let texture = texture.map_err(text)?;
    let target = gpu.import_target(&to.frame, &[&to.buffer]).map_err(text)?;
    let shader = shader(gpu, SHADER)?;
    for seed in [3, 4, 5] {
        // Written after the import: a copy made then would be stale.
        from.write(&pixels(seed))?;
        let drawing = gpu.draw(&[&texture], &target, &shader, &[]);
        drawing.map_err(text)?.wait(PATIENCE).map_err(text)?;
        compare(&to.read()?, &drawn(&pixels(seed)))?;
    }
    Ok(())
}

fn imports_leak_nothing(gpu: &Gpu, way: &dyn Allocate) -> Verdict {
    let (from, to) = (Shared::new(way, frame()?)?, Shared::new(way, frame()?)?);
    from.write(&pixels(0))?;
    // The first draw starts the driver's threads, with their handles.
    draw(gpu, &from, &to)?;
    let held = || {
        let of_both = (
            held::of_dma_buf(&from.buffer)?,
            held::of_dma_buf(&to.buffer)?,
        );
        Ok((held::by_process()?, of_both))
    };
    let before = held()?;
    for _ in 0..10 {
        draw(gpu, &from, &to)?;
    }
    held::comes_back_to(before, held)
}

/// A handle that nobody can map for writing: lavapipe maps what it imports, and
/// so cannot take it. It finds out late, and has then closed the handle that
/// was still ours.
fn what_the_driver_refuses_is_closed_once(gpu: &Gpu) -> Verdict {
    let frame = frame()?;
    let size = frame.size_of_buffer(0).map_err(text)?;
    let buffer = read_only(size)?;
    let before = held::by_process()?;
    for _ in 0..10 {
        match gpu.import_texture(&frame, &[&buffer]) {
            Err(VulkanError::Import {
                operation: "vkAllocateMemory",
                ..
            }) => {}
            // A device that reaches the memory without the CPU may take it.
            Ok(_) if device() != Device::Software => {}
            other => return Err(format!("{other:?}")),
        }
    }
    held::comes_back_to(before, held::by_process)
}

/// `struct dma_heap_allocation_data`
#[repr(C)]
struct HeapAllocation {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

const DMA_HEAP_IOCTL_ALLOC: libc::Ioctl = 0xc018_4800;

/// A dma-buf of the system heap whose handle is opened for reading.
fn read_only(len: u64) -> Result<Buffer, String> {
    let heap = std::fs::File::open("/dev/dma_heap/system").map_err(text)?;
    let mut data = HeapAllocation {
        len,
        fd: 0,
        fd_flags: (libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned(),
        heap_flags: 0,
    };
    // SAFETY: the ioctl reads and writes one `struct dma_heap_allocation_data`.
    if unsafe { libc::ioctl(heap.as_raw_fd(), DMA_HEAP_IOCTL_ALLOC, &raw mut data) } != 0 {
        return Err(format!(
            "DMA_HEAP_IOCTL_ALLOC: {}",
            std::io::Error::last_os_error()
        ));
    }
    // SAFETY: the kernel gave this new handle, which nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(data.fd.cast_signed()) };
    Buffer::from_fd(fd).map_err(text)
}

/// What is drawn waits for the device that still writes what is read, and not a
/// moment less; and its own fence tells when it is done.
fn waits_for_a_fence(gpu: &Gpu, way: &dyn Allocate) -> Verdict {
    ensure(gpu.has_native_fences(), || {
        "the device takes no sync_file".to_owned()
    })?;
    let vgem = Vgem::open()?;
    let (from, to) = (Shared::new(way, frame()?)?, Shared::new(way, frame()?)?);
    let texture = gpu.import_texture(&from.frame, &[&from.buffer]);
    let texture = texture.map_err(text)?;
    let target = gpu.import_target(&to.frame, &[&to.buffer]).map_err(text)?;
    let shader = shader(gpu, SHADER)?;
    from.write(&pixels(6))?;
    // The first draw compiles, which takes longer than any wait here; the next
    // tells how long one takes that does not wait.
    let mut took = Duration::ZERO;
    for _ in 0..2 {
        let begun = Instant::now();
        let drawing = gpu.draw(&[&texture], &target, &shader, &[]);
        drawing.map_err(text)?.wait(PATIENCE).map_err(text)?;
        took = begun.elapsed();
    }
    let long = WHILE.max(took * 4);
    to.write(&pixels(7))?;
    let job = vgem.start(Job::Writes, &from.buffer)?;
    let written = Fence::export(&from.buffer, Access::Read).map_err(text)?;
    let drawing = gpu.draw(&[&texture], &target, &shader, &[&written]);
    let drawing = drawing.map_err(text)?;
    match drawing.wait(Some(long)) {
        Err(VulkanError::Timeout { after, .. }) if after == long => {}
        other => return Err(format!("not waited: {other:?}")),
    }
    ensure(!drawing.is_done().map_err(text)?, || "done".to_owned())?;
    compare(&to.read()?, &pixels(7)).map_err(|error| format!("drawn too soon: {error}"))?;
    ensure(written.status().map_err(text)? == Status::Pending, || {
        "the job took too long to start for this test".to_owned()
    })?;

    vgem.end(job)?;
    // Its fence, where it makes one, is handed to whoever looks at the buffer.
    if let Some(fence) = drawing.fence().map_err(text)? {
        fence.import_into(&to.buffer, Access::Write).map_err(text)?;
        fence.wait(PATIENCE).map_err(text)?;
    }
    compare(&to.read()?, &drawn(&pixels(6)))?;

    // A fence that has signalled is none to wait for, and two are both waited for.
    let again = gpu.draw(&[&texture], &target, &shader, &[&written, &written]);
    again.map_err(text)?.wait(PATIENCE).map_err(text)
}

/// Another process takes the frame, draws it into one that its device
/// allocates, and sends that.
fn another_process_draws(gpu: &Gpu, way: &dyn Allocate) -> Verdict {
    let (from, to) = (Shared::new(way, frame()?)?, Shared::new(way, frame()?)?);
    from.write(&pixels(8))?;
    let (here, there) = Socket::pair().map_err(text)?;
    here.send(&from.frame, &[&from.buffer]).map_err(text)?;
    let there = there.as_fd().try_clone_to_owned().map_err(text)?;
    let mut other = Command::new("/proc/self/exe");
    other.arg(CHILD).stdin(Stdio::from(there));
    let ended = other.output().map_err(text)?;
    ensure(ended.status.success(), || {
        let said = String::from_utf8_lossy(&ended.stderr);
        format!("the other process: {said}")
    })?;
    let (frame, buffers) = here.recv().map_err(text)?;
    let theirs = gpu.import_texture(&frame, &buffers).map_err(text)?;
    let target = gpu.import_target(&to.frame, &[&to.buffer]).map_err(text)?;
    let shader = shader(gpu, SHADER)?;
    let drawing = gpu.draw(&[&theirs], &target, &shader, &[]).map_err(text)?;
    drawing.wait(PATIENCE).map_err(text)?;
    compare(&to.read()?, &drawn(&drawn(&pixels(8))))
}

/// Does the part of the other process where this program was started for it,
/// and does not return then. To be called first in `main`.
pub(crate) fn child() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(CHILD) {
        return;
    }
    let done = match arguments.next().as_deref() {
        None => validated(draws_what_comes_by_stdin),
        Some(_) => opens(),
    };
    if let Err(error) = &done {
        eprintln!("{error}");
    }
    std::process::exit(done.is_err().into());
}

fn draws_what_comes_by_stdin(gpu: &Gpu) -> Verdict {
    let stdin: OwnedFd = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).map_err(text)?;
    let socket = Socket::from_fd(stdin).map_err(text)?;
    let (frame, buffers) = socket.recv().map_err(text)?;
    let texture = gpu.import_texture(&frame, &buffers).map_err(text)?;
    let ours = allocate(gpu)?;
    let shader = shader(gpu, SHADER)?;
    let drawing = gpu.draw(&[&texture], &ours.target, &shader, &[]);
    drawing.map_err(text)?.wait(PATIENCE).map_err(text)?;
    socket.send(&ours.frame, &[&ours.buffer]).map_err(text)
}

/// A frame of the device's own, in any of the layouts that it exports.
fn allocate(gpu: &Gpu) -> Result<Allocation, String> {
    let formats = gpu.formats();
    let format = formats
        .iter()
        .find(|format| format.fourcc == Fourcc::XRGB8888);
    let modifiers = format.map(|format| format.modifiers.iter().map(|modifier| modifier.code));
    let modifiers: Vec<u64> = modifiers.into_iter().flatten().collect();
    gpu.allocate(64, 48, Fourcc::XRGB8888, &modifiers)
        .map_err(text)
}

fn allocates_and_exports(gpu: &Gpu) -> Verdict {
    let shader = shader(gpu, SHADER)?;
    let linear = |gpu: &Gpu| gpu.allocate(64, 48, Fourcc::XRGB8888, &[LINEAR]);
    let (from, to) = (linear(gpu).map_err(text)?, linear(gpu).map_err(text)?);
    // What the CPU writes into it, the device reads; and the other way round.
    let [from, to_cpu] = [from, to].map(|allocated| {
        ensure(allocated.frame.modifier == LINEAR, || {
            format!("{allocated:?}")
        })?;
        let shared = Shared {
            frame: allocated.frame,
            buffer: allocated.buffer,
        };
        Ok::<_, String>((shared, allocated.target))
    });
    let ((from, _), (to, target)) = (from?, to_cpu?);
    from.write(&pixels(9))?;
    let texture = gpu.import_texture(&from.frame, &[&from.buffer]);
    let texture = texture.map_err(text)?;
    let draw = |textures: &[&Texture], target| {
        let drawing = gpu.draw(textures, target, &shader, &[]).map_err(text)?;
        drawing.wait(PATIENCE).map_err(text)
    };
    draw(&[&texture], &target)?;
    compare(&to.read()?, &drawn(&pixels(9)))?;

    // Through a layout of the device's choice and back.
    let own = allocate(gpu)?;
    draw(&[&texture], &own.target)?;
    let own = gpu
        .import_texture(&own.frame, &[&own.buffer])
        .map_err(text)?;
    draw(&[&own], &target)?;
    compare(&to.read()?, &drawn(&drawn(&pixels(9))))
}

fn exports_leak_nothing(gpu: &Gpu) -> Verdict {
    drop(allocate(gpu)?);
    let before = held::by_process()?;
    for _ in 0..5 {
        let own = allocate(gpu)?;
        let again = gpu
            .import_texture(&own.frame, &[&own.buffer])
            .map_err(text)?;
        // In this order the image goes before its own memory is given up.
        drop(own);
        drop(again);
    }
    held::comes_back_to(before, held::by_process)
}

fn refuses_to_allocate(gpu: &Gpu) -> Verdict {
    let allocate = |width, fourcc, modifiers: &[u64]| gpu.allocate(width, 48, fourcc, modifiers);
    match allocate(64, Fourcc::XRGB8888, &[INVALID, 0x00aa_0000_0000_0001]) {
        Err(VulkanError::Modifier { advice, .. }) if advice.contains("0x0") => {}
        other => return Err(format!("{other:?}")),
    }
    match allocate(64, Fourcc::new(*b"NV12"), &[LINEAR]) {
        Err(VulkanError::Format { .. }) => {}
        other => return Err(format!("{other:?}")),
    }
    for width in [0, u32::MAX] {
        match allocate(width, Fourcc::XRGB8888, &[LINEAR]) {
            Err(VulkanError::Size { max, .. }) if max.0 >= 4096 => {}
            other => return Err(format!("{width} wide: {other:?}")),
        }
    }
    Ok(())
}

fn lists_what_it_shares(gpu: &Gpu) -> Verdict {
    let formats = gpu.formats();
    for fourcc in [Fourcc::XRGB8888, Fourcc::ARGB8888] {
        let of = formats.iter().find(|format| format.fourcc == fourcc);
        let mut modifiers = of.into_iter().flat_map(|format| &format.modifiers);
        let linear = modifiers.find(|modifier| modifier.code == LINEAR);
        let both = linear.and_then(|linear| Some((linear.texture?, linear.target?)));
        let (texture, target) = both.ok_or_else(|| format!("no linear {fourcc}: {formats:?}"))?;
        for support in [texture, target] {
            let serves = support.import && support.export && support.max_width >= 4096;
            ensure(serves, || format!("{fourcc}: {support:?}"))?;
        }
    }
    Ok(())
}

fn says_what_it_takes(gpu: &Gpu) -> Verdict {
    let (reads, draws) = (gpu.texture_taker(), gpu.target_taker());
    let linear = |code: &[u8; 4]| Layout::linear(Fourcc::new(*code));
    for (taker, code, takes) in [
        (&reads, b"XR24", true),
        (&reads, b"NV12", true),
        (&reads, b"YUYV", true),
        (&draws, b"XR24", true),
        (&draws, b"NV12", false),
    ] {
        let layouts = taker.layouts.as_ref().ok_or("it takes everything")?;
        ensure(layouts.contains(&linear(code)) == takes, || {
            format!("{taker:?}")
        })?;
        ensure(*taker.width.end() >= 4096, || format!("{taker:?}"))?;
        let fences = taker.sync.contains(Sync::SYNC_FILE);
        ensure(fences == gpu.has_native_fences(), || format!("{taker:?}"))?;
        ensure(taker.name.starts_with(gpu.name()), || format!("{taker:?}"))?;
    }
    Ok(())
}

fn refuses_a_memfd(gpu: &Gpu) -> Verdict {
    let frame = frame()?;
    let size = frame.size_of_buffer(0).map_err(text)?;
    let memfd = Memfd::new().allocate(&Request::new(size)).map_err(text)?;
    match gpu.import_texture(&frame, &[&memfd]) {
        Err(VulkanError::Handle(HandleError::NotADmaBuf { index: 0, .. })) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn shaders_are_looked_at(gpu: &Gpu) -> Verdict {
    // SAFETY: that is no module, and is found to be none.
    let refused = unsafe { gpu.shader(&[0x0723_0203, 0, 0]) };
    ensure(matches!(refused, Err(VulkanError::Shader { .. })), || {
        format!("{refused:?}")
    })?;
    let target = allocate(gpu)?.target;
    let shader = shader(gpu, SHADER)?;
    match gpu.draw(&[], &target, &shader, &[]) {
        Err(VulkanError::Textures { wants: 1, given: 0 }) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn what_is_of_another_is_refused(gpu: &Gpu) -> Verdict {
    let own = allocate(gpu)?;
    let texture = gpu
        .import_texture(&own.frame, &[&own.buffer])
        .map_err(text)?;
    validated(|other| {
        let target = allocate(other)?.target;
        let shader = shader(other, SHADER)?;
        match other.draw(&[&texture], &target, &shader, &[]) {
            Err(VulkanError::OtherGpu { what: "texture" }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

/// What the other tests do not see: that the layer is there, and speaks.
fn the_layer_is_heard() -> Verdict {
    let heard = validated(|gpu| {
        // A texture of integers, where floats are: nobody but the layer looks
        // at that before a draw.
        let own = allocate(gpu)?;
        let texture = gpu
            .import_texture(&own.frame, &[&own.buffer])
            .map_err(text)?;
        let shader = shader(
            gpu,
            "@group(0) @binding(0) var frame: texture_2d<u32>;
            @fragment fn main(@builtin(position) at: vec4<f32>) -> @location(0) vec4<f32> {
                return vec4<f32>(textureLoad(frame, vec2<i32>(at.xy), 0));
            }",
        )?;
        let target = allocate(gpu)?.target;
        let drawing = gpu.draw(&[&texture], &target, &shader, &[]).map_err(text)?;
        drawing.wait(PATIENCE).map_err(text)
    });
    match heard {
        Err(error) if error.contains("VUID-") => Ok(()),
        other => Err(format!("nothing of the rule that was broken: {other:?}")),
    }
}

fn names_the_devices_it_has() -> Verdict {
    let null = Device::Node("/dev/null".into());
    match Gpu::open(&null) {
        Err(VulkanError::NoDevice { wanted, found }) if wanted == null && !found.is_empty() => {}
        other => return Err(format!("{other:?}")),
    }
    match Gpu::open(&Device::Node("/dev/dri/no such node".into())) {
        Err(VulkanError::Node { .. }) => {}
        other => return Err(format!("{other:?}")),
    }
    let any = Gpu::open(&Device::Any).map_err(text)?;
    ensure(!any.name().is_empty(), || {
        "a device without a name".to_owned()
    })
}

/// Who may not open /dev/udmabuf gets no sharing from lavapipe, and is told.
fn says_what_opens_no_udmabuf() -> Verdict {
    const NOBODY: u32 = 65534;
    let mut other = Command::new("/proc/self/exe");
    other.args([CHILD, "opens"]).uid(NOBODY).gid(NOBODY);
    let ended = other.env_remove(CHOICE).output().map_err(text)?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let told = ["VK_EXT_image_drm_format_modifier", "/dev/udmabuf"];
    let told = told.iter().all(|word| said.contains(word));
    ensure(!ended.status.success() && told, || {
        format!("it said {said:?}")
    })
}

/// Without any driver, as where none is installed.
fn missing_driver_says_remedy() -> Verdict {
    let mut other = Command::new("/proc/self/exe");
    other.args([CHILD, "opens"]).env_remove(CHOICE);
    for names in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        other.env(names, "/no such driver.json");
    }
    let ended = other.output().map_err(text)?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let told = ["VK_ERROR_INCOMPATIBLE_DRIVER", "install", "VK_DRIVER_FILES"];
    let told = told.iter().all(|word| said.contains(word));
    ensure(!ended.status.success() && told, || {
        format!("it said {said:?}")
    })
}

fn opens() -> Verdict {
    Gpu::open(&device()).map(drop).map_err(text)
}
