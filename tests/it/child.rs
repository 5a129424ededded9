//! A test of this binary as a process of its own, which talks in lines.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{Child as Process, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// What begins a line that a child says, in the midst of those of the test harness.
const MARK: &str = "child: ";

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(120);

/// Says a line, in a child. A parent that no longer listens is no reason to end.
pub fn say(line: &str) {
    let _ = write!(std::io::stdout(), "\n{MARK}{line}\n");
}

/// Waits in a child, but not for ever, should its parent have failed.
pub fn wait_until(mut met: impl FnMut() -> bool) {
    let start = Instant::now();
    while !met() {
        assert!(start.elapsed() < LIMIT, "waited in vain");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A process that runs an ignored test with a task for it, through other programs if any.
///
/// It ignores no signal to begin with, though this process may, as in the background of a script.
pub fn command(through: &[&str], test: &str, task: &str) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal").args(through).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env("CHILD_TASK", task);
    command
}

/// The task that a child was given.
pub fn task() -> Option<String> {
    std::env::var("CHILD_TASK").ok()
}

/// A running child, killed when dropped.
pub struct Child {
    process: Process,
    stdin: Option<ChildStdin>,
    lines: Box<dyn BufRead>,
}

impl Child {
    pub fn start(mut command: Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let stdout = process.stdout.take().unwrap();
        Self { stdin: process.stdin.take(), process, lines: Box::new(BufReader::new(stdout)) }
    }

    /// A child that has a terminal, whose other side is the file.
    pub fn on_terminal(mut command: Command, terminal: File) -> Self {
        let process = command.spawn().unwrap();
        Self { process, stdin: None, lines: Box::new(BufReader::new(Whole(terminal))) }
    }

    /// The next line that the child says.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        while self.lines.read_until(b'\n', &mut line).unwrap() > 0 {
            let text = std::str::from_utf8(&line).unwrap().trim_end();
            if let Some(said) = text.strip_prefix(MARK) {
                return said.to_string();
            }
            line.clear();
        }
        panic!("the child ended with {:?}", self.process.wait());
    }

    #[track_caller]
    pub fn says(&mut self, expected: &str) {
        assert_eq!(self.line(), expected);
    }

    /// Lets a child go on that waits for the end of its standard input.
    pub fn go_on(&mut self) {
        self.stdin.take().expect("a child with a pipe, not yet closed");
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Waits for the end: the code, or the signal that killed it.
    #[track_caller]
    pub fn end(&mut self) -> Result<i32, i32> {
        wait_until(|| self.has_ended());
        let status: ExitStatus = self.process.wait().unwrap();
        status.code().ok_or_else(|| status.signal().unwrap())
    }

    /// Nobody listens any more; on a terminal, this closes it.
    pub fn hang_up(&mut self) {
        self.lines = Box::new(std::io::empty());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A terminal's side that ends when the last process on the other has: Linux gives an error then.
struct Whole(File);

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer).or(Ok(0))
    }
}
