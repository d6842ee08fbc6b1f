//! What of the cache is of use: what names stand for, and what nothing stands
//! for any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::apt::{DEBS, Deb};
use super::compile::DEBUG;
use super::root::digest;
use super::{Debian, Error, Kernel, Pins, armhf, kernel, own, plan, root};
use crate::Arch;
use crate::cache::{self, Size};
use crate::progress::note;

/// What no plan tells of (built modules, what other programs keep) is of use as
/// long as it is used.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// What was used so lately may be in the hands of another run, which has yet to
/// write down what it is for.
const IN_HAND: Duration = Duration::from_secs(600);

/// What is no artefact: few bytes, and made anew at once.
const ASIDE: [&str; 3] = ["apt", "locks", "plans"];

/// A kernel's name, and what it stands for, as far as that is known without the
/// network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Named {
    /// The name: `7.2`, `debian:sid`, `debug`.
    pub name: String,
    /// What `uname -r` says in it.
    pub release: Option<String>,
    /// The version of its packages.
    pub version: Option<String>,
    /// The suite it is from.
    pub suite: Option<String>,
    /// What it takes in the cache; 0 where it is not there.
    pub bytes: u64,
    /// Whether `vm.lock` pins it.
    pub pinned: bool,
}

/// What the name of a kernel stands for. `builds` are the names that are built
/// from source, beside `debug`.
///
/// # Errors
/// [`Error::Cache`].
///
/// ```
/// use dmashare_vm::{cache::Cache, debian::{Debian, named}};
///
/// let debian = Debian::new(Cache::open()?, None);
/// let kernel = named(&debian, "6.12", &[])?;
/// println!("{}: {:?}, {} bytes", kernel.name, kernel.release, kernel.bytes);
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn named(debian: &Debian, name: &str, builds: &[&str]) -> Result<Named, Error> {
    let mut named = Named {
        name: name.to_owned(),
        release: None,
        version: None,
        suite: None,
        bytes: 0,
        pinned: debian.pins.has_kernel(name),
    };
    if let Some(plan) = planned(debian, name) {
        named.release = Some(plan.release);
        named.version = Some(plan.version);
        named.suite = Some(plan.suite);
    }
    for (kind, key) in artefacts(debian, name, builds)? {
        let folder = debian.cache.folder().join(kind).join(&key);
        named.bytes += debian.cache.size_of(&folder);
        if named.release.is_none() {
            named.release = release_of(&folder);
            named.version = key.split_once('_').map(|(_, version)| version.to_owned());
        }
    }
    Ok(named)
}

/// Removes the kernel called `name` with its packages, its compiler, what was
/// built for it, and what the name stood for: its next use fetches what Debian
/// has then. Gives how many bytes that freed.
///
/// # Errors
/// [`Error::InUse`] where a guest runs on it; [`Error::NotThere`] where the
/// cache has none.
///
/// ```no_run
/// // Not run with the crate's tests: removes a kernel.
/// use dmashare_vm::{cache::Cache, debian::{Debian, remove_kernel}};
///
/// let debian = Debian::new(Cache::open()?, None);
/// println!("{} bytes", remove_kernel(&debian, "6.12", &[])?);
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn remove_kernel(debian: &Debian, name: &str, builds: &[&str]) -> Result<u64, Error> {
    let mut freed = 0;
    let mut discard = |kind: &str, key: &str| -> Result<(), Error> {
        let bytes = debian
            .cache
            .size_of(&debian.cache.folder().join(kind).join(key));
        if !debian.cache.discard(kind, key)? {
            return Err(Error::InUse {
                what: format!("{kind} {key}"),
            });
        }
        freed += bytes;
        Ok(())
    };
    let kernels = artefacts(debian, name, builds)?;
    let plan = planned(debian, name);
    if kernels.is_empty() && plan.is_none() {
        return Err(Error::NotThere {
            name: name.to_owned(),
        });
    }
    // Also of one that is gone already, where what is for it was in use.
    let planned = plan.iter().map(|plan| (kernel::KIND, plan.key()));
    let mut made_for: Vec<(&str, String)> = planned.collect();
    for (kind, key) in &kernels {
        made_for.push((kind, key.clone()));
        discard(kind, key)?;
    }
    for (of, key) in made_for {
        let of_kernel = |kind: &str, there: &str| match kind {
            "toolchain" => of == kernel::KIND && there.starts_with(&format!("{key}-")),
            _ => ident_of(there).is_some_and(|ident| ident == kernel::ident(of, &key)),
        };
        for kind in ["module", "snapshot", "toolchain"] {
            for there in made(debian, kind)? {
                if of_kernel(kind, &there) {
                    discard(kind, &there)?;
                }
            }
        }
    }
    if let Some(plan) = plan {
        // Not while another run fetches: what it has found there it will use.
        let _lock = debian.cache.lock(DEBS)?;
        for deb in &plan.debs {
            let file = deb.place(&debian.cache);
            freed += fs::metadata(&file).map_or(0, |stat| stat.len());
            cache::remove(&file)?;
        }
        plan::forget(debian, &Kernel::plan_name(debian, name))?;
    }
    Ok(freed)
}

/// What of the cache nothing stands for any more, or all of it with `all`.
///
/// # Errors
/// [`Error::Cache`].
///
/// ```
/// use dmashare_vm::{cache::Cache, debian::{Debian, stale}};
///
/// for entry in stale(&Debian::new(Cache::open()?, None), false)? {
///     println!("{}/{} is of no use: {} bytes", entry.kind, entry.key, entry.bytes);
/// }
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn stale(debian: &Debian, all: bool) -> Result<Vec<Size>, Error> {
    stale_at(debian, all, SystemTime::now())
}

fn stale_at(debian: &Debian, all: bool, now: SystemTime) -> Result<Vec<Size>, Error> {
    let sizes = debian.cache.sizes()?;
    if all {
        // The locks are files that another run may have open, and what is in the
        // making is another run's.
        let rest = sizes
            .into_iter()
            .filter(|size| size.kind != "locks" && !size.key.ends_with(cache::MAKING));
        return Ok(rest.collect());
    }
    let kept = Kept::find(debian, &sizes)?;
    let stale = sizes
        .into_iter()
        .filter(|size| !kept.has(debian, size, now));
    Ok(stale.collect())
}

/// Removes an entry of [`stale`]; whether it did, or it is in use.
///
/// # Errors
/// [`Error::Cache`].
pub(crate) fn clean(debian: &Debian, entry: &Size) -> Result<bool, Error> {
    Ok(debian.cache.discard(&entry.kind, &entry.key)?)
}

/// What the name of a kernel of Debian's stands for.
fn planned(debian: &Debian, name: &str) -> Option<kernel::Plan> {
    let pinned = debian.pins.kernel(name);
    pinned.or_else(|| plan::recorded(debian, &Kernel::plan_name(debian, name)))
}

/// The artefacts of the kernel called `name`.
fn artefacts(
    debian: &Debian,
    name: &str,
    builds: &[&str],
) -> Result<Vec<(&'static str, String)>, Error> {
    let of = |kind: &'static str, fits: &dyn Fn(&str) -> bool| -> Result<Vec<_>, Error> {
        let keys = made(debian, kind)?.into_iter();
        Ok(keys
            .filter(|key| fits(key))
            .map(|key| (kind, key))
            .collect())
    };
    let made_here = name == DEBUG || builds.contains(&name) || own::is_path(name);
    if made_here && debian.arch != Arch::HOST {
        return Ok(Vec::new());
    }
    if name == DEBUG || builds.contains(&name) {
        let prefix = format!("{name}_");
        return of(kernel::KIND, &|key| key.starts_with(&prefix));
    }
    if own::is_path(name) {
        let place = Path::new(name).canonicalize();
        let place = place.unwrap_or_else(|_| name.into());
        let inside = format!("_{}-", digest(&place.to_string_lossy()));
        return of(own::KIND, &|key| key.contains(&inside));
    }
    let key = planned(debian, name).map(|plan| plan.key());
    of(kernel::KIND, &|there| Some(there) == key.as_deref())
}

/// What stands for its kernel in the key of a module or a snapshot:
/// `RELEASE_IDENT-HASH`. Those of earlier versions have none.
fn ident_of(key: &str) -> Option<&str> {
    let (_, hashes) = key.rsplit_once('_')?;
    hashes.split_once('-').map(|(ident, _)| ident)
}

/// The keys of a kind's artefacts, without those that are in the making.
fn made(debian: &Debian, kind: &str) -> Result<Vec<String>, Error> {
    let all = cache::entries(&debian.cache.folder().join(kind))?;
    let keys = all.into_iter().map(|(key, _)| key);
    Ok(keys.filter(|key| !key.ends_with(cache::MAKING)).collect())
}

/// The release of the kernel in an artefact.
fn release_of(folder: &Path) -> Option<String> {
    let mut releases = cache::entries(&folder.join("lib/modules")).ok()?;
    releases.pop().map(|(release, _)| release)
}

/// What is of use.
struct Kept {
    /// By plans and pins.
    artefacts: BTreeSet<(&'static str, String)>,
    /// By pins alone.
    pinned: BTreeSet<(&'static str, String)>,
    /// Of the kernels that are kept.
    releases: BTreeSet<String>,
    idents: BTreeSet<String>,
    /// Files of packages that are yet to be unpacked.
    debs: BTreeSet<String>,
}

/// A plan of any kind, for what they have in common.
#[derive(Deserialize)]
struct AnyPlan {
    #[serde(default)]
    debs: Vec<Deb>,
    deb: Option<Deb>,
}

impl Kept {
    fn find(debian: &Debian, sizes: &[Size]) -> Result<Self, Error> {
        let mut kept = Self {
            artefacts: BTreeSet::new(),
            pinned: BTreeSet::new(),
            releases: BTreeSet::new(),
            idents: BTreeSet::new(),
            debs: BTreeSet::new(),
        };
        kept.add_pinned(&debian.pins);
        for project in plan::projects(debian)? {
            match Pins::read(&project) {
                Ok(pins) => kept.add_pinned(&pins),
                Err(error) => {
                    note(&format!(
                        "{error}; it may pin anything, so that no kernel and no root goes"
                    ));
                    kept.add_pinnable(sizes);
                }
            }
        }
        let names = plan::names(debian)?;
        // Kernels before the compilers that are for them.
        let (kernels, others): (Vec<_>, Vec<_>) =
            names.iter().partition(|name| name.starts_with("kernel-"));
        for name in kernels {
            if let Some(plan) = plan::recorded::<kernel::Plan>(debian, name) {
                kept.add(debian, kernel::KIND, plan.key(), &plan.debs);
            }
        }
        for name in others {
            if let Some(plan) = plan::recorded::<AnyPlan>(debian, name) {
                kept.add_planned(debian, name, plan);
            }
        }
        kept.add_newest(sizes);
        for (kind, key) in &kept.artefacts {
            if [kernel::KIND, own::KIND].contains(kind) {
                let folder = debian.cache.folder().join(kind).join(key);
                kept.releases.extend(release_of(&folder));
                kept.idents.insert(kernel::ident(kind, key));
            }
        }
        Ok(kept)
    }

    fn add_pinned(&mut self, pins: &Pins) {
        let kernels = pins.kernel_names().filter_map(|name| pins.kernel(name));
        let kernels = kernels.map(|plan| (kernel::KIND, plan.key()));
        let roots = pins.root_keys().map(|key| (root::KIND, key));
        for pinned in kernels.chain(roots) {
            self.artefacts.insert(pinned.clone());
            self.pinned.insert(pinned);
        }
    }

    /// Adds all that a `vm.lock` which cannot be read may pin.
    fn add_pinnable(&mut self, sizes: &[Size]) {
        for kind in [kernel::KIND, root::KIND] {
            let all = sizes.iter().filter(|size| size.kind == kind);
            let all: Vec<_> = all.map(|size| (kind, size.key.clone())).collect();
            self.artefacts.extend(all.iter().cloned());
            self.pinned.extend(all);
        }
    }

    fn add(&mut self, debian: &Debian, kind: &'static str, key: String, debs: &[Deb]) {
        if !debian.cache.folder().join(kind).join(&key).exists() {
            self.debs.extend(debs.iter().map(|deb| deb.file.clone()));
        }
        self.artefacts.insert((kind, key));
    }

    /// Adds what the plan called `name` (`toolchain-sid-HASH`) is for.
    fn add_planned(&mut self, debian: &Debian, name: &str, plan: AnyPlan) {
        let Some((kind, rest)) = name.split_once('-') else {
            return;
        };
        let debs: Vec<Deb> = plan.debs.into_iter().chain(plan.deb).collect();
        let files: Vec<&str> = debs.iter().map(|deb| deb.file.as_str()).collect();
        let files = digest(&files.join(" "));
        // The plan's own hash is that of what was asked for.
        let asked = rest.rsplit_once('-').map_or(rest, |(asked, _)| asked);
        match kind {
            "root" => {
                // The architecture is in the names of its packages, too.
                let asked = rest.strip_suffix(Arch::Aarch64.suffix()).unwrap_or(rest);
                let asked = asked.rsplit_once('-').map_or(asked, |(asked, _)| asked);
                let plan = root::Plan { debs };
                self.add(debian, root::KIND, plan.key(asked), &plan.debs);
            }
            // Of a kernel: RELEASE_VERSION. Of a suite, which has no `_`.
            "toolchain" if asked.contains('_') && !self.has_kernel(kernel_of(asked)) => {}
            "toolchain" => self.add(debian, "toolchain", format!("{asked}-{files}"), &debs),
            "tools" => self.add(debian, "tools", format!("{asked}-{files}"), &debs),
            "source" => self.add(debian, "source", format!("{rest}-{files}"), &debs),
            "sparse" => self.add(debian, "sparse", format!("{rest}-{files}"), &debs),
            _ => {}
        }
    }

    fn has_kernel(&self, key: &str) -> bool {
        self.artefacts.contains(&(kernel::KIND, key.to_owned()))
    }

    /// Adds the last of each that is made anew under the same name: kernels
    /// built from source, and what is of a path.
    fn add_newest(&mut self, sizes: &[Size]) {
        let mut newest: BTreeMap<(&'static str, &str), &Size> = BTreeMap::new();
        for size in sizes {
            let Some(name) = name_of(size) else {
                continue;
            };
            let last = newest.entry(name).or_insert(size);
            if last.last_used < size.last_used {
                *last = size;
            }
        }
        for ((kind, _), size) in newest {
            self.artefacts.insert((kind, size.key.clone()));
        }
    }

    fn has(&self, debian: &Debian, size: &Size, now: SystemTime) -> bool {
        let age = now.duration_since(size.last_used).unwrap_or_default();
        let recent = age < UNUSED;
        let path = debian.cache.folder().join(&size.kind).join(&size.key);
        if age < IN_HAND || size.key.ends_with(cache::MAKING) || ASIDE.contains(&size.kind.as_str())
        {
            return true;
        }
        match size.kind.as_str() {
            DEBS => path.is_dir() || self.debs.contains(&size.key),
            kind @ ("kernel" | "own" | "root" | "toolchain" | "tools" | "source" | "sparse") => {
                let named = |(of, key): &(&str, String)| *of == kind && *key == size.key;
                // Kernels have names of their own, and `kernel rm`; their compilers
                // and sources, decided anew, would make others of those that are
                // built. Of the rest there is one for all that anybody ever asked
                // for.
                let wanted = recent || !["root", "tools", "sparse"].contains(&kind);
                let wanted = wanted || self.pinned.iter().any(named);
                wanted && self.artefacts.iter().any(named) && !is_orphan(&path)
            }
            // Each for one kernel.
            "module" | "snapshot" => {
                let release = size.key.rsplit_once('_').map_or("", |(release, _)| release);
                let kernel = match ident_of(&size.key) {
                    Some(ident) => self.idents.contains(ident),
                    None => self.releases.contains(release),
                };
                kernel && recent
            }
            _ => recent,
        }
    }
}

/// The name under which the artefact is made anew: `debug` of
/// `kernel/debug_7.2.13-1-HASH`, the path's hash of what is of a path.
fn name_of(size: &Size) -> Option<(&'static str, &str)> {
    if size.key.ends_with(cache::MAKING) {
        return None;
    }
    match size.kind.as_str() {
        kernel::KIND => {
            // Releases, by which the others are called, begin with a digit.
            let built = size.key.starts_with(|c: char| c.is_ascii_lowercase());
            let (name, _) = size.key.split_once('_').filter(|_| built)?;
            Some((kernel::KIND, name))
        }
        own::KIND => {
            let (_, hashes) = size.key.rsplit_once('_')?;
            Some((own::KIND, hashes.split_once('-')?.0))
        }
        root::KIND => {
            let hashes = size.key.strip_prefix(root::FOLDER)?;
            Some((root::KIND, hashes.split_once('-')?.0))
        }
        _ => None,
    }
}

/// The key of the kernel that the toolchain `asked` is for.
fn kernel_of(asked: &str) -> &str {
    let of_32_bit = asked.strip_suffix(armhf::ARCH);
    let stem = of_32_bit.and_then(|stem| stem.strip_suffix('-'));
    stem.unwrap_or(asked)
}

/// Whether it was made of a path that is gone.
fn is_orphan(artefact: &Path) -> bool {
    let from = fs::read_to_string(artefact.join(root::FROM));
    from.is_ok_and(|from| !Path::new(&from).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;

    fn make(debian: &Debian, kind: &str, key: &str) {
        let made = debian.cache.artefact(kind, key, 1, |folder| {
            let modules = folder
                .join("lib/modules")
                .join(key.split('_').next().unwrap());
            fs::create_dir_all(modules).unwrap();
            Ok::<(), cache::Error>(())
        });
        made.unwrap();
    }

    fn plan(debian: &Debian, name: &str, text: &str) {
        let folder = debian.cache.folder().join("plans");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{name}.json")), text).unwrap();
    }

    fn kernel_plan(version: &str) -> String {
        format!(
            r#"{{"suite":"sid","release":"7.2.{version}-amd64","version":"7.2.{version}-1","debs":[
            {{"package":"linux-image","version":"1","file":"linux-image-{version}_1_amd64.deb",
            "uri":"","bytes":1,"hash":"SHA256:ab"}}]}}"#
        )
    }

    fn debian() -> (tempfile::TempDir, Debian) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        (folder, Debian::new(cache, None))
    }

    fn stale_keys(debian: &Debian) -> Vec<String> {
        assert!(stale(debian, false).unwrap().is_empty());
        stale_in(debian, 2 * IN_HAND)
    }

    fn stale_in(debian: &Debian, time: Duration) -> Vec<String> {
        let stale = stale_at(debian, false, SystemTime::now() + time).unwrap();
        stale
            .into_iter()
            .map(|size| format!("{}/{}", size.kind, size.key))
            .collect()
    }

    #[test]
    fn what_a_plan_names_is_kept_with_what_was_built_for_it() {
        let (_folder, debian) = debian();
        for version in ["13", "14"] {
            let key = format!("7.2.{version}-amd64_7.2.{version}-1");
            make(&debian, "kernel", &key);
            make(&debian, "module", &format!("7.2.{version}-amd64_ab"));
            let files = digest("tool_1_all.deb");
            for asked in [key.clone(), format!("{key}-armhf")] {
                make(&debian, "toolchain", &format!("{asked}-{files}"));
                plan(
                    &debian,
                    &format!("toolchain-{asked}-00"),
                    r#"{"debs":[{"package":"tool","version":"1","file":"tool_1_all.deb","uri":"","bytes":1,"hash":"SHA256:ab"}]}"#,
                );
            }
        }
        plan(&debian, "kernel-7.2", &kernel_plan("14"));
        let files = digest("tool_1_all.deb");
        assert_eq!(
            stale_keys(&debian),
            [
                "kernel/7.2.13-amd64_7.2.13-1",
                "module/7.2.13-amd64_ab",
                &format!("toolchain/7.2.13-amd64_7.2.13-1-armhf-{files}"),
                &format!("toolchain/7.2.13-amd64_7.2.13-1-{files}"),
            ]
        );
    }

    #[test]
    fn of_what_was_not_used_for_long_kernels_with_their_own_and_pins_stay() {
        let (_folder, debian) = debian();
        make(&debian, "kernel", "7.2.14-amd64_7.2.14-1");
        plan(&debian, "kernel-7.2", &kernel_plan("14"));
        let packages = r#"{"debs":[{"package":"tool","version":"1","file":"tool_1_amd64.deb","uri":"","bytes":1,"hash":"SHA256:ab"}]}"#;
        let debs = serde_json::from_str::<AnyPlan>(packages).unwrap().debs;
        let root = root::Plan { debs }.key("trixie");
        make(&debian, root::KIND, &root);
        let name = root::plan_name(&debian, "trixie", &["tool".to_owned()]);
        plan(&debian, &name, packages);
        let files = digest("tool_1_amd64.deb");
        for (kind, asked) in [
            ("toolchain", "7.2.14-amd64_7.2.14-1"),
            ("toolchain", "sid"),
            ("tools", "sid"),
        ] {
            make(&debian, kind, &format!("{asked}-{files}"));
            plan(&debian, &format!("{kind}-{asked}-00"), packages);
        }
        for kind in ["source", "sparse"] {
            make(&debian, kind, &format!("7.2-{files}"));
            plan(&debian, &format!("{kind}-7.2"), packages);
        }
        assert!(stale_in(&debian, UNUSED / 2).is_empty());
        let mut gone = stale_in(&debian, 2 * UNUSED);
        gone.sort();
        let expected = [
            format!("root/{root}"),
            format!("sparse/7.2-{files}"),
            format!("tools/sid-{files}"),
        ];
        assert_eq!(gone, expected);

        let sizes = debian.cache.sizes().unwrap();
        let mut kept = Kept::find(&debian, &sizes).unwrap();
        kept.pinned.insert((root::KIND, root));
        let long_after = SystemTime::now() + 2 * UNUSED;
        let all = sizes.iter().filter(|size| size.kind == root::KIND);
        assert!(
            all.into_iter()
                .all(|size| kept.has(&debian, size, long_after))
        );
    }

    #[test]
    fn what_is_of_another_architecture_is_kept_too() {
        let (_folder, debian) = debian();
        let arm64 = debian.clone().for_arch(Arch::Aarch64);
        let tool = r#"{"debs":[{"package":"tool","version":"1","file":"tool_1_arm64.deb","uri":"","bytes":1,"hash":"SHA256:ab"}]}"#;
        let debs = serde_json::from_str::<AnyPlan>(tool).unwrap().debs;
        let root = root::Plan { debs }.key("trixie-backports");
        make(&debian, root::KIND, &root);
        make(&debian, root::KIND, "trixie-backports-00");
        let name = root::plan_name(&arm64, "trixie-backports", &["tool".to_owned()]);
        plan(&debian, &name, tool);
        let files = digest("tool_1_arm64.deb");
        make(&debian, "toolchain", &format!("trixie-init-arm64-{files}"));
        plan(&debian, "toolchain-trixie-init-arm64-00", tool);
        let key = "7.2.14-arm64_7.2.14-1";
        make(&debian, "kernel", key);
        make(&debian, "module", "7.2.14-arm64_ab");
        let kernel = kernel_plan("14").replace("amd64", "arm64");
        plan(&debian, &Kernel::plan_name(&arm64, "7.2"), &kernel);
        assert_eq!(stale_keys(&debian), ["root/trixie-backports-00"]);

        // One name, two kernels.
        assert_eq!(named(&debian, "7.2", &[]).unwrap().release, None);
        let known = named(&arm64, "7.2", &[]).unwrap();
        assert_eq!(known.release.as_deref(), Some("7.2.14-arm64"));
        // Built from source they are x86-64's alone.
        make(&debian, "kernel", "debug_7.2.14-1-aa");
        assert!(remove_kernel(&arm64, DEBUG, &[]).is_err());
        assert!(remove_kernel(&debian, "7.2", &[]).is_err());
        remove_kernel(&arm64, "7.2", &[]).unwrap();
        let rest = cache::entries(&debian.cache.folder().join("kernel")).unwrap();
        assert_eq!(rest.len(), 1);
    }

    #[test]
    fn a_package_is_of_use_until_it_is_unpacked() {
        let (_folder, debian) = debian();
        plan(&debian, "kernel-7.2", &kernel_plan("14"));
        let debs = debian.cache.folder().join(DEBS);
        fs::create_dir_all(&debs).unwrap();
        fs::write(debs.join("linux-image-14_1_amd64.deb"), "x").unwrap();
        fs::write(debs.join("linux-image-13_1_amd64.deb"), "x").unwrap();
        assert_eq!(stale_keys(&debian), ["debs/linux-image-13_1_amd64.deb"]);
        make(&debian, "kernel", "7.2.14-amd64_7.2.14-1");
        assert_eq!(stale_keys(&debian).len(), 2);
    }

    #[test]
    fn of_what_is_made_anew_the_last_is_kept() {
        let (_folder, debian) = debian();
        for (kind, old, new) in [
            ("kernel", "debug_7.2.13-1-aa", "debug_7.2.13-1-bb"),
            ("own", "7.2.1_0123-aa", "7.2.2_0123-bb"),
            ("root", "folder-0123-aa", "folder-0123-bb"),
        ] {
            make(&debian, kind, old);
            std::thread::sleep(Duration::from_millis(20));
            make(&debian, kind, new);
        }
        let expected = [
            "kernel/debug_7.2.13-1-aa",
            "own/7.2.1_0123-aa",
            "root/folder-0123-aa",
        ];
        assert_eq!(stale_keys(&debian), expected);
        let gone = debian
            .cache
            .folder()
            .join("root/folder-0123-bb")
            .join(root::FROM);
        fs::write(gone, "/no/such/folder").unwrap();
        assert_eq!(stale_keys(&debian).len(), 4);
    }

    #[test]
    fn a_removed_kernel_takes_its_own_along() {
        let (_folder, debian) = debian();
        plan(&debian, "kernel-7.2", &kernel_plan("14"));
        make(&debian, "kernel", "7.2.14-amd64_7.2.14-1");
        let ident = kernel::ident("kernel", "7.2.14-amd64_7.2.14-1");
        make(&debian, "module", &format!("7.2.14-amd64_{ident}-ab"));
        make(&debian, "snapshot", &format!("7.2.14-amd64_{ident}-ab"));
        // Of the user's own, which has the same release.
        let place = tempfile::tempdir().unwrap();
        let path = place.path().canonicalize().unwrap();
        let path = path.to_string_lossy();
        let own = format!("7.2.14-amd64_{}-aa", digest(&path));
        make(&debian, "own", &own);
        let of_own = format!("7.2.14-amd64_{}-cd", kernel::ident("own", &own));
        make(&debian, "module", &of_own);
        make(&debian, "snapshot", &of_own);
        make(&debian, "toolchain", "7.2.14-amd64_7.2.14-1-ff");
        let known = named(&debian, "7.2", &[]).unwrap();
        assert_eq!(known.release.as_deref(), Some("7.2.14-amd64"));
        {
            let _building = debian.cache.lock("module.7.2.14-amd64_7.2.14-1-ff");
            let held = remove_kernel(&debian, "7.2", &[]).unwrap_err();
            assert!(matches!(held, Error::InUse { .. }), "{held}");
        }
        remove_kernel(&debian, "7.2", &[]).unwrap();
        assert_eq!(named(&debian, "7.2", &[]).unwrap().release, None);
        let left = || {
            let left = debian.cache.sizes().unwrap().into_iter();
            let left = left.filter(|size| size.kind != "locks");
            left.map(|size| (size.kind, size.key)).collect::<Vec<_>>()
        };
        let kinds = ["module", "own", "snapshot"].map(str::to_owned);
        let keys = [&of_own, &own, &of_own].map(String::clone);
        let expected: Vec<_> = kinds.into_iter().zip(keys).collect();
        assert_eq!(left(), expected);
        assert!(stale_keys(&debian).is_empty());
        // And the other way round.
        plan(&debian, "kernel-7.2", &kernel_plan("14"));
        make(&debian, "kernel", "7.2.14-amd64_7.2.14-1");
        make(&debian, "module", &format!("7.2.14-amd64_{ident}-ab"));
        remove_kernel(&debian, &path, &[]).unwrap();
        let kinds: Vec<String> = left().into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["kernel", "module", "plans"]);
        remove_kernel(&debian, "7.2", &[]).unwrap();
        assert_eq!(left(), []);
        let again = remove_kernel(&debian, "7.2", &[]).unwrap_err();
        assert!(matches!(again, Error::NotThere { .. }), "{again}");
    }

    #[test]
    fn what_another_project_pins_is_kept_as_long_as_that_is_there() {
        let (_folder, debian) = debian();
        let key = "7.2.14-amd64_7.2.14-1";
        make(&debian, "kernel", key);
        let project = tempfile::tempdir().unwrap();
        let lock = "[[kernel]]\nname = '7.2'\nrelease = '7.2.14-amd64'\nversion = '7.2.14-1'\nsuite = 'sid'\ndebs = []";
        let file = project.path().join(crate::debian::LOCK_FILE);
        fs::write(&file, lock).unwrap();
        assert_eq!(stale_keys(&debian).len(), 1);
        let pins = Pins::read(project.path()).unwrap();
        pins.of_project(&debian, project.path()).unwrap();
        assert!(stale_keys(&debian).is_empty());
        // What cannot be read may pin all, for however long nobody uses it.
        fs::write(&file, "of another version").unwrap();
        make(&debian, root::KIND, "trixie-00");
        make(&debian, "tools", "sid-00");
        assert_eq!(stale_in(&debian, 2 * UNUSED), ["tools/sid-00"]);
        project.close().unwrap();
        assert_eq!(stale_keys(&debian).len(), 3);
    }

    #[test]
    fn everything_is_all_but_the_locks() {
        let (_folder, debian) = debian();
        plan(&debian, "kernel-7.2", &kernel_plan("14"));
        make(&debian, "kernel", "7.2.14-amd64_7.2.14-1");
        // Of another run's.
        let making = debian
            .cache
            .folder()
            .join("kernel/debug_7.2.14-1-aa.making");
        fs::create_dir(&making).unwrap();
        assert!(artefacts(&debian, DEBUG, &[]).unwrap().is_empty());
        let all = stale(&debian.clone().pinned(Pins::default()), true).unwrap();
        assert_eq!(all.len(), 2);
        for size in &all {
            assert!(clean(&debian, size).unwrap());
        }
        assert!(stale(&debian, true).unwrap().is_empty());
    }
}
