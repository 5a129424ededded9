//! The example that samples from live and from averages, and its shared parts: jobs on all cores,
//! scores over seeds as a table.

use std::{collections::BTreeSet, fs, path::Path, process::Command, sync::Mutex};

use anyhow::bail;

use crate::gains::statistics;

use crate::examples::{example, misused, succeeds};

#[path = "../../examples/shared/jobs.rs"]
mod jobs;
#[path = "../../examples/shared/scores.rs"]
mod scores;
#[path = "../../examples/shared/table.rs"]
pub mod table;

use jobs::on_all_cores;
use scores::{Better, Judged, compare, compare_each};
use table::table;

const GUIDE: &str = include_str!("../../src/guide/uses.md");
/// Around the table of the guide.
const MARKER: &str = "<!-- diffusion -->";

/// One epoch: the numbers say nothing of averages.
fn tiny(seeds: &str, options: &[&str]) -> Command {
    let mut command = example("diffusion");
    command.args(["--device", "flex", "--seeds", seeds, "--epochs", "1", "--digits", "16"]);
    command.args(options);
    command
}

/// The cells of a table in Markdown, without the line below its titles.
pub fn cells(markdown: &str) -> Vec<Vec<String>> {
    let lines = markdown.trim().lines().filter(|line| !line.starts_with("|---"));
    let lines = lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().into()));
    lines.map(Iterator::collect).collect()
}

#[track_caller]
pub fn assert_finite(cell: &str) {
    let numbers = cell.split(|c: char| !"0123456789.+-".contains(c)).filter(|it| !it.is_empty());
    let numbers: Vec<f64> = numbers.map(|number| number.parse().unwrap()).collect();
    assert!(!numbers.is_empty() && numbers.iter().all(|number| number.is_finite()), "{cell}");
}

/// The guide has the table of the default setting, which takes minutes: it has the shape of what is
/// printed here.
#[test]
fn the_table_has_every_model_at_both_rates() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("new/figures");
    let (markdown, _) = succeeds(tiny("1", &["--markdown", "--out"]).arg(&out));
    let rows = cells(&markdown);
    assert_eq!(rows.len(), 1 + 2 * 9, "{markdown}");
    for row in &rows[1..] {
        assert_eq!(row.len(), rows[0].len());
        let own = row[..2] == ["decaying rate", "live"];
        row[2..row.len() - usize::from(own)].iter().for_each(|cell| assert_finite(cell));
    }
    let distance = |row: usize| rows[row][2].parse::<f64>().unwrap();
    let distances: BTreeSet<_> = (1..10).map(|row| distance(row).to_bits()).collect();
    assert!(distances.len() > 6, "the averages differ: {markdown}");

    let parts: Vec<_> = GUIDE.split(MARKER).collect();
    assert_eq!(parts.len(), 3, "the table stands between two lines {MARKER}");
    let guide = cells(parts[1]);
    let names = |rows: &[Vec<String>]| -> Vec<_> {
        rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect()
    };
    assert_eq!((&guide[0], names(&guide)), (&rows[0], names(&rows)));
    guide[1..].iter().flat_map(|row| &row[2..5]).for_each(|cell| assert_finite(cell));

    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts/figures");
    for name in ["diffusion-widths.svg", "diffusion-samples.svg"] {
        for directory in [&out, &committed] {
            let svg = fs::read_to_string(directory.join(name)).unwrap();
            assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"), "{name}");
            assert!(svg.contains("constant rate") && svg.contains("decaying rate"), "{name}");
            assert!(!svg.contains("NaN") && svg.len() < 60_000, "{name} has {} bytes", svg.len());
        }
        assert!(GUIDE.contains(&format!("`artifacts/figures/{name}`")));
        let pages = include_str!("../../src/guide.rs");
        assert!(pages.contains(&format!("include_str!(\"../artifacts/figures/{name}\")")));
    }
}

/// Cores take the trainings in any order.
#[test]
fn a_seed_decides_the_table() {
    let [one, again] = [(); 2].map(|()| succeeds(&mut tiny("1", &[])).0);
    assert_eq!(one, again);
    let (two, _) = succeeds(&mut tiny("2", &[]));
    assert!(two.contains(" ± ") && !one.contains(" ± "), "{two}");
}

#[test]
fn the_options_are_explained() {
    let (help, _) = succeeds(example("diffusion").arg("--help"));
    for expected in ["Fréchet distances", "--seeds", "--markdown", "--out <DIRECTORY>"] {
        assert!(help.contains(expected), "{expected}: {help}");
    }
    misused(example("diffusion").args(["--seeds", "0"]));
    misused(example("diffusion").args(["--digits", "1"]));
}

#[test]
fn results_have_the_order_of_their_jobs() {
    let squares = on_all_cores((0..100_u64).collect(), |job| Ok(job * job)).unwrap();
    assert!(squares.into_iter().eq((0..100).map(|job| job * job)));
    assert!(on_all_cores(Vec::<u64>::new(), Ok).unwrap().is_empty());

    let begun = Mutex::new(0);
    let failing = on_all_cores((0..1000).collect(), |job| {
        *begun.lock().unwrap() += 1;
        if job == 3 {
            bail!("the fourth")
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        Ok(job)
    });
    assert_eq!(failing.unwrap_err().to_string(), "the fourth");
    let begun = begun.into_inner().unwrap();
    assert!(begun < 500, "{begun} jobs began, most of them after the error");
}

/// Three seeds of two settings: one score that falls in every seed, and one that hardly moves.
#[test]
fn scores_are_means_with_what_is_more_than_chance() {
    let run = |seed: f64, fall: f64| -> Judged {
        let average = vec![10.0 + seed - fall + seed / 1000.0, 0.5 + (seed - 1.0) * 0.01];
        vec![("live".into(), vec![10.0 + seed, 0.5]), ("average".into(), average)]
    };
    let runs = |fall: f64| [0.0, 1.0, 2.0].map(|seed| run(seed, fall)).to_vec();
    let settings = [("one", runs(4.0)), ("two", runs(-1.0))];
    let print = |better| {
        let columns = [("distance", 2, better), ("loss", 3, Better::Less)];
        cells(&compare(&settings, |run| run, &columns, true))
    };
    let last = "distance from two";
    let expected = [
        ["setting", "model", "distance", "loss", last],
        ["one", "live", "11.00 ± 1.00", "0.500 ± 0.000", ""],
        ["one", "average", "7.00 ± 1.00 gain", "0.500 ± 0.010", "-4.00 [-4.00, -4.00]"],
        ["two", "live", "11.00 ± 1.00", "0.500 ± 0.000", ""],
        ["two", "average", "12.00 ± 1.00 harm", "0.500 ± 0.010", "+1.00 [+1.00, +1.00]"],
    ];
    assert_eq!(print(Better::Less), expected);
    let more = print(Better::More);
    assert_eq!([&more[2][2], &more[4][2]], ["7.00 ± 1.00 harm", "12.00 ± 1.00 gain"]);
    // Of different tasks, each has its own `live` beside the average.
    let columns = [("distance", 2, Better::Less)];
    let each = cells(&compare_each(&settings, |run| run, &columns, true));
    let last: Vec<_> = each.iter().map(|row| &row[3][..]).collect();
    let [own, fall, rise] = ["distance from live", "-4.00 [-4.00, -4.00]", "+1.00 [+1.00, +1.00]"];
    assert_eq!(last, [own, "", fall, "", rise]);
    // One seed has no deviation, and shows nothing.
    let settings = settings.map(|(name, runs)| (name, runs[..1].to_vec()));
    let one = cells(&compare(&settings, |run| run, &[("distance", 1, Better::Less)], true));
    assert_eq!(one[2], ["one", "average", "6.0", "-4.0"]);
}

#[test]
fn a_table_has_columns_or_bars() {
    let rows = [["name", "±"], ["a", "12.5"], ["longer", "3"]];
    let rows = rows.map(|row| row.map(str::to_owned).to_vec());
    assert_eq!(table(&rows, false), "name       ±\na       12.5\nlonger     3\n");
    assert_eq!(table(&rows, true), "| name | ± |\n|---|---|\n| a | 12.5 |\n| longer | 3 |\n");
    assert_eq!(table(&[], true), "");
}
