//! What the guest's kernel says: on its serial line, and in its log, of which the
//! line shows only the warnings.

use std::collections::HashSet;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::fault::{Fault, Watch, is_suspect};
use crate::plain;

/// How much is kept of either; a guest that floods them loses the oldest.
const KEEP: usize = 1 << 20;

/// The longest line; what has no end is cut there.
const LINE: usize = 16 << 10;

/// How many lines a report shows of a guest that has no word on itself.
const LAST_LINES: usize = 25;

/// How many lines a report shows from the first fault on: KASAN tells where the
/// memory was used, allocated and freed.
const FAULT_LINES: usize = 100;

/// How many lines before it a report shows, too: what led to it.
const BEFORE: usize = 5;

/// How many suspect lines are remembered to be compared.
const SUSPECTS: usize = 1000;

/// Lines, and those around the first fault among them.
#[derive(Default)]
struct Lines {
    text: String,
    around_fault: Vec<String>,
}

#[derive(Default)]
struct Log {
    serial: Lines,
    /// The last, unfinished line of it.
    line: Vec<u8>,
    /// How many lines it had.
    number: usize,
    /// Those that tell of a fault, unless a program said them, with their numbers.
    suspects: Vec<(usize, String)>,
    kernel: Lines,
    /// The number of the record that comes next, and whether any did not come.
    next: u64,
    lost: bool,
    /// How something else than the agent spoke in its place.
    tampered: Option<String>,
    watch: Watch,
    /// What programs wrote into the kernel's log that looks like a fault. The serial
    /// line does not tell who spoke.
    by_programs: HashSet<String>,
}

/// Both logs, which fill in the background.
#[derive(Clone)]
pub(crate) struct Console(Arc<Mutex<Log>>);

impl Console {
    /// Follow this line, which had this to say before, until its end.
    pub(crate) fn follow(
        before: &str,
        mut line: impl Read + Send + 'static,
    ) -> (Console, JoinHandle<()>) {
        let console = Console(Arc::default());
        console.lock().push(before.as_bytes());
        let ours = console.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = line.read(&mut buffer) {
                ours.lock().push(&buffer[..length]);
            }
        });
        (console, thread)
    }

    /// More records of `/dev/kmsg`.
    pub(crate) fn push_records(&self, records: &[u8]) {
        let log = &mut *self.lock();
        for record in records_of(&String::from_utf8_lossy(records)) {
            log.lost |= record.number != log.next;
            log.next = record.number + 1;
            let lines = record.lines();
            if record.by_kernel {
                log.watch.read_record(record.level, record.text);
            } else if log.by_programs.len() < SUSPECTS {
                let suspects = lines.iter().filter(|line| is_suspect(line)).cloned();
                log.by_programs.extend(suspects);
            }
            let fault = log.watch.fault().is_some();
            lines.iter().for_each(|line| log.kernel.add(line, fault));
        }
    }

    /// The fault of which either tells. The serial line tells, too, what a program wrote
    /// there: see [`Console::fault_in_log`].
    pub(crate) fn fault(&self) -> Option<Fault> {
        let log = self.lock();
        match (log.serial_fault(), log.watch.fault()) {
            // What else one of them knows is worse.
            (Some(Fault::OutOfMemory), Some(other)) => Some(other),
            (serial, kernel) => serial.or(kernel),
        }
    }

    /// The fault of which the kernel's own log tells, as far as it was forwarded; where
    /// records of it were lost, what the serial line tells counts for them.
    pub(crate) fn fault_in_log(&self) -> Option<Fault> {
        let log = self.lock();
        let serial = || log.serial_fault().filter(|_| log.lost);
        log.watch.fault().or_else(serial)
    }

    /// The kernel's log, which is here as a whole, does not have what the serial line
    /// tells: a program wrote it there. It is forgotten; the first line of it.
    pub(crate) fn refute(&self) -> Option<String> {
        let log = &mut *self.lock();
        log.serial.around_fault.clear();
        let (_, line) = std::mem::take(&mut log.suspects).into_iter().next()?;
        Some(plain::line(&line))
    }

    /// Something else than its agent spoke in its place.
    pub(crate) fn tampered(&self, how: String) {
        self.lock().tampered = Some(how);
    }

    /// How it was tampered with, if it was.
    pub(crate) fn tampering(&self) -> Option<String> {
        self.lock().tampered.clone()
    }

    /// What came over the serial line, as far as it is kept.
    pub(crate) fn text(&self) -> String {
        self.lock().serial.text.clone()
    }

    /// The kernel's log, and what only the serial line has: a panic's last words.
    pub(crate) fn dmesg(&self) -> String {
        let log = self.lock();
        merge(&log.kernel.text, &log.serial.text)
    }

    /// The lines for a report: those around the first fault, or the last ones.
    pub(crate) fn report(&self) -> String {
        let log = self.lock();
        let kernel = &log.kernel.around_fault;
        let longer = match log.serial_fault() {
            Some(_) if log.serial.around_fault.len() >= kernel.len() => &log.serial.around_fault,
            _ => kernel,
        };
        match longer.is_empty() {
            true => {
                let all = merge(&log.kernel.text, &log.serial.text);
                last_lines(&all, LAST_LINES).join("\n")
            }
            false => longer.join("\n"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' || self.line.len() == LINE {
                self.end_line();
            }
            if !matches!(byte, b'\n' | b'\r') {
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        self.number += 1;
        if is_suspect(&line) && self.suspects.len() < SUSPECTS {
            self.suspects.push((self.number, line.clone().into_owned()));
        }
        self.serial.add(&line, !self.suspects.is_empty());
    }

    /// What the serial line tells, but for what programs said.
    fn serial_fault(&self) -> Option<Fault> {
        let mut watch = Watch::default();
        let mut last = 0;
        for (number, line) in &self.suspects {
            if !self.by_programs.contains(&without_caller(line)) {
                if *number > last + 1 {
                    // Others stood between them.
                    watch.read("");
                }
                watch.read(line);
                last = *number;
            }
        }
        watch.fault()
    }
}

impl Lines {
    fn add(&mut self, line: &str, fault: bool) {
        // A program can write there, too, for the host's terminal to obey.
        let line = &plain::line(line);
        if fault && self.around_fault.len() < FAULT_LINES {
            if self.around_fault.is_empty() {
                self.around_fault = last_lines(&self.text, BEFORE);
            }
            self.around_fault.push(line.trim_end().to_owned());
        }
        self.text.push_str(line);
        self.text.push('\n');
        if self.text.len() > KEEP {
            let half = self.text.len() - KEEP / 2;
            let line_end = self.text.bytes().skip(half).position(|byte| byte == b'\n');
            let cut = line_end.map_or(self.text.len(), |at| half + at + 1);
            self.text.drain(..cut);
        }
    }
}

/// A record of `/dev/kmsg`, as Documentation/ABI/testing/dev-kmsg tells.
struct Record<'a> {
    level: u8,
    by_kernel: bool,
    number: u64,
    microseconds: u64,
    text: &'a str,
}

fn records_of(text: &str) -> impl Iterator<Item = Record<'_>> {
    // Lines that begin with a space are further properties of the one before.
    let heads = text.lines().filter(|line| !line.starts_with(' '));
    heads.filter_map(|line| {
        let (prefix, text) = line.split_once(';')?;
        let mut fields = prefix.split(',');
        let priority: u32 = fields.next()?.parse().ok()?;
        let number = fields.next()?.parse().ok()?;
        let microseconds = fields.next()?.parse().ok()?;
        Some(Record {
            level: u8::try_from(priority & 7).unwrap_or(7),
            by_kernel: priority >> 3 == 0,
            number,
            microseconds,
            text,
        })
    })
}

impl Record<'_> {
    /// As dmesg(1) and the serial line show it.
    fn lines(&self) -> Vec<String> {
        let (seconds, rest) = (self.microseconds / 1_000_000, self.microseconds % 1_000_000);
        let text = unescaped(self.text);
        let lines = text
            .split('\n')
            .map(|line| format!("[{seconds:5}.{rest:06}] {line}"));
        lines.collect()
    }
}

/// What is no plain ASCII is there by its number, `\x09`, and so is the backslash.
fn unescaped(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).map(|digits| u8::from_str_radix(digits, 16));
        match byte {
            Some(Ok(byte)) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            _ => bytes.extend(["\\x", part].concat().as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Both in the order of their times; what the serial line repeats is there once.
fn merge(kernel: &str, serial: &str) -> String {
    let known: HashSet<&str> = kernel.lines().collect();
    let fresh = timed(serial).filter(|(_, line)| {
        !line.trim().is_empty() && !known.contains(without_caller(line).as_str())
    });
    let mut lines: Vec<(u64, &str)> = timed(kernel).chain(fresh).collect();
    lines.sort_by_key(|(time, _)| *time);
    let lines = lines.into_iter().map(|(_, line)| format!("{line}\n"));
    lines.collect()
}

/// Lines with their times; one without belongs to the line before.
fn timed(text: &str) -> impl Iterator<Item = (u64, &str)> {
    text.lines().scan(0, |last, line| {
        *last = time(line).unwrap_or(*last);
        Some((*last, line))
    })
}

/// Microseconds since the kernel's start, as its line says: `[    1.234567] `.
fn time(line: &str) -> Option<u64> {
    let (seconds, rest) = line.strip_prefix('[')?.split_once('.')?;
    let (microseconds, _) = rest.split_once(']')?;
    let seconds: u64 = seconds.trim().parse().ok()?;
    let microseconds: u64 = microseconds.parse().ok()?;
    Some(
        seconds
            .saturating_mul(1_000_000)
            .saturating_add(microseconds),
    )
}

/// Some kernels say who speaks: `[    1.234567][    T1] `.
fn without_caller(line: &str) -> String {
    match line
        .split_once("][")
        .map(|(time, rest)| (time, rest.split_once(']')))
    {
        Some((time, Some((_, rest)))) => format!("{time}]{rest}"),
        _ => line.to_owned(),
    }
}

fn last_lines(text: &str, number: usize) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().rev().take(number).map(str::to_owned).collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(text: &str) -> Console {
        let (console, thread) = Console::follow("", std::io::Cursor::new(text.to_owned()));
        thread.join().unwrap();
        console
    }

    #[test]
    fn keeps_the_end_of_a_flood() {
        let flood = "x".repeat(79) + "\n";
        let console = console(&(flood.repeat(2 * KEEP / 80) + "the last line\n"));
        assert!(console.text().len() <= KEEP);
        assert_eq!(console.report().lines().last(), Some("the last line"));

        let endless = self::console(&"x".repeat(3 * KEEP));
        assert!(endless.text().len() <= KEEP);
        assert!(endless.lock().line.len() <= LINE);
    }

    #[test]
    fn a_record_is_a_line_of_dmesg() {
        let console = console("");
        console.push_records(
            b"6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n\
              4,340,15140900,-,caller=T1;first\\x0asecond\n\
              12,341,15140901,-;BUG: said by a program\n",
        );
        assert_eq!(
            console.dmesg(),
            "[    5.140900] NET: Registered\n[   15.140900] first\n\
             [   15.140900] second\n[   15.140901] BUG: said by a program\n"
        );
        assert_eq!(console.fault(), None);
        console.push_records(b"4,342,15140902,-;BUG: said by the kernel\n");
        assert_eq!(console.fault(), Some(Fault::Oops));
        let report = console.report();
        let (before, fault) = report.rsplit_once('\n').unwrap();
        assert_eq!(before, console.dmesg().rsplit_once("\n[").unwrap().0);
        assert_eq!(fault, "[   15.140902] BUG: said by the kernel");
    }

    #[test]
    fn what_a_program_says_is_no_fault_on_the_serial_line_either() {
        let said = "[    1.000000] BUG: said by a program\n";
        let console = self::console(said);
        assert_eq!(console.fault(), Some(Fault::Oops));
        console.push_records(b"12,1,1000000,-;BUG: said by a program\n");
        assert_eq!(console.fault(), None);
        assert!(!console.report().is_empty());

        let both = said.to_owned() + "[    2.000000] Kernel panic - not syncing: x\n";
        let console = self::console(&both);
        console.push_records(b"12,1,1000000,-;BUG: said by a program\n");
        assert_eq!(console.fault(), Some(Fault::Panic));
    }

    #[test]
    fn serial_fault_needs_the_log_as_witness() {
        let said = "[    1.000000] BUG: written to /dev/console\n";
        let forged = console(said);
        assert_eq!(forged.fault(), Some(Fault::Oops));
        forged.push_records(b"6,0,1000000,-;first\n6,1,1000000,-;second\n");
        assert_eq!(forged.fault_in_log(), None);
        assert!(forged.refute().unwrap().contains("written to /dev/console"));
        assert_eq!(forged.fault(), None);
        // What comes after it is looked at again.
        forged.lock().push(said.as_bytes());
        forged.push_records(b"4,2,1000000,-;BUG: by the kernel\n");
        assert_eq!(forged.fault_in_log(), Some(Fault::Oops));

        // A witness with gaps is none.
        let lossy = console(said);
        lossy.push_records(b"6,0,1000000,-;first\n6,2,1000000,-;third\n");
        assert_eq!(lossy.fault_in_log(), Some(Fault::Oops));
    }

    #[test]
    fn console_text_has_no_escapes() {
        let console = console("[    1.000000] \u{1b}]0;owned\u{7} BUG: x\r\n");
        console.push_records(b"6,0,2000000,-;\\x1b[2Jgone\n");
        for text in [console.text(), console.dmesg(), console.report()] {
            assert!(text.contains("\\x1b]0;owned\\x07"), "{text:?}");
            assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
        }
        assert!(console.dmesg().contains("\\x1b[2Jgone"));
    }

    #[test]
    fn both_logs_are_one_in_the_order_of_their_times() {
        let serial = "firmware\r\n[    2.000000] two\n[    3.000000][    T1] thr\tee\n\
                      [    4.000000] a panic\nits last word\n";
        let console = console(serial);
        console.push_records(b"6,1,1000000,-;\\xc3\\xb6ne\n6,2,3000000,-;thr\\x09ee\n");
        assert_eq!(
            console.dmesg(),
            "firmware\n[    1.000000] \u{f6}ne\n[    2.000000] two\n[    3.000000] thr\tee\n\
             [    4.000000] a panic\nits last word\n"
        );
    }
}
