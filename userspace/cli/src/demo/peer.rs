//! Process A, as process B sees it.

use std::io::BufReader;
use std::process::{self, ChildStdout, Stdio};
use std::time::Instant;

use dmashare::buffer::Buffer;
use dmashare::share::{Frame, Socket, SocketError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

use super::child::{self, Started};
use super::report::{self, Actor, Event, Report, Step};
use super::{DemoError, Options, pixel_bytes};

/// The running process A.
pub(super) struct Producer {
    child: Started,
    socket: Option<Socket>,
    events: BufReader<ChildStdout>,
}

/// What it passed on.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) frame: Frame,
    pub(super) buffer: Buffer,
    /// The checksum of the pixels it wrote, if it was to tell.
    pub(super) sha256: Option<String>,
}

impl Producer {
    /// Starts this program again as process A, with a socket to this one as
    /// its standard input.
    pub(super) fn start(options: &Options) -> Result<Producer, DemoError> {
        let (ours, theirs) = Socket::pair().map_err(DemoError::at("socket to A"))?;
        let mut command = child::command("demo-producer");
        command.arg("--consumer").arg(process::id().to_string());
        if let Some(input) = &options.input {
            command.arg("--input").arg(input);
        }
        if options.on_host {
            command.arg("--on-host");
        }
        let mut child = child::start(command.stdout(Stdio::piped()), &theirs)
            .map_err(DemoError::at("start process A"))?;
        let stdout = child.0.stdout.take().expect("its standard output is piped");
        Ok(Producer {
            child,
            socket: Some(ours),
            events: BufReader::new(stdout),
        })
    }

    /// The frame that it passes on.
    pub(super) fn receive(&mut self, report: &mut Report) -> Result<Received, DemoError> {
        let socket = self.socket.as_ref().expect("there until the end");
        // The time that A takes before is A's.
        let mut fds = [PollFd::new(socket, PollFlags::IN)];
        retry_on_intr(|| poll(&mut fds, None)).map_err(std::io::Error::from)?;
        let started = Instant::now();
        let received = socket.recv();
        let took = |bytes| {
            let over = "UNIX socket, SCM_RIGHTS";
            Step::done(Actor::B, "receive", over, started, bytes)
        };
        let (frame, mut buffers) = match received {
            Ok(received) => received,
            Err(SocketError::Closed) => return Err(self.last_words(report)?),
            Err(error) => return Err(DemoError::at("receive")(error)),
        };
        let step = took(pixel_bytes(&frame));
        let sha256 = loop {
            match report::read(&mut self.events)? {
                Some(Event::Step(step)) => report.step(step)?,
                Some(Event::Passed { sha256 }) => break sha256,
                _ => return Err(DemoError::ProducerEnded(self.child.0.wait()?)),
            }
        };
        report.step(step)?;
        Ok(Received {
            // The codec lets no frame pass that brings none.
            buffer: buffers.swap_remove(0),
            frame,
            sha256,
        })
    }

    /// Why it closed the connection.
    fn last_words(&mut self, report: &mut Report) -> Result<DemoError, DemoError> {
        loop {
            match report::read(&mut self.events)? {
                Some(Event::Step(step)) => report.step(step)?,
                Some(Event::Failed { message, bad_input }) => {
                    return Ok(DemoError::Producer { message, bad_input });
                }
                Some(_) => {}
                None => return Ok(DemoError::ProducerEnded(self.child.0.wait()?)),
            }
        }
    }

    /// Lets it end, and waits for that.
    pub(super) fn end(mut self) -> Result<(), DemoError> {
        drop(self.socket.take());
        let status = self.child.0.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(DemoError::ProducerEnded(status)),
        }
    }
}
