//! Signals that stop a training after a commit, and the exit code for the program.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use burn::train::Interrupter;
use signal_hook::flag;

use crate::{Error, Result};

/// The interval at which the watcher checks for a signal.
const POLL: Duration = Duration::from_millis(25);

/// The time for which further signals count as the first one. `timeout` sends its signal twice, and
/// so do a shell and a terminal that close.
const SAME: Duration = Duration::from_millis(250);

/// A signal that asks a program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// SIGHUP: the terminal was closed. Caught on Unix only.
    HangUp = 1,
    /// SIGINT: Ctrl-C.
    Interrupt = 2,
    /// SIGTERM: `kill`, or a system that shuts down.
    Terminate = 15,
}

impl Signal {
    /// The signals that are caught on this system.
    const ALL: &[Self] = if cfg!(unix) {
        &[Self::Interrupt, Self::Terminate, Self::HangUp]
    } else {
        &[Self::Interrupt, Self::Terminate]
    };

    /// The name of the signal, such as `SIGINT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HangUp => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The exit code for a program that this signal ended: 128 plus the signal's number, as in
    /// shells.
    ///
    /// 129 for SIGHUP, 130 for SIGINT, 143 for SIGTERM.
    pub fn exit_code(self) -> i32 {
        128 + self as i32
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A guard that catches SIGINT, SIGTERM and, on Unix, SIGHUP, for a program that trains.
///
/// The first signal stops the training, through its [`Interrupter`], with the signal's name as the
/// reason. Any further signal within a quarter of a second is ignored; a later one ends the process
/// at once, as if signals were not caught. After the guard is dropped, every signal ends the
/// process at once.
///
/// The guard itself ends no process. The program does so after the training:
///
/// ```
/// use std::io::Write as _;
///
/// use burn::train::Interrupter;
/// use burn_ema_runs::Signals;
///
/// let interrupter = Interrupter::new();
/// let signals = Signals::install(interrupter.clone())?;
/// // ... a training that was given the interrupter: `training.with_interrupter(interrupter)` ...
/// if let Some(signal) = signals.received() {
///     // Not `eprintln!`, which panics where the terminal is gone.
///     let _ = writeln!(std::io::stderr(), "stopped by {signal}");
///     std::process::exit(signal.exit_code());
/// }
/// # Ok::<_, burn_ema_runs::Error>(())
/// ```
///
/// A signal that the process ignored when the first guard was installed, such as SIGHUP under
/// `nohup`, stays ignored (on Linux only).
///
/// Burn's full-screen dashboard sets the terminal to deliver Ctrl-C as a key, and ignores the key.
/// On Unix, the guard sets the terminal of stdout to send signals for Ctrl-C, Ctrl-Z and Ctrl-\\
/// again, while the process is in the foreground.
/// A process that is ended at once leaves the dashboard on the screen, which the command `reset`
/// clears.
/// Closing the terminal under the dashboard ends the process at once too, since Burn then panics
/// twice. The run can be resumed from the last commit.
#[derive(Debug)]
#[must_use = "signals are caught for as long as the guard lives"]
pub struct Signals {
    handlers: Handlers,
    watcher: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Signals {
    /// Catches the signals from now on, and stops the training of this interrupter. Starts a
    /// thread, which ends when the guard is dropped.
    ///
    /// Only one guard can exist at a time. For a second training in a process, drop the first guard
    /// and install a new one.
    ///
    /// # Errors
    ///
    /// Another guard in this process; signal handlers or a thread that the operating system
    /// refuses.
    pub fn install(interrupter: Interrupter) -> Result<Self> {
        static HANDLERS: OnceLock<Result<Handlers>> = OnceLock::new();
        let handlers = HANDLERS.get_or_init(Handlers::register).clone()?;
        if handlers.guarded.swap(true, SeqCst) {
            return Err(Error::other("another guard in this process catches signals already"));
        }
        handlers.received.store(0, SeqCst);
        handlers.lethal.store(false, SeqCst);
        let mut guard = Self { handlers: handlers.clone(), watcher: None };

        let (end, ended) = mpsc::channel();
        let watcher = thread::Builder::new().name("signals".into());
        let watcher = watcher.spawn(move || watch(&handlers, &interrupter, &ended));
        guard.watcher = Some((end, watcher.map_err(Error::other)?));
        Ok(guard)
    }

    /// The last signal that was caught since the guard was installed; `None` without a signal.
    pub fn received(&self) -> Option<Signal> {
        self.handlers.received()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if let Some((end, watcher)) = self.watcher.take() {
            drop(end);
            let _ = watcher.join();
        }
        self.handlers.lethal.store(true, SeqCst);
        self.handlers.guarded.store(false, SeqCst);
    }
}

/// The flags that the signal handlers of the process read and write. Clones share them.
///
/// The handlers are registered once and never removed, since `signal_hook` does not restore the
/// default action: after a removal, signals would be ignored.
#[derive(Clone, Debug)]
struct Handlers {
    /// The number of the last signal; 0 without a signal.
    received: Arc<AtomicUsize>,
    /// True if the next signal has its default action, which ends the process.
    lethal: Arc<AtomicBool>,
    /// True while a guard exists.
    guarded: Arc<AtomicBool>,
}

impl Handlers {
    fn register() -> Result<Self> {
        let handlers = Self {
            received: Arc::default(),
            lethal: Arc::new(true.into()),
            guarded: Arc::default(),
        };
        let ignored = ignored();
        for &signal in Signal::ALL {
            let number = signal as i32;
            if ignored >> (number - 1) & 1 == 1 {
                continue;
            }
            let Self { received, lethal, .. } = handlers.clone();
            flag::register_conditional_default(number, lethal)
                .and_then(|_| flag::register_usize(number, received, number as usize))
                .map_err(|error| Error::other(format!("cannot catch {signal}: {error}")))?;
        }
        Ok(handlers)
    }

    fn received(&self) -> Option<Signal> {
        let number = self.received.load(SeqCst);
        Signal::ALL.iter().copied().find(|&signal| signal as usize == number)
    }
}

/// The signals that the process ignores: signal n is bit n - 1. 0 if `/proc` does not have them.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Stops the training at the first signal, and makes a signal after [`SAME`] end the process.
/// Returns when the guard is dropped.
fn watch(handlers: &Handlers, interrupter: &Interrupter, ended: &Receiver<()>) {
    let mut first: Option<Instant> = None;
    while ended.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
        #[cfg(unix)]
        make_ctrl_c_a_signal();
        match first {
            None => {
                if let Some(signal) = handlers.received() {
                    interrupter.stop(Some(signal.name()));
                    first = Some(Instant::now());
                }
            }
            Some(first) if first.elapsed() >= SAME => handlers.lethal.store(true, SeqCst),
            Some(_) => {}
        }
    }
}

/// Sets the terminal of stdout to send a signal for Ctrl-C, if it delivers Ctrl-C as a key.
///
/// The setting is written only if it is off, so that later changes of the terminal by the program
/// are kept.
#[cfg(unix)]
fn make_ctrl_c_a_signal() {
    use rustix::{
        process::getpgrp,
        termios::{LocalModes, OptionalActions, tcgetattr, tcgetpgrp, tcsetattr},
    };

    let terminal = std::io::stdout();
    // In the background, a change of the terminal's settings would stop this process.
    if tcgetpgrp(&terminal) != Ok(getpgrp()) {
        return;
    }
    if let Ok(mut settings) = tcgetattr(&terminal)
        && !settings.local_modes.contains(LocalModes::ISIG)
    {
        settings.local_modes.insert(LocalModes::ISIG);
        let _ = tcsetattr(&terminal, OptionalActions::Now, &settings);
    }
}
