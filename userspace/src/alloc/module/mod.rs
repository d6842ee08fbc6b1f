//! A dma-buf from our own kernel module: the nodes below `/dev/dmashare`.

mod info;
mod memory;
mod missing;
mod open;
mod query;

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::param::page_size;

pub use info::{ModuleFeatures, ModuleInfo, Nodes};
pub use memory::ModuleMemory;
pub use query::{AllocFlags, ModuleBuffer};

use super::piece::{self, Piece};
use super::{AllocError, Allocate, Feature, Limit, Request, Way, limit, node, udmabuf};
use crate::buffer::{Buffer, Kind};
use crate::sys;
use crate::sys::module::uapi;
use open::OpenNodes;

pub(super) use missing::standard_nodes;

/// Allocates dma-bufs through the nodes below `/dev/dmashare`
/// (`kmod/dmashare_uapi.h`), in the shape that is asked for.
///
/// Each kind of memory has a node of its own, which you may be granted or not:
/// `/dev/dmashare/system` is enough for most, `/dev/dmashare/contiguous` is opened
/// with the first contiguous buffer and `/dev/dmashare/memfd` with the first
/// [`wrap`](Self::wrap).
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
    nodes: OpenNodes,
    /// 0 leaves it to the module.
    max_chunk: u64,
    contiguous: bool,
    flags: AllocFlags,
}

impl Module {
    /// Opens `/dev/dmashare/system`.
    ///
    /// # Errors
    /// [`AllocError::Os`], with what would help: to load the module, to build it
    /// first, to sign it, or to be let in.
    ///
    /// ```
    /// use dmashare::alloc::{Module, ModuleMemory};
    /// match Module::open() {
    ///     Ok(module) => println!("{:?}", module.info(ModuleMemory::System)?),
    ///     Err(why) => println!("{why}"),
    /// }
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn open() -> Result<Module, AllocError> {
        Ok(Module::new(OpenNodes::open()?))
    }

    fn new(nodes: OpenNodes) -> Module {
        Module {
            nodes,
            max_chunk: 0,
            contiguous: false,
            flags: AllocFlags::empty(),
        }
    }

    /// Puts at most this many bytes into one entry of the scatter list: a page's
    /// size, or that times a power of two. Without it an entry has up to 2 MiB, as
    /// long as are free.
    ///
    /// ```no_run
    /// // Not run: needs the module dmashare.
    /// use dmashare::alloc::{Allocate, Module, Request};
    /// let scattered = Module::open()?.max_chunk(4096);
    /// let buffer = scattered.allocate(&Request::new(1 << 20).for_device())?;
    /// assert_eq!(scattered.query(&buffer)?.chunks, 256);
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    #[must_use]
    pub fn max_chunk(mut self, bytes: u64) -> Module {
        self.max_chunk = bytes;
        self
    }

    /// Makes every buffer one run of pages, for devices that cannot gather them,
    /// as [`Request::contiguous`] does for one buffer. It takes access to
    /// `/dev/dmashare/contiguous`.
    ///
    /// ```no_run
    /// // Not run: needs the module dmashare.
    /// use dmashare::alloc::{Allocate, Module, Request};
    /// let module = Module::open()?.contiguous();
    /// let buffer = module.allocate(&Request::new(1 << 20).for_device())?;
    /// assert_eq!(module.query(&buffer)?.chunks, 1);
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    #[must_use]
    pub fn contiguous(mut self) -> Module {
        self.contiguous = true;
        self
    }

    /// Takes memory below 4 GiB, for devices with 32-bit DMA addresses.
    ///
    /// ```no_run
    /// // Not run: needs the module dmashare.
    /// use dmashare::alloc::{Allocate, Module, Request};
    /// let low = Module::open()?.below_4g().allocate(&Request::new(4096).for_device())?;
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    #[must_use]
    pub fn below_4g(mut self) -> Module {
        self.flags |= AllocFlags::BELOW_4G;
        self
    }

    /// Maps the buffers write-combined for the CPU: fast sequential writes, slow
    /// reads. On x86 only.
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
        self.flags |= AllocFlags::WRITE_COMBINED;
        self
    }

    /// Makes one dma-buf of parts of memfds, whose pages it shares, in this
    /// order, and names it: what [`Udmabuf::export_pieces`] does, on any kernel.
    ///
    /// The shape that this `Module` gives to new memory does not matter here: the
    /// pages stay where they are. They stay the memfd's, too, and charged to whom
    /// they were charged; but they count among the module's buffers. It takes
    /// access to `/dev/dmashare/memfd`.
    ///
    /// [`Udmabuf::export_pieces`]: super::Udmabuf::export_pieces
    ///
    /// # Errors
    /// [`AllocError::Empty`] for no pieces, [`AllocError::TooMany`] above what the
    /// module takes, [`AllocError::TooLarge`] above its limits. [`AllocError::Os`]:
    /// `EINVAL` where a piece is not whole pages, or its memfd is not sealed
    /// against shrinking or is sealed against writing; `EBADFD` where it is no
    /// memfd; `EMLINK` where a page would be pinned too often.
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
    #[doc(alias = "DMASHARE_IOCTL_WRAP")]
    pub fn wrap(&self, pieces: &[Piece<'_>], name: &str) -> Result<Buffer, AllocError> {
        let (items, size) = piece::items(pieces)?;
        within_ranges(items.len())?;
        let request = Request::new(size).named(name);
        request.c_name()?;
        let memory = ModuleMemory::Memfd;
        let fd = sys::module::wrap(self.nodes.get(memory)?, &items).map_err(|source| {
            let longest = items.iter().map(|(_, _, length)| *length).max();
            match source {
                Errno::FBIG | Errno::DQUOT => self
                    .too_large(WRAP, source, memory, size)
                    .or(longest.and_then(|longest| LONGEST_RANGE.admits(longest).err())),
                _ => None,
            }
            .unwrap_or_else(|| os(WRAP, memory, source, wrap_help(source)))
        })?;
        named(fd, size, &request)
    }

    /// Describes a dma-buf that the module made, by whichever process and node.
    ///
    /// # Errors
    /// [`AllocError::Os`] with `EINVAL` for a buffer that is not the module's.
    ///
    /// ```no_run
    /// // Not run: needs the module dmashare.
    /// use dmashare::alloc::{AllocFlags, Allocate, Module, ModuleMemory, Request};
    /// let module = Module::open()?.below_4g();
    /// let buffer = module.allocate(&Request::new(1 << 20).for_device())?;
    /// let made = module.query(&buffer)?;
    /// assert_eq!(made.memory, Some(ModuleMemory::System));
    /// assert_eq!(made.flags, AllocFlags::BELOW_4G);
    /// println!("{} in {} chunks", buffer.name(), made.chunks);
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    #[doc(alias = "DMASHARE_IOCTL_QUERY")]
    pub fn query(&self, buffer: &Buffer) -> Result<ModuleBuffer, AllocError> {
        let memory = ModuleMemory::System;
        // A System V segment has no fd, and is as little the module's.
        let answer = match buffer.fd() {
            Ok(fd) => sys::module::query(self.nodes.get(memory)?, fd),
            Err(_) => Err(Errno::INVAL),
        };
        answer.map(ModuleBuffer::from).map_err(|source| {
            let error = os(QUERY, memory, source, "");
            match source {
                Errno::INVAL => AllocError::Os {
                    operation: QUERY,
                    name: buffer.name(),
                    source,
                    help: "the module dmashare describes only dma-bufs that it made".to_owned(),
                },
                _ => error,
            }
        })
    }

    /// Reports the features of the node for this kind of memory, and the limits as
    /// they are now.
    ///
    /// # Errors
    /// [`AllocError::Os`] where the node cannot be opened.
    ///
    /// ```no_run
    /// // Not run: needs the module dmashare.
    /// use dmashare::alloc::{Module, ModuleFeatures, ModuleMemory};
    /// let info = Module::open()?.info(ModuleMemory::System)?;
    /// assert!(info.features.contains(ModuleFeatures::ALLOC));
    /// println!("{} of {} bytes", info.user_used, info.user_max);
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    #[doc(alias = "DMASHARE_IOCTL_INFO")]
    pub fn info(&self, memory: ModuleMemory) -> Result<ModuleInfo, AllocError> {
        sys::module::info(self.nodes.get(memory)?)
            .map(ModuleInfo::from)
            .map_err(|source| os(INFO, memory, source, ""))
    }

    /// The kind of memory of a buffer. A size of chunks that it cannot have is
    /// refused here, since the kernel's answer would be an EINVAL among many.
    fn memory_for(&self, request: &Request) -> Result<ModuleMemory, AllocError> {
        let memory = match request.contiguous || self.contiguous {
            true => ModuleMemory::Contiguous,
            false => ModuleMemory::System,
        };
        let page = page_size() as u64;
        let why = match self.max_chunk {
            0 => return Ok(memory),
            _ if memory == ModuleMemory::Contiguous => {
                "contiguous memory is one chunk; leave max_chunk or contiguous out".to_owned()
            }
            bytes if bytes >= page && bytes.is_power_of_two() => return Ok(memory),
            _ => format!("a chunk is {page} bytes, a page, or that times a power of two"),
        };
        Err(AllocError::Cannot {
            way: Way::Module,
            what: Feature::MaxChunk(self.max_chunk),
            why,
        })
    }

    /// Which limit a buffer exceeds; `None` where none does any more.
    fn too_large(
        &self,
        operation: &'static str,
        source: Errno,
        memory: ModuleMemory,
        length: u64,
    ) -> Option<AllocError> {
        let info = match self.info(memory) {
            Ok(info) => info,
            Err(error) => return Some(error),
        };
        let admitted = match source {
            Errno::DQUOT => info.admits_quota(length),
            _ => info.admits_buffer(length, memory),
        };
        match (admitted, source) {
            (Err(error), _) => Some(error),
            // Another's buffer, which is gone by now, was too much.
            (Ok(()), Errno::DQUOT) => Some(os(
                operation,
                memory,
                source,
                "another buffer used up a limit in /sys/module/dmashare/parameters for a \
                 moment; try again, or raise them",
            )),
            (Ok(()), _) => None,
        }
    }

    /// The features that this allocation takes.
    fn needs(&self) -> ModuleFeatures {
        let mut needs = ModuleFeatures::ALLOC;
        needs.set(ModuleFeatures::MAX_CHUNK, self.max_chunk != 0);
        for (flag, feature) in [
            (AllocFlags::BELOW_4G, ModuleFeatures::BELOW_4G),
            (AllocFlags::WRITE_COMBINED, ModuleFeatures::WRITE_COMBINED),
        ] {
            needs.set(feature, self.flags.contains(flag));
        }
        needs
    }

    /// After `EINVAL`: the feature that the module does not have.
    fn lacks(&self, memory: ModuleMemory) -> AllocError {
        match self.info(memory) {
            Ok(info) => lacks(memory, self.needs().difference(info.features)),
            Err(error) => error,
        }
    }
}

const ALLOC: &str = "DMASHARE_IOCTL_ALLOC";
const WRAP: &str = "DMASHARE_IOCTL_WRAP";
const QUERY: &str = "DMASHARE_IOCTL_QUERY";
const INFO: &str = "DMASHARE_IOCTL_INFO";

/// Most of one range, whatever the limits are.
const LONGEST_RANGE: Limit = Limit {
    bytes: (4 << 30) - 1,
    of: "the longest piece of a memfd that the module dmashare wraps",
};

/// A new buffer, with its name.
fn named(fd: OwnedFd, size: u64, request: &Request) -> Result<Buffer, AllocError> {
    let buffer = Buffer::new(fd, Kind::DmaBuf, size);
    node::name(&buffer, request)?;
    Ok(buffer)
}

fn lacks(memory: ModuleMemory, missing: ModuleFeatures) -> AllocError {
    let x86 = cfg!(any(target_arch = "x86_64", target_arch = "x86"));
    if missing.contains(ModuleFeatures::WRITE_COMBINED) && !x86 {
        return AllocError::Cannot {
            way: Way::Module,
            what: Feature::WriteCombined,
            why: "the module has it on x86 only; leave write_combined out".to_owned(),
        };
    }
    let what = [
        (ModuleFeatures::ALLOC, ALLOC),
        (ModuleFeatures::MAX_CHUNK, "max_chunk"),
        (ModuleFeatures::BELOW_4G, "DMASHARE_ALLOC_BELOW_4G"),
        (
            ModuleFeatures::WRITE_COMBINED,
            "DMASHARE_ALLOC_WRITE_COMBINED",
        ),
    ];
    match what.iter().find(|(feature, _)| missing.contains(*feature)) {
        Some((_, what)) => AllocError::ModuleLacks {
            node: memory.node(),
            what,
        },
        None => os(ALLOC, memory, Errno::INVAL, ""),
    }
}

fn os(operation: &'static str, memory: ModuleMemory, source: Errno, help: &str) -> AllocError {
    let help = match source {
        // A request, or a part of its structure, that the module does not know.
        Errno::NOTTY | Errno::TOOBIG => {
            return AllocError::ModuleLacks {
                node: memory.node(),
                what: operation,
            };
        }
        Errno::MFILE => "close handles or raise RLIMIT_NOFILE",
        _ => help,
    };
    AllocError::Os {
        operation,
        name: memory.node().to_owned(),
        source,
        help: help.to_owned(),
    }
}

/// Help where memfds cannot be wrapped.
fn wrap_help(source: Errno) -> &'static str {
    match source {
        Errno::MLINK => "a page of the memfd is pinned too often; close buffers made of it",
        _ => udmabuf::help(source),
    }
}

/// What helps where there is no such memory.
fn no_memory(memory: ModuleMemory, flags: AllocFlags) -> &'static str {
    if memory == ModuleMemory::Contiguous {
        "no free run of pages is that long; ask soon after boot, free memory, or compact it: \
         echo 1 > /proc/sys/vm/compact_memory"
    } else if flags.contains(AllocFlags::BELOW_4G) {
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

/// Most bytes in one buffer, also of the nodes that the module adds to the kernel;
/// unknown where it is not loaded.
pub(super) fn largest() -> Option<Limit> {
    limit::of_module(
        "/sys/module/dmashare/parameters/max_buffer_mb",
        info::MAX_BUFFER,
    )
}

/// As [`largest`], of the `/dev/udmabuf` that the module adds: its buffers have a
/// limit of their own.
pub(super) fn largest_udmabuf() -> Option<Limit> {
    let all = limit::of_module(
        "/sys/module/dmashare/parameters/max_udmabuf_mb",
        "max_udmabuf_mb of the module dmashare (/sys/module/dmashare/parameters), for all \
         buffers of its /dev/udmabuf",
    );
    largest().map(|buffer| buffer.or(all))
}

impl Allocate for Module {
    fn way(&self) -> Way {
        Way::Module
    }

    #[doc(alias = "DMASHARE_IOCTL_ALLOC")]
    fn allocate(&self, request: &Request) -> Result<Buffer, AllocError> {
        request.fits(Way::Module)?;
        let memory = self.memory_for(request)?;
        let node = self.nodes.get(memory)?;
        let size = request.pages_at_hand()?;
        let made = sys::module::alloc(node, size, self.max_chunk, self.flags.bits());
        let fd = made.map_err(|source| match source {
            Errno::FBIG | Errno::DQUOT => self
                .too_large(ALLOC, source, memory, size)
                .unwrap_or_else(|| os(ALLOC, memory, source, "")),
            Errno::INVAL => self.lacks(memory),
            Errno::NOMEM => os(ALLOC, memory, source, no_memory(memory, self.flags)),
            _ => os(ALLOC, memory, source, ""),
        })?;
        named(fd, size, request)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Memfd, SysV, memfd};
    use super::*;

    /// One whose nodes know none of the module's requests.
    fn foreign() -> Module {
        Module::new(OpenNodes::foreign())
    }

    fn request() -> Request {
        Request::new(1 << 20).for_device()
    }

    #[test]
    fn unknown_request_is_named() {
        let memfd = Memfd::new().allocate(&Request::new(4096)).unwrap();
        let pieces = [Piece {
            memfd: &memfd,
            range: 0..4096,
        }];
        let module = foreign();
        for (refused, node, request) in [
            (module.allocate(&request()).map(drop), "system", ALLOC),
            (
                module.allocate(&request().contiguous()).map(drop),
                "contiguous",
                ALLOC,
            ),
            (module.wrap(&pieces, "a name").map(drop), "memfd", WRAP),
            (module.query(&memfd).map(drop), "system", QUERY),
            (
                module.info(ModuleMemory::Memfd).map(drop),
                "memfd",
                "DMASHARE_IOCTL_INFO",
            ),
        ] {
            let refused = refused.unwrap_err();
            assert!(
                matches!(refused, AllocError::ModuleLacks { what, .. } if what == request),
                "{refused}"
            );
            let expected = format!(
                "/dev/dmashare/{node}: the loaded module does not support {request}; load a \
                 newer module"
            );
            assert_eq!(refused.to_string(), expected);
        }
    }

    #[test]
    fn missing_feature_is_named() {
        let module = foreign().max_chunk(4096).below_4g().write_combined();
        let needs = module.needs();
        assert_eq!(
            needs,
            ModuleFeatures::ALLOC
                | ModuleFeatures::MAX_CHUNK
                | ModuleFeatures::BELOW_4G
                | ModuleFeatures::WRITE_COMBINED
        );
        let lacking = |features| lacks(ModuleMemory::System, needs.difference(features));
        let says = lacking(ModuleFeatures::ALLOC | ModuleFeatures::WRITE_COMBINED).to_string();
        assert!(says.contains("does not support max_chunk"), "{says}");
        let write_combined = lacking(needs - ModuleFeatures::WRITE_COMBINED);
        match cfg!(target_arch = "x86_64") {
            true => assert!(matches!(write_combined, AllocError::ModuleLacks { .. })),
            false => assert!(matches!(write_combined, AllocError::Cannot { .. })),
        }
        let plain = lacking(needs);
        assert!(
            matches!(
                plain,
                AllocError::Os {
                    source: Errno::INVAL,
                    ..
                }
            ),
            "{plain}"
        );
        assert_eq!(foreign().needs(), ModuleFeatures::ALLOC);
    }

    #[test]
    fn segment_is_not_the_modules() {
        let segment = SysV::new().allocate(&Request::new(1)).unwrap();
        let refused = foreign().query(&segment).unwrap_err().to_string();
        assert!(
            refused.contains("System V segment") && refused.contains("that it made"),
            "{refused}"
        );
    }

    #[test]
    fn invalid_max_chunk_is_refused() {
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
            assert!(refused(foreign().max_chunk(odd), &request()).contains("times a power of two"));
        }
        let one = foreign().max_chunk(page);
        assert!(refused(one, &request().contiguous()).contains("one chunk"));
        let one = foreign().max_chunk(page).contiguous();
        assert!(refused(one, &request()).contains("one chunk"));
        let fine = foreign().max_chunk(2 * page).memory_for(&request());
        assert_eq!(fine, Ok(ModuleMemory::System));
        let contiguous = foreign().below_4g().memory_for(&request().contiguous());
        assert_eq!(contiguous, Ok(ModuleMemory::Contiguous));
    }

    #[test]
    fn invalid_wrap_is_refused() {
        let memfd = memfd::create(&Request::new(4096)).unwrap();
        let piece = Piece {
            memfd: &memfd,
            range: 0..4096,
        };
        let many = vec![piece.clone(); uapi::MAX_RANGES as usize + 1];
        let refused = foreign().wrap(&many, "").unwrap_err();
        assert!(
            matches!(refused, AllocError::TooMany { limit: 1024, .. }),
            "{refused}"
        );
        assert_eq!(foreign().wrap(&[], "").unwrap_err(), AllocError::Empty);
        let name = "n".repeat(super::super::MAX_NAME + 1);
        let refused = foreign().wrap(&[piece], &name).unwrap_err();
        assert!(matches!(refused, AllocError::Name { .. }), "{refused}");
    }
}
