//! The example that compares live with its averages over many seeds.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use burn_ema_lab::{
    data::{Prepared, Sample, Table, Targets, TaskKind, digits},
    report::Report,
};

use crate::examples::{example, fails, misused, succeeds};

#[path = "../../examples/compare/data.rs"]
mod data;
#[path = "../../examples/compare/overall.rs"]
mod overall;
#[path = "../../examples/compare/results.rs"]
mod results;
#[path = "../../examples/shared/statistics.rs"]
pub mod statistics;
#[path = "../../examples/compare/table.rs"]
mod table;

use results::{EARLY, Judged, LIVE, Line, POST_HOC, Results};
use statistics::{deviation, holm, interval, signed_rank, student};
use table::Comparison;

#[track_caller]
fn assert_near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-9, "{found} against {expected}");
}

/// `scipy.stats.t.interval(0.95, len(d) - 1, numpy.mean(d), scipy.stats.sem(d))` of SciPy 1.17.1.
#[test]
fn intervals_are_those_of_scipy() {
    let found = interval(&[0.3, -0.1, 0.5, 0.7, -0.2, 1.1, 0.9, 0.4]).unwrap();
    assert_near(found.mean, 0.45);
    assert_near(found.low, 0.07081655151784527);
    assert_near(found.high, 0.8291834484821548);
    assert_eq!(interval(&[1.0]), None);
    assert_eq!(interval(&[]), None);
}

/// `scipy.stats.wilcoxon(d, method=m).pvalue` of SciPy 1.17.1, with the methods that follow.
#[test]
fn signed_ranks_are_those_of_scipy() {
    // "exact"
    assert_near(signed_rank(&[0.3, -0.1, 0.5, 0.7, -0.2, 1.1, 0.9, 0.4]), 0.0390625);
    let rising: Vec<_> = (1..=20).map(f64::from).collect();
    assert_near(signed_rank(&rising), 1.9073486328125e-06);
    // PermutationMethod(n_resamples=numpy.inf), for zeros and ties
    let tied = [1.0, 1.0, -1.0, 2.0, 0.0, 3.0, -2.0, 2.0, 0.0, 4.0];
    assert_near(signed_rank(&tied), 0.1640625);
    // "approx", of 60 numbers of which one is 0
    let many: Vec<_> = (0..60).map(|i| f64::from((i * 37) % 101 - 40) / 10.0).collect();
    assert_near(signed_rank(&many), 0.02263320893600752);
    assert_eq!(signed_rank(&[0.0, 0.0]), 1.0);
    assert_eq!(signed_rank(&[]), 1.0);
    assert_eq!(signed_rank(&[1.0, -1.0]), 1.0);
}

/// The distribution has closed forms for one and two degrees of freedom.
#[test]
fn students_t_is_the_closed_form() {
    // t = -5
    assert_near(student(&[-3.0, -2.0]), 1.0 - 5f64.atan() * 2.0 / std::f64::consts::PI);
    // t = sqrt(12)
    assert_near(student(&[1.0, 2.0, 3.0]), 1.0 - (12f64 / 14.0).sqrt());
    assert_near(deviation(&[1.0, 2.0, 4.0, 5.0]), (10f64 / 3.0).sqrt());
    assert_eq!(student(&[1.0, 1.0]), 0.0);
    for nothing in [&[][..], &[7.0], &[0.0, 0.0]] {
        assert_eq!(student(nothing), 1.0);
    }
}

/// Worked by hand: the least p times 4, the next times 3, and never below one before.
#[test]
fn many_p_values_are_adjusted_as_holm_has_it() {
    let found = holm(&[0.01, 0.04, 0.03, 0.005]);
    for (found, expected) in found.iter().zip([0.03, 0.06, 0.06, 0.02]) {
        assert_near(*found, expected);
    }
    assert_eq!(holm(&[0.6, 0.7]), [1.0, 1.0]);
    assert!(holm(&[]).is_empty());
}

fn differing(rows: &[Sample], others: &[Sample]) -> usize {
    assert_eq!(rows.len(), others.len());
    rows.iter().zip(others).filter(|(row, other)| row.targets != other.targets).count()
}

#[test]
fn a_share_of_the_training_labels_is_wrong_and_no_other() {
    let whole = Prepared::new(&digits().unwrap(), 3).unwrap();
    for (share, wrong) in [(0.0, 0), (0.1, 108), (0.3, 323), (1.0, 1078)] {
        let mut noisy = whole.train.clone();
        data::mislabel(&mut noisy, share, 3);
        assert_eq!(differing(&noisy, &whole.train), wrong);
        let one_hot = |row: &Sample| {
            row.targets.iter().sum::<f32>() == 1.0 && row.targets.iter().all(|t| t * t == *t)
        };
        assert!(noisy.iter().all(one_hot));
        assert!(noisy.iter().zip(&whole.train).all(|(a, b)| a.inputs == b.inputs));
    }
    let [mut once, mut again, mut other] = [(); 3].map(|()| whole.train.clone());
    data::mislabel(&mut once, 0.3, 3);
    data::mislabel(&mut again, 0.3, 3);
    data::mislabel(&mut other, 0.3, 4);
    assert_eq!(once, again);
    assert_ne!(once, other);
    // Each wrong class is as likely: of 1078 rows, some 12 from each class to each other.
    let mut all = whole.train.clone();
    data::mislabel(&mut all, 1.0, 3);
    let class = |row: &Sample| row.targets.iter().position(|target| *target == 1.0).unwrap();
    let mut moves = [0; 10];
    all.iter().zip(&whole.train).for_each(|(a, b)| moves[(10 + class(a) - class(b)) % 10] += 1);
    assert_eq!(moves[0], 0);
    assert!(moves[1..].iter().all(|count| (80..=160).contains(count)), "{moves:?}");
}

#[test]
fn fewer_rows_are_some_of_the_rows() {
    let whole = Prepared::new(&digits().unwrap(), 3).unwrap().train;
    let mut thin = whole.clone();
    data::thin(&mut thin, 200, 3);
    assert_eq!(thin.len(), 200);
    let mut rest = whole.iter();
    assert!(thin.iter().all(|row| rest.any(|other| other == row)), "in their order");
    let mut few = whole[..5].to_vec();
    data::thin(&mut few, 200, 3);
    assert_eq!(few, whole[..5]);
}

#[test]
fn friedmans_table_is_his_function_and_noise() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("friedman.csv");
    fs::write(&path, data::friedman(2000, 1)).unwrap();
    assert_eq!(data::friedman(5, 1), data::friedman(5, 1));
    assert_ne!(data::friedman(5, 1), data::friedman(5, 2));
    let table = Table::read_as(&path, "y", TaskKind::Regression).unwrap();
    let Targets::Numbers(y) = table.targets() else { panic!("classes") };
    assert_eq!((table.columns().len(), y.len()), (10, 2000));
    let noise = table.features().iter().zip(y).map(|(x, y)| {
        let curved = 10.0 * (std::f64::consts::PI * x[0] * x[1]).sin();
        y - curved - 20.0 * (x[2] - 0.5).powi(2) - 10.0 * x[3] - 5.0 * x[4]
    });
    let noise: Vec<_> = noise.collect();
    let mean = statistics::mean(&noise);
    let square = statistics::mean(&noise.iter().map(|e| e * e).collect::<Vec<_>>());
    // Four standard deviations of either.
    assert!(mean.abs() < 0.09 && (square - 1.0).abs() < 0.13, "{mean} {square}");
    assert!(table.features().iter().flatten().all(|x| (0.0..1.0).contains(x)));
}

fn line(key: &str) -> Line {
    let (key, setting) = (key.to_owned(), "a setting".to_owned());
    Line { key, setting, seed: 1, train_rows: 5, steps: 7, judged: vec![], seconds: 0.1 }
}

#[test]
fn a_line_that_was_cut_is_passed_over_and_those_after_it_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("results.jsonl");
    let mut results = Results::open(&path).unwrap();
    results.add(line("a")).unwrap();
    results.add(line("b")).unwrap();
    let whole = fs::read(&path).unwrap();
    for cut in 1..whole.len() / 2 {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let mut results = Results::open(&path).unwrap();
        assert_eq!(results.get("a"), Some(&line("a")));
        // But for the line's end alone, the line is there.
        assert_eq!(results.get("b").is_some(), cut == 1, "without {cut} bytes");
        results.add(line("c")).unwrap();
        let results = Results::open(&path).unwrap();
        assert!(results.get("a").is_some() && results.get("c").is_some(), "without {cut} bytes");
    }
    let error = Results::open(directory.path()).err().unwrap();
    assert!(format!("{error:#}").contains(&directory.path().display().to_string()));
}

/// A model of a made-up run.
fn judged(name: &str, loss: f64, accuracy: Option<f64>) -> Judged {
    let [name, detail] = [name, "none"].map(str::to_owned);
    Judged {
        name,
        detail,
        valid_loss: 9.0,
        test_loss: loss,
        test_accuracy: accuracy,
        test_r2: None,
        second_half: None,
    }
}

/// An average whose loss is lower and whose accuracy is lower too, in 20 seeds of which each has
/// another share in it; and a regression, of which nothing is shown.
#[test]
fn a_gain_is_a_lower_loss_and_a_higher_accuracy() {
    let runs = |setting: &str, judged: &dyn Fn(f64) -> Vec<Judged>| -> Vec<Line> {
        let line = |seed| Line {
            setting: setting.to_owned(),
            seed,
            judged: judged(seed as f64),
            ..line("a")
        };
        (1..=20).map(line).collect()
    };
    let classes = runs("classes", &|seed| {
        vec![
            judged(LIVE, 0.2 + seed, Some(0.5)),
            judged(EARLY, 0.1 + seed, Some(0.5)),
            judged("average", 0.1 + seed - 0.001 * seed, Some(0.5 - 0.01 * seed)),
        ]
    });
    let numbers = runs("numbers", &|seed| {
        let sign = if seed % 2.0 == 0.0 { 1.0 } else { -1.0 };
        vec![judged(LIVE, 1.0, None), judged(EARLY, 1.0 + sign, None), judged("average", 1.0, None)]
    });
    let lines = [classes, numbers];
    let text = Comparison::new(&lines).unwrap().print(&lines, true);
    // The means of 0.1 + seed - 0.001 seed and of 0.5 - 0.01 seed.
    assert!(text.contains("| classes | average | 10.58950 | 39.50 % |"), "{text}");
    // Half the interval is 2.093 times 0.001 sqrt(35 / 20), and p is 2^-19, of 9 tests.
    let line = "| classes | average | -0.11050 [-0.11327, -0.10773] | -1.0 | 2e-6 | 2e-5 | gain | \
                -10.50 [-13.27, -7.73] | 2e-6 | 2e-5 | harm |";
    assert!(text.contains(line), "{text}");
    let line = "| classes | average | -0.01050 [-0.01327, -0.00773] | -0.1 | 2e-6 | 2e-5 | gain | \
                -10.50 [-13.27, -7.73] | 2e-6 | 2e-5 | harm |";
    assert!(text.contains(line), "{text}");
    let line = "| numbers | average | +0.00000 [+0.00000, +0.00000] | +0.0 | 1.000 | 1.000 | - |";
    assert!(text.contains(line), "{text}");
    let short = "loss, %:\n\n| setting | live, best epoch | average |\n|---|---|---|\n\
                 | classes | -0.9 gain | -1.0 gain |\n| numbers | +0.0 | +0.0 |\n\n";
    assert!(text.contains(short), "{text}");
    let short = "accuracy, points:\n\n| setting | live, best epoch | average |\n|---|---|---|\n\
                 | classes | +0.00 | -10.50 harm |\n\n";
    assert!(text.contains(short), "{text}");
    assert!(text.contains("Of 9 comparisons, 3 show a gain, 2 a harm, 4 neither."), "{text}");

    // A run without one of the models is named.
    let mut lines = lines;
    lines[1][4].judged.truncate(2);
    let error = Comparison::new(&lines).err().unwrap().to_string();
    assert_eq!(error, "numbers, seed 5: no average");
}

/// A setting with the same models in each of two runs, by their losses.
fn setting(name: &str, losses: &[(&str, f64)]) -> Vec<Line> {
    let judged = losses.iter().map(|(name, loss)| judged(name, *loss, None)).collect();
    vec![Line { setting: name.to_owned(), judged, ..line("a") }; 2]
}

/// Of two settings, the averages `a` and `b` are the best and the worst once each, `c` is neither.
#[test]
fn the_averages_are_compared_over_all_settings() {
    let models = |live, early, a, b, c, chosen| {
        [(LIVE, live), (EARLY, early), ("a", a), ("b", b), ("c", c), (POST_HOC, chosen)]
    };
    let settings = [
        setting("one", &models(2.0, 1.0, 0.5, 1.0, 0.75, 0.25)),
        setting("two", &models(1.0, 1.0, 1.5, 1.0, 1.25, 0.75)),
    ];
    let (_, head, rows) = overall::averages(&settings);
    let expected = [
        [EARLY, "-25.0", "0", "", "", ""],
        ["a", "-12.5", "1", "1", "1", "50.0"],
        ["b", "-25.0", "0", "1", "1", "100.0"],
        ["c", "-18.8", "1", "0", "0", "50.0"],
        [POST_HOC, "-56.2", "0", "", "", ""],
    ];
    assert_eq!(head.len(), 6);
    assert_eq!(rows, expected);
}

/// Two runs, in one of which the average has the better worst epoch.
#[test]
fn second_halves_are_means_over_the_seeds() {
    let mut lines = setting("one", &[(LIVE, 1.0), (EARLY, 1.0), ("a", 1.0)]);
    for (line, [live, average]) in
        lines.iter_mut().zip([[[2.0, 4.0], [1.0, 2.0]], [[4.0, 4.0], [2.0, 5.0]]])
    {
        line.judged[0].second_half = Some(live);
        line.judged[2].second_half = Some(average);
    }
    let (_, head, rows) = overall::second_halves(&[lines, setting("two", &[(LIVE, 1.0)])]);
    let expected = ["one", "3.0000", "4.0000", "1.5000", "3.5000", "-50.0", "-12.5", "1 of 2"];
    assert_eq!(head.len(), expected.len());
    assert_eq!(rows, [expected]);
}

/// R2 stands beside the loss of a quantity, and is not tested.
#[test]
fn a_quantity_has_r2() {
    let mut lines = setting("numbers", &[(LIVE, 1.0), (EARLY, 1.0), ("average", 0.5)]);
    for (line, r2) in lines.iter_mut().zip([[0.25, 0.25, 0.5], [0.5, 0.5, 0.875]]) {
        line.judged.iter_mut().zip(r2).for_each(|(judged, r2)| judged.test_r2 = Some(r2));
    }
    let settings = [lines];
    let text = Comparison::new(&settings).unwrap().print(&settings, true);
    assert!(text.contains("| numbers | average | 0.50000 |  | 0.688 |"), "{text}");
    // The mean of 0.25 and 0.375; half the interval is 12.7062 times 0.0625.
    assert!(text.contains("|  |  |  |  | +0.312 [-0.482, +1.107] |"), "{text}");
    let short = "from live, R2:\n\n| setting | live, best epoch | average |\n|---|---|---|\n\
                 | numbers | +0.000 | +0.312 |\n\n";
    assert!(text.contains(short), "{text}");
    assert!(text.contains("Of 3 comparisons, "), "{text}");
}

const COMPARISON: &str = include_str!("../../artifacts/compare.md");
const EVIDENCE: &str = include_str!("../../src/guide/evidence.md");

/// The rows of the first table in Markdown below a heading, as cells; without its head.
fn cells_below<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, below) = page.split_once(heading).unwrap();
    let lines = below.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The tables of the guide are those that the command printed.
#[test]
fn the_guide_quotes_the_comparison() {
    const MARKER: &str = "<!-- compare -->";
    let tables: Vec<_> = EVIDENCE.split(MARKER).skip(1).step_by(2).map(str::trim).collect();
    let [losses, accuracies, r2, spread, overall, halves] = tables[..] else {
        panic!("{} tables", tables.len())
    };
    for table in [losses, accuracies, r2, overall, halves] {
        assert!(table.starts_with("| ") && COMPARISON.contains(table), "{table}");
    }
    let rows = cells_below(COMPARISON, "Differences from live, mean");
    let suggested: Vec<_> = rows.into_iter().filter(|row| row[1] == "as suggested").collect();
    assert_eq!(cells_below(spread, ""), suggested);

    // All comparisons, and the gains of live's best epoch among them.
    let (_, counts) = COMPARISON.split_once("\nOf ").unwrap();
    let numbers: Vec<_> = counts.split(|c: char| !c.is_ascii_digit()).collect();
    let numbers: Vec<_> = numbers.into_iter().filter(|number| !number.is_empty()).collect();
    let [all, gains, harms, neither] = numbers[..4] else { panic!("{counts}") };
    let early = cells_below(COMPARISON, "Differences from live, mean");
    let early = early.iter().filter(|row| row[1] == EARLY).flatten();
    let early = early.filter(|cell| **cell == "gain").count();
    let quoted = format!(
        "Of all {all}, {gains} show a gain ({early} of them live's best epoch), {harms} a harm, \
         {neither} neither."
    );
    assert!(EVIDENCE.contains(&quoted), "{quoted}");
    assert!(EVIDENCE.contains(&format!("what is left of {all} comparisons")));
}

/// Numbers of the suggested average in the guide, against live's last weights and its best epoch.
#[test]
fn the_guide_quotes_the_worth_of_the_suggestion() {
    let published = cells_below(EVIDENCE, "## What the suggestion is worth");
    let columns = ["Differences from live, mean", "Differences from live, best epoch, mean"];
    for (column, heading) in columns.into_iter().enumerate() {
        let rows = cells_below(COMPARISON, heading);
        let rows = rows.iter().filter(|row| row[1] == "as suggested");
        let expected: Vec<_> = rows
            .map(|row| match row[6] {
                "-" => format!("{} %", row[3]),
                _ => format!("**{} %**", row[3]),
            })
            .collect();
        let found: Vec<_> = published.iter().map(|row| row[3 + column]).collect();
        assert_eq!(found, expected, "{heading}");
    }
}

/// The small table of the README is the column of the suggested average.
#[test]
fn the_readme_quotes_the_comparison() {
    let rows = cells_below(include_str!("../../README.md"), "## What it gains");
    assert!(rows.len() >= 6, "{rows:?}");
    let of = |heading: &str, setting: &str| {
        let rows = cells_below(COMPARISON, heading);
        let row = rows.into_iter().find(|row| row[0] == setting);
        row.map_or("", |row| row[2])
    };
    for row in rows {
        let [setting, loss, accuracy, r2] = row[..] else { panic!("{row:?}") };
        assert_eq!(loss, of("In short, differences from live, loss, %", setting), "{setting}");
        let expected = of("In short, differences from live, accuracy, points", setting);
        assert_eq!(accuracy, expected, "{setting}");
        assert_eq!(r2, of("In short, differences from live, R2", setting), "{setting}");
    }
}

/// Shares of 360 rows, of which the same difference has other bits at each of them.
#[test]
fn equal_differences_of_accuracies_share_their_ranks() {
    let right = [
        [308, 307],
        [336, 335],
        [354, 355],
        [351, 350],
        [348, 350],
        [304, 301],
        [316, 315],
        [307, 306],
        [331, 330],
    ];
    let runs = right.iter().enumerate().map(|(seed, [own, other])| {
        let share = |right: &i32| Some(f64::from(*right) / 360.0);
        let judged = vec![
            judged(LIVE, 1.0, share(other)),
            judged(EARLY, 1.0, share(other)),
            judged("average", 1.0, share(own)),
        ];
        Line { seed: seed as u64, setting: "counts".to_owned(), judged, ..line("a") }
    });
    let text = Comparison::new(&[runs.collect()]).unwrap();
    let text = text.print(&[], true);
    // As SciPy 1.17.1 has it for the differences of the counts, with
    // PermutationMethod(n_resamples=numpy.inf).
    assert!(text.contains("| +0.19 [-0.12, +0.49] | 0.285 |"), "{text}");
}

fn compare(out: &Path, options: &[&str]) -> Command {
    let mut command = example("compare");
    command.args(["--device", "flex", "--epochs", "2", "--seeds", "2", "--out"]);
    command.arg(out).args(options);
    command
}

/// The tables, which come after the times.
fn tables(stdout: &str) -> &str {
    &stdout[stdout.find("setting").unwrap()..]
}

#[test]
fn all_settings_are_compared_and_what_is_done_is_not_done_again() {
    let directory = tempfile::tempdir().unwrap();
    let (stdout, stderr) = succeeds(&mut compare(directory.path(), &[]));
    assert!(stdout.contains("runs: 40, of which 0 are there"), "{stdout}");
    assert!(stderr.contains("run 40/40") && stderr.contains("0 s left"), "{stderr}");
    assert!(stdout.contains("digits, 200 training rows: 200 training rows, 2 epochs, 50 steps"));
    // Seven models against live and six against the early one; the loss in 20 settings, the
    // accuracy in 10.
    assert!(
        stdout.contains("Of 390 comparisons, 0 show a gain, 0 a harm, 390 neither."),
        "{stdout}"
    );
    let file = directory.path().join("results.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    assert_eq!(whole.lines().count(), 40);

    // The first setting is what the example `train` does.
    let run = directory.path().join("run");
    let mut train = example("train");
    train.args(["--device", "flex", "--epochs", "2", "--seed", "2", "--run"]).arg(&run);
    succeeds(&mut train);
    let report: Report =
        serde_json::from_slice(&fs::read(run.join("report.json")).unwrap()).unwrap();
    let lines = whole.lines().map(|line| serde_json::from_str::<Line>(line).unwrap());
    let mut lines = lines.filter(|line| line.setting == "digits" && line.seed == 2);
    let judged = lines.next().unwrap().judged;
    assert_eq!(judged[0].test_loss, report.live.loss);
    assert_eq!(judged[2].detail, report.averages[0].rule);
    assert_eq!(judged[2].test_loss, report.averages[0].scores.loss);

    let (again, stderr) = succeeds(&mut compare(directory.path(), &[]));
    assert_eq!((again.replace("40 are", "0 are"), stderr), (stdout.clone(), String::new()));
    assert_eq!(fs::read_to_string(&file).unwrap(), whole);

    // Three lines and a half, and one of another program.
    let kept: String = whole.lines().take(3).map(|line| format!("{line}\n")).collect();
    let half = &whole.lines().nth(3).unwrap()[..200];
    fs::write(&file, format!("{{\"key\": 1}}\n{kept}{half}")).unwrap();
    let (resumed, _) = succeeds(&mut compare(directory.path(), &[]));
    assert!(resumed.contains("runs: 40, of which 3 are there"), "{resumed}");
    assert_eq!(tables(&resumed), tables(&stdout));
    assert!(fs::read_to_string(&file).unwrap().contains(&kept));

    // Other epochs are other runs, beside those.
    let only = ["--only", "3 x", "--markdown", "--epochs", "1"];
    let mut other = example("compare");
    other.args(["--device", "flex", "--seeds", "2", "--out"]).arg(directory.path()).args(only);
    let (other, _) = succeeds(&mut other);
    assert!(other.contains("runs: 4, of which 0 are there"), "{other}");
    assert!(other.contains("| digits, 3 x learning rate | live, best epoch | "), "{other}");
}

#[test]
#[cfg(unix)]
fn a_killed_comparison_keeps_what_was_finished() {
    let directory = tempfile::tempdir().unwrap();
    let only = ["--only", "200", "--seeds", "6", "--jobs", "1"];
    let command = || {
        let mut command = example("compare");
        command.args(["--device", "flex", "--epochs", "3", "--out"]).arg(directory.path());
        command.args(only).stderr(Stdio::null()).stdout(Stdio::null());
        command
    };
    let file = directory.path().join("results.jsonl");
    let mut child = command().spawn().unwrap();
    let lines = || fs::read_to_string(&file).unwrap_or_default();
    while lines().lines().count() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "ended too early");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = lines();
    let (stdout, _) = succeeds(command().stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert!(!stdout.contains("of which 0 are there"), "{stdout}");
    assert!(lines().starts_with(&kept));
    let elsewhere = tempfile::tempdir().unwrap();
    let mut undisturbed = example("compare");
    undisturbed.args(["--device", "flex", "--epochs", "3", "--out"]).arg(elsewhere.path());
    let (undisturbed, _) = succeeds(undisturbed.args(only));
    assert_eq!(tables(&stdout), tables(&undisturbed));
}

#[test]
fn a_table_of_ones_own_is_compared_by_the_same_settings() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.csv");
    fs::write(&path, data::friedman(60, 2)).unwrap();
    let own = |options: &[&str]| {
        let mut command = compare(directory.path(), options);
        command.arg("--data").arg(&path);
        command
    };
    let (stdout, _) = succeeds(&mut own(&["--target", "y"]));
    assert!(stdout.contains("runs: 6, of which 0 are there"), "{stdout}");
    assert!(stdout.contains("mine, batches of 4: 36 training rows"), "{stdout}");
    assert!(!stdout.contains("wrong labels"), "{stdout}");

    let message = fails(&mut own(&["--target", "z"]));
    assert!(message.contains("mine.csv") && message.contains('z'), "{message}");
    let message = misused(&mut own(&[]));
    assert!(message.contains("--target"), "{message}");
    let message = fails(&mut compare(directory.path(), &["--only", "nothing"]));
    assert!(message.contains("no setting has such a name"), "{message}");
    fs::write(&path, "x,y\n1,nan\n2,3\n3,4\n4,5\n5,6\n").unwrap();
    let message = fails(&mut own(&["--target", "y"]));
    assert!(message.contains("mine.csv") && message.contains("row 2"), "{message}");
}
