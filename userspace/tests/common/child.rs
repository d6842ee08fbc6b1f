//! A test that runs its own program as another process, and as another user.

use std::process::{Child, Command, Stdio};

use dmashare::Errno;
use libtest_mimic::Completion;

/// What a process that is run as a child does.
const ROLE: &str = "DMASHARE_TEST_ROLE";

/// How a child ends that cannot play its role; what it wrote says why.
const CANNOT: i32 = 77;

/// A user who owns nothing, and his group.
pub(crate) const NOBODY: u32 = 65534;

/// The role and its argument, where this process is a child.
pub(crate) fn role() -> Option<(String, String)> {
    let role = std::env::var(ROLE).ok()?;
    let (role, argument) = role.split_once(' ').expect("a role has an argument");
    Some((role.to_owned(), argument.to_owned()))
}

/// Runs this program as a child.
pub(crate) fn run(role: &str, argument: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .env(ROLE, format!("{role} {argument}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for a child that asserts by itself what there is to see.
pub(crate) fn verdict(child: Child) -> Completion {
    let ended = child.wait_with_output().unwrap();
    if ended.status.code() == Some(CANNOT) {
        let reason = String::from_utf8(ended.stdout).unwrap();
        return Completion::ignored_with(reason.trim());
    }
    assert!(ended.status.success(), "the child's end: {}", ended.status);
    Completion::Completed
}

/// Makes this process one of another user, for good.
pub(crate) fn become_nobody() {
    // SAFETY: these calls take numbers and a list of none; this process has but
    // one thread.
    let done = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(NOBODY, NOBODY, NOBODY) == 0
            && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0
    };
    if !done {
        let error = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap();
        println!("this process may not become user {NOBODY} ({error}): run the test as root");
        std::process::exit(CANNOT);
    }
}
