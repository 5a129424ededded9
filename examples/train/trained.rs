//! The gain of a training, judged on rows that nothing was chosen by, reported and saved.

use anyhow::{Result, ensure};
use burn::data::dataloader::DataLoader;
use burn_ema::{
    model::{Batch, Mlp},
    train::Averaged,
};
use burn_ema_lab::{
    device::Selected,
    report::{Page, Report, Scores, SecondHalf, Summary},
    run::{RunConfig, RunDirectory},
};

use crate::{DIVERGED, note, origin, shared};

/// The command that shows a file on this system.
const OPEN: &str = match () {
    () if cfg!(windows) => "explorer",
    () if cfg!(target_os = "macos") => "open",
    () => "xdg-open",
};

/// A training that has ended.
pub struct Trained<'a> {
    pub model: &'a Averaged<Mlp>,
    pub config: &'a RunConfig,
    pub device: &'a Selected,
    /// The rows of training, validation and test.
    pub rows: [usize; 3],
}

impl Trained<'_> {
    /// The averages ranked by their loss in validation, all scored on the test split.
    pub fn judge(
        &self,
        valid: &dyn DataLoader<Batch>,
        test: &dyn DataLoader<Batch>,
    ) -> Result<(Report, Summary)> {
        let Self { model, config, device, rows } = *self;
        let ranking = model.rank(|mlp| Ok(Scores::of(mlp, valid)?.loss))?;
        let report = Report::of(model, ranking, test, device, config.seed)?;
        let losses = report.averages.iter().map(|average| average.scores.loss);
        ensure!(losses.chain([report.live.loss]).all(f64::is_finite), DIVERGED);
        let best = report.validation.best;
        let summary = Summary::of(model, best, &config.preparation, rows, test)?;
        Ok((report, summary))
    }

    /// Saves the best average, and prints what it gained and how it is used.
    pub fn save(&self, run: &RunDirectory, report: &Report, summary: &Summary) -> Result<()> {
        let best = report.validation.best;
        let name = report.validation.best_name();
        let source = format!("{name} of {}", origin::origin(run.path(), self.config.seed));
        // The model comes last: where it is, the run is whole.
        run.write_json("report.json", report)?;
        run.write_json("summary.json", summary)?;
        self.model.averages()[best].save_file(run.model_file(), &source)?;
        println!("\n{report}\n");
        match SecondHalf::read(run) {
            Ok(half) => half.iter().for_each(|half| println!("{half}\n")),
            // The model is there all the same.
            Err(error) => println!("warning: no table of epochs: {:#}", anyhow::Error::new(error)),
        }
        if report.validation.live < report.validation.averages[best].1 {
            note(run, "note: in validation, live does better than every average".to_owned())?;
        }
        println!("{name} saved in {}:", run.path().display());
        println!("  model.bpk    the average, which plain Burn loads too");
        let page = run.path().join("report.html");
        match Page::of(std::slice::from_ref(run)).and_then(|drawn| drawn.write(&page)) {
            Ok(_) => {
                println!("  report.html  what was gained, with pictures; to look at it:");
                println!("  {OPEN} {}", shared::word(&page));
            }
            // The model is there all the same.
            Err(error) => println!("warning: no report.html: {:#}", anyhow::Error::new(error)),
        }
        println!("to use it:");
        let table = match &self.config.data {
            Some(table) => format!(" --csv {}", shared::word(table)),
            None => String::new(),
        };
        println!("  cargo run --example infer -- --run {}{table}", shared::word(run.path()));
        Ok(())
    }
}
