//! A dma-buf from our own kernel module: `/dev/dmashare`.

mod info;
mod missing;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::param::page_size;

pub use info::{ModuleInfo, Nodes, Shapes};

use super::piece::{self, Piece};
use super::{AllocError, Allocate, Feature, Limit, Request, Way, limit, node, udmabuf};
use crate::buffer::{Buffer, Kind};
use crate::sys;
use crate::sys::module::uapi;

pub(super) use missing::standard_nodes;

const NODE: &str = "/dev/dmashare";

/// What bounds one buffer, for those who can raise it.
const MAX_BUFFER: &str = "max_buffer_mb of the module dmashare (/sys/module/dmashare/parameters)";

/// Allocates dma-bufs through `/dev/dmashare` (`kmod/dmashare_uapi.h`), in the
/// shape that is asked for.
///
/// ```no_run
/// // Not run: needs the module dmashare.
/// use dmashare::alloc::{Allocate, Module, Request};
/// use dmashare::buffer::Kind;
/// let buffer = Module::open()?.allocate(&Request::new(1 << 20).for_device())?;
/// assert_eq!(buffer.kind(), Kind::DmaBuf);
///
/// // For a camera that can neither gather pages nor count beyond 32 bits.
/// let frames = Module::open()?.contiguous().below_4g();
/// let frame = frames.allocate(&Request::new(640 * 480 * 2).for_device())?;
/// # Ok::<(), dmashare::alloc::AllocError>(())
/// ```
#[derive(Debug)]
pub struct Module {
    device: OwnedFd,
    /// 0 leaves it to the module.
    max_chunk: u64,
    shapes: Shapes,
}

impl Module {
    /// The version of the module's interface that this crate speaks. A module of
    /// a higher one speaks it, too.
    ///
    /// ```
    /// use dmashare::alloc::Module;
    /// match std::fs::read_to_string("/sys/module/dmashare/version") {
    ///     Ok(loaded) => println!("loaded: {}, of {}", loaded.trim(), Module::VERSION),
    ///     Err(_) => println!("not loaded"),
    /// }
    /// ```
    pub const VERSION: u32 = info::VERSION;

    /// Opens `/dev/dmashare`.
    ///
    /// # Errors
    /// [`AllocError::Os`], with what would help: to load the module, to build it
    /// first, to sign it, or to be let in.
    ///
    /// ```
    /// use dmashare::alloc::Module;
    /// match Module::open() {
    ///     Ok(module) => println!("{:?}", module.info()?),
    ///     Err(why) => println!("{why}"),
    /// }
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn open() -> Result<Module, AllocError> {
        Ok(Module {
            device: node::open(NODE, missing::help)?,
            max_chunk: 0,
            shapes: Shapes::empty(),
        })
    }

    /// Puts at most this many bytes into one entry of the scatter list: a page's
    /// size, or that times a power of two. Without it the module takes chunks as
    /// large as it gets without waiting.
    ///
    /// ```no_run
    /// // Not run: needs the module dmashare.
    /// use dmashare::alloc::{Module, Request};
    /// let scattered = Module::open()?.max_chunk(4096);
    /// let (_, chunks) = scattered.allocate_counted(&Request::new(1 << 20).for_device())?;
    /// assert_eq!(chunks, 256);
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    #[must_use]
    pub fn max_chunk(mut self, bytes: u64) -> Module {
        self.max_chunk = bytes;
        self
    }

    /// Makes every buffer one run of pages, for devices that cannot gather them,
    /// as [`Request::contiguous`] asks of one.
    ///
    /// ```no_run
    /// // Not run: needs the module dmashare.
    /// use dmashare::alloc::{Module, Request};
    /// let module = Module::open()?.contiguous();
    /// let (_, chunks) = module.allocate_counted(&Request::new(1 << 20).for_device())?;
    /// assert_eq!(chunks, 1);
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    #[must_use]
    pub fn contiguous(mut self) -> Module {
        self.shapes |= Shapes::CONTIGUOUS;
        self
    }

    /// Takes memory below 4 GiB, for devices with 32 address lines.
    ///
    /// ```no_run
    /// // Not run: needs the module dmashare.
    /// use dmashare::alloc::{Allocate, Module, Request};
    /// let low = Module::open()?.below_4g().allocate(&Request::new(4096).for_device())?;
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    #[must_use]
    pub fn below_4g(mut self) -> Module {
        self.shapes |= Shapes::BELOW_4G;
        self
    }

    /// Has the CPU map the buffers write-combined: quick to fill from one end to
    /// the other, slow to read.
    ///
    /// ```no_run
    /// // Not run: needs the module dmashare.
    /// use dmashare::alloc::{Allocate, Module, Request};
    /// let module = Module::open()?.write_combined();
    /// let filled_by_the_cpu = module.allocate(&Request::new(1 << 20).for_device())?;
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    #[must_use]
    pub fn write_combined(mut self) -> Module {
        self.shapes |= Shapes::WRITE_COMBINED;
        self
    }

    /// As [`allocate`](Allocate::allocate), and tells how many entries the
    /// scatter list has: how many pieces of memory a device has to gather.
    ///
    /// # Errors
    /// Those of [`allocate`](Allocate::allocate).
    ///
    /// ```no_run
    /// // Not run: needs the module dmashare.
    /// use dmashare::alloc::{Module, Request};
    /// let (buffer, chunks) = Module::open()?.allocate_counted(&Request::new(1 << 20).for_device())?;
    /// println!("{} in {chunks} chunks", buffer.name());
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn allocate_counted(&self, request: &Request) -> Result<(Buffer, u32), AllocError> {
        request.fits(Way::Module)?;
        let shapes = self.shapes_for(request)?;
        let size = request.pages_at_hand()?;
        let (fd, chunks) = sys::module::alloc(
            self.device.as_fd(),
            size,
            self.max_chunk,
            shapes.bits(),
            &request.c_name()?,
        )
        .map_err(|source| match source {
            Errno::TOOBIG => self.too_large(size, shapes),
            Errno::INVAL => self.lacks(shapes),
            Errno::NOMEM => os("DMASHARE_IOCTL_ALLOC", source, no_memory(shapes)),
            _ => os("DMASHARE_IOCTL_ALLOC", source, ""),
        })?;
        Ok((Buffer::new(fd, Kind::DmaBuf, size), chunks))
    }

    /// Makes one dma-buf of parts of memfds, whose pages it shares, in this
    /// order, and names it: what [`Udmabuf::export_pieces`] does, on any kernel.
    ///
    /// The shape that this `Module` gives to new memory does not matter here: the
    /// pages stay where they are. They stay the memfd's, too, and charged to whom
    /// they were charged; but they count among the module's buffers.
    ///
    /// [`Udmabuf::export_pieces`]: super::Udmabuf::export_pieces
    ///
    /// # Errors
    /// [`AllocError::Empty`] for no pieces, [`AllocError::TooMany`] above what the
    /// module takes, [`AllocError::TooLarge`] above its limits. [`AllocError::Os`]:
    /// `EINVAL` where a piece is not whole pages, or its memfd is not sealed
    /// against shrinking or is sealed against writing; `EBADFD` where it is no
    /// memfd.
    ///
    /// ```no_run
    /// // Not run: needs the module dmashare.
    /// use dmashare::alloc::{Allocate, Memfd, Module, Piece, Request};
    /// let memfd = Memfd::new().allocate(&Request::new(1 << 20))?;
    /// let ring = Module::open()?.wrap(
    ///     &[
    ///         Piece { memfd: &memfd, range: 65536..1 << 20 },
    ///         Piece { memfd: &memfd, range: 0..65536 },
    ///     ],
    ///     "ring",
    /// )?;
    /// assert_eq!((ring.size(), ring.name().as_str()), (1 << 20, "/dmabuf:ring"));
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn wrap(&self, pieces: &[Piece<'_>], name: &str) -> Result<Buffer, AllocError> {
        let (items, size) = piece::items(pieces)?;
        within_ranges(items.len())?;
        let name: CString = Request::new(size).named(name).c_name()?;
        let (fd, _) =
            sys::module::wrap(self.device.as_fd(), &items, &name).map_err(
                |source| match source {
                    Errno::TOOBIG => self.too_large(size, Shapes::empty()),
                    _ => os("DMASHARE_IOCTL_WRAP", source, udmabuf::help(source)),
                },
            )?;
        Ok(Buffer::new(fd, Kind::DmaBuf, size))
    }

    /// What the loaded module speaks, and what is left of its limits now.
    ///
    /// # Errors
    /// [`AllocError::ModuleVersion`] where it is older than this crate.
    ///
    /// ```no_run
    /// // Not run: needs the module dmashare.
    /// use dmashare::alloc::{Module, Shapes};
    /// let info = Module::open()?.info()?;
    /// assert!(info.version >= Module::VERSION);
    /// assert!(info.shapes.contains(Shapes::CONTIGUOUS));
    /// println!("{} of {} bytes", info.total_used, info.total_max);
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn info(&self) -> Result<ModuleInfo, AllocError> {
        sys::module::info(self.device.as_fd())
            .map(ModuleInfo::from)
            .map_err(|source| os("DMASHARE_IOCTL_INFO", source, ""))
    }

    /// The shape of a buffer; refused where it is none, since the kernel's answer
    /// would be an EINVAL among many.
    fn shapes_for(&self, request: &Request) -> Result<Shapes, AllocError> {
        let mut shapes = self.shapes;
        shapes.set(
            Shapes::CONTIGUOUS,
            request.contiguous || shapes.contains(Shapes::CONTIGUOUS),
        );
        let page = page_size() as u64;
        let why = match self.max_chunk {
            0 => return Ok(shapes),
            _ if shapes.contains(Shapes::CONTIGUOUS) => {
                "contiguous memory is one chunk; leave max_chunk or contiguous out".to_owned()
            }
            bytes if bytes >= page && bytes.is_power_of_two() => return Ok(shapes),
            _ => format!("a chunk is {page} bytes, a page, or that times a power of two"),
        };
        Err(AllocError::Cannot {
            way: Way::Module,
            what: Feature::MaxChunk(self.max_chunk),
            why,
        })
    }

    /// Which of its limits a buffer was too large for.
    fn too_large(&self, size: u64, shapes: Shapes) -> AllocError {
        let contiguous = shapes.contains(Shapes::CONTIGUOUS);
        match self.info().and_then(|info| info.admits(size, contiguous)) {
            Err(error) => error,
            // Another's buffer, which is gone by now, was what was too much.
            Ok(()) => AllocError::Os {
                operation: "DMASHARE_IOCTL_ALLOC",
                name: NODE.to_owned(),
                source: Errno::TOOBIG,
                help: "another buffer took what is left of the limits in \
                       /sys/module/dmashare/parameters for a moment; ask again, or raise them"
                    .to_owned(),
            },
        }
    }

    /// Which of these shapes it has not.
    fn lacks(&self, shapes: Shapes) -> AllocError {
        let lacking = match self.info() {
            Ok(info) => shapes.difference(info.shapes),
            Err(error) => return error,
        };
        match lacking.is_empty() {
            true => os("DMASHARE_IOCTL_ALLOC", Errno::INVAL, ""),
            false => AllocError::Cannot {
                way: Way::Module,
                what: Feature::Shapes(lacking),
                why: "the loaded module has it not on this machine".to_owned(),
            },
        }
    }
}

fn os(operation: &'static str, source: Errno, help: &str) -> AllocError {
    let help = match source {
        Errno::NOTTY => return missing::other_version(),
        Errno::MFILE => "close handles or raise RLIMIT_NOFILE",
        _ => help,
    };
    AllocError::Os {
        operation,
        name: NODE.to_owned(),
        source,
        help: help.to_owned(),
    }
}

/// What helps where there is no such memory.
fn no_memory(shapes: Shapes) -> &'static str {
    if shapes.contains(Shapes::CONTIGUOUS) {
        "no free run of pages is that long; ask soon after boot, free memory, or compact it: \
         echo 1 > /proc/sys/vm/compact_memory"
    } else if shapes.contains(Shapes::BELOW_4G) {
        "there is not so much free memory below 4 GiB; free some, or ask for less"
    } else {
        "free memory, raise the cgroup's memory.max, or ask for less"
    }
}

/// Refuses more pieces than the module takes, also at its `/dev/udmabuf`.
pub(super) fn within_ranges(count: usize) -> Result<(), AllocError> {
    let limit = uapi::MAX_RANGES as usize;
    match count > limit {
        true => Err(AllocError::TooMany {
            count,
            limit,
            of: "what the module dmashare takes at once (DMASHARE_MAX_RANGES)",
        }),
        false => Ok(()),
    }
}

/// The most that one buffer can have, also of the nodes that it offers in place
/// of the kernel's; unknown where it is not loaded.
pub(super) fn largest() -> Option<Limit> {
    limit::of_module("/sys/module/dmashare/parameters/max_buffer_mb", MAX_BUFFER)
}

impl Allocate for Module {
    fn way(&self) -> Way {
        Way::Module
    }

    fn allocate(&self, request: &Request) -> Result<Buffer, AllocError> {
        self.allocate_counted(request).map(|(buffer, _)| buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Memfd, memfd};
    use super::*;

    /// One that answers as a device does that knows no such request.
    fn elsewhere() -> Module {
        Module {
            device: std::fs::File::open("/dev/null").unwrap().into(),
            max_chunk: 0,
            shapes: Shapes::empty(),
        }
    }

    fn request() -> Request {
        Request::new(1 << 20).for_device()
    }

    #[test]
    fn another_version_is_named_with_ours() {
        let memfd = Memfd::new().allocate(&Request::new(4096)).unwrap();
        let pieces = [Piece {
            memfd: &memfd,
            range: 0..4096,
        }];
        for refused in [
            elsewhere().allocate(&request()).map(drop),
            elsewhere().wrap(&pieces, "a name").map(drop),
            elsewhere().info().map(drop),
        ] {
            let refused = refused.unwrap_err();
            let ours = Module::VERSION;
            assert!(
                matches!(refused, AllocError::ModuleVersion { ours: said, .. } if said == ours),
                "{refused}"
            );
            let says = refused.to_string();
            assert!(says.contains(&format!("this crate {ours}")), "{says}");
        }
        let old = AllocError::ModuleVersion {
            loaded: Some("1".to_owned()),
            ours: 2,
        };
        assert!(
            old.to_string()
                .contains("speaks version 1 of its interface, this crate 2")
        );
    }

    #[test]
    fn a_shape_that_cannot_be_is_refused_before_it_is_asked_for() {
        let page = page_size() as u64;
        let refused = |module: Module, request: &Request| match module.allocate(request) {
            Err(AllocError::Cannot { way, what, why }) => {
                assert_eq!(
                    (way, what),
                    (Way::Module, Feature::MaxChunk(module.max_chunk))
                );
                why
            }
            other => panic!("{other:?}"),
        };
        for odd in [1, page - 1, 3 * page, u64::MAX] {
            assert!(
                refused(elsewhere().max_chunk(odd), &request()).contains("times a power of two")
            );
        }
        let one = elsewhere().max_chunk(page);
        assert!(refused(one, &request().contiguous()).contains("one chunk"));
        let one = elsewhere().max_chunk(page).contiguous();
        assert!(refused(one, &request()).contains("one chunk"));
        let fine = elsewhere().max_chunk(2 * page).shapes_for(&request());
        assert_eq!(fine, Ok(Shapes::empty()));
        let both = elsewhere()
            .below_4g()
            .write_combined()
            .shapes_for(&request().contiguous());
        assert_eq!(both, Ok(Shapes::all() & Shapes::from_bits_retain(0b111)));
    }

    #[test]
    fn what_cannot_be_wrapped_is_refused() {
        let memfd = memfd::create(&Request::new(4096)).unwrap();
        let piece = Piece {
            memfd: &memfd,
            range: 0..4096,
        };
        let many = vec![piece.clone(); uapi::MAX_RANGES as usize + 1];
        let refused = elsewhere().wrap(&many, "").unwrap_err();
        assert!(
            matches!(refused, AllocError::TooMany { limit: 1024, .. }),
            "{refused}"
        );
        assert_eq!(elsewhere().wrap(&[], "").unwrap_err(), AllocError::Empty);
        let name = "n".repeat(super::super::MAX_NAME + 1);
        let refused = elsewhere().wrap(&[piece], &name).unwrap_err();
        assert!(matches!(refused, AllocError::Name { .. }), "{refused}");
    }
}
