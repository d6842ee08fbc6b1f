//! What is asked of a way to allocate.

use std::ffi::CString;

use rustix::io::Errno;
use rustix::param::page_size;

use super::AllocError;

/// The longest name a buffer can have, in bytes: `DMA_BUF_NAME_LEN` of
/// linux/dma-buf.h less its NUL. A memfd could have a longer one.
pub const MAX_NAME: usize = crate::sys::dma_buf::NAME_LEN - 1;

/// The largest size the kernel can count: an `loff_t`.
const LOFF_MAX: u64 = i64::MAX as u64;

/// What is asked of a way to allocate.
///
/// ```
/// use dmashare::alloc::Request;
/// let request = Request::new(640 * 480 * 4).named("camera 0").for_device();
/// assert!(request.device);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The size in bytes; the buffer has this many or up to a page more.
    pub size: u64,
    /// What /proc and the kernel's debug files call the buffer, in at most
    /// [`MAX_NAME`] bytes.
    pub name: String,
    /// Whether a device is to import it, so that it must be a dma-buf.
    pub device: bool,
}

impl Request {
    /// A buffer of at least `size` bytes, for the CPUs, called `dmashare`.
    ///
    /// ```
    /// # use dmashare::alloc::Request;
    /// assert_eq!(Request::new(1).name, "dmashare");
    /// ```
    pub fn new(size: u64) -> Request {
        Request {
            size,
            name: "dmashare".to_owned(),
            device: false,
        }
    }

    /// Names the buffer.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// let buffer = Memfd::new().allocate(&Request::new(1).named("picture"))?;
    /// assert_eq!(buffer.name(), "/memfd:picture");
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Request {
        self.name = name.into();
        self
    }

    /// Asks for a buffer that devices can import.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// let refused = Memfd::new().allocate(&Request::new(1).for_device());
    /// assert!(refused.is_err()); // never a memfd where a dma-buf was asked
    /// ```
    #[must_use]
    pub fn for_device(mut self) -> Request {
        self.device = true;
        self
    }

    /// The size in whole pages, in bytes.
    pub(super) fn whole_pages(&self) -> Result<u64, AllocError> {
        if self.size == 0 {
            return Err(AllocError::Empty);
        }
        let size = self.size.checked_next_multiple_of(page_size() as u64);
        size.filter(|size| *size <= LOFF_MAX)
            .ok_or(AllocError::TooLarge {
                size: self.size,
                limit: LOFF_MAX,
                of: "the kernel can count (loff_t)",
            })
    }

    /// The size in whole pages, if the system has so much memory to give.
    ///
    /// A heap takes its pages at once and knows no limit: asked for more than
    /// there is, it brings the system down. Some is left for everyone else.
    pub(super) fn pages_at_hand(&self) -> Result<u64, AllocError> {
        let size = self.whole_pages()?;
        let available = available_memory()?;
        let limit = available - available / 8;
        if size > limit {
            return Err(AllocError::TooLarge {
                size,
                limit,
                of: "the memory at hand (7/8 of MemAvailable in /proc/meminfo)",
            });
        }
        Ok(size)
    }

    /// The name as the kernel takes it.
    pub(super) fn c_name(&self) -> Result<CString, AllocError> {
        let refuse = |problem| AllocError::Name {
            name: self.name.clone(),
            problem,
        };
        if self.name.len() > MAX_NAME {
            return Err(refuse("more than 31 bytes"));
        }
        CString::new(self.name.as_str()).map_err(|_| refuse("a NUL byte"))
    }
}

/// What can be allocated without swapping: `MemAvailable` of proc_meminfo(5),
/// in bytes.
fn available_memory() -> Result<u64, AllocError> {
    const MEMINFO: &str = "/proc/meminfo";
    let unknown = |operation, source| AllocError::Os {
        operation,
        name: MEMINFO.to_owned(),
        source,
        help: "mount proc on /proc, so that the request can be bounded".to_owned(),
    };
    let text = std::fs::read_to_string(MEMINFO)
        .map_err(|error| unknown("read", Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.ok_or_else(|| unknown("find MemAvailable", Errno::NODATA))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_pages() {
        let page = page_size() as u64;
        assert_eq!(Request::new(1).whole_pages().unwrap(), page);
        assert_eq!(Request::new(page).whole_pages().unwrap(), page);
        assert_eq!(Request::new(page + 1).whole_pages().unwrap(), 2 * page);
        assert_eq!(Request::new(0).whole_pages(), Err(AllocError::Empty));
        for size in [LOFF_MAX, u64::MAX] {
            let error = Request::new(size).whole_pages().unwrap_err();
            assert!(matches!(error, AllocError::TooLarge { .. }), "{error}");
        }
    }

    #[test]
    fn more_than_the_system_has_is_refused() {
        let available = available_memory().unwrap();
        assert!(available > 1 << 20);
        let error = Request::new(1 << 40).pages_at_hand().unwrap_err();
        assert!(matches!(error, AllocError::TooLarge { .. }), "{error}");
        assert!(Request::new(1).pages_at_hand().is_ok());
    }

    #[test]
    fn names_are_those_the_kernel_takes() {
        assert!(Request::new(1).named("x".repeat(31)).c_name().is_ok());
        assert!(Request::new(1).named("x".repeat(32)).c_name().is_err());
        assert!(Request::new(1).named("a\0b").c_name().is_err());
    }
}
