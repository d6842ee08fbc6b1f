//! Frames as textures and render targets, through EGL and OpenGL ES 3.
//!
//! libEGL.so.1 is loaded when a [`Gpu`] is opened, so a program built with this
//! runs where there is none, and says so. A `Gpu` is one device, picked on
//! purpose ([`Device`], [`devices`]), with a surfaceless context.
//! [`Gpu::import_texture`] makes a frame readable by a shader,
//! [`Gpu::import_target`] makes it something to draw into, and [`Gpu::draw`]
//! does the one into the other. [`Gpu::new_target`] is the other way: what the
//! driver allocated, as a frame for others.
//!
//! A frame of YUV is read with [`Gpu::import_yuv`], and RGB made of it either by
//! the driver or by the shader, as [`Hints`] say.
//!
//! Row 0 of a frame is at `t = 0` of a texture and at `y = 0` of a target:
//! nothing is flipped on the way.
//!
//! # Who waits for whom
//! The device reads and writes the memory itself. Draw only when the frame's
//! producer has said that it is complete, or after [`Gpu::wait_for`] a fence of
//! his. Pass a drawn frame on only after [`Gpu::finish`], or with the
//! [`Gpu::fence`] of the drawing.
//!
//! # What is kept from Mesa
//! Seen with Mesa 25.0, whose software device (llvmpipe) reads and writes the
//! memory with the CPU and looks at few of the numbers that it is told:
//! - reads beyond the memory, of a stride that is too short or a plane that is
//!   too long: every plane is measured, and formats that cannot be are refused;
//! - writes beyond the memory, of a target whose height or width is no multiple
//!   of 4, and SIGSEGV for rows that do not start at multiples of 16 bytes: both
//!   are asked of a target;
//! - memory that it cannot map to write, which it maps later with another
//!   stride: it is tried before;
//! - frames larger than its textures: they are refused;
//! - a DRM node without a GPU, where it cannot map what it imports: BAD_ALLOC,
//!   or SIGSEGV at the first access. Such a node is not opened;
//! - `textureSize` of a `samplerExternalOES`: SIGSEGV in its compiler; a shader
//!   is refused of whose source the preprocessor could make both names
//!   ([`Gpu::shader`]);
//! - YUV bound to GL_TEXTURE_2D, which samples one plane as a colour: it is
//!   refused;
//! - a texture exported after it was drawn with, which is copied while threads
//!   still write to it: it is exported before.
//!
//! # Sources
//! EGL_EXT_image_dma_buf_import and its `_modifiers`, EGL_EXT_platform_device,
//! EGL_KHR_surfaceless_context, EGL_MESA_image_dma_buf_export,
//! EGL_ANDROID_native_fence_sync, GL_OES_EGL_image and
//! GL_OES_EGL_image_external_essl3, all in the Khronos registry; of Mesa,
//! `lp_texture.c` and `egl_dri2.c`.
//!
//! ```no_run
//! // Not run: imports need a dma-buf exporter.
//! use dmashare::import::egl::{Device, Gpu};
//! use dmashare::share::Frame;
//! use dmashare::buffer::Buffer;
//!
//! fn invert(from: (&Frame, &Buffer), to: (&Frame, &Buffer)) -> Result<(), Box<dyn std::error::Error>> {
//!     let gpu = Gpu::open(&Device::Software)?;
//!     let texture = gpu.import_texture(from.0, &[from.1])?;
//!     let target = gpu.import_target(to.0, &[to.1])?;
//!     let shader = gpu.shader(
//!         "#version 300 es
//!         precision highp float;
//!         uniform sampler2D frame;
//!         out vec4 color;
//!         void main() {
//!             vec4 texel = texelFetch(frame, ivec2(gl_FragCoord.xy), 0);
//!             color = vec4(1.0 - texel.rgb, 1.0);
//!         }",
//!     )?;
//!     gpu.draw(&texture, &target, &shader)?;
//!     gpu.finish()?;
//!     Ok(())
//! }
//! ```

use std::borrow::Borrow;
use std::ffi::c_void;
use std::fmt;
use std::ptr;
use std::rc::Rc;

use glow::HasContext;
use khronos_egl as egl;

#[cfg(doc)]
use crate::share::Fourcc;
use crate::share::Frame;
use crate::{buffer::Buffer, import};

mod api;
mod device;
mod draw;
mod error;
mod export;
mod format;
mod image;
mod sync;
mod taker;
mod texture;
mod yuv;

pub use device::{Device, DeviceInfo, devices};
pub use draw::Shader;
pub use error::{EglCode, EglError, GlCode};
pub use format::{Format, Modifier};
pub use texture::{Target, Texture};
pub use yuv::{ColorSpace, Hints, Range, Siting};

use api::{Egl, Exports, ImageTargetTexture2d, Images, Modifiers, Syncs};
use device::{Extensions, kernel_driver};

/// A GPU, or the CPU in its place: an EGL device with an OpenGL ES 3 context.
///
/// It belongs to the thread that opened it. What is imported through it keeps
/// it alive. Calling any of its methods makes its context current on the
/// thread, and leaves it so; to drop what was made through it does, too.
///
/// The EGL display beneath is EGL's own, one a device and process, and stays
/// initialised until the process ends: others in the process may use it.
///
/// ```no_run
/// // Not run: needs libEGL.so.1 and a driver that imports dma-bufs.
/// use dmashare::import::egl::{Device, Gpu};
/// let gpu = Gpu::open(&Device::Software)?;
/// println!("{gpu}"); // llvmpipe (LLVM 19.1.7, 256 bits) on software device (EGL_MESA_device_software)
/// # Ok::<(), dmashare::import::egl::EglError>(())
/// ```
pub struct Gpu(Rc<Inner>);

/// What imports hold on to. Rc, not Arc: a GL context is bound to a thread.
struct Inner {
    egl: Egl,
    display: egl::Display,
    context: egl::Context,
    gl: glow::Context,
    images: Images,
    modifiers: Option<Modifiers>,
    /// Or the extensions that it takes.
    exports: Result<Exports, Vec<&'static str>>,
    syncs: Result<Syncs, Vec<&'static str>>,
    image_target: ImageTargetTexture2d,
    device: Device,
    why: String,
    renderer: String,
    /// GL_MAX_TEXTURE_SIZE.
    max_size: u32,
}

impl Gpu {
    /// Opens this device with a context of its own.
    ///
    /// # Errors
    /// [`EglError::Library`] without libEGL.so.1, [`EglError::NoDevice`] and
    /// [`EglError::Node`] where the device is not there, [`EglError::NoGpu`]
    /// where the CPU would draw for a card that only has screens,
    /// [`EglError::Missing`] where its driver cannot import, and
    /// [`EglError::Egl`] where it does not start.
    ///
    /// ```no_run
    /// // Not run: needs a GPU.
    /// use dmashare::import::egl::{Device, Gpu};
    /// let gpu = Gpu::open(&Device::Node("/dev/dri/renderD128".into()))?;
    /// # Ok::<(), dmashare::import::egl::EglError>(())
    /// ```
    pub fn open(device: &Device) -> Result<Gpu, EglError> {
        match device {
            Device::Any => Gpu::open_any(),
            Device::Software | Device::Node(_) => {
                Gpu::open_one(device, format!("the {device} was asked for"))
            }
        }
    }

    /// The first GPU that imports, or the software device.
    fn open_any() -> Result<Gpu, EglError> {
        let mut passed = Vec::new();
        for found in devices()?.into_iter().filter(|found| !found.is_software()) {
            let why = format!("the driver of the {found} imports dma-bufs");
            match Gpu::open_one(&found.device, why) {
                Ok(gpu) => return Ok(gpu),
                Err(error) => passed.push(error.to_string()),
            }
        }
        let why = match passed.is_empty() {
            true => "EGL has no device with a GPU".to_owned(),
            false => passed.join("; "),
        };
        Gpu::open_one(&Device::Software, why)
    }

    fn open_one(device: &Device, why: String) -> Result<Gpu, EglError> {
        let egl = device::load()?;
        let display = device::display(&egl, device)?;
        let failed = |operation| {
            move |error: egl::Error| EglError::Egl {
                operation,
                on: device.to_string(),
                code: error.into(),
            }
        };
        egl.initialize(display).map_err(failed("eglInitialize"))?;
        let names = egl
            .query_string(Some(display), egl::EXTENSIONS)
            .map_err(failed("eglQueryString"))?;
        let extensions = Extensions::new(names.to_string_lossy());
        let lacking = extensions.lacking(&[
            "EGL_EXT_image_dma_buf_import",
            "EGL_KHR_image_base",
            "EGL_KHR_no_config_context",
            "EGL_KHR_surfaceless_context",
        ]);
        if !lacking.is_empty() {
            return Err(EglError::missing(device.to_string(), lacking));
        }
        let images = Images::load(&egl)?;
        let modifiers = match extensions.has("EGL_EXT_image_dma_buf_import_modifiers") {
            true => Some(Modifiers::load(&egl)?),
            false => None,
        };

        let exports = match extensions.lacking(EXPORTS) {
            lacking if lacking.is_empty() => Ok(Exports::load(&egl)?),
            lacking => Err(lacking),
        };
        let syncs = match extensions.lacking(SYNCS) {
            lacking if lacking.is_empty() => Ok(Syncs::load(&egl)?),
            lacking => Err(lacking),
        };

        let context = Context::new(&egl, display).map_err(failed("eglCreateContext"))?;
        context.make_current().map_err(failed("eglMakeCurrent"))?;
        let (gl, image_target) = load_gl(&egl, device)?;
        // SAFETY: a context is current.
        let (renderer, max_size) = unsafe {
            (
                gl.get_parameter_string(glow::RENDERER),
                gl.get_parameter_i32(glow::MAX_TEXTURE_SIZE),
            )
        };
        // On a node without a GPU Mesa draws with the CPU in memory of that
        // node (kms_swrast), and cannot map what it imports there.
        if let Device::Node(path) = device
            && draws_with_the_cpu(&renderer)
        {
            let node = match kernel_driver(path) {
                Some(driver) => format!("{} ({driver})", path.display()),
                None => path.display().to_string(),
            };
            return Err(EglError::NoGpu { node, renderer });
        }
        let context = context.into_raw();
        Ok(Gpu(Rc::new(Inner {
            egl,
            display,
            context,
            gl,
            images,
            modifiers,
            exports,
            syncs,
            image_target,
            device: device.clone(),
            why,
            renderer,
            max_size: u32::try_from(max_size).unwrap_or(0),
        })))
    }

    /// The driver, as GL_RENDERER gives it.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::egl::{Device, Gpu};
    /// assert!(Gpu::open(&Device::Software)?.renderer().starts_with("llvmpipe"));
    /// # Ok::<(), dmashare::import::egl::EglError>(())
    /// ```
    pub fn renderer(&self) -> &str {
        &self.0.renderer
    }

    /// The device: that which was asked for, or was found.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::egl::{Device, Gpu};
    /// assert_eq!(Gpu::open(&Device::Software)?.device(), &Device::Software);
    /// # Ok::<(), dmashare::import::egl::EglError>(())
    /// ```
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Why it is this device, in words: which others were passed over, and what
    /// is wrong with each.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::egl::{Device, Gpu};
    /// let gpu = Gpu::open(&Device::Any)?;
    /// println!("{gpu}: {}", gpu.why()); // ...: EGL has no device with a GPU
    /// # Ok::<(), dmashare::import::egl::EglError>(())
    /// ```
    pub fn why(&self) -> &str {
        &self.0.why
    }

    /// The formats and modifiers that the driver says it imports; empty where
    /// it lacks EGL_EXT_image_dma_buf_import_modifiers and cannot say.
    ///
    /// Not all that is listed is taken: Mesa's software device (seen with 25.0)
    /// lists NV12 and others of several planes, and takes none of them whole.
    ///
    /// # Errors
    /// [`EglError::Egl`] where the driver fails to answer.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::egl::{Device, Gpu};
    /// use dmashare::share::Fourcc;
    /// let formats = Gpu::open(&Device::Software)?.formats()?;
    /// assert!(formats.iter().any(|format| format.fourcc == Fourcc::XRGB8888));
    /// # Ok::<(), dmashare::import::egl::EglError>(())
    /// ```
    pub fn formats(&self) -> Result<Vec<Format>, EglError> {
        self.0.formats()
    }

    /// The frame in these dma-bufs as a GL_TEXTURE_2D to sample from.
    ///
    /// Nothing is copied: the texture is that memory, and what is written there
    /// later is what a later draw reads. The handles can be closed.
    ///
    /// # Errors
    /// [`EglError::Handle`] for a frame that does not lie in its handles or
    /// handles that are no dma-bufs; [`EglError::Unchecked`] for a format whose
    /// layout is not known here ([`Fourcc::planes`](crate::share::Fourcc::planes)),
    /// since some drivers check no bounds; [`EglError::TooLarge`];
    /// [`EglError::Inexpressible`], [`EglError::Import`] and
    /// [`EglError::ExternalOnly`] where the driver does not take it, with what it
    /// likely was.
    ///
    /// ```no_run
    /// // Not run: needs a dma-buf.
    /// # use dmashare::import::egl::{EglError, Gpu, Texture};
    /// # use dmashare::share::{Fourcc, Frame};
    /// # use dmashare::buffer::Buffer;
    /// # fn f(gpu: &Gpu, dma_buf: &Buffer) -> Result<Texture, Box<dyn std::error::Error>> {
    /// let frame = Frame::packed(640, 480, Fourcc::XRGB8888)?;
    /// let texture = gpu.import_texture(&frame, &[dma_buf])?;
    /// # Ok(texture) }
    /// ```
    pub fn import_texture(
        &self,
        frame: &Frame,
        buffers: &[impl Borrow<Buffer>],
    ) -> Result<Texture, EglError> {
        self.texture_of(frame, &import::resolve(buffers))
    }

    /// The frame in these dma-bufs as a GL_TEXTURE_EXTERNAL_OES to sample from:
    /// the driver makes RGB of it, of YUV by these hints.
    ///
    /// Nothing is copied, as with [`import_texture`](Gpu::import_texture).
    ///
    /// # Errors
    /// Those of [`import_texture`](Gpu::import_texture), but for
    /// [`EglError::ExternalOnly`], and [`EglError::Missing`] without
    /// GL_OES_EGL_image_external_essl3.
    ///
    /// ```no_run
    /// // Not run: needs a dma-buf.
    /// # use dmashare::import::egl::{EglError, Gpu, Hints, Texture};
    /// # use dmashare::share::{Fourcc, Frame};
    /// # use dmashare::buffer::Buffer;
    /// # fn f(gpu: &Gpu, dma_buf: &Buffer) -> Result<Texture, Box<dyn std::error::Error>> {
    /// let frame = Frame::packed(640, 480, Fourcc::new(*b"YUYV"))?;
    /// let camera = gpu.import_external(&frame, &[dma_buf], &Hints::default())?;
    /// # Ok(camera) }
    /// ```
    pub fn import_external(
        &self,
        frame: &Frame,
        buffers: &[impl Borrow<Buffer>],
        hints: &Hints,
    ) -> Result<Texture, EglError> {
        self.external_of(frame, &import::resolve(buffers), hints)
    }

    /// The planes of a linear YUV frame in these dma-bufs as a GL_TEXTURE_2D
    /// each, in `uniform sampler2D frame`, `frame1` and `frame2` of a shader:
    /// the shader makes RGB of them, as that with the
    /// [`prelude`](Texture::prelude) of this texture does, by these hints.
    ///
    /// For drivers that take no YUV, or not this one: all they need is R8, and
    /// GR88 or such. Two pixels of YUYV and its like are one texel of RGBA.
    /// Nothing is copied, as with [`import_texture`](Gpu::import_texture).
    ///
    /// # Errors
    /// [`EglError::NoPlanes`] for a frame that is no YUV or not linear, and those
    /// of [`import_texture`](Gpu::import_texture).
    ///
    /// ```no_run
    /// // Not run: needs a dma-buf.
    /// # use dmashare::import::egl::{EglError, Gpu, Hints, Texture};
    /// # use dmashare::share::{Fourcc, Frame};
    /// # use dmashare::buffer::Buffer;
    /// # fn f(gpu: &Gpu, dma_buf: &Buffer) -> Result<Texture, Box<dyn std::error::Error>> {
    /// let frame = Frame::packed(640, 480, Fourcc::new(*b"NV12"))?;
    /// let video = gpu.import_planes(&frame, &[dma_buf], &Hints::default())?;
    /// assert_eq!(video.planes().len(), 2);
    /// # Ok(video) }
    /// ```
    pub fn import_planes(
        &self,
        frame: &Frame,
        buffers: &[impl Borrow<Buffer>],
        hints: &Hints,
    ) -> Result<Texture, EglError> {
        self.planes_of(frame, &import::resolve(buffers), hints)
    }

    /// A YUV frame in these dma-bufs by whatever way the driver takes it:
    /// [`import_external`](Gpu::import_external), or else
    /// [`import_planes`](Gpu::import_planes). A shader with the
    /// [`prelude`](Texture::prelude) of the texture reads either.
    ///
    /// # Errors
    /// Those of [`import_external`](Gpu::import_external), where neither works.
    ///
    /// ```no_run
    /// // Not run: needs a dma-buf.
    /// # use dmashare::import::egl::{ColorSpace, EglError, Gpu, Hints, Range, Texture};
    /// # use dmashare::share::{Fourcc, Frame};
    /// # use dmashare::buffer::Buffer;
    /// # fn f(gpu: &Gpu, dma_buf: &Buffer) -> Result<Texture, Box<dyn std::error::Error>> {
    /// let frame = Frame::packed(1920, 1080, Fourcc::new(*b"NV12"))?;
    /// let hints = Hints::new(ColorSpace::Bt709, Range::Limited);
    /// let video = gpu.import_yuv(&frame, &[dma_buf], &hints)?;
    /// # Ok(video) }
    /// ```
    pub fn import_yuv(
        &self,
        frame: &Frame,
        buffers: &[impl Borrow<Buffer>],
        hints: &Hints,
    ) -> Result<Texture, EglError> {
        let buffers = import::resolve(buffers);
        match self.external_of(frame, &buffers, hints) {
            Err(error @ (EglError::Import { .. } | EglError::Missing { .. })) => {
                let by_planes = self.planes_of(frame, &buffers, hints);
                by_planes.map_err(|_| error)
            }
            imported => imported,
        }
    }

    /// The frame in these dma-bufs as something to draw into.
    ///
    /// Nothing is copied: what is drawn is in that memory once
    /// [`finish`](Gpu::finish) has returned. A stride that is a multiple of 256
    /// bytes suits every driver; llvmpipe wants multiples of 16.
    ///
    /// llvmpipe, the software device, draws in squares of 4x4 pixels. Where
    /// width or height is no multiple of 4, it reads up to three pixels beyond
    /// each row and up to three rows below the last, and writes them back as
    /// they were. They must lie in the memory, and nobody else should write
    /// them meanwhile: allocate a target with its height rounded up to 4.
    ///
    /// # Errors
    /// Those of [`import_texture`](Gpu::import_texture),
    /// [`EglError::Alignment`] for rows that start where the driver cannot
    /// draw, [`EglError::Block`] where those rows below are not there, and [`EglError::Target`] for a format that can only be read.
    ///
    /// ```no_run
    /// // Not run: needs a dma-buf.
    /// # use dmashare::import::egl::{EglError, Gpu, Target};
    /// # use dmashare::share::{Fourcc, Frame};
    /// # use dmashare::buffer::Buffer;
    /// # fn f(gpu: &Gpu, dma_buf: &Buffer) -> Result<Target, Box<dyn std::error::Error>> {
    /// let frame = Frame::packed(640, 480, Fourcc::XRGB8888)?;
    /// let target = gpu.import_target(&frame, &[dma_buf])?;
    /// # Ok(target) }
    /// ```
    pub fn import_target(
        &self,
        frame: &Frame,
        buffers: &[impl Borrow<Buffer>],
    ) -> Result<Target, EglError> {
        let buffers = import::resolve(buffers);
        Target::imported(self.texture_of(frame, &buffers)?, frame, &buffers)
    }

    fn texture_of(&self, frame: &Frame, buffers: &[&Buffer]) -> Result<Texture, EglError> {
        let handles = import::check(frame, buffers)?;
        self.0.make_current()?;
        Texture::plain(&self.0, frame, &handles)
    }

    fn external_of(
        &self,
        frame: &Frame,
        buffers: &[&Buffer],
        hints: &Hints,
    ) -> Result<Texture, EglError> {
        let handles = import::check(frame, buffers)?;
        self.0.make_current()?;
        Texture::external(&self.0, frame, &handles, hints)
    }

    fn planes_of(
        &self,
        frame: &Frame,
        buffers: &[&Buffer],
        hints: &Hints,
    ) -> Result<Texture, EglError> {
        let handles = import::check(frame, buffers)?;
        self.0.make_current()?;
        Texture::planes_of(&self.0, frame, &handles, hints)
    }

    /// Waits until all that was drawn is in memory (`glFinish`).
    ///
    /// # Errors
    /// [`EglError::Gl`] for an error of anything drawn before: some drivers
    /// find out only now that they cannot reach the memory.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # fn f(gpu: &dmashare::import::egl::Gpu) -> Result<(), dmashare::import::egl::EglError> {
    /// gpu.finish()
    /// # }
    /// ```
    pub fn finish(&self) -> Result<(), EglError> {
        self.0.make_current()?;
        // SAFETY: the context is current.
        unsafe { self.0.gl.finish() };
        self.0.check_gl("glFinish")
    }

    /// The context, made current, for drawing that [`draw`](Gpu::draw) does
    /// not do.
    ///
    /// # Errors
    /// [`EglError::Egl`] where it cannot be made current.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// use glow::HasContext;
    /// # fn f(gpu: &dmashare::import::egl::Gpu) -> Result<(), dmashare::import::egl::EglError> {
    /// let gl = gpu.gl()?;
    /// // SAFETY: the context is current.
    /// let version = unsafe { gl.get_parameter_string(glow::VERSION) };
    /// # Ok(()) }
    /// ```
    pub fn gl(&self) -> Result<&glow::Context, EglError> {
        self.0.make_current()?;
        Ok(&self.0.gl)
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.renderer(), self.device())
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({self})")
    }
}

/// What [`Gpu::new_target`] takes.
const EXPORTS: &[&str] = &[
    "EGL_KHR_gl_texture_2D_image",
    "EGL_MESA_image_dma_buf_export",
];

/// What [`Gpu::fence`] and [`Gpu::wait_for`] take.
const SYNCS: &[&str] = &[
    "EGL_KHR_fence_sync",
    "EGL_KHR_wait_sync",
    "EGL_ANDROID_native_fence_sync",
];

/// Whether this GL_RENDERER is one of Mesa's that draw with the CPU, or one that
/// draws by way of it, as zink can.
fn draws_with_the_cpu(renderer: &str) -> bool {
    ["llvmpipe", "softpipe", "swrast"]
        .iter()
        .any(|name| renderer.contains(name))
}

impl Inner {
    fn gl_extensions_lacking(&self, names: &[&'static str]) -> Vec<&'static str> {
        let there = self.gl.supported_extensions();
        let lacking = names.iter().copied().filter(|name| !there.contains(*name));
        lacking.collect()
    }

    fn make_current(&self) -> Result<(), EglError> {
        make_current(&self.egl, self.display, self.context).map_err(|error| EglError::Egl {
            operation: "eglMakeCurrent",
            on: self.renderer.clone(),
            code: error.into(),
        })
    }

    /// The oldest error since the last check; the others are dropped with it.
    fn check_gl(&self, operation: &'static str) -> Result<(), EglError> {
        // SAFETY: the context is current.
        let next = || unsafe { self.gl.get_error() };
        let first = next();
        if first == glow::NO_ERROR {
            return Ok(());
        }
        // It ends: a context has a handful of error flags, each given once.
        while !matches!(next(), glow::NO_ERROR | CONTEXT_LOST) {}
        Err(EglError::Gl {
            operation,
            on: self.renderer.clone(),
            code: GlCode(first),
        })
    }
}

/// `GL_CONTEXT_LOST` of OpenGL ES 3.2, which glGetError repeats for ever.
const CONTEXT_LOST: u32 = 0x0507;

impl Drop for Inner {
    fn drop(&mut self) {
        release(&self.egl, self.display, self.context);
    }
}

/// GL, and the one function of GL_OES_EGL_image; a context is current.
fn load_gl(egl: &Egl, device: &Device) -> Result<(glow::Context, ImageTargetTexture2d), EglError> {
    let address = |name: &str| match egl.get_proc_address(name) {
        Some(function) => function as *const c_void,
        None => ptr::null(),
    };
    // SAFETY: a context is current, and EGL gives the addresses of its API.
    let gl = unsafe { glow::Context::from_loader_function(address) };
    let missing = |name| EglError::missing(format!("OpenGL ES of the {device}"), vec![name]);
    if !gl.supported_extensions().contains("GL_OES_EGL_image") {
        return Err(missing("GL_OES_EGL_image"));
    }
    let name = "glEGLImageTargetTexture2DOES";
    let image_target = egl.get_proc_address(name).ok_or_else(|| missing(name))?;
    // SAFETY: the address is that of this function, and the signature is the
    // one that GL_OES_EGL_image gives.
    let image_target =
        unsafe { std::mem::transmute::<extern "system" fn(), ImageTargetTexture2d>(image_target) };
    Ok((gl, image_target))
}

fn make_current(egl: &Egl, display: egl::Display, context: egl::Context) -> Result<(), egl::Error> {
    // The API is a state of the thread; the current context is one of the API.
    egl.bind_api(egl::OPENGL_ES_API)?;
    if egl.get_current_context() == Some(context) {
        return Ok(());
    }
    egl.make_current(display, None, None, Some(context))
}

fn release(egl: &Egl, display: egl::Display, context: egl::Context) {
    // A context that is current somewhere is destroyed only once it is not.
    if egl.get_current_context() == Some(context) {
        let _ = egl.make_current(display, None, None, None);
    }
    let _ = egl.destroy_context(display, context);
}

/// A context on its way into [`Inner`]: released if something fails before.
struct Context<'egl> {
    egl: &'egl Egl,
    display: egl::Display,
    raw: egl::Context,
}

impl<'egl> Context<'egl> {
    fn new(egl: &'egl Egl, display: egl::Display) -> Result<Context<'egl>, egl::Error> {
        egl.bind_api(egl::OPENGL_ES_API)?;
        // SAFETY: EGL_NO_CONFIG_KHR, which EGL_KHR_no_config_context allows.
        let no_config = unsafe { egl::Config::from_ptr(ptr::null_mut()) };
        let version = [egl::CONTEXT_MAJOR_VERSION, 3, egl::NONE];
        let raw = egl.create_context(display, no_config, None, &version)?;
        Ok(Context { egl, display, raw })
    }

    fn make_current(&self) -> Result<(), egl::Error> {
        make_current(self.egl, self.display, self.raw)
    }

    fn into_raw(self) -> egl::Context {
        let raw = self.raw;
        std::mem::forget(self);
        raw
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        release(self.egl, self.display, self.raw);
    }
}
