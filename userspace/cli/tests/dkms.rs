//! `kmod/dkms.conf`: which kernels DKMS builds the module for.

use std::path::{Path, PathBuf};
use std::process::Command;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// Which of these releases DKMS builds for, by its own test in bash.
fn built(releases: &[String]) -> Vec<String> {
    let script = r#"
        . "$1" && shift
        [ -n "$BUILD_EXCLUSIVE_KERNEL" ] || exit 3
        for release; do
            [[ ! $release =~ $BUILD_EXCLUSIVE_KERNEL ]] || echo "$release"
        done
    "#;
    let output = Command::new("bash")
        .args(["-c", script, "bash"])
        .arg(repository("kmod/dkms.conf"))
        .args(releases)
        .output()
        .expect("bash, which DKMS is written in");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The first `6.1 to 7.3` after `words` in a file.
fn range(file: &str, words: &str) -> [(u32, u32); 2] {
    let text = std::fs::read_to_string(repository(file)).unwrap();
    let (_, text) = text
        .split_once(words)
        .unwrap_or_else(|| panic!("{file} should say {words:?}"));
    let words: Vec<&str> = text.split_whitespace().collect();
    let version = |word: &str| {
        let (major, minor) = word.split_once('.')?;
        let end = minor.find(|c: char| !c.is_ascii_digit());
        let minor = &minor[..end.unwrap_or(minor.len())];
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let mut ranges = words.windows(3).filter_map(|words| match words {
        [from, "to", to] => Some([version(from)?, version(to)?]),
        _ => None,
    });
    let found = ranges.next();
    found.unwrap_or_else(|| panic!("{file} should name a range of kernels"))
}

#[test]
fn debian_releases_in_range_are_built() {
    let inside = [
        "6.1.0-18-amd64",
        "6.1.0-50-armmp",
        "6.10.11+bpo-amd64",
        "6.12.107+deb13-amd64",
        "6.19.2-cloud-arm64",
        "7.0.1-1-amd64",
        "7.2.13+deb14-amd64",
        "7.3.4+deb13-amd64",
        "7.3~rc4-amd64",
        "7.3-rc4",
    ];
    let outside = [
        "5.10.0-33-amd64",
        "6.0.0-6-amd64",
        "7.4.0-1-amd64",
        "7.30.0-1-amd64",
        "6.20.0-1-amd64",
        "16.1.0-1-amd64",
        "8.6.1-amd64",
    ];
    let all: Vec<String> = inside
        .iter()
        .chain(&outside)
        .map(ToString::to_string)
        .collect();
    assert_eq!(built(&all), inside);
}

#[test]
fn range_agrees_with_header_and_docs() {
    let stated = range("kmod/compat.h", "/*");
    for (file, words) in [
        ("kmod/dkms.conf", "AUTOINSTALL"),
        ("docs/src/module.md", "One source builds for Linux"),
        ("docs/src/module.md", "DKMS skips"),
    ] {
        assert_eq!(range(file, words), stated, "{file}");
    }
    let [first, last] = stated;
    // Linux 6 ended with 6.19.
    let versions: Vec<(u32, u32)> = [(5, 19), (6, 19), (7, 40), (8, 5)]
        .iter()
        .flat_map(|&(major, end)| (0..=end).map(move |minor| (major, minor)))
        .collect();
    let release = |(major, minor): &(u32, u32)| format!("{major}.{minor}.1-amd64");
    let all: Vec<String> = versions.iter().map(release).collect();
    let inside = versions
        .iter()
        .filter(|version| (first..=last).contains(version));
    let expected: Vec<String> = inside.map(release).collect();
    assert_eq!(built(&all), expected);
}

#[test]
fn package_version_is_the_release() {
    let text = std::fs::read_to_string(repository("kmod/dkms.conf")).unwrap();
    let line = format!("PACKAGE_VERSION=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(text.lines().any(|there| there == line), "{text}");
}
