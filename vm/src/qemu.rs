//! One QEMU process: started without a file or a name that could stay behind,
//! and ended with the thread that owns it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dmashare_vm_init::{Mount, PORT};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::accel::Accelerator;
use crate::debian::Tool;
use crate::{Arch, Error};

/// A folder of the host in the guest.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) path: PathBuf,
    pub(crate) tag: String,
    pub(crate) access: Access,
}

/// What a guest may do in a folder of the host.
///
/// QEMU keeps the metadata that a guest gives to files (owners, modes, types) apart
/// from the files themselves, which are plain files and folders of QEMU's user on the
/// host. With the models `passthrough` and `none`, a guest of root's could make device
/// nodes and setuid programs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// QEMU refuses every request that would change anything.
    Read,
    /// The same, and what the guest writes stays in its memory.
    WriteToMemory,
    /// Metadata is kept in extended attributes, `user.virtfs.*`.
    WriteToAttributes,
    /// Metadata is kept in folders called `.virtfs_metadata`, where the host's file
    /// system has no such attributes.
    WriteToFiles,
}

impl Access {
    /// The way to write to this folder.
    ///
    /// # Errors
    /// Those of making a file in it.
    pub(crate) fn to_write(folder: &Path) -> io::Result<Access> {
        let probe = tempfile::tempfile_in(folder)?;
        let flags = rustix::fs::XattrFlags::empty();
        match rustix::fs::fsetxattr(&probe, "user.virtfs.probe", b"", flags) {
            Ok(()) => Ok(Access::WriteToAttributes),
            Err(Errno::NOTSUP) => Ok(Access::WriteToFiles),
            Err(error) => Err(error.into()),
        }
    }

    /// In the words of QEMU's `-fsdev`.
    fn words(self) -> String {
        let model = match self {
            // Nothing is made: the files are as the host has them.
            Access::Read | Access::WriteToMemory => {
                return "security_model=none,readonly=on".into();
            }
            Access::WriteToAttributes => "mapped-xattr",
            Access::WriteToFiles => "mapped-file",
        };
        // As any other program of this user would make them.
        let mask = umask();
        format!(
            "security_model={model},readonly=off,fmode=0{:o},dmode=0{:o}",
            0o666 & !mask,
            0o777 & !mask
        )
    }
}

/// The umask of this process. Read from /proc: umask(2) would change it under other
/// threads.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|digits| u32::from_str_radix(digits.trim(), 8).ok())
        .unwrap_or(0o022)
}

impl Share {
    /// What the guest is to do about it, in this order.
    pub(crate) fn mounts(&self) -> Vec<Mount> {
        let mount = |source: &str, target: &str, fstype: &str, options: String| Mount {
            source: source.into(),
            target: target.into(),
            fstype: fstype.into(),
            options,
            read_only: matches!(self.access, Access::Read | Access::WriteToMemory)
                && fstype == "9p",
        };
        let path = self.path.to_string_lossy();
        let options = || "trans=virtio,version=9p2000.L,msize=512000,cache=mmap".to_owned();
        if self.access != Access::WriteToMemory {
            return vec![mount(&self.tag, &path, "9p", options())];
        }
        // By names without what an option would have to escape.
        let (lower, memory) = (
            format!("/run/vm-shares/{}/host", self.tag),
            format!("/run/vm-shares/{}/memory", self.tag),
        );
        let layers = format!("lowerdir={lower},upperdir={memory}/files,workdir={memory}/work");
        vec![
            mount(&self.tag, &lower, "9p", options()),
            mount("tmpfs", &memory, "tmpfs", "mode=0755,size=40%".into()),
            mount("overlay", &path, "overlay", layers),
        ]
    }

    /// Whether the host has what the guest writes there.
    pub(crate) fn is_written(&self) -> bool {
        !matches!(self.access, Access::Read | Access::WriteToMemory)
    }
}

/// What QEMU is to make of a machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) arch: Arch,
    /// How its QEMU is called.
    pub(crate) qemu: Tool,
    pub(crate) accelerator: Accelerator,
    pub(crate) kernel: PathBuf,
    pub(crate) command_line: String,
    /// Read-only disks, in the order of their names in the guest.
    pub(crate) disks: Vec<PathBuf>,
    pub(crate) shares: Vec<Share>,
    pub(crate) devices: Vec<String>,
    /// In the words of QEMU's `-display`.
    pub(crate) display: String,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
}

/// Where a machine's memory is.
pub(crate) enum Memory<'a> {
    /// With QEMU, and gone with it.
    Own,
    /// In this file, for others to have.
    In(&'a File),
    /// It begins as this file is, which stays as it is.
    CopyOf(&'a File),
}

/// How a machine begins.
pub(crate) enum Start<'a> {
    /// At the kernel's first instruction.
    Boot { initramfs: &'a [u8] },
    /// Where another was saved: see [`Qemu::incoming`].
    Resume,
}

/// A running QEMU, killed and reaped on drop.
pub(crate) struct Qemu {
    pidfd: OwnedFd,
    keeper: Option<JoinHandle<Ended>>,
    /// Our ends of its lines.
    pub(crate) agent: UnixStream,
    pub(crate) qmp: UnixStream,
    pub(crate) serial: UnixStream,
    /// Where it is told its state, if it was started to go on from one.
    pub(crate) incoming: Option<Incoming>,
    /// Where it writes screendumps: a file without a name.
    pub(crate) screen: File,
    /// How it calls that file.
    pub(crate) screen_path: String,
}

/// The line that a machine's state comes over.
pub(crate) struct Incoming {
    /// Our end.
    pub(crate) stream: UnixStream,
    /// How QEMU calls its end.
    pub(crate) uri: String,
}

/// How QEMU ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stderr: String,
}

impl Qemu {
    pub(crate) fn start(
        machine: &Machine,
        memory: &Memory<'_>,
        start: &Start<'_>,
    ) -> Result<Qemu, Error> {
        Qemu::try_start(machine, memory, start).map_err(|source| Error::Start {
            program: machine.arch.qemu(),
            source,
        })
    }

    fn try_start(machine: &Machine, memory: &Memory<'_>, start: &Start<'_>) -> io::Result<Qemu> {
        let (agent, guest_agent) = UnixStream::pair()?;
        let (qmp, guest_qmp) = UnixStream::pair()?;
        let (serial, guest_serial) = UnixStream::pair()?;
        let screen = memfd("screen")?;

        let mut command = machine.qemu.command(Command::new);
        arguments(&mut command, machine);
        lines(
            &mut command,
            [&guest_agent, &guest_qmp, &guest_serial].map(AsRawFd::as_raw_fd),
        );
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for us: the guest is ended by the one who started it.
            .process_group(0);
        let guest_screen = screen.try_clone()?;
        let screen_path = path_of(&guest_screen);
        let mut inherited: Vec<OwnedFd> = vec![
            guest_agent.into(),
            guest_qmp.into(),
            guest_serial.into(),
            guest_screen.into(),
        ];
        // Under one name wherever it is: a state that is saved calls it by that.
        command.args(["-machine", "memory-backend=ram", "-object"]);
        let mut object = match memory {
            Memory::Own => "memory-backend-ram".to_owned(),
            Memory::In(file) | Memory::CopyOf(file) => {
                let share = match memory {
                    Memory::In(_) => "on",
                    _ => "off",
                };
                let file = file.try_clone()?;
                let path = path_of(&file);
                inherited.push(file.into());
                format!("memory-backend-file,share={share},mem-path={path}")
            }
        };
        object.push_str(&format!(",id=ram,size={}M", machine.memory_mib));
        command.arg(object);
        let incoming = match start {
            Start::Boot { initramfs } => {
                let mut file = memfd("initramfs")?;
                file.write_all(initramfs)?;
                command.args(["-initrd", &path_of(&file)]);
                inherited.push(file.into());
                None
            }
            Start::Resume => {
                let (stream, theirs) = UnixStream::pair()?;
                let uri = format!("fd:{}", theirs.as_raw_fd());
                command.args(["-incoming", "defer"]);
                inherited.push(theirs.into());
                Some(Incoming { stream, uri })
            }
        };
        let (pidfd, keeper) = keep(command, inherited)?;
        Ok(Qemu {
            pidfd,
            keeper: Some(keeper),
            agent,
            qmp,
            serial,
            incoming,
            screen,
            screen_path,
        })
    }

    pub(crate) fn kill(&self) {
        // An error means that it has ended already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Wait for its end, but no longer than this; whether it has ended.
    pub(crate) fn wait_timeout(&self, longest: Duration) -> bool {
        let began = Instant::now();
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        loop {
            let left = Timespec::try_from(longest.saturating_sub(began.elapsed())).ok();
            match poll(&mut fds, left.as_ref()) {
                // A signal of ours says nothing of it.
                Err(Errno::INTR) => {}
                ready => return ready.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Wait for its end.
    pub(crate) fn wait(&mut self) -> Ended {
        let nothing = Ended {
            status: None,
            stderr: String::new(),
        };
        match self.keeper.take() {
            Some(keeper) => keeper.join().unwrap_or(nothing),
            None => nothing,
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
        self.wait();
    }
}

/// Start QEMU from a thread that lives as long as it does.
///
/// `PR_SET_PDEATHSIG` follows the *thread* that forked: from the caller's, a
/// guest would die with a thread that has long handed it on.
fn keep(mut command: Command, inherited: Vec<OwnedFd>) -> io::Result<(OwnedFd, JoinHandle<Ended>)> {
    let (started, wait) = mpsc::channel();
    let keeper = std::thread::Builder::new()
        .name("qemu".into())
        .spawn(move || {
            let parent = rustix::process::getpid();
            let fds: Vec<i32> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
            // SAFETY: between fork and exec only prctl(2), getppid(2) and
            // fcntl(2) are called, on fds that `inherited` keeps open.
            unsafe {
                command.pre_exec(move || {
                    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                    if rustix::process::getppid() != Some(parent) {
                        // The parent has ended.
                        return Err(Errno::SRCH.into());
                    }
                    for &fd in &fds {
                        let fd = rustix::fd::BorrowedFd::borrow_raw(fd);
                        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
                    }
                    Ok(())
                });
            }
            let child = command.spawn().and_then(|child| {
                let pid = rustix::process::Pid::from_child(&child);
                Ok((pidfd_open(pid, PidfdFlags::empty())?, child))
            });
            drop(inherited);
            let mut child = match child {
                Ok((pidfd, child)) => {
                    let _ = started.send(Ok(pidfd));
                    child
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                    return Ended {
                        status: None,
                        stderr: String::new(),
                    };
                }
            };
            let mut stderr = Vec::new();
            if let Some(pipe) = &mut child.stderr {
                let _ = pipe.read_to_end(&mut stderr);
            }
            Ended {
                status: child.wait().ok(),
                stderr: without_noise(&String::from_utf8_lossy(&stderr)),
            }
        })?;
    let pidfd = wait
        .recv()
        .map_err(|_| io::Error::other("the thread that starts QEMU has ended"))??;
    Ok((pidfd, keeper))
}

/// What QEMU says, but for what it says of every emulated processor.
fn without_noise(stderr: &str) -> String {
    let lines = stderr
        .lines()
        .filter(|l| !l.contains("TCG doesn't support requested feature"));
    lines.collect::<Vec<_>>().join("\n")
}

fn arguments(command: &mut Command, machine: &Machine) {
    command
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", &machine.display])
        .args(machine.arch.machine())
        .args(["-accel", machine.accelerator.accel()])
        .args(["-cpu", machine.accelerator.cpu(machine.arch)])
        .args(["-smp", &machine.cpus.to_string()])
        .args(["-m", &format!("{}M", machine.memory_mib)])
        .args(["-append", &machine.command_line])
        .arg("-kernel")
        .arg(&machine.kernel);
    for (at, disk) in machine.disks.iter().enumerate() {
        command.args([
            "-drive",
            &format!(
                "if=none,id=disk{at},format=raw,readonly=on,file={}",
                escape(&disk.to_string_lossy())
            ),
            "-device",
            &format!("virtio-blk-pci,drive=disk{at}"),
        ]);
    }
    for (at, share) in machine.shares.iter().enumerate() {
        command.args([
            "-fsdev",
            &format!(
                "local,id=share{at},{},multidevs=remap,path={}",
                share.access.words(),
                escape(&share.path.to_string_lossy())
            ),
            "-device",
            &format!("virtio-9p-pci,fsdev=share{at},mount_tag={}", share.tag),
        ]);
    }
    for device in &machine.devices {
        command.args(["-device", device]);
    }
}

/// All that QEMU is told of such a machine, but for what each has of its own.
pub(crate) fn words(machine: &Machine) -> Vec<OsString> {
    let mut command = Command::new("");
    arguments(&mut command, machine);
    lines(&mut command, [0; 3]);
    command.get_args().map(OsString::from).collect()
}

/// The agent's port, QEMU's own protocol, and the kernel's console.
fn lines(command: &mut Command, ours: [RawFd; 3]) {
    for (id, fd) in ["agent", "qmp", "serial"].iter().zip(ours) {
        command.args(["-chardev", &format!("socket,id={id},fd={fd}")]);
    }
    command
        .args(["-device", "virtio-serial-pci"])
        .args([
            "-device",
            &format!("virtserialport,chardev=agent,name={PORT}"),
        ])
        .args(["-mon", "chardev=qmp,mode=control"])
        .args(["-serial", "chardev:serial"]);
}

/// A comma ends an option of QEMU's; two are one.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// How QEMU calls a file that it inherits.
fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

pub(crate) fn memfd(name: &str) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writable_share_keeps_metadata_apart() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::to_write(folder.path()).unwrap();
        assert_ne!(access, Access::Read);
        let words = access.words();
        assert!(words.starts_with("security_model=mapped-"), "{words}");
        // As any other file here is made.
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap()) & 0o777;
        assert!(words.contains(&format!("fmode=0{mode:o},")), "{words}");
    }
}
