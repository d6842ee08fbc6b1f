//! Memory for a frame, by the first way that can do it here.

use std::time::Instant;

use dmashare::alloc::{AllocError, Request, Way, allocate};
use dmashare::buffer::Buffer;
use dmashare::share::{Fourcc, Frame, FrameError};

use super::DemoError;
use super::report::{Actor, Step};

/// What the step is called, in reports and errors.
const STEP: &str = "allocate";

/// A new frame in a buffer of its own, and what there is to tell of it.
#[derive(Debug)]
pub(super) struct Allocated {
    pub(super) frame: Frame,
    pub(super) buffer: Buffer,
    pub(super) steps: Vec<Step>,
}

/// A dma-buf for a frame of this size; or, where there is none and
/// `or_memfd`, a buffer for CPUs. The ways that were passed over are told.
pub(super) fn frame(
    by: Actor,
    name: &str,
    size: (u32, u32),
    or_memfd: bool,
) -> Result<Allocated, DemoError> {
    let frame = describe(size).map_err(DemoError::at(STEP))?;
    let bytes = room(&frame).map_err(DemoError::at(STEP))?;
    let request = Request::new(bytes).named(name);
    let started = Instant::now();
    let mut steps = Vec::new();
    let made = match allocate(&request.clone().for_device()) {
        Err(AllocError::NoWay(reasons)) if or_memfd => {
            steps.extend(passed_over(by, &reasons));
            allocate(&request)
        }
        made => made,
    };
    let made = made.map_err(DemoError::at(STEP))?;
    steps.extend(passed_over(by, &made.passed_over));
    let backend = format!("{} {}", made.way, made.buffer.name());
    steps.push(Step::done(by, STEP, backend, started, bytes));
    Ok(Allocated {
        frame,
        buffer: made.buffer,
        steps,
    })
}

fn passed_over(by: Actor, reasons: &[(Way, AllocError)]) -> impl Iterator<Item = Step> {
    let steps = reasons.iter();
    steps.map(move |(way, reason)| Step::left_out(by, STEP, way.name(), reason))
}

/// A frame of 32 bits a pixel whose rows start at multiples of 256 bytes,
/// which is what GPUs ask of a linear one.
fn describe((width, height): (u32, u32)) -> Result<Frame, FrameError> {
    let mut frame = Frame::packed(width, height, Fourcc::XRGB8888)?;
    let stride = &mut frame.planes[0].stride;
    *stride = stride
        .checked_next_multiple_of(256)
        .ok_or(FrameError::TooWide(width, Fourcc::XRGB8888))?;
    Ok(frame)
}

/// The bytes that a GPU wants for it: the software device draws four rows at a
/// time, and takes no target that ends within them.
fn room(frame: &Frame) -> Result<u64, FrameError> {
    let mut whole = frame.clone();
    whole.height = whole.height.next_multiple_of(4);
    whole.size_of_buffer(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_start_where_gpus_want_them() {
        for (width, stride) in [(1, 256), (64, 256), (65, 512), (1280, 5120)] {
            assert_eq!(describe((width, 1)).unwrap().planes[0].stride, stride);
        }
        assert!(describe((u32::MAX, 1)).is_err());
    }

    #[test]
    fn a_target_has_room_for_four_rows_at_a_time() {
        for (height, rows) in [(1, 4), (4, 4), (1050, 1052)] {
            let frame = describe((64, height)).unwrap();
            assert_eq!(room(&frame).unwrap(), rows * 256);
        }
    }
}
