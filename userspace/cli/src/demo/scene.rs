//! What the demo draws, said thrice: in GLSL and in WGSL for the GPU, and in
//! Rust for the one who checks what the GPU made of it.
//!
//! The picture lies in the middle of the screen, made smaller if it must be,
//! with a yellow frame around it and dark grey beyond. Below its diagonal the
//! colours are negative: nothing but the shader could have done that.
//!
//! Both use whole numbers only, so that there is one right result, to the bit.

use image::{Rgb, RgbImage};

/// How wide the frame around the picture is, in pixels.
const BORDER: u32 = 4;

const BORDER_COLOR: [u8; 3] = [255, 214, 0];
const BACKGROUND: [u8; 3] = [32, 32, 36];

/// A picture of one size on a screen of another.
///
/// ```
/// use dmashare_cli::demo::scene::Scene;
/// let scene = Scene::new((2048, 1024), (1032, 768));
/// assert_eq!(scene.fitted, (1024, 512)); // half as wide, half as high
/// assert_eq!(scene.origin, (4, 128));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// Width and height of the picture, in pixels.
    pub picture: (u32, u32),
    /// Width and height of the screen, in pixels.
    pub screen: (u32, u32),
    /// Width and height of the picture on the screen, in pixels of the screen.
    pub fitted: (u32, u32),
    /// Where on the screen its first pixel lies.
    pub origin: (u32, u32),
}

impl Scene {
    /// The largest place for the picture that has its proportions, is not
    /// larger than it is, and leaves room for the frame; in the middle.
    ///
    /// No side may be 0.
    pub fn new(picture: (u32, u32), screen: (u32, u32)) -> Scene {
        let room = |side: u32| side.saturating_sub(2 * BORDER).max(1);
        let fitted = fit(picture, (room(screen.0), room(screen.1)));
        Scene {
            picture,
            screen,
            fitted,
            origin: ((screen.0 - fitted.0) / 2, (screen.1 - fitted.1) / 2),
        }
    }

    /// The fragment shader, to be given to
    /// [`Gpu::shader`](dmashare::import::egl::Gpu::shader). [`expected`] is
    /// the same in Rust: change all.
    ///
    /// Products stay below 2^28, since no side is above 16384; a texel of 8
    /// bits times 255 is a whole number but for the rounding of floats, and so
    /// is what the target stores.
    pub fn shader(&self) -> String {
        format!("{HEADER}{}", self.shader_of_texels())
    }

    /// The same without its beginning, which is to have `vec4 texel(ivec2 at)`:
    /// a pixel of the picture in RGB.
    pub fn shader_of_texels(&self) -> String {
        let vector = |(x, y): (u32, u32)| format!("ivec2({x}, {y})");
        let color = |[r, g, b]: [u8; 3]| format!("ivec3({r}, {g}, {b})");
        let constants = format!(
            "const ivec2 PICTURE = {};\n\
             const ivec2 FITTED = {};\n\
             const ivec2 ORIGIN = {};\n\
             const int BORDER = {BORDER};\n\
             const ivec3 BORDER_COLOR = {};\n\
             const ivec3 BACKGROUND = {};\n",
            vector(self.picture),
            vector(self.fitted),
            vector(self.origin),
            color(BORDER_COLOR),
            color(BACKGROUND),
        );
        format!("{constants}{MAIN}")
    }

    /// The same in WGSL, which is to have `fn texel(at: vec2<i32>) -> vec3<f32>`.
    pub fn wgsl_of_texels(&self) -> String {
        let vector = |(x, y): (u32, u32)| format!("vec2<i32>({x}, {y})");
        let color = |[r, g, b]: [u8; 3]| format!("vec3<i32>({r}, {g}, {b})");
        let constants = format!(
            "const PICTURE = {};\n\
             const FITTED = {};\n\
             const ORIGIN = {};\n\
             const BORDER = {BORDER};\n\
             const BORDER_COLOR = {};\n\
             const BACKGROUND = {};\n",
            vector(self.picture),
            vector(self.fitted),
            vector(self.origin),
            color(BORDER_COLOR),
            color(BACKGROUND),
        );
        format!("{constants}{WGSL_MAIN}")
    }

    /// The colour of one pixel of the screen; `texel` gives those of the
    /// picture.
    fn color(&self, x: u32, y: u32, texel: impl FnOnce(u32, u32) -> [u8; 3]) -> [u8; 3] {
        let (width, height) = self.fitted;
        let (left, top) = self.origin;
        let within = |border: u32| {
            let x = (x + border)
                .checked_sub(left)
                .filter(|x| *x < width + 2 * border)?;
            let y = (y + border)
                .checked_sub(top)
                .filter(|y| *y < height + 2 * border)?;
            Some((x, y))
        };
        if let Some((x, y)) = within(0) {
            let color = texel(x * self.picture.0 / width, y * self.picture.1 / height);
            return match y * width > x * height {
                true => color.map(|channel| 255 - channel),
                false => color,
            };
        }
        match within(BORDER) {
            Some(_) => BORDER_COLOR,
            None => BACKGROUND,
        }
    }
}

const HEADER: &str = "#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
uniform sampler2D frame;
vec4 texel(ivec2 at) { return texelFetch(frame, at, 0); }
";

const MAIN: &str = "
out vec4 color;
bool within(ivec2 at, int border) {
    return all(greaterThanEqual(at, ivec2(-border))) && all(lessThan(at, FITTED + border));
}

void main() {
    ivec2 at = ivec2(gl_FragCoord.xy) - ORIGIN;
    ivec3 rgb = BACKGROUND;
    if (within(at, 0)) {
        rgb = ivec3(texel(at * PICTURE / FITTED).rgb * 255.0 + 0.5);
        if (at.y * FITTED.x > at.x * FITTED.y) {
            rgb = 255 - rgb;
        }
    } else if (within(at, BORDER)) {
        rgb = BORDER_COLOR;
    }
    color = vec4(vec3(rgb) / 255.0, 1.0);
}
";

const WGSL_MAIN: &str = "
fn within(at: vec2<i32>, border: i32) -> bool {
    return all(at >= vec2(-border)) && all(at < FITTED + border);
}

@fragment fn main(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let at = vec2<i32>(position.xy) - ORIGIN;
    var rgb = BACKGROUND;
    if (within(at, 0)) {
        rgb = vec3<i32>(texel(at * PICTURE / FITTED) * 255.0 + 0.5);
        if (at.y * FITTED.x > at.x * FITTED.y) {
            rgb = 255 - rgb;
        }
    } else if (within(at, BORDER)) {
        rgb = BORDER_COLOR;
    }
    return vec4(vec3<f32>(rgb) / 255.0, 1.0);
}
";

/// What the screen is to show of this picture, in `screen` pixels.
///
/// ```
/// use dmashare_cli::demo::scene::expected;
/// use image::{Rgb, RgbImage};
/// let red = RgbImage::from_pixel(1, 1, Rgb([255, 0, 0]));
/// let screen = expected(&red, (3, 3));
/// assert_eq!(screen[(1, 1)], Rgb([255, 0, 0]));
/// assert_eq!(screen[(0, 0)], Rgb([255, 214, 0]));
/// ```
pub fn expected(input: &RgbImage, screen: (u32, u32)) -> RgbImage {
    let scene = Scene::new(input.dimensions(), screen);
    RgbImage::from_fn(screen.0, screen.1, |x, y| {
        Rgb(scene.color(x, y, |x, y| input[(x, y)].0))
    })
}

/// The largest rectangle of these proportions that fits, not above 1:1.
fn fit((width, height): (u32, u32), room: (u32, u32)) -> (u32, u32) {
    if width <= room.0 && height <= room.1 {
        return (width, height);
    }
    // In 64 bits products of two sides do not wrap; quotients are no larger
    // than the room they are to fit, and so have 32.
    let scaled = |side: u32, by: u32, to: u32| {
        let scaled = u64::from(side) * u64::from(to) / u64::from(by);
        u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
    };
    let is_wider = u64::from(width) * u64::from(room.1) >= u64::from(height) * u64::from(room.0);
    match is_wider {
        true => (room.0, scaled(height, width, room.0)),
        false => (scaled(width, height, room.1), room.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCREEN: (u32, u32) = (1280, 800);

    #[test]
    fn a_picture_that_fits_keeps_its_size() {
        for picture in [(1, 1), (1024, 768), (1272, 792)] {
            assert_eq!(Scene::new(picture, SCREEN).fitted, picture);
        }
    }

    #[test]
    fn one_that_does_not_keeps_its_proportions() {
        assert_eq!(Scene::new((2560, 100), SCREEN).fitted, (1272, 49)); // wider
        assert_eq!(Scene::new((100, 1584), SCREEN).fitted, (50, 792)); // taller
        assert_eq!(Scene::new((12720, 7920), SCREEN).fitted, (1272, 792));
        assert_eq!(Scene::new((16384, 1), SCREEN).fitted, (1272, 1));
    }

    #[test]
    fn every_picture_stays_inside_of_every_screen() {
        let sides = [1, 2, 3, 7, 8, 9, 64, 799, 800, 801, 1280, 1281, 4099, 16384];
        for (width, height) in sides.iter().flat_map(|w| sides.map(|h| (*w, h))) {
            for screen in sides.iter().flat_map(|w| sides.map(|h| (*w, h))) {
                let scene = Scene::new((width, height), screen);
                let (right, bottom) = (
                    scene.origin.0 + scene.fitted.0,
                    scene.origin.1 + scene.fitted.1,
                );
                assert!(scene.fitted.0 >= 1 && scene.fitted.1 >= 1, "{scene:?}");
                assert!(right <= screen.0 && bottom <= screen.1, "{scene:?}");
                assert!(
                    scene.fitted.0 <= width && scene.fitted.1 <= height,
                    "{scene:?}"
                );
                // The last texel that is looked at is one of the picture's.
                let last = (scene.fitted.0 - 1) * width / scene.fitted.0;
                assert!(last < width, "{scene:?}");
            }
        }
    }

    #[test]
    fn each_part_has_its_colour() {
        let grey = RgbImage::from_pixel(100, 50, Rgb([200, 100, 50]));
        let shown = expected(&grey, (300, 200));
        // The picture begins at (100, 75); its diagonal leads down to the right.
        assert_eq!(shown[(199, 75)].0, [200, 100, 50]);
        assert_eq!(shown[(100, 75)].0, [200, 100, 50]);
        assert_eq!(shown[(100, 124)].0, [55, 155, 205]);
        for at in [(96, 71), (203, 128), (99, 100), (150, 125)] {
            assert_eq!(shown[at].0, BORDER_COLOR, "{at:?}");
        }
        for at in [(95, 71), (204, 128), (0, 0), (299, 199)] {
            assert_eq!(shown[at].0, BACKGROUND, "{at:?}");
        }
    }

    #[test]
    fn a_smaller_copy_takes_the_nearest_texels() {
        let ramp = RgbImage::from_fn(24, 1, |x, _| Rgb([u8::try_from(x).unwrap(), 0, 0]));
        let shown = expected(&ramp, (20, 9)); // 12 pixels of room
        let reds: Vec<u8> = (4..16).map(|x| shown[(x, 4)].0[0]).collect();
        assert_eq!(reds, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]);
    }

    #[test]
    fn the_shader_is_told_what_rust_knows() {
        let shader = Scene::new((1024, 768), SCREEN).shader();
        assert!(shader.starts_with("#version 300 es\n"));
        for line in [
            "const ivec2 PICTURE = ivec2(1024, 768);",
            "const ivec2 FITTED = ivec2(1024, 768);",
            "const ivec2 ORIGIN = ivec2(128, 16);",
        ] {
            assert!(shader.contains(line), "{shader}");
        }
    }
}
