//! Parts of a test in processes of their own.
//!
//! A device of a server has a thread in its client that looks for work every 150 microseconds until
//! the process ends: 160 devices of one process took all of two cores.

use std::{
    env,
    process::{Command, Output, Stdio},
};

const VARIABLE: &str = "BURN_EMA_PART";

/// Does each part of a test, in this process if it was started for that part alone. Returns what
/// the parts print.
pub fn each(test: &str, parts: usize, part: impl Fn(usize)) -> Vec<String> {
    if let Ok(number) = env::var(VARIABLE) {
        part(number.parse().unwrap());
        return Vec::new();
    }
    (0..parts).map(|number| alone(test, number)).collect()
}

fn alone(test: &str, part: usize) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(VARIABLE, part.to_string());
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(status.success() && stdout.contains("1 passed"), "part {part}\n{stdout}\n{stderr}");
    stdout
}
