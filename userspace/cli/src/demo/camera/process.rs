//! Processes A and B: how each is started by the next one down the stream, and
//! what it tells.

use std::io::{self, BufReader};
use std::path::PathBuf;
use std::process::{self, Child, ChildStdout, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dmashare::share::Socket;

use super::super::DemoError;
use super::super::child::{self, Started};
use super::super::report::{self, Actor, Event, Report};
use super::link::LinkError;
use super::wait::any_readable;
use super::{capture, draw};

/// How long one process waits for another, and for a frame: the first has the
/// shaders to be compiled.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The most bytes of a message about a failure, so that its line stays whole.
const LONGEST: usize = 2048;

/// Which of the processes up the stream this is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// A: the camera.
    Capture,
    /// B: the GPU.
    Draw,
}

/// What process A or B is to do. Its standard input is the socket to the process
/// down the stream, its standard output goes to process C.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ProcessOptions {
    /// Which it is
    #[arg(value_enum)]
    pub(super) role: Role,
    /// The process down the stream, without which this one is not to go on
    #[arg(long, value_name = "PID")]
    pub(super) parent: i32,
    /// How long frames are shown
    #[arg(long, value_name = "SECONDS")]
    pub(super) seconds: u32,
    /// The size of the camera's frames
    #[arg(long, value_name = "WxH", value_parser = super::size)]
    pub(super) size: (u32, u32),
    /// Draw with Vulkan
    #[arg(long)]
    pub(super) vulkan: bool,
    /// Copy into and out of every process
    #[arg(long)]
    pub(super) copy: bool,
    /// The camera
    #[arg(long, value_name = "NODE")]
    pub(super) video: Option<PathBuf>,
    /// The GPU
    #[arg(long, value_name = "NODE")]
    pub(super) device: Option<PathBuf>,
}

/// Is process A or B until the one down the stream has ended.
pub(crate) fn run(options: &ProcessOptions) -> Result<(), DemoError> {
    child::end_with(options.parent)?;
    let mut socket = child::socket("socket")?;
    socket.set_timeout(Some(PATIENCE));
    let done = match options.role {
        Role::Capture => capture::run(options, socket),
        Role::Draw => draw::run(options, socket),
    };
    if let Err(error) = &done {
        let mut message = error.line();
        let end = (0..=LONGEST)
            .rev()
            .find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or(0));
        tell(Event::Failed {
            message,
            bad_input: error.is_bad_input(),
        })?;
    }
    done
}

/// Tells process C. Lines of several processes go over one pipe, and each is
/// short enough to stay whole (pipe(7), PIPE_BUF).
pub(super) fn tell(event: Event) -> Result<(), DemoError> {
    Ok(report::write(&mut io::stdout().lock(), &event)?)
}

/// The process up the stream.
pub(super) struct UpStream {
    role: Role,
    child: Started,
    events: Option<BufReader<ChildStdout>>,
}

impl UpStream {
    /// Starts this program again, with a socket to this process as its standard
    /// input, which is returned. Where this one is process C (`listen`) it reads
    /// what is told; else that goes where its own does.
    pub(super) fn start(
        options: &ProcessOptions,
        listen: bool,
    ) -> Result<(UpStream, Socket), DemoError> {
        let (mut ours, theirs) = Socket::pair().map_err(DemoError::at("socket"))?;
        ours.set_timeout(Some(PATIENCE));
        let mut command = child::command("demo-camera");
        command.arg(match options.role {
            Role::Capture => "capture",
            Role::Draw => "draw",
        });
        command.arg("--parent").arg(process::id().to_string());
        command.arg("--seconds").arg(options.seconds.to_string());
        let (width, height) = options.size;
        command.arg("--size").arg(format!("{width}x{height}"));
        for (flag, is_set) in [("--vulkan", options.vulkan), ("--copy", options.copy)] {
            if is_set {
                command.arg(flag);
            }
        }
        for (flag, node) in [("--video", &options.video), ("--device", &options.device)] {
            if let Some(node) = node {
                command.arg(flag).arg(node);
            }
        }
        if listen {
            command.stdout(Stdio::piped());
        }
        let mut child =
            child::start(&mut command, &theirs).map_err(DemoError::at("start a process"))?;
        let events = child.0.stdout.take().map(BufReader::new);
        let up = UpStream {
            role: options.role,
            child,
            events,
        };
        Ok((up, ours))
    }

    /// After its socket was closed: all that is told, until the last process
    /// has ended. The error is the first that one of them had.
    pub(super) fn end(mut self, report: Option<&mut Report>) -> Result<(), DemoError> {
        let mut failed = None;
        if let (Some(mut events), Some(report)) = (self.events.take(), report) {
            while has_more(&mut events)? {
                match report::read(&mut events)? {
                    Some(Event::Failed { message, bad_input }) => {
                        failed = failed.or(Some(DemoError::Producer { message, bad_input }));
                    }
                    Some(other) => report.tell(other)?,
                    None => break,
                }
            }
        }
        let process = match self.role {
            Role::Capture => Actor::A,
            Role::Draw => Actor::B,
        };
        // It has closed its output, or does not end.
        let status = match wait_for(&mut self.child.0)? {
            Some(status) => status,
            None => return Err(failed.unwrap_or(DemoError::DoesNotEnd(process))),
        };
        match (failed, status.success()) {
            (Some(error), _) => Err(error),
            (None, false) => Err(DemoError::ProcessEnded { process, status }),
            (None, true) => Ok(()),
        }
    }
}

/// Whether there is something to read, or the end; `false` after a long wait for
/// either.
fn has_more(events: &mut BufReader<ChildStdout>) -> Result<bool, DemoError> {
    if !events.buffer().is_empty() {
        return Ok(true);
    }
    any_readable(&[events.get_ref()], Some(PATIENCE))
}

/// How it ended, if it does so soon.
fn wait_for(child: &mut Child) -> Result<Option<ExitStatus>, DemoError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match child.try_wait()? {
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            status => return Ok(status),
        }
    }
}

/// The end of the other process is the end of this one; all else is an error.
pub(super) fn or_end(result: Result<(), LinkError>) -> Result<(), DemoError> {
    match result {
        Err(error) if error.is_end() => Ok(()),
        Err(LinkError::Other(error)) => Err(*error),
        other => other.map_err(DemoError::at("link")),
    }
}
