//! GStreamer: our frames in its pipelines, and its frames here.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dmashare::alloc::{Allocate, Way, probe};
use dmashare::buffer::{Access, Kind};
use dmashare::frame::{Fourcc, Frame};
use dmashare::share::SocketError;
use dmashare::share::gstreamer::{Borrowed, Caps, GstreamerError, Sink, Source, Stamp};
use dmashare_tests::held;
use dmashare_tests::ways::{skipped, test};
use libtest_mimic::Trial;

use crate::inside::{ensure, folder, text};
use crate::launch::{LONG, Launched};
use crate::pool::Pool;
use crate::v4l2::{self, camera_of_output, progressive_output, taken};

const WIDTH: u32 = 320;
const HEIGHT: u32 = 240;
const FRAMES: u8 = 8;

type CheckOfWay = fn(&dyn Allocate) -> Result<(), String>;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    let checks: [(&str, CheckOfWay); 4] = [
        ("to_a_file", to_a_file),
        ("padded_rows_are_found", padded),
        ("to_a_video_output", to_output),
        ("killed_midway", killed),
    ];
    for way in [Way::Memfd, Way::Udmabuf, Way::DmaHeap, Way::Module] {
        let opened = probe().row(way).verdict.clone().and_then(|_| way.open());
        let opened: Arc<dyn Allocate> = match opened {
            Ok(opened) => Arc::from(opened),
            Err(reason) => {
                trials.push(skipped(&format!("gstreamer::{way}"), reason));
                continue;
            }
        };
        for (name, check) in checks {
            let opened = Arc::clone(&opened);
            trials.push(test(&format!("gstreamer::{way}::{name}"), move || {
                leaves_nothing(|| check(&*opened))
            }));
        }
    }
    type Check = fn() -> Result<(), String>;
    let sources: [(&str, Check); 4] = [
        ("a_test_picture", test_picture),
        ("a_camera", camera),
        ("its_sink_is_killed", sink_killed),
        ("formats", formats),
    ];
    for (name, check) in sources {
        trials.push(test(&format!("gstreamer::from::{name}"), move || {
            leaves_nothing(check)
        }));
    }
    trials
}

/// No fd and no mapping of this process.
fn leaves_nothing(check: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let before = held::by_process()?;
    check()?;
    held::comes_back_to(before, held::by_process)
}

/// Every pixel has a value of its own place and of the frame's number.
fn picture(number: u8, frame: &Frame) -> Result<Vec<u8>, String> {
    let rows = frame.rows(0).map_err(text)?;
    let bytes = u64::from(rows.row) * u64::from(rows.count);
    Ok((0..bytes)
        .map(|at| {
            let [low, middle, high, ..] = (at / 4).to_le_bytes();
            match at % 4 {
                0 => low,
                1 => middle ^ number,
                2 => number.wrapping_mul(31),
                _ => high ^ 0xff,
            }
        })
        .collect())
}

/// Our frames in this pipeline, which begins with `unixfdsrc`.
fn through(
    way: &dyn Allocate,
    frame: &Frame,
    caps: &Caps,
    pipeline: &str,
    folder: &Path,
) -> Result<Vec<u8>, String> {
    let mut sink = Sink::bind(folder.join("s"), caps).map_err(text)?;
    let mut pool = Pool::new(way, frame, 3)?;
    let mut launched =
        Launched::pipeline(&format!("unixfdsrc socket-path=s ! {pipeline}"), folder)?;
    Pool::meet(&mut sink, &mut launched)?;
    let mut all = Vec::new();
    for number in 0..FRAMES {
        let picture = picture(number, frame)?;
        pool.lend(&mut sink, &picture)
            .map_err(|error| format!("frame {number}: {error}; {}", launched.words()))?;
        all.extend(picture);
    }
    // What was lent again was free before.
    ensure(pool.lent.iter().all(|lent| *lent > 1), || {
        format!("buffers that were never used again: {:?}", pool.lent)
    })?;
    sink.end();
    launched.succeeds()?;
    pool.gather(&mut sink)?;
    Ok(all)
}

fn to_a_file(way: &dyn Allocate) -> Result<(), String> {
    let frame = Frame::packed(WIDTH, HEIGHT, Fourcc::XRGB8888).map_err(text)?;
    let caps = Caps::of(&frame).map_err(text)?.framerate(30, 1);
    let forms = match way.way().for_devices() {
        true => vec![caps.clone(), caps.for_devices()],
        false => vec![caps],
    };
    for caps in forms {
        let folder = folder()?;
        let sent = through(way, &frame, &caps, "filesink location=out", folder.path())?;
        let written = std::fs::read(folder.path().join("out")).map_err(text)?;
        same(&sent, &written)?;
    }
    Ok(())
}

/// GStreamer finds the rows by our strides, and writes them without the padding.
///
/// Not those of the first frame: before 1.28 it knows the meta with the strides
/// only when something in its process has used one, and here that is the
/// conversion of that frame.
fn padded(way: &dyn Allocate) -> Result<(), String> {
    let frame = Frame::aligned(WIDTH - 4, HEIGHT, Fourcc::XRGB8888, 256).map_err(text)?;
    let caps = Caps::of(&frame).map_err(text)?.framerate(30, 1);
    let folder = folder()?;
    let pipeline = "videoconvert ! video/x-raw,format=RGBx ! filesink location=out";
    let sent = through(way, &frame, &caps, pipeline, folder.path())?;
    let written = std::fs::read(folder.path().join("out")).map_err(text)?;
    ensure(sent.len() == written.len(), || {
        format!("{} bytes written", written.len())
    })?;
    let first = sent.len() / usize::from(FRAMES);
    // Colours are only put into another order.
    let colours = |bytes: &[u8], order: [usize; 3]| -> Vec<u8> {
        let pixels = bytes[first..].chunks_exact(4);
        pixels.flat_map(|p| order.map(|at| p[at])).collect()
    };
    same(&colours(&sent, [2, 1, 0]), &colours(&written, [0, 1, 2]))
}

fn same(sent: &[u8], written: &[u8]) -> Result<(), String> {
    let at = sent.iter().zip(written).position(|(a, b)| a != b);
    ensure(at.is_none() && sent.len() == written.len(), || {
        format!(
            "{} bytes were sent and {} written; the first other one is {at:?}",
            sent.len(),
            written.len()
        )
    })
}

/// Ours on vivid's output, whose driver imports what is a dma-buf; a cable leads
/// from there to its camera, which sees it pixel for pixel.
fn to_output(way: &dyn Allocate) -> Result<(), String> {
    // What the connector has at first, so that nothing is scaled.
    let frame = Frame::packed(1280, 720, Fourcc::new(*b"YUYV")).map_err(text)?;
    let caps = Caps::of(&frame).map_err(text)?.framerate(30, 1);
    let folder = folder()?;
    let mut sink = Sink::bind(folder.path().join("s"), &caps).map_err(text)?;
    let mut pool = Pool::new(way, &frame, 3)?;
    let mode = match way.way().for_devices() {
        true => "dmabuf-import",
        // This copies.
        false => "mmap",
    };
    let words = format!(
        "unixfdsrc socket-path=s ! v4l2sink device={} io-mode={mode} sync=false",
        progressive_output()?
    );
    let mut launched = Launched::pipeline(&words, folder.path())?;
    Pool::meet(&mut sink, &mut launched)?;
    let picture = picture(way.way() as u8, &frame)?;
    for number in 0..FRAMES {
        pool.lend(&mut sink, &picture)
            .map_err(|error| format!("frame {number}: {error}; {}", launched.words()))?;
    }
    let seen = taken(&camera_of_output(&frame)?, folder.path())?;
    same(&picture, &seen)?;
    sink.end();
    launched.succeeds()?;
    pool.gather(&mut sink)
}

/// It holds all, and is no more: all is free, and nothing left open.
fn killed(way: &dyn Allocate) -> Result<(), String> {
    let frame = Frame::packed(WIDTH, HEIGHT, Fourcc::XRGB8888).map_err(text)?;
    let caps = Caps::of(&frame).map_err(text)?;
    let folder = folder()?;
    let mut sink = Sink::bind(folder.path().join("s"), &caps).map_err(text)?;
    let mut pool = Pool::new(way, &frame, 3)?;
    let held_before: Vec<_> = pool.buffers.iter().map(held::of_dma_buf).collect();
    // It sleeps with the first, and has the others waiting.
    let words = "unixfdsrc socket-path=s ! identity sleep-time=600000000 ! fakesink";
    let mut launched = Launched::pipeline(words, folder.path())?;
    Pool::meet(&mut sink, &mut launched)?;
    for number in 0..3 {
        pool.lend(&mut sink, &picture(number, &frame)?)?;
    }
    pool.hear(&mut sink, Duration::from_millis(500))?;
    let ids = 0..3;
    ensure(ids.clone().all(|id| sink.is_lent(id)), || {
        format!("it released what it sleeps with; {}", launched.words())
    })?;
    let refused = sink.send(0, &frame, &[&pool.buffers[0]], &Stamp::now());
    ensure(refused == Err(GstreamerError::Lent(0)), || {
        format!("{refused:?}")
    })?;
    launched.kill()?;
    pool.gather(&mut sink)?;
    ensure(!ids.into_iter().any(|id| sink.is_lent(id)), || {
        "lent to nobody".to_owned()
    })?;
    // Nor does the kernel know of another holder.
    held::comes_back_to(held_before, || {
        Ok(pool.buffers.iter().map(held::of_dma_buf).collect())
    })?;
    // And the next can come.
    drop(launched);
    let mut next = Launched::pipeline("unixfdsrc socket-path=s ! fakesink", folder.path())?;
    Pool::meet(&mut sink, &mut next)?;
    pool.lend(&mut sink, &picture(0, &frame)?)?;
    sink.end();
    next.succeeds()?;
    pool.gather(&mut sink)
}

/// A pipeline that ends in `unixfdsink`, and who takes its frames.
fn from(pipeline: &str, folder: &Path) -> Result<(Launched, Source), String> {
    let words = format!("{pipeline} ! unixfdsink socket-path=s wait-for-connection=true");
    let mut launched = Launched::pipeline(&words, folder)?;
    let begun = Instant::now();
    let mut source = loop {
        match Source::connect(folder.join("s")) {
            Ok(source) => break source,
            Err(_) if begun.elapsed() < LONG && launched.is_running()? => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(format!("{error}; {}", launched.words())),
        }
    };
    source.set_timeout(Some(LONG));
    Ok((launched, source))
}

/// The rows of all planes, without padding.
fn read(borrowed: &Borrowed) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    for (at, plane) in borrowed.frame.planes.iter().enumerate() {
        let rows = borrowed.frame.rows(at).map_err(text)?;
        let mut into = vec![0; rows.row as usize * rows.count as usize];
        let buffer = &borrowed.buffers[usize::from(plane.buffer)];
        let mut mapping = buffer.map(Access::Read).map_err(text)?;
        let guard = mapping.access(Access::Read).map_err(text)?;
        guard.read_rows(rows, &mut into).map_err(text)?;
        guard.finish().map_err(text)?;
        all.extend(into);
    }
    Ok(all)
}

/// Frame by frame what the same pipeline writes to a file.
fn compare_with_file(picture: &str) -> Result<usize, String> {
    let folder = folder()?;
    let words = format!("{picture} ! filesink location=out");
    Launched::pipeline(&words, folder.path())?.succeeds()?;
    let expected = std::fs::read(folder.path().join("out")).map_err(text)?;
    let (mut launched, mut source) = from(picture, folder.path())?;
    let mut came = Vec::new();
    let mut frames = 0;
    let mut last = None;
    while let Some(borrowed) = source
        .recv()
        .map_err(|error| format!("{error}; {}", launched.words()))?
    {
        let kinds = borrowed.buffers.iter().map(|buffer| buffer.kind());
        let kinds: Vec<Kind> = kinds.collect();
        ensure(
            kinds.iter().all(|kind| matches!(kind, Kind::Memfd(_))),
            || format!("{kinds:?}"),
        )?;
        came.extend(read(&borrowed)?);
        sane(&borrowed.stamp, &mut last)?;
        frames += 1;
    }
    launched.succeeds()?;
    same(&expected, &came)?;
    let next = source.recv().unwrap_err();
    ensure(next == GstreamerError::Socket(SocketError::Closed), || {
        format!("after the end: {next}")
    })?;
    Ok(frames)
}

/// A time of this machine's clock, after the one before.
fn sane(stamp: &Stamp, last: &mut Option<Duration>) -> Result<(), String> {
    let now = Stamp::now().pts;
    let pts = stamp.pts.ok_or("a frame without a time")?;
    let near = now.is_some_and(|now| now.abs_diff(pts) < Duration::from_secs(30));
    ensure(near && last.is_none_or(|last| last < pts), || {
        format!("at {pts:?}, after {last:?}, and now it is {now:?}")
    })?;
    *last = Some(pts);
    Ok(())
}

fn test_picture() -> Result<(), String> {
    let picture = "videotestsrc num-buffers=12 pattern=ball animation-mode=frames \
        ! video/x-raw,format=BGRx,width=320,height=240,framerate=30/1";
    let frames = compare_with_file(picture)?;
    ensure(frames == 12, || format!("{frames} frames"))
}

/// Formats of several planes, and of pixels of other sizes.
fn formats() -> Result<(), String> {
    for format in ["NV12", "I420", "YUY2", "RGB", "Y444"] {
        // A width that needs no padding, as the file has it.
        let picture = format!(
            "videotestsrc num-buffers=2 pattern=gradient \
            ! video/x-raw,format={format},width=64,height=48,framerate=30/1"
        );
        let frames = compare_with_file(&picture).map_err(|error| format!("{format}: {error}"))?;
        ensure(frames == 2, || format!("{format}: {frames} frames"))?;
    }
    Ok(())
}

/// vivid's own dma-bufs, used again when they were released.
fn camera() -> Result<(), String> {
    let folder = folder()?;
    let pipeline = format!(
        "v4l2src device={} io-mode=dmabuf num-buffers=16 \
        ! video/x-raw,format=YUY2,width=640,height=360",
        v4l2::camera()?
    );
    let (mut launched, mut source) = from(&pipeline, folder.path())?;
    let mut last = None;
    let mut inodes = BTreeSet::new();
    let mut frames = 0;
    while let Some(borrowed) = source
        .recv()
        .map_err(|error| format!("{error}; {}", launched.words()))?
    {
        sane(&borrowed.stamp, &mut last)?;
        let [buffer] = &borrowed.buffers[..] else {
            return Err(format!("{:?}", borrowed.buffers));
        };
        ensure(buffer.kind() == Kind::DmaBuf, || format!("{buffer:?}"))?;
        let stat = rustix::fs::fstat(buffer.fd().map_err(text)?).map_err(text)?;
        inodes.insert(stat.st_ino);
        let rows = read(&borrowed)?;
        shows_bars(&rows, 640 * 2)?;
        frames += 1;
    }
    launched.succeeds()?;
    ensure(frames == 16 && inodes.len() < 16, || {
        format!("{frames} frames in {} buffers", inodes.len())
    })
}

/// Bars from light to dark, of YUYV: the first bytes of two pixels are their
/// luma.
fn shows_bars(rows: &[u8], stride: usize) -> Result<(), String> {
    // The middle of the picture, where no text is.
    let row = &rows[rows.len() / stride / 2 * stride..][..stride];
    let bars: Vec<u8> = (0..8)
        .map(|bar| row[(2 * bar + 1) * stride / 32 * 2])
        .collect();
    ensure(bars.is_sorted_by(|a, b| a > b), || {
        format!("no colour bars: {bars:?}")
    })
}

/// What was borrowed can be read still, and the source says what happened.
fn sink_killed() -> Result<(), String> {
    let folder = folder()?;
    let pipeline = "videotestsrc is-live=true ! video/x-raw,format=BGRx,width=64,height=48";
    let (mut launched, mut source) = from(pipeline, folder.path())?;
    let borrowed = source.recv().map_err(text)?.ok_or("no frame")?;
    launched.kill()?;
    let error = loop {
        match source.recv() {
            // Sent before.
            Ok(Some(_)) => {}
            Ok(None) => return Err("it said that the stream ends".to_owned()),
            Err(error) => break error,
        }
    };
    let gone = matches!(
        error,
        GstreamerError::Socket(SocketError::Closed | SocketError::Truncated(_))
    );
    ensure(gone, || error.to_string())?;
    let rows = read(&borrowed)?;
    ensure(rows.len() == 64 * 48 * 4, || {
        format!("{} bytes", rows.len())
    })
}
