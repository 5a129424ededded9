//! The lock of a run: one process at a time, freed however that ends.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use burn_ema::{Error, runs::RunLock};

use crate::{
    child::{self, Child},
    survive::rows,
};

/// Takes the lock, says what came of it, and waits for the end of its standard input.
#[test]
#[ignore = "a process that other tests start"]
fn holder() {
    let Some(directory) = child::task() else { return };
    let lock = RunLock::take(directory);
    match &lock {
        Ok(_) => child::say("held"),
        Err(error) => child::say(&error.to_string()),
    }
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn start(directory: &Path) -> Child {
    Child::start(child::command(&[], "lock::holder", directory.to_str().unwrap()))
}

#[track_caller]
fn refusal(directory: &Path) -> String {
    let error = RunLock::take(directory).unwrap_err();
    assert!(matches!(&error, Error::Locked { path, .. } if path == directory), "{error:?}");
    error.to_string()
}

fn text(directory: &Path) -> String {
    fs::read_to_string(directory.join("LOCK")).unwrap()
}

/// `pid 123 on box`, of this process id.
#[track_caller]
fn assert_names(line: &str, pid: u32) {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(line, format!("pid {pid} on {}", host.trim()));
}

#[test]
fn a_second_process_learns_who_has_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = start(directory.path());
    first.says("held");
    let mut second = start(directory.path());
    let refusals = [second.line(), refusal(directory.path())];
    for message in &refusals {
        let beginning = format!("cannot use {}: it is locked by ", directory.path().display());
        assert_names(message.strip_prefix(&beginning).unwrap(), first.pid());
    }
    first.go_on();
    assert_eq!(first.end(), Ok(0));
    assert_eq!(text(directory.path()), "", "a holder that ends clears its line");
    drop(RunLock::take(directory.path()).unwrap());
}

#[test]
fn of_eight_at_once_one_holds() {
    const ROUNDS: usize = 4;
    let mut refused = 0;
    for _ in 0..ROUNDS {
        let directory = tempfile::tempdir().unwrap();
        let mut children: Vec<_> = (0..8).map(|_| start(directory.path())).collect();
        let said: Vec<_> = children.iter_mut().map(Child::line).collect();
        let holders: Vec<_> = (0..8).filter(|&index| said[index] == "held").collect();
        assert_eq!(holders.len(), 1, "{said:?}");
        let pid = children[holders[0]].pid();
        let message = |holder: &str| {
            format!("cannot use {}: it is locked by {holder}", directory.path().display())
        };
        for said in said.iter().filter(|said| *said != "held") {
            // One that looks between the lock and its line sees no name yet.
            let named = said.starts_with(&message(&format!("pid {pid} on ")));
            assert!(named || *said == message("another process"), "{said}");
            refused += 1;
        }
    }
    assert_eq!(refused, ROUNDS * 7);
}

#[test]
fn a_holder_that_is_killed_frees_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let mut holder = start(directory.path());
        holder.says("held");
        refusal(directory.path());
        holder.signal(rustix::process::Signal::KILL);
        assert_eq!(holder.end(), Err(9));
        assert_names(text(directory.path()).trim_end(), holder.pid());
    }
    let lock = RunLock::take(directory.path()).unwrap();
    assert_names(text(directory.path()).trim_end(), std::process::id());
    drop(lock);
    rows::ran(20, 5);
}

#[test]
fn the_same_process_is_refused_a_second_time_and_a_drop_frees() {
    let [one, other] = [0, 1].map(|_| tempfile::tempdir().unwrap());
    for _ in 0..3 {
        let lock = RunLock::take(one.path()).unwrap();
        let message = refusal(one.path());
        assert!(message.contains(&format!("by pid {} on ", std::process::id())), "{message}");
        drop(RunLock::take(other.path()).unwrap());
        drop(lock);
        assert!(one.path().join("LOCK").is_file(), "the file stays");
    }
}

/// Between its fork and its exec, a child has the files of its parent open.
#[test]
fn a_child_that_is_being_started_does_not_keep_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    assert!(Command::new("true").status().unwrap().success());
                }
            });
        }
        let taken: Result<Vec<_>, _> =
            (0..20_000).map(|_| RunLock::take(directory.path()).map(drop)).collect();
        done.store(true, Relaxed);
        assert_eq!(taken.unwrap().len(), 20_000);
    });
}

/// Neither a line of another process, alive or not, nor any other bytes lock anything.
#[test]
fn what_is_left_over_in_the_file_locks_nothing_and_is_not_shown() {
    let own = format!("pid {} on box\n", std::process::id());
    let long = vec![b'x'; 1 << 20];
    let long_line = [b"pid ", &long[..], b"\n"].concat();
    let left_over: [(&[u8], &str); 11] = [
        (b"", "another process"),
        (b"\n", "another process"),
        (b"pid 1 on box\n", "pid 1 on box"),
        (own.as_bytes(), own.trim_end()),
        (b"pid 4194305 on box", "another process"),
        (b"\xff\xfe\x00\n", "another process"),
        (b"pid \xff\n", "another process"),
        (b"pid 1\x1b[2J on box\n", "another process"),
        (b"pid 1\npid 2\n", "another process"),
        (&long, "another process"),
        (&long_line, "another process"),
    ];
    let mut cases = 0;
    for (bytes, shown) in left_over {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("LOCK"), bytes).unwrap();
        let lock = RunLock::take(directory.path()).unwrap();
        let line = text(directory.path());
        assert_names(line.strip_suffix('\n').unwrap(), std::process::id());
        drop(lock);

        // Beside a lock that says something else.
        fs::write(directory.path().join("LOCK"), bytes).unwrap();
        let other = File::open(directory.path().join("LOCK")).unwrap();
        other.lock().unwrap();
        let expected =
            format!("cannot use {}: it is locked by {shown}", directory.path().display());
        assert_eq!(refusal(directory.path()), expected);
        assert_eq!(fs::read(directory.path().join("LOCK")).unwrap(), bytes, "it is the other's");
        cases += 1;
    }
    assert_eq!(cases, 11);
    rows::ran(26, cases);
}

#[test]
fn a_lock_that_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("file"), "").unwrap();
    fs::create_dir_all(at("occupied/LOCK")).unwrap();
    for name in ["missing", "file", "occupied"] {
        let error = RunLock::take(at(name)).unwrap_err().to_string();
        assert_eq!(error, format!("cannot open {}", at(name).join("LOCK").display()));
    }
    assert!(!at("missing").exists(), "it makes no directory");
    // A file that takes no such text; it is this process's own.
    let file = "/proc/self/oom_score_adj";
    fs::create_dir(at("odd")).unwrap();
    symlink(file, at("odd/LOCK")).unwrap();
    let error = RunLock::take(at("odd")).unwrap_err().to_string();
    assert_eq!(error, format!("cannot write {}", at("odd/LOCK").display()));
    File::open(file).unwrap().try_lock().expect("a failed take holds nothing");
}
