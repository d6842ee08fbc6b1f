//! The command as its users call it, on whatever this host has.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use dmashare::buffer::Access;
use dmashare::share::Socket;
use dmashare_cli::demo::picture;
use dmashare_cli::demo::report::{Actor, Event, Outcome, Step, read};
use image::RgbImage;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn dmashare() -> Command {
    Command::new(env!("CARGO_BIN_EXE_dmashare"))
}

fn events(output: &Output) -> Vec<Event> {
    let mut lines = output.stdout.as_slice();
    std::iter::from_fn(|| read(&mut lines).expect("every line is an event")).collect()
}

fn steps(events: &[Event]) -> Vec<&Step> {
    let steps = events.iter().filter_map(|event| match event {
        Event::Step(step) => Some(step),
        _ => None,
    });
    steps.collect()
}

#[test]
fn what_this_host_can_do_is_verified_and_the_rest_has_a_reason() {
    let output = dmashare()
        .args(["demo", "--on-host", "--json"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let events = events(&output);
    assert!(
        matches!(events.last(), Some(Event::Verdict { .. })),
        "{events:?}"
    );

    let steps = steps(&events);
    let done = |name: &str| {
        steps.iter().any(|step| {
            step.step == name && matches!(step.outcome, Outcome::Done { bytes, .. } if bytes > 0)
        })
    };
    for name in ["decode", "allocate", "write", "pass on", "receive", "check"] {
        assert!(done(name), "{name} is not among {steps:?}");
    }
    for name in ["draw", "scan out"] {
        let reason = steps.iter().find_map(|step| match &step.outcome {
            Outcome::LeftOut { left_out } if step.step == name => Some(left_out),
            _ => None,
        });
        assert!(
            done(name) || reason.is_some_and(|reason| !reason.is_empty()),
            "{name}"
        );
    }
}

#[test]
fn the_table_ends_with_the_verdict() {
    let output = dmashare().args(["demo", "--on-host"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.lines().last().unwrap().starts_with("verified: "),
        "{table}"
    );
    assert!(output.stderr.is_empty());
}

#[test]
fn bad_input_is_one_line_and_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let whole = std::fs::read(harbour()).unwrap();
    let wide = folder.path().join("wide.png");
    RgbImage::new(16385, 1).save(&wide).unwrap();
    for input in [
        folder.path().join("missing.png"),
        folder.path().to_owned(),
        file("empty.png", b""),
        file("text.png", b"no picture"),
        file("cut.png", &whole[..whole.len() / 2]),
        wide,
    ] {
        let output = dmashare()
            .args(["demo", "--on-host", "--input"])
            .arg(&input)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{input:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{input:?}: {stderr}");
        assert!(stderr.starts_with("dmashare: "), "{input:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{input:?}");
    }
}

#[test]
fn wrong_usage_is_status_2() {
    let output = dmashare()
        .args(["demo", "--no-such-option"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// Process A alone, with this test in the place of process B.
#[test]
fn the_producer_writes_the_picture_and_ends_with_its_peer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.png");
    let picture = RgbImage::from_fn(37, 5, |x, y| {
        image::Rgb([u8::try_from(x).unwrap(), u8::try_from(y).unwrap(), 200])
    });
    picture.save(&path).unwrap();

    let (ours, theirs) = Socket::pair().unwrap();
    let mut producer = dmashare()
        .args(["demo-producer", "--on-host", "--consumer"])
        .arg(std::process::id().to_string())
        .arg("--input")
        .arg(&path)
        .stdin(theirs.as_fd().try_clone_to_owned().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(theirs);

    let (frame, buffers) = ours.recv().unwrap();
    assert_eq!((frame.width, frame.height), (37, 5));
    assert_eq!(frame.planes[0].stride, 256);
    assert!(buffers[0].kind().is_fixed());
    let mut pixels = vec![0; 37 * 5 * 4];
    let mut mapping = buffers[0].map(Access::Read).unwrap();
    let guard = mapping.access(Access::Read).unwrap();
    guard
        .read_rows(frame.rows(0).unwrap(), &mut pixels)
        .unwrap();
    drop(guard);
    for (pixel, bytes) in picture.pixels().zip(pixels.chunks_exact(4)) {
        let [r, g, b] = pixel.0;
        assert_eq!(bytes, [b, g, r, 0xff]);
    }

    // It is still there, and ends when its peer does.
    let mut lines = BufReader::new(producer.stdout.take().unwrap());
    let told_last = loop {
        match read(&mut lines).unwrap() {
            Some(Event::Step(step)) => assert_eq!(step.process, Actor::A),
            other => break other,
        }
    };
    assert!(matches!(told_last, Some(Event::Passed { sha256: Some(_) })));
    assert!(producer.try_wait().unwrap().is_none());
    drop(ours);
    assert!(producer.wait().unwrap().success());
    assert_eq!(lines.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn the_producer_ends_where_its_parent_is_no_longer_the_consumer() {
    // Without a look at its parent it would wait for ever: this end stays open.
    let (_ours, theirs) = Socket::pair().unwrap();
    let stranger = Command::new("true").spawn().unwrap();
    let gone = stranger.id().to_string();
    let output = stranger.wait_with_output().unwrap();
    assert!(output.status.success());
    let mut producer = dmashare()
        .args(["demo-producer", "--on-host", "--consumer", &gone])
        .stdin(theirs.as_fd().try_clone_to_owned().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = Vec::new();
    let mut stdout = producer.stdout.take().unwrap();
    let ended = ended(&stdout);
    // Where the test fails, nobody else ends it.
    let _ = producer.kill();
    let status = producer.wait().unwrap();
    assert_eq!(ended, PollFlags::HUP, "process A is still there");
    stdout.read_to_end(&mut told).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(
        told.is_empty(),
        "it began: {}",
        String::from_utf8_lossy(&told)
    );
}

/// What the kernel says of a pipe whose other end goes within ten seconds.
fn ended(pipe: &impl AsFd) -> PollFlags {
    let mut fds = [PollFd::new(pipe, PollFlags::empty())];
    let limit = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&limit)).unwrap();
    fds[0].revents()
}

#[test]
fn the_producer_does_not_outlive_a_consumer_that_is_killed() {
    // A pipe as input: process A waits in it for a picture that never comes.
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo.png");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let mut consumer = dmashare()
        .args(["demo", "--on-host", "--input"])
        .arg(&fifo)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Opens only when process A reads the other end.
    let writer = File::options().write(true).open(&fifo).unwrap();
    consumer.kill().unwrap();
    consumer.wait().unwrap();
    // The kernel says so by the poll of a pipe that lost its reader.
    assert_eq!(ended(&writer), PollFlags::ERR, "process A is still there");
}

#[test]
fn the_probe_tries_every_way() {
    let output = dmashare().args(["probe", "--json"]).output().unwrap();
    assert!(output.status.success());
    let probe: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let ways = probe["ways"].as_array().unwrap();
    let names: Vec<&str> = ways
        .iter()
        .map(|way| way["name"].as_str().unwrap())
        .collect();
    let all = dmashare::alloc::Way::ALL.map(|way| way.name());
    assert_eq!(names, all);
    assert_eq!(ways[0]["usable"], true);
    assert_eq!(ways[0]["limits"]["sealable"], true);
    for offer in ["ways", "gpus", "cards"] {
        for offer in probe[offer].as_array().unwrap() {
            assert_ne!(offer["detail"], "", "{offer}");
        }
    }
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let mut manual = dmashare()
        .arg("man")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(manual.stdout.take());
    let output = manual.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn harbour() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/pictures/harbour.png"
    ))
}

#[test]
fn the_shipped_picture_is_the_default_one() {
    assert_eq!(
        picture::load(None).unwrap(),
        picture::load(Some(harbour())).unwrap()
    );
}
