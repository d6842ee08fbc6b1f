//! What is asked of a way to allocate.

use std::ffi::CString;

use rustix::io::Errno;
use rustix::param::page_size;

use super::{AllocError, HugePages, Limit};
use crate::buffer::Seals;
use crate::frame::{Fourcc, Frame, FrameError};

/// The longest name a buffer can have, in bytes: `DMA_BUF_NAME_LEN` of
/// linux/dma-buf.h less its NUL. A memfd could have a longer one.
pub const MAX_NAME: usize = crate::sys::dma_buf::NAME_LEN - 1;

/// What rows and planes of a picture start at a multiple of, in bytes.
const STRIDE_ALIGN: u32 = 256;

/// The largest size the kernel can count.
pub(super) const LARGEST: Limit = Limit {
    bytes: i64::MAX as u64,
    of: "the largest file there can be (loff_t)",
};

bitflags::bitflags! {
    /// What a buffer is for.
    ///
    /// ```
    /// use dmashare::alloc::Usage;
    /// assert!((Usage::CPU_WRITE | Usage::SCANOUT).needs_dma_buf());
    /// assert!(!Usage::default().needs_dma_buf());
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Usage: u32 {
        /// The CPU reads it.
        const CPU_READ = 1 << 0;
        /// The CPU writes it.
        const CPU_WRITE = 1 << 1;
        /// Some device imports it.
        const DEVICE = 1 << 2;
        /// A display shows it.
        const SCANOUT = 1 << 3;
        /// A GPU reads or draws it.
        const GPU = 1 << 4;
        /// A camera, or another video device, fills or reads it.
        const CAMERA = 1 << 5;
    }
}

impl Usage {
    /// Whether some device is among its users, which then needs a dma-buf.
    pub fn needs_dma_buf(self) -> bool {
        self.intersects(Usage::DEVICE | Usage::SCANOUT | Usage::GPU | Usage::CAMERA)
    }

    /// Whether the CPU is among its users, which then needs a mapping.
    pub(super) fn needs_mapping(self) -> bool {
        self.intersects(Usage::CPU_READ | Usage::CPU_WRITE)
    }
}

impl Default for Usage {
    /// The CPU reads and writes it.
    fn default() -> Usage {
        Usage::CPU_READ | Usage::CPU_WRITE
    }
}

/// What is asked of a way to allocate.
///
/// A way that does not have all of it refuses, and says what it has not.
///
/// ```
/// use dmashare::alloc::{Request, Usage};
/// use dmashare::frame::Fourcc;
/// let bytes = Request::new(1 << 20).named("camera 0").for_device();
/// assert!(bytes.usage.contains(Usage::DEVICE));
///
/// let picture = Request::picture(1000, 480, Fourcc::XRGB8888)?.named("picture");
/// assert_eq!(picture.size, 4096 * 480);
/// assert_eq!(picture.frame.unwrap().planes[0].stride, 4096);
/// # Ok::<(), dmashare::frame::FrameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The size in bytes; the buffer has this many or up to a page more.
    pub size: u64,
    /// What /proc and the kernel's debug files call the buffer, in at most
    /// [`MAX_NAME`] bytes. A System V segment has none.
    pub name: String,
    /// What it is for.
    pub usage: Usage,
    /// The picture that it is to hold, where it is one.
    pub frame: Option<Frame>,
    /// Whether it must be one piece of the machine's memory, for a device that
    /// cannot gather pages.
    pub contiguous: bool,
    /// Seals of a memfd, beyond those against changes of its size.
    pub seals: Seals,
    /// Whether its memory may be executed.
    pub executable: bool,
    /// The huge pages that it is to lie in.
    pub huge_pages: Option<HugePages>,
    /// Whether POSIX shared memory gets its pages when they are first touched,
    /// and not when it is made.
    pub unreserved: bool,
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
            usage: Usage::default(),
            frame: None,
            contiguous: false,
            seals: Seals::empty(),
            executable: false,
            huge_pages: None,
            unreserved: false,
        }
    }

    /// A buffer for a linear picture, all of its planes in it, every row and
    /// plane at a multiple of 256 bytes, as GPUs and displays ask.
    ///
    /// # Errors
    /// Those of [`Frame::aligned`].
    ///
    /// ```
    /// # use dmashare::alloc::{Request, allocate};
    /// # use dmashare::frame::Fourcc;
    /// let made = allocate(&Request::picture(100, 50, Fourcc::new(*b"NV12"))?)?;
    /// let frame = made.frame.expect("a picture was asked for");
    /// assert_eq!(frame.planes[1].offset, 256 * 50);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn picture(width: u32, height: u32, fourcc: Fourcc) -> Result<Request, FrameError> {
        let frame = Frame::aligned(width, height, fourcc, STRIDE_ALIGN)?;
        Ok(Request {
            frame: Some(frame.clone()),
            ..Request::new(frame.size_of_buffer(0)?)
        })
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

    /// Says what the buffer is for, in place of what was said before.
    ///
    /// ```
    /// # use dmashare::alloc::{Request, Usage};
    /// let shown = Request::new(1).for_usage(Usage::CPU_WRITE | Usage::SCANOUT);
    /// assert!(!shown.usage.contains(Usage::CPU_READ));
    /// ```
    #[must_use]
    pub fn for_usage(mut self, usage: Usage) -> Request {
        self.usage = usage;
        self
    }

    /// Asks for a buffer that devices can import, too.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// let refused = Memfd::new().allocate(&Request::new(1).for_device());
    /// assert!(refused.is_err()); // never a memfd where a dma-buf was asked
    /// ```
    #[must_use]
    pub fn for_device(mut self) -> Request {
        self.usage |= Usage::DEVICE;
        self
    }

    /// Asks for one piece of the machine's memory.
    ///
    /// ```
    /// # use dmashare::alloc::{Request, allocate};
    /// match allocate(&Request::new(1 << 20).contiguous().for_device()) {
    ///     Ok(made) => println!("from {}", made.way),
    ///     Err(why) => println!("{why}"), // never scattered pages instead
    /// }
    /// ```
    #[must_use]
    pub fn contiguous(mut self) -> Request {
        self.contiguous = true;
        self
    }

    /// Asks for more seals than those against changes of its size: against
    /// more seals ([`Seals::SEAL`]), or against ever becoming executable
    /// ([`Seals::EXEC`], which a memfd has anyway from Linux 6.3 on).
    ///
    /// Those against writing come later, by [`Buffer::seal`]: on a new buffer
    /// nobody could ever write anything.
    ///
    /// [`Buffer::seal`]: crate::buffer::Buffer::seal
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// # use dmashare::buffer::Seals;
    /// let mut last = Memfd::new().allocate(&Request::new(1).sealed(Seals::SEAL))?;
    /// assert!(last.seal(Seals::WRITE).is_err());
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    #[must_use]
    pub fn sealed(mut self, seals: Seals) -> Request {
        self.seals |= seals;
        self
    }

    /// Lets the memory be executed, which it cannot otherwise (where the kernel
    /// has `MFD_NOEXEC_SEAL`, from 6.3 on).
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Memfd, Request};
    /// let code = Memfd::new().allocate(&Request::new(1).executable())?;
    /// let mode = rustix::fs::fstat(code.fd()?)?.st_mode;
    /// assert_eq!(mode & 0o111, 0o111);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn executable(mut self) -> Request {
        self.executable = true;
        self
    }

    /// Asks for huge pages, which the size is then a multiple of.
    ///
    /// The buffer is [`Kind::HugeTlb`], to be mapped by `map_shrinkable`.
    ///
    /// [`Kind::HugeTlb`]: crate::buffer::Kind::HugeTlb
    ///
    /// ```
    /// # use dmashare::alloc::{AllocError, Allocate, HugePages, Memfd, Request};
    /// let request = Request::new(1).huge_pages(HugePages::Size2M);
    /// match Memfd::new().allocate(&request) {
    ///     Ok(buffer) => assert_eq!(buffer.size(), 2 << 20),
    ///     Err(AllocError::NoHugePages { .. }) => println!("none are set aside"),
    ///     Err(other) => panic!("{other}"),
    /// }
    /// ```
    #[must_use]
    pub fn huge_pages(mut self, size: HugePages) -> Request {
        self.huge_pages = Some(size);
        self
    }

    /// Lets POSIX shared memory take its pages when they are first touched. It
    /// costs nothing until then, but where there is no room left in `/dev/shm`
    /// the process that touches one is ended by SIGBUS, whichever it is.
    ///
    /// The other ways do as they always do: see each.
    ///
    /// ```
    /// # use dmashare::alloc::{Allocate, Posix, Request};
    /// let buffer = Posix::new().allocate(&Request::new(1 << 20).unreserved())?;
    /// assert_eq!(rustix::fs::fstat(buffer.fd()?)?.st_blocks, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn unreserved(mut self) -> Request {
        self.unreserved = true;
        self
    }

    /// The size in whole pages, or whole huge pages, in bytes.
    pub(super) fn whole_pages(&self) -> Result<u64, AllocError> {
        if self.size == 0 {
            return Err(AllocError::Empty);
        }
        let page = self.huge_pages.map_or(page_size() as u64, HugePages::bytes);
        let size = self.size.checked_next_multiple_of(page);
        let size = size.unwrap_or(u64::MAX);
        LARGEST
            .admits(size)
            .map(|()| size)
            .map_err(|_| AllocError::TooLarge {
                size: self.size,
                limit: LARGEST.bytes,
                of: LARGEST.of,
            })
    }

    /// The size in whole pages, if the system has so much memory to give.
    ///
    /// A heap takes its pages at once and knows no limit: asked for more than
    /// there is, it brings the system down.
    pub(super) fn pages_at_hand(&self) -> Result<u64, AllocError> {
        let size = self.whole_pages()?;
        // What is free by a wide margin is not worth the look into /proc, which
        // takes longer than a small allocation does.
        if size > free_memory() / 2 {
            memory_at_hand()?.admits(size)?;
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

/// The memory that there is. Some is left for everyone else.
pub(super) fn memory_at_hand() -> Result<Limit, AllocError> {
    let available = available_memory()?;
    Ok(Limit {
        bytes: available - available / 8,
        of: "the memory at hand (7/8 of MemAvailable in /proc/meminfo)",
    })
}

/// What is not used for anything: `freeram` of sysinfo(2), in bytes.
fn free_memory() -> u64 {
    let info = rustix::system::sysinfo();
    #[allow(clippy::useless_conversion, reason = "it has 32 bits where a long has")]
    u64::from(info.freeram).saturating_mul(info.mem_unit.into())
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
        for size in [LARGEST.bytes, 1 << 63, u64::MAX] {
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
