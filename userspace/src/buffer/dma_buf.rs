//! What a dma-buf is asked and told beyond being mapped.

use std::ffi::CString;
use std::fs::read;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::fstat;
use rustix::io::Errno;

use super::handle::os;
use super::{Buffer, BufferError, Kind};
use crate::sys::dma_buf;

/// What the kernel tells of a dma-buf, in its [fdinfo].
///
/// A field is `None` where this kernel does not tell it.
///
/// [fdinfo]: https://docs.kernel.org/filesystems/proc.html#dma-buffer-files
///
/// ```no_run
/// // Not run: needs a dma-buf.
/// # fn f(dma_buf: &dmashare::buffer::Buffer) -> Result<(), dmashare::buffer::BufferError> {
/// let info = dma_buf.info()?;
/// println!("dma-buf {} of {:?}", info.inode, info.exporter);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DmaBufInfo {
    /// What tells this dma-buf from all others, whoever's handle it is seen by.
    pub inode: u64,
    /// The size in bytes.
    pub size: Option<u64>,
    /// How many references there are: handles, mappings, messages under way,
    /// and those of the devices that imported it.
    pub count: Option<u64>,
    /// Who exported it, such as `udmabuf` or `system`.
    pub exporter: Option<String>,
    /// The name it was given. Anyone with a handle can give it another.
    pub name: Option<String>,
}

impl Buffer {
    /// What the kernel tells of a dma-buf.
    ///
    /// # Errors
    /// [`BufferError::NotADmaBuf`], [`BufferError::FdInfo`] where the kernel's
    /// answer is not understood, and [`BufferError::Os`] where there is no
    /// `/proc`.
    ///
    /// ```
    /// use dmashare::alloc::{Allocate, Memfd, Request};
    /// use dmashare::buffer::BufferError;
    /// let memfd = Memfd::new().allocate(&Request::new(1))?;
    /// assert!(matches!(memfd.info(), Err(BufferError::NotADmaBuf { .. })));
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn info(&self) -> Result<DmaBufInfo, BufferError> {
        let fd = self.dma_buf()?;
        let inode = fstat(fd).map_err(os("fstat", fd))?.st_ino;
        // The handles of this thread, which are those of the process as a rule.
        let path = format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd());
        let fdinfo = read(path).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            os("reading its fdinfo in /proc", fd)(errno)
        })?;
        parse(inode, &fdinfo).map_err(|line| BufferError::FdInfo {
            name: self.name(),
            line,
        })
    }

    /// Names a dma-buf, for people to find it by: in `/proc`, in traces and in
    /// [`info`](Self::info). Up to 31 bytes.
    ///
    /// # Errors
    /// [`BufferError::NotADmaBuf`]: a memfd has the name it was made with.
    /// [`BufferError::Name`], and [`BufferError::Os`].
    ///
    /// ```no_run
    /// // Not run: needs a dma-buf.
    /// # fn f(dma_buf: &dmashare::buffer::Buffer) -> Result<(), dmashare::buffer::BufferError> {
    /// dma_buf.set_name("camera 3")?;
    /// assert_eq!(dma_buf.name(), "/dmabuf:camera 3");
    /// # Ok(()) }
    /// ```
    pub fn set_name(&self, name: &str) -> Result<(), BufferError> {
        let fd = self.dma_buf()?;
        let refused = |problem| BufferError::Name {
            name: name.to_owned(),
            problem,
        };
        if name.len() >= dma_buf::NAME_LEN {
            return Err(refused("more than 31 bytes"));
        }
        let name = CString::new(name).map_err(|_| refused("a NUL byte"))?;
        dma_buf::set_name(fd, &name).map_err(os("DMA_BUF_SET_NAME", fd))
    }

    /// The handle of a dma-buf.
    pub(crate) fn dma_buf(&self) -> Result<BorrowedFd<'_>, BufferError> {
        match self.kind() {
            Kind::DmaBuf => self.fd(),
            _ => Err(BufferError::NotADmaBuf { name: self.name() }),
        }
    }
}

/// Reads a fdinfo; a line that is not understood is the error.
///
/// The name comes last, and as it was given: there can be lines in it that look
/// like ours.
fn parse(inode: u64, fdinfo: &[u8]) -> Result<DmaBufInfo, String> {
    let fdinfo = String::from_utf8_lossy(fdinfo);
    let mut info = DmaBufInfo {
        inode,
        size: None,
        count: None,
        exporter: None,
        name: None,
    };
    let mut rest = &*fdinfo;
    while !rest.is_empty() {
        if let Some(name) = rest.strip_prefix("name:\t") {
            info.name = Some(name.strip_suffix('\n').unwrap_or(name).to_owned());
            break;
        }
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let (key, value) = line.split_once(":\t").ok_or(line)?;
        let number = || value.parse().map(Some).map_err(|_| line.to_owned());
        match key {
            "size" => info.size = number()?,
            "count" => info.count = number()?,
            "exp_name" => info.exporter = Some(value.to_owned()),
            // What every file has, and what later kernels may add.
            _ => {}
        }
        rest = after;
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t5\n\
                         size:\t4096\ncount:\t2\nexp_name:\tudmabuf\n";

    #[test]
    fn fields_are_read() {
        let info = parse(5, LINES.as_bytes()).unwrap();
        assert_eq!(
            (info.inode, info.size, info.count),
            (5, Some(4096), Some(2))
        );
        assert_eq!(info.exporter.as_deref(), Some("udmabuf"));
        assert_eq!(info.name, None);
        let named = parse(5, format!("{LINES}name:\tframe 1\n").as_bytes()).unwrap();
        assert_eq!(named.name.as_deref(), Some("frame 1"));
    }

    #[test]
    fn what_is_not_told_is_none() {
        let info = parse(1, b"pos:\t0\nsize:\t1\n").unwrap();
        assert_eq!(
            (info.size, info.count, info.exporter),
            (Some(1), None, None)
        );
        assert!(parse(1, b"").is_ok());
    }

    /// Anyone can name a dma-buf, also like this.
    #[test]
    fn a_name_cannot_pretend_to_be_a_field() {
        let named = format!("{LINES}name:\tx\nsize:\t1\nexp_name:\tme\n");
        let info = parse(5, named.as_bytes()).unwrap();
        assert_eq!(info.size, Some(4096));
        assert_eq!(info.exporter.as_deref(), Some("udmabuf"));
        assert_eq!(info.name.as_deref(), Some("x\nsize:\t1\nexp_name:\tme"));
        assert!(parse(5, b"name:\t\xff\n").is_ok());
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for line in [
            "size:\t-1",
            "size:\t0x10",
            "count:\t",
            "size:\t1 kB",
            "size 7",
        ] {
            assert_eq!(parse(1, line.as_bytes()), Err(line.to_owned()));
        }
    }
}
