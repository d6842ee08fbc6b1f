//! Several hands at one operation, in turns, so that what else the machine does
//! meets them alike.

use std::time::{Duration, Instant};

use crate::Op;

/// What one hand gets before it is the next one's turn.
const TURN: Duration = Duration::from_millis(2);

/// The head of the table whose lines [`in_turns`] prints.
pub fn heading() {
    println!(
        "{:<34} {:<20} {:>12} {:>8}",
        "in turns", "who", "median ns", "ratio"
    );
}

/// A line for each hand: its median, and the median of what it took against the
/// first hand in the same turn.
pub fn in_turns(group: &mut [Op], turns: usize) {
    // The same for all: the first round of a turn finds the caches cold.
    let rounds = group.iter_mut().map(rounds_of_a_turn).max().unwrap_or(1);
    let mut times = vec![Vec::new(); group.len()];
    let mut order: Vec<usize> = (0..group.len()).collect();
    for _ in 0..turns {
        for &hand in &order {
            times[hand].push(time(&mut group[hand], rounds));
        }
        // What one leaves behind, as memory in pieces, meets its neighbours alike.
        order.reverse();
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
