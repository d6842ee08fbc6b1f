//! A running guest.

use std::collections::HashMap;
use std::io::{Seek, SeekFrom};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dmashare_vm_init::{Frame, Kind, Ready};
use image::{ImageFormat, RgbImage};
use serde_json::json;

use crate::console::Console;
use crate::guest::{BootFailure, Guest, lock};
use crate::qemu::{Machine, Qemu};
use crate::qmp::Qmp;
use crate::{Command, Error};

/// How long a guest may take to switch itself off before it is ended.
const POWER_OFF: Duration = Duration::from_secs(10);

/// A running guest; ended, and reaped, when it is dropped.
///
/// Made by [`Builder::boot`](crate::Builder::boot).
pub struct Vm {
    guest: Guest,
    ready: Ready,
    boot_time: Duration,
    agent: Arc<Mutex<UnixStream>>,
    processes: Arc<Mutex<Processes>>,
    qmp: Mutex<Qmp>,
}

/// Who waits for frames of which process.
#[derive(Default)]
struct Processes {
    last: u32,
    waiting: HashMap<u32, Sender<Frame>>,
    /// The guest is: nobody will hear of it again.
    gone: bool,
}

impl Vm {
    pub(crate) fn boot(machine: &Machine, kernel: String, deadline: Duration) -> Result<Vm, Error> {
        let started = Instant::now();
        let qemu = Qemu::start(machine)?;
        let lines = || -> std::io::Result<_> {
            let serial = qemu.serial.try_clone()?;
            let (agent, hears) = (qemu.agent.try_clone()?, qemu.agent.try_clone()?);
            Ok((serial, agent, hears, qemu.qmp.try_clone()?))
        };
        let (serial, agent, hears, qmp) = lines().map_err(line("QEMU's lines"))?;
        let (console, console_thread) = Console::follow(serial);
        let processes = Arc::<Mutex<Processes>>::default();
        let (boot, booted) = mpsc::channel();
        let agent_thread = follow_agent(hears, boot, processes.clone(), console.clone());
        let guest = Guest {
            kernel,
            console,
            qemu: Mutex::new(qemu),
            threads: Mutex::new(vec![console_thread, agent_thread]),
        };
        let ready =
            await_boot(&booted, deadline).map_err(|failure| guest.not_booted(failure, deadline))?;
        Ok(Vm {
            guest,
            ready,
            boot_time: started.elapsed(),
            agent: Arc::new(Mutex::new(agent)),
            processes,
            qmp: Mutex::new(Qmp::connect(qmp).map_err(line("connect to QEMU"))?),
        })
    }

    /// What the guest said of itself when it was up.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// From the start of QEMU until the guest took orders.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// A program to start in the guest.
    ///
    /// See [`Builder`](crate::Builder) for an example of its use.
    pub fn command(&self, program: impl Into<String>) -> Command<'_> {
        Command::new(self, program.into())
    }

    /// What the kernel said on its console so far.
    pub fn console(&self) -> String {
        self.guest.console.text()
    }

    /// The kernel's log so far, as dmesg(1) shows it, with what it said on its
    /// console only. The first lines of a long one may be gone.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: boots a guest.
    /// # fn f(vm: &dmashare_vm::Vm) -> std::io::Result<()> {
    /// std::fs::write("dmesg.txt", vm.dmesg())
    /// # }
    /// ```
    pub fn dmesg(&self) -> String {
        self.guest.console.dmesg()
    }

    /// Where its log fills, and stays readable when the guest is gone.
    pub(crate) fn log(&self) -> Console {
        self.guest.console.clone()
    }

    /// What the guest's screen shows now.
    ///
    /// # Errors
    /// A guest without a screen, or one that is gone.
    pub fn screenshot(&self) -> Result<RgbImage, Error> {
        let mut qmp = lock(&self.qmp);
        let path = lock(&self.guest.qemu).screen_path.clone();
        // Not PPM: QEMU pads its rows where the width is not a multiple of four.
        let arguments = json!({ "filename": path, "format": "png" });
        qmp.execute("screendump", arguments)
            .map_err(line("take a screendump"))?;
        let read = || -> image::ImageResult<RgbImage> {
            let qemu = &mut *lock(&self.guest.qemu);
            qemu.screen.seek(SeekFrom::Start(0))?;
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut qemu.screen, &mut bytes)?;
            let picture = image::load_from_memory_with_format(&bytes, ImageFormat::Png)?;
            Ok(picture.into_rgb8())
        };
        read().map_err(|error| Error::Io {
            what: "read the screendump".into(),
            source: std::io::Error::other(error),
        })
    }

    /// Switch it off, and wait for its end.
    ///
    /// # Errors
    /// What ended it instead, told apart as in [`Error`]: a guest that panics
    /// on its way down is not switched off.
    pub fn power_off(self) -> Result<(), Error> {
        self.send(&Frame::data(Kind::PowerOff, 0, &[]))?;
        if !self.guest.wait(POWER_OFF) {
            return Err(self.hang("switching off", POWER_OFF));
        }
        match self.guest.verdict() {
            Error::QemuEnded { .. } => Ok(()),
            fault => Err(fault),
        }
    }

    pub(crate) fn register(&self) -> (u32, Receiver<Frame>) {
        let mut processes = lock(&self.processes);
        processes.last += 1;
        let (sender, receiver) = mpsc::channel();
        let id = processes.last;
        // Without an entry the receiver finds itself disconnected, as it should.
        if !processes.gone {
            processes.waiting.insert(id, sender);
        }
        (id, receiver)
    }

    pub(crate) fn forget(&self, id: u32) {
        lock(&self.processes).waiting.remove(&id);
    }

    pub(crate) fn send(&self, frame: &Frame) -> Result<(), Error> {
        match frame.write(&mut *lock(&self.agent)) {
            Ok(()) => Ok(()),
            Err(source) if source.kind() == std::io::ErrorKind::InvalidInput => Err(Error::Io {
                what: "a command line with its environment".into(),
                source,
            }),
            Err(_) => Err(self.verdict()),
        }
    }

    pub(crate) fn agent(&self) -> Arc<Mutex<UnixStream>> {
        self.agent.clone()
    }

    pub(crate) fn verdict(&self) -> Error {
        self.guest.verdict()
    }

    pub(crate) fn found_fault(&self) -> Option<Error> {
        self.guest.found_fault()
    }

    pub(crate) fn hang(&self, what: &str, deadline: Duration) -> Error {
        self.guest.hang(what, deadline)
    }
}

/// Hand what the agent says to those who wait for it, until it is gone.
fn follow_agent(
    mut agent: UnixStream,
    boot: Sender<Frame>,
    processes: Arc<Mutex<Processes>>,
    console: Console,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while let Ok(Some(frame)) = Frame::read(&mut agent) {
            match frame.kind {
                Kind::Ready | Kind::Failed => drop(boot.send(frame)),
                Kind::Log => console.push_records(&frame.payload),
                _ => {
                    if let Some(waiting) = lock(&processes).waiting.get(&frame.process) {
                        // Nobody listens any more to one that was dropped.
                        let _ = waiting.send(frame);
                    }
                }
            }
        }
        let mut processes = lock(&processes);
        processes.gone = true;
        processes.waiting.clear();
    })
}

fn await_boot(booted: &Receiver<Frame>, deadline: Duration) -> Result<Ready, BootFailure> {
    let frame = booted.recv_timeout(deadline).map_err(|error| match error {
        RecvTimeoutError::Timeout => BootFailure::Silent,
        RecvTimeoutError::Disconnected => BootFailure::Ended,
    })?;
    match frame.kind {
        Kind::Ready => frame
            .parse()
            .map_err(|error| BootFailure::Reported(error.to_string())),
        _ => Err(BootFailure::Reported(
            String::from_utf8_lossy(&frame.payload).into_owned(),
        )),
    }
}

fn line(what: &str) -> impl Fn(std::io::Error) -> Error + use<> {
    let what = what.to_owned();
    move |source| Error::Io {
        what: what.clone(),
        source,
    }
}
