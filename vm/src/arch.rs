//! The processors that a guest can have, and what depends on them.

use clap::ValueEnum;

/// The processor that a guest has, named as `uname -m` names it.
///
/// ```
/// use dmashare_vm::Arch;
///
/// assert_eq!(Arch::Aarch64.to_string(), "aarch64");
/// assert_eq!(Arch::Aarch64.debian(), "arm64");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Arch {
    /// x86-64, Debian's amd64.
    #[default]
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    /// 64-bit Arm, Debian's arm64.
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
}

impl Arch {
    /// What this program is built for, and what it can run: copies of the tools,
    /// compilers, and their packages.
    pub(crate) const HOST: Arch = Arch::X86_64;

    /// What Debian calls it.
    #[must_use]
    pub const fn debian(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Aarch64 => "arm64",
        }
    }

    /// What the names in a cache end in: nothing where they are older than the
    /// second architecture.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Arch::X86_64 => "",
            Arch::Aarch64 => "-arm64",
        }
    }

    /// The QEMU that boots it.
    pub(crate) const fn qemu(self) -> &'static str {
        match self {
            Arch::X86_64 => "qemu-system-x86_64",
            Arch::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// The machine.
    pub(crate) const fn machine(self) -> &'static [&'static str] {
        match self {
            Arch::X86_64 => &["-machine", "q35", "-vga", "none"],
            // No screen of its own: it has what `-device` says. Nor ROMs of
            // devices: they are x86 code, in packages that it does not need.
            Arch::Aarch64 => &[
                "-machine",
                "virt,gic-version=3",
                "-global",
                "pci-device.romfile=",
            ],
        }
    }

    /// The processor that these kernels boot on under emulation.
    pub(crate) const fn emulated(self) -> &'static str {
        match self {
            // Of all models the fastest.
            Arch::X86_64 => "EPYC",
            Arch::Aarch64 => "cortex-a72",
        }
    }

    /// What its kernels are told beside what all are: the machine's serial line.
    ///
    /// On a busy host the clock that an x86-64 kernel tests at its start can be
    /// late, and it panics ("IO-APIC + timer doesn't work"): that test is left
    /// out.
    pub(crate) const fn kernel_words(self) -> &'static str {
        match self {
            Arch::X86_64 => "console=ttyS0 no_timer_check",
            Arch::Aarch64 => "console=ttyAMA0",
        }
    }

    /// The option that asks for it, where one is needed.
    pub(crate) const fn option(self) -> &'static str {
        match self {
            Arch::X86_64 => "",
            Arch::Aarch64 => " --arch aarch64",
        }
    }

    /// The C compiler for it on [`Arch::HOST`].
    pub(crate) const fn compiler(self) -> &'static str {
        match self {
            Arch::X86_64 => "gcc",
            Arch::Aarch64 => "aarch64-linux-gnu-gcc",
        }
    }

    /// The Debian package of that.
    pub(crate) const fn compiler_package(self) -> &'static str {
        match self {
            Arch::X86_64 => "gcc",
            Arch::Aarch64 => "gcc-aarch64-linux-gnu",
        }
    }

    /// What Rust calls programs for it, as Debian's roots run them.
    pub(crate) const fn rust(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64-unknown-linux-gnu",
            Arch::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// What the kernel's makefiles are to know to build for it on [`Arch::HOST`].
    pub(crate) const fn kbuild(self) -> &'static [&'static str] {
        match self {
            Arch::X86_64 => &[],
            Arch::Aarch64 => &["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"],
        }
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        })
    }
}
