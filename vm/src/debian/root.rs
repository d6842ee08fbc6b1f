//! The root that the guest's programs run in.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::apt::{self, Apt, Deb};
use super::{Debian, Error, pack, plan, unpack};
use crate::cache;

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

/// A root of Debian packages, unpacked only (no package's script has run), in a
/// read-only erofs image that belongs to root.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Root {
    /// The image, to be attached as a disk and mounted at `/`.
    pub image: PathBuf,
    /// The suite it is from: `trixie`.
    pub suite: String,
    /// Every package in it with its version, dependencies included.
    pub packages: Vec<(String, String)>,
}

/// What a root is made of.
#[derive(Serialize, Deserialize)]
struct Plan {
    debs: Vec<Deb>,
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
        let mut names: Vec<String> = packages.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        let name = format!("root-{suite}-{}", digest(&names.join(" ")));
        plan::follow(
            debian,
            &name,
            &format!("a root of Debian {suite}"),
            |lists| {
                let debs = Apt::new(debian, &[suite], lists)?.with_dependencies(&names)?;
                Ok(Plan { debs })
            },
            |plan: &Plan| Self::make(debian, suite, plan),
        )
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
        let files: Vec<&str> = plan.debs.iter().map(|deb| deb.file.as_str()).collect();
        // The recipe is part of what it makes: a change here makes roots anew.
        let recipe = format!("{MOUNTPOINTS:?}{ETC:?}{LINKS:?}applets{}", files.join(" "));
        let key = format!("{suite}-{}", digest(&recipe));
        let bytes: u64 = plan.debs.iter().map(|deb| deb.bytes).sum();
        // Unpacked some four and a half times the packages, and as much again as
        // an image, for a while beside each other and the packages.
        let folder = debian.cache.artefact("root", &key, bytes * 10, |folder| {
            let what = format!("the guest's root, Debian {suite}");
            let debs = apt::fetch(&debian.cache, &what, &plan.debs)?;
            let tree = folder.join("tree");
            unpack::packages(&debs, &what, &tree)?;
            finish(&tree)?;
            pack::image(debian, &tree, &folder.join("root.erofs"))?;
            Ok::<(), Error>(cache::remove(&tree)?)
        })?;
        Ok(Self {
            image: folder.join("root.erofs"),
            suite: suite.to_owned(),
            packages: plan
                .debs
                .iter()
                .map(|deb| (deb.package.clone(), deb.version.clone()))
                .collect(),
        })
    }
}

/// Does what packages' scripts would have done, as far as it is of use.
fn finish(tree: &Path) -> Result<(), Error> {
    for name in MOUNTPOINTS.iter().chain(&["etc"]) {
        let folder = tree.join(name);
        fs::create_dir_all(&folder).map_err(cache::Error::io("make the folder", &folder))?;
    }
    for (name, content) in ETC {
        let file = tree.join("etc").join(name);
        fs::write(&file, content).map_err(cache::Error::io("write", &file))?;
    }
    link_programs(tree)?;
    link_applets(tree)
}

/// Lets busybox, where it is, be every program that no package brought: what a
/// person who opens a shell there reaches for.
fn link_applets(tree: &Path) -> Result<(), Error> {
    let bin = tree.join("usr/bin");
    // Asked of itself; it is static, but may be built for another processor.
    let mut list = super::run::program(&bin.join("busybox").to_string_lossy());
    list.arg("--list");
    let Ok(applets) = super::run::run(&mut list) else {
        return Ok(());
    };
    for applet in applets.lines() {
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
pub(super) fn hex(hash: &[u8]) -> String {
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
