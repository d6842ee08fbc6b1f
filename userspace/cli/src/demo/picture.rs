//! The picture that the demo passes on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Seek};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

/// The longest side of a picture, in pixels: what GPUs take as a texture.
pub const MAX_SIDE: u32 = 16384;

/// What is shown where no picture is given.
const OURS: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/pictures/harbour.png"
));

/// Why a file is no picture for the demo.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; name a PNG or JPEG file that you may read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is something else than a picture, or in another format.
    #[error("{} is neither PNG nor JPEG; convert it, or name another file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// It starts like a picture but is not whole.
    #[error("{} does not decode: {problem}; is it cut off or damaged?", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What the decoder said, in one line.
        problem: String,
    },
    /// It has no pixels, or more than a GPU takes.
    #[error(
        "{} is {width}x{height} pixels; the demo takes 1 to {MAX_SIDE} a side: scale it",
        path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
}

/// Decodes a PNG or JPEG file, or the picture that comes with the program, to
/// 8 bits a channel. It is turned upright as its EXIF data say; an alpha
/// channel is left out.
///
/// # Errors
/// See [`PictureError`]; each is one line.
///
/// ```
/// use dmashare_cli::demo::picture::{PictureError, load};
/// assert_eq!(load(None)?.dimensions(), (1024, 768));
/// let refused = load(Some("/dev/null".as_ref()));
/// assert!(matches!(refused, Err(PictureError::Format { .. })));
/// # Ok::<(), PictureError>(())
/// ```
pub fn load(path: Option<&Path>) -> Result<RgbImage, PictureError> {
    let Some(path) = path else {
        return decode(Path::new("the picture of this program"), Cursor::new(OURS));
    };
    let unreadable = |source| PictureError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    decode(path, BufReader::new(file))
}

fn decode(path: &Path, bytes: impl BufRead + Seek) -> Result<RgbImage, PictureError> {
    let path = path.to_owned();
    let reader = match ImageReader::new(bytes).with_guessed_format() {
        Ok(reader) => reader,
        Err(source) => return Err(PictureError::Unreadable { path, source }),
    };
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        return Err(PictureError::Format { path });
    }
    let broken = |error: image::ImageError| PictureError::Broken {
        path: path.clone(),
        problem: error.to_string().replace('\n', " "),
    };
    let mut decoder = reader.into_decoder().map_err(broken)?;
    // Before anything is decoded: a small file can claim to be a huge picture.
    let (width, height) = decoder.dimensions();
    if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
        return Err(PictureError::Size {
            path,
            width,
            height,
        });
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_decode(bytes: &[u8]) -> Result<RgbImage, PictureError> {
        decode(Path::new("test"), Cursor::new(bytes))
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        RgbImage::new(width, height)
            .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
            .unwrap();
        bytes
    }

    #[test]
    fn only_png_and_jpeg() {
        for bytes in [&b""[..], b"hello, world", b"P6 1 1 255 abc", b"GIF89a"] {
            let refused = try_decode(bytes);
            assert!(
                matches!(refused, Err(PictureError::Format { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn a_cut_off_picture_is_broken() {
        for length in [20, 100, OURS.len() / 2, OURS.len() - 20] {
            let refused = try_decode(&OURS[..length]);
            assert!(
                matches!(refused, Err(PictureError::Broken { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn the_longest_side_that_is_taken() {
        assert!(try_decode(&png(MAX_SIDE, 1)).is_ok());
        assert!(try_decode(&png(1, MAX_SIDE)).is_ok());
        for bytes in [png(MAX_SIDE + 1, 1), png(1, MAX_SIDE + 1)] {
            let refused = try_decode(&bytes);
            assert!(
                matches!(refused, Err(PictureError::Size { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn a_png_of_no_pixels_is_refused() {
        // A width of 0 in IHDR, with the CRC that belongs to it.
        let mut bytes = png(1, 1);
        bytes[16..20].fill(0);
        let crc = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(try_decode(&bytes).is_err());
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc: u32, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn every_message_is_one_line() {
        let errors = [
            try_decode(b"?").unwrap_err(),
            try_decode(&OURS[..1000]).unwrap_err(),
            try_decode(&png(MAX_SIDE + 1, 1)).unwrap_err(),
            load(Some(Path::new("/no/such/file.png"))).unwrap_err(),
            load(Some(Path::new("/tmp"))).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }
}
