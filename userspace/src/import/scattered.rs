//! Memory that is in many pieces, to find out who takes such.

use rustix::param::page_size;

use crate::alloc::{AllocError, Allocate, Memfd, Module, Piece, Request, Udmabuf};
use crate::buffer::Buffer;

/// The pieces that a scattered buffer is of: /dev/udmabuf takes 1024.
const PIECES: u64 = 512;

/// A dma-buf of so many bytes whose pages do not lie one after the other: those
/// of the two halves of a memfd by turns.
pub(super) fn scattered(size: u64) -> Result<Buffer, AllocError> {
    let page = page_size() as u64;
    let pages = size.div_ceil(page).max(2);
    // Each as long, and an even number of them.
    let each = pages.div_ceil(PIECES).max(1) * page;
    let pieces = size.div_ceil(each).max(2).next_multiple_of(2);
    let memfd = Memfd::new().allocate(&Request::new(pieces * each))?;
    let pieces: Vec<Piece<'_>> = (0..pieces)
        .map(|at| at / 2 + at % 2 * (pieces / 2))
        .map(|piece| Piece {
            memfd: &memfd,
            range: piece * each..(piece + 1) * each,
        })
        .collect();
    match Udmabuf::open() {
        Ok(udmabuf) => udmabuf.export_pieces(&pieces),
        Err(_) => Module::open()?.wrap(&pieces, "scattered"),
    }
}
