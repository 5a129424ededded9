//! Resumes of every kind, panics, settings.

use burn_ema::runs::{Commits, Progress};

use super::{
    rows,
    workload::{Backend, Plan, Site, scratch},
};
use crate::next::NEXT;

#[test]
fn from_every_commit() {
    let mut cases = 0;
    for &backend in Backend::ALL {
        let scratch = scratch();
        let run = scratch.path().join("a");
        let plan = Plan { every_steps: Some(1), keep_last: 1000, backend, ..Plan::new(run) };
        let golden = plan.golden();
        let places = plan.commits();
        // 8 batches an epoch; the last of an epoch is the epoch's own.
        assert_eq!(places.len(), 6 * 8);
        // What goes on is the same on each backend, but for what it computes.
        let every = if backend == Backend::Flex { 1 } else { 7 };
        for (index, place) in places.iter().enumerate().step_by(every) {
            let other = Plan { run: scratch.path().join(index.to_string()), ..plan.clone() };
            plan.copy_until(&other.run, *place);
            assert_eq!(other.resumed(), golden, "from {place} on {backend:?}");
            cases += 1;
        }
    }
    rows::ran(24, cases);
}

#[test]
fn the_same_run_in_fresh_processes() {
    let scratch = scratch();
    let mut cases = 0;
    for &backend in Backend::ALL {
        let plan = |run: &str| {
            let run = scratch.path().join(format!("{backend:?}-{run}"));
            Plan { backend, ..Plan::new(run) }
        };
        let golden = plan("a").golden();
        for repeat in 0..10 {
            assert_eq!(plan(&repeat.to_string()).golden(), golden, "{backend:?}");
            cases += 1;
        }
        assert_ne!(Plan { seed: 2, ..plan("b") }.golden(), golden);
    }
    rows::ran(28, cases);
}

#[test]
fn a_run_that_stopped_early_stays_stopped() {
    let scratch = scratch();
    let stopping = |run: &str| Plan {
        epochs: 30,
        lr: 0.5,
        patience: Some(2),
        every_steps: Some(5),
        keep_last: 1000,
        ..Plan::new(scratch.path().join(run))
    };
    let plan = stopping("a");
    let golden = plan.golden();
    let places = plan.commits();
    let last = *places.last().unwrap();
    assert!(last.epochs < 30 && last.batches == 0, "it stopped early: {last}");
    // The newest commits, and what decides the stop came before them.
    let late = places.iter().filter(|place| place.epochs + 3 >= last.epochs);
    for (index, place) in late.enumerate() {
        let other = stopping(&index.to_string());
        plan.copy_until(&other.run, *place);
        assert_eq!(other.resumed(), golden, "from {place}");
    }
    assert_eq!(plan.commits(), places);
}

#[test]
fn what_is_done_is_not_done_again() {
    let scratch = scratch();
    let plan = Plan::new(scratch.path().join("a"));
    // From nothing, a resume is a beginning.
    let first = Plan { resume: true, ..plan.clone() }.run();
    assert_eq!(first.line_after("RESUMED"), "no commit yet: starting from the beginning");
    let golden = first.digest();
    assert_eq!(Plan::new(scratch.path().join("b")).golden(), golden);
    let files = |plan: &Plan| {
        let places = plan.commits();
        let opened = places.iter().map(|place| Commits::of(&plan.run).open(*place).unwrap());
        opened.map(|commit| commit.manifest().clone()).collect::<Vec<_>>()
    };
    let before = files(&plan);
    for _ in 0..2 {
        let again = Plan { resume: true, ..plan.clone() }.run();
        assert_eq!(again.line_after("RESUMED"), "resuming after epoch 6, step 48");
        assert_eq!(again.digest(), golden);
        assert_eq!(files(&plan), before);
    }
    // And a beginning is not made over what is there.
    let error = plan.run().error();
    assert!(error.contains("expected a new one, or one to resume"), "{error}");
    assert_eq!(files(&plan), before);
    rows::ran(24, 4);
}

#[test]
fn a_resume_with_other_settings() {
    let scratch = scratch();
    let plan = Plan { epochs: 3, ..Plan::new(scratch.path().join("a")) };
    plan.golden();
    let six = Plan::new(scratch.path().join("six")).golden();
    let mut cases = 0;
    let mut other = |change: fn(&mut Plan)| {
        let mut other =
            Plan { run: scratch.path().join(format!("{cases}")), resume: true, ..plan.clone() };
        plan.copy_until(&other.run, Progress::after(3));
        change(&mut other);
        cases += 1;
        other.run()
    };
    // What may change, and makes no difference.
    assert_eq!(other(|plan| plan.epochs = 6).digest(), six);
    assert_eq!(other(|plan| (plan.epochs, plan.every_steps) = (6, None)).digest(), six);
    assert_eq!(other(|plan| (plan.epochs, plan.keep_last) = (6, 1)).digest(), six);
    // What may not.
    type Change = fn(&mut Plan);
    let refused: [(Change, &str); 6] = [
        (|plan| plan.epochs = 2, "config.epochs: expected 3 or more, as in the run, found 2"),
        (|plan| plan.lr = 0.06, "config.lr: expected 0.05, as in the run, found 0.06"),
        (|plan| plan.batch_size = 4, "config.batch_size: expected 8, as in the run, found 4"),
        (|plan| plan.hidden = 9, "config.hidden: expected 8, as in the run, found 9"),
        (|plan| plan.workers = 1, "config.workers: expected 0, as in the run, found 1"),
        (|plan| plan.seed = 2, "the seed: expected 1, as in the run, found 2"),
    ];
    for (change, message) in refused {
        let error = other(change).error();
        assert!(error.ends_with(&format!("epoch-0003/MANIFEST.json: {message}")), "{error}");
    }
    rows::ran(23, cases);
}

#[test]
fn one_worker_loads_as_if_undisturbed() {
    let scratch = scratch();
    let plan =
        |run: &str| Plan { workers: 1, keep_last: 1000, ..Plan::new(scratch.path().join(run)) };
    let golden = plan("a").golden();
    assert_eq!(plan("b").golden(), golden);
    for (index, place) in plan("a").commits().into_iter().enumerate() {
        let other = plan(&index.to_string());
        plan("a").copy_until(&other.run, place);
        assert_eq!(other.resumed(), golden, "from {place}");
    }
}

#[test]
fn panics() {
    let scratch = scratch();
    let of_worker = if NEXT { "workers disconnected before completing" } else { "of 64 items" };
    let cases = [
        (Site::Step, 0, 20, "the training ended in a panic: struck in Step"),
        (Site::Batcher, 0, 20, "the training ended in a panic: struck in Batcher"),
        (Site::Dataset, 0, 150, "the training ended in a panic: struck in Dataset"),
        (Site::Metric, 0, 4, "the training ended in a panic: struck in Metric"),
        // A worker of the loader ends its thread alone.
        (Site::Batcher, 1, 14, of_worker),
        (Site::Dataset, 1, 120, of_worker),
    ];
    let golden = [0, 1].map(|workers| {
        let run = scratch.path().join(format!("golden-{workers}"));
        Plan { workers, ..Plan::new(run) }.golden()
    });
    for (index, (site, workers, calls, message)) in cases.into_iter().enumerate() {
        let plan = Plan { workers, ..Plan::new(scratch.path().join(index.to_string())) };
        let ended = Plan { fault: Some((site, calls)), ..plan.clone() }.run();
        let error = ended.error();
        assert!(error.contains(message), "{site:?}, {workers} workers: {error}");
        assert!(!plan.commits().is_empty());
        assert_eq!(plan.resumed(), golden[workers], "{site:?}, {workers} workers");
    }
    rows::ran(18, cases.len());
}
