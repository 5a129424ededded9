//! A renderer for Burn's training and evaluation that writes one line per epoch.

use std::{
    fmt::Write as _,
    io::Write,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use burn::train::{
    LearnerSummary,
    logger::{EvaluationProgressLogger, TrainingProgressLogger},
    metric::{MetricDefinition, MetricId, NumericEntry, store::Split},
    renderer::{
        EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
        MetricsRendererTraining,
    },
};

use crate::{
    mean::Seen,
    next::{SplitProgress, items, no_end},
};

/// A renderer that writes one line per epoch: the validation metrics, each followed by its variants
/// in parentheses (`Loss` by `Loss (live)`), the training rows per second, and the estimated time
/// until the last epoch ends.
///
/// In the mean over an epoch, a batch with one loss value has its number of items as its weight, as
/// in [`metrics.csv`](crate::METRICS).
///
/// ```text
/// epoch  7/30  Loss 0.03120 (live 0.03250)  Accuracy 96.10 % (live 95.83 %)  890 rows/s, 3 s left
/// ```
///
/// At the end of a training or an evaluation, it writes Burn's summary, if there is one. Errors of
/// the writer are ignored.
///
/// Pass it to `SupervisedTraining::renderer` or `EvaluatorBuilder::renderer`.
pub struct ProgressLines {
    out: Mutex<Box<dyn Write + Send>>,
    metrics: Vec<Shown>,
    epochs: usize,
    started: Instant,
    done_before: usize,
    /// The number of training rows done and the time, after the first and after the latest batch of
    /// the epoch; `None` before the first batch.
    trained: Option<[(usize, Instant); 2]>,
    trains: bool,
    /// The number of items of the current split that are done.
    items: usize,
    without: Vec<String>,
}

/// A registered metric and its value in the validation of the current epoch.
struct Shown {
    id: MetricId,
    name: String,
    unit: String,
    /// The value of the last batch and its count, until the number of items of the batch is known.
    batch: Option<(f64, usize)>,
    seen: Seen,
    value: Option<f64>,
}

impl ProgressLines {
    /// A renderer that writes to `out`, such as `std::io::stderr()`.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Self {
            out: Mutex::new(Box::new(out)),
            metrics: Vec::new(),
            epochs: 0,
            started: Instant::now(),
            done_before: 0,
            trained: None,
            trains: false,
            items: 0,
            without: Vec::new(),
        }
    }

    /// Leaves out the metrics whose name begins with `name`, such as `Distance`. Each call adds a
    /// name.
    pub fn without(mut self, name: impl Into<String>) -> Self {
        self.without.push(name.into());
        self
    }

    /// The training rows per second of the last epoch, without its validation: `8900 rows/s, `.
    /// Empty if the epoch had only one batch.
    fn rate(&mut self) -> String {
        let rate = self.trained.take().map(|[(rows, began), (last, ended)]| {
            last.saturating_sub(rows) as f64 / (ended - began).as_secs_f64()
        });
        match rate.filter(|rate| rate.is_finite() && *rate > 0.0) {
            Some(rate) if rate < 10.0 => format!("{rate:.1} rows/s, "),
            Some(rate) => format!("{rate:.0} rows/s, "),
            // An epoch of one batch has no duration.
            None => String::new(),
        }
    }

    fn line(&mut self, line: &str) {
        // A closed terminal must not end a training.
        let _ = writeln!(self.writer(), "{line}");
    }

    fn writer(&self) -> MutexGuard<'_, Box<dyn Write + Send>> {
        self.out.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn take(&mut self, state: MetricState) {
        if let MetricState::Numeric(entry, Some(number)) = state
            && let Some(shown) = self.metrics.iter_mut().find(|shown| shown.id == entry.metric_id)
        {
            match number {
                NumericEntry::Final(value) => {
                    let seen = std::mem::take(&mut shown.seen);
                    let is_mean = seen.ends_with(value);
                    shown.value = Some(if is_mean { seen.weighted.mean() } else { value });
                }
                NumericEntry::Aggregated { aggregated_value, count } => {
                    shown.batch = Some((aggregated_value, count));
                }
                NumericEntry::Value(_) => {}
            }
        }
    }

    /// The metrics as text, each followed by its variants:
    /// `Loss 0.03120 (live 0.03250)  Accuracy ...`. Clears their values.
    fn values(&mut self) -> String {
        let mut text = String::new();
        let left_out = |shown: &Shown| self.without.iter().any(|name| shown.name.starts_with(name));
        let all = self.metrics.iter().filter(|shown| shown.value.is_some() && !left_out(shown));
        let all: Vec<_> = all.collect();
        let beside = |shown: &Shown| {
            all.iter().any(|plain| shown.name.starts_with(&format!("{} (", plain.name)))
        };
        for plain in all.iter().filter(|shown| !beside(shown)) {
            let _ = write!(text, "  {} {}", plain.name, plain.text());
            let prefix = format!("{} (", plain.name);
            let beside: Vec<_> = all
                .iter()
                .filter_map(|shown| {
                    let source = shown.name.strip_prefix(&prefix)?.strip_suffix(')')?;
                    Some(format!("{source} {}", shown.text()))
                })
                .collect();
            if !beside.is_empty() {
                let _ = write!(text, " ({})", beside.join(", "));
            }
        }
        self.metrics.iter_mut().for_each(|shown| shown.value = None);
        text
    }
}

impl Shown {
    fn text(&self) -> String {
        let value = self.value.unwrap_or(f64::NAN);
        match self.unit.as_str() {
            "" => format!("{value:.5}"),
            unit => format!("{value:.2} {unit}"),
        }
    }
}

/// A duration such as `3 s` or `2 min 5 s`.
fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

impl TrainingProgressLogger for ProgressLines {
    fn start(
        &mut self,
        total_epochs: usize,
        starting_epoch: usize,
        _total_items: Option<usize>,
        _label: Option<&str>,
    ) {
        self.epochs = total_epochs;
        self.done_before = starting_epoch.saturating_sub(1);
        self.started = Instant::now();
    }

    fn update_epoch(&mut self, epoch: usize) {
        let done = epoch.saturating_sub(self.done_before).max(1) as u32;
        let left = self.started.elapsed() / done * self.epochs.saturating_sub(epoch) as u32;
        let width = self.epochs.to_string().len();
        let (values, rate, left) = (self.values(), self.rate(), in_words(left));
        let line = format!("epoch {epoch:width$}/{}{values}  {rate}{left} left", self.epochs);
        self.line(&line);
    }

    fn start_split(&mut self, split: &str, _: SplitProgress) {
        self.trains = split == Split::Train.to_string();
        self.items = 0;
    }

    fn update_split(&mut self, progress: SplitProgress) {
        let processed = items(progress);
        if self.trains {
            let now = (processed, Instant::now());
            // A resumed epoch need not begin at 0 rows.
            let [first, _] = self.trained.unwrap_or([now; 2]);
            self.trained = Some([first, now]);
        }
        let items = processed.saturating_sub(std::mem::replace(&mut self.items, processed));
        for Shown { batch, seen, .. } in &mut self.metrics {
            if let Some((value, count)) = batch.take() {
                seen.add(value, count, Some(items));
            }
        }
    }

    no_end!(end_split);

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererTraining for ProgressLines {
    fn update_train(&mut self, _state: MetricState) {}

    fn update_valid(&mut self, state: MetricState) {
        self.take(state);
    }

    fn on_train_end(
        &mut self,
        summary: Option<LearnerSummary>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        if let Some(summary) = summary {
            self.line(&summary.to_string());
        }
        Ok(())
    }
}

impl EvaluationProgressLogger for ProgressLines {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _: SplitProgress) {}

    fn update_test_progress(&mut self, _: SplitProgress) {}

    no_end!(end_test);

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for ProgressLines {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}

    fn on_test_end(
        &mut self,
        summary: Option<LearnerSummary>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        self.on_train_end(summary)
    }
}

impl MetricsRenderer for ProgressLines {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        let unit = match definition.attributes {
            burn::train::metric::MetricAttributes::Numeric(numeric) => numeric.unit,
            burn::train::metric::MetricAttributes::None => None,
        };
        self.metrics.push(Shown {
            id: definition.metric_id,
            name: definition.name.to_string(),
            unit: unit.unwrap_or_default(),
            batch: None,
            seen: Seen::default(),
            value: None,
        });
    }
}
