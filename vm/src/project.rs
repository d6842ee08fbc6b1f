//! What a project says about its guests, in `[workspace.metadata.vm]` of its
//! Cargo.toml.
//!
//! ```toml
//! [workspace.metadata.vm]
//! kernel = "7.2"                 # what `run` and `shell` boot
//! # What `test` boots: names (with a slash, paths), and tables that say more.
//! kernels = [
//!     "6.12",
//!     "../linux",
//!     { kernel = "7.2", name = "7.2-swiotlb", append = "swiotlb=force", guest-tests = ["guest"] },
//! ]
//! suite = "trixie"               # the Debian suite of the guest's root
//! packages = ["libegl1"]         # and the packages in it
//! # root = "my-root"             # or a folder or image as the guest's root instead
//! # Modules of the kernel's to load, with parameters after a space; of names
//! # with `|` between them, the first that the kernel has.
//! modules = ["bochs", "vivid n_devs=2", "cirrus|cirrus-qemu"]
//! devices = ["bochs-display"]    # in the words of QEMU's -device
//! module = "kmod"                # a folder with a Kbuild: built for each kernel, and loaded
//! module-parameters = "debug=1"  # as on insmod's command line
//! cargo-args = ["--all-features"] # for `cargo test`
//!
//! [workspace.metadata.vm.builds.ubsan] # kernel `ubsan`: `debug`, and these on top
//! config = ["tests/ubsan.config"]
//!
//! [workspace.metadata.vm.commands] # `cargo vm NAME` runs cargo with these
//! demo = ["run", "--package", "my-demo", "--"]
//!
//! # and in a package whose integration test `guest` is meant for the guest:
//! [package.metadata.vm]
//! guest-tests = ["guest"]
//! ```
//!
//! In a table of `kernels` there can be
//!
//! | key | is |
//! | --- | --- |
//! | `kernel` | the kernel's name; the one key that must be there |
//! | `name` | the entry's name in `--kernel` and in the results; default: `kernel` and the words of `append`, with `+` between them |
//! | `append` | words for the kernel's command line: see [`Builder::append`] |
//! | `memory` | memory in MiB |
//! | `cpus` | the number of processors |
//! | `guest-tests` | the test targets to run, of those that packages mark; default: all |
//! | `default` | `false`: it runs only where `--kernel` names it |
//!
//! The guest's programs find the project's module as `/run/vm/NAME.ko`, where
//! one wants to load it again: see [`Builder::module_file`].

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::{Artifact, Message, Metadata, MetadataCommand};
use serde::Deserialize;

use crate::debian::{Debian, Kernel, LOCK_FILE, Pins, Root, build_module, is_path};
use crate::progress::note;
use crate::{Arch, Builder, Error, GuestOptions};

pub use crate::test_kernel::TestKernel;

/// Where the settings are, for errors.
const SETTINGS: &str = "Cargo.toml: [workspace.metadata.vm]";

/// The cargo that runs us, or the one in `PATH`. What it runs, it runs on the host,
/// though a user's cargo has us for its runner.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_TARGET_") && text.ends_with("_RUNNER") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// The settings of `[workspace.metadata.vm]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// The kernel that `run` and `shell` boot.
    pub kernel: String,
    /// The kernels that `test` boots.
    pub kernels: Vec<TestKernel>,
    /// The Debian suite of the guest's root.
    pub suite: String,
    /// The Debian packages in it, beside those they depend on.
    pub packages: Vec<String>,
    /// A folder or an image to be the guest's root instead.
    pub root: Option<PathBuf>,
    /// Modules of the kernel's to load: a name, or some with `|` between them
    /// of which the first is taken that the kernel has, and parameters after a
    /// space.
    pub modules: Vec<String>,
    /// Devices, in the words of QEMU's `-device`.
    pub devices: Vec<String>,
    /// A folder with an out-of-tree module to build and to load.
    pub module: Option<PathBuf>,
    /// The parameters that it is loaded with.
    pub module_parameters: String,
    /// What `cargo test` is to be given.
    pub cargo_args: Vec<String>,
    /// Kernels to build from source, by their names.
    pub builds: BTreeMap<String, Build>,
    /// The project's own commands: what to run cargo with.
    pub commands: BTreeMap<String, Vec<String>>,
}

/// A kernel to build: see [`Kernel::build`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Build {
    /// Files of `CONFIG_NAME=value` lines on top of the debug kernel's own.
    pub config: Vec<PathBuf>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            kernel: "6.12".into(),
            kernels: vec!["6.12".into()],
            suite: "trixie".into(),
            packages: vec!["busybox-static".into(), "kmod".into(), "libc6".into()],
            root: None,
            modules: Vec::new(),
            devices: Vec::new(),
            module: None,
            module_parameters: String::new(),
            cargo_args: Vec::new(),
            builds: BTreeMap::new(),
            commands: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Paths in them are seen from the workspace's folder.
    fn resolve(&mut self, folder: &Path) {
        let entries = self.kernels.iter_mut();
        let names = entries.flat_map(|entry| [&mut entry.kernel, &mut entry.name]);
        for name in names.chain([&mut self.kernel]) {
            if is_path(name) {
                *name = folder.join(&*name).to_string_lossy().into_owned();
            }
        }
        if let Some(root) = &mut self.root {
            *root = folder.join(&*root);
        }
    }

    /// Checks that no name stands for two things.
    fn check_names(&self) -> Result<(), String> {
        for (at, entry) in self.kernels.iter().enumerate() {
            let TestKernel { name, kernel, .. } = entry;
            let others = || self.kernels.iter().enumerate().filter(|(i, _)| *i != at);
            if others().any(|(_, other)| other.name == *name && other != entry) {
                return Err(format!(
                    "kernels: two entries have the name {name:?}; set another `name`"
                ));
            }
            let is_kernel = self.builds(name) || others().any(|(_, other)| other.kernel == *name);
            if name != kernel && is_kernel {
                return Err(format!(
                    "kernels: {name:?} is the name of a kernel; set another `name`"
                ));
            }
        }
        Ok(())
    }

    /// The entry of `kernels` that has this name.
    pub(crate) fn test_kernel(&self, name: &str) -> Option<&TestKernel> {
        self.kernels.iter().find(|entry| entry.name == name)
    }

    /// The kernel of the entry of this name, or else the name itself.
    pub(crate) fn kernel_of<'a>(&'a self, name: &'a str) -> &'a str {
        self.test_kernel(name).map_or(name, |entry| &entry.kernel)
    }

    /// The kernels that `test` boots where nothing else is said, each once.
    pub(crate) fn default_kernels(&self) -> Vec<String> {
        let mut kernels = Vec::new();
        for entry in self.kernels.iter().filter(|entry| entry.default) {
            if !kernels.contains(&entry.kernel) {
                kernels.push(entry.kernel.clone());
            }
        }
        kernels
    }

    /// Whether the kernel called `name` is built from source.
    fn builds(&self, name: &str) -> bool {
        name == "debug" || self.builds.contains_key(name)
    }
}

/// What cargo tells a test program of its package, whose folder this is.
pub(crate) fn told_of(package: &cargo_metadata::Package, folder: &str) -> Vec<(String, String)> {
    let version = &package.version;
    [
        ("CARGO_MANIFEST_DIR", folder.to_owned()),
        ("CARGO_MANIFEST_PATH", package.manifest_path.to_string()),
        ("CARGO_PKG_NAME", package.name.to_string()),
        ("CARGO_PKG_VERSION", version.to_string()),
        ("CARGO_PKG_VERSION_MAJOR", version.major.to_string()),
        ("CARGO_PKG_VERSION_MINOR", version.minor.to_string()),
        ("CARGO_PKG_VERSION_PATCH", version.patch.to_string()),
        ("CARGO_PKG_VERSION_PRE", version.pre.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// A cargo workspace, and what it says about its guests.
pub struct Project {
    /// Its settings, or the default ones.
    pub settings: Settings,
    pub(crate) metadata: Metadata,
    /// What its `vm.lock` says.
    pub(crate) pins: Pins,
    folder: PathBuf,
    target_folder: PathBuf,
}

impl Project {
    /// The workspace of the current directory.
    ///
    /// # Errors
    /// No workspace here, settings that it should not have, or a `vm.lock` that
    /// cannot be read.
    ///
    /// ```
    /// use dmashare_vm::project::Project;
    /// let project = Project::load()?;
    /// assert!(project.folder().join("Cargo.toml").exists());
    /// # Ok::<(), dmashare_vm::Error>(())
    /// ```
    pub fn load() -> Result<Project, Error> {
        Project::at(Path::new("."))
    }

    /// The workspace of this folder.
    ///
    /// # Errors
    /// As [`Project::load`].
    ///
    /// ```
    /// use dmashare_vm::project::Project;
    /// let project = Project::at(env!("CARGO_MANIFEST_DIR").as_ref())?;
    /// assert!(project.folder().join("Cargo.toml").exists());
    /// # Ok::<(), dmashare_vm::Error>(())
    /// ```
    pub fn at(folder: &Path) -> Result<Project, Error> {
        let metadata = MetadataCommand::new()
            .current_dir(folder)
            .no_deps()
            .exec()
            .map_err(|error| Error::Project(error.to_string().trim().to_owned()))?;
        let mut settings = match metadata.workspace_metadata.get("vm") {
            None => Settings::default(),
            Some(value) => Settings::deserialize(value)
                .map_err(|error| Error::Project(format!("{SETTINGS}: {error}")))?,
        };
        // The guest has folders at their own paths, where links are resolved.
        let resolved = |path: &Path| path.canonicalize().unwrap_or(path.to_owned());
        let folder = resolved(metadata.workspace_root.as_std_path());
        settings.resolve(&folder);
        settings
            .check_names()
            .map_err(|error| Error::Project(format!("{SETTINGS}: {error}")))?;
        Ok(Project {
            settings,
            pins: Pins::read(&folder)?,
            folder,
            target_folder: resolved(metadata.target_directory.as_std_path()),
            metadata,
        })
    }

    /// The workspace's root folder, with links resolved.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where cargo puts what it builds, with links resolved.
    pub fn target_folder(&self) -> &Path {
        &self.target_folder
    }

    /// What cargo makes in this workspace when it is run with these arguments;
    /// it tells about its progress and its errors on standard error.
    ///
    /// # Errors
    /// No cargo, or [`Error::Project`] with `what` where it does not build.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: builds a package.
    /// let project = dmashare_vm::project::Project::load()?;
    /// for artifact in project.build("the tool", &["build", "--bin", "tool"])? {
    ///     println!("{:?}", artifact.executable);
    /// }
    /// # Ok::<(), dmashare_vm::Error>(())
    /// ```
    pub fn build(&self, what: &str, arguments: &[&str]) -> Result<Vec<Artifact>, Error> {
        let mut cargo = cargo()
            .args(arguments)
            .arg("--message-format=json-render-diagnostics")
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Start {
                program: "cargo",
                source,
            })?;
        let stdout = cargo.stdout.take().expect("its standard output is piped");
        let artifacts = Message::parse_stream(BufReader::new(stdout))
            // A line that cannot be read ends the pipe, and cargo with it.
            .map_while(Result::ok)
            .filter_map(|message| match message {
                Message::CompilerArtifact(artifact) => Some(artifact),
                _ => None,
            })
            .collect();
        match cargo.wait() {
            Ok(status) if status.success() => Ok(artifacts),
            _ => Err(Error::Project(format!("cannot build {what}; see above"))),
        }
    }

    /// Whether `vm.lock` pins the kernel called `name` for these guests.
    pub(crate) fn pins_kernel(&self, debian: &Debian, name: &str) -> bool {
        debian.arch() == Arch::HOST && self.pins.has_kernel(name)
    }

    /// Whether the kernel called `name` is built from source.
    pub(crate) fn builds(&self, name: &str) -> bool {
        self.settings.builds(name)
    }

    /// The kernel called `name`: that of an entry of the settings' kernels, one of
    /// their builds, or one of [`Kernel::prepare`], where `vm.lock` pins it. It pins
    /// none of another architecture than ours.
    ///
    /// # Errors
    /// What could not be fetched or built.
    pub fn kernel(&self, debian: &Debian, name: &str) -> Result<Kernel, Error> {
        let name = self.settings.kernel_of(name);
        if debian.arch() != Arch::HOST && self.pins.has_kernel(name) {
            note(&format!(
                "{LOCK_FILE} pins kernel {name} and the root for x86_64, not for {}",
                debian.arch()
            ));
        }
        let debian = &self.pins.of_project(debian, self.folder())?;
        let Some(build) = self.settings.builds.get(name) else {
            return Ok(Kernel::prepare(debian, name)?);
        };
        let files = build.config.iter().map(|file| self.folder().join(file));
        Ok(Kernel::build(debian, name, &files.collect::<Vec<_>>())?)
    }

    /// The root of the settings, as `vm.lock` pins it.
    ///
    /// # Errors
    /// What could not be fetched or packed.
    pub fn root(&self, debian: &Debian) -> Result<Root, Error> {
        let settings = &self.settings;
        if let Some(path) = &settings.root {
            return Ok(Root::of_path(debian, path)?);
        }
        let debian = &self.pins.of_project(debian, self.folder())?;
        Ok(Root::prepare(debian, &settings.suite, &self.packages())?)
    }

    /// The Debian packages that its root is asked for by.
    pub(crate) fn packages(&self) -> Vec<&str> {
        self.settings.packages.iter().map(String::as_str).collect()
    }

    /// A guest as the settings describe it, with the workspace and its target
    /// folder to read; with `module`, the project's own module is built for
    /// this kernel and loaded. `kernel` is a kernel's name, or that of an entry of
    /// the settings' kernels, whose guest it is then.
    ///
    /// # Errors
    /// What could not be fetched or built.
    pub fn guest(&self, debian: &Debian, kernel: &str, module: bool) -> Result<Builder, Error> {
        self.guest_with(debian, kernel, module, &GuestOptions::default())
    }

    /// The same with what these options say, too.
    ///
    /// # Errors
    /// What could not be fetched or built.
    pub fn guest_with(
        &self,
        debian: &Debian,
        kernel: &str,
        module: bool,
        options: &GuestOptions,
    ) -> Result<Builder, Error> {
        let settings = &self.settings;
        let entry = settings.test_kernel(kernel);
        let kernel = self.kernel(debian, kernel)?;
        // Whatever has to be fetched or built is so before anything boots.
        debian.init()?;
        let root = match &options.root {
            Some(path) => Root::of_path(debian, path)?,
            None => self.root(debian)?,
        };
        let built = match &settings.module {
            Some(folder) if module => {
                Some(build_module(debian, &kernel, &self.folder().join(folder))?)
            }
            _ => None,
        };
        let mut builder = Builder::new(kernel, root.image).share(self.folder());
        if !self.target_folder().starts_with(self.folder()) {
            builder = builder.share(self.target_folder());
        }
        for entry in &settings.modules {
            builder = builder.module_entry(entry);
        }
        for device in &settings.devices {
            builder = builder.device(device);
        }
        if let Some(file) = built {
            let given = options.project_module_parameters.as_ref();
            builder = builder.module_file(file, given.unwrap_or(&settings.module_parameters));
        }
        if let Some(entry) = entry {
            builder = entry.apply(builder);
        }
        Ok(options.apply(builder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_workspace() {
        let mut settings = Settings {
            kernel: "7.2".into(),
            kernels: ["debian:sid", "../linux", "/boot/x"].map(Into::into).into(),
            root: Some("root".into()),
            ..Settings::default()
        };
        settings.resolve(Path::new("/project"));
        assert_eq!(settings.kernel, "7.2");
        let kernels = ["debian:sid", "/project/../linux", "/boot/x"];
        assert_eq!(settings.kernels, kernels.map(TestKernel::from));
        assert_eq!(settings.root, Some("/project/root".into()));
    }

    fn entry(name: &str, kernel: &str, default: bool) -> TestKernel {
        TestKernel {
            name: name.into(),
            default,
            ..kernel.into()
        }
    }

    #[test]
    fn entry_name_selects_its_kernel() {
        let settings = Settings {
            kernels: vec![
                "7.2".into(),
                entry("strict", "7.2", true),
                entry("old-strict", "6.1", false),
            ],
            ..Settings::default()
        };
        assert_eq!(settings.check_names(), Ok(()));
        let names = ["strict", "old-strict", "7.2", "6.12"];
        let kernels = names.map(|name| settings.kernel_of(name));
        assert_eq!(kernels, ["7.2", "6.1", "7.2", "6.12"]);
        assert_eq!(settings.default_kernels(), ["7.2"]);
    }

    #[test]
    fn ambiguous_entry_name_is_refused() {
        for (name, other, expected) in [
            ("strict", entry("strict", "6.1", true), "two entries"),
            ("6.1", "6.1".into(), "two entries"),
            ("6.1", entry("old", "6.1", true), "name of a kernel"),
            ("debug", "6.1".into(), "\"debug\" is the name of a kernel"),
        ] {
            let settings = Settings {
                kernels: vec![entry(name, "7.2", true), other],
                ..Settings::default()
            };
            let error = settings.check_names().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let twice = Settings {
            kernels: vec!["6.1".into(), "6.1".into()],
            ..Settings::default()
        };
        assert_eq!(twice.check_names(), Ok(()));
    }
}
