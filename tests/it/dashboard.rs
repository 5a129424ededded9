//! Burn's full-screen dashboard on a terminal, as a user sees it, and what ends a training there.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use burn::tensor::Device;
use burn_ema::runs::Progress;
use burn_ema_lab::{report::Report, run::RunDirectory};
use rustix::{
    fs::{OFlags, fcntl_setfl},
    process::{Pid, Signal, kill_process},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{
    child::wait_until,
    common::tensors,
    examples::{example, succeeds},
    terminal::{CTRL_C, modes, terminal},
};

/// What a terminal receives at the beginning of the dashboard and at its end.
const ALTERNATE_SCREEN: &str = "\x1b[?1049h";
const MAIN_SCREEN: &str = "\x1b[?1049l";
const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const TAKE_MOUSE: &str = "\x1b[?1000h";
const LEAVE_MOUSE: &str = "\x1b[?1000l";

/// More epochs than any test lasts.
const ENDLESS: &str = "1000000";

/// The example `train` in the foreground of a terminal, with someone who looks at it.
struct Dashboard {
    process: Child,
    person: File,
    /// The side of the program, held so that its settings can be read when the program has ended.
    program: File,
    /// The settings of the terminal before the program began.
    before: String,
    shown: Arc<Mutex<Vec<u8>>>,
    looking: JoinHandle<()>,
    looks: Arc<AtomicBool>,
}

/// What is left of it.
struct Ended {
    /// The code, or the signal that killed it.
    code: Result<i32, i32>,
    /// All that the terminal received.
    output: String,
}

impl Dashboard {
    /// Starts a training, and waits until the dashboard shows it and there is a commit.
    fn of(run: &Path, options: &[&str]) -> Self {
        let (person, programs) = terminal();
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&person, size).unwrap();
        let train = example("train");
        let mut command = Command::new("setsid");
        command.args(["--ctty", "env", "--default-signal", "--unset=BURN_DEVICE"]);
        command.arg(train.get_program()).args(["--device", "flex", "--run"]).arg(run).args(options);
        command.stdin(programs()).stdout(programs()).stderr(programs());
        let program = programs();
        let before = settings(&program);
        let process = command.spawn().unwrap();
        fcntl_setfl(&person, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
        let (shown, looks) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::new(AtomicBool::new(true)));
        let looking = thread::spawn({
            let (person, shown, looks) =
                (person.try_clone().unwrap(), shown.clone(), looks.clone());
            move || look(person, &shown, &looks)
        });
        let this = Self { process, person, program, before, shown, looking, looks };
        this.wait_for(&[ALTERNATE_SCREEN, "Train", "Loss", HIDE_CURSOR]);
        wait_until(|| RunDirectory::open(run).is_ok_and(|run| has_commit(&run)));
        // Ctrl-C is a key until the guard has made it a signal again.
        wait_until(|| modes(&this.program) == (true, true));
        this
    }

    fn wait_for(&self, texts: &[&str]) {
        wait_until(|| {
            let shown = String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned();
            texts.iter().all(|text| shown.contains(text))
        });
    }

    fn keys(&mut self, keys: &[u8]) {
        self.person.write_all(keys).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for the end, and checks that the terminal is as it was before.
    #[track_caller]
    fn end(mut self) -> Ended {
        let code = code(&mut self.process);
        assert_eq!(modes(&self.program), (true, false), "keys are lines again");
        assert_eq!(settings(&self.program), self.before);
        drop(self.program);
        self.looking.join().unwrap();
        // Threads that panic write into each other's characters.
        let output = String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned();
        for (on, off) in
            [(ALTERNATE_SCREEN, MAIN_SCREEN), (HIDE_CURSOR, SHOW_CURSOR), (TAKE_MOUSE, LEAVE_MOUSE)]
        {
            let last =
                |what| output.rfind(what).unwrap_or_else(|| panic!("{what:?} in {output:?}"));
            assert!(last(on) < last(off), "{on:?} stays");
        }
        Ended { code, output }
    }

    /// Closes the terminal.
    fn hang_up(mut self) -> Result<i32, i32> {
        self.looks.store(false, SeqCst);
        self.looking.join().unwrap();
        drop((self.person, self.program));
        code(&mut self.process)
    }
}

fn has_commit(run: &RunDirectory) -> bool {
    !run.commits().list().unwrap().is_empty()
}

/// What a terminal does with what is typed and shown.
fn settings(terminal: &File) -> String {
    let Termios { input_modes, output_modes, local_modes, .. } = tcgetattr(terminal).unwrap();
    format!("{input_modes:?} {output_modes:?} {local_modes:?}")
}

/// Waits for the end of a process.
fn code(process: &mut Child) -> Result<i32, i32> {
    wait_until(|| process.try_wait().unwrap().is_some());
    let status = process.wait().unwrap();
    status.code().ok_or_else(|| status.signal().unwrap())
}

/// Takes in what a terminal shows, until the last program on it has ended or nobody looks.
fn look(mut person: File, shown: &Mutex<Vec<u8>>, looks: &AtomicBool) {
    let mut bytes = [0; 4096];
    while looks.load(SeqCst) {
        match person.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => shown.lock().unwrap().extend(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(2));
            }
            // How Linux tells the end.
            Err(_) => return,
        }
    }
}

impl Ended {
    /// What stands on the screen when the dashboard has left it.
    fn left(&self) -> &str {
        let end = self.output.rfind(MAIN_SCREEN).unwrap() + MAIN_SCREEN.len();
        &self.output[end..]
    }

    /// Checks that the program committed and says so, with the command that goes on.
    #[track_caller]
    fn says_how_to_go_on(&self, run: &Path, by: &str) -> Progress {
        let newest = RunDirectory::open(run).unwrap().commits().newest().unwrap();
        assert!(newest.passed_over.is_empty(), "{newest:?}");
        let progress = newest.commit.expect("a commit").progress();
        let said = format!(
            "stopped by {by}, committed after {progress}; to go on:\r\n  cargo run --example train \
             -- --resume --run {}\r\n",
            run.display()
        );
        assert!(self.left().contains(&said), "{said:?} in {:?}", self.left());
        assert!(!run.join("model.bpk").exists(), "a training that was stopped is not finished");
        progress
    }
}

#[test]
fn ctrl_c_stops_and_what_goes_on_is_the_undisturbed_run() {
    let directory = tempfile::tempdir().unwrap();
    let [run, undisturbed] = ["run", "undisturbed"].map(|name| directory.path().join(name));
    // Some twenty times as long as it takes to press the key.
    let options = ["--epochs", "60", "--seed", "5"];
    let mut dashboard = Dashboard::of(&run, &options);
    dashboard.keys(&CTRL_C);
    let ended = dashboard.end();
    assert_eq!(ended.code, Ok(130));
    let progress = ended.says_how_to_go_on(&run, "SIGINT");
    assert!(progress < Progress::after(60));

    let mut train = example("train");
    let (stdout, _) = succeeds(train.args(["--device", "flex", "--resume", "--run"]).arg(&run));
    assert!(stdout.contains(&format!("resuming after {progress}, step ")), "{stdout}");
    let mut train = example("train");
    succeeds(train.args(["--device", "flex"]).args(options).arg("--run").arg(&undisturbed));
    let [found, expected] = [run, undisturbed].map(|run| {
        let model = RunDirectory::open(&run).unwrap().model(&Device::flex()).unwrap();
        let report = fs::read(run.join("report.json")).unwrap();
        let report: Report = serde_json::from_slice(&report).unwrap();
        let weights = tensors(&model).into_iter();
        (weights.map(|(path, _, _, data)| (path, data)).collect::<Vec<_>>(), report)
    });
    assert_eq!(found, expected);
}

#[test]
fn live_is_on_the_plot_of_the_average() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let mut dashboard = Dashboard::of(&run, &["--epochs", ENDLESS]);
    // In the legend of the plot, and before its last value.
    dashboard.wait_for(&["Test - live", "live Test"]);
    dashboard.keys(&CTRL_C);
    let ended = dashboard.end();
    assert_eq!(ended.code, Ok(130));
    for plot in ["Loss", "Accuracy"] {
        assert!(ended.output.contains(plot), "{plot}");
        let own = format!("{plot} (live)");
        assert!(!ended.output.contains(&own), "{own}");
    }
}

#[test]
fn signals_and_keys_of_the_dashboard_stop_in_order() {
    type End = fn(&mut Dashboard);
    let cases: [(&str, i32, End); 3] = [
        ("SIGTERM", 143, |dashboard| dashboard.signal(Signal::TERM)),
        ("SIGHUP", 129, |dashboard| dashboard.signal(Signal::HUP)),
        ("a request", 1, |dashboard| {
            dashboard.keys(b"q");
            dashboard.wait_for(&["immediately"]);
            dashboard.keys(b"s");
        }),
    ];
    for (by, code, end) in cases {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("run");
        let mut dashboard = Dashboard::of(&run, &["--epochs", ENDLESS]);
        end(&mut dashboard);
        let ended = dashboard.end();
        assert_eq!(ended.code, Ok(code), "{by}: {:?}", ended.left());
        ended.says_how_to_go_on(&run, by);
    }
}

/// Burn ends the training with a panic there, so that nothing more is committed.
#[test]
fn a_training_killed_from_the_dashboard_goes_on_from_its_last_commit() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let mut dashboard = Dashboard::of(&run, &["--epochs", ENDLESS]);
    dashboard.keys(b"q");
    dashboard.wait_for(&["immediately"]);
    dashboard.keys(b"k");
    let ended = dashboard.end();
    assert_eq!(ended.code, Ok(1), "{:?}", ended.left());
    assert!(ended.left().contains("Killing training from user input"), "{:?}", ended.left());
    let newest = RunDirectory::open(&run).unwrap().commits().newest().unwrap();
    assert!(newest.passed_over.is_empty(), "{newest:?}");

    let mut dashboard = Dashboard::of(&run, &["--resume"]);
    dashboard.keys(&CTRL_C);
    let ended = dashboard.end();
    let from = format!("resuming after {}, step ", newest.commit.unwrap().progress());
    assert!(ended.output.contains(&from), "{:?}", ended.output);
    assert_eq!(ended.code, Ok(130));
}

/// Burn's dashboard then panics while it panics, which ends the process, often before it commits.
#[test]
fn a_terminal_that_is_closed_under_the_dashboard_costs_the_steps_since_the_last_commit() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let dashboard = Dashboard::of(&run, &["--epochs", ENDLESS]);
    let code = dashboard.hang_up();
    assert!(code == Ok(129) || code == Err(Signal::ABORT.as_raw()), "{code:?}");
    let newest = RunDirectory::open(&run).unwrap().commits().newest().unwrap();
    assert!(newest.commit.is_some() && newest.passed_over.is_empty(), "{newest:?}");
}
