//! A server with another backend than the commits were made on.

use std::{path::Path, process::Command};

use burn::tensor::Device;
use burn_ema::runs::Commits;

use crate::{
    common::{assert_close, assert_same},
    digits::{STEPS, Traps, trained},
    server::Server,
};

fn flex() -> Server {
    Server::start()
}

fn ndarray() -> Server {
    Server::with(&["--backend", "ndarray"])
}

/// A run whose server dies in the second epoch.
fn killed(run: &Path, seed: u64) {
    let server = std::sync::Arc::new(flex());
    let device = server.device();
    let train = move |batch| {
        if batch == STEPS + 5 {
            server.kill()
        }
    };
    let traps = Traps { train: std::sync::Arc::new(train), ..Traps::none() };
    trained(run, seed, &device, &traps).map(|_| ()).expect_err("a training on a dead server");
}

/// The run goes on from the newest commit, as on this machine with that backend; every commit
/// stays.
#[test]
fn a_run_goes_on_as_on_that_backend_here() {
    #[allow(deprecated, reason = "a second CPU implementation to compare with")]
    let here = Device::ndarray();
    for seed in 0..3 {
        let [killed_run, whole, local] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        killed(killed_run.path(), seed);
        let before = Commits::of(killed_run.path()).list().unwrap();
        assert!(!before.is_empty());
        let copied = Command::new("cp").arg("-rT").args([killed_run.path(), local.path()]).status();
        assert!(copied.unwrap().success());

        let server = ndarray();
        let resumed = trained(killed_run.path(), seed, &server.device(), &Traps::none()).unwrap();
        assert_same(&resumed, &trained(local.path(), seed, &here, &Traps::none()).unwrap());

        let flex = trained(whole.path(), seed, &Device::flex(), &Traps::none()).unwrap();
        assert_ne!(resumed, flex, "the backends round otherwise");
        assert_close(&resumed, &flex, 1e-6);
        let [after, undisturbed] =
            [&killed_run, &whole].map(|run| Commits::of(run.path()).list().unwrap());
        assert_eq!(after, undisturbed);
        assert!(before.iter().all(|commit| after.contains(commit)));
    }
}
