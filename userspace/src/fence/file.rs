//! A handle of fences: the sync_file.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::fstatfs;
use rustix::io::{Errno, FdFlags, fcntl_setfd};

use super::info::text;
use super::poll::{os, wait};
use super::{FenceError, FenceInfo, Status};
use crate::buffer::{Access, Buffer, describe};
use crate::sys::{dma_buf, sync_file};

/// The longest name of a fence, in bytes.
pub const MAX_NAME: usize = sync_file::NAME_LEN - 1;

/// How many fences of one are looked at: a peer can merge as many as it likes.
const MAX_FENCES: u32 = 4096;

/// A handle of one fence or several, a sync_file: it signals when all have.
///
/// Its fences stay the same: what begins later on the buffer that it came from
/// is not among them. The handle closes on exec.
///
/// An event loop can poll it: `POLLIN` when it has signalled. Whether the job
/// succeeded is then the [`status`](Self::status).
///
/// ```no_run
/// // Not run: needs a dma-buf.
/// use std::time::Duration;
/// use dmashare::buffer::{Access, Buffer};
/// use dmashare::fence::{Fence, FenceError};
///
/// fn written(buffer: &Buffer) -> Result<bool, FenceError> {
///     let writers = Fence::export(buffer, Access::Read)?;
///     match writers.wait(Some(Duration::from_millis(16))) {
///         Err(FenceError::Timeout { .. }) => Ok(false),
///         waited => waited.map(|()| true),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Fence {
    fd: OwnedFd,
}

impl Fence {
    /// Takes a handle from elsewhere, after asking the kernel whether it is a
    /// sync_file.
    ///
    /// The handle is made to close on exec.
    ///
    /// # Errors
    /// [`FenceError::NotAFence`], and [`FenceError::Os`] where the kernel would
    /// not tell.
    ///
    /// ```
    /// use dmashare::fence::{Fence, FenceError};
    /// let null = std::fs::File::open("/dev/null")?;
    /// let refused = Fence::from_fd(null.into());
    /// assert!(matches!(refused, Err(FenceError::NotAFence { name }) if name == "/dev/null"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_fd(fd: OwnedFd) -> Result<Fence, FenceError> {
        // First where it lives, since the ioctl of someone else's file (FUSE)
        // can answer as it likes, or never.
        let system = fstatfs(&fd).map_err(os("fstatfs", fd.as_fd()))?.f_type;
        if system != sync_file::ANON_INODE || sync_file::file_info(fd.as_fd(), &mut []).is_err() {
            return Err(FenceError::NotAFence {
                name: describe(fd.as_fd()),
            });
        }
        fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(os("fcntl(F_SETFD)", fd.as_fd()))?;
        Ok(Fence { fd })
    }

    /// What such an access of the buffer must wait for, as it is now: to read,
    /// those who write; to write, all. With nothing to wait for, a fence that
    /// has signalled.
    ///
    /// # Errors
    /// [`FenceError::Buffer`] for what is no dma-buf;
    /// [`FenceError::Unsupported`] before Linux 6.0.
    ///
    /// ```no_run
    /// // Not run: needs a dma-buf.
    /// # use dmashare::{buffer::{Access, Buffer}, fence::{Fence, FenceError}};
    /// # fn f(idle: &Buffer) -> Result<(), FenceError> {
    /// let fence = Fence::export(idle, Access::Write)?;
    /// assert!(fence.status()?.is_over());
    /// # Ok(()) }
    /// ```
    pub fn export(buffer: &Buffer, access: Access) -> Result<Fence, FenceError> {
        const CALL: &str = "DMA_BUF_IOCTL_EXPORT_SYNC_FILE";
        let dma_buf = buffer.dma_buf()?;
        let fd = dma_buf::export_sync_file(dma_buf, access.sync_flags());
        let fd = fd.map_err(since(CALL, "6.0", dma_buf))?;
        Ok(Fence { fd })
    }

    /// Adds it to a buffer: devices, guards and [`ready`](super::ready()) then
    /// wait for it as for a job that accesses the buffer so. To write, all
    /// wait; to read, those who write.
    ///
    /// # Errors
    /// [`FenceError::Buffer`] for what is no dma-buf;
    /// [`FenceError::Unsupported`] before Linux 6.0.
    ///
    /// ```no_run
    /// // Not run: needs a dma-buf.
    /// # use dmashare::{buffer::{Access, Buffer}, fence::{Fence, FenceError}};
    /// // An API with fences of its own (Vulkan) writes the picture, and one
    /// // without (OpenGL) shows it.
    /// fn hand_over(drawn: Fence, picture: &Buffer) -> Result<(), FenceError> {
    ///     drawn.import_into(picture, Access::Write)
    /// }
    /// ```
    pub fn import_into(&self, buffer: &Buffer, access: Access) -> Result<(), FenceError> {
        const CALL: &str = "DMA_BUF_IOCTL_IMPORT_SYNC_FILE";
        let dma_buf = buffer.dma_buf()?;
        dma_buf::import_sync_file(dma_buf, access.sync_flags(), self.as_fd())
            .map_err(since(CALL, "6.0", dma_buf))
    }

    /// One fence of two: it signals when both have. The name is for people, up
    /// to [`MAX_NAME`] bytes.
    ///
    /// What has signalled already is left out, and its error with it: see the
    /// [module](super#a-fence-that-failed).
    ///
    /// # Errors
    /// [`FenceError::Name`], and [`FenceError::Os`].
    ///
    /// ```no_run
    /// // Not run: needs fences.
    /// # use dmashare::fence::{Fence, FenceError};
    /// # fn f(drawn: Fence, shown: Fence) -> Result<(), FenceError> {
    /// let both = drawn.merge(&shown, "drawn and shown")?;
    /// assert_eq!(both.info()?.name, "drawn and shown");
    /// # Ok(()) }
    /// ```
    pub fn merge(&self, other: &Fence, name: &str) -> Result<Fence, FenceError> {
        let refused = |problem| FenceError::Name {
            name: name.to_owned(),
            problem,
        };
        if name.len() > MAX_NAME {
            return Err(refused("more than 31 bytes"));
        }
        let name = CString::new(name).map_err(|_| refused("a NUL byte"))?;
        let fd = sync_file::merge(self.as_fd(), other.as_fd(), &name)
            .map_err(os("SYNC_IOC_MERGE", self.as_fd()))?;
        Ok(Fence { fd })
    }

    /// Waits until it has signalled, at most so long where there is a
    /// `timeout`.
    ///
    /// # Errors
    /// [`FenceError::Failed`] where it has, but the job failed;
    /// [`FenceError::Timeout`], and [`FenceError::Os`].
    ///
    /// ```no_run
    /// // Not run: needs a fence.
    /// # use std::time::Duration;
    /// # fn f(fence: &dmashare::fence::Fence) -> Result<(), dmashare::fence::FenceError> {
    /// fence.wait(Some(Duration::from_secs(1)))?;
    /// assert!(fence.status()?.is_over());
    /// # Ok(()) }
    /// ```
    pub fn wait(&self, timeout: Option<Duration>) -> Result<(), FenceError> {
        wait(self.as_fd(), PollFlags::IN, timeout)?;
        match self.status()? {
            Status::Failed(source) => Err(FenceError::Failed {
                name: self.name()?,
                source,
            }),
            Status::Signaled | Status::Pending => Ok(()),
        }
    }

    /// How it stands: over when all of its fences are, and failed if one did.
    ///
    /// # Errors
    /// [`FenceError::Os`].
    ///
    /// ```no_run
    /// // Not run: needs a fence.
    /// # use dmashare::fence::{Fence, FenceError, Status};
    /// # fn f(fence: &Fence) -> Result<(), FenceError> {
    /// match fence.status()? {
    ///     Status::Pending => println!("not yet"),
    ///     Status::Signaled => println!("done"),
    ///     Status::Failed(errno) => println!("the device gave up: {errno}"),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn status(&self) -> Result<Status, FenceError> {
        match self.info() {
            Ok(info) => Ok(info.status),
            Err(FenceError::TooMany { .. }) => Ok(Status::from_raw(self.whole(&mut [])?.status)),
            Err(error) => Err(error),
        }
    }

    /// What it is made of.
    ///
    /// # Errors
    /// [`FenceError::TooMany`] for more than 4096 fences, and
    /// [`FenceError::Os`].
    ///
    /// ```no_run
    /// // Not run: needs a fence.
    /// # fn f(fence: &dmashare::fence::Fence) -> Result<(), dmashare::fence::FenceError> {
    /// let drivers: Vec<String> = fence.info()?.fences.into_iter().map(|f| f.driver).collect();
    /// # Ok(()) }
    /// ```
    pub fn info(&self) -> Result<FenceInfo, FenceError> {
        // The kernel tells how many there are where none are asked for. They
        // get no more, since a sync_file keeps its fences.
        let count = self.whole(&mut [])?.num_fences;
        if count > MAX_FENCES {
            return Err(FenceError::TooMany {
                name: self.name()?,
                count,
                limit: MAX_FENCES,
            });
        }
        let mut points = vec![sync_file::FenceInfo::EMPTY; count as usize];
        let whole = self.whole(&mut points)?;
        points.truncate(whole.num_fences as usize);
        Ok(FenceInfo::from_raw(&whole, &points))
    }

    /// Tells its drivers when it is needed, on CLOCK_MONOTONIC: they may raise
    /// a clock to make it. See [`now`](super::now()).
    ///
    /// # Errors
    /// [`FenceError::Unsupported`] before Linux 6.4.
    ///
    /// ```no_run
    /// // Not run: needs a fence.
    /// # use std::time::Duration;
    /// # fn f(drawn: &dmashare::fence::Fence) -> Result<(), dmashare::fence::FenceError> {
    /// let next_refresh = dmashare::fence::now() + Duration::from_millis(16);
    /// drawn.set_deadline(next_refresh)?;
    /// # Ok(()) }
    /// ```
    pub fn set_deadline(&self, deadline: Duration) -> Result<(), FenceError> {
        let nanoseconds = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        sync_file::set_deadline(self.as_fd(), nanoseconds).map_err(since(
            "SYNC_IOC_SET_DEADLINE",
            "6.4",
            self.as_fd(),
        ))
    }

    /// Gives the handle away.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    fn whole(
        &self,
        points: &mut [sync_file::FenceInfo],
    ) -> Result<sync_file::FileInfo, FenceError> {
        sync_file::file_info(self.as_fd(), points).map_err(os("SYNC_IOC_FILE_INFO", self.as_fd()))
    }

    /// For messages.
    fn name(&self) -> Result<String, FenceError> {
        Ok(format!("fence {:?}", text(&self.whole(&mut [])?.name)))
    }
}

impl AsFd for Fence {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// As [`os`], for a call that older kernels do not know.
fn since(
    what: &'static str,
    since: &'static str,
    fd: BorrowedFd<'_>,
) -> impl FnOnce(Errno) -> FenceError {
    move |source| match source {
        Errno::NOTTY => FenceError::Unsupported { what, since },
        source => os(what, fd)(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Handles that live where sync_files do, and are none.
    #[test]
    fn other_handles_are_no_fences() {
        let flags = rustix::event::EventfdFlags::CLOEXEC;
        let fd = rustix::event::eventfd(0, flags).unwrap();
        let refused = Fence::from_fd(fd).unwrap_err();
        assert!(
            matches!(&refused, FenceError::NotAFence { name } if name.contains("eventfd")),
            "{refused}"
        );
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        assert!(matches!(
            Fence::from_fd(pipe),
            Err(FenceError::NotAFence { .. })
        ));
    }

    #[test]
    fn a_kernel_that_does_not_know_a_call_is_named_with_one_that_does() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = since("A_CALL", "6.4", file.as_fd())(Errno::NOTTY);
        assert_eq!(
            error.to_string(),
            "this kernel has no A_CALL; Linux 6.4 and later have it"
        );
        let error = since("A_CALL", "6.4", file.as_fd())(Errno::PERM);
        assert!(matches!(
            error,
            FenceError::Os {
                operation: "A_CALL",
                ..
            }
        ));
    }
}
