//! Reading one frame and drawing another.

use std::borrow::Borrow;
use std::fmt;
use std::rc::Rc;

use glow::HasContext;

use super::error::{EglError, GlCode};
use super::image::Image;
use super::{Gpu, Inner};
use crate::buffer::Buffer;
use crate::import::{self, words};
use crate::share::Frame;

/// One triangle that covers the target, without a vertex buffer.
const FULL_SCREEN: &str = "#version 300 es
void main() {
    vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1));
    gl_Position = vec4(corner * 4.0 - 1.0, 0.0, 1.0);
}";

/// A frame that shaders can read; made by [`Gpu::import_texture`].
///
/// Sampled at the nearest texel, clamped to the edge, until told otherwise
/// through [`gl`](Gpu::gl).
pub struct Texture {
    // Dropped in this order: the texture's name, then its memory.
    name: Name<glow::NativeTexture>,
    _image: Image,
    size: (u32, u32),
}

/// A frame that can be drawn into; made by [`Gpu::import_target`].
pub struct Target {
    name: Name<glow::NativeFramebuffer>,
    texture: Texture,
}

/// A compiled fragment shader that covers a whole target; made by
/// [`Gpu::shader`].
pub struct Shader {
    program: Name<glow::NativeProgram>,
    frame: Option<glow::NativeUniformLocation>,
}

/// A GL object's name, deleted on drop.
struct Name<T: Copy> {
    gpu: Rc<Inner>,
    raw: T,
    delete: unsafe fn(&glow::Context, T),
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

impl Texture {
    /// The context is current.
    pub(super) fn new(image: Image, frame: &Frame) -> Result<Texture, EglError> {
        let gpu = Rc::clone(&image.gpu);
        // SAFETY: the context is current.
        let raw = unsafe { gpu.gl.create_texture() }.map_err(|_| gpu.failed("glGenTextures"))?;
        let name = Name {
            gpu: Rc::clone(&gpu),
            raw,
            delete: |gl, raw| {
                // SAFETY: `Name` calls this as glow demands.
                unsafe { gl.delete_texture(raw) }
            },
        };
        // SAFETY: the context is current, the texture is new, and the image is
        // alive and of this display.
        unsafe {
            gpu.gl.bind_texture(glow::TEXTURE_2D, Some(raw));
            for (parameter, value) in [
                (glow::TEXTURE_MIN_FILTER, glow::NEAREST),
                (glow::TEXTURE_MAG_FILTER, glow::NEAREST),
                (glow::TEXTURE_WRAP_S, glow::CLAMP_TO_EDGE),
                (glow::TEXTURE_WRAP_T, glow::CLAMP_TO_EDGE),
            ] {
                let value = value.cast_signed();
                gpu.gl.tex_parameter_i32(glow::TEXTURE_2D, parameter, value);
            }
            (gpu.image_target)(glow::TEXTURE_2D, image.raw);
            gpu.gl.bind_texture(glow::TEXTURE_2D, None);
        }
        gpu.check_gl("glEGLImageTargetTexture2DOES")
            .map_err(|error| match gpu.external_only(frame) {
                true => EglError::ExternalOnly {
                    on: gpu.renderer.clone(),
                    frame: words(frame),
                },
                false => error,
            })?;
        Ok(Texture {
            name,
            _image: image,
            size: (frame.width, frame.height),
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

    /// The texture's name, for use through [`Gpu::gl`]. It stays owned by this
    /// object.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// use glow::HasContext;
    /// # fn f(gpu: &dmashare::import::egl::Gpu, texture: &dmashare::import::egl::Texture) -> Result<(), dmashare::import::egl::EglError> {
    /// let gl = gpu.gl()?;
    /// // SAFETY: the context is current and the texture alive.
    /// unsafe { gl.bind_texture(glow::TEXTURE_2D, Some(texture.raw())) };
    /// # Ok(()) }
    /// ```
    pub fn raw(&self) -> glow::NativeTexture {
        self.name.raw
    }
}

impl Target {
    /// The context is current, and the texture is of this frame.
    pub(super) fn new(
        texture: Texture,
        frame: &Frame,
        buffers: &[impl Borrow<Buffer>],
    ) -> Result<Target, EglError> {
        let gpu = Rc::clone(&texture.name.gpu);
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
        Ok(Target { name, texture })
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
}

impl Gpu {
    /// Compiles a fragment shader to [`draw`](Gpu::draw) with.
    ///
    /// It is GLSL ES 3.00; a `uniform sampler2D frame` is the texture, which
    /// may be unused. `gl_FragCoord.xy` is the pixel of the target, counted
    /// from row 0 of its memory, plus one half.
    ///
    /// # Errors
    /// [`EglError::Shader`] with the compiler's log.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # fn f(gpu: &dmashare::import::egl::Gpu) -> Result<(), dmashare::import::egl::EglError> {
    /// let copy = gpu.shader(
    ///     "#version 300 es
    ///     precision highp float;
    ///     uniform sampler2D frame;
    ///     out vec4 color;
    ///     void main() { color = texelFetch(frame, ivec2(gl_FragCoord.xy), 0); }",
    /// )?;
    /// # Ok(()) }
    /// ```
    pub fn shader(&self, fragment: &str) -> Result<Shader, EglError> {
        let inner = &self.0;
        inner.make_current()?;
        let vertex = inner.compile(
            "compile the vertex shader",
            glow::VERTEX_SHADER,
            FULL_SCREEN,
        )?;
        let fragment = inner.compile(
            "compile the fragment shader",
            glow::FRAGMENT_SHADER,
            fragment,
        )?;
        // SAFETY: the context is current.
        let raw =
            unsafe { inner.gl.create_program() }.map_err(|_| inner.failed("glCreateProgram"))?;
        let program = Name {
            gpu: Rc::clone(inner),
            raw,
            delete: |gl, raw| {
                // SAFETY: `Name` calls this as glow demands.
                unsafe { gl.delete_program(raw) }
            },
        };
        // SAFETY: the context is current, and all three objects are its own.
        unsafe {
            for shader in [&vertex, &fragment] {
                inner.gl.attach_shader(raw, shader.raw);
            }
            inner.gl.link_program(raw);
            for shader in [&vertex, &fragment] {
                inner.gl.detach_shader(raw, shader.raw);
            }
            if !inner.gl.get_program_link_status(raw) {
                return Err(EglError::Shader {
                    on: inner.renderer.clone(),
                    step: "link the shaders",
                    log: inner.gl.get_program_info_log(raw),
                });
            }
        }
        // SAFETY: the context is current, the program linked.
        let frame = unsafe { inner.gl.get_uniform_location(raw, "frame") };
        inner.check_gl("glLinkProgram")?;
        Ok(Shader { program, frame })
    }

    /// Draws the whole of `target` with `shader`, which reads `texture`.
    ///
    /// It is done when [`finish`](Gpu::finish) has returned.
    ///
    /// # Errors
    /// [`EglError::OtherGpu`] if one of the three was made by another `Gpu`,
    /// and [`EglError::Gl`].
    ///
    /// ```no_run
    /// // Not run: needs imported dma-bufs.
    /// # use dmashare::import::egl::{EglError, Gpu, Shader, Target, Texture};
    /// # fn f(gpu: &Gpu, texture: &Texture, target: &Target, shader: &Shader) -> Result<(), EglError> {
    /// gpu.draw(texture, target, shader)?;
    /// gpu.finish()?;
    /// # Ok(()) }
    /// ```
    pub fn draw(
        &self,
        texture: &Texture,
        target: &Target,
        shader: &Shader,
    ) -> Result<(), EglError> {
        for (what, gpu) in [
            ("texture", &texture.name.gpu),
            ("target", &target.name.gpu),
            ("shader", &shader.program.gpu),
        ] {
            if !Rc::ptr_eq(gpu, &self.0) {
                return Err(EglError::OtherGpu { what });
            }
        }
        self.0.make_current()?;
        let gl = &self.0.gl;
        let (width, height) = target.size();
        // SAFETY: the context is current, all objects are its own; the sizes
        // were given to EGL as EGLint, so they keep their value.
        unsafe {
            gl.bind_framebuffer(glow::FRAMEBUFFER, Some(target.raw()));
            gl.viewport(0, 0, width.cast_signed(), height.cast_signed());
            // Nothing between what the shader says and the memory.
            for state in [
                glow::BLEND,
                glow::DITHER,
                glow::SCISSOR_TEST,
                glow::DEPTH_TEST,
            ] {
                gl.disable(state);
            }
            gl.color_mask(true, true, true, true);
            gl.use_program(Some(shader.program.raw));
            gl.active_texture(glow::TEXTURE0);
            gl.bind_texture(glow::TEXTURE_2D, Some(texture.raw()));
            gl.uniform_1_i32(shader.frame.as_ref(), 0);
            gl.draw_arrays(glow::TRIANGLES, 0, 3);
            gl.bind_texture(glow::TEXTURE_2D, None);
            gl.use_program(None);
            gl.bind_framebuffer(glow::FRAMEBUFFER, None);
        }
        self.0.check_gl("glDrawArrays")
    }
}

impl Inner {
    fn compile(
        self: &Rc<Inner>,
        step: &'static str,
        kind: u32,
        source: &str,
    ) -> Result<Name<glow::NativeShader>, EglError> {
        // SAFETY: the context is current.
        let raw =
            unsafe { self.gl.create_shader(kind) }.map_err(|_| self.failed("glCreateShader"))?;
        let shader = Name {
            gpu: Rc::clone(self),
            raw,
            delete: |gl, raw| {
                // SAFETY: `Name` calls this as glow demands.
                unsafe { gl.delete_shader(raw) }
            },
        };
        // SAFETY: the context is current, and the shader its own.
        unsafe {
            self.gl.shader_source(raw, source);
            self.gl.compile_shader(raw);
            if !self.gl.get_shader_compile_status(raw) {
                return Err(EglError::Shader {
                    on: self.renderer.clone(),
                    step,
                    log: self.gl.get_shader_info_log(raw),
                });
            }
        }
        Ok(shader)
    }

    /// What stride and offset of a target must be multiples of, in bytes, where
    /// the driver does not look itself.
    ///
    /// llvmpipe stores four pixels at a time with instructions that want their
    /// address aligned, and the process ends by SIGSEGV where it is not (seen
    /// with Mesa 25). Reading it does at any address.
    fn target_alignment(&self) -> u32 {
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
    fn target_block(&self) -> u32 {
        match self.is_llvmpipe() {
            true => 4,
            false => 1,
        }
    }

    fn is_llvmpipe(&self) -> bool {
        self.renderer.starts_with("llvmpipe")
    }

    /// The error of a function that gave no object, which GL only does when
    /// it has no memory left, or the context is lost.
    fn failed(&self, operation: &'static str) -> EglError {
        match self.check_gl(operation) {
            Err(error) => error,
            Ok(()) => EglError::Gl {
                operation,
                on: self.renderer.clone(),
                code: GlCode(glow::OUT_OF_MEMORY),
            },
        }
    }

    fn external_only(&self, frame: &Frame) -> bool {
        let formats = self.formats().unwrap_or_default();
        let of_format = formats.iter().filter(|f| f.fourcc == frame.fourcc);
        let mut modifiers = of_format.flat_map(|format| &format.modifiers);
        modifiers.any(|m| m.code == frame.modifier && m.external_only)
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
        write!(f, "Texture({width}x{height} on {})", self.name.gpu.renderer)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size();
        write!(f, "Target({width}x{height} on {})", self.name.gpu.renderer)
    }
}

impl fmt::Debug for Shader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shader(on {})", self.program.gpu.renderer)
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
