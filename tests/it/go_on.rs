//! Runs of the example `train` that go on as they were begun, and what is no such run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use burn_ema::runs::{Commits, Progress};
use burn_ema_lab::{data::Task, run::RunDirectory};

use crate::examples::{example, fails, misused, succeeds};

fn train(run: &Path, options: &[&str]) -> Command {
    let mut command = example("train");
    command.args(["--device", "flex", "--run"]).arg(run).args(options);
    command
}

/// A table whose target is whole numbers from 18 to 37: ages, or classes.
fn ages(directory: &Path) -> PathBuf {
    let path = directory.join("ages.csv");
    let rows: String = (0..200).map(|i| format!("{i},{},{}\n", i * i % 7, 18 + i % 20)).collect();
    fs::write(&path, format!("a,b,age\n{rows}")).unwrap();
    path
}

fn task(run: &Path) -> &'static str {
    match RunDirectory::open(run).unwrap().config().unwrap().preparation.task() {
        Task::Classification { .. } => "classification",
        Task::Regression { .. } => "regression",
    }
}

#[test]
fn a_run_goes_on_from_what_it_was_begun_with() {
    let directory = tempfile::tempdir().unwrap();
    let table = ages(directory.path());
    let table = table.to_str().unwrap();
    for (begun, other) in [("regression", "classification"), ("classification", "regression")] {
        let run = directory.path().join(begun);
        let options = ["--data", table, "--target", "age", "--task", begun, "--commit-every", "5"];
        succeeds(train(&run, &options).args(["--epochs", "1"]));
        let resume = |options: &[&str]| {
            let mut command = train(&run, &["--resume"]);
            command.args(options);
            command
        };
        // By itself, with the commits within an epoch of 15 steps.
        let (stdout, _) = succeeds(&mut resume(&["--epochs", "2"]));
        assert!(stdout.contains("resuming after epoch 1"), "{stdout}");
        let within = Progress { epochs: 1, batches: 10 };
        assert!(Commits::of(&run).list().unwrap().contains(&within), "commits go on too");
        // What is the same may be said again.
        let same = ["--epochs", "3", "--task", begun, "--target", "age", "--data", table];
        succeeds(&mut resume(&same));
        succeeds(&mut resume(&["--epochs", "4", "--commit-every", "4"]));
        succeeds(&mut resume(&["--epochs", "5"]));
        let within = Progress { epochs: 4, batches: 12 };
        assert!(Commits::of(&run).list().unwrap().contains(&within), "the last one asked for");
        succeeds(&mut resume(&["--epochs", "6", "--commit-every", "0"]));
        let list = Commits::of(&run).list().unwrap();
        assert!(!list.iter().any(|place| place.epochs == 5 && place.batches > 0), "{list:?}");

        // Another one is refused by the name of its option.
        for (option, value, expected) in [
            ("--task", other, format!("--task is {other}, but {begun} in the run")),
            ("--target", "b", "--target is b, but age in the run".to_owned()),
            ("--batch-size", "4", "--batch-size is 4, but 8 in the run".to_owned()),
            ("--lr", "0.5", "--lr is 0.5, but 0.02 in the run".to_owned()),
            ("--optimizer", "sgd", "--optimizer is sgd, but adam in the run".to_owned()),
            ("--seed", "9", "--seed is 9, but 1 in the run".to_owned()),
            ("--epochs", "1", "--epochs is 1, but the run has 6".to_owned()),
        ] {
            let message = fails(&mut resume(&[option, value]));
            assert!(message.contains(&expected), "{message}");
        }
        assert_eq!(task(&run), begun);
    }

    // A run of the digits has no table.
    let digits = directory.path().join("digits");
    succeeds(&mut train(&digits, &["--epochs", "1"]));
    let message = fails(&mut train(&digits, &["--resume", "--data", table]));
    assert!(message.contains("--data is ") && message.contains("learns the digits"), "{message}");
    let message = fails(&mut train(&digits, &["--resume", "--task", "regression"]));
    assert!(message.contains("--task is regression, but classification"), "{message}");
}

/// The command that is printed when a run is stopped, as someone copies it.
#[test]
#[cfg(unix)]
fn the_command_that_is_printed_goes_on() {
    use std::process::Stdio;

    use rustix::process::{Pid, Signal, kill_process};

    let directory = tempfile::tempdir().unwrap();
    let (table, run) = (ages(directory.path()), directory.path().join("a run"));
    let options = ["--target", "age", "--task", "regression", "--commit-every", "3"];
    let mut command = train(&run, &options);
    command.args(["--epochs", "4000", "--data"]).arg(&table);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    while Commits::of(&run).newest().unwrap().commit.is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let (_, printed) = stdout.split_once("to go on:\n  cargo run --example train -- ").unwrap();
    // A few epochs more would do as well; that it begins is what is asked.
    let mut command = Command::new("sh");
    let line = format!("\"$0\" {} --epochs 1", printed.trim());
    command.arg("-c").arg(line).arg(example("train").get_program());
    command.env_remove("BURN_DEVICE").stdin(Stdio::null());
    let message = fails(&mut command);
    assert!(message.contains("--epochs is 1, but the run has 4000"), "{message}");
    assert_eq!(task(&run), "regression");
}

#[test]
fn a_resume_without_a_run_begins_none_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let table = ages(directory.path());
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let lock = directory.path().join("lock");
    fs::create_dir(&lock).unwrap();
    fs::write(lock.join("LOCK"), "").unwrap();
    for run in [directory.path().join("none"), empty, lock] {
        for options in [&["--resume"][..], &["--resume", "--epochs", "2"]] {
            let message = fails(&mut train(&run, options));
            let expected = format!("--resume finds no run in {}", run.display());
            assert!(message.contains(&expected), "{message}");
            assert!(!run.join("config.json").exists());
        }
    }
    // With what to begin it begins, and goes on the next time.
    let run = directory.path().join("none");
    let begin = |epochs| {
        let mut command = train(&run, &["--resume", "--epochs", epochs, "--target", "age"]);
        succeeds(command.arg("--data").arg(&table)).0
    };
    assert!(begin("1").contains("no commit yet: starting from the beginning"));
    assert!(begin("2").contains("resuming after epoch 1"));
    let other = directory.path().join("other");
    let message = fails(train(&other, &["--resume", "--data"]).arg(&table));
    assert!(message.contains("--data needs --target"), "{message}");

    // Without a table there is no target and no task to choose.
    for options in [&["--task", "regression"][..], &["--target", "age"]] {
        let message = misused(&mut train(&other, options));
        assert!(message.contains("--data") && message.contains("--resume"), "{message}");
    }
    let message = misused(train(&other, &["--data"]).arg(&table));
    assert!(message.contains("--target"), "{message}");
    assert!(!other.exists());
}
