//! What tells one thing from another without reading it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::debian::Tool;

/// A file's name and what changes when its content does.
pub(crate) fn of_file(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(stat) => format!(
            "{} {} {} {}.{}",
            path.display(),
            stat.ino(),
            stat.len(),
            stat.mtime(),
            stat.mtime_nsec()
        ),
        Err(error) => format!("{} {error}", path.display()),
    }
}

/// The program's file, and so its version.
pub(crate) fn of_tool(tool: &Tool) -> String {
    tool.file().map_or_else(String::new, |file| of_file(&file))
}
