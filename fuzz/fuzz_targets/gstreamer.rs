//! What a hostile GStreamer can do as a sink: the input is a script of the
//! commands it sends, in which pieces, and with which handles. Whatever came, the
//! source finds the end, a frame that it gives lies inside of its buffers, and no
//! handle is left open.

#![no_main]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;
use std::time::Duration;

use dmashare::alloc::{Allocate, Memfd, Posix, Request};
use dmashare::buffer::Buffer;
use dmashare::share::SocketError;
use dmashare::share::gstreamer::{GstreamerError, Source, SourceEvent};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use rustix::cmsg_space;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// What a peer can pass: buffers, and what is none.
static STRANGERS: LazyLock<Vec<OwnedFd>> = LazyLock::new(|| {
    let buffer = |buffer: Buffer| buffer.into_fd().unwrap();
    let page = Request::new(4096);
    vec![
        buffer(Memfd::new().allocate(&page).unwrap()),
        buffer(Memfd::new().allocate(&Request::new(1 << 20)).unwrap()),
        buffer(Posix::new().allocate(&page).unwrap()),
        std::io::pipe().unwrap().0.into(),
        std::fs::File::open("/dev/null").unwrap().into(),
    ]
});

fuzz_target!(|script: &[u8]| {
    LazyLock::force(&STRANGERS);
    let before = open_handles();
    let (here, sink) = UnixStream::pair().unwrap();
    let mut source = Source::from_fd(here.into()).unwrap();
    source.set_timeout(Some(Duration::ZERO));
    // The script's end is no fault of it.
    let _ = play(&mut Unstructured::new(script), &sink, &mut source);
    drop(sink);
    // Many commands that mean nothing are passed over in several turns.
    let silent =
        |end: &GstreamerError| matches!(end, GstreamerError::Socket(SocketError::Timeout { .. }));
    assert!((0..100).any(|_| !silent(&receive(&mut source))));
    drop(source);
    assert_eq!(open_handles(), before, "handles left open");
});

fn open_handles() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn play(script: &mut Unstructured<'_>, sink: &UnixStream, source: &mut Source) -> Result<()> {
    while !script.is_empty() {
        let (kind, mut payload, memories) = match script.int_in_range(0..=7)? {
            0 => {
                let length = script.int_in_range(0..=200)?.min(script.len());
                (script.arbitrary()?, script.bytes(length)?.to_vec(), 0)
            }
            1 | 2 => (2, caps(script)?, 0),
            _ => {
                let memories = script.int_in_range(0..=4)?;
                (0, buffer(script, memories)?, usize::from(memories))
            }
        };
        for _ in 0..script.int_in_range(0..=2)? {
            if !payload.is_empty() {
                let at = script.choose_index(payload.len())?;
                payload[at] = script.arbitrary()?;
            }
        }
        let length = match script.ratio(1, 32)? {
            true => script.arbitrary()?,
            false => u32::try_from(payload.len()).expect("it is short"),
        };
        let mut command = u32::to_ne_bytes(kind).to_vec();
        command.extend(length.to_ne_bytes());
        command.extend(payload);
        let rest = command.split_off(script.int_in_range(1..=command.len())?);
        send(script, sink, &command, memories)?;
        if !rest.is_empty() {
            send(script, sink, &rest, 0)?;
        }
        if script.arbitrary()? {
            receive(source);
        }
    }
    Ok(())
}

fn caps(script: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let format = script.choose(&[
        "BGRx",
        "NV12",
        "I420",
        "DMA_DRM, drm-format=(string)XR24:0x0000000000000001",
    ])?;
    let [width, height] = [script.int_in_range(1..=40)?, script.int_in_range(1..=40)?];
    let caps =
        format!("video/x-raw, format=(string){format}, width=(int){width}, height=(int){height}\0");
    Ok(caps.into_bytes())
}

/// A buffer as it should be, or nearly so.
fn buffer(script: &mut Unstructured<'_>, memories: u8) -> Result<Vec<u8>> {
    let number = |script: &mut Unstructured<'_>| match script.ratio(1, 8)? {
        true => script.arbitrary::<u64>(),
        false => script.int_in_range(0..=5000),
    };
    let mut payload = Vec::new();
    for _ in 0..6 {
        payload.extend(script.arbitrary::<u64>()?.to_ne_bytes());
    }
    payload.extend([0; 4]);
    let layout = script.arbitrary::<bool>()?;
    payload.extend([u8::from(script.ratio(1, 8)?), memories]);
    payload.extend(u16::from(layout).to_ne_bytes());
    for _ in 0..2 * memories {
        payload.extend(number(script)?.to_ne_bytes());
    }
    if layout {
        let planes = script.int_in_range(0..=5u32)?;
        let whole = 22 + 20 + 16 + planes * 16;
        payload.extend(whole.to_le_bytes());
        payload.extend(12u32.to_le_bytes());
        payload.extend(b"GstVideoMeta\0\0");
        for word in [
            0,
            8,
            script.int_in_range(1..=40)?,
            script.int_in_range(1..=40)?,
            planes,
        ] {
            payload.extend(u32::to_le_bytes(word));
        }
        for _ in 0..planes {
            payload.extend(number(script)?.to_le_bytes());
        }
        for _ in 0..planes {
            payload.extend(script.int_in_range(-4..=400i32)?.to_le_bytes());
        }
        payload.resize(payload.len() + 16 + 4 * planes as usize, 0);
    }
    Ok(payload)
}

/// Sends a piece, as a rule with as many handles as were announced. A full
/// queue, or a source that has hung up, is no matter.
fn send(
    script: &mut Unstructured<'_>,
    sink: &UnixStream,
    bytes: &[u8],
    announced: usize,
) -> Result<()> {
    let count = match script.ratio(1, 8)? {
        true => script.int_in_range(0..=20)?,
        false => announced,
    };
    let mut handles: Vec<BorrowedFd<'_>> = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = match script.ratio(3, 4)? {
            true => 0,
            false => script.choose_index(STRANGERS.len())?,
        };
        handles.push(STRANGERS[kind].as_fd());
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(20))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !handles.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&handles)));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = sendmsg(sink, &[IoSlice::new(bytes)], &mut control, flags);
    Ok(())
}

/// Receives what is there: why there is no more.
fn receive(source: &mut Source) -> GstreamerError {
    for _ in 0..10_000 {
        match source.event() {
            Ok(SourceEvent::Frame(borrowed)) => {
                let sizes: Vec<u64> = borrowed.buffers.iter().map(Buffer::size).collect();
                borrowed.frame.check(&sizes).unwrap();
            }
            Ok(_) => {}
            Err(
                end @ (GstreamerError::Length(_)
                | GstreamerError::Command(_)
                | GstreamerError::Socket(
                    SocketError::Closed | SocketError::Truncated(_) | SocketError::Timeout { .. },
                )),
            ) => return end,
            Err(GstreamerError::Socket(fault @ SocketError::Os { .. })) => panic!("{fault}"),
            Err(_) => {}
        }
    }
    panic!("the source finds no end");
}
