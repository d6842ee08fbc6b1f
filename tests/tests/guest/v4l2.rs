//! Cameras and outputs driven by the crate, into and out of the dma-bufs of
//! every way: vivid, the kernel's virtual one.
//!
//! What a picture is to be, the C program of [`vivid`](crate::vivid) says.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dmashare::alloc::{Allocate, Memfd, Module, Request, Way, probe};
use dmashare::buffer::{Access, Buffer};
use dmashare::fence::{self, FenceError};
use dmashare::frame::{Fourcc, Frame};
use dmashare::import::HandleError;
use dmashare::import::v4l2::{
    Capabilities, Clock, Control, Device, Direction, Field, Filled, Interval, Offer, PixelFormat,
    Queue, Sizes, Stream, V4l2Error, Wanted,
};
use dmashare::negotiate::{Layout, Memory, Reach};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;

use crate::kms::dumb_is_in_ram;
use crate::vgem::{Job, Vgem};
use crate::vivid::{
    BY_CPU, CONTIGUOUS, HEIGHT, WIDTH, checksum, for_contiguous, memory_beyond_32_bits,
    own_picture, shows_colour_bars,
};
use crate::{ensure, skipped, test, text};

/// A camera and an output, whose frames can lie in several buffers.
const MULTIPLANAR: &str = "platform:vivid-002";
/// A camera and an output, whose frames lie in one.
const SINGLE_PLANAR: &str = "platform:vivid-003";

const SLOTS: usize = 3;
/// Each slot comes twice.
const FRAMES: usize = 2 * SLOTS;

/// Under emulation a frame takes its time.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(5));

pub(crate) fn trials_of(way: &Arc<dyn Allocate>) -> Vec<Trial> {
    // vivid maps what it imports; a card's own memory is not for it.
    if way.way() == Way::Dumb && !dumb_is_in_ram() {
        return Vec::new();
    }
    let trial = |check: &str, run: fn(&dyn Allocate) -> Verdict| {
        let name = format!("{}::{check}", way.way());
        let way = Arc::clone(way);
        test(&name, move || run(&*way))
    };
    vec![
        trial("v4l2_captures", captures),
        trial("v4l2_keeps_to_a_wide_stride", keeps_to_a_wide_stride),
        trial("v4l2_puts_out", puts_out),
        trial("v4l2_replaces_buffers", replaces_buffers),
        trial("v4l2_leaks_nothing", leaks_nothing),
        trial("v4l2_of_a_killed_process_lets_go", of_a_killed_process),
    ]
}

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("v4l2::devices_are_found_by_name", are_found_by_name),
        test("v4l2::a_node_has_its_queues_only", has_its_queues_only),
        test("v4l2::lists_formats_and_sizes", lists_formats_and_sizes),
        test("v4l2::formats_are_the_drivers", formats_are_the_drivers),
        test("v4l2::a_frame_is_taken_as_it_is", taken_as_it_is),
        test("v4l2::what_differs_is_named", what_differs_is_named),
        test("v4l2::controls_are_numbers", controls_are_numbers),
        test("v4l2::an_interval_is_kept", an_interval_is_kept),
        test("v4l2::exports_its_own", exports_its_own),
        test("v4l2::planes_in_one_buffer_and_in_two", in_one_and_in_two),
        test("v4l2::a_header_is_before_the_frame", header_is_before),
        test("v4l2::bad_buffers_are_named", bad_buffers_are_named),
        test("v4l2::slots_go_by_turns", slots_go_by_turns),
        test("v4l2::a_queue_has_one_stream", has_one_stream),
        test("v4l2::no_frame_in_time_is_told", no_frame_in_time),
        test("v4l2::takers_say_what_they_take", takers_say),
        test("v4l2::lost_source_is_reported", lost_source_is_reported),
        test("v4l2::put_out_is_captured", || {
            put_out_is_captured(SINGLE_PLANAR, 1)
        }),
        test("v4l2::put_out_is_captured_of_two_buffers", || {
            put_out_is_captured(MULTIPLANAR, 2)
        }),
    ];
    let contiguous = [
        (
            "v4l2::takes_contiguous_memory",
            takes_contiguous as fn() -> Verdict,
        ),
        ("v4l2::waits_for_fences", waits_for_fences),
    ];
    trials.extend(
        contiguous.map(|(name, check)| match &probe().row(Way::Module).verdict {
            Ok(_) => test(name, check),
            Err(reason) => skipped(name, reason),
        }),
    );
    let name = "v4l2::scattered_memory_is_named";
    trials.push(match memory_beyond_32_bits() {
        Ok(false) => test(name, scattered_is_named),
        Ok(true) => skipped(
            name,
            "with memory beyond 32 bits, bounce buffers may put pages in a row; take 2 GiB",
        ),
        Err(error) => test(name, || Err(error)),
    });
    trials
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Verdict {
    ensure(found == expected, || {
        format!("{what}: {found:?}, expected {expected:?}")
    })
}

/// A way that devices take buffers of.
fn any_way() -> Result<Box<dyn Allocate>, String> {
    let ways = [Way::Udmabuf, Way::DmaHeap, Way::Module];
    let mut usable = ways
        .into_iter()
        .filter(|way| probe().row(*way).verdict.is_ok());
    let way = usable.next().ok_or("no way makes dma-bufs")?;
    way.open().map_err(text)
}

fn size(pixels: usize) -> u32 {
    u32::try_from(pixels).expect("a size of pixels")
}

/// As much as the C program asks for.
fn wanted() -> Wanted {
    Wanted::new(size(WIDTH), size(HEIGHT), Fourcc::XRGB8888)
}

/// The camera at this place, its picture without a clock.
fn camera(place: &str) -> Result<Queue, String> {
    let camera = Device::find_with("vivid", place, capture_at(place)).map_err(text)?;
    camera.set_input(0).map_err(text)?;
    without_text(&camera)?;
    camera.capture().map_err(text)
}

fn capture_at(place: &str) -> Capabilities {
    match place {
        MULTIPLANAR => Capabilities::CAPTURE_MPLANE,
        _ => Capabilities::CAPTURE,
    }
}

fn output_at(place: &str) -> Capabilities {
    match place {
        MULTIPLANAR => Capabilities::OUTPUT_MPLANE,
        _ => Capabilities::OUTPUT,
    }
}

fn without_text(camera: &Device) -> Verdict {
    let clock = camera.control("OSD Text Mode").map_err(text)?;
    camera.set_control(&clock, clock.maximum).map_err(text)
}

/// Buffers for frames of the queue's format.
fn buffers_for(
    way: &dyn Allocate,
    queue: &Queue,
    slots: usize,
) -> Result<Vec<Vec<Buffer>>, String> {
    let format = queue.format().map_err(text)?;
    let allocate = |size: &u64| {
        let request = Request::new(*size).named("v4l2 test").for_device();
        way.allocate(&request).map_err(text)
    };
    let slot = |_| format.sizes.iter().map(allocate).collect();
    (0..slots).map(slot).collect()
}

fn queue_all<B: std::borrow::Borrow<Buffer>>(stream: &mut Stream<B>) -> Verdict {
    (0..stream.slots()).try_for_each(|slot| stream.queue(slot, PATIENCE).map_err(text))
}

/// So many frames, and that they come in order and in time.
fn take<B: std::borrow::Borrow<Buffer>>(
    stream: &mut Stream<B>,
    count: usize,
) -> Result<Vec<Filled>, String> {
    let begun = fence::now();
    let mut frames: Vec<Filled> = Vec::new();
    let mut unstamped = 0;
    while frames.len() < count {
        let filled = stream.dequeue(PATIENCE).map_err(text)?;
        // vivid hands a frame over and stamps it then: who is quick has the stamp
        // that the slot had before, and once at most in so few frames.
        let before = frames.iter().rfind(|frame| frame.slot == filled.slot);
        let stale = before.map_or(Duration::ZERO, |frame| frame.time);
        if filled.time == stale && unstamped == 0 {
            unstamped += 1;
            stream.queue(filled.slot, PATIENCE).map_err(text)?;
            continue;
        }
        let in_order = frames
            .last()
            .is_none_or(|last| filled.sequence > last.sequence && filled.time > last.time);
        ensure(in_order && filled.clock == Clock::Monotonic, || {
            format!("{filled:?} after {frames:?}")
        })?;
        // vivid gives a frame at once, and stamps it with when its last row would
        // have come: nearly an interval later. And it has begun before.
        let interval = Duration::from_secs(1);
        let times = begun.saturating_sub(interval)..=fence::now() + interval;
        ensure(times.contains(&filled.time), || {
            format!("{filled:?}, begun at {begun:?}, now {:?}", fence::now())
        })?;
        ensure(!filled.damaged && filled.field == Field::None, || {
            format!("{filled:?}")
        })?;
        stream.queue(filled.slot, PATIENCE).map_err(text)?;
        frames.push(filled);
    }
    Ok(frames)
}

/// The pixels of all planes of a frame, one after the other, without padding.
fn read<B: std::borrow::Borrow<Buffer>>(frame: &Frame, buffers: &[B]) -> Result<Vec<u8>, String> {
    let mut pixels = Vec::new();
    for (plane, place) in frame.planes.iter().enumerate() {
        let rows = frame.rows(plane).map_err(text)?;
        let buffer: &Buffer = buffers[usize::from(place.buffer)].borrow();
        let mut mapping = buffer.map(Access::Read).map_err(text)?;
        let guard = mapping.access(Access::Read).map_err(text)?;
        let begin = pixels.len();
        pixels.resize(begin + usize::try_from(rows.bytes()).map_err(text)?, 0);
        guard.read_rows(rows, &mut pixels[begin..]).map_err(text)?;
        guard.finish().map_err(text)?;
    }
    Ok(pixels)
}

fn write(frame: &Frame, buffers: &[Buffer], mut pixels: &[u8]) -> Verdict {
    for (plane, place) in frame.planes.iter().enumerate() {
        let rows = frame.rows(plane).map_err(text)?;
        let mut mapping = buffers[usize::from(place.buffer)]
            .map(Access::Write)
            .map_err(text)?;
        let mut guard = mapping.access(Access::Write).map_err(text)?;
        let (these, others) = pixels.split_at(usize::try_from(rows.bytes()).map_err(text)?);
        guard.write_rows(rows, these).map_err(text)?;
        guard.finish().map_err(text)?;
        pixels = others;
    }
    Ok(())
}

fn fill(buffer: &Buffer, byte: u8) -> Verdict {
    let mut mapping = buffer.map(Access::Write).map_err(text)?;
    let mut guard = mapping.access(Access::Write).map_err(text)?;
    guard.fill(byte).map_err(text)?;
    guard.finish().map_err(text)
}

/// The camera's frames are in the buffers, the same as in its own memory; and it
/// lets the buffers go.
fn captures(way: &dyn Allocate) -> Verdict {
    let expected = own_picture(BY_CPU)?;
    let camera = camera(BY_CPU)?;
    let format = camera.set_format(&wanted()).map_err(text)?;
    equal(
        "sizes",
        &format.sizes[..],
        &[WIDTH as u64 * HEIGHT as u64 * 4],
    )?;
    let slots = buffers_for(way, &camera, SLOTS)?;
    let buffers: Vec<&Buffer> = slots.iter().flatten().collect();
    let held = || {
        buffers
            .iter()
            .map(|buffer| held::of_dma_buf(buffer))
            .collect()
    };
    let before: Vec<u64> = held()?;

    let mut stream = camera
        .stream(buffers.iter().map(|buffer| vec![*buffer]).collect())
        .map_err(text)?;
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    let frames = take(&mut stream, FRAMES)?;
    stream.stop().map_err(text)?;
    for frame in &frames {
        equal("bytes", &frame.bytes[..], &[size(WIDTH * HEIGHT * 4)])?;
        equal("frame", &frame.frame, &format.frame)?;
    }
    for (slot, buffer) in buffers.iter().enumerate() {
        let came = frames.iter().any(|frame| frame.slot == slot);
        ensure(came, || {
            format!("nothing came into slot {slot}: {frames:?}")
        })?;
        let pixels = read(&format.frame, &[*buffer])?;
        equal("checksum", checksum(&pixels), expected)?;
        shows_colour_bars(&pixels)?;
    }
    drop(stream);
    held::comes_back_to(before, held)
}

/// Rows lie where the wide stride has them, and nothing is written between.
fn keeps_to_a_wide_stride(way: &dyn Allocate) -> Verdict {
    let camera = camera(BY_CPU)?;
    let packed = camera.set_format(&wanted()).map_err(text)?;
    equal("stride", packed.frame.planes[0].stride, size(WIDTH * 4))?;
    let stride = size(WIDTH * 4 + 192);
    let format = camera.set_format(&wanted().stride(stride)).map_err(text)?;
    equal("stride", format.frame.planes[0].stride, stride)?;
    equal(
        "sizes",
        &format.sizes[..],
        &[u64::from(stride) * HEIGHT as u64],
    )?;

    let slots = buffers_for(way, &camera, SLOTS)?;
    slots
        .iter()
        .flatten()
        .try_for_each(|buffer| fill(buffer, 0x5a))?;
    let mut stream = camera.stream(slots).map_err(text)?;
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    let filled = stream.dequeue(PATIENCE).map_err(text)?;
    let buffer = &stream.buffers(filled.slot).map_err(text)?[0];
    shows_colour_bars(&read(&filled.frame, &[buffer])?)?;
    let mut mapping = buffer.map(Access::Read).map_err(text)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    let mut between = [0; 192];
    for row in 0..HEIGHT as u64 {
        let end = row * u64::from(stride) + WIDTH as u64 * 4;
        guard.read_at(end, &mut between).map_err(text)?;
        ensure(between == [0x5a; 192], || {
            format!("it wrote behind the end of row {row}")
        })?;
    }
    Ok(())
}

/// An output takes the buffers, of one API and the other.
fn puts_out(way: &dyn Allocate) -> Verdict {
    for place in [SINGLE_PLANAR, MULTIPLANAR] {
        let output = output(place)?;
        let wanted = Wanted::new(1280, 720, Fourcc::new(*b"NV12"));
        let format = output.set_format(&wanted).map_err(text)?;
        let slots = buffers_for(way, &output, SLOTS)?;
        let count = slots[0].len();
        equal("buffers", count, format.sizes.len())?;
        let held = || held::of_dma_buf(&slots[0][0]);
        let before = held()?;
        let borrowed = slots.iter().map(|slot| slot.iter().collect()).collect();
        let mut stream: Stream<&Buffer> = output.stream(borrowed).map_err(text)?;
        queue_all(&mut stream)?;
        stream.start().map_err(text)?;
        let frames = take(&mut stream, FRAMES)?;
        let came: BTreeSet<usize> = frames.iter().map(|frame| frame.slot).collect();
        equal("slots", came.len(), SLOTS)?;
        drop(stream);
        held::comes_back_to(before, held)?;
    }
    Ok(())
}

/// The HDMI output at this place, which has whole pictures of 1280 x 720.
fn output(place: &str) -> Result<Queue, String> {
    let output = Device::find_with("vivid", place, output_at(place)).map_err(text)?;
    output.set_output(1).map_err(text)?;
    let queue = output.output().map_err(text)?;
    equal("direction", queue.direction(), Direction::Output)?;
    Ok(queue)
}

/// A slot's buffers go away with their frame while the camera goes on, and
/// nobody but their holder has them soon after.
fn replaces_buffers(way: &dyn Allocate) -> Verdict {
    let camera = camera(BY_CPU)?;
    camera.set_format(&wanted()).map_err(text)?;
    let mut spare = buffers_for(way, &camera, 4)?;
    let mut stream = camera
        .stream(buffers_for(way, &camera, SLOTS)?)
        .map_err(text)?;
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    let mut gone = Vec::new();
    while let Some(buffers) = spare.pop() {
        let filled = stream.dequeue(PATIENCE).map_err(text)?;
        let taken = stream.replace(filled.slot, buffers).map_err(text)?;
        stream.queue(filled.slot, PATIENCE).map_err(text)?;
        shows_colour_bars(&read(&filled.frame, &taken)?)?;
        gone.push(taken);
    }
    // The first is a slot that came twice meanwhile, so the kernel let it go.
    held::comes_back_to(1, || held::of_dma_buf(&gone[0][0]))?;
    let queued = (0..SLOTS)
        .find(|slot| stream.is_queued(*slot))
        .ok_or("none")?;
    match stream.replace(queued, gone.swap_remove(0)) {
        Err(V4l2Error::Slot { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Streams that end in every state, and those that never began.
fn leaks_nothing(way: &dyn Allocate) -> Verdict {
    let open = || {
        let camera = camera(BY_CPU)?;
        camera.set_format(&wanted()).map_err(text)?;
        Ok::<_, String>(camera)
    };
    let slots = buffers_for(way, &open()?, SLOTS)?;
    let held = || {
        let buffers = slots.iter().flatten().map(held::of_dma_buf);
        Ok((held::by_process()?, buffers.collect::<Result<Vec<_>, _>>()?))
    };
    let before = held()?;
    for started in [false, true] {
        for queued in [0, SLOTS] {
            let camera = open()?;
            let borrowed = slots.iter().map(|slot| slot.iter().collect()).collect();
            let mut stream: Stream<&Buffer> = camera.stream(borrowed).map_err(text)?;
            for slot in 0..queued {
                stream.queue(slot, PATIENCE).map_err(text)?;
            }
            if started {
                stream.start().map_err(text)?;
            }
        }
    }
    // One buffer too few, in the last slot: no stream comes of it.
    let camera = open()?;
    let mut borrowed: Vec<Vec<&Buffer>> = slots.iter().map(|slot| slot.iter().collect()).collect();
    borrowed[SLOTS - 1].clear();
    let refused = camera.stream(borrowed).map(drop);
    ensure(matches!(refused, Err(V4l2Error::Buffers { .. })), || {
        format!("{refused:?}")
    })?;
    drop(camera);
    let exported = open()?.export(SLOTS).map_err(text)?;
    drop(exported);
    held::comes_back_to(before, held)
}

/// What tells a copy of this program to be that process.
const CHILD: &str = "v4l2-child";

/// Streams into the dma-buf that is its standard input until it is killed, where
/// this process was started for that. To be called first in `main`.
pub(crate) fn child() {
    if std::env::args().nth(1).as_deref() != Some(CHILD) {
        return;
    }
    let error = stream_for_ever().err();
    eprintln!("{}", error.unwrap_or_else(|| "it ended".to_owned()));
    std::process::exit(1);
}

fn stream_for_ever() -> Verdict {
    let fd: OwnedFd = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).map_err(text)?;
    let buffer = Buffer::from_fd(fd).map_err(text)?;
    let camera = camera(BY_CPU)?;
    camera.set_format(&wanted()).map_err(text)?;
    let mut stream = camera.stream(vec![vec![&buffer]; SLOTS]).map_err(text)?;
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    take(&mut stream, 1)?;
    println!("streams");
    loop {
        take(&mut stream, FRAMES)?;
    }
}

fn of_a_killed_process(way: &dyn Allocate) -> Verdict {
    let queue = camera(BY_CPU)?;
    queue.set_format(&wanted()).map_err(text)?;
    let buffer = buffers_for(way, &queue, 1)?.swap_remove(0).swap_remove(0);
    let before = held::of_dma_buf(&buffer)?;
    let fd = rustix::io::fcntl_dupfd_cloexec(buffer.fd().map_err(text)?, 3).map_err(text)?;
    let mut process = Command::new("/proc/self/exe")
        .arg(CHILD)
        .stdin(Stdio::from(fd))
        .stdout(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let mut said = [0; 7];
    let mut output = process.stdout.take().ok_or("no output")?;
    let began = output.read_exact(&mut said).map_err(text);
    let during = held::of_dma_buf(&buffer)?;
    // Meanwhile the queue is its.
    let busy = queue.stream(vec![vec![&buffer]; SLOTS]).map(drop);
    process.kill().map_err(text)?;
    process.wait().map_err(text)?;
    began?;
    equal("it says", &said[..], b"streams")?;
    ensure(during > before + 1, || {
        format!("held {during} times while it streams, {before} before")
    })?;
    ensure(
        matches!(
            busy,
            Err(V4l2Error::Busy {
                operation: "REQBUFS",
                ..
            })
        ),
        || format!("{busy:?}"),
    )?;
    held::comes_back_to(before, || held::of_dma_buf(&buffer))?;
    let mut stream = queue.stream(vec![vec![&buffer]; SLOTS]).map_err(text)?;
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    take(&mut stream, 1).map(drop)
}

fn are_found_by_name() -> Verdict {
    let device = Device::find("vivid", BY_CPU).map_err(text)?;
    equal(
        "name",
        device.to_string(),
        format!("{} (vivid, {BY_CPU})", device.path().display()),
    )?;
    equal("card", device.card(), "vivid")?;
    let nodes = Device::nodes().map_err(text)?;
    ensure(nodes.contains(&device.path().to_owned()), || {
        format!("{nodes:?}")
    })?;
    match Device::find("vivid", "platform:vivid-999") {
        Err(V4l2Error::NoDevice { found, .. }) if found.len() == nodes.len() => {
            let name = device.to_string();
            ensure(found.iter().any(|found| found.starts_with(&name)), || {
                format!("{name} is not among {found:?}")
            })
        }
        other => Err(format!("{other:?}")),
    }
}

fn has_its_queues_only() -> Verdict {
    let camera = Device::find("vivid", BY_CPU).map_err(text)?;
    match camera.output() {
        Err(V4l2Error::Direction {
            wanted: Direction::Output,
            has,
            ..
        }) if has.contains("capture") => {}
        other => return Err(format!("{other:?}")),
    }
    let queue = camera.capture().map_err(text)?;
    ensure(!queue.is_multiplanar(), || format!("{queue:?}"))?;
    for place in [MULTIPLANAR, SINGLE_PLANAR] {
        let queue = output(place)?;
        equal("multi-planar", queue.is_multiplanar(), place == MULTIPLANAR)?;
        let refused = queue.device().capture();
        ensure(matches!(refused, Err(V4l2Error::Direction { .. })), || {
            format!("{refused:?}")
        })?;
    }
    Ok(())
}

fn lists_formats_and_sizes() -> Verdict {
    let offers = camera(BY_CPU)?.formats().map_err(text)?;
    let has = |fourcc| offers.iter().any(|offer| offer.fourcc == Some(fourcc));
    let codes = [
        *b"XR24", *b"AR24", *b"BG24", *b"RG24", *b"RG16", *b"YUYV", *b"NV12", *b"YU12",
    ];
    for code in codes {
        ensure(has(Fourcc::new(code)), || {
            format!("{code:?} is not in {offers:?}")
        })?;
    }
    let in_two = |offers: &[Offer]| {
        offers
            .iter()
            .any(|offer| offer.pixel_format == PixelFormat::new(*b"NM12"))
    };
    ensure(!in_two(&offers), || {
        "NV12M of a single-planar camera".into()
    })?;
    let offers = camera(MULTIPLANAR)?.formats().map_err(text)?;
    ensure(in_two(&offers), || format!("no NV12M in {offers:?}"))?;

    let queue = camera(BY_CPU)?;
    let sizes = queue.sizes(PixelFormat::new(*b"XR24")).map_err(text)?;
    ensure(
        matches!(&sizes, Sizes::Discrete(sizes) if sizes.len() > 2)
            && sizes.has(size(WIDTH), size(HEIGHT))
            && !sizes.has(size(WIDTH), size(HEIGHT) + 1),
        || format!("{sizes:?}"),
    )?;
    // A television's pictures are scaled to any size.
    queue.device().set_input(1).map_err(text)?;
    let sizes = queue.sizes(PixelFormat::new(*b"XR24")).map_err(text);
    queue.device().set_input(0).map_err(text)?;
    let sizes = sizes?;
    ensure(
        matches!(sizes, Sizes::Stepwise { .. }) && sizes.has(334, 222),
        || format!("{sizes:?}"),
    )
}

/// What the driver has no name for is refused, and where it takes another size,
/// that is told.
fn formats_are_the_drivers() -> Verdict {
    let queue = camera(BY_CPU)?;
    queue.set_format(&wanted()).map_err(text)?;
    let nearest = queue
        .try_format(&Wanted::new(641, 361, Fourcc::XRGB8888))
        .map_err(text)?;
    equal(
        "nearest",
        (nearest.frame.width, nearest.frame.height),
        (size(WIDTH), size(HEIGHT)),
    )?;
    let now = queue.format().map_err(text)?;
    equal("format", now.pixel_format, PixelFormat::new(*b"XR24"))?;
    let refusals = [
        Wanted::new(640, 360, Fourcc::new(*b"AB4H")),
        Wanted::new(640, 360, Fourcc::new(*b"NV12")).buffers(2),
    ];
    for refusal in refusals {
        match queue.set_format(&refusal) {
            Err(V4l2Error::Format { offered, .. }) if offered.contains(&"XR24".to_owned()) => {}
            other => return Err(format!("{other:?}")),
        }
    }
    equal("format after", queue.format().map_err(text)?, now)
}

fn taken_as_it_is() -> Verdict {
    let queue = camera(BY_CPU)?;
    for code in [*b"XR24", *b"YUYV", *b"NV12", *b"YU12"] {
        let fourcc = Fourcc::new(code);
        let frame = Frame::packed(size(WIDTH), size(HEIGHT), fourcc).map_err(text)?;
        let format = queue.set_frame(&frame).map_err(text)?;
        equal("frame", &format.frame, &frame)?;
        let size = frame.size_of_buffer(0).map_err(text)?;
        equal("size", &format.sizes[..], &[size])?;
    }
    Ok(())
}

fn what_differs_is_named() -> Verdict {
    let queue = camera(BY_CPU)?;
    let frame = |code| Frame::packed(size(WIDTH), size(HEIGHT), Fourcc::new(code)).map_err(text);
    let mut wide = frame(*b"XR24")?;
    wide.width -= 2;
    let mut low = frame(*b"XR24")?;
    low.height -= 2;
    let mut late = frame(*b"XR24")?;
    late.planes[0].offset = 4096;
    let mut apart = frame(*b"NV12")?;
    apart.planes[1].offset += 4096;
    let mut loose = frame(*b"NV12")?;
    loose.planes[1].stride += 64;
    let mut tiled = frame(*b"XR24")?;
    tiled.modifier = 0x0100_0000_0000_0001;
    let cases = [
        (wide, "width"),
        (low, "height"),
        (late, "offset of plane 0"),
        (apart, "offset of plane 1"),
        (loose, "stride of plane 1"),
        (tiled, "modifier"),
    ];
    for (frame, expected) in cases {
        match queue.set_frame(&frame) {
            Err(V4l2Error::Differs { what, .. }) if what == expected => {}
            other => return Err(format!("{expected}: {other:?}")),
        }
    }
    let mut empty = frame(*b"XR24")?;
    empty.width = 0;
    match queue.set_frame(&empty) {
        Err(V4l2Error::Frame(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn controls_are_numbers() -> Verdict {
    let camera = Device::find("vivid", BY_CPU).map_err(text)?;
    // Of each type: an integer, a menu, a switch, 64 bits, a set of bits.
    for name in [
        "Brightness",
        "Test Pattern",
        "Boolean",
        "Integer 64 Bits",
        "Bitmask",
    ] {
        let control = camera.control(name).map_err(text)?;
        let before = camera.get_control(&control).map_err(text)?;
        for value in [control.minimum, control.maximum, before] {
            camera.set_control(&control, value).map_err(text)?;
            equal(name, camera.get_control(&control).map_err(text)?, value)?;
        }
    }
    let pattern = camera.control("Test Pattern").map_err(text)?;
    let items = camera.menu(&pattern).map_err(text)?;
    equal(
        "pattern",
        items.first(),
        Some(&(0, "75% Colorbar".to_owned())),
    )?;
    let brightness = camera.control("Brightness").map_err(text)?;
    equal("menu", camera.menu(&brightness).map_err(text)?, Vec::new())?;
    match camera.set_control(&brightness, brightness.maximum + 1) {
        Err(V4l2Error::Control { control, .. }) if control == "Brightness" => {}
        other => return Err(format!("{other:?}")),
    }
    match camera.control("Flavour") {
        Err(V4l2Error::Control { problem, .. }) if problem.contains("Brightness") => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn an_interval_is_kept() -> Verdict {
    let queue = camera(BY_CPU)?;
    queue.set_format(&wanted()).map_err(text)?;
    let before = queue.interval().map_err(text)?.ok_or("no interval")?;
    let asked = Interval {
        numerator: 1,
        denominator: 5,
    };
    let made = queue.set_interval(asked).map_err(text)?.ok_or("not set")?;
    equal("interval", queue.interval().map_err(text)?, Some(made))?;
    equal(
        "interval",
        made.duration(),
        Some(Duration::from_millis(200)),
    )?;
    let mut stream = queue.export(SLOTS).map_err(text)?;
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    let frames = take(&mut stream, 3)?;
    drop(stream);
    queue.set_interval(before).map_err(text)?;
    // By the clock, of frames that came one after the other.
    let apart = frames[2].time - frames[1].time;
    let count = frames[2].sequence - frames[1].sequence;
    let expected = Duration::from_millis(200) * count;
    ensure(apart.abs_diff(expected) < Duration::from_millis(60), || {
        format!("{count} frames in {apart:?}")
    })
}

/// The camera's own memory, as a dma-buf: the C program sees the same in it by
/// mapping the node; and it stays when the camera has ended.
fn exports_its_own() -> Verdict {
    let expected = own_picture(BY_CPU)?;
    let queue = camera(BY_CPU)?;
    let format = queue.set_format(&wanted()).map_err(text)?;
    let before = held::by_process()?;
    let mut stream = queue.export(SLOTS).map_err(text)?;
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    let frames = take(&mut stream, FRAMES)?;
    stream.stop().map_err(text)?;
    let slots: BTreeSet<usize> = frames.iter().map(|frame| frame.slot).collect();
    equal("slots", slots.len(), stream.slots())?;
    for slot in 0..stream.slots() {
        let pixels = read(&format.frame, stream.buffers(slot).map_err(text)?)?;
        equal("checksum", checksum(&pixels), expected)?;
    }
    let kept = stream.buffers(0).map_err(text)?[0]
        .try_clone()
        .map_err(text)?;
    drop(stream);
    equal(
        "checksum after",
        checksum(&read(&format.frame, &[&kept])?),
        expected,
    )?;
    drop(kept);
    held::comes_back_to(before, held::by_process)
}

/// A picture of two planes, the same in one buffer as in two.
fn in_one_and_in_two() -> Verdict {
    let way = any_way()?;
    let mut pictures = Vec::new();
    for buffers in [1, 2] {
        let queue = camera(MULTIPLANAR)?;
        let wanted = Wanted::new(size(WIDTH), size(HEIGHT), Fourcc::new(*b"NV12"));
        let format = queue.set_format(&wanted.buffers(buffers)).map_err(text)?;
        equal("buffers", format.sizes.len(), buffers)?;
        equal(
            "last",
            usize::from(format.frame.planes[1].buffer),
            buffers - 1,
        )?;
        let mut stream = queue
            .stream(buffers_for(&*way, &queue, SLOTS)?)
            .map_err(text)?;
        queue_all(&mut stream)?;
        stream.start().map_err(text)?;
        let filled = stream.dequeue(PATIENCE).map_err(text)?;
        let sizes: Vec<u64> = filled.bytes.iter().map(|bytes| (*bytes).into()).collect();
        equal("bytes", sizes, format.sizes)?;
        pictures.push(read(
            &filled.frame,
            stream.buffers(filled.slot).map_err(text)?,
        )?);
    }
    equal("size", pictures[0].len(), WIDTH * HEIGHT * 3 / 2)?;
    ensure(pictures[0] == pictures[1], || {
        "the pictures differ".to_owned()
    })?;
    // Eight bars, from light to dark.
    let luma: Vec<u8> = (0..8)
        .map(|bar| pictures[0][(2 * bar + 1) * WIDTH / 16])
        .collect();
    ensure(luma.is_sorted_by(|a, b| a > b), || {
        format!("luma of the bars {luma:?}")
    })?;
    // White and black have no colour, and blue has: it is not all the same.
    let chroma = &pictures[0][WIDTH * HEIGHT..];
    let bar = |bar: usize| [0, 1].map(|part| chroma[(2 * bar + 1) * WIDTH / 16 / 2 * 2 + part]);
    equal("chroma of white and black", [bar(0), bar(7)], [[128; 2]; 2])?;
    ensure(bar(6)[0] > 200, || format!("chroma of blue {:?}", bar(6)))
}

/// vivid puts 128 bytes before the luma of NV16M, to see who looks.
fn header_is_before() -> Verdict {
    const HEADER: u32 = 128;
    let way = any_way()?;
    let queue = camera(MULTIPLANAR)?;
    let wanted = Wanted::new(size(WIDTH), size(HEIGHT), Fourcc::new(*b"NV16")).buffers(2);
    let format = queue.set_format(&wanted).map_err(text)?;
    let plane = WIDTH as u64 * HEIGHT as u64;
    equal(
        "sizes",
        &format.sizes[..],
        &[plane + u64::from(HEADER), plane],
    )?;
    let mut stream = queue
        .stream(buffers_for(&*way, &queue, SLOTS)?)
        .map_err(text)?;
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    let filled = stream.dequeue(PATIENCE).map_err(text)?;
    let offsets: Vec<u32> = filled
        .frame
        .planes
        .iter()
        .map(|plane| plane.offset)
        .collect();
    equal("offsets", &offsets[..], &[HEADER, 0])?;
    let pixels = read(&filled.frame, stream.buffers(filled.slot).map_err(text)?)?;
    let (first, others) = pixels[..WIDTH * HEIGHT].split_at(WIDTH);
    ensure(others.chunks_exact(WIDTH).all(|row| row == first), || {
        "the rows differ".to_owned()
    })
}

fn bad_buffers_are_named() -> Verdict {
    let way = any_way()?;
    let queue = camera(BY_CPU)?;
    let format = queue.set_format(&wanted()).map_err(text)?;
    let needed = format.sizes[0];
    let refused = |slots: Vec<Vec<Buffer>>| queue.stream(slots).map(drop);

    let memfd = Memfd::new().allocate(&Request::new(needed)).map_err(text)?;
    match refused(vec![vec![memfd]]) {
        Err(V4l2Error::Handle(HandleError::NotADmaBuf { index: 0, .. })) => {}
        other => return Err(format!("{other:?}")),
    }
    let allocate = |size| way.allocate(&Request::new(size).for_device()).map_err(text);
    match refused(vec![vec![allocate(needed - 4096)?]]) {
        Err(V4l2Error::Small {
            size, needed: says, ..
        }) if size < needed && says == needed => {}
        other => return Err(format!("{other:?}")),
    }
    match refused(vec![vec![allocate(needed)?, allocate(needed)?]]) {
        Err(V4l2Error::Buffers {
            slot: 0,
            given: 2,
            wanted: 1,
            ..
        }) => {}
        other => return Err(format!("{other:?}")),
    }
    let buffer = allocate(needed)?;
    match queue.stream(vec![vec![&buffer]; 1 << 10]).map(drop) {
        Err(V4l2Error::Slots { wanted, given, .. }) if (given as usize) < wanted => {}
        other => return Err(format!("{other:?}")),
    }

    let queue = camera(MULTIPLANAR)?;
    let wanted = Wanted::new(size(WIDTH), size(HEIGHT), Fourcc::new(*b"NV12")).buffers(2);
    queue.set_format(&wanted).map_err(text)?;
    let buffer = allocate(needed)?;
    let again = buffer.try_clone().map_err(text)?;
    match queue.stream(vec![vec![buffer, again]]).map(drop) {
        Err(V4l2Error::Same {
            slot: 0,
            pair: (0, 1),
            ..
        }) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn slots_go_by_turns() -> Verdict {
    let queue = camera(BY_CPU)?;
    queue.set_format(&wanted()).map_err(text)?;
    let mut stream = queue.export(SLOTS).map_err(text)?;
    let idle = |stream: &mut Stream| match stream.dequeue(PATIENCE) {
        Err(V4l2Error::Idle { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    let bad = |result: Result<(), V4l2Error>| match result {
        Err(V4l2Error::Slot { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    idle(&mut stream)?;
    queue_all(&mut stream)?;
    idle(&mut stream)?;
    let none = stream.slots();
    bad(stream.queue(0, PATIENCE))?;
    bad(stream.queue(none, PATIENCE))?;
    bad(stream.buffers(none).map(drop))?;
    stream.start().map_err(text)?;
    for _ in 0..none {
        let filled = stream.dequeue(PATIENCE).map_err(text)?;
        ensure(!stream.is_queued(filled.slot), || format!("{filled:?}"))?;
    }
    idle(&mut stream)?;
    // What is the driver's own cannot be another's.
    bad(stream.replace(0, Vec::new()).map(drop))?;
    queue_all(&mut stream)?;
    stream.stop().map_err(text)?;
    idle(&mut stream)?;
    // Stopped, all are the caller's; and it starts anew.
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    take(&mut stream, 1).map(drop)
}

/// Neither another program nor this one gets at it, and both do after.
fn has_one_stream() -> Verdict {
    let queue = camera(BY_CPU)?;
    queue.set_format(&wanted()).map_err(text)?;
    let other = camera(BY_CPU)?;
    let mut stream = queue.export(SLOTS).map_err(text)?;
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    let busy = |what: &str, result: Result<(), V4l2Error>| match result {
        Err(V4l2Error::Busy { .. }) => Ok(()),
        other => Err(format!("{what}: {other:?}")),
    };
    busy("the same file", queue.export(SLOTS).map(drop))?;
    busy("another file", other.export(SLOTS).map(drop))?;
    busy(
        "the format",
        other
            .set_format(&Wanted::new(320, 180, Fourcc::XRGB8888))
            .map(drop),
    )?;
    busy("a trial", other.takes_scattered().map(drop))?;
    // It is not disturbed by questions.
    ensure(other.takes_dma_bufs().map_err(text)?, || {
        "no dma-bufs".into()
    })?;
    other.taker().map_err(text)?;
    take(&mut stream, FRAMES)?;
    drop(stream);
    other.export(SLOTS).map(drop).map_err(text)?;
    queue.export(SLOTS).map(drop).map_err(text)
}

/// A camera that is told to lose its signal for a frame is late.
fn no_frame_in_time() -> Verdict {
    let queue = camera(BY_CPU)?;
    queue.set_format(&wanted()).map_err(text)?;
    let before = queue.interval().map_err(text)?.ok_or("no interval")?;
    let slow = Interval {
        numerator: 1,
        denominator: 1,
    };
    queue.set_interval(slow).map_err(text)?;
    let mut stream = queue.export(SLOTS).map_err(text)?;
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    let short = Duration::from_millis(1);
    // One or the other is asked for between two frames.
    let late = (0..2).find_map(|_| stream.dequeue(Some(short)).err());
    drop(stream);
    queue.set_interval(before).map_err(text)?;
    match late {
        Some(V4l2Error::Timeout { after, .. }) if after == short => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// An HDMI source that is lost and comes back while frames go on.
fn lost_source_is_reported() -> Verdict {
    const LOST: i64 = 1; // vivid's "No Signal"
    let device = Device::find_with("vivid", BY_CPU, capture_at(BY_CPU)).map_err(text)?;
    let inputs = device.inputs().map_err(text)?;
    let hdmi = inputs.iter().find(|input| input.has_timings);
    let hdmi = hdmi.ok_or_else(|| format!("no digital input among {inputs:?}"))?;
    device.set_input(hdmi.number).map_err(text)?;
    let mode = device.control("DV Timings Signal Mode").map_err(text)?;
    let verdict = reports_loss(&device, &mode, LOST);
    device.set_control(&mode, 0).map_err(text)?;
    device.set_input(0).map_err(text)?;
    verdict
}

fn reports_loss(device: &Device, mode: &Control, lost: i64) -> Verdict {
    device.set_control(mode, 0).map_err(text)?;
    let has = device.detect_timings().map_err(text)?;
    device.set_timings(&has).map_err(text)?;
    let set = device.timings().map_err(text)?;
    let is_it = (set.width(), set.height()) == (has.width(), has.height());
    ensure(is_it && has.pixel_clock() > 1_000_000, || {
        format!("{set:?} was set of {has:?}")
    })?;
    let mut stream = device
        .capture()
        .and_then(|queue| queue.export(SLOTS))
        .map_err(text)?;
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    let first = stream.dequeue(PATIENCE).map_err(text)?;
    stream.queue(first.slot, PATIENCE).map_err(text)?;
    for (value, is_lost) in [(lost, true), (0, false)] {
        device.set_control(mode, value).map_err(text)?;
        match stream.dequeue(PATIENCE) {
            Err(V4l2Error::SourceChanged { status, .. }) if status.is_lost() == is_lost => {}
            other => return Err(format!("signal mode {value}: {other:?}")),
        }
        let now = device.input().map_err(text)?.status;
        ensure(now.is_lost() == is_lost, || {
            format!("mode {value}: {now:?}")
        })?;
        ensure(device.detect_timings().is_err() == is_lost, || {
            format!("mode {value}: {:?}", device.detect_timings())
        })?;
        // Once for each change: frames go on.
        let next = stream.dequeue(PATIENCE).map_err(text)?;
        stream.queue(next.slot, PATIENCE).map_err(text)?;
    }
    Ok(())
}

fn takers_say() -> Verdict {
    let taker = Device::find("vivid", BY_CPU)
        .map_err(text)?
        .taker()
        .map_err(text)?;
    ensure(taker.name.contains(BY_CPU), || taker.name.clone())?;
    let layouts = taker.layouts.clone().ok_or("all layouts")?;
    for code in [*b"XR24", *b"YUYV", *b"NV12"] {
        let layout = Layout::linear(Fourcc::new(code));
        ensure(layouts.contains(&layout), || {
            format!("{layout} is not in {layouts:?}")
        })?;
    }
    equal("memory", &taker.memory, &Memory::AnyDmaBuf)?;
    equal("stride", taker.stride_align, 1)?;
    ensure(
        taker.width.contains(&size(WIDTH)) && !taker.width.contains(&u32::MAX),
        || format!("{:?}", taker.width),
    )?;
    equal(
        "contiguous",
        (taker.contiguous, taker.reach),
        (false, Reach::All),
    )?;
    let output = output(MULTIPLANAR)?.taker().map_err(text)?;
    equal("contiguous", output.contiguous, false)?;
    if memory_beyond_32_bits()? {
        return Ok(());
    }
    let taker = Device::find("vivid", CONTIGUOUS)
        .map_err(text)?
        .taker()
        .map_err(text)?;
    equal(
        "contiguous",
        (taker.contiguous, taker.reach),
        (true, Reach::Below4G),
    )
}

/// What is put out comes back as it is, at the same place's input.
fn put_out_is_captured(place: &str, buffers: usize) -> Verdict {
    let way = any_way()?;
    let screen = output(place)?;
    let device = Device::find_with("vivid", place, capture_at(place)).map_err(text)?;
    device.set_input(3).map_err(text)?;
    without_text(&device)?;
    let (control, looped, not) = cable(&device, place)?;
    device.set_control(&control, looped).map_err(text)?;
    let camera = device.capture().map_err(text)?;
    let result = loops(&*way, &screen, &camera, buffers).map_err(|error| {
        let value = device.get_control(&control);
        format!("{error}; the cable was set to {looped}, and is {value:?}")
    });
    device.set_control(&control, not).map_err(text)?;
    device.set_input(0).map_err(text)?;
    result
}

/// The control that connects the input to the output of the same place, and its
/// values for that, and for none. Older kernels have a switch; newer ones a menu
/// of the outputs of all places.
fn cable(camera: &Device, place: &str) -> Result<(Control, i64, i64), String> {
    if let Ok(switch) = camera.control("Loop Video") {
        return Ok((switch, 1, 0));
    }
    let number = place.rsplit('-').next().unwrap_or_default();
    let menu = format!("HDMI {number}-0 Is Connected To");
    let control = camera.control(&menu).map_err(text)?;
    let items = camera.menu(&control).map_err(text)?;
    let output = items.iter().find(|(_, name)| name.contains(number));
    let (value, _) = output.ok_or_else(|| format!("no output {number} in {items:?}"))?;
    let (value, not) = (*value, control.minimum);
    Ok((control, value, not))
}

fn loops(way: &dyn Allocate, screen: &Queue, camera: &Queue, buffers: usize) -> Verdict {
    let wanted = Wanted::new(1280, 720, Fourcc::new(*b"NV12")).buffers(buffers);
    let shown = screen.set_format(&wanted).map_err(text)?;
    let seen = camera.set_format(&wanted).map_err(text)?;
    equal("frame", &seen.frame, &shown.frame)?;
    let slots = buffers_for(way, screen, SLOTS)?;
    let pixels: Vec<u8> = (0..1280 * 720 * 3 / 2_u32)
        .map(|at| (at * 7 % 251).to_le_bytes()[0])
        .collect();
    for slot in &slots {
        write(&shown.frame, slot, &pixels)?;
    }
    let mut puts = screen.stream(slots).map_err(text)?;
    let mut takes = camera
        .stream(buffers_for(way, camera, SLOTS)?)
        .map_err(text)?;
    queue_all(&mut puts)?;
    queue_all(&mut takes)?;
    puts.start().map_err(text)?;
    takes.start().map_err(text)?;
    let mut found = String::new();
    // A kernel worker plugs the cable in, and has its time; until then there is
    // noise.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        let out = puts.dequeue(PATIENCE).map_err(text)?;
        puts.queue(out.slot, PATIENCE).map_err(text)?;
        let filled = takes.dequeue(PATIENCE).map_err(text)?;
        let picture = read(&filled.frame, takes.buffers(filled.slot).map_err(text)?)?;
        takes.queue(filled.slot, PATIENCE).map_err(text)?;
        if picture == pixels {
            return Ok(());
        }
        let other = picture.iter().zip(&pixels).filter(|(a, b)| a != b).count();
        found = format!(
            "{other} of {} bytes differ in frame {}",
            pixels.len(),
            filled.sequence
        );
    }
    Err(found)
}

/// What needs contiguous memory takes it.
fn takes_contiguous() -> Verdict {
    let expected = own_picture(CONTIGUOUS)?;
    let queue = camera(CONTIGUOUS)?;
    let format = queue.set_format(&wanted()).map_err(text)?;
    let module = for_contiguous(Module::open().map_err(text)?);
    let mut stream = queue
        .stream(buffers_for(&module, &queue, SLOTS)?)
        .map_err(text)?;
    queue_all(&mut stream)?;
    stream.start().map_err(text)?;
    take(&mut stream, FRAMES)?;
    stream.stop().map_err(text)?;
    let pixels = read(&format.frame, stream.buffers(0).map_err(text)?)?;
    equal("checksum", checksum(&pixels), expected)
}

/// The error is of the queueing, says what memory is needed, and leaves the slot
/// and the buffer with the caller.
fn scattered_is_named() -> Verdict {
    let queue = camera(CONTIGUOUS)?;
    queue.set_format(&wanted()).map_err(text)?;
    equal("takes", queue.takes_scattered().map_err(text)?, Some(false))?;
    // Single pages: no kernel has 225 of them in a row by chance.
    let slots = match Module::open() {
        Ok(module) => buffers_for(&module.max_chunk(4096), &queue, 1)?,
        Err(_) => buffers_for(&*any_way()?, &queue, 1)?,
    };
    let held = || held::of_dma_buf(&slots[0][0]);
    let before = held()?;
    let mut stream = queue
        .stream(vec![slots[0].iter().collect::<Vec<_>>()])
        .map_err(text)?;
    match stream.queue(0, PATIENCE) {
        Err(error @ V4l2Error::Scattered { .. }) => {
            let error = error.to_string();
            let says = ["contiguous memory only", CONTIGUOUS, "v4l2 test"];
            ensure(says.iter().all(|part| error.contains(part)), || error)?;
        }
        other => return Err(format!("{other:?}")),
    }
    ensure(!stream.is_queued(0), || "the slot is gone".to_owned())?;
    drop(stream);
    held::comes_back_to(before, held)
}

/// A slot whose buffer is in use goes to the driver when that is over.
fn waits_for_fences() -> Verdict {
    const WHILE: Duration = Duration::from_millis(200);
    let way = any_way()?;
    let vgem = Vgem::open()?;
    let queue = camera(BY_CPU)?;
    queue.set_format(&wanted()).map_err(text)?;
    let mut stream = queue.stream(buffers_for(&*way, &queue, 1)?).map_err(text)?;
    for job in [Job::Reads, Job::Writes] {
        let under_way = vgem.start(job, &stream.buffers(0).map_err(text)?[0])?;
        match stream.queue(0, Some(WHILE)) {
            Err(V4l2Error::Fence {
                source: FenceError::Timeout { .. },
                ..
            }) => {}
            other => return Err(format!("{other:?}")),
        }
        ensure(!stream.is_queued(0), || "it is queued".to_owned())?;
        vgem.end(under_way)?;
        stream.queue(0, Some(WHILE)).map_err(text)?;
        stream.stop().map_err(text)?;
    }
    Ok(())
}
