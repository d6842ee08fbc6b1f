//! Frames as textures and render targets, through EGL and OpenGL ES 3.
//!
//! libEGL.so.1 is loaded when a [`Gpu`] is opened, so a program built with this
//! runs where there is none, and says so. A `Gpu` is one device, picked on
//! purpose ([`Device`]), with a surfaceless context. [`Gpu::import_texture`]
//! makes a frame readable by a shader, [`Gpu::import_target`] makes it
//! something to draw into, and [`Gpu::draw`] does the one into the other.
//!
//! Row 0 of a frame is at `t = 0` of a texture and at `y = 0` of a target:
//! nothing is flipped on the way.
//!
//! # Who waits for whom
//! The device reads and writes the memory itself. Draw only when the frame's
//! producer has said that it is complete, and pass a drawn frame on only after
//! [`Gpu::finish`].
//!
//! # Sources
//! EGL_EXT_image_dma_buf_import and its `_modifiers`, EGL_EXT_platform_device,
//! EGL_KHR_surfaceless_context, GL_OES_EGL_image, all in the Khronos registry.
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
mod format;
mod image;

pub use device::Device;
pub use draw::{Shader, Target, Texture};
pub use error::{EglCode, EglError, GlCode};
pub use format::{Format, Modifier};

use api::{Egl, ImageTargetTexture2d, Images, Modifiers};
use device::Extensions;
use image::Image;

/// A GPU, or the CPU in its place: an EGL device with an OpenGL ES 3 context.
///
/// It belongs to the thread that opened it. What is imported through it keeps
/// it alive. Calling any of its methods makes its context current on the
/// thread, and leaves it so.
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
    image_target: ImageTargetTexture2d,
    device: Device,
    renderer: String,
}

impl Gpu {
    /// Opens this device with a context of its own.
    ///
    /// # Errors
    /// [`EglError::Library`] without libEGL.so.1, [`EglError::NoDevice`] and
    /// [`EglError::Node`] where the device is not there, [`EglError::Missing`]
    /// where its driver cannot import, and [`EglError::Egl`] where it does not
    /// start.
    ///
    /// ```no_run
    /// // Not run: needs a GPU.
    /// use dmashare::import::egl::{Device, Gpu};
    /// let gpu = Gpu::open(&Device::Node("/dev/dri/renderD128".into()))?;
    /// # Ok::<(), dmashare::import::egl::EglError>(())
    /// ```
    pub fn open(device: &Device) -> Result<Gpu, EglError> {
        // SAFETY: libEGL.so.1 is the ABI name of EGL; loading it runs only its
        // own constructors. khronos-egl keeps it loaded.
        let egl = unsafe { Egl::load_required_from_filename("libEGL.so.1") }
            .map_err(|error| EglError::Library(error.to_string().into()))?;
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

        let context = Context::new(&egl, display).map_err(failed("eglCreateContext"))?;
        context.make_current().map_err(failed("eglMakeCurrent"))?;
        let (gl, image_target) = load_gl(&egl, device)?;
        // SAFETY: a context is current.
        let renderer = unsafe { gl.get_parameter_string(glow::RENDERER) };
        let context = context.into_raw();
        Ok(Gpu(Rc::new(Inner {
            egl,
            display,
            context,
            gl,
            images,
            modifiers,
            image_target,
            device: device.clone(),
            renderer,
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

    /// The device that was asked for.
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

    /// The formats and modifiers that the driver says it imports; empty where
    /// it lacks EGL_EXT_image_dma_buf_import_modifiers and cannot say.
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
    /// handles that are no dma-bufs, [`EglError::Unchecked`] for a format that was
    /// not tried yet with drivers that check no bounds (32-bit RGB was),
    /// [`EglError::Inexpressible`], [`EglError::Import`] and [`EglError::ExternalOnly`] where the driver
    /// does not take it, with what it likely was.
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
        let handles = import::check(frame, buffers)?;
        self.0.make_current()?;
        Texture::new(Image::new(&self.0, frame, &handles)?, frame)
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
        Target::new(self.import_texture(frame, buffers)?, frame, buffers)
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

impl Inner {
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
