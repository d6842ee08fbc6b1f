//! What the numbers of a YUV frame stand for, and how they become RGB.

use std::fmt;

use khronos_egl as egl;

use crate::share::{Fourcc, Frame, LINEAR};

/// Which RGB the Y, U and V of a frame are made of.
///
/// ```
/// use dmashare::import::egl::ColorSpace;
/// assert_eq!(ColorSpace::default(), ColorSpace::Bt601);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ColorSpace {
    /// ITU-R BT.601: standard definition, most cameras, JPEG.
    #[default]
    Bt601,
    /// ITU-R BT.709: high definition.
    Bt709,
    /// ITU-R BT.2020, with non-constant luminance: ultra high definition.
    Bt2020,
}

/// Which numbers stand for black and white.
///
/// ```
/// use dmashare::import::egl::Range;
/// assert_eq!(Range::default(), Range::Limited);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Range {
    /// Of 8 bits 16 to 235 for Y, and 16 to 240 for U and V.
    #[default]
    Limited,
    /// Of 8 bits 0 to 255, as in JPEG.
    Full,
}

/// Where a sample of U and V lies among the pixels that share it.
///
/// ```
/// use dmashare::import::egl::Siting;
/// assert_eq!(Siting::default(), Siting::First);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Siting {
    /// On the first of them.
    #[default]
    First,
    /// In their middle.
    Middle,
}

/// What a driver, or a shader, is told about a YUV frame, which its format does
/// not say. The default is that of EGL: BT.601, limited range.
///
/// ```
/// use dmashare::import::egl::{ColorSpace, Hints, Range};
/// let mut jpeg = Hints::default();
/// jpeg.range = Range::Full;
/// assert_eq!(jpeg.to_string(), "BT.601, full range");
/// let hd = Hints::new(ColorSpace::Bt709, Range::Limited);
/// assert_eq!(hd.to_string(), "BT.709, limited range");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Hints {
    /// The colour space.
    pub color_space: ColorSpace,
    /// The range of the numbers.
    pub range: Range,
    /// Where U and V lie, from left to right. Only a driver that interpolates
    /// them looks at it.
    pub horizontal: Siting,
    /// Where U and V lie, from top to bottom.
    pub vertical: Siting,
}

impl Hints {
    /// This colour space and range, and U and V where EGL takes them to lie.
    ///
    /// ```
    /// # use dmashare::import::egl::{ColorSpace, Hints, Range};
    /// assert_eq!(Hints::new(ColorSpace::Bt601, Range::Limited), Hints::default());
    /// ```
    pub fn new(color_space: ColorSpace, range: Range) -> Hints {
        Hints {
            color_space,
            range,
            ..Hints::default()
        }
    }

    /// The attributes of EGL_EXT_image_dma_buf_import that say so.
    pub(super) fn attributes(&self) -> [egl::Int; 8] {
        let siting = |siting| match siting {
            Siting::First => 0x3284,
            Siting::Middle => 0x3285,
        };
        [
            0x327B,
            match self.color_space {
                ColorSpace::Bt601 => 0x327F,
                ColorSpace::Bt709 => 0x3280,
                ColorSpace::Bt2020 => 0x3281,
            },
            0x327C,
            match self.range {
                Range::Full => 0x3282,
                Range::Limited => 0x3283,
            },
            0x327D,
            siting(self.horizontal),
            0x327E,
            siting(self.vertical),
        ]
    }

    /// A function in GLSL that makes RGB of what samplers give for Y, U and V,
    /// of samples that use so many bits from the highest down.
    pub(super) fn glsl(&self, bits: Bits) -> String {
        let (kr, kb) = match self.color_space {
            ColorSpace::Bt601 => (0.299, 0.114),
            ColorSpace::Bt709 => (0.2126, 0.0722),
            ColorSpace::Bt2020 => (0.2627, 0.0593),
        };
        let kg = 1.0 - kr - kb;
        // A number of 8 bits as one of so many.
        let of = |eight: f64| eight * bits.unit;
        let (black, y_range, c_range) = match self.range {
            Range::Limited => (of(16.0), of(219.0), of(224.0)),
            Range::Full => (0.0, bits.largest, bits.largest),
        };
        let (middle, scale) = (of(128.0), bits.scale);
        // Of R, G and B what Cr and Cb add to Y.
        let (r, b) = (2.0 * (1.0 - kr), 2.0 * (1.0 - kb));
        let (g_of_b, g_of_r) = (b * kb / kg, r * kr / kg);
        format!(
            "vec3 rgb(vec3 yuv) {{
    vec3 n = yuv * {scale:.8} - vec3({black:.8}, {middle:.8}, {middle:.8});
    n /= vec3({y_range:.8}, {c_range:.8}, {c_range:.8});
    vec3 color = vec3(
        n.x + {r:.8} * n.z,
        n.x - {g_of_b:.8} * n.y - {g_of_r:.8} * n.z,
        n.x + {b:.8} * n.y);
    return clamp(color, 0.0, 1.0);
}}
"
        )
    }
}

impl fmt::Display for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.color_space {
            ColorSpace::Bt601 => "BT.601",
            ColorSpace::Bt709 => "BT.709",
            ColorSpace::Bt2020 => "BT.2020",
        })?;
        f.write_str(match self.range {
            Range::Limited => ", limited range",
            Range::Full => ", full range",
        })
    }
}

/// How the samples of a format lie in what a sampler gives, which is 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bits {
    /// What a sampler's 1 stands for.
    scale: f64,
    /// The largest sample.
    largest: f64,
    /// What one step of 8 bits is.
    unit: f64,
}

impl Bits {
    const EIGHT: Bits = Bits {
        scale: 255.0,
        largest: 255.0,
        unit: 1.0,
    };
    /// 10 bits, the highest of 16.
    const TEN_OF_SIXTEEN: Bits = Bits {
        scale: 65535.0 / 64.0,
        largest: 1023.0,
        unit: 4.0,
    };
}

/// How the planes of a YUV format can be read as textures of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Planar {
    /// The format of each, and how many pixels beside and above each other one
    /// texel of it stands for.
    pub(super) planes: &'static [(Fourcc, u32, u32)],
    pub(super) bits: Bits,
    /// The body of a function in GLSL that gives Y, U and V of a pixel.
    pub(super) yuv: &'static str,
}

/// The formats that have [`planar`] ones.
pub(super) const PLANAR: [Fourcc; 17] = [
    Fourcc::new(*b"NV12"),
    Fourcc::new(*b"NV21"),
    Fourcc::new(*b"NV16"),
    Fourcc::new(*b"NV61"),
    Fourcc::new(*b"NV24"),
    Fourcc::new(*b"NV42"),
    Fourcc::new(*b"P010"),
    Fourcc::new(*b"YU12"),
    Fourcc::new(*b"YV12"),
    Fourcc::new(*b"YU16"),
    Fourcc::new(*b"YV16"),
    Fourcc::new(*b"YU24"),
    Fourcc::new(*b"YV24"),
    Fourcc::new(*b"YUYV"),
    Fourcc::new(*b"YVYU"),
    Fourcc::new(*b"UYVY"),
    Fourcc::new(*b"VYUY"),
];

/// The planes of a format, where it is one of YUV and known here.
pub(super) fn planar(fourcc: Fourcc) -> Option<Planar> {
    const R8: Fourcc = Fourcc::new(*b"R8  ");
    const GR88: Fourcc = Fourcc::new(*b"GR88");
    const R16: Fourcc = Fourcc::new(*b"R16 ");
    const GR32: Fourcc = Fourcc::new(*b"GR32");
    const RGBA: Fourcc = Fourcc::ABGR8888;
    // Two pixels, that are one of RGBA.
    const PACKED: &[(Fourcc, u32, u32)] = &[(RGBA, 2, 1)];
    let (planes, bits, yuv): (&'static [_], _, _) = match &fourcc.0.to_le_bytes() {
        b"NV12" => (&[(R8, 1, 1), (GR88, 2, 2)], Bits::EIGHT, SEMI),
        b"NV21" => (&[(R8, 1, 1), (GR88, 2, 2)], Bits::EIGHT, SEMI_SWAPPED),
        b"NV16" => (&[(R8, 1, 1), (GR88, 2, 1)], Bits::EIGHT, SEMI),
        b"NV61" => (&[(R8, 1, 1), (GR88, 2, 1)], Bits::EIGHT, SEMI_SWAPPED),
        b"NV24" => (&[(R8, 1, 1), (GR88, 1, 1)], Bits::EIGHT, SEMI),
        b"NV42" => (&[(R8, 1, 1), (GR88, 1, 1)], Bits::EIGHT, SEMI_SWAPPED),
        b"P010" => (&[(R16, 1, 1), (GR32, 2, 2)], Bits::TEN_OF_SIXTEEN, SEMI),
        b"YU12" => (&[(R8, 1, 1), (R8, 2, 2), (R8, 2, 2)], Bits::EIGHT, THREE),
        b"YV12" => (
            &[(R8, 1, 1), (R8, 2, 2), (R8, 2, 2)],
            Bits::EIGHT,
            THREE_SWAPPED,
        ),
        b"YU16" => (&[(R8, 1, 1), (R8, 2, 1), (R8, 2, 1)], Bits::EIGHT, THREE),
        b"YV16" => (
            &[(R8, 1, 1), (R8, 2, 1), (R8, 2, 1)],
            Bits::EIGHT,
            THREE_SWAPPED,
        ),
        b"YU24" => (&[(R8, 1, 1); 3], Bits::EIGHT, THREE),
        b"YV24" => (&[(R8, 1, 1); 3], Bits::EIGHT, THREE_SWAPPED),
        b"YUYV" => (PACKED, Bits::EIGHT, "vec3(odd ? a.b : a.r, a.g, a.a)"),
        b"YVYU" => (PACKED, Bits::EIGHT, "vec3(odd ? a.b : a.r, a.a, a.g)"),
        b"UYVY" => (PACKED, Bits::EIGHT, "vec3(odd ? a.a : a.g, a.r, a.b)"),
        b"VYUY" => (PACKED, Bits::EIGHT, "vec3(odd ? a.a : a.g, a.b, a.r)"),
        _ => return None,
    };
    Some(Planar { planes, bits, yuv })
}

/// The planes of a frame as frames of their own, or why there are none.
pub(super) fn parts(frame: &Frame) -> Result<(Planar, Vec<Frame>), &'static str> {
    let planar = planar(frame.fourcc)
        .ok_or("it is no format of YUV that is known here; import it with import_texture")?;
    // A driver that is told nothing takes it for linear, or for what it made.
    if frame.modifier != LINEAR {
        return Err("its modifier is not linear, so that only the driver knows them");
    }
    if frame.planes.len() != planar.planes.len() {
        return Err("there are more than the format has");
    }
    let parts = frame.planes.iter().zip(planar.planes);
    let parts = parts.map(|(&plane, &(fourcc, x, y))| Frame {
        width: frame.width.div_ceil(x),
        height: frame.height.div_ceil(y),
        fourcc,
        modifier: LINEAR,
        planes: vec![plane],
    });
    Ok((planar, parts.collect()))
}

// `a`, `b` and `c` are the texels of the planes.
const SEMI: &str = "vec3(a.r, b.r, b.g)";
const SEMI_SWAPPED: &str = "vec3(a.r, b.g, b.r)";
const THREE: &str = "vec3(a.r, b.r, c.r)";
const THREE_SWAPPED: &str = "vec3(a.r, c.r, b.r)";

/// The uniforms of the planes, in order.
pub(super) const UNIFORMS: [&str; 3] = ["frame", "frame1", "frame2"];

/// What begins a shader that reads the planes one by one.
pub(super) fn prelude(planar: &Planar, hints: &Hints) -> String {
    let mut text = String::new();
    let mut texels = String::new();
    for ((uniform, texel), (_, x, y)) in UNIFORMS.iter().zip(["a", "b", "c"]).zip(planar.planes) {
        text += &format!("uniform sampler2D {uniform};\n");
        texels += &format!("    vec4 {texel} = texelFetch({uniform}, at / ivec2({x}, {y}), 0);\n");
    }
    text += &hints.glsl(planar.bits);
    let yuv = planar.yuv;
    text += &format!(
        "vec4 texel(ivec2 at) {{
{texels}    bool odd = (at.x & 1) == 1;
    return vec4(rgb({yuv}), 1.0);
}}
"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The planes read one by one are those that a frame has, row for row, so
    /// that the frame's check bounds them.
    #[test]
    fn planes_are_as_long_as_those_of_the_format() {
        for fourcc in PLANAR {
            for (width, height) in [(64, 32), (5, 3), (1, 1)] {
                let frame = Frame::packed(width, height, fourcc).unwrap();
                let (_, parts) = parts(&frame).unwrap();
                for (plane, part) in parts.iter().enumerate() {
                    assert_eq!(part.rows(0), frame.rows(plane), "{frame:?}");
                }
            }
        }
        assert_eq!(planar(Fourcc::XRGB8888), None);
    }

    #[test]
    fn hints_are_the_numbers_of_eglext_h() {
        let mut hints = Hints::new(ColorSpace::Bt2020, Range::Full);
        hints.vertical = Siting::Middle;
        let expected = [
            0x327B, 0x3281, 0x327C, 0x3282, 0x327D, 0x3284, 0x327E, 0x3285,
        ];
        assert_eq!(hints.attributes(), expected);
    }
}
