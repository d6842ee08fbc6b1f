//! The screens scan out the dma-bufs of every way, where their drivers import.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use ::drm::Device as _;
use dmashare::alloc::{Allocate, DmaHeap, Dumb, Request, Way};
use dmashare::buffer::{Access, Buffer};
use dmashare::import::drm::{Card, DrmError, Scanout};
use dmashare::import::egl::{Device, Gpu};
use dmashare::share::{Fourcc, Frame};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;

use crate::{crtc, ensure, kernel_version, test, text};

/// The first kernel whose bochs driver imports from others, and exports to
/// them: its dumb buffers no longer lie in the card's own memory.
pub(crate) const BOCHS_IMPORTS: (u32, u32) = (7, 0);

/// The first kernel that exports the dumb buffers of bochs: before, those of
/// cirrus are the first that there are.
const BOCHS_EXPORTS: (u32, u32) = (6, 12);

/// The cards that have a screen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Driver {
    Bochs,
    Cirrus,
}

impl Driver {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Driver::Bochs => "bochs",
            Driver::Cirrus => "cirrus",
        }
    }

    /// The names that it gives itself, which differ between kernels.
    fn names(self) -> &'static [&'static str] {
        match self {
            Driver::Bochs => &["bochs-drm"],
            Driver::Cirrus => &["cirrus", "cirrus-qemu"],
        }
    }

    /// Whether others have its dumb buffers.
    pub(crate) fn exports(self) -> bool {
        self == Driver::Cirrus || kernel_version() >= BOCHS_EXPORTS
    }

    /// Whether it takes what this way makes, on this kernel. Its own it always
    /// takes back.
    pub(crate) fn imports(self, way: Way) -> bool {
        match self {
            _ if kernel_version() >= BOCHS_IMPORTS => true,
            Driver::Bochs => way == Way::Dumb && kernel_version() >= BOCHS_EXPORTS,
            Driver::Cirrus => way != Way::Dumb || dumb_is_in_ram(),
        }
    }
}

/// Whether the dumb buffers of the first card that exports them lie in the
/// system's memory, where other devices find them.
pub(crate) fn dumb_is_in_ram() -> bool {
    !(BOCHS_EXPORTS..BOCHS_IMPORTS).contains(&kernel_version())
}

pub(crate) fn trials_of(way: &Arc<dyn Allocate>) -> Vec<Trial> {
    let drivers = [Driver::Bochs, Driver::Cirrus];
    drivers
        .into_iter()
        .flat_map(|on| trials_on(on, way))
        .collect()
}

fn trials_on(driver: Driver, way: &Arc<dyn Allocate>) -> Vec<Trial> {
    let trial = |check: &str, run: fn(Driver, &dyn Allocate) -> Verdict| {
        let name = format!("{}::kms_{}_{check}", way.way(), driver.name());
        let way = Arc::clone(way);
        test(&name, move || run(driver, &*way))
    };
    match driver.imports(way.way()) {
        true => vec![
            trial("scans_out", scans_out),
            trial("imports_one_dma_buf_twice", imports_one_dma_buf_twice),
            trial("goes_back_in_any_order", goes_back_in_any_order),
            trial("leaks_nothing", leaks_nothing),
        ],
        false => vec![trial("says_why_it_cannot_import", says_why_it_cannot)],
    }
}

/// A card that is open to import or to be queried keeps nobody from being DRM
/// master; one that shows something does.
pub(crate) fn trials() -> Vec<Trial> {
    let drivers = [Driver::Bochs, Driver::Cirrus];
    let of_cards = drivers.map(|driver| {
        let name = format!("kms::idle_{}_leaves_master_free", driver.name());
        test(&name, move || leaves_master_free(driver))
    });
    let mut trials = Vec::from(of_cards);
    trials.push(test(
        "kms::node_opened_by_egl_leaves_master_free",
        egl_leaves_master_free,
    ));
    trials
}

/// Another program that opens the card, such as a compositor.
struct Compositor(File);

impl drm::Device for Compositor {}

impl AsFd for Compositor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Compositor {
    fn open(node: &Path) -> Result<Compositor, String> {
        let file = File::options().read(true).write(true).open(node);
        Ok(Compositor(file.map_err(text)?))
    }

    /// Becomes master, which it is to be able to or not, and stops being it.
    fn can_be_master(&self, can: bool, when: &str) -> Verdict {
        let set = self.acquire_master_lock();
        if set.is_ok() {
            self.release_master_lock().map_err(text)?;
        }
        ensure(set.is_ok() == can, || {
            format!("SET_MASTER of another {when}: {set:?}")
        })
    }
}

fn leaves_master_free(driver: Driver) -> Verdict {
    let (card, frame) = card(driver)?;
    let compositor = Compositor::open(card.path())?;
    compositor.can_be_master(true, "after open")?;
    card.screens().map_err(text)?;
    card.planes().map_err(text)?;
    card.takers().map_err(text)?;
    compositor.can_be_master(true, "after queries")?;
    let size = frame.size_of_buffer(0).map_err(text)?;
    let request = Request::new(size).named("kms test").for_device();
    let own = Dumb::open(card.path()).and_then(|dumb| dumb.allocate(&request));
    // Of its own memory, where it lends that; else of the heap's.
    let heap = || DmaHeap::open("system").and_then(|heap| heap.allocate(&request));
    let buffer = own.or_else(|_| heap()).map_err(text)?;
    let framebuffer = match card.import(&frame, &[&buffer]) {
        Ok(framebuffer) => framebuffer,
        Err(_) if driver == Driver::Bochs && !driver.exports() => {
            return compositor.can_be_master(true, "after a refused import");
        }
        Err(error) => return Err(error.to_string()),
    };
    compositor.can_be_master(true, "after an import")?;

    // Nothing is shown in place of another master.
    compositor.acquire_master_lock().map_err(text)?;
    match card.show(&framebuffer) {
        Err(
            ref error @ DrmError::Ioctl {
                operation: "SET_MASTER",
                ..
            },
        ) if error.to_string().contains("stop the compositor") => {}
        other => return Err(format!("beside a master: {other:?}")),
    }
    compositor.release_master_lock().map_err(text)?;

    let scanout = card.show(&framebuffer).map_err(text)?;
    compositor.can_be_master(false, "while a frame is shown")?;
    let next = card.show(&framebuffer).map_err(text)?;
    drop(scanout);
    compositor.can_be_master(false, "while the next is shown")?;
    drop(next);
    compositor.can_be_master(true, "after the last")
}

/// Mesa opens the primary node of a card without a GPU, and keeps it.
fn egl_leaves_master_free() -> Verdict {
    let (card, _) = card(Driver::Cirrus)?;
    let compositor = Compositor::open(card.path())?;
    let refused = Gpu::open(&Device::Node(card.path().to_owned()));
    compositor.can_be_master(true, &format!("after {refused:?}"))
}

/// The screen's card, and a frame of the size it likes.
pub(crate) fn card(driver: Driver) -> Result<(Card, Frame), String> {
    let mut found = Err("it has no name".to_owned());
    for name in driver.names() {
        found = found.or_else(|_| Card::find(name).map_err(text));
    }
    let card = found?;
    let screens = card.screens().map_err(text)?;
    let connected = screens.iter().find(|screen| screen.connected);
    let mode = connected.and_then(|screen| screen.modes.first());
    let mode = mode.ok_or_else(|| format!("{card} has no connected screen with a mode"))?;
    let (width, height) = (mode.width.into(), mode.height.into());
    let frame = Frame::packed(width, height, Fourcc::XRGB8888).map_err(text)?;
    Ok((card, frame))
}

pub(crate) fn buffer(way: &dyn Allocate, frame: &Frame) -> Result<Buffer, String> {
    let size = frame.size_of_buffer(0).map_err(text)?;
    let request = Request::new(size).named("kms test").for_device();
    way.allocate(&request).map_err(text)
}

/// What tells a buffer's memory from others'.
const MARK: &[u8] = b"scanned out?";

fn mark(buffer: &Buffer) -> Verdict {
    let mut mapping = buffer.map(Access::Write).map_err(text)?;
    let mut guard = mapping.access(Access::Write).map_err(text)?;
    guard.write_at(0, MARK).map_err(text)?;
    guard.finish().map_err(text)
}

fn read_mark(dma_buf: OwnedFd) -> Result<Vec<u8>, String> {
    let buffer = Buffer::from_fd(dma_buf).map_err(text)?;
    let mut found = vec![0; MARK.len()];
    let mut mapping = buffer.map(Access::Read).map_err(text)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    guard.read_at(0, &mut found).map_err(text)?;
    guard.finish().map_err(text)?;
    Ok(found)
}

fn scans_out(driver: Driver, way: &dyn Allocate) -> Verdict {
    let (card, frame) = card(driver)?;
    let buffer = buffer(way, &frame)?;
    let framebuffer = card.import(&frame, &[&buffer]).map_err(text)?;
    let inode = crtc::inode(buffer.fd().map_err(text)?)?;
    mark(&buffer)?;
    // The framebuffer holds the memory: the handle can go.
    drop(buffer);
    let scanout = card.show(&framebuffer).map_err(text)?;
    let scanned = crtc::dma_bufs_scanned_out(card.path())?;
    let mut found = Vec::new();
    for dma_buf in scanned {
        let same = crtc::inode(&dma_buf)? == inode;
        // What it made itself may have another dma-buf by now.
        if same || way.way() == Way::Dumb {
            found.push(read_mark(dma_buf)?);
        }
    }
    ensure(found.iter().any(|bytes| bytes == MARK), || {
        format!("no CRTC scans out dma-buf {inode}, but {found:?}")
    })?;
    let mode = scanout.mode();
    ensure(
        (u32::from(mode.width), u32::from(mode.height)) == (frame.width, frame.height),
        || format!("{mode} for a frame of {}x{}", frame.width, frame.height),
    )?;
    scanout.flush().map_err(text)?;
    Ok(())
}

fn imports_one_dma_buf_twice(driver: Driver, way: &dyn Allocate) -> Verdict {
    let (card, frame) = card(driver)?;
    let buffer = buffer(way, &frame)?;
    let first = card.import(&frame, &[&buffer]).map_err(text)?;
    let second = card.import(&frame, &[&buffer]).map_err(text)?;
    // One GEM handle stands for both: dropping one must not take the other.
    drop(first);
    let scanout = card.show(&second).map_err(text)?;
    drop(scanout);
    let third = card.import(&frame, &[&buffer]).map_err(text)?;
    card.show(&third).map(drop).map_err(text)
}

/// Frames that are shown over each other, and dropped in any order: the screen
/// shows the latest that is left, and nothing else turns it off.
fn goes_back_in_any_order(driver: Driver, way: &dyn Allocate) -> Verdict {
    let (card, frame) = card(driver)?;
    let buffer = buffer(way, &frame)?;
    let import = || card.import(&frame, &[&buffer]).map_err(text);
    let (first, second, third) = (import()?, import()?, import()?);
    let show = |framebuffer| card.show(framebuffer).map_err(text);
    let shown = |scanout: &Scanout, what: &str| {
        let is_it = scanout.is_shown().map_err(text)?;
        ensure(is_it, || format!("{what}: the screen does not show it"))
    };

    let below = show(&first)?;
    // As a player does: the next is shown before the last one is dropped.
    let mut scanout = show(&second)?;
    for next in [&third, &second, &third] {
        scanout = show(next)?;
        shown(&scanout, "the next, after the one before it was dropped")?;
    }
    ensure(!below.is_shown().map_err(text)?, || {
        "two frames on one screen".to_owned()
    })?;
    drop(scanout);
    shown(&below, "the one below, after the last of those above")?;

    let middle = show(&second)?;
    let top = show(&third)?;
    drop(top);
    shown(&middle, "the one in the middle, after the top")?;
    let top = show(&third)?;
    drop(below);
    drop(middle);
    shown(&top, "the top, after those below it")
}

fn leaks_nothing(driver: Driver, way: &dyn Allocate) -> Verdict {
    let (card, frame) = card(driver)?;
    let buffer = buffer(way, &frame)?;
    let held = || Ok((held::by_process()?, held::of_dma_buf(&buffer)?));
    let before = held()?;
    for _ in 0..5 {
        let framebuffer = card.import(&frame, &[&buffer]).map_err(text)?;
        card.show(&framebuffer).map_err(text)?;
    }
    held::comes_back_to(before, held)
}

fn says_why_it_cannot(driver: Driver, way: &dyn Allocate) -> Verdict {
    let (card, frame) = card(driver)?;
    let buffer = buffer(way, &frame)?;
    match card.import(&frame, &[&buffer]) {
        Err(
            error @ DrmError::Ioctl {
                operation: "PRIME_FD_TO_HANDLE",
                ..
            },
        ) => {
            let message = error.to_string();
            ensure(
                message.contains(&card.to_string()) && message.contains("does not import"),
                || format!("it does not say why: {message}"),
            )
        }
        other => Err(format!("{other:?}")),
    }
}
