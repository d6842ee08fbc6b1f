//! What a guest is to be.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dmashare_vm_init::{Boot, Module, Mount};

use crate::debian::{FileSystem, Index, Kernel};
use crate::qemu::{Machine, PROGRAM, Share};
use crate::{Error, Vm, initramfs};

/// What the guest needs before it has a root: disks, shares and the agent's port.
pub(crate) const FIRST_MODULES: [&str; 7] = [
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "erofs",
    "overlay",
    "9p",
    "9pnet_virtio",
];

/// Only what is wrong goes to the console: a serial line costs time under
/// emulation. An oops, and a warning too, ends the guest, so that it is found
/// and not waited for. On a busy host the clock that the kernel tests at its start
/// can be late, and it panics ("IO-APIC + timer doesn't work"): that test is left out.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic panic_on_warn=1 \
    mitigations=off no_timer_check rdinit=/init";

/// Once it is up, a debug kernel tells on its console what others keep in their
/// log: kmemleak's findings are no warnings to it.
const DEBUG_CONSOLE_LEVEL: u8 = 7;

/// Folders that the guest's programs come from, or that init mounts itself: the
/// host's in their place would take them away.
const GUESTS_OWN: [&str; 15] = [
    "/",
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
];

/// Whether the guest has this folder of its own, and cannot have the host's.
pub(crate) fn is_guests_own(folder: &Path) -> bool {
    GUESTS_OWN.iter().any(|own| Path::new(own) == folder)
}

/// What a guest is to be; [`boot`](Builder::boot) makes it one.
///
/// ```no_run
/// // Not run with the crate's tests: fetches a kernel and boots it.
/// use dmashare_vm::Builder;
/// use dmashare_vm::cache::Cache;
/// use dmashare_vm::debian::{Debian, Kernel, Root};
///
/// let debian = Debian::new(Cache::open().map_err(dmashare_vm::debian::Error::from)?, None);
/// let kernel = Kernel::prepare(&debian, "7.2")?;
/// let root = Root::prepare(&debian, "trixie", &["coreutils"])?;
/// let vm = Builder::new(kernel, root.image).memory_mib(512).boot()?;
/// assert!(vm.command("true").output()?.success());
/// # Ok::<(), dmashare_vm::Error>(())
/// ```
#[derive(Clone)]
pub struct Builder {
    kernel: Kernel,
    root: PathBuf,
    modules: Vec<(String, String)>,
    module_files: Vec<(PathBuf, String)>,
    shares: Vec<(PathBuf, bool)>,
    devices: Vec<String>,
    cpus: u32,
    memory_mib: u32,
    deadline: Duration,
}

impl Builder {
    /// A guest with this kernel and this root file system (an image of erofs, ext4
    /// or squashfs).
    pub fn new(kernel: Kernel, root: impl Into<PathBuf>) -> Builder {
        // Its shadow memory takes an eighth, and emulation makes its checks slow.
        let (memory_mib, deadline) = match kernel.debug {
            true => (2048, 240),
            false => (1024, 60),
        };
        Builder {
            kernel,
            root: root.into(),
            modules: Vec::new(),
            module_files: Vec::new(),
            shares: Vec::new(),
            devices: Vec::new(),
            cpus: 1,
            memory_mib,
            deadline: Duration::from_secs(deadline),
        }
    }

    /// Load this module of the kernel's, after those it depends on, with these
    /// parameters (`""` for none); asked for twice, with the later ones. Of
    /// names with `|` between them (`cirrus|cirrus-qemu`) the first is loaded
    /// that the kernel has. One that is built in gets its parameters on the
    /// kernel's command line.
    pub fn module(mut self, name: impl Into<String>, parameters: impl Into<String>) -> Builder {
        self.modules.push((name.into(), parameters.into()));
        self
    }

    /// Load this module as an entry of a project's settings or an option says
    /// it: its name, and its parameters after a space.
    pub(crate) fn module_entry(self, entry: &str) -> Builder {
        let entry = entry.trim();
        let (name, parameters) = entry.split_once(' ').unwrap_or((entry, ""));
        self.module(name, parameters.trim())
    }

    /// Load this module file, after those of the kernel.
    ///
    /// The guest's programs find it in the folder [`MODULE_FILES`](crate::MODULE_FILES) by its own
    /// name, where one of them wants to load it again.
    pub fn module_file(
        mut self,
        file: impl Into<PathBuf>,
        parameters: impl Into<String>,
    ) -> Builder {
        self.module_files.push((file.into(), parameters.into()));
        self
    }

    /// Let the guest read this folder of the host, at the same path (with every
    /// link in it resolved).
    pub fn share(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.shares.push((folder.into(), false));
        self
    }

    /// Let the guest read and write this folder of the host, at the same path.
    pub fn share_writable(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.shares.push((folder.into(), true));
        self
    }

    /// Add a device, in the words of QEMU's `-device`.
    pub fn device(mut self, device: impl Into<String>) -> Builder {
        self.devices.push(device.into());
        self
    }

    /// How many processors it has, and MiB of memory.
    pub(crate) fn size(&self) -> (u32, u32) {
        (self.cpus, self.memory_mib)
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// How many processors it has: one by default.
    ///
    /// With more of them, emulation can hang or oops a healthy kernel: while one
    /// patches the kernel's text (static keys do, all the time), another can run
    /// what was translated from a breakpoint that is gone ("Oops: int3"). Seen
    /// in about one boot of 300 with QEMU 7.2.
    pub fn cpus(mut self, cpus: u32) -> Builder {
        self.cpus = cpus;
        self
    }

    /// How much memory it has, in MiB: 1024 by default, 2048 with a kernel that
    /// is built to check itself.
    pub fn memory_mib(mut self, memory_mib: u32) -> Builder {
        self.memory_mib = memory_mib;
        self
    }

    /// How long its boot may take: 60 seconds by default, 4 minutes with a kernel
    /// that is built to check itself.
    pub fn boot_deadline(mut self, deadline: Duration) -> Builder {
        self.deadline = deadline;
        self
    }

    /// Boot it, and wait until it takes orders.
    ///
    /// # Errors
    /// A module or folder that is not there, and whatever kept it from
    /// booting, told apart as in [`Error`].
    pub fn boot(self) -> Result<Vm, Error> {
        let index = self.kernel.index()?;
        let root = FileSystem::of(&self.root)?;
        self.kernel.can_mount(&index, root, &self.root)?;
        let (modules, command_line) = self.wanted_modules(&index)?;
        let files = self.module_contents(&index, root, &modules)?;
        let shares = self.checked_shares()?;
        let boot = Boot {
            modules: files.iter().map(|file| file.order.clone()).collect(),
            mounts: self.mounts(root, &shares),
            clock: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_secs()),
            seed: seed()?,
            hostname: "guest".into(),
            console_level: self.kernel.debug.then_some(DEBUG_CONSOLE_LEVEL),
        };
        let contents = files
            .iter()
            .map(|file| (file.order.file.as_str(), file.bytes.as_slice()));
        let machine = Machine {
            qemu: self.kernel.debian.tool(PROGRAM)?,
            initramfs: initramfs::build(&boot, contents),
            kernel: self.kernel.vmlinux.clone(),
            command_line,
            disks: vec![self.root.clone(), self.kernel.image.clone()],
            shares,
            devices: self.devices.clone(),
            cpus: self.cpus,
            memory_mib: self.memory_mib,
        };
        Vm::boot(&machine, self.kernel.name, self.deadline)
    }

    /// The kernel's modules that were asked for, by the names that it has them
    /// by, with their parameters; and the command line with the parameters of
    /// those that are built in.
    fn wanted_modules(&self, index: &Index) -> Result<(Vec<Named<'_>>, String), Error> {
        let mut modules = Vec::new();
        let mut command_line = COMMAND_LINE.to_owned();
        for (names, parameters) in &self.modules {
            let name = self.kernel.first_module(index, names)?;
            if index.is_built_in(name) {
                for parameter in words(parameters) {
                    command_line.push_str(&format!(" {name}.{parameter}"));
                }
            }
            modules.push((name, parameters.as_str()));
        }
        Ok((modules, command_line))
    }

    /// Every module to load, in this order.
    fn module_contents(
        &self,
        index: &Index,
        root: FileSystem,
        modules: &[Named<'_>],
    ) -> Result<Vec<ModuleFile>, Error> {
        let mut names: Vec<&str> = FIRST_MODULES.to_vec();
        names.push(root.name());
        names.extend(modules.iter().map(|(name, _)| name));
        let parameters: HashMap<String, &str> = modules
            .iter()
            .map(|(name, parameters)| (name.replace('-', "_"), *parameters))
            .collect();
        let mut files = Vec::new();
        for (file, bytes) in self.kernel.read_modules(index, &names)? {
            let given = parameters.get(&file.trim_end_matches(".ko").replace('-', "_"));
            let order = Module {
                file: format!("/modules/{file}"),
                parameters: given.copied().unwrap_or_default().to_owned(),
                optional: given.is_none(),
                keep: false,
            };
            files.push(ModuleFile { order, bytes });
        }
        for (file, parameters) in &self.module_files {
            let bytes = std::fs::read(file).map_err(|source| Error::Io {
                what: format!("module {}", file.display()),
                source,
            })?;
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let order = Module {
                file: format!("/modules/{name}"),
                parameters: parameters.clone(),
                optional: false,
                keep: true,
            };
            files.push(ModuleFile { order, bytes });
        }
        Ok(files)
    }

    fn checked_shares(&self) -> Result<Vec<Share>, Error> {
        let mut shares = Vec::new();
        for (at, (folder, writable)) in self.shares.iter().enumerate() {
            let path = folder.canonicalize().map_err(|source| Error::Io {
                what: format!("share {}", folder.display()),
                source,
            })?;
            if is_guests_own(&path) {
                return Err(Error::Project(format!(
                    "the guest cannot have {}: it needs its own; share a folder in it",
                    path.display()
                )));
            }
            shares.push(Share {
                path,
                tag: format!("share{at}"),
                writable: *writable,
            });
        }
        Ok(shares)
    }

    fn mounts(&self, root: FileSystem, shares: &[Share]) -> Vec<Mount> {
        let disk = |source: &str, target: &Path, kind: FileSystem| Mount {
            source: source.into(),
            target: target.to_string_lossy().into_owned(),
            fstype: kind.name().into(),
            options: String::new(),
            read_only: true,
        };
        let modules = Path::new("/usr/lib/modules").join(&self.kernel.release);
        let mut mounts = vec![
            disk("/dev/vda", Path::new("/"), root),
            disk("/dev/vdb", &modules, FileSystem::Erofs),
        ];
        mounts.extend(shares.iter().map(|share| Mount {
            source: share.tag.clone(),
            target: share.path.to_string_lossy().into_owned(),
            fstype: "9p".into(),
            options: "trans=virtio,version=9p2000.L,msize=512000,cache=mmap".into(),
            read_only: !share.writable,
        }));
        mounts
    }
}

/// A module's name and its parameters.
type Named<'a> = (&'a str, &'a str);

/// A module to load, and what is in its file.
struct ModuleFile {
    order: Module,
    bytes: Vec<u8>,
}

/// The words of a module's parameters: spaces part them, but for those between
/// double quotes.
fn words(parameters: &str) -> Vec<&str> {
    let mut quoted = false;
    let parts = parameters.split(|c: char| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    });
    parts.filter(|word| !word.is_empty()).collect()
}

fn seed() -> Result<Vec<u8>, Error> {
    let mut seed = vec![0; 64];
    let read = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut seed));
    read.map_err(|source| Error::Io {
        what: "/dev/urandom".into(),
        source,
    })?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_parted_by_spaces_outside_of_quotes() {
        assert_eq!(words(" a=1  b=\"x y\" c "), ["a=1", "b=\"x y\"", "c"]);
        assert!(words("").is_empty());
    }
}
