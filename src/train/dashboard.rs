//! Burn's full-screen dashboard, with live on the plots of the average.

use burn::train::{
    Interrupter, LearnerSummary,
    logger::{EvaluationProgressLogger, TrainingProgressLogger},
    metric::{MetricDefinition, MetricEntry, MetricId},
    renderer::{
        EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
        MetricsRendererTraining, tui::TuiMetricsRendererWrapper,
    },
};

use crate::next::{SplitProgress, forward_end};

/// The suffix of the name of live's metric, after the name of the average's.
const LIVE: &str = " (live)";

/// Burn's dashboard, which draws the curve of a [`live_metric`](super::Averaged::live_metric) over
/// the same metric of the average, and not on a plot of its own.
///
/// The curves are those of training (`Train`), of the average in validation (`Valid`) and of live
/// in validation (`Test - live`: the dashboard has a name of its own for no other kind of curve).
///
/// Pass it to `SupervisedTraining::renderer`, with `training.interrupter()`. The dashboard takes
/// the terminal when the training begins, so that what a program prints before stays visible.
pub struct Dashboard {
    interrupter: Interrupter,
    renderer: Option<TuiMetricsRendererWrapper>,
    definitions: Vec<MetricDefinition>,
}

impl Dashboard {
    /// The dashboard on standard output; its user stops the training through `interrupter`.
    pub fn new(interrupter: Interrupter) -> Self {
        Self { interrupter, renderer: None, definitions: Vec::new() }
    }

    /// The renderer, opened at the first call; `epochs` have ended before, for the time left.
    fn after(&mut self, epochs: Option<usize>) -> &mut TuiMetricsRendererWrapper {
        let Self { interrupter, renderer, definitions } = self;
        renderer.get_or_insert_with(|| {
            let mut renderer = TuiMetricsRendererWrapper::new(interrupter.clone(), epochs);
            // A plot without a curve would only be in the way.
            let plots = definitions.iter().filter(|metric| of_live(metric, definitions).is_none());
            plots.for_each(|metric| renderer.register_metric(metric.clone()));
            renderer
        })
    }

    fn renderer(&mut self) -> &mut TuiMetricsRendererWrapper {
        self.after(None)
    }

    /// The metric of the average over which this entry is drawn; `None` if it is not of live.
    fn average_of(&self, entry: &MetricEntry) -> Option<MetricId> {
        let metric = self.definitions.iter().find(|metric| metric.metric_id == entry.metric_id)?;
        of_live(metric, &self.definitions)
    }
}

/// The metric among `all` of the average to which `live` belongs, by its name; `None` if there is
/// none.
fn of_live(live: &MetricDefinition, all: &[MetricDefinition]) -> Option<MetricId> {
    let name = live.name.strip_suffix(LIVE)?;
    let average = all.iter().find(|metric| *metric.name == name)?;
    Some(average.metric_id.clone())
}

impl MetricsRendererTraining for Dashboard {
    fn update_train(&mut self, state: MetricState) {
        self.renderer().update_train(state);
    }

    fn update_valid(&mut self, mut state: MetricState) {
        let (MetricState::Generic(entry) | MetricState::Numeric(entry, _)) = &mut state;
        match self.average_of(entry) {
            Some(average) => {
                entry.metric_id = average;
                self.renderer().update_test(EvaluationName::new("live"), state);
            }
            None => self.renderer().update_valid(state),
        }
    }

    fn on_train_end(
        &mut self,
        summary: Option<LearnerSummary>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        self.renderer().on_train_end(summary)
    }
}

impl TrainingProgressLogger for Dashboard {
    fn start(
        &mut self,
        total_epochs: usize,
        starting_epoch: usize,
        total_items: Option<usize>,
        label: Option<&str>,
    ) {
        let renderer = self.after(starting_epoch.checked_sub(1));
        renderer.start(total_epochs, starting_epoch, total_items, label);
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.renderer().update_epoch(epoch);
    }

    fn start_split(&mut self, split: &str, progress: SplitProgress) {
        self.renderer().start_split(split, progress);
    }

    fn update_split(&mut self, progress: SplitProgress) {
        self.renderer().update_split(progress);
    }

    forward_end!(end_split, renderer);

    fn end(&mut self) {
        self.renderer().end();
    }

    fn log_event_training(&mut self, event: String) {
        self.renderer().log_event_training(event);
    }
}

impl MetricsRendererEvaluation for Dashboard {
    fn update_test(&mut self, name: EvaluationName, state: MetricState) {
        self.renderer().update_test(name, state);
    }

    fn on_test_end(
        &mut self,
        summary: Option<LearnerSummary>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        self.renderer().on_test_end(summary)
    }
}

impl EvaluationProgressLogger for Dashboard {
    fn start_global_progress(&mut self, total_tests: usize) {
        self.renderer().start_global_progress(total_tests);
    }

    fn start_test(&mut self, name: &str, progress: SplitProgress) {
        self.renderer().start_test(name, progress);
    }

    fn update_test_progress(&mut self, progress: SplitProgress) {
        self.renderer().update_test_progress(progress);
    }

    forward_end!(end_test, renderer);

    fn end_global_progress(&mut self) {
        self.renderer().end_global_progress();
    }

    fn log_event_evaluation(&mut self, event: String) {
        self.renderer().log_event_evaluation(event);
    }
}

impl MetricsRenderer for Dashboard {
    fn manual_close(&mut self) {
        self.renderer().manual_close();
    }

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.definitions.push(definition.clone());
        if self.renderer.is_some() && of_live(&definition, &self.definitions).is_none() {
            self.renderer().register_metric(definition);
        }
    }
}
