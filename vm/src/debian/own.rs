//! Kernels that their user has built: a build tree, an installed one, or a bare
//! image.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memchr::memmem;
use sha2::{Digest, Sha256};

use super::kconfig::Config;
use super::kernel::add_modules;
use super::root::{FROM, digest, hex};
use super::{Debian, Error, Kernel, bzimage};
use crate::Arch;
use crate::cache;
use crate::progress::note;

/// What kernels of this kind are called in the cache.
pub(super) const KIND: &str = "own";

/// Where a build leaves its image, below the top of its tree.
const BUILT_IMAGE: &str = "arch/x86/boot/bzImage";

/// Where it leaves its release.
const BUILT_RELEASE: &str = "include/config/kernel.release";

/// What a guest's kernel must have built in, or as a module where it has one of
/// that name: nothing is there to load it from before.
const NEEDED: [(&str, Option<&str>); 16] = [
    ("VIRTIO_PCI", Some("virtio_pci")),
    ("VIRTIO_CONSOLE", Some("virtio_console")),
    ("VIRTIO_BLK", Some("virtio_blk")),
    ("EROFS_FS", Some("erofs")),
    ("OVERLAY_FS", Some("overlay")),
    ("9P_FS", Some("9p")),
    ("NET_9P_VIRTIO", Some("9pnet_virtio")),
    ("BINFMT_ELF", None),
    ("BLK_DEV_INITRD", None),
    ("DEVTMPFS", None),
    ("PCI", None),
    ("PROC_FS", None),
    ("SERIAL_8250_CONSOLE", None),
    ("SYSFS", None),
    ("TMPFS", None),
    ("UNIX98_PTYS", None),
];

/// Options that make a kernel check itself so thoroughly that it takes more
/// memory and time.
const THOROUGH: [&str; 4] = ["DEBUG_KMEMLEAK", "KASAN", "KCSAN", "PROVE_LOCKING"];

/// Marks around the configuration that a kernel may have in itself
/// (`kernel/configs.c`).
const CONFIG_START: &[u8] = b"IKCFG_ST";

/// A module that is signed ends in this: to strip it would break the seal.
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// What was found at a path.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    image: PathBuf,
    modules: Modules,
    /// Where its `.config` may be, most likely first.
    configs: Vec<PathBuf>,
    /// The tree that modules are built against, where there is one.
    build: Option<PathBuf>,
}

/// Where the modules are.
#[derive(Debug, PartialEq, Eq)]
enum Modules {
    None,
    /// Where they were built, below this folder.
    Built(PathBuf),
    /// As `make modules_install` leaves them.
    Installed(PathBuf),
}

/// What its user has of such a kernel.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// As it was given.
    pub(super) path: PathBuf,
    /// The tree that modules are built against, where there is one.
    pub(super) build: Option<PathBuf>,
}

impl Kernel {
    /// The kernel of the user's own at `path`: the top of a tree that it was
    /// built in (with `make bzImage modules`), a folder that has
    /// `lib/modules/RELEASE` (as `make modules_install INSTALL_MOD_PATH=` leaves
    /// it) and the kernel, or a bzImage or `vmlinux` alone. It is copied to the
    /// cache, and copied again when it was built anew.
    ///
    /// # Errors
    /// [`Error::OwnKernel`] where there is none, or where its configuration
    /// lacks what a guest boots with; else [`Error`].
    ///
    /// ```no_run
    /// // Not run with the crate's tests: needs a kernel's tree.
    /// use dmashare_vm::{cache::Cache, debian::{Debian, Kernel}};
    ///
    /// let debian = Debian::new(Cache::open()?, None);
    /// let kernel = Kernel::of_path(&debian, "../linux".as_ref())?;
    /// println!("{}: {}", kernel.release, kernel.vmlinux.display());
    /// # Ok::<(), dmashare_vm::debian::Error>(())
    /// ```
    pub fn of_path(debian: &Debian, path: &Path) -> Result<Self, Error> {
        let wrong = |problem: String| Error::OwnKernel {
            path: path.to_path_buf(),
            problem,
        };
        if debian.arch != Arch::HOST {
            return Err(wrong(format!(
                "a kernel of your own can be for x86-64 only, and the guest is {}; there are Debian's for it: 6.12, debian:sid",
                debian.arch
            )));
        }
        let place = path
            .canonicalize()
            .map_err(|error| wrong(error.to_string()))?;
        let found = find(&place).map_err(wrong)?;
        let modules = found.modules.list().map_err(wrong)?;
        // Before anything is read: what is written from now on counts as newer.
        let version = fingerprint(&found, &modules)?;
        let data = fs::read(&found.image).map_err(cache::Error::io("read", &found.image))?;
        let image = Image::read(&data).map_err(|problem| {
            wrong(match found.image == place {
                true => problem,
                false => format!("{}: {problem}", found.image.display()),
            })
        })?;
        found.modules.are_of(&image.release).map_err(wrong)?;
        let config = configuration(&found.configs, &data);
        if let Some(config) = &config {
            let lacking = lacking(config, found.modules != Modules::None);
            if !lacking.is_empty() {
                return Err(wrong(lacks(&lacking)));
            }
        }
        if config.is_none() && found.modules == Modules::None {
            note(&format!(
                "{}: its configuration is not known (CONFIG_IKCONFIG); a guest boots only with these built in: {}",
                path.display(),
                NEEDED.map(|(option, _)| option).join(", ")
            ));
        }
        let key = format!(
            "{}_{}-{version}",
            image.release,
            digest(&place.to_string_lossy())
        );
        let bytes: u64 = modules.iter().map(|module| module.bytes).sum();
        let need = data.len() as u64 + bytes * 2;
        let folder = debian.cache.artefact(KIND, &key, need, |folder| {
            note(&format!(
                "taking over kernel {} from {}",
                image.release,
                path.display()
            ));
            let from = folder.join(FROM);
            fs::write(&from, &*place.to_string_lossy()).map_err(cache::Error::io("write", from))?;
            let file = folder.join(image.name);
            fs::write(&file, &data).map_err(cache::Error::io("write", file))?;
            let tree = folder.join("tree");
            take_modules(&found.modules, &modules, &tree)?;
            built_in(&tree, config.as_ref())?;
            let now = fingerprint(&found, &found.modules.list().map_err(wrong)?)?;
            if now != version {
                return Err(wrong(
                    "it was built or installed anew while it was taken over; run again when that is done"
                        .to_owned(),
                ));
            }
            add_modules(debian, &tree, &image.release, folder)
        })?;
        let thorough = |config: &Config| THOROUGH.iter().any(|name| config.has(name));
        Ok(Self {
            name: path.to_string_lossy().into_owned(),
            vmlinux: folder.join(image.name),
            release: image.release,
            package_version: version,
            suite: String::new(),
            image: folder.join("modules.erofs"),
            modules: folder,
            debug: config.as_ref().is_some_and(thorough),
            headers: None,
            own: Some(Own {
                path: path.to_path_buf(),
                build: found.build,
            }),
            debian: debian.clone(),
        })
    }
}

/// Whether a kernel's name is the path of one: a version and a suite have no
/// slash.
pub(crate) fn is_path(name: &str) -> bool {
    name.contains('/')
}

/// A file to boot.
#[derive(Debug, PartialEq, Eq)]
struct Image {
    release: String,
    /// What it is called in the cache.
    name: &'static str,
}

impl Image {
    fn read(data: &[u8]) -> Result<Self, String> {
        if bzimage::is_one(data) {
            let release = bzimage::release(data).ok_or("a bzImage that names no release")?;
            return Ok(Self {
                release: checked(release)?,
                name: "bzImage",
            });
        }
        if !data.starts_with(b"\x7fELF") {
            let magic = data.get(..4).unwrap_or(data);
            return Err(format!(
                "neither a bzImage nor an ELF vmlinux: it begins with {magic:02x?}"
            ));
        }
        // e_machine, and the note XEN_ELFNOTE_PHYS32_ENTRY: name "Xen", type 18.
        if data.get(18..20) != Some(&[62, 0]) {
            return Err("an ELF file for another processor than x86-64".to_owned());
        }
        const NOTE: &[u8] = b"\x12\x00\x00\x00Xen\x00";
        if memmem::find(data, NOTE).is_none() {
            return Err(format!(
                "a vmlinux without CONFIG_PVH, by which QEMU starts it; give {BUILT_IMAGE} instead"
            ));
        }
        const BANNER: &[u8] = b"Linux version ";
        // The first that is followed by one: formats (`%s`) come, too.
        memmem::find_iter(data, BANNER)
            .filter_map(|at| {
                let text = data.get(at + BANNER.len()..)?;
                let end = text.iter().take(128).position(|byte| *byte == b' ')?;
                checked(std::str::from_utf8(&text[..end]).ok()?).ok()
            })
            .next()
            .map(|release| Self {
                release,
                name: "vmlinux",
            })
            .ok_or_else(|| "an ELF file that is no Linux kernel".to_owned())
    }
}

/// A release is a folder's name later.
fn checked(release: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".+-_~".contains(c);
    let good = release.starts_with(|c: char| c.is_ascii_digit()) && release.chars().all(plain);
    good.then(|| release.to_owned())
        .ok_or_else(|| format!("its release is no release: {release}"))
}

/// Finds out what is at `path`.
fn find(path: &Path) -> Result<Found, String> {
    if path.is_file() {
        let beside = path.parent().unwrap_or(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let release = name.split_once('-').map_or("", |(_, release)| release);
        return Ok(Found {
            image: path.to_path_buf(),
            modules: Modules::None,
            configs: vec![
                beside.join(".config"),
                beside.join("config"),
                beside.join(format!("config-{release}")),
            ],
            build: None,
        });
    }
    let config = path.join(".config");
    if path.join("Makefile").is_file() && config.is_file() {
        return find_built(path, config);
    }
    if path.join("modules.builtin").is_file() {
        return find_installed(path, path);
    }
    let folders: Vec<PathBuf> = ["lib/modules", "usr/lib/modules"]
        .iter()
        .filter_map(|below| fs::read_dir(path.join(below)).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.path().canonicalize().ok())
        .filter(|folder| folder.is_dir())
        .collect();
    match dedup(folders).as_slice() {
        [modules] => find_installed(path, modules),
        [] => Err(
            "no kernel there: neither a tree that one was built in (Makefile, .config) nor a folder with lib/modules/RELEASE".to_owned(),
        ),
        several => {
            let names: Vec<_> = several.iter().filter_map(|path| path.file_name()).collect();
            Err(format!(
                "several kernels there: {names:?}; give the folder lib/modules/RELEASE of one"
            ))
        }
    }
}

fn dedup(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort();
    paths.dedup();
    paths
}

fn find_built(path: &Path, config: PathBuf) -> Result<Found, String> {
    let image = [BUILT_IMAGE, "vmlinux"]
        .map(|below| path.join(below))
        .into_iter()
        .find(|image| image.is_file())
        .ok_or_else(|| {
            format!(
                "a kernel's tree that is not built: run `make -C {} bzImage modules`",
                path.display()
            )
        })?;
    let modules = match path.join("modules.order").is_file() {
        true => Modules::Built(path.to_path_buf()),
        false => Modules::None,
    };
    Ok(Found {
        image,
        modules,
        configs: vec![config],
        build: Some(path.to_path_buf()),
    })
}

fn find_installed(path: &Path, modules: &Path) -> Result<Found, String> {
    let release = modules.file_name().unwrap_or_default().to_string_lossy();
    // `/lib/modules/RELEASE` has its kernel in `/boot`.
    let top = modules
        .ancestors()
        .find(|folder| folder.ends_with("lib"))
        .and_then(Path::parent);
    let top = match top {
        Some(top) if top.ends_with("usr") => top.parent().unwrap_or(top),
        Some(top) => top,
        None => path,
    };
    let named = |names: &[&str]| -> Vec<PathBuf> {
        let with_release = names.iter().flat_map(|name| {
            let file = format!("{name}-{release}");
            [top.join("boot").join(&file), path.join(&file)]
        });
        let bare = names
            .iter()
            .flat_map(|name| [modules.join(name), path.join(name)]);
        with_release.chain(bare).collect()
    };
    let image = named(&["vmlinuz", "bzImage", "vmlinux"])
        .into_iter()
        .find(|image| image.is_file())
        .ok_or_else(|| {
            format!(
                "modules of {release}, but no vmlinuz, bzImage or vmlinux beside them or in {}",
                top.join("boot").display()
            )
        })?;
    let build = modules.join("build");
    Ok(Found {
        image,
        modules: Modules::Installed(modules.to_path_buf()),
        configs: named(&["config"]),
        build: build.join("Makefile").is_file().then_some(build),
    })
}

/// The configuration: of a file, or the one that the kernel has in itself.
fn configuration(files: &[PathBuf], image: &[u8]) -> Option<Config> {
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok());
    let mut config = Config::default();
    config.add(&text.or_else(|| embedded(image))?).ok()?;
    Some(config)
}

/// What `CONFIG_IKCONFIG` put into a kernel.
fn embedded(image: &[u8]) -> Option<String> {
    let unpacked;
    let kernel = match bzimage::is_one(image) {
        true => {
            unpacked = bzimage::vmlinux(image).ok()?;
            &unpacked
        }
        false => image,
    };
    let at = memmem::find(kernel, CONFIG_START)? + CONFIG_START.len();
    let mut text = String::new();
    let mut packed = flate2::read::GzDecoder::new(kernel.get(at..)?);
    packed.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Which of [`NEEDED`] a kernel of this configuration has not, each with what
/// it is instead.
fn lacking(config: &Config, has_modules: bool) -> Vec<String> {
    NEEDED
        .iter()
        .filter_map(|(option, module)| match config.value(option) {
            "y" => None,
            "m" if module.is_some() && has_modules => None,
            "m" => Some(format!("CONFIG_{option} (is m)")),
            _ => Some(format!("CONFIG_{option}")),
        })
        .collect()
}

fn lacks(options: &[String]) -> String {
    let modules = match options.iter().any(|option| option.ends_with("(is m)")) {
        true => ", or give the folder with its modules",
        false => "",
    };
    format!(
        "this kernel lacks what a guest boots with: {}; build it with these set to y{modules}",
        options.join(", ")
    )
}

/// A module's file, and where it goes below `lib/modules/RELEASE`.
#[derive(Debug)]
struct Module {
    file: PathBuf,
    below: PathBuf,
    bytes: u64,
    stamp: String,
}

impl Modules {
    /// Fails where they were built for another kernel than that of `release`,
    /// which would not find them.
    fn are_of(&self, release: &str) -> Result<(), String> {
        let theirs = match self {
            Self::None => return Ok(()),
            // What the build said last; of an old one there may be nothing left.
            Self::Built(tree) => fs::read_to_string(tree.join(BUILT_RELEASE)).ok(),
            Self::Installed(folder) => folder
                .file_name()
                .map(|name| name.to_string_lossy().into_owned()),
        };
        match theirs.as_deref().map(str::trim) {
            Some(theirs) if theirs != release => Err(format!(
                "its modules are of {theirs}, and the kernel is {release}; build or install both anew"
            )),
            _ => Ok(()),
        }
    }

    /// Their files.
    fn list(&self) -> Result<Vec<Module>, String> {
        let paths: Vec<(PathBuf, PathBuf)> = match self {
            Self::None => Vec::new(),
            Self::Built(tree) => {
                let order = tree.join("modules.order");
                let order = fs::read_to_string(&order)
                    .map_err(|error| format!("{}: {error}", order.display()))?;
                let files = order.lines().map(built_name);
                files
                    .map(|below| (tree.join(&below), Path::new("kernel").join(below)))
                    .collect()
            }
            Self::Installed(folder) => below(folder)
                .map_err(|error| format!("{}: {error}", folder.display()))?
                .into_iter()
                .map(|below| (folder.join(&below), below))
                .collect(),
        };
        paths
            .into_iter()
            .map(|(file, below)| {
                let stat = fs::metadata(&file).map_err(|error| {
                    format!("{}: {error}; run `make modules` there", file.display())
                })?;
                Ok(Module {
                    file,
                    below,
                    bytes: stat.len(),
                    stamp: stamp(&stat),
                })
            })
            .collect()
    }
}

/// The file of a line of `modules.order`: `drivers/a/b.o` in new kernels,
/// `kernel/drivers/a/b.ko` in old ones.
fn built_name(line: &str) -> String {
    let line = line.strip_prefix("kernel/").unwrap_or(line);
    let stem = line.strip_suffix(".ko").or(line.strip_suffix(".o"));
    format!("{}.ko", stem.unwrap_or(line))
}

/// The modules in a folder of installed ones, and what the build says of them.
fn below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for entry in fs::read_dir(folder.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            // Links (`build`, `source`) lead out of it.
            let kind = entry.file_type()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && (name.contains(".ko") || of_build(&name)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether it is one of the files that the kernel's build writes, and depmod
/// reads.
fn of_build(name: &str) -> bool {
    [
        "modules.order",
        "modules.builtin",
        "modules.builtin.modinfo",
    ]
    .contains(&name)
}

/// What changes when a file is written anew.
fn stamp(stat: &fs::Metadata) -> String {
    format!("{} {}.{}", stat.len(), stat.mtime(), stat.mtime_nsec())
}

/// A short name for all that is taken over.
fn fingerprint(found: &Found, modules: &[Module]) -> Result<String, cache::Error> {
    let stat = fs::metadata(&found.image).map_err(cache::Error::io("look at", &found.image))?;
    let mut hash = Sha256::new();
    hash.update(stamp(&stat));
    for config in &found.configs {
        hash.update(fs::metadata(config).map_or_else(|_| String::new(), |stat| stamp(&stat)));
    }
    for module in modules {
        hash.update(module.below.as_os_str().as_encoded_bytes());
        hash.update(&module.stamp);
    }
    Ok(hex(&hash.finalize()))
}

/// Copies the modules into `tree`, without their debug information where they
/// come from a build: it is most of them, and nothing in the guest reads it.
fn take_modules(modules: &Modules, files: &[Module], tree: &Path) -> Result<(), Error> {
    fs::create_dir_all(tree).map_err(cache::Error::io("make the folder", tree))?;
    let mut stripped = Vec::new();
    for module in files {
        let to = tree.join(&module.below);
        let folder = to.parent().unwrap_or(tree);
        fs::create_dir_all(folder).map_err(cache::Error::io("make the folder", folder))?;
        let data = fs::read(&module.file).map_err(cache::Error::io("read", &module.file))?;
        fs::write(&to, &data).map_err(cache::Error::io("write", &to))?;
        if !data.ends_with(SIGNED) {
            stripped.push(to);
        }
    }
    let Modules::Built(built) = modules else {
        return Ok(());
    };
    let order: String = files
        .iter()
        .map(|module| format!("{}\n", module.below.display()))
        .collect();
    let file = tree.join("modules.order");
    fs::write(&file, order).map_err(cache::Error::io("write", file))?;
    for name in ["modules.builtin", "modules.builtin.modinfo"] {
        let from = built.join(name);
        if from.is_file() {
            fs::copy(&from, tree.join(name)).map_err(cache::Error::io("copy", from))?;
        }
    }
    if super::tools::installed("strip") {
        for some in stripped.chunks(500) {
            let mut strip = super::run::program("strip");
            super::run::run(strip.arg("--strip-debug").args(some))?;
        }
    }
    Ok(())
}

/// Says which modules are built in where the build did not: an old one has only
/// `modules.builtin`, and a bare image nothing. What is not known of is taken to
/// be there, or the boot would not be tried.
fn built_in(tree: &Path, config: Option<&Config>) -> Result<(), Error> {
    let file = tree.join("modules.builtin.modinfo");
    if file.exists() {
        return Ok(());
    }
    let listed = fs::read_to_string(tree.join("modules.builtin")).unwrap_or_default();
    let assumed = NEEDED
        .iter()
        .filter(|(option, _)| config.is_none_or(|config| config.has(option)))
        .filter_map(|(_, module)| *module);
    let names = listed.lines().map(super::modules::name);
    let text: String = names
        .chain(assumed.map(str::to_owned))
        .map(|name| format!("{name}.file=built in\0"))
        .collect();
    fs::write(&file, text).map_err(cache::Error::io("write", file))?;
    for name in ["modules.order", "modules.builtin"] {
        let file = tree.join(name);
        // Or depmod says that they are missing.
        if !file.exists() {
            fs::write(&file, "").map_err(cache::Error::io("write", file))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    fn config(text: &str) -> Config {
        let mut config = Config::default();
        config.add(text).unwrap();
        config
    }

    #[test]
    fn only_a_path_has_a_slash() {
        assert!(is_path("./linux") && is_path("/boot/vmlinuz"));
        for name in ["6.12", "debian:sid", "debug", "7.2.13+deb14-amd64"] {
            assert!(!is_path(name), "{name}");
        }
    }

    #[test]
    fn a_tree_gives_what_was_built_in_it() {
        let tree = [
            "Makefile",
            ".config",
            BUILT_IMAGE,
            "vmlinux",
            "modules.order",
        ];
        let (_folder, path) = folder_with(&tree);
        let found = find(&path).unwrap();
        assert_eq!(found.image, path.join(BUILT_IMAGE));
        assert_eq!(found.modules, Modules::Built(path.clone()));
        assert_eq!(found.build, Some(path));

        let (_folder, path) = folder_with(&["Makefile", ".config"]);
        let error = find(&path).unwrap_err();
        assert!(error.contains("not built: run `make"), "{error}");
    }

    #[test]
    fn an_installed_kernel_is_found_beside_its_modules() {
        for image in [
            "boot/vmlinuz-6.1-a",
            "bzImage",
            "lib/modules/6.1-a/vmlinuz",
            "vmlinux",
        ] {
            let modules = "lib/modules/6.1-a/modules.builtin";
            let (_folder, path) = folder_with(&[modules, image]);
            let modules = path.join("lib/modules/6.1-a");
            let found = find(&path).unwrap();
            assert_eq!(found.image, path.join(image));
            assert_eq!(found.modules, Modules::Installed(modules.clone()));
            if image.starts_with("boot") {
                assert_eq!(find(&modules).unwrap().image, found.image);
            }
        }
        let two = ["bzImage", "lib/modules/6.1/x", "lib/modules/6.2/x"];
        let (_folder, path) = folder_with(&two);
        let error = find(&path).unwrap_err();
        assert!(error.contains(r#"["6.1", "6.2"]"#), "{error}");
        let (_folder, path) = folder_with(&["lib/modules/6.1/x"]);
        let error = find(&path).unwrap_err();
        assert!(error.contains("no vmlinuz"), "{error}");
        let (_folder, path) = folder_with(&["README"]);
        assert!(find(&path).unwrap_err().contains("no kernel there"));
    }

    #[test]
    fn modules_of_another_kernel_are_told() {
        let (_folder, path) = folder_with(&["lib/modules/6.1-a/x", BUILT_RELEASE]);
        let installed = Modules::Installed(path.join("lib/modules/6.1-a"));
        assert_eq!(installed.are_of("6.1-a"), Ok(()));
        let error = installed.are_of("6.1-b").unwrap_err();
        assert!(
            error.contains("are of 6.1-a, and the kernel is 6.1-b"),
            "{error}"
        );
        fs::write(path.join(BUILT_RELEASE), "6.2-a\n").unwrap();
        let built = Modules::Built(path.clone());
        assert_eq!(built.are_of("6.2-a"), Ok(()));
        assert!(built.are_of("6.1-a").is_err());
        fs::remove_file(path.join(BUILT_RELEASE)).unwrap();
        assert_eq!(built.are_of("6.1-a"), Ok(()));
    }

    #[test]
    fn what_a_guest_boots_with_must_be_there() {
        let all: String = NEEDED
            .iter()
            .map(|(option, _)| format!("CONFIG_{option}=y\n"))
            .collect();
        assert!(lacking(&config(&all), false).is_empty());
        let as_module = format!("{all}CONFIG_EROFS_FS=m\n");
        assert!(lacking(&config(&as_module), true).is_empty());
        let alone = lacking(&config(&as_module), false);
        assert_eq!(alone, ["CONFIG_EROFS_FS (is m)"]);
        assert!(lacks(&alone).contains("or give the folder"));
        let never = format!("{all}CONFIG_PCI=n\nCONFIG_DEVTMPFS=m\n");
        let never = lacking(&config(&never), true);
        assert_eq!(never, ["CONFIG_DEVTMPFS (is m)", "CONFIG_PCI"]);
    }

    #[test]
    fn everything_that_is_loaded_first_is_looked_for() {
        for module in crate::builder::FIRST_MODULES {
            let known = NEEDED.iter().any(|(_, name)| *name == Some(module));
            assert!(known, "{module}");
        }
    }

    #[test]
    fn modules_are_ordered_as_any_kernel_writes_it() {
        for line in ["drivers/a/b.o", "drivers/a/b.ko", "kernel/drivers/a/b.ko"] {
            assert_eq!(built_name(line), "drivers/a/b.ko");
        }
    }

    #[test]
    fn a_vmlinux_tells_its_release_and_what_it_lacks() {
        let mut elf = vec![0; 64];
        elf[..4].copy_from_slice(b"\x7fELF");
        elf[18] = 62;
        let without = Image::read(&elf).unwrap_err();
        assert!(without.contains("CONFIG_PVH"), "{without}");
        elf.extend(b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0");
        assert!(Image::read(&elf).unwrap_err().contains("no Linux kernel"));
        elf.extend(b"Linux version %s (%s)\0Linux version 6.9.1-mine (me@here)\0");
        assert_eq!(Image::read(&elf).unwrap().release, "6.9.1-mine");
        elf[18] = 183;
        assert!(Image::read(&elf).unwrap_err().contains("another processor"));
        assert!(
            Image::read(b"text")
                .unwrap_err()
                .contains("[74, 65, 78, 74]")
        );
    }

    #[test]
    fn a_configuration_is_taken_out_of_a_kernel() {
        use std::io::Write as _;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"CONFIG_KASAN=y\n").unwrap();
        let mut kernel = b"\x7fELF...IKCFG_ST".to_vec();
        kernel.extend(packed.finish().unwrap());
        kernel.extend(b"IKCFG_ED");
        assert!(configuration(&[], &kernel).unwrap().has("KASAN"));
        assert_eq!(configuration(&[], b"\x7fELF..."), None);
    }
}
