use proptest::prelude::*;

use super::*;
use crate::Error;

fn parse(text: &str, kind: Option<TaskKind>) -> Result<Table> {
    read(text, kind, &Reading::default())
}

fn read(text: &str, kind: Option<TaskKind>, reading: &Reading) -> Result<Table> {
    Table::parse(Path::new("t.csv"), text.as_bytes(), "y", kind, reading)
}

fn names(table: &Table) -> Vec<&str> {
    table.columns().iter().map(|column| column.name.as_str()).collect()
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
    let elsewhere = Path::new("u.csv");
    let elsewhere =
        Table::parse(elsewhere, text.as_bytes(), "y", None, &Reading::default()).unwrap();
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
    assert_eq!(names(&table), ["a", "b"]);
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
        "column \"y\" holds 2 different whole numbers, which are taken as classes; \
         --task regression takes them as a quantity"
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
         and one is held out, found 2 of \"b\" (the first is row 5; leave its rows out of the file, or \
         give them another class)"
    );
    assert_eq!(
        refusal(with_targets(&["a", "a", "", "b", "b"], None)),
        "t.csv: row 4, column \"y\": expected a value, found an empty cell \
         (--missing drop leaves rows without a value out)"
    );
    assert_eq!(
        refusal(parse("x,y\n1,a\n2,a\n\nred,a\n3,b\n4,b\n5,b\n", None)),
        "t.csv: row 5, column \"x\": \
         expected a number between -3.4e38 and 3.4e38, found \"red\" \
         (--drop x leaves the column out)"
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
    assert_eq!(names(&table), ["c", "x"]);
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

fn notes(table: &Table) -> String {
    table.notes().join("\n")
}

fn missing(missing: Missing) -> Reading {
    Reading { missing, ..Reading::default() }
}

fn classified(targets: &[&str]) -> Table {
    with_targets(targets, Some(TaskKind::Classification)).unwrap()
}

#[test]
fn whole_numbers_are_compared_exactly() {
    for labels in [
        &["9007199254740992", "9007199254740993", "9007199254740994"][..],
        &["-9007199254740993", "-9007199254740992"],
        &[
            "123456789012345678901234567890123456789012",
            "123456789012345678901234567890123456789013",
        ],
        &["0.3", "0.30000000000000004"],
    ] {
        let cells: Vec<_> = labels.iter().flat_map(|&label| [label; 3]).collect();
        let table = classified(&cells);
        assert_eq!(classes(&table).0, labels.join(" "));
        assert!(!notes(&table).contains("one class"), "{}", notes(&table));
    }
}

#[test]
fn labels_that_are_merged_are_noted() {
    let table = classified(&["0012", "12", "12", "7", "7", "7"]);
    assert_eq!(classes(&table), ("7 0012".into(), vec![1, 1, 1, 0, 0, 0]));
    let note = "column \"y\": as equal numbers \"0012\", \"12\" are one class, \"0012\"";
    assert!(table.notes().iter().any(|other| other == note), "{}", notes(&table));
    let table = classified(&["1.0", "1", "1e0", "2", "+2", "2"]);
    assert!(notes(&table).contains(
        "equal numbers \"1\", \"1.0\", \"1e0\" are one class, \"1.0\", and 1 others likewise"
    ));
    // Texts are what they are.
    let table = classified(&["a1", "a01", "a1", "a01", "a1", "a01"]);
    assert_eq!(classes(&table).0, "a01 a1");
}

#[test]
fn a_target_without_a_value_is_no_class() {
    for mark in ["NA", "nan", "NaN", "null", "NULL", "?", "", "N/A"] {
        let cells = ["f", "m", mark, "f", "m", "f", "m", mark];
        let text: String =
            cells.iter().enumerate().map(|(i, cell)| format!("{i}.5,{cell}\n")).collect();
        let text = format!("x,y\n{text}");
        for kind in [None, Some(TaskKind::Classification), Some(TaskKind::Regression)] {
            let error = refusal(read(&text, kind, &Reading::default()));
            assert!(error.starts_with("t.csv: row 4, column \"y\": expected a value"), "{error}");
            assert!(error.contains("no value in 1 row more (--missing drop"), "{error}");
        }
        for policy in [Missing::Drop, Missing::Mean] {
            let table = read(&text, None, &missing(policy)).unwrap();
            assert_eq!(classes(&table), ("f m".into(), vec![0, 1, 0, 1, 0, 1]), "{mark}");
            assert!(notes(&table).contains("2 of 8 rows lack "), "{}", notes(&table));
            assert_eq!(table.features()[2], [3.5]);
        }
    }
}

#[test]
fn a_target_that_is_rounding_alone_is_constant() {
    let cells = ["0.3", "0.30000000000000004"].repeat(10);
    for kind in [None, Some(TaskKind::Regression)] {
        let error = refusal(with_targets(&cells, kind));
        assert!(error.contains("at least two different values, found \"0.3\" in every"), "{error}");
    }
    let small: Vec<_> = (0..20).map(|i| format!("{i}e-20")).collect();
    let small: Vec<_> = small.iter().map(String::as_str).collect();
    assert!(is_regression(&with_targets(&small, Some(TaskKind::Regression)).unwrap()));
}

#[test]
fn a_feature_that_is_rounding_alone_is_noted() {
    let row = |i: u32| format!("{},{i}.5\n", ["0.3", "0.30000000000000004"][i as usize % 2]);
    let table = parse(&format!("x,y\n{}", (0..10).map(row).collect::<String>()), None).unwrap();
    assert!(notes(&table).starts_with("column \"x\" is 0.3 in every row"), "{}", notes(&table));
}

#[test]
fn decimal_commas_are_noted_and_refused_beside_points() {
    let reading = Reading { delimiter: ';', ..Reading::default() };
    let rows = |odd: &str| {
        let row = |i: usize| {
            let price = ["1,234", "12,500", "950", odd][i % 4];
            format!("{price};{},5;v1,{};{}.5\n", i * i % 7, i % 2, i * i % 11)
        };
        format!("price;size;kind;y\n{}", (0..12).map(row).collect::<String>())
    };
    let table = read(&rows("7"), None, &reading).unwrap();
    assert_eq!(table.features()[0][0], 1.234);
    let note = "columns \"price\", \"size\": commas are read as decimal points, \"1,234\" as 1.234";
    assert!(table.notes().iter().any(|other| other == note), "{}", notes(&table));

    let expected = "column \"price\": expected either commas or points in its numbers, found \
        \"1,234\" in row 2 and \"7.5\" in row 5 (--drop price leaves the column out)";
    assert_eq!(refusal(read(&rows("7.5"), None, &reading)), format!("t.csv: {expected}"));
    let target = rows("7.5").replace('y', "z").replace("price", "y");
    let error = refusal(read(&target, None, &reading));
    assert!(error.contains("(write all of them in the file with the same sign"), "{error}");
}

#[test]
fn points_of_thousands_are_refused_beside_columns_with_decimal_commas() {
    let reading = Reading { delimiter: ';', ..Reading::default() };
    let table = |price: &str, size: &str| {
        let row = |i: usize| format!("{size}{i};{};{}\n", [price, "469"][i % 2], i * i % 11);
        format!("size;price;y\n{}", (0..12).map(row).collect::<String>())
    };
    let expected = "t.csv: column \"price\": expected numbers without a point, since other columns \
        have decimal commas, found \"1.066\" in row 2 (--drop price leaves the column out)";
    assert_eq!(refusal(read(&table("1.066", "0,"), None, &reading)), expected);
    let target = table("-12.066", "0,").replace('y', "z").replace("price", "y");
    let error = refusal(read(&target, None, &reading));
    assert!(error.contains("found \"-12.066\" in row 2 (write all of them"), "{error}");
    // These points separate no thousands, or no comma says what the point is.
    for (price, size) in [("1.06", "0,"), ("0.066", "0,"), ("1066.123", "0,"), ("1.066", "0.")] {
        let table = read(&table(price, size), None, &reading).unwrap();
        assert_eq!(table.features()[0][1], price.parse::<f64>().unwrap());
    }
}

#[test]
fn numbers_with_signs_are_recognised() {
    let hint =
        "if these are numbers, write them without %, currency signs and separators of thousands";
    for sign in [|n: usize| format!("{n}.2%"), |n| format!("$1{n}.5"), |n| format!("\"1,{n:03}\"")]
    {
        let numbers: Vec<_> = (0..20).map(|n| sign(10 + n)).collect();
        let numbers: Vec<_> = numbers.iter().map(String::as_str).collect();
        let error = refusal(with_targets(&numbers, None));
        assert!(error.contains(hint), "{error}");
        let features = |different: usize| {
            let row = |n: usize| format!("{},{}\n", numbers[n % different], n * n % 7);
            parse(&format!("x,y\n{}", (0..20).map(row).collect::<String>()), None)
        };
        assert!(refusal(features(20)).contains(hint));
        assert!(notes(&features(5).unwrap()).contains(hint));
    }
    let error = refusal(with_targets(&["a b", "c", "c", "c", "d", "d", "d"], None));
    assert!(!error.contains(hint), "{error}");
}

#[test]
fn surplus_delimiters_do_not_change_what_is_learned() {
    let row = |i: usize, end: &str| format!("{i},{}.5,{}.5{end}\n", i * i % 7, i * i % 11);
    let text = |end| format!("id,x,y\n{}", (0..9).map(|i| row(i, end)).collect::<String>());
    let [plain, ended] = ["", ","].map(|end| parse(&text(end), None).unwrap());
    assert_eq!((names(&ended), ended.sha256()), (vec!["x"], plain.sha256()));
    assert!(notes(&ended).contains("the rows end with more delimiters"), "{}", notes(&ended));
}

/// Rows of an island, a truth, a number and a target.
const MIXED: &str = "island,wild,size,y\n\
    Dream,True,1.5,a\nBiscoe,False,2,b\nDream,true,3,a\nBiscoe,FALSE,4,b\nTorgersen,True,9,a\n\
    Dream,False,2,b\n";

#[test]
fn texts_and_truths_are_features() {
    let table = parse(MIXED, None).unwrap();
    let islands = ["Dream", "Biscoe", "Torgersen"].map(String::from).to_vec();
    let kinds: Vec<_> = table.columns().iter().map(|column| column.kind.clone()).collect();
    assert_eq!(kinds, [ColumnKind::Texts(islands), ColumnKind::Truth, ColumnKind::Number]);
    assert_eq!(table.features()[..3], [[0.0, 1.0, 1.5], [1.0, 0.0, 2.0], [0.0, 1.0, 3.0]]);
    assert_eq!(
        notes(&table).lines().next().unwrap(),
        "column \"island\" holds 3 different texts with an input for each: \"Dream\", \"Biscoe\", \
         \"Torgersen\""
    );
    let yes = MIXED.replace("True", "Yes").replace("true", "yes").replace("False", "No");
    let yes = parse(&yes.replace("FALSE", "no"), None).unwrap();
    assert_eq!(yes.features(), table.features());
    // A third word makes them texts.
    let three = parse(&MIXED.replace("true", "perhaps"), None).unwrap();
    assert!(matches!(&three.columns()[1].kind, ColumnKind::Texts(texts) if texts.len() == 4));
}

#[test]
fn numbers_among_texts_are_texts_or_beside_a_slip() {
    let column = |cells: &[&str]| {
        let rows = cells.iter().enumerate().map(|(i, cell)| format!("{cell},{i}.5\n"));
        parse(&format!("x,y\n{}", rows.collect::<String>()), None)
    };
    // As the drive of a car: front, rear or four wheels.
    let table = column(&["f", "4", "4", "f", "r", "4", "f", "4", "r", "4", "r", "4"]).unwrap();
    assert!(notes(&table).contains("3 different texts, some of which are numbers, with an"));
    for cells in [
        &["4", "6", "rotary", "8", "4", "6", "8", "4"][..],
        &["1.5", "2.5", "\"3,5\"", "4.5", "5.5", "6.5"],
    ] {
        let error = refusal(column(cells));
        assert!(error.contains("row 4, column \"x\": expected a number"), "{error}");
        assert!(error.ends_with("(--drop x leaves the column out)"), "{error}");
    }
}

#[test]
fn all_columns_that_cannot_be_used_are_in_one_error() {
    let row = |i: i32| {
        let [size, sex] =
            [(i == 3, "NA".to_owned(), i.to_string()), (i > 4, "?".into(), "m".into())]
                .map(|(is, then, other)| if is { then } else { other });
        let age = if i == 2 { "old".into() } else { (i * i).to_string() };
        format!("name {i},{size},{sex},{age},,{i}.5\n")
    };
    let rows: String = (0..30).map(row).collect();
    let text = format!("Individual ID,size,sex,age,note,y\n{rows}");
    assert_eq!(
        refusal(parse(&text, None)),
        "t.csv: 5 problems with columns (--drop 'Individual ID' --drop age --drop note leaves \
         these columns out; --missing drop leaves rows without a value out; --missing mean takes \
         the mean of the training rows for it):\n  \
         column \"Individual ID\": expected numbers, or texts that are in several rows, found 30 \
         different ones in 30 rows, \"name 0\" the first\n  \
         row 5, column \"size\": expected a value, found \"NA\"\n  \
         row 7, column \"sex\": expected a value, found \"?\", and no value in 24 rows more\n  \
         row 4, column \"age\": expected a number between -3.4e38 and 3.4e38, found \"old\"\n  \
         column \"note\": expected a value in some row, found none"
    );
    let drop = ["Individual ID", "age", "note"].map(String::from).to_vec();
    for (policy, rows) in [(Missing::Mean, 30), (Missing::Drop, 4)] {
        let reading = Reading { drop: drop.clone(), missing: policy, ..Reading::default() };
        match read(&text, None, &reading) {
            Ok(table) => {
                assert_eq!((table.features().len(), names(&table)), (rows, vec!["size", "sex"]))
            }
            Err(error) => assert!(rows < 5, "{error}"),
        }
    }
}

#[test]
fn columns_are_left_out_by_name() {
    let drop = |drop: &[&str]| Reading {
        drop: drop.iter().map(|&name| name.into()).collect(),
        ..Reading::default()
    };
    let text = MIXED.replace("island", "an island");
    let table = read(&text, None, &drop(&["wild", "an island"])).unwrap();
    assert_eq!(names(&table), ["size"]);
    assert!(refusal(read(&text, None, &drop(&["sex"]))).contains("expected a column \"sex\""));
    assert!(refusal(read(&text, None, &drop(&["y"]))).contains("not the target, found \"y\""));
    let all = drop(&["wild", "an island", "size"]);
    assert!(refusal(read(&text, None, &all)).contains("only the target"));
    // Names that are there twice.
    let twice = "x,z,z,y\n1,2,3,1.5\n2,3,4,2.5\n4,4,5,3.5\n9,5,1,4.5\n3,6,2,5.5\n";
    let error = refusal(parse(twice, None));
    assert!(error.contains("row 1, cell 3: expected a name that no other"), "{error}");
    assert!(error.ends_with("\"z\" a second time (--drop z leaves such columns out)"), "{error}");
    assert_eq!(names(&read(twice, None, &drop(&["z"])).unwrap()), ["x"]);
}

#[test]
fn columns_that_number_the_rows_are_left_out_with_a_note() {
    let table = |first: &str, cells: [&str; 6]| {
        let rows = cells.iter().enumerate().map(|(i, cell)| format!("{cell},{},{i}.5\n", i * i));
        parse(&format!("{first},x,y\n{}", rows.collect::<String>()), None)
    };
    for (first, cells, note) in [
        ("", ["0", "1", "2", "3", "4", "5"], "column 1, which has no name, counts the rows"),
        (
            "\"\"",
            ["\"1\"", "2", "3", "4", "5", "6"],
            "column 1, which has no name, counts the rows",
        ),
        ("id", ["1", "2", "3", "4", "5", "6"], "column \"id\" counts the rows"),
        ("index", ["0.0", "1", "2", "3", "4", "5"], "column \"index\" counts the rows"),
        (
            "",
            ["Fiat", "Mazda", "Honda", "Volvo", "Lotus", "Ford"],
            "column 1, which has no name, has another value",
        ),
        ("", ["7", "3", "12", "4", "9", "1"], "column 1, which has no name, has another value"),
    ] {
        let table = table(first, cells).unwrap();
        assert_eq!(names(&table), ["x"], "{first}");
        assert!(table.notes()[0].starts_with(note), "{}", notes(&table));
        assert!(table.notes()[0].ends_with("so it is left out"), "{}", notes(&table));
    }
    for cells in [["2", "3", "4", "5", "6", "7"], ["1", "2", "3", "4", "6", "5"]] {
        assert_eq!(names(&table("year", cells).unwrap()), ["year", "x"]);
    }
    let error = refusal(table("", ["1.5", "2", "2", "2", "2", "2"]));
    assert!(error.contains("row 1, cell 1: expected the name of a column"), "{error}");
    assert!(error.contains("--drop ''"), "{error}");
    // As R writes names of rows, without a name for their column.
    let named = parse("x,y\na,1,1.5\nb,4,2\nc,2,3\nd,1,3\ne,9,1\n", None).unwrap();
    assert_eq!((names(&named), named.features()[1][0]), (vec!["x"], 4.0));
    assert!(named.notes()[0].starts_with("column 1, which has no name"), "{}", notes(&named));
    // Where there is nothing else to learn from, it stays.
    assert_eq!(names(&with_targets(&["1.5", "2", "3", "4", "5"], None).unwrap()), ["x"]);
    // As a spreadsheet writes rows that end with a delimiter.
    let trailing = parse("x,y,\n1,1.5,\n4,2,\n2,3,\n1,3,\n9,1,\n", None).unwrap();
    assert_eq!(names(&trailing), ["x"]);
    assert_eq!(trailing.notes(), ["column 3, which has no name, has no value, so it is left out"]);
}

#[test]
fn a_header_of_numbers_alone_is_refused() {
    let text = "5.1,3.5,0\n4.9,3,0\n4.7,3.2,0\n6,3,1\n6.1,3.3,1\n5.8,2.9,1\n";
    let error =
        refusal(Table::parse(Path::new("t.csv"), text.as_bytes(), "3", None, &Reading::default()));
    assert_eq!(
        error,
        "t.csv: the header: expected the names of the columns, found numbers alone, \"5.1\", \
         \"3.5\", \"0\" (--no-header reads a table without names, whose columns are then called 1 \
         to 3)"
    );
    let reading = Reading { header: false, ..Reading::default() };
    let table = Table::parse(Path::new("t.csv"), text.as_bytes(), "3", None, &reading).unwrap();
    assert_eq!((names(&table), table.features().len(), table.width()), (vec!["1", "2"], 6, 3));
    // A name among numbers makes a header.
    assert!(parse("1990,1991,y\n1,2,1.5\n2,1,2\n3,4,3\n5,6,4\n6,6,5\n", None).is_ok());
}

#[test]
fn rows_and_cells_without_a_value_are_left_out_or_kept_to_be_filled() {
    let text = "x,c,y\n1,a,1.5\nNA,b,2\n3,,3\n4,a,?\n5,b,5\n7,a,6\n2,b,7\n1,a,8\n";
    let dropped = read(text, None, &missing(Missing::Drop)).unwrap();
    assert_eq!(
        dropped.features().iter().map(|row| row[0]).collect::<Vec<_>>(),
        [1., 5., 7., 2., 1.]
    );
    assert!(notes(&dropped).contains("3 of 8 rows lack a value and are left out"));
    let kept = read(text, None, &missing(Missing::Mean)).unwrap();
    assert_eq!(kept.features().len(), 7);
    assert!(kept.features()[1][0].is_nan() && kept.features()[2][1].is_nan());
    assert!(notes(&kept).contains("1 of 8 rows lack a target and are left out"));
    assert!(notes(&kept).contains("2 cells lack a value and get the mean of the training rows"));
    assert_ne!(dropped.sha256(), kept.sha256());
}

#[test]
fn either_guess_names_the_other_task() {
    let whole = |range: std::ops::Range<i32>, times: usize| {
        let cells: Vec<_> = (0..times).flat_map(|_| range.clone()).map(|i| i.to_string()).collect();
        with_targets(&cells.iter().map(String::as_str).collect::<Vec<_>>(), None).unwrap()
    };
    let quantity = "which are taken as a quantity; --task classification takes them as classes";
    let classes = "which are taken as classes; --task regression takes them as a quantity";
    for (table, expected) in [
        (whole(0..26, 4), format!("holds 26 different whole numbers, {quantity}")),
        (whole(18..38, 3), format!("holds 20 different whole numbers, {classes}")),
        (whole(3..9, 5), format!("holds 6 different whole numbers, {classes}")),
        (whole(3..9, 1), format!("holds 6 different whole numbers, {quantity}")),
        (
            with_targets(&["0.5", "1", "1.5"].repeat(4), None).unwrap(),
            format!("holds 3 different numbers, {quantity}"),
        ),
    ] {
        assert!(notes(&table).contains(&expected), "{}", notes(&table));
    }
    // Where nothing is in doubt, and where the task was given.
    for table in [
        with_targets(&["a", "b"].repeat(6), None).unwrap(),
        with_targets(&["0.5", "1.5", "2.5", "3.5", "4.5"], None).unwrap(),
        with_targets(&["1", "2"].repeat(6), Some(TaskKind::Regression)).unwrap(),
        with_targets(&["1", "2"].repeat(6), Some(TaskKind::Classification)).unwrap(),
    ] {
        assert!(!notes(&table).contains("--task"), "{}", notes(&table));
    }
}

#[test]
fn a_rare_number_names_the_other_task() {
    let cells = [["5"; 8], ["7"; 8]].concat().into_iter().chain(["6"]).collect::<Vec<_>>();
    let error = refusal(with_targets(&cells, None));
    assert!(
        error.contains(
            "found 1 of \"6\" (the first is row 18; --task regression takes the numbers as a \
             quantity)"
        ),
        "{error}"
    );
}
