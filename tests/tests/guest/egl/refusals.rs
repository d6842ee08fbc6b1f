//! An import that cannot be says what it was.

use dmashare::buffer::Buffer;
use dmashare::import::egl::{EglError, Gpu, Hints, Texture};
use dmashare::share::{Fourcc, Frame, Plane};
use dmashare_tests::conformance::Verdict;
use drm::control::Device as _;
use libtest_mimic::Trial;

use super::{SHADER, Shared, any_way, frame, gpu, is_llvmpipe};
use crate::vgem::Vgem;
use crate::{ensure, test, text};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("egl::refuses_a_format_unknown_here", || {
            let mut frame = frame()?;
            frame.fourcc = Fourcc::new(*b"NV15");
            let error = refused(frame)?;
            ensure(matches!(error, EglError::Unchecked { .. }), || {
                error.to_string()
            })
        }),
        test("egl::names_a_format_that_it_lacks", || {
            let frame = Frame::packed(64, 48, Fourcc::new(*b"RG24")).map_err(text)?;
            says(&refused(frame)?, &["it takes no RG24", "XR24"])
        }),
        test("egl::names_a_modifier_that_it_lacks", || {
            let mut frame = frame()?;
            frame.modifier = 0x0100_0000_0000_0001;
            says(&refused(frame)?, &["XR24 with modifier", "0x0"])
        }),
        test("egl::names_planes_too_many", || {
            let mut frame = frame()?;
            frame.planes.push(frame.planes[0]);
            says(&refused(frame)?, &["XR24 has 1 planes, not 2"])
        }),
        test("egl::names_a_size_too_large", || {
            let frame = Frame::packed(1, 1 << 20, Fourcc::new(*b"R8  ")).map_err(text)?;
            says(&refused(frame)?, &["pixels at most", "1x1048576 R8"])
        }),
        test("egl::names_a_number_too_large", || {
            let mut frame = frame()?;
            frame.height = 1;
            frame.planes[0].stride = u32::MAX;
            says(&refused(frame)?, &["EGLint"])
        }),
        test("egl::names_memory_it_cannot_map", names_memory),
        test("egl::names_yuv_that_is_no_plain_texture", || {
            let frame = Frame::packed(64, 48, Fourcc::new(*b"YUYV")).map_err(text)?;
            let error = refused(frame)?;
            ensure(matches!(error, EglError::ExternalOnly { .. }), || {
                error.to_string()
            })?;
            says(&error, &["import_yuv"])
        }),
        test("egl::names_rows_it_cannot_draw", names_rows),
        test("egl::names_frames_without_planes", || {
            let (gpu, shared) = (gpu()?, Shared::new(&*any_way()?, frame()?)?);
            let import = gpu.import_planes(&shared.frame, &[&shared.buffer], &Hints::default());
            match import {
                Err(EglError::NoPlanes { .. }) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }),
        test("egl::names_the_wrong_sampler", names_the_wrong_sampler),
        test("egl::names_what_is_of_another", names_what_is_of_another),
        test(
            "egl::size_of_external_is_refused",
            size_of_external_is_refused,
        ),
    ]
}

/// What is said of this frame in memory of 4 MiB.
fn refused(frame: Frame) -> Result<EglError, String> {
    let gpu = gpu()?;
    let room = Frame::packed(1024, 1024, Fourcc::XRGB8888).map_err(text)?;
    let shared = Shared::new(&*any_way()?, room)?;
    match gpu.import_texture(&frame, &[&shared.buffer]) {
        Err(error) => Ok(error),
        Ok(texture) => Err(format!("{texture:?}")),
    }
}

fn says(error: &EglError, words: &[&str]) -> Verdict {
    let said = error.to_string();
    let renderer = gpu()?;
    let is_driver = matches!(error, EglError::Import { .. });
    ensure(
        words.iter().all(|word| said.contains(word))
            && (!is_driver || said.contains(renderer.renderer())),
        || said.clone(),
    )
}

/// A dma-buf that may only be read, which llvmpipe maps for writing too.
fn names_memory() -> Verdict {
    if !is_llvmpipe() {
        return Ok(());
    }
    let vgem = Vgem::open()?;
    let dumb = vgem
        .create_dumb_buffer((64, 48), drm::buffer::DrmFourcc::Xrgb8888, 32)
        .map_err(text)?;
    let handle = drm::buffer::Buffer::handle(&dumb);
    // Without DRM_RDWR.
    let fd = vgem.buffer_to_prime_fd(handle, libc::O_CLOEXEC.cast_unsigned());
    let fd = fd.map_err(text)?;
    vgem.destroy_dumb_buffer(dumb).map_err(text)?;
    let buffer = Buffer::from_fd(fd).map_err(text)?;
    match gpu()?.import_texture(&frame()?, &[&buffer]) {
        Err(error @ EglError::Memory { .. }) => says(&error, &["it is the memory", "mmap"]),
        Err(error) => Err(error.to_string()),
        Ok(texture) => Err(format!("{texture:?}")),
    }
}

/// Rows that llvmpipe's instructions cannot store to.
fn names_rows() -> Verdict {
    let (gpu, way) = (gpu()?, any_way()?);
    if !is_llvmpipe() {
        return Ok(());
    }
    let plane = |offset, stride| Plane {
        buffer: 0,
        offset,
        stride,
    };
    for plane in [plane(4, 256), plane(0, 260)] {
        let mut frame = frame()?;
        frame.planes[0] = plane;
        let shared = Shared::new(&*way, frame)?;
        match gpu.import_target(&shared.frame, &[&shared.buffer]) {
            Err(error @ EglError::Alignment { alignment: 16, .. }) => {
                says(&error, &["multiples of 16"])?;
            }
            other => return Err(format!("{other:?}")),
        }
    }
    Ok(())
}

fn yuyv(gpu: &Gpu) -> Result<Texture, String> {
    let frame = Frame::packed(64, 48, Fourcc::new(*b"YUYV")).map_err(text)?;
    let shared = Shared::new(&*any_way()?, frame)?;
    gpu.import_external(&shared.frame, &[&shared.buffer], &Hints::default())
        .map_err(text)
}

fn names_the_wrong_sampler() -> Verdict {
    let gpu = gpu()?;
    let shared = Shared::new(&*any_way()?, frame()?)?;
    let target = gpu.import_target(&shared.frame, &[&shared.buffer]);
    let target = target.map_err(text)?;
    let shader = gpu.shader(SHADER).map_err(text)?;
    match gpu.draw(&yuyv(&gpu)?, &target, &shader) {
        Err(EglError::Sampler {
            declared: "sampler2D",
            needed: "samplerExternalOES",
        }) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn names_what_is_of_another() -> Verdict {
    let (one, other) = (gpu()?, gpu()?);
    let shared = Shared::new(&*any_way()?, frame()?)?;
    let target = one.import_target(&shared.frame, &[&shared.buffer]);
    let shader = one.shader(SHADER).map_err(text)?;
    match one.draw(&yuyv(&other)?, &target.map_err(text)?, &shader) {
        Err(EglError::OtherGpu { what: "texture" }) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// However it is written: llvmpipe's compiler ends the process at the draw.
fn size_of_external_is_refused() -> Verdict {
    if !is_llvmpipe() {
        return Ok(());
    }
    let gpu = gpu()?;
    let yuyv = Frame::packed(64, 48, Fourcc::new(*b"YUYV")).map_err(text)?;
    let from = Shared::new(&*any_way()?, yuyv)?;
    let to = Shared::new(&*any_way()?, frame()?)?;
    let camera = gpu.import_external(&from.frame, &[&from.buffer], &Hints::default());
    let camera = camera.map_err(text)?;
    let target = gpu.import_target(&to.frame, &[&to.buffer]).map_err(text)?;
    for (define, size) in [
        ("", "textureSize"),
        ("", "texture\\\nSize"),
        ("", "texture\\\r\nSize"),
        ("#define size texture\\\nSize", "size"),
        ("#define paste(kind) texture##kind", "paste(Size)"),
    ] {
        let body = format!(
            "{define}
out vec4 color;
void main() {{ color = vec4(vec2({size}(frame, 0)), 0.0, 1.0); }}"
        );
        match gpu.shader(&(camera.prelude() + &body)) {
            Err(EglError::Shader { log, .. }) if log.contains("frame_size") => {}
            Err(error) => return Err(format!("{size:?}: {error}")),
            Ok(shader) => {
                gpu.draw(&camera, &target, &shader).map_err(text)?;
                gpu.finish().map_err(text)?;
                return Err(format!("{size:?} was compiled, and drawn with"));
            }
        }
    }
    Ok(())
}
