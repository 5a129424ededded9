//! Faults that hit a process: kills, calls that fail, full disks, signals, other processes.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fmt::Debug,
    fs,
    os::unix::{fs::symlink, process::ExitStatusExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use burn::tensor::Bytes;
use burn_ema::runs::{Commits, Newest, Progress};
use burn_pack::Reader;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    rows,
    trace::{self, Call, Strike},
    workload::{Ended, Plan, Site, scratch, unfinished},
};
use crate::examples::{example, succeeds};

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Another one each time, unless it is given; printed, so that it can be given.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("SURVIVE_SEED", now.as_nanos() as u64 % 1_000_000_000);
    println!("SURVIVE_SEED={seed}");
    seed
}

/// Runs cases two at a time, each with a directory of its own, which stays if the case fails.
fn two_at_a_time<C: Debug + Sync>(
    scratch: TempDir,
    cases: &[C],
    run: impl Fn(usize, &C, &Path) + Sync,
) {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(index) else { break };
            let directory = scratch.path().join(format!("case-{index}"));
            fs::create_dir(&directory).unwrap();
            match catch_unwind(AssertUnwindSafe(|| run(index, case, &directory))) {
                Ok(()) => fs::remove_dir_all(&directory).unwrap(),
                Err(_) => failed.lock().unwrap().push(format!("{}: {case:?}", directory.display())),
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let failed = failed.into_inner().unwrap();
    println!("{} cases, {} failed", cases.len(), failed.len());
    if !failed.is_empty() {
        let _ = scratch.keep();
        panic!("failed: {failed:#?}");
    }
}

/// What is to be seen of a run at any instant: the newest commit is whole, and never an older one
/// than before.
#[derive(Default)]
struct Watch {
    newest: Option<Progress>,
}

impl Watch {
    #[track_caller]
    fn look(&mut self, run: &Path) {
        let Newest { commit, passed_over } = Commits::of(run).newest().unwrap();
        assert!(passed_over.is_empty(), "{passed_over:?}");
        let progress = commit.map(|commit| commit.progress());
        assert!(progress >= self.newest, "{progress:?} after {:?}", self.newest);
        self.newest = progress;
    }
}

fn quietly(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
#[ignore = "takes a minute"]
fn killed_at_random_instants() {
    let (seed, runs) = (seed(), number("KILLS", 60));
    let scratch = scratch();
    let start = Instant::now();
    let golden = Plan::new(scratch.path().join("golden")).golden();
    let whole = start.elapsed();
    let (kills, within) = (AtomicUsize::new(0), AtomicUsize::new(0));
    two_at_a_time(scratch, &(0..runs).collect::<Vec<_>>(), |_, run, directory| {
        let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_add(run << 32));
        let plan = Plan { resume: true, ..Plan::new(directory.join("run")) };
        let commits = Commits::of(&plan.run).path().to_owned();
        let mut watch = Watch::default();
        let (wanted, mut had) = (random.random_range(1..=4), 0);
        for attempt in 0.. {
            assert!(attempt < 50, "never in time");
            // At any time, or when so many commits were seen half written and a little later.
            let mut at = random.random_bool(0.5).then(|| whole.mul_f64(random.random()));
            let mut sights = random.random_range(1..=6);
            let later = Duration::from_micros(random.random_range(0..6000));
            let left_before = unfinished(&commits);
            let (start, mut last) = (Instant::now(), None);
            let mut child = quietly(plan.command());
            while child.try_wait().unwrap().is_none() {
                if at.is_some_and(|at| start.elapsed() >= at) {
                    break;
                }
                let seen = unfinished(&commits);
                if at.is_none() && seen.is_some() && seen != last {
                    sights -= 1;
                    at = (sights == 0).then(|| start.elapsed() + later);
                    last = seen;
                }
                if at.is_none_or(|at| at - start.elapsed().min(at) > Duration::from_millis(10)) {
                    watch.look(&plan.run);
                }
                thread::sleep(Duration::from_micros(200));
            }
            child.kill().unwrap();
            let killed = child.wait().unwrap().signal() == Some(9);
            let left = unfinished(&commits);
            within.fetch_add((left.is_some() && left != left_before).into(), Ordering::Relaxed);
            watch.look(&plan.run);
            all_whole(&plan.run);
            // What is at its end has nothing to lose: such a kill is none.
            if killed && watch.newest < Some(Progress::after(plan.epochs)) {
                had += 1;
                if had == wanted {
                    break;
                }
            } else if had > 0 {
                break;
            } else {
                let _ = fs::remove_dir_all(&plan.run);
                watch = Watch::default();
            }
        }
        kills.fetch_add(had, Ordering::Relaxed);
        goes_on(&plan, &golden, None);
    });
    let (kills, within) = (kills.into_inner(), within.into_inner());
    println!("{runs} runs, {kills} kills, {within} of them within a commit");
    assert!(kills >= runs as usize && within > 0);
    rows::ran(1, runs as usize);
}

/// A run that is traced: what it came to, and where it can be struck.
fn traced(scratch: &TempDir) -> (String, Vec<Strike>) {
    let directory = scratch.path().join("traced");
    fs::create_dir(&directory).unwrap();
    let plan = keeping(directory.join("run"));
    let (ended, calls) = trace::record(&plan, &scratch.path().join("log"));
    let strikes = trace::strikes(&calls, &plan.run);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    strikes.iter().for_each(|strike| *counts.entry(&strike.name).or_insert(0) += 1);
    println!("{counts:?}");
    (ended.digest(), strikes)
}

fn small(run: impl Into<PathBuf>) -> Plan {
    Plan { epochs: 3, ..Plan::new(run) }
}

/// A plan whose commits are at the steps 3, 6, 8, 11, 14, 16, 19, 22 and 24, and that keeps the first
/// of each 7 steps.
fn keeping(run: impl Into<PathBuf>) -> Plan {
    Plan { keep_every: Some(7), ..small(run) }
}

/// The commits that [`keeping`] keeps beside the best: at the steps 8, 14 and 22, and the newest two.
const KEPT: [Progress; 4] = [
    Progress { epochs: 1, batches: 0 },
    Progress { epochs: 1, batches: 6 },
    Progress { epochs: 2, batches: 6 },
    Progress { epochs: 3, batches: 0 },
];

/// Kills between any two commits, and the run that goes on keeps what an undisturbed run keeps.
#[test]
fn the_commits_that_are_kept_survive_kills() {
    let scratch = scratch();
    let golden = keeping(scratch.path().join("golden"));
    let digest = golden.golden();
    assert_kept(&golden);
    for (epochs, batches) in [(0, 3), (1, 0), (1, 6), (2, 0), (2, 6)] {
        let directory = scratch.path().join(format!("{epochs}-{batches}"));
        fs::create_dir(&directory).unwrap();
        let plan = Plan { pause: 30, ..keeping(directory.join("run")) };
        let mut child = quietly(plan.command());
        while plan.commits().last() < Some(&Progress { epochs, batches }) {
            assert!(child.try_wait().unwrap().is_none(), "it ended before {epochs}, {batches}");
            thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        all_whole(&plan.run);
        assert_eq!(plan.resumed(), digest);
        assert_eq!(plan.commits(), golden.commits(), "{epochs}, {batches}");
    }
}

#[track_caller]
fn assert_kept(plan: &Plan) {
    let commits = plan.commits();
    assert!(KEPT.iter().all(|place| commits.contains(place)), "{commits:?}");
    assert!(commits.len() <= KEPT.len() + 1, "{commits:?}");
}

/// Whatever bears the name of a commit is whole, where no process is at work.
#[track_caller]
fn all_whole(run: &Path) {
    let commits = Commits::of(run);
    for place in commits.list().unwrap() {
        let opened = commits.open(place);
        assert!(opened.is_ok(), "{opened:?}");
    }
}

/// What was committed before a strike is there, and the run goes on from it, and leaves nothing
/// half done behind.
#[track_caller]
fn goes_on(plan: &Plan, golden: &str, committed: Option<&str>) {
    all_whole(&plan.run);
    let commits = Commits::of(&plan.run);
    let newest = commits.newest().unwrap().commit;
    let newest = newest.as_ref().and_then(|commit| commit.path().file_name()?.to_str());
    // The names are in the order of the places.
    assert!(newest >= committed, "{newest:?}, of {committed:?}");
    let ended = Plan { resume: true, ..plan.clone() }.run();
    assert_eq!(ended.digest(), golden);
    assert_eq!(ended.says("PASSED OVER"), None);
    if plan.keep_every.is_some() {
        // A commit that could not be written may be missing; then the next one is the first of its
        // 7 steps.
        let kept = plan.commits();
        let first_of =
            |seventh| kept.iter().any(|place| (8 * place.epochs + place.batches) / 7 == seventh);
        assert!((1..=3).all(first_of) && KEPT[2..].iter().all(|it| kept.contains(it)), "{kept:?}");
        assert!(kept.len() <= KEPT.len() + 1, "{kept:?}");
    }
    for entry in fs::read_dir(commits.path()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(name.to_str().unwrap().starts_with("epoch-"), "{name:?}");
    }
}

#[test]
#[ignore = "needs strace"]
fn killed_at_every_call() {
    let scratch = scratch();
    let (golden, strikes) = traced(&scratch);
    two_at_a_time(scratch, &strikes, |_, strike, directory| {
        let plan = keeping(directory.join("run"));
        let output = strike.on(&plan, "signal=SIGKILL");
        assert_eq!(output.status.signal(), Some(9), "{output:?}");
        goes_on(&plan, &golden, strike.committed.as_deref());
    });
    rows::ran(2, strikes.len());
}

#[test]
#[ignore = "needs strace"]
fn every_call_fails() {
    let scratch = scratch();
    let (golden, strikes) = traced(&scratch);
    let mut cases = Vec::new();
    // What closes a file is of no interest.
    for strike in strikes.iter().filter(|strike| strike.name != "close") {
        for error in ["ENOSPC", "EIO", "EDQUOT", "EACCES", "EINTR"] {
            cases.push((strike, format!("error={error}")));
        }
        // A write that takes nothing, and calls that no error.
        if strike.name == "write" {
            cases.push((strike, "retval=0".to_owned()));
        }
    }
    let ended_well = AtomicUsize::new(0);
    two_at_a_time(scratch, &cases, |_, (strike, end), directory| {
        let plan = keeping(directory.join("run"));
        let ended = Ended::of(strike.on(&plan, end));
        match fails_in_order(&ended, &plan.run) {
            Some(_) => {}
            None => {
                assert_eq!(ended.digest(), golden);
                ended_well.fetch_add(1, Ordering::Relaxed);
            }
        }
        goes_on(&plan, &golden, strike.committed.as_deref());
    });
    println!("{} of them ended well", ended_well.into_inner());
    rows::ran(3, cases.len());
}

/// A disk that says that it took a byte which it did not.
#[test]
#[ignore = "needs strace"]
fn a_lost_byte_is_found_when_the_commit_is_read_back() {
    let scratch = scratch();
    let (golden, strikes) = traced(&scratch);
    let written = |strike: &Strike| strike.name == "write" && strike.path.contains("/.unfinished-");
    let strikes: Vec<_> = strikes.into_iter().filter(written).collect();
    two_at_a_time(scratch, &strikes, |_, strike, directory| {
        let plan = keeping(directory.join("run"));
        let error = fails_in_order(&Ended::of(strike.on(&plan, "retval=1")), &plan.run).unwrap();
        let path = plan.run.parent().unwrap().join(strike.path[1..].replace(".unfinished-", ""));
        let start = format!("cannot use the commit of {}: ", path.display());
        assert!(error.starts_with(&start), "{error}");
        // The next one may have been on its way.
        let newest = Commits::of(&plan.run).newest().unwrap().commit.unwrap();
        let newest = newest.path().file_name().and_then(OsStr::to_str);
        assert!(newest >= strike.committed.as_deref(), "{newest:?}");
        assert_eq!(Plan { resume: true, ..plan }.run().digest(), golden);
    });
    rows::ran(3, strikes.len());
}

/// The error that a child ended with, if it did; no panic, no signal, and it names a file of the
/// run, or the directory that the run is in.
#[track_caller]
fn fails_in_order(ended: &Ended, run: &Path) -> Option<String> {
    assert!(ended.output.status.success(), "{ended:?}");
    let panicked = String::from_utf8_lossy(&ended.output.stderr).contains("panicked");
    assert!(!panicked, "{ended:?}");
    let error = ended.says("ERROR")?;
    assert!(error.contains(run.parent().unwrap().to_str().unwrap()), "{error}");
    Some(error)
}

/// That of each of these files there was an error.
#[track_caller]
fn error_of_each(errors: &[String], files: &[&str]) {
    for file in files {
        let count = errors.iter().filter(|error| error.contains(&format!("/{file}:"))).count();
        println!("{count} errors of {file}");
        assert!(count > 0, "{file}: {errors:#?}");
    }
}

/// The command in which disks can be mounted that nothing else sees; none where that was allowed.
fn own_disks(scratch: &Path) -> Option<&'static [&'static str]> {
    let ways = [&["unshare", "-Urm"][..], &["unshare", "-m"]];
    let works = |way: &&[&str]| {
        let mut probe = trace::through(way, &Command::new("mount"));
        probe.args(["-t", "tmpfs", "tmpfs"]).arg(scratch);
        probe.output().is_ok_and(|output| output.status.success())
    };
    let way = ways.into_iter().find(works);
    if way.is_none() {
        let allowed = env::var("SURVIVE_WITHOUT_MOUNT").is_ok_and(|text| text == "1");
        assert!(allowed, "no disk can be mounted; SURVIVE_WITHOUT_MOUNT=1 leaves this test out");
        println!("SKIPPED: no disk can be mounted");
    }
    way
}

/// Runs a script in which `$DISK` can be mounted, `"$@"` runs a plan, `$FIRST` and `$SECOND` are
/// plans.
fn on_own_disk(way: &[&str], script: &str, disk: &Path, plans: [&Plan; 2]) -> Command {
    let shell = [way, &["sh", "-euc", script, "sh"]].concat();
    let mut command = trace::through(&shell, &plans[0].command());
    command.env("DISK", disk);
    for (name, plan) in ["FIRST", "SECOND"].into_iter().zip(plans) {
        command.env(name, serde_json::to_string(plan).unwrap());
    }
    command
}

#[test]
#[ignore = "needs mount"]
fn a_full_disk() {
    // What is there when the disk was full is copied out of it; then the disk grows.
    const SCRIPT: &str = r#"
        mount -t tmpfs -o "$OPTIONS" tmpfs "$DISK"
        SURVIVE_PLAN=$FIRST "$@"
        cp -r "$DISK" "$DISK-full"
        mount -o remount,size=64m,nr_inodes=10k "$DISK"
        echo GROWN
        SURVIVE_PLAN=$SECOND "$@"
    "#;
    let scratch = scratch();
    let Some(way) = own_disks(scratch.path()) else { return };
    let golden = small(scratch.path().join("golden")).golden();
    let sizes = (1..=22).map(|pages| format!("size={}k", 4 * pages));
    let counts = (2..=20).map(|inodes| format!("size=64m,nr_inodes={inodes}"));
    let cases: Vec<_> = sizes.chain(counts).collect();
    let errors = Mutex::new(Vec::new());
    two_at_a_time(scratch, &cases, |_, options, directory| {
        let disk = directory.join("disk");
        fs::create_dir(&disk).unwrap();
        let plan = small(disk.join("run"));
        let again = Plan { resume: true, ..plan.clone() };
        let mut command = on_own_disk(way, SCRIPT, &disk, [&plan, &again]);
        let ended = Ended::of(command.env("OPTIONS", options).output().unwrap());
        let output = String::from_utf8_lossy(&ended.output.stdout).into_owned();
        let (full, grown) = output.split_once("GROWN").unwrap_or_else(|| panic!("{ended:?}"));
        let mut watch = Watch::default();
        let copy = directory.join("disk-full/run");
        watch.look(&copy);
        // What could not be whole takes no room from what can.
        assert_eq!(unfinished(Commits::of(&copy).path()), None);
        if let Some(error) = fails_in_order(&ended, &plan.run) {
            assert!(full.contains(&error), "{ended:?}");
            // Only the first commit has none before it.
            let later = error.contains("/.unfinished-") && !error.contains("-0000-batch-000003");
            assert!(watch.newest.is_some() || !later, "{error}");
            errors.lock().unwrap().push(error);
        }
        assert!(grown.contains(&format!("DIGEST {golden}")), "{ended:?}");
        assert!(!grown.contains("PASSED OVER"), "{ended:?}");
    });
    let errors = errors.into_inner().unwrap();
    let files = ["LOCK", "commits", "metrics.csv", "model.bpk", "optimizer.bpk", "scheduler.bpk"];
    error_of_each(&errors, &files);
    rows::ran(4, errors.len());
}

#[test]
#[ignore = "takes half a minute"]
fn a_limit_of_file_sizes() {
    let scratch = scratch();
    let golden = Plan::new(scratch.path().join("golden")).golden();
    // In blocks of 512 bytes: none, within the files of a commit, within the metrics, enough.
    let cases: Vec<_> = (0..=16).collect();
    let errors = Mutex::new(Vec::new());
    two_at_a_time(scratch, &cases, |_, blocks, directory| {
        let plan = Plan::new(directory.join("run"));
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let command = trace::through(&["sh", "-c", &script, "sh"], &plan.command());
        let ended = Ended::of({ command }.output().unwrap());
        match fails_in_order(&ended, &plan.run) {
            Some(error) => errors.lock().unwrap().push(error),
            None => assert_eq!(ended.digest(), golden),
        }
        goes_on(&plan, &golden, None);
    });
    let errors = errors.into_inner().unwrap();
    error_of_each(&errors, &["LOCK", "model.bpk", "metrics.csv"]);
    rows::ran(5, errors.len());
}

#[test]
fn directories_that_cannot_be_used() {
    let scratch = scratch();
    let path = |name: &str| scratch.path().join(name);
    fs::write(path("file"), "").unwrap();
    symlink(path("nowhere"), path("dangling")).unwrap();
    for name in ["commits", "dangling-commits", "lock", "metrics"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("commits/commits"), "").unwrap();
    symlink(path("nowhere"), path("dangling-commits/commits")).unwrap();
    fs::create_dir(path("lock/LOCK")).unwrap();
    fs::create_dir(path("metrics/metrics.csv")).unwrap();
    let cases = [
        ("file", "create file: File exists (os error 17)"),
        ("file/sub", "create file/sub: Not a directory (os error 20)"),
        ("dangling", "create dangling: File exists (os error 17)"),
        ("dangling/sub", "create dangling: File exists (os error 17)"),
        ("commits", "create commits/commits: File exists (os error 17)"),
        ("dangling-commits", "create dangling-commits/commits: File exists (os error 17)"),
        ("lock", "open lock/LOCK: it is no file"),
        ("metrics", "create metrics/metrics.csv: it is no file"),
    ];
    for (run, message) in cases {
        let ended = Plan::new(path(run)).run();
        let error = fails_in_order(&ended, &path("")).unwrap();
        let shown = error.replace(path("").to_str().unwrap(), "");
        assert_eq!(shown, format!("cannot {message}"), "{run}");
    }
    // No file system of this kind takes a directory, not from root either.
    let error = Plan::new("/proc/run").run().error();
    assert_eq!(error, "cannot create /proc/run: No such file or directory (os error 2)");
    // What is missing above is made.
    let golden = Plan::new(path("golden")).golden();
    assert_eq!(Plan::new(path("one/two/three")).golden(), golden);
    rows::ran(6, cases.len() + 2);
}

#[test]
#[ignore = "needs mount"]
fn a_disk_that_is_read_only() {
    const SCRIPT: &str = r#"
        mount -t tmpfs tmpfs "$DISK"
        SURVIVE_PLAN=$FIRST "$@"
        mount -o remount,ro "$DISK"
        echo LOCKED
        SURVIVE_PLAN=$SECOND "$@"
    "#;
    let scratch = scratch();
    let disk = scratch.path();
    let Some(way) = own_disks(disk) else { return };
    let [one, two] = ["one", "two"].map(|run| small(disk.join(run)));
    let cases = [
        (two, "create DISK/two: Read-only file system (os error 30)"),
        (Plan { resume: true, ..one.clone() }, "open DISK/one/LOCK: Read-only file system"),
    ];
    for (second, message) in &cases {
        let ended = Ended::of(on_own_disk(way, SCRIPT, disk, [&one, second]).output().unwrap());
        let error = fails_in_order(&ended, disk).unwrap();
        let message = message.replace("DISK", disk.to_str().unwrap());
        assert!(error.starts_with(&format!("cannot {message}")), "{error}");
    }
    rows::ran(6, cases.len());
}

/// The weights that a run of the example left, by name, and its metrics.
fn left_by_train(run: &Path) -> (BTreeMap<String, Vec<u8>>, String) {
    let bytes = Bytes::from_bytes_vec(fs::read(run.join("model.bpk")).unwrap());
    let tensors = Reader::from_bytes(bytes).unwrap().into_tensors().unwrap().into_iter();
    let tensors = tensors.map(|tensor| {
        let (path, _, _, _, bytes) = tensor.into_parts().unwrap();
        (path, bytes.to_vec())
    });
    (tensors.collect(), fs::read_to_string(run.join("metrics.csv")).unwrap())
}

#[test]
#[ignore = "takes two minutes"]
fn signalled_at_random_instants() {
    // A shell ignores SIGINT for what it starts in the background, and all that this starts, too.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let ignored = u64::from_str_radix(ignored, 16).unwrap() >> (Signal::INT.as_raw() - 1) & 1;
    assert_eq!(ignored, 0, "SIGINT is ignored here: run this test in the foreground");

    let seed = seed();
    let cases: Vec<_> = (0..number("SIGNALS", 100)).collect();
    let scratch = scratch();
    let train = |run: &Path, resume: bool| {
        let mut command = example("train");
        command.args(["--device", "flex", "--epochs", "3", "--commit-every", "10", "--run"]);
        command.arg(run).args(resume.then_some("--resume"));
        command.env("RAYON_NUM_THREADS", "1");
        command
    };
    let run = scratch.path().join("golden");
    let start = Instant::now();
    succeeds(&mut train(&run, false));
    let (whole, golden) = (start.elapsed(), left_by_train(&run));
    let (late, within) = (AtomicUsize::new(0), AtomicUsize::new(0));
    two_at_a_time(scratch, &cases, |index, case, directory| {
        let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_add(case << 32));
        let (signal, code) =
            [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)][index % 3];
        for attempt in 0.. {
            assert!(attempt < 10, "never in time");
            let run = directory.join(attempt.to_string());
            let commits = Commits::of(&run).path().to_owned();
            let mut child =
                train(&run, false).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            // The signals are caught before there are commits.
            while !commits.exists() && child.try_wait().unwrap().is_none() {
                thread::sleep(Duration::from_millis(1));
            }
            // At any time, and half of them then when a commit is next seen half written. One that
            // was too late comes earlier: the machine may be less busy than it was for the first.
            let share = 0.7 * random.random::<f64>() * 0.6f64.powi(attempt);
            thread::sleep(whole.mul_f64(share));
            let mut seen = None;
            while index % 2 == 0 && seen.is_none() && child.try_wait().unwrap().is_none() {
                seen = unfinished(&commits);
            }
            if child.try_wait().unwrap().is_none() {
                kill_process(Pid::from_child(&child), signal).unwrap();
            }
            let still = seen.is_some() && unfinished(&commits) == seen;
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Watch::default().look(&run);
            // Too late: it was at its last lines, or past them and catches no signals any more.
            let is_past = output.status.signal() == Some(signal.as_raw())
                && text.contains("  cargo run --example infer -- --run ");
            if output.status.success() || is_past {
                assert!(left_by_train(&run) == golden, "another result");
                late.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            assert_eq!(output.status.code(), Some(code), "{signal:?}: {output:?}");
            let command = format!("cargo run --example train -- --resume --run {}", run.display());
            assert!(text.contains(&command), "{text}");
            within.fetch_add(still.into(), Ordering::Relaxed);
            succeeds(&mut train(&run, true));
            assert!(left_by_train(&run) == golden, "another result");
            break;
        }
    });
    let (late, within) = (late.into_inner(), within.into_inner());
    println!("{} signals, {within} of them within a commit, {late} more too late", cases.len());
    assert!(within > 0);
    rows::ran(17, cases.len());
}

#[test]
fn stopped_anywhere() {
    let scratch = scratch();
    let golden = Plan::new(scratch.path().join("golden")).golden();
    let mut cases = Vec::new();
    // Of 48 steps, 36 of validation, 18 commits and 18 values of a metric.
    for (site, calls, every) in
        [(Site::Step, 48, 5), (Site::Valid, 36, 7), (Site::Commit, 16, 2), (Site::Metric, 18, 5)]
    {
        cases.extend((1..=calls).step_by(every).map(|call| (site, call)));
    }
    let (stopped, within) = (AtomicUsize::new(0), AtomicUsize::new(0));
    two_at_a_time(scratch, &cases, |_, stop, directory| {
        let plan = Plan { stop: Some(*stop), ..Plan::new(directory.join("run")) };
        let ended = plan.run();
        let newest = plan.commits().last().copied();
        if let Some(reason) = ended.says("STOPPED") {
            assert_eq!(reason, "asked to");
            assert!(newest < Some(Progress::after(6)));
            stopped.fetch_add(1, Ordering::Relaxed);
            within.fetch_add(ended.says("WITHIN").is_some().into(), Ordering::Relaxed);
        }
        // A step is done when it is asked within it, and is committed.
        if let (Site::Step, step) = stop {
            let batches = (step - 1) % 8 + 1;
            assert_eq!(newest, Some(Progress { epochs: (step - 1) / 8, batches }));
        }
        goes_on(&Plan { stop: None, ..plan }, &golden, None);
    });
    let (stopped, within) = (stopped.into_inner(), within.into_inner());
    println!("{stopped} stopped, {within} of them within a commit");
    // Of the commits, which this process watches from outside, it may miss some.
    let watched = cases.iter().filter(|(site, _)| *site == Site::Commit).count();
    assert!(stopped >= cases.len() - watched && within > 0);
    rows::ran(17, stopped);
}

#[test]
fn two_processes_in_one_directory() {
    let scratch = scratch();
    let golden = Plan::new(scratch.path().join("golden")).golden();
    for count in [2, 8] {
        let plan = Plan { pause: 20, ..Plan::new(scratch.path().join(count.to_string())) };
        let start = || {
            let mut command = plan.command();
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = (0..count).map(|_| start()).collect();
        let pids: Vec<_> = children.iter().map(|child| format!("pid {} on ", child.id())).collect();
        let ended: Vec<_> = children
            .into_iter()
            .map(|child| Ended::of(child.wait_with_output().unwrap()))
            .collect();
        let winners: Vec<_> =
            (0..count).filter(|index| ended[*index].says("ERROR").is_none()).collect();
        let [winner] = winners[..] else { panic!("{ended:?}") };
        assert_eq!(ended[winner].digest(), golden);
        for (index, ended) in ended.iter().enumerate().filter(|(index, _)| *index != winner) {
            let error = fails_in_order(ended, &plan.run).unwrap();
            let locked = format!("cannot use {}: it is locked by ", plan.run.display());
            let named = [&*pids[winner], "another process"]
                .iter()
                .any(|holder| error.starts_with(&format!("{locked}{holder}")));
            // One that was started long before it ran comes after the winner.
            let late = error.contains("expected a new one, or one to resume");
            assert!(named || late, "{index}: {error}");
        }
    }
    rows::ran(19, 10);
}

/// A reader, at any time, finds a whole commit.
#[test]
fn a_reader_beside_a_writer() {
    let scratch = scratch();
    let (mut reads, mut removed, mut runs) = (0, 0, 0);
    while reads < 1000 {
        let run = scratch.path().join(runs.to_string());
        let plan = Plan { every_steps: Some(1), keep_last: 1, ..Plan::new(&run) };
        let mut child = quietly(plan.command());
        let mut watch = Watch::default();
        while child.try_wait().unwrap().is_none() {
            watch.look(&run);
            let Some(commit) = Commits::of(&run).newest().unwrap().commit else { continue };
            match commit.read("model.bpk") {
                Ok(_) => reads += 1,
                // The next one was committed, and only then was this one removed.
                Err(error) => {
                    assert!(!commit.path().exists(), "{error:?}");
                    removed += 1;
                    let progress = commit.progress();
                    watch.look(&run);
                    assert!(watch.newest > Some(progress));
                }
            }
        }
        runs += 1;
    }
    println!("{reads} reads of {runs} runs, {removed} of commits that were removed meanwhile");
    rows::ran(19, reads);
}

/// What a power loss needs: a commit gets its name when all that it stands on is synced, and what
/// it replaces goes when the name is synced and the commit was read back.
#[test]
#[ignore = "needs strace"]
fn names_follow_contents() {
    let scratch = scratch();
    let mut committed = 0;
    for keep_last in [1, 1000] {
        let run = scratch.path().canonicalize().unwrap().join(format!("new-{keep_last}/run"));
        let plan = Plan { keep_last, ..small(run) };
        let (ended, mut calls) = trace::record(&plan, &scratch.path().join("log"));
        ended.digest();
        calls.retain(|call| call.succeeded());
        calls.sort_by_key(|call| call.ended);
        let mut disk = Disk::default();
        calls.iter().for_each(|call| disk.take(call, &plan.run));
        assert_eq!(disk.unnamed, None);
        assert_eq!(disk.committed, 9);
        // The best one stays, too.
        assert!((keep_last == 1) == (disk.removed > 5), "{disk:?}");
        committed += disk.committed;
    }
    rows::ran(27, committed);
}

/// What of a run a power loss would leave.
#[derive(Debug, Default)]
struct Disk {
    /// The files and directories that have changed since they were synced, and when.
    changed: BTreeMap<String, usize>,
    /// The length of the metrics at each time, and how much of it is synced.
    metrics: Vec<(usize, u64)>,
    synced: u64,
    /// The file that was made last.
    made: String,
    /// A commit whose new name is not synced yet.
    unnamed: Option<String>,
    newest: String,
    /// The files of the newest commit that were read back.
    read: usize,
    committed: usize,
    removed: usize,
}

impl Disk {
    fn take(&mut self, call: &Call, run: &Path) {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let parent = |path: &str| text(Path::new(path).parent().unwrap());
        let commits = text(Commits::of(run).path());
        let ours = parent(&parent(run.to_str().unwrap()));
        let paths = call.paths();
        match &*call.name {
            "openat" | "mkdir" if paths[0].starts_with(&ours) => {
                if call.is("mkdir") || call.text.contains("O_CREAT") {
                    self.changed.insert(parent(paths[0]), call.ended);
                    self.made = paths[0].to_owned();
                } else if paths[0].starts_with(&format!("{}/", self.newest)) {
                    self.read += 1;
                }
                if paths[0].contains("/.unfinished-") {
                    assert_eq!(self.unnamed, None, "before {}", paths[0]);
                }
            }
            // What the lock says is for people.
            "write" => match call.of() {
                Some(path) if path.starts_with(&ours) && !path.ends_with("/LOCK") => {
                    self.changed.insert(path.to_owned(), call.ended);
                    if path.ends_with("/metrics.csv") {
                        let before = self.metrics.last().map_or(0, |(_, bytes)| *bytes);
                        self.metrics.push((call.ended, before + call.result()));
                    }
                }
                _ => {}
            },
            "fsync" | "fdatasync" => {
                let path = call.of().unwrap();
                // What was written after a sync began may not be in it.
                if self.changed.get(path).is_some_and(|changed| *changed < call.began) {
                    self.changed.remove(path);
                    if path == commits {
                        self.unnamed = None;
                    }
                }
                if path.ends_with("/metrics.csv") {
                    let before = self.metrics.iter().rfind(|(ended, _)| *ended < call.began);
                    self.synced = before.map_or(0, |(_, bytes)| *bytes);
                }
            }
            "rename" => {
                let [from, to] = paths[..] else { panic!("{call:?}") };
                assert_eq!(parent(to), commits);
                if from.contains("/.unfinished-") {
                    let missing = self
                        .changed
                        .keys()
                        .filter(|path| **path != commits && !path.ends_with("/metrics.csv"));
                    assert_eq!(missing.collect::<Vec<_>>(), [""; 0], "before {to}");
                    assert_eq!(self.made, format!("{from}/MANIFEST.json"));
                    if let Ok(manifest) = fs::read_to_string(format!("{to}/MANIFEST.json")) {
                        let json = manifest.rsplit_once("sha256 ").unwrap().0;
                        let json: serde_json::Value = serde_json::from_str(json).unwrap();
                        assert!(self.synced >= json["metrics"]["bytes"].as_u64().unwrap(), "{to}");
                    }
                    (self.newest, self.read) = (to.to_owned(), 0);
                    self.unnamed = Some(to.to_owned());
                    self.committed += 1;
                } else {
                    assert!(to.contains("/.removed-"), "{to}");
                    assert_eq!(self.unnamed, None, "before {from} is removed");
                    assert!(self.read >= 4, "{} is read before {from} is removed", self.newest);
                    self.removed += 1;
                }
                self.changed.insert(commits, call.ended);
            }
            _ => {}
        }
    }
}
