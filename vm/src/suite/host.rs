//! Test programs on the host, followed as those in the guest are.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use std::os::unix::process::ExitStatusExt;

use dmashare_vm_init::Exit;

use super::Options;
use super::build::TestProgram;
use crate::project::{Project, cargo};
use crate::{Error, Event};

/// Doc tests are compiled one by one, which takes longer than running them.
const DOC_TESTS: Duration = Duration::from_secs(1200);

/// A running test program; killed and reaped on drop.
pub(crate) struct HostProcess {
    child: Child,
    name: String,
    output: Receiver<Event>,
    deadline: Duration,
    ends_at: Instant,
}

impl HostProcess {
    pub(crate) fn start(program: &TestProgram, options: &Options) -> Result<HostProcess, Error> {
        let mut command = Command::new(&program.path);
        command
            .args(options.filter.as_deref())
            .current_dir(&program.folder)
            .env("CARGO_MANIFEST_DIR", &program.folder);
        HostProcess::spawn(command, &program.name, options.deadline)
    }

    /// The examples in the documentation, which only cargo can run.
    pub(crate) fn doc_tests(project: &Project, options: &Options) -> Result<HostProcess, Error> {
        let mut command = cargo();
        command
            .args(["test", "--workspace", "--doc", "--quiet", "--no-fail-fast"])
            .args(&project.settings.cargo_args)
            .args(["--", "--format=pretty"])
            .args(options.filter.as_deref())
            .current_dir(project.folder());
        HostProcess::spawn(command, "doc tests", DOC_TESTS)
    }

    fn spawn(mut command: Command, name: &str, deadline: Duration) -> Result<HostProcess, Error> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Io {
                what: format!("start {name}"),
                source,
            })?;
        let (sender, output) = mpsc::channel();
        if let Some(pipe) = child.stdout.take() {
            forward(pipe, sender.clone(), Event::Stdout);
        }
        if let Some(pipe) = child.stderr.take() {
            forward(pipe, sender, Event::Stderr);
        }
        Ok(HostProcess {
            child,
            name: name.to_owned(),
            output,
            deadline,
            ends_at: Instant::now() + deadline,
        })
    }

    /// As [`Process::next_event`](crate::Process::next_event).
    pub(crate) fn next_event(&mut self) -> Result<Event, Error> {
        let left = self.ends_at.saturating_duration_since(Instant::now());
        match self.output.recv_timeout(left) {
            Ok(event) => Ok(event),
            Err(RecvTimeoutError::Timeout) => Err(self.hang()),
            Err(RecvTimeoutError::Disconnected) => self.exit().map(Event::Exit),
        }
    }

    /// Its end, which may come later than that of its output.
    fn exit(&mut self) -> Result<Exit, Error> {
        loop {
            let ended = self.child.try_wait().map_err(|source| Error::Io {
                what: format!("wait for {}", self.name),
                source,
            })?;
            match ended.map(|status| (status.code(), status.signal())) {
                Some((Some(code), _)) => return Ok(Exit::Code(code)),
                Some((None, signal)) => return Ok(Exit::Signal(signal.unwrap_or_default())),
                None if Instant::now() > self.ends_at => return Err(self.hang()),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(
    mut pipe: impl Read + Send + 'static,
    to: Sender<Event>,
    event: impl Fn(Vec<u8>) -> Event + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if to.send(event(buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
}
