//! The line to the guest's agent, which nobody waits for.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use dmashare_vm_init::Frame;

/// Takes orders for the agent at once, though a guest that hangs may never read
/// them: who gives one has a deadline to look at, or a signal to answer to. There
/// are few on their way: [`WINDOW`](dmashare_vm_init::WINDOW) bounds the input of
/// programs, and the rest are short.
#[derive(Clone)]
pub(crate) struct Line(Sender<Option<Vec<u8>>>);

impl Line {
    /// Over this stream; its thread ends with the stream's other end, or when it is
    /// [closed](Line::close).
    pub(crate) fn over(mut stream: UnixStream) -> (Line, JoinHandle<()>) {
        let (sender, frames) = mpsc::channel::<Option<Vec<u8>>>();
        let thread = std::thread::spawn(move || {
            while let Ok(Some(frame)) = frames.recv() {
                if io::Write::write_all(&mut stream, &frame).is_err() {
                    return;
                }
            }
        });
        (Line(sender), thread)
    }

    /// Send it, in its turn.
    ///
    /// # Errors
    /// One that is too long; and a guest that is gone, where that is known yet.
    pub(crate) fn send(&self, frame: &Frame) -> io::Result<()> {
        let mut wire = Vec::new();
        frame.write(&mut wire)?;
        self.0
            .send(Some(wire))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Nothing more is sent, by anybody.
    pub(crate) fn close(&self) {
        // Closed before, by its other end.
        let _ = self.0.send(None);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use dmashare_vm_init::{Kind, MAX_PAYLOAD};

    use super::*;

    #[test]
    fn nobody_waits_for_an_end_that_does_not_read() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (line, thread) = Line::over(ours);
        let frame = Frame::data(Kind::Stdin, 1, &vec![7; MAX_PAYLOAD]);
        for _ in 0..100 {
            line.send(&frame).unwrap();
        }
        line.close();
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).unwrap();
        thread.join().unwrap();
        let mut all = all.as_slice();
        for _ in 0..100 {
            assert_eq!(Frame::read(&mut all).unwrap().as_ref(), Some(&frame));
        }
        assert!(all.is_empty());
        assert!(line.send(&frame).is_err());
    }

    #[test]
    fn the_end_of_the_other_end_is_its_own() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (line, thread) = Line::over(ours);
        drop(theirs);
        let _ = line.send(&Frame::data(Kind::PowerOff, 0, &[]));
        thread.join().unwrap();
    }
}
