//! Which programs a busybox is.

/// How the list of them begins, in the program: each name ends in a zero byte.
const FIRST: &[u8] = b"[\0[[\0";

/// The names of the programs that the busybox with these bytes is, or none where
/// it has no such list. Read, and not asked of `busybox --list`: it may be built
/// for another processor.
pub(super) fn applets(program: &[u8]) -> Vec<&str> {
    let starts = program
        .windows(FIRST.len())
        .position(|window| window == FIRST);
    let Some(start) = starts else {
        return Vec::new();
    };
    let mut applets: Vec<&str> = Vec::new();
    for name in program[start..].split(|byte| *byte == 0) {
        // An empty name ends it; it is in order, since busybox searches it so.
        match std::str::from_utf8(name) {
            Ok(name) if applets.last().is_none_or(|last| *last < name) && !name.is_empty() => {
                applets.push(name);
            }
            _ => break,
        }
    }
    applets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_ends_where_the_order_does() {
        let ended = b"\xc0\xae [\0[[\0acpid\0ash\0zcat\0\0more\0";
        assert_eq!(applets(ended), ["[", "[[", "acpid", "ash", "zcat"]);
        let unordered = b"[\0[[\0zcat\0acpid\0";
        assert_eq!(applets(unordered), ["[", "[[", "zcat"]);
        assert_eq!(applets(b"[\0[[\0ar\0\xff\xfe\0"), ["[", "[[", "ar"]);
        assert!(applets(b"\x7fELF no list").is_empty());
    }
}
