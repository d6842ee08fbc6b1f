//! Times every operation by every hand with criterion; then all hands of a group
//! in turns, so that what else the machine does meets them alike, and says how
//! they compare.

use std::time::{Duration, Instant};

use criterion::Criterion;
use dmashare_bench::Op;

/// What one hand gets before it is the next one's turn.
const TURN: Duration = Duration::from_millis(2);
const TURNS: usize = 101;

fn main() {
    let (mut ops, cannot) = dmashare_bench::ops();
    let mut criterion = Criterion::default().configure_from_args();
    for op in &mut ops {
        let mut group = criterion.benchmark_group(op.what);
        group.bench_function(op.who, |bencher| bencher.iter(|| (op.run)()));
        group.finish();
    }
    criterion.final_summary();
    println!(
        "{:<34} {:<20} {:>12} {:>8}",
        "in turns", "who", "median ns", "ratio"
    );
    for group in ops.chunk_by_mut(|a, b| a.what == b.what) {
        in_turns(group);
    }
    for reason in cannot {
        println!("left out: {reason}");
    }
}

/// A line for each hand: its median, and the median of what it took against the
/// first hand in the same turn.
fn in_turns(group: &mut [Op]) {
    let rounds: Vec<u32> = group.iter_mut().map(rounds_of_a_turn).collect();
    let mut times = vec![Vec::new(); group.len()];
    for _ in 0..TURNS {
        for (hand, op) in group.iter_mut().enumerate() {
            times[hand].push(time(op, rounds[hand]));
        }
    }
    for (hand, op) in group.iter().enumerate() {
        let ratios = times[hand].iter().zip(&times[0]);
        let ratios = ratios.map(|(time, first)| time / first).collect();
        println!(
            "{:<34} {:<20} {:>12.0} {:>8.2}",
            op.what,
            op.who,
            median(times[hand].clone()),
            median(ratios)
        );
    }
}

fn rounds_of_a_turn(op: &mut Op) -> u32 {
    let mut rounds = 1;
    while time(op, rounds) * f64::from(rounds) < TURN.as_secs_f64() * 1e9 && rounds < 1 << 20 {
        rounds *= 2;
    }
    rounds
}

/// What one operation takes, in nanoseconds, in so many.
fn time(op: &mut Op, rounds: u32) -> f64 {
    let begun = Instant::now();
    for _ in 0..rounds {
        (op.run)();
    }
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(rounds)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
