//! A training of matrices so large that threads share them: their number decides no bit.

use std::{env, path::PathBuf, process::Command};

use burn::{
    lr_scheduler::constant::ConstantLr,
    module::Module,
    nn::{Dropout, DropoutConfig, Linear, LinearConfig},
    tensor::activation,
    train::{InferenceStep, SupervisedTraining, TrainOutput, TrainStep, metric::LossMetric},
};
use burn_ema::{
    AverageConfig, Result, Rule,
    fast::AdamWConfig,
    model::{Answers, Batch, Mlp, MlpConfig},
    runs::{CommitConfig, Progress, ProgressLines, fit},
    train::Averaged,
};
use burn_ema_lab::data::{Sample, loader};
use serde::{Deserialize, Serialize};

use super::{
    rows,
    workload::{Backend, Ended, chain, copy_commits, digest, scratch},
};

const ROWS: usize = 64;
const INPUTS: usize = 128;
const WIDTH: usize = 1024;

/// Products that Flex spreads over threads, then those that our layers cut into pieces; more
/// weights than those from which on our optimizer and the averages use threads.
#[derive(Module, Debug)]
struct Wide {
    first: Linear,
    dropout: Dropout,
    rest: Mlp,
}

impl Wide {
    fn answer(&self, Batch { inputs, targets }: Batch) -> Answers {
        let hidden = self.dropout.forward(activation::sigmoid(self.first.forward(inputs)));
        let outputs = self.rest.forward(hidden);
        let errors = outputs.clone() - targets.clone();
        let loss = (errors.clone() * errors).sum_dim(1).squeeze_dim::<1>(1) / 2.0;
        Answers { loss, outputs, targets }
    }
}

impl TrainStep for Wide {
    type Input = Batch;
    type Output = Answers;

    fn step(&self, batch: Batch) -> TrainOutput<Answers> {
        let answers = self.answer(batch);
        TrainOutput::new(self, answers.loss.clone().mean().backward(), answers)
    }
}

impl InferenceStep for Wide {
    type Input = Batch;
    type Output = Answers;

    fn step(&self, batch: Batch) -> Answers {
        self.answer(batch)
    }
}

/// A run of it, as a process of its own.
#[derive(Clone, Serialize, Deserialize)]
struct Task {
    run: PathBuf,
    backend: Backend,
    resume: bool,
}

impl Task {
    /// Two epochs of three batches, a commit after each batch.
    fn train(&self) -> Result<String> {
        let device = self.backend.device();
        device.seed(1);
        let net = Wide {
            first: LinearConfig::new(INPUTS, WIDTH).init(&device),
            dropout: DropoutConfig::new(0.3).init(),
            rest: MlpConfig::new(vec![WIDTH, WIDTH / 2, 8]).init(&device)?,
        };
        let number = |index: usize| (index as f32 * 0.618).fract();
        let sample = |row: usize| Sample {
            inputs: (0..INPUTS).map(|column| number(row * INPUTS + column)).collect(),
            targets: (0..8).map(|column| number(row * 8 + column)).collect(),
        };
        let train = loader((0..3 * ROWS).map(sample).collect(), ROWS, Some(1), &device)?;
        let valid = loader((0..ROWS).map(sample).collect(), ROWS, None, &device)?;
        let training = SupervisedTraining::new(&self.run, train, valid)
            .num_epochs(2)
            .metrics((LossMetric::new(),))
            .with_application_logger(None)
            .renderer(Box::new(ProgressLines::new(std::io::sink())));
        let model = Averaged::new(net, [AverageConfig::new(Rule::ema(0.9))])?;
        let commits = CommitConfig::new(&self.run).with_every_steps(Some(1)).with_keep_last(9);
        let fit = fit(training, model, AdamWConfig::new().init(), ConstantLr::new(1e-3))
            .with_commits(commits)?;
        match self.resume {
            true => fit.resume()?,
            false => fit,
        }
        .launch()?;
        Ok(digest(&self.run))
    }

    /// What it comes to with so many threads.
    fn digest(&self, threads: &str) -> String {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "survive::threads::child", "--ignored", "--nocapture"])
            .env("SURVIVE_THREADS", serde_json::to_string(self).unwrap())
            // Of ndarray's products the second decides.
            .env("RAYON_NUM_THREADS", threads)
            .env("MATMUL_NUM_THREADS", threads);
        Ended::of(command.output().unwrap()).digest()
    }
}

#[test]
#[ignore = "a process of the other tests"]
fn child() {
    let Ok(task) = env::var("SURVIVE_THREADS") else { return };
    let task: Task = serde_json::from_str(&task).unwrap();
    match task.train() {
        Ok(digest) => println!("DIGEST {digest}"),
        Err(error) => println!("ERROR {}", chain(&error)),
    }
}

#[test]
fn their_number_decides_no_bit() {
    let scratch = scratch();
    let (mut fresh, mut resumed) = (0, 0);
    for &backend in Backend::ALL {
        let task = |name: &str, resume| {
            let run = scratch.path().join(format!("{backend:?}-{name}"));
            Task { run, backend, resume }
        };
        let one = task("one", false);
        let golden = one.digest("1");
        for threads in ["1", "2", "3"] {
            assert_eq!(task(threads, false).digest(threads), golden, "{backend:?}, {threads}");
            fresh += 1;
        }
        // Within the first epoch, and at its end.
        for (index, place) in
            [Progress { epochs: 0, batches: 2 }, Progress::after(1)].into_iter().enumerate()
        {
            let other = task(&format!("resumed-{index}"), true);
            copy_commits(&one.run, &other.run, place);
            assert_eq!(other.digest("2"), golden, "{backend:?}, resumed after {place}");
            resumed += 1;
        }
    }
    rows::ran(23, resumed);
    rows::ran(28, fresh);
}
