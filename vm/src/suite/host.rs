//! Test programs on the host, followed as those in the guest are.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dmashare_vm_init::Exit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::Options;
use super::build::TestProgram;
use crate::project::{Project, cargo};
use crate::{Error, Event};

/// Doc tests are compiled one by one, which takes longer than running them.
const DOC_TESTS: Duration = Duration::from_secs(1200);

/// How long what a program left behind may add to its output after its end. What
/// the program itself said is read whenever we come to it.
const DRAIN: Duration = Duration::from_secs(1);

/// A running test program; killed and reaped on drop, with what it started.
///
/// Its output stays in its pipes until it is asked for, so that one that floods
/// them waits for us.
pub(crate) struct HostProcess {
    group: Group,
    child: Child,
    /// Readable once it has ended.
    pidfd: OwnedFd,
    /// Those that have not come to their ends.
    pipes: Vec<Pipe>,
    /// Its end, and when no more output is waited for.
    ended: Option<(Exit, Instant)>,
    name: String,
    deadline: Duration,
    ends_at: Instant,
}

struct Pipe {
    file: File,
    event: fn(Vec<u8>) -> Event,
    /// How much of what the program said before its end is yet to be read.
    left: u64,
}

impl HostProcess {
    pub(crate) fn start(program: &TestProgram, options: &Options) -> Result<HostProcess, Error> {
        let mut command = Command::new(&program.path);
        command
            .args(options.filter.as_deref())
            .current_dir(&program.folder)
            .envs(program.env.iter().cloned());
        if let Some(all) = &program.host_env {
            command.env_clear().envs(all);
        }
        HostProcess::spawn(command, &program.name, options.deadline)
    }

    /// The examples in the documentation, which only cargo can run; `None` where
    /// no library has any.
    pub(crate) fn doc_tests(
        project: &Project,
        options: &Options,
    ) -> Option<Result<HostProcess, Error>> {
        if !has_doc_tests(project) {
            return None;
        }
        let mut command = cargo();
        command
            .args(["test", "--workspace", "--doc", "--quiet", "--no-fail-fast"])
            .args(&project.settings.cargo_args)
            .args(["--", "--format=pretty"])
            .args(options.filter.as_deref())
            .current_dir(project.folder());
        Some(HostProcess::spawn(command, "doc tests", DOC_TESTS))
    }

    fn spawn(command: Command, name: &str, deadline: Duration) -> Result<HostProcess, Error> {
        HostProcess::try_spawn(command, name, deadline).map_err(Error::io(format!("start {name}")))
    }

    fn try_spawn(mut command: Command, name: &str, deadline: Duration) -> io::Result<HostProcess> {
        let group = Group::new()?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(group.id().as_raw_nonzero().get())
            .spawn()?;
        let pipe = |fd: Option<OwnedFd>, event| Pipe {
            file: fd.expect("it is piped").into(),
            event,
            left: 0,
        };
        let pipes = vec![
            pipe(child.stdout.take().map(OwnedFd::from), Event::Stdout),
            pipe(child.stderr.take().map(OwnedFd::from), Event::Stderr),
        ];
        Ok(HostProcess {
            group,
            pidfd: pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?,
            child,
            pipes,
            ended: None,
            name: name.to_owned(),
            deadline,
            ends_at: Instant::now() + deadline,
        })
    }

    /// As [`Process::next_event`](crate::Process::next_event).
    pub(crate) fn next_event(&mut self) -> Result<Event, Error> {
        loop {
            let now = Instant::now();
            let until = match &self.ended {
                Some((exit, until)) => {
                    let all_read = self.pipes.iter().all(|pipe| pipe.left == 0);
                    if self.pipes.is_empty() || (all_read && now >= *until) {
                        return Ok(Event::Exit(exit.clone()));
                    }
                    *until
                }
                None => self.ends_at,
            };
            let failed = Error::io(format!("follow {}", self.name));
            if self.ended.is_none() && now >= until {
                // It may have ended in time while we were stopped. If not, it may
                // have more to say, but no more time.
                match self.look_for_end().map_err(failed)? {
                    true => continue,
                    false => return Err(self.hang()),
                }
            }
            let next = self.step(until.saturating_duration_since(now));
            if let Some(event) = next.map_err(failed)? {
                return Ok(event);
            }
        }
    }

    /// Wait for what comes first, and take it.
    fn step(&mut self, longest: Duration) -> io::Result<Option<Event>> {
        let mut fds: Vec<PollFd<'_>> = self
            .pipes
            .iter()
            .map(|pipe| PollFd::new(&pipe.file, PollFlags::IN))
            .collect();
        if self.ended.is_none() {
            fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
        }
        match poll(&mut fds, Timespec::try_from(longest).ok().as_ref()) {
            // A signal that somebody here handles.
            Err(rustix::io::Errno::INTR) => return Ok(None),
            other => other?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if self.ended.is_none() && ready.last() == Some(&true) {
            self.look_for_end()?;
        }
        let Some(at) = ready[..self.pipes.len()].iter().position(|ready| *ready) else {
            return Ok(None);
        };
        let mut pipe = self.pipes.remove(at);
        let mut buffer = vec![0; 8192];
        let length = pipe.file.read(&mut buffer)?;
        buffer.truncate(length);
        pipe.left = pipe.left.saturating_sub(length as u64);
        if length == 0 {
            return Ok(None);
        }
        let event = (pipe.event)(buffer);
        // The other's turn comes first, though this one has more.
        self.pipes.push(pipe);
        Ok(Some(event))
    }

    /// Whether it has ended, which it had not when last looked.
    fn look_for_end(&mut self) -> io::Result<bool> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(false);
        };
        for pipe in &mut self.pipes {
            pipe.left = ioctl_fionread(&pipe.file)?;
        }
        let exit = match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        };
        self.ended = Some((exit, Instant::now() + DRAIN));
        Ok(true)
    }

    fn hang(&self) -> Error {
        Error::Hang {
            what: format!("{} on the host", self.name),
            deadline: self.deadline,
            console: String::new(),
        }
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        self.group.kill();
        // It may have left the group.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asked for those of a workspace without a library, cargo fails.
fn has_doc_tests(project: &Project) -> bool {
    let packages = project.metadata.workspace_packages();
    let mut targets = packages.iter().flat_map(|package| &package.targets);
    targets.any(|target| target.doctest)
}

/// A process group of its own, that ends with us: it is killed as a whole when it
/// hangs, and when we are ended by Ctrl-C (which is for the terminal's foreground
/// group, ours) or anything else, even SIGKILL.
///
/// A shell leads it that reads from a pipe of ours, and kills the group when that
/// ends. `PR_SET_PDEATHSIG` would reach only the program, and not those that it
/// started (cargo's rustdoc, and the doc tests).
struct Group {
    leader: Child,
}

impl Group {
    fn new() -> io::Result<Group> {
        let leader = Command::new("/bin/sh")
            .args(["-c", "read _; kill -s KILL 0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Group { leader })
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.leader)
    }

    fn kill(&self) {
        // An error means that all have ended. Its number is not another's: the
        // leader has not been waited for.
        let _ = kill_process_group(self.id(), Signal::KILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        let _ = self.leader.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, deadline: Duration) -> HostProcess {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        HostProcess::spawn(command, "sh", deadline).unwrap()
    }

    /// What it printed, at most so much of it, and its end.
    fn follow(process: &mut HostProcess) -> (String, Result<Exit, Error>) {
        let mut said = Vec::new();
        loop {
            match process.next_event() {
                Ok(Event::Stdout(bytes) | Event::Stderr(bytes)) if said.len() < 1000 => {
                    said.extend(bytes);
                }
                Ok(Event::Exit(exit)) => break (String::from_utf8(said).unwrap(), Ok(exit)),
                Ok(_) => {}
                Err(error) => break (String::from_utf8(said).unwrap(), Err(error)),
            }
        }
    }

    fn is_gone(pid: &str) -> bool {
        // One that has ended may wait for its parent to notice.
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            gone()
        })
    }

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn what_a_program_leaves_behind_does_not_keep_it_from_ending() {
        let began = Instant::now();
        let mut process = sh("sleep 1000 & echo $!; echo of it >&2; exit 3", LONG);
        let (said, ended) = follow(&mut process);
        assert_eq!(ended.unwrap(), Exit::Code(3));
        assert!(said.contains("of it\n"), "{said}");
        // Nor does it, if it goes on and on.
        let (_, ended) = follow(&mut sh("yes & exit 4", LONG));
        assert_eq!(ended.unwrap(), Exit::Code(4));
        assert!(began.elapsed() < LONG / 2);
        drop(process);
        let pid = said.lines().find(|line| *line != "of it").unwrap();
        assert!(is_gone(pid), "{said}");
    }

    #[test]
    fn one_that_hangs_is_killed_with_what_it_started() {
        let mut process = sh("sleep 1000 & echo $!; wait", LONG);
        let Event::Stdout(pid) = process.next_event().unwrap() else {
            panic!("it prints a number first");
        };
        process.ends_at = Instant::now() + Duration::from_millis(100);
        let (_, ended) = follow(&mut process);
        assert!(matches!(ended, Err(Error::Hang { .. })), "{ended:?}");
        drop(process);
        let pid = String::from_utf8(pid).unwrap();
        assert!(pid.trim().parse::<u32>().is_ok() && is_gone(pid.trim()));
    }

    #[test]
    fn while_we_are_stopped_a_program_may_end_in_time() {
        let mut process = sh("echo done; exit 3", LONG);
        assert!(is_gone(&process.child.id().to_string()));
        process.ends_at = Instant::now();
        let (said, ended) = follow(&mut process);
        assert_eq!((said.as_str(), ended.unwrap()), ("done\n", Exit::Code(3)));
    }

    #[test]
    fn all_that_a_program_said_is_read_however_late() {
        let said = "sleep 1000 & head -c 30000 /dev/zero; head -c 20000 /dev/zero >&2";
        let mut process = sh(said, LONG);
        assert!(is_gone(&process.child.id().to_string()));
        let mut bytes = 0;
        while let Event::Stdout(more) | Event::Stderr(more) = process.next_event().unwrap() {
            bytes += more.len();
            // As if this had taken us longer.
            process.ended.as_mut().unwrap().1 = Instant::now();
        }
        assert_eq!(bytes, 50000);
    }

    #[test]
    fn a_flood_has_a_deadline_and_two_pipes() {
        let flood = "yes & echo here >&2; wait";
        let mut process = sh(flood, LONG);
        let mut heard = false;
        let began = Instant::now();
        let error = loop {
            match process.next_event() {
                Ok(Event::Stderr(bytes)) => {
                    heard = bytes == b"here\n";
                    process.ends_at = Instant::now() + Duration::from_secs(1);
                }
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Hang { .. }), "{error}");
        assert!(heard && began.elapsed() < LONG / 2);
    }

    #[test]
    fn a_signal_s_end_is_told() {
        let (said, ended) = follow(&mut sh("echo before; kill -s SEGV $$", LONG));
        assert_eq!(
            (said.as_str(), ended.unwrap()),
            ("before\n", Exit::Signal(11))
        );
    }

    #[test]
    fn its_group_ends_with_us() {
        let mut process = sh("sleep 1000 & echo $!; wait", LONG);
        let Event::Stdout(pid) = process.next_event().unwrap() else {
            panic!("it prints a number first");
        };
        // As our end would do.
        drop(process.group.leader.stdin.take());
        assert_eq!(follow(&mut process).1.unwrap(), Exit::Signal(9));
        assert!(is_gone(String::from_utf8(pid).unwrap().trim()));
    }

    #[test]
    fn programs_alone_have_no_doc_tests() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = "[package]\nname = \"alone\"\nversion = \"0.1.0\"\n[workspace]\n";
        std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        let source = |name: &str| {
            std::fs::write(folder.path().join("src").join(name), "fn main() {}").unwrap();
            Project::at(folder.path()).unwrap()
        };
        assert!(!has_doc_tests(&source("main.rs")));
        assert!(has_doc_tests(&source("lib.rs")));
    }
}
