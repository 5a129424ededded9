//! The training that faults happen to: small, with everything that a resume can get wrong.
//!
//! A network with dropout, AdamW, a cosine schedule, two averages, shuffled data, early stopping.
//! It runs as a process of its own, since Burn's random state is one for a process; what it came to
//! is one digest of its last commit and its metrics.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use burn::{
    data::{
        dataloader::{DataLoader, DataLoaderBuilder, batcher::Batcher},
        dataset::{Dataset, DatasetError},
    },
    lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig,
    module::Module,
    nn::{Dropout, DropoutConfig, Linear, LinearConfig},
    optim::AdamWConfig,
    tensor::{Bytes, Device, Tensor, TensorData, TensorReadError, activation},
    train::{
        InferenceStep, Interrupter, MetricEarlyStoppingStrategy, StoppingCondition,
        SupervisedTraining, TrainOutput, TrainStep,
        metric::{
            LearningRateMetric, LossInput, LossMetric, Metric, MetricMetadata, MetricName,
            SerializedEntry,
            store::{Aggregate, Direction, Split},
        },
    },
};
use burn_ema::{
    AverageConfig, Error, Result, Rule,
    model::{Answers, Batch},
    runs::{CommitConfig, Commits, Fit, Progress, ProgressLines, fit},
    train::Averaged,
};
use burn_ema_lab::data::Sample;
use burn_pack::Reader;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// What a run does, and what happens to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub run: PathBuf,
    pub epochs: usize,
    pub lr: f64,
    pub batch_size: usize,
    pub hidden: usize,
    pub seed: u64,
    pub patience: Option<usize>,
    pub every_steps: Option<u64>,
    pub keep_last: usize,
    pub keep_every: Option<u64>,
    pub resume: bool,
    pub workers: usize,
    /// Where the caller's own code panics, and at which call.
    pub fault: Option<(Site, usize)>,
    /// Where someone asks the training to stop, and at which call.
    pub stop: Option<(Site, usize)>,
    /// Milliseconds that each step takes longer, so that a fault can meet it.
    pub pause: u64,
    pub backend: Backend,
}

/// A backend of Burn's on the CPU that this build has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    Flex,
    #[cfg(feature = "ndarray")]
    NdArray,
}

impl Backend {
    pub const ALL: &[Self] = &[
        Self::Flex,
        #[cfg(feature = "ndarray")]
        Self::NdArray,
    ];

    pub fn device(self) -> Device {
        match self {
            Self::Flex => Device::flex(),
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
            Self::NdArray => Device::ndarray(),
        }
    }
}

/// What of a plan decides the weights, as a user would write it down.
#[derive(Serialize)]
struct Config {
    epochs: usize,
    lr: f64,
    batch_size: usize,
    hidden: usize,
    workers: usize,
}

/// A place in the caller's own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Site {
    Step,
    Batcher,
    Dataset,
    Metric,
    /// A step of the validation.
    Valid,
    /// A commit that is half written, which this process sees from outside.
    Commit,
}

/// What happens in this process, where, and the calls that are left until then.
struct Struck {
    site: Site,
    left: AtomicUsize,
    /// Stops the training; a panic otherwise.
    stop: Option<Interrupter>,
}

static STRUCK: OnceLock<Struck> = OnceLock::new();

/// Does what is to happen at this call of a place, if something is; says whether it did.
fn strike(at: Site) -> bool {
    let Some(Struck { site, left, stop }) = STRUCK.get() else { return false };
    let strikes = *site == at && left.fetch_sub(1, Ordering::Relaxed) == 1;
    if strikes {
        match stop {
            Some(interrupter) => interrupter.stop(Some("asked to")),
            None => panic!("struck in {site:?}"),
        }
    }
    strikes
}

/// How much longer a step takes.
static PAUSE: OnceLock<Duration> = OnceLock::new();

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    pub output: Output,
}

/// A directory for one test, gone with it.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in(fs::canonicalize(env!("CARGO_TARGET_TMPDIR")).unwrap()).unwrap()
}

impl Plan {
    pub fn new(run: impl Into<PathBuf>) -> Self {
        Self {
            run: run.into(),
            epochs: 6,
            lr: 0.05,
            batch_size: 8,
            hidden: 8,
            seed: 1,
            patience: None,
            every_steps: Some(3),
            keep_last: 2,
            keep_every: None,
            resume: false,
            workers: 0,
            fault: None,
            stop: None,
            pause: 0,
            backend: Backend::Flex,
        }
    }

    /// The command that runs the plan in a process of its own.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "survive::workload::child", "--ignored", "--nocapture"])
            .env("SURVIVE_PLAN", serde_json::to_string(self).unwrap())
            // Two children at once on two cores.
            .env("RAYON_NUM_THREADS", "1");
        command
    }

    pub fn run(&self) -> Ended {
        Ended::of(self.command().output().unwrap())
    }

    /// The digest of the run from its beginning.
    pub fn golden(&self) -> String {
        self.run().digest()
    }

    /// The digest of the run that goes on.
    pub fn resumed(&self) -> String {
        Self { resume: true, ..self.clone() }.golden()
    }

    pub fn commits(&self) -> Vec<Progress> {
        Commits::of(&self.run).list().unwrap()
    }

    /// Copies the run as it was when the commit of this place was its newest.
    pub fn copy_until(&self, to: &Path, last: Progress) {
        copy_commits(&self.run, to, last);
    }

    fn config(&self) -> Config {
        let Self { epochs, lr, batch_size, hidden, workers, .. } = *self;
        Config { epochs, lr, batch_size, hidden, workers }
    }

    pub fn model(&self) -> Result<Averaged<Net>> {
        let averages =
            [AverageConfig::new(Rule::ema(0.9)), AverageConfig::new(Rule::power_function(0.2))];
        Averaged::new(Net::new(self.hidden, &self.backend.device()), averages)
    }

    fn loaders(&self) -> [Arc<dyn DataLoader<Batch>>; 2] {
        let builder = |workers| {
            DataLoaderBuilder::new(Rows)
                .batch_size(self.batch_size)
                .num_workers(workers)
                .set_device(self.backend.device())
        };
        let train = builder(self.workers).shuffle(self.seed).build(Points { count: 64, from: 0 });
        [train, builder(0).build(Points { count: 24, from: 64 })]
    }

    /// The training, which commits and does not begin yet.
    pub fn fit(&self) -> Result<Fit<Averaged<Net>>> {
        self.fit_with(&self.config())
    }

    /// The training as one of another configuration.
    pub fn fit_with(&self, config: &impl Serialize) -> Result<Fit<Averaged<Net>>> {
        self.backend.device().seed(self.seed);
        let model = self.model()?;
        let [train, valid] = self.loaders();
        let mut training = SupervisedTraining::new(&self.run, train, valid)
            .num_epochs(self.epochs)
            .metrics((LossMetric::new(),))
            .metric_train_numeric(LearningRateMetric::new())
            .metric_valid(Fragile)
            .metric_valid_numeric(model.live_metric(LossMetric::new()))
            .with_application_logger(None)
            .renderer(Box::new(ProgressLines::new(std::io::sink())));
        if let Some(n_epochs) = self.patience {
            training = training.early_stopping(MetricEarlyStoppingStrategy::new(
                &LossMetric::new(),
                Aggregate::Mean,
                Direction::Lowest,
                Split::Valid,
                StoppingCondition::NoImprovementSince { n_epochs },
            ));
        }
        if let Some((site, calls)) = self.fault.or(self.stop) {
            let stop = self.stop.map(|_| training.interrupter());
            let struck = Struck { site, left: AtomicUsize::new(calls), stop };
            assert!(STRUCK.set(struck).is_ok());
        }
        if let Some((Site::Commit, _)) = self.stop {
            strike_at_commits(&self.run);
        }
        if self.pause > 0 {
            PAUSE.set(Duration::from_millis(self.pause)).unwrap();
        }
        let steps = self.epochs * 64usize.div_ceil(self.batch_size);
        let lr = CosineAnnealingLrSchedulerConfig::new(self.lr, steps.max(48)).init().unwrap();
        let commits = CommitConfig::new(&self.run)
            .with_config(config)?
            .with_seed(self.seed)
            .with_every_steps(self.every_steps)
            .with_keep_last(self.keep_last)
            .with_keep_every_steps(self.keep_every);
        fit(training, model, AdamWConfig::new().init(), lr).with_commits(commits)
    }

    fn train(&self) -> Result<String> {
        let mut fit = self.fit()?;
        if self.resume {
            fit = fit.resume()?;
            let resumed = fit.resumed().unwrap();
            println!("RESUMED {resumed}");
            resumed.passed_over.iter().for_each(|error| println!("PASSED OVER {}", chain(error)));
        }
        if let Some(reason) = fit.launch()?.interrupted {
            println!("STOPPED {}", reason.reason.unwrap_or_default());
        }
        Ok(digest(&self.run))
    }
}

impl Ended {
    pub fn of(output: Output) -> Self {
        Self { output }
    }

    /// What the child said after a word, if it did.
    pub fn says(&self, word: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.output.stdout);
        // The test harness leaves its own line open.
        let found = text.lines().find_map(|line| line.split_once(&format!("{word} ")));
        found.map(|(_, rest)| rest.to_owned())
    }

    /// What the child said after a word; a panic if it did not.
    pub fn line_after(&self, word: &str) -> String {
        self.says(word).unwrap_or_else(|| panic!("no {word}: {:?}", self.output))
    }

    pub fn digest(&self) -> String {
        self.line_after("DIGEST")
    }

    pub fn error(&self) -> String {
        self.line_after("ERROR")
    }
}

/// The process that a plan runs in.
#[test]
#[ignore = "a process of the other tests"]
fn child() {
    let Ok(plan) = env::var("SURVIVE_PLAN") else { return };
    let plan: Plan = serde_json::from_str(&plan).unwrap();
    match plan.train() {
        Ok(digest) => println!("DIGEST {digest}"),
        Err(error) => println!("ERROR {}", chain(&error)),
    }
}

/// Strikes once for each commit that is seen while it is written, and says when it is still
/// being written then.
fn strike_at_commits(run: &Path) {
    let commits = Commits::of(run).path().to_owned();
    thread::spawn(move || {
        let mut last = None;
        loop {
            let seen = unfinished(&commits);
            if seen.is_some() && seen != last {
                if strike(Site::Commit) && unfinished(&commits) == seen {
                    println!("WITHIN {seen:?}");
                }
                last = seen;
            }
            thread::sleep(Duration::from_micros(50));
        }
    });
}

/// The commit that is being written, if one is.
pub fn unfinished(commits: &Path) -> Option<String> {
    let entries = fs::read_dir(commits).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.find(|name| name.starts_with(".unfinished-"))
}

/// An error with its reasons.
pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// The digest of a run's newest commit and its metrics, in which nothing random stands.
pub fn digest(run: &Path) -> String {
    let newest = Commits::of(run).newest().unwrap();
    assert!(newest.passed_over.is_empty(), "{newest:?}");
    let commit = newest.commit.unwrap();
    let mut hash = Sha256::new();
    let mut add = |text: String, bytes: &[u8]| {
        hash.update(text);
        hash.update(bytes);
    };
    add(format!("{:?}", commit.progress()), &[]);
    // Ids of parameters are drawn, and name the optimizer's entries: their paths stand for them.
    let mut paths = BTreeMap::new();
    for name in ["model.bpk", "optimizer.bpk", "scheduler.bpk"] {
        let reader = Reader::from_bytes(Bytes::from_bytes_vec(commit.read(name).unwrap())).unwrap();
        let known = |name: &str| match name.split_once('.') {
            Some((id, rest)) => match paths.get(id) {
                Some(path) => format!("{path}.{rest}"),
                None => name.to_owned(),
            },
            None => name.to_owned(),
        };
        let scalars: BTreeMap<String, String> = reader
            .scalars()
            .iter()
            .map(|(name, value)| (known(name), format!("{value:?}")))
            .collect();
        let mut tensors = BTreeMap::new();
        let mut ids = BTreeMap::new();
        for tensor in reader.into_tensors().unwrap() {
            let (path, dtype, shape, id, bytes) = tensor.into_parts().unwrap();
            tensors.insert(known(&path), (format!("{dtype:?} {shape:?}"), bytes.to_vec()));
            if let (Some(path), Some(id)) = (path.strip_prefix("live."), id) {
                ids.insert(id.to_string(), path.to_owned());
            }
        }
        add(format!("{name} {scalars:?}"), &[]);
        for (path, (kind, bytes)) in tensors {
            add(format!("{path} {kind}"), &bytes);
        }
        paths.extend(ids);
    }
    add("metrics".to_owned(), &fs::read(run.join("metrics.csv")).unwrap());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Copies a run as it was when the commit of this place was its newest.
pub fn copy_commits(run: &Path, to: &Path, last: Progress) {
    fs::create_dir_all(to.join("commits")).unwrap();
    fs::copy(run.join("metrics.csv"), to.join("metrics.csv")).unwrap();
    let commits = Commits::of(run);
    for place in commits.list().unwrap().into_iter().filter(|place| *place <= last) {
        copy_directory(commits.open(place).unwrap().path(), &to.join("commits"));
    }
}

fn copy_directory(from: &Path, into: &Path) {
    let to = into.join(from.file_name().unwrap());
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Points of a plane in four coordinates, and two functions of them.
struct Points {
    count: usize,
    from: usize,
}

impl Dataset<Sample> for Points {
    fn get(&self, index: usize) -> std::result::Result<Sample, DatasetError> {
        strike(Site::Dataset);
        let index = (self.from + index) as f32;
        let (x, y) = ((index * 0.618).fract(), (index * 0.755).fract());
        let inputs = vec![x, y, x * y, x - y];
        Ok(Sample { inputs, targets: vec![(x + y) / 2.0, (6.0 * x).sin() * 0.4 + 0.5] })
    }

    fn len(&self) -> usize {
        self.count
    }
}

struct Rows;

impl Batcher<Sample, Batch> for Rows {
    fn batch(&self, samples: Vec<Sample>, device: &Device) -> Batch {
        strike(Site::Batcher);
        let rows = |of: fn(&Sample) -> &Vec<f32>| {
            let values: Vec<f32> = samples.iter().flat_map(of).copied().collect();
            let shape = [samples.len(), values.len() / samples.len()];
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        Batch { inputs: rows(|sample| &sample.inputs), targets: rows(|sample| &sample.targets) }
    }
}

/// A metric in words, which can panic.
#[derive(Clone)]
struct Fragile;

impl Metric for Fragile {
    type Input = LossInput;

    fn name(&self) -> MetricName {
        MetricName::new("Words".to_owned())
    }

    fn update(
        &mut self,
        _: &LossInput,
        _: &MetricMetadata,
    ) -> std::result::Result<SerializedEntry, TensorReadError> {
        strike(Site::Metric);
        Ok(SerializedEntry::new("a word".to_owned(), "one, two\nthree".to_owned()))
    }

    fn compute(&mut self) -> std::result::Result<SerializedEntry, TensorReadError> {
        Ok(SerializedEntry::new("all".to_owned(), "all".to_owned()))
    }

    fn clear(&mut self) {}
}

/// Two layers with dropout between them.
#[derive(Module, Debug)]
pub struct Net {
    first: Linear,
    dropout: Dropout,
    last: Linear,
}

impl Net {
    pub fn new(hidden: usize, device: &Device) -> Self {
        Self {
            first: LinearConfig::new(4, hidden).init(device),
            dropout: DropoutConfig::new(0.3).init(),
            last: LinearConfig::new(hidden, 2).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = self.dropout.forward(activation::sigmoid(self.first.forward(x)));
        activation::sigmoid(self.last.forward(hidden))
    }

    fn answer(&self, Batch { inputs, targets }: Batch) -> Answers {
        let outputs = self.forward(inputs);
        let errors = outputs.clone() - targets.clone();
        let loss = (errors.clone() * errors).sum_dim(1).squeeze_dim::<1>(1) / 2.0;
        Answers { loss, outputs, targets }
    }
}

impl TrainStep for Net {
    type Input = Batch;
    type Output = Answers;

    fn step(&self, batch: Batch) -> TrainOutput<Answers> {
        strike(Site::Step);
        if let Some(pause) = PAUSE.get() {
            thread::sleep(*pause);
        }
        let answers = self.answer(batch);
        TrainOutput::new(self, answers.loss.clone().mean().backward(), answers)
    }
}

impl InferenceStep for Net {
    type Input = Batch;
    type Output = Answers;

    fn step(&self, batch: Batch) -> Answers {
        strike(Site::Valid);
        self.answer(batch)
    }
}
