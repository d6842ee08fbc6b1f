//! Paints a frame buffer device in one colour.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// What the kernel says of a frame buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct FrameBuffer {
    pub width: usize,
    pub height: usize,
    /// Bytes from one row to the next.
    pub stride: usize,
}

impl FrameBuffer {
    /// Asks sysfs about `name` (`fb0`).
    pub fn open(name: &str) -> io::Result<FrameBuffer> {
        let folder = Path::new("/sys/class/graphics").join(name);
        let text = |file: &str| fs::read_to_string(folder.join(file));
        let number = |text: &str| text.trim().parse::<usize>().map_err(io::Error::other);
        let bits = number(&text("bits_per_pixel")?)?;
        if bits != 32 {
            return Err(io::Error::other(format!(
                "{name} has {bits} bits a pixel, not 32"
            )));
        }
        let size = text("virtual_size")?;
        let (width, height) = size.split_once(',').ok_or(io::ErrorKind::InvalidData)?;
        Ok(FrameBuffer {
            width: number(width)?,
            height: number(height)?,
            stride: number(&text("stride")?)?,
        })
    }
}

/// Fills the whole frame buffer `name` with a colour: red, green, blue.
pub fn paint(name: &str, [red, green, blue]: [u8; 3]) -> io::Result<()> {
    let buffer = FrameBuffer::open(name)?;
    // The text console would draw its cursor on top, where there is one.
    let _ = fs::write("/dev/tty0", "\x1b[?25l");
    let row = [blue, green, red, 0].repeat(buffer.stride / 4);
    let device = Path::new("/dev").join(name);
    let mut device = OpenOptions::new().write(true).open(device)?;
    for _ in 0..buffer.height {
        device.write_all(&row)?;
    }
    Ok(())
}
