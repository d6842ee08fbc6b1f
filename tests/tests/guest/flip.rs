//! Frames that follow each other on a screen, by both of the kernel's
//! interfaces, and the fences that say when.

use std::thread;
use std::time::{Duration, Instant};

use dmashare::alloc::{Dumb, Request, Way};
use dmashare::buffer::{Access, Buffer};
use dmashare::fence::{Fence, FenceError, Status};
use dmashare::frame::{Fourcc, Frame};
use dmashare::import::drm::{Card, DrmError, Framebuffer, Method, PlaneKind, Scanout, Show};
use dmashare::negotiate::{Layout, Memory};
use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;

use crate::kms::{Driver, buffer, card};
use crate::vgem::{Job, Vgem};
use crate::{crtc, ensure, test, text};

/// Long enough to be told from no wait at all, also under emulation.
const WHILE: Duration = Duration::from_millis(200);

pub(crate) fn trials() -> Vec<Trial> {
    let drivers = [Driver::Bochs, Driver::Cirrus];
    drivers.into_iter().flat_map(trials_on).collect()
}

fn trials_on(driver: Driver) -> Vec<Trial> {
    let trial = |check: &str, run: fn(Driver) -> Verdict| {
        test(&format!("flip::{}_{check}", driver.name()), move || {
            run(driver)
        })
    };
    let mut trials = vec![
        trial("tells_what_it_takes", tells_what_it_takes),
        trial("names_what_it_refuses", names_what_it_refuses),
    ];
    // It needs a frame that the card takes: of its own, or of others.
    if driver.exports() {
        trials.push(trial("has_screens_by_name", has_screens_by_name));
    }
    if driver.imports(Way::DmaHeap) {
        trials.extend([
            trial("flips_by_both_methods", flips_by_both_methods),
            trial("flip_waits_for_its_fence", waits_for_its_fence),
            trial("flip_waits_for_who_writes", waits_for_who_writes),
            trial("next_flip_waits_for_the_last", waits_for_the_last),
            trial(
                "legacy_flip_waits_for_its_fence",
                legacy_waits_for_its_fence,
            ),
            trial("flip_keeps_to_the_size", keeps_to_the_size),
            trial("flip_is_of_what_is_shown", is_of_what_is_shown),
        ]);
    }
    trials
}

/// A screen, and frames for it.
struct Stage {
    card: Card,
    frames: Vec<(Buffer, Framebuffer)>,
}

impl Stage {
    fn new(driver: Driver) -> Result<Stage, String> {
        let (card, frame) = card(driver)?;
        let heap = Way::DmaHeap.open().map_err(text)?;
        let frames = (0..3).map(|_| {
            let buffer = buffer(&*heap, &frame)?;
            let framebuffer = card.import(&frame, &[&buffer]).map_err(text)?;
            Ok((buffer, framebuffer))
        });
        Ok(Stage {
            frames: frames.collect::<Result<_, String>>()?,
            card,
        })
    }

    fn show(&self, method: Method) -> Result<Scanout, String> {
        let show = Show::new().by(method);
        let scanout = self.card.show_as(&self.frames[0].1, &show).map_err(text)?;
        ensure(scanout.method() == method, || format!("{scanout:?}"))?;
        Ok(scanout)
    }

    /// Whether the kernel says that it scans out this frame.
    fn is_on(&self, frame: usize) -> Verdict {
        let inode = crtc::inode(self.frames[frame].0.fd().map_err(text)?)?;
        let scanned = crtc::dma_bufs_scanned_out(self.card.path())?;
        let inodes: Result<Vec<u64>, String> = scanned.iter().map(crtc::inode).collect();
        let inodes = inodes?;
        ensure(inodes.contains(&inode), || {
            format!("frame {frame} is dma-buf {inode}, on the screen are {inodes:?}")
        })
    }
}

/// A job that writes into this buffer until it is told to end, and its fence.
fn job(vgem: &Vgem, buffer: &Buffer) -> Result<(crate::vgem::Fence, Fence), String> {
    let job = vgem.start(Job::Writes, buffer)?;
    let fence = Fence::export(buffer, Access::Read).map_err(text)?;
    Ok((job, fence))
}

/// A buffer that nobody else uses.
fn other() -> Result<Buffer, String> {
    let heap = Way::DmaHeap.open().map_err(text)?;
    heap.allocate(&Request::new(4096).for_device())
        .map_err(text)
}

fn flips_by_both_methods(driver: Driver) -> Verdict {
    let stage = Stage::new(driver)?;
    for method in [Method::Atomic, Method::Legacy] {
        let mut scanout = stage.show(method)?;
        stage.is_on(0)?;
        for frame in [1, 2, 0, 1] {
            let flip = scanout.flip(&stage.frames[frame].1, None).map_err(text)?;
            ensure(flip.fence().is_some() == (method == Method::Atomic), || {
                format!("{flip:?} by {method:?}")
            })?;
            flip.wait(Some(Duration::from_secs(5))).map_err(text)?;
            stage.is_on(frame)?;
            ensure(scanout.is_shown().map_err(text)?, || {
                format!("{method:?}: not shown")
            })?;
        }
    }
    Ok(())
}

fn pending(flip: &dmashare::import::drm::Flip) -> Verdict {
    match flip.wait(Some(WHILE)) {
        Err(DrmError::Fence {
            source: FenceError::Timeout { .. },
            ..
        }) => Ok(()),
        other => Err(format!("it did not wait: {other:?}")),
    }
}

/// The fence that the flip was given.
fn waits_for_its_fence(driver: Driver) -> Verdict {
    let (stage, vgem, elsewhere) = (Stage::new(driver)?, Vgem::open()?, other()?);
    let mut scanout = stage.show(Method::Atomic)?;
    let (job, fence) = job(&vgem, &elsewhere)?;
    let flip = scanout
        .flip(&stage.frames[1].1, Some(&fence))
        .map_err(text)?;
    pending(&flip)?;
    vgem.end(job)?;
    flip.wait(Some(Duration::from_secs(5))).map_err(text)?;
    let done = flip.fence().ok_or("no fence")?.status().map_err(text)?;
    ensure(done == Status::Signaled, || format!("{done:?}"))?;
    stage.is_on(1)
}

/// The fence that the buffer itself has.
fn waits_for_who_writes(driver: Driver) -> Verdict {
    let (stage, vgem) = (Stage::new(driver)?, Vgem::open()?);
    let mut scanout = stage.show(Method::Atomic)?;
    let (job, _fence) = job(&vgem, &stage.frames[1].0)?;
    let flip = scanout.flip(&stage.frames[1].1, None).map_err(text)?;
    pending(&flip)?;
    vgem.end(job)?;
    flip.wait(Some(Duration::from_secs(5))).map_err(text)
}

/// A flip while another waits is taken once that is done.
fn waits_for_the_last(driver: Driver) -> Verdict {
    let (stage, vgem, elsewhere) = (Stage::new(driver)?, Vgem::open()?, other()?);
    let mut scanout = stage.show(Method::Atomic)?;
    let (job, fence) = job(&vgem, &elsewhere)?;
    let first = scanout
        .flip(&stage.frames[1].1, Some(&fence))
        .map_err(text)?;
    let begun = Instant::now();
    thread::scope(|scope| {
        let ender = scope.spawn(|| {
            thread::sleep(WHILE);
            vgem.end(job)
        });
        let second = scanout.flip(&stage.frames[2].1, None).map_err(text)?;
        ensure(begun.elapsed() >= WHILE, || "it did not wait".to_owned())?;
        first.wait(Some(Duration::ZERO)).map_err(text)?;
        second.wait(Some(Duration::from_secs(5))).map_err(text)?;
        ender.join().map_err(|_| "a panic".to_owned())?
    })?;
    stage.is_on(2)
}

fn legacy_waits_for_its_fence(driver: Driver) -> Verdict {
    let (stage, vgem, elsewhere) = (Stage::new(driver)?, Vgem::open()?, other()?);
    let mut scanout = stage.show(Method::Legacy)?;
    let (job, fence) = job(&vgem, &elsewhere)?;
    let begun = Instant::now();
    thread::scope(|scope| {
        let ender = scope.spawn(|| {
            thread::sleep(WHILE);
            vgem.end(job)
        });
        scanout
            .flip(&stage.frames[1].1, Some(&fence))
            .map_err(text)?;
        ensure(begun.elapsed() >= WHILE, || "it did not wait".to_owned())?;
        ender.join().map_err(|_| "a panic".to_owned())?
    })?;
    stage.is_on(1)
}

fn keeps_to_the_size(driver: Driver) -> Verdict {
    let stage = Stage::new(driver)?;
    let small = Frame::packed(64, 64, Fourcc::XRGB8888).map_err(text)?;
    let heap = Way::DmaHeap.open().map_err(text)?;
    let buffer = buffer(&*heap, &small)?;
    let small = stage.card.import(&small, &[&buffer]).map_err(text)?;
    for method in [Method::Atomic, Method::Legacy] {
        let mut scanout = stage.show(method)?;
        match scanout.flip(&small, None) {
            Err(DrmError::FlipSize { size: (64, 64), .. }) => {}
            other => return Err(format!("{method:?}: {other:?}")),
        }
        // It goes on with the one it had.
        stage.is_on(0)?;
    }
    Ok(())
}

/// One that was replaced cannot be flipped behind the back of what replaced it.
fn is_of_what_is_shown(driver: Driver) -> Verdict {
    let stage = Stage::new(driver)?;
    let mut below = stage.show(Method::Atomic)?;
    let show = |frame: usize| stage.card.show(&stage.frames[frame].1).map_err(text);
    let top = show(1)?;
    match below.flip(&stage.frames[2].1, None) {
        Err(DrmError::Replaced { .. }) => stage.is_on(1)?,
        other => return Err(format!("{other:?}")),
    }
    drop(top);
    stage.is_on(0)?;
    let flip = below.flip(&stage.frames[2].1, None).map_err(text)?;
    flip.wait(Some(Duration::from_secs(5))).map_err(text)?;
    stage.is_on(2)
}

fn tells_what_it_takes(driver: Driver) -> Verdict {
    let (card, frame) = card(driver)?;
    let planes = card.planes().map_err(text)?;
    let primary = planes.iter().find(|plane| plane.kind == PlaneKind::Primary);
    let primary = primary.ok_or_else(|| format!("{planes:?}"))?;
    let layout = Layout::linear(Fourcc::XRGB8888);
    ensure(primary.layouts.contains(&layout), || {
        format!("no {layout} among {primary:?}")
    })?;
    let takers = card.takers().map_err(text)?;
    ensure(takers.len() == planes.len(), || format!("{takers:?}"))?;
    for (_, taker) in takers {
        ensure(taker.name.contains(&card.to_string()), || {
            taker.name.clone()
        })?;
        ensure(
            taker.width.contains(&frame.width) && taker.height.contains(&frame.height),
            || format!("{taker:?}"),
        )?;
        match (&taker.memory, driver.imports(Way::DmaHeap)) {
            (Memory::AnyDmaBuf, true) => {}
            (Memory::Own { node, why }, false)
                if node == card.path() && why.contains("PRIME_FD_TO_HANDLE") => {}
            other => return Err(format!("{other:?}")),
        }
    }
    Ok(())
}

/// Two planes, a modifier, and a size that no display here has.
fn names_what_it_refuses(driver: Driver) -> Verdict {
    let (card, _) = card(driver)?;
    let heap = Way::DmaHeap.open().map_err(text)?;
    let planar = Frame::aligned(64, 64, Fourcc::new(*b"NV12"), 64).map_err(text)?;
    let mut tiled = Frame::packed(64, 64, Fourcc::XRGB8888).map_err(text)?;
    // I915_FORMAT_MOD_X_TILED
    tiled.modifier = 0x0100_0000_0000_0001;
    let wide = Frame::packed(1 << 15, 1, Fourcc::XRGB8888).map_err(text)?;
    for (frame, word) in [(planar, "NV12"), (tiled, "modifier"), (wide, "pixels")] {
        let buffer = buffer(&*heap, &frame)?;
        let message = match card.import(&frame, &[&buffer]) {
            Err(refused @ DrmError::Refused { .. }) => refused.to_string(),
            Err(DrmError::Inexpressible { reason, .. }) if word == "modifier" => {
                ensure(reason.contains(word), || reason.to_owned())?;
                continue;
            }
            // It looks at the memory before.
            Err(refused @ DrmError::Ioctl { .. }) if !driver.imports(Way::DmaHeap) => {
                let message = refused.to_string();
                ensure(message.contains("does not import"), || message.clone())?;
                continue;
            }
            other => return Err(format!("{frame:?}: {other:?}")),
        };
        let advice = message.rsplit(';').next().unwrap_or_default();
        ensure(
            message.contains(&card.to_string()) && (advice.contains(word)),
            || format!("it does not name the {word}: {message}"),
        )?;
    }
    Ok(())
}

fn has_screens_by_name(driver: Driver) -> Verdict {
    let (card, frame) = card(driver)?;
    let screens = card.screens().map_err(text)?;
    // What the card made itself it takes, whatever it imports.
    let own = Dumb::open(card.path()).map_err(text)?;
    let buffer = buffer(&own, &frame)?;
    let framebuffer = card.import(&frame, &[&buffer]).map_err(text)?;
    let name = &screens[0].name;
    let scanout = card
        .show_as(&framebuffer, &Show::new().on(name))
        .map_err(text)?;
    ensure(scanout.screen() == name, || format!("{scanout}"))?;
    drop(scanout);
    match card.show_as(&framebuffer, &Show::new().on("HDMI-A-9")) {
        Err(DrmError::NoSuchScreen { found, .. }) if found.contains(name) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
