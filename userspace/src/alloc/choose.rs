//! The first way that can do what is asked.

use super::{AllocError, Allocate, DmaHeap, Request, Way};
use crate::buffer::Buffer;
use crate::frame::Frame;

/// A buffer, and how it came to be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Allocation {
    /// The buffer.
    pub buffer: Buffer,
    /// The picture that it has room for, where the request was for one.
    pub frame: Option<Frame>,
    /// The way that allocated it.
    pub way: Way,
    /// The ways that were asked before it, and why they could not.
    pub passed_over: Vec<(Way, AllocError)>,
}

/// Allocates by the first way that can do what is asked: a dma_heap, else
/// udmabuf, else our module, else a dumb buffer for a device; a memfd before
/// them for CPUs alone.
///
/// [`Posix`](super::Posix) and [`SysV`](super::SysV) are not asked: what they
/// have over a memfd is a name or a key, which their own `create` takes, and
/// they have less of all else.
///
/// Contiguous memory comes from a heap over CMA, else from our module.
///
/// A way that cannot give what was asked is never taken instead: where a device
/// is to import the buffer, there is a dma-buf or an error.
///
/// # Errors
/// [`AllocError::NoWay`], with the reason of each; a request that no way could
/// take is refused before.
///
/// ```
/// use dmashare::alloc::{AllocError, Request, allocate};
/// match allocate(&Request::new(4096).for_device()) {
///     Ok(made) => println!("{} from {}", made.buffer.name(), made.way),
///     Err(AllocError::NoWay(reasons)) => assert_eq!(reasons.len(), 4),
///     Err(other) => panic!("{other}"),
/// }
/// ```
pub fn allocate(request: &Request) -> Result<Allocation, AllocError> {
    request.whole_pages()?;
    request.c_name()?;
    let mut passed_over = Vec::new();
    for way in Way::ALL {
        let cpu_only = !way.for_devices();
        if matches!(way, Way::Posix | Way::SysV) || cpu_only && request.usage.needs_dma_buf() {
            continue;
        }
        match open(way, request).and_then(|open| open.allocate(request)) {
            Ok(buffer) => {
                return Ok(Allocation {
                    buffer,
                    frame: request.frame.clone(),
                    way,
                    passed_over,
                });
            }
            Err(reason) => passed_over.push((way, reason)),
        }
    }
    Err(AllocError::NoWay(passed_over))
}

/// Opens what of this way can have what is asked.
fn open(way: Way, request: &Request) -> Result<Box<dyn Allocate>, AllocError> {
    request.fits(way)?;
    match way {
        Way::DmaHeap if request.contiguous => Ok(Box::new(DmaHeap::open_contiguous()?)),
        _ => way.open(),
    }
}
