//! Signals to a program that trains: the first stops it in order, the second at once.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::exit,
    thread::sleep,
    time::Duration,
};

use burn::train::{Interrupter, Interruption};
use burn_ema::runs::{Signal, Signals};
use rustix::{
    process::{Pid, Signal as Sent, kill_process},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};

use crate::{
    child::{self, Child, say, wait_until},
    terminal::{CTRL_C, modes, terminal},
};

/// Each with the name that stops a training and the code of the program after it.
const SIGNALS: [(Sent, &str, i32); 3] =
    [(Sent::INT, "SIGINT", 130), (Sent::TERM, "SIGTERM", 143), (Sent::HUP, "SIGHUP", 129)];

/// Ten looks of the watcher.
const A_WHILE: Duration = Duration::from_millis(250);

/// A program in small: it installs a guard, waits for the end of its training, and does its part.
#[test]
#[ignore = "a process that other tests start"]
fn program() {
    let Some(task) = child::task() else { return };
    match task.as_str() {
        "train" => train(),
        "train twice" => {
            drop(train_until_stopped());
            train();
        }
        "hang" => {
            let signals = train_until_stopped();
            wait_until(|| false);
            drop(signals);
        }
        "guard dropped" => {
            drop(Signals::install(Interrupter::new()).unwrap());
            say("ready");
            wait_until(|| false);
        }
        "guard dropped after a signal" => {
            drop(train_until_stopped());
            say("dropped");
            wait_until(|| false);
        }
        "two guards" => {
            let first = Signals::install(Interrupter::new()).unwrap();
            let second = Signals::install(Interrupter::new());
            say(&second.unwrap_err().to_string());
            drop(first);
            train();
        }
        "train on keys" => {
            let interrupter = Interrupter::new();
            let signals = Signals::install(interrupter.clone()).unwrap();
            read_keys();
            wait_until(|| interrupter.should_stop());
            done(&signals, &interrupter);
        }
        "keys alone" => {
            read_keys();
            let mut key = [0];
            std::io::stdin().read_exact(&mut key).unwrap();
            say(&format!("key {}", key[0]));
            exit(0);
        }
        task => panic!("no task {task}"),
    }
}

fn train() {
    let interrupter = Interrupter::new();
    let signals = Signals::install(interrupter.clone()).unwrap();
    assert_eq!(signals.received(), None);
    say("ready");
    wait_until(|| interrupter.should_stop());
    done(&signals, &interrupter);
}

/// The program's part, as the documentation has it.
fn done(signals: &Signals, interrupter: &Interrupter) -> ! {
    let signal = signals.received().unwrap();
    let reason = interrupter.interruption().and_then(|Interruption { reason }| reason).unwrap();
    say(&format!("stopped by {reason}, received {signal}"));
    exit(signal.exit_code());
}

fn train_until_stopped() -> Signals {
    let interrupter = Interrupter::new();
    let signals = Signals::install(interrupter.clone()).unwrap();
    say("ready");
    wait_until(|| interrupter.should_stop());
    say(&interrupter.get_message().unwrap());
    signals
}

/// As Burn's dashboard does: keys come one by one, and Ctrl-C is one of them.
fn read_keys() {
    let mut settings = tcgetattr(std::io::stdout()).unwrap();
    settings.make_raw();
    tcsetattr(std::io::stdout(), OptionalActions::Now, &settings).unwrap();
    say("raw");
}

fn start(task: &str) -> Child {
    Child::start(child::command(&[], "signals::program", task))
}

/// A child that has heard a first signal and does nothing about it.
fn hanging(first: Sent, name: &str) -> Child {
    let mut child = start("hang");
    child.says("ready");
    child.signal(first);
    child.says(name);
    child
}

/// Sends a signal until it has ended the child: those soon after the first count as the first.
#[track_caller]
fn kill_with(child: &mut Child, signal: Sent) {
    wait_until(|| {
        let ended = child.has_ended();
        if !ended {
            child.signal(signal);
        }
        ended
    });
    assert_eq!(child.end(), Err(signal.as_raw()));
}

#[test]
fn a_signal_has_its_name_and_code() {
    let signals = [Signal::Interrupt, Signal::Terminate, Signal::HangUp];
    for (signal, (sent, name, code)) in signals.into_iter().zip(SIGNALS) {
        assert_eq!((signal as i32, signal.name(), signal.exit_code()), (sent.as_raw(), name, code));
    }
    assert_eq!(Signal::HangUp.to_string(), "SIGHUP");
}

#[test]
fn the_first_signal_stops_the_training_and_the_program_ends_with_its_code() {
    let mut cases = 0;
    for (signal, name, code) in SIGNALS {
        let mut child = start("train");
        child.says("ready");
        child.signal(signal);
        child.says(&format!("stopped by {name}, received {name}"));
        assert_eq!(child.end(), Ok(code));
        cases += 1;
    }
    assert_eq!(cases, 3);
}

#[test]
fn the_second_signal_of_any_kind_ends_the_process_at_once() {
    let mut cases = 0;
    for (first, name, _) in SIGNALS {
        let mut children: Vec<_> = SIGNALS.iter().map(|_| hanging(first, name)).collect();
        for (child, (second, ..)) in children.iter_mut().zip(SIGNALS) {
            kill_with(child, second);
            cases += 1;
        }
    }
    assert_eq!(cases, 9);
}

/// As `timeout` sends its signal, to the process and to its group.
#[test]
fn signals_that_come_together_are_one() {
    for (one, other) in [(Sent::TERM, Sent::HUP), (Sent::INT, Sent::TERM), (Sent::HUP, Sent::INT)] {
        let mut child = start("train");
        child.says("ready");
        child.signal(Sent::STOP);
        child.signal(one);
        child.signal(other);
        child.signal(Sent::CONT);
        let said = child.line();
        let code = child.end();
        let (_, name, _) = SIGNALS.into_iter().find(|&(.., code_of)| Ok(code_of) == code).unwrap();
        assert!(said.ends_with(&format!("received {name}")), "{said}, then {code:?}");
        assert!([one, other].iter().any(|sent| SIGNALS.contains(&(*sent, name, code.unwrap()))));
    }
}

#[test]
fn without_a_guard_any_more_a_signal_kills_as_usual() {
    let mut cases = 0;
    for (signal, name, _) in SIGNALS {
        let mut child = start("guard dropped");
        child.says("ready");
        child.signal(signal);
        assert_eq!(child.end(), Err(signal.as_raw()));

        let mut child = start("guard dropped after a signal");
        child.says("ready");
        child.signal(signal);
        child.says(name);
        child.says("dropped");
        child.signal(signal);
        assert_eq!(child.end(), Err(signal.as_raw()));
        cases += 2;
    }
    assert_eq!(cases, 6);
}

#[test]
fn a_second_training_of_the_process_takes_a_guard_of_its_own() {
    let mut child = start("train twice");
    child.says("ready");
    child.signal(Sent::INT);
    child.says("SIGINT");
    child.says("ready");
    child.signal(Sent::TERM);
    child.says("stopped by SIGTERM, received SIGTERM");
    assert_eq!(child.end(), Ok(143));
}

#[test]
fn a_guard_beside_another_is_refused_and_takes_nothing_from_it() {
    let mut child = start("two guards");
    child.says("another guard in this process catches signals already");
    child.says("ready");
    child.signal(Sent::HUP);
    child.says("stopped by SIGHUP, received SIGHUP");
    assert_eq!(child.end(), Ok(129));
}

#[test]
fn a_signal_that_the_process_was_started_to_ignore_stays_ignored() {
    let mut child = Child::start(child::command(&["nohup"], "signals::program", "train"));
    child.says("ready");
    child.signal(Sent::HUP);
    sleep(A_WHILE);
    assert!(!child.has_ended());
    child.signal(Sent::TERM);
    child.says("stopped by SIGTERM, received SIGTERM");
    assert_eq!(child.end(), Ok(143));
}

/// A child in the foreground of a terminal of its own, through other programs if any.
fn on_terminal(through: &[&str], task: &str) -> (Child, File) {
    let (person, programs) = terminal();
    let through = [&["setsid", "--ctty"], through].concat();
    let mut command = child::command(&through, "signals::program", task);
    command.stdin(programs()).stdout(programs()).stderr(programs());
    let child = Child::on_terminal(command, person.try_clone().unwrap());
    (child, person)
}

#[test]
fn ctrl_c_is_a_signal_on_a_terminal_that_hands_keys_on() {
    let (mut child, mut terminal) = on_terminal(&[], "train on keys");
    child.says("raw");
    wait_until(|| modes(&terminal).0);
    assert_eq!(modes(&terminal), (true, true), "nothing else of the terminal changes");
    terminal.write_all(&CTRL_C).unwrap();
    child.says("stopped by SIGINT, received SIGINT");
    assert_eq!(child.end(), Ok(130));
}

#[test]
fn without_a_guard_ctrl_c_is_a_key_there() {
    let (mut child, mut terminal) = on_terminal(&[], "keys alone");
    child.says("raw");
    assert_eq!(modes(&terminal), (false, true));
    terminal.write_all(&CTRL_C).unwrap();
    child.says("key 3");
    assert_eq!(child.end(), Ok(0));
}

#[test]
fn ctrl_c_on_a_plain_terminal_is_the_signal_that_it_is() {
    let (mut child, mut terminal) = on_terminal(&[], "train");
    child.says("ready");
    terminal.write_all(&CTRL_C).unwrap();
    child.says("stopped by SIGINT, received SIGINT");
    assert_eq!(child.end(), Ok(130));
}

/// There it is another program that reads keys.
#[test]
fn a_process_in_the_background_leaves_the_terminal_alone() {
    let (mut child, terminal) =
        on_terminal(&["sh", "-mc", "\"$0\" \"$@\" & wait $!; exit $?"], "train");
    child.says("ready");
    let mut settings = tcgetattr(&terminal).unwrap();
    settings.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &settings).unwrap();
    sleep(A_WHILE);
    assert_eq!(modes(&terminal), (false, true));
    // The shell passes nothing on; a stopped child would not answer.
    let children = format!("/proc/{0}/task/{0}/children", child.pid());
    let children = std::fs::read_to_string(children).unwrap();
    let pid = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    kill_process(pid, Sent::TERM).unwrap();
    child.says("stopped by SIGTERM, received SIGTERM");
    assert_eq!(child.end(), Ok(143));
}

#[test]
fn a_terminal_that_is_closed_stops_the_training_in_order() {
    let (mut child, terminal) = on_terminal(&[], "train");
    child.says("ready");
    drop(terminal);
    child.hang_up();
    assert_eq!(child.end(), Ok(129));
}
