//! Guests that go on from a snapshot: like those that boot, and not like each
//! other.

mod common;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dmashare_vm::debian::{Kernel, Root};
use dmashare_vm::{Builder, Error, Origin, Vm};

use common::{PACKAGES, debian, kernel_name};

fn guest() -> Builder {
    let kernel = Kernel::prepare(debian(), &kernel_name()).expect("a kernel");
    let root = Root::prepare(debian(), "trixie", &PACKAGES).expect("a root");
    // Others may boot guests at the same time.
    Builder::new(kernel, root.image).boot_deadline(Duration::from_secs(240))
}

/// A snapshot of this test's own, by a size that nobody else asks for.
struct Own(PathBuf);

impl Own {
    fn of(builder: &Builder) -> Own {
        let own = Own(builder.snapshot_folder().unwrap());
        own.remove();
        own
    }

    fn remove(&self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }

    /// Write zeros over a file of it, from there on.
    fn damage(&self, file: &str, from: u64) {
        let file = std::fs::File::options()
            .write(true)
            .open(self.0.join(file))
            .unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(from).unwrap();
        file.set_len(length).unwrap();
        file.sync_all().unwrap();
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.remove();
    }
}

fn sh(vm: &Vm, script: &str) -> String {
    let output = vm.command("sh").args(["-c", script]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.success(), "{script}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn boot(builder: &Builder) -> Vm {
    builder.clone().boot().expect("the guest boots")
}

fn kept(builder: &Builder) -> Vm {
    let vm = boot(builder);
    assert!(matches!(vm.origin(), Origin::Kept(_)), "{:?}", vm.origin());
    vm
}

fn restored(builder: &Builder) -> Vm {
    let vm = boot(builder);
    assert_eq!(*vm.origin(), Origin::Restored);
    vm
}

fn is_on_time(vm: &Vm) {
    let host = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs_f64()
    };
    let before = host();
    let guest: f64 = sh(vm, "date +%s.%N").parse().unwrap();
    let after = host();
    assert!(
        (before - 2.0..after + 2.0).contains(&guest),
        "{guest} in the guest, {before} to {after} here"
    );
}

/// From the boot on, and each line as often as the guest itself has it.
fn has_the_whole_log(vm: &Vm) {
    let there = sh(vm, "busybox dmesg");
    let here = vm.dmesg();
    let count = |text: &str, line: &str| text.lines().filter(|other| *other == line).count();
    assert!(there.contains("] Linux version "), "{there}");
    for line in there.lines() {
        assert_eq!(count(&here, line), count(&there, line), "{line}\n{here}");
    }
}

#[test]
fn restored_guests_have_all_but_their_luck_in_common() {
    let builder = guest()
        .memory_mib(701)
        .cpus(2)
        .module("vgem", "")
        .device("bochs-display")
        .module("bochs", "");
    let _own = Own::of(&builder);
    let first = kept(&builder);
    is_on_time(&first);
    let others = std::thread::scope(|scope| {
        let two = [(); 2].map(|()| scope.spawn(|| restored(&builder)));
        two.map(|thread| thread.join().unwrap())
    });
    let guests: Vec<&Vm> = std::iter::once(&first).chain(&others).collect();

    let mut seen = HashSet::new();
    for vm in &guests {
        is_on_time(vm);
        for random in [
            "cat /proc/sys/kernel/random/uuid",
            // getrandom(2), by way of the shell's temporary names.
            "mktemp -u XXXXXXXXXXXXXXXX",
            "od -An -tx1 -N16 /dev/urandom",
        ] {
            let random = sh(vm, random);
            assert!(seen.insert(random.clone()), "twice: {random}");
        }
        // What it booted with is there: modules, processors, what init said.
        sh(vm, "test -d /sys/module/vgem && test $(nproc) = 2");
        let shot = vm.screenshot().unwrap();
        assert!(shot.width() > 0);
        assert_eq!(vm.ready().release, sh(vm, "uname -r"));
    }
    assert_eq!(others[0].console(), first.console());
    for vm in &guests {
        has_the_whole_log(vm);
    }
    // What one writes, no other has.
    sh(&others[0], "echo mine > /tmp/file && echo mine > /usr/file");
    sh(&others[1], "test ! -e /tmp/file && test ! -e /usr/file");
    sh(
        &restored(&builder),
        "test ! -e /tmp/file && test ! -e /usr/file",
    );

    let [one, two] = others;
    one.power_off().unwrap();
    two.end().unwrap();
}

#[test]
fn a_restored_guest_is_judged_as_any_other() {
    let builder = guest().memory_mib(702);
    let _own = Own::of(&builder);
    drop(kept(&builder));
    let panicked = restored(&builder)
        .command("sh")
        .args(["-c", "echo c > /proc/sysrq-trigger"])
        .output();
    assert!(matches!(panicked, Err(Error::Panic { .. })), "{panicked:?}");
    // It is none of the snapshot's fault.
    restored(&builder).power_off().unwrap();
}

#[test]
fn each_guest_has_the_folders_that_it_was_given() {
    let folder = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("name"), text).unwrap();
        folder
    };
    let (one, two, writable) = (folder("one"), folder("two"), folder("writable"));
    let builder =
        |read: &Path, write: &Path| guest().memory_mib(703).share(read).share_writable(write);
    let first = builder(one.path(), writable.path());
    let _own = Own::of(&first);
    let name = |vm: &Vm, folder: &Path| sh(vm, &format!("cat {}/name", folder.display()));
    assert_eq!(name(&kept(&first), one.path()), "one");

    let vm = restored(&builder(two.path(), writable.path()));
    assert_eq!(name(&vm, two.path()), "two");
    sh(&vm, &format!("test ! -e {}", one.path().display()));
    sh(&vm, &format!("! touch {}/x 2>&1", two.path().display()));
    // 3 MB that are in no hurry to get to the host.
    let script = format!("yes | head -c 3000000 > {}/out", writable.path().display());
    sh(&vm, &script);
    vm.end().unwrap();
    let out = std::fs::metadata(writable.path().join("out")).unwrap();
    assert_eq!(out.len(), 3_000_000);
}

#[test]
fn a_damaged_snapshot_is_made_anew() {
    let builder = guest().memory_mib(704);
    let own = Own::of(&builder);
    drop(kept(&builder));
    for (file, from) in [("state", 0), ("state", 100_000), ("memory", 0)] {
        drop(restored(&builder));
        own.damage(file, from);
        let vm = kept(&builder);
        assert_eq!(sh(&vm, "echo well"), "well", "{file} from {from}");
    }
    // One that is cut short is seen before.
    let memory = std::fs::File::options()
        .write(true)
        .open(own.0.join("memory"));
    memory.unwrap().set_len(1 << 20).unwrap();
    drop(kept(&builder));
    drop(restored(&builder));
}

#[test]
fn a_cold_boot_neither_takes_nor_leaves_one() {
    let builder = guest().memory_mib(705).cold(true);
    let own = Own::of(&builder);
    let vm = boot(&builder);
    assert_eq!(*vm.origin(), Origin::Booted);
    assert!(!own.0.exists());
    is_on_time(&vm);
}

#[test]
fn what_cannot_be_saved_boots_every_time() {
    // QEMU's own word on this device: it cannot be migrated.
    let builder = guest().memory_mib(706).device("nvme,serial=1,id=n");
    let own = Own::of(&builder);
    for _ in 0..2 {
        let vm = boot(&builder);
        let Origin::NotKept(reason) = vm.origin() else {
            panic!("{:?}", vm.origin());
        };
        assert!(reason.contains("nvme"), "{reason}");
        assert_eq!(sh(&vm, "echo well"), "well");
        assert!(!own.0.exists());
    }
}

#[test]
fn a_snapshot_is_of_all_that_it_was_made_of() {
    let folder = |builder: Builder| builder.snapshot_folder().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let same = folder(guest().share(here));
    assert_eq!(same, folder(guest().share(here.join("src"))));
    let others = [
        guest(),
        guest().share(here).memory_mib(512),
        guest().share(here).cpus(2),
        guest().share(here).device("bochs-display"),
        guest().share(here).module("vgem", ""),
        guest().share(here).module("vivid", "n_devs=1"),
        guest().share(here).module("vivid", "n_devs=2"),
        guest().share(here).share(here.join("src")),
        guest().share(here).append("test.word=1"),
        guest().share(here).append("test.word=2"),
    ];
    let mut seen = HashSet::from([same]);
    for other in others {
        let folder = folder(other);
        assert!(seen.insert(folder.clone()), "{}", folder.display());
    }
}

#[test]
fn appended_words_reach_restored_guest() {
    // Of a parameter that is there twice the kernel takes the last.
    let words = "test.word=first swiotlb=force mitigations=auto";
    let builder = guest()
        .memory_mib(709)
        .append(words)
        .append("test.word=\"two words\"");
    let _own = Own::of(&builder);
    let expected = format!(" mitigations=off rdinit=/init {words} test.word=\"two words\"");
    for vm in [kept(&builder), restored(&builder)] {
        let line = sh(&vm, "cat /proc/cmdline");
        assert!(line.ends_with(&expected), "{line}");
        let log = sh(&vm, "busybox dmesg");
        assert!(log.contains("software IO TLB: "), "{log}");
    }
    let error = builder.append("panic-on-warn=0").boot().err();
    let error = error.expect("a reserved parameter");
    assert_eq!(error.exit_status(), 2);
    assert!(error.to_string().contains("\"panic-on-warn=0\""), "{error}");
}

#[test]
fn longest_command_line_reaches_guest() {
    let length = |vm: &Vm| sh(vm, "wc -c < /proc/cmdline").parse::<usize>().unwrap();
    let builder = guest().memory_mib(710).cold(true);
    // With the newline that the file ends in.
    let without = length(&boot(&builder.clone().append("test.word=")));
    let fill = |letters: usize| format!("test.word={}", "x".repeat(letters));
    let vm = boot(&builder.clone().append(fill(2048 - without)));
    assert_eq!(length(&vm), 2048);
    let error = builder.append(fill(2049 - without)).boot().err();
    let error = error.expect("one letter too many").to_string();
    assert!(error.contains("at most 2047; append 1 fewer"), "{error}");
}

#[test]
fn guests_go_on_from_a_warm_one() {
    let shared = tempfile::tempdir().unwrap();
    let path = shared.path().display();
    let vm = guest()
        .memory_mib(707)
        .cold(true)
        .share_writable(shared.path())
        .boot()
        .unwrap();
    sh(&vm, "echo warm > /tmp/file && modprobe vgem");

    let sleeper = vm.command("sleep").arg("1000").spawn().unwrap();
    let busy = vm.snapshot().err().expect("a program runs");
    assert!(busy.to_string().contains("no program runs"), "{busy}");
    sleeper.signal(9).unwrap();
    sleeper.next_event().unwrap();
    drop(sleeper);

    let stays = "setsid sleep 1000 > /dev/null 2>&1 & until pidof sleep; do sleep 0.1; done";
    sh(&vm, &format!("cd {path}; {stays}"));
    let used = vm.snapshot().err().expect("a program uses the folder");
    assert!(used.to_string().contains("unmount"), "{used}");
    sh(
        &vm,
        "kill $(pidof sleep) && while pidof sleep; do sleep 0.1; done",
    );

    let warm = vm.snapshot().unwrap();
    sh(
        &vm,
        &format!("echo cold > /tmp/file && echo first > {path}/name"),
    );
    let (one, two) = (warm.restore().unwrap(), warm.restore().unwrap());
    drop(warm);
    for guest in [&one, &two] {
        assert_eq!(*guest.origin(), Origin::Restored);
        assert_eq!(sh(guest, "cat /tmp/file"), "warm");
        assert_eq!(sh(guest, &format!("cat {path}/name")), "first");
        sh(guest, "test -d /sys/module/vgem");
        is_on_time(guest);
    }
    let uuid = "cat /proc/sys/kernel/random/uuid";
    assert_ne!(sh(&one, uuid), sh(&two, uuid));
    // One that was restored can be saved, too.
    sh(&one, "echo warmer > /tmp/file");
    let again = one.snapshot().unwrap().restore().unwrap();
    assert_eq!(sh(&again, "cat /tmp/file"), "warmer");
    assert_eq!(sh(&vm, "cat /tmp/file"), "cold");
}

#[test]
fn one_that_was_just_kept_can_be_saved_itself() {
    let builder = guest().memory_mib(708);
    let _own = Own::of(&builder);
    let vm = boot(&builder);
    assert!(matches!(vm.origin(), Origin::Kept(_)), "{:?}", vm.origin());
    sh(&vm, "echo warm > /tmp/file");
    let again = vm.snapshot().unwrap().restore().unwrap();
    assert_eq!(sh(&again, "cat /tmp/file"), "warm");
    assert_eq!(
        sh(&boot(&builder), "test -e /tmp/file || echo cold"),
        "cold"
    );
}
