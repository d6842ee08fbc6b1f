//! `cargo vm bench`: how long a guest takes here.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::show_json;
use crate::debian::Debian;
use crate::guest_options::words;
use crate::progress::Progress;
use crate::project::Project;
use crate::{Accel, Builder, Error, GuestOptions, Origin, accel};

/// What is run as the one-line command: what others are measured by, too.
const COMMAND: [&str; 2] = ["uname", "-r"];

#[derive(Args)]
pub(super) struct Options {
    /// The kernel; default: the project's
    #[arg(long, short, value_name = "NAME")]
    kernel: Option<String>,
    #[command(flatten)]
    pub(super) processor: super::Processor,
    /// Who runs its instructions, as for `cargo vm run`
    #[arg(long, value_name = "WHICH")]
    accel: Option<Accel>,
    /// Words to append to the kernel's command line, as for `cargo vm run`
    #[arg(long, value_name = "WORDS", value_parser = words)]
    append: Vec<String>,
    /// Of how many runs the median is told
    #[arg(long, short = 'n', default_value = "5", value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// As JSON, times in seconds
    #[arg(long)]
    json: bool,
}

/// Medians, in seconds.
#[derive(Serialize)]
struct Report {
    kernel: String,
    release: String,
    accelerator: &'static str,
    accelerator_because: String,
    runs: u16,
    /// From the start of QEMU to the first answer of a restored guest.
    restored_first_word: f64,
    /// The same until it has the host's folders.
    restored_ready: f64,
    /// A whole `cargo vm run -- uname -r` that restores a guest.
    restored_command: f64,
    /// From the start of QEMU to the first program of a guest that boots.
    cold_first_program: f64,
    /// A whole `cargo vm run --cold -- uname -r`.
    cold_command: f64,
    /// To keep a guest that has booted; once.
    save: Option<f64>,
    /// Why it cannot be kept, where that is so.
    not_kept_because: Option<String>,
}

pub(super) fn run(project: &Project, debian: &Debian, options: &Options) -> Result<u8, Error> {
    let kernel = options.kernel.as_ref().unwrap_or(&project.settings.kernel);
    let guest = GuestOptions {
        accel: options.accel,
        append: options.append.clone(),
        ..GuestOptions::default()
    };
    let builder = project.guest_with(debian, kernel, false, &guest)?;
    let report = measure(options, kernel, &builder)?;
    if options.json {
        show_json(&report);
    } else {
        show(&report);
    }
    Ok(0)
}

fn measure(options: &Options, kernel: &str, builder: &Builder) -> Result<Report, Error> {
    let mut progress = Progress::percent("measuring");
    let verdict = accel::choose(builder.kernel(), options.accel)?;
    builder.forget_snapshot()?;
    let first = builder.clone().boot()?;
    let (save, not_kept_because) = match first.origin() {
        Origin::Kept(took) => (Some(took.as_secs_f64()), None),
        Origin::NotKept(reason) => (None, Some(reason.clone())),
        // Another run has kept one since.
        Origin::Restored | Origin::Booted => (None, None),
    };
    let release = first.ready().release.clone();
    drop(first);
    let mut asked = vec!["--kernel".to_owned(), kernel.to_owned()];
    asked.extend(["--arch".to_owned(), options.processor.arch.to_string()]);
    if let Some(accel) = options.accel {
        asked.extend(["--accel".to_owned(), accel.to_string()]);
    }
    for words in &options.append {
        asked.extend(["--append".to_owned(), words.clone()]);
    }

    let (mut words, mut ready, mut cold) = (Vec::new(), Vec::new(), Vec::new());
    let (mut restored_commands, mut cold_commands) = (Vec::new(), Vec::new());
    for run in 1..=options.runs {
        let restored = builder.clone().boot()?;
        words.push(restored.first_word());
        ready.push(restored.boot_time());
        drop(restored);
        cold.push(builder.clone().cold(true).boot()?.boot_time());
        restored_commands.push(command(&asked, &[], &release)?);
        cold_commands.push(command(&asked, &["--cold"], &release)?);
        progress.set(u64::from(run) * 100 / u64::from(options.runs));
    }
    Ok(Report {
        kernel: kernel.to_owned(),
        release,
        accelerator: verdict.accelerator().name(),
        accelerator_because: verdict.reason,
        runs: options.runs,
        restored_first_word: median(words),
        restored_ready: median(ready),
        restored_command: median(restored_commands),
        cold_first_program: median(cold),
        cold_command: median(cold_commands),
        save,
        not_kept_because,
    })
}

/// How long the whole of a one-line command takes.
fn command(asked: &[String], options: &[&str], release: &str) -> Result<Duration, Error> {
    let failed = |source| Error::Io {
        what: "run this program itself".into(),
        source,
    };
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("run").args(asked).args(options);
    let started = Instant::now();
    let output = command
        .arg("--")
        .args(COMMAND)
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    let took = started.elapsed();
    if String::from_utf8_lossy(&output.stdout).trim() != release {
        return Err(Error::Project(format!(
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    Ok(took)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

fn show(report: &Report) {
    println!(
        "kernel {} ({}), run by {}: {}",
        report.kernel, report.release, report.accelerator, report.accelerator_because
    );
    println!("median of {} runs, in seconds:", report.runs);
    for (what, seconds) in [
        (
            "restored: first word of the guest",
            report.restored_first_word,
        ),
        (
            "restored: ready, with the host's folders",
            report.restored_ready,
        ),
        (
            "restored: `cargo vm run -- uname -r`, whole",
            report.restored_command,
        ),
        (
            "cold: ready for its first program",
            report.cold_first_program,
        ),
        (
            "cold: `cargo vm run --cold -- uname -r`, whole",
            report.cold_command,
        ),
    ] {
        println!("  {what:48} {seconds:6.2}");
    }
    match (report.save, &report.not_kept_because) {
        (Some(seconds), _) => println!(
            "  {:48} {seconds:6.2}",
            "to keep a guest that has booted, once"
        ),
        (None, Some(reason)) => println!("  not kept, and so never restored: {reason}"),
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let seconds = |all: &[u64]| all.iter().map(|s| Duration::from_secs(*s)).collect();
        assert_eq!(median(seconds(&[9, 1, 2])), 2.0);
        assert_eq!(median(seconds(&[4])), 4.0);
    }
}
