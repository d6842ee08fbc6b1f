//! `dmashare module unload`

use dmashare::Errno;
use rustix::fs::OFlags;

use super::{BUFFERS, shown};
use crate::failure::Failure;

pub(crate) fn run() -> Result<(), Failure> {
    // Without NONBLOCK it would wait for its users, and take no new ones.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    rustix::system::delete_module(c"dmashare", flags).map_err(|answer| {
        let users = shown("refcnt").and_then(|count| count.parse().ok());
        let heap = shown("parameters/heap").is_some_and(|value| value == "Y");
        let help = help(answer, users, heap);
        Failure::failed(format!("the module: unload: {answer}; {help}"))
    })
}

fn help(answer: Errno, users: Option<u64>, heap: bool) -> String {
    match answer {
        Errno::NOENT => "it is not loaded".to_owned(),
        Errno::NOSYS => "this kernel takes no modules (CONFIG_MODULES)".to_owned(),
        Errno::PERM => "run as root".to_owned(),
        Errno::AGAIN | Errno::BUSY if heap => {
            "it was loaded with heap=1, and a heap stays until the kernel boots anew".to_owned()
        }
        Errno::AGAIN | Errno::BUSY => {
            let users = match users {
                Some(1) => "it has 1 user, an".to_owned(),
                Some(count) => format!("it has {count} users, each an"),
                None => "it has users, each an".to_owned(),
            };
            format!(
                "{users} open file of a node of its or a live buffer: {BUFFERS} lists the \
                 buffers and who made them, `fuser -v /dev/dmashare/*` who has a node open"
            )
        }
        _ => "dmesg may say more".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        for (answer, users, heap, word) in [
            (Errno::NOENT, None, false, "not loaded"),
            (Errno::NOSYS, None, false, "no modules"),
            (Errno::PERM, Some(0), false, "root"),
            (Errno::AGAIN, Some(3), false, "3 users"),
            (Errno::AGAIN, Some(1), false, "1 user, an open file"),
            (Errno::BUSY, None, false, BUFFERS),
            (Errno::AGAIN, Some(1), true, "heap=1"),
            (Errno::IO, None, false, "dmesg"),
        ] {
            let help = help(answer, users, heap);
            assert!(help.contains(word), "{answer:?}: {help}");
        }
    }
}
