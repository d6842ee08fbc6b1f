//! Features and limits of the loaded module.

use super::super::{AllocError, Limit};
use super::memory::ModuleMemory;
use crate::sys::module::uapi::{self, Info};

bitflags::bitflags! {
    /// Features of one of the module's nodes.
    ///
    /// ```
    /// use dmashare::alloc::ModuleFeatures;
    /// assert!(!ModuleFeatures::ALLOC.contains(ModuleFeatures::WRAP));
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ModuleFeatures: u64 {
        /// `DMASHARE_IOCTL_ALLOC`.
        const ALLOC = uapi::FEATURE_ALLOC as u64;
        /// `DMASHARE_IOCTL_WRAP`.
        const WRAP = uapi::FEATURE_WRAP as u64;
        /// A most size of the entries of the scatter list.
        const MAX_CHUNK = uapi::FEATURE_MAX_CHUNK as u64;
        /// Memory below 4 GiB.
        const BELOW_4G = uapi::FEATURE_BELOW_4G as u64;
        /// Write-combined CPU mappings.
        const WRITE_COMBINED = uapi::FEATURE_WRITE_COMBINED as u64;
        // Those of a newer module.
        const _ = !0;
    }

    /// Standard nodes that the module added to a kernel without them.
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
        // Those of a newer module.
        const _ = !0;
    }
}

/// Features of one of the module's nodes, and the limits as they are now.
///
/// Made by [`Module::info`](super::Module::info).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleInfo {
    /// Features of this node.
    pub features: ModuleFeatures,
    /// Standard nodes that the module added to this kernel.
    pub nodes: Nodes,
    /// Most bytes in one buffer.
    pub buffer_max: u64,
    /// Bytes in live buffers that this [`Module`](super::Module) made of this kind
    /// of memory.
    pub file_used: u64,
    /// Most bytes in them.
    pub file_max: u64,
    /// Bytes in live buffers that the caller's user made.
    pub user_used: u64,
    /// Most bytes in them.
    pub user_max: u64,
    /// Bytes in all live buffers of the module, those of `/dev/udmabuf` apart.
    pub total_used: u64,
    /// Most bytes in them.
    pub total_max: u64,
    /// Number of live buffers, those of `/dev/udmabuf` apart.
    pub buffers: u64,
}

impl From<Info> for ModuleInfo {
    fn from(info: Info) -> ModuleInfo {
        ModuleInfo {
            features: ModuleFeatures::from_bits_retain(info.features),
            nodes: Nodes::from_bits_retain(info.nodes),
            buffer_max: info.buffer_max,
            file_used: info.file_used,
            file_max: info.file_max,
            user_used: info.user_used,
            user_max: info.user_max,
            total_used: info.total_used,
            total_max: info.total_max,
            buffers: info.buffers,
        }
    }
}

/// Limit of one buffer, as its parameter is called.
pub(super) const MAX_BUFFER: &str =
    "max_buffer_mb of the module dmashare (/sys/module/dmashare/parameters)";

impl ModuleInfo {
    fn buffer(&self) -> Limit {
        Limit {
            bytes: self.buffer_max,
            of: MAX_BUFFER,
        }
    }

    /// The limits of several buffers together, less what is in use.
    fn quotas(&self) -> [Limit; 3] {
        [
            Limit {
                bytes: self.file_max.saturating_sub(self.file_used),
                of: "what is left of max_file_mb of the module dmashare \
                     (/sys/module/dmashare/parameters) for buffers of one open file",
            },
            Limit {
                bytes: self.user_max.saturating_sub(self.user_used),
                of: "what is left of max_user_mb of the module dmashare \
                     (/sys/module/dmashare/parameters) for buffers of one user",
            },
            Limit {
                bytes: self.total_max.saturating_sub(self.total_used),
                of: "what is left of max_total_mb of the module dmashare \
                     (/sys/module/dmashare/parameters) for all buffers",
            },
        ]
    }

    /// Most bytes that the next buffer can have.
    pub(in super::super) fn largest(&self) -> Limit {
        let quotas = self.quotas().into_iter();
        quotas.fold(self.buffer(), |least, quota| least.or(Some(quota)))
    }

    /// After `EFBIG`: the limit of one buffer that refused this length.
    pub(super) fn admits_buffer(
        &self,
        length: u64,
        memory: ModuleMemory,
    ) -> Result<(), AllocError> {
        let supported = match memory {
            ModuleMemory::Contiguous => Limit {
                bytes: 4 << 30,
                of: "the longest run of the module dmashare",
            },
            _ => Limit {
                bytes: 0x7fff_ffff * rustix::param::page_size() as u64,
                of: "the longest buffer of the module dmashare (2^31 - 1 pages)",
            },
        };
        self.buffer().admits(length)?;
        supported.admits(length)
    }

    /// After `EDQUOT`: the limit of several buffers that refused this length.
    pub(super) fn admits_quota(&self, length: u64) -> Result<(), AllocError> {
        let mut quotas = self.quotas().into_iter();
        quotas.try_for_each(|quota| quota.admits(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn info() -> ModuleInfo {
        Info {
            features: 1 << 40 | 1,
            buffer_max: 256 * MIB,
            file_used: 500 * MIB,
            file_max: 512 * MIB,
            user_used: 100 * MIB,
            user_max: 108 * MIB,
            total_used: 600 * MIB,
            total_max: 605 * MIB,
            ..Info::default()
        }
        .into()
    }

    #[test]
    fn refusing_limit_is_named() {
        let mut info = info();
        let buffer = info
            .admits_buffer(257 * MIB, ModuleMemory::System)
            .unwrap_err();
        assert!(buffer.to_string().contains("max_buffer_mb"), "{buffer}");
        let quota = |info: &ModuleInfo, length| info.admits_quota(length).unwrap_err().to_string();
        assert!(quota(&info, 13 * MIB).contains("max_file_mb"));
        assert!(quota(&info, 9 * MIB).contains("max_user_mb"));
        let total = quota(&info, 6 * MIB);
        assert!(
            total.contains("max_total_mb") && total.contains("5242880"),
            "{total}"
        );
        assert_eq!(info.admits_quota(5 * MIB), Ok(()));
        assert_eq!(info.largest().bytes, 5 * MIB);
        // Lowered below what is used.
        info.user_max = MIB;
        assert!(quota(&info, 1).contains("max_user_mb"));
        assert_eq!(info.largest().bytes, 0);
    }

    #[test]
    fn unlimited_module_has_longest_buffers() {
        let mut info = info();
        info.buffer_max = u64::MAX;
        let refused = |length, memory| info.admits_buffer(length, memory).unwrap_err().to_string();
        let run = refused((4 << 30) + 1, ModuleMemory::Contiguous);
        assert!(run.contains("longest run"), "{run}");
        assert_eq!(
            info.admits_buffer((4 << 30) + 1, ModuleMemory::System),
            Ok(())
        );
        let pages = refused(1 << 43, ModuleMemory::Memfd);
        assert!(pages.contains("2^31 - 1 pages"), "{pages}");
    }

    #[test]
    fn newer_features_are_kept() {
        assert_eq!(info().features.bits(), 1 << 40 | 1);
        assert!(info().features.contains(ModuleFeatures::ALLOC));
    }
}
