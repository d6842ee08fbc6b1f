//! From a folder to an image to mount.

use std::path::Path;

use super::{Debian, Error, run};
use crate::progress::Progress;

/// Packs `folder` into `image`, a read-only erofs that belongs to root and is
/// the same for the same folder.
///
/// Not compressed: under emulation to read 130 MB of libraries takes 0.8 s so
/// and 1.1 s with lz4, which would halve the file.
pub(super) fn image(debian: &Debian, folder: &Path, image: &Path) -> Result<(), Error> {
    let mut command = debian.tool("mkfs.erofs")?.command(run::program);
    command
        .args(["--quiet", "--all-root", "-T0"])
        .arg("-U00000000-0000-0000-0000-000000000000")
        .arg(image)
        .arg(folder);
    let mut progress = Progress::spinner(&format!("packing {}", image.display()));
    let said = run::run_with(&mut command, |_| progress.set(0))?;
    if said.success {
        return Ok(());
    }
    Err(Error::Program {
        program: "mkfs.erofs".to_owned(),
        said: said.reason(),
    })
}
