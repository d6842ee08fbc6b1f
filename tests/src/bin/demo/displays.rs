//! Which of the guest's displays the host looks at.

/// QEMU's screendump shows the first display. Puts there the one whose driver
/// takes a frame from another on the kernel of this release: before Linux 7,
/// bochs does not.
pub(crate) fn put_importing_first(devices: &mut [String], release: &str) {
    let major = release.split('.').next().and_then(|word| word.parse().ok());
    let first = match major {
        Some(0..7) => "cirrus-vga",
        _ => "bochs-display",
    };
    // The others keep their order.
    devices.sort_by_key(|device| device.split(',').next() != Some(first));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_the_one_that_imports() {
        let all = ["virtio-rng-pci", "bochs-display,id=a", "cirrus-vga"];
        for (release, first) in [
            ("6.12.107-amd64", "cirrus-vga"),
            ("7.2.13-amd64", "bochs-display,id=a"),
        ] {
            let mut devices = all.map(str::to_owned);
            put_importing_first(&mut devices, release);
            assert_eq!(devices[0], first, "{release}");
        }
    }
}
