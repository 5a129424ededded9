//! PyTorch beside us, or the reason why it is not measured.

use std::{path::Path, thread};

use anyhow::{Result, anyhow};
use serde_json::Value;

use crate::{contest::Contestant, worker::Torch};

/// PyTorch and the device that it runs on.
#[derive(Clone)]
pub struct Peer(Result<(Torch, &'static str), String>);

impl Peer {
    /// Starts PyTorch on CUDA, or on the CPU beside a driver in software.
    pub fn start(python: &Path, on_cpu: bool) -> Self {
        let threads = thread::available_parallelism().map_or(1, Into::into);
        let torch = Torch::start(python, threads).map_err(|error| format!("{error:#}"));
        Self(torch.and_then(|torch| match (&torch.cuda, on_cpu) {
            (Some(_), _) => Ok((torch, "cuda")),
            (None, true) => Ok((torch, "cpu")),
            (None, false) => Err(format!("PyTorch {} finds no GPU for CUDA", torch.version)),
        }))
    }

    /// One that runs a workload there; without PyTorch, one that cannot run.
    pub fn contestant(&self, name: &str, mut work: Value) -> Contestant {
        match self.0.clone() {
            Ok((torch, device)) => {
                work["device"] = device.into();
                torch.contestant(name, work)
            }
            Err(_) => Contestant::new(name, |_| Err(anyhow!("PyTorch is not measured, see above"))),
        }
    }

    /// Gives back what was made for the workloads so far.
    pub fn forget(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |(torch, _)| torch.forget())
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Ok((torch, device)) => {
                write!(f, "{} on {}", torch.version, torch.cuda.as_deref().unwrap_or(device))
            }
            Err(reason) => write!(f, "not measured: {reason}"),
        }
    }
}
