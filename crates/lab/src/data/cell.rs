//! The meaning of a cell: no value, a number, or yes or no.

use std::borrow::Cow;

/// The marks of cells without a value, in lower case.
const MISSING: [&str; 8] = ["", "na", "n/a", "#n/a", "<na>", "nan", "null", "?"];

/// True if a cell has no value: it is empty, or has a mark for a missing value, such as `NA`.
pub(super) fn is_missing(text: &str) -> bool {
    text.len() <= 4 && MISSING.contains(&text.to_ascii_lowercase().as_str())
}

/// 1 for `true` and `yes`, 0 for `false` and `no`, in upper or lower case; `None` for other text.
pub(super) fn truth(text: &str) -> Option<f64> {
    let is = |word| text.eq_ignore_ascii_case(word);
    match text {
        _ if is("true") || is("yes") => Some(1.0),
        _ if is("false") || is("no") => Some(0.0),
        _ => None,
    }
}

/// The text with a decimal point in place of its decimal comma, if `delimiter` is a semicolon.
///
/// Programs that write decimal commas separate cells by semicolons. With another delimiter a comma
/// may separate thousands, and the text stays as it is. So does a text with several commas or with
/// a point after the comma.
pub(super) fn with_point(text: &str, delimiter: char) -> Cow<'_, str> {
    match text.split_once(',') {
        Some((whole, part)) if delimiter == ';' && !part.contains(['.', ',']) => {
            Cow::Owned(format!("{whole}.{part}"))
        }
        _ => Cow::Borrowed(text),
    }
}

/// For an error or a note on texts: a hint that they are numbers with a sign such as `%`; empty if
/// this text is not.
pub(super) fn number_hint(text: &str) -> &'static str {
    let signs = ['%', '$', '€', '£', '¥', ',', '\'', ' ', '\u{a0}'];
    let mut bare = text.replace(signs, "");
    if bare.matches('.').count() > 1 {
        bare = bare.replace('.', "");
    }
    match bare.len() != text.len() && bare.parse::<f64>().is_ok() {
        true => {
            "; if these are numbers, write them without %, currency signs and separators of thousands"
        }
        false => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_missing_values_are_known() {
        for mark in ["", "NA", "na", "N/A", "nan", "NaN", "NULL", "null", "?", "#N/A", "<NA>"] {
            assert!(is_missing(mark), "{mark}");
        }
        // An element, a word, a number, a name of some people.
        for value in ["Na2", "None", "0", "no", "-", "Nan Li", "nano"] {
            assert!(!is_missing(value), "{value}");
        }
    }

    #[test]
    fn words_of_truth_are_numbers() {
        for (words, expected) in [
            (["True", "TRUE", "yes", "Yes"], Some(1.0)),
            (["False", "false", "no", "NO"], Some(0.0)),
            (["", "1", "y", "truth"], None),
        ] {
            assert!(words.iter().all(|word| truth(word) == expected), "{words:?}");
        }
    }

    #[test]
    fn decimal_commas_stand_between_semicolons() {
        for (text, delimiter, expected) in [
            ("-1,25", ';', "-1.25"),
            ("1,25", '\t', "1,25"),
            ("1,234,567", ';', "1,234,567"),
            ("1,234.5", ';', "1,234.5"),
            ("1.5", ';', "1.5"),
        ] {
            assert_eq!(with_point(text, delimiter), expected);
        }
    }
}
