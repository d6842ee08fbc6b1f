//! Threads that run as another user, for tests of what other users can do.

use libtest_mimic::Completion;

/// A user who attacks.
pub(crate) const STRANGER: u32 = 65534;

/// Runs a test that needs root, to have threads of other users; says so where
/// it is skipped.
pub(crate) fn needs_root(test: impl FnOnce()) -> Completion {
    match rustix::process::geteuid().is_root() {
        true => {
            test();
            Completion::Completed
        }
        false => Completion::ignored_with("needs threads of other users: run the test as root"),
    }
}

/// Runs this in a thread of its own, as another user without root's groups and
/// capabilities.
pub(crate) fn as_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            become_user(uid);
            act()
        });
        thread.join().unwrap()
    })
}

/// Changes the user of this thread alone: the C library would do so in all.
pub(crate) fn become_user(uid: u32) {
    let calls = [
        (libc::SYS_setgroups, [0, 0, 0]),
        (libc::SYS_setresgid, [uid; 3]),
        (libc::SYS_setresuid, [uid; 3]),
    ];
    for (call, [a, b, c]) in calls {
        // SAFETY: these calls take numbers, and a list of none.
        let done = unsafe { libc::syscall(call, a, b, c) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}
