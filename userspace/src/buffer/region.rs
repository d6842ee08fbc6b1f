//! Shared memory as the guards reach it: bounded, and never by a reference.

use std::marker::PhantomData;

use super::{Access, BufferError, Rows, copy};

/// Memory that someone else may write at any time, and what may be done there.
///
/// All that goes from an offset to an address goes through
/// [`place`](Self::place), so that no other code needs to count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region<'m> {
    base: *mut u8,
    len: usize,
    access: Access,
    _mapping: PhantomData<&'m ()>,
}

impl<'m> Region<'m> {
    /// # Safety
    /// For `'m`, `len` bytes from `base` on are mapped for reading and, if that
    /// is part of `access`, for writing; no reference of this process leads
    /// there while the region is used.
    pub(super) unsafe fn new(base: *mut u8, len: usize, access: Access) -> Region<'m> {
        Region {
            base,
            len,
            access,
            _mapping: PhantomData,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where these bytes lie, if they lie inside and may be accessed so.
    pub(super) fn place(
        &self,
        access: Access,
        offset: u64,
        len: usize,
    ) -> Result<*mut u8, BufferError> {
        self.access.grant(access)?;
        self.at(offset, len as u64)
    }

    pub(super) fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), BufferError> {
        let from = self.place(Access::Read, offset, into.len())?;
        // SAFETY: `place` found these bytes inside, and all can be read.
        unsafe { copy::load(from, into) };
        Ok(())
    }

    pub(super) fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), BufferError> {
        let into = self.place(Access::Write, offset, from.len())?;
        // SAFETY: `place` found these bytes inside, and that they are mapped
        // for writing.
        unsafe { copy::store(from, into) };
        Ok(())
    }

    pub(super) fn fill(&self, byte: u8) -> Result<(), BufferError> {
        let into = self.place(Access::Write, 0, self.len)?;
        // SAFETY: as in `write_at`.
        unsafe { copy::fill(into, self.len, byte) };
        Ok(())
    }

    pub(super) fn read_rows(&self, rows: Rows, into: &mut [u8]) -> Result<(), BufferError> {
        self.access.grant(Access::Read)?;
        let row = self.row(rows, into.len())?;
        for (at, into) in rows.starts().zip(into.chunks_exact_mut(row)) {
            self.read_at(at, into)?;
        }
        Ok(())
    }

    pub(super) fn write_rows(&self, rows: Rows, from: &[u8]) -> Result<(), BufferError> {
        self.access.grant(Access::Write)?;
        let row = self.row(rows, from.len())?;
        for (at, from) in rows.starts().zip(from.chunks_exact(row)) {
            self.write_at(at, from)?;
        }
        Ok(())
    }

    /// As [`place`](Self::place) for `count` values of type `T`, which must be
    /// aligned there.
    pub(super) fn place_of<T>(
        &self,
        access: Access,
        offset: u64,
        count: usize,
    ) -> Result<*mut T, BufferError> {
        // What overflows lies outside as much as the largest number does.
        let len = size_of::<T>().saturating_mul(count);
        let at = self.place(access, offset, len)?.cast::<T>();
        match at.is_aligned() {
            true => Ok(at),
            false => Err(BufferError::Alignment {
                offset,
                align: align_of::<T>(),
            }),
        }
    }

    fn at(&self, offset: u64, len: u64) -> Result<*mut u8, BufferError> {
        let size = self.len as u64;
        let inside = offset.checked_add(len).is_some_and(|end| end <= size);
        match usize::try_from(offset) {
            // SAFETY: not beyond the end.
            Ok(offset) if inside => Ok(unsafe { self.base.add(offset) }),
            _ => Err(BufferError::Range { offset, len, size }),
        }
    }

    /// The bytes of a row, if all rows lie inside and hold just what `memory`
    /// bytes hold. At least 1, so that one can divide by it.
    fn row(&self, rows: Rows, memory: usize) -> Result<usize, BufferError> {
        let end = rows.end()?;
        if rows.bytes() != memory as u64 {
            return Err(BufferError::RowsMemory {
                rows: rows.bytes(),
                memory,
            });
        }
        self.at(rows.offset, end - rows.offset)?;
        Ok(rows.row.max(1) as usize)
    }
}

/// Over memory of our own, so that Miri can watch.
#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `body` on a region of `len` bytes that lies `before` bytes into an
    /// allocation, and gives what is there after.
    fn region(len: usize, before: usize, access: Access, body: impl Fn(Region<'_>)) -> Vec<u8> {
        let mut memory = vec![0xee; before + len + 8];
        let base = memory.as_mut_ptr();
        // SAFETY: inside of `memory`, which nobody else touches meanwhile.
        body(unsafe { Region::new(base.add(before), len, access) });
        assert!(memory[..before].iter().all(|byte| *byte == 0xee));
        assert!(memory[before + len..].iter().all(|byte| *byte == 0xee));
        memory[before..before + len].to_vec()
    }

    #[test]
    fn what_is_written_is_read_and_nothing_beside_it() {
        for before in 0..9 {
            let after = region(33, before, Access::ReadWrite, |region| {
                region.fill(0).unwrap();
                region.write_at(3, b"hello, world").unwrap();
                let mut back = [0; 12];
                region.read_at(3, &mut back).unwrap();
                assert_eq!(&back, b"hello, world");
                region.write_at(32, b"!").unwrap();
            });
            assert_eq!(&after[3..15], b"hello, world");
            assert_eq!(after[32], b'!');
        }
    }

    #[test]
    fn rows_are_copied_as_they_lie() {
        let rows = Rows {
            offset: 1,
            stride: 7,
            row: 5,
            count: 4,
        };
        let picture: Vec<u8> = (1..=20).collect();
        let after = region(27, 3, Access::ReadWrite, |region| {
            region.write_rows(rows, &picture).unwrap();
            let mut back = vec![0; 20];
            region.read_rows(rows, &mut back).unwrap();
            assert_eq!(back, picture);
            let beyond = Rows { offset: 2, ..rows };
            assert!(region.write_rows(beyond, &picture).is_err());
        });
        assert_eq!(&after[1..6], &picture[..5]);
        assert_eq!(after[6..8], [0xee; 2]);
        assert_eq!(&after[22..], &picture[15..]);
    }

    #[test]
    fn nothing_outside_has_a_place() {
        region(16, 8, Access::ReadWrite, |region| {
            for (offset, len) in [(0, 17), (16, 1), (17, 0), (u64::MAX, 1), (1, usize::MAX)] {
                let place = region.place(Access::Read, offset, len);
                assert!(
                    matches!(place, Err(BufferError::Range { size: 16, .. })),
                    "{offset} {len}: {place:?}"
                );
            }
            assert!(region.place(Access::Read, 16, 0).is_ok());
            let many = region.place_of::<u64>(Access::Read, 0, usize::MAX);
            assert!(matches!(many, Err(BufferError::Range { .. })));
        });
    }

    #[test]
    fn types_are_aligned() {
        for before in 0..8 {
            region(64, before, Access::ReadWrite, |region| {
                let base = region.place(Access::Read, 0, 0).unwrap().addr();
                for offset in 0..8 {
                    let place = region.place_of::<u64>(Access::Read, offset, 1);
                    let aligned = (base as u64 + offset).is_multiple_of(8);
                    assert_eq!(place.is_ok(), aligned, "{place:?}");
                }
            });
        }
    }

    #[test]
    fn what_was_not_granted_is_refused() {
        let rows = Rows {
            offset: 0,
            stride: 1,
            row: 1,
            count: 1,
        };
        region(8, 0, Access::Read, |region| {
            let refused = Err(BufferError::Access {
                asked: Access::Write,
                granted: Access::Read,
            });
            assert_eq!(region.write_at(0, b"x"), refused);
            assert_eq!(region.write_rows(rows, b"x"), refused);
            assert_eq!(region.fill(1), refused);
            assert!(region.place(Access::ReadWrite, 0, 1).is_err());
        });
        region(8, 0, Access::Write, |region| {
            assert!(region.read_at(0, &mut [0]).is_err());
            assert!(region.read_rows(rows, &mut [0]).is_err());
        });
    }
}
