//! Child processes: they speak English, are waited for, and end with us.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::Error;
use crate::cache;

/// `program`, to be run with [`run`]. It is ended when we are killed.
pub(super) fn program(program: &str) -> Command {
    let mut command = outliving(program);
    let parent = rustix::process::getpid();
    // SAFETY: the closure runs in the forked child, where only async-signal-safe
    // calls are allowed: it makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::TERM))?;
            // We may have died before the line above took effect.
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::ErrorKind::Interrupted.into())
            }
        });
    }
    command
}

/// `program`, to be run with [`run`], that is better left to end by itself: one
/// that changes the host and would leave it half-changed.
pub(super) fn outliving(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("LC_ALL", "C")
        .env("PATH", path())
        .stdin(Stdio::null());
    command
}

/// Has `command` make files with the permissions that it is told, less `mask`,
/// whatever the person who runs us takes from theirs.
pub(super) fn with_umask(command: &mut Command, mask: u32) -> &mut Command {
    // SAFETY: the closure runs in the forked child, where only async-signal-safe
    // calls are allowed: it makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::process::umask(Mode::from_raw_mode(mask));
            Ok(())
        })
    }
}

/// `$PATH` with the folders that an ordinary user's lacks: depmod and mkfs live
/// there.
pub(super) fn path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// What a program said, and whether it succeeded.
pub(super) struct Said {
    pub(super) success: bool,
    pub(super) out: String,
    pub(super) err: String,
    status: String,
}

impl Said {
    /// Why it failed, in a line: the first of apt's `E:` lines (ten failed
    /// downloads say the same ten times), else the first that tells of an error,
    /// else the last that was written, else the exit status.
    pub(super) fn reason(&self) -> String {
        let reason = self.words();
        let folder = std::env::temp_dir();
        // What it says goes there, and is lost where there is no room for it.
        match cache::is_full(&folder) {
            true => format!(
                "{reason} ({} is full: free some space there, or set TMPDIR to another folder)",
                folder.display()
            ),
            false => reason,
        }
    }

    fn words(&self) -> String {
        let lines: Vec<&str> = self
            .out
            .lines()
            .chain(self.err.lines())
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let first = |tells: &dyn Fn(&str) -> bool| lines.iter().copied().find(|line| tells(line));
        first(&|line| line.starts_with("E: "))
            .map(|line| line.trim_start_matches("E: "))
            .or_else(|| first(&|line| line.contains("rror: ") || line.contains("annot ")))
            .or_else(|| lines.last().copied())
            .unwrap_or(&self.status)
            .to_owned()
    }
}

/// Runs a program to its end and gives what it wrote to stdout.
pub(super) fn run(command: &mut Command) -> Result<String, Error> {
    let said = run_with(command, |_| {})?;
    if said.success {
        return Ok(said.out);
    }
    Err(Error::Program {
        program: name(command),
        said: said.reason(),
    })
}

/// Runs a program to its end, success or not; meanwhile calls `tick` some ten
/// times a second with what stdout got since the last call.
pub(super) fn run_with(command: &mut Command, mut tick: impl FnMut(&str)) -> Result<Said, Error> {
    // Files, not pipes: nothing to drain while it runs, no thread to end.
    let (mut out, mut err) = (capture()?, capture()?);
    command.stdout(share(&out)?).stderr(share(&err)?);
    let mut child = start(command)?;
    let mut seen = String::new();
    let mut pause = Duration::from_millis(2);
    let status = loop {
        if let Some(status) = child
            .0
            .try_wait()
            .map_err(|error| failed(command, &error))?
        {
            break status;
        }
        let text = read(&mut out)?;
        tick(text.get(seen.len()..).unwrap_or_default());
        seen = text;
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    };
    Ok(Said {
        success: status.success(),
        out: read(&mut out)?,
        err: read(&mut err)?,
        status: status.to_string(),
    })
}

/// Runs `from` and `to` at once to their ends, and meanwhile `through`, which
/// passes on what the one says to the other.
pub(super) fn piped(
    from: &mut Command,
    to: &mut Command,
    through: impl FnOnce(ChildStdout, &mut ChildStdin) -> io::Result<()>,
) -> Result<(), Error> {
    let (mut from_err, mut to_err) = (capture()?, capture()?);
    from.stdout(Stdio::piped()).stderr(share(&from_err)?);
    to.stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(share(&to_err)?);
    let (mut source, mut sink) = (start(from)?, start(to)?);
    let pipes = (source.0.stdout.take(), sink.0.stdin.take());
    let passed = match pipes {
        (Some(out), Some(mut into)) => through(out, &mut into),
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    };
    // Whose end it is decides whose words are shown: the reader's first, since
    // the others fail when it does.
    for (child, command, err) in [
        (&mut sink, &*to, &mut to_err),
        (&mut source, &*from, &mut from_err),
    ] {
        let status = child.0.wait().map_err(|error| failed(command, &error))?;
        let said = Said {
            success: status.success(),
            out: String::new(),
            err: read(err)?,
            status: status.to_string(),
        };
        // One that ended because nobody read on says nothing of its own.
        if !said.success && (passed.is_ok() || !said.err.trim().is_empty()) {
            return Err(Error::Program {
                program: name(command),
                said: said.reason(),
            });
        }
    }
    passed.map_err(|error| failed(from, &error))
}

fn start(command: &mut Command) -> Result<Reaped, Error> {
    let child = command.spawn();
    child.map(Reaped).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NoProgram {
            program: name(command),
        },
        _ => failed(command, &error),
    })
}

/// A child that no way out leaves running or unreaped.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail where it has ended and been waited for: nothing to do then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn failed(command: &Command, error: &io::Error) -> Error {
    Error::Program {
        program: name(command),
        said: error.to_string(),
    }
}

fn capture() -> Result<File, cache::Error> {
    tempfile::tempfile().map_err(cache::Error::io("make a file in", std::env::temp_dir()))
}

fn share(file: &File) -> Result<File, cache::Error> {
    file.try_clone().map_err(cache::Error::io(
        "duplicate a file of",
        std::env::temp_dir(),
    ))
}

fn read(file: &mut File) -> Result<String, cache::Error> {
    let mut bytes = Vec::new();
    // The offset is shared with the child, who writes: read by position.
    let end = file.stream_position();
    let read = end.and_then(|end| {
        bytes.resize(usize::try_from(end).unwrap_or(0), 0);
        file.read_exact_at(&mut bytes, 0)
    });
    read.map_err(cache::Error::io("read a file of", std::env::temp_dir()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = program("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_had_while_it_runs_and_after() {
        let mut seen = String::new();
        let said = run_with(
            &mut sh("echo one; sleep 0.3; echo two; echo bad >&2"),
            |new| {
                seen.push_str(new);
            },
        )
        .unwrap();
        assert!(said.success);
        assert_eq!(said.out, "one\ntwo\n");
        assert_eq!(said.err, "bad\n");
        assert_eq!(seen, "one\n");
    }

    #[test]
    fn a_failure_gives_its_reason() {
        let error = |script| run(&mut sh(script)).unwrap_err().to_string();
        assert_eq!(error("echo a; echo b >&2; exit 3"), "sh: b");
        assert_eq!(
            error("echo 'E: first' >&2; echo 'E: second' >&2; exit 3"),
            "sh: first"
        );
        assert_eq!(error("exit 3"), "sh: exit status: 3");
        let missing = run(&mut program("no-such-program-anywhere")).unwrap_err();
        assert!(matches!(missing, Error::NoProgram { .. }));
    }

    #[test]
    fn a_program_can_have_a_umask_of_its_own() {
        let said = run(with_umask(&mut sh("umask"), 0o027)).unwrap();
        assert_eq!(said, "0027\n");
    }

    #[test]
    fn two_programs_are_joined() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let mut to = sh("cat > \"$0\"");
        to.arg(&file);
        let upper = |mut from: ChildStdout, to: &mut ChildStdin| {
            let mut text = String::new();
            io::Read::read_to_string(&mut from, &mut text)?;
            io::Write::write_all(to, text.to_uppercase().as_bytes())
        };
        piped(&mut sh("echo words"), &mut to, upper).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "WORDS\n");

        let copy = |mut from: ChildStdout, to: &mut ChildStdin| io::copy(&mut from, to).map(drop);
        let error = |from: &str, to: &str| {
            let ended = piped(&mut sh(from), &mut sh(to), copy);
            ended.unwrap_err().to_string()
        };
        assert_eq!(error("echo gone >&2; exit 1", "cat"), "sh: gone");
        assert_eq!(error("echo text", "echo full >&2; exit 1"), "sh: full");
    }

    #[test]
    fn a_child_ends_with_its_parent() {
        // The parent is a thread here, as the kernel sees it: PR_SET_PDEATHSIG.
        let child = std::thread::spawn(|| sh("exec sleep 600").spawn().unwrap())
            .join()
            .unwrap();
        let mut child = Reaped(child);
        let status = child.0.wait().unwrap();
        assert!(!status.success());
    }
}
