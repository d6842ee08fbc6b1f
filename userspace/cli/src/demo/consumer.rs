//! Process B: it never had the picture, and shows it.

use std::io;
use std::time::Instant;

use dmashare::buffer::Kind;

use super::compare::compare;
use super::peer::{Producer, Received};
use super::report::{Actor, Event, Report, Step};
use super::target::{self, Target};
use super::{DemoError, Options, gpu, picture, pixel_bytes, scene, screen};

/// The size of the result where there is no screen to ask.
const WITHOUT_SCREEN: (u32, u32) = (1280, 800);

pub(super) fn run(options: &Options, report: &mut Report) -> Result<(), DemoError> {
    let mut producer = Producer::start(options)?;
    let received = producer.receive(report)?;
    let verified = match received.buffer.kind() {
        Kind::DmaBuf => through_devices(options, &received, report)?,
        _ => {
            let reason = "devices import dma-bufs only";
            report.step(Step::left_out(Actor::B, "draw", "EGL", reason))?;
            report.step(Step::left_out(Actor::B, "scan out", "KMS", reason))?;
            Some(check_received(&received, report)?)
        }
    };
    producer.end()?;
    if let Some(verified) = verified {
        report.tell(Event::Verdict { verified })?;
    }
    Ok(())
}

/// GPU, then screen. What was verified, if it was not left to whoever looks at
/// the screen.
fn through_devices(
    options: &Options,
    received: &Received,
    report: &mut Report,
) -> Result<Option<String>, DemoError> {
    let found = screen::find(options.card.as_deref(), report);
    let (screen, target) = match found {
        Ok((screen, target)) => (Some(screen), target),
        Err(reason) if options.on_host => {
            report.step(Step::left_out(Actor::B, "scan out", "KMS", reason))?;
            (None, Target::allocate(WITHOUT_SCREEN, report)?)
        }
        Err(reason) => return Err(reason),
    };
    if !gpu::render(options.on_host, received, &target, report)? {
        if screen.is_some() {
            let reason = "no GPU drew a frame to show";
            report.step(Step::left_out(Actor::B, "scan out", "KMS", reason))?;
        }
        return check_received(received, report).map(Some);
    }
    let shown = match screen.as_ref().map(screen::Screen::show) {
        Some(Ok((scanout, step))) => {
            report.step(step)?;
            Some(scanout)
        }
        Some(Err(reason)) if options.on_host => {
            report.step(Step::left_out(Actor::B, "scan out", "KMS", reason))?;
            None
        }
        Some(Err(reason)) => return Err(DemoError::at("scan out")(reason)),
        None => None,
    };
    if options.hold && shown.is_some() {
        let (width, height) = target.size();
        report.tell(Event::Shown { width, height })?;
        io::stdin().read_line(&mut String::new())?;
        return Ok(None);
    }
    check_result(options, &target, report).map(Some)
}

/// Compares the result with what the picture and the shader say. Only here,
/// when all is done, does B look at the picture's file.
fn check_result(
    options: &Options,
    target: &Target,
    report: &mut Report,
) -> Result<String, DemoError> {
    let started = Instant::now();
    let got = target.picture().map_err(DemoError::at("check"))?;
    let expected = scene::expected(&picture::load(options.input.as_deref())?, target.size());
    compare(&got, &expected)?;
    let bytes = pixel_bytes(&target.frame);
    let step = Step::done(Actor::B, "check", "CPU mapping", started, bytes);
    report.step(step.copies(
        Some(2),
        "for the check: out of the buffer, and these into RGB",
    ))?;
    let (width, height) = target.size();
    Ok(format!(
        "{width}x{height} pixels in the second dma-buf are what the picture and the shader say"
    ))
}

/// Compares what B sees in the buffer of A with what A says it wrote.
fn check_received(received: &Received, report: &mut Report) -> Result<String, DemoError> {
    let started = Instant::now();
    let got =
        target::checksum(&received.frame, &received.buffer).map_err(DemoError::at("check"))?;
    let expected = received.sha256.clone().unwrap_or_default();
    if got != expected {
        return Err(DemoError::Checksum { got, expected });
    }
    let bytes = pixel_bytes(&received.frame);
    let step = Step::done(Actor::B, "check", "CPU mapping", started, bytes);
    report.step(step.copies(Some(1), "for the check"))?;
    Ok(format!(
        "the {bytes} bytes of pixels that B sees are those that A wrote (SHA-256)"
    ))
}
