//! From a bare kernel to a root file system.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dmashare_vm_init::{Boot, MODULE_FILES, Module, Mount, PORT, Settle};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};

/// How long a device may take to appear after its driver was loaded.
const DEVICE_DEADLINE: Duration = Duration::from_secs(10);

/// Where the root file system is put together before it becomes `/`.
const NEW_ROOT: &str = "/root";

/// What everything else needs: the kernel's own file systems.
pub(crate) fn early() -> io::Result<()> {
    for (fstype, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount_at(fstype, target, fstype, MountFlags::empty(), "")?;
    }
    Ok(())
}

/// Load these modules from the initramfs, and give their memory back.
pub(crate) fn load_modules(modules: &[Module]) -> io::Result<()> {
    for module in modules {
        let file = open(&module.file)?;
        let parameters = CString::new(module.parameters.as_str())?;
        match rustix::system::finit_module(file.as_fd(), &parameters, 0) {
            // The kernel may have it already, built in or asked for by another.
            Ok(()) | Err(rustix::io::Errno::EXIST) if module.keep => {}
            Ok(()) | Err(rustix::io::Errno::EXIST) => fs::remove_file(&module.file)?,
            Err(rustix::io::Errno::NODEV) if module.optional => {}
            Err(error) => {
                return Err(context(error.into(), format!("module {}", module.file)));
            }
        }
    }
    Ok(())
}

/// The port to the host, once its driver has made it.
pub(crate) fn open_port() -> io::Result<File> {
    let deadline = Instant::now() + DEVICE_DEADLINE;
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports")
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim_end() == PORT {
                let device = Path::new("/dev").join(entry.file_name());
                return OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(&device)
                    .map_err(|error| context(error, device.display()));
            }
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "no virtio-serial port named {PORT}"
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Mount the root, move into it, and set the name.
pub(crate) fn finish(orders: &Boot) -> io::Result<()> {
    let (root, others) = orders
        .mounts
        .split_first()
        .ok_or_else(|| io::Error::other("no root file system was ordered"))?;
    writable_root(root)?;
    // Out of the initramfs, which is out of reach from here on.
    let kept = take_kept(&orders.modules)?;
    move_into_root()?;
    for fs in [
        ("proc", "/proc", ""),
        ("sysfs", "/sys", ""),
        ("devtmpfs", "/dev", ""),
        ("devpts", "/dev/pts", "ptmxmode=0666"),
        ("tmpfs", "/dev/shm", ""),
        ("tmpfs", "/run", ""),
        // Full, it is to say so, and leave memory for programs.
        ("tmpfs", "/tmp", "size=40%"),
    ] {
        let (fstype, target, options) = fs;
        mount_at(fstype, target, fstype, MountFlags::empty(), options)?;
    }
    put_kept(kept)?;
    // Not every kernel has it, and nothing here needs it.
    let _ = mount_at(
        "debugfs",
        "/sys/kernel/debug",
        "debugfs",
        MountFlags::empty(),
        "",
    );
    for (link, to) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(to, link).map_err(|error| context(error, link))?;
    }
    for other in others {
        wait_for(other)?;
        mount_ordered(other, &other.target)?;
    }
    find_modules()?;
    // A kernel without a network has none to bring up.
    let _ = loopback();
    name(orders)
}

/// Programs that are tested speak to themselves over 127.0.0.1.
fn loopback() -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeros are a request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP.try_into().expect("it is a short");
    // SAFETY: the request is one of this ioctl's, and outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where `/lib` is not a link to `/usr/lib`, as in a root of its user's own,
/// programs look for the kernel's modules in `/lib/modules`.
fn find_modules() -> io::Result<()> {
    let (link, to) = (Path::new("/lib/modules"), Path::new("/usr/lib/modules"));
    if link.exists() || !to.exists() {
        return Ok(());
    }
    fs::create_dir_all("/lib").map_err(|error| context(error, "/lib"))?;
    std::os::unix::fs::symlink(to, link).map_err(|error| context(error, link.display()))
}

/// The module files to keep: their names, and what is in them.
fn take_kept(modules: &[Module]) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    modules
        .iter()
        .filter(|module| module.keep)
        .map(|module| {
            let bytes = read(&module.file)?;
            fs::remove_file(&module.file)?;
            let name = Path::new(&module.file).file_name().unwrap_or_default();
            Ok((Path::new(MODULE_FILES).join(name), bytes))
        })
        .collect()
}

fn put_kept(kept: Vec<(PathBuf, Vec<u8>)>) -> io::Result<()> {
    fs::create_dir_all(MODULE_FILES).map_err(|error| context(error, MODULE_FILES))?;
    for (file, bytes) in kept {
        fs::write(&file, bytes).map_err(|error| context(error, file.display()))?;
    }
    Ok(())
}

/// The root image stays as it is; what the guest writes goes to memory.
fn writable_root(root: &Mount) -> io::Result<()> {
    const LOWER: &str = "/lower";
    const UPPER: &str = "/upper";
    wait_for(root)?;
    mount_ordered(root, LOWER)?;
    mount_at(
        "tmpfs",
        UPPER,
        "tmpfs",
        MountFlags::empty(),
        "mode=0755,size=40%",
    )?;
    for dir in ["/upper/data", "/upper/work"] {
        fs::create_dir(dir).map_err(|error| context(error, dir))?;
    }
    mount_at(
        "overlay",
        NEW_ROOT,
        "overlay",
        MountFlags::empty(),
        "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work",
    )
}

/// What switch_root(8) does: an initramfs cannot be pivoted away.
fn move_into_root() -> io::Result<()> {
    let step = |result: rustix::io::Result<()>, what: &str| {
        result.map_err(|error| context(error.into(), what))
    };
    step(rustix::process::chdir(NEW_ROOT), "chdir to the new root")?;
    step(mount_move(".", "/"), "move the new root to /")?;
    step(rustix::process::chroot("."), "chroot into the new root")?;
    step(rustix::process::chdir("/"), "chdir to /")
}

fn name(orders: &Boot) -> io::Result<()> {
    rustix::system::sethostname(orders.hostname.as_bytes())
        .map_err(|error| context(error.into(), "set the host name"))?;
    if let Some(level) = orders.console_level {
        const FILE: &str = "/proc/sys/kernel/printk";
        fs::write(FILE, level.to_string()).map_err(|error| context(error, FILE))?;
    }
    Ok(())
}

/// Set the clock and the random numbers.
pub(crate) fn settle(orders: &Settle) -> io::Result<()> {
    use rustix::time::{ClockId, Timespec, clock_settime};
    let now =
        Timespec::try_from(orders.clock).map_err(|error| io::Error::other(error.to_string()))?;
    clock_settime(ClockId::Realtime, now)
        .map_err(|error| context(error.into(), "set the clock"))?;
    credit_entropy(&orders.seed)
}

/// Mount these.
pub(crate) fn mount_all(mounts: &[Mount]) -> io::Result<()> {
    mounts
        .iter()
        .try_for_each(|order| mount_ordered(order, &order.target))
}

/// Unmount these again, all or none; what was written to them is with the host
/// then.
pub(crate) fn unmount_all(mounts: &[Mount]) -> io::Result<()> {
    // Where one cannot be unmounted, this much is done at least.
    rustix::fs::sync();
    for (at, Mount { target, .. }) in mounts.iter().enumerate().rev() {
        if let Err(error) = unmount(target.as_str(), UnmountFlags::empty()) {
            mount_all(&mounts[at + 1..])?;
            return Err(context(error.into(), format!("unmount {target}")));
        }
    }
    Ok(())
}

/// Hand the host's random bytes to the kernel as entropy, and let nothing come of
/// what it had before, which others may have, too: random(4), RNDADDENTROPY and
/// RNDRESEEDCRNG.
fn credit_entropy(seed: &[u8]) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    /// `struct rand_pool_info` of `linux/random.h` with room for a seed.
    #[repr(C)]
    struct Pool {
        entropy_count: libc::c_int,
        buf_size: libc::c_int,
        buf: [u8; 64],
    }
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
    const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
    let mut pool = Pool {
        entropy_count: 0,
        buf_size: 0,
        buf: [0; 64],
    };
    let length = seed.len().min(pool.buf.len());
    pool.buf[..length].copy_from_slice(&seed[..length]);
    pool.buf_size = i32::try_from(length).unwrap_or(0);
    pool.entropy_count = pool.buf_size * 8;
    let random = open("/dev/urandom")?;
    let failed = || context(io::Error::last_os_error(), "seed /dev/urandom");
    // SAFETY: `pool` has the layout that this request reads, and outlives the call.
    if unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const pool) } != 0 {
        return Err(failed());
    }
    // SAFETY: this request takes no argument.
    match unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) } {
        0 => Ok(()),
        _ => Err(failed()),
    }
}

fn wait_for(mount: &Mount) -> io::Result<()> {
    let deadline = Instant::now() + DEVICE_DEADLINE;
    while mount.source.starts_with("/dev/") && !Path::new(&mount.source).exists() {
        if Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "{} did not appear; is its driver among the modules?",
                mount.source
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn mount_ordered(order: &Mount, target: &str) -> io::Result<()> {
    // The layers of an overlay that are to be written to begin empty.
    let made = |option: &str| match option.split_once('=') {
        Some(("upperdir" | "workdir", folder)) => fs::create_dir_all(folder),
        _ => Ok(()),
    };
    if order.fstype == "overlay" {
        order.options.split(',').try_for_each(made)?;
    }
    let flags = if order.read_only {
        MountFlags::RDONLY
    } else {
        MountFlags::empty()
    };
    mount_at(&order.source, target, &order.fstype, flags, &order.options)
}

fn mount_at(
    source: &str,
    target: &str,
    fstype: &str,
    flags: MountFlags,
    options: &str,
) -> io::Result<()> {
    fs::create_dir_all(target).map_err(|error| context(error, target))?;
    let options = CString::new(options)?;
    mount(source, target, fstype, flags, options.as_c_str()).map_err(|error| {
        context(
            error.into(),
            format!("mount {source} ({fstype}) on {target}"),
        )
    })
}

/// A whole file of the initramfs.
pub(crate) fn read(file: &str) -> io::Result<Vec<u8>> {
    fs::read(file).map_err(|error| context(error, file))
}

fn open(file: &str) -> io::Result<File> {
    File::open(file).map_err(|error| context(error, file))
}

fn context(error: io::Error, what: impl std::fmt::Display) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
