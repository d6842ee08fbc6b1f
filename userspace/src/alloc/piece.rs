//! Parts of memfds, which become one dma-buf.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use super::AllocError;
use crate::buffer::{Buffer, BufferError};

/// A part of a memfd, to make a dma-buf of.
///
/// ```
/// use dmashare::alloc::{Allocate, Memfd, Piece, Request};
/// let memfd = Memfd::new().allocate(&Request::new(1 << 20))?;
/// let second_half = Piece { memfd: &memfd, range: 1 << 19..1 << 20 };
/// assert_eq!(second_half.range.end, memfd.size());
/// # Ok::<(), dmashare::alloc::AllocError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Piece<'b> {
    /// The memfd.
    pub memfd: &'b Buffer,
    /// Which of its bytes, in whole pages.
    pub range: Range<u64>,
}

/// An fd, an offset in it and a size, as the ioctls take them.
pub(super) type Item<'b> = (BorrowedFd<'b>, u64, u64);

/// What the ioctls take, each within its memfd; and the bytes in all of them.
pub(super) fn items<'b>(pieces: &[Piece<'b>]) -> Result<(Vec<Item<'b>>, u64), AllocError> {
    let mut items = Vec::with_capacity(pieces.len());
    let mut total = 0u64;
    for Piece { memfd, range } in pieces {
        let size = range.end.saturating_sub(range.start);
        if size == 0 || range.end > memfd.size() {
            return Err(AllocError::Buffer(BufferError::Part {
                name: memfd.name(),
                offset: range.start,
                len: size,
                size: memfd.size(),
            }));
        }
        total = total.saturating_add(size);
        items.push((memfd.fd()?, range.start, size));
    }
    match items.is_empty() {
        true => Err(AllocError::Empty),
        false => Ok((items, total)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Allocate, Memfd, Request};
    use super::*;

    #[test]
    fn pieces_lie_within_their_memfds() {
        let memfd = Memfd::new().allocate(&Request::new(8192)).unwrap();
        let memfd = &memfd;
        let piece = |range| Piece { memfd, range };
        let (items, total) = items(&[piece(4096..8192), piece(0..8192)]).unwrap();
        assert_eq!(
            (items[0].1, items[0].2, items[1].2, total),
            (4096, 4096, 8192, 12288)
        );
        for (start, end) in [
            (0, 0),
            (4096, 4095),
            (0, 8193),
            (8192, 12288),
            (8191, u64::MAX),
        ] {
            let wrong = start..end;
            let refused = super::items(&[piece(0..4096), piece(wrong)]).unwrap_err();
            assert!(matches!(
                refused,
                AllocError::Buffer(BufferError::Part { .. })
            ));
        }
        assert_eq!(super::items(&[]).unwrap_err(), AllocError::Empty);
    }
}
