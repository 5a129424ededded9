//! The delimiter that a table seems to have, for the errors of one that was read with another.

/// Delimiters, with what a user types for each in a shell.
const DELIMITERS: [(char, &str); 5] =
    [(',', "','"), (';', "';'"), ('\t', "tab"), ('|', "'|'"), (' ', "space")];

/// A hint for a header that does not fit the rows, or that lacks the column `wanted`: another
/// delimiter with which the column is there or, for a header of one cell, with which there are
/// several cells. Empty if there is no such delimiter.
pub(super) fn hint(header: &[String], delimiter: char, wanted: Option<&str>) -> String {
    let line = header.join(&delimiter.to_string());
    let other = |(candidate, typed): &(char, &'static str)| {
        let cells = || line.split(*candidate).map(|cell| cell.trim().trim_matches('"'));
        let found = cells().any(|cell| Some(cell) == wanted);
        let only = header.len() == 1 && cells().count() > 1;
        (*candidate != delimiter && (found || only)).then_some((found, *typed))
    };
    let mut others: Vec<_> = DELIMITERS.iter().filter_map(other).collect();
    // Delimiters with which the column is there come first, then the order of the list decides.
    others.sort_by_key(|(found, _)| !found);
    others.first().map_or(String::new(), |(_, typed)| seems(typed))
}

/// A hint for text that begins with a delimiter of [`DELIMITERS`]; empty for other text.
pub(super) fn hint_of(text: &str) -> String {
    let is_first = |(candidate, _): &&(char, &str)| text.starts_with(*candidate);
    DELIMITERS.iter().find(is_first).map_or(String::new(), |(_, typed)| seems(typed))
}

fn seems(typed: &str) -> String {
    format!("; if other characters are between the cells, --delimiter {typed} names them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hinted(header: &[&str], delimiter: char, wanted: &str) -> String {
        let header: Vec<_> = header.iter().map(|&name| name.to_owned()).collect();
        let hint = hint(&header, delimiter, Some(wanted));
        hint.split("--delimiter ")
            .nth(1)
            .map_or("none", |rest| rest.split(' ').next().unwrap())
            .into()
    }

    #[test]
    fn the_delimiter_that_has_the_column_is_named() {
        for (header, delimiter, wanted, expected) in [
            (&["a;b;c"][..], ',', "c", "';'"),
            (&["a\tb, in mm\tc"], ',', "b, in mm", "tab"),
            (&["a;b", "c;d"], ',', "b,c", "';'"),
            (&["Chins Situps Jumps"], ',', "Jumps", "space"),
            (&["a,b,c"], ';', "b", "','"),
            (&["a|b"], ',', "x", "'|'"),
            // The column decides over the order.
            (&["sepal length;sepal width"], ',', "sepal width", "';'"),
            (&["a", "b"], ',', "c", "none"),
            (&["alone"], ',', "c", "none"),
        ] {
            assert_eq!(hinted(header, delimiter, wanted), expected, "{header:?}");
        }
    }
}
