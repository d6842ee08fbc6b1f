//! Compiling a program in C for the guest.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::root::hex;
use super::sources::{self, sources};
use super::toolchain::Toolchain;
use super::{Debian, Error, run};
use crate::cache;
use crate::progress::Progress;

/// Where the source is, in the scratch folder.
const SOURCE: &str = "source";

/// Compiles the C file called `main` in `source_dir`, which has what it includes
/// but for the system's headers, for `debian`'s guests, with these arguments to
/// gcc, too (`-Wall`, a further file, `-lm`). Gives the program, called as
/// `main` is without its ending; the same source is compiled once.
///
/// It is linked statically: a guest's root needs no libraries for it, and the
/// host no compiler.
///
/// # Errors
/// [`Error::Build`] with all that the compiler said; else [`Error`].
///
/// ```no_run
/// // Not run with the crate's tests: fetches a compiler of some 90 MB.
/// use dmashare_vm::{Arch, cache::Cache, debian::{Debian, build_program}};
///
/// let debian = Debian::new(Cache::open()?, None).for_arch(Arch::Aarch64);
/// let program = build_program(&debian, "tests/peers".as_ref(), "reader.c", &["-Wall"])?;
/// println!("for the guest: {}", program.display());
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn build_program(
    debian: &Debian,
    source_dir: &Path,
    main: &str,
    arguments: &[&str],
) -> Result<PathBuf, Error> {
    let sources = sources(source_dir)?;
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        // With its length, so that no two lists of parts read the same.
        hash.update(bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    for source in &sources {
        add(source.path.as_os_str().as_encoded_bytes());
        add(&source.content);
    }
    for argument in arguments {
        add(argument.as_bytes());
    }
    let name = Path::new(main).file_stem().unwrap_or_default();
    let key = format!(
        "{}-{}-{}",
        name.to_string_lossy(),
        debian.arch,
        hex(&hash.finalize())
    );
    let folder = debian
        .cache
        .artefact("program", &key, 10_000_000, |folder| {
            let toolchain = Toolchain::of_programs(debian)?;
            let scratch = toolchain.scratch(debian, "program")?;
            sources::copy(&sources, &scratch.path.join(SOURCE))?;
            let mut gcc = toolchain.enter(&scratch)?;
            gcc.args(["env", "--chdir", &scratch.inside(SOURCE)])
                .args([debian.arch.compiler(), "-static", "-o"])
                .arg(scratch.inside("program"))
                .arg(main)
                .args(arguments);
            let what = format!("compiling {main} for {}", debian.arch);
            let mut progress = Progress::spinner(&what);
            let said = run::run_with(&mut gcc, |_| progress.set(0))?;
            if !said.success {
                return Err(Error::Build {
                    source_dir: source_dir.to_path_buf(),
                    release: debian.arch.to_string(),
                    log: said.out,
                });
            }
            let program = scratch.path.join("program");
            fs::rename(&program, folder.join(name))
                .map_err(cache::Error::io("rename", &program))?;
            Ok(())
        })?;
    Ok(folder.join(name))
}
