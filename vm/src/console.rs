//! What the guest's kernel says on its serial line.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// How much of it is kept; a guest that floods its console loses the oldest.
const KEEP: usize = 1 << 20;

/// How many lines a report shows of a guest that has no word on itself.
const LAST_LINES: usize = 25;

/// How many lines a report shows from the first fault on: KASAN tells where the
/// memory was used, allocated and freed.
const FAULT_LINES: usize = 100;

/// The words of `WARN`, of `die`, and of the checks of debug kernels that do not
/// end the guest by themselves.
const FAULTS: [&str; 20] = [
    "[ cut here ]",
    "Oops: ",
    // Of KASAN, of the scheduler, of the mm, and more.
    "BUG: ",
    "kernel BUG at ",
    "general protection fault",
    "UBSAN: ",
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
    // Of kmemleak: how many is the first word.
    "new suspected memory leaks",
];

/// DMA debugging says under this name, too, that it is there: a fault is a line
/// with one of the others.
const DMA: &str = "DMA-API: ";
const DMA_FAULTS: [&str; 3] = [
    "device driver",
    "overlapping mappings",
    "mapping sg segment",
];

/// What the kernel said about its own state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub(crate) oops: bool,
    pub(crate) panic: bool,
}

#[derive(Default)]
struct Log {
    text: String,
    line: String,
    alarm: Alarm,
    /// The lines from the first alarm on, as many as a report shows.
    alarmed: Vec<String>,
}

/// A log that fills in the background.
#[derive(Clone)]
pub(crate) struct Console(Arc<Mutex<Log>>);

impl Console {
    /// Follow this line until its end.
    pub(crate) fn follow(mut line: impl Read + Send + 'static) -> (Console, JoinHandle<()>) {
        let console = Console(Arc::default());
        let ours = console.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = line.read(&mut buffer) {
                ours.lock()
                    .push(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        (console, thread)
    }

    pub(crate) fn alarm(&self) -> Alarm {
        self.lock().alarm
    }

    /// The whole log, as far as it is kept.
    pub(crate) fn text(&self) -> String {
        self.lock().text.clone()
    }

    /// The lines for a report: those from the first alarm on, or the last ones.
    pub(crate) fn report(&self) -> String {
        let log = self.lock();
        match log.alarmed.as_slice() {
            [] => log.tail(),
            alarmed => alarmed.join("\n"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn push(&mut self, text: &str) {
        let text = text.replace('\r', "");
        for part in text.split_inclusive('\n') {
            self.line.push_str(part);
            if part.ends_with('\n') {
                self.alarm.read(&self.line);
                if self.alarm != Alarm::default() && self.alarmed.len() < FAULT_LINES {
                    self.alarmed.push(self.line.trim_end().to_owned());
                }
                self.line.clear();
            }
        }
        self.text.push_str(&text);
        if self.text.len() > KEEP {
            let half = self.text.len() - KEEP / 2;
            let line_end = self.text.bytes().skip(half).position(|byte| byte == b'\n');
            let cut = line_end.map_or(self.text.len(), |at| half + at + 1);
            self.text.drain(..cut);
        }
    }

    fn tail(&self) -> String {
        let said = self.text.lines().filter(|line| !line.trim().is_empty());
        let all: Vec<&str> = said.collect();
        all[all.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Alarm {
    fn read(&mut self, line: &str) {
        let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
        let fault = has(&FAULTS) || (line.contains(DMA) && has(&DMA_FAULTS));
        if fault && !self.panic {
            self.oops = true;
        }
        if line.contains("Kernel panic - not syncing") {
            self.panic = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(text: &str) -> Alarm {
        let (console, thread) = Console::follow(std::io::Cursor::new(text.to_owned()));
        thread.join().unwrap();
        console.alarm()
    }

    #[test]
    fn tells_a_panic_from_an_oops() {
        let panic = "[ 1.0] sysrq: Trigger a crash\r\n[ 1.1] Kernel panic - not syncing: sysrq\r\n";
        assert_eq!(
            alarm(panic),
            Alarm {
                oops: false,
                panic: true
            }
        );
        let oops = "[ 1.0] BUG: kernel NULL pointer dereference, address: 0\n\
                    [ 1.1] Oops: 0002 [#1]\n[ 1.2] Kernel panic - not syncing: Fatal exception\n";
        assert_eq!(
            alarm(oops),
            Alarm {
                oops: true,
                panic: true
            }
        );
        assert_eq!(alarm("[ 1.0] all is well\n"), Alarm::default());
    }

    #[test]
    fn knows_what_debug_kernels_find() {
        for fault in [
            "BUG: KASAN: slab-use-after-free in f+0x1/0x2 [m]",
            "WARNING: possible circular locking dependency detected",
            "WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected",
            "WARNING: inconsistent lock state",
            "BUG: sleeping function called from invalid context at mm/slab.c:1",
            "kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "DMA-API: misc m: device driver frees DMA memory with different size",
        ] {
            assert!(alarm(&format!("[ 1.0] {fault}\n")).oops, "{fault}");
        }
        for word in [
            "DMA-API: preallocated 65536 debug entries",
            "DMA-API: debugging enabled by kernel config",
            "kmemleak: Kernel memory leak detector initialized (mem pool available: 1)",
            "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
        ] {
            assert_eq!(alarm(&format!("[ 1.0] {word}\n")), Alarm::default());
        }
    }

    #[test]
    fn keeps_the_end_of_a_flood() {
        let flood = "x".repeat(79) + "\n";
        let text = flood.repeat(2 * KEEP / 80) + "the last line\n";
        let (console, thread) = Console::follow(std::io::Cursor::new(text));
        thread.join().unwrap();
        assert!(console.text().len() <= KEEP);
        assert_eq!(console.report().lines().last(), Some("the last line"));
    }
}
