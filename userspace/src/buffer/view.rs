//! More than bytes: typed copies, atomics, and the memory itself.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32};

use bytemuck::{AnyBitPattern, NoUninit};

use super::region::Region;
use super::{Access, BufferError, Guard};

/// An integer that is read and written in one piece, also by other processes:
/// `AtomicU8` to `AtomicU64`.
///
/// It is sealed: what is an [`Atomic`] must be valid whatever its bits are.
///
/// ```
/// use std::sync::atomic::AtomicU32;
/// fn size<A: dmashare::buffer::Atomic>() -> usize { size_of::<A>() }
/// assert_eq!(size::<AtomicU32>(), 4);
/// ```
///
/// ```compile_fail,E0277
/// # use std::sync::atomic::AtomicBool;
/// fn flag(guard: &mut dmashare::buffer::Guard<'_>) {
///     let _ = guard.atomic::<AtomicBool>(0); // what if a peer writes a 2?
/// }
/// ```
pub trait Atomic: sealed::Sealed {}

impl Atomic for AtomicU8 {}
impl Atomic for AtomicU16 {}
impl Atomic for AtomicU32 {}
#[cfg(target_has_atomic = "64")]
impl Atomic for std::sync::atomic::AtomicU64 {}

mod sealed {
    /// Valid whatever its bits are, and written through a shared reference.
    pub trait Sealed {}
    impl Sealed for super::AtomicU8 {}
    impl Sealed for super::AtomicU16 {}
    impl Sealed for super::AtomicU32 {}
    #[cfg(target_has_atomic = "64")]
    impl Sealed for std::sync::atomic::AtomicU64 {}
}

impl Guard<'_> {
    /// A copy of the value at `offset`, wherever it is aligned to.
    ///
    /// Every bit pattern must be a `T`, for nobody knows what another process
    /// wrote there.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::Access;
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::ReadWrite)?;
    /// guard.write(3, &0x0102_0304_u32)?;
    /// assert_eq!(guard.read::<u32>(3)?, 0x0102_0304);
    /// assert!(guard.read::<u64>(4090).is_err());
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// ```compile_fail,E0277
    /// fn flag(guard: &dmashare::buffer::Guard<'_>) {
    ///     let _ = guard.read::<bool>(0); // what if a peer writes a 2?
    /// }
    /// ```
    pub fn read<T: AnyBitPattern>(&self, offset: u64) -> Result<T, BufferError> {
        read(&self.region(), offset)
    }

    /// Copies a value to `offset`.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    ///
    /// ```
    /// use bytemuck::{AnyBitPattern, NoUninit};
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::Access;
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    ///
    /// #[derive(Clone, Copy, Debug, PartialEq, AnyBitPattern, NoUninit)]
    /// #[repr(C)]
    /// struct Header {
    ///     frames: u32,
    ///     stride: u32,
    /// }
    ///
    /// let header = Header { frames: 3, stride: 256 };
    /// let mut guard = mapping.access(Access::ReadWrite)?;
    /// guard.write(0, &header)?;
    /// assert_eq!(guard.read::<Header>(0)?, header);
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write<T: NoUninit>(&mut self, offset: u64, value: &T) -> Result<(), BufferError> {
        self.write_at(offset, bytemuck::bytes_of(value))
    }

    /// Copies the values from `offset` on into `into`.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::Access;
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::ReadWrite)?;
    /// guard.write_slice(8, &[1.5_f32, 2.5])?;
    /// let mut samples = [0.0_f32; 2];
    /// guard.read_slice(8, &mut samples)?;
    /// assert_eq!(samples, [1.5, 2.5]);
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_slice<T: AnyBitPattern + NoUninit>(
        &self,
        offset: u64,
        into: &mut [T],
    ) -> Result<(), BufferError> {
        self.read_at(offset, bytemuck::cast_slice_mut(into))
    }

    /// Copies values to the bytes from `offset` on.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::Access;
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::ReadWrite)?;
    /// guard.write_slice(0, &[0x0201_u16, 0x0403])?;
    /// assert_eq!(guard.read::<u16>(2)?, 0x0403);
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_slice<T: NoUninit>(&mut self, offset: u64, from: &[T]) -> Result<(), BufferError> {
        self.write_at(offset, bytemuck::cast_slice(from))
    }

    /// An atomic integer in the shared memory, where `offset` is aligned for
    /// it: what processes tell each other how far they are by.
    ///
    /// The guard must be for both reading and writing, even to only load: most
    /// of what an atomic offers writes, and would end the process by SIGSEGV in
    /// memory mapped for reading. It is borrowed meanwhile, since a copy beside
    /// an atomic access of the same bytes is a data race.
    ///
    /// Of a dma-buf the exporter decides how it is mapped. Where that is
    /// uncached, a CPU may have no atomics there (arm64: SIGBUS); those of
    /// memfd, shm, udmabuf and the heap `system` lie in ordinary memory.
    ///
    /// # Errors
    /// [`BufferError::Range`], [`BufferError::Alignment`] and
    /// [`BufferError::Access`].
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::Access;
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::ReadWrite)?;
    /// guard.write_at(4, b"frame")?;
    /// guard.atomic::<AtomicU32>(0)?.store(1, Ordering::Release);
    /// assert!(guard.atomic::<AtomicU32>(2).is_err());
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn atomic<A: Atomic>(&mut self, offset: u64) -> Result<&A, BufferError> {
        self.atomics(offset, 1).map(|one| &one[0])
    }

    /// Some of them, one after the other.
    ///
    /// # Errors
    /// As [`atomic`](Self::atomic).
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::Access;
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::ReadWrite)?;
    /// let [head, tail] = guard.atomics::<AtomicU32>(64, 2)? else { unreachable!() };
    /// head.store(7, Ordering::Release);
    /// assert_eq!(tail.load(Ordering::Acquire), 0);
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn atomics<A: Atomic>(&mut self, offset: u64, count: usize) -> Result<&[A], BufferError> {
        atomics(self.region(), offset, count)
    }

    /// The memory as programs around the vm-memory crate take it: virtual
    /// machines, and devices of theirs.
    ///
    /// The guard must be for both reading and writing, which such a slice
    /// always is.
    ///
    /// # Errors
    /// [`BufferError::Access`].
    ///
    /// ```
    /// use vm_memory::VolatileMemory;
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::Access;
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::ReadWrite)?;
    /// let memory = guard.volatile()?;
    /// memory.get_ref::<u16>(4094)?.store(7);
    /// assert!(memory.get_ref::<u16>(4095).is_err());
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "vm-memory")]
    pub fn volatile(&mut self) -> Result<vm_memory::VolatileSlice<'_>, BufferError> {
        let region = self.region();
        let base = region.place(Access::ReadWrite, 0, region.len())?;
        // SAFETY: mapped for both while self is borrowed, through which alone
        // this process could get a reference to it.
        Ok(unsafe { vm_memory::VolatileSlice::new(base, region.len()) })
    }

    /// The memory itself, without a copy.
    ///
    /// # Safety
    /// While the slice lives nobody may write to this memory: no other mapping
    /// of it in this process, no other process that holds a handle, and no
    /// device. Nor may anyone make it smaller. The guard must be for reading.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::{Access, BufferError};
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let guard = mapping.access(Access::Read)?;
    /// // SAFETY: this process holds the only handle, and the only mapping.
    /// let bytes = unsafe { guard.as_slice() };
    /// assert_eq!(bytes.len(), 4096);
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn as_slice(&self) -> &[u8] {
        let region = self.region();
        let whole = region.place(Access::Read, 0, region.len());
        let base = whole.expect("the contract: the guard is for reading");
        // SAFETY: mapped for as long as self borrows the mapping; the caller
        // vouches for everyone else.
        unsafe { std::slice::from_raw_parts(base, region.len()) }
    }

    /// The memory itself, to be written without a copy.
    ///
    /// # Safety
    /// While the slice lives nobody else may read from or write to this memory,
    /// as in [`as_slice`](Self::as_slice). The guard must be for writing; for a
    /// guard that is not for reading too, the bytes read are stale.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::{Access, BufferError};
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::ReadWrite)?;
    /// // SAFETY: this process holds the only handle, and the only mapping.
    /// let bytes = unsafe { guard.as_mut_slice() };
    /// bytes[..2].copy_from_slice(b"ok");
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn as_mut_slice(&mut self) -> &mut [u8] {
        let region = self.region();
        let whole = region.place(Access::Write, 0, region.len());
        let base = whole.expect("the contract: the guard is for writing");
        // SAFETY: as above, and mapped for writing since the guard is for it.
        unsafe { std::slice::from_raw_parts_mut(base, region.len()) }
    }

    /// A part of the memory itself, without a copy.
    ///
    /// # Safety
    /// That of [`as_slice`](Self::as_slice), for this part. Whether the guard
    /// is for reading is checked.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::{Access, BufferError};
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let guard = mapping.access(Access::Read)?;
    /// // SAFETY: this process holds the only handle, and the only mapping.
    /// let bytes = unsafe { guard.slice(4000..4096)? };
    /// assert_eq!(bytes, [0; 96]);
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn slice(&self, range: Range<u64>) -> Result<&[u8], BufferError> {
        let len = length(&range);
        let base = self.region().place(Access::Read, range.start, len)?;
        // SAFETY: `place` found these bytes inside; and as in `as_slice`.
        Ok(unsafe { std::slice::from_raw_parts(base, len) })
    }

    /// A part of the memory itself, to be written without a copy.
    ///
    /// # Safety
    /// That of [`as_mut_slice`](Self::as_mut_slice), for this part. Whether the
    /// guard is for writing is checked.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::{Access, BufferError};
    /// # let mut mapping = Memfd::new().allocate(&Request::new(4096))?.map(Access::ReadWrite)?;
    /// let mut guard = mapping.access(Access::Write)?;
    /// // SAFETY: this process holds the only handle, and the only mapping.
    /// unsafe { guard.slice_mut(1000..1004)? }.copy_from_slice(b"part");
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn slice_mut(&mut self, range: Range<u64>) -> Result<&mut [u8], BufferError> {
        let len = length(&range);
        let base = self.region().place(Access::Write, range.start, len)?;
        // SAFETY: `place` found these bytes inside; and as in `as_mut_slice`.
        Ok(unsafe { std::slice::from_raw_parts_mut(base, len) })
    }
}

/// The length of a range: 0 where it ends before it starts, and where pointers
/// cannot count it, one that nothing has.
fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

fn read<T: AnyBitPattern>(region: &Region<'_>, offset: u64) -> Result<T, BufferError> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: these bytes are all written, padding included, and `value` is not
    // used otherwise while they are borrowed.
    let bytes =
        unsafe { std::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
    region.read_at(offset, bytes)?;
    // SAFETY: every bit pattern is a `T`.
    Ok(unsafe { value.assume_init() })
}

fn atomics<A: Atomic>(region: Region<'_>, offset: u64, count: usize) -> Result<&[A], BufferError> {
    let base = region.place_of::<A>(Access::ReadWrite, offset, count)?;
    // SAFETY: `place_of` found these bytes inside, aligned, and mapped for
    // reading and writing while `region` is borrowed; an `Atomic` is valid
    // whatever they are, and may change behind a shared reference.
    Ok(unsafe { std::slice::from_raw_parts(base, count) })
}

/// Over memory of our own, so that Miri can watch.
#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, AnyBitPattern)]
    #[repr(C)]
    struct Padded {
        byte: u8,
        word: u32,
    }

    #[test]
    fn values_are_read_where_they_lie() {
        let mut memory = [0u8; 24];
        memory[1..9].copy_from_slice(&[9, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
        // SAFETY: all of `memory`, which nobody else touches.
        let region = unsafe { Region::new(memory.as_mut_ptr(), 24, Access::ReadWrite) };
        let value: Padded = read(&region, 1).unwrap();
        assert_eq!(
            (value.byte, value.word),
            (9, u32::from_ne_bytes([1, 0, 0, 0]))
        );
        assert!(read::<Padded>(&region, 17).is_err());
        assert_eq!(read::<[u8; 0]>(&region, 24), Ok([]));
    }

    #[test]
    fn atomics_are_shared_by_threads() {
        let mut memory = [0u64; 4];
        let base = memory.as_mut_ptr().cast::<u8>();
        // SAFETY: all of `memory`, which nobody else touches.
        let region = unsafe { Region::new(base, 32, Access::ReadWrite) };
        let counters = atomics::<AtomicU32>(region, 8, 2).unwrap();
        std::thread::scope(|scope| {
            for counter in counters {
                scope.spawn(move || counter.fetch_add(3, Ordering::Relaxed));
                scope.spawn(move || counter.fetch_add(4, Ordering::Relaxed));
            }
        });
        assert!(counters.iter().all(|c| c.load(Ordering::Relaxed) == 7));
        assert!(atomics::<AtomicU16>(region, 30, 1).is_ok());
        assert!(atomics::<AtomicU16>(region, 31, 1).is_err());
        assert!(matches!(
            atomics::<AtomicU8>(region, 1, 40),
            Err(BufferError::Range { .. })
        ));
        // SAFETY: as above.
        let region = unsafe { Region::new(base, 32, Access::Read) };
        assert!(matches!(
            atomics::<AtomicU8>(region, 0, 1),
            Err(BufferError::Access { .. })
        ));
    }
}
