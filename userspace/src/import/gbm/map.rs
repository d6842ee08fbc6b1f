//! The pixels of a buffer, copied.

use std::ffi::c_void;
use std::fmt;
use std::ptr::{self, NonNull};

use super::BufferObject;
use super::device::ask;
use super::error::GbmError;
use crate::buffer::{Access, copy};
use crate::import::Part;

/// A region of a buffer that the CPU can copy from and to, as if it were linear;
/// made by [`BufferObject::map`]. What was written is in the buffer once this is
/// dropped.
pub struct Mapped<'object> {
    object: &'object BufferObject,
    /// The first pixel of the region.
    start: NonNull<u8>,
    data: *mut c_void,
    stride: usize,
    row: usize,
    rows: usize,
    access: Access,
}

impl BufferObject {
    /// Maps a region for the CPU, until the result is dropped. The driver may
    /// copy it for that, and back.
    ///
    /// # Errors
    /// [`GbmError::Region`] for what does not lie within, [`GbmError::NoPixels`]
    /// for a format whose pixels are no whole bytes of one plane, and
    /// [`GbmError::Map`] where the driver does not map it, as one without a GPU
    /// does not map what it imported.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::buffer::Access;
    /// # use dmashare::import::{Part, gbm::{BufferObject, GbmError}};
    /// # fn f(object: &BufferObject) -> Result<(), GbmError> {
    /// let mut mapped = object.map(Part::whole(object.size()), Access::Write)?;
    /// mapped.write(&vec![0xff; mapped.len()])?;
    /// # Ok(()) }
    /// ```
    pub fn map(&self, region: Part, access: Access) -> Result<Mapped<'_>, GbmError> {
        let fourcc = self.fourcc();
        let bytes = fourcc
            .bytes_per_pixel()
            .filter(|_| fourcc.planes() == Some(1));
        let bytes = bytes.ok_or(GbmError::NoPixels { fourcc })?;
        let (width, height) = self.size();
        let outside = GbmError::Region {
            region,
            width,
            height,
        };
        let within = |start: u32, count: u32, size| {
            start
                .checked_add(count)
                .filter(|end| count > 0 && *end <= size)
        };
        let (Some(right), Some(bottom)) = (
            within(region.x, region.width, width),
            within(region.y, region.height, height),
        ) else {
            return Err(outside);
        };
        let flags = match access {
            Access::Read => 1,
            // And to read: a driver with a copy in between writes all of it
            // back, and has to have what is not written.
            Access::Write | Access::ReadWrite => 3,
        };
        let (mut stride, mut data) = (0, ptr::null_mut());
        // From the first pixel on: kms_swrast adds the position of the region
        // to the address that it did not get, and what comes is no null.
        let (stride_at, data_at) = (&raw mut stride, &raw mut data);
        // SAFETY: the buffer is alive, and the region lies within.
        let start = ask(|| unsafe {
            (self.gbm.api.map)(self.raw, 0, 0, right, bottom, flags, stride_at, data_at)
        });
        let failed = |source| GbmError::Map {
            on: self.gbm.to_string(),
            source,
        };
        let start = NonNull::new(start.map_err(failed)?.cast::<u8>());
        let start = start.ok_or_else(|| failed(std::io::Error::other("no address")))?;
        let size = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
        let mut mapped = Mapped {
            object: self,
            start,
            data,
            stride: size(stride),
            row: size(region.width) * size(bytes),
            rows: size(region.height),
            access,
        };
        if mapped.stride < size(right) * size(bytes) {
            return Err(GbmError::Nonsense {
                on: self.gbm.to_string(),
                reason: format!("a stride of {stride} bytes for {right} pixels of {fourcc}"),
            });
        }
        let skipped = size(region.y) * mapped.stride + size(region.x) * size(bytes);
        // SAFETY: the driver mapped rows of this stride up to that pixel.
        mapped.start = unsafe { start.add(skipped) };
        Ok(mapped)
    }
}

impl Mapped<'_> {
    /// How many bytes the region has, its rows packed.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # fn f(mapped: &dmashare::import::gbm::Mapped<'_>) {
    /// let mut pixels = vec![0; mapped.len()];
    /// # }
    /// ```
    #[allow(clippy::len_without_is_empty)] // A region has pixels.
    pub fn len(&self) -> usize {
        self.row * self.rows
    }

    /// Copies the region, its rows packed.
    ///
    /// # Errors
    /// [`GbmError::Length`] for a slice that is not as long as
    /// [`len`](Self::len), [`GbmError::Access`] where it is mapped for writing.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::import::gbm::{GbmError, Mapped};
    /// # fn f(mapped: &Mapped<'_>) -> Result<Vec<u8>, GbmError> {
    /// let mut pixels = vec![0; mapped.len()];
    /// mapped.read(&mut pixels)?;
    /// # Ok(pixels) }
    /// ```
    pub fn read(&self, into: &mut [u8]) -> Result<(), GbmError> {
        self.check(into.len(), self.access != Access::Write)?;
        for (index, row) in into.chunks_exact_mut(self.row).enumerate() {
            // SAFETY: the region has this row, mapped for reading.
            unsafe { copy::load(self.start.as_ptr().add(index * self.stride), row) };
        }
        Ok(())
    }

    /// Copies to the region, of rows that are packed.
    ///
    /// # Errors
    /// [`GbmError::Length`] for a slice that is not as long as
    /// [`len`](Self::len), [`GbmError::Access`] where it is mapped for reading.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::import::gbm::{GbmError, Mapped};
    /// # fn f(mapped: &mut Mapped<'_>) -> Result<(), GbmError> {
    /// mapped.write(&vec![0; mapped.len()])?;
    /// # Ok(()) }
    /// ```
    pub fn write(&mut self, from: &[u8]) -> Result<(), GbmError> {
        self.check(from.len(), self.access != Access::Read)?;
        for (index, row) in from.chunks_exact(self.row).enumerate() {
            // SAFETY: the region has this row, mapped for writing.
            unsafe { copy::store(row, self.start.as_ptr().add(index * self.stride)) };
        }
        Ok(())
    }

    fn check(&self, given: usize, allowed: bool) -> Result<(), GbmError> {
        if !allowed {
            let mapped = self.access;
            return Err(GbmError::Access { mapped });
        }
        match given == self.len() {
            true => Ok(()),
            false => Err(GbmError::Length {
                given,
                needed: self.len(),
            }),
        }
    }
}

impl Drop for Mapped<'_> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, of this buffer, which is alive, and unmapped
        // once.
        unsafe { (self.object.gbm.api.unmap)(self.object.raw, self.data) };
    }
}

impl fmt::Debug for Mapped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapped({} rows of {:?})", self.rows, self.object)
    }
}
