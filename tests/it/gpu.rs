//! The measurements on a GPU, on Flex: their page, what is left out of it, and their script.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use serde_json::Value;

use crate::{
    compare::{OTHER, built, python},
    examples::{fails, misused, succeeds},
};

static BENCH: LazyLock<PathBuf> = LazyLock::new(|| built("gpu"));

/// The program on Flex, so small, with another side in the place of PyTorch.
fn gpu(directory: &Path, other: &str, seconds: &str) -> Command {
    let mut command = Command::new(&*BENCH);
    command.env("BURN_DEVICE", "flex").env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command.args(["--rounds", "1", "--seconds", seconds]);
    command.arg("--out").arg(directory).arg("--python").arg(python(directory, other));
    command
}

fn written(directory: &Path) -> (String, Value) {
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    (read("gpu.md"), serde_json::from_str(&read("gpu.json")).unwrap())
}

#[test]
fn the_page_has_all_rows_and_says_what_was_not_measured() {
    let directory = tempfile::tempdir().unwrap();
    succeeds(&mut gpu(directory.path(), OTHER, "300"));
    let (page, json) = written(directory.path());
    assert!(page.contains("| device | flex (CPU) |"), "{page}");
    assert!(page.contains("| PyTorch | of the test on cpu |"), "{page}");
    assert_eq!(json["facts"]["size"], "small: a test of this program, no figures of a GPU");
    assert!(json["facts"]["versions"].as_str().unwrap().starts_with("burn 0."), "{json}");
    // Flex with Flex.
    let checks = json["checks"].as_array().unwrap();
    let same = |check: &Value| check.as_str().unwrap().contains("by 0.0e0 of");
    assert!(checks.len() == 4 && checks.iter().all(same), "{checks:?}");

    let rows: Vec<_> = json["rows"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    let expected = [
        "update-322-tensors-81k",
        "update-100-tensors-2080",
        "step-adam-64-32-10-b32",
        "step-sgd-64-32-10-b32",
    ];
    assert_eq!(rows, expected);
    assert_eq!(json["not_measured_yet"], Value::Array(Vec::new()));

    // A host has nothing to wait for, nothing to copy with, and the other side no compiler.
    let left_out = json["left_out"].as_object().unwrap();
    assert_eq!(left_out.keys().collect::<Vec<_>>(), ["waits"]);
    let compiled = "step-sgd-64-32-10-b32: PyTorch compiled, with AveragedModel";
    assert!(page.contains(&format!("| {compiled} | no compiler |")), "{page}");
    let copy = "| update-100-tensors-2080: a copy of 12 bytes a weight, by wgpu | ";
    assert!(page.contains(copy), "{page}");
}

/// The other side never answers.
#[test]
fn what_does_not_end_in_time_is_left_out() {
    let other =
        "#!/bin/sh\necho '{\"version\": \"of the test\"}'\nwhile read -r request; do :; done\n";
    let directory = tempfile::tempdir().unwrap();
    succeeds(&mut gpu(directory.path(), other, "8"));
    let (page, json) = written(directory.path());
    assert_eq!(json["rows"], Value::Array(Vec::new()));
    let left_out = &json["left_out"];
    assert_eq!(left_out["update-322-tensors-81k"], "it did not end in time", "{page}");
    assert_eq!(left_out["step-sgd-64-32-10-b32"], "no time was left", "{page}");
}

#[test]
fn what_fails_leaves_no_figures_of_an_earlier_run() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("gpu.md");
    fs::write(&page, "of an earlier run").unwrap();
    let message = fails(gpu(directory.path(), OTHER, "300").args(["--device", "tpu"]));
    assert!(message.contains("tpu"), "{message}");
    assert!(!page.exists());
}

#[test]
fn the_script_says_what_to_type() {
    let directory = tempfile::tempdir().unwrap();
    let script = |arguments: &[&str]| {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/gpu.sh"));
        command.env("CARGO_TARGET_DIR", directory.path()).args(arguments);
        command
    };
    let (stdout, _) = succeeds(&mut script(&["--help"]));
    for word in ["build ", "run ", "--features ", "--profile ", "--out ", "--python ", "--small "] {
        assert!(stdout.lines().any(|line| line.trim_start().starts_with(word)), "{stdout}");
    }
    let message = misused(&mut script(&["--frob"]));
    assert_eq!(message, "benches/gpu.sh: unknown: --frob; --help lists the options\n");
    let message = misused(&mut script(&["--rounds"]));
    assert_eq!(message, "benches/gpu.sh: --rounds needs a value; --help lists the options\n");
    let message = misused(&mut script(&["run"]));
    assert!(message.contains("is missing: benches/gpu.sh build makes it"), "{message}");
}
