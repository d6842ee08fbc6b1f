//! Text of a guest's for people and reports: without anything that a terminal obeys.

/// The text without colours, and with every other control character escaped, but for
/// line ends and tabs: `\x1b`, `\u{202e}`.
///
/// Control characters are those of Unicode, and what changes the direction of text or
/// ends lines out of sight. A backslash stays as it is.
pub(crate) fn text(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// The same for what is to be one line.
pub(crate) fn line(text: &str) -> String {
    escaped(text, |c| c == '\t')
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(length) = colour(rest) {
            rest = &rest[length..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            c if stays(c) => plain.push(c),
            '\r' if rest.starts_with('\n') && stays('\n') => {}
            c if c.is_control() => plain.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_unseen(c) => plain.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => plain.push(c),
        }
    }
    plain
}

/// The length of a sequence that does nothing but choose colours: ESC `[` ... `m`.
fn colour(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !matches!(c, '0'..='9' | ';' | ':'))?;
    parameters[end..].starts_with('m').then_some(2 + end + 1)
}

/// Whether it acts on the text around it and shows nothing itself.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let title = "a\u{1b}]0;owned\u{7}b\u{9b}2J\u{202e}c\u{2028}d\r\n\te\rf\u{7f}";
        assert_eq!(
            text(title),
            "a\\x1b]0;owned\\x07b\\x9b2J\\u{202e}c\\u{2028}d\n\te\\x0df\\x7f"
        );
        assert_eq!(line("a\nb\tc"), "a\\x0ab\tc");
        assert_eq!(text("a \\ plain ä line\n"), "a \\ plain ä line\n");
    }

    #[test]
    fn colours_are_left_out() {
        assert_eq!(text("\u{1b}[1;31mred\u{1b}[0m"), "red");
        for other in ["\u{1b}[2J", "\u{1b}[31", "\u{1b}[>4m"] {
            assert!(text(other).starts_with("\\x1b["), "{other:?}");
        }
    }
}
