//! From packages to a folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{Error, run};
use crate::cache;
use crate::progress::Progress;

/// Top-level folders that a merged-/usr system has as links into /usr. Packages
/// of bookworm still have files under the old names.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Documentation and languages: half of the files, none of the use.
const UNUSED: [&str; 7] = [
    "./usr/share/doc",
    "./usr/share/man",
    "./usr/share/info",
    "./usr/share/locale",
    "./usr/share/lintian",
    "./usr/share/bug",
    "./usr/share/gcc",
];

/// Unpacks `$1` into `$2` with more options of tar. Not `dpkg-deb --extract`,
/// whose tar puts a folder where [`MERGED`] has a link.
const EXTRACT: &str = r#"
deb=$1 folder=$2
shift 2
dpkg-deb --fsys-tarfile "$deb" |
    tar --extract --file=- --directory="$folder" --keep-directory-symlink \
        --warning=no-timestamp "$@"
"#;

/// Unpacks `debs`, told as `what`, over each other into `folder`, a merged-/usr
/// tree, without running any of their scripts.
pub(super) fn packages(debs: &[PathBuf], what: &str, folder: &Path) -> Result<(), Error> {
    for name in MERGED {
        let target = format!("usr/{name}");
        let usr = folder.join(&target);
        fs::create_dir_all(&usr).map_err(cache::Error::io("make the folder", &usr))?;
        let link = folder.join(name);
        symlink(&target, &link).map_err(cache::Error::io("link", &link))?;
    }
    let mut progress = Progress::spinner(&format!("unpacking {what}"));
    for deb in debs {
        // bash for its pipefail: a package that is cut short must not pass.
        let mut command = run::program("bash");
        command
            .args(["-o", "pipefail", "-c", EXTRACT, "unpack"])
            .args([deb, folder])
            .args(UNUSED.map(|path| format!("--exclude={path}")));
        let said = run::run_with(&mut command, |_| progress.set(0))?;
        if !said.success {
            // Whatever is wrong with it, it is not to be met again.
            cache::remove(deb)?;
            return Err(Error::Program {
                program: "dpkg-deb".to_owned(),
                said: format!(
                    "{}: {}; run again to fetch it anew",
                    deb.display(),
                    said.reason()
                ),
            });
        }
    }
    Ok(())
}
