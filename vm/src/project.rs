//! What a project says about its guests, in `[workspace.metadata.vm]` of its
//! Cargo.toml.
//!
//! ```toml
//! [workspace.metadata.vm]
//! kernel = "7.2"                 # what `run` and `shell` boot
//! kernels = ["6.12", "../linux"] # what `test` boots; with a slash, a path
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
    pub kernels: Vec<String>,
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
        let kernels = self.kernels.iter_mut().chain([&mut self.kernel]);
        for kernel in kernels.filter(|name| is_path(name)) {
            *kernel = folder.join(&*kernel).to_string_lossy().into_owned();
        }
        if let Some(root) = &mut self.root {
            *root = folder.join(&*root);
        }
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
            Some(value) => Settings::deserialize(value).map_err(|error| {
                Error::Project(format!("Cargo.toml: [workspace.metadata.vm]: {error}"))
            })?,
        };
        // The guest has folders at their own paths, where links are resolved.
        let resolved = |path: &Path| path.canonicalize().unwrap_or(path.to_owned());
        let folder = resolved(metadata.workspace_root.as_std_path());
        settings.resolve(&folder);
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
        name == "debug" || self.settings.builds.contains_key(name)
    }

    /// The kernel called `name`: one of the settings' builds, or one of
    /// [`Kernel::prepare`], where `vm.lock` pins it. It pins none of another
    /// architecture than ours.
    ///
    /// # Errors
    /// What could not be fetched or built.
    pub fn kernel(&self, debian: &Debian, name: &str) -> Result<Kernel, Error> {
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
    /// this kernel and loaded.
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
            kernels: vec!["debian:sid".into(), "../linux".into(), "/boot/x".into()],
            root: Some("root".into()),
            ..Settings::default()
        };
        settings.resolve(Path::new("/project"));
        assert_eq!(settings.kernel, "7.2");
        let kernels = ["debian:sid", "/project/../linux", "/boot/x"];
        assert_eq!(settings.kernels, kernels);
        assert_eq!(settings.root, Some("/project/root".into()));
    }
}
