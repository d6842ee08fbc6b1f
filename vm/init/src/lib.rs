//! The words that host and guest exchange over one virtio-serial port.
//!
//! A [`Frame`] is `u32 length` (of what follows, little endian), `u8 kind`,
//! `u32 process` (little endian) and a payload. Data frames carry bytes as
//! they are; control frames carry JSON. Both ends are built from this crate,
//! so there is no version: an initramfs always holds the init of the host that
//! made it.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The virtio-serial port the frames travel over.
pub const PORT: &str = "vm.agent";

/// Where init finds its [`Boot`] orders in the initramfs.
pub const BOOT_FILE: &str = "/boot.json";

/// Where the guest's programs find the module files that the host gave it, by
/// their own names, to load one again.
pub const MODULE_FILES: &str = "/run/vm";

/// What the agent takes for its own program, to read or write a file for the
/// host, with [`WRITE_FILE`] or [`READ_FILE`] as its first argument.
pub const SELF: &str = "/proc/self/exe";

/// `SELF WRITE_FILE PATH MODE`: its standard input becomes the file; a byte on its
/// standard output says that it moves on.
pub const WRITE_FILE: &str = "write-file";

/// `SELF READ_FILE PATH`: its standard output is a line with the permissions, in octal
/// digits, and the size, and then the content of the file, which must be a regular one.
pub const READ_FILE: &str = "read-file";

/// What init says on the console of a machine that has nothing to mount: its
/// kernel runs.
pub const ALIVE: &str = "vm-init: this machine runs";

/// The largest payload of one frame, in bytes. Longer output is cut in pieces.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// How many bytes may be on their way to a program's standard input, or come from
/// its output, that the other end has not [taken](Kind::Took). A reader that is
/// slow, or that reads nothing, makes its writer wait, fills no memory, and holds
/// up nothing else on the line.
pub const WINDOW: usize = 256 * 1024;

/// In a [`Took`](Kind::Took): what was said, and what is yet to come.
pub const ALL: usize = usize::MAX;

const HEADER: usize = 5;

/// What the agent puts before each of its frames, so that no other program's are taken
/// for them: chosen by the host for each guest, and told to the agent alone, before the
/// guest's first program. All zeros until then.
pub type Secret = [u8; 16];

/// The agent's end of the line: each write is one frame, and goes out whole behind the
/// secret.
pub struct Port<S> {
    stream: S,
    secret: Secret,
}

impl<S> Port<S> {
    /// Over this stream, with no secret yet.
    pub fn new(stream: S) -> Port<S> {
        Port {
            stream,
            secret: Secret::default(),
        }
    }

    /// Put this before all frames from now on.
    pub fn set_secret(&mut self, secret: Secret) {
        self.secret = secret;
    }

    /// The stream itself.
    pub fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: Write> Write for Port<S> {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        let mut wire = self.secret.to_vec();
        wire.extend(frame);
        self.stream.write_all(&wire)?;
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: Read> Read for Port<S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.read(bytes)
    }
}

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Guest to host: booted, ready for orders. Payload: [`Ready`].
    Ready = 1,
    /// Guest to host: the boot, or an order, failed; the payload is the reason.
    Failed,
    /// Host to guest: start a process. Payload: [`Spawn`].
    Spawn,
    /// Host to guest: bytes for its standard input; none at all means its end.
    Stdin,
    /// Host to guest: send it this signal (payload: [`i32`] as JSON).
    Signal,
    /// Host to guest: its terminal has a new size. Payload: [`WindowSize`].
    Resize,
    /// Guest to host: bytes of its standard output (or of its terminal). Host to
    /// guest, without bytes: nobody reads it any more.
    Stdout,
    /// The same for its standard error.
    Stderr,
    /// Guest to host: it ended, all its output was sent. Payload: [`Exit`].
    Exit,
    /// Host to guest: switch the machine off.
    PowerOff,
    /// Guest to host: records of the kernel's log, as `/dev/kmsg` has them.
    Log,
    /// Host to guest: what is to be this guest's own. Payload: [`Settle`].
    Settle,
    /// Host to guest: mount these. Payload: [`Mount`]s.
    Mount,
    /// Host to guest: unmount these again, after all was written. Payload:
    /// [`Mount`]s.
    Unmount,
    /// Guest to host: the last [`Settle`](Kind::Settle), [`Mount`](Kind::Mount)
    /// or [`Unmount`](Kind::Unmount) is done; otherwise it is
    /// [`Failed`](Kind::Failed).
    Done,
    /// Guest to host: its standard input took this many bytes (payload: [`usize`]
    /// as JSON), so that as many may follow; 0 where it takes no more. Host to
    /// guest: the same of its output, both streams of it together; [`ALL`] where
    /// nobody counts it any more.
    Took,
    /// Host to guest: send the kernel's log up to now, then [`Done`](Kind::Done).
    Sync,
}

impl Kind {
    fn from_u8(byte: u8) -> Option<Kind> {
        use Kind::*;
        [
            Ready, Failed, Spawn, Stdin, Signal, Resize, Stdout, Stderr, Exit, PowerOff, Log,
            Settle, Mount, Unmount, Done, Took, Sync,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is about.
    pub kind: Kind,
    /// The process it is about, as numbered by the host; 0 for none.
    pub process: u32,
    /// Bytes, or JSON.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame with these bytes.
    ///
    /// ```
    /// use dmashare_vm_init::{Frame, Kind};
    /// let frame = Frame::data(Kind::Stdin, 1, b"hello");
    /// let mut wire = Vec::new();
    /// frame.write(&mut wire)?;
    /// assert_eq!(Frame::read(&mut wire.as_slice())?, Some(frame));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn data(kind: Kind, process: u32, bytes: &[u8]) -> Frame {
        Frame {
            kind,
            process,
            payload: bytes.to_vec(),
        }
    }

    /// A frame with this value as JSON.
    ///
    /// # Panics
    /// Where the value has no JSON form; the types of this crate all have one.
    pub fn json(kind: Kind, process: u32, value: &impl Serialize) -> Frame {
        let payload = serde_json::to_vec(value).expect("a control message has a JSON form");
        Frame {
            kind,
            process,
            payload,
        }
    }

    /// The payload of a control frame.
    ///
    /// # Errors
    /// Where it is not what this kind of frame should carry.
    pub fn parse<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.payload).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{:?} frame: {error}", self.kind),
            )
        })
    }

    /// Write it whole.
    ///
    /// # Errors
    /// Those of the writer, and a payload above [`MAX_PAYLOAD`].
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        if self.payload.len() > MAX_PAYLOAD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a frame carries {MAX_PAYLOAD} bytes at most"),
            ));
        }
        let length = u32::try_from(HEADER + self.payload.len()).expect("bounded above");
        let mut wire = Vec::with_capacity(4 + HEADER + self.payload.len());
        wire.extend(length.to_le_bytes());
        wire.push(self.kind as u8);
        wire.extend(self.process.to_le_bytes());
        wire.extend(&self.payload);
        to.write_all(&wire)
    }

    /// Read the next one; `None` at the end of the stream.
    ///
    /// # Errors
    /// Those of the reader, and bytes that are no frame.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
        let mut length = [0; 4];
        match from.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let length = u32::from_le_bytes(length) as usize;
        if !(HEADER..=HEADER + MAX_PAYLOAD).contains(&length) {
            return Err(invalid(format!("a frame of {length} bytes")));
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        let payload = body.split_off(HEADER);
        let kind = Kind::from_u8(body[0])
            .ok_or_else(|| invalid(format!("a frame of unknown kind {}", body[0])))?;
        let process = u32::from_le_bytes([body[1], body[2], body[3], body[4]]);
        Ok(Some(Frame {
            kind,
            process,
            payload,
        }))
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What init is to do before it says [`Kind::Ready`]: what is the same in every
/// guest that goes on from a snapshot of this one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Boot {
    /// Modules to load from the initramfs, in this order.
    pub modules: Vec<Module>,
    /// File systems to mount, in this order; the one at `/` first. With none,
    /// init says [`ALIVE`] on the console and switches the machine off.
    pub mounts: Vec<Mount>,
    /// The guest's host name.
    pub hostname: String,
    /// Up to which level the console shows messages from now on, where that is
    /// to change.
    pub console_level: Option<u8>,
}

/// What a guest is to know anew, be it just booted or restored from a snapshot
/// that others are restored from, too.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settle {
    /// The time since 1970 for its clock.
    pub clock: Duration,
    /// Bytes that seed its random numbers.
    pub seed: Vec<u8>,
    /// What its agent puts before its frames from the answer to this on.
    pub secret: Secret,
}

/// A kernel module in the initramfs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Module {
    /// Its file in the initramfs.
    pub file: String,
    /// Its parameters, as on insmod's command line.
    pub parameters: String,
    /// Nobody asked for it by name: it may find nothing to drive.
    pub optional: bool,
    /// The host's own, and not the kernel's: kept in [`MODULE_FILES`].
    pub keep: bool,
}

/// A file system to mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// What to mount: a device, or the tag of a share.
    pub source: String,
    /// Where, in the guest.
    pub target: String,
    /// The type, as in mount(2).
    pub fstype: String,
    /// Options for that type.
    pub options: String,
    /// Mounted for reading only.
    pub read_only: bool,
}

/// What the guest says once it is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// `uname -r`.
    pub release: String,
    /// Seconds from the kernel's start to init's first line.
    pub kernel_seconds: f64,
    /// Seconds from the kernel's start to this message.
    pub ready_seconds: f64,
}

/// A process to start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Spawn {
    /// The program, looked for in `PATH`, and its arguments.
    pub argv: Vec<String>,
    /// Its environment, beside a minimal one (`PATH`, `HOME`, `LANG`, and `TERM`
    /// on a terminal).
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: String,
    /// Whom it runs as: a name or a number, and a group after a colon; root where
    /// none is given.
    pub user: Option<String>,
    /// Its own terminal of this size instead of three pipes.
    pub terminal: Option<WindowSize>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct WindowSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// How a process in the guest ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It never started; why.
    NotStarted(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for byte in 1..=Kind::Sync as u8 {
            let kind = Kind::from_u8(byte).expect("kinds are numbered without a gap");
            assert_eq!(kind as u8, byte);
        }
        assert_eq!(Kind::from_u8(0), None);
        assert_eq!(Kind::from_u8(Kind::Sync as u8 + 1), None);
    }

    #[test]
    fn frame_goes_out_behind_its_secret() {
        let mut port = Port::new(Vec::new());
        let frame = Frame::data(Kind::Stdout, 1, b"text");
        frame.write(&mut port).unwrap();
        port.set_secret([7; 16]);
        frame.write(&mut port).unwrap();
        let mut wire = port.stream().as_slice();
        for secret in [[0; 16], [7; 16]] {
            let mut before = Secret::default();
            wire.read_exact(&mut before).unwrap();
            assert_eq!(before, secret);
            assert_eq!(Frame::read(&mut wire).unwrap().as_ref(), Some(&frame));
        }
        assert!(wire.is_empty());
    }

    #[test]
    fn refuses_what_is_no_frame() {
        let read = |bytes: &[u8]| Frame::read(&mut { bytes });
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[4, 0, 0, 0, 1, 0, 0, 0]).is_err(), "too short");
        assert!(read(&[255; 16]).is_err(), "too long");
        assert!(read(&[5, 0, 0, 0, 99, 0, 0, 0, 0]).is_err(), "no such kind");
        assert!(read(&[9, 0, 0, 0, 1, 0, 0]).is_err(), "cut off");
    }
}
