//! What a VM is made of, from Debian packages: a kernel, a root to run programs
//! in, and modules built for that kernel, on any Debian host and without
//! touching it.
//!
//! Everything is fetched by the host's own apt into a folder of its own (other
//! suites than the host's included), checked against the archive's signatures,
//! unpacked without running a package's scripts, and kept in the
//! [cache]. What is there is never fetched again, so a warm cache
//! needs no network.
//!
//! ```no_run
//! // Not run with the crate's tests: fetches some 200 MB.
//! use dmashare_vm::cache::Cache;
//! use dmashare_vm::debian::{Debian, Kernel, Root, build_module, host};
//!
//! let debian = Debian::new(Cache::open()?, None);
//! host::ensure(&debian, host::Consent::from_environment(false))?;
//! let kernel = Kernel::prepare(&debian, "7.2")?;
//! let root = Root::prepare(&debian, "trixie", &["kmod", "busybox-static"])?;
//! println!("{} boots {}", kernel.vmlinux.display(), root.image.display());
//! let module = build_module(&debian, &kernel, "path/to/kbuild".as_ref())?;
//! # let _ = module;
//! # Ok::<(), dmashare_vm::debian::Error>(())
//! ```
//!
//! Low to high: `run` (child processes); `mirror`, `apt` (fetching), `plan` (what
//! was decided, so that it need not be decided again), `unpack`; `tools` (the
//! programs that it takes, the host's or a copy) and [`host`] (how it gets them);
//! `pack`; `pins` (what `vm.lock` says); then what is made: `bzimage` and `modules`
//! for [`Kernel`], `own` for a user's own, `disk` and [`Root`], [`source`],
//! `toolchain` (what builds), `compile` (kernels from source, configured by
//! `kconfig`), [`build_module`], [`build_program`], `init` (the guest's process 1),
//! [`check_module`], [`check_module_32_bit`] (by `armhf`),
//! [`check_module_clang`] and [`check_style`] with `findings`; and `kept`, which tells
//! what of all that is still of use.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::Arch;
use crate::cache::{self, Cache};

mod apt;
mod armhf;
mod build;
mod busybox;
mod bzimage;
mod check;
mod clang;
mod compile;
mod disk;
mod findings;
pub mod host;
mod init;
mod kconfig;
mod kept;
mod kernel;
mod mirror;
mod modules;
mod own;
mod pack;
mod pins;
mod plan;
mod program;
mod root;
mod run;
mod source;
mod sources;
mod toolchain;
mod tools;
mod tree;
mod unpack;

pub use build::build_module;
pub use check::{check_module, check_module_32_bit, check_style};
pub use clang::check_module_clang;
pub(crate) use disk::FileSystem;
pub use findings::Findings;
use host::Consent;
pub(crate) use kept::clean;
pub use kept::{Named, named, remove_kernel, stale};
pub use kernel::Kernel;
pub(crate) use kernel::known_names;
pub(crate) use modules::Index;
pub(crate) use own::is_path;
pub use pins::{FILE as LOCK_FILE, Pins};
pub use program::build_program;
pub use root::Root;
pub(crate) use root::hex;
pub use source::source;
pub(crate) use tools::{Tool, installed};

/// Where packages come from and where what is made of them is kept.
///
/// ```
/// use dmashare_vm::{cache::Cache, debian::Debian};
///
/// // The mirror is asked from the host's apt when something is to be fetched.
/// let debian = Debian::new(Cache::open()?, None);
/// # Ok::<(), dmashare_vm::cache::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Debian {
    cache: Cache,
    mirror: Option<String>,
    arch: Arch,
    pins: Arc<Pins>,
    /// The copies of programs that were looked at and are whole, by their plans'
    /// names.
    copies: Arc<Mutex<BTreeMap<String, PathBuf>>>,
}

impl Debian {
    /// Packages from `mirror` (`http://HOST/debian`), or from the mirror that
    /// the host's apt configuration names; kept in `cache`.
    #[must_use]
    pub fn new(cache: Cache, mirror: Option<String>) -> Self {
        Self {
            cache,
            mirror,
            arch: Arch::default(),
            pins: Arc::default(),
            copies: Arc::default(),
        }
    }

    /// The user's cache and `mirror`, for guests of this architecture, where the
    /// host has what these take, or gets it as far as `consent` goes.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub(crate) fn open(
        mirror: Option<String>,
        arch: Arch,
        consent: Consent,
    ) -> Result<Self, Error> {
        let debian = Self::new(Cache::open()?, mirror).for_arch(arch);
        host::ensure(&debian, consent)?;
        Ok(debian)
    }

    /// The same, where kernels and roots are to be these and no others. Pins are
    /// for [`Arch::X86_64`]: guests of another architecture have none.
    #[must_use]
    pub fn pinned(mut self, pins: Pins) -> Self {
        self.pins = match self.arch {
            Arch::HOST => Arc::new(pins),
            _ => Arc::default(),
        };
        self
    }

    /// The same for guests of this architecture: [`Kernel`], [`Root`],
    /// [`build_module`] and [`build_program`] make what runs there. To be said
    /// before [`pinned`](Debian::pinned).
    ///
    /// ```
    /// use dmashare_vm::{Arch, cache::Cache, debian::Debian};
    ///
    /// let debian = Debian::new(Cache::open()?, None).for_arch(Arch::Aarch64);
    /// assert_eq!(debian.arch(), Arch::Aarch64);
    /// # Ok::<(), dmashare_vm::cache::Error>(())
    /// ```
    #[must_use]
    pub fn for_arch(mut self, arch: Arch) -> Self {
        self.arch = arch;
        self.pins = Arc::default();
        self
    }

    /// What its guests are.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The cache that it fills.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}

/// Why a part of the VM cannot be had. Each message is one line and says what
/// to do, but for [`Error::Build`], which shows the compiler's words whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The cache cannot serve.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// A program of the host is not there.
    #[error("{program}: not found; {}", host::advice(&[.program.as_str()]))]
    NoProgram {
        /// Its name.
        program: String,
    },
    /// Programs are missing on the host that it cannot be given.
    #[error("missing on this host: {}; {}", .programs.join(", "), .advice)]
    NotInstalled {
        /// The programs that are missing.
        programs: Vec<String>,
        /// The command to run, or what else to do.
        advice: String,
    },
    /// A program of the host failed.
    #[error("{program}: {said}")]
    Program {
        /// Its name.
        program: String,
        /// What it said last, or its exit status.
        said: String,
    },
    /// The host's apt names no mirror.
    #[error(
        "no Debian mirror: {reason}; choose one with --mirror URL, such as the URIs line of a Debian machine's sources"
    )]
    NoMirror {
        /// What was found in its place.
        reason: String,
    },
    /// The mirror did not give what is needed.
    #[error(
        "cannot fetch {what}: {said}; connect to the network or choose another mirror with --mirror URL, and run again: what was fetched is kept"
    )]
    Fetch {
        /// What was to be fetched.
        what: String,
        /// What apt said.
        said: String,
    },
    /// No such packages in the suite.
    #[error("Debian {suite}: {said}")]
    Packages {
        /// The suite that was asked.
        suite: String,
        /// What apt said.
        said: String,
    },
    /// No such kernel.
    #[error("no kernel \"{name}\"; known: {known}, or debian:SUITE for a suite's own")]
    NoKernel {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A kernel of the user's own cannot be booted.
    #[error("kernel {}: {problem}", .path.display())]
    OwnKernel {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A root of the user's own cannot be used.
    #[error("root {}: {problem}", .path.display())]
    OwnRoot {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// `vm.lock` cannot be read or written, or does not fit.
    #[error("{}: {problem}", .file.display())]
    Lock {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A pinned package is not on the mirror any more.
    #[error(
        "{what} is pinned by {LOCK_FILE} and gone from the mirror: {gone}; it is of Debian {suite}; `cargo vm kernel lock --update {name}` moves on, and --mirror URL can name an archive that still has it"
    )]
    Gone {
        /// What is made of it.
        what: String,
        /// The packages that are gone, with what is there now.
        gone: String,
        /// The suite, and its kernel now.
        suite: String,
        /// The name to move on.
        name: String,
    },
    /// What is pinned and what is there are not the same.
    #[error("{what}: {problem}")]
    Pinned {
        /// What is pinned.
        what: String,
        /// How they differ.
        problem: String,
    },
    /// The cache has no such kernel.
    #[error("kernel {name} is not in the cache")]
    NotThere {
        /// Its name.
        name: String,
    },
    /// Something in the cache is not to be removed now.
    #[error("{what} is in use by a running guest or build; end it, and run again")]
    InUse {
        /// What it is.
        what: String,
    },
    /// A package does not look as this crate knows it.
    #[error("{}: {problem}; please report it with the package's version", .path.display())]
    Unexpected {
        /// The file or folder in question.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No such module for the kernel.
    #[error("kernel {release} has no module \"{name}\"{close}")]
    NoModule {
        /// The kernel's release.
        release: String,
        /// The name that was asked for.
        name: String,
        /// `; did you mean ...`, or nothing.
        close: String,
    },
    /// No such source.
    #[error(
        "no source of kernel \"{version}\"; give a series, such as 7.2, whose package linux-source-X.Y Debian has now"
    )]
    NoSource {
        /// The version that was asked for.
        version: String,
    },
    /// No 32-bit kernel of the same series to compile a module for.
    #[error("kernel {release}: no 32-bit build: {problem}")]
    No32Bit {
        /// The release of the 64-bit kernel.
        release: String,
        /// Why there is none.
        problem: String,
    },
    /// A kernel cannot be configured so.
    #[error("kernel {name}: {problem}")]
    Config {
        /// Its name.
        name: String,
        /// What is wrong, or did not come out as asked.
        problem: String,
    },
    /// A module's source does not compile, or is no module's source.
    #[error("{}: building for {release} failed\n{log}", .source_dir.display())]
    Build {
        /// The folder of its sources.
        source_dir: PathBuf,
        /// The kernel's release.
        release: String,
        /// Everything that make and the compiler said.
        log: String,
    },
}
