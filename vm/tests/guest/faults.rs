//! What goes wrong in a guest, and that nothing else is taken for it.

use std::time::Duration;

use dmashare_vm::{Error, Exit};

use super::{boot, end_with, guest};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_end_of_the_memory_is_told_from_a_limit() {
    let vm = guest().memory_mib(512).boot().unwrap();
    let limited = "busybox mount -t cgroup2 none /sys/fs/cgroup && cd /sys/fs/cgroup && \
                   echo +memory > cgroup.subtree_control && mkdir t && echo 16M > t/memory.max && \
                   sh -c 'echo $$ > t/cgroup.procs; tail /dev/zero'";
    let output = vm.command("sh").args(["-c", limited]).output().unwrap();
    assert_eq!(output.exit, Exit::Code(137), "{output:?}");
    let dmesg = vm.dmesg();
    assert!(dmesg.contains("Memory cgroup out of memory"), "{dmesg}");
    // The boot, which the console was silent about.
    assert!(dmesg.contains("Linux version") && !vm.console().contains("Linux version"));

    // The killer itself: a guest whose memory is filled up can read its programs
    // again and again for minutes before.
    let killer = "echo f > /proc/sysrq-trigger; sleep 1000";
    let ended = end_with(&vm, killer, MINUTE);
    assert!(matches!(ended, Error::OutOfMemory { .. }), "{ended}");
    assert_eq!(ended.exit_status(), 76);
    let killed = ended.console().contains("Out of memory: Killed process");
    assert!(killed, "{ended}");
    assert!(
        vm.dmesg().contains("constraint=CONSTRAINT_NONE"),
        "{}",
        vm.dmesg()
    );
}

#[test]
fn a_flood_takes_nothing_along() {
    let vm = boot();
    let script = "echo on > /proc/sys/kernel/printk_devkmsg; \
                  dd if=/dev/urandom of=/dev/ttyS0 bs=4k count=64 2>/dev/null & \
                  (while :; do dd if=/dev/urandom bs=600 count=1; done >/dev/kmsg 2>/dev/null) & \
                  for i in 1 2 3; do echo 'BUG: not one' >/dev/kmsg; done; \
                  seq 1 50000; sleep 5; echo last > /dev/kmsg";
    let flood = vm.command("sh").args(["-c", script]).deadline(4 * MINUTE);
    let output = flood.output().unwrap();
    let numbers: String = (1..=50000).map(|n| format!("{n}\n")).collect();
    assert!(output.success() && output.stdout == numbers.as_bytes());
    assert!(vm.dmesg().len() < 3 << 20, "{}", vm.dmesg().len());
    // It still does as it is told.
    let output = vm.command("echo").arg("here").output().unwrap();
    assert_eq!(output.stdout, b"here\n");
    vm.power_off().unwrap();
}

#[test]
fn a_full_disk_is_an_error_and_not_the_end() {
    let vm = boot();
    for folder in ["/", "/tmp/"] {
        let script = format!("dd if=/dev/zero of={folder}big bs=1M; rm {folder}big");
        let output = vm.command("sh").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("No space left on device"), "{said}");
    }
    let full = vm.write_file("/tmp/big", std::io::repeat(0), 0o600);
    let error = full.expect_err("it has no end").to_string();
    assert!(error.contains("No space left on device"), "{error}");
    vm.command("rm").arg("/tmp/big").output().unwrap();
    vm.power_off().unwrap();
}

#[test]
fn a_panic_s_last_words_are_in_the_log() {
    let vm = guest().boot().unwrap();
    let panicked = end_with(&vm, "echo c > /proc/sysrq-trigger", MINUTE);
    assert!(matches!(panicked, Error::Panic { .. }), "{panicked}");
    let dmesg = vm.dmesg();
    let began = dmesg.find("Linux version").expect("the log from its start");
    let ended = dmesg.find("Kernel panic - not syncing: sysrq triggered crash");
    assert!(ended.expect("and its end") > began);
}
