//! The system calls of a run, as strace shows them, and faults in one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Output},
};

use super::workload::{Ended, Plan};

/// The calls by which a run reads and writes.
pub const CALLS: [&str; 21] = [
    "openat",
    "read",
    "write",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
    "unlink",
    "unlinkat",
    "rmdir",
    "statx",
    "newfstatat",
    "getdents64",
    "fcntl",
    "ftruncate",
    "lseek",
    "flock",
    "close",
];

/// A system call, in the order in which they began.
#[derive(Debug)]
pub struct Call {
    pub thread: u32,
    pub name: String,
    /// Its arguments and its result; a descriptor has its path beside it.
    pub text: String,
    /// The places of its beginning and its end among all beginnings and ends.
    pub began: usize,
    pub ended: usize,
}

/// A command that runs through another.
pub fn through(program: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(program[0]);
    outer.args(&program[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// Runs a plan, and returns its calls.
pub fn record(plan: &Plan, log: &Path) -> (Ended, Vec<Call>) {
    let path = log.to_str().unwrap();
    let traced = format!("trace={}", CALLS.join(","));
    let strace = ["strace", "-f", "-y", "-s", "0", "-o", path, "-e", &traced];
    let output = through(&strace, &plan.command()).output();
    let ended = Ended::of(output.expect("strace, which `apt-get install strace` installs"));
    (ended, parse(&fs::read_to_string(log).unwrap()))
}

fn parse(log: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: BTreeMap<u32, usize> = BTreeMap::new();
    for (place, line) in log.lines().enumerate() {
        let (thread, rest) = line.split_once(' ').unwrap();
        let (thread, rest) = (thread.parse().unwrap(), rest.trim_start());
        if rest.starts_with("<... ") {
            // The rest of a call that others came between.
            let call = &mut calls[open.remove(&thread).unwrap()];
            call.text += rest.split_once("resumed>").unwrap().1;
            call.ended = place;
        } else if let Some((name, text)) = rest.split_once('(')
            && !rest.starts_with("+++")
            && !rest.starts_with("---")
        {
            let text = match text.strip_suffix(" <unfinished ...>") {
                Some(text) => {
                    open.insert(thread, calls.len());
                    text
                }
                None => text,
            };
            let (name, text) = (name.to_owned(), text.to_owned());
            calls.push(Call { thread, name, text, ended: place, began: place });
        }
    }
    calls
}

impl Call {
    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }

    pub fn succeeded(&self) -> bool {
        self.text.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with('-'))
    }

    pub fn result(&self) -> u64 {
        let result = self.text.rsplit_once(" = ").unwrap().1;
        result.split(['<', ' ']).next().unwrap().parse().unwrap()
    }

    /// The path of the descriptor that is its first argument.
    pub fn of(&self) -> Option<&str> {
        let (_, rest) = self.text.split_once('<')?;
        Some(rest.split_once('>')?.0)
    }

    /// The paths that it was given.
    pub fn paths(&self) -> Vec<&str> {
        self.text.split('"').skip(1).step_by(2).collect()
    }

    /// All that it was given by which strace knows a file: paths, and those of descriptors.
    fn given(&self) -> Vec<&str> {
        let given = self.text.rsplit_once(" = ").map_or(&*self.text, |(given, _)| given);
        let parts = given.split(['"', '<', '>']).filter(|part| part.starts_with('/'));
        // Of a `rename`, strace looks at the old name alone.
        parts.take(if self.is("rename") { 1 } else { usize::MAX }).collect()
    }
}

/// A call that strace can strike.
#[derive(Debug)]
pub struct Strike {
    pub name: String,
    /// Of what, seen from the directory that the run's own is in.
    pub path: String,
    /// Which call of this name with this path in its thread, from 1, as strace counts.
    pub number: usize,
    /// The newest commit that is certainly there by then.
    pub committed: Option<String>,
}

impl Strike {
    /// Runs a plan in which this call has another end, `error=EIO` or `signal=SIGKILL`, beside a
    /// log of it.
    #[track_caller]
    pub fn on(&self, plan: &Plan, end: &str) -> Output {
        let Self { name, path, number, .. } = self;
        let base = plan.run.parent().unwrap().display();
        let (path, log) = (format!("{base}{path}"), format!("{base}/strace"));
        let traced = format!("trace={name}");
        let inject = format!("inject={name}:{end}:when={number}");
        let strace = ["strace", "-f", "-qq", "-o", &log, "-P", &path];
        let strace = [&strace[..], &["-e", &traced, "-e", &inject]].concat();
        let output = through(&strace, &plan.command()).output().unwrap();
        let log = fs::read_to_string(log).unwrap();
        // A kill leaves its call unfinished.
        let struck = output.status.signal() == Some(9) || log.contains("(INJECTED)");
        assert!(struck, "no call was struck: {log}");
        output
    }
}

/// Of a recorded run that keeps two commits: each call of one commit, from the moment when it is
/// begun until the next one is, and those of the other threads in the run's directory.
pub fn strikes(calls: &[Call], run: &Path) -> Vec<Strike> {
    let base = run.parent().unwrap().to_str().unwrap();
    let begins = |call: &Call| call.is("mkdir") && call.text.contains("/.unfinished-");
    let ends = |call: &Call| call.is("rename") && call.paths()[0].contains("/.unfinished-");
    let starts: Vec<_> = (0..calls.len()).filter(|index| begins(&calls[*index])).collect();
    let committing = calls[starts[0]].thread;
    let last = calls.iter().rposition(|call| call.thread == committing).unwrap();
    let key = |index: usize| {
        let call: &Call = &calls[index];
        let path = call.given().into_iter().find(|path| path.starts_with(base))?;
        let same = |other: &&Call| {
            other.thread == call.thread && other.name == call.name && other.given().contains(&path)
        };
        let number = calls[..=index].iter().filter(same).count();
        // Of `fcntl`, only what makes another descriptor does something.
        let idle = call.is("fcntl") && !call.text.contains("F_DUPFD");
        (!idle).then(|| (call.name.clone(), path[base.len()..].to_owned(), number))
    };

    // strace strikes in each thread, and must not when the process prints its result.
    let late: BTreeSet<_> = (last + 1..calls.len()).filter_map(key).collect();
    // From the third on, a commit also removes an old one.
    let mut commits = starts[2..].windows(2).map(|bounds| {
        let commit = (bounds[0]..bounds[1]).filter(|index| calls[*index].thread == committing);
        commit.filter_map(key).collect::<BTreeSet<_>>()
    });
    let commit = commits.find(|commit| commit.is_disjoint(&late)).unwrap();
    let beside = (0..last).filter(|index| calls[*index].thread != committing).filter_map(key);
    let beside = beside.filter(|key| !late.contains(key));

    let mut first = BTreeMap::new();
    for index in 0..last {
        if let Some(key) = key(index) {
            first.entry(key).or_insert(index);
        }
    }
    let strikes: BTreeSet<_> = beside.chain(commit).collect();
    let strikes = strikes.into_iter().map(|key| {
        let struck = first[&key];
        // What the thread that commits did before is done; of another one, who knows.
        let before = match calls[struck].thread == committing {
            true => &calls[..struck],
            false => &[],
        };
        let newest = before.iter().rfind(|call| ends(call) && call.succeeded());
        let newest = newest.and_then(|call| Path::new(call.paths()[1]).file_name()?.to_str());
        let (name, path, number) = key;
        Strike { name, path, number, committed: newest.map(str::to_owned) }
    });
    strikes.collect()
}
