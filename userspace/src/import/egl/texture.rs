//! A frame as a texture, and as something to draw into.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use glow::HasContext;

#[cfg(doc)]
use super::Gpu;
use super::Inner;
use super::api;
use super::error::{EglError, GlCode};
use super::export::Exported;
use super::image::Image;
use super::yuv::{self, Hints, Planar};
use crate::buffer::Buffer;
use crate::import::{self, words};
use crate::share::{Frame, INVALID};

/// A frame that shaders can read; made by [`Gpu::import_texture`],
/// [`Gpu::import_yuv`] and their like.
///
/// Sampled at the nearest texel, clamped to the edge, until told otherwise
/// through [`gl`](Gpu::gl).
pub struct Texture {
    /// One, or one for each plane of the frame.
    planes: Vec<Plane>,
    kind: Kind,
    size: (u32, u32),
}

struct Plane {
    // Dropped in this order: the texture's name, then its memory.
    name: Name<glow::NativeTexture>,
    _image: Option<Image>,
}

/// How a shader reads it.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// As GL_TEXTURE_2D.
    Plain,
    /// As GL_TEXTURE_EXTERNAL_OES: the driver makes RGB of it.
    External,
    /// As a GL_TEXTURE_2D for each plane: the shader makes RGB of them.
    Planes(Planar, Hints),
}

/// A frame that can be drawn into; made by [`Gpu::import_target`] and
/// [`Gpu::new_target`].
pub struct Target {
    name: Name<glow::NativeFramebuffer>,
    texture: Texture,
    pub(super) exported: Option<Exported>,
}

/// A GL object's name, deleted on drop.
pub(super) struct Name<T: Copy> {
    pub(super) gpu: Rc<Inner>,
    pub(super) raw: T,
    pub(super) delete: unsafe fn(&glow::Context, T),
}

impl<T: Copy> Drop for Name<T> {
    fn drop(&mut self) {
        if self.gpu.make_current().is_ok() {
            // SAFETY: the context that made the object is current, and the
            // object is deleted once.
            unsafe { (self.delete)(&self.gpu.gl, self.raw) };
        }
    }
}

impl Plane {
    /// A texture without memory, which `fill` gives it while it is bound; the
    /// context is current.
    fn new(gpu: &Rc<Inner>, target: u32, fill: impl FnOnce()) -> Result<Plane, EglError> {
        // SAFETY: the context is current.
        let raw = unsafe { gpu.gl.create_texture() }.map_err(|_| gpu.failed("glGenTextures"))?;
        let name = Name {
            gpu: Rc::clone(gpu),
            raw,
            delete: |gl, raw| {
                // SAFETY: `Name` calls this as glow demands.
                unsafe { gl.delete_texture(raw) }
            },
        };
        // SAFETY: the context is current, and the texture is new.
        unsafe {
            gpu.gl.bind_texture(target, Some(raw));
            for (parameter, value) in [
                (glow::TEXTURE_MIN_FILTER, glow::NEAREST),
                (glow::TEXTURE_MAG_FILTER, glow::NEAREST),
                (glow::TEXTURE_WRAP_S, glow::CLAMP_TO_EDGE),
                (glow::TEXTURE_WRAP_T, glow::CLAMP_TO_EDGE),
            ] {
                let value = value.cast_signed();
                gpu.gl.tex_parameter_i32(target, parameter, value);
            }
        }
        fill();
        // SAFETY: the context is current.
        unsafe { gpu.gl.bind_texture(target, None) };
        Ok(Plane { name, _image: None })
    }

    /// The texture of an image; the context is current.
    fn of_image(image: Image, target: u32) -> Result<Plane, EglError> {
        let gpu = Rc::clone(&image.gpu);
        let plane = Plane::new(&gpu, target, || {
            // SAFETY: the context is current, a new texture is bound, and the
            // image is alive and of this display.
            unsafe { (gpu.image_target)(target, image.raw) };
        })?;
        gpu.check_gl("glEGLImageTargetTexture2DOES")?;
        Ok(Plane {
            _image: Some(image),
            ..plane
        })
    }
}

impl Texture {
    /// Of a frame that was checked; the context is current.
    pub(super) fn plain(
        gpu: &Rc<Inner>,
        frame: &Frame,
        handles: &[BorrowedFd<'_>],
    ) -> Result<Texture, EglError> {
        gpu.check_frame(frame)?;
        // Some take it all the same, and sample what is no colour.
        if gpu.external_only(frame) {
            return Err(EglError::ExternalOnly {
                on: gpu.renderer.clone(),
                frame: words(frame),
            });
        }
        let image = Image::new(gpu, frame, handles, None)?;
        Ok(Texture {
            planes: vec![Plane::of_image(image, glow::TEXTURE_2D)?],
            kind: Kind::Plain,
            size: (frame.width, frame.height),
        })
    }

    /// Of a frame that was checked; the context is current.
    pub(super) fn external(
        gpu: &Rc<Inner>,
        frame: &Frame,
        handles: &[BorrowedFd<'_>],
        hints: &Hints,
    ) -> Result<Texture, EglError> {
        let lacking = gpu.gl_extensions_lacking(&[
            "GL_OES_EGL_image_external",
            "GL_OES_EGL_image_external_essl3",
        ]);
        if !lacking.is_empty() {
            return Err(EglError::missing(gpu.renderer.clone(), lacking));
        }
        let image = Image::new(gpu, frame, handles, Some(hints))?;
        Ok(Texture {
            planes: vec![Plane::of_image(image, api::TEXTURE_EXTERNAL)?],
            kind: Kind::External,
            size: (frame.width, frame.height),
        })
    }

    /// Of a frame that was checked; the context is current.
    pub(super) fn planes_of(
        gpu: &Rc<Inner>,
        frame: &Frame,
        handles: &[BorrowedFd<'_>],
        hints: &Hints,
    ) -> Result<Texture, EglError> {
        let (planar, parts) = yuv::parts(frame).map_err(|reason| EglError::NoPlanes {
            frame: words(frame),
            reason,
        })?;
        let planes = parts.iter().map(|part| {
            let image = Image::new(gpu, part, handles, None)?;
            Plane::of_image(image, glow::TEXTURE_2D)
        });
        Ok(Texture {
            planes: planes.collect::<Result<_, _>>()?,
            kind: Kind::Planes(planar, *hints),
            size: (frame.width, frame.height),
        })
    }

    /// Of RGBA in memory of the driver's own; the context is current.
    pub(super) fn own(gpu: &Rc<Inner>, size: (u32, u32)) -> Result<Texture, EglError> {
        let (width, height) = (size.0.cast_signed(), size.1.cast_signed());
        let plane = Plane::new(gpu, glow::TEXTURE_2D, || {
            // SAFETY: the context is current, and a new texture is bound.
            unsafe {
                gpu.gl
                    .tex_storage_2d(glow::TEXTURE_2D, 1, glow::RGBA8, width, height);
            }
        })?;
        gpu.check_gl("glTexStorage2D")?;
        Ok(Texture {
            planes: vec![plane],
            kind: Kind::Plain,
            size,
        })
    }

    /// Width and height in pixels.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// # fn f(texture: &dmashare::import::egl::Texture) {
    /// let (width, height) = texture.size();
    /// # }
    /// ```
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// What a [`shader`](Gpu::shader) for this texture begins with: the version
    /// of GLSL, its samplers, `vec2 frame_size`, and `vec4 texel(ivec2 at)`, which
    /// gives the RGB of a pixel, whatever way the frame was imported.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// # use dmashare::import::egl::{EglError, Gpu, Shader, Texture};
    /// # fn f(gpu: &Gpu, camera: &Texture) -> Result<Shader, EglError> {
    /// let gray = "out vec4 color;
    /// void main() {
    ///     vec4 texel = texel(ivec2(gl_FragCoord.xy));
    ///     color = vec4(vec3(dot(texel.rgb, vec3(0.2126, 0.7152, 0.0722))), 1.0);
    /// }";
    /// gpu.shader(&(camera.prelude() + gray))
    /// # }
    /// ```
    pub fn prelude(&self) -> String {
        const VERSION: &str = "#version 300 es\n";
        const PRECISION: &str = "precision highp float;\nprecision highp int;\n";
        const SIZE: &str = "uniform highp vec2 frame_size;\n";
        match &self.kind {
            Kind::Plain => format!(
                "{VERSION}{PRECISION}{SIZE}uniform highp sampler2D frame;
vec4 texel(ivec2 at) {{ return texelFetch(frame, at, 0); }}
"
            ),
            // Where Mesa makes RGB of planes in the shader, texelFetch takes the
            // position for one between 0 and 1 all the same, and textureSize
            // is not to be had: see `shader`.
            Kind::External => format!(
                "{VERSION}#extension GL_OES_EGL_image_external_essl3 : require
{PRECISION}{SIZE}uniform highp samplerExternalOES frame;
vec4 texel(ivec2 at) {{ return texture(frame, (vec2(at) + 0.5) / frame_size); }}
"
            ),
            Kind::Planes(planar, hints) => {
                let body = yuv::prelude(planar, hints);
                format!("{VERSION}{PRECISION}{SIZE}precision highp sampler2D;\n{body}")
            }
        }
    }

    /// The texture's name, for use through [`Gpu::gl`]: that of the first plane
    /// where there are several. It stays owned by this object.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// use glow::HasContext;
    /// # fn f(gpu: &dmashare::import::egl::Gpu, texture: &dmashare::import::egl::Texture) -> Result<(), dmashare::import::egl::EglError> {
    /// let gl = gpu.gl()?;
    /// // SAFETY: the context is current and the texture alive.
    /// unsafe { gl.bind_texture(texture.target(), Some(texture.raw())) };
    /// # Ok(()) }
    /// ```
    pub fn raw(&self) -> glow::NativeTexture {
        self.planes[0].name.raw
    }

    /// The names of all planes: one, or with
    /// [`import_planes`](Gpu::import_planes) as many as the format has. They
    /// stay owned by this object.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// # fn f(nv12: &dmashare::import::egl::Texture) {
    /// assert_eq!(nv12.planes().len(), 2);
    /// # }
    /// ```
    pub fn planes(&self) -> impl ExactSizeIterator<Item = glow::NativeTexture> + '_ {
        self.planes.iter().map(|plane| plane.name.raw)
    }

    /// What [`raw`](Self::raw) is bound to: GL_TEXTURE_2D, or
    /// GL_TEXTURE_EXTERNAL_OES.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// # fn f(texture: &dmashare::import::egl::Texture) {
    /// const GL_TEXTURE_EXTERNAL_OES: u32 = 0x8D65;
    /// let by_the_driver = texture.target() == GL_TEXTURE_EXTERNAL_OES;
    /// # }
    /// ```
    pub fn target(&self) -> u32 {
        match self.kind {
            Kind::Plain | Kind::Planes(..) => glow::TEXTURE_2D,
            Kind::External => api::TEXTURE_EXTERNAL,
        }
    }

    /// The type of sampler that reads it.
    pub(super) fn sampler(&self) -> u32 {
        match self.kind {
            Kind::Plain | Kind::Planes(..) => glow::SAMPLER_2D,
            Kind::External => api::SAMPLER_EXTERNAL,
        }
    }

    pub(super) fn gpu(&self) -> &Rc<Inner> {
        &self.planes[0].name.gpu
    }
}

impl Target {
    /// The context is current, and the texture is of this frame.
    pub(super) fn imported(
        texture: Texture,
        frame: &Frame,
        buffers: &[&Buffer],
    ) -> Result<Target, EglError> {
        let gpu = texture.gpu();
        let alignment = gpu.target_alignment();
        let mut starts = frame.planes.iter().flat_map(|p| [p.stride, p.offset]);
        if !starts.all(|start| start.is_multiple_of(alignment)) {
            return Err(EglError::Alignment {
                on: gpu.renderer.clone(),
                frame: words(frame),
                alignment,
            });
        }
        let block = gpu.target_block();
        import::check(&in_blocks(frame, block), buffers).map_err(|reason| EglError::Block {
            on: gpu.renderer.clone(),
            frame: words(frame),
            block,
            reason,
        })?;
        Target::new(texture, frame)
    }

    /// The context is current, and the texture, GL_TEXTURE_2D, of this frame.
    pub(super) fn new(texture: Texture, frame: &Frame) -> Result<Target, EglError> {
        let gpu = Rc::clone(texture.gpu());
        // SAFETY: the context is current.
        let raw =
            unsafe { gpu.gl.create_framebuffer() }.map_err(|_| gpu.failed("glGenFramebuffers"))?;
        let name = Name {
            gpu: Rc::clone(&gpu),
            raw,
            delete: |gl, raw| {
                // SAFETY: `Name` calls this as glow demands.
                unsafe { gl.delete_framebuffer(raw) }
            },
        };
        // SAFETY: the context is current, and both objects are its own.
        let status = unsafe {
            gpu.gl.bind_framebuffer(glow::FRAMEBUFFER, Some(raw));
            gpu.gl.framebuffer_texture_2d(
                glow::FRAMEBUFFER,
                glow::COLOR_ATTACHMENT0,
                glow::TEXTURE_2D,
                Some(texture.raw()),
                0,
            );
            let status = gpu.gl.check_framebuffer_status(glow::FRAMEBUFFER);
            gpu.gl.bind_framebuffer(glow::FRAMEBUFFER, None);
            status
        };
        gpu.check_gl("glFramebufferTexture2D")?;
        if status != glow::FRAMEBUFFER_COMPLETE {
            return Err(EglError::Target {
                on: gpu.renderer.clone(),
                frame: words(frame),
                status: GlCode(status),
            });
        }
        Ok(Target {
            name,
            texture,
            exported: None,
        })
    }

    /// Width and height in pixels.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// # fn f(target: &dmashare::import::egl::Target) {
    /// let (width, height) = target.size();
    /// # }
    /// ```
    pub fn size(&self) -> (u32, u32) {
        self.texture.size()
    }

    /// The framebuffer's name, for use through [`Gpu::gl`]. It stays owned by
    /// this object.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// use glow::HasContext;
    /// # fn f(gpu: &dmashare::import::egl::Gpu, target: &dmashare::import::egl::Target) -> Result<(), dmashare::import::egl::EglError> {
    /// let gl = gpu.gl()?;
    /// // SAFETY: the context is current and the framebuffer alive.
    /// unsafe { gl.bind_framebuffer(glow::FRAMEBUFFER, Some(target.raw())) };
    /// # Ok(()) }
    /// ```
    pub fn raw(&self) -> glow::NativeFramebuffer {
        self.name.raw
    }

    /// What was drawn, as a texture to read, but not by who draws into it.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// # use dmashare::import::egl::{EglError, Gpu, Shader, Target};
    /// # fn f(gpu: &Gpu, first: &Target, second: &Target, shader: &Shader) -> Result<(), EglError> {
    /// gpu.draw(first.texture(), second, shader)?;
    /// # Ok(()) }
    /// ```
    pub fn texture(&self) -> &Texture {
        &self.texture
    }

    pub(super) fn gpu(&self) -> &Rc<Inner> {
        &self.name.gpu
    }
}

impl Inner {
    /// What stride and offset of a target must be multiples of, in bytes, where
    /// the driver does not look itself.
    ///
    /// llvmpipe stores four pixels at a time with instructions that want their
    /// address aligned, and the process ends by SIGSEGV where it is not (seen
    /// with Mesa 25). Reading it does at any address.
    pub(super) fn target_alignment(&self) -> u32 {
        match self.is_llvmpipe() {
            true => 16,
            false => 1,
        }
    }

    /// The edge in pixels of the squares that a target is drawn in, where the
    /// driver does not stop at the frame's edge.
    ///
    /// llvmpipe loads, blends and stores squares of 4 pixels whole
    /// (`LP_RASTER_BLOCK_SIZE`): it has room for them in what it allocates
    /// itself, and does not ask whether an import has it.
    pub(super) fn target_block(&self) -> u32 {
        match self.is_llvmpipe() {
            true => 4,
            false => 1,
        }
    }

    pub(super) fn is_llvmpipe(&self) -> bool {
        // Also where another driver draws by way of it, as zink can.
        self.renderer.contains("llvmpipe")
    }

    pub(super) fn external_only(&self, frame: &Frame) -> bool {
        let formats = self.formats().unwrap_or_default();
        let of_format = formats.iter().filter(|f| f.fourcc == frame.fourcc);
        let mut modifiers = of_format.flat_map(|format| &format.modifiers);
        // Of an unknown layout the driver takes the one it likes.
        let is_it = |code| frame.modifier == INVALID || code == frame.modifier;
        modifiers.any(|m| is_it(m.code) && m.external_only)
    }
}

/// The frame with its size rounded up to whole blocks.
fn in_blocks(frame: &Frame, block: u32) -> Frame {
    // It was given to EGL as an EGLint, so there is room above it.
    Frame {
        width: frame.width.next_multiple_of(block),
        height: frame.height.next_multiple_of(block),
        ..frame.clone()
    }
}

impl fmt::Debug for Texture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size;
        write!(f, "Texture({width}x{height} on {})", self.gpu().renderer)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size();
        write!(f, "Target({width}x{height} on {})", self.name.gpu.renderer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::{Fourcc, FrameError};

    #[test]
    fn a_last_row_of_blocks_is_whole() {
        let frame = Frame::packed(1024, 1, Fourcc::XRGB8888).unwrap();
        let blocks = in_blocks(&frame, 4);
        let short = FrameError::Size {
            plane: 0,
            end: 4 * 4096,
            size: 4096,
        };
        assert_eq!(blocks.check(&[4096]), Err(short));
        assert_eq!(blocks.check(&[4 * 4096]), Ok(()));
        assert_eq!(in_blocks(&frame, 1), frame);
    }
}
