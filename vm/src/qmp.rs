//! Enough of the QEMU machine protocol to take a picture of the screen, and to
//! save a machine and to go on from there.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

/// QEMU answers at once or not at all; it can be slow to start on a busy host.
const ANSWER: Duration = Duration::from_secs(30);

/// As fast as it can: the other end is here.
const BANDWIDTH: u64 = 1 << 40;

/// What QEMU calls the line that it writes its state to.
const STATE: &str = "state";

/// A connection. QEMU may be about to start: commands wait for it in the line.
pub(crate) struct Qmp {
    lines: BufReader<UnixStream>,
    last: u64,
}

impl Qmp {
    pub(crate) fn connect(stream: UnixStream) -> io::Result<Qmp> {
        stream.set_read_timeout(Some(ANSWER))?;
        let mut qmp = Qmp {
            lines: BufReader::new(stream),
            last: 0,
        };
        // One that has ended already tells who asks it next.
        let _ = qmp.send("qmp_capabilities", &json!({}), None);
        Ok(qmp)
    }

    /// Run one command and wait for its answer.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        self.send(command, &arguments, None)?;
        self.answer()
    }

    /// The same for a command that takes a file along.
    pub(crate) fn execute_with(
        &mut self,
        command: &str,
        arguments: Value,
        file: BorrowedFd<'_>,
    ) -> io::Result<Value> {
        self.send(command, &arguments, Some(file))?;
        self.answer()
    }

    /// Write the machine's state into this file, with the memory that it says; the
    /// machine stands still then, until it is told to [go on](Qmp::go_on).
    pub(crate) fn save(&mut self, to: &File, what: Saved) -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        self.execute_with("getfd", json!({ "fdname": STATE }), theirs.as_fd())?;
        drop(theirs);
        std::thread::scope(|scope| {
            let copied = scope.spawn(|| copy(&ours, to));
            let migrated = self.migrate(what);
            if migrated.is_err() {
                // It may not have taken its end, or not let go of it.
                let _ = self.execute("closefd", json!({ "fdname": STATE }));
                let _ = ours.shutdown(Shutdown::Both);
            }
            // A full disk is the reason, where both fail.
            let copied = copied.join().expect("copying does not panic");
            copied.and(migrated)
        })
    }

    fn migrate(&mut self, what: Saved) -> io::Result<()> {
        let (command, arguments) = what.said();
        self.execute(command, arguments)?;
        self.execute(
            "migrate-set-parameters",
            json!({ "max-bandwidth": BANDWIDTH }),
        )?;
        self.execute("migrate", json!({ "uri": format!("fd:{STATE}") }))?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let state = self.execute("query-migrate", json!({}))?;
            match state["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    return Err(refused(&json!({ "desc": state["error-desc"] })));
                }
                _ if Instant::now() > deadline => return Err(io::ErrorKind::TimedOut.into()),
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Let a machine go on that was saved.
    pub(crate) fn go_on(&mut self) -> io::Result<()> {
        self.execute("cont", json!({})).map(drop)
    }

    /// Take the state that comes over this line, and wait until the machine goes
    /// on from there, no longer than this.
    pub(crate) fn resume(&mut self, uri: &str, what: Saved, longest: Duration) -> io::Result<()> {
        for (command, arguments) in [what.said(), ("migrate-incoming", json!({ "uri": uri }))] {
            self.send(command, &arguments, None)?;
        }
        self.lines.get_ref().set_read_timeout(Some(longest))?;
        loop {
            let line = self.read()?;
            if let Some(error) = line.get("error") {
                return Err(refused(error));
            }
            if line["event"] == "RESUME" {
                return self.lines.get_ref().set_read_timeout(Some(ANSWER));
            }
        }
    }

    fn send(
        &mut self,
        command: &str,
        arguments: &Value,
        file: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        self.last += 1;
        let request = json!({ "execute": command, "arguments": arguments, "id": self.last });
        let line = format!("{request}\n");
        let Some(file) = file else {
            return self.lines.get_mut().write_all(line.as_bytes());
        };
        let files = [file];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        beside.push(SendAncillaryMessage::ScmRights(&files));
        let stream = self.lines.get_mut();
        let sent = sendmsg(
            &*stream,
            &[IoSlice::new(line.as_bytes())],
            &mut beside,
            SendFlags::NOSIGNAL,
        )?;
        stream.write_all(&line.as_bytes()[sent..])
    }

    /// What the last command came to.
    fn answer(&mut self) -> io::Result<Value> {
        loop {
            let mut answer = self.read()?;
            // An event that nobody here waits for, or the answer to a command
            // whose answer was not waited for.
            if answer["id"] != self.last {
                continue;
            }
            if let Some(error) = answer.get("error") {
                return Err(refused(error));
            }
            return Ok(answer["return"].take());
        }
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "QEMU has ended",
            ));
        }
        Ok(serde_json::from_str(&line)?)
    }
}

fn refused(error: &Value) -> io::Error {
    let said = error["desc"].as_str().unwrap_or("refused");
    io::Error::other(format!("QEMU: {said}"))
}

/// What a state is of. Both ends are to agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// All of the machine.
    Whole,
    /// Its processors and devices: its memory is in a file that others see, too.
    ButMemory,
}

impl Saved {
    /// How QEMU is told.
    fn said(self) -> (&'static str, Value) {
        let but = self == Saved::ButMemory;
        let state = json!([{ "capability": "x-ignore-shared", "state": but }]);
        ("migrate-set-capabilities", json!({ "capabilities": state }))
    }
}

fn copy(mut from: &UnixStream, mut to: &File) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    // QEMU is not to wait for someone who takes no more.
    let _ = from.shutdown(Shutdown::Both);
    copied.map(drop)
}
