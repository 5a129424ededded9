use super::*;
use crate::data::{Prepared, Reading, Table, TaskKind};

/// A table that is learned in a way, and rows that are asked about.
fn ask(
    learned: &str,
    asked: &str,
    target: &str,
    reading: &Reading,
) -> Result<(Preparation, Vec<Option<Vec<f64>>>)> {
    let (preparation, rows) = ask_noted(learned, asked, target, reading)?;
    Ok((preparation, rows.features))
}

/// A table that is learned in a way, and rows that are asked about, with their notes.
fn ask_noted(
    learned: &str,
    asked: &str,
    target: &str,
    reading: &Reading,
) -> Result<(Preparation, Rows)> {
    let directory = tempfile::tempdir().unwrap();
    let [table, rows] = ["table.csv", "rows.csv"].map(|name| directory.path().join(name));
    std::fs::write(&table, learned).unwrap();
    std::fs::write(&rows, asked).unwrap();
    let table = Table::read_with(&table, target, Some(TaskKind::Regression), reading).unwrap();
    let preparation = Prepared::new(&table, 1).unwrap().preparation;
    // As it comes back from a run.
    let saved = serde_json::to_string(&preparation).unwrap();
    let preparation: Preparation = serde_json::from_str(&saved).unwrap();
    let rows = read_rows(&rows, &preparation)?;
    Ok((preparation, rows))
}

fn refusal(asked: &str) -> String {
    ask(COLOURS, asked, "y", &Reading::default()).unwrap_err().to_string()
}

/// A table with all kinds of columns, and one that counts the rows.
const COLOURS: &str = ",colour,on,size,y\n0,red,True,1.5,1\n1,blue,False,2,2\n2,red,True,4,3\n\
    3,blue,False,5,4\n4,red,True,2,5\n5,blue,True,1,6\n6,red,False,3,7\n";

#[test]
fn features_are_read_by_name_in_any_order() {
    let rows = "size,y,colour,on,note\n2,?,red,yes,x\n3,,blue,false,\n";
    let (preparation, rows) = ask(COLOURS, rows, "y", &Reading::default()).unwrap();
    let FeatureKind::Texts(texts) = &preparation.features()[0].kind else { panic!() };
    let index = |text: &str| texts.all().position(|other| other == text).unwrap() as f64;
    let expected = [vec![index("red"), 1.0, 2.0], vec![index("blue"), 0.0, 3.0]];
    assert_eq!(rows.into_iter().flatten().collect::<Vec<_>>(), expected);
}

#[test]
fn the_table_itself_is_read_with_and_without_its_target() {
    let without = COLOURS.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned() + "\n");
    for asked in [COLOURS.to_owned(), without.collect()] {
        let (preparation, rows) = ask(COLOURS, &asked, "y", &Reading::default()).unwrap();
        let rows: Vec<_> = rows.into_iter().flatten().collect();
        assert_eq!(rows.len(), 7);
        assert_eq!(preparation.encode(&rows).unwrap().len(), 7 * preparation.inputs());
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    for (asked, expected) in [
        ("colour,on,size\ngreen,yes,1\n", "row 2, column \"colour\": expected one of \""),
        ("colour,on,size\nred,1,1\n", "row 2, column \"on\": expected true or false, or yes or no"),
        ("colour,on,size\nred,yes,big\n", "row 2, column \"size\": expected a number"),
        ("colour,on,size\nred,yes,1\n,no,2\n", "row 3, column \"colour\": expected a value"),
        ("colour,size\nred,1\n", "expected a column \"on\""),
        ("colour;on;size\nred;yes;1\n", "--delimiter ';'"),
    ] {
        let error = refusal(asked);
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("rows.csv"), "{error}");
    }
    assert!(refusal("colour,on,size\ngreen,yes,1\n").contains("found \"green\""));
}

#[test]
fn a_text_of_the_table_alone_is_known() {
    let rare = COLOURS.replace("3,blue", "3,grey");
    let (preparation, rows) = ask(&rare, &rare, "y", &Reading::default()).unwrap();
    assert_eq!(rows.iter().flatten().count(), 7);
    let FeatureKind::Texts(texts) = &preparation.features()[0].kind else { panic!() };
    assert_eq!(texts.all().count(), 3);
}

#[test]
fn rows_that_lack_a_value_keep_their_place() {
    let lacking = COLOURS.replace("1,blue", "1,NA").replace("5,4", "?,4");
    let reading = |missing| Reading { missing, ..Reading::default() };
    let (_, rows) = ask(&lacking, &lacking, "y", &reading(Missing::Drop)).unwrap();
    let none: Vec<_> = (0..7).filter(|&row| rows[row].is_none()).collect();
    assert_eq!(none, [1, 3]);
    let (preparation, rows) = ask(&lacking, &lacking, "y", &reading(Missing::Mean)).unwrap();
    let rows: Vec<_> = rows.into_iter().flatten().collect();
    assert_eq!(rows.len(), 7);
    assert!(preparation.encode(&rows).unwrap().iter().all(|input| input.is_finite()));
}

#[test]
fn columns_without_names_are_asked_for_with_and_without_the_target() {
    let reading = Reading { header: false, delimiter: ' ', ..Reading::default() };
    let learned = "1 10 100\n2 25 200\n4 30 300\n8 45 400\n3 50 500\n1 65 600\n";
    for target in ["1", "2", "3"] {
        let skipped: usize = target.parse::<usize>().unwrap() - 1;
        let without = learned.lines().map(|line| {
            let cells = line.split(' ').enumerate().filter(|(index, _)| *index != skipped);
            cells.map(|(_, cell)| cell).collect::<Vec<_>>().join(" ") + "\n"
        });
        let without: String = without.collect();
        let (_, whole) = ask(learned, learned, target, &reading).unwrap();
        let (_, part) = ask(learned, &without, target, &reading).unwrap();
        assert_eq!(whole, part, "target {target}");
        let error = ask(learned, "1\n2\n", target, &reading).unwrap_err().to_string();
        assert!(error.contains("expected 3 columns, or 2 without the target, found 1"), "{error}");
    }
}

#[test]
fn a_first_row_without_an_answer_is_refused() {
    let reading = Reading { header: false, ..Reading::default() };
    let learned: String = (0..9).map(|i| format!("{i}.5,{},{}\n", i * i % 7, i % 4)).collect();
    let asked = "5.1,3\n4.9,3,1\n6,2,4\n";
    let error = ask(&learned, asked, "3", &reading).unwrap_err().to_string();
    let expected = "row 2: expected as many cells as the first row has, 2, found 3";
    assert!(error.contains(expected), "{error}");
    // The count of the rows is none of them.
    let counted = "2,2,a,b\n4.9,3,1\n6,2,4\n";
    let (_, rows) = ask_noted(&learned, counted, "3", &reading).unwrap();
    assert_eq!(rows.features.len(), 2);
    assert_eq!(rows.notes, ["row 1 has 4 cells and those below it 3, so it is left out"]);
}

#[test]
fn the_form_of_row_names_is_that_of_the_training() {
    let row = |i: usize| format!("\"car {i}\" {} {}.5 {}\n", i * 3 % 7, i * i % 11, i * 2 % 9);
    let reading = Reading { delimiter: ' ', ..Reading::default() };
    let header = "mpg cyl y\n".to_owned();
    let learned = header.clone() + &(0..9).map(row).collect::<String>();
    let (_, all) = ask(&learned, &learned, "y", &reading).unwrap();
    let (_, one) = ask(&learned, &(header + &row(4)), "y", &reading).unwrap();
    assert_eq!(one, all[4..5]);
    // The first name may be there.
    let ask_with = |asked: &str| {
        ask(&learned.replace(' ', ","), asked, "y", &Reading::default()).map(|(_, rows)| rows)
    };
    assert_eq!(ask_with("car,mpg,cyl,y\nx,5,5.5,\n").unwrap(), all[4..5]);
    // Either the target is empty and the first column has no name, or the row ends too late.
    for asked in ["mpg,cyl,y\nx,5,5.5,\n", "car,mpg,cyl,y\nx,5,5.5,8,\n"] {
        let error = ask_with(asked).unwrap_err().to_string();
        assert!(error.contains("; name the first column too, or end no row with"), "{error}");
    }
}

#[test]
fn rows_that_are_longer_than_the_header_are_noted() {
    let (_, rows) =
        ask_noted(COLOURS, "colour,on,size\nred,yes,1,\n", "y", &Reading::default()).unwrap();
    assert_eq!(rows.features[0].as_ref().unwrap()[1..], [1.0, 1.0]);
    assert!(rows.notes[0].starts_with("the rows end with more delimiters"), "{:?}", rows.notes);
    let asked = "colour,on,size\nx,red,yes,1\nx,red,yes,1\n";
    let (_, rows) = ask_noted(COLOURS, asked, "y", &Reading::default()).unwrap();
    assert_eq!(rows.features[0].as_ref().unwrap()[1..], [1.0, 1.0]);
    assert!(rows.notes[0].starts_with("the header is a cell shorter"), "{:?}", rows.notes);
}

#[test]
fn errors_name_what_can_be_done_with_rows() {
    for (asked, expected) in [
        ("1,2\nred,yes,1\nblue,no,2\n", "put the names of the columns in a row above it"),
        ("red,yes,1\nblue,no,2\n", "put the names of the columns in a row above it"),
        ("colour,on,on,size\nred,yes,no,1\n", "rename one of them in the file"),
    ] {
        let error = refusal(asked);
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("--no-header"), "{error}");
    }
}

#[test]
fn decimal_commas_are_noted_and_refused_beside_points() {
    let reading = Reading { delimiter: ';', ..Reading::default() };
    let learned: String = (0..9).map(|i| format!("{i},5;{}\n", i * i % 7)).collect();
    let learned = format!("x;y\n{learned}");
    let (_, rows) = ask_noted(&learned, "y;x\n?;1,234\n?;950\n", "y", &reading).unwrap();
    assert_eq!(rows.features, [Some(vec![1.234]), Some(vec![950.0])]);
    assert_eq!(rows.notes, ["column \"x\": commas are read as decimal points, \"1,234\" as 1.234"]);
    let error = ask(&learned, "x\n1,234\n12.5\n", "y", &reading).unwrap_err().to_string();
    assert!(error.contains("found \"1,234\" in row 2 and \"12.5\" in row 3"), "{error}");
}
