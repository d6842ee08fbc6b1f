//! What can go wrong with GBM.

use std::io;
use std::path::PathBuf;

use crate::buffer::BufferError;
use crate::import::{HandleError, Part};
use crate::share::Fourcc;

/// Why a GBM device could not be opened, or could not make or take a buffer.
///
/// A device is named by its node and driver, as in `/dev/dri/card0 (vgem)`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GbmError {
    /// libgbm.so.1 is not there, or is older than Mesa 17.1.
    #[error("cannot load libgbm.so.1: {0}; install libgbm1")]
    Library(String),
    /// The node does not open.
    #[error("{}: {source}; name a DRM node that you may open, such as /dev/dri/renderD128 \
             (group render) or card0 (group video)", path.display())]
    Open {
        /// The node.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// GBM has no backend for it.
    #[error("{node}: GBM has no driver for it: {source}; install one (Debian: libgl1-mesa-dri)")]
    Device {
        /// The node and its driver in the kernel.
        node: String,
        /// What GBM said.
        source: io::Error,
    },
    /// The frame and its handles are no frame for any device.
    #[error("this frame cannot be imported: {0}")]
    Handle(#[from] HandleError),
    /// How this format lies in memory is not known here.
    #[error(
        "{frame} cannot be checked: the layout of {fourcc} is not known here; share it as XR24"
    )]
    Unchecked {
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// The format.
        fourcc: Fourcc,
    },
    /// The driver has no such buffer.
    #[error("{on} does not allocate {width}x{height} {fourcc} for {usage}: {source}; {suspect}")]
    Allocate {
        /// The device.
        on: String,
        /// Width in pixels.
        width: u32,
        /// Height in rows.
        height: u32,
        /// The format.
        fourcc: Fourcc,
        /// What it was for, in words.
        usage: String,
        /// What GBM said.
        source: io::Error,
        /// What it most likely was.
        suspect: String,
    },
    /// The driver did not take the frame.
    #[error("{on} does not import {frame}: {source}; {suspect}")]
    Import {
        /// The device.
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// What GBM said.
        source: io::Error,
        /// Which of them it most likely was.
        suspect: String,
    },
    /// The driver gives no handle of a buffer.
    #[error("{on} does not export plane {plane}: {source}; map it, and copy")]
    Export {
        /// The device.
        on: String,
        /// Which plane, from 0.
        plane: usize,
        /// What GBM said.
        source: io::Error,
    },
    /// What the driver says of its buffer cannot be.
    #[error("{on} tells of a buffer what cannot be: {reason}")]
    Nonsense {
        /// The device.
        on: String,
        /// What is wrong.
        reason: String,
    },
    /// A handle that the driver gave is no dma-buf.
    #[error("a handle from the driver: {0}")]
    Buffer(#[from] BufferError),
    /// The driver does not map the buffer.
    #[error("{on} does not map it: {source}; map the buffers of the frame that was imported")]
    Map {
        /// The device.
        on: String,
        /// What GBM said.
        source: io::Error,
    },
    /// It is no region of the buffer.
    #[error("{region:?} does not lie within {width}x{height} pixels, or has none")]
    Region {
        /// What was asked for.
        region: Part,
        /// Width in pixels.
        width: u32,
        /// Height in rows.
        height: u32,
    },
    /// The pixels of this format are no whole bytes of one plane.
    #[error("{fourcc} has no pixels to copy one by one; export it, and map its buffers")]
    NoPixels {
        /// The format.
        fourcc: Fourcc,
    },
    /// It was not mapped for this.
    #[error("it is mapped for {mapped} only; map it for reading and writing")]
    Access {
        /// What it is mapped for.
        mapped: crate::buffer::Access,
    },
    /// The bytes are not as many as the region has.
    #[error("{given} bytes for a region of {needed}")]
    Length {
        /// How many there are.
        given: usize,
        /// How many there are to be.
        needed: usize,
    },
}
