//! Runs programs for the host, several at a time, in one thread.
//!
//! Process 1 also inherits every orphan; all are reaped here.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::log::Log;

use dmashare_vm_init::{ALL, Exit, Frame, Kind, Port, Settle, Spawn, WINDOW, WindowSize};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, wait};

use crate::boot;

/// How often a terminal is read for what its last program left in it: more than it
/// can hold.
const TERMINAL_READS: usize = 16;

/// How much output is sent in one frame. With what is before it, it fits in the 32 KiB
/// that the port's driver takes at once: the rest would make a round trip of its own.
const PART: usize = (32 << 10) - 64;

/// How much a program may write ahead of us, in bytes.
const PIPE: usize = 256 << 10;

/// How long more output is waited for after some was sent: a frame of one line takes as
/// long as one of thousands. What comes after a pause is sent at once.
const GATHER: Duration = Duration::from_millis(3);

/// How often orphans that nobody waits for are reaped.
const REAP: Duration = Duration::from_secs(1);

struct Process {
    id: u32,
    pid: Pid,
    pidfd: OwnedFd,
    /// Its output: standard output (or its terminal), then standard error.
    out: [Option<File>; 2],
    /// When it is looked at next.
    out_after: Instant,
    /// How many bytes of it the host has not taken yet, where it counts them.
    unheard: Option<usize>,
    stdin: Option<File>,
    /// Bytes that its standard input did not take yet, and whether it ends after them.
    waiting: VecDeque<u8>,
    ends: bool,
    terminal: Option<File>,
    exit: Option<Exit>,
}

/// What a poll entry stands for.
enum Source {
    Port,
    Log,
    Exit,
    Out(usize, usize),
    Stdin(usize),
}

/// Serve orders until the host says to stop, or is gone.
pub(crate) fn serve(mut port: Port<File>) -> io::Result<()> {
    let mut processes: Vec<Process> = Vec::new();
    let mut log = None;
    loop {
        for source in wait_for_work(&port, &processes, log.as_ref())? {
            match source {
                Source::Port => match Frame::read(&mut port)? {
                    None => return Ok(()),
                    Some(frame) if frame.kind == Kind::PowerOff => {
                        return log.map_or(Ok(()), |mut log: Log| log.catch_up(&mut port));
                    }
                    Some(frame) if frame.kind == Kind::Sync => {
                        if let Some(log) = &mut log {
                            log.catch_up(&mut port)?;
                        }
                        Frame::data(Kind::Done, 0, &[]).write(&mut port)?;
                    }
                    Some(frame) => {
                        if frame.kind == Kind::Settle {
                            // From its first record on: who restored this guest
                            // has heard none of them.
                            log = Log::open();
                        }
                        order(&frame, &mut processes, &mut port)?;
                    }
                },
                // Its end is found below, among the others'.
                Source::Exit => {}
                Source::Log => {
                    if let Some(log) = &mut log {
                        log.forward(&mut port)?;
                    }
                }
                Source::Out(at, stream) => processes[at].forward_all(stream, &mut port)?,
                Source::Stdin(at) => processes[at].feed(&mut port)?,
            }
        }
        reap(&mut processes);
        for process in processes.iter_mut().filter(|p| p.exit.is_some()) {
            process.forward_rest(&mut port)?;
            // What it left behind must not sit beside the next one.
            let _ = kill_process_group(process.pid, Signal::KILL);
        }
        if let Some(log) = &mut log
            && processes.iter().any(|p| p.exit.is_some())
        {
            // Its end is judged by what the kernel said before.
            log.catch_up(&mut port)?;
        }
        for process in processes.extract_if(.., |p| p.exit.is_some()) {
            Frame::json(Kind::Exit, process.id, &process.exit).write(&mut port)?;
        }
    }
}

fn wait_for_work(
    port: &Port<File>,
    processes: &[Process],
    log: Option<&Log>,
) -> io::Result<Vec<Source>> {
    let mut fds = vec![PollFd::new(port.stream(), PollFlags::IN)];
    let mut sources = vec![Source::Port];
    let now = Instant::now();
    let mut longest = REAP;
    for (at, process) in processes.iter().enumerate() {
        fds.push(PollFd::new(&process.pidfd, PollFlags::IN));
        sources.push(Source::Exit);
        for (stream, file) in process.out.iter().enumerate() {
            if let Some(file) = file
                && process.unheard.is_none_or(|bytes| bytes < WINDOW)
            {
                let wait = process.out_after.saturating_duration_since(now);
                if wait > Duration::ZERO {
                    longest = longest.min(wait);
                    continue;
                }
                fds.push(PollFd::new(file, PollFlags::IN));
                sources.push(Source::Out(at, stream));
            }
        }
        if let Some(file) = &process.stdin
            && !process.waiting.is_empty()
        {
            fds.push(PollFd::new(file, PollFlags::OUT));
            sources.push(Source::Stdin(at));
        }
    }
    if let Some(log) = log {
        fds.push(PollFd::new(log, PollFlags::IN));
        sources.push(Source::Log);
    }
    let longest = Timespec::try_from(longest).ok();
    match poll(&mut fds, longest.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = fds.iter().map(|fd| !fd.revents().is_empty());
    Ok(sources
        .into_iter()
        .zip(ready)
        .filter_map(|(source, ready)| ready.then_some(source))
        .collect())
}

fn order(frame: &Frame, processes: &mut Vec<Process>, port: &mut Port<File>) -> io::Result<()> {
    if frame.kind == Kind::Spawn {
        match Process::start(frame.process, &frame.parse()?) {
            Ok(process) => processes.push(process),
            Err(error) => {
                let exit = Exit::NotStarted(error.to_string());
                Frame::json(Kind::Exit, frame.process, &exit).write(port)?;
            }
        }
        return Ok(());
    }
    let done = match frame.kind {
        Kind::Settle => {
            let settle: Settle = frame.parse()?;
            port.set_secret(settle.secret);
            Some(boot::settle(&settle))
        }
        Kind::Mount => Some(boot::mount_all(&frame.parse::<Vec<_>>()?)),
        Kind::Unmount => Some(boot::unmount_all(&frame.parse::<Vec<_>>()?)),
        _ => None,
    };
    match done {
        Some(Ok(())) => return Frame::data(Kind::Done, 0, &[]).write(port),
        Some(Err(error)) => {
            return Frame::data(Kind::Failed, 0, error.to_string().as_bytes()).write(port);
        }
        None => {}
    }
    // It may have ended while this order was on its way.
    let Some(process) = processes.iter_mut().find(|p| p.id == frame.process) else {
        return Ok(());
    };
    match frame.kind {
        Kind::Stdin if frame.payload.is_empty() => process.ends = true,
        Kind::Stdin => process.waiting.extend(&frame.payload),
        Kind::Took => {
            let took = frame.parse()?;
            let unheard = process.unheard.filter(|_| took != ALL);
            process.unheard = unheard.map(|bytes| bytes.saturating_sub(took));
        }
        Kind::Signal => {
            let signal: i32 = frame.parse()?;
            // SAFETY: killpg(3) touches no memory. By its number: rustix has no
            // names for real-time signals.
            unsafe { libc::killpg(process.pid.as_raw_nonzero().get(), signal) };
        }
        Kind::Stdout => process.out[0] = None,
        Kind::Stderr => process.out[1] = None,
        Kind::Resize => process.resize(frame.parse()?),
        other => return Err(io::Error::other(format!("a {other:?} frame from the host"))),
    }
    process.feed(port)
}

/// Reap whoever ended: our own processes, whose end is noted, and the orphans
/// that were left to process 1.
fn reap(processes: &mut [Process]) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if let Some(process) = processes.iter_mut().find(|p| p.pid == pid) {
            process.exit = Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, signal) => Exit::Signal(signal.unwrap_or_default()),
            });
        }
    }
}

impl Process {
    fn start(id: u32, spawn: &Spawn) -> io::Result<Process> {
        let (program, arguments) = spawn
            .argv
            .split_first()
            .ok_or_else(|| io::Error::other("no program was named"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&spawn.cwd)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8");
        let account = spawn.user.as_deref().map(Account::find).transpose()?;
        if let Some(account) = &account {
            account.set_environment(&mut command);
        }
        let terminal = match spawn.terminal {
            Some(size) => Some(give_terminal(&mut command, size)?),
            None => {
                command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                None
            }
        };
        command.envs(spawn.env.iter().map(|(name, value)| (name, value)));
        let has_terminal = terminal.is_some();
        // SAFETY: between fork and exec only async-signal-safe calls are made:
        // setsid(2), ioctl(2), and those of `become_user`.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                if has_terminal {
                    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                }
                account.as_ref().map_or(Ok(()), become_user)
            });
        }
        let mut child = command
            .spawn()
            .map_err(|error| explain(program, &spawn.cwd, error))?;
        let pid = Pid::from_child(&child);
        let (stdin, out) = match &terminal {
            Some(terminal) => (
                Some(terminal.try_clone()?),
                [Some(terminal.try_clone()?), None],
            ),
            None => (
                child
                    .stdin
                    .take()
                    .map(|pipe| File::from(OwnedFd::from(pipe))),
                [
                    child
                        .stdout
                        .take()
                        .map(|pipe| File::from(OwnedFd::from(pipe))),
                    child
                        .stderr
                        .take()
                        .map(|pipe| File::from(OwnedFd::from(pipe))),
                ],
            ),
        };
        for file in out.iter().chain([&stdin]).flatten() {
            rustix::io::ioctl_fionbio(file, true)?;
        }
        for pipe in out.iter().flatten().filter(|_| terminal.is_none()) {
            // Where it cannot be, the pipe is slower, and that is all.
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE);
        }
        Ok(Process {
            id,
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
            out,
            out_after: Instant::now(),
            unheard: Some(0),
            stdin,
            waiting: VecDeque::new(),
            ends: false,
            terminal,
            exit: None,
        })
    }

    /// Send on what one of its outputs has now; how many bytes that was.
    fn forward(&mut self, stream: usize, port: &mut Port<File>) -> io::Result<usize> {
        let Some(file) = &mut self.out[stream] else {
            return Ok(0);
        };
        let mut buffer = vec![0; PART];
        match file.read(&mut buffer) {
            // EIO: the last process on this terminal closed it.
            Ok(0) => self.out[stream] = None,
            Err(error) if error.raw_os_error() == Some(libc::EIO) => self.out[stream] = None,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok(length) => {
                let kind = [Kind::Stdout, Kind::Stderr][stream];
                Frame::data(kind, self.id, &buffer[..length]).write(port)?;
                self.unheard = self.unheard.map(|bytes| bytes + length);
                return Ok(length);
            }
        }
        Ok(0)
    }

    /// Send on what one of its outputs has now, as far as the host takes it, and let more
    /// gather then.
    fn forward_all(&mut self, stream: usize, port: &mut Port<File>) -> io::Result<()> {
        // As much as a pipe holds: an order may be waiting.
        for _ in 0..=PIPE / PART {
            let heard = self.unheard.is_none_or(|bytes| bytes < WINDOW);
            if !heard || self.forward(stream, port)? < PART {
                break;
            }
        }
        // A terminal holds too little to wait for.
        if self.terminal.is_none() {
            self.out_after = Instant::now() + GATHER;
        }
        Ok(())
    }

    /// Send on what it wrote before its end: what is in the pipes now, and not
    /// what a child that it left behind goes on to write.
    fn forward_rest(&mut self, port: &mut Port<File>) -> io::Result<()> {
        if self.terminal.is_some() {
            // Of a terminal FIONREAD does not count what only a read brings forward.
            for _ in 0..TERMINAL_READS {
                if self.forward(0, port)? == 0 {
                    break;
                }
            }
            return Ok(());
        }
        for stream in 0..2 {
            let mut left = match &self.out[stream] {
                Some(file) => rustix::io::ioctl_fionread(file)?,
                None => 0,
            };
            while left > 0 {
                let sent = self.forward(stream, port)?;
                if sent == 0 {
                    break;
                }
                left = left.saturating_sub(sent as u64);
            }
        }
        Ok(())
    }

    /// Give its standard input what it takes, and tell the host.
    fn feed(&mut self, port: &mut Port<File>) -> io::Result<()> {
        let Some(file) = &mut self.stdin else {
            let unwanted = !self.waiting.is_empty();
            self.waiting.clear();
            return match unwanted {
                true => Frame::json(Kind::Took, self.id, &0).write(port),
                false => Ok(()),
            };
        };
        let mut took = None;
        if !self.waiting.is_empty() {
            match file.write(self.waiting.as_slices().0) {
                Ok(length) => {
                    self.waiting.drain(..length);
                    took = Some(length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // It closed its end: what it does not want is not an error.
                Err(_) => {
                    self.waiting.clear();
                    self.stdin = None;
                    took = Some(0);
                }
            }
        }
        // A terminal has no end to close; its user types one.
        if self.ends && self.waiting.is_empty() {
            self.stdin = None;
        }
        match took {
            Some(took) => Frame::json(Kind::Took, self.id, &took).write(port),
            None => Ok(()),
        }
    }

    fn resize(&self, size: WindowSize) {
        if let Some(terminal) = &self.terminal {
            let _ = rustix::termios::tcsetwinsize(terminal, winsize(size));
        }
    }
}

/// Give up being root. Its standard streams go to the new user first, or it could
/// not open `/dev/stderr`.
fn become_user(account: &Account) -> io::Result<()> {
    use rustix::stdio::{stderr, stdin, stdout};
    for stream in [stdin(), stdout(), stderr()] {
        rustix::fs::fchown(stream, Some(account.uid), Some(account.gid))?;
    }
    rustix::thread::set_thread_groups(&account.groups)?;
    rustix::thread::set_thread_gid(account.gid)?;
    Ok(rustix::thread::set_thread_uid(account.uid)?)
}

/// Let this command have a new terminal; ours is its other end.
fn give_terminal(command: &mut Command, size: WindowSize) -> io::Result<File> {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    rustix::termios::tcsetwinsize(&ours, winsize(size))?;
    command
        .env("TERM", "xterm-256color")
        .stdin(theirs.try_clone()?)
        .stdout(theirs.try_clone()?)
        .stderr(theirs);
    Ok(File::from(ours))
}

fn winsize(size: WindowSize) -> rustix::termios::Winsize {
    rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Where programs are: a root of the user's own need not have merged the last two.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn is_there(program: &str) -> bool {
    let mut folders = PATH.split(':').map(std::path::Path::new);
    match program.contains('/') {
        true => std::path::Path::new(program).exists(),
        false => folders.any(|folder| folder.join(program).exists()),
    }
}

/// "No such file" can mean the program, its interpreter or the folder.
fn explain(program: &str, cwd: &str, error: io::Error) -> io::Error {
    let what = if !std::path::Path::new(cwd).is_dir() {
        format!("the guest has no folder {cwd}; share it, or choose another")
    } else if error.kind() == io::ErrorKind::NotFound && is_there(program) {
        format!("{program}: its interpreter or dynamic loader is missing in the guest's root")
    } else {
        format!("{program}: {error}")
    };
    io::Error::new(error.kind(), what)
}
