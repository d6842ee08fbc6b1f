//! What the loaded module tells of itself.

use super::super::{AllocError, Limit};
use crate::sys::module::uapi::{self, Info};

/// The version of the module's interface that this crate speaks.
pub(super) const VERSION: u32 = uapi::API_VERSION;

bitflags::bitflags! {
    /// The shapes that memory of the module can have.
    ///
    /// ```
    /// use dmashare::alloc::Shapes;
    /// let shapes = Shapes::CONTIGUOUS | Shapes::BELOW_4G;
    /// assert!(!shapes.contains(Shapes::WRITE_COMBINED));
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Shapes: u32 {
        /// One run of pages without a gap.
        const CONTIGUOUS = uapi::ALLOC_CONTIGUOUS;
        /// Below 4 GiB of the machine's memory.
        const BELOW_4G = uapi::ALLOC_BELOW_4G;
        /// Mapped write-combined by the CPU.
        const WRITE_COMBINED = uapi::ALLOC_WRITE_COMBINED;
        // What a newer module has more.
        const _ = !0;
    }

    /// The nodes that the module adds to a kernel that has them not.
    ///
    /// ```
    /// use dmashare::alloc::Nodes;
    /// assert!(!Nodes::empty().contains(Nodes::UDMABUF));
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Nodes: u32 {
        /// `/dev/udmabuf`
        const UDMABUF = uapi::NODE_UDMABUF;
        /// `/dev/dma_heap/system`
        const DMA_HEAP = uapi::NODE_DMA_HEAP;
        /// `/dev/dma_heap/dmashare`, a heap of the kernel's own framework.
        const HEAP = uapi::NODE_HEAP;
        // What a newer module has more.
        const _ = !0;
    }
}

/// What the loaded module speaks, and what is left of its limits now.
///
/// Made by [`Module::info`](super::Module::info).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleInfo {
    /// The version of its interface; see [`Module::VERSION`](super::Module::VERSION).
    pub version: u32,
    /// The shapes that it has.
    pub shapes: Shapes,
    /// The nodes that it added to this kernel.
    pub nodes: Nodes,
    /// The most bytes in one buffer.
    pub max_buffer: u64,
    /// The bytes in live buffers that this [`Module`](super::Module) made.
    pub file_used: u64,
    /// The most bytes in them.
    pub file_max: u64,
    /// The bytes in all live buffers of the module, whoever made them.
    pub total_used: u64,
    /// The most bytes in them.
    pub total_max: u64,
    /// How many live buffers there are.
    pub buffers: u64,
}

impl From<Info> for ModuleInfo {
    fn from(info: Info) -> ModuleInfo {
        ModuleInfo {
            version: info.version,
            shapes: Shapes::from_bits_retain(info.alloc_flags),
            nodes: Nodes::from_bits_retain(info.nodes),
            max_buffer: info.max_buffer,
            file_used: info.file_used,
            file_max: info.file_max,
            total_used: info.total_used,
            total_max: info.total_max,
            buffers: info.buffers,
        }
    }
}

impl ModuleInfo {
    /// The limits that hold for the next buffer, each as the one who can raise
    /// it knows it.
    fn limits(&self) -> [Limit; 3] {
        [
            Limit {
                bytes: self.max_buffer,
                of: super::MAX_BUFFER,
            },
            Limit {
                bytes: self.file_max.saturating_sub(self.file_used),
                of: "what is left of max_file_mb of the module dmashare \
                     (/sys/module/dmashare/parameters) for buffers of one open file",
            },
            Limit {
                bytes: self.total_max.saturating_sub(self.total_used),
                of: "what is left of max_total_mb of the module dmashare \
                     (/sys/module/dmashare/parameters) for all buffers",
            },
        ]
    }

    /// The most that the next buffer can have.
    pub(in super::super) fn largest(&self) -> Limit {
        let [buffer, file, total] = self.limits();
        buffer.or(Some(file)).or(Some(total))
    }

    /// Refuses what the module refused for its size, by the limit that did it.
    pub(super) fn admits(&self, size: u64, contiguous: bool) -> Result<(), AllocError> {
        let countable = match contiguous {
            true => Limit {
                bytes: 4 << 30,
                of: "what the module dmashare can give in one run",
            },
            false => Limit {
                bytes: 0x7fff_ffff * rustix::param::page_size() as u64,
                of: "what the module dmashare can count (2^31 - 1 pages)",
            },
        };
        let mut limits = self.limits().into_iter().chain([countable]);
        limits.try_for_each(|limit| limit.admits(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn info() -> ModuleInfo {
        Info {
            version: 3,
            alloc_flags: 0b1001,
            max_buffer: 256 * MIB,
            file_used: 500 * MIB,
            file_max: 512 * MIB,
            total_used: 600 * MIB,
            total_max: 605 * MIB,
            ..Info::default()
        }
        .into()
    }

    #[test]
    fn the_limit_that_was_met_is_named() {
        let mut info = info();
        let says = |info: &ModuleInfo, size| info.admits(size, false).unwrap_err().to_string();
        assert!(says(&info, 257 * MIB).contains("max_buffer_mb"));
        assert!(says(&info, 13 * MIB).contains("max_file_mb"));
        let total = says(&info, 6 * MIB);
        assert!(
            total.contains("max_total_mb") && total.contains("5242880"),
            "{total}"
        );
        assert_eq!(info.admits(5 * MIB, true), Ok(()));
        // Lowered below what is used.
        info.file_max = MIB;
        assert!(says(&info, 1).contains("max_file_mb"));
        assert_eq!(info.largest().bytes, 0);
    }

    #[test]
    fn what_no_limit_names_is_what_the_module_can_count() {
        let mut info = info();
        (info.max_buffer, info.file_max, info.total_max) = (u64::MAX, u64::MAX, u64::MAX);
        let run = info.admits((4 << 30) + 1, true).unwrap_err().to_string();
        assert!(run.contains("one run"), "{run}");
        assert!(info.admits((4 << 30) + 1, false).is_ok());
        assert!(
            info.admits(1 << 43, false)
                .unwrap_err()
                .to_string()
                .contains("count")
        );
    }

    #[test]
    fn a_newer_modules_shapes_are_kept() {
        assert_eq!(info().shapes.bits(), 0b1001);
        assert!(info().shapes.contains(Shapes::CONTIGUOUS));
    }
}
