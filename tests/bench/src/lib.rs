//! What dmashare costs over the raw calls of a C program, beside other crates.
//!
//! An operation is done by several hands, and all of them do the same work. The
//! benchmark `overhead` times them, the program `instructions` counts what they
//! execute in user space. The program `exporters` compares what makes dma-bufs.

mod allocate;
mod codec;
mod copy;
pub mod exporters;
mod pass;
mod raw;
mod sync;
pub mod turns;

/// One operation, done by one hand.
pub struct Op {
    /// What is done.
    pub what: &'static str,
    /// Who does it: the first of a group is what the others are compared with.
    pub who: &'static str,
    /// Does it once.
    pub run: Box<dyn FnMut()>,
}

impl Op {
    fn new(what: &'static str, who: &'static str, run: impl FnMut() + 'static) -> Op {
        Op {
            what,
            who,
            run: Box::new(run),
        }
    }
}

/// All of them that this machine can do, those of one group behind one another;
/// and what it cannot do, with the reason.
///
/// ```
/// let (mut ops, _cannot) = dmashare_bench::ops();
/// assert!(ops.iter().any(|op| op.who == "dmashare"));
/// (ops[0].run)();
/// ```
#[must_use]
pub fn ops() -> (Vec<Op>, Vec<String>) {
    let (mut ops, mut cannot) = (Vec::new(), Vec::new());
    allocate::ops(&mut ops, &mut cannot);
    sync::ops(&mut ops, &mut cannot);
    pass::ops(&mut ops);
    codec::ops(&mut ops);
    copy::ops(&mut ops);
    (ops, cannot)
}
