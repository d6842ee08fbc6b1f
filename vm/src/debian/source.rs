//! A kernel's source, as Debian packages it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::apt::{self, Apt, Deb, Lists};
use super::kernel::Wanted;
use super::root::digest;
use super::unpack::{Counted, extract_to, members};
use super::{Debian, Error, plan, run};
use crate::cache;
use crate::progress::{Progress, note};

/// A package of source unpacks to some twelve times its size, beside the archive
/// that is in it.
const GROWTH: u64 = 13;

/// Which package a source is of.
#[derive(Serialize, Deserialize)]
struct Plan {
    suite: String,
    deb: Deb,
}

/// A kernel's source, unpacked.
pub(super) struct Source {
    /// The folder of its top Makefile.
    pub(super) folder: PathBuf,
    /// The suite it is from.
    pub(super) suite: String,
    /// The version of its package: `7.2.13-1`.
    pub(super) version: String,
}

/// The folder of the source of kernel `version` (`7.2`, as in the name of
/// Debian's package linux-source-7.2), with Debian's patches, from the cache or
/// fetched now: some 160 MB, 1.8 GB unpacked.
///
/// It is not to be written to: build with `O=` another folder.
///
/// # Errors
/// [`Error::NoSource`] where no suite has it; [`Error::Fetch`] without network
/// where it is not cached; else [`Error`].
///
/// ```no_run
/// // Not run with the crate's tests: fetches some 160 MB.
/// use dmashare_vm::{cache::Cache, debian::{Debian, source}};
///
/// let folder = source(&Debian::new(Cache::open()?, None), "7.2")?;
/// assert!(folder.join("MAINTAINERS").exists());
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn source(debian: &Debian, version: &str) -> Result<PathBuf, Error> {
    Source::prepare(debian, version).map(|source| source.folder)
}

impl Source {
    /// The suite and the version that it is known to be of, without having it.
    pub(super) fn recorded(debian: &Debian, version: &str) -> Option<(String, String)> {
        let plan: Plan = plan::recorded(debian, &plan_name(version))?;
        Some((plan.suite, plan.deb.version))
    }

    pub(super) fn prepare(debian: &Debian, version: &str) -> Result<Self, Error> {
        let wanted = Wanted::parse(version).filter(|_| is_series(version));
        let wanted = wanted.ok_or_else(|| no_source(version))?;
        let what = format!("the source of kernel {version}");
        plan::follow(
            debian,
            &plan_name(version),
            &what,
            |lists| find(debian, version, &wanted, lists),
            |plan: &Plan| {
                let key = format!("{version}-{}", digest(&plan.deb.file));
                let need = plan.deb.bytes * GROWTH;
                let folder = debian.cache.artefact("source", &key, need, |folder| {
                    apt::fetch(&debian.cache, &what, std::slice::from_ref(&plan.deb))?;
                    unpack(debian, &plan.deb, &what, folder)
                })?;
                Ok(Self {
                    folder: folder.join(&plan.deb.package),
                    suite: plan.suite.clone(),
                    version: plan.deb.version.clone(),
                })
            },
        )
    }
}

fn plan_name(version: &str) -> String {
    format!("source-{version}")
}

/// Two numbers, as the names of packages have them.
fn is_series(version: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    version
        .split_once('.')
        .is_some_and(|(major, minor)| is_number(major) && is_number(minor))
}

fn no_source(version: &str) -> Error {
    Error::NoSource {
        version: version.to_owned(),
    }
}

fn find(debian: &Debian, version: &str, wanted: &Wanted, lists: Lists) -> Result<Plan, Error> {
    let package = format!("linux-source-{version}");
    for suite in wanted.suites() {
        let apt = Apt::new(debian, &[suite], lists)?;
        if apt.show(&package)?.is_none() {
            continue;
        }
        if let Some(deb) = apt
            .alone(std::slice::from_ref(&package))?
            .into_iter()
            .next()
        {
            let suite = suite.to_owned();
            return Ok(Plan { suite, deb });
        }
    }
    Err(no_source(version))
}

/// Unpacks the source, which is an archive of its own in the package.
fn unpack(debian: &Debian, deb: &Deb, what: &str, folder: &Path) -> Result<(), Error> {
    note(&format!("unpacking {what}: 1.8 GB in 90,000 files"));
    let mut progress = Progress::bytes(&format!("unpacking {what}"), Some(deb.bytes));
    let name = format!("{}.tar.xz", deb.package);
    let mut tar = extract_to(folder);
    tar.arg("--strip-components=3")
        .arg(format!("./usr/src/{name}"));
    members(&debian.cache, deb, &mut tar, |_| {})?;
    let archive = folder.join(name);
    let mut from = run::program("cat");
    from.arg(&archive);
    run::piped(&mut from, &mut extract_to(folder), |archive, tar| {
        // Not tar's own way, which wants an xz on the host.
        let counted = Counted::new(archive, |bytes| progress.set(bytes));
        io::copy(&mut lzma_rust2::XzReader::new(counted, false), tar).map(drop)
    })?;
    Ok(cache::remove(&archive)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_series_has_a_source() {
        assert!(is_series("7.2") && is_series("6.12"));
        for wrong in ["7", "7.", "7.2.13", "debian:sid", "debug", "7.x"] {
            assert!(!is_series(wrong), "{wrong}");
        }
    }
}
