//! What the demo tells: events as they come, one JSON object a line, or a
//! table at the end.
//!
//! The producer tells the consumer in the same form, and the consumer whoever
//! started it.

mod hops;

use std::fmt;
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use comfy_table::{Cell, CellAlignment};
use serde::{Deserialize, Serialize};

/// One thing that is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A step was done, or left out.
    Step(Step),
    /// The producer has passed its frame on, and now only keeps it alive.
    Passed {
        /// The SHA-256 of the pixels it wrote, row by row without what lies
        /// between the rows, in hexadecimal; where the consumer is to compare.
        sha256: Option<String>,
    },
    /// The screen shows the result, until the standard input ends.
    Shown {
        /// Width of the screen in pixels.
        width: u32,
        /// Height of the screen in pixels.
        height: u32,
    },
    /// The screen shows this test pattern of the camera, and goes on.
    Pattern {
        /// Its number: see [`Pattern`](super::camera::bars::Pattern).
        pattern: u32,
        /// Width of the screen in pixels.
        width: u32,
        /// Height of the screen in pixels.
        height: u32,
    },
    /// What became of the frames at one hop of their way.
    Hop(Hop),
    /// What the CPUs have done from the first frame on.
    Cpu(Cpu),
    /// The end, if nothing failed.
    Verdict {
        /// What was verified, in words.
        verified: String,
    },
    /// The end, if something did.
    Failed {
        /// What, and what to do about it.
        message: String,
        /// Whether it was the input, and not this system.
        bad_input: bool,
    },
}

/// Who does a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Actor {
    /// Process A, which has the picture.
    A,
    /// Process B, which shows it.
    B,
    /// Process C, which shows it where frames come from a camera.
    C,
    /// The host of the guest that all run in.
    #[serde(rename = "host")]
    Host,
}

/// Frames at one hop of their way, and how long it took each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hop {
    /// The process at its end.
    pub process: Actor,
    /// From where to where.
    pub hop: String,
    /// Whether this is the run with copies.
    pub copies: bool,
    /// The frames that came.
    pub frames: u32,
    /// Those that came no further, since the next process was not ready; of the
    /// camera, those that it had no buffer for.
    pub dropped: u32,
    /// Those that were on the screen later than the camera's times say, by half a
    /// frame of 25 a second or more, counted from the one before.
    pub late: Option<u32>,
    /// The mean time, in milliseconds; of drawing, flips and the whole way without
    /// the first frame, which has all to be set up.
    pub mean_ms: f64,
    /// The longest time, in milliseconds.
    pub longest_ms: f64,
}

/// What CPUs have done from the first frame on the screen until the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cpu {
    /// For whom: a process, or `machine` for all of it, the kernel's own threads
    /// included.
    pub of: String,
    /// Whether this is the run with copies.
    pub copies: bool,
    /// How long.
    pub seconds: f64,
}

impl Cpu {
    pub(crate) fn new(of: &str, copies: bool, spent: Duration) -> Cpu {
        Cpu {
            of: of.to_owned(),
            copies,
            // To the millisecond: more digits would say nothing.
            seconds: spent.as_millis() as f64 / 1e3,
        }
    }
}

/// A step of the demo, done or left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Step {
    /// Who did it.
    pub process: Actor,
    /// What it is.
    pub step: String,
    /// With what it was done.
    pub backend: String,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outcome {
    /// It was done.
    Done {
        /// How long it took, in milliseconds.
        milliseconds: f64,
        /// The bytes of pixels that it was about.
        bytes: u64,
        /// How often all these pixels were copied in it; `None` where that is
        /// not known.
        copies: Option<u32>,
        /// Who copied them, or what else there is to say.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// It could not be done here.
    LeftOut {
        /// Why.
        left_out: String,
    },
}

impl Step {
    /// A step that was done just now, without a copy.
    ///
    /// ```
    /// use dmashare_cli::demo::report::{Actor, Step};
    /// use std::time::Instant;
    /// let started = Instant::now();
    /// let step = Step::done(Actor::B, "draw", "llvmpipe", started, 4096).copies(Some(1), "for the check");
    /// assert!(serde_json::to_string(&step)?.contains(r#""process":"B","step":"draw""#));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn done(
        process: Actor,
        step: &str,
        backend: impl Into<String>,
        started: Instant,
        bytes: u64,
    ) -> Step {
        Step {
            process,
            step: step.to_owned(),
            backend: backend.into(),
            outcome: Outcome::Done {
                // To the microsecond: more digits would say nothing.
                milliseconds: started.elapsed().as_micros() as f64 / 1e3,
                bytes,
                copies: Some(0),
                note: String::new(),
            },
        }
    }

    /// A step that could not be done.
    ///
    /// ```
    /// use dmashare_cli::demo::report::{Actor, Step};
    /// let step = Step::left_out(Actor::B, "scan out", "KMS", "no card");
    /// assert!(serde_json::to_string(&step)?.contains(r#""left_out":"no card""#));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn left_out(
        process: Actor,
        step: &str,
        backend: impl Into<String>,
        reason: impl fmt::Display,
    ) -> Step {
        Step {
            process,
            step: step.to_owned(),
            backend: backend.into(),
            outcome: Outcome::LeftOut {
                left_out: reason.to_string(),
            },
        }
    }

    /// Says how often the pixels were copied, and by whom; or with `None` that
    /// this is not known.
    ///
    /// ```
    /// use dmashare_cli::demo::report::{Actor, Step};
    /// use std::time::Instant;
    /// let step = Step::done(Actor::B, "scan out", "KMS", Instant::now(), 4096);
    /// let step = step.copies(None, "the driver's affair");
    /// assert!(serde_json::to_string(&step)?.contains(r#""copies":null"#));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn copies(mut self, count: Option<u32>, by: impl Into<String>) -> Step {
        if let Outcome::Done { copies, note, .. } = &mut self.outcome {
            (*copies, *note) = (count, by.into());
        }
        self
    }
}

/// Where events go, and the steps that were told so far.
#[derive(Debug)]
pub struct Report {
    json: bool,
    steps: Vec<Step>,
    hops: Vec<Hop>,
    cpus: Vec<Cpu>,
    verified: Vec<String>,
}

impl Report {
    /// A report on standard output: JSON as it comes, or a table at the end.
    ///
    /// ```
    /// # use dmashare_cli::demo::report::Report;
    /// Report::new(false).finish()?; // no step, no table
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(json: bool) -> Report {
        Report {
            json,
            steps: Vec::new(),
            hops: Vec::new(),
            cpus: Vec::new(),
            verified: Vec::new(),
        }
    }

    /// Tells an event.
    ///
    /// # Errors
    /// Where standard output takes nothing.
    pub fn tell(&mut self, event: Event) -> io::Result<()> {
        if self.json {
            write(&mut io::stdout().lock(), &event)?;
        }
        match event {
            Event::Step(step) => self.steps.push(step),
            Event::Hop(hop) => self.hops.push(hop),
            Event::Cpu(cpu) => self.cpus.push(cpu),
            Event::Verdict { verified } => self.verified.push(verified),
            Event::Shown { .. } if !self.json => {
                eprintln!("dmashare: it is on the screen; press Enter to end");
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells a step.
    ///
    /// # Errors
    /// Where standard output takes nothing.
    pub fn step(&mut self, step: Step) -> io::Result<()> {
        self.tell(Event::Step(step))
    }

    /// Prints the table of the steps told so far, and the verdict if there is
    /// one, unless they were told as JSON.
    ///
    /// # Errors
    /// Where standard output takes nothing.
    pub fn finish(self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            return Ok(());
        }
        if !self.steps.is_empty() {
            writeln!(out, "{}", table(&self.steps))?;
        }
        if !self.hops.is_empty() {
            writeln!(out, "\n{}", hops::table(&self.hops, &self.cpus))?;
        }
        for verified in self.verified {
            writeln!(out, "verified: {verified}")?;
        }
        Ok(())
    }
}

/// Writes an event as a line.
///
/// # Errors
/// Those of the writer.
///
/// ```
/// use dmashare_cli::demo::report::{Event, read, write};
/// let mut lines = Vec::new();
/// write(&mut lines, &Event::Shown { width: 640, height: 480 })?;
/// assert_eq!(lines, b"{\"event\":\"shown\",\"width\":640,\"height\":480}\n");
/// assert_eq!(read(&mut lines.as_slice())?, Some(Event::Shown { width: 640, height: 480 }));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write(to: &mut impl Write, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads the next event; `None` at the end.
///
/// # Errors
/// Those of the reader, and a line that is no event.
pub fn read(from: &mut impl BufRead) -> io::Result<Option<Event>> {
    let mut line = String::new();
    match from.read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}

/// The steps as a table, and below it why some were left out.
///
/// ```
/// use dmashare_cli::demo::report::{Actor, Step, table};
/// let steps = [Step::left_out(Actor::B, "scan out", "KMS", "no card")];
/// assert!(table(&steps).ends_with("left out: B: scan out: KMS: no card"));
/// ```
pub fn table(steps: &[Step]) -> String {
    let mut table = crate::table::new(["Step", "By", "Backend", "ms", "MB", "Copies"]);
    let mut reasons = String::new();
    for Step {
        process,
        step,
        backend,
        outcome,
    } in steps
    {
        let (milliseconds, bytes, copies) = match outcome {
            Outcome::Done {
                milliseconds,
                bytes,
                copies,
                note,
            } => {
                let mut copies = copies.map_or("not known".to_owned(), |n| n.to_string());
                if !note.is_empty() {
                    copies += &format!(" ({note})");
                }
                (format!("{milliseconds:.1}"), megabytes(*bytes), copies)
            }
            Outcome::LeftOut { left_out } => {
                reasons += &format!("\nleft out: {process}: {step}: {backend}: {left_out}");
                (String::new(), String::new(), "left out".to_owned())
            }
        };
        let number = |text| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(step),
            Cell::new(process),
            Cell::new(backend),
            number(milliseconds),
            number(bytes),
            Cell::new(copies),
        ]);
    }
    table.trim_fmt() + &reasons
}

/// Bytes in decimal units, or nothing where a step is not about any.
fn megabytes(bytes: u64) -> String {
    match bytes {
        0 => String::new(),
        // To one digit: whole numbers, so that no conversion can be wrong.
        bytes => format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Actor::A => "A",
            Actor::B => "B",
            Actor::C => "C",
            Actor::Host => "host",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_survives_the_line() {
        let step =
            Step::done(Actor::A, "write", "CPU", Instant::now(), 12).copies(Some(1), "A's own");
        let events = [
            Event::Step(step),
            Event::Step(Step::left_out(Actor::B, "draw", "EGL", "no libEGL.so.1")),
            Event::Passed { sha256: None },
            Event::Passed {
                sha256: Some("00ff".to_owned()),
            },
            Event::Shown {
                width: 1280,
                height: 800,
            },
            Event::Pattern {
                pattern: 1,
                width: 640,
                height: 480,
            },
            Event::Hop(Hop {
                process: Actor::C,
                hop: "flip".to_owned(),
                copies: true,
                frames: 250,
                dropped: 2,
                late: Some(1),
                mean_ms: 1.5,
                longest_ms: 20.25,
            }),
            Event::Cpu(Cpu::new("machine", false, Duration::from_millis(1500))),
            Event::Verdict {
                verified: "all".to_owned(),
            },
            Event::Failed {
                message: "two\nlines".to_owned(),
                bad_input: true,
            },
        ];
        let mut lines = Vec::new();
        for event in &events {
            write(&mut lines, event).unwrap();
        }
        assert_eq!(
            lines.iter().filter(|byte| **byte == b'\n').count(),
            events.len()
        );
        let mut lines = lines.as_slice();
        for event in events {
            assert_eq!(read(&mut lines).unwrap(), Some(event));
        }
        assert_eq!(read(&mut lines).unwrap(), None);
        assert!(read(&mut &b"no event\n"[..]).is_err());
    }

    #[test]
    fn sizes_are_cut_to_a_digit() {
        assert_eq!(megabytes(0), "");
        assert_eq!(megabytes(3_145_728), "3.1");
        assert_eq!(megabytes(99_999), "0.0");
    }
}
