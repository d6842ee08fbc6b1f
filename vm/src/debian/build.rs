//! Building an out-of-tree module with what its kernel was built with.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::own::Own;
use super::root::hex;
use super::sources::{self, SourceFile, sources};
use super::toolchain::{Scratch, Toolchain};
use super::{Debian, Error, Kernel, armhf, run, tree};
use crate::cache;
use crate::progress::{Progress, note};

/// Where the module's source is, in the scratch folder.
const SOURCE: &str = "source";

/// Where the headers of a kernel are that was built from source, in the scratch
/// folder.
const HEADERS: &str = "headers";

/// Builds the module in `source_dir` (a `Kbuild` or `Makefile` with one `obj-m`
/// target, and all it includes but for the kernel's headers) for `kernel`, with
/// the compiler and libc of the kernel's own suite; for a kernel of the user's
/// own, in its tree with the host's make and compiler, which it was built with:
/// `LLVM=1` for clang, unless `LLVM` is in the environment.
/// Gives the `.ko`, named by its target; the same source for the same kernel is
/// built once.
///
/// As root it needs the right to chroot, else the right to make a user
/// namespace. `source_dir` is only read.
///
/// # Errors
/// [`Error::Build`] with all that the compiler said; else [`Error`].
///
/// ```no_run
/// // Not run with the crate's tests: fetches a compiler of some 90 MB.
/// use dmashare_vm::{cache::Cache, debian::{Debian, Kernel, build_module}};
///
/// let debian = Debian::new(Cache::open()?, None);
/// let kernel = Kernel::prepare(&debian, "6.12")?;
/// let module = build_module(&debian, &kernel, "kmod".as_ref())?;
/// println!("insmod {}", module.display());
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn build_module(debian: &Debian, kernel: &Kernel, source_dir: &Path) -> Result<PathBuf, Error> {
    let sources = sources(source_dir)?;
    let key = format!(
        "{}_{}-{}",
        kernel.release,
        kernel.ident(),
        fingerprint(kernel, &sources)
    );
    let folder = debian
        .cache
        .artefact("module", &key, 100_000_000, |folder| {
            if let Some(own) = &kernel.own {
                return build_on_host(kernel, own, source_dir, &sources, folder);
            }
            let kbuild = Kbuild::new(debian, kernel, source_dir, &sources)?;
            build(&kbuild, folder)
        })?;
    the_module(&folder).ok_or_else(|| Error::Unexpected {
        path: folder,
        problem: "the module is gone".to_owned(),
    })
}

/// A hash of all that decides what the module is.
fn fingerprint(kernel: &Kernel, sources: &[SourceFile]) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        // With its length, so that no two lists of parts read the same.
        hash.update(bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    add(kernel.release.as_bytes());
    add(kernel.package_version.as_bytes());
    for source in sources {
        add(source.path.as_os_str().as_encoded_bytes());
        add(&source.content);
    }
    hex(&hash.finalize())
}

/// A module's source in a root in which its kernel's build works.
pub(super) struct Kbuild<'a> {
    /// The kernel's release.
    release: String,
    /// The folder of its headers, seen from inside of the root.
    headers: String,
    /// make's variables for its architecture.
    variables: &'static [&'static str],
    source_dir: &'a Path,
    toolchain: Toolchain,
    /// One build at a time in one root: it is ours as long as this lives.
    scratch: Scratch,
}

impl<'a> Kbuild<'a> {
    pub(super) fn new(
        debian: &Debian,
        kernel: &Kernel,
        source_dir: &'a Path,
        sources: &[SourceFile],
    ) -> Result<Self, Error> {
        let toolchain = Toolchain::of_modules(debian, kernel)?;
        let release = kernel.release.clone();
        let variables = kernel.debian.arch.kbuild();
        let mut kbuild = Self::of(debian, toolchain, release, variables, source_dir, sources)?;
        if let Some(headers) = &kernel.headers {
            tree::link(headers, &kbuild.scratch.path.join(HEADERS))?;
            kbuild.headers = kbuild.scratch.inside(HEADERS);
        }
        Ok(kbuild)
    }

    /// The same for 32-bit Arm, for the series of `kernel`.
    ///
    /// # Errors
    /// [`Error::No32Bit`] where Debian has no headers of it.
    pub(super) fn for_32_bit(
        debian: &Debian,
        kernel: &Kernel,
        source_dir: &'a Path,
        sources: &[SourceFile],
    ) -> Result<Self, Error> {
        let (toolchain, release) = Toolchain::of_armhf(debian, kernel)?;
        let variables = &armhf::KBUILD;
        Self::of(debian, toolchain, release, variables, source_dir, sources)
    }

    fn of(
        debian: &Debian,
        toolchain: Toolchain,
        release: String,
        variables: &'static [&'static str],
        source_dir: &'a Path,
        sources: &[SourceFile],
    ) -> Result<Self, Error> {
        let scratch = toolchain.scratch(debian, "module")?;
        sources::copy(sources, &scratch.path.join(SOURCE))?;
        Ok(Self {
            headers: format!("/usr/src/linux-headers-{release}"),
            release,
            variables,
            source_dir,
            toolchain,
            scratch,
        })
    }

    /// The release of the kernel that it builds for.
    pub(super) fn release(&self) -> &str {
        &self.release
    }

    /// The scratch folder, for what else make is to find there.
    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The folder of the source as it is built.
    fn folder(&self) -> PathBuf {
        self.scratch.path.join(SOURCE)
    }

    /// Runs make with these arguments, too: whether it came to a good end, and
    /// all that was said, with files named as they are in `source_dir`.
    pub(super) fn make(&self, what: &str, arguments: &[&str]) -> Result<(bool, String), Error> {
        let inside = self.scratch.inside(SOURCE);
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut make = self.toolchain.enter(&self.scratch)?;
        make.args(["make", "modules", "--no-print-directory", "-C"])
            .arg(&self.headers)
            .arg(format!("M={inside}"))
            .arg(format!("-j{jobs}"))
            // Or it asks for the kernel's type information to take the module's
            // from: the stock packages do not all have it.
            .arg("CONFIG_DEBUG_INFO_BTF_MODULES=")
            .args(self.variables)
            .args(arguments);
        let (source, release) = (self.source_dir.display(), &self.release);
        let mut progress = Progress::spinner(&format!("{what} {source} for {release}"));
        let said = run::run_with(&mut make, |_| progress.set(0))?;
        // The compiler names files where it sees them: say where they really are.
        let log = format!("{}{}", said.out, said.err);
        let log = log.replace(&inside, &self.source_dir.to_string_lossy());
        Ok((said.success, log))
    }

    /// The error of a build that said `log`.
    pub(super) fn failed(&self, log: String) -> Error {
        Error::Build {
            source_dir: self.source_dir.to_path_buf(),
            release: self.release.clone(),
            log,
        }
    }
}

/// Builds in the kernel's own tree, which has what it needs or is told to lack
/// it, and moves the module into `folder`.
fn build_on_host(
    kernel: &Kernel,
    own: &Own,
    source_dir: &Path,
    sources: &[SourceFile],
    folder: &Path,
) -> Result<(), Error> {
    let failed = |log: String| Error::Build {
        source_dir: source_dir.to_path_buf(),
        release: kernel.release.clone(),
        log,
    };
    let tree = own.build.as_ref().ok_or_else(|| {
        failed(format!(
            "{} has no tree to build modules in; give the folder that the kernel was built in",
            own.path.display()
        ))
    })?;
    for part in [
        "include/config/auto.conf",
        "Module.symvers",
        "scripts/mod/modpost",
    ] {
        if !tree.join(part).exists() {
            let tree = tree.display();
            return Err(failed(format!(
                "{tree} has no {part}: run `make -C {tree} bzImage modules`"
            )));
        }
    }
    let work = folder.join(SOURCE);
    sources::copy(sources, &work)?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut make = run::program("make");
    make.args(["modules", "--no-print-directory", "-C"])
        .arg(tree)
        .arg(format!("M={}", work.display()))
        .arg(format!("-j{jobs}"))
        .arg("CONFIG_DEBUG_INFO_BTF_MODULES=");
    if is_of_clang(tree)? && std::env::var_os("LLVM").is_none() {
        make.arg("LLVM=1");
    }
    let (source, release) = (source_dir.display(), &kernel.release);
    let mut progress = Progress::spinner(&format!("building {source} for {release}"));
    let said = run::run_with(&mut make, |_| progress.set(0))?;
    drop(progress);
    let log = format!("{}{}", said.out, said.err);
    let log = log.replace(&*work.to_string_lossy(), &source_dir.to_string_lossy());
    if !said.success {
        return Err(failed(log));
    }
    keep(&work, folder, log, failed)?;
    Ok(cache::remove(&work)?)
}

/// Whether the kernel in `tree` was built with clang, as its modules must be.
fn is_of_clang(tree: &Path) -> Result<bool, Error> {
    let file = tree.join("include/config/auto.conf");
    let text = fs::read_to_string(&file).map_err(cache::Error::io("read", file))?;
    Ok(text.lines().any(|line| line == "CONFIG_CC_IS_CLANG=y"))
}

/// Moves the one module of `from` into `folder`, and shows warnings.
fn keep(
    from: &Path,
    folder: &Path,
    log: String,
    failed: impl Fn(String) -> Error,
) -> Result<(), Error> {
    if log.contains("warning:") {
        note(log.trim_end());
    }
    let module = the_module(from).ok_or_else(|| {
        failed(format!(
            "{log}it should make one .ko at the top, and did not"
        ))
    })?;
    let target = folder.join(module.file_name().unwrap_or_default());
    Ok(fs::rename(&module, &target).map_err(cache::Error::io("rename", &module))?)
}

/// Builds, and moves the module into `folder`.
fn build(kbuild: &Kbuild, folder: &Path) -> Result<(), Error> {
    let (success, log) = kbuild.make("building", &[])?;
    if !success {
        return Err(kbuild.failed(log));
    }
    keep(&kbuild.folder(), folder, log, |log| kbuild.failed(log))
}

/// The one `.ko` in a folder.
fn the_module(folder: &Path) -> Option<PathBuf> {
    let mut modules = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "ko"));
    let module = modules.next()?;
    modules.next().is_none().then_some(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clang_kernel_is_known_by_its_configuration() {
        let tree = tempfile::tempdir().unwrap();
        let folder = tree.path().join("include/config");
        fs::create_dir_all(&folder).unwrap();
        for (line, is) in [
            ("CONFIG_CC_IS_CLANG=y", true),
            ("CONFIG_CC_IS_GCC=y", false),
            ("# CONFIG_CC_IS_CLANG=y", false),
        ] {
            fs::write(folder.join("auto.conf"), format!("A=y\n{line}\n")).unwrap();
            assert_eq!(is_of_clang(tree.path()).unwrap(), is, "{line}");
        }
    }

    #[test]
    fn only_a_single_module_is_the_module() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(the_module(folder.path()), None);
        fs::write(folder.path().join("a.ko"), "").unwrap();
        assert_eq!(the_module(folder.path()), Some(folder.path().join("a.ko")));
        fs::write(folder.path().join("b.ko"), "").unwrap();
        assert_eq!(the_module(folder.path()), None);
    }
}
