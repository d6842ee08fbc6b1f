//! The first way that can do what is asked.

use super::{AllocError, Request, Way};
use crate::buffer::Buffer;

/// A buffer, and how it came to be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Allocation {
    /// The buffer.
    pub buffer: Buffer,
    /// The way that allocated it.
    pub way: Way,
    /// The ways that were asked before it, and why they could not.
    pub passed_over: Vec<(Way, AllocError)>,
}

/// Allocates by the first way that can do what is asked: a dma_heap, else
/// udmabuf, else our module for a device; a memfd before them for CPUs alone.
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
///     Err(AllocError::NoWay(reasons)) => assert_eq!(reasons.len(), 3),
///     Err(other) => panic!("{other}"),
/// }
/// ```
pub fn allocate(request: &Request) -> Result<Allocation, AllocError> {
    request.whole_pages()?;
    request.c_name()?;
    let mut passed_over = Vec::new();
    for way in Way::ALL {
        if request.device && !way.for_devices() {
            continue;
        }
        match way.open().and_then(|open| open.allocate(request)) {
            Ok(buffer) => {
                return Ok(Allocation {
                    buffer,
                    way,
                    passed_over,
                });
            }
            Err(reason) => passed_over.push((way, reason)),
        }
    }
    Err(AllocError::NoWay(passed_over))
}
