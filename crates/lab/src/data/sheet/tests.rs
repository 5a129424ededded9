use proptest::prelude::*;

use super::*;

fn read(text: &str, reading: &Reading) -> Result<Sheet> {
    Sheet::parse(Path::new("t.csv"), text.as_bytes(), reading)
}

fn parse(text: &str) -> Result<Sheet> {
    read(text, &Reading::default())
}

fn separated(delimiter: char) -> Reading {
    Reading { delimiter, ..Reading::default() }
}

fn without_header() -> Reading {
    Reading { header: false, ..Reading::default() }
}

fn refusal(text: &str) -> String {
    parse(text).err().unwrap().to_string()
}

#[test]
fn cells_are_trimmed_and_a_mark_in_front_is_dropped() {
    let sheet = parse("\u{feff} a ,b\n 1 ,\" x, \"\"y\"\" \"\n").unwrap();
    assert_eq!(sheet.names(), ["a", "b"]);
    assert_eq!(sheet.number(0, 0).unwrap(), 1.0);
    assert_eq!(sheet.cell(0, 1), "x, \"y\"");
}

#[test]
fn rows_are_counted_as_in_a_text_editor() {
    for end in ["\n", "\r\n", "\r"] {
        let rows = ["a,b", "1,2", "", "", "\"x", "y\",3", "4,5", "", "6,7"];
        let sheet = parse(&rows.join(end)).unwrap();
        let numbers: Vec<_> = (0..sheet.len()).map(|row| sheet.row_number(row)).collect();
        assert_eq!(numbers, [2, 5, 7, 9], "rows end with {end:?}");
    }
    let after_blanks = parse("\n\na,b\n1,2\n").unwrap();
    assert_eq!(after_blanks.row_number(0), 4);
}

#[test]
fn what_is_no_sheet_is_refused() {
    assert_eq!(refusal(""), "t.csv: row 1: expected a header row, found an empty file");
    assert_eq!(
        refusal("a,b\n"),
        "t.csv: after row 1: expected rows of data, found nothing but the header"
    );
    assert_eq!(
        refusal("a,b\n1,2\n3\n"),
        "t.csv: row 3: expected as many cells as the header has, 2, found 1"
    );
    assert_eq!(
        refusal("a,b\n\n1,2,3\n"),
        "t.csv: row 3: expected as many cells as the header has, 2, found 3"
    );
    assert_eq!(
        parse("a,b,a\n1,2,3\n").unwrap().column("a").unwrap_err().to_string(),
        "t.csv: row 1, cell 3: expected a name that no other column has, \
         found \"a\" a second time; rename one of them in the file; if row 1 is no header, \
         --no-header says so, and the columns are called 1, 2 and so on"
    );
    // As scikit-learn's files have it, which say there how many rows and columns follow.
    assert_eq!(
        refusal("2,3,a,b\n1,2,3\n4,5,6\n"),
        "t.csv: row 2: expected as many cells as the header has, 4, \
         found 3; if row 1 is no header, --no-header says so, and the columns are called 1, 2 and \
         so on"
    );
}

#[test]
fn what_is_no_number_is_refused() {
    for bad in ["x", "", "NaN", "inf", "-Infinity", "1e39", "1 2"] {
        let error = parse(&format!("a,b\n0,0\n1,{bad}\n")).unwrap().number(1, 1);
        let found = if bad.is_empty() { "an empty cell".into() } else { format!("{bad:?}") };
        assert_eq!(
            error.unwrap_err().to_string(),
            format!(
                "t.csv: row 3, column \"b\": \
                 expected a number between -3.4e38 and 3.4e38, found {found}"
            )
        );
    }
    for (good, number) in [("-0", 0.0), ("1e-3", 0.001), ("+.5", 0.5), ("3e38", 3e38)] {
        let sheet = parse(&format!("a,b\n{good},1\n")).unwrap();
        assert_eq!(sheet.number(0, 0).unwrap(), number);
    }
}

#[test]
fn a_missing_column_is_refused_with_those_that_are_there() {
    let sheet = parse("a,b\n1,2\n").unwrap();
    assert_eq!(
        sheet.column("c").unwrap_err().to_string(),
        "t.csv: the header: expected a column \"c\", found the columns \"a\", \"b\""
    );
    let semicolons = parse("a;b;c\n1;2;3\n").unwrap();
    assert_eq!(
        semicolons.column("c").unwrap_err().to_string(),
        "t.csv: the header: expected a column \"c\", found the columns \"a;b;c\"; if other \
         characters are between the cells, --delimiter ';' names them"
    );
    let many: Vec<_> = (0..25).map(|i| i.to_string()).collect();
    assert!(listed(&many).ends_with("\"19\", and 5 more"));
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let error =
        Sheet::parse(Path::new("t.csv"), b"a,b\n1,caf\xe9\n", &Reading::default()).err().unwrap();
    assert_eq!(
        error.to_string(),
        "t.csv: row 2: expected UTF-8 text, found the byte 0xE9; save it as UTF-8"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.csv");
    for path in [directory.path(), &missing] {
        let error = Sheet::read(path, &Reading::default(), Purpose::Training).err().unwrap();
        assert!(matches!(error, Error::Base(burn_ema::Error::File { action: "read", .. })));
        assert!(error.to_string().contains(&path.display().to_string()));
    }
}

#[test]
fn other_characters_may_be_between_cells() {
    for (delimiter, text) in [
        (';', "a;b\n1,5;x\n"),
        ('\t', "a\tb\n1.5\tx\n"),
        ('|', "a|\"b\"\n1.5 | x\n"),
        (' ', "a b\n 1.5   x \n"),
    ] {
        let sheet = read(text, &separated(delimiter)).unwrap();
        assert_eq!(sheet.names(), ["a", "b"], "{delimiter:?}");
        assert_eq!((sheet.number(0, 0).unwrap(), sheet.cell(0, 1)), (1.5, "x"));
    }
    // Decimal commas are no cells.
    for text in ["a;b\n1,5;2,5\n3,5;4,5\n", "a;b\n1,5;2,5\n3;4\n"] {
        let error = refusal(text);
        assert!(error.contains("row 2") && error.contains("--delimiter ';'"), "{error}");
    }
    for delimiter in ['"', '\n', 'é'] {
        let error = read("a,b\n1,2\n", &separated(delimiter)).err().unwrap().to_string();
        assert!(error.starts_with("the delimiter is "), "{error}");
    }
}

#[test]
fn columns_without_names_are_numbered() {
    let mut sheet = read("1,2,3\n4,5,6\n", &without_header()).unwrap();
    assert_eq!((sheet.names(), sheet.len()), (&["1", "2", "3"].map(String::from)[..], 2));
    assert!(sheet.notes().is_empty());
    // The target, column 2, is not there.
    sheet.skip_number(2);
    assert_eq!(sheet.names(), ["1", "3", "4"]);

    let odd = read("2,3,a,b\n1,2,3\n4,5,6\n", &without_header()).unwrap();
    assert_eq!((odd.names().len(), odd.len(), odd.row_number(0)), (3, 2, 2));
    assert_eq!(odd.notes(), ["row 1 has 4 cells and those below it 3, so it is left out"]);
    let error = read("1,2\n3,4\n5\n", &without_header()).err().unwrap();
    assert_eq!(
        error.to_string(),
        "t.csv: row 3: expected as many cells as the first row has, 2, found 1"
    );
}

#[test]
fn a_header_may_lack_the_names_of_rows() {
    let text = "\"mpg\" \"cyl\"\n\"Mazda RX4\" 21 6\n\"Datsun 710\" 22.8 4\n";
    let sheet = read(text, &separated(' ')).unwrap();
    assert_eq!(sheet.names(), ["", "mpg", "cyl"]);
    assert_eq!((sheet.cell(1, 0), sheet.number(1, 1).unwrap()), ("Datsun 710", 22.8));
    // One row may as well be too long.
    assert!(refusal("a,b\n1,2,3\n").contains("expected as many cells as the header has, 2"));
    assert!(refusal("a,b\n1,2,3\n4,5\n").contains("row 2: expected as many cells"));
}

#[test]
fn surplus_delimiters_shift_no_column() {
    for (text, names, note) in [
        ("id,x,y\n1,2.5,3,\n2,3.5,4,\n", &["id", "x", "y"][..], "the rows end with more"),
        ("id,x,y\n1,2.5,3,\n", &["id", "x", "y"], "the rows end with more"),
        ("id,x,y\n1,2.5,3, ,\n2,3.5,4,,\n", &["id", "x", "y"], "the rows end with more"),
        ("id,x,y,\n1,2.5,3\n2,3.5,4\n", &["id", "x", "y"], "the header ends with more"),
    ] {
        let sheet = parse(text).unwrap();
        assert_eq!(sheet.names(), names, "{text}");
        assert_eq!((sheet.cell(0, 0), sheet.number(0, 1).unwrap()), ("1", 2.5), "{text}");
        assert!(sheet.notes()[0].starts_with(note), "{:?}", sheet.notes());
    }
    // A value in one of the last cells.
    assert_eq!(parse("x,y\na,1,\nb,2,3\n").unwrap().names(), ["", "x", "y"]);
    assert!(refusal("x,y\n1,2,\n3,4\n").contains("row 2: expected as many cells"));
}

#[test]
fn a_first_row_that_is_no_header_names_the_option() {
    let iris = "5.1,3.5,1.4,0.2,Iris-setosa\n4.9,3.0,1.4,0.2,Iris-setosa\n";
    let error = |text: &str, name: &str| parse(text).unwrap().column(name).unwrap_err().to_string();
    for (text, name) in [(iris, "5"), (iris, "species"), ("a,b,c\nx,y,z\n", "3")] {
        assert!(error(text, name).contains("if row 1 is no header, --no-header says so"), "{name}");
    }
    for name in ["0", "4", "-1", "d", "1.5"] {
        assert!(!error("a,b,c\nx,y,z\n", name).contains("--no-header"), "{name}");
    }
}

proptest! {
    #[test]
    fn no_content_panics(text in "[a0,;\"' \r\n\u{e9}\u{feff}]{0,60}") {
        for delimiter in [';', ' '] {
            let _ = read(&text, &separated(delimiter));
        }
        let _ = read(&text, &without_header());
        if let Ok(sheet) = parse(&text) {
            for row in 0..sheet.len() {
                prop_assert!(sheet.row_number(row) <= row_ends(text.as_bytes()) + 1);
                prop_assert!(sheet.row_number(row) >= 2);
                for column in 0..sheet.width() {
                    let _ = (sheet.cell(row, column), sheet.number(row, column));
                }
            }
        }
    }

    #[test]
    fn what_was_written_is_read(
        cells in prop::collection::vec(prop::collection::vec("[a-z,\"\n ]{0,6}", 3), 1..8)
    ) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["a", "b", "c"]).unwrap();
        for row in &cells {
            writer.write_record(row).unwrap();
        }
        let written = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let sheet = parse(&written).unwrap();
        prop_assert_eq!(sheet.len(), cells.len());
        let mut number = 2;
        for (row, cells) in cells.iter().enumerate() {
            prop_assert_eq!(sheet.row_number(row), number);
            number += 1 + cells.iter().map(|cell| cell.matches('\n').count()).sum::<usize>();
            for (column, cell) in cells.iter().enumerate() {
                prop_assert_eq!(&sheet.rows[row].cells[column], cell.trim());
            }
        }
    }
}
