//! `dmashare bench`: what it costs to hand a frame to another process, by its
//! handle and by copies.
//!
//! Two real processes; the frame is there, and the clock runs from the moment
//! the producer begins to hand it over until it hears that the consumer has it.
//! What a consumer does with a frame is a matter of its own: an fd is handed over
//! untouched, as to a GPU or a screen, and read.

mod consumer;
mod measure;
mod plot;
mod producer;
mod way;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::told;

pub(crate) use consumer::Options as ConsumerOptions;
pub(crate) use consumer::run as consume;
pub(crate) use way::Way;

/// What is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// How many frames a way and size
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub(crate) frames: u32,
    /// Draw the result into this file, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// A size of frames, 4 bytes a pixel.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Size {
    pub(crate) name: &'static str,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

const SIZES: [Size; 2] = [
    Size {
        name: "1080p",
        width: 1920,
        height: 1080,
    },
    Size {
        name: "4K",
        width: 3840,
        height: 2160,
    },
];

impl Size {
    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * 4
    }
}

/// What one way took for one size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) way: Way,
    pub(crate) size: &'static str,
    /// The median time to hand over a frame, in microseconds.
    pub(crate) us: f64,
    /// The time that 19 of 20 frames did not exceed, in microseconds.
    pub(crate) us_95: f64,
    /// CPU time of both processes for a frame, in microseconds.
    pub(crate) cpu_us: f64,
    /// How much of one CPU 60 frames a second take.
    pub(crate) cpu_at_60: f64,
    /// What is read from and written to memory for 60 frames a second, in
    /// GB/s, by the number of copies that the way makes.
    pub(crate) traffic_at_60: f64,
    /// The time against handing over by fd, untouched.
    pub(crate) times_fd: f64,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut rows: Vec<Row> = Vec::new();
    for size in SIZES {
        let mut base = None;
        for way in Way::ALL {
            if !options.json {
                eprintln!("{}: {way} …", size.name);
            }
            let taken = producer::measure(way, size, options.frames)?;
            let base = *base.get_or_insert(taken.us);
            rows.push(Row {
                way,
                size: size.name,
                us: taken.us,
                us_95: taken.us_95,
                cpu_us: taken.cpu_us,
                cpu_at_60: taken.cpu_us * 60.0 / 1e6,
                traffic_at_60: way.traffic(size.bytes()) * 60.0 / 1e9,
                times_fd: taken.us / base,
            });
        }
    }
    match options.json {
        true => told::json(&rows)?,
        false => told::lines(&[table(&rows)])?,
    }
    // Last: what was measured is not lost where the picture cannot be written.
    match &options.svg {
        Some(path) => plot::draw(path, &rows),
        None => Ok(()),
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = crate::table::new([
        "Frame",
        "Handed over by",
        "Median",
        "95 %",
        "CPU a frame",
        "CPU at 60 fps",
        "Memory at 60 fps",
        "Against fd",
    ]);
    for row in rows {
        table.add_row([
            row.size.to_owned(),
            row.way.to_string(),
            format!("{:.0} us", row.us),
            format!("{:.0} us", row.us_95),
            format!("{:.0} us", row.cpu_us),
            format!("{:.1} %", row.cpu_at_60 * 100.0),
            format!("{:.2} GB/s", row.traffic_at_60),
            format!("{:.1}x", row.times_fd),
        ]);
    }
    table.to_string()
}
