//! What the kernel's own tools have to say about a module's source.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::apt::{self, Apt, Deb};
use super::build::Kbuild;
use super::compile::SERIES;
use super::findings::{self, Findings};
use super::root::digest;
use super::source::Source;
use super::sources::{self, SourceFile, sources};
use super::toolchain::{Toolchain, suites};
use super::{Debian, Error, Kernel, plan, run, tree, unpack};
use crate::cache;
use crate::progress::Progress;

/// Where sparse is, in the scratch folder.
const SPARSE: &str = "sparse";

/// Where checkpatch and the source are, in the scratch folder.
const SCRIPTS: &str = "scripts";
const SOURCE: &str = "source";

/// checkpatch, and the lists that it reads from beside itself.
const CHECKPATCH: [&str; 3] = ["checkpatch.pl", "spelling.txt", "const_structs.checkpatch"];

/// Where checkpatch reads options of a project's own from.
const OPTIONS: &str = ".checkpatch.conf";

/// What checkpatch runs in: the suite, and the packages.
const PERL: (&str, [&str; 4]) = ("trixie", ["coreutils", "dash", "diffutils", "perl"]);

/// Which package sparse is of.
#[derive(Serialize, Deserialize)]
struct Plan {
    deb: Deb,
}

/// Builds the module in `source_dir` for `kernel` as [`build_module`] does, with
/// the compiler's further warnings (`W=1`, but for those about comments) and with
/// sparse looking at each file (`C=2`). Gives what they found in the module's own
/// files.
///
/// [`build_module`]: super::build_module
///
/// # Errors
/// [`Error::Build`] where it does not build for another reason, or sparse cannot
/// run; else [`Error`].
///
/// ```no_run
/// // Not run with the crate's tests: fetches a compiler of some 90 MB.
/// use dmashare_vm::{cache::Cache, debian::{Debian, Kernel, check_module}};
///
/// let debian = Debian::new(Cache::open()?, None);
/// let kernel = Kernel::prepare(&debian, "6.12")?;
/// for finding in check_module(&debian, &kernel, "kmod".as_ref())?.own {
///     println!("{finding}");
/// }
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn check_module(
    debian: &Debian,
    kernel: &Kernel,
    source_dir: &Path,
) -> Result<Findings, Error> {
    if let Some(own) = &kernel.own {
        return Err(Error::OwnKernel {
            path: own.path.clone(),
            problem:
                "modules are checked against Debian's kernels, and those built from its source"
                    .to_owned(),
        });
    }
    let sources = sources(source_dir)?;
    let sparse = sparse(debian, sparse_suite(&kernel.suite))?;
    let kbuild = Kbuild::new(debian, kernel, source_dir, &sources)?;
    tree::link(&sparse, &kbuild.scratch().path.join(SPARSE))?;
    let sparse = kbuild.scratch().inside(SPARSE);
    let check = format!("CHECK={sparse}/usr/bin/sparse");
    let arguments = [
        "W=1",
        "C=2",
        // Kbuild would take this back: the test whether CHECK is any good is
        // not in Debian's headers.
        "KBUILD_CHECKSRC=2",
        &check,
        // Nor is the script that looks at comments.
        "cmd_checkdoc=",
        // One file's words after the other's.
        "-j1",
    ];
    let (success, log) = kbuild.make("checking", &arguments)?;
    let findings = findings::of_build(&log, source_dir, &paths(&sources));
    // A build that fails of what was found is no failure to find it.
    let looked = log.lines().any(|line| line.starts_with("  CHECK "));
    if !findings.own.is_empty() || (success && looked) {
        return Ok(findings);
    }
    Err(kbuild.failed(match success {
        true => format!("{log}sparse did not look at it"),
        false => log,
    }))
}

/// Compiles the module in `source_dir` with `W=1` for 32-bit Arm, and gives the
/// release that it was compiled for with what was found: the one of `kernel`, or
/// the newest of its series (`6.12.117+deb13-armmp`). Findings there and not in
/// [`check_module`] are of `unsigned long` with 32 bits, and of 64-bit divisions,
/// which a 32-bit kernel has no function for.
///
/// # Errors
/// [`Error::No32Bit`] where Debian has no such kernel: a debug kernel, a kernel of
/// the user's own, a suite without one; as [`check_module`] otherwise.
///
/// ```no_run
/// // Not run with the crate's tests: fetches a cross compiler of some 75 MB.
/// use dmashare_vm::{cache::Cache, debian::{Debian, Kernel, check_module_32_bit}};
///
/// let debian = Debian::new(Cache::open()?, None);
/// let kernel = Kernel::prepare(&debian, "6.12")?;
/// let (release, findings) = check_module_32_bit(&debian, &kernel, "kmod".as_ref())?;
/// println!("{release}: {} found", findings.own.len());
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn check_module_32_bit(
    debian: &Debian,
    kernel: &Kernel,
    source_dir: &Path,
) -> Result<(String, Findings), Error> {
    if kernel.own.is_some() || kernel.headers.is_some() {
        return Err(Error::No32Bit {
            release: kernel.release.clone(),
            problem: "it is not one of Debian's own kernels, of which there are others for \
                      32-bit Arm"
                .to_owned(),
        });
    }
    let sources = sources(source_dir)?;
    let kbuild = Kbuild::for_32_bit(debian, kernel, source_dir, &sources)?;
    let arguments = ["W=1", "cmd_checkdoc=", "-j1"];
    let (success, log) = kbuild.make("compiling", &arguments)?;
    let mut findings = findings::of_build(&log, source_dir, &paths(&sources));
    if !success && findings.own.is_empty() {
        return Err(kbuild.failed(log));
    }
    findings::explain_division(&mut findings);
    Ok((kbuild.release().to_owned(), findings))
}

/// What the kernel's `checkpatch.pl --strict` finds in the `.c` and `.h` files
/// of `source_dir`; it is that of [`source`](super::source), 7.2. Options of the
/// module's own can stand in its `.checkpatch.conf`. That a source asks for the
/// kernel's version is not held against it: one outside of the kernel has to.
///
/// # Errors
/// [`Error::Fetch`] without network where it is not cached; else [`Error`].
///
/// ```no_run
/// // Not run with the crate's tests: fetches a kernel's source.
/// use dmashare_vm::{cache::Cache, debian::{Debian, check_style}};
///
/// let debian = Debian::new(Cache::open()?, None);
/// assert!(check_style(&debian, "kmod".as_ref())?.own.is_empty());
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn check_style(debian: &Debian, source_dir: &Path) -> Result<Findings, Error> {
    let sources = sources(source_dir)?;
    let paths = paths(&sources);
    let is_c = |path: &&str| path.ends_with(".c") || path.ends_with(".h");
    let files: Vec<&str> = paths.iter().map(String::as_str).filter(is_c).collect();
    if files.is_empty() {
        return Ok(Findings::default());
    }
    let kernel = Source::prepare(debian, SERIES)?;
    let (suite, packages) = PERL;
    let toolchain = Toolchain::of_packages(debian, suite, &packages, "perl")?;
    let scratch = toolchain.scratch(debian, "style")?;
    sources::copy(&sources, &scratch.path.join(SOURCE))?;
    let own_options = source_dir.join(OPTIONS);
    if own_options.exists() {
        let copy = scratch.path.join(SOURCE).join(OPTIONS);
        fs::copy(&own_options, copy).map_err(cache::Error::io("copy", own_options))?;
    }
    let scripts = scratch.path.join(SCRIPTS);
    fs::create_dir(&scripts).map_err(cache::Error::io("make the folder", &scripts))?;
    for name in CHECKPATCH {
        let from = kernel.folder.join(SCRIPTS).join(name);
        fs::copy(&from, scripts.join(name)).map_err(cache::Error::io("copy", from))?;
    }
    let mut command = toolchain.enter(&scratch)?;
    command
        .args(["env", "--chdir", &scratch.inside(SOURCE)])
        .args([
            "perl",
            &format!("{}/checkpatch.pl", scratch.inside(SCRIPTS)),
        ])
        .args(["--strict", "--no-tree", "--emacs", "--quiet"])
        .args(["--no-summary", "--color=never", "--show-types", "-f"])
        .args(&files);
    let mut progress = Progress::spinner(&format!("checkpatch on {}", source_dir.display()));
    let said = run::run_with(&mut command, |_| progress.set(0))?;
    drop(progress);
    let findings = findings::of_checkpatch(&said.out, source_dir, &paths);
    if !said.success && findings.own.is_empty() {
        return Err(Error::Program {
            program: "checkpatch.pl".to_owned(),
            said: said.reason(),
        });
    }
    Ok(findings)
}

pub(super) fn paths(sources: &[SourceFile]) -> Vec<String> {
    let text = |source: &SourceFile| source.path.to_string_lossy().into_owned();
    sources.iter().map(text).collect()
}

/// The suite whose sparse looks at kernels of `suite`. Headers use what only a
/// new sparse knows, and one that it stumbles over makes it silent about the
/// rest: the newest, where the suite's libc runs it.
fn sparse_suite(suite: &str) -> &str {
    match suite {
        "bullseye" | "bookworm" | "bookworm-backports" => suite,
        _ => "sid",
    }
}

/// The folder of `suite`'s package sparse, unpacked. Alone: it depends on much
/// for other programs in it, and on nothing for itself but the libc that is in
/// every root.
fn sparse(debian: &Debian, suite: &str) -> Result<PathBuf, Error> {
    let what = format!("sparse, Debian {suite}");
    plan::follow(
        debian,
        &format!("sparse-{suite}"),
        &what,
        |lists| {
            let apt = Apt::new(debian, &suites(suite), lists)?;
            let debs = apt.alone(&["sparse".to_owned()])?;
            let deb = debs.into_iter().next();
            deb.map(|deb| Plan { deb }).ok_or_else(|| Error::Packages {
                suite: suite.to_owned(),
                said: "no package sparse".to_owned(),
            })
        },
        |plan: &Plan| {
            let key = format!("{suite}-{}", digest(&plan.deb.file));
            let need = plan.deb.bytes * 10;
            debian.cache.artefact(SPARSE, &key, need, |folder| {
                let debs = std::slice::from_ref(&plan.deb);
                apt::fetch(&debian.cache, &what, debs)?;
                unpack::packages(&debian.cache, debs, &what, folder)
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;

    #[test]
    fn kernel_from_source_has_no_32_bit() {
        let folder = tempfile::tempdir().unwrap();
        let debian = Debian::new(Cache::at(folder.path()).unwrap(), None);
        let kernel = Kernel {
            name: "debug".into(),
            release: "7.2.13-debug".into(),
            package_version: "7.2.13-1".into(),
            suite: "sid".into(),
            vmlinux: PathBuf::new(),
            modules: PathBuf::new(),
            image: PathBuf::new(),
            debug: true,
            headers: Some(PathBuf::new()),
            own: None,
            debian: debian.clone(),
        };
        let error = check_module_32_bit(&debian, &kernel, folder.path()).unwrap_err();
        assert!(matches!(error, Error::No32Bit { .. }), "{error}");
        assert!(error.to_string().contains("7.2.13-debug"), "{error}");
    }
}
