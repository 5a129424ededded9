//! The page of Markdown and the JSON, written anew with all that is known whenever something is.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use crate::{
    contest::{HEAD, Outcome},
    figures::table,
};

const PAGE: &str = "gpu.md";
const FIGURES: &str = "gpu.json";

/// The measurements so far; clones share them.
#[derive(Clone)]
pub struct Report(Arc<Mutex<Content>>);

struct Content {
    directory: PathBuf,
    facts: Vec<(&'static str, String)>,
    checks: Vec<String>,
    outcomes: Vec<Outcome>,
    /// Rows that have no figures, and why.
    left_out: Vec<(String, String)>,
    /// Rows to come, the one that is measured now first.
    planned: Vec<String>,
}

impl Report {
    /// An empty one. Files of an earlier run are removed, so that they cannot pass for those of
    /// this one.
    pub fn new(directory: &Path) -> Result<Self> {
        let context = || directory.display().to_string();
        fs::create_dir_all(directory).with_context(context)?;
        for file in [PAGE, FIGURES].map(|name| directory.join(name)) {
            if file.exists() {
                fs::remove_file(&file).with_context(|| file.display().to_string())?;
            }
        }
        Ok(Self(Arc::new(Mutex::new(Content {
            directory: directory.to_owned(),
            facts: Vec::new(),
            checks: Vec::new(),
            outcomes: Vec::new(),
            left_out: Vec::new(),
            planned: Vec::new(),
        }))))
    }

    /// Adds what it was measured on or with.
    pub fn fact(&self, what: &'static str, fact: String) {
        self.lock().facts.push((what, fact));
    }

    /// Adds a check that was passed.
    pub fn check(&self, line: String) {
        self.lock().checks.push(line);
    }

    /// Sets the rows to come. From here on, the files are written.
    pub fn plan(&self, rows: Vec<String>) -> Result<()> {
        let mut content = self.lock();
        content.planned = rows;
        content.write()
    }

    /// Adds a row that is not measured.
    pub fn left_out(&self, row: &str, why: String) {
        self.lock().left_out.push((row.to_owned(), why));
    }

    /// Adds what came of the planned row.
    pub fn end(&self, row: &str, outcome: Result<Outcome, String>) -> Result<()> {
        let mut content = self.lock();
        content.planned.retain(|name| name != row);
        match outcome {
            Ok(outcome) => content.outcomes.push(outcome),
            Err(why) => content.left_out.push((row.to_owned(), why)),
        }
        content.write()
    }

    /// Leaves out all rows to come, since the time is over.
    ///
    /// # Errors
    ///
    /// Time that is over before the checks are, without which there are no figures.
    pub fn stop(&self) -> Result<()> {
        let mut content = self.lock();
        ensure!(!content.checks.is_empty(), "the time was over before the checks of the device");
        let planned = std::mem::take(&mut content.planned);
        for (place, row) in planned.into_iter().enumerate() {
            let why = if place == 0 { "it did not end in time" } else { "no time was left" };
            content.left_out.push((row, why.to_owned()));
        }
        content.write()
    }

    /// The figures of all rows, what was left out, and where the files are.
    pub fn summary(&self) -> String {
        let content = self.lock();
        let file = content.directory.join(PAGE);
        format!("\n{}\n{}{}", content.figures(), content.rest(), file.display())
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn write(&self) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.json())? + "\n";
        for (name, text) in [(PAGE, self.page()), (FIGURES, json)] {
            let file = self.directory.join(name);
            fs::write(&file, text).with_context(|| file.display().to_string())?;
        }
        Ok(())
    }

    fn page(&self) -> String {
        let facts = self.facts.iter().map(|(what, fact)| [(*what).to_owned(), fact.clone()]);
        let checks: String = self.checks.iter().map(|line| format!("- {line}\n")).collect();
        let times: Vec<_> = self.outcomes.iter().map(Outcome::times).collect();
        format!(
            "# Averages on a GPU\n\n{}\n## Checks against Flex\n\n{checks}\n{}\n{}\
             ## Times\n\n{}",
            table(["", ""], facts),
            self.figures(),
            self.rest(),
            times.join("\n"),
        )
    }

    /// The claims, with medians over the rounds.
    fn figures(&self) -> String {
        format!("## Figures\n\n{}", table(HEAD, self.outcomes.iter().flat_map(Outcome::rows)))
    }

    /// Rows without figures, and contestants without times.
    fn rest(&self) -> String {
        let rows = self.left_out.iter().map(|(row, why)| (row.clone(), why.as_str()));
        let planned = self.planned.iter().map(|row| (row.clone(), "not measured yet"));
        let contestants = self.outcomes.iter().flat_map(Outcome::left_out);
        let all = rows.chain(planned).chain(contestants);
        let rows: Vec<_> = all.map(|(what, why)| [what, why.to_owned()]).collect();
        match rows.is_empty() {
            true => String::new(),
            false => format!("## Left out\n\n{}\n", table(["what", "why"], rows)),
        }
    }

    fn json(&self) -> Value {
        let facts: Map<_, _> =
            self.facts.iter().map(|(what, fact)| ((*what).to_owned(), json!(fact))).collect();
        let left_out: Map<_, _> =
            self.left_out.iter().map(|(row, why)| (row.clone(), json!(why))).collect();
        json!({
            "facts": facts,
            "checks": self.checks,
            "rows": self.outcomes.iter().map(Outcome::json).collect::<Vec<_>>(),
            "left_out": left_out,
            "not_measured_yet": self.planned,
        })
    }
}
