//! What a guest is made of, by name.

use std::path::PathBuf;

use crate::debian::host::Consent;
use crate::debian::{Debian, Kernel, Root};
use crate::project::Settings;
use crate::{Arch, Builder, Error, Vm};

/// A kernel and a root by their names, to be fetched where the cache has them not.
///
/// Where nothing else is said they are those of a project that says nothing: see
/// [`project`](crate::project).
///
/// ```no_run
/// // Not run with the crate's tests: fetches a kernel and boots it.
/// use dmashare_vm::{Error, Vm};
///
/// let vm = Vm::builder().kernel("7.2").packages(["coreutils"]).boot()?;
/// assert!(vm.command("true").output()?.success());
///
/// // With what else a guest can have, its memory, disks and screens:
/// let vm = Vm::builder()
///     .kernel("6.12")
///     .prepare()?
///     .module("bochs", "")
///     .device("bochs-display")
///     .memory_mib(512)
///     .boot()?;
/// vm.screenshot()?.save("screen.png").expect("a picture is written");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Parts {
    kernel: String,
    suite: String,
    packages: Vec<String>,
    root: Option<PathBuf>,
    mirror: Option<String>,
}

impl Vm {
    /// The way to a guest: its kernel and its root by their names first. No
    /// project's `vm.lock` is read: what that pins,
    /// [`Project::guest`](crate::project::Project::guest) boots.
    ///
    /// See [`Parts`] for an example.
    pub fn builder() -> Parts {
        let settings = Settings::default();
        Parts {
            kernel: settings.kernel,
            suite: settings.suite,
            packages: settings.packages,
            root: None,
            mirror: None,
        }
    }
}

impl Parts {
    /// The kernel, as [`Kernel::prepare`] takes it.
    pub fn kernel(mut self, name: impl Into<String>) -> Parts {
        self.kernel = name.into();
        self
    }

    /// The Debian suite that the root is of.
    pub fn suite(mut self, suite: impl Into<String>) -> Parts {
        self.suite = suite.into();
        self
    }

    /// The packages in the root, with what they depend on, and no others.
    pub fn packages(mut self, packages: impl IntoIterator<Item = impl Into<String>>) -> Parts {
        self.packages = packages.into_iter().map(Into::into).collect();
        self
    }

    /// A root of your own instead: a folder or an image, as [`Root::of_path`]
    /// takes them.
    pub fn root(mut self, path: impl Into<PathBuf>) -> Parts {
        self.root = Some(path.into());
        self
    }

    /// Fetch from this Debian mirror instead of the one that the host's apt names.
    pub fn mirror(mut self, url: impl Into<String>) -> Parts {
        self.mirror = Some(url.into());
        self
    }

    /// Has all of it in the cache. What is fetched is told on standard error, and
    /// the host stays as it is unless root has `CI=true` set, or says yes on a
    /// terminal.
    ///
    /// # Errors
    /// What could not be fetched or built, or is not there.
    pub fn prepare(self) -> Result<Builder, Error> {
        let consent = Consent::from_environment(false);
        let debian = Debian::open(self.mirror, Arch::default(), consent)?;
        let kernel = Kernel::prepare(&debian, &self.kernel)?;
        let root = match &self.root {
            Some(path) => Root::of_path(&debian, path)?,
            None => {
                let packages: Vec<&str> = self.packages.iter().map(String::as_str).collect();
                Root::prepare(&debian, &self.suite, &packages)?
            }
        };
        Ok(Builder::new(kernel, root.image))
    }

    /// Has all of it in the cache, and boots it as it is.
    ///
    /// # Errors
    /// As [`Parts::prepare`], and [`Builder::boot`].
    pub fn boot(self) -> Result<Vm, Error> {
        self.prepare()?.boot()
    }
}
