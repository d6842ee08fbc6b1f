//! Many guests in a row: none is taken for another's end, and none stays.
//!
//! `VM_SOAK_ROUNDS=40 cargo test -p dmashare-vm --test soak -- --ignored --nocapture`

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dmashare_vm::debian::{Kernel, Root, build_module};
use dmashare_vm::{Builder, Error, Exit, Origin, Output, Vm};
use rustix::process::{Pid, Signal, kill_process};

use common::{PACKAGES, debian, kernel_name};

/// How many rounds, where `VM_SOAK_ROUNDS` does not say.
const ROUNDS: usize = 200;

/// What is not to hang has this long: others may use the machine, too.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a guest comes to, in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Pass,
    Status,
    Signal,
    Panic,
    Oops,
    OutOfMemory,
    Hang,
    QemuKilled,
}

const ENDS: [End; 8] = [
    End::Pass,
    End::Status,
    End::Signal,
    End::Panic,
    End::Oops,
    End::OutOfMemory,
    End::Hang,
    End::QemuKilled,
];

impl End {
    /// What makes a guest end so.
    fn script(self, module: &Path) -> String {
        match self {
            End::Pass => "echo passed".into(),
            End::Status => "exit 3".into(),
            End::Signal => "kill -TERM $$".into(),
            End::Panic => "echo c > /proc/sysrq-trigger".into(),
            End::Oops => format!("insmod {}", module.display()),
            // The killer itself: a guest that is short of memory reads its programs
            // again and again for minutes before.
            End::OutOfMemory => "echo f > /proc/sysrq-trigger; sleep 1000".into(),
            End::Hang | End::QemuKilled => "sleep 1000".into(),
        }
    }

    fn deadline(self) -> Duration {
        match self {
            End::Hang => Duration::from_secs(2),
            _ => PATIENCE,
        }
    }

    fn is(self, verdict: &Result<Output, Error>) -> bool {
        match (self, verdict) {
            (End::Pass, Ok(output)) => output.success() && output.stdout == b"passed\n",
            (End::Status, Ok(output)) => output.exit == Exit::Code(3),
            (End::Signal, Ok(output)) => output.exit == Exit::Signal(15),
            (End::Panic, Err(Error::Panic { console, .. })) => {
                console.contains("sysrq triggered crash")
            }
            (End::Oops, Err(Error::Oops { console, .. })) => {
                console.contains("NULL pointer dereference")
            }
            (End::OutOfMemory, Err(Error::OutOfMemory { .. }))
            | (End::Hang, Err(Error::Hang { .. })) => true,
            (End::QemuKilled, Err(Error::QemuEnded { reason, .. })) => reason.contains("signal: 9"),
            _ => false,
        }
    }
}

/// One guest from its start to its end; where it came from, or what is wrong with it.
fn round(builder: &Builder, module: &Path, end: End) -> Result<Origin, String> {
    let vm = builder.clone().boot().map_err(|error| error.to_string())?;
    let origin = vm.origin().clone();
    let verdict = run(&vm, module, end);
    if !end.is(&verdict) {
        return Err(format!("{verdict:?}"));
    }
    // One that is none the worse for it can go down in order.
    match verdict {
        Ok(_) => vm.power_off().map_err(|error| error.to_string())?,
        Err(_) => drop(vm),
    }
    Ok(origin)
}

fn run(vm: &Vm, module: &Path, end: End) -> Result<Output, Error> {
    let command = vm
        .command("sh")
        .args(["-c", &end.script(module)])
        .deadline(end.deadline());
    if end != End::QemuKilled {
        return command.output();
    }
    let process = command.spawn()?;
    for pid in children() {
        kill_process(pid, Signal::KILL).expect("it runs");
    }
    loop {
        process.next_event()?;
    }
}

/// This process's, which are QEMUs.
fn children() -> Vec<Pid> {
    let tasks = entries("/proc/self/task");
    let lists = tasks.filter_map(|task| fs::read_to_string(task.join("children")).ok());
    let pids = lists.flat_map(|list| {
        let pids = list.split_whitespace().map(|pid| pid.parse().unwrap());
        pids.collect::<Vec<i32>>()
    });
    pids.filter_map(Pid::from_raw).collect()
}

fn entries(folder: &str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| entry.path())
}

/// What there is of this process: open files, threads, children.
fn belongings() -> (usize, usize, usize) {
    let [files, threads] = ["fd", "task"].map(|of| entries(&format!("/proc/self/{of}")).count());
    (files, threads, children().len())
}

#[test]
#[ignore = "takes minutes"]
fn each_guest_gets_its_own_verdict() {
    let rounds = std::env::var("VM_SOAK_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let kernel = Kernel::prepare(debian(), &kernel_name()).expect("a kernel");
    let root = Root::prepare(debian(), "trixie", &PACKAGES).expect("a root");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oops");
    let module = build_module(debian(), &kernel, &source).expect("the module builds");
    let builder = Builder::new(kernel, root.image)
        .memory_mib(512)
        .share(module.parent().unwrap())
        .boot_deadline(PATIENCE);
    // Where there is no snapshot yet, this makes it.
    drop(builder.clone().boot().expect("the guest boots"));
    let before = belongings();

    let mut restored = 0;
    let mut wrong = Vec::new();
    let mut times: BTreeMap<End, Vec<Duration>> = BTreeMap::new();
    for (number, end) in ENDS.into_iter().cycle().take(rounds).enumerate() {
        let started = Instant::now();
        match round(&builder, &module, end) {
            Ok(origin) => restored += usize::from(origin == Origin::Restored),
            Err(why) => {
                println!("round {number}, {end:?}: {why}");
                wrong.push((number, end));
            }
        }
        times.entry(end).or_default().push(started.elapsed());
    }
    for (end, times) in &mut times {
        times.sort();
        let median = times[times.len() / 2].as_secs_f32();
        println!("{end:?}: {} rounds, {median:.1} s each", times.len());
    }
    println!("{restored} of {rounds} guests were restored");
    assert!(wrong.is_empty(), "of {rounds} rounds wrong: {wrong:?}");
    // A thread that was waited for may be listed for a moment more.
    let deadline = Instant::now() + Duration::from_secs(10);
    while belongings() != before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(belongings(), before, "files, threads, children");
}
