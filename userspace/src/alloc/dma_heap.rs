//! A dma-buf from one of the kernel's heaps: `/dev/dma_heap/NAME`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::{AllocError, Allocate, Feature, Request, Way, module, node};
use crate::buffer::{Buffer, Kind};
use crate::sys;

const FOLDER: &str = "/dev/dma_heap";

/// What the kernel calls its heaps over CMA: the default region from 6.17 on
/// and before (dma-buf-heaps.rst).
const CONTIGUOUS: [&str; 4] = [
    "default_cma_region",
    "linux,cma",
    "reserved",
    "default-pool",
];

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
    contiguous: bool,
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
        let missing = || match name {
            // The one that our module can stand in for.
            DmaHeap::SYSTEM => format!("{}{}", instead(), module::standard_nodes()),
            _ => instead(),
        };
        let heap = node::open(&node, missing)?;
        Ok(DmaHeap {
            heap,
            node,
            contiguous: CONTIGUOUS.contains(&name),
        })
    }

    /// Opens the first heap that is known to give contiguous memory.
    ///
    /// # Errors
    /// [`AllocError::Cannot`] where there is none: the heap `system` is never
    /// taken instead. [`AllocError::Os`] where it cannot be opened.
    ///
    /// ```
    /// use dmashare::alloc::DmaHeap;
    /// match DmaHeap::open_contiguous() {
    ///     Ok(heap) => println!("{heap:?}"),
    ///     Err(why) => println!("{why}"),
    /// }
    /// ```
    pub fn open_contiguous() -> Result<DmaHeap, AllocError> {
        let heaps = DmaHeap::list()?;
        match heaps
            .iter()
            .find(|heap| CONTIGUOUS.contains(&heap.as_str()))
        {
            Some(heap) => DmaHeap::open(heap),
            None => Err(not_contiguous()),
        }
    }

    /// The heaps of this system, by name; none where there is no
    /// `/dev/dma_heap`.
    ///
    /// # Errors
    /// [`AllocError::Os`] where the folder cannot be read.
    ///
    /// ```
    /// use dmashare::alloc::DmaHeap;
    /// for heap in DmaHeap::list()? {
    ///     println!("/dev/dma_heap/{heap}");
    /// }
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn list() -> Result<Vec<String>, AllocError> {
        let mut names: Vec<String> = match std::fs::read_dir(FOLDER) {
            Ok(heaps) => heaps
                .flatten()
                .map(|heap| heap.file_name().to_string_lossy().into_owned())
                .collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(AllocError::Os {
                    operation: "readdir",
                    name: FOLDER.to_owned(),
                    source: Errno::from_io_error(&error).unwrap_or(Errno::IO),
                    help: String::new(),
                });
            }
        };
        names.sort();
        Ok(names)
    }

    /// Whether this heap is known to give contiguous memory.
    pub fn is_contiguous(&self) -> bool {
        self.contiguous
    }
}

/// What to do where a heap is missing.
fn instead() -> String {
    match DmaHeap::list() {
        Ok(names) if !names.is_empty() => format!("this system has {}", names.join(" and ")),
        _ => "the kernel needs CONFIG_DMABUF_HEAPS_SYSTEM, which Debian's have from 6.12 on"
            .to_owned(),
    }
}

fn not_contiguous() -> AllocError {
    AllocError::Cannot {
        way: Way::DmaHeap,
        what: Feature::Contiguous,
        why: format!(
            "a heap over CMA does (CONFIG_DMABUF_HEAPS_CMA, and cma= on the kernel's \
             command line), and our module; {}",
            instead()
        ),
    }
}

impl Allocate for DmaHeap {
    fn way(&self) -> Way {
        Way::DmaHeap
    }

    fn allocate(&self, request: &Request) -> Result<Buffer, AllocError> {
        request.fits(Way::DmaHeap)?;
        if request.contiguous && !self.contiguous {
            return Err(not_contiguous());
        }
        let size = request.pages_at_hand()?;
        let fd =
            sys::dma_heap::alloc(self.heap.as_fd(), size).map_err(|source| AllocError::Os {
                operation: "DMA_HEAP_IOCTL_ALLOC",
                name: self.node.clone(),
                source,
                help: match (source, module::largest()) {
                    (Errno::NOMEM, None) => "free memory, or ask for less",
                    // One of its heaps has its limits, and this one may be.
                    (Errno::NOMEM | Errno::FBIG | Errno::DQUOT, _) => {
                        "free memory, or ask for less; a heap of the module dmashare has its \
                         limits, in /sys/module/dmashare/parameters"
                    }
                    _ => "",
                }
                .to_owned(),
            })?;
        let buffer = Buffer::new(fd, Kind::DmaBuf, size);
        node::name(&buffer, request)?;
        Ok(buffer)
    }
}
