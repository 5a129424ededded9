//! The profiles of rules in use, as the example prints them and as the documentation shows them.

use crate::examples::{example, fails, misused, succeeds};

/// The documentation of the rules, in which a table stands between two of these lines.
const DOCS: &str = include_str!("../../src/average/rule.rs");
const MARKER: &str = "<!-- profiles -->";

/// The lines of a Markdown table, as cells.
fn cells<'a>(table: &'a str) -> Vec<Vec<&'a str>> {
    let cells = |line: &'a str| line.trim_matches('|').split('|').map(str::trim);
    table.lines().map(|line| cells(line).collect()).collect()
}

/// Mass on the start, mean and standard deviation of rules in use, as fractions of 20 thousand
/// steps: numbers of another program, in as many digits as it printed.
#[test]
fn rules_in_use_have_their_known_profiles() {
    let known = [
        ("ema(0.9999)", "0.135", "0.568", "0.332"),
        ("ema(0.9999, debias)", "0", "0.657", "0.263"),
        ("ema(0.999)", "2e-9", "0.950", "0.050"),
        ("warm-up(10, max=0.9999)", "0", "0.900", "0.090"),
        ("inverse-gamma(1, power=0.6667, max=0.9999)", "0", "0.964", "0.035"),
        ("inverse-gamma(1, power=0.75, max=0.9999)", "0", "0.921", "0.074"),
        ("exp-ramp(0.9999, tau=2000)", "0", "0.835", "0.097"),
        ("half-life-ramp(0.05)", "0", "0.933", "0.063"),
        ("annealing(1, max=1)", "5e-5", "0.500", "0.289"),
    ];
    let (stdout, _) = succeeds(&mut example("profiles"));
    assert!(stdout.starts_with("after 20000 steps  "), "{stdout}");
    let rows: Vec<Vec<_>> = stdout
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    for (rule, start, mean, deviation) in known {
        let row = rows.iter().find(|row| row[0] == rule);
        let row = row.unwrap_or_else(|| panic!("no line of {rule}:\n{stdout}"));
        assert_eq!(row[1..4], [start, mean, deviation], "{rule}");
    }

    // Both forms of the table are one.
    let (markdown, _) = succeeds(example("profiles").arg("--markdown"));
    let markdown = cells(&markdown);
    assert_eq!(markdown.len(), rows.len() + 1);
    for (cells, row) in markdown[2..].iter().zip(&rows[1..]) {
        assert_eq!(cells[0].trim_matches('`'), row[0]);
        assert_eq!(cells[1..], row[1..]);
    }
}

#[test]
fn the_documented_table_is_the_printed_one() {
    let documented = |line: &'static str| {
        let line = line.trim_start();
        let line = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?;
        Some(line.trim())
    };
    let lines: Vec<_> = DOCS.lines().filter_map(documented).collect();
    let parts: Vec<_> = lines.split(|line| *line == MARKER).collect();
    assert_eq!(parts.len(), 3, "the table stands between two lines {MARKER}");
    let table: Vec<_> = parts[1].iter().filter(|line| !line.is_empty()).collect();
    let (printed, _) = succeeds(example("profiles").arg("--markdown"));
    let printed: Vec<_> = printed.lines().collect();
    for (documented, printed) in table.iter().zip(&printed) {
        assert_eq!(*documented, printed, "run `cargo run --example profiles -- --markdown`");
    }
    assert_eq!(table.len(), printed.len());
}

#[test]
fn weights_are_printed_and_plotted() {
    let asked = |options: &[&str]| {
        let mut command = example("profiles");
        command.args(options);
        command
    };
    let options = ["--steps", "12", "--start", "2", "--every", "4", "--rule", "ema(0.5)"];
    let (csv, _) = succeeds(asked(&options).arg("--csv"));
    let start = 0.5_f64.powi(8);
    let expected = [(2.0, start), (6.0, 0.0625 - start), (10.0, 0.9375)];
    let lines = csv.lines().skip(1).map(|line| line.split_once(',').unwrap());
    let found: Vec<(f64, f64)> =
        lines.map(|(step, weight)| (step.parse().unwrap(), weight.parse().unwrap())).collect();
    assert!(csv.starts_with("step,weight\n"), "{csv}");
    assert_eq!(found, expected);

    // Mean and deviation are shares of all steps, also of those before the start.
    let (stdout, _) = succeeds(&mut asked(&options));
    let row: Vec<_> = stdout.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[1..4], ["0.004", "0.811", "0.088"], "{stdout}");

    // An update stands for the steps that it covers: from a quarter to three quarters, evenly.
    let options = ["--steps", "40", "--start", "10", "--every", "20", "--rule", "equal"];
    let (plot, _) = succeeds(asked(&options).arg("--plot"));
    let bars: Vec<_> = plot.lines().filter_map(|line| line.split_once('|')).collect();
    assert_eq!(bars.len(), 8, "{plot}");
    assert_eq!(bars[0].0.trim(), "5.0 %");
    let bar = format!("{}{}", " ".repeat(10), "#".repeat(20));
    assert!(bars.iter().all(|(_, drawn)| *drawn == bar), "{plot}");

    let (stdout, _) = succeeds(&mut asked(&[
        "--steps",
        "5000",
        "--rule",
        "half-life(3 epochs)",
        "--steps-per-epoch",
        "100",
        "--rule",
        "half-life(4800 samples)",
        "--samples-per-step",
        "16",
    ]));
    let half_lives = stdout.lines().skip(1).map(|line| line.split_whitespace().nth_back(1));
    assert_eq!(half_lives.collect::<Vec<_>>(), [Some("300"); 2], "{stdout}");
}

#[test]
fn what_cannot_be_is_an_error_with_its_reason() {
    for (rule, expected) in [
        ("ema(2)", "decay is 2, expected a number in [0, 1)"),
        ("power(sigma_rel=0.3)", "sigma_rel is 0.3, expected a number in (0, 1/sqrt(12)]"),
        ("emu(0.9)", "the rule is \"emu(0.9)\", expected one of ema, half-life,"),
    ] {
        let message = misused(example("profiles").args(["--rule", rule]));
        assert!(message.contains(expected), "{message}");
    }
    misused(example("profiles").args(["--steps", "0"]));
    misused(example("profiles").arg("--csv"));
    for (options, expected) in [
        (["--every", "0", "--plot"], "every is 0, expected 1 or more"),
        (["--rule", "half-life(2 epochs)", "--plot"], "steps_per_epoch is not set"),
        (["--rule=equal", "--rule=equal", "--csv"], "--csv takes one --rule, found 2"),
    ] {
        let message = fails(example("profiles").args(options));
        assert!(message.contains(expected), "{message}");
    }
}
