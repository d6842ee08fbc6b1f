//! The way of a camera's frames, as tables.

use comfy_table::{Cell, CellAlignment};

use super::{Cpu, Hop};

/// What became of the frames at each hop, and what it took of the CPUs: with
/// copies beside it where both were run.
pub(super) fn table(hops: &[Hop], cpus: &[Cpu]) -> String {
    let copied = hops.iter().any(|hop| hop.copies);
    let mut out = String::new();
    for copies in [false, true] {
        let mut these: Vec<&Hop> = hops.iter().filter(|hop| hop.copies == copies).collect();
        // As frames go, and not as the processes came to their ends.
        these.sort_by_key(|hop| hop.process);
        if these.is_empty() {
            continue;
        }
        if copied {
            out += match copies {
                false => "Without copies:\n",
                true => "\n\nWith a copy into and out of every process:\n",
            };
        }
        out += &of_hops(&these);
    }
    format!("{out}\n\n{}", of_cpus(hops, cpus))
}

fn of_hops(hops: &[&Hop]) -> String {
    let mut table = crate::table::new([
        "Hop",
        "By",
        "Frames",
        "Mean ms",
        "Longest ms",
        "Dropped",
        "Late",
    ]);
    for hop in hops {
        table.add_row([
            Cell::new(&hop.hop),
            Cell::new(hop.process),
            number(hop.frames.to_string()),
            number(format!("{:.1}", hop.mean_ms)),
            number(format!("{:.1}", hop.longest_ms)),
            number(hop.dropped.to_string()),
            number(hop.late.map_or(String::new(), |late| late.to_string())),
        ]);
    }
    table.trim_fmt()
}

/// CPU seconds, and milliseconds for each frame on the screen: runs that show
/// more frames work more.
fn of_cpus(hops: &[Hop], cpus: &[Cpu]) -> String {
    let frames = |copies| {
        let shown = hops
            .iter()
            .filter(|hop| hop.copies == copies && hop.hop == "flip");
        shown.map(|hop| hop.frames).next().unwrap_or(0)
    };
    let a_frame = |cpu: &Cpu| cpu.seconds * 1e3 / f64::from(frames(cpu.copies).max(1));
    let copied = cpus.iter().any(|cpu| cpu.copies);
    let mut these: Vec<&Cpu> = cpus.iter().filter(|cpu| !cpu.copies).collect();
    these.sort_by(|one, other| one.of.cmp(&other.of));
    let mut header = vec!["CPU of", "s", "ms a frame"];
    if copied {
        header.extend(["with copies: s", "ms a frame", "ratio"]);
    }
    let mut table = crate::table::new(header);
    for cpu in these {
        let mut row = vec![
            Cell::new(&cpu.of),
            number(format!("{:.2}", cpu.seconds)),
            number(format!("{:.1}", a_frame(cpu))),
        ];
        let other = cpus.iter().find(|other| other.copies && other.of == cpu.of);
        if let Some(other) = other {
            row.extend([
                number(format!("{:.2}", other.seconds)),
                number(format!("{:.1}", a_frame(other))),
                number(match cpu.seconds > 0.0 {
                    true => format!("{:.2}", a_frame(other) / a_frame(cpu)),
                    false => String::new(),
                }),
            ]);
        }
        table.add_row(row);
    }
    table.trim_fmt()
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Actor;
    use super::*;

    fn flip(copies: bool, frames: u32) -> Hop {
        Hop {
            process: Actor::C,
            hop: "flip".to_owned(),
            copies,
            frames,
            dropped: 0,
            late: Some(2),
            mean_ms: 1.25,
            longest_ms: 9.0,
        }
    }

    #[test]
    fn two_runs_stand_side_by_side() {
        let hops = [flip(false, 100), flip(true, 50)];
        let spent = |copies, seconds| Cpu::new("machine", copies, Duration::from_secs(seconds));
        let both = table(&hops, &[spent(false, 2), spent(true, 3)]);
        let last = both.lines().last().unwrap();
        let words: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(words, ["machine", "2.00", "20.0", "3.00", "60.0", "3.00"]);

        let one = table(&hops[..1], &[spent(false, 2)]);
        assert!(!one.contains("copies"), "{one}");
    }
}
