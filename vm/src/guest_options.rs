//! What one run wants of a guest, beside what the project's settings say.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::{Accel, Builder, command_line};

/// What one guest is to have beside what a project's settings say: the options
/// that `run`, `shell` and `test` have in common.
///
/// ```
/// use dmashare_vm::GuestOptions;
///
/// let options = GuestOptions {
///     module: vec!["vivid n_devs=2".into(), "cirrus|cirrus-qemu".into()],
///     device: vec!["cirrus-vga".into()],
///     append: vec!["swiotlb=force".into()],
///     ..GuestOptions::default()
/// };
/// assert!(options.memory.is_none());
/// ```
#[derive(Args, Clone, Debug, Default)]
pub struct GuestOptions {
    /// One more module of the kernel's to load, with parameters after a space; of A|B the
    /// first that the kernel has
    #[arg(long, short, value_name = "NAME [PARAMETERS]")]
    pub module: Vec<String>,
    /// Parameters for the project's own module instead of those of its settings
    #[arg(long, value_name = "PARAMETERS")]
    pub project_module_parameters: Option<String>,
    /// One more device, in the words of QEMU's -device
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Words to append to the kernel's command line, after the project's and the VM's own; not
    /// those that verdicts depend on (console, loglevel, panic, init and their like)
    #[arg(long, value_name = "WORDS", value_parser = words)]
    pub append: Vec<String>,
    /// Show its screens, in the words of QEMU's -display; without any, in a window or over
    /// VNC, whichever this host has
    #[arg(long, value_name = "WORDS", num_args = 0..=1, require_equals = true, default_missing_value = crate::display::AUTO)]
    pub display: Option<String>,
    /// One more folder of the host's to read in the guest, at the same path
    #[arg(long, value_name = "FOLDER")]
    pub share: Vec<PathBuf>,
    /// A folder of the host's that the guest may also write to
    #[arg(long, value_name = "FOLDER")]
    pub share_writable: Vec<PathBuf>,
    /// One more folder of the host's that the guest reads, and writes to in its own memory: what
    /// it writes is gone with it
    #[arg(long, value_name = "DIR")]
    pub share_in_memory: Vec<PathBuf>,
    /// The root: a folder, or an image of erofs, ext4 or squashfs; default: the project's, of
    /// Debian's packages
    #[arg(long, value_name = "PATH")]
    pub root: Option<PathBuf>,
    /// Memory in MiB; default: 1024, for a debug kernel 2048
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u32>,
    /// Processors, 1 by default; more can, rarely, oops a healthy kernel under emulation
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// Boot it, though there be a snapshot of one that has booted, and keep none
    #[arg(long)]
    pub cold: bool,
    /// Who runs its instructions: QEMU (tcg), or the processor through kvm; auto tries kvm
    /// out, once for each boot of the host; default: $DMASHARE_VM_ACCEL, else auto
    #[arg(long, value_name = "WHICH")]
    pub accel: Option<Accel>,
    /// How long the boot may take; default: 60s, for a debug kernel 4m
    #[arg(long, value_parser = crate::cli::duration, value_name = "TIME")]
    pub boot_deadline: Option<Duration>,
}

impl GuestOptions {
    /// The same guest with all of these, but for its root, and for the parameters
    /// of the project's module, of which a [`Builder`] knows nothing.
    pub(crate) fn apply(&self, mut builder: Builder) -> Builder {
        for entry in &self.module {
            builder = builder.module_entry(entry);
        }
        for device in &self.device {
            builder = builder.device(device);
        }
        for words in &self.append {
            builder = builder.append(words);
        }
        if let Some(display) = &self.display {
            builder = builder.display(display);
        }
        for folder in &self.share {
            builder = builder.share(folder);
        }
        for folder in &self.share_in_memory {
            builder = builder.share_in_memory(folder);
        }
        for folder in &self.share_writable {
            builder = builder.share_writable(folder);
        }
        if let Some(memory) = self.memory {
            builder = builder.memory_mib(memory);
        }
        if let Some(cpus) = self.cpus {
            builder = builder.cpus(cpus);
        }
        if let Some(accel) = self.accel {
            builder = builder.accel(accel);
        }
        if self.cold {
            builder = builder.cold(true);
        }
        if let Some(deadline) = self.boot_deadline {
            builder = builder.boot_deadline(deadline);
        }
        builder
    }
}

/// Words for the kernel's command line, as the VM's own command line gives them.
pub(crate) fn words(text: &str) -> Result<String, String> {
    command_line::check(text).map(|()| text.to_owned())
}
