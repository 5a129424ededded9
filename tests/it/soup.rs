//! The example that merges fine-tunings of one model.

use std::process::Command;

use crate::{
    diffusion::{assert_finite, cells},
    examples::{example, misused, succeeds},
};

const GUIDE: &str = include_str!("../../src/guide/uses.md");
/// Around the table of the guide.
const MARKER: &str = "<!-- soup -->";

/// One pass of the shortest fine-tuning: the numbers say little of merges.
fn tiny(seeds: &str, options: &[&str]) -> Command {
    let mut command = example("soup");
    command.args(["--device", "flex", "--epochs", "1", "--seeds", seeds]).args(options);
    command
}

/// The guide has the table of the default setting: it has the shape of what is printed here.
#[test]
fn the_table_has_every_model_after_both_shifts() {
    let (markdown, _) = succeeds(&mut tiny("2", &["--markdown"]));
    let parts: Vec<_> = GUIDE.split(MARKER).collect();
    assert_eq!(parts.len(), 3, "the table stands between two lines {MARKER}");
    let [rows, guide] = [cells(&markdown), cells(parts[1])];
    let models = [
        "live",
        "best file",
        "equal soup",
        "greedy soup",
        "ema(0.99, debias)",
        "as suggested",
        "bema",
        "bema, every 20 steps",
        "base",
    ];
    for rows in [&rows, &guide] {
        assert_eq!(rows[0], ["setting", "model", "accuracy", "loss", "accuracy from live"]);
        let named = rows[1..].iter().map(|row| (&row[0][..], &row[1][..]));
        let expected = ["near", "far"].into_iter().flat_map(|far| models.map(|model| (far, model)));
        assert!(named.eq(expected), "{rows:?}");
        for row in &rows[1..] {
            let own = row[1] == "live";
            row[2..5 - usize::from(own)].iter().for_each(|cell| assert_finite(cell));
        }
    }
    // The base knows the digits, but not upside down, and its fine-tunings do.
    let accuracy = |row: usize| -> f64 { rows[row][2].split(' ').next().unwrap().parse().unwrap() };
    let [near, live, far] = [9, 10, 18].map(accuracy);
    assert!(near > 50.0 && far < 40.0 && live > 70.0 && live <= 100.0, "{markdown}");
}

#[test]
fn a_seed_decides_all_its_fine_tunings() {
    let [one, again] = [(); 2].map(|()| succeeds(&mut tiny("1", &[])).0);
    assert_eq!(one, again);
    let other = succeeds(&mut tiny("2", &[])).0;
    assert!(other.contains(" ± ") && !one.contains(" ± "), "{other}");
}

#[test]
fn the_options_are_explained() {
    let (help, _) = succeeds(example("soup").arg("--help"));
    for expected in ["upside down", "--seeds", "--markdown", "--epochs"] {
        assert!(help.contains(expected), "{expected}: {help}");
    }
    misused(example("soup").args(["--epochs", "0"]));
}
