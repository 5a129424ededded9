//! The example that learns from few labels and a teacher: its table, its runs after kills.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use burn_ema::runs::Commits;
use burn_ema_lab::data::{Prepared, digits};

use crate::{diffusion::table as columns, gains::statistics};

use crate::examples::{example, fails, misused, succeeds};

#[path = "../../examples/teacher/labels.rs"]
mod labels;
#[path = "../../examples/teacher/table.rs"]
mod table;

use labels::few_labels;
use table::{Training, compare};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/uses.md");
/// Around the table of the guide.
const MARKER: &str = "<!-- teacher -->";

/// One seed and few epochs: the numbers say nothing of teachers.
fn tiny(run: &Path, epochs: &str) -> Command {
    let mut command = example("teacher");
    command.args(["--device", "flex", "--markdown", "--seeds", "1", "--epochs", epochs, "--run"]);
    command.arg(run);
    command
}

/// The cells of a table in Markdown, without the line below its titles.
fn cells(markdown: &str) -> Vec<Vec<&str>> {
    let lines = markdown.trim().lines().filter(|line| !line.starts_with("|---"));
    let inner = lines.map(|line| line.strip_prefix('|').unwrap().strip_suffix('|').unwrap());
    inner.map(|line| line.split('|').map(str::trim).collect()).collect()
}

/// The first number of a cell.
fn number(cell: &str) -> f64 {
    cell.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_table_has_both_models_of_every_training() {
    let directory = tempfile::tempdir().unwrap();
    let (markdown, stderr) = succeeds(&mut tiny(directory.path(), "1"));
    assert!(stderr.contains(&format!("runs: {}\n", directory.path().display())), "{stderr}");
    let rows = cells(&markdown);
    assert_eq!(rows.len(), 1 + 2 * 9, "{markdown}");
    for (index, row) in rows[1..].iter().enumerate() {
        let (training, average) = (index / 2, index % 2 == 1);
        let accuracy = number(row[3]);
        assert!((20.0..=100.0).contains(&accuracy), "more than one in ten: {markdown}");
        // From labels alone, from the own answers of the same weight, from the student.
        let bases = [(training > 0).then_some(index % 2), None, average.then(|| index - 1)];
        let bases = [bases[0], (training > 4).then(|| index - 8), bases[2]];
        for (cell, base) in row[4..].iter().zip(bases) {
            let expected = base.map(|base| accuracy - number(rows[1 + base][3]));
            match expected {
                Some(expected) => assert!((number(cell) - expected).abs() < 0.11, "{markdown}"),
                None => assert_eq!(*cell, "", "{markdown}"),
            }
        }
    }
    let own = |row: usize| &rows[row][3];
    assert!((3..11).any(|row| own(row) != own(row + 8)), "the teacher differs: {markdown}");

    // The guide has the table of the default setting, which takes minutes.
    let page = fs::read_to_string(GUIDE).unwrap();
    let parts: Vec<_> = page.split(MARKER).collect();
    assert_eq!(parts.len(), 3, "the table stands between two lines {MARKER}");
    let guide = cells(parts[1]);
    let names =
        |rows: &[Vec<&str>]| -> Vec<String> { rows.iter().map(|row| row[..3].join(" ")).collect() };
    assert_eq!((&guide[0], names(&guide)), (&rows[0], names(&rows)));
    assert!(guide[1..].iter().all(|row| row[3].contains(" ± ") && number(row[3]) <= 100.0));
}

const EPOCHS: usize = 8;

/// The runs of one weight, in their order.
const RUNS: [&str; 3] = ["labels-alone-0-1", "own-answers-20-1", "teacher-20-1"];

/// The epochs after which a run has a whole commit.
fn committed(run: &Path) -> usize {
    Commits::of(run).list().unwrap().last().map_or(0, |newest| newest.epochs)
}

#[test]
fn killed_again_and_again_it_ends_with_the_table_of_an_undisturbed_run() {
    let directory = tempfile::tempdir().unwrap();
    let [whole, killed] = ["whole", "killed"].map(|name| directory.path().join(name));
    let call = |run: &Path| {
        let mut command = tiny(run, &EPOCHS.to_string());
        command.args(["--weight", "20"]);
        command
    };
    let (table, _) = succeeds(&mut call(&whole));
    for run in RUNS.map(|run| killed.join(run)) {
        for epoch in [1, 3, 5] {
            let begun = Instant::now();
            let mut command = call(&killed);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            while committed(&run) < epoch {
                assert!(begun.elapsed() < Duration::from_secs(120), "no commit {epoch}");
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(2 * epoch as u64));
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(9), "it ended before its kill");
            assert!(committed(&run) < EPOCHS, "the training ended before its kill");
        }
    }
    let (again, _) = succeeds(&mut call(&killed));
    assert_eq!(again, table);
    for run in RUNS {
        // The losses of every batch, in full.
        let [one, other] =
            [&whole, &killed].map(|it| fs::read_to_string(it.join(run).join("metrics.csv")));
        assert_eq!(one.unwrap(), other.unwrap(), "{run}");
    }

    // Runs that have ended have the same table again, and other settings are refused.
    let (again, _) = succeeds(&mut call(&killed));
    assert_eq!(again, table);
    let refused = fails(call(&killed).args(["--noise", "0.1"]));
    assert!(refused.contains("--run names another directory"), "{refused}");
    assert!(refused.contains("config.noise: expected 0.3, as in the run, found 0.1"), "{refused}");
}

#[test]
fn few_rows_have_a_label_and_are_a_third_of_all() {
    let rows = Prepared::new(&digits().unwrap(), 3).unwrap().train;
    let few = few_labels(&rows, 5, 3);
    let (labelled, others): (Vec<_>, Vec<_>) =
        few.iter().partition(|row| row.targets.iter().sum::<f32>() == 1.0);
    assert!(others.iter().all(|row| row.targets == [0.0; 10]));
    assert_eq!((others.len(), labelled.len()), (rows.len() - 50, 500));
    for class in 0..10 {
        let of_class = labelled.iter().filter(|row| row.targets[class] == 1.0);
        let mut inputs: Vec<_> = of_class.map(|row| &row.inputs).collect();
        inputs.dedup();
        assert_eq!(inputs.len(), 5, "5 rows of a class, each 10 times");
    }
    assert!(labelled.iter().all(|row| rows.contains(row)), "with its own label");
    assert_eq!(few_labels(&rows, 5, 3), few);
    assert_ne!(few_labels(&rows, 5, 4), few);
}

/// Five seeds. The teacher's student is better than that of the own answers by as much in each; that
/// of the own answers is 10 points worse than that of labels alone in the mean, of numbers that vary
/// too much to show it.
#[test]
fn more_than_chance_is_what_every_seed_has() {
    let trainings = Training::all(&[2.5]);
    let seeds = [0.0, 1.0, 2.0, 3.0, 4.0];
    let labels = seeds.map(|seed| [80.0 + seed, 81.0 + seed]);
    let own = seeds.map(|seed| [80.0 + 8.0 * (seed - 3.0), 82.0 + seed + seed / 100.0]);
    let teacher = own.map(|[student, average]| [student + 20.0, average - average / 100.0]);
    let accuracies = [labels, own, teacher].map(Vec::from);
    let expected = "\
| learns from | weight | model | accuracy, % | from labels alone | from own answers | from student |
|---|---|---|---|---|---|---|
| labels alone |  | student | 82.0 ± 1.6 |  |  |  |
| labels alone |  | average | 83.0 ± 1.6 |  |  | +1.0 [+1.0, +1.0] gain |
| own answers | 2.5 | student | 72.0 ± 12.6 | -10.0 [-23.7, +3.7] |  |  |
| own answers | 2.5 | average | 84.0 ± 1.6 | +1.0 [+1.0, +1.0] gain |  | +12.0 [-1.7, +25.7] |
";
    let found = compare(&trainings, &accuracies, true);
    assert!(found.starts_with(expected), "{found}");
    let teacher: Vec<_> = found.lines().skip(6).collect();
    assert!(teacher[0].contains("| teacher | 2.5 | student | 92.0 ± 12.6 |"), "{found}");
    assert!(teacher[0].ends_with("| +20.0 [+20.0, +20.0] gain |  |"), "{found}");
    assert!(teacher[1].contains("| -0.8 [-0.9, -0.8] harm |"), "{found}");
    // Four seeds show nothing, one has no interval.
    let less = |count: usize| accuracies.clone().map(|all| all[..count].to_vec());
    let four = compare(&trainings, &less(4), true);
    assert!(four.contains("+20.0 [+20.0, +20.0] |") && !four.contains("gain"), "{four}");
    let one = compare(&trainings, &less(1), false);
    let words = ["labels", "alone", "average", "81.0", "+1.0"];
    assert!(one.lines().any(|line| line.split_whitespace().eq(words)), "{one}");
    assert!(!one.contains('±') && !one.contains('['), "{one}");
}

#[test]
fn the_options_are_explained() {
    let (help, _) = succeeds(example("teacher").arg("--help"));
    let expected = ["more than chance", "--weight <WEIGHT>", "--valid", "--run <DIR>"];
    for expected in [&expected[..], &["--markdown", "artifacts/runs/teacher"]].concat() {
        assert!(help.contains(expected), "{expected}: {help}");
    }
    for (option, value) in [("--weight", "-1"), ("--noise", "nan"), ("--weight", "inf")] {
        let message = misused(example("teacher").args([option, value]));
        assert!(message.contains("expected a number of 0 or more"), "{message}");
    }
    misused(example("teacher").args(["--seeds", "0"]));
    misused(example("teacher").args(["--labels", "101"]));
    let directory = tempfile::tempdir().unwrap();
    let twice = ["--weight", "3", "--weight", "3"];
    let message = fails(tiny(directory.path(), "1").args(twice));
    assert!(message.contains("--weight 3 is given twice"), "{message}");
}

/// The program knows how many steps an epoch has, and how many samples a step.
#[test]
fn a_rule_may_count_epochs_or_samples() {
    for rule in ["half-life(2 epochs)", "half-life(640 samples)"] {
        let directory = tempfile::tempdir().unwrap();
        let options = ["--weight", "1", "--average", rule];
        let (markdown, _) = succeeds(tiny(directory.path(), "1").args(options));
        assert_eq!(cells(&markdown).len(), 1 + 2 * 3, "{markdown}");
    }
}
