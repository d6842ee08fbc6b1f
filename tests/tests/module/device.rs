//! `/dev/dmashare` as a C program would use it. Its structures and numbers are
//! those of kmod/dmashare_uapi.h, written down once more so that the library's
//! own are checked by them.

use std::ffi::CStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::raw::c_void;

use dmashare::buffer::Buffer;
use rustix::io::Errno;

use crate::text;

pub(crate) const SYSTEM_NODE: &str = "/dev/dmashare/system";
pub(crate) const CONTIGUOUS_NODE: &str = "/dev/dmashare/contiguous";
pub(crate) const MEMFD_NODE: &str = "/dev/dmashare/memfd";

/// `_IO(0xDA, 0x00)` and the next ones
pub(crate) const INFO: libc::Ioctl = 0xda00;
pub(crate) const ALLOC: libc::Ioctl = 0xda01;
pub(crate) const WRAP: libc::Ioctl = 0xda02;
pub(crate) const QUERY: libc::Ioctl = 0xda03;

pub(crate) const BELOW_4G: u32 = 1;
pub(crate) const WRITE_COMBINED: u32 = 2;
/// Not a flag of the kernel interface: [`Device::alloc`] sends an argument with it
/// to the contiguous node.
pub(crate) const CONTIGUOUS: u32 = 1 << 31;

pub(crate) const FEATURE_ALLOC: u64 = 1;
pub(crate) const FEATURE_WRAP: u64 = 2;
pub(crate) const FEATURE_MAX_CHUNK: u64 = 4;
pub(crate) const FEATURE_BELOW_4G: u64 = 8;
pub(crate) const FEATURE_WRITE_COMBINED: u64 = 16;

pub(crate) const NODE_UDMABUF: u32 = 1;
pub(crate) const NODE_DMA_HEAP: u32 = 2;
pub(crate) const NODE_HEAP: u32 = 4;

pub(crate) const MAX_RANGES: usize = 1024;
pub(crate) const PAGE: u64 = 4096;
pub(crate) const MIB: u64 = 1 << 20;

/// `DMA_BUF_SET_NAME_B`: `_IOW('b', 1, __u64)`
const SET_NAME: libc::Ioctl = 0x4008_6201;

/// One of the nodes; its number is the `DMASHARE_MEMORY_*` of its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    System = 1,
    Contiguous = 2,
    Memfd = 3,
}

impl Node {
    pub(crate) const ALL: [Node; 3] = [Node::System, Node::Contiguous, Node::Memfd];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Node::System => SYSTEM_NODE,
            Node::Contiguous => CONTIGUOUS_NODE,
            Node::Memfd => MEMFD_NODE,
        }
    }

    /// `DMASHARE_MEMORY_*`
    pub(crate) fn memory(self) -> u32 {
        self as u32
    }

    pub(crate) fn open(self) -> Result<File, String> {
        let path = self.path();
        let file = OpenOptions::new().read(true).write(true).open(path);
        file.map_err(|error| format!("{path}: {error}"))
    }
}

/// `struct dmashare_alloc`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alloc {
    pub(crate) size: u32,
    pub(crate) fd_flags: u32,
    pub(crate) length: u64,
    pub(crate) max_chunk: u64,
    pub(crate) flags: u32,
    pub(crate) reserved: u32,
}

/// `struct dmashare_range`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) memfd: i32,
    pub(crate) reserved: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// `struct dmashare_wrap`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrap {
    pub(crate) size: u32,
    pub(crate) fd_flags: u32,
    pub(crate) ranges: u64,
    pub(crate) count: u32,
    pub(crate) flags: u32,
}

/// `struct dmashare_query`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) size: u32,
    pub(crate) fd: i32,
    pub(crate) length: u64,
    pub(crate) memory: u32,
    pub(crate) flags: u32,
    pub(crate) chunks: u32,
    pub(crate) reserved: u32,
}

/// `struct dmashare_info`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) size: u32,
    pub(crate) memory: u32,
    pub(crate) features: u64,
    pub(crate) nodes: u32,
    pub(crate) reserved: u32,
    pub(crate) buffer_max: u64,
    pub(crate) file_used: u64,
    pub(crate) file_max: u64,
    pub(crate) user_used: u64,
    pub(crate) user_max: u64,
    pub(crate) total_used: u64,
    pub(crate) total_max: u64,
    pub(crate) buffers: u64,
}

/// `DMASHARE_*_SIZE_V0`
pub(crate) const ALLOC_SIZE: u32 = 32;
pub(crate) const WRAP_SIZE: u32 = 24;
pub(crate) const QUERY_SIZE: u32 = 32;
pub(crate) const INFO_SIZE: u32 = 88;

const _: () = {
    assert!(size_of::<Alloc>() == ALLOC_SIZE as usize);
    assert!(size_of::<Range>() == 24);
    assert!(size_of::<Wrap>() == WRAP_SIZE as usize);
    assert!(size_of::<Query>() == QUERY_SIZE as usize);
    assert!(size_of::<Info>() == INFO_SIZE as usize);
};

/// Value of an output field before a call, so that a write to it shows.
pub(crate) const UNTOUCHED: u32 = 0x5a5a_5a5a;
const UNTOUCHED_LONG: u64 = 0x5a5a_5a5a_5a5a_5a5a;

/// `O_RDWR | O_CLOEXEC`
const FD_FLAGS: u32 = (libc::O_RDWR | libc::O_CLOEXEC).cast_unsigned();

impl Alloc {
    /// Valid argument for this many bytes.
    pub(crate) fn new(length: u64) -> Alloc {
        Alloc {
            size: ALLOC_SIZE,
            fd_flags: FD_FLAGS,
            length,
            max_chunk: 0,
            flags: 0,
            reserved: 0,
        }
    }

    pub(crate) fn flags(self, flags: u32) -> Alloc {
        Alloc { flags, ..self }
    }

    pub(crate) fn max_chunk(self, max_chunk: u64) -> Alloc {
        Alloc { max_chunk, ..self }
    }

    pub(crate) fn fd_flags(self, fd_flags: i32) -> Alloc {
        let fd_flags = fd_flags.cast_unsigned();
        Alloc { fd_flags, ..self }
    }
}

impl Wrap {
    /// Valid argument for these ranges, whose address it contains.
    pub(crate) fn new(ranges: &[Range]) -> Wrap {
        Wrap {
            size: WRAP_SIZE,
            fd_flags: FD_FLAGS,
            ranges: ranges.as_ptr().expose_provenance() as u64,
            count: u32::try_from(ranges.len()).expect("a test has few ranges"),
            flags: 0,
        }
    }

    pub(crate) fn fd_flags(self, fd_flags: i32) -> Wrap {
        let fd_flags = fd_flags.cast_unsigned();
        Wrap { fd_flags, ..self }
    }
}

impl Range {
    pub(crate) fn new(memfd: impl AsFd, offset: u64, length: u64) -> Range {
        Range {
            memfd: memfd.as_fd().as_raw_fd(),
            reserved: 0,
            offset,
            length,
        }
    }
}

impl Query {
    pub(crate) fn new(fd: impl AsFd) -> Query {
        Query {
            size: QUERY_SIZE,
            fd: fd.as_fd().as_raw_fd(),
            length: UNTOUCHED_LONG,
            memory: UNTOUCHED,
            flags: UNTOUCHED,
            chunks: UNTOUCHED,
            reserved: 0,
        }
    }
}

impl Info {
    pub(crate) fn new() -> Info {
        Info {
            size: INFO_SIZE,
            memory: UNTOUCHED,
            features: UNTOUCHED_LONG,
            nodes: UNTOUCHED,
            reserved: 0,
            buffer_max: UNTOUCHED_LONG,
            file_used: UNTOUCHED_LONG,
            file_max: UNTOUCHED_LONG,
            user_used: UNTOUCHED_LONG,
            user_max: UNTOUCHED_LONG,
            total_used: UNTOUCHED_LONG,
            total_max: UNTOUCHED_LONG,
            buffers: UNTOUCHED_LONG,
        }
    }
}

/// New dma-buf.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) fd: OwnedFd,
    /// Entries of its scatter list, as QUERY reports them.
    pub(crate) chunks: u32,
}

impl Made {
    pub(crate) fn buffer(self) -> Result<Buffer, String> {
        Buffer::from_fd(self.fd).map_err(text)
    }

    /// `DMA_BUF_SET_NAME`
    pub(crate) fn named(self, name: &CStr) -> Result<Made, String> {
        // SAFETY: the kernel reads the string, which ends with a zero.
        unsafe { ioctl(&self.fd, SET_NAME, name.as_ptr().cast_mut().cast()) }.map_err(text)?;
        Ok(self)
    }
}

/// The three nodes, open. Each has its own account of `max_file_mb`.
pub(crate) struct Device {
    system: File,
    contiguous: File,
    memfd: File,
}

impl Device {
    pub(crate) fn open() -> Result<Device, String> {
        Ok(Device {
            system: Node::System.open()?,
            contiguous: Node::Contiguous.open()?,
            memfd: Node::Memfd.open()?,
        })
    }

    pub(crate) fn node(&self, node: Node) -> BorrowedFd<'_> {
        match node {
            Node::System => self.system.as_fd(),
            Node::Contiguous => self.contiguous.as_fd(),
            Node::Memfd => self.memfd.as_fd(),
        }
    }

    pub(crate) fn alloc(&self, alloc: Alloc) -> Result<Made, Errno> {
        self.made(self.alloc_fd(alloc)?)
    }

    /// ALLOC alone, without a QUERY after it.
    pub(crate) fn alloc_fd(&self, alloc: Alloc) -> Result<OwnedFd, Errno> {
        let node = match alloc.flags & CONTIGUOUS {
            0 => Node::System,
            _ => Node::Contiguous,
        };
        let mut alloc = alloc.flags(alloc.flags & !CONTIGUOUS);
        Ok(owned(self.call(node, ALLOC, &mut alloc)?))
    }

    pub(crate) fn wrap(&self, ranges: &[Range]) -> Result<Made, Errno> {
        self.made(self.wrap_fd(Wrap::new(ranges))?)
    }

    /// WRAP alone, without a QUERY after it.
    pub(crate) fn wrap_fd(&self, wrap: Wrap) -> Result<OwnedFd, Errno> {
        let mut wrap = wrap;
        Ok(owned(self.call(Node::Memfd, WRAP, &mut wrap)?))
    }

    fn made(&self, fd: OwnedFd) -> Result<Made, Errno> {
        let chunks = self.query(&fd)?.chunks;
        Ok(Made { fd, chunks })
    }

    pub(crate) fn query(&self, fd: impl AsFd) -> Result<Query, Errno> {
        let mut query = Query::new(fd);
        self.call(Node::System, QUERY, &mut query)?;
        Ok(query)
    }

    /// INFO of the system node.
    pub(crate) fn info(&self) -> Result<Info, Errno> {
        self.info_of(Node::System)
    }

    /// INFO of a node: memory, features and `file_used` are its own.
    pub(crate) fn info_of(&self, node: Node) -> Result<Info, Errno> {
        let mut info = Info::new();
        self.call(node, INFO, &mut info)?;
        Ok(info)
    }

    /// Raw call with any argument, which zeroes follow in memory.
    pub(crate) fn call<T: Argument>(
        &self,
        node: Node,
        request: libc::Ioctl,
        argument: &mut T,
    ) -> Result<i32, Errno> {
        self.call_with_tail(node, request, argument, &[])
    }

    /// Raw call with any argument, which these bytes and then zeroes follow in
    /// memory. The kernel must not change any of them.
    pub(crate) fn call_with_tail<T: Argument>(
        &self,
        node: Node,
        request: libc::Ioctl,
        argument: &mut T,
        tail: &[u8],
    ) -> Result<i32, Errno> {
        let mut room = Box::new(Room {
            argument: *argument,
            tail: [0; ROOM],
        });
        room.tail[..tail.len()].copy_from_slice(tail);
        let expected = room.tail;
        let at = std::ptr::from_mut(&mut *room).cast();
        // SAFETY: any bytes are valid in the argument and in the two pages behind it,
        // and the module writes less than one page.
        let answer = unsafe { ioctl(self.node(node), request, at) };
        *argument = room.argument;
        assert_eq!(room.tail, expected, "bytes behind the argument");
        answer
    }
}

const ROOM: usize = 8192;

/// Argument of a call, and the memory behind it.
#[repr(C)]
struct Room<T> {
    argument: T,
    tail: [u8; ROOM],
}

/// Structures that are valid whatever bytes the kernel writes into them, without
/// padding.
pub(crate) trait Argument: Copy + PartialEq + fmt::Debug {
    /// The size that it gives itself.
    fn size(&mut self) -> &mut u32;
}

impl Argument for Alloc {
    fn size(&mut self) -> &mut u32 {
        &mut self.size
    }
}

impl Argument for Wrap {
    fn size(&mut self) -> &mut u32 {
        &mut self.size
    }
}

impl Argument for Query {
    fn size(&mut self) -> &mut u32 {
        &mut self.size
    }
}

impl Argument for Info {
    fn size(&mut self) -> &mut u32 {
        &mut self.size
    }
}

/// Owner of the fd that a call returned.
pub(crate) fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel made this fd for us, and nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The call itself, and its return value.
///
/// # Safety
/// Where the kernel can write at `argument`, there must be an argument for this
/// request, of the size that it begins with.
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
