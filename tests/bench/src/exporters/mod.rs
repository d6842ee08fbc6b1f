//! The exporters of dma-bufs side by side, by the raw calls of a C program: what
//! a buffer costs to make and to free, what an importer pays for it, and what
//! memory it takes beside its own.

mod import;
mod make;
mod memory;

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::{Op, raw};

pub use memory::table as memory_table;

/// Who makes dma-bufs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Exporter {
    SystemHeap,
    Udmabuf,
    Module,
}

impl Exporter {
    const ALL: [Exporter; 3] = [Exporter::SystemHeap, Exporter::Udmabuf, Exporter::Module];

    fn name(self) -> &'static str {
        match self {
            Exporter::SystemHeap => "system heap",
            Exporter::Udmabuf => "udmabuf",
            Exporter::Module => "module",
        }
    }

    fn node(self) -> &'static str {
        match self {
            Exporter::SystemHeap => "/dev/dma_heap/system",
            Exporter::Udmabuf => "/dev/udmabuf",
            Exporter::Module => "/dev/dmashare/system",
        }
    }

    fn open(self) -> std::io::Result<Maker> {
        let node = File::options().read(true).write(true).open(self.node())?;
        Ok(Maker {
            exporter: self,
            node,
        })
    }
}

/// An exporter's node, open.
struct Maker {
    exporter: Exporter,
    node: File,
}

impl Maker {
    /// A dma-buf of this size, which the caller closes.
    fn make(&self, size: usize) -> i32 {
        let node = self.node.as_raw_fd();
        match self.exporter {
            Exporter::SystemHeap => raw::heap_alloc(node, size as u64),
            Exporter::Module => raw::module_alloc(node, size as u64),
            Exporter::Udmabuf => {
                let memfd = raw::memfd(c"bench", size);
                let made = raw::udmabuf(node, memfd, size as u64);
                raw::close(memfd);
                made
            }
        }
    }

    /// The same, which is closed when it is dropped.
    fn buffer(&self, size: usize) -> OwnedFd {
        // SAFETY: it is made for us, and nobody else owns it.
        unsafe { OwnedFd::from_raw_fd(self.make(size)) }
    }
}

/// Those that are there, the first of them what the others are compared with;
/// and why others are not.
fn makers(remarks: &mut Vec<String>) -> Vec<Maker> {
    let mut makers = Vec::new();
    for exporter in Exporter::ALL {
        match exporter.open() {
            Ok(maker) => makers.push(maker),
            Err(error) => remarks.push(format!("left out: {}: {error}", exporter.node())),
        }
    }
    makers
}

/// All operations that this machine can do, by all exporters that it has; and
/// what is to be said of them: what is left out, and why.
///
/// ```
/// let (ops, remarks) = dmashare_bench::exporters::ops();
/// println!("{} operations; {remarks:?}", ops.len());
/// ```
#[must_use]
pub fn ops() -> (Vec<Op>, Vec<String>) {
    let (mut ops, mut remarks) = (Vec::new(), Vec::new());
    make::ops(&mut ops, &mut remarks);
    import::ops(&mut ops, &mut remarks);
    (ops, remarks)
}
