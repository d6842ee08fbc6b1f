//! A part of a frame.

/// A part of a frame: what is to be drawn or mapped of it, where the rest is to
/// stay as it is.
///
/// ```
/// use dmashare::import::Part;
/// let left_half = Part { x: 0, y: 0, width: 320, height: 480 };
/// assert_eq!(left_half.within((200, 600)).width, 200);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// From the frame's left edge, in pixels.
    pub x: u32,
    /// From row 0 of its memory, in rows.
    pub y: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in rows.
    pub height: u32,
}

impl Part {
    /// All of a frame of this size.
    ///
    /// ```
    /// # use dmashare::import::Part;
    /// assert_eq!(Part::whole((8, 4)), Part { x: 0, y: 0, width: 8, height: 4 });
    /// ```
    pub const fn whole((width, height): (u32, u32)) -> Part {
        Part {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// What of it lies in a frame of this size; nothing is 0 pixels wide.
    ///
    /// ```
    /// # use dmashare::import::Part;
    /// let beyond = Part { x: 10, y: 0, width: u32::MAX, height: 1 };
    /// assert_eq!(beyond.within((8, 4)).width, 0);
    /// ```
    pub fn within(self, (width, height): (u32, u32)) -> Part {
        let (x, y) = (self.x.min(width), self.y.min(height));
        Part {
            x,
            y,
            width: self.width.min(width - x),
            height: self.height.min(height - y),
        }
    }
}
