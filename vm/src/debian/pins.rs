//! `vm.lock`: which packages a project's guests are made of, for every machine
//! that has its source.
//!
//! It names no mirror: a package is asked for by its version, wherever the
//! machine's mirror has it, and taken only with the hash that stands here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::apt::{self, Apt, DEBS, Deb, Lists};
use super::toolchain::suites;
use super::{Debian, Error, kernel, plan, root};
use crate::Arch;
use crate::cache;

/// The file's name, in a project's folder.
pub const FILE: &str = "vm.lock";

/// What stands at its beginning.
const HEAD: &str = "\
# The packages that this project's guests are made of, each with its size and its
# SHA-256. Written by `cargo vm kernel lock`; to be committed.

";

/// Where an artefact says which packages it was made of.
const MADE_OF: &str = "packages";

/// What `vm.lock` says: kernels and roots with their packages.
///
/// ```
/// use dmashare_vm::debian::Pins;
///
/// let folder = std::env::temp_dir();
/// // No project is there, so nothing is pinned.
/// assert_eq!(Pins::read(&folder.join("no-such-folder"))?, Pins::default());
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    #[serde(default, rename = "kernel", skip_serializing_if = "Vec::is_empty")]
    kernels: Vec<PinnedKernel>,
    #[serde(default, rename = "root", skip_serializing_if = "Vec::is_empty")]
    roots: Vec<PinnedRoot>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinnedKernel {
    name: String,
    release: String,
    version: String,
    suite: String,
    debs: Vec<Pin>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinnedRoot {
    suite: String,
    /// Those that were asked for, in order.
    packages: Vec<String>,
    debs: Vec<Pin>,
}

/// A package's file: `FILE BYTES SHA256`, in one line, so that a change is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Pin {
    file: String,
    bytes: u64,
    sha256: String,
}

impl From<Pin> for String {
    fn from(pin: Pin) -> String {
        format!("{} {} {}", pin.file, pin.bytes, pin.sha256)
    }
}

impl TryFrom<String> for Pin {
    type Error = String;

    fn try_from(line: String) -> Result<Self, String> {
        let wrong = || format!("\"{line}\" should be FILE BYTES SHA256");
        let words: Vec<&str> = line.split(' ').collect();
        let [file, bytes, sha256] = words[..] else {
            return Err(wrong());
        };
        let hex = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        // Nothing that leads out of the cache.
        if !hex || file.contains('/') || apt::parse_file(file).is_none() {
            return Err(wrong());
        }
        Ok(Self {
            file: file.to_owned(),
            bytes: bytes.parse().map_err(|_| wrong())?,
            sha256: sha256.to_owned(),
        })
    }
}

impl Pin {
    fn of(deb: &Deb) -> Option<Self> {
        Some(Self {
            file: deb.file.clone(),
            bytes: deb.bytes,
            sha256: deb.hash.strip_prefix("SHA256:")?.to_owned(),
        })
    }

    /// The package, of which only the mirror knows where it is.
    fn deb(&self) -> Deb {
        let (package, version) = apt::parse_file(&self.file).unwrap_or_default();
        Deb {
            package,
            version,
            file: self.file.clone(),
            uri: String::new(),
            bytes: self.bytes,
            hash: format!("SHA256:{}", self.sha256),
        }
    }
}

impl Pins {
    /// What the project in `folder` has pinned; nothing where it has no such
    /// file.
    ///
    /// # Errors
    /// [`Error::Lock`] for a file that is none of ours.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let file = folder.join(FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(cache::Error::io("read", file)(error).into()),
        };
        toml::from_str(&text).map_err(|error| Error::Lock {
            file,
            problem: error.to_string().trim().to_owned(),
        })
    }

    /// Writes them to the project in `folder`.
    ///
    /// # Errors
    /// [`Error::Cache`] where it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let file = folder.join(FILE);
        let text = toml::to_string_pretty(self).map_err(|error| Error::Lock {
            file: file.clone(),
            problem: error.to_string(),
        })?;
        Ok(cache::write(&file, format!("{HEAD}{text}").as_bytes())?)
    }

    /// `debian` with these pins, of the project in `folder`. What they name is of
    /// use to the cache from then on.
    pub(crate) fn of_project(&self, debian: &Debian, folder: &Path) -> Result<Debian, Error> {
        if *self != Self::default() {
            plan::note_project(debian, folder)?;
        }
        Ok(debian.clone().pinned(self.clone()))
    }

    /// Pins the kernel called `name` to what it stands for in `debian`'s cache,
    /// where it has been fetched to.
    pub(crate) fn pin_kernel(&mut self, debian: &Debian, name: &str) -> Result<(), Error> {
        let plan: kernel::Plan = plan::recorded(debian, &kernel::Kernel::plan_name(debian, name))
            .ok_or_else(|| lost(name))?;
        let pinned = PinnedKernel {
            name: name.to_owned(),
            debs: pins(&plan.debs).ok_or_else(|| lost(name))?,
            release: plan.release,
            version: plan.version,
            suite: plan.suite,
        };
        self.kernels.retain(|kernel| kernel.name != name);
        self.kernels.push(pinned);
        self.kernels.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    /// The same for the root of these packages, which takes the place of any
    /// other.
    pub(crate) fn pin_root(
        &mut self,
        debian: &Debian,
        suite: &str,
        packages: &[&str],
    ) -> Result<(), Error> {
        let packages = root::in_order(packages);
        let plan: root::Plan = plan::recorded(debian, &root::plan_name(debian, suite, &packages))
            .ok_or_else(|| lost("root"))?;
        self.roots = vec![PinnedRoot {
            suite: suite.to_owned(),
            packages,
            debs: pins(&plan.debs).ok_or_else(|| lost("root"))?,
        }];
        Ok(())
    }

    /// Whether the kernel called `name` is pinned.
    pub(crate) fn has_kernel(&self, name: &str) -> bool {
        self.kernels.iter().any(|kernel| kernel.name == name)
    }

    /// Whether this root is pinned.
    pub(crate) fn has_root(&self, suite: &str, packages: &[&str]) -> bool {
        matches!(self.root(suite, &root::in_order(packages)), Ok(Some(_)))
    }

    /// The names of the kernels that are pinned.
    pub(crate) fn kernel_names(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|kernel| kernel.name.as_str())
    }

    /// The artefacts' keys of the roots that are pinned.
    pub(super) fn root_keys(&self) -> impl Iterator<Item = String> {
        self.roots.iter().map(|root| {
            let debs = root.debs.iter().map(Pin::deb).collect();
            root::Plan { debs }.key(&root.suite)
        })
    }

    pub(super) fn kernel(&self, name: &str) -> Option<kernel::Plan> {
        let kernel = self.kernels.iter().find(|kernel| kernel.name == name)?;
        Some(kernel::Plan {
            suite: kernel.suite.clone(),
            release: kernel.release.clone(),
            version: kernel.version.clone(),
            debs: kernel.debs.iter().map(Pin::deb).collect(),
        })
    }

    /// The root of these packages. Where others are pinned it is an error: a
    /// root that is silently not the pinned one is worse.
    pub(super) fn root(
        &self,
        suite: &str,
        packages: &[String],
    ) -> Result<Option<root::Plan>, Error> {
        let fits = |root: &&PinnedRoot| root.suite == suite && root.packages == packages;
        match self.roots.iter().find(fits) {
            Some(root) => Ok(Some(root::Plan {
                debs: root.debs.iter().map(Pin::deb).collect(),
            })),
            None if self.roots.is_empty() => Ok(None),
            None => Err(Error::Lock {
                file: FILE.into(),
                problem: "the root of these packages is not pinned, but another is; `cargo vm kernel lock root` pins it"
                    .to_owned(),
            }),
        }
    }
}

/// What is asked for has been taken away in between, or is older than hashes.
fn lost(name: &str) -> Error {
    Error::Lock {
        file: FILE.into(),
        problem: format!("what {name} stands for is no longer recorded; try again"),
    }
}

fn pins(debs: &[Deb]) -> Option<Vec<Pin>> {
    debs.iter().map(Pin::of).collect()
}

/// A thing that is pinned, in the words of errors.
pub(super) struct Pinned<'a> {
    /// `kernel 7.2 (7.2.13+deb14-amd64)`.
    pub(super) what: &'a str,
    /// Its name for `cargo vm kernel lock`.
    pub(super) name: &'a str,
    pub(super) suite: &'a str,
}

impl Pinned<'_> {
    /// Has the pinned `debs` in the cache, with the hashes that they are to
    /// have.
    pub(super) fn fetch(&self, debian: &Debian, debs: &[Deb]) -> Result<(), Error> {
        if self.strange(debian, debs)?.is_empty() {
            return apt::fetch(&debian.cache, self.what, debs);
        }
        let fetch = |lists| {
            let mut wanted = debs.to_vec();
            self.find(debian, &mut wanted, lists)?;
            // The mirror has what is pinned: these are something else, where
            // another run has not put the right ones in their place by now.
            let lock = debian.cache.lock(DEBS)?;
            for file in self.strange(debian, debs)? {
                cache::remove(&file)?;
            }
            drop(lock);
            apt::fetch(&debian.cache, self.what, &wanted)
        };
        // Once more with fresh lists, where those of this day do not do.
        fetch(Lists::Recent).or_else(|error| match error {
            Error::Fetch { .. } | Error::Gone { .. } => fetch(Lists::Fresh),
            other => Err(other),
        })
    }

    /// The files of those that the cache does not have, or has with another
    /// content.
    fn strange(&self, debian: &Debian, debs: &[Deb]) -> Result<Vec<PathBuf>, Error> {
        let mut strange = Vec::new();
        for deb in debs {
            let file = deb.place(&debian.cache);
            match deb.is_in(&file) {
                Ok(true) => {}
                Ok(false) => strange.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => strange.push(file),
                Err(error) => return Err(cache::Error::io("read", file)(error).into()),
            }
        }
        Ok(strange)
    }

    /// Finds out where the mirror has them.
    fn find(&self, debian: &Debian, debs: &mut [Deb], lists: Lists) -> Result<(), Error> {
        let apt = Apt::new(debian, &suites(self.suite), lists)?;
        let versions: Vec<String> = debs
            .iter()
            .map(|deb| format!("{}={}", deb.package, deb.version))
            .collect();
        let there = match apt.alone(&versions) {
            Ok(there) => there,
            Err(error @ Error::Packages { .. }) => return Err(self.gone(&apt, debs, error)?),
            Err(other) => return Err(other),
        };
        for deb in debs {
            let Some(found) = there.iter().find(|found| found.file == deb.file) else {
                let error = Error::Packages {
                    suite: self.suite.to_owned(),
                    said: format!("apt offers another file than {}", deb.file),
                };
                return Err(self.gone(&apt, std::slice::from_ref(deb), error)?);
            };
            if found.hash != deb.hash {
                return Err(Error::Pinned {
                    what: self.what.to_owned(),
                    problem: format!(
                        "the mirror has {} with {}, and {FILE} pins {}",
                        deb.file, found.hash, deb.hash
                    ),
                });
            }
            deb.uri.clone_from(&found.uri);
        }
        Ok(())
    }

    /// Which of them are gone, and what is there now; or the `error` that apt
    /// gave, where that is not why.
    fn gone(&self, apt: &Apt, debs: &[Deb], error: Error) -> Result<Error, Error> {
        let mut gone = Vec::new();
        for deb in debs {
            let now = apt.show(&deb.package)?;
            let now = now.as_ref().and_then(|stanza| stanza.get("Version"));
            if now != Some(&deb.version) {
                gone.push(match now {
                    Some(now) => format!("{} {} (now {now})", deb.package, deb.version),
                    None => format!("{} {}", deb.package, deb.version),
                });
            }
        }
        if gone.is_empty() {
            return Ok(error);
        }
        let more = gone.len().saturating_sub(3);
        gone.truncate(3);
        let mut gone = gone.join(", ");
        if more > 0 {
            gone.push_str(&format!(" and {more} more"));
        }
        let now = match self.name {
            "root" => None,
            _ => kernel::current(apt, Arch::HOST)?
                .map(|release| format!(", whose kernel is {release} now")),
        };
        Ok(Error::Gone {
            what: self.what.to_owned(),
            gone,
            suite: format!("{}{}", self.suite, now.unwrap_or_default()),
            name: self.name.to_owned(),
        })
    }

    /// Refuses an artefact in `folder` that was made of others than `debs`.
    pub(super) fn check(&self, folder: &Path, debs: &[Deb]) -> Result<(), Error> {
        match fs::read_to_string(folder.join(MADE_OF)) {
            Ok(made_of) if made_of != list(debs) => Err(Error::Pinned {
                what: self.what.to_owned(),
                problem: format!(
                    "{} was made of packages with other hashes than {FILE} pins; `cargo vm cache clean --all` makes way for it",
                    folder.display()
                ),
            }),
            // One made before artefacts said so.
            _ => Ok(()),
        }
    }
}

/// Writes down in an artefact what it is made of.
pub(super) fn note_packages(folder: &Path, debs: &[Deb]) -> Result<(), Error> {
    let file = folder.join(MADE_OF);
    Ok(fs::write(&file, list(debs)).map_err(cache::Error::io("write", file))?)
}

fn list(debs: &[Deb]) -> String {
    let lines = debs
        .iter()
        .map(|deb| format!("{} {}\n", deb.file, deb.hash));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "2b2d3c6e224358c60974d0bc87461da99a85733eb1fec035b5167582c3bede2b";

    fn text() -> String {
        format!(
            r#"[[kernel]]
name = "7.2"
release = "7.2.13+deb14-amd64"
version = "7.2.13-1"
suite = "sid"
debs = [
    "linux-base-7.2.13+deb14-amd64_7.2.13-1_amd64.deb 469412 {HASH}",
    "linux-binary-7.2.13+deb14-amd64_7.2.13-1_amd64.deb 14252084 {HASH}",
]

[[root]]
suite = "trixie"
packages = ["kmod"]
debs = ["libgmp10_2%3a6.3.0+dfsg-5_amd64.deb 12 {HASH}"]
"#
        )
    }

    #[test]
    fn it_is_written_as_it_is_read_and_names_no_host() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), text()).unwrap();
        let pins = Pins::read(folder.path()).unwrap();
        let kernel = pins.kernel("7.2").unwrap();
        assert_eq!(kernel.debs[0].version, "7.2.13-1");
        assert_eq!(kernel.debs[0].bytes, 469_412);
        assert_eq!(pins.kernel("6.12").map(|plan| plan.release), None);
        pins.write(folder.path()).unwrap();
        let written = fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(written, format!("{HEAD}{}", text()));
        assert!(!written.contains("://"));
    }

    #[test]
    fn an_epoch_is_read_back_from_a_file_s_name() {
        let pins: Pins = toml::from_str(&text()).unwrap();
        let root = pins.root("trixie", &["kmod".into()]).unwrap().unwrap();
        assert_eq!(root.debs[0].package, "libgmp10");
        assert_eq!(root.debs[0].version, "2:6.3.0+dfsg-5");
    }

    #[test]
    fn another_root_than_the_pinned_is_an_error() {
        let pins: Pins = toml::from_str(&text()).unwrap();
        let other = pins.root("trixie", &["dash".into()]).err().unwrap();
        assert!(other.to_string().contains("kernel lock root"), "{other}");
        let none = Pins::default().root("trixie", &["dash".into()]);
        assert!(none.unwrap().is_none());
    }

    #[test]
    fn what_is_no_pin_is_told_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        for (from, to) in [
            ("469412", "many"),
            (HASH, "ab"),
            ("linux-base-7.2.13+deb14-amd64_7", "../linux-base_7"),
            ("suite", "suiet"),
        ] {
            fs::write(folder.path().join(FILE), text().replace(from, to)).unwrap();
            let error = Pins::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(FILE), "{error}");
        }
    }
}
