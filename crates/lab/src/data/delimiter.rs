//! The delimiter that a table seems to have, for the errors of one that was read with another.

/// Delimiters with what a person types for them.
const DELIMITERS: [(char, &str); 5] =
    [(',', "','"), (';', "';'"), ('\t', "tab"), ('|', "'|'"), (' ', "space")];

/// A hint for a header that does not fit, or in which a column was not found: the delimiter with
/// which the column is there, or with which there are more cells than one.
pub(super) fn hint(header: &[String], delimiter: char, wanted: Option<&str>) -> String {
    let line = header.join(&delimiter.to_string());
    let other = |(candidate, typed): &(char, &'static str)| {
        let cells = || line.split(*candidate).map(|cell| cell.trim().trim_matches('"'));
        let found = cells().any(|cell| Some(cell) == wanted);
        let only = header.len() == 1 && cells().count() > 1;
        (*candidate != delimiter && (found || only)).then_some((found, *typed))
    };
    let mut others: Vec<_> = DELIMITERS.iter().filter_map(other).collect();
    // One that has the column comes first, then the order of the list.
    others.sort_by_key(|(found, _)| !found);
    others.first().map_or(String::new(), |(_, typed)| seems(typed))
}

/// A hint for text that begins with another delimiter.
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
