//! Loaders without a batch, of another size than a commit's, and with a shorter last batch.

use std::{
    fs,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
};

use burn::{
    data::{
        dataloader::{DataLoader, DataLoaderIterator, Progress as Done},
        dataset::DatasetError,
    },
    lr_scheduler::constant::ConstantLr,
    module::Module,
    tensor::{Device, Tensor, TensorData},
    train::{InferenceStep, SupervisedTraining, metric::LossMetric},
};
use burn_ema::{
    AverageConfig, NonFinite, Result, Rule,
    runs::{CommitConfig, Commits, Fit, Progress, ProgressLines, fit},
    train::Averaged,
};

use crate::common::{Net, Plan, Points, adam, assert_close, assert_same, device, flat};

/// Batches of these sizes, of so many items; those that are in no batch are left out.
#[derive(Clone)]
struct Batches {
    sizes: Vec<usize>,
    items: usize,
    /// What every number is multiplied by.
    factor: f32,
    /// The batches end as those of a worker that panicked: some items are missing.
    ends_early: bool,
}

impl Batches {
    fn of(sizes: &[usize]) -> Self {
        Self { sizes: sizes.to_vec(), items: sizes.iter().sum(), factor: 1.0, ends_early: false }
    }

    /// Batches of one size, and a shorter one for the rest.
    fn each(size: usize, items: usize) -> Self {
        let mut sizes = vec![size; items / size];
        sizes.extend(Some(items % size).filter(|rest| *rest > 0));
        Self { sizes, items, factor: 1.0, ends_early: false }
    }

    /// Whole batches alone.
    fn whole(size: usize, items: usize) -> Self {
        Self { sizes: vec![size; items / size], items, factor: 1.0, ends_early: false }
    }

    fn loader(self) -> Arc<dyn DataLoader<Points>> {
        Arc::new(self)
    }
}

impl DataLoader<Points> for Batches {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Points> + 'a> {
        Box::new(Pass { batches: self, next: 0, done: 0 })
    }

    fn num_items(&self) -> usize {
        self.items
    }

    fn to_device(&self, _: &Device) -> Arc<dyn DataLoader<Points>> {
        Arc::new(self.clone())
    }

    fn slice(&self, _: usize, _: usize) -> Arc<dyn DataLoader<Points>> {
        unreachable!("one device")
    }
}

struct Pass<'a> {
    batches: &'a Batches,
    next: usize,
    done: usize,
}

impl Iterator for Pass<'_> {
    type Item = std::result::Result<Points, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(&size) = self.batches.sizes.get(self.next) else {
            if !self.batches.ends_early {
                self.done = self.batches.items;
            }
            return None;
        };
        let numbers = |columns: usize| {
            let number = |i| ((self.done + i) as f32 * 0.7).sin() * self.batches.factor;
            let numbers = (0..size * columns).map(number);
            let data = TensorData::new(numbers.collect::<Vec<_>>(), [size, columns]);
            Tensor::from_data(data, &device())
        };
        let points = Points { x: numbers(2), y: numbers(3) };
        self.next += 1;
        self.done += size;
        Some(Ok(points))
    }
}

impl DataLoaderIterator<Points> for Pass<'_> {
    fn progress(&self) -> Done {
        Done::new(self.done, self.batches.items, None)
    }
}

fn training(
    run: &Path,
    epochs: usize,
    train: Batches,
    valid: Batches,
) -> SupervisedTraining<Averaged<Net>> {
    SupervisedTraining::new(run, train.loader(), valid.loader())
        .num_epochs(epochs)
        .with_application_logger(None)
        .renderer(Box::new(ProgressLines::new(std::io::sink())))
        .metrics((LossMetric::new(),))
}

fn averaged() -> Averaged<Net> {
    let average = AverageConfig::new(Rule::ema(0.9));
    Averaged::new(Net::new(1, &device()), [average]).unwrap()
}

fn plain(training: SupervisedTraining<Averaged<Net>>, model: Averaged<Net>) -> Fit<Averaged<Net>> {
    fit(training, model, adam(), ConstantLr::new(0.02))
}

fn committing(training: SupervisedTraining<Averaged<Net>>, run: &Path) -> Fit<Averaged<Net>> {
    let commits = CommitConfig::new(run).with_every_steps(Some(3)).with_keep_last(99);
    plain(training, averaged()).with_commits(commits).unwrap()
}

fn metrics(run: &Path) -> String {
    fs::read_to_string(run.join("metrics.csv")).unwrap()
}

#[test]
fn a_loader_without_a_batch_is_an_error_that_names_it() {
    let [none, few] = [Batches::of(&[]), Batches::whole(8, 5)];
    let whole = || Batches::each(8, 24);
    let cases = [
        ("the training loader", none.clone(), whole()),
        ("the training loader", few.clone(), whole()),
        ("the validation loader", whole(), none.clone()),
        ("the validation loader", whole(), few.clone()),
        ("the training loader", few, Batches::whole(8, 7)),
    ];
    for (case, (name, train, valid)) in cases.into_iter().enumerate() {
        for keeps in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let run = directory.path();
            let fit = committing(training(run, 2, train.clone(), valid.clone()), run);
            let fit = if keeps { fit.keep_strategy() } else { fit };
            let error = fit.launch().map(drop).unwrap_err().to_string();
            let expected = format!("{name}: expected a batch in epoch 1, found none");
            assert!(error.starts_with(&expected), "case {case}, kept: {keeps}: {error}");
            assert!(
                !Commits::of(run).list().unwrap().iter().any(|place| place.batches == 0),
                "no epoch is committed"
            );
        }
    }

    // An empty validation is found before the first step.
    let directory = tempfile::tempdir().unwrap();
    committing(training(directory.path(), 2, whole(), none), directory.path())
        .launch()
        .map(drop)
        .unwrap_err();
    assert_eq!(metrics(directory.path()).lines().count(), 2, "the header, and who validates");

    // A batch is enough, and a rest that no batch takes is no error.
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path();
    let fit = committing(training(run, 2, Batches::whole(8, 15), Batches::of(&[1])), run);
    fit.launch().unwrap();
    assert_eq!(Commits::of(run).list().unwrap(), [1, 2].map(Progress::after));
}

#[test]
fn a_loader_without_a_batch_is_an_error_without_commits() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path();
    let whole = || Batches::each(8, 24);
    let launch = |train: Batches, model: Averaged<Net>| {
        plain(training(run, 2, train, whole()), model).launch().map(|result| result.model)
    };
    let trained = launch(whole(), averaged()).unwrap();
    assert_eq!(trained.steps(), 6);
    for train in [Batches::of(&[]), Batches::whole(8, 5)] {
        for model in [averaged(), trained.valid().train()] {
            let error = launch(train.clone(), model).map(drop).unwrap_err().to_string();
            assert!(error.starts_with("the training loader: expected a batch"), "{error}");
        }
    }
    // A step that is refused is one that there was a batch for.
    let train = Batches { factor: f32::NAN, ..whole() };
    let model = averaged().with_non_finite(NonFinite::Skip { limit: 99 }).unwrap();
    let model = launch(train, model).unwrap();
    assert_eq!((model.steps(), model.refused_steps().count), (0, 6));
    // A training that is over when it goes on.
    let checkpoints = Plan { checkpoints: true, ..Plan::new(run) };
    plain(checkpoints.training(), averaged()).launch().unwrap();
    let over = Plan { resume: Some(2), ..checkpoints };
    assert_eq!(plain(over.training(), averaged()).launch().unwrap().model.steps(), 16);
}

#[test]
fn a_training_that_is_stopped_before_a_batch_is_no_error() {
    for keeps in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        let training = training(run, 2, Batches::each(8, 24), Batches::each(8, 24));
        training.interrupter().stop(None);
        let fit = committing(training, run);
        let fit = if keeps { fit.keep_strategy() } else { fit };
        assert!(fit.launch().unwrap().interrupted.is_some());
    }
}

/// Eight batches of 8 are an epoch; commits come after 3 and 6 of them, and at its end.
#[test]
fn a_resume_within_an_epoch_has_the_loader_of_its_commit() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path();
    let resume = |train: Batches, batches: usize| -> Result<Averaged<Net>> {
        let training = training(run, 2, train, Batches::each(8, 24));
        let place = Progress { epochs: 0, batches };
        Ok(committing(training, run).resume_from(place)?.launch()?.model)
    };
    let first = training(run, 1, Batches::each(8, 64), Batches::each(8, 24));
    committing(first, run).launch().unwrap();
    let was = "64 items in batches of 8, as in the commit within epoch 1";
    for (train, found) in [
        (Batches::each(8, 72), "72 items"),
        (Batches::each(8, 56), "56 items"),
        (Batches::each(4, 64), "64 items in batches of 4"),
        (Batches::each(16, 64), "64 items in batches of 16"),
        (Batches::each(64, 64), "64 items in batches of 64"),
        (Batches::each(7, 64), "64 items in batches of 7"),
    ] {
        let error = resume(train, 6).map(drop).unwrap_err().to_string();
        assert_eq!(error, format!("the training loader: expected {was}, found {found}"));
    }
    let places = |commits: &[usize]| {
        commits.iter().map(|batches| Progress { epochs: 0, batches: *batches }).collect::<Vec<_>>()
    };
    assert_eq!(Commits::of(run).list().unwrap(), places(&[3, 6]), "the later one is aside");
    // The commit has all batches that there are now, but not all items.
    let broken = Batches { sizes: vec![8; 6], ends_early: true, ..Batches::each(8, 64) };
    let error = format!("{:#}", anyhow::Error::new(resume(broken, 6).map(drop).unwrap_err()));
    let early = "training of epoch 1: expected all batches of the loader, found 48 of 64 items";
    assert!(error.ends_with(early), "{error}");
    // As it was, it goes on; at the end of an epoch, another loader is another program's matter.
    assert_eq!(resume(Batches::each(8, 64), 6).unwrap().steps(), 16);
    let longer = training(run, 3, Batches::each(4, 60), Batches::each(8, 24));
    let model = committing(longer, run).resume().unwrap().launch().unwrap().model;
    assert_eq!(model.steps(), 16 + 15);
}

/// Eight batches are an epoch; with two a step, the commit after three steps is after six of them.
#[test]
fn a_resume_within_an_epoch_has_the_accumulation_of_its_commit() {
    let accumulating = |run: &Path, epochs: usize, batches: Option<usize>| {
        let training = training(run, epochs, Batches::each(8, 64), Batches::each(8, 24));
        match batches {
            Some(batches) => training.grads_accumulation(batches),
            None => training,
        }
    };
    let place = Progress { epochs: 0, batches: 6 };
    for (was, same, others) in [
        (Some(2), Some(2), &[None, Some(1), Some(3), Some(4)][..]),
        (None, Some(1), &[Some(2), Some(8)]),
        (Some(1), None, &[Some(2)]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        let undisturbed = committing(accumulating(run, 2, was), run).launch().unwrap().model;
        let resume = |batches| {
            committing(accumulating(run, 2, batches), run).resume_from(place).unwrap().launch()
        };
        for other in others {
            let error = resume(*other).map(drop).unwrap_err().to_string();
            let (was, other) = (was.unwrap_or(1), other.unwrap_or(1));
            let expected = format!("expected {was}, as in the commit within epoch 1");
            assert_eq!(error, format!("grads_accumulation: {expected}, found {other}"));
        }
        let model = resume(same).unwrap().model;
        assert_eq!(model.steps(), undisturbed.steps());
        assert_same(&flat(&model, true), &flat(&undisturbed, true));
        // At the end of an epoch, a step may begin to have other batches.
        let more = committing(accumulating(run, 3, Some(4)), run).resume().unwrap();
        assert_eq!(more.launch().unwrap().model.steps(), undisturbed.steps() + 2);
    }
}

/// A loader that leaves a rest out may count it at its end alone, so that no batch is known to be
/// the last one.
#[test]
fn the_gradients_of_a_last_window_that_is_not_full_make_a_step() {
    let trained = |train: Batches| {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        let training = training(run, 2, train, Batches::each(8, 24)).grads_accumulation(2);
        committing(training, run).launch().unwrap().model
    };
    let [counted, left_out] = [Batches::each(8, 40), Batches::whole(8, 47)].map(trained);
    assert_eq!((counted.steps(), left_out.steps()), (6, 6));
    assert_same(&flat(&left_out, true), &flat(&counted, true));

    // From each commit, those within an epoch too.
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path();
    let committing = || {
        let (train, valid) = (Batches::whole(8, 47), Batches::each(8, 24));
        let training = training(run, 2, train, valid).grads_accumulation(2);
        let commits = CommitConfig::new(run).with_every_steps(Some(1)).with_keep_last(99);
        plain(training, averaged()).with_commits(commits).unwrap()
    };
    committing().launch().unwrap();
    let places = Commits::of(run).list().unwrap();
    assert!(places.iter().any(|place| place.batches == 4) && places.len() > 4, "{places:?}");
    for place in places {
        let resumed = committing().resume_from(place).unwrap().launch().unwrap().model;
        assert_eq!(resumed.steps(), 6, "{place:?}");
        assert_same(&flat(&resumed, true), &flat(&counted, true));
    }
}

/// A writer whose text can be read.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The value and the weight of each line of a split and an epoch, and the value of the epoch.
fn losses(metrics: &str, split: &str, epoch: usize) -> (Vec<(f64, usize)>, f64) {
    let start = format!("{split},{epoch},Loss,");
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(&start)?.split_once(','));
    let mut lines: Vec<_> = lines.collect();
    let (end, kind) = lines.pop().unwrap();
    assert_eq!(kind, "epoch");
    let lines =
        lines.into_iter().map(|(value, count)| (value.parse().unwrap(), count.parse().unwrap()));
    (lines.collect(), end.parse().unwrap())
}

/// The losses of the network are one number a batch.
#[test]
fn a_scalar_loss_weighs_a_batch_by_its_rows() {
    for sizes in [&[8, 8, 8, 1][..], &[3, 5], &[16, 4, 4, 4], &[7], &[1, 1, 30]] {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        let lines = Lines::default();
        // A batch norm needs two rows to learn from.
        let trained: Vec<_> = sizes.iter().map(|size| *size.max(&2)).collect();
        let training = training(run, 2, Batches::of(&trained), Batches::of(sizes))
            .renderer(Box::new(ProgressLines::new(lines.clone())));
        let model = committing(training, run).launch().unwrap().model;
        let metrics = metrics(run);
        for (split, epoch) in [("train", 1), ("train", 2), ("valid", 1), ("valid", 2)] {
            let (batches, end) = losses(&metrics, split, epoch);
            let counts: Vec<_> = batches.iter().map(|(_, count)| *count).collect();
            assert_eq!(counts, if split == "train" { &trained } else { sizes });
            let rows: usize = counts.iter().sum();
            let sum: f64 = batches.iter().map(|(value, count)| value * *count as f64).sum();
            assert_close(&[end], &[sum / rows as f64], 1e-15);
        }
        // The mean over all rows is that of one batch of them.
        let (_, end) = losses(&metrics, "valid", 2);
        let all: Vec<_> = Batches::of(sizes).loader().iter().map(|batch| batch.unwrap()).collect();
        let column = |of: fn(&Points) -> &Tensor<2>| {
            Tensor::cat(all.iter().map(|points| of(points).clone()).collect(), 0)
        };
        let all = Points { x: column(|points| &points.x), y: column(|points| &points.y) };
        let average = model.average(0).unwrap().valid();
        let expected = InferenceStep::step(&average, all).loss.into_scalar::<f64>();
        assert_close(&[end], &[expected], 1e-6);
        let commit = Commits::of(run).newest().unwrap().commit.unwrap();
        assert_eq!(commit.value("Loss"), Some(end));
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let shown = format!("  Loss {end:.5}  ");
        assert!(lines.lines().last().unwrap().contains(&shown), "{shown} in {lines}");
    }
}

/// The sums of half an epoch are in its commit.
#[test]
fn a_resumed_epoch_weighs_its_batches_as_a_whole_one() {
    let sizes = [8, 8, 8, 8, 8, 8, 2];
    let launch = |run: &Path, from: Option<Progress>| {
        let training = training(run, 2, Batches::of(&sizes), Batches::of(&[8, 3]));
        let fit = committing(training, run);
        let fit = match from {
            Some(place) => fit.resume_from(place).unwrap(),
            None => fit,
        };
        fit.launch().unwrap();
        metrics(run)
    };
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path();
    let whole = launch(run, None);
    for (epochs, batches) in [(1, 6), (1, 3), (1, 0), (0, 6), (0, 3)] {
        assert_eq!(launch(run, Some(Progress { epochs, batches })), whole, "{epochs}, {batches}");
    }
}
