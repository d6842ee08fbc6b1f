//! A program in the guest: started, fed, followed, waited for.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use dmashare_vm_init::{ALL, Exit, Frame, Kind, Spawn, WINDOW, WindowSize};

use crate::flow::Flow;
use crate::line::Line;
use crate::loader::Complaint;
use crate::plain;
use crate::{Error, Vm};

/// How long a program may take where the caller does not say.
const DEADLINE: Duration = Duration::from_secs(60);

/// A program to start in the guest; made by [`Vm::command`].
///
/// It leads a session and a process group of its own. When it ends, what it
/// left in that group is killed: nothing of it sits beside the next one.
pub struct Command<'vm> {
    vm: &'vm Vm,
    spawn: Spawn,
    deadline: Duration,
}

impl<'vm> Command<'vm> {
    pub(crate) fn new(vm: &'vm Vm, program: String) -> Command<'vm> {
        let spawn = Spawn {
            argv: vec![program],
            cwd: "/".into(),
            ..Spawn::default()
        };
        Command {
            vm,
            spawn,
            deadline: DEADLINE,
        }
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.spawn.argv.push(argument.into());
        self
    }

    /// More arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.spawn
            .argv
            .extend(arguments.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.spawn.env.push((name.into(), value.into()));
        self
    }

    /// Its working directory in the guest; `/` where none is given.
    pub fn current_dir(mut self, directory: impl Into<String>) -> Self {
        self.spawn.cwd = directory.into();
        self
    }

    /// Whom it runs as: a name of the guest's `/etc/passwd` or a number, and a
    /// group after a colon; root where none is given.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: boots a guest.
    /// # fn f(vm: &dmashare_vm::Vm) -> Result<(), dmashare_vm::Error> {
    /// let output = vm.command("id").arg("-u").user("1000").output()?;
    /// assert_eq!(output.stdout, b"1000\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.spawn.user = Some(user.into());
        self
    }

    /// How long it may take; 60 seconds where none is given.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Give it a terminal of this size instead of pipes.
    pub fn terminal(mut self, size: WindowSize) -> Self {
        self.spawn.terminal = Some(size);
        self
    }

    /// Start it.
    ///
    /// # Errors
    /// A guest that is gone, told apart as in [`Error`].
    pub fn spawn(self) -> Result<Process<'vm>, Error> {
        let (id, events, flow) = self.vm.register();
        let process = Process {
            vm: self.vm,
            id,
            program: self.spawn.argv.join(" "),
            complaint: RefCell::new(Complaint::of(&self.spawn.argv[0])),
            exit: RefCell::default(),
            taken: Cell::default(),
            events,
            flow,
            deadline: self.deadline,
            ends_at: after(self.deadline),
        };
        self.vm.send(&Frame::json(Kind::Spawn, id, &self.spawn))?;
        Ok(process)
    }

    /// Run it to its end, without input, and keep what it says.
    ///
    /// # Errors
    /// As [`Process::next_event`]. A program that fails is no error here: see
    /// [`Output::success`].
    pub fn output(self) -> Result<Output, Error> {
        let process = self.spawn()?;
        drop(process.stdin());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match process.next_event()? {
                Event::Stdout(bytes) => stdout.extend(bytes),
                Event::Stderr(bytes) => stderr.extend(bytes),
                Event::Exit(exit) => {
                    return Ok(Output {
                        exit,
                        stdout,
                        stderr,
                    });
                }
            }
        }
    }

    /// Run it for this long, and no longer: it is killed then, for which it has its
    /// deadline, and the guest goes on. What it says is of no interest, nor what the
    /// kernel says meanwhile.
    pub(crate) fn run_for(self, longest: Duration) -> Result<(), Error> {
        let mut ends_at = after(longest);
        let mut process = self.spawn()?;
        drop(process.stdin());
        let mut killed = false;
        loop {
            let left = ends_at.map_or(longest, |at| at.saturating_duration_since(Instant::now()));
            match process.events.recv_timeout(left) {
                Ok(frame) if frame.kind == Kind::Exit => return Ok(()),
                Ok(frame) => process.took(&frame),
                Err(RecvTimeoutError::Disconnected) => return Err(process.vm.verdict()),
                Err(RecvTimeoutError::Timeout) if killed => return Err(process.overdue()),
                Err(RecvTimeoutError::Timeout) => {
                    process.renew();
                    ends_at = process.ends_at;
                    process.signal(libc::SIGKILL)?;
                    killed = true;
                }
            }
        }
    }
}

/// The standard input of a program in the guest; its end is told on drop.
///
/// Writing waits for a program that does not read, and ends with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe) once it has closed its end or is gone.
pub struct Stdin {
    line: Line,
    flow: Arc<Flow>,
    process: u32,
}

impl Write for Stdin {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A frame of no bytes would be its end.
        if bytes.is_empty() {
            return Ok(0);
        }
        let part = self
            .flow
            .reserve(bytes.len())
            .ok_or(io::ErrorKind::BrokenPipe)?;
        let input = Frame::data(Kind::Stdin, self.process, &bytes[..part]);
        self.line.send(&input)?;
        Ok(part)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        // A guest that is gone needs no telling.
        let _ = self.line.send(&Frame::data(Kind::Stdin, self.process, &[]));
    }
}

/// Sends signals, and what comes with them, to a program in the guest, from another
/// thread than the one that waits for it; made by [`Process::signaller`].
#[derive(Clone)]
pub struct Signaller {
    line: Line,
    process: u32,
}

impl Signaller {
    /// Send it, and what it started, a signal (its number, as in signal(7)).
    ///
    /// # Errors
    /// A guest that is gone.
    pub fn send(&self, signal: i32) -> io::Result<()> {
        self.line
            .send(&Frame::json(Kind::Signal, self.process, &signal))
    }

    /// Tell it that its terminal has a new size.
    ///
    /// # Errors
    /// A guest that is gone.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        self.line
            .send(&Frame::json(Kind::Resize, self.process, &size))
    }
}

/// What a program that ran to its end left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether it ended by itself, with status 0.
    pub fn success(&self) -> bool {
        self.exit == Exit::Code(0)
    }
}

/// What a running program does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It wrote to its standard output, or to its terminal.
    Stdout(Vec<u8>),
    /// It wrote to its standard error.
    Stderr(Vec<u8>),
    /// It ended, and everything it wrote was told before.
    Exit(Exit),
}

/// A program that runs in the guest.
pub struct Process<'vm> {
    vm: &'vm Vm,
    id: u32,
    program: String,
    complaint: RefCell<Complaint>,
    /// How it ended, once that was told.
    exit: RefCell<Option<Exit>>,
    /// Bytes of its output that were taken, and not told yet.
    taken: Cell<usize>,
    events: Receiver<Frame>,
    flow: Arc<Flow>,
    deadline: Duration,
    /// Never, where no clock goes that far.
    ends_at: Option<Instant>,
}

impl Process<'_> {
    /// Wait for what it does next; its end is told as often as it is asked for.
    ///
    /// # Errors
    /// [`Error::Hang`] past its deadline, after which the guest is ended, too;
    /// [`Error::NotStarted`]; and whatever ended the guest.
    pub fn next_event(&self) -> Result<Event, Error> {
        if let Some(exit) = &*self.exit.borrow() {
            return Ok(Event::Exit(exit.clone()));
        }
        let left = self.left();
        // One that says something all the time may not take longer than others.
        let frame = match left {
            Some(Duration::ZERO) => Err(RecvTimeoutError::Timeout),
            Some(left) => self.events.recv_timeout(left),
            None => self
                .events
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(RecvTimeoutError::Timeout) => return Err(self.overdue()),
            Err(RecvTimeoutError::Disconnected) => return Err(self.vm.verdict()),
        };
        match frame.kind {
            Kind::Stdout => {
                self.took(&frame);
                Ok(Event::Stdout(frame.payload))
            }
            Kind::Stderr => {
                self.took(&frame);
                self.complaint.borrow_mut().push(&frame.payload);
                Ok(Event::Stderr(frame.payload))
            }
            _ => match frame.parse().map_err(|source| Error::Io {
                what: "read from the guest".into(),
                source,
            })? {
                Exit::NotStarted(reason) => Err(Error::NotStarted {
                    program: self.program.clone(),
                    reason: plain::line(&reason),
                }),
                // Its status says nothing where the kernel under it is broken.
                exit => match self.vm.found_fault() {
                    Some(fault) => Err(fault),
                    None => match self.complaint.borrow().meaning(&exit) {
                        Some(reason) => Err(Error::NotStarted {
                            program: self.program.clone(),
                            reason: plain::line(&reason),
                        }),
                        None => {
                            self.exit.replace(Some(exit.clone()));
                            Ok(Event::Exit(exit))
                        }
                    },
                },
            },
        }
    }

    /// How much of its time is left; `None` where that does not matter: it has
    /// ended, and what it said can be read at leisure.
    pub(crate) fn left(&self) -> Option<Duration> {
        let ends_at = self.ends_at.filter(|_| !self.flow.has_ended())?;
        Some(ends_at.saturating_duration_since(Instant::now()))
    }

    /// It has used up its time: its guest is ended.
    pub(crate) fn overdue(&self) -> Error {
        self.vm.hang(&self.program, self.deadline)
    }

    /// Let it go on to write. A guest that does not hear it is found to be gone by
    /// who waits for it.
    fn took(&self, frame: &Frame) {
        let took = self.taken.get() + frame.payload.len();
        // Each such word costs the guest a turn. It waits for none of them before a whole
        // window is under way.
        if took < WINDOW / 4 {
            return self.taken.set(took);
        }
        self.taken.set(0);
        let took = Frame::json(Kind::Took, self.id, &took);
        let _ = self.vm.line().send(&took);
    }

    /// Its standard input, which can be written to while another thread waits
    /// for its output, and which ends when it is dropped.
    pub fn stdin(&self) -> Stdin {
        Stdin {
            line: self.vm.line(),
            flow: self.flow.clone(),
            process: self.id,
        }
    }

    /// Send it, and what it started, a signal (its number, as in signal(7)).
    ///
    /// # Errors
    /// A guest that is gone.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        self.vm.send(&Frame::json(Kind::Signal, self.id, &signal))
    }

    /// What sends it signals while this is waited on.
    pub fn signaller(&self) -> Signaller {
        Signaller {
            line: self.vm.line(),
            process: self.id,
        }
    }

    /// Nobody reads its standard output any more: it meets a broken pipe.
    ///
    /// # Errors
    /// A guest that is gone.
    pub fn close_stdout(&self) -> Result<(), Error> {
        self.vm.send(&Frame::data(Kind::Stdout, self.id, &[]))
    }

    /// The same for its standard error.
    ///
    /// # Errors
    /// A guest that is gone.
    pub fn close_stderr(&self) -> Result<(), Error> {
        self.vm.send(&Frame::data(Kind::Stderr, self.id, &[]))
    }

    /// Let its time begin again: it has shown that it goes on.
    pub(crate) fn renew(&mut self) {
        self.ends_at = after(self.deadline);
    }
}

/// `None` where no clock goes that far.
fn after(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        // Nobody counts what it goes on to say: it is not to wait for that.
        let _ = self.vm.line().send(&Frame::json(Kind::Took, self.id, &ALL));
        self.vm.forget(self.id);
    }
}
