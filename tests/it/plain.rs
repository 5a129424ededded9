//! A plain Burn model, without any average, in a run that is killed.

use std::{
    collections::BTreeMap, fs, os::unix::process::ExitStatusExt as _, path::Path, process::Stdio,
    thread, time::Duration,
};

use burn::tensor::Bytes;
use burn_ema::runs::{Commit, Commits};
use burn_pack::Reader;

use crate::examples::{example, succeeds};

fn newest(run: &Path) -> Option<Commit> {
    Commits::of(run).newest().unwrap().commit
}

/// The tensors and numbers of a file of a commit, by path in the place of ids, which are drawn.
fn entries(commit: &Commit, file: &str) -> BTreeMap<String, (String, Bytes)> {
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(commit.read(file).unwrap())).unwrap();
    let paths = reader.metadata().clone();
    let named = |name: &str| {
        let (id, rest) = name.split_once('.').unwrap_or((name, ""));
        paths.get(id).map_or(name.to_owned(), |path| format!("{path}: {rest}"))
    };
    let numbers = reader.scalars().iter();
    let numbers: Vec<_> =
        numbers.map(|(name, number)| (named(name), format!("{number:?}"))).collect();
    let numbers = numbers.into_iter();
    let tensors = reader.into_tensors().unwrap().into_iter().map(|tensor| {
        let what = format!("{} {:?}", tensor.dtype.name(), tensor.shape);
        (named(&tensor.name), (what, tensor.to_bytes().unwrap()))
    });
    let none = || Bytes::from_bytes_vec(Vec::new());
    tensors.chain(numbers.map(|(name, number)| (name, (number, none())))).collect()
}

#[test]
fn killed_again_and_again_it_ends_bit_for_bit_as_undisturbed() {
    let directory = tempfile::tempdir().unwrap();
    let [whole, run] = ["whole", "killed"].map(|name| directory.path().join(name));
    succeeds(example("plain_run").arg(&whole));

    for kills in 0..10 {
        let steps = || newest(&run).map_or(0, |commit| commit.manifest().steps);
        let before = steps();
        let mut command = example("plain_run");
        command.arg(&run).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        while steps() < before + 30 {
            assert!(child.try_wait().unwrap().is_none(), "it ended at step {}", steps());
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(3 * kills));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "it ended at step {}", steps());
    }
    let (_, lines) = succeeds(example("plain_run").arg(&run));
    assert!(lines.contains("epoch 8/8"), "{lines}");

    let [whole_end, end] = [&whole, &run].map(|run| newest(run).unwrap());
    assert_eq!(end.manifest().steps, 8 * 111);
    assert_eq!(end.progress(), whole_end.progress());
    for file in ["model.bpk", "optimizer.bpk", "scheduler.bpk"] {
        assert_eq!(entries(&end, file), entries(&whole_end, file), "{file}");
    }
    let [whole, run] =
        [&whole, &run].map(|run| fs::read_to_string(run.join("metrics.csv")).unwrap());
    assert_eq!(run, whole);
}
