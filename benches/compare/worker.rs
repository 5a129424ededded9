//! PyTorch in a process of its own, asked and answered in lines of JSON.

use std::{
    cell::RefCell,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    rc::Rc,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::contest::Contestant;

/// Part of the program, which may run on another machine than the one that built it.
const SCRIPT: &str = include_str!("pytorch.py");

/// A running `pytorch.py`.
#[derive(Clone)]
pub struct Torch {
    worker: Rc<RefCell<Worker>>,
    pub version: String,
    /// The name of the GPU that it reaches by CUDA, if there is one.
    #[allow(dead_code)] // for the measurements on a GPU
    pub cuda: Option<String>,
}

struct Worker {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Ready { version: String, cuda: Option<String> },
    Time { nanoseconds: f64 },
    Error { error: String },
}

impl Torch {
    /// Starts it with so many threads, and waits until it is ready.
    pub fn start(python: &Path, threads: usize) -> Result<Self> {
        let mut command = Command::new(python);
        let threads = threads.to_string();
        command.args(["-c", SCRIPT, &threads]).env("OMP_NUM_THREADS", &threads);
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = started.with_context(|| {
            format!("{} cannot be started; --python names another", python.display())
        })?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (requests, answers) = pipes.context("a process without pipes")?;
        let mut worker = Worker { process, requests, answers: BufReader::new(answers) };
        match worker.answer()? {
            Answer::Ready { version, cuda } => {
                Ok(Self { worker: Rc::new(worker.into()), version, cuda })
            }
            Answer::Error { error } => bail!("{error}, and --python names another Python"),
            Answer::Time { .. } => bail!("PyTorch's side begins with a time"),
        }
    }

    /// One that runs a workload there.
    pub fn contestant(&self, name: &str, work: Value) -> Contestant {
        let worker = self.worker.clone();
        Contestant::new(name, move |repeat| worker.borrow_mut().run(&work, repeat))
    }

    /// Gives back what was made for the workloads so far.
    pub fn forget(&self) -> Result<()> {
        self.worker.borrow_mut().request(&json!({"forget": true}))
    }
}

impl Worker {
    fn run(&mut self, work: &Value, repeat: usize) -> Result<f64> {
        self.request(&json!({"work": work, "repeat": repeat}))?;
        match self.answer()? {
            Answer::Time { nanoseconds } => Ok(nanoseconds),
            Answer::Error { error } => bail!("{error}"),
            Answer::Ready { .. } => bail!("PyTorch's side started anew"),
        }
    }

    fn request(&mut self, request: &Value) -> Result<()> {
        writeln!(self.requests, "{request}").context("PyTorch's side ended")
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            bail!("PyTorch's side ended: {}", self.process.wait()?);
        }
        serde_json::from_str(&line).with_context(|| format!("PyTorch's side says {}", line.trim()))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be in the midst of a workload, or what was named may be no Python at all.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
