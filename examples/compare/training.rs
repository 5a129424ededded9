//! One run: a training with its averages, judged by the splits that it did not learn from.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::{
    data::dataloader::DataLoader,
    module::Module,
    tensor::{Device, FloatDType},
    train::TrainStep,
};
use burn_ema::{
    AverageConfig, Rule,
    average::{
        Snapshots,
        post_hoc::{Solve, Target},
        update_all,
    },
    model::{Activation, Batch, Mlp, MlpConfig},
};
use burn_ema_lab::{
    data::{Prepared, Task, loader},
    report::Scores,
};

use crate::{
    data,
    results::{EARLY, Judged, LIVE, Line},
    setting::{self, HIDDEN, OPTIMIZER, Run, TIMES, TRACKED, WIDTHS},
};

/// Trains as the example `train` does, from the same weights and in the same order.
pub fn train(run: &Run, device: &Device) -> Result<Line> {
    let began = Instant::now();
    let Run { setting, seed, data_sha256, .. } = run;
    let table = setting.source.read()?;
    ensure!(table.sha256() == *data_sha256, "{} has changed", table.path().display());
    let mut rows = Prepared::new(&table, *seed)?;
    if let Some(count) = setting.train_rows {
        data::thin(&mut rows.train, count, *seed);
    }
    data::mislabel(&mut rows.train, setting.wrong_labels, *seed);
    let train_rows = rows.train.len();
    let steps = setting.epochs * train_rows.div_ceil(setting.batch_size);
    let load = |rows, shuffle| loader(rows, setting.batch_size, shuffle, device);
    let (valid, test) = (load(rows.valid, None)?, load(rows.test, None)?);
    let training = device.clone().autodiff();
    let train = load(rows.train, Some(*seed))?.to_device(&training);

    device.seed(*seed);
    let output = match rows.preparation.task() {
        Task::Classification { .. } => Activation::Sigmoid,
        Task::Regression { .. } => Activation::Identity,
    };
    let sizes = vec![rows.preparation.inputs(), HIDDEN, rows.preparation.outputs()];
    let network = MlpConfig::new(sizes).with_output(output);
    let mut live = network.init(&training)?;
    let mut optimizer = OPTIMIZER.init();
    let (names, configs): (Vec<_>, Vec<_>) = setting::averages(steps).into_iter().unzip();
    let tracked = TRACKED.map(|width| {
        // The rule may be among the averages already; its snapshots have a name of their own.
        AverageConfig::new(Rule::power_function(width)).with_name(Some(format!("stored-{width}")))
    });
    let configs = configs.iter().chain(&tracked);
    let mut averages = configs.map(|config| config.init(&live)).collect::<Result<Vec<_>, _>>()?;
    let directory = tempfile::tempdir().context("a directory for snapshots")?;
    let snapshots = Snapshots::create(directory.path().join("snapshots"), FloatDType::F32)?;

    let mut early: Option<(usize, f64, Mlp)> = None;
    let mut step = 0;
    for epoch in 1..=setting.epochs {
        for batch in train.iter() {
            let gradients = TrainStep::step(&live, batch?).grads;
            live = optimizer.step(setting.lr, live, gradients);
            step += 1;
            update_all(&mut averages, &live, step as u64, None).context("the training diverged")?;
            if step * TIMES / steps > (step - 1) * TIMES / steps {
                for average in &averages[names.len()..] {
                    snapshots.store(average)?;
                }
            }
        }
        let loss = Scores::of(&live.valid(), &*valid)?.loss;
        if early.as_ref().is_none_or(|(_, least, _)| loss < *least) {
            early = Some((epoch, loss, live.valid()));
        }
    }

    let (live, splits) = (live.valid(), [&*valid, &*test]);
    let mut judged = vec![judge(LIVE, format!("epoch {}", setting.epochs), &live, splits)?];
    if let Some((epoch, _, best)) = early {
        judged.push(judge(EARLY, format!("epoch {epoch}"), &best, splits)?);
    }
    for (name, average) in names.iter().zip(&averages) {
        judged.push(judge(name, average.rule().to_string(), &average.module(), splits)?);
    }
    let targets = WIDTHS.map(|sigma_rel| Target::PowerFunction { sigma_rel });
    let loss = |mlp: &Mlp| anyhow::Ok(Scores::of(mlp, &*valid)?.loss);
    let grid = snapshots.evaluate(&live, &targets, None, Solve::Published, loss)?;
    let best = grid.tried[grid.best].target.to_string();
    judged.push(judge("post-hoc, best width", best, &grid.module, splits)?);
    Ok(Line {
        key: run.key()?,
        setting: setting.name.clone(),
        seed: *seed,
        train_rows,
        steps,
        judged,
        seconds: began.elapsed().as_secs_f64(),
    })
}

fn judge(
    name: &str,
    detail: String,
    mlp: &Mlp,
    [valid, test]: [&dyn DataLoader<Batch>; 2],
) -> Result<Judged> {
    let (valid, test) = (Scores::of(mlp, valid)?, Scores::of(mlp, test)?);
    let finite = valid.loss.is_finite() && test.loss.is_finite();
    ensure!(finite, "the training diverged: {name} has a loss that is no number");
    Ok(Judged {
        name: name.to_owned(),
        detail,
        valid_loss: valid.loss,
        test_loss: test.loss,
        test_accuracy: test.accuracy,
    })
}
