//! Text of a user and numbers, escaped or formatted for HTML, pictures and the shell.

/// Escapes a text for HTML, between tags and in quoted attributes; see also [`plain`].
pub(super) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A text with U+FFFD in place of characters that affect the text around them: control characters,
/// those that XML does not allow, and those that change the direction of a line.
pub(super) fn plain(text: &str) -> String {
    let controls = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}')
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
            || matches!(c, '\u{fffe}' | '\u{ffff}')
    };
    text.chars().map(|c| if controls(c) { '\u{fffd}' } else { c }).collect()
}

/// The first characters of a text, at most `most`, the last an ellipsis if the text is cut.
pub(super) fn short(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// A text as one word of a shell command, in quotes if needed.
pub(super) fn word(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/._-=+,:@".contains(c);
    match !text.is_empty() && text.chars().all(harmless) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// A number in `digits` significant digits or, if these are more, all digits before the point;
/// without trailing zeros after the point. Sizes below 1e-4, and from 1e7 on, have a power of 10.
pub(super) fn number(value: f64, digits: usize) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".to_owned();
    }
    if !size.is_finite() {
        return value.to_string();
    }
    if !(1e-4..1e7).contains(&size) {
        let places = digits.saturating_sub(1);
        return format!("{value:.places$e}");
    }
    let before = size.log10().floor() as i32 + 1;
    let places = (digits as i32 - before).max(0) as usize;
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_a_tag_or_an_attribute() {
        let hostile = "</td><script>alert('1')</script>\" onload=\"x\" &amp; \u{1b}[31m\u{202e}";
        let escaped = html(hostile);
        let expected = "&lt;/td&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot; \
                        onload=&quot;x&quot; &amp;amp; \u{fffd}[31m\u{fffd}";
        assert_eq!(escaped, expected);
        assert_eq!(plain("a\nb\u{0}ä\u{ffff}"), "a\u{fffd}b\u{fffd}ä\u{fffd}");
    }

    #[test]
    fn a_number_has_its_digits() {
        let shown = [0.0, 0.018607, 1234.56, 5.0, 12.0, 1e-9, 2.5e8, -0.25, f64::NAN];
        let shown = shown.map(|value| number(value, 3));
        let expected = ["0", "0.0186", "1235", "5", "12", "1.00e-9", "2.50e8", "-0.25", "NaN"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_word_stays_one() {
        assert_eq!(word("runs/a-1.0"), "runs/a-1.0");
        assert_eq!(word("it's; rm -rf $HOME"), r"'it'\''s; rm -rf $HOME'");
        assert_eq!(word(""), "''");
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!(short("äbcd", 4), "äbcd");
    }
}
