//! What the frames of a stream are, in GStreamer's words.

use std::fmt;
use std::str::FromStr;

use super::format;
use crate::frame::{Fourcc, Frame, FrameError, INVALID, LINEAR};
use crate::text::printable;

/// What the frames of a stream are: GStreamer's caps for raw video.
///
/// They have two forms. `video/x-raw, format=BGRx` names a format of GStreamer's,
/// whose frames the CPU may touch; elements of all kinds take it, in dma-bufs,
/// too. `video/x-raw(memory:DMABuf), format=DMA_DRM, drm-format=XR24` is for
/// elements that hand dma-bufs on to devices, and has modifiers.
///
/// ```
/// use dmashare::share::gstreamer::Caps;
/// use dmashare::share::{Fourcc, Frame};
///
/// let frame = Frame::packed(320, 240, Fourcc::XRGB8888)?;
/// let caps = Caps::of(&frame)?.framerate(30, 1);
/// assert_eq!(
///     caps.to_string(),
///     "video/x-raw, format=(string)BGRx, width=(int)320, height=(int)240, \
///      interlace-mode=(string)progressive, pixel-aspect-ratio=(fraction)1/1, \
///      framerate=(fraction)30/1"
/// );
/// assert_eq!(caps.to_string().parse::<Caps>()?, caps);
/// assert_eq!(caps.frame()?, frame);
///
/// let for_devices = caps.for_devices().to_string();
/// assert!(for_devices.contains("format=(string)DMA_DRM, drm-format=(string)XR24"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Width in pixels.
    pub width: u32,
    /// Height in rows.
    pub height: u32,
    /// The pixel format.
    pub fourcc: Fourcc,
    /// How the pixels lie, as [`Frame::modifier`].
    pub modifier: u64,
    /// Frames a second, as a fraction; 0/1 where that varies.
    pub rate: (u32, u32),
    /// Whether they are of the form that is for devices.
    pub devices: bool,
    /// Whether a picture holds two fields.
    interleaved: bool,
}

/// Why caps are none of frames that this crate knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CapsError {
    /// They are not written as caps are.
    #[error("caps that cannot be read: {0:?}")]
    Syntax(String),
    /// They are of sound, or of compressed video.
    #[error("caps of {}: only video/x-raw has frames; decode it first", printable(.0))]
    NotVideo(String),
    /// They are of memory that does not pass between processes.
    #[error("caps of video in {}: take system memory, or memory:DMABuf", printable(.0))]
    Memory(String),
    /// They leave this open, or it has no such value.
    #[error("the caps' {field} cannot be used: {found:?}")]
    Field {
        /// What they do not say.
        field: &'static str,
        /// What they say instead; empty for nothing.
        found: String,
    },
    /// A format that GStreamer has no name for, or this crate does not know.
    #[error("no format {} is known both here and to GStreamer; convert it", printable(.0))]
    Format(String),
    /// Nothing tells how the frame lies in memory.
    #[error(
        "the layout of {fourcc} with modifier {modifier:#x} is not known here: it takes a \
         GstVideoMeta with each buffer"
    )]
    Layout {
        /// The format.
        fourcc: Fourcc,
        /// The modifier.
        modifier: u64,
    },
    /// There can be no such frame.
    #[error("the caps' frame: {0}")]
    Frame(#[from] FrameError),
}

impl Caps {
    /// The caps of such frames: by GStreamer's name of the format where it has
    /// one and the frame is linear, and otherwise of the form for devices.
    ///
    /// # Errors
    /// [`CapsError::Format`] for a format that is no four characters, or has a
    /// colon among them, which ends it in `drm-format`, and
    /// [`CapsError::Layout`] for the modifier [`INVALID`], of which GStreamer
    /// has no word.
    pub fn of(frame: &Frame) -> Result<Caps, CapsError> {
        let (fourcc, modifier) = (frame.fourcc, frame.modifier);
        if modifier == INVALID {
            return Err(CapsError::Layout { fourcc, modifier });
        }
        let in_caps = |byte: &u8| byte.is_ascii_graphic() && *byte != b':';
        if !fourcc.0.to_le_bytes().iter().all(in_caps) && format::by_fourcc(fourcc).is_none() {
            return Err(CapsError::Format(fourcc.to_string()));
        }
        Ok(Caps {
            width: frame.width,
            height: frame.height,
            fourcc,
            modifier,
            rate: (0, 1),
            devices: modifier != LINEAR || format::by_fourcc(fourcc).is_none(),
            interleaved: false,
        })
    }

    /// The same with so many frames a second: `30, 1`, or `30000, 1001`.
    #[must_use]
    pub fn framerate(mut self, frames: u32, seconds: u32) -> Caps {
        self.rate = (frames, seconds);
        self
    }

    /// The same in the form for devices. Such frames are to lie in dma-bufs.
    #[must_use]
    pub fn for_devices(mut self) -> Caps {
        self.devices = true;
        self
    }

    /// The frame of these caps, as it lies in memory where nothing else is
    /// said: planes one after the other in one buffer, strides of multiples of
    /// 4 bytes.
    ///
    /// # Errors
    /// [`CapsError::Layout`] for a modifier, a format that this crate does not
    /// know, or an interlaced picture of an odd number of rows;
    /// [`CapsError::Frame`].
    pub fn frame(&self) -> Result<Frame, CapsError> {
        let Caps {
            width,
            height,
            fourcc,
            modifier,
            ..
        } = *self;
        let format = format::by_fourcc(fourcc);
        let halved = format.is_some_and(|format| format.halved);
        // Each field has room for an even number of rows.
        let odd = self.interleaved && halved && height % 4 != 0;
        if format.is_none() || modifier != LINEAR || odd {
            return Err(CapsError::Layout { fourcc, modifier });
        }
        let rows = match halved {
            true => height.checked_next_multiple_of(2).unwrap_or(height),
            false => height,
        };
        let frame = Frame::aligned(width, rows, fourcc, 4)?;
        Ok(Frame { height, ..frame })
    }

    /// Whether this frame is one of these.
    pub(super) fn suit(&self, frame: &Frame) -> bool {
        (self.width, self.height) == (frame.width, frame.height)
            && (self.fourcc, self.modifier) == (frame.fourcc, frame.modifier)
    }
}

impl fmt::Display for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = format::by_fourcc(self.fourcc);
        match named {
            Some(format) if !self.devices => {
                write!(f, "video/x-raw, format=(string){}", format.name)?;
            }
            _ => {
                write!(
                    f,
                    "video/x-raw(memory:DMABuf), format=(string)DMA_DRM, drm-format=(string)"
                )?;
                let code = self.fourcc.to_string();
                let word = match self.modifier {
                    LINEAR => code,
                    modifier => format!("{code}:{modifier:#018x}"),
                };
                // A fourcc can have any characters, and be a peer's.
                match word.bytes().all(is_plain) {
                    true => f.write_str(&word)?,
                    false => write!(f, "\"{}\"", quoted(&word))?,
                }
            }
        }
        // Elements that take nothing else want to be told that it is so: square
        // pixels of whole pictures.
        let mode = match self.interleaved {
            true => "interleaved",
            false => "progressive",
        };
        write!(
            f,
            ", width=(int){}, height=(int){}, interlace-mode=(string){mode}, \
             pixel-aspect-ratio=(fraction)1/1, framerate=(fraction){}/{}",
            self.width, self.height, self.rate.0, self.rate.1
        )
    }
}

impl FromStr for Caps {
    type Err = CapsError;

    /// Reads caps of one structure with fixed values; fields that do not matter
    /// here, such as `colorimetry`, are passed over.
    fn from_str(text: &str) -> Result<Caps, CapsError> {
        let structure = Structure::read(text).ok_or_else(|| CapsError::Syntax(text.to_owned()))?;
        if structure.name != "video/x-raw" {
            return Err(CapsError::NotVideo(structure.name.to_owned()));
        }
        let mut memory = structure.features.split(',').map(str::trim);
        let foreign = |word: &&str| {
            word.starts_with("memory:") && !["DMABuf", "SystemMemory"].contains(&&word[7..])
        };
        if let Some(foreign) = memory.clone().find(foreign) {
            return Err(CapsError::Memory(foreign.to_owned()));
        }
        let devices = memory.any(|word| word == "memory:DMABuf");
        let name = structure.text("format");
        let (fourcc, modifier) = match &*name {
            "DMA_DRM" => {
                let word = structure.text("drm-format");
                drm_format(&word).ok_or(CapsError::Field {
                    field: "drm-format",
                    found: word,
                })?
            }
            name => {
                let format = format::by_name(name);
                let format = format.ok_or_else(|| CapsError::Format(name.to_owned()))?;
                (format.fourcc, LINEAR)
            }
        };
        let mode = structure.text("interlace-mode");
        let interleaved = match &*mode {
            "" | "progressive" => false,
            // Whole pictures, of two fields each or some of them.
            "interleaved" | "mixed" => true,
            _ => {
                return Err(CapsError::Field {
                    field: "interlace-mode",
                    found: mode,
                });
            }
        };
        Ok(Caps {
            width: structure.size("width")?,
            height: structure.size("height")?,
            fourcc,
            modifier,
            rate: structure.rate(),
            devices,
            interleaved,
        })
    }
}

/// Whether GStreamer writes a text with this byte without quotes
/// (`GST_ASCII_IS_STRING`).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-+/:.".contains(&byte)
}

/// A text between quotes: what is not plain has a backslash.
fn quoted(text: &str) -> String {
    let escaped = |c: char| {
        let plain = u8::try_from(c).is_ok_and(is_plain);
        (!plain).then_some('\\').into_iter().chain([c])
    };
    text.chars().flat_map(escaped).collect()
}

/// `XR24`, or `XR24:0x0100000000000001`.
fn drm_format(word: &str) -> Option<(Fourcc, u64)> {
    let (code, modifier) = match word.split_once(':') {
        None => (word, LINEAR),
        Some((code, modifier)) => {
            let digits = modifier.strip_prefix("0x")?;
            (code, u64::from_str_radix(digits, 16).ok()?)
        }
    };
    let code = <[u8; 4]>::try_from(code.as_bytes()).ok()?;
    Some((Fourcc::new(code), modifier))
}

/// `name(features), key=(type)value, …`
struct Structure<'t> {
    name: &'t str,
    features: &'t str,
    fields: Vec<(&'t str, &'t str)>,
}

impl<'t> Structure<'t> {
    fn read(text: &'t str) -> Option<Structure<'t>> {
        let text = text.trim();
        let end = text.find([',', '(', ';']).unwrap_or(text.len());
        let (name, mut rest) = text.split_at(end);
        let mut features = "";
        if let Some(open) = rest.strip_prefix('(') {
            (features, rest) = open.split_once(')')?;
        }
        let mut fields = Vec::new();
        loop {
            rest = rest.trim_start();
            match rest.chars().next() {
                None => break,
                // A second structure would be a choice.
                Some(';') if rest[1..].trim().is_empty() => break,
                Some(',') => rest = rest[1..].trim_start(),
                Some(_) => return None,
            }
            let (key, from_value) = rest.split_once('=')?;
            let end = end_of_value(from_value)?;
            let (value, next) = from_value.split_at(end);
            fields.push((key.trim(), value.trim()));
            rest = next;
        }
        Some(Structure {
            name: name.trim(),
            features,
            fields,
        })
    }

    /// The value of a field without its type and its quotes; empty where there
    /// is none.
    fn text(&self, key: &str) -> String {
        let found = self.fields.iter().rev().find(|(name, _)| *name == key);
        let value = found.map_or("", |(_, value)| *value);
        let value = match value
            .strip_prefix('(')
            .and_then(|rest| rest.split_once(')'))
        {
            Some((_type, value)) => value.trim(),
            None => value,
        };
        let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        match inner {
            None => value.to_owned(),
            Some(quoted) => {
                let mut escaped = false;
                let keeps = |c: &char| {
                    escaped = !escaped && *c == '\\';
                    !escaped
                };
                quoted.chars().filter(keeps).collect()
            }
        }
    }

    /// A number of pixels: an `int`, above 0.
    fn size(&self, field: &'static str) -> Result<u32, CapsError> {
        let found = self.text(field);
        match found.parse::<i32>().map(u32::try_from) {
            Ok(Ok(size)) if size > 0 => Ok(size),
            _ => Err(CapsError::Field { field, found }),
        }
    }

    /// The frame rate. Nothing depends on it, so one that cannot be read, or is
    /// a range, is as good as one that varies.
    fn rate(&self) -> (u32, u32) {
        let word = self.text("framerate");
        let parts = word.split_once('/');
        let rate = parts.and_then(|(n, d)| Some((n.parse().ok()?, d.parse().ok()?)));
        rate.filter(|rate| rate.1 > 0).unwrap_or((0, 1))
    }
}

/// Where a value ends: at a comma or semicolon outside of quotes and brackets.
fn end_of_value(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth = depth.checked_sub(1)?,
            ',' | ';' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    (depth == 0 && !quoted).then_some(text.len())
}
