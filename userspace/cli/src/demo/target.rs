//! The second buffer: what the GPU draws into, the screen shows, and the CPU
//! checks.

use std::error::Error;

use dmashare::buffer::{Access, Buffer};
use dmashare::share::Frame;
use image::{Rgb, RgbImage};
use sha2::{Digest, Sha256};

use super::report::{Actor, Report};
use super::{DemoError, allocate};

/// A frame and the buffer it lies in.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) frame: Frame,
    pub(super) buffer: Buffer,
}

impl Target {
    /// A dma-buf for a frame of this size.
    pub(super) fn allocate(size: (u32, u32), report: &mut Report) -> Result<Target, DemoError> {
        let made = allocate::frame(Actor::B, "demo screen", size, false)?;
        for step in made.steps {
            report.step(step)?;
        }
        Ok(Target {
            frame: made.frame,
            buffer: made.buffer,
        })
    }

    /// Width and height in pixels.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.frame.width, self.frame.height)
    }

    /// Its pixels, as the CPU sees them.
    pub(super) fn picture(&self) -> Result<RgbImage, Box<dyn Error + Send + Sync>> {
        Target::picture_of(&self.frame, &self.buffer)
    }

    /// The pixels of a frame in XRGB8888, as the CPU sees them.
    pub(super) fn picture_of(
        frame: &Frame,
        buffer: &Buffer,
    ) -> Result<RgbImage, Box<dyn Error + Send + Sync>> {
        let pixels = read(frame, buffer)?;
        let mut pixels = pixels.chunks_exact(4);
        Ok(RgbImage::from_fn(frame.width, frame.height, |_, _| {
            let pixel = pixels.next().unwrap_or_default();
            Rgb([pixel[2], pixel[1], pixel[0]])
        }))
    }
}

/// The checksum of a frame's pixels, as the CPU sees them.
pub(super) fn checksum(
    frame: &Frame,
    buffer: &Buffer,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    Ok(hex(Sha256::new_with_prefix(read(frame, buffer)?)))
}

/// A checksum as people compare it.
pub(super) fn hex(checksum: Sha256) -> String {
    let bytes = checksum.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The frame's rows without what lies between them.
fn read(frame: &Frame, buffer: &Buffer) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let rows = frame.rows(0)?;
    let mut pixels = vec![0; usize::try_from(rows.bytes())?];
    let mut mapping = buffer.map(Access::Read)?;
    let guard = mapping.access(Access::Read)?;
    guard.read_rows(rows, &mut pixels)?;
    guard.finish()?;
    Ok(pixels)
}
