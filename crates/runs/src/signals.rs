//! Signals that stop a training in order, and the code with which its program then ends.

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

/// How often the watcher looks.
const POLL: Duration = Duration::from_millis(25);

/// How long signals count as the first one: `timeout` sends its signal twice, and so do a shell
/// and a terminal that close.
const SAME: Duration = Duration::from_millis(250);

/// A signal that asks a program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// SIGHUP: the terminal was closed.
    HangUp = 1,
    /// SIGINT: Ctrl-C.
    Interrupt = 2,
    /// SIGTERM: `kill`, or a system that shuts down.
    Terminate = 15,
}

impl Signal {
    /// All signals that this system has.
    const ALL: &[Self] = if cfg!(unix) {
        &[Self::Interrupt, Self::Terminate, Self::HangUp]
    } else {
        &[Self::Interrupt, Self::Terminate]
    };

    /// Such as `SIGINT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HangUp => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The code with which a program ends after it, as shells have it: 128 and the signal's number.
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

/// A guard that catches SIGINT, SIGTERM and SIGHUP, for a program that trains.
///
/// The first signal stops the training, through its [`Interrupter`], with the signal's name as the
/// reason.
/// A quarter of a second after it, the next one of any kind ends the process at once, as if none
/// were caught. Once the guard is dropped, every signal does.
///
/// The guard ends no process; that is the program's part:
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
/// A signal that the process was started to ignore, as `nohup` does with SIGHUP, stays ignored
/// (seen on Linux only).
///
/// Burn's full-screen dashboard makes the terminal hand Ctrl-C on as a key, and ignores it.
/// The guard makes it a signal again, on the terminal of stdout where the process is in its
/// foreground, and with it the terminal's other such keys (Ctrl-Z, Ctrl-\\).
/// A process that is ended at once leaves the dashboard's screen as it is: `reset` clears it.
/// A terminal that is closed under the dashboard ends the process at once too, since Burn then
/// panics while it panics: the run goes on from the commit before.
#[derive(Debug)]
#[must_use = "signals are caught for as long as the guard lives"]
pub struct Signals {
    handlers: Handlers,
    watcher: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Signals {
    /// Catches the signals from here on, and stops a training through its interrupter.
    ///
    /// One guard at a time; a second training of a process takes a new one after the first is
    /// dropped.
    ///
    /// # Errors
    ///
    /// Another guard in this process, or an operating system that refuses.
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

    /// The signal that has come since the guard was installed.
    ///
    /// Of several within a quarter of a second, it is one of them.
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

/// The flags that the handlers of the process read and write.
///
/// The handlers are registered once for the whole process, since without any the signals would be
/// lost: the default action does not come back.
#[derive(Clone, Debug)]
struct Handlers {
    /// The number of the last signal, or 0.
    received: Arc<AtomicUsize>,
    /// True where the next signal takes its default action.
    lethal: Arc<AtomicBool>,
    /// True while there is a guard.
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

/// The signals that the process ignores, where this can be known: the n-th from bit n - 1.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Passes the first signal on, until the guard is dropped.
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

/// Makes Ctrl-C a signal where the terminal hands it on as a key.
///
/// The setting is written once each time that a program starts to read keys, so that this cannot
/// undo what the program does to the terminal later.
#[cfg(unix)]
fn make_ctrl_c_a_signal() {
    use rustix::{
        process::getpgrp,
        termios::{LocalModes, OptionalActions, tcgetattr, tcgetpgrp, tcsetattr},
    };

    let terminal = std::io::stdout();
    // In the background the terminal is another program's, and a write to it would stop this one.
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
