//! Real guests: what they do well, and what becomes of them when they do not.

mod common;
#[path = "guest/faults.rs"]
mod faults;
#[path = "guest/files.rs"]
mod files;
#[path = "guest/flow.rs"]
mod flow;
#[path = "guest/here.rs"]
mod here;
#[path = "guest/hostile.rs"]
mod hostile;

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dmashare_vm::debian::{Kernel, Root, build_module};
use dmashare_vm::{Builder, Error, Event, Exit, Vm};

use common::{PACKAGES, debian, kernel_name};

fn guest() -> Builder {
    let kernel = Kernel::prepare(debian(), &kernel_name()).expect("a kernel");
    let root = Root::prepare(debian(), "trixie", &PACKAGES).expect("a root");
    Builder::new(kernel, root.image)
}

fn boot() -> Vm {
    guest().boot().expect("the guest boots")
}

/// Run this in the guest's shell, and expect it to be the guest's end.
fn end_with(vm: &Vm, script: &str, deadline: Duration) -> Error {
    vm.command("sh")
        .args(["-c", script])
        .deadline(deadline)
        .output()
        .expect_err("the guest does not survive this")
}

#[test]
fn runs_programs_as_if_they_were_here() {
    let vm = boot();

    let output = vm
        .command("sh")
        .args(["-c", "echo out; echo err >&2; pwd; echo $NAME; exit 7"])
        .current_dir("/usr")
        .env("NAME", "a b")
        .output()
        .unwrap();
    assert_eq!(output.exit, Exit::Code(7));
    assert_eq!(output.stdout, b"out\n/usr\na b\n");
    assert_eq!(output.stderr, b"err\n");

    let killed = vm.command("sh").args(["-c", "kill -TERM $$"]).output();
    assert_eq!(killed.unwrap().exit, Exit::Signal(15));

    let missing = vm.command("no-such-program").output();
    assert!(
        matches!(missing, Err(Error::NotStarted { .. })),
        "{missing:?}"
    );

    // Input and output larger than any buffer on the way, both at once.
    let text: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let cat = vm.command("cat").spawn().unwrap();
    let mut stdin = cat.stdin();
    let input = text.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let mut echoed = Vec::new();
    loop {
        match cat.next_event().unwrap() {
            Event::Stdout(bytes) => echoed.extend(bytes),
            Event::Stderr(bytes) => panic!("{}", String::from_utf8_lossy(&bytes)),
            Event::Exit(exit) => break assert_eq!(exit, Exit::Code(0)),
        }
    }
    writer.join().unwrap().unwrap();

    // One that leaves a talkative child behind ends all the same, and its child
    // with it.
    let leaves = vm
        .command("sh")
        .args(["-c", "yes & echo $!"])
        .output()
        .unwrap();
    let child = String::from_utf8_lossy(&leaves.stdout)
        .lines()
        .find(|l| *l != "y")
        .unwrap()
        .to_owned();
    let gone = vm
        .command("test")
        .args(["!", "-e", &format!("/proc/{child}")])
        .output();
    assert!(gone.unwrap().success());
    assert!(
        echoed == text,
        "{} of {} bytes came back",
        echoed.len(),
        text.len()
    );

    drop(cat);
    vm.power_off().unwrap();
}

#[test]
fn two_guests_do_not_share_their_luck() {
    let random = |vm: &Vm| {
        let output = vm
            .command("cat")
            .arg("/proc/sys/kernel/random/uuid")
            .output();
        output.unwrap().stdout
    };
    let (one, two) = (boot(), boot());
    assert_ne!(random(&one), random(&two));
}

#[test]
fn a_shared_folder_is_read_only_unless_said() {
    let parent = tempfile::tempdir().unwrap();
    let writable = tempfile::tempdir().unwrap();
    let folder = parent.path().join("with a comma, and spaces");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("name"), "inside").unwrap();
    let vm = guest()
        .share(&folder)
        .share_writable(writable.path())
        .boot()
        .unwrap();
    let script = "cat name && ! touch here 2>/dev/null && echo new > \"$1/file\"";
    let output = vm
        .command("sh")
        .args(["-c", script, "sh"])
        .arg(writable.path().to_str().unwrap())
        .current_dir(folder.to_str().unwrap())
        .output()
        .unwrap();
    assert!(output.success(), "{output:?}");
    assert_eq!(output.stdout, b"inside");
    let written = std::fs::read_to_string(writable.path().join("file"));
    assert_eq!(written.unwrap(), "new\n");
    drop(vm);

    let refused = guest().share("/usr").boot().err().expect("its own");
    assert!(refused.to_string().contains("needs its own"), "{refused}");
}

#[test]
fn a_panic_is_told_from_an_oops() {
    let panicked = end_with(
        &boot(),
        "echo c > /proc/sysrq-trigger",
        Duration::from_secs(60),
    );
    assert!(matches!(panicked, Error::Panic { .. }), "{panicked}");
    assert!(
        panicked.to_string().contains("sysrq triggered crash"),
        "{panicked}"
    );

    let kernel = Kernel::prepare(debian(), &kernel_name()).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oops");
    let module = build_module(debian(), &kernel, &source).expect("the module builds");
    let vm = guest().share(module.parent().unwrap()).boot().unwrap();
    let insmod = format!("insmod {}", module.display());
    let oopsed = end_with(&vm, &insmod, Duration::from_secs(60));
    assert!(matches!(oopsed, Error::Oops { .. }), "{oopsed}");
    assert!(
        oopsed.to_string().contains("NULL pointer dereference"),
        "{oopsed}"
    );
}

#[test]
fn a_hang_ends_at_its_deadline_and_takes_the_guest_along() {
    let vm = boot();
    let started = Instant::now();
    let hung = end_with(&vm, "sleep 1000", Duration::from_secs(2));
    assert!(matches!(hung, Error::Hang { .. }), "{hung}");
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
    assert!(vm.command("true").output().is_err());
}

#[test]
fn a_machine_that_is_switched_off_under_a_program_is_no_pass() {
    let off = end_with(
        &boot(),
        "echo o > /proc/sysrq-trigger; sleep 60",
        Duration::from_secs(60),
    );
    assert!(matches!(off, Error::QemuEnded { .. }), "{off}");
}

#[test]
fn what_does_not_boot_says_so() {
    let hasty = guest().cold(true).boot_deadline(Duration::from_millis(50));
    let silent = hasty.boot();
    let error = silent.err().expect("no guest boots in 50 ms");
    assert!(matches!(error, Error::NotBooted { .. }), "{error}");

    let kernel = Kernel::prepare(debian(), &kernel_name()).unwrap();
    let mut not_a_root = tempfile::NamedTempFile::new().unwrap();
    not_a_root.write_all(&[0; 1 << 20]).unwrap();
    let error = Builder::new(kernel, not_a_root.path()).boot().err();
    let error = error.expect("zeros are no root file system");
    assert!(matches!(error, Error::Debian(_)), "{error}");
    assert!(error.to_string().contains("no file system"), "{error}");
    // One that looks like a root, and is none.
    not_a_root
        .as_file_mut()
        .seek(SeekFrom::Start(1024))
        .unwrap();
    not_a_root.write_all(b"\xe2\xe1\xf5\xe0").unwrap();
    let kernel = Kernel::prepare(debian(), &kernel_name()).unwrap();
    let error = Builder::new(kernel, not_a_root.path()).boot().err();
    let error = error.expect("four bytes are no file system");
    assert!(matches!(error, Error::NotBooted { .. }), "{error}");
    assert!(
        error.to_string().contains("mount /dev/vda (erofs)"),
        "{error}"
    );

    let error = guest().device("no-such-device").boot().err();
    let error = error.expect("QEMU has no such device");
    assert!(matches!(error, Error::Qemu(_)), "{error}");
    assert!(error.to_string().contains("no-such-device"), "{error}");
}

/// The processes whose parent this is.
fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task");
    let tasks = std::fs::read_dir(path).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Whether it runs: one that waits to be reaped does not.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn no_guest_outlives_the_command_that_started_it() {
    for signal in ["KILL", "INT"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vm"));
        command.args(["run", "--deadline", "2m", "--", "sleep", "500"]);
        // A test run from a script's background is born deaf to Ctrl-C.
        // SAFETY: signal(2) is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                Ok(())
            });
        }
        let mut command = command.spawn().unwrap();
        let mut qemu = Vec::new();
        wait_until("QEMU starts", || {
            qemu = children(command.id());
            qemu.retain(|&pid| {
                std::fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|name| name.starts_with("qemu-system"))
            });
            !qemu.is_empty()
        });
        let killed = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {}", command.id())])
            .status();
        assert!(killed.unwrap().success());
        command.wait().unwrap();
        wait_until("QEMU ends with its parent", || {
            !qemu.iter().any(|&pid| runs(pid))
        });
    }
}
