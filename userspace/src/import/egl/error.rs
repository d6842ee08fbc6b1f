//! What can go wrong between a frame and the GPU, by name.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use super::Device;
use crate::import::HandleError;
use crate::share::Fourcc;

/// Why a GPU could not be opened, or could not take a frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EglError {
    /// libEGL.so.1 is not there, or is older than EGL 1.5.
    #[error("cannot load libEGL.so.1: {0}; install libegl1 and a driver (Debian: libegl-mesa0)")]
    Library(Box<dyn Error + Send + Sync>),
    /// EGL or GL lack what importing needs.
    #[error("the {part} lacks {}; {advice}", names.join(", "))]
    Missing {
        /// Who lacks it: the client library, a device or a context.
        part: String,
        /// The extensions, or functions, by name.
        names: Vec<&'static str>,
        /// What would bring them.
        advice: &'static str,
    },
    /// No EGL device is what was asked for.
    #[error("EGL has no {wanted}; it has: {}; {}", list(found), advice_for(wanted))]
    NoDevice {
        /// What was asked for.
        wanted: Device,
        /// The devices that are there, in words.
        found: Vec<String>,
    },
    /// The node of [`Device::Node`] cannot be looked at.
    #[error("{}: {source}; name a node under /dev/dri, such as renderD128", path.display())]
    Node {
        /// The node.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// An EGL function failed.
    #[error("{operation} failed on {on}: {code}")]
    Egl {
        /// The function.
        operation: &'static str,
        /// The device or driver.
        on: String,
        /// What EGL said.
        code: EglCode,
    },
    /// A GL function failed.
    #[error("{operation} failed on {on}: {code}")]
    Gl {
        /// The function, or what was being done.
        operation: &'static str,
        /// The driver (GL_RENDERER).
        on: String,
        /// What GL said.
        code: GlCode,
    },
    /// The frame and its handles are no frame for any device.
    #[error("this frame cannot be imported: {0}")]
    Handle(#[from] HandleError),
    /// The driver did not take the frame.
    #[error("{on} does not import {frame}: {code}; {suspect}")]
    Import {
        /// The driver (GL_RENDERER).
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// What EGL said.
        code: EglCode,
        /// Which of them it most likely was.
        suspect: String,
    },
    /// The driver reads this format only through GL_TEXTURE_EXTERNAL_OES.
    #[error(
        "{on} takes {frame} only as GL_TEXTURE_EXTERNAL_OES, which is not offered here; \
             share it in an RGB format"
    )]
    ExternalOnly {
        /// The driver (GL_RENDERER).
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
    },
    /// This format was not tried yet, and nothing says that the driver reads
    /// it within its memory: some do not look.
    #[error(
        "{frame} cannot be checked: no driver was tried with {fourcc}; share it as XR24 or AR24"
    )]
    Unchecked {
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// The format.
        fourcc: Fourcc,
    },
    /// The driver does not find its rows where it wants them.
    #[error(
        "{on} draws {alignment} bytes at a time and cannot draw into {frame}; \
             make stride and offset multiples of {alignment}"
    )]
    Alignment {
        /// The driver (GL_RENDERER).
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// What the rows must be aligned to, in bytes.
        alignment: u32,
    },
    /// The driver draws in squares of pixels, and the last of them reach beyond
    /// the frame's memory.
    #[error(
        "{on} draws {block} rows at a time, so it would draw beyond the memory of {frame}: \
             {reason}; allocate room for rows up to a multiple of {block}"
    )]
    Block {
        /// The driver (GL_RENDERER).
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// The edge of the squares, in pixels.
        block: u32,
        /// What there is no room for.
        reason: HandleError,
    },
    /// The frame has more planes, or larger numbers, than EGL can be told.
    #[error("EGL cannot be told of {frame}: {reason}")]
    Inexpressible {
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// GL cannot draw into a frame of this format.
    #[error("{on} cannot draw into {frame}: {status}; allocate the target as AR24 or XR24, linear")]
    Target {
        /// The driver (GL_RENDERER).
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// The status of the framebuffer.
        status: GlCode,
    },
    /// What was to be drawn with is of another [`Gpu`](super::Gpu).
    #[error("the {what} was made by another Gpu; import it again with this one")]
    OtherGpu {
        /// `texture`, `target` or `shader`.
        what: &'static str,
    },
    /// GL did not accept a shader.
    #[error("{on} does not {step}: {}", log.trim_end())]
    Shader {
        /// The driver (GL_RENDERER).
        on: String,
        /// What it does not do: compile one of the shaders, or link them.
        step: &'static str,
        /// The log of the compiler or linker.
        log: String,
    },
}

impl EglError {
    pub(super) fn missing(part: impl Into<String>, names: Vec<&'static str>) -> EglError {
        let advice = if names.iter().any(|name| name.contains("dma_buf")) {
            "Mesa 25 (Debian 13: libegl-mesa0, libgl1-mesa-dri) imports dma-bufs on every device, \
             Mesa 22 (Debian 12) only on a GPU with a DRM driver"
        } else {
            "install a driver for EGL 1.5 and OpenGL ES 3 (Debian: libegl-mesa0, libgl1-mesa-dri)"
        };
        EglError::Missing {
            part: part.into(),
            names,
            advice,
        }
    }
}

fn list(found: &[String]) -> String {
    if found.is_empty() {
        return "no device at all".to_owned();
    }
    found.join(", ")
}

fn advice_for(wanted: &Device) -> &'static str {
    match wanted {
        Device::Software => {
            "install Mesa's software driver (Debian: libegl-mesa0, libgl1-mesa-dri)"
        }
        Device::Node(_) => "install the driver of that GPU, or take the software device",
    }
}

/// An error code of EGL (`EGL/egl.h`), shown by its name.
///
/// ```
/// use dmashare::import::egl::EglCode;
/// assert_eq!(EglCode(0x3009).to_string(), "EGL_BAD_MATCH");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EglCode(pub i32);

impl EglCode {
    pub(super) const BAD_ACCESS: EglCode = EglCode(0x3002);
    pub(super) const BAD_ALLOC: EglCode = EglCode(0x3003);
    pub(super) const BAD_ATTRIBUTE: EglCode = EglCode(0x3004);
    pub(super) const BAD_MATCH: EglCode = EglCode(0x3009);
}

impl From<khronos_egl::Error> for EglCode {
    fn from(error: khronos_egl::Error) -> EglCode {
        EglCode(error.native())
    }
}

impl fmt::Display for EglCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0x3000 => "no error given (EGL_SUCCESS)",
            0x3001 => "EGL_NOT_INITIALIZED",
            0x3002 => "EGL_BAD_ACCESS",
            0x3003 => "EGL_BAD_ALLOC",
            0x3004 => "EGL_BAD_ATTRIBUTE",
            0x3005 => "EGL_BAD_CONFIG",
            0x3006 => "EGL_BAD_CONTEXT",
            0x3007 => "EGL_BAD_CURRENT_SURFACE",
            0x3008 => "EGL_BAD_DISPLAY",
            0x3009 => "EGL_BAD_MATCH",
            0x300A => "EGL_BAD_NATIVE_PIXMAP",
            0x300B => "EGL_BAD_NATIVE_WINDOW",
            0x300C => "EGL_BAD_PARAMETER",
            0x300D => "EGL_BAD_SURFACE",
            0x300E => "EGL_CONTEXT_LOST",
            0x322B => "EGL_BAD_DEVICE_EXT",
            other => return write!(f, "EGL error {other:#06x}"),
        })
    }
}

/// An error code or a framebuffer status of OpenGL ES, shown by its name.
///
/// ```
/// use dmashare::import::egl::GlCode;
/// assert_eq!(GlCode(0x0505).to_string(), "GL_OUT_OF_MEMORY");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlCode(pub u32);

impl fmt::Display for GlCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0x0500 => "GL_INVALID_ENUM",
            0x0501 => "GL_INVALID_VALUE",
            0x0502 => "GL_INVALID_OPERATION",
            0x0505 => "GL_OUT_OF_MEMORY",
            0x0506 => "GL_INVALID_FRAMEBUFFER_OPERATION",
            0x0507 => "GL_CONTEXT_LOST",
            0x8CD6 => "GL_FRAMEBUFFER_INCOMPLETE_ATTACHMENT",
            0x8CD7 => "GL_FRAMEBUFFER_INCOMPLETE_MISSING_ATTACHMENT",
            0x8CD9 => "GL_FRAMEBUFFER_INCOMPLETE_DIMENSIONS",
            0x8CDD => "GL_FRAMEBUFFER_UNSUPPORTED",
            other => return write!(f, "GL error {other:#06x}"),
        })
    }
}
