//! Process A: it has the picture, and passes it on by its handle.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use dmashare::buffer::{Access, Buffer};
use dmashare::share::{Frame, Socket, SocketError};
use image::RgbImage;
use sha2::{Digest, Sha256};

use super::report::{self, Actor, Event, Step};
use super::target::hex;
use super::{DemoError, allocate, child, picture, pixel_bytes};

/// What process A is to do. Its standard input is the socket to process B, its
/// standard output tells B of its steps.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The picture
    #[arg(long, value_name = "FILE")]
    pub(super) input: Option<PathBuf>,
    /// Share through a memfd where there is no dma-buf, and tell a checksum
    #[arg(long)]
    pub(super) on_host: bool,
    /// The process id of process B
    #[arg(long, value_name = "PID")]
    pub(super) consumer: i32,
}

/// Passes the picture on, and stays until process B is gone.
pub(crate) fn run(options: &Options) -> Result<(), DemoError> {
    child::end_with(options.consumer)?;
    let passed = pass(options);
    if let Err(error) = &passed {
        tell(Event::Failed {
            message: error.line(),
            bad_input: error.is_bad_input(),
        })?;
    }
    // B sends nothing, so there is one thing to come: its end.
    match passed?.recv() {
        Ok(_) | Err(SocketError::Closed) => Ok(()),
        Err(error) => Err(DemoError::at("wait for B")(error)),
    }
}

fn pass(options: &Options) -> Result<Socket, DemoError> {
    let socket = child::socket("socket to B")?;

    let started = Instant::now();
    let picture = picture::load(options.input.as_deref())?;
    let decoded = picture.as_raw().len() as u64;
    step(Step::done(Actor::A, "decode", "CPU", started, decoded))?;

    let size = picture.dimensions();
    let made = allocate::frame(Actor::A, "demo picture", size, options.on_host)?;
    let (frame, buffer) = (made.frame, made.buffer);
    made.steps.into_iter().try_for_each(step)?;
    let bytes = pixel_bytes(&frame);

    let started = Instant::now();
    let mut checksum = options.on_host.then(Sha256::new);
    write_picture(&picture, &frame, &buffer, &mut checksum).map_err(DemoError::at("write"))?;
    let written = Step::done(Actor::A, "write", "CPU mapping", started, bytes);
    step(written.copies(
        Some(2),
        "A's own: the decoder's pixels into XRGB8888, and these into the buffer",
    ))?;

    let started = Instant::now();
    socket
        .send(&frame, &[&buffer])
        .map_err(DemoError::at("pass on"))?;
    let over = "UNIX socket, SCM_RIGHTS";
    step(Step::done(Actor::A, "pass on", over, started, bytes))?;
    tell(Event::Passed {
        sha256: checksum.map(hex),
    })?;
    Ok(socket)
}

/// Writes the rows, each where its stride puts it.
fn write_picture(
    picture: &RgbImage,
    frame: &Frame,
    buffer: &Buffer,
    checksum: &mut Option<Sha256>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let rows = frame.rows(0)?;
    let mut mapping = buffer.map(Access::Write)?;
    let mut guard = mapping.access(Access::Write)?;
    let mut at = rows.offset;
    for row in picture.rows() {
        // XRGB8888 is B G R x in memory.
        let pixels = row.flat_map(|pixel| [pixel.0[2], pixel.0[1], pixel.0[0], 0xff]);
        let bytes: Vec<u8> = pixels.collect();
        guard.write_at(at, &bytes)?;
        if let Some(checksum) = checksum {
            checksum.update(&bytes);
        }
        at += u64::from(rows.stride);
    }
    guard.finish()?;
    Ok(())
}

fn step(step: Step) -> Result<(), DemoError> {
    tell(Event::Step(step))
}

fn tell(event: Event) -> Result<(), DemoError> {
    Ok(report::write(&mut io::stdout().lock(), &event)?)
}
