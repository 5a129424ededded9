//! The committed run is what its command makes.

use std::{path::Path, process::Command};

use burn::{store::ModuleRecord, tensor::Device};
use burn_ema_lab::{report::Report, run::RunDirectory};

use crate::common::floats;

/// Whether the processor that made the committed run had AVX-512, the widest of the instructions
/// by which the CPU kernels choose how to group a sum.
const MADE_WITH_AVX512: bool = true;

fn same_processor() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("avx512f") == MADE_WITH_AVX512;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Makes the run of `artifacts/digits` again and compares its weights.
///
/// They are equal bit for bit on a processor with the vector instructions of the one that made
/// them; on another, sums are grouped otherwise and thousands of steps drive the weights apart,
/// so there the scores must agree instead, and the test says that it fell back.
#[test]
#[cfg_attr(feature = "portable", ignore = "Burn's operations round otherwise")]
fn the_committed_run_can_be_made_again() {
    let device = Device::flex();
    let directory = tempfile::tempdir().unwrap();
    let again = directory.path().join("digits");
    let tests = std::env::current_exe().unwrap();
    let train = tests.ancestors().nth(2).unwrap().join("examples/train");
    let output = Command::new(train).args(["--device", "flex", "--run"]).arg(&again).output();
    let output = output.unwrap();
    assert!(output.status.success());

    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts/digits");
    let [committed, again] = [committed, again].map(|path| RunDirectory::open(path).unwrap());
    let config = |run: &RunDirectory| serde_json::to_value(run.config().unwrap()).unwrap();
    assert_eq!(config(&committed), config(&again), "the defaults changed: make the run again");
    let weights = |run: &RunDirectory| {
        let floats = floats(&run.model(&device).unwrap());
        floats.into_iter().map(|(path, _, values)| (path, values)).collect::<Vec<_>>()
    };
    if same_processor() {
        assert_eq!(weights(&committed), weights(&again));
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        PAGES.iter().for_each(|page| assert_quotes(page, &stdout, &stderr));
        return;
    }
    println!("a processor with other vector instructions; comparing scores");
    let scores = |run: &RunDirectory| {
        let text = std::fs::read(run.path().join("report.json")).unwrap();
        let report: Report = serde_json::from_slice(&text).unwrap();
        let scores = report.averages[0].scores;
        (scores.loss, scores.accuracy.unwrap())
    };
    let (committed, again) = (scores(&committed), scores(&again));
    assert!((committed.0 / again.0 - 1.0).abs() < 0.15, "{committed:?} {again:?}");
    assert!((committed.1 - again.1).abs() < 0.0125, "{committed:?} {again:?}");
}

const PAGES: [&str; 2] =
    [include_str!("../../README.md"), include_str!("../../src/guide/evidence.md")];

/// Checks the lines of the default run that a page quotes: all, but for the rate and the rest of
/// the time of an epoch, which depend on the machine, and for the directory of the run.
fn assert_quotes(page: &str, stdout: &str, stderr: &str) {
    const DIRECTORY: &str = "artifacts/runs/default";
    let (_, quoted) = page.split_once("$ cargo run --example train\n").unwrap();
    let (quoted, _) = quoted.split_once("```").unwrap();
    let is_printed = |line: &str| match line.split_once(" rows/s") {
        Some((line, _)) => {
            let (values, _) = line.rsplit_once("  ").unwrap();
            stderr.lines().any(|line| line.starts_with(&format!("{values}  ")))
        }
        None => line == "..." || line.contains(DIRECTORY) || stdout.lines().any(|l| l == line),
    };
    for line in quoted.lines() {
        assert!(is_printed(line), "{line}\n{stdout}{stderr}");
    }
    let tables = ["test loss", "in validation,", "epochs 21 to 40"];
    assert!(tables.iter().all(|table| quoted.contains(table)), "{quoted}");
}

/// The model is a plain record of Burn's, of the network in its configuration.
#[test]
fn the_committed_model_loads_as_a_plain_record() {
    use burn::module::Module;

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts/digits");
    let run = RunDirectory::open(&path).unwrap();
    let fresh = run.config().unwrap().model.init(&Device::flex()).unwrap();
    let plain = fresh.load_record(ModuleRecord::load(path.join("model.bpk")).unwrap());
    let ours = run.model(&Device::flex()).unwrap();
    assert_eq!(floats(&plain), floats(&ours));
    assert_eq!(ours.num_params(), 64 * 64 + 64 + 64 * 10 + 10);
}
