//! What a line of the kernel's says about the kernel's own state.

/// A fault that the kernel found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Panic,
    /// An oops, a BUG or a WARN.
    Oops,
    /// A report of a check that debug kernels have.
    Check,
    /// It had to kill a program, or gave up, for want of memory.
    OutOfMemory,
}

/// What is said of a kernel with any of them.
pub(crate) const FAULTY: &str = "its kernel found a fault in itself";

/// The words of `WARN` and of `die`.
const OOPS: [&str; 8] = [
    CUT,
    "Oops: ",
    "BUG: ",
    "kernel BUG at ",
    // A program's own has "ip:" there, and is no fault of the kernel's.
    "general protection fault, ",
    "general protection fault: ",
    // Of arm64: the address before its oops, and what it dies of beside oopses.
    "Unable to handle kernel ",
    "Internal error: ",
];

/// What `WARN` starts with; on whose behalf, the next line tells.
const CUT: &str = "[ cut here ]";

/// The words of the checks, most of which do not end the guest by themselves.
const CHECKS: [&str; 24] = [
    "BUG: KASAN: ",
    "BUG: KCSAN: ",
    "BUG: KFENCE: ",
    "BUG: KMSAN: ",
    "UBSAN: ",
    "BUG: sleeping function called from invalid context",
    "BUG: Invalid wait context",
    // Of lockdep.
    "WARNING: possible circular locking",
    "WARNING: possible recursive locking",
    "WARNING: possible irq lock inversion",
    "WARNING: inconsistent lock state",
    "-unsafe lock order detected",
    "WARNING: Nested lock was not taken",
    "WARNING: bad unlock balance",
    "WARNING: bad contention",
    "WARNING: held lock freed",
    "WARNING: lock held when returning to user space",
    "still has locks held!",
    "WARNING: suspicious RCU usage",
    "INFO: trying to register non-static key",
    "DEBUG_LOCKS_WARN_ON(",
    "BUG: MAX_LOCK",
    // Of the objects' life cycles.
    "(active state ",
    LEAKS,
];

/// How many is the word before. Not a warning to kmemleak.
const LEAKS: &str = "new suspected memory leaks";

/// DMA debugging says under this name, too, that it is there: a fault is a line
/// with one of the others.
const DMA: &str = "DMA-API: ";
const DMA_FAULTS: [&str; 3] = [
    "device driver",
    "overlapping mappings",
    "mapping sg segment",
];

const PANIC: &str = "Kernel panic - not syncing";

/// Not "Memory cgroup out of memory": that is a limit which somebody set.
const OUT_OF_MEMORY: &str = "Out of memory: ";

/// The panic of a machine in which nobody is left to kill.
const DEADLOCKED: &str = "System is deadlocked on memory";

/// Above it are remarks; what is wrong is at this level (warnings) or below.
const WARNING: u8 = 4;

/// Reads a log's lines in their order.
#[derive(Default)]
pub(crate) struct Watch {
    fault: Option<Fault>,
    /// The last line was [`CUT`].
    cut: bool,
}

impl Watch {
    /// One more line; the fault that is known by now.
    pub(crate) fn read(&mut self, line: &str) -> Option<Fault> {
        let found = find(line);
        let after_cut = std::mem::replace(&mut self.cut, line.contains(CUT));
        self.fault = match (self.fault, found) {
            (Some(Fault::Oops), Some(Fault::Check)) if after_cut => Some(Fault::Check),
            // One short of memory can have worse to come; its panic is no worse.
            (Some(Fault::OutOfMemory), Some(Fault::Oops | Fault::Check)) => found,
            (known, _) => known.or(found),
        };
        self.fault
    }

    /// The same of a record, which has a level: a driver's remark is no fault.
    pub(crate) fn read_record(&mut self, level: u8, text: &str) -> Option<Fault> {
        match level <= WARNING || text.contains(LEAKS) {
            true => self.read(text),
            false => self.fault,
        }
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }
}

/// Whether a line by itself matters to a [`Watch`].
pub(crate) fn is_suspect(line: &str) -> bool {
    find(line).is_some()
}

fn find(line: &str) -> Option<Fault> {
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    if line.contains(PANIC) {
        return Some(match has(&[OUT_OF_MEMORY, DEADLOCKED]) {
            true => Fault::OutOfMemory,
            false => Fault::Panic,
        });
    }
    if has(&CHECKS) || (line.contains(DMA) && has(&DMA_FAULTS)) {
        Some(Fault::Check)
    } else if has(&OOPS) {
        Some(Fault::Oops)
    } else if line.contains(OUT_OF_MEMORY) {
        Some(Fault::OutOfMemory)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Option<Fault> {
        let mut watch = Watch::default();
        text.lines().for_each(|line| {
            watch.read(line);
        });
        watch.fault()
    }

    #[test]
    fn tells_a_panic_from_an_oops() {
        let panic = "[ 1.0] sysrq: Trigger a crash\n[ 1.1] Kernel panic - not syncing: sysrq\n";
        assert_eq!(fault(panic), Some(Fault::Panic));
        let oops = "[ 1.0] BUG: kernel NULL pointer dereference, address: 0\n\
                    [ 1.1] Oops: 0002 [#1]\n[ 1.2] Kernel panic - not syncing: Fatal exception\n";
        assert_eq!(fault(oops), Some(Fault::Oops));
        let warn = "[ 1.0] ------------[ cut here ]------------\n\
                    [ 1.0] WARNING: CPU: 0 PID: 1 at drivers/x.c:1 f+0x1/0x2 [x]\n";
        assert_eq!(fault(warn), Some(Fault::Oops));
        assert_eq!(fault("[ 1.0] all is well\n"), None);
        assert_eq!(
            fault("[ 1.0] traps: a[7] general protection fault ip:7f sp:7f error:0 in a\n"),
            None
        );
    }

    #[test]
    fn knows_what_debug_kernels_find() {
        for found in [
            "BUG: KASAN: slab-use-after-free in f+0x1/0x2 [m]",
            "WARNING: possible circular locking dependency detected",
            "WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected",
            "WARNING: inconsistent lock state",
            "BUG: sleeping function called from invalid context at mm/slab.c:1",
            "kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "DMA-API: misc m: device driver frees DMA memory with different size",
            // As WARN brings it.
            "-----[ cut here ]-----\nDMA-API: misc m: device driver frees DMA memory",
            "-----[ cut here ]-----\nUBSAN: array-index-out-of-bounds in m.c:1:2",
        ] {
            let panics = "Kernel panic - not syncing: kernel: panic_on_warn set ...";
            let text = format!("{found}\n{panics}\n");
            assert_eq!(fault(&text), Some(Fault::Check), "{found}");
        }
        for word in [
            "DMA-API: preallocated 65536 debug entries",
            "DMA-API: debugging enabled by kernel config",
            "kmemleak: Kernel memory leak detector initialized (mem pool available: 1)",
            "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
        ] {
            assert_eq!(fault(word), None);
        }
    }

    #[test]
    fn a_limit_that_somebody_set_is_not_the_end_of_the_memory() {
        let killed = "Out of memory: Killed process 99 (hog) total-vm:1kB, anon-rss:1kB";
        assert_eq!(fault(killed), Some(Fault::OutOfMemory));
        assert_eq!(
            fault("Memory cgroup out of memory: Killed process 99 (hog) total-vm:1kB"),
            None
        );
        let last = "Kernel panic - not syncing: System is deadlocked on memory";
        assert_eq!(fault(last), Some(Fault::OutOfMemory));
        assert_eq!(
            fault(&format!("{killed}\nOops: 0000 [#1]")),
            Some(Fault::Oops)
        );
    }

    #[test]
    fn a_remark_is_no_fault() {
        let mut watch = Watch::default();
        assert_eq!(watch.read_record(6, "x: BIOS BUG: off by one"), None);
        let leaks = "kmemleak: 2 new suspected memory leaks";
        assert_eq!(watch.read_record(6, leaks), Some(Fault::Check));
    }
}
