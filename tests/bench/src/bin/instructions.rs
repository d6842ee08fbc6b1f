//! Counts the instructions that each operation executes in user space, by
//! valgrind's callgrind: the same on every run, whatever else the machine does.
//!
//! ```console
//! $ cargo run --release -p dmashare-bench --bin instructions
//! ```
//!
//! What the kernel does is not in it: see the benchmark `overhead` for time.

use std::collections::HashMap;
use std::process::{Command, ExitCode};

/// How often an operation is done in the shorter of two runs; what the start
/// costs falls out of their difference.
const ROUNDS: u64 = 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, what, who, rounds] = arguments.as_slice() {
        return run(what, who, rounds);
    }
    let (ops, cannot) = dmashare_bench::ops();
    let mut first: HashMap<&str, f64> = HashMap::new();
    println!(
        "{:<34} {:<20} {:>14} {:>8}",
        "what", "who", "instructions", "ratio"
    );
    for op in &ops {
        let counted = [ROUNDS, 2 * ROUNDS].map(|rounds| count(op.what, op.who, rounds));
        let [Ok(short), Ok(long)] = counted else {
            eprintln!(
                "instructions: {}",
                counted
                    .into_iter()
                    .find_map(Result::err)
                    .unwrap_or_default()
            );
            return ExitCode::FAILURE;
        };
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let each = long.saturating_sub(short) as f64 / ROUNDS as f64;
        let base = *first.entry(op.what).or_insert(each);
        println!(
            "{:<34} {:<20} {each:>14.0} {:>8.2}",
            op.what,
            op.who,
            each / base
        );
    }
    for reason in cannot {
        println!("left out: {reason}");
    }
    ExitCode::SUCCESS
}

/// One operation, so many times: what callgrind looks at.
fn run(what: &str, who: &str, rounds: &str) -> ExitCode {
    let Ok(rounds) = rounds.parse::<u64>() else {
        return ExitCode::from(2);
    };
    let (ops, _) = dmashare_bench::ops();
    let Some(mut op) = ops.into_iter().find(|op| op.what == what && op.who == who) else {
        return ExitCode::from(2);
    };
    for _ in 0..rounds {
        (op.run)();
    }
    ExitCode::SUCCESS
}

fn count(what: &str, who: &str, rounds: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([what, who, &rounds.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}; install it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("valgrind: {}: {said}", output.status));
    }
    said.lines()
        .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
        .ok_or_else(|| format!("valgrind counted nothing: {said}"))
}
