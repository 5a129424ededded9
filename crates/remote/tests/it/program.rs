//! The example `train` on servers: a token, a server that is lost, and another one that goes on.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use burn_ema::runs::Commits;

use crate::server::Server;

const TOKEN: &str = "open sesame";

/// The example on a server, whose token it has.
fn train(run: &Path, server: &Server, options: &[&str]) -> Command {
    let tests = std::env::current_exe().unwrap();
    let file = tests.ancestors().nth(2).unwrap().join("examples/train");
    let build = "cargo build --features remote --example train";
    assert!(file.exists(), "{} is missing: run `{build}`", file.display());
    let mut command = Command::new(file);
    command.env_remove("BURN_DEVICE").env_remove("RUST_BACKTRACE");
    command.env("BURN_REMOTE_TOKEN", TOKEN).stdin(Stdio::null());
    command.args(["--device", &server.address, "--run"]).arg(run).args(options);
    command
}

/// The standard output of a training that succeeds.
fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(status.success(), "{stdout}\n{stderr}");
    stdout
}

/// The standard error of a training that fails.
fn fails(Output { status, stderr, .. }: Output) -> String {
    assert_eq!(status.code(), Some(1));
    String::from_utf8(stderr).unwrap()
}

#[test]
fn a_run_says_which_server_was_lost_and_which_it_goes_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let first = Server::with(&["--token", TOKEN]);

    let mut command = train(&run, &first, &["--epochs", "1"]);
    let error = fails(command.env("BURN_REMOTE_TOKEN", "open rye").output().unwrap());
    assert!(error.contains("BURN_REMOTE_TOKEN holds another token"), "{error}");
    assert!(!run.exists());

    let mut command = train(&run, &first, &["--epochs", "8", "--batch-size", "32"]);
    let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !Commits::of(&run).list().is_ok_and(|commits| !commits.is_empty()) {
        assert!(start.elapsed() < Duration::from_secs(120), "no commit");
        thread::sleep(Duration::from_millis(5));
    }
    first.kill();
    let error = fails(process.wait_with_output().unwrap());
    let lost = format!("the training on remote: {} has ended; this goes on", first.address);
    println!("{error}");
    assert!(error.contains(&lost), "{error}");

    let second = Server::with(&["--token", TOKEN, "--backend", BACKEND]);
    let [from, to] = [&first, &second].map(|server| format!("remote: {}", server.address));
    let note = format!(
        "note: until here the run was on {from}, whose numbers may round otherwise than those of \
         {to}\n"
    );
    let said = succeeds(&mut train(&run, &second, &["--resume"]));
    assert!(said.contains(&note) && said.contains("resuming after epoch "), "{said}");
    // Not another one for a server at the same address.
    let said = succeeds(&mut train(&run, &second, &["--resume", "--epochs", "9"]));
    assert!(!said.contains("whose numbers"), "{said}");
    assert!(said.contains("resuming after epoch 8, "), "{said}");
}

/// Another one than the first server's, where it is compiled in.
const BACKEND: &str = if cfg!(feature = "ndarray") { "ndarray" } else { "flex" };
