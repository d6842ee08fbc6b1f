//! The calls as a C program makes them. A failure ends the benchmark.

use std::ffi::{CStr, c_void};

pub(crate) fn check(result: i32) -> i32 {
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result
}

/// A sealed memfd.
pub(crate) fn memfd(name: &CStr, size: usize) -> i32 {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_NOEXEC_SEAL;
    // SAFETY: a terminated name.
    let mut fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        // SAFETY: as above; the kernel is older than that flag.
        fd = check(unsafe { libc::memfd_create(name.as_ptr(), flags & !libc::MFD_NOEXEC_SEAL) });
    }
    // SAFETY: numbers only.
    unsafe {
        check(libc::ftruncate(
            fd,
            libc::off_t::try_from(size).expect("small"),
        ));
        check(libc::fcntl(
            fd,
            libc::F_ADD_SEALS,
            libc::F_SEAL_SHRINK | libc::F_SEAL_GROW,
        ));
    }
    fd
}

/// A dma-buf of a heap that is open.
pub(crate) fn heap_alloc(heap: i32, size: u64) -> i32 {
    #[repr(C)]
    struct Allocation {
        len: u64,
        fd: u32,
        fd_flags: u32,
        heap_flags: u64,
    }
    let mut data = Allocation {
        len: size,
        fd: 0,
        fd_flags: (libc::O_RDWR | libc::O_CLOEXEC).cast_unsigned(),
        heap_flags: 0,
    };
    // SAFETY: DMA_HEAP_IOCTL_ALLOC reads and writes one of these.
    check(unsafe { libc::ioctl(heap, 0xc018_4800, &raw mut data) });
    data.fd.cast_signed()
}

/// A dma-buf of the module, whose node is open, in chunks as large as can be had.
pub(crate) fn module_alloc(module: i32, size: u64) -> i32 {
    /// `struct dmashare_alloc` of kmod/dmashare_uapi.h.
    #[repr(C)]
    struct Allocation {
        size: u32,
        fd_flags: u32,
        length: u64,
        max_chunk: u64,
        flags: u32,
        reserved: u32,
    }
    let data = Allocation {
        size: 32,
        fd_flags: (libc::O_RDWR | libc::O_CLOEXEC).cast_unsigned(),
        length: size,
        max_chunk: 0,
        flags: 0,
        reserved: 0,
    };
    // SAFETY: DMASHARE_IOCTL_ALLOC reads one of these.
    check(unsafe { libc::ioctl(module, 0xda01, &raw const data) })
}

/// A dma-buf of a memfd that cannot shrink, by a node that is open.
pub(crate) fn udmabuf(node: i32, memfd: i32, size: u64) -> i32 {
    #[repr(C)]
    struct Create {
        memfd: u32,
        flags: u32,
        offset: u64,
        size: u64,
    }
    let create = Create {
        memfd: memfd.cast_unsigned(),
        flags: 1, // UDMABUF_FLAGS_CLOEXEC
        offset: 0,
        size,
    };
    // SAFETY: UDMABUF_CREATE reads one of these.
    check(unsafe { libc::ioctl(node, 0x4018_7542, &raw const create) })
}

/// A handle of this DRM device for a dma-buf.
pub(crate) fn prime_import(card: i32, fd: i32) -> u32 {
    #[repr(C)]
    struct Prime {
        handle: u32,
        flags: u32,
        fd: i32,
    }
    let mut prime = Prime {
        handle: 0,
        flags: 0,
        fd,
    };
    // SAFETY: DRM_IOCTL_PRIME_FD_TO_HANDLE reads and writes one of these.
    check(unsafe { libc::ioctl(card, 0xc00c_642e, &raw mut prime) });
    prime.handle
}

pub(crate) fn gem_close(card: i32, handle: u32) {
    let close = [handle, 0];
    // SAFETY: DRM_IOCTL_GEM_CLOSE reads two u32.
    check(unsafe { libc::ioctl(card, 0x4008_6409, &raw const close) });
}

const VIDEO_CAPTURE: u32 = 1;
const MEMORY_DMABUF: u32 = 4;

/// Room for so many dma-bufs at a camera; for none, all of them are let go.
pub(crate) fn request_buffers(camera: i32, count: u32) {
    // Count, type, memory, and what is zero.
    let mut request = [count, VIDEO_CAPTURE, MEMORY_DMABUF, 0, 0];
    // SAFETY: VIDIOC_REQBUFS reads and writes one `struct v4l2_requestbuffers`.
    check(unsafe { libc::ioctl(camera, 0xc014_5608, &raw mut request) });
}

/// The first of them is this dma-buf, and is made ready; false where the camera
/// needs it in one piece, and refuses it, having mapped it.
pub(crate) fn prepare_buffer(camera: i32, fd: i32, size: usize) -> bool {
    /// `struct v4l2_buffer`
    #[repr(C)]
    struct Buffer {
        index: u32,
        kind: u32,
        bytes_used: u32,
        flags: u32,
        field: u32,
        time: [u64; 2],
        timecode: [u32; 4],
        sequence: u32,
        memory: u32,
        fd: i32,
        fd_padding: u32,
        length: u32,
        reserved: [u32; 3],
    }
    let mut buffer = Buffer {
        index: 0,
        kind: VIDEO_CAPTURE,
        bytes_used: 0,
        flags: 0,
        field: 0,
        time: [0; 2],
        timecode: [0; 4],
        sequence: 0,
        memory: MEMORY_DMABUF,
        fd,
        fd_padding: 0,
        length: u32::try_from(size).expect("small"),
        reserved: [0; 3],
    };
    // SAFETY: VIDIOC_PREPARE_BUF reads and writes one `struct v4l2_buffer`.
    let done = unsafe { libc::ioctl(camera, 0xc058_565d, &raw mut buffer) };
    let refused = std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT);
    if done != 0 && refused {
        return false;
    }
    check(done);
    true
}

/// At least so many open files.
pub(crate) fn allow_files(count: u64) {
    let limit = libc::rlimit {
        rlim_cur: count,
        rlim_max: count,
    };
    // SAFETY: reads one rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) });
}

pub(crate) fn map(fd: i32, size: usize) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size,
            protection,
            libc::MAP_SHARED,
            fd,
            0,
        )
    };
    assert!(memory != libc::MAP_FAILED, "mmap");
    memory.cast()
}

pub(crate) fn unmap(memory: *mut u8, size: usize) {
    // SAFETY: made by `map`, and used no more.
    check(unsafe { libc::munmap(memory.cast(), size) });
}

pub(crate) fn close(fd: i32) {
    // SAFETY: a descriptor of ours, used no more.
    check(unsafe { libc::close(fd) });
}

/// `DMA_BUF_IOCTL_SYNC`.
pub(crate) fn sync(fd: i32, flags: u64) {
    loop {
        // SAFETY: the ioctl reads one u64.
        let done = unsafe { libc::ioctl(fd, 0x4008_6200, &raw const flags) };
        let errno = std::io::Error::last_os_error().raw_os_error();
        if done == 0 || !matches!(errno, Some(libc::EINTR | libc::EAGAIN)) {
            check(done);
            return;
        }
    }
}

/// Both ends of a socket.
pub(crate) fn pair(kind: i32) -> [i32; 2] {
    let mut ends = [0; 2];
    // SAFETY: two numbers are written.
    check(unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            kind | libc::SOCK_CLOEXEC,
            0,
            ends.as_mut_ptr(),
        )
    });
    ends
}

#[repr(C, align(8))]
struct Control([u8; 24]); // CMSG_SPACE(sizeof(int))

/// A message of one part, which both ends read and write in place.
fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all zeros is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    message
}

/// Some bytes with an fd.
pub(crate) fn send(socket: i32, bytes: &[u8], fd: i32) {
    let mut control = Control([0; 24]);
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(),
        iov_len: bytes.len(),
    };
    let message = message(&mut part, &mut control);
    // SAFETY: the control space holds one header and one fd.
    let sent = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
        libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL)
    };
    assert_eq!(usize::try_from(sent), Ok(bytes.len()));
}

/// What [`send`] sent.
pub(crate) fn recv(socket: i32, bytes: &mut [u8]) -> i32 {
    let mut control = Control([0; 24]);
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let mut message = message(&mut part, &mut control);
    // SAFETY: the parts live, and the header is checked before it is read.
    unsafe {
        let received = libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC);
        assert_eq!(usize::try_from(received), Ok(bytes.len()));
        assert_eq!(message.msg_flags & libc::MSG_CTRUNC, 0);
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        assert!(!header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS);
        libc::CMSG_DATA(header).cast::<i32>().read_unaligned()
    }
}

/// What a careful receiver asks of an fd: what it is, its seals, its size.
pub(crate) fn examine(fd: i32) -> u64 {
    // SAFETY: plain calls that fill structs of ours.
    unsafe {
        let seals = libc::fcntl(fd, libc::F_GET_SEALS);
        let mut system: libc::statfs = std::mem::zeroed();
        check(libc::fstatfs(fd, &raw mut system));
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstat(fd, &raw mut stat));
        assert!(seals & libc::F_SEAL_SHRINK != 0 || system.f_type == 0x444d_4142);
        u64::try_from(stat.st_size).expect("no negative size")
    }
}
