//! A compiler and headers for kernels of 32-bit Arm, Debian's armhf: modules are
//! compiled for them, and never run.
//!
//! Of Debian's 32-bit architectures it is the one with kernels in every suite.

use super::apt::{Apt, Deb, Lists, Stanza};
use super::kernel::depends;
use super::toolchain::{TOOLS, suites};
use super::{Debian, Error, Kernel};

/// Debian's name for it.
pub(super) const ARCH: &str = "armhf";

/// The kernels' flavour: physical addresses have 32 bits, too.
pub(super) const FLAVOUR: &str = "-armmp";

/// make's variables for it.
pub(super) const KBUILD: [&str; 3] = [
    "ARCH=arm",
    "CROSS_COMPILE=arm-linux-gnueabihf-",
    // Plugins of 6.1's compiler are programs for Arm.
    "GCC_PLUGINS_CFLAGS=",
];

/// Chooses the packages: the headers of the same release as `kernel`, or the
/// newest of its series, bare; a cross compiler and tools that run here with what
/// they need.
///
/// # Errors
/// [`Error::No32Bit`] where the suite has none of them.
pub(super) fn decide(debian: &Debian, kernel: &Kernel, lists: Lists) -> Result<Vec<Deb>, Error> {
    let suites = suites(&kernel.suite);
    let apt = Apt::of_arch(debian, ARCH, &suites, lists)?;
    let host = Apt::new(debian, &suites, lists)?;
    let (stem, _) = kernel.release.rsplit_once('-').unwrap_or_default();
    let names = apt.names(HEADERS)?;
    for stem in candidates(stem, &names) {
        let package = format!("{HEADERS}{stem}{FLAVOUR}");
        let Some(headers) = apt.show(&package)? else {
            continue;
        };
        let Some(compiler) = compiler(&headers) else {
            continue;
        };
        let of_kind = |kind: &str| -> Vec<String> {
            let names = depends(&headers).filter(|name| name.starts_with(kind));
            names.map(str::to_owned).collect()
        };
        let mut tools = of_kind("linux-kbuild-");
        // One architecture's packages may be some days ahead of the other's.
        if tools.is_empty() || !all_known(&host, &tools)? {
            continue;
        }
        tools.push(compiler);
        tools.extend(TOOLS.map(str::to_owned));
        let mut bare = of_kind(HEADERS);
        bare.push(package);
        let mut debs = apt.alone(&bare)?;
        debs.extend(host.with_dependencies(&tools)?);
        return Ok(debs);
    }
    Err(Error::No32Bit {
        release: kernel.release.clone(),
        problem: format!(
            "Debian {} has no headers of that series for 32-bit Arm ({ARCH})",
            kernel.suite
        ),
    })
}

/// What the packages of headers begin with.
const HEADERS: &str = "linux-headers-";

fn all_known(apt: &Apt, packages: &[String]) -> Result<bool, Error> {
    for package in packages {
        if apt.show(package)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The cross compiler's package: headers depend on `gcc-14`, `gcc-16-for-host`
/// or, in bookworm, on `linux-compiler-gcc-12-arm`.
fn compiler(headers: &Stanza) -> Option<String> {
    depends(headers).find_map(|name| {
        let name = name.strip_prefix("linux-compiler-").unwrap_or(name);
        let version = name.strip_prefix("gcc-")?.split('-').next()?;
        Some(format!("gcc-{version}-arm-linux-gnueabihf"))
    })
}

/// Of the packages `names`, the releases of the series of `wanted`, without their
/// flavour: `wanted` itself first, then the newest.
fn candidates(wanted: &str, names: &[String]) -> Vec<String> {
    let series = |stem: &str| numbers(stem).into_iter().take(2).collect::<Vec<_>>();
    let mut stems: Vec<String> = names
        .iter()
        .filter_map(|name| name.strip_prefix(HEADERS)?.strip_suffix(FLAVOUR))
        .filter(|stem| !stem.ends_with("-rt") && series(stem) == series(wanted))
        .map(str::to_owned)
        .collect();
    stems.sort_by_key(|stem| (stem != wanted, std::cmp::Reverse(numbers(stem))));
    stems
}

/// The numbers in a release.
fn numbers(release: &str) -> Vec<u64> {
    let parts = release.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(releases: &[&str]) -> Vec<String> {
        let name = |release: &&str| format!("linux-headers-{release}");
        releases.iter().map(name).collect()
    }

    #[test]
    fn candidates_are_of_one_series_newest_first() {
        let all = names(&[
            "armmp",
            "6.12.99+deb13-armmp",
            "6.12.107+deb13-armmp",
            "6.12.117+deb13-armmp",
            "6.12.117+deb13-armmp-lpae",
            "6.12.117+deb13-common",
            "6.12.117+deb13-rt-armmp",
            "6.1.0-50-armmp",
            "7.2.13+deb14-armmp",
        ]);
        assert_eq!(
            candidates("6.12.107+deb13", &all),
            ["6.12.107+deb13", "6.12.117+deb13", "6.12.99+deb13"]
        );
        assert_eq!(candidates("6.1.0-47", &all), ["6.1.0-50"]);
        assert!(candidates("7.3.4+deb13", &all).is_empty());
    }

    #[test]
    fn compiler_follows_the_headers_dependency() {
        for (depends, package) in [
            ("linux-base, gcc-14", Some("gcc-14-arm-linux-gnueabihf")),
            ("gcc-16-for-host, x", Some("gcc-16-arm-linux-gnueabihf")),
            (
                "linux-kbuild-6.1 (>= 6.1.176-1), linux-compiler-gcc-12-arm",
                Some("gcc-12-arm-linux-gnueabihf"),
            ),
            ("linux-base", None),
        ] {
            let stanza = Stanza::from([("Depends".to_owned(), depends.to_owned())]);
            assert_eq!(compiler(&stanza).as_deref(), package, "{depends}");
        }
    }
}
