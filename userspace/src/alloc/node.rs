//! What the device nodes have in common: finding and opening one, saying what would help
//! where that fails, and naming the dma-buf that came of it.

use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::{AllocError, Request};
use crate::buffer::Buffer;
use crate::sys;

/// Opens a node for its ioctls; `missing` says what would bring it, and is asked
/// only then, since it may have to look for that.
pub(super) fn open(path: &str, missing: impl FnOnce() -> String) -> Result<OwnedFd, AllocError> {
    // The ioctls work on a handle for reading, and some nodes are made
    // readable only.
    fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|source| {
        AllocError::Os {
            operation: "open",
            name: path.to_owned(),
            source,
            help: match source {
                Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::NOTDIR => missing(),
                Errno::ACCESS => who_may(path),
                // A container's device filter, or a security module.
                Errno::PERM => "a security policy forbids it: allow this device".to_owned(),
                _ => String::new(),
            },
        }
    })
}

/// The nodes in this folder that are called so, with a number, in its order.
pub(crate) fn numbered(folder: &str, name: &str) -> io::Result<Vec<PathBuf>> {
    let mut nodes = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name();
        let number = file.to_str().and_then(|file| file.strip_prefix(name));
        if let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) {
            nodes.push((number, entry.path()));
        }
    }
    nodes.sort();
    Ok(nodes.into_iter().map(|(_, path)| path).collect())
}

/// Who may open this node, by its owner and mode.
fn who_may(path: &str) -> String {
    let mut help = String::new();
    if let Ok(stat) = fs::stat(path) {
        let group_may = stat.st_mode & Mode::RGRP.bits() != 0;
        // Group root would be root's other name.
        if group_may && stat.st_gid != 0 {
            let group = group_name(stat.st_gid).unwrap_or_else(|| stat.st_gid.to_string());
            let _ = write!(help, "add yourself to group {group} or ");
        }
    }
    match help.is_empty() {
        true => "run as root, or let a udev rule give it to a group".to_owned(),
        false => help + "run as root",
    }
}

fn group_name(gid: u32) -> Option<String> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':'); // group(5): name:password:gid:members
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

/// Gives a new dma-buf the name that was asked for.
pub(super) fn name(buffer: &Buffer, request: &Request) -> Result<(), AllocError> {
    sys::dma_buf::set_name(buffer.fd()?, &request.c_name()?).map_err(|source| AllocError::Os {
        operation: "DMA_BUF_SET_NAME",
        name: buffer.name(),
        source,
        help: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_node_says_what_would_bring_it() {
        let error = open("/dev/no such node", || "load it".to_owned()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/dev/no such node: open: No such file or directory (os error 2); load it"
        );
    }

    #[test]
    fn nodes_come_by_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["card10", "card2", "card", "cards", "renderD128", "card-1"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let found = numbered(folder.path().to_str().unwrap(), "card").unwrap();
        assert_eq!(
            found,
            ["card2", "card10"].map(|file| folder.path().join(file))
        );
        assert!(numbered("/no such folder", "card").is_err());
    }

    #[test]
    fn groups_are_named() {
        assert_eq!(group_name(0).as_deref(), Some("root"));
        assert_eq!(group_name(u32::MAX), None);
    }
}
