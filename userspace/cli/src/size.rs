//! Sizes as people write them.

/// A number of bytes: digits, and K, M or G for 1024, 1024² or 1024³ of them.
///
/// # Errors
/// In words, for what is no size or does not fit 64 bits.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.trim_end_matches(['K', 'k', 'M', 'm', 'G', 'g']) {
        digits if digits.len() == text.len() => (text, 0),
        digits => match &text[digits.len()..] {
            "K" | "k" => (digits, 10),
            "M" | "m" => (digits, 20),
            "G" | "g" => (digits, 30),
            _ => return Err(wrong(text)),
        },
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong(text));
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text} is more than 64 bits can count"))
}

/// Width and height in pixels, such as 1920x1080: digits, and neither of them 0.
/// `None` for what is not that.
pub(crate) fn of_picture(text: &str) -> Option<(u32, u32)> {
    let (width, height) = text.split_once('x')?;
    let side = |digits: &str| {
        let digits = digits
            .bytes()
            .all(|digit| digit.is_ascii_digit())
            .then_some(digits)?;
        digits.parse().ok().filter(|side| *side > 0)
    };
    Some((side(width)?, side(height)?))
}

fn wrong(text: &str) -> String {
    format!("{text:?} is no size; write bytes as digits, with K, M or G behind them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes() {
        for (text, size) in [
            ("0", 0),
            ("1", 1),
            ("4k", 4096),
            ("4M", 4 << 20),
            ("3G", 3 << 30),
            ("18446744073709551615", u64::MAX),
            ("17179869183G", 17179869183 << 30),
        ] {
            assert_eq!(parse(text), Ok(size), "{text}");
        }
        for text in [
            "",
            "K",
            "-1",
            "+1",
            "1.5M",
            "4MB",
            "4KK",
            "0x10",
            " 1",
            "17179869184G",
            "18446744073709551616",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
