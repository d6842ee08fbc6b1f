//! Reading one frame and drawing another.

use std::fmt;
use std::rc::Rc;

use glow::HasContext;

use super::api;
use super::error::{EglError, GlCode};
use super::texture::{Name, Target, Texture};
use super::yuv;
use super::{Gpu, Inner};
use crate::import::Part;

/// One triangle that covers the target, without a vertex buffer.
const FULL_SCREEN: &str = "#version 300 es
void main() {
    vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1));
    gl_Position = vec4(corner * 4.0 - 1.0, 0.0, 1.0);
}";

/// A compiled fragment shader that covers a whole target; made by
/// [`Gpu::shader`].
pub struct Shader {
    program: Name<glow::NativeProgram>,
    /// Where the shader has a texture for each plane.
    planes: [Option<glow::NativeUniformLocation>; 3],
    /// The type of the first: `GL_SAMPLER_2D`, or the external one.
    sampler: Option<u32>,
    /// Where it has the size of the frame.
    size: Option<glow::NativeUniformLocation>,
}

impl Gpu {
    /// Compiles a fragment shader to [`draw`](Gpu::draw) with.
    ///
    /// It is GLSL ES 3.00. It begins with the [`prelude`](Texture::prelude) of
    /// the texture, or declares one itself, which may be unused:
    /// `uniform sampler2D frame` for a frame of
    /// [`import_texture`](Gpu::import_texture), `uniform samplerExternalOES
    /// frame` for one of [`import_external`](Gpu::import_external). In a
    /// `uniform vec2 frame_size` it finds width and height of the frame.
    /// `gl_FragCoord.xy` is the pixel of the target, counted from row 0 of its
    /// memory, plus one half.
    ///
    /// # Errors
    /// [`EglError::Shader`] with the compiler's log. On Mesa's software device
    /// also, before its compiler sees it, for a source that could give
    /// `textureSize` a `samplerExternalOES`: the process would end there. That is
    /// decided by the names that the preprocessor can make of the source, and so
    /// a source is refused that has both names anywhere (with continued lines
    /// joined, comments and unused macros included), or that has `#extension`, as
    /// a `samplerExternalOES` needs, and `##`, which pastes names.
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
        if inner.is_llvmpipe() && asks_size_of_external(fragment) {
            return Err(EglError::Shader {
                on: inner.renderer.clone(),
                step: "survive textureSize of a samplerExternalOES",
                log: "declare `uniform vec2 frame_size` in its place".to_owned(),
            });
        }
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
        let planes = yuv::UNIFORMS.map(|name| unsafe { inner.gl.get_uniform_location(raw, name) });
        // SAFETY: as before.
        let size = unsafe { inner.gl.get_uniform_location(raw, "frame_size") };
        let sampler = inner.type_of_uniform(raw, yuv::UNIFORMS[0]);
        inner.check_gl("glLinkProgram")?;
        Ok(Shader {
            program,
            planes,
            sampler,
            size,
        })
    }

    /// Draws the whole of `target` with `shader`, which reads `texture`.
    ///
    /// It is done when [`finish`](Gpu::finish) has returned.
    ///
    /// # Errors
    /// [`EglError::OtherGpu`] if one of the three was made by another `Gpu`,
    /// [`EglError::Sampler`] if the shader does not read such a texture, and
    /// [`EglError::Gl`].
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
        self.draw_part(texture, target, shader, Part::whole(target.size()))
    }

    /// Draws a part of `target` as [`draw`](Gpu::draw) does all of it. The rest
    /// stays as it is; what of the part lies beyond the target is left out.
    ///
    /// # Errors
    /// Those of [`draw`](Gpu::draw).
    ///
    /// ```no_run
    /// // Not run: needs imported dma-bufs.
    /// # use dmashare::import::Part;
    /// # use dmashare::import::egl::{EglError, Gpu, Shader, Target, Texture};
    /// # fn f(gpu: &Gpu, texture: &Texture, target: &Target, shader: &Shader) -> Result<(), EglError> {
    /// let changed = Part { x: 64, y: 0, width: 320, height: 240 };
    /// gpu.draw_part(texture, target, shader, changed)?;
    /// gpu.finish()?;
    /// # Ok(()) }
    /// ```
    pub fn draw_part(
        &self,
        texture: &Texture,
        target: &Target,
        shader: &Shader,
        part: Part,
    ) -> Result<(), EglError> {
        for (what, gpu) in [
            ("texture", texture.gpu()),
            ("target", target.gpu()),
            ("shader", &shader.program.gpu),
        ] {
            if !Rc::ptr_eq(gpu, &self.0) {
                return Err(EglError::OtherGpu { what });
            }
        }
        if let Some(declared) = shader.sampler
            && declared != texture.sampler()
        {
            return Err(EglError::Sampler {
                declared: sampler(declared),
                needed: sampler(texture.sampler()),
            });
        }
        self.0.make_current()?;
        let gl = &self.0.gl;
        let (width, height) = target.size();
        let part = part.within((width, height));
        // Exact: no texture is that large.
        let (texture_width, texture_height) = texture.size();
        let (texture_width, texture_height) = (texture_width as f32, texture_height as f32);
        // SAFETY: the context is current, all objects are its own; the sizes
        // were given to EGL as EGLint, so they keep their value.
        unsafe {
            gl.bind_framebuffer(glow::FRAMEBUFFER, Some(target.raw()));
            gl.viewport(0, 0, width.cast_signed(), height.cast_signed());
            // Nothing between what the shader says and the memory.
            for state in [glow::BLEND, glow::DITHER, glow::DEPTH_TEST] {
                gl.disable(state);
            }
            gl.enable(glow::SCISSOR_TEST);
            let [x, y, wide, high] =
                [part.x, part.y, part.width, part.height].map(u32::cast_signed);
            gl.scissor(x, y, wide, high);
            gl.color_mask(true, true, true, true);
            gl.use_program(Some(shader.program.raw));
            for ((unit, plane), uniform) in (0..).zip(texture.planes()).zip(&shader.planes) {
                gl.active_texture(glow::TEXTURE0 + unit);
                gl.bind_texture(texture.target(), Some(plane));
                gl.uniform_1_i32(uniform.as_ref(), unit.cast_signed());
            }
            gl.uniform_2_f32(shader.size.as_ref(), texture_width, texture_height);
            gl.draw_arrays(glow::TRIANGLES, 0, 3);
            gl.disable(glow::SCISSOR_TEST);
            for (unit, _) in (0..).zip(texture.planes()) {
                gl.active_texture(glow::TEXTURE0 + unit);
                gl.bind_texture(texture.target(), None);
            }
            gl.active_texture(glow::TEXTURE0);
            gl.use_program(None);
            gl.bind_framebuffer(glow::FRAMEBUFFER, None);
        }
        self.0.check_gl("glDrawArrays")
    }
}

/// Whether the size of a `samplerExternalOES` could be asked for, which ends the
/// process in llvmpipe's compiler: SIGSEGV at the first draw, seen with Mesa 25.0
/// and YUYV.
///
/// A name is made of the source's own letters in a row, once continued lines are
/// joined: GLSL has no escapes, and a macro puts names in place of names. Only
/// `##` makes a new one of several, which GLSL ES 3.00 has not and a compiler may
/// have. So a name that is not found here is not in what the preprocessor makes
/// of it.
fn asks_size_of_external(source: &str) -> bool {
    let joined = without_continued_lines(source);
    let has_all = |names: [&str; 2]| names.iter().all(|name| joined.contains(name));
    has_all(["samplerExternalOES", "textureSize"]) || has_all(["##", "extension"])
}

/// The source with what follows a continued line right behind it, whichever ends
/// of lines a compiler knows.
fn without_continued_lines(source: &str) -> String {
    let mut parts = source.split('\\');
    let mut joined = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        joined += part.trim_start_matches(['\n', '\r']);
    }
    joined
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

    /// The error of a function that gave no object, which GL only does when
    /// it has no memory left, or the context is lost.
    pub(super) fn failed(&self, operation: &'static str) -> EglError {
        match self.check_gl(operation) {
            Err(error) => error,
            Ok(()) => EglError::Gl {
                operation,
                on: self.renderer.clone(),
                code: GlCode(glow::OUT_OF_MEMORY),
            },
        }
    }

    /// The type of a uniform, if the program has it.
    fn type_of_uniform(&self, program: glow::NativeProgram, name: &str) -> Option<u32> {
        // SAFETY: the context is current, the program its own and linked, and
        // each index one that it has.
        let uniforms = unsafe {
            let count = self.gl.get_active_uniforms(program);
            (0..count).filter_map(move |index| self.gl.get_active_uniform(program, index))
        };
        let mut named = uniforms.filter(|uniform| uniform.name == name);
        named.next().map(|uniform| uniform.utype)
    }
}

/// A type of samplers, as shaders name it.
fn sampler(kind: u32) -> &'static str {
    match kind {
        glow::SAMPLER_2D => "sampler2D",
        api::SAMPLER_EXTERNAL => "samplerExternalOES",
        _ => "something else than a sampler of frames",
    }
}

impl fmt::Debug for Shader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shader(on {})", self.program.gpu.renderer)
    }
}

#[cfg(test)]
mod tests {
    use super::asks_size_of_external;

    const EXTERNAL: &str = "#version 300 es
#extension GL_OES_EGL_image_external_essl3 : require
uniform samplerExternalOES frame;
";

    #[test]
    fn size_of_external_is_found() {
        for body in [
            "textureSize(frame, 0)",
            "texture\\\nSize(frame, 0)",
            "texture\\\r\nSize(frame, 0)",
            "tex\\\ntu\\\nreSize(frame, 0)",
            "texture\\\n\\\nSize(frame, 0)",
            "texture\\\rSize(frame, 0)",
            "x\\\n;texture\\\nSize(frame, 0)",
            "#define size textureSize\nsize(frame, 0)",
            "#define size texture\\\nSize\nsize(frame, 0)",
            "#define of(kind) texture##kind\nof(Size)(frame, 0)",
            "#define of(kind) texture#\\\n#kind\nof(Size)(frame, 0)",
        ] {
            assert!(
                asks_size_of_external(&format!("{EXTERNAL}{body}")),
                "{body}"
            );
        }
        let continued = EXTERNAL.replace("External", "Ex\\\nternal");
        assert!(asks_size_of_external(
            &(continued + "textureSize(frame, 0)")
        ));
    }

    #[test]
    fn other_shaders_are_let_through() {
        assert!(!asks_size_of_external(EXTERNAL));
        let plain = "#version 300 es\nuniform sampler2D frame;\ntextureSize(frame, 0)";
        assert!(!asks_size_of_external(plain));
        let split = format!("{EXTERNAL}texture\nSize texture/**/Size");
        assert!(!asks_size_of_external(&split));
    }
}
