//! YUV becomes RGB, by the driver or by the shader, as a conversion on the CPU
//! has it.

use std::sync::Arc;

use dmashare::alloc::Allocate;
use dmashare::import::egl::{ColorSpace, EglError, Gpu, Hints, Range, Texture};
use dmashare::share::{Fourcc, Frame};
use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;

use super::{Shared, any_way, gpu, is_llvmpipe};
use crate::{ensure, test, text};

const WIDTH: u8 = 64;
const HEIGHT: u8 = 48;

/// Rounded once by the sampler, once on the way to the target, and computed in
/// single precision between.
const TOLERANCE: i32 = 2;

const COPY: &str = "out vec4 color;
void main() { color = texel(ivec2(gl_FragCoord.xy)); }";

type Import = fn(&Gpu, &Shared, &Hints) -> Result<Texture, EglError>;

fn by_driver(gpu: &Gpu, shared: &Shared, hints: &Hints) -> Result<Texture, EglError> {
    gpu.import_external(&shared.frame, &[&shared.buffer], hints)
}

fn by_planes(gpu: &Gpu, shared: &Shared, hints: &Hints) -> Result<Texture, EglError> {
    gpu.import_planes(&shared.frame, &[&shared.buffer], hints)
}

fn whichever(gpu: &Gpu, shared: &Shared, hints: &Hints) -> Result<Texture, EglError> {
    gpu.import_yuv(&shared.frame, &[&shared.buffer], hints)
}

pub(super) fn trials_of(way: &Arc<dyn Allocate>) -> Vec<Trial> {
    let name = way.way();
    let trial = |check: &str, code: &'static [u8; 4], import: Import| {
        let way = Arc::clone(way);
        test(&format!("{name}::egl_{check}"), move || {
            let hd = Hints::new(ColorSpace::Bt709, Range::Limited);
            let gpu = gpu()?;
            for hints in [Hints::default(), hd] {
                is_converted(&gpu, &*way, Fourcc::new(*code), &hints, import)?;
            }
            Ok(())
        })
    };
    vec![
        trial("reads_nv12", b"NV12", whichever),
        trial("reads_yuyv_by_the_driver", b"YUYV", by_driver),
        trial("reads_yuyv_by_its_texels", b"YUYV", by_planes),
    ]
}

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("egl::reads_all_yuv_by_planes", || {
            let all: &[&[u8; 4]] = &[
                b"NV21", b"NV16", b"NV61", b"NV24", b"NV42", b"P010", b"YU12", b"YV12", b"YU16",
                b"YV16", b"YU24", b"YV24", b"YVYU", b"UYVY", b"VYUY",
            ];
            let gpu = gpu()?;
            let way = any_way()?;
            for code in all {
                let hints = Hints::default();
                is_converted(&gpu, &*way, Fourcc::new(**code), &hints, by_planes)?;
            }
            Ok(())
        }),
        test("egl::reads_packed_yuv_by_the_driver", || {
            let gpu = gpu()?;
            let way = any_way()?;
            for code in [b"YVYU", b"UYVY", b"VYUY"] {
                let hints = Hints::default();
                is_converted(&gpu, &*way, Fourcc::new(*code), &hints, by_driver)?;
            }
            Ok(())
        }),
        test("egl::hints_are_heeded", hints_are_heeded),
        test("egl::tells_that_nv12_is_not_taken_whole", tells_of_planes),
    ]
}

fn hints_are_heeded() -> Verdict {
    let gpu = gpu()?;
    let way = any_way()?;
    for color_space in [ColorSpace::Bt601, ColorSpace::Bt709, ColorSpace::Bt2020] {
        for range in [Range::Limited, Range::Full] {
            let hints = Hints::new(color_space, range);
            let yuyv = Fourcc::new(*b"YUYV");
            is_converted(&gpu, &*way, yuyv, &hints, by_driver)?;
            is_converted(&gpu, &*way, Fourcc::new(*b"NV12"), &hints, by_planes)?;
            is_converted(&gpu, &*way, Fourcc::new(*b"P010"), &hints, by_planes)?;
        }
    }
    Ok(())
}

/// Where the driver does not take several planes, its error says what does.
fn tells_of_planes() -> Verdict {
    let gpu = gpu()?;
    let way = any_way()?;
    let nv12 = shared(&*way, Fourcc::new(*b"NV12"))?;
    match by_driver(&gpu, &nv12, &Hints::default()) {
        Err(EglError::Import { suspect, .. }) if is_llvmpipe() => {
            ensure(suspect.contains("import_planes"), || suspect)
        }
        // A later Mesa may; then it must read it right.
        Ok(_) => is_converted(
            &gpu,
            &*way,
            Fourcc::new(*b"NV12"),
            &Hints::default(),
            by_driver,
        ),
        Err(error) => Err(error.to_string()),
    }
}

/// Y, U and V of a pixel, of which those that share U and V give the same.
fn yuv(x: u8, y: u8) -> [u8; 3] {
    let (half_x, half_y) = (x / 2, y / 2);
    [
        (x * 3) ^ (y * 5),
        half_x * 7 + half_y,
        255 - half_y * 9 - half_x,
    ]
}

/// The planes of a format, packed.
fn planes(fourcc: Fourcc) -> Vec<Vec<u8>> {
    let (code, [y, u, v]) = (fourcc.0.to_le_bytes(), [0, 1, 2]);
    // One plane of some of the samples of every so many pixels.
    let plane = |step_x: usize, step_y: usize, samples: &[(u8, usize)]| {
        let mut bytes = Vec::new();
        for row in (0..HEIGHT).step_by(step_y) {
            for column in (0..WIDTH).step_by(step_x) {
                bytes.extend(
                    samples
                        .iter()
                        .map(|&(x, which)| yuv(column + x, row)[which]),
                );
            }
        }
        bytes
    };
    let luma = || plane(1, 1, &[(0, y)]);
    match &code {
        b"NV12" => vec![luma(), plane(2, 2, &[(0, u), (0, v)])],
        b"NV21" => vec![luma(), plane(2, 2, &[(0, v), (0, u)])],
        b"NV16" => vec![luma(), plane(2, 1, &[(0, u), (0, v)])],
        b"NV61" => vec![luma(), plane(2, 1, &[(0, v), (0, u)])],
        b"NV24" => vec![luma(), plane(1, 1, &[(0, u), (0, v)])],
        b"NV42" => vec![luma(), plane(1, 1, &[(0, v), (0, u)])],
        // 10 bits, the highest of 16: the same numbers times 4.
        b"P010" => planes(Fourcc::new(*b"NV12"))
            .into_iter()
            .map(|plane| plane.iter().flat_map(|&byte| [0, byte]).collect())
            .collect(),
        b"YU12" => vec![luma(), plane(2, 2, &[(0, u)]), plane(2, 2, &[(0, v)])],
        b"YV12" => vec![luma(), plane(2, 2, &[(0, v)]), plane(2, 2, &[(0, u)])],
        b"YU16" => vec![luma(), plane(2, 1, &[(0, u)]), plane(2, 1, &[(0, v)])],
        b"YV16" => vec![luma(), plane(2, 1, &[(0, v)]), plane(2, 1, &[(0, u)])],
        b"YU24" => vec![luma(), plane(1, 1, &[(0, u)]), plane(1, 1, &[(0, v)])],
        b"YV24" => vec![luma(), plane(1, 1, &[(0, v)]), plane(1, 1, &[(0, u)])],
        b"YUYV" => vec![plane(2, 1, &[(0, y), (0, u), (1, y), (0, v)])],
        b"YVYU" => vec![plane(2, 1, &[(0, y), (0, v), (1, y), (0, u)])],
        b"UYVY" => vec![plane(2, 1, &[(0, u), (0, y), (0, v), (1, y)])],
        b"VYUY" => vec![plane(2, 1, &[(0, v), (0, y), (0, u), (1, y)])],
        _ => unreachable!("{fourcc} is not among the tests"),
    }
}

/// Red, green and blue by the definitions of the three standards.
fn rgb([y, u, v]: [u8; 3], fourcc: Fourcc, hints: &Hints) -> [i32; 3] {
    let (kr, kb) = match hints.color_space {
        ColorSpace::Bt709 => (0.2126, 0.0722),
        ColorSpace::Bt2020 => (0.2627, 0.0593),
        _ => (0.299, 0.114),
    };
    let [y, u, v] = [y, u, v].map(f64::from);
    let (luma, cb, cr) = match (hints.range, &fourcc.0.to_le_bytes()) {
        (Range::Limited, _) => ((y - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0),
        (_, b"P010") => {
            let full = |n: f64, zero: f64| (n * 4.0 - zero) / 1023.0;
            (full(y, 0.0), full(u, 512.0), full(v, 512.0))
        }
        (_, _) => (y / 255.0, (u - 128.0) / 255.0, (v - 128.0) / 255.0),
    };
    let red = luma + cr * (2.0 - 2.0 * kr);
    let blue = luma + cb * (2.0 - 2.0 * kb);
    let green = (luma - kr * red - kb * blue) / (1.0 - kr - kb);
    #[allow(clippy::cast_possible_truncation)] // 0 to 255
    [red, green, blue].map(|part| (part.clamp(0.0, 1.0) * 255.0).round() as i32)
}

fn shared(way: &dyn Allocate, fourcc: Fourcc) -> Result<Shared, String> {
    let frame = Frame::aligned(WIDTH.into(), HEIGHT.into(), fourcc, 256).map_err(text)?;
    let shared = Shared::new(way, frame)?;
    for (plane, bytes) in planes(fourcc).iter().enumerate() {
        shared.write_plane(plane, bytes)?;
    }
    Ok(shared)
}

fn is_converted(
    gpu: &Gpu,
    way: &dyn Allocate,
    fourcc: Fourcc,
    hints: &Hints,
    import: Import,
) -> Verdict {
    let what = |error: String| format!("{fourcc}, {hints}: {error}");
    let from = shared(way, fourcc).map_err(what)?;
    let to = Frame::aligned(WIDTH.into(), HEIGHT.into(), Fourcc::XRGB8888, 256).map_err(text)?;
    let to = Shared::new(way, to)?;
    let draw = || {
        let texture = import(gpu, &from, hints)?;
        let target = gpu.import_target(&to.frame, &[&to.buffer])?;
        let shader = gpu.shader(&(texture.prelude() + COPY))?;
        gpu.draw(&texture, &target, &shader)?;
        gpu.finish()
    };
    draw().map_err(|error| what(error.to_string()))?;
    let drawn = to.read()?;
    let positions = (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x, y)));
    for ((x, y), pixel) in positions.zip(drawn.chunks_exact(4)) {
        let from = match &fourcc.0.to_le_bytes() {
            b"NV12" | b"NV21" | b"P010" | b"YU12" | b"YV12" => {
                let [_, u, v] = yuv(x & !1, y & !1);
                [yuv(x, y)[0], u, v]
            }
            _ => yuv(x, y),
        };
        let expected = rgb(from, fourcc, hints);
        let got = [pixel[2], pixel[1], pixel[0]].map(i32::from);
        let near = |(got, expected): (&i32, &i32)| (got - expected).abs() <= TOLERANCE;
        ensure(got.iter().zip(&expected).all(near), || {
            what(format!(
                "YUV {from:?} at ({x}, {y}) became {got:?}, expected {expected:?}"
            ))
        })?;
    }
    Ok(())
}
