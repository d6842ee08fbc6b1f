//! The root that the guest's programs run in.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::apt::{self, Apt, Deb, Lists};
use super::disk::FileSystem;
use super::pins::{self, Pinned};
use super::toolchain::suites;
use super::{Debian, Error, busybox, pack, plan, unpack};
use crate::cache;
use crate::progress::note;

/// What roots are called in the cache.
pub(super) const KIND: &str = "root";

/// What the keys of roots begin with that are of a user's folder, and the file
/// in them that names it.
pub(super) const FOLDER: &str = "folder-";
pub(super) const FROM: &str = "from";

/// The image, in an artefact.
const IMAGE: &str = "root.erofs";

/// Where things are mounted in the guest, whether it is mounted writable or not.
const MOUNTPOINTS: [&str; 7] = ["proc", "sys", "dev", "run", "tmp", "root", "mnt"];

/// What programs expect in /etc, at its smallest.
const ETC: [(&str, &str); 5] = [
    (
        "passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    (
        "group",
        "root:x:0:\ntty:x:5:\nvideo:x:44:\nrender:x:105:\nkvm:x:106:\nnogroup:x:65534:\n",
    ),
    ("hosts", "127.0.0.1 localhost\n"),
    ("hostname", "guest\n"),
    (
        "nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    ),
];

/// Links that packages leave to scripts, which are not run: the name, and the
/// programs that serve, best first.
const LINKS: [(&str, &[&str]); 2] = [
    ("sh", &["dash", "bash", "busybox"]),
    ("awk", &["mawk", "gawk", "original-awk", "busybox"]),
];

/// A root: of Debian packages, unpacked only (no package's script has run), in a
/// read-only erofs image that belongs to root; or one of the user's own.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Root {
    /// The image, to be attached as a disk and mounted at `/`.
    pub image: PathBuf,
    /// The suite it is from: `trixie`. Empty for one of the user's own.
    pub suite: String,
    /// Every package in it with its version, dependencies included; none where
    /// it is the user's own.
    pub packages: Vec<(String, String)>,
}

/// What a root is made of.
#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) debs: Vec<Deb>,
}

impl Plan {
    /// The artefact's key.
    pub(super) fn key(&self, suite: &str) -> String {
        let files: Vec<&str> = self.debs.iter().map(|deb| deb.file.as_str()).collect();
        // The recipe is part of what it makes: a change here makes roots anew.
        let recipe = format!("{MOUNTPOINTS:?}{ETC:?}{LINKS:?}applets{}", files.join(" "));
        format!("{suite}-{}", digest(&recipe))
    }
}

/// `packages` as they are asked for, whatever order they were named in.
pub(super) fn in_order(packages: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = packages.iter().map(ToString::to_string).collect();
    names.sort();
    names.dedup();
    names
}

/// What the plan of a root with these packages is called.
pub(super) fn plan_name(debian: &Debian, suite: &str, packages: &[String]) -> String {
    let hash = digest(&packages.join(" "));
    format!("root-{suite}-{hash}{}", debian.arch.suffix())
}

impl Root {
    /// The root of `suite` with `packages` and what they depend on, from the
    /// cache or made now. Packages that Debian calls essential are in it only
    /// where one depends on them: for a shell, name `dash` or `busybox-static`.
    ///
    /// # Errors
    /// [`Error::Packages`] for a package or suite that there is not;
    /// [`Error::Fetch`] without network where it is not cached; else [`Error`].
    ///
    /// ```no_run
    /// // Not run with the crate's tests: fetches packages.
    /// use dmashare_vm::{cache::Cache, debian::{Debian, Root}};
    ///
    /// let debian = Debian::new(Cache::open()?, None);
    /// let root = Root::prepare(&debian, "trixie", &["libegl1", "busybox-static"])?;
    /// println!("{} with libc {:?}", root.image.display(), root.version("libc6"));
    /// # Ok::<(), dmashare_vm::debian::Error>(())
    /// ```
    pub fn prepare(debian: &Debian, suite: &str, packages: &[&str]) -> Result<Self, Error> {
        let names = in_order(packages);
        if let Some(plan) = debian.pins.root(suite, &names)? {
            return Self::make_pinned(debian, suite, &plan);
        }
        plan::follow(
            debian,
            &plan_name(debian, suite, &names),
            &format!("a root of Debian {suite}"),
            |lists| decide(debian, suite, &names, lists),
            |plan: &Plan| Self::make(debian, suite, plan),
        )
    }

    /// The same with the versions that Debian has at this moment: from now on
    /// that is what [`Root::prepare`] gives.
    ///
    /// # Errors
    /// As [`Root::prepare`].
    ///
    /// ```no_run
    /// // Not run with the crate's tests: fetches packages.
    /// use dmashare_vm::{cache::Cache, debian::{Debian, Root}};
    ///
    /// let debian = Debian::new(Cache::open()?, None);
    /// let root = Root::update(&debian, "trixie", &["busybox-static"])?;
    /// println!("{:?}", root.version("busybox-static"));
    /// # Ok::<(), dmashare_vm::debian::Error>(())
    /// ```
    pub fn update(debian: &Debian, suite: &str, packages: &[&str]) -> Result<Self, Error> {
        let names = in_order(packages);
        plan::renew(
            debian,
            &plan_name(debian, suite, &names),
            &format!("a root of Debian {suite}"),
            |lists| decide(debian, suite, &names, lists),
            |plan: &Plan| Self::make(debian, suite, plan),
        )
    }

    /// A root of the user's own at `path`: a folder, packed into the cache and
    /// packed again when something in it changes; or an image of erofs, ext4 or
    /// squashfs, which is used where it is, and not written to.
    ///
    /// # Errors
    /// [`Error::OwnRoot`] for anything else; what mkfs.erofs says of a folder
    /// that it cannot read.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: needs a root.
    /// use dmashare_vm::{cache::Cache, debian::{Debian, Root}};
    ///
    /// let debian = Debian::new(Cache::open()?, None);
    /// let root = Root::of_path(&debian, "my-root".as_ref())?;
    /// println!("{}", root.image.display());
    /// # Ok::<(), dmashare_vm::debian::Error>(())
    /// ```
    pub fn of_path(debian: &Debian, path: &Path) -> Result<Self, Error> {
        let place = path.canonicalize().map_err(|error| Error::OwnRoot {
            path: path.to_path_buf(),
            problem: error.to_string(),
        })?;
        if !place.is_dir() {
            FileSystem::of(&place)?;
            return Ok(Self::own(place));
        }
        let content = content(&place)?;
        let from = place.to_string_lossy();
        let key = format!("{FOLDER}{}-{}", digest(&from), content.fingerprint);
        let folder = debian.cache.artefact(KIND, &key, content.bytes, |folder| {
            note(&format!("packing root {}", path.display()));
            let file = folder.join(FROM);
            fs::write(&file, &*from).map_err(cache::Error::io("write", file))?;
            pack::image(debian, &place, &folder.join(IMAGE))
        })?;
        Ok(Self::own(folder.join(IMAGE)))
    }

    fn own(image: PathBuf) -> Self {
        Self {
            image,
            suite: String::new(),
            packages: Vec::new(),
        }
    }

    /// The version of one of its packages.
    #[must_use]
    pub fn version(&self, package: &str) -> Option<&str> {
        self.packages
            .iter()
            .find(|(name, _)| name == package)
            .map(|(_, version)| version.as_str())
    }

    fn make(debian: &Debian, suite: &str, plan: &Plan) -> Result<Self, Error> {
        let what = format!("the guest's root, Debian {suite}");
        let fetch = || apt::fetch(&debian.cache, &what, &plan.debs);
        Self::make_of(debian, suite, plan, &what, fetch)
    }

    fn make_pinned(debian: &Debian, suite: &str, plan: &Plan) -> Result<Self, Error> {
        let what = format!("the guest's root, Debian {suite}");
        let pinned = Pinned {
            what: &what,
            name: "root",
            suite,
        };
        let fetch = || pinned.fetch(debian, &plan.debs);
        let root = Self::make_of(debian, suite, plan, &what, fetch)?;
        if let Some(folder) = root.image.parent() {
            pinned.check(folder, &plan.debs)?;
        }
        Ok(root)
    }

    fn make_of(
        debian: &Debian,
        suite: &str,
        plan: &Plan,
        what: &str,
        fetch: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let bytes: u64 = plan.debs.iter().map(|deb| deb.bytes).sum();
        // Unpacked some four and a half times the packages, and as much again as
        // an image, for a while beside each other and the packages.
        let (key, need) = (plan.key(suite), bytes * 10);
        let folder = debian.cache.artefact(KIND, &key, need, |folder| {
            fetch()?;
            let tree = folder.join("tree");
            unpack::packages(&debian.cache, &plan.debs, what, &tree)?;
            finish(&tree)?;
            pack::image(debian, &tree, &folder.join(IMAGE))?;
            pins::note_packages(folder, &plan.debs)?;
            Ok::<(), Error>(cache::remove(&tree)?)
        })?;
        Ok(Self {
            image: folder.join(IMAGE),
            suite: suite.to_owned(),
            packages: plan
                .debs
                .iter()
                .map(|deb| (deb.package.clone(), deb.version.clone()))
                .collect(),
        })
    }
}

fn decide(debian: &Debian, suite: &str, names: &[String], lists: Lists) -> Result<Plan, Error> {
    let apt = Apt::of_guest(debian, &suites(suite), lists)?;
    let debs = match suites(suite).len() {
        1 => apt.with_dependencies(names)?,
        // Backports come on top of their suite, and are taken only when asked for.
        _ => {
            let target = format!("--target-release={suite}");
            let asked: Vec<String> = std::iter::once(target).chain(names.to_vec()).collect();
            apt.with_dependencies(&asked)?
        }
    };
    Ok(Plan { debs })
}

/// What a folder holds, as far as it can be told without reading it.
struct Content {
    fingerprint: String,
    bytes: u64,
}

/// Looks at all that is in `folder`. By the time of change and not that of
/// writing, which many tools set to one and the same.
fn content(folder: &Path) -> Result<Content, cache::Error> {
    let mut paths = vec![folder.to_path_buf()];
    let mut lines = Vec::new();
    let mut bytes = 0;
    while let Some(path) = paths.pop() {
        let stat = fs::symlink_metadata(&path).map_err(cache::Error::io("look at", &path))?;
        if stat.is_dir() {
            for entry in fs::read_dir(&path).map_err(cache::Error::io("read", &path))? {
                paths.push(entry.map_err(cache::Error::io("read", &path))?.path());
            }
        }
        bytes += stat.len();
        let (ctime, nanos) = (stat.ctime(), stat.ctime_nsec());
        lines.push(format!(
            "{} {:o} {} {ctime}.{nanos}\n",
            path.display(),
            stat.mode(),
            stat.len()
        ));
    }
    lines.sort();
    Ok(Content {
        fingerprint: digest(&lines.concat()),
        bytes,
    })
}

/// Does what packages' scripts would have done, as far as it is of use.
fn finish(tree: &Path) -> Result<(), Error> {
    for name in MOUNTPOINTS.iter().chain(&["etc"]) {
        unpack::plain_folder(&tree.join(name))?;
    }
    for (name, content) in ETC {
        let file = tree.join("etc").join(name);
        fs::write(&file, content).map_err(cache::Error::io("write", &file))?;
        unpack::open(&file, 0o644)?;
    }
    link_programs(tree)?;
    link_applets(tree)
}

/// Lets busybox, where it is, be every program that no package brought: what a
/// person who opens a shell there reaches for.
fn link_applets(tree: &Path) -> Result<(), Error> {
    let bin = tree.join("usr/bin");
    let Ok(program) = fs::read(bin.join("busybox")) else {
        return Ok(());
    };
    for applet in busybox::applets(&program) {
        let link = bin.join(applet);
        let there = [&link, &tree.join("usr/sbin").join(applet)];
        if there.iter().all(|path| path.symlink_metadata().is_err()) {
            symlink("busybox", &link).map_err(cache::Error::io("link", &link))?;
        }
    }
    Ok(())
}

/// Makes [`LINKS`] where they are missing.
pub(super) fn link_programs(tree: &Path) -> Result<(), Error> {
    let bin = tree.join("usr/bin");
    for (name, programs) in LINKS {
        let link = bin.join(name);
        let served = programs.iter().find(|program| bin.join(program).exists());
        // Not `exists`, which would look for a link's target on the host.
        let there = link.symlink_metadata().is_ok();
        if let (false, Some(program)) = (there, served) {
            symlink(program, &link).map_err(cache::Error::io("link", &link))?;
        }
    }
    Ok(())
}

/// A short name for a long text: the first 64 bits of its SHA-256.
pub(super) fn digest(text: &str) -> String {
    hex(&Sha256::digest(text))
}

/// The first 64 bits of a hash in hexadecimal.
pub(crate) fn hex(hash: &[u8]) -> String {
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_another_when_something_in_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "12345").unwrap();
        let now = || content(folder.path()).unwrap().fingerprint;
        let first = now();
        assert_eq!(now(), first);
        // The same length, and the same time of writing.
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&file, "54321").unwrap();
        let open = fs::File::options().write(true).open(&file).unwrap();
        open.set_modified(written).unwrap();
        assert_ne!(now(), first);
        let second = now();
        symlink("file", folder.path().join("link")).unwrap();
        assert_ne!(now(), second);
    }
}
