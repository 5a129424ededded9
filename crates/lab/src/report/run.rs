//! Everything that the directory of a run holds, read for its page.

use std::{io::BufReader, path::PathBuf};

use burn_ema::{AverageConfig, Error, Result, runs::Newest};
use burn_ema_base::regular;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Report, Summary, curves::Curves};
use crate::{
    data::Task,
    run::{RunConfig, RunDirectory},
};

/// The content of a run's directory; `None` or empty for what is not there.
pub(super) struct RunContent {
    pub path: PathBuf,
    /// The configuration of a run of the perceptron; `None` for a run of another module.
    pub config: Option<RunConfig>,
    /// The settings of the run: name and value.
    pub settings: Vec<(String, String)>,
    /// The name and the rule of each average.
    pub averages: Vec<(String, String)>,
    pub report: Option<Report>,
    pub summary: Option<Summary>,
    pub curves: Curves,
    /// Remarks on what was skipped or warned of, and on what is missing.
    pub notes: Vec<String>,
}

impl RunContent {
    /// Reads a run.
    ///
    /// # Errors
    ///
    /// A run without a configuration and without a commit; a file of the run that cannot be read or
    /// was altered.
    pub fn read(run: &RunDirectory) -> Result<Self> {
        let path = run.path().to_owned();
        let mut notes = run.notes()?;
        let mut report: Option<Report> = json(path.join("report.json"))?;
        let mut summary: Option<Summary> = json(path.join("summary.json"))?;
        let curves = Curves::read(&path)?;
        let Newest { commit, passed_over } = run.commits().newest()?;
        let steps = commit.as_ref().map(|commit| commit.manifest().steps);
        if let Some((before, now)) = summary.as_ref().map(|summary| summary.steps).zip(steps)
            && before < now
        {
            notes.push(format!(
                "report.json and summary.json are of step {before}, and the run has gone on to \
                 step {now}: they are left out"
            ));
            (report, summary) = (None, None);
        }
        let (config, mut settings, averages) = match (run.config(), &commit) {
            (Ok(config), _) => {
                let averages = config.averages.iter();
                let averages = averages.map(|average| (average.label(), average.rule.to_string()));
                let averages: Vec<_> = averages.collect();
                (Some(config.clone()), settings(&config, summary.as_ref()), averages)
            }
            // A run of a module of the user's own.
            (Err(_), Some(commit)) if !path.join("config.json").exists() => {
                let manifest = commit.manifest();
                let mut settings = Vec::new();
                flatten("", &manifest.config, &mut settings);
                settings.push(("seed".to_owned(), manifest.seed.to_string()));
                (None, settings, manifest.parts.clone())
            }
            (Err(error), _) => return Err(error),
        };
        if let Some(report) = &report {
            settings.push(("device".to_owned(), report.device.clone()));
        }
        let gone = passed_over.into_iter().map(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        });
        notes.extend(gone);
        notes.extend(curves.passed_over.clone());
        let missing = [
            (curves.exist, "no metrics.csv is left, so that there are no curves"),
            (report.is_some(), "no report: the run has not ended, or was of another program"),
            (
                summary.is_some() || report.is_none(),
                "no summary.json, so that neither profiles nor answers are drawn",
            ),
        ];
        let missing = missing.iter().filter(|(is_there, _)| !is_there);
        notes.extend(missing.map(|(_, what)| what.to_string()));
        Ok(Self { path, config, settings, averages, report, summary, curves, notes })
    }

    /// The name of the run on the page.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The index of the average that was saved; 0 before the run has ended.
    pub fn saved(&self) -> usize {
        self.report.as_ref().map_or(0, |report| report.validation.best)
    }
}

/// The value in a JSON file; `None` if there is no such file.
fn json<T: DeserializeOwned>(path: PathBuf) -> Result<Option<T>> {
    let Some(file) = regular::open_if_there(&path)? else { return Ok(None) };
    let value = serde_json::from_reader(BufReader::new(file));
    value.map(Some).map_err(|error| Error::file("read", path, error))
}

/// The settings of a run of the perceptron as name and value, in words for the page.
fn settings(config: &RunConfig, summary: Option<&Summary>) -> Vec<(String, String)> {
    let RunConfig { model, preparation, averages, optimizer, lr, epochs, batch_size, .. } = config;
    let RunConfig { data, data_sha256, seed, .. } = config;
    let sizes: Vec<_> = model.sizes.iter().map(usize::to_string).collect();
    let counted = |names: &[&str]| match names.len() {
        count @ 0..=16 => format!("{count}: {}", names.join(", ")),
        count => format!("{count}: {}, … {}", names[..8].join(", "), names[count - 1]),
    };
    let task = match preparation.task() {
        Task::Classification { labels } => {
            let labels: Vec<_> = labels.iter().map(String::as_str).collect();
            format!("classes, {}", counted(&labels))
        }
        Task::Regression { scale } => {
            format!("a number; losses are half squares of errors in units of {}", scale.divisor)
        }
    };
    let mut rows = vec![
        (
            "network",
            format!("{}, hidden {:?}, output {:?}", sizes.join("-"), model.hidden, model.output),
        ),
        ("optimizer", format!("{optimizer:?}")),
        ("learning rate", lr.to_string()),
        ("batch size", batch_size.to_string()),
        ("epochs", epochs.to_string()),
        ("seed", seed.to_string()),
        (
            "data",
            match data {
                Some(file) => file.display().to_string(),
                None => "the scanned digits of burn_ema_lab".to_owned(),
            },
        ),
        ("SHA-256 of the data", data_sha256.clone()),
        ("target", preparation.target().to_owned()),
        ("task", task),
        ("inputs", counted(&preparation.columns())),
    ];
    if let Some(Summary { steps, parameters, rows: [train, valid, test], .. }) = summary {
        rows.insert(1, ("parameters", parameters.to_string()));
        rows.push(("rows", format!("{train} train, {valid} validation, {test} test")));
        rows.push(("steps", steps.to_string()));
    }
    let rows = rows.into_iter().map(|(name, value)| (name.to_owned(), value));
    let averages = averages
        .iter()
        .enumerate()
        .map(|(index, average)| (format!("average {}", index + 1), settings_of(average)));
    rows.chain(averages).collect()
}

/// The rule of an average, and its settings that differ from the defaults.
fn settings_of(average: &AverageConfig) -> String {
    let mut text = average.rule.to_string();
    let fields = (serde_json::to_value(average), serde_json::to_value(default_of(average)));
    if let (Ok(Value::Object(fields)), Ok(default)) = fields {
        for (name, value) in fields {
            if name != "rule" && value != default[&name] {
                text += &format!(", {name} = {value}");
            }
        }
    }
    text
}

fn default_of(average: &AverageConfig) -> AverageConfig {
    AverageConfig::new(average.rule.clone())
}

/// Adds the leaves of a configuration to `into`, as path and value, without nulls.
fn flatten(path: &str, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(&format!("{path}{dot}{name}"), value, into);
            }
        }
        Value::String(text) => into.push((path.to_owned(), text.clone())),
        Value::Null => {}
        value => into.push((path.to_owned(), value.to_string())),
    }
}
