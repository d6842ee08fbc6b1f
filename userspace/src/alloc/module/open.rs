//! Open files of the module's nodes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::io::Errno;

use super::super::{AllocError, node};
use super::memory::ModuleMemory;
use super::missing;

/// The node for system memory, and the others from their first use on.
#[derive(Debug)]
pub(super) struct OpenNodes {
    system: OwnedFd,
    contiguous: OnceLock<OwnedFd>,
    memfd: OnceLock<OwnedFd>,
}

impl OpenNodes {
    pub(super) fn open() -> Result<OpenNodes, AllocError> {
        Ok(OpenNodes {
            system: open(ModuleMemory::System)?,
            contiguous: OnceLock::new(),
            memfd: OnceLock::new(),
        })
    }

    pub(super) fn get(&self, memory: ModuleMemory) -> Result<BorrowedFd<'_>, AllocError> {
        let node = match memory {
            ModuleMemory::System => return Ok(self.system.as_fd()),
            ModuleMemory::Contiguous => &self.contiguous,
            ModuleMemory::Memfd => &self.memfd,
        };
        if let Some(open) = node.get() {
            return Ok(open.as_fd());
        }
        let opened = open(memory)?;
        // Of two threads the first keeps its file, and the other's is closed.
        Ok(node.get_or_init(|| opened).as_fd())
    }

    /// Open files of devices that know none of the module's requests.
    #[cfg(test)]
    pub(super) fn foreign() -> OpenNodes {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        OpenNodes {
            system: null(),
            contiguous: null().into(),
            memfd: null().into(),
        }
    }
}

fn open(memory: ModuleMemory) -> Result<OwnedFd, AllocError> {
    let path = memory.node();
    node::open(path, || missing::help(path)).map_err(|error| granted_apart(memory, error))
}

/// A caller that could open one node may not expect to be refused at another.
fn granted_apart(memory: ModuleMemory, error: AllocError) -> AllocError {
    match error {
        AllocError::Os {
            operation,
            name,
            source: source @ (Errno::ACCESS | Errno::PERM),
            help,
        } if memory != ModuleMemory::System => AllocError::Os {
            operation,
            name,
            source,
            help: format!(
                "each kind of memory is granted apart, and access to {} is not enough: {help}",
                ModuleMemory::System.node()
            ),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_node_names_its_own_permission() {
        let refused = |memory: ModuleMemory| {
            let error = AllocError::Os {
                operation: "open",
                name: memory.node().to_owned(),
                source: Errno::ACCESS,
                help: "run as root".to_owned(),
            };
            granted_apart(memory, error).to_string()
        };
        let contiguous = refused(ModuleMemory::Contiguous);
        for part in [
            "/dev/dmashare/contiguous: open: Permission denied",
            "granted apart",
            "/dev/dmashare/system is not enough: run as root",
        ] {
            assert!(contiguous.contains(part), "{contiguous}");
        }
        assert!(refused(ModuleMemory::System).ends_with("; run as root"));
    }

    #[test]
    fn missing_node_is_named() {
        for memory in ModuleMemory::ALL {
            if std::path::Path::new(memory.node()).exists() {
                continue;
            }
            let error = open(memory).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{}: open: ", memory.node())),
                "{error}"
            );
        }
    }
}
