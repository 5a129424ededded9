//! A noisy weight and its averages, as the example draws and tells them, against closed forms.

use std::{fs, path::Path};

use crate::examples::{example, fails, misused, succeeds};

/// The decays of the example, and how many values the window of each holds.
const DECAYS: [(f64, usize); 3] = [(0.8, 5), (0.9, 10), (0.95, 20)];
const STEPS: usize = 140;
const OUTLIER: f64 = 5.0;
const AT: usize = 90;

const README: &str = include_str!("../../README.md");
const GUIDE: &str = include_str!("../../src/guide/choosing.md");
const MARKER: &str = "<!-- averages -->";

/// The columns of the numbers that the example leaves: live, and three averages of each decay.
struct Columns(Vec<Vec<f64>>);

impl Columns {
    fn read(path: &Path) -> Self {
        let mut lines = csv::Reader::from_path(path).unwrap();
        let names: Vec<_> = lines.headers().unwrap().iter().map(str::to_owned).collect();
        let mut columns = vec![Vec::new(); names.len() - 1];
        for (step, line) in lines.records().enumerate() {
            let line = line.unwrap();
            assert_eq!(line[0], step.to_string());
            for (column, cell) in columns.iter_mut().zip(line.iter().skip(1)) {
                column.push(cell.parse().unwrap());
            }
        }
        assert_eq!(columns[0].len(), STEPS + 1);
        let rules = DECAYS.iter().flat_map(|(decay, count)| {
            let window = format!("window({count} snapshots, 1 steps)");
            [format!("ema({decay})"), format!("ema({decay}, debias)"), window]
        });
        let expected: Vec<_> =
            ["step".to_owned(), "live".to_owned()].into_iter().chain(rules).collect();
        assert_eq!(names, expected);
        Self(columns)
    }

    fn live(&self) -> &[f64] {
        &self.0[0]
    }

    /// The average from the start, the corrected one and the window of a decay.
    fn averages(&self, index: usize) -> [&[f64]; 3] {
        std::array::from_fn(|which| &self.0[1 + 3 * index + which][..])
    }
}

/// Without and with the outlier, and the directory with all files.
fn drawn() -> (tempfile::TempDir, [Columns; 2]) {
    let directory = tempfile::tempdir().unwrap();
    succeeds(example("averages").arg("--out").arg(directory.path()));
    let columns =
        ["settle.csv", "outlier.csv"].map(|name| Columns::read(&directory.path().join(name)));
    (directory, columns)
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-13, "found {found}, expected {expected}");
}

/// What `--markdown` prints, as cells without the two lines of the head.
fn table() -> Vec<Vec<String>> {
    let (markdown, _) = succeeds(example("averages").arg("--markdown"));
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    markdown.lines().skip(2).map(cells).collect()
}

/// Each average by its definition, from the values of live alone.
#[test]
fn the_curves_are_what_they_are_called() {
    let (_directory, both) = drawn();
    for columns in both {
        let live = columns.live();
        assert_eq!(live[0], 0.0);
        for (index, (decay, count)) in DECAYS.into_iter().enumerate() {
            let [plain, corrected, window] = columns.averages(index);
            let mut from_zero = 0.0;
            for step in 1..=STEPS {
                from_zero = decay * from_zero + (1.0 - decay) * live[step];
                near(plain[step], from_zero);
                near(corrected[step], from_zero / (1.0 - decay.powi(step as i32)));
                let held = &live[step.saturating_sub(count) + 1..=step];
                near(window[step], held.iter().sum::<f64>() / held.len() as f64);
            }
        }
    }
}

/// An outlier moves a moving average by its share of an update, which decays; and the mean of the
/// last `n` by one `n`th, for `n` steps.
#[test]
fn an_outlier_moves_an_average_by_its_share_and_no_more() {
    let (_directory, [without, with]) = drawn();
    let moved = |index: usize| {
        let (without, with) = (without.averages(index), with.averages(index));
        [0, 1, 2].map(|which| move |step: usize| with[which][step] - without[which][step])
    };
    near(with.live()[AT] - without.live()[AT], OUTLIER);
    for (index, (decay, count)) in DECAYS.into_iter().enumerate() {
        let [plain, corrected, window] = moved(index);
        for step in 1..AT {
            assert_eq!([plain(step), corrected(step), window(step)], [0.0; 3], "step {step}");
        }
        for step in AT..=STEPS {
            let left = (1.0 - decay) * OUTLIER * decay.powi((step - AT) as i32);
            near(plain(step), left);
            near(corrected(step), left / (1.0 - decay.powi(step as i32)));
            near(window(step), if step < AT + count { OUTLIER / count as f64 } else { 0.0 });
        }
    }
}

/// Both moving averages differ by `decay^t` of how far the corrected one is from the start.
#[test]
fn both_averages_meet_at_the_step_of_the_closed_form() {
    let (directory, [columns, _]) = drawn();
    let picture = fs::read_to_string(directory.path().join("settle.svg")).unwrap();
    let table = table();
    for (index, (decay, _)) in DECAYS.into_iter().enumerate() {
        let expected = (0.01_f64.ln() / decay.ln()).floor() as usize + 1;
        let [plain, corrected, _] = columns.averages(index);
        let apart = |step: usize| ((plain[step] - corrected[step]) / corrected[step]).abs();
        let met = (1..=STEPS).find(|step| apart(*step) < 0.01);
        assert_eq!(met, Some(expected), "decay {decay}");
        assert!((apart(expected) - decay.powi(expected as i32)).abs() < 1e-9);
        assert!((expected..=STEPS).all(|step| apart(step) < 0.01), "they part no more");
        assert!(picture.contains(&format!("decay {decay}: both EMA meet at step {expected}, ")));
        assert_eq!(table[1 + 2 * index][5], expected.to_string());
    }
    let (stdout, _) =
        succeeds(example("averages").args(["--decay", "0.99", "--steps", "458", "--markdown"]));
    assert!(stdout.contains("| never |"), "{stdout}");
    let (stdout, _) =
        succeeds(example("averages").args(["--decay", "0.99", "--steps", "459", "--markdown"]));
    assert!(stdout.contains("| 459 |"), "{stdout}");
}

/// Of independent noise a moving average leaves `sqrt((1 - decay) / (1 + decay))`, and the mean of
/// `n` values `1 / sqrt(n)`.
#[test]
fn the_table_has_the_errors_of_the_closed_forms() {
    let (markdown, _) = succeeds(example("averages").args(["--markdown", "--weights", "20000"]));
    let rows: Vec<Vec<_>> =
        markdown.lines().skip(2).map(|line| line.split(" | ").collect()).collect();
    let errors: Vec<f64> = rows.iter().map(|row| row[2].parse().unwrap()).collect();
    let copies: Vec<_> = rows.iter().map(|row| row[1]).collect();
    assert_eq!(copies, ["0", "1", "5", "1", "10", "1", "20"]);
    let mut expected = vec![1.0];
    for (decay, count) in DECAYS {
        expected.extend([((1.0 - decay) / (1.0 + decay)).sqrt(), (count as f64).powf(-0.5)]);
    }
    for (error, expected) in errors.into_iter().zip(expected) {
        // Of 20 thousand weights, and as it is rounded.
        let limit = 0.02 * 0.2 * expected + 6e-4;
        assert!((error - 0.2 * expected).abs() < limit, "{error} is not {}", 0.2 * expected);
    }
}

#[test]
fn the_table_of_the_guide_is_the_printed_one() {
    let parts: Vec<_> = GUIDE.split(MARKER).collect();
    assert_eq!(parts.len(), 3, "the table stands between two lines {MARKER}");
    let (printed, _) = succeeds(example("averages").arg("--markdown"));
    assert_eq!(parts[1].trim(), printed.trim(), "run `cargo run --example averages -- --markdown`");
}

/// The pictures of the README and the guide, byte for byte.
#[test]
fn the_committed_figures_are_the_drawn_ones() {
    let (directory, _) = drawn();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts/figures");
    for name in ["settle.svg", "outlier.svg"] {
        let [committed, drawn] =
            [&committed, directory.path()].map(|path| fs::read(path.join(name)).unwrap());
        assert!(
            committed == drawn,
            "{name} differs: run `cargo run --example averages -- --out artifacts/figures`"
        );
        assert!(drawn.len() < 40_000, "{name} has {} bytes", drawn.len());
        assert!(GUIDE.contains(&format!("`artifacts/figures/{name}`")));
        let pages = include_str!("../../src/guide.rs");
        assert!(pages.contains(&format!("include_str!(\"../artifacts/figures/{name}\")")));
    }
    assert!(README.contains("](artifacts/figures/settle.svg)"));
}

#[test]
fn what_is_drawn_follows_the_options_and_the_seed() {
    let printed = |options: &[&str]| succeeds(example("averages").args(options)).0;
    assert_eq!(printed(&["--seed", "1"]), printed(&[]));
    assert_ne!(printed(&["--seed", "2"]), printed(&[]));
    let plot = printed(&["--decay", "0.9"]);
    assert!(plot.contains("ema(0.9, debias), and the mean of the last 10 values: "), "{plot}");
    let braille = |c: char| ('\u{2801}'..='\u{28ff}').contains(&c);
    assert!(plot.lines().filter(|line| line.contains(braille)).count() > 10, "{plot}");
    let (help, _) = succeeds(example("averages").arg("--help"));
    assert!(help.contains("this share is d^t, so that d^t < 0.01"), "{help}");
    for (options, expected) in [
        (["--decay", "1"], "--decay is 1, expected a number in [0, 1)"),
        (["--decay", "0.99999"], "--decay is 0.99999, expected at most 0.9999"),
        (["--noise", "NaN"], "--noise is NaN, expected a finite number from 0"),
        (["--rate", "1.5"], "--rate is 1.5, expected a number in [0, 1]"),
        (["--outlier", "inf"], "--outlier is inf, expected a finite number"),
        (["--outlier-at", "141"], "--outlier-at is 141, expected a step in 1..=140"),
    ] {
        let message = fails(example("averages").args(options));
        assert!(message.contains(expected), "{message}");
    }
    misused(example("averages").args(["--steps", "1"]));
}
