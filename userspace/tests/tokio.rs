//! The asynchronous sockets: what is dropped in its middle loses nothing, or
//! says so.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dmashare::alloc::{Allocate, Memfd, Request};
use dmashare::buffer::Buffer;
use dmashare::share::codec::{self, Contents, MAX_PAYLOAD};
use dmashare::share::tokio::{AsyncListener, AsyncSocket};
use dmashare::share::{
    Breakage, Draft, Fourcc, Frame, Listener, Policy, Socket, SocketError, Transport,
};
use rustix::cmsg_space;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::time::timeout;

const BOTH: [Transport; 2] = [Transport::Packet, Transport::Stream];
const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(10);

fn run<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { timeout(LONG, task).await.expect("it waits for ever") })
}

fn buffer() -> Buffer {
    Memfd::new().allocate(&Request::new(4096)).unwrap()
}

fn pair(transport: Transport) -> (AsyncSocket, AsyncSocket) {
    let (a, b) = Socket::pair_with(transport).unwrap();
    (AsyncSocket::new(a).unwrap(), AsyncSocket::new(b).unwrap())
}

#[test]
fn frames_pass_both_ways() {
    for transport in BOTH {
        run(async {
            let (here, there) = pair(transport);
            let (frame, buffer) = (Frame::packed(32, 32, Fourcc::XRGB8888).unwrap(), buffer());
            for _ in 0..100 {
                here.send(&frame, &[&buffer]).await.unwrap();
                let (received, buffers) = there.recv().await.unwrap();
                assert_eq!((&received, buffers.len()), (&frame, 1));
                there.send(&received, &buffers).await.unwrap();
                assert_eq!(here.recv().await.unwrap().0, frame);
            }
            drop(there);
            assert_eq!(here.recv().await.unwrap_err(), SocketError::Closed);
            let error = here.send(&frame, &[&buffer]).await.unwrap_err();
            assert_eq!(error, SocketError::Closed);
        });
    }
}

/// More than the sockets hold, from a thread that blocks to a task and back.
#[test]
fn a_thread_and_a_task() {
    const COUNT: usize = 300;
    for transport in BOTH {
        let (here, there) = Socket::pair_with(transport).unwrap();
        let thread = std::thread::spawn(move || {
            for _ in 0..COUNT {
                let message = there.recv_message().unwrap();
                there.send_message(&message.draft()).unwrap();
            }
        });
        run(async {
            let here = AsyncSocket::new(here).unwrap();
            let buffer = buffer();
            let payload = vec![1; 40_000];
            let draft = Draft::new().buffers([&buffer]).payload(&payload);
            let send = async {
                for _ in 0..COUNT {
                    here.send_message(&draft).await.unwrap();
                }
            };
            let recv = async {
                for _ in 0..COUNT {
                    let message = here.recv_message().await.unwrap();
                    assert_eq!(message.payload, payload);
                }
            };
            both(send, recv).await;
        });
        thread.join().unwrap();
    }
}

/// Polls two futures until both are done.
async fn both(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    use std::task::Poll;
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let mut done = [false; 2];
    std::future::poll_fn(|context| {
        done[0] = done[0] || a.as_mut().poll(context).is_ready();
        done[1] = done[1] || b.as_mut().poll(context).is_ready();
        if done == [true; 2] {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// A receiver that is dropped at every byte of a message.
#[test]
fn a_receiver_dropped_in_the_middle_loses_nothing() {
    run(async {
        let (here, there) = Socket::pair_with(Transport::Stream).unwrap();
        let here = AsyncSocket::new(here).unwrap();
        let there = UnixStream::from(there.as_fd().try_clone_to_owned().unwrap());
        let buffer = buffer();
        for sequence in 0..20 {
            let message = codec::encode(&Contents {
                sequence,
                sizes: vec![4096].into(),
                payload: b"hello",
                ..Contents::default()
            });
            let message = message.unwrap();
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let handles = [buffer.fd().unwrap()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&handles)));
            let first = [IoSlice::new(&message[..1])];
            sendmsg(&there, &first, &mut control, SendFlags::empty()).unwrap();
            for byte in &message[1..] {
                let early = timeout(Duration::from_micros(100), here.recv_message()).await;
                assert!(early.is_err());
                (&there).write_all(&[*byte]).unwrap();
            }
            let message = here.recv_message().await.unwrap();
            assert_eq!(
                (message.buffers.len(), &*message.payload),
                (1, &b"hello"[..])
            );
        }
    });
}

/// One byte, and the peer's own end of the connection or the memory of 253
/// handles: neither keeps a task waiting.
#[test]
fn half_messages_break_connection() {
    for (own_end, bytes) in [(true, 1), (false, 1), (false, 2500)] {
        let (mut here, there) = Socket::pair_with(Transport::Stream).unwrap();
        here.set_message_time(Some(SHORT));
        run(async {
            let here = AsyncSocket::new(here).unwrap();
            let there = there.into_fd();
            let buffer = buffer();
            let message = codec::encode(&Contents {
                sizes: vec![4096; 253].into(),
                payload: &[0; 1000],
                ..Contents::default()
            });
            let message = message.unwrap();
            let handles = match own_end {
                true => vec![there.as_fd()],
                false => vec![buffer.fd().unwrap(); 253],
            };
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(253))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&handles)));
            let first = [IoSlice::new(&message[..bytes])];
            sendmsg(&there, &first, &mut control, SendFlags::empty()).unwrap();
            if own_end {
                drop(there);
                let error = here.recv_message().await.unwrap_err();
                assert_eq!(error, SocketError::Truncated(1));
                return;
            }
            // What no task waits for keeps its time.
            assert!(timeout(SHORT / 4, here.recv_message()).await.is_err());
            let error = here.recv_message().await.unwrap_err();
            let late = matches!(
                error,
                SocketError::Broken(Breakage::Unfinished { after: SHORT, .. })
            );
            assert!(late, "{error}");
        });
    }
}

/// More handles than are held for half a message wait in the socket for the rest.
#[test]
fn many_handles_pass_in_two_pieces() {
    run(async {
        let (here, there) = Socket::pair_with(Transport::Stream).unwrap();
        let here = AsyncSocket::new(here).unwrap();
        let there = UnixStream::from(there.into_fd());
        let buffer = buffer();
        let message = codec::encode(&Contents {
            sizes: vec![4096; 253].into(),
            ..Contents::default()
        });
        let message = message.unwrap();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let handles = [buffer.fd().unwrap(); 253];
        assert!(control.push(SendAncillaryMessage::ScmRights(&handles)));
        let first = [IoSlice::new(&message[..100])];
        sendmsg(&there, &first, &mut control, SendFlags::empty()).unwrap();
        assert!(timeout(SHORT, here.recv_message()).await.is_err());
        (&there).write_all(&message[100..]).unwrap();
        assert_eq!(here.recv_message().await.unwrap().buffers.len(), 253);
    });
}

#[test]
fn a_sender_dropped_in_the_middle_says_so() {
    run(async {
        let (here, there) = pair(Transport::Stream);
        let payload = vec![1; MAX_PAYLOAD];
        let draft = Draft::new().payload(&payload);
        let mut whole = 0;
        while timeout(SHORT, here.send_message(&draft)).await.is_ok() {
            whole += 1;
        }
        let error = here.send_message(&draft).await.unwrap_err();
        assert!(
            matches!(error, SocketError::Broken(Breakage::Sending { .. })),
            "{error}"
        );
        for _ in 0..whole {
            assert_eq!(there.recv_message().await.unwrap().payload, payload);
        }
        let error = there.recv_message().await.unwrap_err();
        assert!(matches!(error, SocketError::Truncated(_)), "{error}");
    });
}

/// A datagram is sent whole or not at all.
#[test]
fn a_sender_of_packets_can_be_dropped() {
    run(async {
        let (here, there) = pair(Transport::Packet);
        let payload = vec![1; MAX_PAYLOAD];
        let draft = Draft::new().payload(&payload);
        let mut whole = 0;
        while timeout(SHORT, here.send_message(&draft)).await.is_ok() {
            whole += 1;
        }
        for _ in 0..whole {
            there.recv_message().await.unwrap();
        }
        here.send_message(&draft).await.unwrap();
        there.recv_message().await.unwrap();
    });
}

#[test]
fn listeners_accept_whom_they_may() {
    for transport in BOTH {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("frames");
            let refused = AsyncSocket::connect(&path, transport).await;
            assert!(matches!(refused, Err(SocketError::Os { .. })));

            let listener = Listener::bind_with(&path, transport).unwrap();
            let listener = AsyncListener::new(listener).unwrap();
            assert!(timeout(SHORT, listener.accept()).await.is_err());
            // More than the queue holds: the rest waits for its turn.
            let connect = async {
                for _ in 0..40 {
                    AsyncSocket::connect(&path, transport).await.unwrap();
                }
            };
            let accept = async {
                for _ in 0..40 {
                    let accepted = listener.accept().await.unwrap();
                    let error = accepted.recv_message().await.unwrap_err();
                    assert_eq!(error, SocketError::Closed);
                }
            };
            both(connect, accept).await;
            drop(listener);

            let mut listener = Listener::bind_with(&path, transport).unwrap();
            listener.set_policy(Policy::pid(1));
            let listener = AsyncListener::new(listener).unwrap();
            let here = AsyncSocket::connect(&path, transport).await.unwrap();
            let refused = listener.accept().await.unwrap_err();
            assert!(matches!(refused, SocketError::Refused { .. }), "{refused}");
            let error = here.recv_message().await.unwrap_err();
            assert_eq!(error, SocketError::Closed);
        });
    }
}
