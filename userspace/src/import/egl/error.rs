//! What can go wrong between a frame and the GPU, by name.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use super::Device;
use crate::buffer::BufferError;
use crate::fence::FenceError;
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
    /// EGL would draw with the CPU on this node.
    #[error(
        "{node} has no GPU that EGL can use: {renderer} would draw there, and Mesa cannot map \
             the memory of others for that, and crashes; take the software device, \
             which imports what such a card exports, too"
    )]
    NoGpu {
        /// The device, with the kernel's driver.
        node: String,
        /// What would draw (GL_RENDERER).
        renderer: String,
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
    #[error("{operation} failed on {on}: {code}{}", code.advice())]
    Egl {
        /// The function.
        operation: &'static str,
        /// The device or driver.
        on: String,
        /// What EGL said.
        code: EglCode,
    },
    /// A GL function failed.
    #[error("{operation} failed on {on}: {code}{}", code.advice())]
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
    /// The driver reaches memory through the CPU, which cannot map this.
    #[error(
        "{on} does not import {frame}: it is the memory, which the CPU cannot map to read and \
             write: {reason}; open its handle for both, or allocate from udmabuf or a dma_heap"
    )]
    Memory {
        /// The driver (GL_RENDERER).
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// What mapping it said.
        reason: BufferError,
    },
    /// The driver reads this format only through GL_TEXTURE_EXTERNAL_OES, and
    /// cannot draw into it.
    #[error(
        "{on} takes {frame} only as GL_TEXTURE_EXTERNAL_OES, to read; import it with import_yuv, \
             or share it in an RGB format"
    )]
    ExternalOnly {
        /// The driver (GL_RENDERER).
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
    },
    /// The planes of the frame cannot be read one by one.
    #[error("the planes of {frame} cannot be imported one by one: {reason}")]
    NoPlanes {
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// How this format lies in memory is not known here, and nothing says that
    /// the driver reads it within its memory: some do not look.
    #[error(
        "{frame} cannot be checked: the layout of {fourcc} is not known here, and some drivers \
             read beyond the memory; share it as XR24 or AR24, or NV12 for video"
    )]
    Unchecked {
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// The format.
        fourcc: Fourcc,
    },
    /// The frame is larger than the driver's textures, which some do not look at.
    #[error("{on} has textures of {limit}x{limit} pixels at most, smaller than {frame}")]
    TooLarge {
        /// The driver (GL_RENDERER).
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// The largest width and height (GL_MAX_TEXTURE_SIZE).
        limit: u32,
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
    /// The shader does not read such a texture.
    #[error(
        "the shader declares `uniform {declared} frame`, but the texture needs \
             `uniform {needed} frame`; begin the shader with the prelude of the texture"
    )]
    Sampler {
        /// The sampler of the shader.
        declared: &'static str,
        /// That of the texture.
        needed: &'static str,
    },
    /// What the driver allocated does not come out as a frame of dma-bufs.
    #[error(
        "{on} does not export what it allocated: {reason}; \
             allocate from udmabuf or a dma_heap, and import that as the target"
    )]
    Export {
        /// The driver (GL_RENDERER).
        on: String,
        /// What went wrong.
        reason: String,
    },
    /// A handle that the driver gave is no dma-buf.
    #[error("a handle from the driver: {0}")]
    Buffer(#[from] BufferError),
    /// A sync_file cannot be passed to the driver, or is none.
    #[error("a fence: {0}")]
    Fence(#[from] FenceError),
    /// A handle cannot be duplicated, as the driver wants it.
    #[error(
        "no handle to spare for the driver: {source}; raise the limit of open files (RLIMIT_NOFILE)"
    )]
    Handles {
        /// What the kernel said.
        source: std::io::Error,
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
        let has = |part| names.iter().any(|name| name.contains(part));
        let advice = if has("native_fence") {
            "call finish() before a drawn frame is passed on, and wait for a fence on the CPU \
             before a frame is drawn (Mesa's software device offers fences where it may open \
             /dev/udmabuf)"
        } else if has("dma_buf_export") {
            "allocate from udmabuf or a dma_heap and import that as the target (Mesa's software \
             device exports where it may open /dev/udmabuf)"
        } else if has("dma_buf") {
            "Mesa 25 (Debian 13: libegl-mesa0, libgl1-mesa-dri) imports dma-bufs on every device, \
             Mesa 22 (Debian 12) only on a GPU with a DRM driver"
        } else if has("external") {
            "import the frame with import_planes, or share it in an RGB format"
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
        Device::Any | Device::Node(_) => {
            "a card that only has screens is none of its devices; install the driver of the GPU, \
             or take the software device"
        }
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

    /// What to do, where the code does not say it.
    fn advice(self) -> &'static str {
        match self.0 {
            0x3001 => {
                "; the driver does not start: install it (Debian: libegl-mesa0, libgl1-mesa-dri), \
                 allow this user to open the node under /dev/dri (group video or render), or take \
                 the software device"
            }
            0x3002 => "; the context is current on another thread: use it there",
            0x3003 => "; free memory of the device or of this process, or close other contexts",
            0x300E => "; drop all that was made with this Gpu, and open it again",
            _ => "",
        }
    }
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

impl GlCode {
    /// What to do, where the code does not say it.
    fn advice(self) -> &'static str {
        match self.0 {
            0x0505 => "; free memory of the device, or take smaller frames",
            0x0507 => "; drop all that was made with this Gpu, and open it again",
            _ => "",
        }
    }
}

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
