//! Times every operation by every hand with criterion; then all hands of a group
//! in turns, and says how they compare.

use criterion::Criterion;
use dmashare_bench::turns;

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
    turns::heading();
    for group in ops.chunk_by_mut(|a, b| a.what == b.what) {
        turns::in_turns(group, TURNS);
    }
    for reason in cannot {
        println!("left out: {reason}");
    }
}
