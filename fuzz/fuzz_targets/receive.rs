//! What a hostile peer can do, over a real socket of either transport: the
//! input is a script of what it sends, in which pieces, and with which handles.
//! Whatever came, the victim finds the end, what it accepts can be mapped and
//! read as described, and no handle is left open.

#![no_main]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;
use std::time::Duration;

use dmashare::alloc::{Allocate, Memfd, Posix, Request};
use dmashare::buffer::{Access, Buffer, BufferError};
use dmashare::share::codec::{self, Contents};
use dmashare::share::{Fourcc, Frame, Message, Plane, Socket, SocketError, Transport};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use rustix::cmsg_space;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg, shutdown, sockopt,
};

/// What a peer can pass: buffers of several kinds, and what is none.
static STRANGERS: LazyLock<Vec<OwnedFd>> = LazyLock::new(|| {
    let buffer = |buffer: Buffer| buffer.fd().unwrap().try_clone_to_owned().unwrap();
    let page = Request::new(4096);
    let unsealed = memfd_create("unsealed", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&unsealed, 5000).unwrap();
    let (pipe, writer) = std::io::pipe().unwrap();
    vec![
        buffer(Memfd::new().allocate(&page).unwrap()),
        buffer(Memfd::new().allocate(&Request::new(1 << 20)).unwrap()),
        buffer(Posix::new().allocate(&page).unwrap()),
        unsealed,
        memfd_create("empty", MemfdFlags::CLOEXEC).unwrap(),
        pipe.into(),
        writer.into(),
        std::fs::File::open("/").unwrap().into(),
        std::fs::File::open("/dev/null").unwrap().into(),
    ]
});

fuzz_target!(|script: &[u8]| {
    LazyLock::force(&STRANGERS);
    let before = open_handles();
    // The script's end is no fault of it.
    let _ = play(&mut Unstructured::new(script));
    assert_eq!(open_handles(), before, "handles left open");
});

fn open_handles() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Plays the script from one end of a connection, and receives at the other.
fn play(script: &mut Unstructured<'_>) -> Result<()> {
    let transport = *script.choose(&[Transport::Packet, Transport::Stream])?;
    let (mut victim, hostile) = Socket::pair_with(transport).unwrap();
    victim.set_timeout(Some(Duration::ZERO));
    // As who had an inherited socket before may have asked.
    sockopt::set_socket_passcred(&victim, script.arbitrary()?).unwrap();
    let hostile = hostile.into_fd();
    let played = send_all(script, &victim, &hostile);
    // Not by closing it alone: the script may have sent this end to the other.
    shutdown(&hostile, Shutdown::Both).unwrap();
    drop(hostile);
    let end = receive(&victim);
    assert!(
        matches!(end, SocketError::Closed | SocketError::Broken(_)),
        "{end}"
    );
    played
}

fn send_all(script: &mut Unstructured<'_>, victim: &Socket, hostile: &OwnedFd) -> Result<()> {
    let mut due = 0;
    while !script.is_empty() {
        let (mut bytes, mut announced) = match script.ratio(1, 4)? {
            true => {
                let length = script.int_in_range(0..=300)?.min(script.len());
                (script.bytes(length)?.to_vec(), 0)
            }
            false => message(script, due)?,
        };
        due += 1;
        // What makes a good message a bad one.
        for _ in 0..script.int_in_range(0..=2)? {
            if !bytes.is_empty() {
                let at = script.choose_index(bytes.len())?;
                bytes[at] = script.arbitrary()?;
            }
        }
        for _ in 0..script.int_in_range(0..=2)? {
            let at = script.int_in_range(0..=bytes.len())?;
            let rest = bytes.split_off(at);
            send(script, hostile, &bytes, announced)?;
            (bytes, announced) = (rest, 0);
            if script.arbitrary()? {
                receive(victim);
            }
        }
        send(script, hostile, &bytes, announced)?;
        if script.arbitrary()? {
            receive(victim);
        }
    }
    Ok(())
}

/// A message as it should be, or nearly so, and how many handles it announces.
fn message(script: &mut Unstructured<'_>, due: u64) -> Result<(Vec<u8>, usize)> {
    let handles = match script.ratio(1, 16)? {
        true => script.int_in_range(0..=codec::MAX_HANDLES)?,
        false => script.int_in_range(0..=4)?,
    };
    let mut sizes = vec![0; handles];
    let mut frames = Vec::new();
    if handles > 0 {
        sizes[0] = *script.choose(&[0, 4096, 4097, u64::MAX])?;
        for _ in 0..script.int_in_range(0..=3)? {
            frames.push(frame(script, handles)?);
        }
    }
    let payload = script.int_in_range(0..=8)?;
    let contents = Contents {
        sequence: match script.ratio(1, 16)? {
            true => script.arbitrary()?,
            false => due,
        },
        sizes: sizes.into(),
        frames: frames.into(),
        payload: &[7; 8][..payload],
    };
    // Only the last number is refused here.
    Ok((codec::encode(&contents).unwrap_or_default(), handles))
}

fn frame(script: &mut Unstructured<'_>, handles: usize) -> Result<Frame> {
    let formats = [
        Fourcc::XRGB8888,
        Fourcc::new(*b"NV12"),
        Fourcc(script.arbitrary()?),
    ];
    let number = |script: &mut Unstructured<'_>| match script.ratio(1, 8)? {
        true => script.arbitrary(),
        false => script.int_in_range(0..=128),
    };
    let mut frame = Frame {
        width: number(script)?,
        height: number(script)?,
        fourcc: *script.choose(&formats)?,
        modifier: *script.choose(&[0, 0, 0, 1, u64::MAX])?,
        planes: Vec::new(),
    };
    for _ in 0..script.int_in_range(1..=4)? {
        let buffer = script.choose_index(handles)?;
        frame.planes.push(Plane {
            buffer: buffer.try_into().expect("there are at most 253"),
            offset: number(script)?,
            stride: number(script)?,
        });
    }
    Ok(frame)
}

/// Sends a piece, as a rule with as many handles as were announced. A full
/// queue, or a victim that has hung up, is no matter.
fn send(
    script: &mut Unstructured<'_>,
    hostile: &OwnedFd,
    bytes: &[u8],
    announced: usize,
) -> Result<()> {
    let count = match script.ratio(1, 8)? {
        true => script.int_in_range(0..=codec::MAX_HANDLES)?,
        false => announced,
    };
    let mut handles: Vec<BorrowedFd<'_>> = Vec::with_capacity(count);
    let kinds = STRANGERS.len();
    for _ in 0..count {
        handles.push(match script.ratio(3, 4)? {
            true => STRANGERS[0].as_fd(),
            // This end itself is one, too.
            false => match script.int_in_range(0..=kinds)? {
                kind if kind == kinds => hostile.as_fd(),
                kind => STRANGERS[kind].as_fd(),
            },
        });
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(codec::MAX_HANDLES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !handles.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&handles)));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = sendmsg(hostile, &[IoSlice::new(bytes)], &mut control, flags);
    Ok(())
}

/// Receives what is there: why there is no more.
fn receive(victim: &Socket) -> SocketError {
    for _ in 0..10_000 {
        match victim.recv_message() {
            Ok(message) => look(&message),
            Err(
                end @ (SocketError::Closed | SocketError::Broken(_) | SocketError::Timeout { .. }),
            ) => return end,
            Err(fault @ SocketError::Os { .. }) => panic!("{fault}"),
            Err(_) => {}
        }
    }
    panic!("the victim finds no end");
}

/// What was accepted holds what it says, up to the last byte.
fn look(message: &Message) {
    let sizes: Vec<u64> = message.buffers.iter().map(Buffer::size).collect();
    for frame in &message.frames {
        frame.check(&sizes).unwrap();
    }
    for buffer in &message.buffers {
        let mapping = match buffer.map(Access::Read) {
            Err(BufferError::Shrinkable { .. }) => buffer.map_shrinkable(Access::Read),
            mapping => mapping,
        };
        let mut mapping = mapping.unwrap();
        let guard = mapping.access(Access::Read).unwrap();
        guard.read_at(buffer.size() - 1, &mut [0]).unwrap();
        guard.finish().unwrap();
    }
}
