//! A private apt: the host's program with its proxies, certificates and
//! credentials, but with sources, lists and archives of its own. Nothing it
//! does can be seen in the host's apt.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};

use super::mirror::{KEYRING, Mirror, stanzas};
use super::run::{self, Said};
use super::{Debian, Error};
use crate::Arch;
use crate::cache::{self, Cache};
use crate::progress::{Progress, note, size};

/// Lists are good this long; a package that has vanished from the mirror since
/// then makes them fetched anew before.
const LISTS_KEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// Where packages are, in the cache.
pub(super) const DEBS: &str = "debs";

/// Part of apt for programs like this one: fetches a file and checks its hash.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// A package in the archive: enough to fetch it without asking apt again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Deb {
    pub(super) package: String,
    pub(super) version: String,
    /// Its file's name, which no other version has.
    pub(super) file: String,
    pub(super) uri: String,
    pub(super) bytes: u64,
    /// `SHA256:HEX`, from the archive's signed lists.
    pub(super) hash: String,
}

impl Deb {
    /// Where its file is in the cache, once it is fetched.
    pub(super) fn place(&self, cache: &Cache) -> PathBuf {
        cache.folder().join(DEBS).join(&self.file)
    }

    /// Whether what is in `file` has the hash that the lists say.
    pub(super) fn is_in(&self, file: &Path) -> io::Result<bool> {
        let content = fs::read(file)?;
        let hash = match self.hash.starts_with("SHA512:") {
            true => Sha512::digest(content).to_vec(),
            false => Sha256::digest(content).to_vec(),
        };
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = self.hash.split_once(':');
        Ok(expected.is_some_and(|(_, expected)| hash.eq_ignore_ascii_case(expected)))
    }
}

/// A stanza of the archive's list of packages.
pub(super) type Stanza = BTreeMap<String, String>;

/// What is asked of the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// Those of the last day do.
    Recent,
    /// Fetch them anew.
    Fresh,
}

/// apt with the sources of one or more suites.
pub(super) struct Apt {
    /// Of messages: `trixie`.
    name: String,
    config: PathBuf,
}

impl Apt {
    /// apt for `suites`, with lists as asked: of what runs on the host.
    pub(super) fn new(debian: &Debian, suites: &[&str], lists: Lists) -> Result<Self, Error> {
        Self::of_arch(debian, Arch::HOST.debian(), suites, lists)
    }

    /// apt for `suites`, with lists as asked: of what runs in the guest.
    pub(super) fn of_guest(debian: &Debian, suites: &[&str], lists: Lists) -> Result<Self, Error> {
        Self::of_arch(debian, debian.arch.debian(), suites, lists)
    }

    /// apt for `suites` of the architecture that Debian calls `arch`.
    pub(super) fn of_arch(
        debian: &Debian,
        arch: &str,
        suites: &[&str],
        lists: Lists,
    ) -> Result<Self, Error> {
        let cache = &debian.cache;
        for suite in suites {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            if suite.is_empty() || !suite.chars().all(plain) {
                return Err(Error::Packages {
                    suite: (*suite).to_owned(),
                    said: "no suite has such a name".to_owned(),
                });
            }
        }
        let mirror = match &debian.mirror {
            Some(uri) => Mirror::chosen(uri),
            None => Mirror::of_host()?,
        };
        let name = match arch == Arch::HOST.debian() {
            true => suites.join("+"),
            false => format!("{}-{arch}", suites.join("+")),
        };
        let folder = cache.folder().join("apt").join(&name);
        let archives = folder.join("archives/partial");
        let partial = cache.folder().join("apt/lists/partial");
        for folder in [&archives, &partial] {
            fs::create_dir_all(folder).map_err(cache::Error::io("make the folder", folder))?;
        }
        let apt = Self {
            config: folder.join("apt.conf"),
            name,
        };
        let _lock = cache.lock("apt")?;
        cache::write(
            &apt.config,
            config(cache.folder(), &folder, arch).as_bytes(),
        )?;
        apt.update(&folder, &sources(&mirror, suites, arch), lists)?;
        Ok(apt)
    }

    /// Writes the sources and sees to the lists.
    fn update(&self, folder: &Path, sources: &str, lists: Lists) -> Result<(), Error> {
        let file = folder.join("apt.sources");
        let stamp = folder.join("updated");
        let same = fs::read_to_string(&file).is_ok_and(|old| old == sources) && stamp.exists();
        let age = fs::metadata(&stamp)
            .and_then(|stat| stat.modified())
            .ok()
            .and_then(|then| SystemTime::now().duration_since(then).ok());
        if lists == Lists::Recent && same && age.is_some_and(|age| age < LISTS_KEEP) {
            return Ok(());
        }
        if !same {
            cache::remove(&stamp)?;
            cache::write(&file, sources.as_bytes())?;
        }
        let what = format!("the package lists of {}", self.name);
        note(&format!("fetching {what} (some 10 MB a suite)"));
        let mut progress = Progress::spinner(&what);
        let said = run::run_with(self.command("apt-get").arg("update"), |_| progress.set(0))?;
        drop(progress);
        if said.success {
            return Ok(cache::write(&stamp, b"")?);
        }
        let error = self.failed_update(what, &said);
        // Old lists are better than none, where nothing newer is asked for.
        if lists == Lists::Recent && same {
            note(&format!("{error}; going on with the lists there are"));
            return Ok(());
        }
        Err(error)
    }

    /// What the lists say of `package`, at the version apt would install.
    pub(super) fn show(&self, package: &str) -> Result<Option<Stanza>, Error> {
        let mut command = self.command("apt-cache");
        command.args(["show", "--no-all-versions", package]);
        let said = run::run_with(&mut command, |_| {})?;
        // That there is none is an answer; lists that cannot be read give none.
        if !said.success && !said.err.contains("No packages found") {
            return Err(self.packages(said.reason()));
        }
        Ok(stanzas(&said.out).into_iter().next())
    }

    /// The names of all packages that begin with `prefix`.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let names = run::run(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// `packages` alone, as `apt-get download` finds them.
    pub(super) fn alone(&self, packages: &[String]) -> Result<Vec<Deb>, Error> {
        self.resolve("download", packages)
    }

    /// `packages` and all that they depend on, from nothing installed.
    pub(super) fn with_dependencies(&self, packages: &[String]) -> Result<Vec<Deb>, Error> {
        self.resolve("install", packages)
    }

    fn resolve(&self, how: &str, packages: &[String]) -> Result<Vec<Deb>, Error> {
        let mut command = self.command("apt-get");
        command.args([how, "-qq", "--print-uris"]).args(packages);
        let said = run::run_with(&mut command, |_| {})?;
        if !said.success {
            return Err(self.packages(said.reason()));
        }
        let debs = parse_uris(&said.out).map_err(|line| {
            self.packages(format!("apt's word on a package is not understood: {line}"))
        })?;
        if debs.is_empty() && !packages.is_empty() {
            let packages = packages.join(" ");
            return Err(self.packages(format!("apt offers no file for {packages}")));
        }
        Ok(debs)
    }

    fn packages(&self, said: String) -> Error {
        Error::Packages {
            suite: self.name.clone(),
            said,
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = run::program(program);
        // -c and not APT_CONFIG, which the host's apt.conf.d would overrule.
        command.arg("-c").arg(&self.config);
        command
    }

    fn failed_update(&self, what: String, said: &Said) -> Error {
        let reason = said.reason();
        if reason.contains("does not have a Release file") {
            return self.packages(format!("the mirror has no such suite ({reason})"));
        }
        let unknown = reason.contains("not signed") || reason.contains("NO_PUBKEY");
        if unknown && !Path::new(KEYRING).exists() {
            return self.packages(format!(
                "the mirror's signature cannot be checked without {KEYRING}; install the package debian-archive-keyring ({reason})"
            ));
        }
        Error::Fetch { what, said: reason }
    }
}

/// Has `debs` in the cache, fetching those that are not: `what` they are for is
/// told with their number and size before.
pub(super) fn fetch(cache: &Cache, what: &str, debs: &[Deb]) -> Result<(), Error> {
    let folder = cache.folder().join(DEBS);
    let partial = folder.join("partial");
    let has = |folder: &Path, deb: &Deb| {
        fs::metadata(folder.join(&deb.file)).is_ok_and(|stat| stat.len() == deb.bytes)
    };
    if debs.iter().all(|deb| has(&folder, deb)) {
        return Ok(());
    }
    fs::create_dir_all(&partial).map_err(cache::Error::io("make the folder", &partial))?;
    let _lock = cache.lock(DEBS)?;
    let wanted: Vec<&Deb> = debs.iter().filter(|deb| !has(&folder, deb)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let bytes = wanted.iter().map(|deb| deb.bytes).sum();
    note(&format!(
        "fetching {} package{}, {}: {what}",
        wanted.len(),
        if wanted.len() == 1 { "" } else { "s" },
        size(bytes)
    ));
    cache.room_for(&format!("fetching {what}"), bytes)?;

    let mut command = run::program(APT_HELPER);
    // apt's own user for fetching cannot write into a person's folder.
    command.args(["-o", "APT::Sandbox::User=root", "download-file"]);
    for deb in &wanted {
        command
            .arg(&deb.uri)
            .arg(partial.join(&deb.file))
            .arg(&deb.hash);
    }
    let mut progress = Progress::bytes(what, Some(bytes));
    // What has arrived is seen in the files: apt's own percentage counts only
    // the files it has begun with.
    let arrived = || {
        let length =
            |deb: &&Deb| fs::metadata(partial.join(&deb.file)).map_or(0, |stat| stat.len());
        wanted.iter().map(length).sum()
    };
    let said = run::run_with(&mut command, |_| progress.set(arrived()))?;
    drop(progress);
    if !said.success {
        let error = Error::Fetch {
            what: what.to_owned(),
            said: said.reason(),
        };
        return Err(cache.explain(&format!("fetching {what}"), bytes, error));
    }
    for deb in wanted {
        let (from, to) = (partial.join(&deb.file), folder.join(&deb.file));
        // A mirror of files is linked to: the cache must not depend on it.
        if from.is_symlink() {
            let copy = partial.join(format!("{}.copy", deb.file));
            fs::copy(&from, &copy).map_err(cache::Error::io("copy", &from))?;
            fs::rename(&copy, &from).map_err(cache::Error::io("rename", &copy))?;
        }
        fs::rename(&from, &to).map_err(cache::Error::io("rename", &from))?;
    }
    Ok(())
}

/// The lines of `apt-get --print-uris`: `'URI' FILE BYTES HASH`, among others
/// that do not begin so. `Err` is a line that cannot be read, or has no hash:
/// what it names would be missing, or unchecked.
pub(super) fn parse_uris(text: &str) -> Result<Vec<Deb>, String> {
    text.lines()
        .filter(|line| line.starts_with('\''))
        .map(|line| {
            let deb = parse_uri(line).ok_or_else(|| line.to_owned())?;
            match deb.hash.split_once(':') {
                Some(("SHA256" | "SHA512", _)) => Ok(deb),
                _ => Err(line.to_owned()),
            }
        })
        .collect()
}

fn parse_uri(line: &str) -> Option<Deb> {
    let (uri, rest) = line.strip_prefix('\'')?.split_once('\'')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let (file, bytes) = (*fields.first()?, fields.get(1)?.parse().ok()?);
    let (package, version) = parse_file(file)?;
    Some(Deb {
        package,
        version,
        file: file.to_owned(),
        uri: uri.to_owned(),
        bytes,
        hash: (*fields.get(2)?).to_owned(),
    })
}

/// A package and its version, from the name of its file.
pub(super) fn parse_file(file: &str) -> Option<(String, String)> {
    let (package, rest) = file.split_once('_')?;
    let (version, _) = rest.split_once('_')?;
    // apt writes the colon of an epoch so in a file's name.
    Some((package.to_owned(), version.replace("%3a", ":")))
}

/// The sources: one deb822 stanza a suite.
fn sources(mirror: &Mirror, suites: &[&str], arch: &str) -> String {
    let mut text = String::new();
    for suite in suites {
        let mut line = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}: {value}");
        };
        line("Types", "deb");
        line("URIs", &mirror.uri);
        line("Suites", suite);
        line("Components", "main");
        line("Architectures", arch);
        // Neither translations nor what other packages hook into apt.
        line("Targets", "Packages");
        // Whole lists: cheaper than patching them once a day.
        line("PDiffs", "no");
        // sid has no release that its date could be checked against: a mirror a
        // week behind is a usable one.
        if matches!(*suite, "sid" | "unstable") {
            line("Check-Valid-Until", "no");
        }
        for (name, value) in &mirror.options {
            line(name, value);
        }
        text.push('\n');
    }
    text
}

/// The configuration, on top of the host's (apt.conf(5)).
fn config(cache: &Path, folder: &Path, arch: &str) -> String {
    let (cache, folder) = (cache.display(), folder.display());
    format!(
        r#"// Private: of this folder alone, on top of the host's configuration.
Dir::Etc::SourceList "{folder}/apt.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
// As if nothing were installed.
Dir::State::status "/dev/null";
Dir::State::extended_states "{folder}/extended_states";
Dir::State::lists "{cache}/apt/lists";
Dir::Cache "{folder}";
Dir::Cache::archives "{folder}/archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";
// Other suites keep their lists in the same folder.
APT::Get::List-Cleanup "false";
APT::Sandbox::User "root";
APT::Architecture "{arch}";
#clear APT::Architectures;
APT::Architectures {{ "{arch}"; }};
APT::Default-Release "";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
// A list that does not come is an error, not a warning.
APT::Update::Error-Mode "any";
// The host's hooks are about the host.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::Languages "none";
// Or --print-uris names the weakest hash, MD5.
Acquire::ForceHash "SHA256";
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_parsed() {
        let text = "\
'http://m/debian/pool/main/l/l/linux-image-6.12%2bdeb13_1_amd64.deb' linux-image-6.12+deb13_1_amd64.deb 107898972 SHA256:7794
'http://m/debian/pool/main/g/gmp/libgmp10_6.3_amd64.deb' libgmp10_2%3a6.3.0+dfsg-5_amd64.deb 12 SHA256:ab

E: not a line of it
";
        let debs = parse_uris(text).unwrap();
        assert_eq!(debs.len(), 2);
        assert_eq!(debs[0].package, "linux-image-6.12+deb13");
        assert_eq!(debs[0].bytes, 107_898_972);
        assert_eq!(debs[0].hash, "SHA256:7794");
        assert_eq!(debs[1].version, "2:6.3.0+dfsg-5");
        assert_eq!(debs[1].file, "libgmp10_2%3a6.3.0+dfsg-5_amd64.deb");
    }

    #[test]
    fn lists_that_cannot_be_read_are_not_lists_without_the_package() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("apt");
        fs::create_dir(&empty).unwrap();
        let apt = Apt {
            name: "sid".into(),
            config: folder.path().join("apt.conf"),
        };
        fs::write(
            &apt.config,
            config(folder.path(), &empty, Arch::HOST.debian()),
        )
        .unwrap();
        assert_eq!(apt.show("linux-image-amd64").unwrap(), None);
        fs::write(
            empty.join("apt.sources"),
            "Types: deb\nURIs: http://m/debian\n",
        )
        .unwrap();
        let error = apt.show("linux-image-amd64").unwrap_err().to_string();
        assert!(error.starts_with("Debian sid: "), "{error}");
    }

    #[test]
    fn no_package_is_dropped_or_goes_unchecked() {
        for line in [
            "'http://m/cut short",
            "'http://m/a_1_all.deb' a_1_all.deb many SHA256:ab",
            "'http://m/a_1_all.deb' a_1_all.deb 12",
            "'http://m/a_1_all.deb' a_1_all.deb 12 MD5Sum:ab",
        ] {
            assert_eq!(parse_uris(line).err(), Some(line.to_owned()));
        }
    }

    #[test]
    fn sources_are_a_stanza_a_suite() {
        let text = sources(
            &Mirror::chosen("http://m/debian"),
            &["trixie", "sid"],
            "arm64",
        );
        let stanzas = stanzas(&text);
        assert_eq!(stanzas.len(), 2);
        assert_eq!(stanzas[0]["Suites"], "trixie");
        assert_eq!(stanzas[0]["Architectures"], "arm64");
        assert_eq!(stanzas[0].get("Check-Valid-Until"), None);
        assert_eq!(stanzas[1]["Check-Valid-Until"], "no");
    }
}
