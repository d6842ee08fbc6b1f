//! Whose memory it is: the cgroup's of the process that asked.

use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::{Completion, Trial};
use rustix::io::Errno;

use crate::cgroup::{Group, with_group};
use crate::device::{Alloc, CONTIGUOUS, Device, MIB, WRITE_COMBINED};
use crate::forked::in_another_process;
use crate::{ensure, test_or_skip, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![test_or_skip(
        "module::charges_the_callers_cgroup",
        charges_the_callers_cgroup,
    )]
}

fn charges_the_callers_cgroup() -> Result<Completion, String> {
    with_group("memory", charges)
}

fn charges(group: &Group) -> Verdict {
    group.set("memory.max", 24 * MIB)?;
    in_another_process(|| {
        group.enter()?;
        let device = Device::open()?;
        for (size, flags) in [
            (8 * MIB, 0),
            (8 * MIB, WRITE_COMBINED),
            (4 * MIB, CONTIGUOUS),
            (3 * MIB, CONTIGUOUS),
        ] {
            let alloc = Alloc::new(size).flags(flags);
            let before = group.used()?;
            let made = device.alloc(alloc).map_err(text)?;
            let used = group.used()?;
            // A processor may have taken a little in advance.
            let charged = used.saturating_sub(before);
            ensure(charged.abs_diff(size) <= MIB / 2, || {
                format!("{charged} bytes charged for {alloc:?}")
            })?;
            drop(made);
            held::comes_back_to(true, || Ok(group.used()?.abs_diff(before) <= MIB / 2))?;
        }
        for max_chunk in [0, crate::device::PAGE] {
            let alloc = Alloc::new(32 * MIB).max_chunk(max_chunk);
            let answer = device.alloc(alloc).map(drop);
            ensure(answer == Err(Errno::NOMEM), || {
                format!("32 MiB in a cgroup of 24, {max_chunk}: {answer:?}, expected ENOMEM")
            })?;
        }
        device.alloc(Alloc::new(MIB)).map(drop).map_err(text)
    })?;
    group.has_killed_nothing()
}
