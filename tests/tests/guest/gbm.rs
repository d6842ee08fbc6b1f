//! GBM on each of the guest's cards: what it allocates, exports, imports and
//! maps, and what it says where it cannot.

use std::sync::Arc;

use dmashare::alloc::{Allocate, Request, Way};
use dmashare::buffer::{Access, Buffer};
use dmashare::import::HandleError;
use dmashare::import::Part;
use dmashare::import::drm::Card;
use dmashare::import::egl::{Device, Gpu};
use dmashare::import::gbm::{Gbm, GbmError, Usage};
use dmashare::negotiate::{Layout, Memory};
use dmashare::share::{Fourcc, Frame, INVALID, LINEAR};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;

use crate::kms::{BOCHS_IMPORTS, dumb_is_in_ram};
use crate::{ensure, kernel_version, test, text};

/// The drivers of the guest's cards, as they name themselves.
const VGEM: &[&str] = &["vgem"];
const BOCHS: &[&str] = &["bochs-drm"];
const CIRRUS: &[&str] = &["cirrus", "cirrus-qemu"];

pub(crate) fn open(names: &[&str]) -> Result<Gbm, String> {
    let cards = Card::nodes().map_err(text)?.into_iter();
    let mut cards = cards.filter_map(|node| Card::open(node).ok());
    let card = cards.find(|card| names.contains(&card.driver()));
    let path = card.map(|card| card.path().to_owned());
    Gbm::open(path.ok_or_else(|| format!("no card of {names:?}"))?).map_err(text)
}

/// Whether the card takes what others made, on this kernel (PRIME import).
fn imports(names: &[&str]) -> bool {
    match names {
        BOCHS => kernel_version() >= BOCHS_IMPORTS,
        _ => true,
    }
}

pub(crate) fn trials_of(way: &Arc<dyn Allocate>) -> Vec<Trial> {
    let name = way.way();
    // What lies in the memory of a card is for that alone.
    if name == Way::Dumb && !dumb_is_in_ram() {
        return Vec::new();
    }
    let cards = [("vgem", VGEM), ("bochs", BOCHS), ("cirrus", CIRRUS)];
    let trials = cards.into_iter().map(|(card, names)| {
        let way = Arc::clone(way);
        let check = match imports(names) {
            true => imports_and_exports,
            false => tells_that_it_is_the_memory,
        };
        test(&format!("{name}::gbm_imports_on_{card}"), move || {
            check(&open(names)?, &*way)
        })
    });
    trials.collect()
}

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("gbm::opens_only_drm_nodes", opens_only_drm_nodes),
        test(
            "gbm::names_what_it_cannot_allocate",
            names_what_it_cannot_allocate,
        ),
        test("gbm::refuses_what_is_no_frame", refuses_what_is_no_frame),
        test("gbm::names_what_it_cannot_map", names_what_it_cannot_map),
        test("gbm::names_another_stride", names_another_stride),
        test("gbm::leaks_nothing", leaks_nothing),
    ];
    for (card, names) in [("vgem", VGEM), ("bochs", BOCHS), ("cirrus", CIRRUS)] {
        trials.push(test(&format!("gbm::allocates_on_{card}"), move || {
            allocates(&open(names)?)
        }));
        trials.push(test(
            &format!("gbm::takes_what_it_says_on_{card}"),
            move || takes_what_it_says(&open(names)?, names),
        ));
    }
    trials
}

fn frame() -> Result<Frame, String> {
    Frame::aligned(64, 48, Fourcc::XRGB8888, 256).map_err(text)
}

fn buffer(way: &dyn Allocate, frame: &Frame) -> Result<Buffer, String> {
    let size = frame.size_of_buffer(0).map_err(text)?;
    let request = Request::new(size).named("gbm test").for_device();
    way.allocate(&request).map_err(text)
}

fn any_way() -> Result<Box<dyn Allocate>, String> {
    let ways = [Way::DmaHeap, Way::Udmabuf, Way::Module];
    let mut opened = ways.into_iter().filter_map(|way| way.open().ok());
    opened
        .next()
        .ok_or_else(|| "no way makes dma-bufs".to_owned())
}

/// Bytes of which no two rows are the same.
fn pixels(count: usize) -> Vec<u8> {
    let byte = |at: usize| (at ^ (at >> 8)).to_le_bytes()[0];
    (0..count).map(byte).collect()
}

fn read(frame: &Frame, buffer: &Buffer) -> Result<Vec<u8>, String> {
    let rows = frame.rows(0).map_err(text)?;
    let mut pixels = vec![0; usize::try_from(rows.bytes()).map_err(text)?];
    let mut mapping = buffer.map(Access::Read).map_err(text)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    guard.read_rows(rows, &mut pixels).map_err(text)?;
    guard.finish().map_err(text)?;
    Ok(pixels)
}

/// The same memory comes out that went in.
fn imports_and_exports(gbm: &Gbm, way: &dyn Allocate) -> Verdict {
    let frame = frame()?;
    let buffer = buffer(way, &frame)?;
    let inode = |buffer: &Buffer| buffer.info().map(|info| info.inode).map_err(text);
    for modifier in [LINEAR, INVALID] {
        let frame = Frame {
            modifier,
            ..frame.clone()
        };
        let object = gbm
            .import(&frame, &[&buffer], Usage::empty())
            .map_err(text)?;
        ensure(
            (object.size(), object.fourcc()) == ((64, 48), Fourcc::XRGB8888),
            || format!("{object:?}"),
        )?;
        let (exported, buffers) = object.export().map_err(text)?;
        ensure(exported.planes == frame.planes, || format!("{exported:?}"))?;
        ensure(inode(&buffers[0])? == inode(&buffer)?, || {
            "another buffer came out".to_owned()
        })?;
    }
    Ok(())
}

fn tells_that_it_is_the_memory(gbm: &Gbm, way: &dyn Allocate) -> Verdict {
    let frame = frame()?;
    let buffer = buffer(way, &frame)?;
    match gbm.import(&frame, &[&buffer], Usage::empty()) {
        Err(error @ GbmError::Import { .. }) => says(&error, &["it is the memory", gbm.driver()]),
        other => Err(format!("{other:?}")),
    }
}

fn says(error: &GbmError, words: &[&str]) -> Verdict {
    let said = error.to_string();
    ensure(words.iter().all(|word| said.contains(word)), || {
        said.clone()
    })
}

/// What is written through GBM is in the buffers that it exports, and the other
/// way round; another GPU reads it.
fn allocates(gbm: &Gbm) -> Verdict {
    for modifiers in [&[][..], &[LINEAR], &[LINEAR, INVALID]] {
        let object = gbm
            .allocate(64, 48, Fourcc::XRGB8888, modifiers, Usage::SCANOUT)
            .map_err(text)?;
        let whole = Part::whole(object.size());
        let all = pixels(64 * 48 * 4);
        let mut mapped = object.map(whole, Access::Write).map_err(text)?;
        mapped.write(&all).map_err(text)?;
        drop(mapped);
        let mut seen = vec![0; all.len()];
        let mapped = object.map(whole, Access::Read).map_err(text)?;
        mapped.read(&mut seen).map_err(text)?;
        drop(mapped);
        ensure(seen == all, || {
            "it reads other pixels than it wrote".to_owned()
        })?;

        // A part of it, which is not the first.
        let part = Part {
            x: 5,
            y: 7,
            width: 3,
            height: 2,
        };
        let mut mapped = object.map(part, Access::ReadWrite).map_err(text)?;
        let mut few = vec![0; mapped.len()];
        mapped.read(&mut few).map_err(text)?;
        let at = |x: usize, y: usize| (y * 64 + x) * 4;
        let expected = [&all[at(5, 7)..at(8, 7)], &all[at(5, 8)..at(8, 8)]].concat();
        ensure(few == expected, || "other pixels in the part".to_owned())?;
        mapped.write(&[0x77; 24]).map_err(text)?;
        drop(mapped);

        exports(gbm, &object, &all)?;
        if !modifiers.is_empty() {
            let listed = modifiers.contains(&object.modifier());
            ensure(listed, || format!("{:#x}", object.modifier()))?;
        }
    }
    Ok(())
}

/// The pixels of `all`, but for the part that was written.
fn exports(gbm: &Gbm, object: &dmashare::import::gbm::BufferObject, all: &[u8]) -> Verdict {
    let (frame, buffers) = match object.export() {
        Ok(exported) => exported,
        // Its dumb buffers lie in the memory of the card there.
        Err(GbmError::Export { .. }) if !imports(&[gbm.driver()]) => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let mut expected = all.to_vec();
    for row in [7, 8] {
        expected[(row * 64 + 5) * 4..(row * 64 + 8) * 4].fill(0x77);
    }
    // Rows are read where the driver says that they lie.
    let linear = Frame {
        modifier: LINEAR,
        ..frame.clone()
    };
    ensure(read(&linear, &buffers[0])? == expected, || {
        "other pixels are exported".to_owned()
    })?;
    let gpu = Gpu::open(&Device::Software).map_err(text)?;
    gpu.import_texture(&frame, &buffers).map_err(text)?;
    Ok(())
}

fn takes_what_it_says(gbm: &Gbm, names: &[&str]) -> Verdict {
    let taker = gbm.taker(Usage::empty());
    ensure(taker.name.contains(gbm.driver()), || taker.name.clone())?;
    let xrgb = Layout::linear(Fourcc::XRGB8888);
    let layouts = taker.layouts.clone().unwrap_or_default();
    ensure(layouts.contains(&xrgb), || format!("{layouts:?}"))?;
    match (&taker.memory, imports(names)) {
        (Memory::AnyDmaBuf, true) => {}
        (Memory::Own { why, .. }, false) => {
            return ensure(why.contains("PRIME_FD_TO_HANDLE"), || why.clone());
        }
        (memory, _) => return Err(format!("{memory:?}")),
    }
    let way = any_way()?;
    let mut refused = Vec::new();
    for layout in layouts {
        let frame = Frame::aligned(37, 5, layout.fourcc, taker.stride_align).map_err(text)?;
        let buffer = buffer(&*way, &frame)?;
        if let Err(error) = gbm.import(&frame, &[&buffer], Usage::empty()) {
            refused.push(format!("{layout}: {error}"));
        }
    }
    ensure(refused.is_empty(), || refused.join("\n"))
}

fn opens_only_drm_nodes() -> Verdict {
    match Gbm::open("/dev/dri/card999") {
        Err(GbmError::Open { .. }) => {}
        other => return Err(format!("{other:?}")),
    }
    match Gbm::open("/dev/null") {
        Err(GbmError::Device { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn names_what_it_cannot_allocate() -> Verdict {
    let gbm = open(VGEM)?;
    let allocate = |width, code: &[u8; 4], modifiers: &[u64], usage| {
        let made = gbm.allocate(width, 4, Fourcc::new(*code), modifiers, usage);
        made.err().ok_or_else(|| "it allocated".to_owned())
    };
    let none = Usage::empty();
    says(
        &allocate(64, b"ZZZZ", &[], none)?,
        &["it is the format", "ZZZZ", "vgem"],
    )?;
    // I915_FORMAT_MOD_X_TILED
    let tiled = 0x0100_0000_0000_0001;
    says(
        &allocate(64, b"XR24", &[tiled], none)?,
        &["likely the modifiers"],
    )?;
    says(&allocate(0, b"XR24", &[], none)?, &["likely the size"])
}

fn refuses_what_is_no_frame() -> Verdict {
    let gbm = open(VGEM)?;
    let way = any_way()?;
    let good = frame()?;
    let buffer = buffer(&*way, &good)?;
    let mut beyond = good.clone();
    beyond.height += 64;
    match gbm.import(&beyond, &[&buffer], Usage::empty()) {
        Err(GbmError::Handle(HandleError::Frame(_))) => {}
        other => return Err(format!("{other:?}")),
    }
    let unknown = Frame {
        fourcc: Fourcc::new(*b"NV15"),
        ..good.clone()
    };
    match gbm.import(&unknown, &[&buffer], Usage::empty()) {
        Err(GbmError::Unchecked { .. }) => {}
        other => return Err(format!("{other:?}")),
    }
    let tiled = Frame {
        modifier: 0x0100_0000_0000_0001,
        ..good
    };
    match gbm.import(&tiled, &[&buffer], Usage::empty()) {
        Err(error @ GbmError::Import { .. }) => says(&error, &["it is the modifier", "vgem"]),
        other => Err(format!("{other:?}")),
    }
}

/// kms_swrast maps nothing that was imported: no crash, wherever the region is.
fn names_what_it_cannot_map() -> Verdict {
    let gbm = open(VGEM)?;
    let frame = frame()?;
    let buffer = buffer(&*any_way()?, &frame)?;
    let object = gbm
        .import(&frame, &[&buffer], Usage::empty())
        .map_err(text)?;
    let part = |x, y, width, height| Part {
        x,
        y,
        width,
        height,
    };
    for region in [Part::whole((64, 48)), part(5, 7, 3, 2)] {
        match object.map(region, Access::Read) {
            Err(error @ GbmError::Map { .. }) => says(&error, &["of the frame that was imported"])?,
            other => return Err(format!("{other:?}")),
        }
    }
    for region in [part(0, 0, 0, 1), part(60, 0, 5, 1), part(u32::MAX, 0, 2, 1)] {
        match object.map(region, Access::Read) {
            Err(GbmError::Region { .. }) => {}
            other => return Err(format!("{other:?}")),
        }
    }
    let own = gbm.allocate(64, 48, Fourcc::XRGB8888, &[], Usage::SCANOUT);
    let own = own.map_err(text)?;
    let mut mapped = own.map(part(0, 0, 2, 1), Access::Read).map_err(text)?;
    let refused = (mapped.write(&[0; 8]), mapped.read(&mut [0; 7]));
    match refused {
        (Err(GbmError::Access { .. }), Err(GbmError::Length { needed: 8, .. })) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn names_another_stride() -> Verdict {
    let gbm = open(VGEM)?;
    let wide = Frame::aligned(64, 48, Fourcc::XRGB8888, 512).map_err(text)?;
    let buffer = buffer(&*any_way()?, &wide)?;
    let _first = gbm
        .import(&wide, &[&buffer], Usage::empty())
        .map_err(text)?;
    match gbm.import(&frame()?, &[&buffer], Usage::empty()) {
        Err(error @ GbmError::Import { .. }) => says(&error, &["stride of 512", "another stride"]),
        // Another Mesa may do better.
        Ok(second) => {
            let (frame, _) = second.export().map_err(text)?;
            ensure(frame.planes[0].stride == 256, || format!("{frame:?}"))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn leaks_nothing() -> Verdict {
    let frame = frame()?;
    let way = any_way()?;
    let buffer = buffer(&*way, &frame)?;
    let once = || {
        let gbm = open(VGEM)?;
        let object = gbm
            .import(&frame, &[&buffer], Usage::empty())
            .map_err(text)?;
        object.export().map_err(text)?;
        let own = gbm.allocate(64, 48, Fourcc::XRGB8888, &[LINEAR], Usage::SCANOUT);
        let own = own.map_err(text)?;
        drop(
            own.map(Part::whole((64, 48)), Access::ReadWrite)
                .map_err(text)?,
        );
        own.export().map_err(text)?;
        Ok::<(), String>(())
    };
    once()?;
    let held = || Ok((held::by_process()?, held::of_dma_buf(&buffer)?));
    let before = held()?;
    for _ in 0..10 {
        once()?;
    }
    held::comes_back_to(before, held)
}
