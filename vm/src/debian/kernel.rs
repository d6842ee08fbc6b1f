//! Debian's stock kernels.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::apt::{self, Apt, Deb, Lists, Stanza};
use super::compile::DEBUG;
use super::disk::FileSystem;
use super::modules::{Index, Texts};
use super::own::{self, Own};
use super::pins::{self, Pinned};
use super::root::digest;
use super::{Debian, Error, bzimage, pack, plan, run, unpack};
use crate::Arch;
use crate::cache;
use crate::progress::note;

/// Where a version is to be found, most likely. Suites move on: the others are
/// looked at next.
pub(super) const SUITES: [(&str, &str); 4] = [
    ("6.12", "trixie"),
    ("7.2", "sid"),
    ("7.3", "trixie-backports"),
    ("6.1", "bookworm"),
];

/// What kernels are called in the cache.
pub(super) const KIND: &str = "kernel";

/// What packages of kernels are called: this and the release; and the one that
/// names a suite's current kernel, of the plain flavour: this and the
/// architecture.
const IMAGE: &str = "linux-image-";

/// Made of the packages: about so many times their size, at most. Modules are
/// unpacked and packed again while both are there; the ELF kernel is four times
/// its image.
const GROWTH: u64 = 4;

/// A kernel, ready to boot.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Kernel {
    /// The name it was asked for by: `7.2`, `debian:sid`, `./linux`.
    pub name: String,
    /// What `uname -r` says in it: `7.2.13+deb14-amd64`.
    pub release: String,
    /// The version of its Debian packages: `7.2.13-1`; for one of the user's
    /// own, a hash that changes when it is built anew.
    pub package_version: String,
    /// The suite it is from: `sid`. What is built for it is built there. Empty
    /// for one of the user's own.
    pub suite: String,
    /// What is booted: the uncompressed ELF kernel, by its PVH note; the bzImage
    /// of one that was built from source; the uncompressed `Image` of arm64.
    pub vmlinux: PathBuf,
    /// The folder that has `lib/modules/RELEASE`, with depmod's files.
    pub modules: PathBuf,
    /// A read-only erofs image of `lib/modules/RELEASE`, to be mounted at
    /// `/usr/lib/modules/RELEASE`.
    pub image: PathBuf,
    /// Whether it checks itself so thoroughly that it takes more memory and
    /// time: one built from source.
    pub debug: bool,
    /// What modules are built against, where it was built from source.
    pub(crate) headers: Option<PathBuf>,
    /// Where it is from, for one of the user's own.
    pub(crate) own: Option<Own>,
    /// What it was made by, and so what boots it.
    pub(crate) debian: Debian,
}

/// Which packages a kernel is of.
#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) suite: String,
    pub(super) release: String,
    pub(super) version: String,
    pub(super) debs: Vec<Deb>,
}

/// What stands for the kernel of this artefact in the names of what is made for it.
/// Releases do not: a kernel of one's own can have that of Debian's.
pub(super) fn ident(kind: &str, key: &str) -> String {
    digest(&format!("{kind}/{key}"))
}

impl Plan {
    /// The artefact's key.
    pub(super) fn key(&self) -> String {
        format!("{}_{}", self.release, self.version)
    }
}

impl Kernel {
    /// The kernel called `name`, from the cache or fetched now: a version or the
    /// beginning of one (`6.12`, `7.2.13`), `debian:SUITE` for the suite's
    /// current one, `debug` for the one that [`Kernel::build`] makes, or a path
    /// (with a `/` in it) for [`Kernel::of_path`]. Once fetched, the same name
    /// stays the same kernel until [`Kernel::update`]; where `debian` has
    /// [pins](super::Pins), it is the pinned one.
    ///
    /// # Errors
    /// [`Error::NoKernel`] with the known names; [`Error::Fetch`] without
    /// network where it is not cached; [`Error::Gone`] for a pinned one that the
    /// mirror has no more; else [`Error`].
    ///
    /// ```no_run
    /// // Not run with the crate's tests: fetches some 110 MB.
    /// use dmashare_vm::{cache::Cache, debian::{Debian, Kernel}};
    ///
    /// let debian = Debian::new(Cache::open()?, None);
    /// let kernel = Kernel::prepare(&debian, "6.12")?;
    /// println!("{}: {}", kernel.identity(), kernel.vmlinux.display());
    /// # Ok::<(), dmashare_vm::debian::Error>(())
    /// ```
    pub fn prepare(debian: &Debian, name: &str) -> Result<Self, Error> {
        if name == DEBUG {
            return Self::build(debian, name, &[]);
        }
        if own::is_path(name) {
            return Self::of_path(debian, Path::new(name));
        }
        let wanted = Wanted::of(name)?;
        if let Some(plan) = debian.pins.kernel(name) {
            return Self::make_pinned(debian, name, &plan);
        }
        let before = plan::recorded::<Plan>(debian, &Self::plan_name(debian, name));
        let kernel = plan::follow(
            debian,
            &Self::plan_name(debian, name),
            &format!("kernel {name}"),
            |lists| find(debian, name, &wanted, lists),
            |plan| Self::make(debian, name, plan),
        )?;
        if let Some(before) = before.filter(|before| before.key() != kernel.key()) {
            note(&format!(
                "kernel {name} was {} ({}), which the mirror has no more, and is {} ({}) now",
                before.release, before.version, kernel.release, kernel.package_version
            ));
        }
        Ok(kernel)
    }

    /// The kernel that Debian has under `name` at this moment: from now on the
    /// name stands for it. What it stood for before stays in the cache.
    ///
    /// # Errors
    /// As [`Kernel::prepare`]; and a name that is not one of Debian's.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: fetches some 110 MB.
    /// use dmashare_vm::{cache::Cache, debian::{Debian, Kernel}};
    ///
    /// let debian = Debian::new(Cache::open()?, None);
    /// println!("{}", Kernel::update(&debian, "debian:sid")?.identity());
    /// # Ok::<(), dmashare_vm::debian::Error>(())
    /// ```
    pub fn update(debian: &Debian, name: &str) -> Result<Self, Error> {
        let wanted = Wanted::of(name)?;
        plan::renew(
            debian,
            &Self::plan_name(debian, name),
            &format!("kernel {name}"),
            |lists| find(debian, name, &wanted, lists),
            |plan| Self::make(debian, name, plan),
        )
    }

    /// Which kernel it is, in a line: `7.2.13+deb14-amd64 (7.2.13-1, debian
    /// sid)`.
    #[must_use]
    pub fn identity(&self) -> String {
        let (release, version) = (&self.release, &self.package_version);
        match (&self.own, &self.headers) {
            (Some(own), _) => format!("{release} ({})", own.path.display()),
            (None, Some(_)) => format!("{release} ({version}, built from debian {})", self.suite),
            (None, None) => format!("{release} ({version}, debian {})", self.suite),
        }
    }

    /// What stands for this very kernel in the names of what is made for it.
    pub(crate) fn ident(&self) -> String {
        let inside = self.vmlinux.strip_prefix(self.debian.cache.folder());
        let mut parts = inside.unwrap_or(&self.vmlinux).iter();
        let mut next = || parts.next().unwrap_or_default().to_string_lossy();
        ident(&next(), &next())
    }

    /// What it is called in the cache, where it is made of packages.
    pub(super) fn key(&self) -> String {
        format!("{}_{}", self.release, self.package_version)
    }

    /// The modules called `names` with all that they need, uncompressed, in an
    /// order in which they load: each with its file's name, `bochs.ko`. Names
    /// that are built into the kernel give nothing; of `cirrus|cirrus-qemu` the
    /// first counts that the kernel has.
    ///
    /// # Errors
    /// [`Error::NoModule`] for a name that this kernel does not have.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: fetches some 110 MB.
    /// use dmashare_vm::{cache::Cache, debian::{Debian, Kernel}};
    ///
    /// let kernel = Kernel::prepare(&Debian::new(Cache::open()?, None), "6.12")?;
    /// for (name, bytes) in kernel.module_files(&["bochs"])? {
    ///     println!("insmod {name}: {} bytes", bytes.len());
    /// }
    /// # Ok::<(), dmashare_vm::debian::Error>(())
    /// ```
    pub fn module_files(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>, Error> {
        self.read_modules(&self.index()?, names)
    }

    /// What there is of modules.
    pub(crate) fn index(&self) -> Result<Index, Error> {
        let folder = self.modules_folder();
        let text = |name: &str| {
            let file = folder.join(name);
            let bytes = fs::read(&file).map_err(cache::Error::io("read", file))?;
            Ok::<_, Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Index::parse(Texts {
            dep: &text("modules.dep")?,
            softdep: &text("modules.softdep")?,
            alias: &text("modules.alias")?,
            builtin: &text("modules.builtin.modinfo")?,
        }))
    }

    /// Whether it can mount the root in `image`.
    pub(crate) fn can_mount(
        &self,
        index: &Index,
        kind: FileSystem,
        image: &Path,
    ) -> Result<(), Error> {
        if index.has(kind.name()) {
            return Ok(());
        }
        Err(Error::OwnRoot {
            path: image.to_path_buf(),
            problem: format!(
                "kernel {} has no {} to mount it by; a folder is packed as erofs, which every guest can",
                self.release,
                kind.name()
            ),
        })
    }

    /// The first of `names` (`cirrus|cirrus-qemu`) that the kernel has.
    pub(crate) fn first_module<'n>(&self, index: &Index, names: &'n str) -> Result<&'n str, Error> {
        index
            .first(names)
            .ok_or_else(|| self.no_module(index, names.to_owned()))
    }

    /// As [`Kernel::module_files`], where the index is at hand.
    pub(crate) fn read_modules(
        &self,
        index: &Index,
        names: &[&str],
    ) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let folder = self.modules_folder();
        let paths = index
            .load_order(names)
            .map_err(|name| self.no_module(index, name))?;
        paths
            .into_iter()
            .map(|path| {
                let file = folder.join(&path);
                let data = fs::read(&file).map_err(cache::Error::io("read", &file))?;
                let module = bzimage::decompress(&data).map_err(|error| Error::Unexpected {
                    path: file,
                    problem: error.to_string(),
                })?;
                let name = path.rsplit('/').next().unwrap_or(&path);
                let stem = name.split_once(".ko").map_or(name, |(stem, _)| stem);
                Ok((format!("{stem}.ko"), module))
            })
            .collect()
    }

    fn modules_folder(&self) -> PathBuf {
        self.modules.join("lib/modules").join(&self.release)
    }

    fn no_module(&self, index: &Index, name: String) -> Error {
        let close: Vec<&str> = name.split('|').flat_map(|n| index.close_to(n)).collect();
        Error::NoModule {
            release: self.release.clone(),
            close: match close.as_slice() {
                [] if self.own.is_some() && index.is_empty() => {
                    "; it came without modules: give the folder that it was built in".to_owned()
                }
                [] => String::new(),
                close => format!("; did you mean {}?", close.join(", ")),
            },
            name,
        }
    }

    /// What the plan of the kernel called `name` is called.
    pub(super) fn plan_name(debian: &Debian, name: &str) -> String {
        format!("kernel-{}{}", name.replace(':', "-"), debian.arch.suffix())
    }

    fn make(debian: &Debian, name: &str, plan: &Plan) -> Result<Self, Error> {
        let what = format!("kernel {}, Debian {}", plan.release, plan.suite);
        let fetch = || apt::fetch(&debian.cache, &what, &plan.debs);
        Self::make_of(debian, name, plan, &what, fetch)
    }

    fn make_pinned(debian: &Debian, name: &str, plan: &Plan) -> Result<Self, Error> {
        let what = format!("kernel {name} ({}, {})", plan.release, plan.version);
        let pinned = Pinned {
            what: &what,
            name,
            suite: &plan.suite,
        };
        let fetch = || pinned.fetch(debian, &plan.debs);
        let kernel = Self::make_of(debian, name, plan, &what, fetch)?;
        pinned.check(&kernel.modules, &plan.debs)?;
        Ok(kernel)
    }

    fn make_of(
        debian: &Debian,
        name: &str,
        plan: &Plan,
        what: &str,
        fetch: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let bytes: u64 = plan.debs.iter().map(|deb| deb.bytes).sum();
        let need = bytes * GROWTH;
        let folder = debian.cache.artefact(KIND, &plan.key(), need, |folder| {
            fetch()?;
            assemble(debian, plan, what, folder)?;
            pins::note_packages(folder, &plan.debs)
        })?;
        Ok(Self {
            name: name.to_owned(),
            release: plan.release.clone(),
            package_version: plan.version.clone(),
            suite: plan.suite.clone(),
            vmlinux: folder.join("vmlinux"),
            image: folder.join("modules.erofs"),
            modules: folder,
            debug: false,
            headers: None,
            own: None,
            debian: debian.clone(),
        })
    }
}

/// A kernel's name, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Suite(String),
    Version(String),
}

impl Wanted {
    fn of(name: &str) -> Result<Self, Error> {
        Self::parse(name).ok_or_else(|| Error::NoKernel {
            name: name.to_owned(),
            known: known(&[]),
        })
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        if let Some(suite) = name.strip_prefix("debian:") {
            return (!suite.is_empty()).then(|| Self::Suite(suite.to_owned()));
        }
        // `6.12`, `6.12.107`, `6.12.107+deb13-amd64`: whatever else it is, no
        // lists need to be fetched to know that there is none.
        let (major, rest) = name.split_once('.')?;
        let number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let plain = |c: char| c.is_ascii_alphanumeric() || ".+-~".contains(c);
        (number(major) && number(rest) && name.chars().all(plain))
            .then(|| Self::Version(name.to_owned()))
    }

    /// The suites to look at, in order.
    pub(super) fn suites(&self) -> Vec<&str> {
        match self {
            Self::Suite(suite) => vec![suite],
            Self::Version(version) => {
                let hinted = |known: &str| begins(version, known);
                let (hinted, others): (Vec<_>, Vec<_>) =
                    SUITES.iter().partition(|(known, _)| hinted(known));
                hinted
                    .iter()
                    .chain(&others)
                    .map(|(_, suite)| *suite)
                    .collect()
            }
        }
    }

    fn fits(&self, release: &str) -> bool {
        match self {
            Self::Suite(_) => true,
            Self::Version(version) => begins(release, version),
        }
    }
}

/// Whether `release` is `version` or begins with it and a separator: 6.12.1
/// does not begin with 6.1.
fn begins(release: &str, version: &str) -> bool {
    release
        .strip_prefix(version)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '+', '-']))
}

/// The names that there are on every machine.
pub(crate) fn known_names() -> Vec<String> {
    let mut suites = SUITES;
    // As they follow each other.
    suites.sort_by_key(|(version, _)| {
        let number = |text: &str| text.parse::<u32>().unwrap_or(0);
        let (major, minor) = version.split_once('.').unwrap_or((version, ""));
        (number(major), number(minor))
    });
    let versions = suites.iter().map(|(version, _)| (*version).to_owned());
    let of_suites = suites.iter().map(|(_, suite)| format!("debian:{suite}"));
    versions
        .chain(of_suites)
        .chain([DEBUG.to_owned()])
        .collect()
}

/// The names that there are: those seen in the lists, else those expected.
fn known(seen: &[String]) -> String {
    if !seen.is_empty() {
        return seen.join(", ");
    }
    let mut names = SUITES.map(|(version, suite)| format!("{version} ({suite})"));
    names.sort();
    names.join(", ")
}

/// Looks for the kernel in the suites' lists.
fn find(debian: &Debian, name: &str, wanted: &Wanted, lists: Lists) -> Result<Plan, Error> {
    let mut seen = Vec::new();
    for suite in wanted.suites() {
        let apt = Apt::of_guest(debian, &[suite], lists)?;
        let Some(current) = current(&apt, debian.arch)? else {
            continue;
        };
        let release = match wanted.fits(&current) {
            true => Some(current.clone()),
            // A suite has some of those that were current before, too.
            false => newest(&apt.names(IMAGE)?, debian.arch, wanted).map(str::to_owned),
        };
        let Some(release) = release else {
            seen.push(format!("{current} ({suite})"));
            continue;
        };
        let image = format!("{IMAGE}{release}");
        let stanza = apt.show(&image)?.unwrap_or_default();
        let debs = apt.alone(&parts(&stanza, &release))?;
        return Ok(Plan {
            suite: suite.to_owned(),
            version: stanza.get("Version").cloned().unwrap_or_default(),
            release,
            debs,
        });
    }
    Err(Error::NoKernel {
        name: name.to_owned(),
        known: known(&seen),
    })
}

/// The release of a suite's current kernel.
pub(super) fn current(apt: &Apt, arch: Arch) -> Result<Option<String>, Error> {
    let package = format!("{IMAGE}{}", arch.debian());
    Ok(apt.show(&package)?.as_ref().and_then(release_of))
}

/// The release that a package `linux-image-ARCH` depends on.
fn release_of(current: &Stanza) -> Option<String> {
    depends(current)
        .find_map(|package| package.strip_prefix(IMAGE))
        .map(str::to_owned)
}

/// The newest release of the plain flavour that is wanted, among the names of
/// packages: neither `6.12.107+deb13-rt-amd64` nor `6.12.107+deb13-amd64-dbg`.
fn newest<'n>(packages: &'n [String], arch: Arch, wanted: &Wanted) -> Option<&'n str> {
    let plain = |release: &&str| {
        let version = release
            .strip_suffix(arch.debian())
            .and_then(|version| version.strip_suffix('-'));
        // A flavour is a word.
        version
            .and_then(|version| version.rsplit('-').next())
            .is_some_and(|last| last.contains(|c: char| c.is_ascii_digit()))
    };
    packages
        .iter()
        .filter_map(|package| package.strip_prefix(IMAGE))
        .filter(plain)
        .filter(|release| wanted.fits(release))
        .max_by_key(|release| numbers(release))
}

/// The numbers in a release, by which one is newer than another.
fn numbers(release: &str) -> Vec<u64> {
    release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// The packages that the kernel and its modules are in. Up to 6.12 one has it
/// all; since then `linux-image-RELEASE` is empty and depends on others of the
/// same release.
fn parts(image: &Stanza, release: &str) -> Vec<String> {
    let parts: Vec<String> = depends(image)
        .filter(|package| package.starts_with("linux-") && package.ends_with(release))
        .map(str::to_owned)
        .collect();
    if parts.is_empty() {
        vec![format!("{IMAGE}{release}")]
    } else {
        parts
    }
}

/// The names of a package's direct dependencies, the first of alternatives.
pub(super) fn depends(stanza: &Stanza) -> impl Iterator<Item = &str> {
    stanza
        .get("Depends")
        .map_or("", String::as_str)
        .split(',')
        .filter_map(|dependency| dependency.split_whitespace().next())
}

/// Makes of the packages what [`Kernel`] has.
fn assemble(debian: &Debian, plan: &Plan, what: &str, folder: &Path) -> Result<(), Error> {
    let release = &plan.release;
    let tree = folder.join("tree");
    unpack::packages(&debian.cache, &plan.debs, what, &tree)?;
    let unpacked = tree.join("usr/lib/modules").join(release);

    let places = [
        unpacked.join("vmlinuz"),
        tree.join(format!("boot/vmlinuz-{release}")),
    ];
    let image = places
        .iter()
        .find(|place| place.is_file())
        .ok_or_else(|| Error::Unexpected {
            path: plan
                .debs
                .first()
                .map_or_else(PathBuf::new, |deb| deb.place(&debian.cache)),
            problem: "no vmlinuz in the kernel's packages".to_owned(),
        })?;
    let data = fs::read(image).map_err(cache::Error::io("read", image))?;
    let vmlinux = match debian.arch {
        Arch::X86_64 => bzimage::vmlinux(&data),
        Arch::Aarch64 => arm64_image(data),
    };
    let vmlinux = vmlinux.map_err(|problem| Error::Unexpected {
        path: image.clone(),
        problem,
    })?;
    let file = folder.join("vmlinux");
    fs::write(&file, vmlinux).map_err(cache::Error::io("write", file))?;
    cache::remove(image)?;

    add_modules(debian, &unpacked, release, folder)?;
    Ok(cache::remove(&tree)?)
}

/// arm64's `Image` as it is: Debian does not compress it, and it is what QEMU
/// boots (Documentation/arch/arm64/booting.rst, "Call the kernel image").
fn arm64_image(data: Vec<u8>) -> Result<Vec<u8>, String> {
    match data.get(0x38..0x3c) {
        Some(b"ARM\x64") => Ok(data),
        _ => Err("no uncompressed arm64 image: its magic number is missing".to_owned()),
    }
}

/// Moves the modules in `from` into the kernel in `folder`, and makes an image
/// of them.
pub(super) fn add_modules(
    debian: &Debian,
    from: &Path,
    release: &str,
    folder: &Path,
) -> Result<(), Error> {
    let modules = folder.join("lib/modules").join(release);
    fs::create_dir_all(folder.join("lib/modules"))
        .map_err(cache::Error::io("make the folder", &modules))?;
    fs::rename(from, &modules).map_err(cache::Error::io("rename", from))?;
    run::run(
        debian
            .tool("depmod")?
            .command(run::program)
            .arg("--basedir")
            .arg(folder)
            .arg(release),
    )?;
    pack::image(debian, &modules, &folder.join("modules.erofs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(depends: &str) -> Stanza {
        Stanza::from([("Depends".to_owned(), depends.to_owned())])
    }

    #[test]
    fn names_are_understood_or_refused_at_once() {
        assert_eq!(Wanted::parse("7.2"), Some(Wanted::Version("7.2".into())));
        assert_eq!(
            Wanted::parse("debian:sid"),
            Some(Wanted::Suite("sid".into()))
        );
        for bad in [
            "",
            "foo",
            "7",
            "debian:",
            "7.x",
            "7.2/../..",
            "7.2 ",
            "-1.2",
        ] {
            assert_eq!(Wanted::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_version_ends_where_a_number_does() {
        let wanted = |name| Wanted::parse(name).unwrap();
        assert!(wanted("6.1").fits("6.1.0-44-amd64"));
        assert!(!wanted("6.1").fits("6.12.107+deb13-amd64"));
        assert!(wanted("7.2.13").fits("7.2.13+deb14-amd64"));
        assert!(wanted("debian:sid").fits("anything"));
    }

    #[test]
    fn the_likely_suite_is_first_and_none_is_left_out() {
        let suites = |name| Wanted::parse(name).unwrap().suites().join(" ");
        assert_eq!(suites("7.3.4"), "trixie-backports trixie sid bookworm");
        assert_eq!(suites("6.1"), "bookworm trixie sid trixie-backports");
        assert_eq!(suites("9.9"), "trixie sid trixie-backports bookworm");
        assert_eq!(suites("debian:forky"), "forky");
    }

    #[test]
    fn of_the_older_kernels_the_newest_that_fits_is_taken() {
        let packages = [
            "linux-image-amd64",
            "linux-image-amd64-signed-template",
            "linux-image-cloud-amd64",
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-50-amd64",
            "linux-image-6.1.0-51-cloud-amd64",
            "linux-image-7.2.9+deb13-amd64",
            "linux-image-7.2.12+deb13-amd64",
            "linux-image-7.2.12+deb13-amd64-dbg",
            "linux-image-7.2.13+deb13-amd64-unsigned",
            "linux-image-7.2.13+deb13-rt-amd64",
            "linux-image-7.2.14+deb13-arm64",
            "linux-image-7.2.15+deb13-arm64-16k",
        ]
        .map(str::to_owned);
        let of = |arch, name| newest(&packages, arch, &Wanted::parse(name).unwrap());
        assert_eq!(of(Arch::X86_64, "7.2"), Some("7.2.12+deb13-amd64"));
        assert_eq!(of(Arch::X86_64, "7.2.9"), Some("7.2.9+deb13-amd64"));
        assert_eq!(of(Arch::X86_64, "6.1"), Some("6.1.0-50-amd64"));
        assert_eq!(of(Arch::Aarch64, "7.2"), Some("7.2.14+deb13-arm64"));
        assert_eq!(of(Arch::X86_64, "7.2.13"), None);
    }

    #[test]
    fn either_layout_of_packages_is_found() {
        let current = stanza("linux-base-amd64 (= 7.2), linux-image-7.2.13+deb14-amd64 (= 7.2)");
        assert_eq!(release_of(&current).unwrap(), "7.2.13+deb14-amd64");

        let old = stanza("kmod, initramfs-tools (>= 0.120) | linux-initramfs-tool");
        assert_eq!(parts(&old, "6.12-amd64"), ["linux-image-6.12-amd64"]);
        let split = stanza(
            "dracut | x, linux-base-7.2-amd64 (= 1), linux-binary-7.2-amd64 (= 1), linux-modules-7.2-amd64 (= 1)",
        );
        assert_eq!(
            parts(&split, "7.2-amd64"),
            [
                "linux-base-7.2-amd64",
                "linux-binary-7.2-amd64",
                "linux-modules-7.2-amd64"
            ]
        );
    }
}
