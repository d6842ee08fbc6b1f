//! Process A: the camera.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use dmashare::alloc::probe;
use dmashare::fence;
use dmashare::frame::Fourcc;
use dmashare::import::v4l2::{
    Control, Device, Interval, Queue, Range, Stream, V4l2Error, YuvEncoding,
};
use dmashare::negotiate::{Picture, Taker, negotiate, sources};
use dmashare::share::Socket;

use super::super::DemoError;
use super::super::report::{Actor, Cpu, Event, Step};
use super::bars::Pattern;
use super::buffers::{Outlet, Slot};
use super::cpu;
use super::link::{self, Colors, LinkError, Say, Shows, Stamp};
use super::process::{self, ProcessOptions, or_end, tell};
use super::tally::Tally;
use super::wait::{any_readable, is_readable};

/// Frames a second.
const RATE: u32 = 25;

/// How many frames are on their way at once.
const SLOTS: usize = 4;

/// How long the camera may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after it was told so a camera shows another pattern for sure.
const SWITCHED: Duration = Duration::from_millis(300);

/// Captures until process B has ended.
pub(super) fn run(options: &ProcessOptions, socket: Socket) -> Result<(), DemoError> {
    let takers = match link::receive(&socket) {
        Ok(Say::Takers { takers, .. }) => takers,
        Err(error) => return or_end(Err(error)),
        Ok(_) => return or_end(Err(LinkError::Garbled)),
    };
    let started = Instant::now();
    let (device, queue) = find(options).map_err(DemoError::at("find a camera"))?;
    let (slots, colors) = allocate(&queue, options.size, &takers)?;
    let bytes = slots[0].1.size();
    let backend = format!("V4L2 {device}, {}", in_words(&slots[0]));
    tell(Event::Step(Step::done(
        Actor::A,
        "negotiate and allocate",
        backend,
        started,
        bytes,
    )))?;

    let ours = slots
        .iter()
        .map(|(_, buffer)| Ok(vec![buffer.try_clone()?]));
    let ours = ours.collect::<Result<Vec<_>, dmashare::buffer::BufferError>>();
    let ours = ours.map_err(DemoError::at("capture"))?;
    let mut stream = queue.stream(ours).map_err(DemoError::at("capture"))?;
    let mut outlet = match Outlet::open(socket, slots, colors, options.copy) {
        Err(error) if error.is_end() => return Ok(()),
        other => other.map_err(DemoError::at("pass on"))?,
    };
    let mut patterns = Patterns::new(&device, options.seconds)?;
    for slot in 0..stream.slots() {
        stream.queue(slot, None).map_err(DemoError::at("capture"))?;
    }
    stream.start().map_err(DemoError::at("capture"))?;

    let mut captured = Tally::new(Actor::A, "camera to A");
    let mut last = None;
    let mut before = None;
    loop {
        wait(&outlet, &stream)?;
        if is_readable(outlet.socket())? {
            match outlet.freed() {
                Ok((slot, used)) => {
                    if used {
                        // From the first that was drawn on all is under way.
                        before.get_or_insert_with(cpu::of_process);
                        patterns.begin();
                    }
                    stream
                        .queue(slot, Some(process::PATIENCE))
                        .map_err(DemoError::at("capture"))?;
                }
                Err(error) => {
                    or_end(Err(error))?;
                    break;
                }
            }
        }
        let filled = match stream.dequeue(Some(Duration::ZERO)) {
            Ok(filled) => filled,
            Err(V4l2Error::Timeout { .. } | V4l2Error::Idle { .. }) => continue,
            Err(error) => return Err(DemoError::at("capture")(error)),
        };
        // vivid says when the picture will have been taken.
        captured.count(fence::now().saturating_sub(filled.time));
        if let Some(last) = last.replace(filled.sequence) {
            captured.drop(filled.sequence.saturating_sub(last).saturating_sub(1));
        }
        if filled.damaged {
            captured.drop(1);
            let again = stream.queue(filled.slot, None);
            again.map_err(DemoError::at("capture"))?;
            continue;
        }
        let sent = outlet.send(Stamp {
            slot: filled.slot,
            sequence: filled.sequence,
            shows: patterns.of(filled.time)?,
            captured: filled.time,
            sent: Duration::ZERO,
        });
        if let Err(error) = sent {
            or_end(Err(error))?;
            break;
        }
    }
    tell(Event::Hop(captured.hop(options.copy)))?;
    let spent = cpu::of_process().saturating_sub(before.unwrap_or_default());
    tell(Event::Cpu(Cpu::new("A", options.copy, spent)))
}

/// Until there is a frame, or a message of process B.
fn wait(outlet: &Outlet, stream: &Stream) -> Result<(), DemoError> {
    let mut these: Vec<&dyn AsFd> = vec![outlet.socket()];
    // It has an error to tell where it was given nothing to fill.
    let fills = (0..stream.slots()).any(|slot| stream.is_queued(slot));
    if fills {
        these.push(stream);
    }
    // A camera without a buffer waits for B as long as that takes.
    match any_readable(&these, fills.then_some(PATIENCE))? {
        true => Ok(()),
        false => Err(DemoError::at("capture")(format!(
            "the camera has given no frame for {} s; does anything else use it?",
            PATIENCE.as_secs()
        ))),
    }
}

/// The camera that was named, or the first that captures.
fn find(options: &ProcessOptions) -> Result<(Device, Queue), V4l2Error> {
    if let Some(node) = &options.video {
        let device = Device::open(node)?;
        let queue = device.capture()?;
        return Ok((device, queue));
    }
    let mut first = None;
    for node in Device::nodes()? {
        match Device::open(&node).and_then(|device| Ok((device.capture()?, device))) {
            Ok((queue, device)) => return Ok((device, queue)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    match first {
        Some(error) => Err(error),
        // It says what to do where there is none.
        None => {
            Device::find("vivid", "").and_then(|device| Ok((device.clone(), device.capture()?)))
        }
    }
}

/// Buffers that the camera fills and all of these take.
fn allocate(
    queue: &Queue,
    (width, height): (u32, u32),
    takers: &[Taker],
) -> Result<(Vec<Slot>, Colors), DemoError> {
    let camera = queue.taker().map_err(DemoError::at("ask the camera"))?;
    let all: Vec<Taker> = std::iter::once(camera)
        .chain(takers.iter().cloned())
        .collect();
    // As a camera gives it, for the GPU to have something to convert.
    let picture = Picture::new(width, height)
        .prefer(Fourcc::new(*b"YUYV"))
        .prefer(Fourcc::new(*b"NV12"));
    let plan = negotiate(&picture, &all, &sources(&probe()))
        .map_err(DemoError::at("negotiate with the GPU"))?;
    let frame = plan.frame.clone();
    let frame = frame.ok_or_else(|| DemoError::at("negotiate with the GPU")("no layout"))?;
    let format = queue.set_frame(&frame).map_err(DemoError::at("capture"))?;
    // As fast as people watch; a camera that cannot takes what is next.
    let interval = queue.set_interval(Interval {
        numerator: 1,
        denominator: RATE,
    });
    interval.map_err(DemoError::at("capture"))?;
    let slots = (0..SLOTS).map(|_| Ok((frame.clone(), plan.allocate()?)));
    let slots = slots
        .collect::<Result<Vec<_>, dmashare::negotiate::PlanError>>()
        .map_err(DemoError::at("allocate"))?;
    let colors = Colors {
        bt709: format.encoding == YuvEncoding::Bt709,
        full: format.range == Range::Full,
    };
    Ok((slots, colors))
}

fn in_words((frame, buffer): &Slot) -> String {
    format!(
        "{}x{} {} in {SLOTS} of {}",
        frame.width,
        frame.height,
        frame.fourcc,
        buffer.name()
    )
}

/// What the camera is told to show: one test pattern in the first half of the
/// time, another in the second. A screen that stands still shows the first for
/// ever.
struct Patterns {
    device: Device,
    /// `None` for a camera that has something to look at.
    control: Option<Control>,
    /// What was set, and its value before.
    before: Vec<(Control, i64)>,
    half: Duration,
    /// Since when it shows which.
    begun: Option<Duration>,
    switched: Option<Duration>,
}

impl Patterns {
    fn new(device: &Device, seconds: u32) -> Result<Patterns, DemoError> {
        let control = device.control("Test Pattern").ok();
        let mut patterns = Patterns {
            device: device.clone(),
            control: control.filter(|_| device.driver() == "vivid"),
            before: Vec::new(),
            half: Duration::from_secs(seconds.into()) / 2,
            begun: None,
            switched: None,
        };
        let Some(control) = patterns.control.clone() else {
            return Ok(patterns);
        };
        let failed = |error| DemoError::at("capture")(error);
        // No words over the picture: the last value.
        let words = device.control("OSD Text Mode").map_err(failed)?;
        for control in [&words, &control] {
            let value = device.get_control(control).map_err(failed)?;
            patterns.before.push((control.clone(), value));
        }
        device.set_control(&words, words.maximum).map_err(failed)?;
        patterns.set(Pattern::ThreeQuarters)?;
        Ok(patterns)
    }

    fn set(&self, pattern: Pattern) -> Result<(), DemoError> {
        match &self.control {
            Some(control) => self
                .device
                .set_control(control, pattern.number().into())
                .map_err(DemoError::at("capture")),
            None => Ok(()),
        }
    }

    /// The time runs from now on, if it does not yet.
    fn begin(&mut self) {
        self.begun.get_or_insert_with(fence::now);
    }

    /// What a frame of this time shows. When it is time it has the camera show
    /// the other pattern.
    fn of(&mut self, captured: Duration) -> Result<Shows, DemoError> {
        if self.control.is_none() {
            return Ok(Shows::Something);
        }
        let half_over = self
            .begun
            .is_some_and(|begun| fence::now() >= begun + self.half);
        if half_over && self.switched.is_none() {
            self.set(Pattern::Full)?;
            self.switched = Some(fence::now());
        }
        Ok(match self.switched {
            None => Shows::Pattern(Pattern::ThreeQuarters),
            Some(switched) if captured > switched + SWITCHED => Shows::Pattern(Pattern::Full),
            Some(_) => Shows::Either,
        })
    }
}

/// The camera shows what it did before.
impl Drop for Patterns {
    fn drop(&mut self) {
        for (control, value) in &self.before {
            // It fails only where the camera is gone.
            let _ = self.device.set_control(control, *value);
        }
    }
}
