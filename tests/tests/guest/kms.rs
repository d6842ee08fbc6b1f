//! The screen scans out the dma-bufs of every way, where its driver imports.

use std::sync::Arc;

use dmashare::alloc::{Allocate, Request, Way};
use dmashare::import::drm::{Card, DrmError, Scanout};
use dmashare::share::{Fourcc, Frame};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;

use crate::{crtc, ensure, kernel_version, test, text};

/// The first kernel whose bochs driver imports from others, and exports to
/// them: its dumb buffers no longer lie in the card's own memory.
pub(crate) const BOCHS_IMPORTS: (u32, u32) = (7, 0);

pub(crate) fn trials_of(way: &Arc<dyn Allocate>) -> Vec<Trial> {
    let name = way.way();
    let trial = |check: &str, run: fn(&dyn Allocate) -> Verdict| {
        let way = Arc::clone(way);
        test(&format!("{name}::{check}"), move || run(&*way))
    };
    // Its own it always takes back.
    match name == Way::Dumb || kernel_version() >= BOCHS_IMPORTS {
        true => vec![
            trial("kms_scans_out", scans_out),
            trial("kms_imports_one_dma_buf_twice", imports_one_dma_buf_twice),
            trial("kms_goes_back_in_any_order", goes_back_in_any_order),
            trial("kms_leaks_nothing", leaks_nothing),
        ],
        false => vec![trial("kms_says_why_it_cannot_import", says_why_it_cannot)],
    }
}

/// The screen's card, and a frame of the size it likes.
fn card() -> Result<(Card, Frame), String> {
    let card = Card::find("bochs-drm").map_err(text)?;
    let screens = card.screens().map_err(text)?;
    let connected = screens.iter().find(|screen| screen.connected);
    let mode = connected.and_then(|screen| screen.modes.first());
    let mode = mode.ok_or("bochs has no connected screen with a mode")?;
    let (width, height) = (mode.width.into(), mode.height.into());
    let frame = Frame::packed(width, height, Fourcc::XRGB8888).map_err(text)?;
    Ok((card, frame))
}

fn buffer(way: &dyn Allocate, frame: &Frame) -> Result<dmashare::buffer::Buffer, String> {
    let size = frame.size_of_buffer(0).map_err(text)?;
    let request = Request::new(size).named("kms test").for_device();
    way.allocate(&request).map_err(text)
}

fn scans_out(way: &dyn Allocate) -> Verdict {
    let (card, frame) = card()?;
    let buffer = buffer(way, &frame)?;
    let framebuffer = card.import(&frame, &[&buffer]).map_err(text)?;
    // The framebuffer holds the memory: the handle can go.
    let inode = crtc::inode(buffer.fd().map_err(text)?)?;
    drop(buffer);
    let scanout = card.show(&framebuffer).map_err(text)?;
    let scanned = crtc::dma_bufs_scanned_out(card.path())?;
    ensure(scanned.contains(&inode), || {
        format!("no CRTC scans out dma-buf {inode}, but {scanned:?}")
    })?;
    let mode = scanout.mode();
    ensure(
        (u32::from(mode.width), u32::from(mode.height)) == (frame.width, frame.height),
        || format!("{mode} for a frame of {}x{}", frame.width, frame.height),
    )?;
    scanout.flush().map_err(text)?;
    Ok(())
}

fn imports_one_dma_buf_twice(way: &dyn Allocate) -> Verdict {
    let (card, frame) = card()?;
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
fn goes_back_in_any_order(way: &dyn Allocate) -> Verdict {
    let (card, frame) = card()?;
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

fn leaks_nothing(way: &dyn Allocate) -> Verdict {
    let (card, frame) = card()?;
    let buffer = buffer(way, &frame)?;
    let held = || Ok((held::by_process()?, held::of_dma_buf(&buffer)?));
    let before = held()?;
    for _ in 0..5 {
        let framebuffer = card.import(&frame, &[&buffer]).map_err(text)?;
        card.show(&framebuffer).map_err(text)?;
    }
    held::comes_back_to(before, held)
}

fn says_why_it_cannot(way: &dyn Allocate) -> Verdict {
    let (card, frame) = card()?;
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
                message.contains("bochs-drm") && message.contains("does not import"),
                || format!("it does not say why: {message}"),
            )
        }
        other => Err(format!("{other:?}")),
    }
}
