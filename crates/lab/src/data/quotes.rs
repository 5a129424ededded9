//! Quotation marks and blanks in the text of a table, before the csv crate splits it into cells.
//!
//! Where a mark is not closed, the crate reads on to the next mark or to the end of the file, and
//! it adds text after a closing mark to the cell.
//! Both can merge several rows into one, so both are refused here.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use super::content::row_ends;
use super::delimiter;
use crate::{Error, Result};

/// The text without blanks between a delimiter and an opening quotation mark. If `delimiter` is a
/// space, also with one space between cells, and none at the ends of a row.
///
/// # Errors
///
/// A quotation mark that is never closed, and text after a closing mark. The error names the row
/// and the cell in which the quotation opens.
pub(super) fn checked<'a>(path: &Path, text: &'a str, delimiter: u8) -> Result<Cow<'a, str>> {
    let bytes = text.as_bytes();
    let mut surplus: Vec<Range<usize>> = vec![];
    let (mut at, mut cell) = (0, 1);
    while at <= bytes.len() {
        let begin = at;
        let spaced = delimiter == b' ';
        at = past(bytes, at, |byte| is_blank(byte, delimiter) || (spaced && byte == b' '));
        let ends = matches!(bytes.get(at), None | Some(b'\r' | b'\n'));
        match bytes.get(at) {
            // All spaces at the end of a row go, the one that was taken as a delimiter too.
            _ if spaced && ends && cell > 1 => surplus.push(begin - 1..at),
            Some(b'"') => surplus.push(begin..at),
            _ if spaced => surplus.push(begin..at),
            _ => {}
        }
        if bytes.get(at) == Some(&b'"') {
            let refuse = |expected, found: String| {
                let row = row_ends(&bytes[..at]) + 1;
                Err(Error::table(path, format!("row {row}, cell {cell}"), expected, found))
            };
            let Some(closed) = closing(bytes, at) else {
                let found = "a cell that goes on to the end of the file".to_owned();
                return refuse("a closing quotation mark", found);
            };
            let behind = past(bytes, closed + 1, |byte| is_blank(byte, delimiter));
            match bytes.get(behind) {
                None | Some(b'\r' | b'\n') => at = behind,
                Some(byte) if *byte == delimiter => at = behind,
                Some(_) => {
                    let row = row_ends(&bytes[..behind]) + 1;
                    let found: String = text[behind..].lines().next().unwrap_or("").into();
                    let hint = delimiter::hint_of(&text[closed + 1..]);
                    let found = super::sheet::quoted(&found);
                    return refuse(
                        "nothing between a closing quotation mark and the next cell",
                        format!("{found} in row {row}{hint} (a mark within a cell is doubled)"),
                    );
                }
            }
        }
        at = past(bytes, at, |byte| byte != delimiter && byte != b'\r' && byte != b'\n');
        cell = if bytes.get(at) == Some(&delimiter) { cell + 1 } else { 1 };
        at += 1;
    }
    surplus.retain(|range| !range.is_empty());
    Ok(without(text, &surplus))
}

/// True for a space or tab that is not the delimiter.
fn is_blank(byte: u8, delimiter: u8) -> bool {
    byte != delimiter && (byte == b' ' || byte == b'\t')
}

/// The first index from `from` on whose byte is not of the kind; the length if there is none.
fn past(bytes: &[u8], from: usize, is_of_kind: impl Fn(u8) -> bool) -> usize {
    let length = bytes[from..].iter().take_while(|byte| is_of_kind(**byte)).count();
    from + length
}

/// The index of the mark that closes the quotation which begins at `open`; `None` if there is none.
/// Marks in the text of a cell are doubled.
fn closing(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        at += bytes[at..].iter().position(|byte| *byte == b'"')?;
        if bytes.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

/// A text without some parts, which are in rising order and do not overlap.
fn without<'a>(text: &'a str, parts: &[Range<usize>]) -> Cow<'a, str> {
    if parts.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for part in parts {
        kept.push_str(&text[from..part.start]);
        from = part.end;
    }
    kept.push_str(&text[from..]);
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, delimiter: u8) -> Result<Cow<'_, str>> {
        checked(Path::new("t.csv"), text, delimiter)
    }

    #[test]
    fn legal_cells_stay_as_they_are() {
        for text in [
            "a,b\n1,2\n",
            "a,b\n\"x\ny\",2\n3,4",
            "\"a\",\"b\"\r\n\"\",\"he said \"\"no\"\"\"\r\n",
            "height,b\n5' 10\",2\n",
            "a,b\n1 \" 2,3\n",
            "\"a\" ,\"b\"\t\n",
            "",
            "\n\n",
        ] {
            assert!(matches!(check(text, b',').unwrap(), Cow::Borrowed(kept) if kept == text));
        }
    }

    #[test]
    fn a_mark_that_is_never_closed_is_refused_where_it_opens() {
        for (text, place) in [
            ("a,b\n1,2\n3,\"4\n5,6\n7,8\n", "row 3, cell 2"),
            ("a,\"b\n1,2\n", "row 1, cell 2"),
            ("a,b\r\n\r\n1, \"2\r\n", "row 3, cell 2"),
            ("a,b\n\"x\ny\",\"2\"\n1,\"\"\"\n", "row 4, cell 2"),
        ] {
            assert_eq!(
                check(text, b',').unwrap_err().to_string(),
                format!(
                    "t.csv: {place}: expected a closing quotation mark, found a cell that goes on \
                     to the end of the file"
                )
            );
        }
    }

    #[test]
    fn text_behind_a_closing_mark_is_refused_where_the_quotation_opens() {
        for (text, place, found) in [
            ("a,b\n1,\"x\"y\n", "row 2, cell 2", "\"y\" in row 2"),
            // The third row's opening mark closes the second's.
            ("a,b\n1,\"x\n2,\"y\"\n", "row 2, cell 2", "\"y\\\"\" in row 3"),
            ("a;b\n1;\"x\"2\n", "", ""),
        ] {
            let error = check(text, b',').map(|kept| kept.into_owned());
            if place.is_empty() {
                assert_eq!(error.unwrap(), text, "a mark within a cell is text");
                continue;
            }
            let expected = "nothing between a closing quotation mark and the next cell";
            assert_eq!(
                error.unwrap_err().to_string(),
                format!(
                    "t.csv: {place}: expected {expected}, found {found} (a mark within a cell is \
                     doubled)"
                )
            );
        }
        for (text, typed) in [("\"a\";\"b\"\n1;2\n", "';'"), ("\"a\" \"b\"\n1 2\n", "space")] {
            let error = check(text, b',').unwrap_err().to_string();
            assert!(error.contains(&format!("--delimiter {typed} ")), "{error}");
        }
    }

    #[test]
    fn blanks_before_a_quotation_are_left_out() {
        assert_eq!(check("a, \"b, c\"\n 1,2\n", b',').unwrap(), "a,\"b, c\"\n 1,2\n");
        assert_eq!(check("a\t \"b\"\n", b'\t').unwrap(), "a\t\"b\"\n");
    }

    #[test]
    fn several_spaces_are_one_delimiter() {
        for (text, expected) in [
            ("a b\n1   2\n", "a b\n1 2\n"),
            ("  a  b  \n  1  2", "a b\n1 2"),
            ("a \"b c\"   d \r\n\r\n  \n1 2 3 ", "a \"b c\" d\r\n\r\n\n1 2 3"),
        ] {
            assert_eq!(check(text, b' ').unwrap(), expected, "{text:?}");
        }
    }
}
