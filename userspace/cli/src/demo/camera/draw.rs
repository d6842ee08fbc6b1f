//! Process B: the GPU.

use std::time::{Duration, Instant};

use dmashare::alloc::probe;
use dmashare::buffer::Access;
use dmashare::fence;
use dmashare::frame::Fourcc;
use dmashare::negotiate::{Layout, Picture, Taker, negotiate, sources};
use dmashare::share::Socket;

use super::super::DemoError;
use super::super::report::{Actor, Cpu, Event, Step};
use super::buffers::{Inlet, Outlet, Slot};
use super::cpu;
use super::link::{self, LinkError, Say, Stamp};
use super::painter::{self, Painter};
use super::process::{ProcessOptions, Role, UpStream, or_end, tell};
use super::tally::Tally;
use super::wait::{any_readable, is_readable};

/// One on the screen, one on its way there, one being drawn.
const TARGETS: usize = 3;

/// Draws until process C has ended.
pub(super) fn run(options: &ProcessOptions, socket: Socket) -> Result<(), DemoError> {
    let (size, planes) = match link::receive(&socket) {
        Ok(Say::Takers { size, takers }) => (size, takers),
        Err(error) => return or_end(Err(error)),
        Ok(_) => return or_end(Err(LinkError::Garbled)),
    };
    let started = Instant::now();
    let mut painter = painter::open(options)?;
    tell(Event::Step(Step::done(
        Actor::B,
        "open GPU",
        painter.name(),
        started,
        0,
    )))?;

    let started = Instant::now();
    let targets = allocate(size, &*painter, &planes)?;
    let backend = format!("{} {}", targets[0].0.fourcc, targets[0].1.name());
    let bytes = targets[0].1.size();
    tell(Event::Step(Step::done(
        Actor::B,
        "negotiate and allocate",
        backend,
        started,
        bytes,
    )))?;

    let up_options = ProcessOptions {
        role: Role::Capture,
        ..options.clone()
    };
    let (up, up_socket) = UpStream::start(&up_options, false)?;
    let texture = Say::Takers {
        size,
        takers: vec![painter.reads()?],
    };
    let opened =
        link::send(&up_socket, &texture).and_then(|()| Inlet::open(up_socket, options.copy));
    let inlet = match opened {
        // Process A says why itself.
        Err(error) if error.is_end() => return up.end(None),
        Err(error) => return or_end(Err(error)),
        Ok(inlet) => inlet,
    };
    let started = Instant::now();
    painter.import(inlet.slots(), inlet.colors(), &targets)?;
    tell(Event::Step(Step::done(
        Actor::B,
        "import",
        painter.name(),
        started,
        0,
    )))?;
    let outlet = match Outlet::open(socket, targets, Default::default(), options.copy) {
        Err(error) if error.is_end() => return Ok(()),
        other => other.map_err(DemoError::at("pass on"))?,
    };
    let mut work = Work {
        inlet,
        outlet,
        painter,
        newest: None,
        came: Tally::new(Actor::B, "A to B"),
        drawn: Tally::new(Actor::B, "draw"),
        before: None,
    };
    or_end(work.run())?;
    tell(Event::Hop(work.came.hop(options.copy)))?;
    tell(Event::Hop(work.drawn.hop(options.copy)))?;
    let spent = cpu::of_process().saturating_sub(work.before.unwrap_or_default());
    tell(Event::Cpu(Cpu::new("B", options.copy, spent)))?;
    // It closes the socket to process A.
    drop(work);
    up.end(None)
}

/// Buffers that the GPU draws into, and the screen takes.
fn allocate(
    size: (u32, u32),
    painter: &dyn Painter,
    planes: &[Taker],
) -> Result<Vec<Slot>, DemoError> {
    // Process C looks at the last one in the end, and knows no other format.
    let mut check = Taker::new("process C, to check it");
    check.layouts = Some([Layout::linear(Fourcc::XRGB8888)].into());
    let all: Vec<Taker> = [painter.draws()?, check]
        .into_iter()
        .chain(planes.iter().cloned())
        .collect();
    let plan = negotiate(&Picture::new(size.0, size.1), &all, &sources(&probe()))
        .map_err(DemoError::at("negotiate with the screen"))?;
    let frame = plan.frame.clone();
    let frame = frame.ok_or_else(|| DemoError::at("negotiate with the screen")("no layout"))?;
    let slots = (0..TARGETS).map(|_| Ok((frame.clone(), plan.allocate()?)));
    slots
        .collect::<Result<Vec<_>, dmashare::negotiate::PlanError>>()
        .map_err(DemoError::at("allocate"))
}

/// Frames in at one end, and out at the other.
struct Work {
    inlet: Inlet,
    outlet: Outlet,
    painter: Box<dyn Painter>,
    /// The frame to draw next: of those that came, the last.
    newest: Option<Stamp>,
    came: Tally,
    drawn: Tally,
    /// What the CPU had done for this process when the first frame was drawn,
    /// shaders compiled and all.
    before: Option<Duration>,
}

impl Work {
    fn run(&mut self) -> Result<(), LinkError> {
        loop {
            any_readable(&[self.inlet.socket(), self.outlet.socket()], None)?;
            while is_readable(self.outlet.socket())? {
                self.outlet.freed()?;
            }
            self.newest = self.inlet.newest(self.newest, &mut self.came)?;
            if let (Some(stamp), Some(target)) = (self.newest, self.outlet.free_slot()) {
                self.newest = None;
                self.draw(stamp, target)?;
            }
        }
    }

    fn draw(&mut self, stamp: Stamp, target: usize) -> Result<(), LinkError> {
        let begun = fence::now();
        self.inlet.take(&stamp)?;
        if let Some(fence) = self.painter.draw(stamp.slot, target)? {
            // Whoever gets them next finds it there: the camera waits for the
            // GPU to have read, the screen for it to have drawn.
            let of = |buffer, access| {
                let imported = fence.import_into(buffer, access);
                imported.map_err(LinkError::at("fence"))
            };
            of(&self.inlet.slots()[stamp.slot].1, Access::Read)?;
            of(&self.outlet.slots()[target].1, Access::Write)?;
        }
        self.inlet.free(stamp.slot, true)?;
        self.outlet.send(Stamp {
            slot: target,
            ..stamp
        })?;
        if self.before.is_none() {
            self.before = Some(cpu::of_process());
        } else {
            self.drawn.count(fence::now().saturating_sub(begun));
        }
        Ok(())
    }
}
