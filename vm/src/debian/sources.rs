//! The files that a module is made of.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use crate::cache;

/// What an earlier build may have left beside the sources.
const PRODUCTS: [&str; 6] = ["o", "ko", "mod", "cmd", "order", "symvers"];

/// A file of the module's source: its path below the folder, and its content.
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) content: Vec<u8>,
}

/// The files of `folder`, in order of their paths, without what is hidden or
/// was built.
pub(super) fn sources(folder: &Path) -> Result<Vec<SourceFile>, Error> {
    let mut sources = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        // The components, or the folder itself would end in a slash.
        let list: PathBuf = folder.components().chain(below.components()).collect();
        for entry in fs::read_dir(&list).map_err(cache::Error::io("read", &list))? {
            let entry = entry.map_err(cache::Error::io("read", &list))?;
            let (name, path) = (entry.file_name(), below.join(entry.file_name()));
            if is_aside(&name) {
                continue;
            }
            let file = folder.join(&path);
            // Links are followed: the copy has what they lead to.
            let stat = fs::metadata(&file).map_err(cache::Error::io("look at", &file))?;
            if stat.is_dir() {
                open.push(path);
            } else {
                let content = fs::read(&file).map_err(cache::Error::io("read", &file))?;
                sources.push(SourceFile { path, content });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn is_aside(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.')
        || name.ends_with(".mod.c")
        || name
            .rsplit_once('.')
            .is_some_and(|(_, extension)| PRODUCTS.contains(&extension))
}

/// Writes them into `folder`, as they are in their own.
pub(super) fn copy(sources: &[SourceFile], folder: &Path) -> Result<(), cache::Error> {
    for source in sources {
        let file = folder.join(&source.path);
        let parent = file.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(cache::Error::io("make the folder", parent))?;
        fs::write(&file, &source.content).map_err(cache::Error::io("write", &file))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_is_no_source() {
        for name in [
            ".main.o.cmd",
            "main.o",
            "x.ko",
            "x.mod",
            "x.mod.c",
            "modules.order",
            "Module.symvers",
            ".git",
        ] {
            assert!(is_aside(OsStr::new(name)), "{name}");
        }
        for name in ["Kbuild", "Makefile", "main.c", "uapi.h", "mod", "modern.c"] {
            assert!(!is_aside(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn sources_are_had_in_order_with_folders_below() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/b.c"), "b").unwrap();
        fs::write(path.join("a.c"), "a").unwrap();
        fs::write(path.join("a.o"), "built").unwrap();
        let sources = sources(path).unwrap();
        let names: Vec<_> = sources
            .iter()
            .map(|source| source.path.to_str().unwrap())
            .collect();
        assert_eq!(names, ["a.c", "sub/b.c"]);
    }
}
