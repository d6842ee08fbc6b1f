//! Compiles the C programs of peers/, each by itself, as their users would.
//!
//! They are embedded, so that a test program carries them into a guest that has
//! no compiler.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What they are compiled with: their own warnings are errors.
const FLAGS: &str = "-std=gnu11 -O2 -Wall -Wextra -Werror -Wno-sign-compare";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=peers");
    println!("cargo::rerun-if-env-changed=CC");
    // For who compiles them for another architecture.
    println!("cargo::rustc-env=PEER_FLAGS={FLAGS}");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut table = String::from("&[\n");
    let mut sources: Vec<PathBuf> = Vec::new();
    for entry in Path::new("peers").read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            sources.push(path);
        }
    }
    sources.sort();
    for source in sources {
        let name = source.file_stem().and_then(|stem| stem.to_str());
        let name = name.ok_or("a peer's name is not UTF-8")?;
        let program = out.join(name);
        let status = Command::new(&compiler)
            .args(FLAGS.split(' '))
            .arg("-o")
            .arg(&program)
            .arg(&source)
            .status()
            .map_err(|error| {
                format!("{compiler}: {error}; install a C compiler, or name one in CC")
            })?;
        if !status.success() {
            return Err(format!("{compiler} {}: {status}", source.display()).into());
        }
        table += &format!("    ({name:?}, include_bytes!({program:?})),\n");
    }
    table += "]\n";
    Ok(std::fs::write(out.join("peers.rs"), table)?)
}
