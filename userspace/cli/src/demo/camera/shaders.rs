//! The scene as a shader for Vulkan: WGSL, compiled to SPIR-V at run time, which
//! reads the planes of a frame and makes RGB of them.

use dmashare::frame::Fourcc;
use dmashare::import::vulkan;
use naga::back::spv;
use naga::valid::{Capabilities, ValidationFlags, Validator};

use super::super::scene::Scene;
use super::link::Colors;

/// Why there is no shader.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShaderError {
    /// There is no code for this format.
    #[error("there is no shader for {0}; take EGL, which asks the driver")]
    Format(Fourcc),
    /// naga does not take it: a mistake of this program.
    #[error("naga: {0}")]
    Naga(String),
}

/// Whether a format is one of those with YUV in it that cameras have.
pub(super) fn is_yuv(fourcc: Fourcc) -> bool {
    fetch(fourcc).is_some_and(|(_, is_yuv)| is_yuv)
}

/// `fn fetch(at: vec2<i32>) -> vec3<f32>`: the pixel as the format has it, and
/// whether that is YUV.
fn fetch(fourcc: Fourcc) -> Option<(&'static str, bool)> {
    Some(match &fourcc.0.to_le_bytes() {
        // A texel is two pixels: Y0 U Y1 V.
        b"YUYV" | b"YVYU" | b"UYVY" | b"VYUY" => (
            "@group(0) @binding(0) var plane0: texture_2d<f32>;
fn fetch(at: vec2<i32>) -> vec3<f32> {
    let pair = textureLoad(plane0, vec2(at.x / 2, at.y), 0);
    return vec3(select(pair.r, pair.b, at.x % 2 == 1), pair.g, pair.a);
}",
            true,
        ),
        b"NV12" | b"NV21" => (
            "@group(0) @binding(0) var plane0: texture_2d<f32>;
@group(0) @binding(1) var plane1: texture_2d<f32>;
fn fetch(at: vec2<i32>) -> vec3<f32> {
    let y = textureLoad(plane0, at, 0).r;
    return vec3(y, textureLoad(plane1, at / 2, 0).rg);
}",
            true,
        ),
        b"XR24" | b"AR24" | b"XB24" | b"AB24" => (
            "@group(0) @binding(0) var plane0: texture_2d<f32>;
fn fetch(at: vec2<i32>) -> vec3<f32> { return textureLoad(plane0, at, 0).rgb; }",
            false,
        ),
        _ => return None,
    })
}

/// The scene with frames of this format, as SPIR-V.
pub(super) fn spirv(
    scene: &Scene,
    fourcc: Fourcc,
    colors: Colors,
) -> Result<Vec<u32>, ShaderError> {
    let (fetch, is_yuv) = fetch(fourcc).ok_or(ShaderError::Format(fourcc))?;
    let texel = match is_yuv {
        true => from_yuv(colors),
        false => "fn texel(at: vec2<i32>) -> vec3<f32> { return fetch(at); }".to_owned(),
    };
    compile(&format!("{fetch}\n{texel}\n{}", scene.wgsl_of_texels()))
}

/// `fn texel(at: vec2<i32>) -> vec3<f32>`: the pixel in RGB, by the matrices of
/// ITU-R BT.601 and BT.709.
fn from_yuv(colors: Colors) -> String {
    let (red, blue) = match colors.bt709 {
        true => (0.2126, 0.0722),
        false => (0.299, 0.114),
    };
    let green = 1.0 - red - blue;
    let (black, luma, chroma) = match colors.full {
        true => (0.0, 1.0, 1.0),
        false => (16.0 / 255.0, 255.0 / 219.0, 255.0 / 224.0),
    };
    let v_to_red = 2.0 * (1.0 - red);
    let u_to_blue = 2.0 * (1.0 - blue);
    let v_to_green = -v_to_red * red / green;
    let u_to_green = -u_to_blue * blue / green;
    format!(
        "fn texel(at: vec2<i32>) -> vec3<f32> {{
    let yuv = fetch(at);
    let y = (yuv.x - {black:.8}) * {luma:.8};
    let uv = (yuv.yz - 128.0 / 255.0) * {chroma:.8};
    let rgb = vec3(y + {v_to_red:.8} * uv.y,
        y + {u_to_green:.8} * uv.x + {v_to_green:.8} * uv.y,
        y + {u_to_blue:.8} * uv.x);
    return clamp(rgb, vec3(0.0), vec3(1.0));
}}"
    )
}

fn compile(source: &str) -> Result<Vec<u32>, ShaderError> {
    let failed = |error: &dyn std::fmt::Display| ShaderError::Naga(error.to_string());
    let module = naga::front::wgsl::parse_str(source).map_err(|error| failed(&error))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::default())
        .validate(&module)
        .map_err(|error| failed(&error))?;
    spv::write_vec(&module, &info, &spv::Options::default(), None).map_err(|error| failed(&error))
}

/// The shader in a GPU.
pub(super) fn vulkan(
    gpu: &vulkan::Gpu,
    words: &[u32],
) -> Result<vulkan::Shader, vulkan::VulkanError> {
    // SAFETY: these are what naga has validated and written; the resources of
    // set 0 are textures of floats, and there are no others.
    unsafe { gpu.shader(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_shader_that_compiles() {
        let scene = Scene::new((640, 360), (800, 600));
        for code in [b"YUYV", b"UYVY", b"NV12", b"XR24"] {
            for (bt709, full) in [(false, false), (true, true)] {
                let colors = Colors { bt709, full };
                let words = spirv(&scene, Fourcc::new(*code), colors).unwrap();
                // The magic number of SPIR-V.
                assert_eq!(words[0], 0x0723_0203);
            }
        }
        let unknown = spirv(&scene, Fourcc::new(*b"P010"), Colors::default());
        assert!(matches!(unknown, Err(ShaderError::Format(_))));
    }
}
