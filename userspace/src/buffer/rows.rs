//! The rows of a picture in memory.

use super::BufferError;

/// The rows of a picture in memory, as [`Guard::read_rows`] and
/// [`Guard::write_rows`] copy them.
///
/// [`Guard::read_rows`]: super::Guard::read_rows
/// [`Guard::write_rows`]: super::Guard::write_rows
///
/// ```
/// use dmashare::buffer::Rows;
/// // Two rows of three bytes, the second one eight bytes after the first.
/// let rows = Rows { offset: 0, stride: 8, row: 3, count: 2 };
/// assert_eq!(rows.end()?, 11);
/// assert_eq!(rows.bytes(), 6);
/// # Ok::<(), dmashare::buffer::BufferError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Where the first row starts, in bytes.
    pub offset: u64,
    /// From the start of one row to the start of the next, in bytes.
    pub stride: u32,
    /// What a row holds, in bytes.
    pub row: u32,
    /// How many rows there are.
    pub count: u32,
}

impl Rows {
    /// The byte after the last one of the last row.
    ///
    /// # Errors
    /// [`BufferError::Rows`] where a row is longer than the stride, or the end
    /// lies beyond what a `u64` can say.
    ///
    /// ```
    /// # use dmashare::buffer::Rows;
    /// assert!(Rows { offset: u64::MAX, stride: 8, row: 3, count: 2 }.end().is_err());
    /// ```
    pub fn end(&self) -> Result<u64, BufferError> {
        if self.row > self.stride {
            return Err(BufferError::Rows(*self));
        }
        let Some(before_last) = self.count.checked_sub(1) else {
            return Ok(self.offset);
        };
        // A product of two 32-bit numbers, and a 32-bit one more, fit a u64.
        let span = u64::from(self.stride) * u64::from(before_last) + u64::from(self.row);
        self.offset
            .checked_add(span)
            .ok_or(BufferError::Rows(*self))
    }

    /// What all rows hold together, without what lies between them, in bytes.
    ///
    /// ```
    /// # use dmashare::buffer::Rows;
    /// assert_eq!(Rows { offset: 9, stride: 8, row: 3, count: 2 }.bytes(), 6);
    /// ```
    pub fn bytes(&self) -> u64 {
        u64::from(self.row) * u64::from(self.count)
    }

    /// Where each row starts.
    pub(super) fn starts(&self) -> impl Iterator<Item = u64> + use<> {
        let (offset, stride) = (self.offset, u64::from(self.stride));
        (0..u64::from(self.count)).map(move |row| offset + row * stride)
    }
}
