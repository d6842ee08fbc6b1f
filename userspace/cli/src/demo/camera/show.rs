//! Process C: the screen, and the one that tells what became of all.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use dmashare::buffer::Access;
use dmashare::fence::{self, Fence};
use dmashare::import::drm::{Card, DrmError, Framebuffer, PlaneKind, Scanout};
use dmashare::negotiate::{Memory, Taker};

use super::super::report::{Actor, Cpu, Event, Report, Step};
use super::super::target::Target;
use super::super::{DemoError, scene, screen};
use super::bars::{self, Pattern};
use super::buffers::{Inlet, each};
use super::link::{self, LinkError, Say, Shows, Stamp};
use super::process::{PATIENCE, ProcessOptions, Role, UpStream, or_end};
use super::tally::Tally;
use super::wait::any_readable;
use super::{Options, cpu};

/// After how many frames of a pattern the screen is taken to show it.
const SURE: u32 = 3;

pub(super) fn run(
    options: &Options,
    card: Option<&Path>,
    hold: bool,
    copy: bool,
    report: &mut Report,
) -> Result<(), DemoError> {
    let (card, size, plane) = find(card, options.size)?;
    let up_options = ProcessOptions {
        role: Role::Draw,
        parent: 0,
        seconds: options.seconds,
        size: options.size,
        vulkan: options.vulkan,
        copy,
        video: options.video.clone(),
        device: options.device.clone(),
    };
    let (up, socket) = UpStream::start(&up_options, true)?;
    let takers = Say::Takers {
        size,
        takers: vec![plane],
    };
    let opened = link::send(&socket, &takers).and_then(|()| Inlet::open(socket, copy));
    let inlet = match opened {
        // Who ended says why.
        Err(error) if error.is_end() => return up.end(Some(report)).and(Err(DemoError::NoFrames)),
        Err(error) => return or_end(Err(error)),
        Ok(inlet) => inlet,
    };
    let started = Instant::now();
    let framebuffers = each(inlet.slots(), "import as framebuffer", |(frame, buffer)| {
        card.import(frame, &[buffer])
    })?;
    let import = Step::done(
        Actor::C,
        "import as framebuffers",
        format!("KMS {card}"),
        started,
        inlet.slots()[0].1.size(),
    );
    let mut show = Show {
        card,
        camera: options.size,
        hold,
        framebuffers,
        inlet,
        scanout: None,
        last: None,
        times: None,
        steps: vec![import],
        came: Tally::new(Actor::C, "B to C"),
        flipped: Tally::new(Actor::C, "flip"),
        whole: Tally::new(Actor::C, "camera to screen"),
        shows: (Shows::Something, 0),
        seen: Vec::new(),
    };
    let end = show.run(Duration::from_secs(options.seconds.into()), report);
    let told = show.told(copy);
    drop(show);
    // An error of this process is the first there was; who does not answer is not
    // waited for.
    or_end(end)?;
    // What they tell comes before what this process does, as the frames did.
    up.end(Some(report))?;
    for event in told? {
        report.tell(event)?;
    }
    Ok(())
}

/// The first card that imports and has a screen, the size to show frames in, and
/// what its plane takes.
fn find(wanted: Option<&Path>, camera: (u32, u32)) -> Result<(Card, (u32, u32), Taker), DemoError> {
    let no_screen = |reason: String| DemoError::NoScreen(reason);
    let nodes = match wanted {
        Some(node) => vec![node.to_owned()],
        None => Card::nodes().map_err(|error| no_screen(error.to_string()))?,
    };
    let mut reasons = Vec::new();
    for node in nodes {
        match look_at(&node, camera) {
            Ok(found) => return Ok(found),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(no_screen(match reasons.is_empty() {
        true => "there is no card under /dev/dri; load its driver with modprobe".to_owned(),
        false => reasons.join("; "),
    }))
}

fn look_at(node: &Path, camera: (u32, u32)) -> Result<(Card, (u32, u32), Taker), String> {
    let text = |error: DrmError| error.to_string();
    let card = Card::open(node).map_err(text)?;
    let screens = card.screens().map_err(text)?;
    let modes = screens
        .iter()
        .filter(|screen| screen.connected)
        .flat_map(|screen| &screen.modes);
    let sizes = modes.map(|mode| (u32::from(mode.width), u32::from(mode.height)));
    // The smallest that does: every pixel is drawn, and that by the CPU where
    // there is no GPU.
    let fits = |&(width, height): &(u32, u32)| width >= camera.0 && height >= camera.1;
    let size = sizes
        .filter(fits)
        .min_by_key(|(width, height)| width * height);
    let size = size.ok_or_else(|| {
        let (width, height) = camera;
        format!("{card} has no connected screen of {width}x{height} pixels or more")
    })?;
    let takers = card.takers().map_err(text)?.into_iter();
    let mut primary = takers.filter(|(plane, _)| plane.kind == PlaneKind::Primary);
    let (_, plane) = primary
        .next()
        .ok_or_else(|| format!("{card} has no primary plane"))?;
    match plane.memory {
        Memory::Own { why, .. } => Err(why),
        _ => Ok((card, size, plane)),
    }
}

/// The screen, and what came to it.
struct Show {
    card: Card,
    /// The size of the camera's frames.
    camera: (u32, u32),
    /// Whether the screen waits for a line on standard input when there is another
    /// pattern on it, for who looks at it.
    hold: bool,
    framebuffers: Vec<Framebuffer>,
    inlet: Inlet,
    scanout: Option<Scanout>,
    /// What is on the screen, and since when.
    last: Option<(Stamp, Duration)>,
    /// When the first frame was shown: the time, and the CPU's of this process
    /// and of the machine.
    times: Option<(Duration, Duration, Option<Duration>)>,
    steps: Vec<Step>,
    came: Tally,
    flipped: Tally,
    whole: Tally,
    /// What the last frames show, and how many of them.
    shows: (Shows, u32),
    /// The patterns that were told to be on the screen.
    seen: Vec<Pattern>,
}

impl Show {
    /// Shows what comes until the time is over.
    fn run(&mut self, time: Duration, report: &mut Report) -> Result<(), LinkError> {
        let mut progress = Progress::new();
        while self
            .times
            .is_none_or(|(begun, ..)| fence::now() < begun + time)
        {
            let Some(stamp) = self.next()? else {
                return Err(DemoError::NoFrames.into());
            };
            self.show(stamp)?;
            self.tell_pattern(&stamp, report)?;
            progress.tell(self.flipped.frames() + 1);
        }
        Ok(())
    }

    /// The newest frame that has come, once there is one; `None` after a long wait.
    fn next(&mut self) -> Result<Option<Stamp>, LinkError> {
        any_readable(&[self.inlet.socket()], Some(PATIENCE))?;
        self.inlet.newest(None, &mut self.came)
    }

    fn show(&mut self, stamp: Stamp) -> Result<(), LinkError> {
        self.inlet.take(&stamp)?;
        let framebuffer = &self.framebuffers[stamp.slot];
        let begun = fence::now();
        match &mut self.scanout {
            None => {
                let started = Instant::now();
                let scanout = self.card.show(framebuffer);
                let scanout = scanout.map_err(DemoError::at("scan out"))?;
                let backend = format!("KMS {} {scanout}", self.card);
                let bytes = self.inlet.slots()[stamp.slot].1.size();
                let step = Step::done(Actor::C, "scan out", backend, started, bytes);
                let (copies, by) = screen::copies(self.card.driver());
                self.steps.push(step.copies(copies, by));
                self.scanout = Some(scanout);
            }
            Some(scanout) => {
                // What draws it, where that is under way still. A kernel that
                // gives no fences has the driver wait for them.
                let drawn = Fence::export(&self.inlet.slots()[stamp.slot].1, Access::Read).ok();
                let flip = scanout.flip(framebuffer, drawn.as_ref());
                let flip = flip.map_err(DemoError::at("flip"))?;
                flip.wait(Some(PATIENCE)).map_err(DemoError::at("flip"))?;
            }
        }
        let now = fence::now();
        match self.last.replace((stamp, now)) {
            None => self.times = Some((now, cpu::of_process(), cpu::of_machine())),
            Some((before, at)) => {
                self.flipped.count(now.saturating_sub(begun));
                self.whole.count(now.saturating_sub(stamp.captured));
                // As far apart as the camera took them, or half a frame of 25 a
                // second more.
                let apart = stamp.captured.saturating_sub(before.captured);
                let late = now.saturating_sub(at) > apart + Duration::from_millis(20);
                self.whole.lateness(late);
                self.inlet.free(before.slot, true)?;
            }
        }
        Ok(())
    }

    /// Tells that the screen shows another pattern, once it surely does.
    fn tell_pattern(&mut self, stamp: &Stamp, report: &mut Report) -> Result<(), DemoError> {
        if stamp.shows != self.shows.0 {
            self.shows = (stamp.shows, 0);
        }
        self.shows.1 += 1;
        if let (Shows::Pattern(pattern), SURE) = self.shows {
            self.seen.push(pattern);
            let (frame, _) = &self.inlet.slots()[stamp.slot];
            report.tell(Event::Pattern {
                pattern: pattern.number(),
                width: frame.width,
                height: frame.height,
            })?;
            if self.hold {
                io::stdin().read_line(&mut String::new())?;
            }
        }
        Ok(())
    }

    /// What there is to tell at the end, while the last frame is still there.
    fn told(&self, copy: bool) -> Result<Vec<Event>, DemoError> {
        let Some((_, process, machine)) = self.times else {
            return Err(DemoError::NoFrames);
        };
        let spent = cpu::of_process().saturating_sub(process);
        let machine = machine.and_then(|before| Some(cpu::of_machine()?.saturating_sub(before)));
        let tallies = [&self.came, &self.flipped, &self.whole];
        let mut told: Vec<Event> = self.steps.iter().cloned().map(Event::Step).collect();
        told.extend(tallies.map(|tally| Event::Hop(tally.hop(copy))));
        told.push(Event::Cpu(Cpu::new("C", copy, spent)));
        told.extend(machine.map(|spent| Event::Cpu(Cpu::new("machine", copy, spent))));
        told.push(Event::Verdict {
            verified: format!("{} frames; {}", self.flipped.frames() + 1, self.check()?),
        });
        Ok(told)
    }

    /// Whether the frames were what the camera was told to show, in words. Only
    /// now, when all is done, does the CPU look at one.
    fn check(&self) -> Result<&'static str, DemoError> {
        let (stamp, _) = self.last.ok_or(DemoError::NoFrames)?;
        let Shows::Pattern(pattern) = stamp.shows else {
            return Ok("what the camera saw, nobody can check");
        };
        // Of a screen that stands still there is one only.
        if self.seen.len() < Pattern::ALL.len() {
            return Err(DemoError::Patterns(self.seen.len()));
        }
        let (frame, buffer) = &self.inlet.slots()[stamp.slot];
        let got = Target::picture_of(frame, buffer).map_err(DemoError::at("check"))?;
        let bars = pattern.picture(self.camera.0, self.camera.1);
        let expected = scene::expected(&bars, got.dimensions());
        bars::compare(&got, &expected).map_err(DemoError::at("check"))?;
        Ok("they changed with the camera's test pattern, and the last is what it is to be")
    }
}

/// A line on a terminal, once a second.
struct Progress {
    begun: Instant,
    told: u64,
    shown: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress {
            begun: Instant::now(),
            told: 0,
            shown: io::stderr().is_terminal(),
        }
    }

    fn tell(&mut self, frames: u32) {
        let seconds = self.begun.elapsed().as_secs();
        if self.shown && seconds > self.told {
            self.told = seconds;
            eprint!("\rdmashare: {frames} frames in {seconds} s ");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.told > 0 {
            eprintln!();
        }
    }
}
