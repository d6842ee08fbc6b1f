//! Why the kernel did not take the module, and what to do.

use dmashare::Errno;

use super::modinfo::Modinfo;

/// What is known of the one who loads and of the kernel.
#[derive(Clone, Debug, Default)]
pub(super) struct Loader {
    pub(super) is_root: bool,
    /// The running kernel's.
    pub(super) release: String,
    /// The content of `/proc/sys/kernel/modules_disabled`.
    pub(super) modules_disabled: bool,
}

impl Loader {
    pub(super) fn this() -> Loader {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/modules_disabled");
        Loader {
            is_root: rustix::process::geteuid().is_root(),
            release: super::release(),
            modules_disabled: disabled.is_ok_and(|value| value.trim() == "1"),
        }
    }

    /// What helps against this answer of finit_module(2).
    pub(super) fn help(&self, answer: Errno, modinfo: &Modinfo) -> String {
        let release = &self.release;
        match answer {
            Errno::EXIST => "it is loaded already: `dmashare module status` shows it, and \
                             `dmashare module unload` makes room for another"
                .to_owned(),
            Errno::PERM | Errno::ACCESS if !self.is_root => "run as root".to_owned(),
            Errno::PERM if self.modules_disabled => {
                "this kernel takes no more modules until it boots anew (kernel.modules_disabled)"
                    .to_owned()
            }
            Errno::PERM => "a container may not load modules; nor may anyone load unsigned ones \
                            under lockdown (/sys/kernel/security/lockdown)"
                .to_owned(),
            Errno::KEYREJECTED | Errno::NOKEY | Errno::BADMSG => {
                "this kernel takes signed modules alone (Secure Boot, lockdown): sign it with a \
                 key that the machine's owner enrolled (mokutil --import), as DKMS does"
                    .to_owned()
            }
            Errno::NOEXEC => match modinfo.release.as_ref().filter(|built| *built != release) {
                Some(built) => format!(
                    "it was built for {built}, and this kernel is {release}: build it for this \
                     one by `dmashare module build`"
                ),
                None => format!(
                    "it was not built for this kernel, {release}, with its configuration and \
                     headers: build it by `dmashare module build`; dmesg says what differs"
                ),
            },
            Errno::NOENT => "this kernel lacks something that the module was built with, such as \
                             CONFIG_DMA_SHARED_BUFFER: dmesg names it"
                .to_owned(),
            Errno::OPNOTSUPP => "this kernel lets no module add a heap, which takes Linux 7.2: \
                                 leave heap=1 out"
                .to_owned(),
            Errno::INVAL => "a parameter has a value that it cannot have, or the file is damaged: \
                             dmesg says which"
                .to_owned(),
            Errno::NOSYS => "this kernel takes no modules (CONFIG_MODULES)".to_owned(),
            _ => "dmesg may say more".to_owned(),
        }
    }
}

/// What modprobe(8) writes in place of an errno.
const WORDS: [(&str, Errno); 9] = [
    ("Module already in kernel", Errno::EXIST),
    ("Operation not permitted", Errno::PERM),
    ("Permission denied", Errno::ACCESS),
    ("Key was rejected by service", Errno::KEYREJECTED),
    ("Required key not available", Errno::NOKEY),
    ("Invalid module format", Errno::NOEXEC),
    ("Exec format error", Errno::NOEXEC),
    ("Unknown symbol in module", Errno::NOENT),
    ("Operation not supported", Errno::OPNOTSUPP),
];

/// The errno in what modprobe wrote, in the language C.
pub(super) fn errno(words: &str) -> Option<Errno> {
    let known = WORDS.iter().find(|(known, _)| words.contains(known));
    known.map(|(_, errno)| *errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        let loader = Loader {
            is_root: true,
            release: "6.12.1".to_owned(),
            modules_disabled: false,
        };
        let other = Modinfo {
            release: Some("6.1.0".to_owned()),
            ..Modinfo::known()
        };
        let same = Modinfo {
            release: Some("6.12.1".to_owned()),
            ..Modinfo::known()
        };
        for (answer, modinfo, word) in [
            (Errno::EXIST, &same, "module unload"),
            (Errno::PERM, &same, "lockdown"),
            (Errno::KEYREJECTED, &same, "mokutil"),
            (Errno::NOKEY, &same, "mokutil"),
            (
                Errno::NOEXEC,
                &other,
                "built for 6.1.0, and this kernel is 6.12.1",
            ),
            (Errno::NOEXEC, &same, "dmesg"),
            (Errno::NOENT, &same, "dmesg"),
            (Errno::OPNOTSUPP, &same, "heap=1"),
            (Errno::IO, &same, "dmesg"),
        ] {
            let help = loader.help(answer, modinfo);
            assert!(help.contains(word), "{answer:?}: {help}");
        }
        let disabled = Loader {
            modules_disabled: true,
            ..loader.clone()
        };
        assert!(
            disabled
                .help(Errno::PERM, &same)
                .contains("modules_disabled")
        );
        let user = Loader {
            is_root: false,
            ..loader
        };
        assert_eq!(user.help(Errno::PERM, &same), "run as root");
    }

    #[test]
    fn modprobes_words_are_understood() {
        let words = "modprobe: ERROR: could not insert 'dmashare': Key was rejected by service\n";
        assert_eq!(errno(words), Some(Errno::KEYREJECTED));
        assert_eq!(errno("modprobe: FATAL: out of tea"), None);
    }
}
