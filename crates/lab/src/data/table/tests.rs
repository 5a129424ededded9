use proptest::prelude::*;

use super::*;
use crate::Error;

fn parse(text: &str, kind: Option<TaskKind>) -> Result<Table> {
    Table::parse(Path::new("t.csv"), text.as_bytes(), "y", kind)
}

/// A table with one feature, 1, 2, 3 and so on, and these targets.
fn with_targets(targets: &[&str], kind: Option<TaskKind>) -> Result<Table> {
    let rows = targets.iter().enumerate().map(|(i, target)| format!("{i},{target}\n"));
    parse(&format!("x,y\n{}", rows.collect::<String>()), kind)
}

fn refusal(result: Result<impl std::fmt::Debug>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_digest_is_of_what_is_learned() {
    let text = "x,y\n1,2\n3,4\n5,6\n7,8\n9,1\n";
    let digest = |text: &str, kind| parse(text, kind).unwrap().sha256();
    let regression = digest(text, None);
    assert_eq!(regression.len(), 64);
    let spaced = format!("\u{feff}{}\n", text.replace(',', " , ").replace('4', "4.0"));
    assert_eq!(digest(&spaced.replace('\n', "\r\n"), None), regression);
    let elsewhere = Table::parse(Path::new("u.csv"), text.as_bytes(), "y", None).unwrap();
    assert_eq!(elsewhere.sha256(), regression);
    // A name, a feature, two targets, two rows, one row less.
    let others = [
        text.replace('x', "z"),
        text.replace("7,8", "7.5,8"),
        text.replace("3,4\n5,6", "3,6\n5,4"),
        text.replace("3,4\n5,6", "5,6\n3,4"),
        text.replace("5,6\n", "") + "11,3\n",
        text.to_owned() + "11,3\n",
    ];
    let mut digests: Vec<_> = others.iter().map(|text| digest(text, None)).collect();
    let classes = "x,y\n1,a\n3,b\n5,a\n7,b\n9,a\n2,b\n";
    let swapped = classes.replace("3,b\n5,a", "3,a\n5,b");
    let named = classes.replace('b', "c");
    digests.extend([classes, &swapped, &named].map(|text| digest(text, None)));
    digests.push(regression);
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 10);
}

fn classes(table: &Table) -> (String, Vec<usize>) {
    match table.targets() {
        Targets::Classes { labels, of_row } => (labels.join(" "), of_row.clone()),
        Targets::Numbers(_) => panic!("a regression"),
    }
}

fn is_regression(table: &Table) -> bool {
    matches!(table.targets(), Targets::Numbers(_))
}

#[test]
fn the_target_may_stand_anywhere() {
    let table = parse("a,y,b\n1,0.5,2\n3,1.5,4\n5,2.5,6\n7,3.5,8\n9,4.5,1\n", None).unwrap();
    assert_eq!(table.columns(), ["a", "b"]);
    assert_eq!(table.target(), "y");
    assert_eq!(table.features()[..2], [[1.0, 2.0], [3.0, 4.0]]);
    assert_eq!(table.targets(), &Targets::Numbers(vec![0.5, 1.5, 2.5, 3.5, 4.5]));
    assert!(table.notes().is_empty());
}

#[test]
fn texts_are_classes_in_the_order_of_texts() {
    let table = with_targets(&["b", "a", "b", "a", "b", "a"], None).unwrap();
    assert_eq!(classes(&table), ("a b".into(), vec![1, 0, 1, 0, 1, 0]));
}

#[test]
fn few_whole_numbers_are_classes_in_the_order_of_numbers() {
    let table = with_targets(&["10", "9", "9.0", "10", "9", "10"], None).unwrap();
    assert_eq!(classes(&table), ("9 10".into(), vec![1, 0, 0, 1, 0, 1]));
    assert_eq!(
        table.notes()[0],
        "column \"y\" holds 2 different whole numbers, which are taken as classes"
    );
    let signs = with_targets(&["-0", "0", "0", "1", "1", "1"], None).unwrap();
    assert_eq!(classes(&signs), ("-0 1".into(), vec![0, 0, 0, 1, 1, 1]));
}

#[test]
fn many_or_broken_numbers_are_a_regression() {
    // Half of the rows differ.
    assert!(is_regression(&with_targets(&["1", "1", "2", "2", "3", "3"], None).unwrap()));
    assert!(is_regression(&with_targets(&["1.5", "1.5", "1.5", "2", "2", "2"], None).unwrap()));
    let numbers = |distinct: usize| -> Table {
        let cells: Vec<_> = (0..3 * distinct).map(|i| (i % distinct).to_string()).collect();
        with_targets(&cells.iter().map(String::as_str).collect::<Vec<_>>(), None).unwrap()
    };
    assert!(!is_regression(&numbers(20)));
    assert!(is_regression(&numbers(21)));
}

#[test]
fn a_given_task_is_taken() {
    let cells = ["1", "1", "1", "2", "2", "2"];
    assert!(is_regression(&with_targets(&cells, Some(TaskKind::Regression)).unwrap()));
    let cells = ["1.5", "1.5", "1.5", "0.5", "0.5", "0.5"];
    let table = with_targets(&cells, Some(TaskKind::Classification)).unwrap();
    assert_eq!(classes(&table), ("0.5 1.5".into(), vec![1, 1, 1, 0, 0, 0]));
    assert!(table.notes().iter().all(|note| !note.contains("taken as classes")));
    let cells = ["a", "a", "a", "b", "b", "b"];
    assert_eq!(
        refusal(with_targets(&cells, Some(TaskKind::Regression))),
        "t.csv: row 2, column \"y\": \
         expected a number between -3.4e38 and 3.4e38, found \"a\""
    );
}

#[test]
fn a_text_among_numbers_is_a_class_or_a_slip() {
    let table = with_targets(&["1", "A", "1", "A", "A", "1"], None).unwrap();
    assert_eq!(classes(&table).0, "1 A");
    assert_eq!(
        refusal(with_targets(&["1", "2", "3", "four", "5", "6"], None)),
        "t.csv: row 5, column \"y\": \
         expected a number between -3.4e38 and 3.4e38, found \"four\""
    );
    for kind in [None, Some(TaskKind::Classification)] {
        let error = refusal(with_targets(&["a", "a", "a", "b", "b", "b", "nan"], kind));
        assert!(error.contains("row 8, column \"y\"") && error.contains("\"nan\""), "{error}");
    }
}

#[test]
fn what_cannot_be_learned_is_refused() {
    assert_eq!(
        refusal(parse("a,b\n1,2\n", None)),
        "t.csv: the header: expected a column \"y\", found the columns \"a\", \"b\""
    );
    assert_eq!(
        refusal(parse("y\n1\n2\n3\n4\n5\n", None)),
        "t.csv: the header: expected at least one column of features, \
         found only the target \"y\""
    );
    assert_eq!(
        refusal(with_targets(&["1", "2", "3", "4"], None)),
        "t.csv: the rows of data: expected at least 5, so that 60/20/20 gives each part one, \
         found 4"
    );
    assert!(with_targets(&["1", "2", "3", "4", "5"], None).is_ok());
    for kind in [None, Some(TaskKind::Classification), Some(TaskKind::Regression)] {
        assert_eq!(
            refusal(with_targets(&["2.5"; 6], kind)),
            "t.csv: column \"y\": expected at least two different values, \
             found \"2.5\" in every row"
        );
    }
    assert_eq!(
        refusal(with_targets(&["a", "a", "a", "b", "b"], None)),
        "t.csv: column \"y\": expected at least 3 rows of each class, so that one is trained \
         and one is held out, found 2 of \"b\" (the first is row 5)"
    );
    assert_eq!(
        refusal(with_targets(&["a", "a", "", "b", "b"], None)),
        "t.csv: row 4, column \"y\": expected a value, found an empty cell"
    );
    assert_eq!(
        refusal(parse("x,y\n1,a\n2,a\n\nred,a\n3,b\n4,b\n5,b\n", None)),
        "t.csv: row 5, column \"x\": \
         expected a number between -3.4e38 and 3.4e38, found \"red\""
    );
}

#[test]
fn what_a_person_should_know_is_noted() {
    let table = parse("c,x,y\n3,1,a\n3,2,a\n3,3,a\n3,4,b\n3,5,b\n3,6,b\n", None).unwrap();
    assert_eq!(
        table.notes(),
        [
            "column \"c\" is 3 in every row, so nothing can be learned from it",
            "class \"a\" has 3 rows, so the validation or the test may lack it",
            "class \"b\" has 3 rows, so the validation or the test may lack it",
        ]
    );
    assert_eq!(table.columns(), ["c", "x"]);
}

#[test]
fn features_are_read_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new.csv");
    std::fs::write(&path, "b,id,a\n2,first,1\n4,,3\n").unwrap();
    assert_eq!(read_features(&path, &["a", "b"]).unwrap(), [[1.0, 2.0], [3.0, 4.0]]);
    let error = refusal(read_features(&path, &["a", "c"]));
    assert!(error.contains("new.csv") && error.contains("\"c\""), "{error}");
    let error = refusal(read_features(&path, &["id"]));
    assert!(error.contains("row 2, column \"id\""), "{error}");
}

#[test]
fn a_file_is_read_as_its_content_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.csv");
    std::fs::write(&path, "x,y\n1,1\n2,1\n3,1\n4,2\n5,2\n6,2\n").unwrap();
    let table = Table::read(&path, "y").unwrap();
    assert_eq!((table.path(), classes(&table).0.as_str()), (path.as_path(), "1 2"));
    assert!(is_regression(&Table::read_as(&path, "y", TaskKind::Regression).unwrap()));
    assert!(matches!(
        Table::read(directory.path(), "y"),
        Err(Error::Base(burn_ema::Error::File { .. }))
    ));
}

proptest! {
    #[test]
    fn classes_name_their_rows(
        cells in prop::collection::vec(
            prop::sample::select(vec!["b", "a", "7", "10", "-3"]), 1..60
        )
    ) {
        if let Ok(table) = with_targets(&cells, Some(TaskKind::Classification)) {
            let Targets::Classes { labels, of_row } = table.targets() else { panic!() };
            for (cell, &class) in cells.iter().zip(of_row) {
                prop_assert_eq!(cell, &labels[class]);
            }
            let numbers: Result<Vec<f64>, _> = labels.iter().map(|l| l.parse()).collect();
            prop_assert!(numbers.map_or(labels.is_sorted(), |numbers| numbers.is_sorted()));
        } else {
            let count = |cell| cells.iter().filter(|&other| other == cell).count();
            let rare = cells.iter().any(|cell| count(cell) < 3);
            prop_assert!(cells.len() < 5 || rare || count(&cells[0]) == cells.len());
        }
    }

    #[test]
    fn no_content_panics(text in "(x,y\n)?[0-9a.,\n]{0,80}") {
        for kind in [None, Some(TaskKind::Classification), Some(TaskKind::Regression)] {
            let _ = parse(&text, kind);
        }
    }
}
