//! Commits of runs and snapshots as files of a merge.

use burn::{lr_scheduler::constant::ConstantLr, tensor::FloatDType, train::metric::LossMetric};
use burn_ema::{
    AverageConfig,
    average::Snapshots,
    runs::{Commit, CommitConfig, Commits, LastCommits, Progress, fit},
    train::{Averaged, AveragedCommit as _},
};

use super::*;
use crate::common::{Plan, adam};

/// Trains four epochs of 8 steps with commits.
fn trained(directory: &Path, commits: impl FnOnce(CommitConfig) -> CommitConfig) -> Commits {
    let plan = Plan { epochs: 4, ..Plan::new(&directory.join("run")) };
    let model = Averaged::new(Net::new(1, &device()), [AverageConfig::new(Rule::ema(0.9))]);
    let training = plan.training().metrics((LossMetric::new(),));
    let commits = commits(CommitConfig::new(&plan.directory).without_best());
    let fit = fit(training, model.unwrap(), adam(), ConstantLr::new(0.02));
    fit.with_commits(commits).unwrap().launch().unwrap();
    Commits::of(&plan.directory)
}

fn files_of(commits: &[Commit]) -> Vec<PathBuf> {
    commits.iter().map(|commit| commit.path().join("model.bpk")).collect()
}

/// Live, and the averages, at the last commits of a run.
#[test]
fn commits_are_files_of_a_merge() {
    let directory = tempfile::tempdir().unwrap();
    let commits = trained(directory.path(), |commits| commits.with_keep_last(9));
    let LastCommits { commits, passed_over, .. } = commits.last(3).unwrap();
    assert!(passed_over.is_empty());
    let places: Vec<_> = commits.iter().map(Commit::progress).collect();
    assert_eq!(places, [2, 3, 4].map(Progress::after));
    let fresh = Net::new(9, &device());
    let mean = |each: Vec<Net>| {
        let each: Vec<_> = each.iter().map(|net| flat(net, true)).collect();
        weighted(&each, &[1.0 / 3.0; 3])
    };
    // Clones of one net would share their statistics.
    let other = || Net::new(8, &device());
    let live = commits.iter().map(|commit| commit.live(other()).unwrap()).collect();
    let average = commits.iter().map(|commit| commit.average(other()).unwrap()).collect();
    for (prefix, expected) in [("live", mean(live)), ("averages.ema(0.9).weights", mean(average))] {
        let options = LoadOptions::new().with_prefix(prefix);
        let found = Merge::new(files_of(&commits)).with_options(options).load(&fresh).unwrap();
        assert_close(&flat(&found.module, true), &expected, 1e-6);
        let digests: Vec<_> = found.description.files.into_iter().map(|it| it.sha256).collect();
        let of_manifests = commits.iter().map(|it| it.manifest().files["model.bpk"].sha256.clone());
        assert_eq!(digests, of_manifests.collect::<Vec<_>>());
    }
    // Without a prefix, the error names those that fit.
    let text = why(Merge::new(files_of(&commits)).load(&fresh));
    assert!(
        text.contains("all of it fits with the option prefix `averages.ema(0.9).weights`"),
        "{text}"
    );
}

/// The first commit at or after each multiple of so many steps, beside the newest.
#[test]
fn a_run_keeps_commits_at_even_distances() {
    let directory = tempfile::tempdir().unwrap();
    let commits = trained(directory.path(), |commits| {
        commits.with_every_steps(Some(2)).with_keep_last(1).with_keep_every_steps(Some(10))
    });
    // Commits are at the steps 2, 4, 6, 8, 10 and so on; 32 is the last.
    let steps = |commits: &Commits| -> Vec<_> {
        let LastCommits { commits, passed_over, .. } = commits.last(usize::MAX).unwrap();
        assert!(passed_over.is_empty(), "{passed_over:?}");
        commits.iter().map(|commit| commit.manifest().steps).collect()
    };
    assert_eq!(steps(&commits), [10, 20, 30, 32]);

    // A damaged one is passed over, by the merge's way to its files too.
    let damaged = Progress { epochs: 3, batches: 6 };
    let LastCommits { commits: all, .. } = commits.last(2).unwrap();
    assert_eq!(all[0].progress(), damaged);
    let file = all[0].path().join("model.bpk");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let LastCommits { commits: whole, passed_over, .. } = commits.last(2).unwrap();
    let places: Vec<_> = whole.iter().map(Commit::progress).collect();
    assert_eq!(places, [Progress { epochs: 2, batches: 4 }, Progress::after(4)]);
    assert_eq!(passed_over.len(), 1);
    let text = passed_over[0].to_string();
    assert!(text.ends_with("epoch-0003-batch-000006/model.bpk"), "{text}");
}

/// Snapshots in 16 bits are widened without loss.
#[test]
fn snapshots_are_files_of_a_merge() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::create(directory.path().join("snapshots"), FloatDType::F16).unwrap();
    let numbers = drawn(3, 5, 7);
    let module = |index: usize| Weights::new(&numbers[index], DType::F32, &device());
    let mut average = AverageConfig::new(Rule::power_function(0.1)).init(&module(0)).unwrap();
    let mut paths = Vec::new();
    for step in 1..=3 {
        average.update(&module(step - 1), step as u64).unwrap();
        paths.push(snapshots.store(&average).unwrap());
    }
    let options = LoadOptions::new().with_cast(true);
    let found = Merge::new(&paths).with_options(options.clone()).load(&module(0)).unwrap().module;
    let each: Vec<_> = paths
        .iter()
        .map(|path| flat(&export::load_with(module(0), path, &options).unwrap(), true))
        .collect();
    assert_close(&flat(&found, true), &weighted(&each, &[1.0 / 3.0; 3]), 1e-7);
    let text = why(Merge::new(&paths).load(&module(0)));
    assert!(text.contains("which the option cast widens without loss"), "{text}");
}
