//! From packages to a folder.

use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

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

/// Unpacks `debs`, which the cache has, told as `what`, over each other into
/// `folder`, a merged-/usr tree, without running any of their scripts.
pub(super) fn packages(
    cache: &Cache,
    debs: &[Deb],
    what: &str,
    folder: &Path,
) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(cache::Error::io("make the folder", folder))?;
    open(folder, 0o755)?;
    plain_folder(&folder.join("usr"))?;
    for name in MERGED {
        let target = format!("usr/{name}");
        plain_folder(&folder.join(&target))?;
        let link = folder.join(name);
        symlink(&target, &link).map_err(cache::Error::io("link", &link))?;
    }
    let mut progress = Progress::spinner(&format!("unpacking {what}"));
    for deb in debs {
        let mut tar = extract_to(folder);
        tar.args(UNUSED.map(|path| format!("--exclude={path}")));
        members(cache, deb, &mut tar, |bytes| progress.set(bytes))?;
    }
    Ok(())
}

/// Makes the folder where it is missing, and lets everyone look into it: what a
/// root allows its users is not to depend on what the host's umask allows.
pub(super) fn plain_folder(folder: &Path) -> Result<(), Error> {
    match fs::create_dir(folder) {
        Ok(()) => open(folder, 0o755),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(cache::Error::io("make the folder", folder)(error).into()),
    }
}

/// Gives a file or folder these permissions, whatever the umask.
pub(super) fn open(path: &Path, mode: u32) -> Result<(), Error> {
    let set = fs::set_permissions(path, Permissions::from_mode(mode));
    Ok(set.map_err(cache::Error::io("set the permissions of", path))?)
}

/// tar, to unpack what it is fed into `folder`, with the permissions that
/// everyone gets who has the usual umask.
pub(super) fn extract_to(folder: &Path) -> Command {
    let mut tar = run::program("tar");
    run::with_umask(&mut tar, 0o022);
    tar.args(["--extract", "--file=-", "--warning=no-timestamp"])
        // A merged-/usr tree has links where packages have folders. dpkg-deb's
        // own tar would put a folder there.
        .arg("--keep-directory-symlink")
        .arg("--directory")
        .arg(folder);
    tar
}

/// Feeds the files of `deb`, which the cache has, to `tar`; `tick` gets how many
/// bytes of them there were.
pub(super) fn members(
    cache: &Cache,
    deb: &Deb,
    tar: &mut Command,
    tick: impl FnMut(u64),
) -> Result<(), Error> {
    let mut from = run::program("dpkg-deb");
    from.arg("--fsys-tarfile").arg(deb.place(cache));
    let unpacked = run::piped(&mut from, tar, |files, tar| {
        let mut files = Counted::new(files, tick);
        io::copy(&mut files, tar).map(drop)
    });
    match unpacked {
        Err(Error::Program { said, .. }) => Err(failed(cache, deb, said)?),
        unpacked => unpacked,
    }
}

/// Tells how many bytes were read.
pub(super) struct Counted<R, F> {
    inner: R,
    bytes: u64,
    tell: F,
}

impl<R: Read, F: FnMut(u64)> Counted<R, F> {
    pub(super) fn new(inner: R, tell: F) -> Self {
        Self {
            inner,
            bytes: 0,
            tell,
        }
    }
}

impl<R: Read, F: FnMut(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.bytes += length as u64;
        (self.tell)(self.bytes);
        Ok(length)
    }
}

/// The error for a package that did not unpack, of which tar or dpkg-deb `said`
/// why. It is removed where it is not the package that the archive has, or it
/// would be met again; where the disk is full, it is good.
fn failed(cache: &Cache, deb: &Deb, said: String) -> Result<Error, Error> {
    let file = deb.place(cache);
    // Another run may put a good one in its place now.
    let _lock = cache.lock(DEBS)?;
    let good = match deb.is_in(&file) {
        // Another run found it damaged first.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other,
    };
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
    fn what_is_read_is_counted() {
        let mut seen = 0;
        let mut counted = Counted::new(&b"12345"[..], |bytes| seen = bytes);
        io::copy(&mut counted, &mut io::sink()).unwrap();
        assert_eq!(seen, 5);
    }

    #[test]
    fn a_package_is_unpacked_without_what_is_of_no_use() {
        let scratch = tempfile::tempdir().unwrap();
        let cache = Cache::at(scratch.path().join("cache")).unwrap();
        let source = scratch.path().join("source");
        for (name, text) in [
            (
                "DEBIAN/control",
                "Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: a\n",
            ),
            ("bin/tool", "of bookworm"),
            ("usr/share/doc/tool/README", "long"),
        ] {
            let file = source.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let deb = Deb {
            package: "tool".into(),
            version: "1".into(),
            file: "tool_1_all.deb".into(),
            uri: String::new(),
            bytes: 1,
            hash: String::new(),
        };
        let file = deb.place(&cache);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let mut build = run::program("dpkg-deb");
        run::run(build.arg("--build").args([&source, &file])).unwrap();
        let tree = scratch.path().join("tree");
        packages(&cache, &[deb], "tool", &tree).unwrap();
        for name in ["", "usr", "usr/sbin", "usr/bin"] {
            let mode = fs::metadata(tree.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755, "{name}");
        }
        let text = fs::read_to_string(tree.join("usr/bin/tool")).unwrap();
        assert_eq!(text, "of bookworm");
        assert!(tree.join("bin").is_symlink());
        assert!(!tree.join("usr/share/doc").exists());
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
        // Nor does another run's removal hide why it did not unpack.
        let error = failed(&cache, &deb, "why".into()).unwrap().to_string();
        assert!(error.contains("why; it is damaged"), "{error}");
    }
}
