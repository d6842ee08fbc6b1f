//! Why the demo ended early.

use std::error::Error;
use std::io;
use std::process::ExitStatus;

use super::compare::Difference;
use super::picture::PictureError;
use super::report::Actor;

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The input is no picture.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// Process A said why it could not go on.
    #[error("{message}")]
    Producer {
        /// What it said.
        message: String,
        /// Whether it was the input.
        bad_input: bool,
    },
    /// Process A ended without a word.
    #[error("process A ended before it passed a frame on: {0}")]
    ProducerEnded(ExitStatus),
    /// A process of the camera's demo ended without a word.
    #[error("process {process} ended before its time: {status}")]
    ProcessEnded {
        /// Which.
        process: Actor,
        /// How.
        status: ExitStatus,
    },
    /// It was to end, and does not.
    #[error("process {0} does not end; it was killed")]
    DoesNotEnd(Actor),
    /// No frame has come to the screen.
    #[error("no frame has come to the screen")]
    NoFrames,
    /// The camera was told to show another pattern, and the screen went on with
    /// the one before, or there was no time for both.
    #[error(
        "the screen showed {0} of the camera's two test patterns; frames come too slowly, or not \
         at all: try it with more --seconds"
    )]
    Patterns(usize),
    /// Process B was gone before process A began.
    #[error("process B ended before process A began")]
    ConsumerEnded,
    /// A step failed.
    #[error("{step}: {source}")]
    Step {
        /// Which, as in the report.
        step: &'static str,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No card could show it.
    #[error("no screen to show it on: {0}")]
    NoScreen(String),
    /// The result is not what it should be.
    #[error("the result is not what the picture and the shader say: {0}")]
    Differs(#[from] Difference),
    /// What B reads is not what A wrote.
    #[error("B reads pixels with SHA-256 {got}, but A wrote {expected}")]
    Checksum {
        /// That of the pixels B reads.
        got: String,
        /// That of the pixels A wrote.
        expected: String,
    },
    /// The other process or the terminal could not be talked to.
    #[error("cannot talk to process A or the caller: {0}")]
    Talk(#[from] io::Error),
}

impl DemoError {
    /// An error of this step.
    pub(super) fn at<E>(step: &'static str) -> impl FnOnce(E) -> DemoError
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        move |source| DemoError::Step {
            step,
            source: source.into(),
        }
    }

    /// Whether the input is at fault, and not this system.
    ///
    /// ```
    /// use dmashare_cli::demo::{DemoError, picture::load};
    /// let error = DemoError::from(load(Some("/no/such.png".as_ref())).unwrap_err());
    /// assert!(error.is_bad_input());
    /// ```
    pub fn is_bad_input(&self) -> bool {
        match self {
            DemoError::Picture(_) => true,
            DemoError::Producer { bad_input, .. } => *bad_input,
            _ => false,
        }
    }

    /// What happened, in one line: where the cause is a list, its lines stand
    /// behind one another.
    ///
    /// ```
    /// use dmashare_cli::demo::DemoError;
    /// let error = DemoError::NoScreen("none of these:\n  a: no\n  b: no".to_owned());
    /// assert_eq!(error.line(), "no screen to show it on: none of these: a: no; b: no");
    /// ```
    pub fn line(&self) -> String {
        let message = self.to_string();
        let parts = message.lines().map(str::trim);
        parts
            .filter(|part| !part.is_empty())
            .fold(String::new(), |line, part| {
                let joint = match line.chars().last() {
                    None => "",
                    Some(':') => " ",
                    Some(_) => "; ",
                };
                line + joint + part
            })
    }
}
