//! An epoch of the digits, loader and metrics included, against the bare steps in it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context, Result};
use burn::{
    lr_scheduler::constant::ConstantLr,
    module::Module,
    tensor::Device,
    train::{
        EarlyStoppingStrategy, InferenceStep, Learner, SupervisedTraining,
        metric::{AccuracyMetric, LossMetric, store::EventStoreClient},
    },
};
use burn_ema::{
    model::{Batch, Mlp, MlpConfig},
    runs::{ProgressLines, fit},
    train::Averaged,
};
use burn_ema_lab::{
    data::{Prepared, Sample, digits, loader},
    run::OptimizerKind,
};

use crate::{
    contest::{Claim, Contest, Contestant},
    figures::{Bar, Unit},
    workload::{average, device, rate},
};

/// As in `examples/train.rs`.
const SIZES: [usize; 3] = [64, 64, 10];
const BATCH: usize = 8;

/// The digits in batches, and the same network to learn and to validate on them.
pub fn digits_epoch(name: &str) -> Result<Contest> {
    let data = Prepared::new(&digits()?, 1)?;
    Ok(Contest {
        name: name.to_owned(),
        unit: Unit::Nanoseconds,
        contestants: vec![
            whole("epoch by Burn's Learner, with loaders and metrics", &data),
            bare("its steps and answers alone", &data)?,
        ],
        claims: vec![Claim::ratio("time, of the bare steps", Bar::AtMost(1.3), [0, 1])],
    })
}

fn model() -> Result<Averaged<Mlp>> {
    let live = MlpConfig::new(SIZES.to_vec()).init(&device())?;
    let model = Averaged::new(live, [average()])?;
    Ok(model.with_loss_guard().with_samples(|batch| batch.inputs.dims()[0] as u64))
}

/// Epochs as the example trains them, but without commits.
fn whole(name: &str, data: &Prepared) -> Contestant {
    let Prepared { train, valid, .. } = data.clone();
    Contestant::new(name, move |epochs| {
        let directory = tempfile::tempdir()?;
        let load = |rows: &[Sample], shuffle| loader(rows.to_vec(), BATCH, shuffle, &device());
        let (train, valid) = (load(&train, Some(1))?, load(&valid, None)?);
        let model = model()?;
        let ends = Ends::default();
        let training = SupervisedTraining::new(directory.path(), train, valid)
            .num_epochs(epochs + 1)
            .metrics((LossMetric::new(), AccuracyMetric::new()))
            .metric_valid_numeric(model.live_metric(LossMetric::new()))
            .metric_valid_numeric(model.live_metric(AccuracyMetric::new()))
            .early_stopping(ends.clone())
            .renderer(Box::new(ProgressLines::new(std::io::sink())));
        let optimizer = OptimizerKind::Adam;
        let lr = ConstantLr::new(rate(optimizer));
        fit(training, model, optimizer.init(), lr).launch()?;
        ends.of(epochs).context("a training of another number of epochs")
    })
}

/// When epochs ended.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<Instant>>>);

impl Ends {
    /// What so many epochs after the first took, in nanoseconds.
    fn of(&self, epochs: usize) -> Option<f64> {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = (ends.first()?, ends.get(epochs)?);
        Some((*last - *first).as_secs_f64() * 1e9)
    }
}

impl EarlyStoppingStrategy for Ends {
    /// Burn asks at the end of each epoch.
    fn should_stop(&mut self, _epoch: usize, _store: &EventStoreClient) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        false
    }
}

/// The same steps on batches that are there already, then the same answers: of the average and of
/// live.
fn bare(name: &str, data: &Prepared) -> Result<Contestant> {
    let batches = |rows: &[Sample], device: &Device| -> Result<Vec<Batch>> {
        let loader = loader(rows.to_vec(), BATCH, None, device)?;
        Ok(loader.iter().collect::<Result<_, _>>()?)
    };
    let train = batches(&data.train, &device())?;
    let valid = batches(&data.valid, &device().inner())?;
    let optimizer = OptimizerKind::Adam;
    let lr = ConstantLr::new(rate(optimizer));
    let mut learner = Learner::new(model()?.train(), optimizer.init(), lr);
    Ok(Contestant::timed(name, move || {
        for batch in &train {
            let gradients = learner.train_step(batch.clone()).grads;
            learner.lr_step();
            learner.optimizer_step(gradients);
        }
        let averaged = learner.model().valid();
        let live = averaged.live().valid();
        for batch in &valid {
            InferenceStep::step(&averaged, batch.clone());
            InferenceStep::step(&live, batch.clone());
        }
        Ok(())
    }))
}
