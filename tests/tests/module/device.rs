//! `/dev/dmashare` as a C program would use it. Its structures and numbers are
//! those of kmod/dmashare_uapi.h, written down once more so that the library's
//! own are checked by them.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::raw::c_void;

use dmashare::buffer::Buffer;
use rustix::io::Errno;

use crate::text;

pub(crate) const NODE: &str = "/dev/dmashare";

/// `_IOWR('D', 0x01, struct dmashare_alloc)`
pub(crate) const ALLOC: libc::Ioctl = 0xc050_4401;
/// `_IOWR('D', 0x02, struct dmashare_wrap)`
pub(crate) const WRAP: libc::Ioctl = 0xc048_4402;
/// `_IOR('D', 0x03, struct dmashare_info)`
pub(crate) const INFO: libc::Ioctl = 0x8058_4403;

pub(crate) const CONTIGUOUS: u32 = 1;
pub(crate) const BELOW_4G: u32 = 2;
pub(crate) const WRITE_COMBINED: u32 = 4;

pub(crate) const NODE_UDMABUF: u32 = 1;
pub(crate) const NODE_DMA_HEAP: u32 = 2;
pub(crate) const NODE_HEAP: u32 = 4;

pub(crate) const MAX_RANGES: usize = 1024;
pub(crate) const PAGE: u64 = 4096;
pub(crate) const MIB: u64 = 1 << 20;

/// `struct dmashare_alloc`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alloc {
    pub(crate) size: u64,
    pub(crate) max_chunk: u64,
    pub(crate) flags: u32,
    pub(crate) chunks: u32,
    pub(crate) fd: i32,
    pub(crate) reserved0: u32,
    pub(crate) name: [u8; 32],
    pub(crate) reserved: [u64; 2],
}

/// `struct dmashare_range`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) memfd: i32,
    pub(crate) reserved: u32,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// `struct dmashare_wrap`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrap {
    pub(crate) ranges: u64,
    pub(crate) count: u32,
    pub(crate) flags: u32,
    pub(crate) chunks: u32,
    pub(crate) fd: i32,
    pub(crate) name: [u8; 32],
    pub(crate) reserved: [u64; 2],
}

/// `struct dmashare_info`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) version: u32,
    pub(crate) alloc_flags: u32,
    pub(crate) nodes: u32,
    pub(crate) reserved0: u32,
    pub(crate) max_buffer: u64,
    pub(crate) file_used: u64,
    pub(crate) file_max: u64,
    pub(crate) total_used: u64,
    pub(crate) total_max: u64,
    pub(crate) buffers: u64,
    pub(crate) reserved: [u64; 3],
}

/// What an output field holds before a call, so that a write to it shows.
pub(crate) const UNTOUCHED: u32 = 0x5a5a_5a5a;

impl Alloc {
    /// A good argument for this many bytes.
    pub(crate) fn new(size: u64) -> Alloc {
        Alloc {
            size,
            max_chunk: 0,
            flags: 0,
            chunks: UNTOUCHED,
            fd: UNTOUCHED.cast_signed(),
            reserved0: 0,
            name: [0; 32],
            reserved: [0; 2],
        }
    }

    pub(crate) fn flags(self, flags: u32) -> Alloc {
        Alloc { flags, ..self }
    }

    pub(crate) fn max_chunk(self, max_chunk: u64) -> Alloc {
        Alloc { max_chunk, ..self }
    }

    pub(crate) fn name(self, text: &[u8]) -> Alloc {
        Alloc {
            name: name(text),
            ..self
        }
    }
}

impl Wrap {
    /// A good argument for these ranges, which it holds the address of.
    pub(crate) fn new(ranges: &[Range]) -> Wrap {
        Wrap {
            ranges: ranges.as_ptr().expose_provenance() as u64,
            count: u32::try_from(ranges.len()).expect("a test has few ranges"),
            flags: 0,
            chunks: UNTOUCHED,
            fd: UNTOUCHED.cast_signed(),
            name: [0; 32],
            reserved: [0; 2],
        }
    }
}

impl Range {
    pub(crate) fn new(memfd: impl AsFd, offset: u64, size: u64) -> Range {
        Range {
            memfd: memfd.as_fd().as_raw_fd(),
            reserved: 0,
            offset,
            size,
        }
    }
}

/// The bytes of a name, with zeros behind it.
pub(crate) fn name(text: &[u8]) -> [u8; 32] {
    let mut name = [0; 32];
    name[..text.len()].copy_from_slice(text);
    name
}

/// What a call made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) fd: OwnedFd,
    pub(crate) chunks: u32,
}

impl Made {
    pub(crate) fn buffer(self) -> Result<Buffer, String> {
        Buffer::from_fd(self.fd).map_err(text)
    }
}

/// The device, open.
pub(crate) struct Device(File);

impl Device {
    pub(crate) fn open() -> Result<Device, String> {
        let file = OpenOptions::new().read(true).write(true).open(NODE);
        file.map(Device).map_err(|error| format!("{NODE}: {error}"))
    }

    pub(crate) fn alloc(&self, alloc: Alloc) -> Result<Made, Errno> {
        let mut alloc = alloc;
        self.call(ALLOC, &mut alloc)?;
        Ok(made(alloc.fd, alloc.chunks))
    }

    pub(crate) fn wrap(&self, ranges: &[Range]) -> Result<Made, Errno> {
        self.wrap_as(Wrap::new(ranges))
    }

    pub(crate) fn wrap_as(&self, wrap: Wrap) -> Result<Made, Errno> {
        let mut wrap = wrap;
        self.call(WRAP, &mut wrap)?;
        Ok(made(wrap.fd, wrap.chunks))
    }

    pub(crate) fn info(&self) -> Result<Info, Errno> {
        let mut info = Info::default();
        self.call(INFO, &mut info)?;
        Ok(info)
    }

    /// An ioctl whose argument this is.
    pub(crate) fn call<T: Argument>(
        &self,
        request: libc::Ioctl,
        argument: &mut T,
    ) -> Result<(), Errno> {
        let size = usize::try_from(request >> 16 & 0x3fff).expect("14 bits");
        assert!(size <= size_of::<T>(), "it would write past the argument");
        // SAFETY: the module reads and writes as many bytes there as are in the
        // request's number, of which it takes those of its own calls alone.
        unsafe { ioctl(self, request, std::ptr::from_mut(argument).cast()) }.map(drop)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Structures that are valid whatever bytes the kernel writes into them.
pub(crate) trait Argument: Copy + PartialEq + fmt::Debug {}

impl Argument for Alloc {}
impl Argument for Wrap {}
impl Argument for Info {}

fn made(fd: i32, chunks: u32) -> Made {
    // SAFETY: the kernel made this handle for us, and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Made { fd, chunks }
}

/// The call itself, and what it returned.
///
/// # Safety
/// Where the kernel can write at `argument`, nothing may be that is not meant
/// for this request.
pub(crate) unsafe fn ioctl(
    device: impl AsFd,
    request: libc::Ioctl,
    argument: *mut c_void,
) -> Result<i32, Errno> {
    // SAFETY: the caller's contract.
    let returned = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), request, argument) };
    match returned {
        0.. => Ok(returned),
        _ => Err(last_errno()),
    }
}

pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).expect("it is the system's")
}
