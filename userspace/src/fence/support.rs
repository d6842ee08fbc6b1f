//! What the running kernel knows of fences.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::poll::os;
use super::{Fence, FenceError};
use crate::buffer::{Access, Buffer};
use crate::sys::{dma_buf, sync_file};

/// Which calls about fences the kernel knows, as [`support`] found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Support {
    /// [`Fence::export`]: Linux 6.0.
    pub export: bool,
    /// [`Fence::import_into`]: Linux 6.0.
    pub import: bool,
    /// [`Fence::set_deadline`]: Linux 6.4.
    pub deadline: bool,
}

/// Finds out what the kernel knows, by calls that change nothing: an export,
/// and for the others ones that a kernel which knows them refuses.
///
/// # Errors
/// [`FenceError::Buffer`] for what is no dma-buf, [`FenceError::Os`] where the
/// kernel answers neither.
///
/// ```no_run
/// // Not run: needs a dma-buf.
/// # fn f(dma_buf: &dmashare::buffer::Buffer) -> Result<(), dmashare::fence::FenceError> {
/// if dmashare::fence::support(dma_buf)?.deadline {
///     println!("a fence takes a deadline");
/// }
/// # Ok(()) }
/// ```
pub fn support(buffer: &Buffer) -> Result<Support, FenceError> {
    let dma_buf = buffer.dma_buf()?;
    let fence = match Fence::export(buffer, Access::Read) {
        Ok(fence) => Some(fence),
        Err(FenceError::Unsupported { .. }) => None,
        Err(error) => return Err(error),
    };
    // A dma-buf is no sync_file.
    let import = dma_buf::import_sync_file(dma_buf, dma_buf::SyncFlags::READ, dma_buf);
    let import = known(import).map_err(os("DMA_BUF_IOCTL_IMPORT_SYNC_FILE", dma_buf))?;
    let deadline = match &fence {
        Some(fence) => known(sync_file::try_deadline(fence.as_fd()))
            .map_err(os("SYNC_IOC_SET_DEADLINE", fence.as_fd()))?,
        None => false,
    };
    Ok(Support {
        export: fence.is_some(),
        import,
        deadline,
    })
}

/// Whether a call is known, by the answer to one that cannot succeed.
fn known(answer: Result<(), Errno>) -> Result<bool, Errno> {
    match answer {
        Ok(()) | Err(Errno::INVAL) => Ok(true),
        Err(Errno::NOTTY) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_the_argument_is_a_yes() {
        assert_eq!(known(Err(Errno::INVAL)), Ok(true));
        assert_eq!(known(Err(Errno::NOTTY)), Ok(false));
        assert_eq!(known(Err(Errno::PERM)), Err(Errno::PERM));
    }
}
