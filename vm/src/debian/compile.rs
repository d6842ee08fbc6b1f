//! Kernels built from source, with the checks that Debian's leave out.

use std::fs;
use std::path::{Path, PathBuf};

use super::kconfig::Config;
use super::kernel::{KIND, add_modules};
use super::root::digest;
use super::source::Source;
use super::toolchain::{Scratch, Toolchain};
use super::{Debian, Error, Kernel, run, tree};
use crate::Arch;
use crate::cache;
use crate::progress::{Progress, note};

/// The name of the kernel that has [`CONFIG`] and nothing more.
pub(super) const DEBUG: &str = "debug";

/// The series that these kernels are of.
pub(super) const SERIES: &str = "7.2";

/// What it is configured with, on top of nothing.
const CONFIG: &str = include_str!("debug.config");

/// Where things are in the scratch folder: the source, what make writes, and
/// what is kept of that.
const SOURCE: &str = "linux";
const OBJECTS: &str = "build";
const MODULES: &str = "install";
const HEADERS: &str = "headers";

/// Objects, the kernel and its modules, for a while beside each other.
const NEED: u64 = 3_000_000_000;

/// About how many lines make writes in all: what its progress is told by.
const LINES: u64 = 2_300;

/// About how many minutes it takes one processor.
const MINUTES: usize = 24;

/// What the recipe below is; to change it is to change this.
const RECIPE: &str = "allnoconfig olddefconfig bzImage modules extmod 1";

/// What is booted. Not the ELF file: by its PVH note a kernel begins with C code
/// that calls memcmp, which is checked by a KASAN that is not yet there (seen
/// with gcc 16; it depends on what the compiler inlines).
const IMAGE: &str = "arch/x86/boot/bzImage";

impl Kernel {
    /// The kernel called `name` that checks itself: KASAN, lockdep, kmemleak,
    /// faults on demand, and checks of DMA, locks and lists, with the drivers
    /// that need no device (vkms, vgem, vivid). Linux 7.2 of Debian's source,
    /// from the cache or built now, which takes some 12 minutes on two
    /// processors. It is configured by a list of its own and by the files
    /// `extra` on top of that, in the form of `.config`, of which the last line
    /// for a name counts.
    ///
    /// # Errors
    /// [`Error::Config`] with what the configuration did not take;
    /// [`Error::Fetch`] without network where it is not cached; else [`Error`].
    ///
    /// ```no_run
    /// // Not run with the crate's tests: builds a kernel.
    /// use dmashare_vm::{cache::Cache, debian::{Debian, Kernel}};
    ///
    /// let debian = Debian::new(Cache::open()?, None);
    /// let kernel = Kernel::build(&debian, "ubsan", &["ubsan.config".into()])?;
    /// assert!(kernel.release.ends_with("-ubsan"));
    /// # Ok::<(), dmashare_vm::debian::Error>(())
    /// ```
    pub fn build(debian: &Debian, name: &str, extra: &[PathBuf]) -> Result<Self, Error> {
        if debian.arch != Arch::X86_64 {
            return Err(Error::Config {
                name: name.to_owned(),
                problem: format!(
                    "kernels are built from source for x86_64 only, and not for {}; choose one of Debian's",
                    debian.arch
                ),
            });
        }
        let config = configuration(name, extra)?;
        // One that is there boots without what it was built of.
        if let Some(kernel) = Self::built(debian, name, &config)? {
            return Ok(kernel);
        }
        let source = Source::prepare(debian, SERIES)?;
        let toolchain = Toolchain::of_kernels(debian, &source.suite)?;
        let version = version(&source.version, &toolchain.key, &config);
        let key = format!("{name}_{version}");
        let folder = debian.cache.artefact(KIND, &key, NEED, |folder| {
            let scratch = toolchain.scratch(debian, "kernel")?;
            let compilation = Compilation {
                name,
                config: &config,
                toolchain: &toolchain,
                scratch: &scratch,
            };
            compilation.run(debian, &source.folder, folder)
        })?;
        Self::of_build(debian, name, folder, source.suite, version)
    }

    /// The one that is in the cache already, of the source and the compiler that
    /// are known to be Debian's.
    fn built(debian: &Debian, name: &str, config: &Config) -> Result<Option<Self>, Error> {
        let find = || {
            let (suite, source) = Source::recorded(debian, SERIES)?;
            let toolchain = Toolchain::recorded_of_kernels(debian, &suite)?;
            let version = version(&source, &toolchain, config);
            let folder = debian.cache.whole(KIND, &format!("{name}_{version}"))?;
            Some((folder, suite, version))
        };
        find()
            .map(|(folder, suite, version)| Self::of_build(debian, name, folder, suite, version))
            .transpose()
    }

    /// What is in `folder`.
    fn of_build(
        debian: &Debian,
        name: &str,
        folder: PathBuf,
        suite: String,
        version: String,
    ) -> Result<Self, Error> {
        let release = folder.join(HEADERS).join("include/config/kernel.release");
        let text = fs::read_to_string(&release).map_err(cache::Error::io("read", &release))?;
        Ok(Self {
            name: name.to_owned(),
            release: text.trim().to_owned(),
            package_version: version,
            suite,
            vmlinux: folder.join("bzImage"),
            image: folder.join("modules.erofs"),
            headers: Some(folder.join(HEADERS)),
            own: None,
            modules: folder,
            debug: true,
            debian: debian.clone(),
        })
    }
}

/// Names what it is built of, and how.
fn version(source: &str, toolchain: &str, config: &Config) -> String {
    let recipe = [RECIPE, source, toolchain, &config.text()];
    format!("{source}-{}", digest(&recipe.join("\n")))
}

/// All that the kernel called `name` is to have.
fn configuration(name: &str, extra: &[PathBuf]) -> Result<Config, Error> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let wrong = |problem: String| Error::Config {
        name: name.to_owned(),
        problem,
    };
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) {
        return Err(wrong(
            "a name is of a-z, 0-9 and -, and begins with a letter".into(),
        ));
    }
    let mut config = Config::default();
    let mut add = |file: &str, text: &str| {
        let added = config.add(text);
        added.map_err(|line| wrong(format!("{file}: {line}: no line of CONFIG_NAME=value")))
    };
    add("debug.config", CONFIG)?;
    for file in extra {
        let text = fs::read_to_string(file).map_err(cache::Error::io("read", file))?;
        add(&file.to_string_lossy(), &text)?;
    }
    // What `uname -r` says tells it from its siblings.
    add("", &format!("CONFIG_LOCALVERSION=\"-{name}\""))?;
    Ok(config)
}

/// One build, in a root.
struct Compilation<'a> {
    name: &'a str,
    config: &'a Config,
    toolchain: &'a Toolchain,
    scratch: &'a Scratch,
}

impl Compilation<'_> {
    /// Builds the kernel into `folder`.
    fn run(&self, debian: &Debian, source: &Path, folder: &Path) -> Result<(), Error> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        note(&format!(
            "building kernel {} from {}: about {} minutes on {jobs} processors",
            self.name,
            source.display(),
            MINUTES.div_ceil(jobs)
        ));
        tree::link(source, &self.place(SOURCE))?;
        self.configure()?;
        let what = format!("building kernel {}", self.name);
        let mut progress = Progress::percent(&what);
        let mut lines = 0;
        self.make(&[&format!("-j{jobs}"), "bzImage", "modules"], |new| {
            lines += new.lines().count() as u64;
            progress.set((lines * 100 / LINES).min(99));
        })?;
        drop(progress);
        let install = format!("INSTALL_MOD_PATH={}", self.scratch.inside(MODULES));
        self.make(&["modules_install", &install, "DEPMOD=true"], |_| {})?;
        // What Debian's own packages of headers are made by, too.
        let headers = format!(
            "KBUILD_RUN_COMMAND=${{srctree}}/scripts/package/install-extmod-build {}",
            self.scratch.inside(HEADERS)
        );
        self.make(&["run-command", &headers], |_| {})?;
        self.keep(debian, folder)
    }

    /// Has Kconfig make a whole configuration of ours.
    fn configure(&self) -> Result<(), Error> {
        let objects = self.place(OBJECTS);
        fs::create_dir_all(&objects).map_err(cache::Error::io("make the folder", &objects))?;
        self.make(&["allnoconfig"], |_| {})?;
        let file = objects.join(".config");
        let read = || fs::read_to_string(&file).map_err(cache::Error::io("read", &file));
        let text = format!("{}{}", read()?, self.config.text());
        fs::write(&file, text).map_err(cache::Error::io("write", &file))?;
        self.make(&["olddefconfig"], |_| {})?;
        let missed = self.config.missed(&read()?);
        if missed.is_empty() {
            return Ok(());
        }
        Err(Error::Config {
            name: self.name.to_owned(),
            problem: format!(
                "Linux {SERIES} does not come out as asked: {}; a name may be misspelt or gone, or what it depends on is off",
                missed.join(", ")
            ),
        })
    }

    /// Moves what is of use into `folder`. The objects, most of it, stay behind.
    fn keep(&self, debian: &Debian, folder: &Path) -> Result<(), Error> {
        let moved = |from: PathBuf, name: &str| {
            let to = folder.join(name);
            fs::rename(&from, to).map_err(cache::Error::io("rename", from))
        };
        moved(self.place(OBJECTS).join(IMAGE), "bzImage")?;
        // With its symbols, for who reads a report.
        moved(self.place(OBJECTS).join("vmlinux"), "vmlinux")?;
        moved(self.place(OBJECTS).join(".config"), "config")?;
        moved(self.place(HEADERS), HEADERS)?;
        let all = self.place(MODULES).join("lib/modules");
        let mut entries = fs::read_dir(&all).map_err(cache::Error::io("read", &all))?;
        let Some(Ok(modules)) = entries.next() else {
            return Err(Error::Unexpected {
                path: all,
                problem: "the build installed no modules".into(),
            });
        };
        // A link to where it was built, which is gone.
        cache::remove(&modules.path().join("build"))?;
        let release = modules.file_name().to_string_lossy().into_owned();
        add_modules(debian, &modules.path(), &release, folder)
    }

    /// Runs make; `tick` gets what it says.
    fn make(&self, arguments: &[&str], tick: impl FnMut(&str)) -> Result<(), Error> {
        let mut make = self.toolchain.enter(self.scratch)?;
        make.args(["make", "--no-print-directory", "-C"])
            .arg(self.scratch.inside(SOURCE))
            .arg(format!("O={}", self.scratch.inside(OBJECTS)))
            .args(arguments);
        let said = run::run_with(&mut make, tick)?;
        if said.success {
            return Ok(());
        }
        Err(Error::Build {
            source_dir: self.place(SOURCE),
            release: self.name.to_owned(),
            log: end(&said.out),
        })
    }

    /// A folder of the scratch folder's.
    fn place(&self, name: &str) -> PathBuf {
        self.scratch.path.join(name)
    }
}

/// The lines of a failed build from its first error on, or its last ones: the
/// rest is a list of the files that compiled.
pub(super) fn end(log: &str) -> String {
    const SHOWN: usize = 40;
    let lines: Vec<&str> = log.lines().collect();
    let first = lines.iter().position(|line| line.contains("rror: "));
    let from = first.unwrap_or(lines.len().saturating_sub(SHOWN));
    let shown: Vec<&str> = lines[from..].iter().take(SHOWN).copied().collect();
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_come_on_top_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs::write(&one, "CONFIG_KASAN=n\nCONFIG_UBSAN=n\n").unwrap();
        fs::write(&two, "CONFIG_UBSAN=y\n").unwrap();
        let text = configuration("ubsan", &[one, two]).unwrap().text();
        for line in [
            "CONFIG_KASAN=n\n",
            "CONFIG_UBSAN=y\n",
            "CONFIG_LOCALVERSION=\"-ubsan\"\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("my.config");
        fs::write(&file, "UBSAN=y\n").unwrap();
        let error = configuration("mine", &[file]).unwrap_err().to_string();
        assert!(error.contains("my.config: UBSAN=y: no line"), "{error}");
        for wrong in ["", "7.2", "Debug", "a/b", "a b"] {
            assert!(configuration(wrong, &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_that_is_there_needs_nothing_that_it_was_built_of() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache::Cache::at(folder.path()).unwrap();
        // Nobody answers there.
        let debian = Debian::new(cache, Some("http://127.0.0.1:9/debian".into()));
        let plans = folder.path().join("plans");
        fs::create_dir(&plans).unwrap();
        let deb = r#"{"package":"a","version":"7.2.1-1","file":"a_1_all.deb","uri":"","bytes":1,"hash":""}"#;
        let compiler = "toolchain-sid-a214941917b7a546.json";
        fs::write(plans.join(compiler), format!(r#"{{"debs":[{deb}]}}"#)).unwrap();
        let plan = format!(r#"{{"suite":"sid","deb":{deb}}}"#);
        fs::write(plans.join("source-7.2.json"), plan).unwrap();
        let compiler = Toolchain::recorded_of_kernels(&debian, "sid").unwrap();
        assert_eq!(compiler, format!("sid-{}", digest("a_1_all.deb")));
        let config = configuration(DEBUG, &[]).unwrap();
        let key = format!("debug_{}", version("7.2.1-1", &compiler, &config));
        let made = debian.cache.artefact(KIND, &key, 1, |folder| {
            let headers = folder.join(HEADERS).join("include/config");
            fs::create_dir_all(&headers).unwrap();
            fs::write(headers.join("kernel.release"), "7.2.1-debug\n").unwrap();
            Ok::<(), cache::Error>(())
        });
        made.unwrap();
        let kernel = Kernel::build(&debian, DEBUG, &[]).unwrap();
        assert_eq!(kernel.release, "7.2.1-debug");
        assert_eq!(kernel.suite, "sid");
    }

    #[test]
    fn of_a_long_log_the_error_is_shown() {
        let many = "  CC a.o\n".repeat(1000);
        let log = format!("{many}a.c:1: error: no\nmore\n");
        assert_eq!(end(&log), "a.c:1: error: no\nmore");
        assert_eq!(end(&many).lines().count(), 40);
    }
}
