//! The example programs, as a user runs them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use burn_ema::{
    average::Description,
    export::Contents,
    runs::{Commits, RunLock},
};
use burn_ema_lab::{
    data::{self, Answer, Prepared, loader},
    report::{Page, Report, Scores},
    run::RunDirectory,
};

/// `cargo test` builds the examples beside the directory of the tests.
pub fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let file = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(file.exists(), "{} is missing: run `cargo build --examples`", file.display());
    let mut command = Command::new(file);
    command.env_remove("BURN_DEVICE").stdin(Stdio::null());
    command
}

#[track_caller]
pub fn succeeds(command: &mut Command) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(status.success(), "{command:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

#[track_caller]
pub fn fails(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert_eq!(status.code(), Some(1), "{command:?}\n{}", String::from_utf8_lossy(&stdout));
    String::from_utf8(stderr).unwrap()
}

/// Options that clap refuses.
#[track_caller]
pub fn misused(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert_eq!(status.code(), Some(2), "{command:?}\n{}", String::from_utf8_lossy(&stdout));
    String::from_utf8(stderr).unwrap()
}

fn train(run: &Path, options: &[&str]) -> Command {
    let mut command = example("train");
    command.args(["--device", "flex", "--run"]).arg(run).args(options);
    command
}

fn report(run: &Path) -> Report {
    serde_json::from_slice(&fs::read(run.join("report.json")).unwrap()).unwrap()
}

fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts/digits")
}

/// Seeds that nobody chose the defaults by; the mean bar is the README's.
#[test]
fn the_default_training_reaches_its_accuracy() {
    let directory = tempfile::tempdir().unwrap();
    let accuracies: Vec<_> = (1..=5)
        .map(|seed| {
            let run = directory.path().join(seed.to_string());
            let (stdout, stderr) = succeeds(&mut train(&run, &["--seed", &seed.to_string()]));
            assert!(stdout.starts_with("device: flex (CPU)\n"), "{stdout}");
            assert!(stdout.contains("rows: 1078 train, 359 valid, 360 test"), "{stdout}");
            assert!(stderr.lines().last().unwrap().contains("(live "), "{stderr}");
            report(&run).averages[0].scores.accuracy.unwrap()
        })
        .collect();
    let mean = accuracies.iter().sum::<f64>() / 5.0;
    assert!(mean >= 0.965 && accuracies.iter().all(|&a| a >= 0.945), "{accuracies:?}");
}

/// The same command twice, in two processes: the same report to the last digit.
#[test]
fn a_seed_decides_everything() {
    let directory = tempfile::tempdir().unwrap();
    let reports = [("a", "7"), ("b", "7"), ("c", "8")].map(|(name, seed)| {
        let run = directory.path().join(name);
        succeeds(&mut train(&run, &["--epochs", "2", "--seed", seed]));
        report(&run)
    });
    assert_eq!(reports[0], reports[1]);
    assert_ne!(reports[0].live, reports[2].live);
}

#[test]
fn an_older_run_is_never_lost_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let epochs = |n| ["--epochs", n];
    succeeds(&mut train(&run, &epochs("1")));
    let before = fs::read(run.join("model.bpk")).unwrap();
    let message = fails(&mut train(&run, &epochs("1")));
    assert!(message.contains("holds a run: --resume goes on with it"), "{message}");
    assert_eq!(fs::read(run.join("model.bpk")).unwrap(), before);

    let resume = |options: &[&str]| {
        let mut command = train(&run, &["--resume"]);
        command.args(options);
        command
    };
    let (stdout, stderr) = succeeds(&mut resume(&epochs("3")));
    assert!(stdout.contains("resuming after epoch 1"), "{stdout}");
    assert!(stderr.starts_with("epoch 2/3"), "{stderr}");
    let message = fails(&mut resume(&["--lr", "0.5"]));
    let expected =
        "--lr is 0.5, but 0.02 in the run, which cannot change; --run DIR begins another run";
    assert!(message.contains(expected), "{message}");

    let message = fails(&mut resume(&["--epochs", "2"]));
    assert!(message.contains("--epochs is 2, but the run has 3, which can only grow"), "{message}");
    let (stdout, _) = succeeds(&mut resume(&["--epochs", "3"]));
    assert!(stdout.contains("the run has its 3 epochs; --epochs gives it more"), "{stdout}");

    // A model that is older than the last commit is made again.
    let whole = fs::read(run.join("model.bpk")).unwrap();
    fs::write(run.join("model.bpk"), &before).unwrap();
    let (stdout, _) = succeeds(&mut resume(&["--epochs", "3"]));
    assert!(stdout.contains("resuming after epoch 3") && stdout.contains("saved in"), "{stdout}");
    assert_eq!(fs::read(run.join("model.bpk")).unwrap().len(), whole.len());
    let step = |bytes: &[u8]| {
        let path = directory.path().join("some.bpk");
        fs::write(&path, bytes).unwrap();
        burn_ema::average::Description::read(&path).unwrap().step
    };
    assert_eq!(step(&fs::read(run.join("model.bpk")).unwrap()), step(&whole));
    assert!(step(&before) < step(&whole));

    // A configuration that was altered is refused; one that is lost is that of the commits.
    let config = fs::read_to_string(run.join("config.json")).unwrap();
    fs::write(run.join("config.json"), config.replace("0.02", "0.5")).unwrap();
    let message = fails(&mut resume(&["--epochs", "4"]));
    assert!(message.contains("config.json") && message.contains("altered"), "{message}");
    fs::remove_file(run.join("config.json")).unwrap();
    let (stdout, _) = succeeds(&mut resume(&["--epochs", "3"]));
    assert!(stdout.contains("the run has its 3 epochs"), "{stdout}");

    // Averages change when they are named, and not otherwise.
    let summary = fs::read(run.join("summary.json")).unwrap();
    let (stdout, _) = succeeds(&mut resume(&["--epochs", "4", "--average", "0.9"]));
    assert!(stdout.contains("average ema(0.9, debias): starts from the live weights"), "{stdout}");
    assert!(stdout.contains("average ema(0.95, debias): dropped"), "{stdout}");
    assert_eq!(stdout.matches("ema(0.95").count(), 1, "{stdout}");
    let metrics = fs::read_to_string(run.join("metrics.csv")).unwrap();
    let of = |line: &&str| line.contains("Validated");
    let expected = [
        "valid,1,Validated,\"ema(0.95, debias)\",text",
        "valid,4,Validated,\"ema(0.9, debias)\",text",
    ];
    assert_eq!(metrics.lines().filter(of).collect::<Vec<_>>(), expected);

    // A report of before the run went on is not taken for one of its end.
    let run_directory = RunDirectory::open(&run).unwrap();
    let drawn = || Page::of(std::slice::from_ref(&run_directory)).unwrap().html().to_owned();
    let stale = "are of step 405, and the run has gone on to step 540";
    let (ended, now) = ("Saved is <b>", fs::read(run.join("summary.json")).unwrap());
    assert!(drawn().contains(ended) && !drawn().contains(stale));
    fs::write(run.join("summary.json"), &summary).unwrap();
    assert!(drawn().contains(stale) && !drawn().contains(ended), "{}", drawn());
    fs::write(run.join("summary.json"), now).unwrap();
    // One of its end stays, if the commit of the end is lost.
    let lost = run.join("commits/epoch-0004");
    fs::rename(&lost, run.join("lost")).unwrap();
    assert!(drawn().contains(ended), "{}", drawn());
    fs::rename(run.join("lost"), &lost).unwrap();

    // A damaged commit is named, whichever of its files it is, and the one before it serves.
    for (epochs, kind) in [("5", "model"), ("6", "optimizer"), ("7", "scheduler")] {
        let newest = Commits::of(&run).list().unwrap().pop().unwrap();
        let file = format!("epoch-{:04}/{kind}.bpk", newest.epochs);
        let path = run.join("commits").join(&file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..5]).unwrap();
        let (stdout, _) = succeeds(&mut resume(&["--epochs", epochs, "--average", "0.9"]));
        assert!(stdout.contains(&format!("{file}: its length: expected")), "{stdout}");
        let before = format!("resuming after epoch {}", newest.epochs - 1);
        assert!(stdout.contains(&before), "{stdout}");
    }
    fs::rename(run.join("commits"), run.join("moved")).unwrap();
    let message = fails(&mut resume(&["--epochs", "8"]));
    assert!(message.contains("the commits of the run are gone"), "{message}");

    // Something of the user's survives an overwrite.
    fs::write(run.join("notes.txt"), "mine").unwrap();
    let (stdout, _) = succeeds(&mut train(&run, &["--epochs", "1", "--overwrite"]));
    assert!(stdout.contains("ema(0.95, debias)"), "a short training, a short memory: {stdout}");
    assert_eq!(fs::read_to_string(run.join("notes.txt")).unwrap(), "mine");

    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.tex"), "years of work").unwrap();
    let message = fails(&mut train(&other, &["--overwrite"]));
    assert!(message.contains("cannot start a new run in"), "{message}");
    assert!(other.join("thesis.tex").exists());
}

/// The model is the last that a run leaves, so that nothing of it is missing where that is.
#[test]
fn a_report_that_was_not_written_is_written_by_a_resume() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let path = run.join("report.json");
    succeeds(&mut train(&run, &["--epochs", "1"]));
    let (first, before) = (report(&run), fs::read(run.join("model.bpk")).unwrap());
    // In the way of the report, as a kill would be.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let message = fails(&mut train(&run, &["--resume", "--epochs", "2"]));
    assert!(message.contains("report.json"), "{message}");
    assert_eq!(fs::read(run.join("model.bpk")).unwrap(), before);
    fs::remove_dir(&path).unwrap();
    let (stdout, _) = succeeds(&mut train(&run, &["--resume"]));
    assert!(stdout.contains("resuming after epoch 2") && stdout.contains("saved in"), "{stdout}");
    assert_ne!(report(&run), first);
    assert_ne!(fs::read(run.join("model.bpk")).unwrap(), before);
}

/// While the averages are compared, which takes a while where they are many.
#[test]
#[cfg(unix)]
fn a_signal_after_the_last_epoch_is_not_lost() {
    use rustix::process::{Pid, Signal, kill_process};

    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let averages: Vec<_> =
        (1..=80).map(|index| format!("--average={}", 0.9 + 1e-4 * f64::from(index))).collect();
    let mut command = train(&run, &["--epochs", "1"]);
    command.args(&averages).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    while Commits::of(&run).newest().unwrap().commit.is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!run.join("model.bpk").exists());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(status.code(), Some(143), "{stdout}{stderr}");
    assert!(stdout.contains("stopped by SIGTERM, committed after epoch 1; to go on:"), "{stdout}");
    assert!(!run.join("model.bpk").exists());
    let (stdout, _) = succeeds(&mut train(&run, &["--resume"]));
    assert!(stdout.contains("saved in"), "{stdout}");
}

#[test]
fn a_training_that_diverges_is_an_error_and_leaves_no_model() {
    let directory = tempfile::tempdir().unwrap();
    let (table, run) = (directory.path().join("table.csv"), directory.path().join("run"));
    let rows: String = (0..50).map(|i| format!("{i},{}.5\n", i * i)).collect();
    fs::write(&table, format!("x,y\n{rows}")).unwrap();
    let options = ["--optimizer", "sgd", "--lr", "1e6", "--target", "y", "--data"];
    let message = fails(train(&run, &options).arg(&table));
    assert!(message.contains("the training diverged"), "{message}");
    assert!(!run.join("model.bpk").exists());
}

#[test]
fn several_averages_stand_in_the_report() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let options = ["--epochs", "1", "--average", "ema(0)", "--decay", "0.9", "--optimizer", "sgd"];
    succeeds(&mut train(&run, &options));
    let report = report(&run);
    let rules: Vec<_> = report.averages.iter().map(|average| average.rule.as_str()).collect();
    assert_eq!(rules, ["ema(0.9, debias)", "ema(0)"]);
    assert_eq!(report.averages[1].scores, report.live, "decay 0 is live");
    let before = fs::read(run.join("model.bpk")).unwrap();
    for slip in [["--batch-size", "0"], ["--lr", "nan"], ["--epochs", "0"]] {
        fails(train(&run, &["--overwrite"]).args(slip));
        assert_eq!(fs::read(run.join("model.bpk")).unwrap(), before, "a slip costs no run");
    }
    let message = misused(&mut train(&run, &["--decay", "1", "--overwrite"]));
    assert_eq!(fs::read(run.join("model.bpk")).unwrap(), before, "a slip costs no run");
    assert!(message.contains("decay is 1, expected a number in [0, 1)"), "{message}");
}

#[test]
fn a_device_that_is_not_there_is_an_error_with_the_feature() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = example("train");
    command.args(["--device", "cuda", "--run"]).arg(directory.path().join("run"));
    let message = fails(&mut command);
    assert!(message.contains("--features cuda"), "{message}");
    let mut command = example("infer");
    let message = fails(command.env("BURN_DEVICE", "abacus"));
    assert!(message.contains("abacus"), "{message}");
}

#[test]
#[cfg(feature = "ndarray")]
fn a_run_that_goes_on_elsewhere_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let train = |device: &str, epochs: &str| {
        let mut train = example("train");
        train.args(["--device", device, "--epochs", epochs]);
        train.args((epochs != "1").then_some("--resume"));
        succeeds(train.arg("--run").arg(directory.path().join("run"))).0
    };
    let notes_device =
        |stdout: &str| stdout.contains("until here the run was on flex (CPU), whose");
    assert!(!notes_device(&train("flex", "1")));
    assert!(!notes_device(&train("flex", "2")));
    assert!(notes_device(&train("ndarray", "3")));
    assert!(!notes_device(&train("ndarray", "4")));
}

/// As after `| head -n 1`.
#[test]
fn a_reader_that_leaves_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let mut train = train(&run, &["--epochs", "1"]);
    let mut profiles = example("profiles");
    let mut infer = example("infer");
    for command in [&mut train, &mut profiles, infer.args(["--device", "flex"])] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let Output { status, stderr, .. } = command.stdout(writer).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(status.success() && !stderr.contains("panicked"), "{command:?}: {stderr}");
    }
    assert!(run.join("model.bpk").exists());
}

/// The same training on wgpu: other first weights, since each backend draws its own, but scores
/// that differ by no more than those of two seeds.
#[test]
#[cfg(feature = "wgpu")]
fn wgpu_gives_what_flex_gives() {
    let directory = tempfile::tempdir().unwrap();
    let reports = ["wgpu", "flex"].map(|device| {
        let run = directory.path().join(device);
        let mut train = example("train");
        train.args([
            "--epochs",
            "12",
            "--batch-size",
            "32",
            "--average",
            "0.98",
            "--device",
            device,
        ]);
        train.arg("--run").arg(&run);
        let (stdout, _) = succeeds(&mut train);
        assert!(stdout.starts_with(&format!("device: {device}")), "{stdout}");
        report(&run)
    });
    let accuracies = reports.map(|report| report.averages[0].scores.accuracy.unwrap());
    assert!(accuracies.iter().all(|&accuracy| accuracy > 0.92), "{accuracies:?}");
    assert!((accuracies[0] - accuracies[1]).abs() < 0.03, "{accuracies:?}");
}

#[test]
fn a_table_is_learned_and_answered() {
    let directory = tempfile::tempdir().unwrap();
    let [table, rows, run] =
        ["table.csv", "rows.csv", "run"].map(|name| directory.path().join(name));
    let line = |i: i32| {
        let (a, b) = (f64::from(i % 13) - 6.0, f64::from(i % 7) * 100.0);
        (format!("{a},{b}"), 3.0 * a + 0.01 * b)
    };
    let learned: String = (0..200).map(line).map(|(x, y)| format!("{x},{y}\n")).collect();
    fs::write(&table, format!("a,b,y\n{learned}")).unwrap();
    let mut command = train(&run, &["--target", "y", "--data"]);
    let (stdout, _) = succeeds(command.arg(&table));
    assert!(!stdout.contains("accuracy"), "{stdout}");

    let (stdout, _) = succeeds(&mut train(&run, &["--resume", "--epochs", "41"]));
    assert!(stdout.contains("resuming after epoch 40"), "it remembers its data: {stdout}");

    let asked: String = (0..10).map(|i| line(i).0 + "\n").collect();
    fs::write(&rows, format!("a,b\n{asked}")).unwrap();
    let mut command = example("infer");
    command.args(["--device", "flex", "--run"]).arg(&run).arg("--csv").arg(&rows);
    let (stdout, _) = succeeds(&mut command);
    let answers: Vec<f64> = stdout.lines().skip(1).map(|line| line.parse().unwrap()).collect();
    assert_eq!((stdout.lines().next(), answers.len()), (Some("y"), 10));
    for (i, answer) in answers.into_iter().enumerate() {
        let expected = line(i as i32).1;
        assert!((answer - expected).abs() < 1.0, "{answer} for {expected}");
    }

    fs::write(&table, format!("a,b,y\n1,2,3\n1,oops,3\n{learned}")).unwrap();
    let mut command = train(&run.join("x"), &["--target", "y", "--data"]);
    let message = fails(command.arg(&table));
    assert!(message.contains("row 3") && message.contains("oops"), "{message}");
}

/// What prepares the rows says nothing of those that were not trained on.
#[test]
fn a_resume_with_other_rows_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let [table, run] = ["table.csv", "run"].map(|name| directory.path().join(name));
    let text = |targets: &[i32]| {
        let rows = targets.iter().enumerate().map(|(x, y)| format!("{x},{y}.5\n"));
        format!("x,y\n{}", rows.collect::<String>())
    };
    let preparation = |targets: &[i32]| {
        fs::write(&table, text(targets)).unwrap();
        let table = data::Table::read(&table, "y").unwrap();
        Prepared::new(&table, 1).unwrap().preparation
    };
    let targets: Vec<i32> = (0..50).map(|x| x * x).collect();
    let before = preparation(&targets);
    let swapped = (0..50).flat_map(|i| (0..i).map(move |j| (i, j))).find_map(|(i, j)| {
        let mut swapped = targets.clone();
        swapped.swap(i, j);
        (preparation(&swapped) == before).then_some(swapped)
    });
    fs::write(&table, text(&targets)).unwrap();
    let options = ["--epochs", "1", "--target", "y", "--data", table.to_str().unwrap()];
    succeeds(&mut train(&run, &options));
    fs::write(&table, text(&swapped.unwrap())).unwrap();
    let more = ["--resume", "--epochs", "2"];
    let message = fails(&mut train(&run, &more));
    assert!(message.contains("the data differs from that of the run"), "{message}");
    // The same rows elsewhere, and spaced otherwise.
    let moved = directory.path().join("moved.csv");
    fs::write(&moved, text(&targets).replace(',', ", ")).unwrap();
    succeeds(train(&run, &more).args(["--target", "y", "--data"]).arg(&moved));
}

#[test]
fn the_committed_model_answers_drawn_digits() {
    let mut infer = example("infer");
    let (stdout, _) = succeeds(infer.args(["--device", "flex", "--count", "10"]));
    let of = |what: &str| -> Vec<_> {
        let lines = stdout.lines().filter_map(|line| line.strip_prefix(what));
        lines.map(|line| line.trim().to_owned()).collect()
    };
    let right = of("written:").iter().zip(of("answer:")).filter(|(a, b)| **a == *b).count();
    assert!(right >= 9, "{stdout}");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("digits.txt");
    let one = "...@@...\n..@@@...\n...@@...\n...@@...\n...@@...\n...@@...\n...@@...\n..@@@@..\n";
    fs::write(&file, format!("{one}\n{one}")).unwrap();
    let mut infer = example("infer");
    let (stdout, _) = succeeds(infer.args(["--device", "flex", "--draw"]).arg(&file));
    assert_eq!(stdout.matches("answer:  1\n").count(), 2, "{stdout}");

    for (drawn, expected) in [
        ("...\n", "line 1: expected 8 characters, found 3"),
        ("....?...\n", "line 1: expected a space or one of .:-=+*#%@, found '?'"),
        ("........\n", "the last picture has 1 lines, expected 8"),
        ("", "expected a picture, found nothing"),
    ] {
        fs::write(&file, drawn).unwrap();
        let mut infer = example("infer");
        let message = fails(infer.args(["--device", "flex", "--draw"]).arg(&file));
        assert!(message.contains(expected), "{message}");
    }
}

/// Files in every form, and the commits of a run, merged by all kinds of weights.
#[test]
fn saved_models_are_merged() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let run = path("run");
    let keep = ["--epochs", "4", "--keep-every", "100"];
    succeeds(&mut train(&run, &keep));
    let steps = |run: &Path| -> Vec<_> {
        let commits = Commits::of(run).last(9).unwrap().commits;
        commits.iter().map(|commit| commit.manifest().steps).collect()
    };
    assert_eq!(steps(&run), [135, 270, 405, 540]);
    succeeds(&mut train(&run, &["--resume", "--epochs", "6"]));
    assert_eq!(steps(&run), [135, 270, 405, 540, 675, 810], "kept in a run that goes on, too");
    let merge = |options: &[&str]| {
        let mut command = example("merge");
        command.env("BURN_DEVICE", "flex").args(options);
        command
    };
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let of_run = run.to_str().unwrap();
    let exported = |name: &str, form: &str| {
        let mut command = example("export");
        command.env("BURN_DEVICE", "flex").arg(&run).args(["--live", "--format", form, "--to"]);
        succeeds(command.arg(path(name)));
        text(name)
    };

    // Commits: live and the average.
    let soup = text("soup.safetensors");
    let (said, _) = succeeds(&mut merge(&["--run", of_run, "--last", "4", "--to", &soup]));
    let description = Contents::read(&soup).unwrap().description.unwrap();
    assert_eq!((&description.rule[..], description.step), ("merge of 4 files, equal weights", 810));
    assert_eq!(description.files.len(), 4);
    for file in &description.files {
        let line = format!("  0.250000  {}...  {}", &file.sha256[..16], file.path);
        assert!(said.contains(&line), "{said}");
    }
    assert!(description.files[0].path.ends_with("epoch-0003/model.bpk"), "{description:?}");
    assert!(said.contains(&format!("cargo run --example infer -- --model {soup}")), "{said}");
    let (_, heard) = succeeds(example("infer").args(["--count", "20", "--model", &soup]));
    assert!(heard.contains("merge of 4 files, equal weights"), "{heard}");
    let average = ["--run", of_run, "--average", "--decay", "sqrt", "--to", &soup];
    let (said, _) = succeeds(&mut merge(&average));
    assert!(said.contains("weights of the decay 1-sqrt"), "{said}");
    assert!(said.contains("  0.447214  "), "{said}");
    let of_average = Contents::read(&soup).unwrap().description.unwrap();
    assert!(of_average.step == 810 && of_average.samples == 6 * 1078, "{of_average:?}");
    let (said, _) = succeeds(&mut merge(&["--run", of_run, "--last", "9", "--to", &soup]));
    assert!(
        said.contains("has 6 commits, the first at or after each 100 steps, fewer than"),
        "{said}"
    );

    // Files of three forms, of one network.
    let files = [exported("a.bpk", "burnpack"), exported("b", "torch"), soup.clone()];
    let files = [&files[0][..], &files[1], &files[2]];
    let to = text("merged.bpk");
    let (said, _) = succeeds(merge(&files).args([
        "--weights",
        "0.5,-0.25,0.75",
        "--format",
        "burnpack",
        "--to",
        &to,
    ]));
    assert!(said.contains(" -0.250000  "), "{said}");
    let rule = ["--rule", "ema(0.5)", "--to", &to];
    assert!(succeeds(merge(&files).args(rule)).0.contains("weights of ema(0.5)"));
    let base = ["--base", files[2], "--scale", "0.3", "--to", &to];
    let (said, _) = succeeds(merge(&files[..2]).args(base));
    assert!(said.contains("task arithmetic around the first, scale 0.3"), "{said}");
    assert!(said.contains("  0.400000  ") && said.contains("  0.300000  "), "{said}");
    let (said, _) = succeeds(merge(&files[..2]).args(["--weights", "-1,2", "--to", &to]));
    assert!(said.contains(" -1.000000  "), "{said}");
    let (said, _) = succeeds(merge(&files).args(["--greedy", "--to", &to]));
    assert!(said.contains("the rows are those of the validation with the seed 1"), "{said}");
    assert!(said.contains("taken") && said.contains("loss of the merge: 0.0"), "{said}");
    let of_torch = ["torch_mlp.pt", "torch_mlp_legacy.pt", "torch_mlp.safetensors"];
    let of_torch = of_torch.map(|name| crate::export::oracle(name).to_str().unwrap().to_owned());
    let of_torch = of_torch.each_ref().map(|name| &name[..]);
    let (said, _) = succeeds(merge(&of_torch).args(["--to", &to]));
    assert!(said.contains("layers.0.weight") || said.contains("0.weight"), "{said}");

    // What is misused.
    let before = fs::read(&to).unwrap();
    let refused =
        |files: &[&str], options: &[&str]| fails(merge(files).args(options).args(["--to", &to]));
    let message = refused(&files[..1], &[]);
    assert!(
        message.contains("the number of files of a merge is 1, expected 2 or more"),
        "{message}"
    );
    let message = refused(&files[..2], &["--weights", "1,3"]);
    assert!(message.contains("divided by it, the weights are 0.25, 0.75"), "{message}");
    let message = refused(&files[..2], &["--weights", "NaN,1"]);
    assert!(message.contains("weight 1 of a merge is NaN, expected a finite number"), "{message}");
    let message = refused(&[files[0], of_torch[0]], &[]);
    assert!(message.contains("torch_mlp.pt") && message.contains("found f32 [32]"), "{message}");
    // One of the files, however it is named.
    let original = fs::read(files[0]).unwrap();
    let message = fails(merge(&files).args(["--to", &text("./a.bpk")]));
    assert!(message.contains("is one of the files to merge; name another file"), "{message}");
    assert_eq!(fs::read(files[0]).unwrap(), original);
    let table = text("table.xyz");
    fs::write(&table, "a,b\n1,2\n").unwrap();
    let message = refused(&[files[0], &table], &[]);
    assert!(message.contains("table.xyz") && message.contains("the first bytes"), "{message}");
    assert_eq!(fs::read(&to).unwrap(), before, "a merge that fails leaves an older file");
    let (said, _) = succeeds(merge(&[files[0], files[0]]).args(["--to", &to]));
    assert!(said.contains("warning: ") && said.contains("which so counts twice"), "{said}");
    let short = path("short");
    succeeds(&mut train(&short, &["--epochs", "1"]));
    let message = fails(&mut merge(&["--run", short.to_str().unwrap(), "--to", &to]));
    let expected = "a merge needs 2 commits or more, found 1; `train --keep-every STEPS`";
    assert!(message.contains(expected), "{message}");
    for wrong in [&["--decay", "sqrt", "--greedy"][..], &["--run", of_run], &["--base", files[0]]] {
        misused(merge(&files).args(wrong).args(["--to", &to]));
    }
    misused(&mut merge(&["--to", &to]));
    let (help, _) = succeeds(&mut merge(&["--help"]));
    assert!(help.contains("--keep-every") && help.contains("SHA-256"), "{help}");
}

/// The model of a run, and live, in every form: what answers is the same, and live is named where it
/// says otherwise.
#[test]
fn a_model_goes_out_in_every_form_and_answers() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let run = path("run");
    succeeds(&mut train(&run, &["--epochs", "1"]));
    let infer = |options: &[&str]| {
        let mut command = example("infer");
        command.args(["--device", "flex", "--count", "60", "--run"]).arg(&run).args(options);
        command
    };
    let text = |file: &Path| file.to_str().unwrap().to_owned();
    let (answers, _) = succeeds(&mut infer(&[]));
    for form in ["burnpack", "safetensors", "torch"] {
        let files = [path(&format!("{form} average")), path(&format!("{form} live"))];
        let export = |file: &Path, options: &[&str]| {
            let mut command = example("export");
            command.env("BURN_DEVICE", "flex").arg(&run).args(["--format", form, "--to"]);
            succeeds(command.arg(file).args(options)).0
        };
        let said = export(&files[0], &[]);
        assert!(said.contains(" at step 135 (1078 samples), "), "{said}");
        assert!(export(&files[1], &["--live"]).contains("live at step 135, "));
        let [average, live] = files.each_ref().map(|file| text(file));
        let (found, heard) = succeeds(&mut infer(&["--model", &average, "--live", &live]));
        assert_eq!(found, answers, "{form}");
        assert!(heard.contains("live at step 135, "), "{heard}");
        // Live against itself.
        let (found, _) = succeeds(&mut infer(&["--model", &live]));
        assert!(found.ends_with("live says otherwise for 0 of 60\n"), "{found}");
    }

    // While there is no model, the newest commit says the same of its average.
    let (model, early) = (run.join("model.bpk"), path("early.safetensors"));
    let said = Description::read(&model).unwrap();
    fs::rename(&model, path("model.bpk")).unwrap();
    let mut command = example("export");
    succeeds(command.env("BURN_DEVICE", "flex").arg(&run).arg("--to").arg(&early));
    fs::rename(path("model.bpk"), &model).unwrap();
    let mut of_commit = Contents::read(&early).unwrap().description.unwrap();
    assert!(of_commit.source.starts_with("the run in "), "{of_commit}");
    of_commit.source.clone_from(&said.source);
    assert_eq!(of_commit, said);
    assert!(said.mass_on_start > 0.0 || said.mass < 1.0, "{said:?}");
    assert!(succeeds(example("export").arg("--help")).0.contains("PyTorch's names"));

    // The same by the library.
    let run = RunDirectory::open(&run).unwrap();
    let device = Device::flex();
    let preparation = run.config().unwrap().preparation;
    let table = data::digits().unwrap();
    let rows = table.features().len();
    let rows: Vec<_> = (0..60).map(|index| table.features()[index * rows / 60].clone()).collect();
    let labels = |model: burn_ema::model::Mlp| -> Vec<String> {
        let inputs = TensorData::new(preparation.encode(&rows).unwrap(), [60, 64]);
        let outputs = model.forward(Tensor::from_data(inputs, &device)).into_data();
        let answers = preparation.decode(&outputs.try_into_vec::<f32>().unwrap()).unwrap();
        let label = |answer| match answer {
            Answer::Class { label, .. } => label,
            Answer::Number(_) => panic!(),
        };
        answers.into_iter().map(label).collect()
    };
    let (ours, of_live) =
        (labels(run.model(&device).unwrap()), labels(run.live(&device).unwrap().unwrap()));
    let differing: Vec<_> = ours.iter().zip(&of_live).filter(|(a, b)| a != b).collect();
    assert!(!differing.is_empty(), "after one epoch the average lags behind");
    let printed = answers.split("answer:  ").skip(1).filter_map(|answer| {
        let (label, rest) = answer.split_once('\n')?;
        Some((label, rest.strip_prefix("live:    ")?.split_once(", with ")?.0))
    });
    assert!(printed.eq(differing.iter().map(|(a, b)| (&a[..], &b[..]))), "{answers}");
    let last = format!("live says otherwise for {} of 60\n", differing.len());
    assert!(answers.ends_with(&last), "{answers}");
}

/// As many columns as a picture has pixels make no picture of what is a number.
#[test]
fn a_number_is_not_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let (file, run) = (directory.path().join("table.csv"), directory.path().join("run"));
    let line = |cell: &dyn Fn(usize) -> String| (0..65).map(cell).collect::<Vec<_>>().join(",");
    let rows = (0..40).map(|row| line(&|column| (row * (column + 1) % 7).to_string() + ".5"));
    let lines: Vec<_> = [line(&|column| format!("c{column}"))].into_iter().chain(rows).collect();
    fs::write(&file, lines.join("\n") + "\n").unwrap();
    let mut train = train(&run, &["--epochs", "1", "--task", "regression", "--target", "c64"]);
    succeeds(train.arg("--data").arg(&file));
    let mut infer = example("infer");
    let message = fails(infer.args(["--device", "flex", "--run"]).arg(&run));
    assert!(message.contains("answers with numbers; give it a --csv"), "{message}");
}

/// What PyTorch wrote answers, whatever it is called, and what is no network of digits does not.
#[test]
fn models_of_others_answer() {
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model");
    let infer = || {
        let mut command = example("infer");
        command.args(["--device", "flex", "--count", "100", "--model"]).arg(&path);
        command
    };
    for file in ["torch_mlp.safetensors", "torch_mlp.pt", "torch_mlp_legacy.pt"] {
        fs::copy(oracle.join(file), &path).unwrap();
        let (stdout, _) = succeeds(&mut infer());
        let of = |what: &str| -> Vec<_> {
            stdout.lines().filter_map(|line| line.strip_prefix(what)).map(str::trim).collect()
        };
        let (written, answers) = (of("written:"), of("answer:"));
        assert_eq!((written.len(), answers.len()), (100, 100));
        let right = written.iter().zip(answers).filter(|(a, b)| **a == *b).count();
        assert!(right >= 97, "{file}: {right}");
        assert!(!stdout.contains("live"), "the run that ships has no live weights");
    }
    fs::copy(oracle.join("torch_net.safetensors"), &path).unwrap();
    let expected = "expected a network from 64 inputs to 10 outputs, found one from 2 to 3";
    assert!(fails(&mut infer()).contains(expected));
    // One number that is shown as a matrix of gigabytes.
    fs::copy(oracle.join("torch_expanded.pt"), &path).unwrap();
    assert!(fails(&mut infer()).contains("bytes of weights, as the file has, found 2960000000"));
    fs::write(&path, &fs::read(oracle.join("torch_mlp.pt")).unwrap()[..5000]).unwrap();
    assert!(fails(&mut infer()).contains(&path.display().to_string()));
    fs::write(&path, "Some text.").unwrap();
    assert!(fails(&mut infer()).contains("expected those of burnpack, safetensors or torch.save"));
}

/// A checkpoint with live and its average in double precision, and a buffer beside them.
fn checkpoint(path: &Path) {
    let whole =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/torch_mlp.safetensors"));
    let whole = whole.unwrap();
    let weights = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let mut tensors = vec![("initted".to_owned(), vec![], vec![0; 8])];
    for (name, view) in weights.iter() {
        let numbers =
            view.data().chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().unwrap()));
        let numbers: Vec<u8> = numbers.flat_map(|x| f64::from(x).to_le_bytes()).collect();
        let live = vec![0; numbers.len()];
        let of = |prefix: &str| format!("{prefix}.{name}");
        tensors.push((of("ema_model"), view.shape().to_vec(), numbers));
        tensors.push((of("online_model"), view.shape().to_vec(), live));
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F64, shape.clone(), bytes);
        (name, view.unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// What a file of others needs, the refusal names, and the options of the programs do.
#[test]
fn a_part_of_a_checkpoint_answers_and_goes_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (file, out) = (path("checkpoint.safetensors"), path("out.safetensors"));
    checkpoint(&file);
    let infer = |model: &Path, options: &[&str]| {
        let mut command = example("infer");
        command.args(["--device", "flex", "--count", "100", "--model"]).arg(model).args(options);
        command
    };
    let right = |stdout: &str| {
        let of = |what: &str| -> Vec<_> {
            let lines = stdout.lines().filter_map(|line| line.strip_prefix(what));
            lines.map(|line| line.trim().to_owned()).collect()
        };
        of("written:").iter().zip(of("answer:")).filter(|(a, b)| **a == *b).count()
    };
    let refused = fails(&mut infer(&file, &[]));
    assert!(refused.contains("with the option prefix `ema_model` or `online_model`"), "{refused}");
    let refused = fails(&mut infer(&file, &["--prefix", "ema_model"]));
    assert!(refused.contains("which the option cast rounds"), "{refused}");
    let of_file = file.to_str().unwrap();
    let (stdout, _) = succeeds(&mut infer(
        &file,
        &["--prefix", "ema_model", "--cast", "--live", of_file, "--live-prefix", "online_model"],
    ));
    assert!(right(&stdout) >= 97, "{stdout}");
    assert!(stdout.contains("live says otherwise for "), "{stdout}");
    let (stdout, _) = succeeds(&mut infer(
        &file,
        &["--cast", "--form", "torch", "--prefix", "online_model", "--leave-out", "initted"],
    ));
    assert!(right(&stdout) < 30, "{stdout}");

    let mut command = example("export");
    command.env("BURN_DEVICE", "flex").args(["--format", "safetensors", "--prefix", "ema_model."]);
    command.args(["--cast", "--model"]).arg(&file).arg("--to").arg(&out);
    let (said, _) = succeeds(&mut command);
    assert!(said.contains("weights of a file at step 0") && said.contains(of_file), "{said}");
    let (stdout, _) = succeeds(&mut infer(&out, &[]));
    assert!(right(&stdout) >= 97, "{stdout}");

    // A record of plain Burn.
    let run = RunDirectory::open(digits()).unwrap();
    let plain = path("plain.bpk");
    run.model(&Device::flex()).unwrap().save_file(&plain).unwrap();
    let (stdout, _) = succeeds(&mut infer(&plain, &[]));
    assert!(right(&stdout) >= 97, "{stdout}");

    for options in [["--prefix", "ema_model"], ["--leave-out", "x"], ["--form", "torch"]] {
        misused(example("infer").args(options));
    }
    for (name, bytes) in [
        ("a web page", &b"<!DOCTYPE html>"[..]),
        ("a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\n"),
        ("the index of a model in shards", br#"{"weight_map": {"a": "model-1-of-1.safetensors"}}"#),
    ] {
        fs::write(&file, bytes).unwrap();
        let refused = fails(&mut infer(&file, &[]));
        assert!(refused.contains(name) && refused.contains(of_file), "{refused}");
    }
}

#[test]
fn a_damaged_or_foreign_run_is_an_error_with_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let run = directory.path().join(name);
        fs::create_dir(&run).unwrap();
        for file in ["config.json", "model.bpk"] {
            fs::copy(digits().join(file), run.join(file)).unwrap();
        }
        run
    };
    let infer = |run: &Path| {
        let mut command = example("infer");
        command.args(["--device", "flex", "--run"]).arg(run);
        fails(&mut command)
    };
    let run = copy("cut");
    let bytes = fs::read(run.join("model.bpk")).unwrap();
    fs::write(run.join("model.bpk"), &bytes[..bytes.len() / 2]).unwrap();
    assert!(infer(&run).contains("cut/model.bpk"));

    let run = copy("wider");
    let config = fs::read_to_string(run.join("config.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&config).unwrap();
    json["model"]["sizes"][1] = 65.into();
    fs::write(run.join("config.json"), json.to_string()).unwrap();
    let message = infer(&run);
    assert!(message.contains("wider/config.json") && message.contains("altered"), "{message}");

    let run = copy("broken");
    fs::write(run.join("config.json"), &config[..100]).unwrap();
    assert!(infer(&run).contains("broken/config.json"));
    assert!(infer(&directory.path().join("nowhere")).contains("nowhere/config.json"));
}

#[test]
fn the_other_examples_run() {
    succeeds(example("own_module").env("BURN_DEVICE", "flex"));
    let (stdout, _) = succeeds(example("own_loop").env("BURN_DEVICE", "flex"));
    let mean = stdout.lines().last().unwrap();
    let numbers = mean.split_whitespace().filter_map(|word| {
        let word = word.trim_end_matches(',');
        word.parse::<f64>().ok()
    });
    let [live, average] = numbers.collect::<Vec<_>>()[..] else { panic!("{mean}") };
    assert!(average < live, "{mean}");
}

fn post_hoc(options: &[&str], run: &Path) -> Command {
    let mut command = example("post_hoc");
    command.args(["--device", "flex"]).args(options).arg(run);
    command
}

/// The lines of the table that it prints, as words.
fn table<'a>(stdout: &'a str) -> Vec<Vec<&'a str>> {
    let lines = stdout.lines().skip_while(|line| !line.contains("validation loss")).skip(1);
    let words = |line: &'a str| line.split("  ").map(str::trim).filter(|word| !word.is_empty());
    lines.take_while(|line| !line.is_empty()).map(|line| words(line).collect()).collect()
}

#[test]
fn averages_of_other_widths_are_made_after_the_training() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let widths = ["--widths", "0.2,0.05,0.1,0.15"];
    let new = |options: &[&str]| post_hoc(&[&widths, options, &["--run"]].concat(), &run);
    let (stdout, _) = succeeds(&mut new(&["--epochs", "3", "--seed", "3"]));
    let files = fs::read_dir(run.join("snapshots")).unwrap();
    let sizes: Vec<_> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
    let size = sizes.iter().sum::<u64>() as f64 / 1e3;
    assert!(size < 90.0 * 12.0, "16 bits for each of 4810 numbers, and a little: {size} kB");
    let line = format!("snapshots: 90 files of {:.1} kB, {size:.0} kB together", size / 90.0);
    assert!(stdout.contains(&line), "{stdout}");
    let rows = table(&stdout);
    let (trained, made) = rows.split_at(3);
    let names: Vec<_> = rows.iter().map(|row| row[0]).collect();
    let power = ["0.2", "0.05", "0.1", "0.15"].map(|width| format!("power(sigma_rel={width})"));
    assert_eq!(names[..3], ["live", &power[1], &power[2]]);
    assert_eq!(names[3..7], power);
    assert_eq!(names[7..], ["ema(0.9753, debias)", "window(99 steps)", "sqrt(99 steps)"]);

    // What was tracked is made again, up to the rounding of its snapshots.
    let number = |text: &str| -> f64 { text.parse().unwrap() };
    for (trained, made) in trained[1..].iter().zip(&made[1..]) {
        assert!(number(made[1]) < 1e-6, "{stdout}");
        assert!((number(trained[2]) / number(made[3]) - 1.0).abs() < 1e-3, "{stdout}");
    }
    assert!(made.iter().all(|row| number(row[1]) < 0.1), "{stdout}");

    // The best is the least, alone is tested, and is what was saved.
    let tested: Vec<_> = made.iter().filter(|row| row.len() > 4).collect();
    let [best] = tested[..] else { panic!("{stdout}") };
    assert_eq!(best[5], "best");
    assert!(made.iter().all(|row| number(row[3]) >= number(best[3])), "{stdout}");
    assert!(stdout.contains(&format!("{} saved in {}", best[0], run.display())), "{stdout}");
    let device = Device::flex();
    let rows = Prepared::new(&data::digits().unwrap(), 3).unwrap();
    let saved = || RunDirectory::open(&run).unwrap().model(&device).unwrap();
    for (rows, column) in [(rows.valid, 3), (rows.test, 4)] {
        let rows = loader(rows, 8, None, &device).unwrap();
        let loss = Scores::of(&saved(), &*rows).unwrap().loss;
        assert_eq!(format!("{loss:.6}"), best[column]);
    }

    // The snapshots alone give the same, and others.
    let again = |widths: &str| post_hoc(&["--widths", widths, "--from"], &run);
    let (from, _) = succeeds(&mut again(widths[1]));
    assert_eq!(table(&from), made);
    let (from, _) = succeeds(&mut again("0.12,0.001"));
    let rows = table(&from);
    assert!(rows[0][0] == "power(sigma_rel=0.12)" && number(rows[0][1]) < 0.01, "{from}");
    assert!(rows[1][1].starts_with("not made: the relative error of the mix"), "{from}");

    let held = RunLock::take(&run).unwrap();
    let message = fails(&mut again("0.1"));
    assert!(message.contains("it is locked by"), "{message}");
    drop(held);
    let (help, _) = succeeds(example("post_hoc").arg("--help"));
    assert!(help.contains("does not go on here: --overwrite starts it anew"), "{help}");

    for width in ["0.3", "0", "-0.1"] {
        let message = misused(&mut again(width));
        let expected = format!("sigma_rel is {width}, expected a number in (0, 1/sqrt(12)]");
        assert!(message.contains(&expected), "{message}");
    }

    // Snapshots of two trainings never meet.
    let stored = || -> Vec<_> {
        let files = fs::read_dir(run.join("snapshots")).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    };
    let message = fails(&mut new(&["--epochs", "1"]));
    assert!(message.contains("holds a run: --from uses its snapshots"), "{message}");
    fails(&mut new(&["--epochs", "0", "--overwrite"]));
    assert_eq!(stored().len(), 90, "a slip costs no run");
    succeeds(&mut new(&["--epochs", "1", "--overwrite"]));
    assert!(stored().iter().all(|name| name.as_str() < "0000000136"), "{:?}", stored());

    stored().iter().for_each(|name| fs::remove_file(run.join("snapshots").join(name)).unwrap());
    let message = fails(&mut again("0.1"));
    assert!(message.contains("run/snapshots holds no snapshots"), "{message}");
}
