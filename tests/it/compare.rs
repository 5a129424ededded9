//! The comparison with PyTorch: its figures, and its talk with the other side, without PyTorch.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use serde_json::Value;

use crate::examples::{fails, succeeds};

#[path = "../../benches/compare/figures.rs"]
mod figures;

use figures::{Bar, Unit, median, over_rounds, range, show, table};

/// Another side: whatever it is asked takes a millisecond, but nothing is compiled.
pub const OTHER: &str = r#"#!/bin/sh
echo '{"version": "of the test", "threads": 1}'
while read -r request; do
    repeat=$(echo "$request" | sed 's/.*"repeat":\([0-9]*\).*/\1/')
    case "$request" in
        *forget*) ;;
        *'"compiled":true'*) echo '{"error": "no compiler"}' ;;
        *) echo "{\"nanoseconds\": ${repeat}000000}" ;;
    esac
done
"#;

/// A program in the place of Python.
pub fn python(directory: &Path, script: &str) -> PathBuf {
    let file = directory.join("python");
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file
}

static BENCH: LazyLock<PathBuf> = LazyLock::new(|| built("compare"));

/// A bench, which `cargo test` leaves out: built as it builds the rest, and not run.
pub fn built(bench: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.ancestors().nth(2).unwrap();
    let features = [
        ("flex", cfg!(feature = "flex")),
        ("train", cfg!(feature = "train")),
        ("ndarray", cfg!(feature = "ndarray")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("tui", cfg!(feature = "tui")),
    ];
    let features = features.iter().filter(|(_, has)| *has).map(|(name, _)| *name);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--no-run", "--offline", "--bench", bench, "--message-format", "json"]);
    cargo.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    cargo.args(["--no-default-features", "--features", &features.collect::<Vec<_>>().join(",")]);
    cargo.arg("--target-dir").arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let (stdout, _) = succeeds(&mut cargo);
    let messages = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut files = messages.filter_map(|message| Some(message["executable"].as_str()?.into()));
    files.next_back().unwrap_or_else(|| panic!("no executable: {stdout}"))
}

fn compare(python: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(&*BENCH);
    // As `cargo bench` calls it.
    command.arg("--bench").stdin(Stdio::null());
    command.env_remove("BURN_DEVICE").env_remove("RUST_BACKTRACE");
    command.arg("--python").arg(python).args(["--threads", "1"]).args(options);
    command
}

/// The rows of a comparison with the other side above.
fn figures(only: &str, rounds: &str) -> (Vec<Value>, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("figures.json");
    let python = python(directory.path(), OTHER);
    let mut command = compare(&python, &["--only", only, "--rounds", rounds]);
    let (stdout, stderr) = succeeds(command.arg("--json").arg(&json));
    let figures: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(figures["torch"], "of the test");
    (figures["rows"].as_array().unwrap().clone(), stdout, stderr)
}

fn numbers(rounds: &Value) -> Vec<f64> {
    rounds.as_array().unwrap().iter().map(|time| time.as_f64().unwrap_or(f64::NAN)).collect()
}

#[test]
fn ratios_are_those_of_the_rounds() {
    let (rows, stdout, _) = figures("update-1000x400", "3");
    let [row] = &rows[..] else { panic!("{rows:?}") };
    let [ours, _, theirs, other] = &row["contestants"].as_array().unwrap()[..] else {
        panic!("{row}")
    };
    assert_eq!(ours["name"], "Average::update");
    for theirs in [theirs, other] {
        let times = numbers(&theirs["rounds"]);
        assert!(times.len() == 3 && times.iter().all(|ns| (ns - 1e6).abs() < 1.0), "{times:?}");
    }
    let ratios = numbers(&ours["rounds"]).into_iter().map(|ns| 1e6 / ns);
    let claim = &row["claims"][0];
    let ratio = claim["number"].as_f64().unwrap();
    assert!((ratio / median(ratios).unwrap() - 1.0).abs() < 1e-3, "{row}");
    assert_eq!(claim["bar"], "at least 3");
    assert_eq!(claim["reached"], ratio >= 3.0);
    let reached = if ratio >= 3.0 { "yes" } else { "no" };
    let line = format!("_foreach_lerp_ | {ratio:.3} | at least 3 | {reached} |");
    assert!(stdout.contains(&line), "{stdout}");
    assert!(
        stdout.contains("| PyTorch _foreach_lerp_ | 1.00 ms | 1.00 ms | 1.00 ms |"),
        "{stdout}"
    );
}

#[test]
fn what_cannot_run_is_left_out_aloud() {
    let (rows, stdout, stderr) = figures("step-sgd-64-32-10", "2");
    let compiled = "PyTorch compiled, with AveragedModel";
    let expected = format!("step-sgd-64-32-10-b32: {compiled} is left out: no compiler\n");
    assert_eq!(stderr, expected);
    assert!(stdout.contains(&format!("| {compiled} | left out |")), "{stdout}");
    let contestants = rows[0]["contestants"].as_array().unwrap();
    let left_out = contestants.iter().find(|one| one["name"] == compiled).unwrap();
    assert_eq!(left_out["median"], Value::Null);
    // The claims go by the one that ran.
    let claims = rows[0]["claims"].as_array().unwrap();
    assert!(claims.len() == 7 && claims.iter().all(|claim| claim["number"].is_f64()), "{claims:?}");
}

#[test]
fn rows_without_pytorch_need_none() {
    let nothing = Path::new("/nonexistent/python");
    let (stdout, _) = succeeds(&mut compare(nothing, &["--only", "epoch", "--rounds", "1"]));
    assert!(stdout.contains("| epoch-digits | time, of the bare steps | "), "{stdout}");
    let (stdout, _) = succeeds(&mut compare(nothing, &["--list"]));
    assert_eq!(stdout.lines().count(), 20);
}

#[test]
fn a_missing_pytorch_is_an_error_before_anything_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\necho '{\"error\": \"No module named torch; get it\"}'\nexit 1\n";
    let message = fails(&mut compare(&python(directory.path(), script), &[]));
    let expected = "Error: No module named torch; get it, and --python names another Python\n";
    assert_eq!(message, expected);

    let message = fails(&mut compare(Path::new("/nonexistent/python"), &[]));
    assert!(message.contains("/nonexistent/python cannot be started; --python names"), "{message}");

    let message = fails(&mut compare(&python(directory.path(), "#!/bin/sh\n"), &[]));
    assert_eq!(message, "Error: PyTorch's side ended: exit status: 0\n");

    let message = fails(&mut compare(Path::new("python3"), &["--only", "no such row"]));
    assert_eq!(message, "Error: no row has such a name; --list lists them all\n");
}

#[test]
fn medians_leave_out_what_is_no_number() {
    assert_eq!(median([]), None);
    assert_eq!(median([f64::NAN]), None);
    assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median([4.0, 1.0, f64::NAN, 2.0, 3.0]), Some(2.5));
}

#[test]
fn ranges_leave_out_what_is_no_number() {
    assert_eq!(range([]), None);
    assert_eq!(range([f64::NAN]), None);
    assert_eq!(range([f64::NAN, 3.0, 1.0, 2.0]), Some([1.0, 3.0]));
}

/// A machine that is twice as slow in one round changes no ratio.
#[test]
fn ratios_are_taken_within_rounds() {
    let rounds = [vec![1.0, 3.0], vec![2.0, 6.0], vec![1.0, 4.0], vec![f64::NAN, 1.0]];
    assert_eq!(median(over_rounds(&rounds, &[], |times| times[1] / times[0])), Some(3.0));
}

/// The second of the rivals has the lower median, though the first was faster in one round.
#[test]
fn the_fastest_of_rivals_is_so_by_its_median() {
    let mut rounds = vec![vec![1.0, 2.0, 9.0], vec![1.0, 5.0, 4.0], vec![1.0, 5.0, 3.0]];
    let ratio = |times: &[f64]| times[1] / times[0];
    assert_eq!(over_rounds(&rounds, &[1, 2], ratio), [9.0, 4.0, 3.0]);
    // One that was left out is no rival.
    rounds.iter_mut().for_each(|round| round[2] = f64::NAN);
    assert_eq!(over_rounds(&rounds, &[1, 2], ratio), [2.0, 5.0, 5.0]);
}

#[test]
fn bars_are_reached_from_their_side() {
    assert_eq!(Bar::AtLeast(1.2).is_reached(1.2), Some(true));
    assert_eq!(Bar::AtLeast(1.2).is_reached(1.1), Some(false));
    assert_eq!(Bar::AtMost(0.85).is_reached(0.85), Some(true));
    assert_eq!(Bar::AtMost(0.85).is_reached(0.9), Some(false));
    assert_eq!(Bar::None.is_reached(1.0), None);
}

#[test]
fn figures_have_units_and_tables_have_columns() {
    let shown = [0.4, 7.0, 1234.0, 56_780.0, 999_000_000.0, 2e9];
    let shown = shown.map(|number| show(number, Unit::Nanoseconds));
    assert_eq!(shown, ["0.40 ns", "7.00 ns", "1.23 µs", "56.8 µs", "999 ms", "2.00 s"]);
    assert_eq!(show(5.25e8, Unit::Bytes), "525 MB");
    assert_eq!(show(1.0, Unit::Waits), "1.00");
    let rows = [["1".to_owned(), "2".to_owned()]];
    assert_eq!(table(["a", "b"], rows), "| a | b |\n| --- | --- |\n| 1 | 2 |\n");
}
