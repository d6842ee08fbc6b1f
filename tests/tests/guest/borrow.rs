//! Buffers resolved once a call: an `impl Borrow<Buffer>` that returns a small
//! buffer and a large one by turns.

use std::borrow::Borrow;
use std::cell::Cell;
use std::fmt::Debug;

use dmashare::alloc::{Allocate, DmaHeap, Module, Request, Udmabuf};
use dmashare::buffer::Buffer;
use dmashare::frame::{Fourcc, Frame};
use dmashare::import::drm::Card;
use dmashare::import::egl;
use dmashare::import::gbm::Usage;
use dmashare::import::v4l2::{Device, Queue, V4l2Error, Wanted};
use dmashare::import::vulkan;
use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;

use crate::vivid::BY_CPU;
use crate::{ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("borrow::alternating_buffer_egl_refuses", egl),
        test("borrow::alternating_buffer_vulkan_refuses", vulkan),
        test("borrow::alternating_buffer_gbm_refuses", gbm),
        test("borrow::alternating_buffer_drm_refuses", drm),
        test("borrow::alternating_buffer_v4l2_refuses", v4l2),
    ]
}

/// Returns each of two buffers by turns.
#[derive(Debug)]
struct Alternating {
    buffers: [Buffer; 2],
    calls: Cell<usize>,
}

impl Alternating {
    fn new(first: u64, second: u64) -> Result<Alternating, String> {
        Ok(Alternating {
            buffers: [buffer(first)?, buffer(second)?],
            calls: Cell::new(0),
        })
    }
}

impl Borrow<Buffer> for Alternating {
    fn borrow(&self) -> &Buffer {
        let call = self.calls.replace(self.calls.get() + 1);
        &self.buffers[call % 2]
    }
}

fn buffer(size: u64) -> Result<Buffer, String> {
    let request = Request::new(size).named("borrow test").for_device();
    let heap = DmaHeap::open("system").and_then(|heap| heap.allocate(&request));
    let udmabuf = || Udmabuf::open().and_then(|udmabuf| udmabuf.allocate(&request));
    let module = || Module::open().and_then(|module| module.allocate(&request));
    heap.or_else(|_| udmabuf())
        .or_else(|_| module())
        .map_err(text)
}

const SMALL: u64 = 4096;

/// 64 pages of 4 KiB.
fn frame(fourcc: Fourcc) -> Result<Frame, String> {
    Frame::aligned(256, 256, fourcc, 1024).map_err(text)
}

/// Starts with a page, which must be refused, whatever comes after it.
fn refuses<T: Debug, E: Debug>(
    what: &str,
    import: impl FnOnce(&[Alternating]) -> Result<T, E>,
) -> Verdict {
    let alternating = [Alternating::new(SMALL, 1 << 20)?];
    let imported = import(&alternating);
    let calls = alternating[0].calls.get();
    ensure(imported.is_err() && calls == 1, || {
        format!("{what}: borrow was called {calls} times, and the import gave {imported:?}")
    })
}

fn egl() -> Verdict {
    let gpu = egl::Gpu::open(&egl::Device::Software).map_err(text)?;
    let (rgb, yuv) = (frame(Fourcc::XRGB8888)?, frame(Fourcc::new(*b"NV12"))?);
    let hints = egl::Hints::default();
    refuses("import_texture", |b| gpu.import_texture(&rgb, b))?;
    refuses("import_external", |b| gpu.import_external(&rgb, b, &hints))?;
    refuses("import_planes", |b| gpu.import_planes(&yuv, b, &hints))?;
    refuses("import_yuv", |b| gpu.import_yuv(&yuv, b, &hints))?;
    refuses("import_target", |b| gpu.import_target(&rgb, b))?;
    // A target that fits is resolved once, too.
    let alternating = [Alternating::new(1 << 20, SMALL)?];
    gpu.import_target(&rgb, &alternating).map_err(text)?;
    let calls = alternating[0].calls.get();
    ensure(calls == 1, || format!("import_target: {calls} calls"))
}

fn vulkan() -> Verdict {
    let gpu = vulkan::Gpu::open(&vulkan::Device::Software).map_err(text)?;
    let (rgb, yuv) = (frame(Fourcc::XRGB8888)?, frame(Fourcc::new(*b"NV12"))?);
    refuses("import_texture", |b| gpu.import_texture(&rgb, b))?;
    refuses("import_planes", |b| gpu.import_planes(&yuv, b))?;
    refuses("import_target", |b| gpu.import_target(&rgb, b))
}

fn gbm() -> Verdict {
    let gbm = crate::gbm::open(&["vgem"])?;
    let rgb = frame(Fourcc::XRGB8888)?;
    refuses("import", |b| gbm.import(&rgb, b, Usage::empty()))
}

fn drm() -> Verdict {
    let card = Card::find("cirrus").or_else(|_| Card::find("cirrus-qemu"));
    let card = card.map_err(text)?;
    let rgb = frame(Fourcc::XRGB8888)?;
    refuses("import", |b| card.import(&rgb, b))
}

fn v4l2() -> Verdict {
    let small = |stream: &dyn Fn(&Queue) -> Result<(), V4l2Error>| {
        let queue = Device::find("vivid", BY_CPU).and_then(|device| device.capture());
        let queue = queue.map_err(text)?;
        let wanted = Wanted::new(640, 360, Fourcc::XRGB8888);
        queue.set_format(&wanted).map_err(text)?;
        match stream(&queue) {
            Err(V4l2Error::Small { size: SMALL, .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    let alternating = |first, second| {
        let buffers = Alternating::new(first, second);
        vec![vec![buffers.expect("memory")]]
    };
    small(&|queue| queue.stream(alternating(SMALL, 1 << 20)).map(|_| ()))?;
    // What fits at first and does not later is refused before the driver sees it.
    small(&|queue| {
        let mut stream = queue.stream(alternating(1 << 20, SMALL))?;
        stream.queue(0, None)
    })
}
