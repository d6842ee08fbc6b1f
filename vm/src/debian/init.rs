//! The guest's process 1, for the architecture of the guest.
//!
//! That of [`Arch::HOST`] is built with this crate. For another, the toolchain
//! that builds this crate would need the other's standard library and a linker,
//! which few hosts have. So it is built when a guest first needs it, from the
//! same source, by Debian's own Rust in a root of its own, as modules are: one
//! way that works wherever apt does. What it is made of (its lock file says
//! which versions) is what the host's cargo vendors, from its own cache where
//! this crate was built here.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use super::root::digest;
use super::toolchain::Toolchain;
use super::{Debian, Error, run};
use crate::Arch;
use crate::cache;
use crate::progress::{Progress, note};

/// The one for [`Arch::HOST`], built by `build.rs`.
const OF_HOST: &[u8] = include_bytes!(env!("VM_INIT"));

/// The same as a package that stands alone: what `build.rs` made of its
/// manifest, and its source.
const SOURCE: [(&str, &str); 9] = [
    (
        "Cargo.toml",
        include_str!(concat!(env!("VM_INIT_SOURCE"), "/Cargo.toml")),
    ),
    (
        "Cargo.lock",
        include_str!(concat!(env!("VM_INIT_SOURCE"), "/Cargo.lock")),
    ),
    ("src/main.rs", include_str!("../../init/src/main.rs")),
    ("src/lib.rs", include_str!("../../init/src/lib.rs")),
    ("src/boot.rs", include_str!("../../init/src/boot.rs")),
    ("src/account.rs", include_str!("../../init/src/account.rs")),
    ("src/agent.rs", include_str!("../../init/src/agent.rs")),
    ("src/files.rs", include_str!("../../init/src/files.rs")),
    ("src/log.rs", include_str!("../../init/src/log.rs")),
];

/// Where cargo finds what `cargo vendor` brought, and how it links.
const CONFIG: &str = r#"
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "vendor"
# There is no `cc`: it is a link that packages' scripts make.
[target.x86_64-unknown-linux-gnu]
linker = "gcc"
[target.aarch64-unknown-linux-gnu]
linker = "aarch64-linux-gnu-gcc"
# Static, since it runs before there is a root file system.
rustflags = ["-Ctarget-feature=+crt-static"]
"#;

impl Debian {
    /// The init of its guests; built now where it is for another architecture
    /// than ours and not in the cache.
    pub(crate) fn init(&self) -> Result<Cow<'static, [u8]>, Error> {
        if self.arch == Arch::HOST {
            return Ok(OF_HOST.into());
        }
        let mut recipe = CONFIG.to_owned();
        for (name, text) in SOURCE {
            recipe.push_str(&format!("{name} {}\n{text}", text.len()));
        }
        let key = format!("{}-{}", self.arch, digest(&recipe));
        let folder = self
            .cache
            .artefact("init", &key, 200_000_000, |folder| build(self, folder))?;
        let file = folder.join("vm-init");
        let init = fs::read(&file).map_err(cache::Error::io("read", file))?;
        Ok(init.into())
    }
}

/// Builds it into `folder`.
fn build(debian: &Debian, folder: &Path) -> Result<(), Error> {
    note(&format!(
        "building the guest's init for {}, once",
        debian.arch
    ));
    let toolchain = Toolchain::of_init(debian)?;
    let scratch = toolchain.scratch(debian, "init")?;
    for (name, text) in SOURCE.into_iter().chain([(".cargo/config.toml", CONFIG)]) {
        let file = scratch.path.join(name);
        let parent = file.parent().unwrap_or(&scratch.path);
        fs::create_dir_all(parent).map_err(cache::Error::io("make the folder", parent))?;
        fs::write(&file, text).map_err(cache::Error::io("write", &file))?;
    }
    vendor(&scratch.path)?;
    let mut cargo = toolchain.enter(&scratch)?;
    cargo
        .args(["env", "--chdir", &scratch.inside("")])
        .arg(format!("CARGO_HOME={}", scratch.inside("home")))
        .args(["cargo", "build", "--release", "--frozen", "--bin=vm-init"])
        .args(["--color=never", "--target", debian.arch.rust()]);
    let mut progress = Progress::spinner("building the guest's init");
    let said = run::run_with(&mut cargo, |_| progress.set(0))?;
    drop(progress);
    if !said.success {
        return Err(Error::Build {
            source_dir: scratch.path.clone(),
            release: debian.arch.to_string(),
            log: said.out,
        });
    }
    let built = scratch
        .path
        .join("target")
        .join(debian.arch.rust())
        .join("release/vm-init");
    let file = folder.join("vm-init");
    fs::copy(&built, &file).map_err(cache::Error::io("copy", built))?;
    Ok(())
}

/// Brings the packages that the one in `folder` is made of, with the host's
/// cargo: it knows where they come from here.
fn vendor(folder: &Path) -> Result<(), Error> {
    // The cargo that runs us, or the one in `PATH`.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut cargo = run::program(&cargo);
    cargo
        .args(["vendor", "--locked", "--respect-source-config", "--quiet"])
        .arg(folder.join("vendor"))
        .arg("--manifest-path")
        .arg(folder.join("Cargo.toml"))
        // Not with a project's own configuration, which may send it to what only
        // that project is made of.
        .current_dir("/");
    let said = run::run_with(&mut cargo, |_| {})?;
    match said.success {
        true => Ok(()),
        false => Err(Error::Fetch {
            what: "what the guest's init is made of, with cargo vendor".to_owned(),
            said: said.reason(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_its_source_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("init/src");
        let mut there: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| format!("src/{}", entry.unwrap().file_name().to_string_lossy()))
            .collect();
        there.sort();
        let mut embedded: Vec<&str> = SOURCE
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| name.starts_with("src/"))
            .collect();
        embedded.sort_unstable();
        assert_eq!(embedded, there);
    }
}
