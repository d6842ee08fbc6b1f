//! Memory that nobody writes any more.

use std::fmt;
use std::ops::Deref;

use super::handle::{examine, os, seals};
use super::{Access, Buffer, BufferError, Kind, Mapping, Seals};

/// The bytes of a memfd that is sealed against writing and shrinking, without a
/// copy.
///
/// No seal can be taken off again, so this is a `&[u8]` like any other: it can
/// be parsed in place, kept, and sent to threads.
///
/// # What vouches for it
/// - [`Seals::WRITE`], which the kernel only grants where no writable mapping
///   is left anywhere, and no page is held by a device or by I/O under way: a
///   udmabuf made of the memfd before holds its pages, so that the seal is
///   refused (`EBUSY`) as long as that lives, and after it none can be made
///   (`EINVAL`). [`Seals::FUTURE_WRITE`] is not enough: a mapping that its owner
///   made earlier goes on writing.
/// - [`Seals::SHRINK`], so that no access ends in SIGBUS. Growing does no harm.
///   For huge pages [`Seals::WRITE`] also refuses to punch holes. All of them are
///   faulted in when the memory is mapped (`MADV_POPULATE_READ`), so that a limit
///   of the cgroup (`hugetlb.*.max`) or an empty pool is an error then, and no
///   signal later: what is there once stays.
///
/// All of it is the kernel's word. One whose udmabuf looks at the seals without
/// a lock (before 6.13, or a stable release with "udmabuf: fix racy memfd
/// sealing check") can be tricked by a peer who may open `/dev/udmabuf` and
/// wins a race: it then holds a dma-buf of sealed pages. On such a kernel give
/// `/dev/udmabuf` to nobody you would not trust with your memory; by default
/// it is root's.
///
/// Of ordinary pages one may still be missing when it is first touched: see
/// [`Kind::Memfd`](super::Kind::Memfd). They are not faulted in, since a peer's
/// file can have more bytes than this machine has memory, without a page behind
/// any of them. A page that the hardware has lost (memory-failure in the kernel)
/// ends in SIGBUS in every kind of memory.
pub struct Sealed {
    mapping: Mapping,
}

impl Buffer {
    /// Maps a memfd that nobody can write any more, so that its bytes are a
    /// plain `&[u8]`.
    ///
    /// Its seals and its size are asked for now, whatever they were when the
    /// handle came: a receiver can wait for its peer to seal, or
    /// [`seal`](Self::seal) itself.
    ///
    /// # Errors
    /// [`BufferError::NotSealed`] with the seals that are missing, those of
    /// [`map_shrinkable`](Self::map_shrinkable), and for huge pages
    /// [`BufferError::Os`] of `madvise`: `EFAULT` or `ENOMEM` where the cgroup may
    /// not have them or the pool has none left, `EINVAL` before Linux 5.14.
    ///
    /// ```
    /// use dmashare::alloc::{Allocate, Memfd, Request};
    /// use dmashare::buffer::{BufferError, Seals};
    /// let mut buffer = Memfd::new().allocate(&Request::new(4096))?;
    /// buffer.write_at(0, b"font")?;
    /// let early = buffer.map_sealed();
    /// assert!(matches!(early, Err(BufferError::NotSealed { missing: Seals::WRITE, .. })));
    ///
    /// buffer.seal(Seals::WRITE)?;
    /// let font = buffer.map_sealed()?;
    /// assert!(font.starts_with(b"font"));
    /// assert_eq!(font.len(), 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_sealed(&self) -> Result<Sealed, BufferError> {
        let wanted = Seals::WRITE | Seals::SHRINK;
        let seals = match self.segment() {
            None => seals(self.fd()?)?,
            Some(_) => None,
        };
        let missing = wanted - seals.unwrap_or(Seals::empty());
        if !missing.is_empty() {
            return Err(BufferError::NotSealed {
                name: self.name(),
                missing,
            });
        }
        // Now that it cannot become smaller: the size that it had before may
        // never be true again.
        let (kind, size) = examine(self.fd()?)?;
        let mapping = Mapping::new(self, size, 0..size, Access::Read)?;
        if kind == Kind::HugeTlb {
            mapping.populate().map_err(os("madvise", self.fd()?))?;
        }
        Ok(Sealed { mapping })
    }
}

impl Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped for as long as self lives. The seals were read before
        // the mapping was made and stay for good: nobody writes these bytes or
        // takes them away.
        unsafe { std::slice::from_raw_parts(self.mapping.as_ptr(), self.mapping.bytes()) }
    }
}

impl AsRef<[u8]> for Sealed {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.len())
    }
}
