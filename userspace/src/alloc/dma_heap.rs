//! A dma-buf from one of the kernel's heaps: `/dev/dma_heap/NAME`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::{AllocError, Allocate, Request, Way, node};
use crate::buffer::Buffer;
use crate::sys;

const FOLDER: &str = "/dev/dma_heap";

/// Allocates dma-bufs from a heap of `/dev/dma_heap` (linux/dma-heap.h).
///
/// A heap has no limit of its own: a request beyond what is left of the
/// system's memory is refused here, since the kernel would try.
///
/// ```no_run
/// // Not run: needs /dev/dma_heap/system.
/// use dmashare::alloc::{Allocate, DmaHeap, Request};
/// use dmashare::buffer::Kind;
/// let heap = DmaHeap::open(DmaHeap::SYSTEM)?;
/// let buffer = heap.allocate(&Request::new(1 << 20).for_device())?;
/// assert_eq!(buffer.kind(), Kind::DmaBuf);
/// # Ok::<(), dmashare::alloc::AllocError>(())
/// ```
#[derive(Debug)]
pub struct DmaHeap {
    heap: OwnedFd,
    node: String,
}

impl DmaHeap {
    /// The heap that takes its pages wherever the system has some.
    pub const SYSTEM: &'static str = "system";

    /// Opens a heap by its name.
    ///
    /// # Errors
    /// [`AllocError::Os`], with what would help: where there is no such heap,
    /// those there are.
    ///
    /// ```
    /// use dmashare::alloc::DmaHeap;
    /// let error = DmaHeap::open("no such heap").unwrap_err();
    /// assert!(error.to_string().starts_with("/dev/dma_heap/no such heap: open: "));
    /// ```
    pub fn open(name: &str) -> Result<DmaHeap, AllocError> {
        let node = format!("{FOLDER}/{name}");
        // A name is one step of a path, or it would open something else.
        if name.is_empty() || name.contains('/') || name == ".." || name == "." {
            return Err(AllocError::Os {
                operation: "open",
                name: node,
                source: Errno::INVAL,
                help: format!("name a heap in {FOLDER}"),
            });
        }
        let heap = node::open(&node, &instead())?;
        Ok(DmaHeap { heap, node })
    }
}

/// What to do where a heap is missing.
fn instead() -> String {
    let heaps = std::fs::read_dir(FOLDER).into_iter().flatten();
    let mut names: Vec<String> = heaps
        .flatten()
        .map(|heap| heap.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    match names.is_empty() {
        true => "the kernel needs CONFIG_DMABUF_HEAPS_SYSTEM, which Debian's have from 6.12 on"
            .to_owned(),
        false => format!("this system has {}", names.join(" and ")),
    }
}

impl Allocate for DmaHeap {
    fn way(&self) -> Way {
        Way::DmaHeap
    }

    fn allocate(&self, request: &Request) -> Result<Buffer, AllocError> {
        let size = request.pages_at_hand()?;
        let fd =
            sys::dma_heap::alloc(self.heap.as_fd(), size).map_err(|source| AllocError::Os {
                operation: "DMA_HEAP_IOCTL_ALLOC",
                name: self.node.clone(),
                source,
                help: match source {
                    Errno::NOMEM => "free memory, or ask for less",
                    _ => "",
                }
                .to_owned(),
            })?;
        let buffer = Buffer::from_fd(fd)?;
        node::name(&buffer, request)?;
        Ok(buffer)
    }
}
