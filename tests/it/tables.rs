//! Tables as people have them, learned and asked about by one command each.

use std::{fs, io::Write, path::PathBuf, process::Command};

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use tempfile::TempDir;

use crate::examples::{example, fails, misused, succeeds};

/// A directory with a table and room for a run.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new(table: impl AsRef<[u8]>) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        place.write("table.csv", table);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    fn train(&self, options: &[&str]) -> Command {
        let mut command = example("train");
        command.args(["--device", "flex", "--epochs", "2", "--run"]).arg(self.path("run"));
        command.arg("--data").arg(self.path("table.csv")).args(options);
        command
    }

    fn resume(&self, options: &[&str]) -> Command {
        let mut command = example("train");
        command.args(["--device", "flex", "--resume", "--run"]).arg(self.path("run"));
        command.args(options);
        command
    }

    fn infer(&self, rows: &str) -> Command {
        let mut command = example("infer");
        command.args(["--device", "flex", "--run"]).arg(self.path("run"));
        command.arg("--csv").arg(self.path(rows));
        command
    }

    fn config(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("run/config.json")).unwrap()).unwrap()
    }
}

/// A table of 60 birds, as R writes one: quoted texts, a first column without a name that counts
/// the rows, `NA` for what is missing.
fn birds(delimiter: char) -> String {
    let row = |i: usize| {
        let kind = i % 3;
        let island = ["\"Biscoe\"", "\"Dream\"", "\"Torgersen\""][(kind + i % 2) % 3];
        let bill = match i {
            4 | 9 => "NA".to_owned(),
            _ => format!("{:.1}", 35.0 + 6.0 * kind as f64 + (i % 7) as f64 / 5.0),
        };
        let sex = ["\"female\"", "\"male\"", "NA"][if i == 20 { 2 } else { i % 2 }];
        let wild = ["TRUE", "FALSE"][i / 5 % 2];
        let species = ["\"Adelie\"", "\"Chinstrap\"", "\"Gentoo\""][kind];
        let cells = [
            &format!("\"{}\"", i + 1),
            island,
            &bill,
            sex,
            wild,
            &format!("\"bird {i}\""),
            species,
        ];
        cells.join(&delimiter.to_string()) + "\n"
    };
    let names = ["\"\"", "island", "bill", "sex", "wild", "name", "species"];
    names.join(&delimiter.to_string()) + "\n" + &(0..60).map(row).collect::<String>()
}

/// The answers of a CSV, a line each.
fn answers(stdout: &str) -> Vec<&str> {
    stdout.lines().skip(1).collect()
}

fn without_last_column(text: &str, delimiter: char) -> String {
    text.lines().map(|line| line.rsplit_once(delimiter).unwrap().0.to_owned() + "\n").collect()
}

#[test]
fn a_quotation_that_is_not_closed_swallows_no_rows() {
    let row = |i: usize| format!("{}.5,\"{}\",{}\n", i * i % 11, ["a", "b"][i % 2], i % 2);
    let whole: String = (0..20).map(row).collect();
    let place = Place::new(format!("x,c,y\n{whole}"));
    succeeds(&mut place.train(&["--target", "y"]));

    place.write("rows.csv", "x,c\n1,a\n2,\"b\n3,a\n4,b\n5,a\n6,b\n");
    let message = fails(&mut place.infer("rows.csv"));
    assert!(
        message.contains("rows.csv: row 3, cell 2: expected a closing quotation mark"),
        "{message}"
    );
    place.write("rows.csv", "x,c\n1,a\n2,\"b\n3,\"a\"\n4,b\n");
    let message = fails(&mut place.infer("rows.csv"));
    assert!(message.contains("rows.csv: row 3, cell 2: expected nothing between"), "{message}");
    // A cell of several lines is legal.
    place.write("rows.csv", "x,note,c\n1,\"two\nlines\",a\n2,\"\",\"b\"\n");
    let (stdout, _) = succeeds(&mut place.infer("rows.csv"));
    assert_eq!(answers(&stdout).len(), 2);

    place.write("table.csv", format!("x,c,y\n1,\"a,1\n{whole}"));
    let message = fails(&mut place.train(&["--target", "y", "--overwrite"]));
    assert!(message.contains("table.csv: row 2, cell 2"), "{message}");
}

#[test]
fn all_of_how_a_table_is_read_is_saved_with_the_run() {
    for (delimiter, typed) in [(',', ","), (';', ";"), ('\t', "tab"), ('|', "|")] {
        let text = birds(delimiter);
        let place = Place::new(&text);
        let options =
            ["--target", "species", "--drop", "name", "--missing", "mean", "--delimiter", typed];
        let (stdout, _) = succeeds(&mut place.train(&options));
        for line in [
            "note: column 1, which has no name, counts the rows, so it is left out",
            "note: column \"island\" holds 3 different texts with an input for each: \"Biscoe\", \
             \"Torgersen\", \"Dream\"",
            "note: 3 cells lack a value and get the mean of the training rows",
            "task: 3 classes",
            "rows: 36 train, 12 valid, 12 test",
        ] {
            assert!(stdout.contains(line), "{line}\n{stdout}");
        }
        // Three islands, a bill, two sexes, wild or not.
        assert_eq!(place.config()["model"]["sizes"][0], 7);

        place.write("without.csv", without_last_column(&text, delimiter));
        let [with, without] = ["table.csv", "without.csv"].map(|rows| {
            let (stdout, _) = succeeds(&mut place.infer(rows));
            assert!(stdout.starts_with("species,p(Adelie),p(Chinstrap),p(Gentoo)\n"), "{stdout}");
            stdout
        });
        assert_eq!(answers(&with).len(), 60);
        assert_eq!(with, without);

        place.write("unknown.csv", text.replace("\"Dream\"", "\"Anvers\""));
        let message = fails(&mut place.infer("unknown.csv"));
        assert!(message.contains("column \"island\": expected one of \""), "{message}");
        assert!(message.contains("found \"Anvers\""), "{message}");
    }
    // The same rows with other characters between the cells.
    let place = Place::new(birds(','));
    succeeds(&mut place.train(&["--target", "species", "--drop", "name", "--missing", "mean"]));
    place.write("tabs.csv", birds('\t'));
    let message = fails(&mut place.infer("tabs.csv"));
    assert!(message.contains("--delimiter tab"), "{message}");
    let (tabs, _) = succeeds(place.infer("tabs.csv").args(["--delimiter", "tab"]));
    assert_eq!(tabs, succeeds(&mut place.infer("table.csv")).0);
}

#[test]
fn the_first_command_says_what_to_type() {
    let place = Place::new(birds(';'));
    let options = ["--target", "species"];
    let message = fails(&mut place.train(&options));
    assert!(message.contains("--delimiter ';'"), "{message}");
    let message = fails(place.train(&options).args(["--delimiter", ";"]));
    for line in [
        "(--drop name leaves the column out; --missing drop leaves rows without a value out; \
         --missing mean takes the mean of the training rows for it):",
        "row 6, column \"bill\": expected a value, found \"NA\", and no value in 1 row more",
        "row 22, column \"sex\": expected a value, found \"NA\"",
        "column \"name\": expected numbers, or texts that are in several rows, found 60 different",
    ] {
        assert!(message.contains(line), "{line}\n{message}");
    }
    assert!(!place.path("run").exists(), "nothing is begun");
    let rest = ["--delimiter", ";", "--drop", "name", "--missing", "drop"];
    let (stdout, _) = succeeds(place.train(&options).args(rest));
    assert!(stdout.contains("note: 3 of 60 rows lack a value and are left out"), "{stdout}");

    let (stdout, stderr) = succeeds(&mut place.infer("table.csv"));
    assert!(stderr.contains("note: 3 of 60 rows lack a value and have no answer"), "{stderr}");
    let empty: Vec<_> = (0..60).filter(|&row| answers(&stdout)[row] == ",,,").collect();
    assert_eq!(empty, [4, 9, 20]);

    // A target without a value is no class.
    let sex = ["--target", "sex", "--drop", "name", "--delimiter", ";", "--overwrite"];
    let message = fails(&mut place.train(&sex));
    assert!(message.contains("row 22, column \"sex\": expected a value"), "{message}");
    let (stdout, _) = succeeds(place.train(&sex).args(["--missing", "drop"]));
    assert!(stdout.contains("task: 2 classes"), "{stdout}");
}

#[test]
fn a_table_without_a_header_is_learned_packed_or_not() {
    // The first row says how many rows and inputs follow, as in scikit-learn's files.
    let row = |i: usize| format!("{},{}.5,{}\n", i % 2, i * 7 % 13, i * i % 5);
    let text = format!("40,2,even,odd\n{}", (0..40).map(row).collect::<String>());
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    let place = Place::new(packed.finish().unwrap());
    let message = fails(&mut place.train(&["--target", "odd"]));
    assert!(message.contains("if row 1 is no header, --no-header says so"), "{message}");
    let (stdout, _) = succeeds(&mut place.train(&["--target", "1", "--no-header"]));
    assert!(stdout.contains("note: row 1 has 4 cells and those below it 3"), "{stdout}");
    assert!(stdout.contains("2 different whole numbers, which are taken as classes; --task reg"));
    let split: Value =
        serde_json::from_slice(&fs::read(place.path("run/split.json")).unwrap()).unwrap();
    let rows = ["train", "valid", "test"].map(|part| split[part].as_array().unwrap().clone());
    let mut rows: Vec<_> = rows.concat().iter().map(|row| row.as_u64().unwrap()).collect();
    rows.sort_unstable();
    assert!(rows.into_iter().eq(2..42), "{split}");

    // The target is the first column, so that the others have other numbers without it.
    let (with, _) = succeeds(&mut place.infer("table.csv"));
    let bare = text.lines().skip(1).map(|line| line.split_once(',').unwrap().1.to_owned() + "\n");
    place.write("bare.csv", bare.collect::<String>());
    assert_eq!(succeeds(&mut place.infer("bare.csv")).0, with);
    assert_eq!(answers(&with).len(), 40);

    place.write("table.csv", "5.1,3.5,0\n4.9,3.1,1\n4,3,0\n");
    let message = fails(&mut place.train(&["--target", "3", "--overwrite"]));
    assert!(
        message.contains("found numbers alone") && message.contains("--no-header"),
        "{message}"
    );
}

#[test]
fn a_run_goes_on_with_the_reading_that_it_was_begun_with() {
    let place = Place::new(birds(';'));
    let options =
        ["--target", "species", "--drop", "name", "--missing", "mean", "--delimiter", ";"];
    succeeds(&mut place.train(&options));
    let (stdout, _) = succeeds(&mut place.resume(&["--epochs", "3"]));
    assert!(stdout.contains("resuming after epoch 2"), "{stdout}");
    for drop in [["name", "wild"], ["wild", "name"]] {
        let place = Place::new(birds(','));
        let options =
            ["--target", "species", "--missing", "mean", "--drop", "wild", "--drop", "name"];
        succeeds(&mut place.train(&options));
        let drop = ["--epochs", "3", "--drop", drop[0], "--drop", drop[1]];
        succeeds(&mut place.resume(&drop));
    }
    for (option, value) in [
        ("--missing", Some("drop")),
        ("--drop", Some("bill")),
        ("--delimiter", Some("tab")),
        ("--no-header", None),
    ] {
        let message = fails(place.resume(&["--epochs", "4", option]).args(value));
        assert!(message.contains(&format!("{option} is ")), "{message}");
    }
    let place = Place::new("");
    let digits = |option: &str, value: &str| {
        let mut command = example("train");
        command.arg("--run").arg(place.path("run")).args([option, value]);
        command
    };
    for (option, value) in [("--missing", "drop"), ("--drop", "a"), ("--delimiter", ";")] {
        let message = fails(&mut digits(option, value));
        assert!(message.contains("say how the CSV of --data is read"), "{message}");
    }
    let message = misused(&mut digits("--delimiter", "ab"));
    assert!(message.contains("expected one ASCII character"), "{message}");
}

#[test]
fn labels_and_tasks_are_shown_on_the_command_line() {
    let rows = |labels: &[&str]| {
        let row = |i: usize| format!("{}.5,{}\n", i * i % 17, labels[i % labels.len()]);
        format!("x,y\n{}", (0..60).map(row).collect::<String>())
    };
    for (labels, options, expected) in [
        (
            &["9007199254740992", "9007199254740993", "9007199254740994"][..],
            &[][..],
            "task: 3 classes",
        ),
        (&["0012", "12", "7"], &[], "equal numbers \"0012\", \"12\" are one class, \"0012\""),
        (&["a", "b"], &[], "task: 2 classes"),
        (&["5", "6"], &[], "taken as classes; --task regression takes them as a quantity"),
        (&["5", "6"], &["--task", "regression"], "task: regression"),
    ] {
        let place = Place::new(rows(labels));
        let (stdout, _) = succeeds(place.train(&["--target", "y"]).args(options));
        assert!(stdout.contains(expected), "{stdout}");
    }
    let ages: Vec<_> = (0..26).map(|age| age.to_string()).collect();
    let place = Place::new(rows(&ages.iter().map(String::as_str).collect::<Vec<_>>()));
    let (stdout, _) = succeeds(&mut place.train(&["--target", "y"]));
    assert!(stdout.contains("taken as a quantity; --task classification takes"), "{stdout}");
    let place = Place::new(rows(&["5", "7"]) + "1,6\n");
    let message = fails(&mut place.train(&["--target", "y"]));
    assert!(message.contains("1 of \"6\"") && message.contains("--task regression"), "{message}");
}

#[test]
fn what_is_no_table_is_called_by_its_name() {
    let files: [(&str, &[u8], &str); 3] = [
        (
            "pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "a Git LFS pointer",
        ),
        ("page", b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "a web page"),
        ("archive", b"PK\x03\x04\x14\x00", "a zip archive"),
    ];
    for (name, bytes, expected) in files {
        let place = Place::new(bytes);
        let message = fails(&mut place.train(&["--target", "y"]));
        assert!(message.contains("expected a table as CSV, found"), "{name}: {message}");
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn rows_that_are_asked_about_all_have_an_answer_or_an_error() {
    // As R writes a table: the header is a cell shorter.
    let row = |i: usize| format!("\"car {i}\" {} {}.5 {}.5\n", i * 3 % 7, i * i % 11, i * i % 9);
    let rows: Vec<_> = (0..20).map(row).collect();
    let place = Place::new(format!("mpg cyl y\n{}", rows.concat()));
    succeeds(&mut place.train(&["--target", "y", "--delimiter", "space"]));
    let (all, _) = succeeds(&mut place.infer("table.csv"));
    place.write("one.csv", format!("mpg cyl y\n{}", rows[5]));
    let (one, _) = succeeds(&mut place.infer("one.csv"));
    assert_eq!(answers(&one), answers(&all)[5..6]);
    succeeds(&mut place.resume(&["--epochs", "3"]));

    // Without a header, a shorter first row; with one, rows that are longer than it.
    let row = |i: usize| format!("{}.5,{}.5,{}\n", i * i % 7, i * i % 11, i % 2);
    let rows: String = (0..20).map(row).collect();
    let place = Place::new(&rows);
    let (stdout, _) = succeeds(&mut place.train(&["--target", "3", "--no-header"]));
    assert!(stdout.contains("task: 2 classes"), "{stdout}");
    place.write("rows.csv", "5.1,3.5\n4.9,3.0,1\n6.0,2.9,0\n");
    let message = fails(&mut place.infer("rows.csv"));
    assert!(message.contains("row 2: expected as many cells as the first row has, 2"), "{message}");
    place.write("rows.csv", "2,2,even,odd\n4.9,3.0,1\n6.0,2.9,0\n");
    let (stdout, stderr) = succeeds(&mut place.infer("rows.csv"));
    assert_eq!(answers(&stdout).len(), 2);
    assert!(stderr.contains("note: row 1 has 4 cells and those below it 3"), "{stderr}");

    let place = Place::new(format!("a,b,y\n{rows}"));
    succeeds(&mut place.train(&["--target", "y"]));
    place.write("rows.csv", "a,b\n1,2,3,4\n1,2,3,4\n");
    let message = fails(&mut place.infer("rows.csv"));
    assert!(message.contains("put the names of the columns in a row above it"), "{message}");
    assert!(!message.contains("--no-header"), "{message}");
}

#[test]
fn a_first_row_of_data_names_no_header_to_be_typed() {
    let row = |i: usize| {
        let kind = ["Iris-setosa", "Iris-virginica"][i % 2];
        format!("{}.5,{}.5,{kind}\n", i * i % 7, i * i % 11)
    };
    let place = Place::new((0..20).map(row).collect::<String>());
    let message = fails(&mut place.train(&["--target", "3"]));
    assert!(message.contains("--no-header"), "{message}");
    let (stdout, _) = succeeds(&mut place.train(&["--target", "3", "--no-header"]));
    assert!(stdout.contains("task: 2 classes"), "{stdout}");
}
