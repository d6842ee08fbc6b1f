//! A running guest.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dmashare_vm_init::{Frame, Kind, Ready, Secret, Settle};
use image::{ImageFormat, RgbImage};
use serde_json::json;

use crate::console::Console;
use crate::flow::Flow;
use crate::guest::{BootFailure, Guest, lock};
use crate::line::Line;
use crate::plain;
use crate::progress::note;
use crate::qemu::{Machine, Memory, Qemu, Share, Start};
use crate::qmp::{Qmp, Saved};
use crate::snapshot::{About, Image, Snapshot};
use crate::{Command, Error};

/// A guest may take this part of the time that one may take to boot to switch
/// itself off: what it wrote goes to the host's folders first.
const POWER_OFF: u32 = 2;

/// How long the agent may take to send the kernel's log. One that does not answer
/// bears no witness against the console.
const WITNESS: Duration = Duration::from_secs(30);

/// How long it may take to write to the host's folders what is to be there.
const SHARES: Duration = Duration::from_secs(30);

/// A running guest; ended, and reaped, when it is dropped.
///
/// Made by [`Builder::boot`](crate::Builder::boot).
pub struct Vm {
    guest: Guest,
    order: Order,
    ready: Ready,
    origin: Origin,
    started: Instant,
    first_word: Duration,
    boot_time: Duration,
    /// What it says of itself, and of orders.
    answers: Mutex<Receiver<Frame>>,
    processes: Arc<Mutex<Processes>>,
    seal: Arc<Mutex<Seal>>,
    qmp: Mutex<Qmp>,
}

/// What the agent's frames begin with.
#[derive(Default)]
struct Seal {
    secret: Secret,
    /// The agent has used it: what does not begin with it is of another.
    seen: bool,
}

impl Seal {
    /// Whether a frame with this before it is the agent's; `None` for one that it sent
    /// before it had heard of the secret.
    fn check(&mut self, before: Secret) -> Option<bool> {
        self.seen |= before == self.secret;
        self.seen.then_some(before == self.secret)
    }
}

/// What guest is to run.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) machine: Machine,
    /// Its kernel's name.
    pub(crate) kernel: String,
    pub(crate) deadline: Duration,
}

/// Where a guest comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// It booted.
    Booted,
    /// It booted, and was kept for the next of its kind; how long the keeping took.
    Kept(Duration),
    /// It booted, and could not be kept for the next; why.
    NotKept(String),
    /// It goes on from one that had booted before.
    Restored,
}

/// Who waits for frames of which process.
#[derive(Default)]
struct Processes {
    last: u32,
    waiting: HashMap<u32, Waiting>,
    /// The guest is: nobody will hear of it again.
    gone: bool,
}

struct Waiting {
    frames: Sender<Frame>,
    flow: Arc<Flow>,
}

impl Waiting {
    fn hear(&self, frame: Frame) {
        if frame.kind == Kind::Took {
            // What has no meaning takes nothing, and closes nothing.
            return frame.parse().map_or((), |bytes| self.flow.took(bytes));
        }
        let ended = frame.kind == Kind::Exit;
        let _ = self.frames.send(frame);
        if ended {
            self.flow.end();
        }
    }
}

impl Drop for Waiting {
    /// Nobody will hear of it again.
    fn drop(&mut self) {
        self.flow.end();
    }
}

impl Vm {
    /// Boot it with its memory there, up to where all of its kind are the same:
    /// it is to be [settled](Vm::settle).
    pub(crate) fn boot(order: &Order, memory: &Memory<'_>, initramfs: &[u8]) -> Result<Vm, Error> {
        let mut vm = Vm::start(order, memory, &Start::Boot { initramfs }, None)?;
        let answer = vm.answer(order.deadline);
        let ready = answer.and_then(|frame| {
            let ready = frame.parse().map(|ready: Ready| Ready {
                release: plain::line(&ready.release),
                ..ready
            });
            ready.map_err(|error| BootFailure::Reported(error.to_string()))
        });
        vm.ready = ready.map_err(|failure| vm.guest.not_booted(failure, order.deadline))?;
        Ok(vm)
    }

    /// Let it go on from there.
    pub(crate) fn resume(order: &Order, image: &Image, deadline: Duration) -> Result<Vm, Error> {
        let mut vm = Vm::start(order, &image.memory(), &Start::Resume, Some(image))?;
        let resumed = vm.guest.resume(&mut lock(&vm.qmp), image, deadline);
        if let Err(error) = resumed {
            return Err(vm.guest.not_resumed(&error));
        }
        vm.settle(deadline)?;
        Ok(vm)
    }

    fn start(
        order: &Order,
        memory: &Memory<'_>,
        start: &Start<'_>,
        from: Option<&Image>,
    ) -> Result<Vm, Error> {
        let started = Instant::now();
        let qemu = Qemu::start(&order.machine, memory, start)?;
        let lines = || -> std::io::Result<_> {
            let serial = qemu.serial.try_clone()?;
            let (agent, hears) = (qemu.agent.try_clone()?, qemu.agent.try_clone()?);
            Ok((serial, agent, hears, Qmp::connect(qemu.qmp.try_clone()?)?))
        };
        let (serial, agent, hears, qmp) = lines().map_err(Error::io("QEMU's lines"))?;
        let said = from.map_or("", |image| &image.about.console);
        let (console, console_thread) = Console::follow(said, serial);
        let processes = Arc::<Mutex<Processes>>::default();
        lock(&processes).last = from.map_or(0, |image| image.about.last_process);
        let (answer, answers) = mpsc::channel();
        let seal = Arc::<Mutex<Seal>>::default();
        let line = Incoming {
            agent: hears,
            answers: answer,
            processes: processes.clone(),
            seal: seal.clone(),
            console: console.clone(),
        };
        let agent_thread = std::thread::spawn(move || line.follow());
        let (line, line_thread) = Line::over(agent);
        Ok(Vm {
            guest: Guest {
                kernel: order.kernel.clone(),
                console,
                qemu: Mutex::new(qemu),
                line,
                threads: Mutex::new(vec![console_thread, agent_thread, line_thread]),
            },
            order: order.clone(),
            ready: from.map_or_else(nothing_said, |image| image.about.ready.clone()),
            origin: from.map_or(Origin::Booted, |_| Origin::Restored),
            started,
            first_word: Duration::ZERO,
            boot_time: Duration::ZERO,
            answers: Mutex::new(answers),
            processes,
            seal,
            qmp: Mutex::new(qmp),
        })
    }

    /// Do something with it that is no part of its boot.
    pub(crate) fn beside_its_boot<T>(
        &mut self,
        something: impl FnOnce(&Vm) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let done = something(self);
        self.started += began.elapsed();
        done
    }

    /// Give it what is its own: a clock, random numbers, the host's folders.
    pub(crate) fn settle(&mut self, deadline: Duration) -> Result<(), Error> {
        let settle = Settle {
            clock: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            seed: random::<64>()?.to_vec(),
            secret: random()?,
        };
        *lock(&self.seal) = Seal {
            secret: settle.secret,
            seen: false,
        };
        let left = deadline.saturating_sub(self.started.elapsed());
        let done = self.carry_out(&Frame::json(Kind::Settle, 0, &settle), left);
        self.first_word = self.started.elapsed();
        let left = deadline.saturating_sub(self.first_word);
        done.and_then(|()| self.shares(Kind::Mount, left))
            .map_err(|failure| self.guest.not_booted(failure, deadline))?;
        self.boot_time = self.started.elapsed();
        Ok(())
    }

    /// Mount the host's folders, or unmount them.
    fn shares(&self, order: Kind, deadline: Duration) -> Result<(), BootFailure> {
        let shares = &self.order.machine.shares;
        match shares.is_empty() {
            true => Ok(()),
            false => {
                let mounts: Vec<_> = shares.iter().flat_map(Share::mounts).collect();
                self.carry_out(&Frame::json(order, 0, &mounts), deadline)
            }
        }
    }

    /// Have the agent do this, within this time.
    fn carry_out(&self, order: &Frame, deadline: Duration) -> Result<(), BootFailure> {
        // A line that is broken has no answer either.
        let _ = self.guest.line.send(order);
        self.answer(deadline).map(drop)
    }

    fn answer(&self, deadline: Duration) -> Result<Frame, BootFailure> {
        let answer = lock(&self.answers).recv_timeout(deadline);
        let frame = answer.map_err(|error| match error {
            RecvTimeoutError::Timeout => BootFailure::Silent,
            RecvTimeoutError::Disconnected => BootFailure::Ended,
        })?;
        match frame.kind {
            Kind::Failed => Err(BootFailure::Reported(plain::line(
                &String::from_utf8_lossy(&frame.payload),
            ))),
            _ => Ok(frame),
        }
    }

    /// Write this much of its state to this file and do that while it stands still;
    /// then it goes on.
    pub(crate) fn at_rest(
        &self,
        state: &File,
        what: Saved,
        then: impl FnOnce() -> std::io::Result<About>,
    ) -> std::io::Result<About> {
        let mut qmp = lock(&self.qmp);
        let about = qmp.save(state, what).and_then(|()| then());
        qmp.go_on()?;
        about
    }

    /// What there is to know of one that goes on from here.
    pub(crate) fn about(&self) -> About {
        About {
            ready: self.ready.clone(),
            console: self.console(),
            last_process: lock(&self.processes).last,
        }
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn set_origin(&mut self, origin: Origin) {
        self.origin = origin;
    }

    /// What the guest said of itself when it was up.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Who runs its instructions: `tcg` or `kvm`.
    pub(crate) fn accelerator(&self) -> &'static str {
        self.order.machine.accelerator.word()
    }

    /// From the start of QEMU until the guest took orders.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// From the start of QEMU until the guest followed its first order, before it
    /// had the host's folders.
    pub fn first_word(&self) -> Duration {
        self.first_word
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
            .map_err(Error::io("take a screendump"))?;
        let read = || -> image::ImageResult<RgbImage> {
            let qemu = &mut *lock(&self.guest.qemu);
            qemu.screen.seek(SeekFrom::Start(0))?;
            let mut bytes = Vec::new();
            qemu.screen.read_to_end(&mut bytes)?;
            let picture = image::load_from_memory_with_format(&bytes, ImageFormat::Png)?;
            Ok(picture.into_rgb8())
        };
        read().map_err(|error| Error::Io {
            what: "read the screendump".into(),
            source: std::io::Error::other(error),
        })
    }

    /// Where its screens are to be seen over VNC (`127.0.0.1:5900`), if they are.
    ///
    /// # Errors
    /// A guest that is gone.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: boots a guest.
    /// # fn f(builder: dmashare_vm::Builder) -> Result<(), dmashare_vm::Error> {
    /// let vm = builder.device("bochs-display").display("vnc=127.0.0.1:0,to=99").boot()?;
    /// println!("vncviewer {}", vm.vnc()?.expect("it was asked for"));
    /// # Ok(()) }
    /// ```
    pub fn vnc(&self) -> Result<Option<String>, Error> {
        let said = lock(&self.qmp)
            .execute("query-vnc", json!({}))
            .map_err(Error::io("ask for its VNC display"))?;
        let word = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        Ok((said["enabled"] == true).then(|| format!("{}:{}", word("host"), word("service"))))
    }

    /// Keep it as it is now, to have others that begin here: with the modules that
    /// it loaded since, the files that it wrote, what it has warmed up.
    ///
    /// No program of the host's may run in it meanwhile, and none that one left
    /// behind may use a folder of the host's: QEMU cannot save a guest that has
    /// one mounted, so they are unmounted before and mounted again afterwards.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: boots a guest.
    /// # fn f(builder: dmashare_vm::Builder) -> Result<(), dmashare_vm::Error> {
    /// let vm = builder.boot()?;
    /// vm.command("modprobe").arg("vkms").output()?;
    /// let warm = vm.snapshot()?;
    /// for test in ["one", "two"] {
    ///     let guest = warm.restore()?;
    ///     guest.command("run-test").arg(test).output()?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// A program that still runs, or uses a folder; a device that QEMU cannot
    /// save, in QEMU's words; a guest that is gone.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        if !lock(&self.processes).waiting.is_empty() {
            return Err(Error::Project(
                "a snapshot is taken of a guest in which no program runs".into(),
            ));
        }
        let refused = |failure| match failure {
            BootFailure::Reported(reason) => Error::Project(format!(
                "no snapshot: {reason}; is a program still using that folder?"
            )),
            BootFailure::Ended => self.verdict(),
            BootFailure::Silent => self.hang("unmounting the host's folders", SHARES),
        };
        self.shares(Kind::Unmount, SHARES).map_err(refused)?;
        let taken = Snapshot::take(self, self.order.clone()).map_err(Error::io("take a snapshot"));
        self.shares(Kind::Mount, SHARES)
            .map_err(|failure| match failure {
                BootFailure::Reported(reason) => {
                    Error::Project(format!("the guest has lost the host's folders: {reason}"))
                }
                BootFailure::Ended => self.verdict(),
                BootFailure::Silent => self.hang("mounting the host's folders", SHARES),
            })?;
        taken
    }

    /// End it at once, as if its plug was pulled; what it wrote to folders of the
    /// host's is there.
    ///
    /// # Errors
    /// What ended it before, told apart as in [`Error`], and a fault that its
    /// kernel found in itself.
    pub fn end(self) -> Result<(), Error> {
        if self.order.machine.shares.iter().any(Share::is_written) {
            match self.shares(Kind::Unmount, SHARES) {
                // One that cannot be unmounted has all that was written, too.
                Ok(()) | Err(BootFailure::Reported(_)) => {}
                Err(BootFailure::Ended) => return Err(self.verdict()),
                Err(BootFailure::Silent) => return Err(self.hang("writing to the host", SHARES)),
            }
        }
        self.found_fault().map_or(Ok(()), Err)
    }

    /// Switch it off, and wait for its end.
    ///
    /// # Errors
    /// What ended it instead, told apart as in [`Error`]: a guest that panics
    /// on its way down is not switched off.
    pub fn power_off(self) -> Result<(), Error> {
        self.send(&Frame::data(Kind::PowerOff, 0, &[]))?;
        let longest = self.order.deadline / POWER_OFF;
        match self.guest.wait(longest) {
            true => self.guest.switched_off(),
            false => Err(self.hang("switching off", longest)),
        }
    }

    pub(crate) fn register(&self) -> (u32, Receiver<Frame>, Arc<Flow>) {
        let mut processes = lock(&self.processes);
        processes.last += 1;
        let (frames, receiver) = mpsc::channel();
        let (id, flow) = (processes.last, Arc::<Flow>::default());
        let waiting = Waiting {
            frames,
            flow: flow.clone(),
        };
        // Without an entry the receiver finds itself disconnected, as it should.
        if !processes.gone {
            processes.waiting.insert(id, waiting);
        }
        (id, receiver, flow)
    }

    pub(crate) fn forget(&self, id: u32) {
        lock(&self.processes).waiting.remove(&id);
    }

    pub(crate) fn send(&self, frame: &Frame) -> Result<(), Error> {
        match self.guest.line.send(frame) {
            Ok(()) => Ok(()),
            Err(source) if source.kind() == std::io::ErrorKind::InvalidInput => Err(Error::Io {
                what: "a command line with its environment".into(),
                source,
            }),
            Err(_) => Err(self.verdict()),
        }
    }

    pub(crate) fn line(&self) -> Line {
        self.guest.line.clone()
    }

    pub(crate) fn verdict(&self) -> Error {
        self.guest.verdict()
    }

    /// Whether its kernel found a fault in itself.
    pub(crate) fn alarmed(&self) -> bool {
        self.guest.console.fault().is_some()
    }

    /// The fault that its kernel found in itself, if it did; it is ended then.
    ///
    /// Programs can write to the console, too. What is told only there is believed where
    /// the agent does not live to send the kernel's own log, or that has it, too.
    pub(crate) fn found_fault(&self) -> Option<Error> {
        let console = &self.guest.console;
        if console.fault().is_some() && console.fault_in_log().is_none() {
            let sync = Frame::data(Kind::Sync, 0, &[]);
            let lives = self.carry_out(&sync, WITNESS).is_ok();
            if lives && console.fault_in_log().is_none() {
                if let Some(line) = console.refute() {
                    note(&format!(
                        "kernel {}: its console has what its log does not have, written by a program: {line}",
                        self.order.kernel
                    ));
                }
                return None;
            }
        }
        self.guest.found_fault()
    }

    pub(crate) fn hang(&self, what: &str, deadline: Duration) -> Error {
        self.guest.hang(what, deadline)
    }
}

/// The line from the agent.
struct Incoming {
    agent: UnixStream,
    answers: Sender<Frame>,
    processes: Arc<Mutex<Processes>>,
    seal: Arc<Mutex<Seal>>,
    console: Console,
}

impl Incoming {
    /// Hand what the agent says to those who wait for it, until it is gone, or another
    /// program has spoken in its place.
    fn follow(mut self) {
        let reason = loop {
            match self.next() {
                Ok(Some(frame)) => self.hand_on(frame),
                Ok(None) => break None,
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    break Some(error.to_string());
                }
                Err(_) => break None,
            }
        };
        if let Some(reason) = reason {
            self.console.tampered(reason);
        }
        let mut processes = lock(&self.processes);
        processes.gone = true;
        processes.waiting.clear();
    }

    /// Its next frame.
    fn next(&mut self) -> std::io::Result<Option<Frame>> {
        loop {
            let mut before = Secret::default();
            match self.agent.read_exact(&mut before) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
                other => other?,
            }
            let known = lock(&self.seal).check(before);
            if known == Some(false) {
                let text = "bytes without the secret of this run";
                return Err(std::io::Error::new(ErrorKind::InvalidData, text));
            }
            let frame = Frame::read(&mut self.agent)?;
            if known.is_some() || frame.is_none() {
                return Ok(frame);
            }
        }
    }

    fn hand_on(&self, frame: Frame) {
        match frame.kind {
            Kind::Ready | Kind::Failed | Kind::Done => drop(self.answers.send(frame)),
            Kind::Log => self.console.push_records(&frame.payload),
            _ => {
                // Nobody listens any more to one that was dropped.
                if let Some(waiting) = lock(&self.processes).waiting.get(&frame.process) {
                    waiting.hear(frame);
                }
            }
        }
    }
}

fn nothing_said() -> Ready {
    Ready {
        release: String::new(),
        kernel_seconds: 0.0,
        ready_seconds: 0.0,
    }
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], Error> {
    let mut bytes = [0; BYTES];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::io("/dev/urandom"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_without_the_secret_is_another_s() {
        let mut seal = Seal::default();
        assert_eq!(seal.check([0; 16]), Some(true));
        seal = Seal {
            secret: [7; 16],
            seen: false,
        };
        // Sent before the agent had heard of it.
        assert_eq!(seal.check([0; 16]), None);
        assert_eq!(seal.check([7; 16]), Some(true));
        assert_eq!(seal.check([0; 16]), Some(false));
    }
}
