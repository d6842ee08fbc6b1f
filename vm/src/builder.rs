//! What a guest is to be.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dmashare_vm_init::{Boot, Module, Mount};
use sha2::{Digest, Sha256};

use crate::debian::{FileSystem, Index, Kernel, hex};
use crate::error::first_line;
use crate::fault::FAULTY;
use crate::progress::note;
use crate::qemu::{Access, Machine, Memory, Share, memfd};
use crate::snapshot::Place;
use crate::vm::Order;
use crate::{
    Accel, Error, Origin, Vm, accel, command_line, digest, display, identity, initramfs, qemu,
};

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

/// Once it is up, a debug kernel tells on its console what others keep in their
/// log: kmemleak's findings are no warnings to it.
const DEBUG_CONSOLE_LEVEL: u8 = 7;

/// A guest that goes on from a snapshot may take this part of the time that one
/// may take to boot; where nothing else runs it takes half a second. Past that,
/// it boots.
const RESUME: u32 = 3;

/// How long the warming up may take: a second where nothing else runs, and many
/// on a kernel that checks itself. What it had no time for is not warm.
const WARMING: Duration = Duration::from_secs(30);

/// A guest is kept without a word where it takes less than this.
const UNNOTICED: Duration = Duration::from_secs(2);

/// Reads what programs are made of, and is one itself; a root can have more of
/// them than memory is for.
const WARM_UP: &str = "{ cat /lib/*/libc.so.* /lib/*/libm.so.* /lib/*/libgcc_s.so.*; \
    find -H /bin -type f -exec cat {} +; } 2>/dev/null | head -c 64000000 >/dev/null";

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

/// How a guest has a folder of the host's.
#[derive(Clone, Copy)]
enum Sharing {
    Read,
    Write,
    WriteInMemory,
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
    shares: Vec<(PathBuf, Sharing)>,
    devices: Vec<String>,
    append: Vec<String>,
    display: Option<String>,
    cpus: u32,
    memory_mib: u32,
    deadline: Duration,
    cold: bool,
    accel: Option<Accel>,
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
            append: Vec::new(),
            display: None,
            cpus: 1,
            memory_mib,
            deadline: Duration::from_secs(deadline),
            cold: false,
            accel: None,
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
        self.shares.push((folder.into(), Sharing::Read));
        self
    }

    /// Let the guest read and write this folder of the host, at the same path.
    ///
    /// What the guest makes there is on the host a plain file or folder of the user's
    /// who runs this, with the mode that the umask leaves. Owners, modes and types that
    /// the guest gives (setuid, device nodes, links) are seen by guests only. They are
    /// kept in extended attributes, or in folders called `.virtfs_metadata` where the
    /// file system has none.
    pub fn share_writable(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.shares.push((folder.into(), Sharing::Write));
        self
    }

    /// Let the guest read this folder of the host, and write to it in its own memory:
    /// what it writes is gone with it. There files behave as on any local file system.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: boots a guest.
    /// # fn f(builder: dmashare_vm::Builder) -> Result<(), dmashare_vm::Error> {
    /// let vm = builder.share_in_memory("target/tmp").boot()?;
    /// # Ok(()) }
    /// ```
    pub fn share_in_memory(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.shares.push((folder.into(), Sharing::WriteInMemory));
        self
    }

    /// Add a device, in the words of QEMU's `-device`.
    pub fn device(mut self, device: impl Into<String>) -> Builder {
        self.devices.push(device.into());
        self
    }

    /// Appends words to the kernel's command line, after those of earlier calls.
    ///
    /// Of a parameter that is there twice most kernels take the last: appended words
    /// win over the VM's own (`mitigations=off`) and over the parameters of modules
    /// that are built in. [`boot`](Builder::boot) refuses
    ///
    /// - parameters that the VM's verdicts depend on: `console`, `loglevel`, `quiet`,
    ///   `printk.time`, `console_msg_format`, `panic`, `panic_on_warn`, `oops`, `init`,
    ///   `rdinit`, `--`, and `sysctl.kernel.` of `printk`, `panic`, `panic_on_oops` and
    ///   `panic_on_warn`,
    /// - control characters, and a double quote without its pair,
    /// - a command line of more than 2047 bytes in all.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: fetches a kernel and boots it.
    /// use dmashare_vm::Vm;
    ///
    /// let parts = Vm::builder().kernel("7.2").packages(["coreutils"]);
    /// let vm = parts.prepare()?.append("swiotlb=force numa=fake=2").boot()?;
    /// let line = vm.command("cat").arg("/proc/cmdline").output()?;
    /// assert!(line.stdout.ends_with(b"swiotlb=force numa=fake=2\n"));
    /// # Ok::<(), dmashare_vm::Error>(())
    /// ```
    #[doc(alias = "cmdline")]
    pub fn append(mut self, words: impl Into<String>) -> Builder {
        self.append.push(words.into());
        self
    }

    /// Show its screens, in the words of QEMU's `-display`, or for `auto` in a window
    /// or over VNC, whichever this host has: see [`Vm::vnc`].
    ///
    /// Where nothing is said no one sees them, but [`Vm::screenshot`]; a device that
    /// draws by OpenGL (`virtio-gpu-gl-pci`) gets the host's, if there is any.
    pub fn display(mut self, display: impl Into<String>) -> Builder {
        self.display = Some(display.into());
        self
    }

    /// How many processors it has, and MiB of memory.
    pub(crate) fn size(&self) -> (u32, u32) {
        (self.cpus, self.memory_mib)
    }

    /// The words that are appended to the kernel's command line.
    pub(crate) fn appended(&self) -> String {
        self.append.join(" ")
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

    /// Boot it, though there be a snapshot to go on from, and keep none.
    pub fn cold(mut self, cold: bool) -> Builder {
        self.cold = cold;
        self
    }

    /// Who runs its instructions; where nothing is said, the environment variable
    /// `DMASHARE_VM_ACCEL` says it (`auto`, `tcg` or `kvm`), otherwise it is
    /// [`Accel::Auto`].
    pub fn accel(mut self, accel: Accel) -> Builder {
        self.accel = Some(accel);
        self
    }

    /// Boot it, and wait until it takes orders.
    ///
    /// The first of its kind is kept as a snapshot in the cache, once it has
    /// booted; the next go on from there, each with a clock and random numbers of
    /// its own. Of its kind are those of which all is the same, but for the paths
    /// of the folders that they share. See [`Vm::origin`].
    ///
    /// # Errors
    /// A module or folder that is not there, words that
    /// [`append`](Builder::append) refuses, and whatever kept it from booting, told
    /// apart as in [`Error`].
    pub fn boot(self) -> Result<Vm, Error> {
        let order = self.order()?;
        if self.cold {
            return self.boot_cold(order, None);
        }
        let mut place = self.place(&order.machine)?;
        if let Some(image) = place.find() {
            match Vm::resume(&order, &image, self.deadline / RESUME) {
                Ok(vm) => return Ok(vm),
                Err(error) => {
                    place.failed = true;
                    note(&format!(
                        "kernel {} did not go on from its snapshot, and boots: {}",
                        self.kernel.name,
                        first_line(&error.to_string())
                    ));
                }
            }
        }
        self.boot_cold(order, Some(&place))
    }

    /// The folder in the cache where its snapshot is, or would be.
    ///
    /// # Errors
    /// As [`boot`](Builder::boot), for what is known before.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: fetches a kernel.
    /// # fn f(builder: dmashare_vm::Builder) -> Result<(), dmashare_vm::Error> {
    /// // The next guest boots anew, and is kept anew.
    /// let _ = std::fs::remove_dir_all(builder.snapshot_folder()?);
    /// # Ok(()) }
    /// ```
    pub fn snapshot_folder(&self) -> Result<PathBuf, Error> {
        Ok(self.place(&self.order()?.machine)?.folder())
    }

    /// Take away the snapshot that it would go on from.
    pub(crate) fn forget_snapshot(&self) -> Result<(), Error> {
        self.place(&self.order()?.machine)?.clear();
        Ok(())
    }

    fn order(&self) -> Result<Order, Error> {
        let shares = self.checked_shares()?;
        let arch = self.kernel.debian.arch();
        let qemu = self.kernel.debian.tool(arch.qemu())?;
        Ok(Order {
            machine: Machine {
                arch,
                display: display::words(self.display.as_deref(), &self.devices, &qemu)?,
                qemu,
                accelerator: accel::choose(&self.kernel, self.accel)?.accelerator(),
                kernel: self.kernel.vmlinux.clone(),
                // With all but the parameters of modules that are built in.
                command_line: command_line::whole(arch, "", &self.append)?,
                disks: vec![self.root.clone(), self.kernel.image.clone()],
                shares,
                devices: self.devices.clone(),
                cpus: self.cpus,
                memory_mib: self.memory_mib,
            },
            kernel: self.kernel.name.clone(),
            deadline: self.deadline,
        })
    }

    fn place(&self, machine: &Machine) -> Result<Place<'_>, Error> {
        let root = FileSystem::of(&self.root)?;
        Ok(Place {
            cache: self.kernel.debian.cache(),
            key: self.key(machine, root)?,
            failed: false,
        })
    }

    /// Boot it, and keep it there for the next.
    fn boot_cold(&self, mut order: Order, place: Option<&Place<'_>>) -> Result<Vm, Error> {
        let index = self.kernel.index()?;
        let root = FileSystem::of(&self.root)?;
        self.kernel.can_mount(&index, root, &self.root)?;
        let (modules, built_in) = self.wanted_modules(&index)?;
        order.machine.command_line =
            command_line::whole(order.machine.arch, &built_in, &self.append)?;
        let files = self.module_contents(&index, root, &modules)?;
        let boot = Boot {
            modules: files.iter().map(|file| file.order.clone()).collect(),
            mounts: self.mounts(root),
            hostname: "guest".into(),
            console_level: self.kernel.debug.then_some(DEBUG_CONSOLE_LEVEL),
        };
        let contents = files
            .iter()
            .map(|file| (file.order.file.as_str(), file.bytes.as_slice()));
        let initramfs = initramfs::build(&self.kernel.debian.init()?, &boot, contents);
        let memory = place.and_then(|_| self.memory().ok());
        let (Some(place), Some(memory)) = (place, memory) else {
            let mut vm = Vm::boot(&order, &Memory::Own, &initramfs)?;
            place.into_iter().for_each(Place::clear_failed);
            vm.settle(self.deadline)?;
            return Ok(vm);
        };
        let mut vm = Vm::boot(&order, &Memory::In(&memory), &initramfs)?;
        place.clear_failed();
        let origin = vm.beside_its_boot(|vm| keep(place, vm, &memory, self.deadline))?;
        vm.set_origin(origin);
        vm.settle(self.deadline)?;
        Ok(vm)
    }

    /// A file for its memory.
    fn memory(&self) -> std::io::Result<File> {
        let file = memfd("memory")?;
        file.set_len(u64::from(self.memory_mib) << 20)?;
        Ok(file)
    }

    /// What of all guests are the same that have this key: all but what they are
    /// told once they have booted.
    fn key(&self, machine: &Machine, root: FileSystem) -> Result<String, Error> {
        let mut hash = Sha256::new();
        let mut with = |part: &dyn std::fmt::Debug| hash.update(format!("{part:?}\n"));
        with(&digest::host_boot());
        with(&identity::of_tool(&machine.qemu));
        let shares = machine.shares.len();
        with(&qemu::words(&Machine {
            shares: Vec::new(),
            display: String::new(),
            ..machine.clone()
        }));
        with(&(
            shares,
            DEBUG_CONSOLE_LEVEL,
            FIRST_MODULES,
            WARM_UP,
            self.mounts(root),
        ));
        for file in machine.disks.iter().chain([&machine.kernel]) {
            with(&identity::of_file(file));
        }
        with(&(&self.kernel.release, self.kernel.debug, &self.modules));
        for (file, parameters) in &self.module_files {
            with(&(file.file_name(), parameters, identity::of_file(file)));
        }
        hash.update(self.kernel.debian.init()?);
        let (release, ident) = (&self.kernel.release, self.kernel.ident());
        Ok(format!("{release}_{ident}-{}", hex(&hash.finalize())))
    }

    /// The kernel's modules that were asked for, by the names that it has them
    /// by, with their parameters; and those of built-in ones as words of the command
    /// line.
    fn wanted_modules(&self, index: &Index) -> Result<(Vec<Named<'_>>, String), Error> {
        let mut modules = Vec::new();
        let mut built_in = String::new();
        for (names, parameters) in &self.modules {
            let name = self.kernel.first_module(index, names)?;
            if index.is_built_in(name) {
                for parameter in command_line::split(parameters) {
                    built_in.push_str(&format!(" {name}.{parameter}"));
                }
            }
            modules.push((name, parameters.as_str()));
        }
        Ok((modules, built_in))
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
        let mut folders = Vec::new();
        for (folder, sharing) in &self.shares {
            let path = folder
                .canonicalize()
                .map_err(Error::io(format!("share {}", folder.display())))?;
            if is_guests_own(&path) {
                return Err(Error::Project(format!(
                    "the guest cannot have {}: it needs its own; share a folder in it",
                    path.display()
                )));
            }
            folders.push((path, *sharing));
        }
        // One in another is mounted after it, or it would be out of sight.
        folders.sort_by_key(|(path, _)| path.components().count());
        let shares = folders.into_iter().enumerate();
        shares
            .map(|(at, (path, sharing))| {
                let access = match sharing {
                    Sharing::Read => Access::Read,
                    Sharing::Write => Access::to_write(&path)
                        .map_err(Error::io(format!("share {} to write", path.display())))?,
                    Sharing::WriteInMemory => Access::WriteToMemory,
                };
                let tag = format!("share{at}");
                Ok(Share { path, tag, access })
            })
            .collect()
    }

    fn mounts(&self, root: FileSystem) -> Vec<Mount> {
        let disk = |source: &str, target: &Path, kind: FileSystem| Mount {
            source: source.into(),
            target: target.to_string_lossy().into_owned(),
            fstype: kind.name().into(),
            options: String::new(),
            read_only: true,
        };
        let modules = Path::new("/usr/lib/modules").join(&self.kernel.release);
        vec![
            disk("/dev/vda", Path::new("/"), root),
            disk("/dev/vdb", &modules, FileSystem::Erofs),
        ]
    }
}

/// Keep this guest for the next of its kind, where that can be; an error is its
/// end.
fn keep(place: &Place<'_>, vm: &Vm, memory: &File, deadline: Duration) -> Result<Origin, Error> {
    // It is not to be warmed up for nothing.
    if vm.alarmed() {
        return Ok(Origin::NotKept(FAULTY.into()));
    }
    let started = Instant::now();
    // What programs begin with is in its memory then, and need not be read in
    // each guest. Where the root has no shell, it is slower, and that is all.
    let warm_up = vm.command("sh").args(["-c", WARM_UP]).deadline(deadline);
    warm_up.run_for(WARMING)?;
    Ok(match place.keep(vm, memory) {
        Ok(()) => {
            let took = started.elapsed();
            if took > UNNOTICED {
                note(&format!(
                    "keeping the guest for the next run took {:.1} s, once",
                    took.as_secs_f32()
                ));
            }
            Origin::Kept(took)
        }
        Err(error) => Origin::NotKept(first_line(&error.to_string()).to_owned()),
    })
}

/// A module's name and its parameters.
type Named<'a> = (&'a str, &'a str);

/// A module to load, and what is in its file.
struct ModuleFile {
    order: Module,
    bytes: Vec<u8>,
}
