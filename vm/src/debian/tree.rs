//! Folders of many files: a second look at one, at no cost.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::cache;

/// Makes `to` the same tree as `from`, whose files are hard links to the same
/// content, so that it costs no space: who writes to one must make it anew.
/// Copies where the file system has no links.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), cache::Error> {
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let (source, target) = (from.join(&below), to.join(&below));
        fs::create_dir_all(&target).map_err(cache::Error::io("make the folder", &target))?;
        for entry in fs::read_dir(&source).map_err(cache::Error::io("read", &source))? {
            let entry = entry.map_err(cache::Error::io("read", &source))?;
            let kind = entry
                .file_type()
                .map_err(cache::Error::io("look at", entry.path()))?;
            let path = below.join(entry.file_name());
            if kind.is_dir() {
                open.push(path);
                continue;
            }
            let target = to.join(&path);
            let made = if kind.is_symlink() {
                fs::read_link(entry.path()).and_then(|link| symlink(link, &target))
            } else {
                link_file(&entry.path(), &target)
            };
            made.map_err(cache::Error::io("link", &target))?;
        }
    }
    Ok(())
}

fn link_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => fs::copy(from, to).map(drop),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_tree_is_the_same_and_can_go_without_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/file"), "text").unwrap();
        symlink("b/file", from.join("a/link")).unwrap();
        link(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("a/link")).unwrap(), "text");
        fs::remove_dir_all(&to).unwrap();
        assert_eq!(fs::read_to_string(from.join("a/b/file")).unwrap(), "text");
    }
}
