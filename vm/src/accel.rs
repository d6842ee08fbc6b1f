//! Whether the host's processor can run guests itself.
//!
//! `/dev/kvm` can be there, open, and make a machine, and yet no guest runs on
//! it, or only at a crawl: under another hypervisor, say. So a guest is booted
//! with it to see, once for each boot of the host and each QEMU. Where none comes
//! up, its kernel may be to blame, so that this is found out for each kernel.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use dmashare_vm_init::{ALIVE, Boot};
use serde::{Deserialize, Serialize};

use crate::cache;
use crate::debian::Kernel;
use crate::qemu::{Machine, Memory, Qemu, Start};
use crate::{Arch, Error, digest, identity, initramfs};

/// Who runs the guest's instructions.
///
/// ```
/// use clap::ValueEnum;
/// use dmashare_vm::Accel;
///
/// assert_eq!(Accel::from_str("kvm", false), Ok(Accel::Kvm));
/// assert_eq!(Accel::default(), Accel::Auto);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// KVM where a guest was seen to boot with it, otherwise QEMU.
    #[default]
    Auto,
    /// QEMU: works everywhere.
    Tcg,
    /// The host's processor, through KVM.
    Kvm,
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accel::Auto => "auto",
            Accel::Tcg => "tcg",
            Accel::Kvm => "kvm",
        })
    }
}

/// The variable that chooses where nothing else does.
const VARIABLE: &str = "DMASHARE_VM_ACCEL";

/// How long a guest may take to its first program with KVM. It takes a tenth of
/// this; a guest without KVM takes half of it.
const DEADLINE: Duration = Duration::from_secs(5);
/// The same for a kernel that checks itself.
const DEBUG_DEADLINE: Duration = Duration::from_secs(20);

/// Where the verdicts are kept, in the cache.
const FOLDER: &str = "accel";

/// What QEMU is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Tcg,
    Kvm,
}

impl Accelerator {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Accelerator::Tcg => "QEMU (tcg)",
            Accelerator::Kvm => "the processor (kvm)",
        }
    }

    /// As [`Accel`] has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Accelerator::Tcg => "tcg",
            Accelerator::Kvm => "kvm",
        }
    }

    /// The words for `-accel`.
    pub(crate) fn accel(self) -> &'static str {
        match self {
            Accelerator::Tcg => "tcg,thread=multi",
            Accelerator::Kvm => "kvm",
        }
    }

    /// The words for `-cpu`.
    pub(crate) fn cpu(self, arch: Arch) -> &'static str {
        match self {
            Accelerator::Tcg => arch.emulated(),
            Accelerator::Kvm => "host",
        }
    }
}

/// Whether KVM is of use, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// What it holds for.
    host: String,
    /// The one kernel that it holds for, where it does not for all.
    kernel: Option<String>,
    pub(crate) kvm: bool,
    pub(crate) reason: String,
}

impl Verdict {
    /// One that needed no guest, and is not kept.
    fn at_once(kvm: bool, reason: String) -> Verdict {
        Verdict {
            host: String::new(),
            kernel: None,
            kvm,
            reason,
        }
    }

    pub(crate) fn accelerator(&self) -> Accelerator {
        match self.kvm {
            true => Accelerator::Kvm,
            false => Accelerator::Tcg,
        }
    }
}

/// What to run guests of this kernel with: as asked, or as the environment says,
/// or as found out now or before.
pub(crate) fn choose(kernel: &Kernel, asked: Option<Accel>) -> Result<Verdict, Error> {
    let (asked, by) = match (asked, std::env::var(VARIABLE)) {
        (Some(asked), _) => (asked, "asked for"),
        (None, Ok(text)) => (parse(&text)?, VARIABLE),
        (None, Err(_)) => (Accel::Auto, ""),
    };
    let arch = kernel.debian.arch();
    match asked {
        Accel::Kvm if arch != Arch::HOST => Err(Error::Project(format!(
            "KVM runs guests of the host's own architecture only, and this one is {arch}"
        ))),
        Accel::Auto if arch != Arch::HOST => {
            Ok(Verdict::at_once(false, format!("the guest is {arch}")))
        }
        Accel::Auto => find(kernel),
        other => Ok(Verdict::at_once(other == Accel::Kvm, by.to_owned())),
    }
}

fn parse(text: &str) -> Result<Accel, Error> {
    Accel::from_str(text, true)
        .map_err(|_| Error::Project(format!("{VARIABLE}={text}: give it as auto, tcg or kvm")))
}

fn find(kernel: &Kernel) -> Result<Verdict, Error> {
    // This much needs no guest, and can change at any time.
    if let Err(error) = fs::File::options().read(true).write(true).open("/dev/kvm") {
        return Ok(Verdict::at_once(false, format!("/dev/kvm: {error}")));
    }
    let qemu = kernel.debian.tool(Arch::HOST.qemu())?;
    let host = format!("{} {}", digest::host_boot(), identity::of_tool(&qemu));
    let cache = kernel.debian.cache();
    let file = cache.folder().join(FOLDER).join("kvm.json");
    let image = identity::of_file(&kernel.vmlinux);
    if let Some(verdict) = known(&read(&file), &host, &image) {
        return Ok(verdict);
    }
    let _lock = cache.lock(FOLDER)?;
    // Another run may have found out meanwhile.
    let mut all = read(&file);
    if let Some(verdict) = known(&all, &host, &image) {
        return Ok(verdict);
    }
    let found = try_kvm(kernel, qemu)?;
    let verdict = Verdict {
        host,
        kernel: found.of_kernel.then_some(image),
        kvm: found.kvm,
        reason: found.reason,
    };
    // What held for another boot of the host will not be asked for again.
    all.retain(|other| other.host == verdict.host);
    all.push(verdict.clone());
    let text = serde_json::to_vec_pretty(&all).expect("a verdict has a JSON form");
    // Where it cannot be kept, it is found out again.
    let _ = fs::create_dir_all(cache.folder().join(FOLDER));
    let _ = cache::write(&file, &text);
    Ok(verdict)
}

/// All that are kept; none where the file is not there or not ours.
fn read(file: &Path) -> Vec<Verdict> {
    let text = fs::read(file).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The one on this kernel, or else on all: a kernel that did not come up with KVM
/// does not because another did.
fn known(all: &[Verdict], host: &str, kernel: &str) -> Option<Verdict> {
    let here = || all.iter().filter(|verdict| verdict.host == host);
    let own = here().find(|verdict| verdict.kernel.as_deref() == Some(kernel));
    own.or_else(|| here().find(|verdict| verdict.kernel.is_none()))
        .cloned()
}

/// How a guest with KVM got on.
struct Found {
    kvm: bool,
    /// Whether another kernel may get on otherwise.
    of_kernel: bool,
    reason: String,
}

/// What to make of whether it came up, of what QEMU said, and of the time it took.
fn judge(alive: bool, said: &str, took: f32) -> Found {
    // QEMU warns of what it goes on without.
    let said = said.lines().find(|line| !line.contains("warning:"));
    let said = said.unwrap_or_default();
    Found {
        kvm: alive,
        // QEMU has no words for a kernel's faults, only for its own and KVM's.
        of_kernel: !alive && said.is_empty(),
        reason: match (alive, said) {
            (true, _) => format!("a guest booted with it in {took:.1} s"),
            (false, "") => format!("this kernel did not boot with it in {took:.1} s"),
            (false, said) => format!("a guest did not boot with it: {said}"),
        },
    }
}

/// Boot this kernel with KVM, to its first program and no further.
fn try_kvm(kernel: &Kernel, qemu: crate::debian::Tool) -> Result<Found, Error> {
    let machine = Machine {
        arch: Arch::HOST,
        qemu,
        accelerator: Accelerator::Kvm,
        kernel: kernel.vmlinux.clone(),
        command_line: format!(
            "{} loglevel=5 panic=-1 rdinit=/init",
            Arch::HOST.kernel_words()
        ),
        disks: Vec::new(),
        shares: Vec::new(),
        devices: Vec::new(),
        display: "none".into(),
        cpus: 1,
        memory_mib: if kernel.debug { 2048 } else { 512 },
    };
    let deadline = if kernel.debug {
        DEBUG_DEADLINE
    } else {
        DEADLINE
    };
    let initramfs = initramfs::build(&kernel.debian.init()?, &Boot::default(), []);
    let started = Instant::now();
    let start = Start::Boot {
        initramfs: &initramfs,
    };
    let mut qemu = Qemu::start(&machine, &Memory::Own, &start)?;
    let alive = says(&mut qemu.serial, ALIVE, started + deadline);
    let took = started.elapsed().as_secs_f32();
    qemu.kill();
    let said = qemu.wait().stderr;
    Ok(judge(alive, &said, took))
}

/// Whether these words come over this line before it ends and before then.
fn says(line: &mut std::os::unix::net::UnixStream, words: &str, deadline: Instant) -> bool {
    let mut said = String::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || line.set_read_timeout(Some(left)).is_err() {
            return false;
        }
        match line.read(&mut buffer) {
            Ok(length @ 1..) => said.push_str(&String::from_utf8_lossy(&buffer[..length])),
            _ => return false,
        }
        if said.contains(words) {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(host: &str, kernel: Option<&str>, kvm: bool) -> Verdict {
        Verdict {
            host: host.to_owned(),
            kernel: kernel.map(str::to_owned),
            kvm,
            reason: String::new(),
        }
    }

    fn kvm(all: &[Verdict], kernel: &str) -> Option<bool> {
        known(all, "now", kernel).map(|verdict| verdict.kvm)
    }

    #[test]
    fn a_kernel_that_does_not_come_up_speaks_for_itself_only() {
        let mut all = vec![
            verdict("before", None, true),
            verdict("now", Some("broken"), false),
        ];
        assert_eq!(kvm(&all, "broken"), Some(false));
        assert_eq!(kvm(&all, "good"), None);
        all.push(verdict("now", None, true));
        assert_eq!(kvm(&all, "good"), Some(true));
        assert_eq!(kvm(&all, "broken"), Some(false));
    }

    #[test]
    fn what_qemu_refuses_it_refuses_all_kernels() {
        let found = judge(false, "Could not access KVM\nfailed to initialize kvm", 0.1);
        assert!(!found.kvm && !found.of_kernel);
        assert!(found.reason.ends_with(": Could not access KVM"));
        let found = judge(false, "", 5.0);
        assert!(!found.kvm && found.of_kernel);
        let warning = "qemu: warning: host doesn't support requested feature";
        let found = judge(false, warning, 5.0);
        assert!(!found.kvm && found.of_kernel);
        let found = judge(false, &format!("{warning}\nCould not access KVM"), 0.1);
        assert!(!found.of_kernel && found.reason.ends_with(": Could not access KVM"));
        // A warning is no reason against what was seen.
        let found = judge(true, "warning: x", 0.4);
        assert!(found.kvm && !found.of_kernel);
    }

    #[test]
    fn a_file_of_another_form_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kvm.json");
        assert!(read(&file).is_empty());
        fs::write(&file, r#"{"host": "now", "kvm": false, "reason": ""}"#).unwrap();
        assert!(read(&file).is_empty());
        let text = serde_json::to_vec(&[verdict("now", None, true)]).unwrap();
        fs::write(&file, text).unwrap();
        assert_eq!(kvm(&read(&file), "any"), Some(true));
    }
}
