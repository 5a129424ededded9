//! The commits of a run that are merged.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use burn_ema::{
    average::Description,
    runs::{Commit, Commits, LastCommits},
    train::AveragedCommit as _,
};
use burn_ema_lab::run::RunDirectory;
use clap::Args;

use crate::shared;

/// Which commits are merged, and what of them.
#[derive(Args)]
pub struct CommitArgs {
    /// Merge live at the newest commits of a run, oldest first, in place of files
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    run: Option<PathBuf>,
    /// How many commits of the run to merge, 2 or more
    #[arg(long, value_name = "COUNT", conflicts_with = "model", default_value = "5", value_parser = count)]
    last: usize,
    /// Merge a series of commits alone: the first at or after each multiple of so many steps; 0 for
    /// all that the run has, the newest and the best too [default: `--keep-every` of the run]
    #[arg(long, value_name = "STEPS", requires = "run", conflicts_with = "model")]
    every: Option<u64>,
    /// The first average at each commit, in place of live
    #[arg(long, requires = "run", conflicts_with = "model")]
    average: bool,
}

/// A number of commits.
fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count >= 2);
    count.ok_or_else(|| "expected 2 or more: a merge is of two commits at least".to_owned())
}

/// The files of commits, oldest first; none where files are merged.
#[derive(Default)]
pub struct CommitFiles {
    /// Each file, with the description of what is merged of it.
    pub files: Vec<(PathBuf, Description)>,
    /// The prefix of the tensors that are merged.
    pub prefix: Option<String>,
}

impl CommitFiles {
    /// True if no distance of two commits is more than 1.25 times another.
    pub fn is_even(&self) -> bool {
        let distances = self.files.windows(2).map(|it| it[1].1.step - it[0].1.step);
        let (least, most) = (distances.clone().min(), distances.max());
        least.zip(most).is_none_or(|(least, most)| 4 * most <= 5 * least)
    }
}

impl CommitArgs {
    /// The directory of the run.
    pub fn run(&self) -> Option<&Path> {
        self.run.as_deref()
    }

    /// The files of the commits that were asked for; prints their steps.
    pub fn find(&self) -> Result<CommitFiles> {
        let Some(directory) = &self.run else { return Ok(CommitFiles::default()) };
        let run = shared::word(directory);
        check(directory, &run)?;
        let of_run = || RunDirectory::open(directory).ok()?.config().ok()?.keep_every;
        let every = self.every.or_else(of_run).filter(|every| *every > 0);
        // The steps of a commit are known once it is read.
        let most = if every.is_some() { usize::MAX } else { self.last };
        let LastCommits { mut commits, passed_over } = Commits::of(directory).last(most)?;
        passed_over.into_iter().for_each(|it| println!("warning: {:#}", anyhow::Error::new(it)));
        let all = commits.len();
        if let Some(every) = every {
            series(&mut commits, every);
        }
        let kind = every.map(|every| format!(", the first at or after each {every} steps"));
        let kind = kind.unwrap_or_default();
        let count = commits.len();
        let way_on = match all {
            2.. => format!(", of {all} commits; --every 0 takes all of them"),
            _ => "; `train --keep-every STEPS` keeps more".to_owned(),
        };
        ensure!(count >= 2, "{run}: a merge needs 2 commits or more, found {count}{kind}{way_on}");
        commits.drain(..count.saturating_sub(self.last));
        if count < self.last {
            println!("note: {run} has {count} commits{kind}, fewer than --last {}", self.last);
        }
        let steps: Vec<_> = commits.iter().map(|it| it.manifest().steps.to_string()).collect();
        let kind = if kind.is_empty() { ", whatever their distances" } else { &kind };
        let (what, prefix) = match (commits[0].manifest().parts.first(), self.average) {
            (Some((name, _)), true) => {
                (format!("the average {name}"), format!("averages.{name}.weights"))
            }
            (Some(_), false) => ("live".to_owned(), "live".to_owned()),
            (None, average) => {
                ensure!(!average, "{run} has no averages: leave out --average");
                ("live".to_owned(), String::new())
            }
        };
        println!("{what} at commits of {run}{kind}, at the steps {}", steps.join(", "));
        let files = commits.iter().map(|commit| {
            let said = match self.average {
                true => commit.describe_average("")?,
                false => Description::new("live", commit.manifest().steps, ""),
            };
            anyhow::Ok((commit.path().join("model.bpk"), said))
        });
        Ok(CommitFiles { files: files.collect::<Result<_>>()?, prefix: Some(prefix) })
    }
}

/// Keeps the first commit at or after each multiple of so many steps, as the run does.
fn series(commits: &mut Vec<Commit>, every: u64) {
    let mut last = 0;
    commits.retain(|commit| {
        let interval = commit.manifest().steps / every;
        let is_first = interval > last;
        last = interval.max(last);
        is_first
    });
}

/// Refuses what is no run with commits.
fn check(directory: &Path, run: &str) -> Result<()> {
    const MAKE: &str = "`cargo run --example train -- --run DIR` makes one";
    if !directory.exists() {
        bail!("--run {run}: expected the directory of a run, found nothing of this name; {MAKE}");
    }
    if !directory.is_dir() {
        bail!(
            "--run {run}: expected the directory of a run, found a file; without --run it is one \
               of the files to merge"
        );
    }
    let commits = Commits::of(directory);
    if commits.list()?.is_empty() {
        let place = commits.path().display();
        bail!("--run {run}: expected a run with commits in {place}, found none; {MAKE}");
    }
    Ok(())
}
