//! Text of others, made fit to be shown.

/// Whether a character can be shown as it is: it is no control character, ends
/// no line, and does not reorder or hide what stands around it.
///
/// `U+2028` and `U+2029` end a line as `\n` does, and the bidirectional controls
/// have a text look like another one.
pub(crate) fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// A text as it can be shown. What cannot is escaped as in Rust, and so is the
/// backslash: an escape is told from a text that looks like one.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_printable(c) && c != '\\' {
            true => shown.push(c),
            false => shown.extend(c.escape_default()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_is_unambiguous() {
        for (text, shown) in [
            ("/memfd:grün 64×48", "/memfd:grün 64×48"),
            ("a\nb\u{1b}[31m\u{7f}\u{9b}", r"a\nb\u{1b}[31m\u{7f}\u{9b}"),
            (r"a\nb", r"a\\nb"),
            ("user\u{202e}txt\u{2066}", r"user\u{202e}txt\u{2066}"),
            ("a\u{2028}b\u{2029}c\u{85}", r"a\u{2028}b\u{2029}c\u{85}"),
            ("a\u{200b}\u{feff}\u{e0041}", r"a\u{200b}\u{feff}\u{e0041}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
