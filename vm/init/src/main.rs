//! Process 1 of the guest: brings the machine up as the host ordered in
//! [`BOOT_FILE`], then runs programs for it until it says to stop.
//!
//! The agent also runs it as a program, to read and write files for the host.
//!
//! Linked statically: it runs before there is a root file system, and must not
//! care which libc that one has.

mod account;
mod agent;
mod boot;
mod files;
mod log;

use std::io;
use std::time::Duration;

use dmashare_vm_init::{ALIVE, BOOT_FILE, Boot, Frame, Kind, Port, Ready};
use rustix::system::{RebootCommand, reboot, uname};

fn main() {
    if std::process::id() != 1 {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if let Some(status) = files::serve(&arguments) {
            std::process::exit(status);
        }
        eprintln!("vm-init: meant to be process 1 of a guest; cargo vm run boots one");
        std::process::exit(2);
    }
    if let Err(error) = run() {
        // The console, since there may be no port: the host keeps its last lines.
        eprintln!("vm-init: {error}");
    }
    power_off();
}

fn run() -> io::Result<()> {
    let kernel_seconds = uptime();
    boot::early()?;
    let orders: Boot = serde_json::from_slice(&boot::read(BOOT_FILE)?)?;
    if orders.mounts.is_empty() {
        println!("{ALIVE}");
        return Ok(());
    }
    boot::load_modules(&orders.modules)?;
    let mut port = Port::new(boot::open_port()?);
    if let Err(error) = boot::finish(&orders) {
        return Frame::data(Kind::Failed, 0, error.to_string().as_bytes()).write(&mut port);
    }
    let ready = Ready {
        release: uname().release().to_string_lossy().into_owned(),
        kernel_seconds,
        ready_seconds: uptime(),
    };
    Frame::json(Kind::Ready, 0, &ready).write(&mut port)?;
    agent::serve(port)
}

fn uptime() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now)
        .map(|up| up.as_secs_f64())
        .unwrap_or_default()
}

fn power_off() -> ! {
    rustix::fs::sync();
    // Process 1 must never return: the kernel would panic and hide the reason.
    let error = reboot(RebootCommand::PowerOff);
    eprintln!("vm-init: power off: {error:?}");
    loop {
        std::thread::park();
    }
}
