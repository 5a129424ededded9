//! The example `merge`, as a user runs it.

use std::{path::Path, process::Command};

use burn_ema::runs::Commits;
use tempfile::TempDir;

use crate::examples::{example, fails, misused, succeeds};

fn merge(directory: &Path, options: &[&str]) -> Command {
    let mut command = example("merge");
    command.current_dir(directory).env("BURN_DEVICE", "flex").args(options).args(["--to", "out"]);
    command
}

/// A directory with the runs `one` and `two`, of the seeds 1 and 2, and live of each as a file.
fn two_runs() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (run, seed) in [("one", "1"), ("two", "2")] {
        let mut train = example("train");
        train.current_dir(&directory).args(["--device", "flex", "--epochs", "2", "--seed", seed]);
        succeeds(train.args(["--run", run, "--commit-every", "50", "--keep-every", "100"]));
        let mut export = example("export");
        export.current_dir(&directory).env("BURN_DEVICE", "flex");
        succeeds(export.args([run, "--live", "--to", &format!("{run}.safetensors")]));
    }
    directory
}

#[test]
fn runs_are_merged_by_what_is_known_of_them() {
    let directory = two_runs();
    let at = directory.path();
    let merged = |options: &[&str]| succeeds(&mut merge(at, options)).0;
    let refused = |options: &[&str]| fails(&mut merge(at, options));

    // Files of one run, and of two.
    let said = merged(&["one.safetensors", "one/model.bpk"]);
    assert!(said.contains("least correlation of weights: 0.9"), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let said = merged(&["one.safetensors", "two.safetensors"]);
    assert!(said.contains("least correlation of weights: 0.0") || said.contains("weights: -0.0"));
    let warning = "warning: one.safetensors and two.safetensors have a correlation of weights of";
    assert!(said.contains(warning), "{said}");

    // The split of a greedy merge is that of the run of its files.
    let rows = "the rows are those of the validation with the seed";
    for (file, model, seed) in
        [("one.safetensors", "one/model.bpk", 1), ("two.safetensors", "two/model.bpk", 2)]
    {
        let said = merged(&["--greedy", file, model]);
        assert!(said.contains(&format!("{rows} {seed}")) && !said.contains("warning"), "{said}");
    }
    let said = merged(&["--greedy", "--run", "two"]);
    assert!(said.contains(&format!("{rows} 2")) && !said.contains("warning"), "{said}");
    let said = merged(&["--greedy", "two.safetensors", "one/model.bpk"]);
    assert!(said.contains(&format!("{rows} 2")), "{said}");
    assert!(said.contains("warning: one/model.bpk is of a run with the seed 1: it has"), "{said}");
    let said = merged(&["--greedy", "--seed", "1", "two.safetensors", "one/model.bpk"]);
    assert!(said.contains(&format!("{rows} 1")), "{said}");
    assert!(said.contains("warning: two.safetensors is of a run with the seed 2"), "{said}");
    // A merge is of several files, and so of no run that it names.
    let unknown = ["out.safetensors", "copy.safetensors"];
    std::fs::copy(at.join(unknown[0]), at.join(unknown[1])).unwrap();
    let other = |options: &[&str]| {
        let mut command = example("merge");
        command.current_dir(at).env("BURN_DEVICE", "flex").arg("--greedy").args(unknown);
        command.args(options).args(["--to", "other"]);
        command
    };
    let message = fails(&mut other(&[]));
    assert!(message.contains("no file shows by which seed") && message.contains("--seed N"));
    let (said, _) = succeeds(&mut other(&["--seed", "1"]));
    let warning = "warning: out.safetensors does not show the seed of its run: with another than 1";
    assert!(said.contains(warning), "{said}");
    let message = misused(&mut merge(at, &["--run", "one", "--greedy", "--seed", "1"]));
    assert!(message.contains("cannot be used with"), "{message}");

    // The series of the run, or all its commits.
    let commits = Commits::of(at.join("one")).last(9).unwrap().commits;
    let steps: Vec<_> = commits.iter().map(|commit| commit.manifest().steps).collect();
    assert_eq!(steps, [100, 235, 270], "the newest two, the best, and every 100");
    let said = merged(&["--run", "one"]);
    let taken = "commits of one, the first at or after each 100 steps, at the steps 100, 235\n";
    assert!(said.contains(taken), "{said}");
    assert!(
        said.contains("note: one has 2 commits, the first at or after each 100 steps"),
        "{said}"
    );
    let said = merged(&["--run", "one", "--every", "0"]);
    let taken = "commits of one, whatever their distances, at the steps 100, 235, 270\n";
    assert!(said.contains(taken) && !said.contains("warning"), "{said}");
    let said = merged(&["--run", "one", "--every", "0", "--last", "2", "--average"]);
    assert!(said.contains("at the steps 235, 270\n") && !said.contains("note"), "{said}");
    let message = refused(&["--run", "one", "--every", "200"]);
    let expected = "one: a merge needs 2 commits or more, found 1, the first at or after each 200 steps, of \
                    3 commits; --every 0 takes all of them";
    assert!(message.contains(expected), "{message}");

    // Files that need another prefix.
    let commit = "one/commits/epoch-0002/model.bpk";
    let message = refused(&["one.safetensors", commit]);
    assert_eq!(message.matches("all of it fits with the option prefix").count(), 2, "{message}");
    assert!(message.contains("likewise 3 more: layers.0.weight, layers.1.bias, layers.1.weight"));
    let way_on = "`cargo run --example export -- --model FILE --prefix NAME --to OTHER` writes";
    assert!(message.contains("--prefix holds for all files") && message.contains(way_on));
    let message = refused(&[commit, "one.safetensors", "--prefix", "live"]);
    assert!(message.contains("all of it fits without the option prefix"), "{message}");
    assert!(message.contains(way_on), "{message}");
    let message = refused(&["one.safetensors", commit, "--prefix", "live"]);
    assert!(message.contains("one.safetensors: expected weights, found no tensor"), "{message}");
    assert!(message.contains(way_on), "{message}");
    let mut export = example("export");
    export.current_dir(at).env("BURN_DEVICE", "flex");
    succeeds(export.args(["--model", commit, "--prefix", "live", "--to", "live.safetensors"]));
    merged(&["one.safetensors", "live.safetensors"]);
}

/// A wrong argument is an error before anything is read, by the names that were typed.
#[test]
fn a_misused_merge_says_what_to_type() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::create_dir_all(at.join("bare")).unwrap();
    std::fs::write(at.join("file"), "text").unwrap();
    let refused = |options: &[&str]| fails(&mut merge(at, options));
    let way_on = "`cargo run --example train -- --run DIR` makes one";
    for (run, expected) in [
        ("missing", "expected the directory of a run, found nothing of this name"),
        ("file", "expected the directory of a run, found a file; without --run"),
        ("bare", "expected a run with commits in bare/commits, found none"),
    ] {
        let message = refused(&["--run", run]);
        assert!(message.contains(&format!("--run {run}: {expected}")), "{message}");
        assert!(run == "file" || message.contains(way_on), "{message}");
    }
    let message = refused(&["--run", "bare", "--prefix", "live"]);
    assert!(message.contains("--prefix is for files"), "{message}");
    let message = misused(&mut merge(at, &["--run", "bare", "--last", "1"]));
    assert!(message.contains("'--last <COUNT>': expected 2 or more"), "{message}");
    let average = merge(at, &["a.bpk", "b.bpk", "--average"]);
    for mut command in [average, merge(at, &["a.bpk", "b.bpk", "--last", "3"])] {
        let message = misused(&mut command);
        assert!(message.contains("cannot be used with"), "{message}");
    }
    std::fs::create_dir_all(at.join("run/commits/epoch-0001")).unwrap();
    std::fs::write(at.join("run/commits/epoch-0001/MANIFEST.json"), "").unwrap();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/artifacts/digits/config.json");
    std::fs::copy(config, at.join("run/config.json")).unwrap();
    for (to, expected) in [
        ("nodir/z", "cannot write nodir/z.safetensors: there is no directory nodir"),
        ("bare.d", "expected a file, found the directory bare.d"),
        ("bare", "expected a file, found the directory bare"),
        ("run/model.bpk", "run/model.bpk is a file of a run, which needs it as it is"),
        ("run/commits/epoch-0001/optimizer.bpk", "optimizer.bpk is a file of a run"),
    ] {
        std::fs::create_dir_all(at.join("bare.d")).unwrap();
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/artifacts/digits/model.bpk");
        for mut command in [example("merge"), example("export")] {
            command.current_dir(at).env("BURN_DEVICE", "flex").args(["--to", to]);
            if command.get_program().to_string_lossy().ends_with("merge") {
                command.args([shipped, shipped]);
            }
            let message = fails(&mut command);
            assert!(message.contains(expected), "{message}");
        }
    }
    let (help, _) = succeeds(&mut merge(at, &["--help"]));
    assert!(!help.contains("of --model") && help.contains("hold for all files"), "{help}");
}
