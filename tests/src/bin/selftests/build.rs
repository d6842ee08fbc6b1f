//! The programs, compiled from the kernel's source as its Makefiles would.

use std::path::{Path, PathBuf};
use std::process::Command;

use dmashare_vm::cache;
use dmashare_vm::debian::{self, Debian};

use crate::Failure;

/// A program, its source in the kernel's tree, and what compiles it beside the
/// flags of lib.mk.
struct Program {
    name: &'static str,
    source: &'static str,
    flags: &'static [&'static str],
}

const PROGRAMS: [Program; 2] = [
    Program {
        name: "udmabuf",
        source: "drivers/dma-buf/udmabuf.c",
        flags: &[],
    },
    Program {
        name: "dmabuf-heap",
        source: "dmabuf-heaps/dmabuf-heap.c",
        flags: &["-static", "-O3", "-Wl,-no-as-needed", "-Wall"],
    },
];

/// What the programs and the passing headers take.
const NEED: u64 = 32 << 20;

/// To be raised when this file makes something else of the same source.
const RECIPE: u32 = 1;

/// The programs of the kernel `version` (7.2), each with its path. They stay in
/// the cache.
pub(crate) fn programs(
    debian: &Debian,
    version: &str,
) -> Result<Vec<(&'static str, PathBuf)>, Failure> {
    let source = debian::source(debian, version).map_err(dmashare_vm::Error::from)?;
    let tree = source.parent().and_then(Path::file_name);
    let tree = tree.unwrap_or_default().to_string_lossy();
    let key = format!("{tree}-{RECIPE}");
    let made = debian
        .cache()
        .artefact("selftests", &key, NEED, |folder| compile(&source, folder));
    let folder = made?;
    Ok(PROGRAMS
        .iter()
        .map(|program| (program.name, folder.join(program.name)))
        .collect())
}

fn compile(source: &Path, folder: &Path) -> Result<(), Failure> {
    eprintln!("selftests: compiling them with the kernel's own headers ...");
    let headers = folder.join("headers");
    std::fs::create_dir(&headers).map_err(cache::Error::io("make the folder", &headers))?;
    let mut make = Command::new("make");
    make.arg("--silent")
        .arg("-C")
        .arg(source)
        .arg(format!("O={}", headers.display()))
        .arg("headers")
        // Not those of a make that runs us.
        .env_remove("MAKEFLAGS");
    run(make)?;
    let selftests = source.join("tools/testing/selftests");
    for program in &PROGRAMS {
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let mut compile = Command::new(compiler);
        compile
            .arg("-D_GNU_SOURCE=")
            .arg("-isystem")
            .arg(headers.join("usr/include"))
            .arg("-I")
            .arg(&selftests)
            .args(program.flags)
            .arg("-o")
            .arg(folder.join(program.name))
            .arg(selftests.join(program.source));
        run(compile)?;
    }
    std::fs::remove_dir_all(&headers).map_err(cache::Error::io("remove", &headers))?;
    Ok(())
}

fn run(mut command: Command) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|source| Failure::Start {
        program: program.clone(),
        source,
    })?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::Compile { program, status }),
    }
}
