//! From packages to a folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::apt::{DEBS, Deb};
use super::{Error, run};
use crate::cache::{self, Cache};
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

/// Unpacks `debs`, which the cache has, told as `what`, over each other into
/// `folder`, a merged-/usr tree, without running any of their scripts.
pub(super) fn packages(
    cache: &Cache,
    debs: &[Deb],
    what: &str,
    folder: &Path,
) -> Result<(), Error> {
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
            .args([&deb.place(cache), folder])
            .args(UNUSED.map(|path| format!("--exclude={path}")));
        let said = run::run_with(&mut command, |_| progress.set(0))?;
        if !said.success {
            return Err(failed(cache, deb, said.reason())?);
        }
    }
    Ok(())
}

/// The error for a package that did not unpack, of which tar or dpkg-deb `said`
/// why. It is removed where it is not the package that the archive has, or it
/// would be met again; where the disk is full, it is good.
pub(super) fn failed(cache: &Cache, deb: &Deb, said: String) -> Result<Error, Error> {
    let file = deb.place(cache);
    // Another run may put a good one in its place now.
    let _lock = cache.lock(DEBS)?;
    let good = deb.is_in(&file);
    let advice = match good.map_err(cache::Error::io("read", &file))? {
        true => "",
        false => {
            cache::remove(&file)?;
            "; it is damaged: run again to fetch it anew"
        }
    };
    Ok(Error::Program {
        program: "dpkg-deb".to_owned(),
        said: format!("{}: {said}{advice}", file.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn hash(content: &[u8]) -> String {
        let hash = Sha256::digest(content);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("SHA256:{hex}")
    }

    #[test]
    fn a_package_that_does_not_unpack_stays_unless_it_is_damaged() {
        let scratch = tempfile::tempdir().unwrap();
        let cache = Cache::at(scratch.path().join("cache")).unwrap();
        let mut deb = Deb {
            package: "tool".into(),
            version: "1".into(),
            file: "tool_1_all.deb".into(),
            uri: String::new(),
            bytes: 4,
            hash: hash(b"text"),
        };
        let file = deb.place(&cache);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "text").unwrap();
        let unpack = |deb: &Deb, name: &str| {
            let debs = std::slice::from_ref(deb);
            let error = packages(&cache, debs, "tool", &scratch.path().join(name));
            error.unwrap_err().to_string()
        };
        let error = unpack(&deb, "one");
        assert!(file.exists() && !error.contains("damaged"), "{error}");
        deb.hash = hash(b"other");
        let error = unpack(&deb, "two");
        assert!(!file.exists() && error.contains("damaged"), "{error}");
        assert!(error.contains("tool_1_all.deb"), "{error}");
    }
}
