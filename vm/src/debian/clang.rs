//! A module compiled for a kernel that is built with clang, as no stock kernel of
//! Debian's is.

use std::fs;
use std::path::Path;

use super::compile::{SERIES, end};
use super::findings::{self, Findings};
use super::source::Source;
use super::sources::{self, sources};
use super::toolchain::{Scratch, Toolchain};
use super::{Debian, Error, check, run, tree};
use crate::cache;
use crate::progress::Progress;

/// Where things are in the scratch folder: the kernel's source, what make writes,
/// and the module's source.
const KERNEL: &str = "linux";
const OBJECTS: &str = "build";
const MODULE: &str = "source";

/// What kernels that are built with clang have beside a usual configuration.
/// With ThinLTO objects are bitcode, which takes LLVM's linker and tools.
const CONFIG: &str = "CONFIG_LTO_CLANG_THIN=y\nCONFIG_CFI=y\n";

/// Prepares a build tree of Linux 7.2 with clang (`LLVM=1`, x86_64's default
/// configuration with ThinLTO and CFI), and builds the module in `source_dir`
/// against it with `W=1`. A module that has a `Makefile` beside its `Kbuild` is
/// built by `make KDIR=TREE`, which has to select LLVM by itself: there is no gcc.
/// Gives the tree's release, and what was found in the module's own files; the
/// tree has no list of exported symbols, so that missing ones are not reported.
///
/// # Errors
/// [`Error::Build`] where the tree cannot be prepared, or the module is not built
/// for another reason than its source; [`Error::Fetch`] without network where
/// clang or the source are not cached; else [`Error`].
///
/// ```no_run
/// // Not run with the crate's tests: fetches clang and a kernel's source.
/// use dmashare_vm::{cache::Cache, debian::{Debian, check_module_clang}};
///
/// let debian = Debian::new(Cache::open()?, None);
/// let (release, findings) = check_module_clang(&debian, "kmod".as_ref())?;
/// println!("{release}: {} found", findings.own.len());
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn check_module_clang(debian: &Debian, source_dir: &Path) -> Result<(String, Findings), Error> {
    let sources = sources(source_dir)?;
    let kernel = Source::prepare(debian, SERIES)?;
    let toolchain = Toolchain::of_clang(debian, &kernel.suite)?;
    let scratch = toolchain.scratch(debian, "clang")?;
    let clang = Clang {
        toolchain: &toolchain,
        scratch: &scratch,
    };
    let release = clang.prepare(&kernel.folder)?;

    sources::copy(&sources, &scratch.path.join(MODULE))?;
    let has = |name: &str| source_dir.join(name).exists();
    let module = scratch.inside(MODULE);
    let objects = scratch.inside(OBJECTS);
    let mut arguments = match has("Kbuild") && has("Makefile") {
        true => vec!["-C".into(), module.clone(), format!("KDIR={objects}")],
        false => vec![
            "-C".into(),
            objects,
            format!("M={module}"),
            "LLVM=1".into(),
            "modules".into(),
        ],
    };
    let more = [
        "W=1",
        // The kernel's script that looks at comments is for its own.
        "cmd_checkdoc=",
        // All warnings, of all files.
        "CONFIG_WERROR=",
        // The tree has no list of exported symbols.
        "KBUILD_MODPOST_WARN=1",
    ];
    arguments.extend(more.map(str::to_owned));
    let what = format!("compiling {} with clang", source_dir.display());
    let (success, log) = clang.make(&what, &arguments)?;
    let log = log.replace(&module, &source_dir.to_string_lossy());
    let mut findings = findings::of_build(&log, source_dir, &check::paths(&sources));
    findings.own.retain(|finding| !is_of_symbols(finding));
    let built = cache::entries(&scratch.path.join(MODULE))?
        .iter()
        .any(|(name, _)| name.ends_with(".ko"));
    if findings.own.is_empty() && !(success && built) {
        return Err(Error::Build {
            source_dir: source_dir.to_owned(),
            release,
            log,
        });
    }
    Ok((release, findings))
}

/// Whether modpost does not know a symbol: of a tree that was prepared, and not
/// built, it knows none.
fn is_of_symbols(finding: &str) -> bool {
    let modpost = finding.strip_prefix("WARNING: modpost: ");
    modpost.is_some_and(|said| said.ends_with(" undefined!") || said.starts_with("suppressed "))
}

/// A root with clang, and a folder in it.
struct Clang<'a> {
    toolchain: &'a Toolchain,
    scratch: &'a Scratch,
}

impl Clang<'_> {
    /// Makes of a kernel's source a tree that modules can be built against, and
    /// gives its release.
    fn prepare(&self, source: &Path) -> Result<String, Error> {
        tree::link(source, &self.scratch.path.join(KERNEL))?;
        let objects = self.scratch.path.join(OBJECTS);
        fs::create_dir_all(&objects).map_err(cache::Error::io("make the folder", &objects))?;
        self.make_kernel(&["defconfig"])?;
        let config = objects.join(".config");
        let read = || fs::read_to_string(&config).map_err(cache::Error::io("read", &config));
        let text = read()? + CONFIG;
        fs::write(&config, text).map_err(cache::Error::io("write", &config))?;
        self.make_kernel(&["olddefconfig"])?;
        let made = read()?;
        let wanted = CONFIG.lines().chain(["CONFIG_CC_IS_CLANG=y"]);
        for line in wanted {
            if !made.lines().any(|there| there == line) {
                return Err(Error::Config {
                    name: SERIES.to_owned(),
                    problem: format!("{line} is not in the configuration that clang gave"),
                });
            }
        }
        self.make_kernel(&["modules_prepare"])?;
        let file = objects.join("include/config/kernel.release");
        let release = fs::read_to_string(&file).map_err(cache::Error::io("read", &file))?;
        Ok(format!("{}, built with clang", release.trim()))
    }

    fn make_kernel(&self, targets: &[&str]) -> Result<(), Error> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut arguments = vec![
            "-C".to_owned(),
            self.scratch.inside(KERNEL),
            format!("O={}", self.scratch.inside(OBJECTS)),
            "LLVM=1".to_owned(),
            format!("-j{jobs}"),
        ];
        arguments.extend(targets.iter().map(ToString::to_string));
        let what = format!("kernel {SERIES} with clang: {}", targets.join(" "));
        let (success, log) = self.make(&what, &arguments)?;
        if success {
            return Ok(());
        }
        Err(Error::Build {
            source_dir: self.scratch.path.join(KERNEL),
            release: format!("{SERIES}, built with clang"),
            log: end(&log),
        })
    }

    /// Runs make: whether it came to a good end, and all that was said.
    fn make(&self, what: &str, arguments: &[String]) -> Result<(bool, String), Error> {
        let mut make = self.toolchain.enter(self.scratch)?;
        make.args(["make", "--no-print-directory"]).args(arguments);
        let mut progress = Progress::spinner(what);
        let said = run::run_with(&mut make, |_| progress.set(0))?;
        Ok((said.success, format!("{}{}", said.out, said.err)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_symbols_alone_are_left_out() {
        assert!(is_of_symbols(
            "WARNING: modpost: \"dma_buf_export\" [/m/x.ko] undefined!"
        ));
        assert!(is_of_symbols(
            "WARNING: modpost: suppressed 92 unresolved symbol warnings because there were too many)"
        ));
        assert!(!is_of_symbols(
            "WARNING: modpost: missing MODULE_DESCRIPTION() in x.o"
        ));
        assert!(!is_of_symbols("x.c:1:2: warning: y is undefined!"));
    }
}
