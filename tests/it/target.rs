//! The example of target networks: its environment against the equations of motion, its table.

use std::process::Command;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::examples::{example, misused, succeeds};

#[path = "../../examples/target/cart_pole.rs"]
pub mod cart_pole;

use cart_pole::{CartPole, EDGE, End, LEAN, MOST_STEPS};

const GUIDE: &str = include_str!("../../src/guide/uses.md");
/// Around the table of the guide.
const MARKER: &str = "<!-- target -->";

fn at(state: [f64; 4]) -> CartPole {
    CartPole { state, steps: 0 }
}

#[track_caller]
fn assert_near(found: [f64; 4], expected: [f64; 4]) {
    let near = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12);
    assert!(near, "found {found:?}, expected {expected:?}");
}

/// Upright and at rest, the push of 10 N accelerates the cart by 400/41 m/s^2 and turns the pole by
/// -600/41 rad/s^2; a push to the other side takes that back.
#[test]
fn the_first_steps_are_those_by_hand() {
    let mut cart = at([0.0; 4]);
    assert_eq!(cart.push(true), None);
    assert_near(cart.state, [0.0, 8.0 / 41.0, 0.0, -12.0 / 41.0]);
    assert_eq!(cart.push(false), None);
    assert_near(cart.state, [0.16 / 41.0, 0.0, -0.24 / 41.0, 0.0]);
    assert_eq!(cart.steps, 2);
    let inputs = cart.state.map(|number| number as f32);
    assert_eq!(cart.inputs(), inputs);
}

/// The equations of motion that the accelerations solve (Barto, Sutton and Anderson 1983): of cart
/// and pole along the track, and of the pole, a rod, around its joint.
#[test]
fn every_step_solves_the_equations_of_motion() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for right in [true, false] {
        for _ in 0..50 {
            let [place, speed, angle, turn] =
                CartPole::new(&mut random).state.map(|number| 4.0 * number);
            let mut cart = at([place, speed, angle, turn]);
            cart.push(right);
            let [new_place, new_speed, new_angle, new_turn] = cart.state;
            assert!((new_place - (place + 0.02 * speed)).abs() < 1e-15);
            assert!((new_angle - (angle + 0.02 * turn)).abs() < 1e-15);
            let (moved, turned) = ((new_speed - speed) / 0.02, (new_turn - turn) / 0.02);
            let (sin, cos) = angle.sin_cos();
            let track = 1.1 * moved + 0.1 * 0.5 * (turned * cos - turn * turn * sin);
            assert!((track - if right { 10.0 } else { -10.0 }).abs() < 1e-10, "{track} N");
            let joint = 4.0 / 3.0 * 0.5 * turned + moved * cos - 9.8 * sin;
            assert!(joint.abs() < 1e-10, "{joint} m/s^2");
        }
    }
}

#[test]
fn an_episode_ends_at_its_limits() {
    assert_eq!((EDGE, (LEAN.to_degrees() * 1e9).round(), MOST_STEPS), (2.4, 12e9, 500));
    for sign in [1.0, -1.0] {
        // A step of 0.02 s at this speed is 0.02 long.
        let end = |state: [f64; 4]| at(state.map(|number| sign * number)).push(true);
        assert_eq!(end([EDGE - 0.021, 1.0, 0.0, 0.0]), None);
        assert_eq!(end([EDGE - 0.019, 1.0, 0.0, 0.0]), Some(End::Fell));
        assert_eq!(end([0.0, 0.0, LEAN - 0.021, 1.0]), None);
        assert_eq!(end([0.0, 0.0, LEAN - 0.019, 1.0]), Some(End::Fell));
    }
    let late = |steps, state| CartPole { state, steps }.push(true);
    assert_eq!(late(498, [0.0; 4]), None);
    assert_eq!(late(499, [0.0; 4]), Some(End::Time));
    assert_eq!(late(499, [EDGE, 1.0, 0.0, 0.0]), Some(End::Fell), "nothing follows a fall");
}

#[test]
fn episodes_start_near_the_middle() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let starts: Vec<_> = (0..1000).map(|_| CartPole::new(&mut random)).collect();
    let numbers = || starts.iter().flat_map(|cart| cart.state);
    assert!(starts.iter().all(|cart| cart.steps == 0));
    assert!(numbers().all(|number| (-0.05..0.05).contains(&number)));
    let [least, most] = [f64::min, f64::max].map(|of| numbers().fold(0.0, of));
    assert!(least < -0.0499 && most > 0.0499, "from {least} to {most}");
    // Always the same push: the pole falls within some ten steps.
    for mut cart in starts.into_iter().take(20) {
        while cart.push(true).is_none() {}
        assert!((8..=11).contains(&cart.steps), "{} steps", cart.steps);
    }
}

/// The fewest steps that the program takes: the numbers say nothing of targets.
fn tiny(options: &[&str]) -> Command {
    let mut command = example("target");
    command.args(["--device", "flex", "--steps", "1500", "--seeds", "2"]).args(options);
    command
}

/// The cells of a table in Markdown, without the line below its titles.
fn cells(markdown: &str) -> Vec<Vec<String>> {
    let lines = markdown.trim().lines().filter(|line| !line.starts_with("|---"));
    let lines = lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().into()));
    lines.map(Iterator::collect).collect()
}

/// The numbers of a cell.
fn numbers(cell: &str) -> Vec<f64> {
    let words = cell.split(|c: char| !"0123456789.+-aN".contains(c)).filter(|it| !it.is_empty());
    words.map(|number| number.parse().unwrap()).collect()
}

/// The guide has the table of the default setting, which takes minutes: it has the shape of what is
/// printed here. Two processes print the same table.
#[test]
fn the_table_has_every_target() {
    let (markdown, _) = succeeds(&mut tiny(&["--markdown"]));
    let (again, _) = succeeds(&mut tiny(&["--markdown"]));
    assert_eq!(markdown, again, "a seed decides everything");
    let rows = cells(&markdown);
    let parts: Vec<_> = GUIDE.split(MARKER).collect();
    assert_eq!(parts.len(), 3, "the table stands between two lines {MARKER}");
    let guide = cells(parts[1]);
    for rows in [&rows, &guide] {
        let names: Vec<_> = rows.iter().map(|row| &row[0][..]).collect();
        let targets = ["target(tau=0.005)", "target(tau=0.02)", "copy(every=100)"];
        let [first, last] = [["target", "none"], ["copy(every=400)", "mean of the four"]];
        assert_eq!(names, [&first[..], &targets, &last].concat());
        for (index, row) in rows.iter().enumerate().skip(1) {
            assert_eq!(row.len(), 8);
            for (column, cell) in row.iter().enumerate().skip(1) {
                let count = [0, 2, 1, 3, 2, 2, 3, 3][column];
                let count = if (index, column) == (1, 3) { 0 } else { count };
                let numbers = numbers(cell);
                assert!(
                    numbers.len() == count && numbers.iter().all(|it| it.is_finite()),
                    "{row:?}"
                );
            }
            let (mean, worst) = (numbers(&row[1])[0], numbers(&row[2])[0]);
            assert!((8.0..=500.0).contains(&worst) && worst <= mean && mean <= 500.0, "{row:?}");
        }
    }
    assert_eq!(rows[0][7], "ema(0.995, debias)", "as suggested for 1,500 steps");
    let pooled: f64 = (2..6).map(|row| numbers(&rows[row][1])[0]).sum::<f64>() / 4.0;
    assert!((numbers(&rows[6][1])[0] - pooled).abs() <= 1.0, "{rows:?}");
}

#[test]
fn the_options_are_explained() {
    let (help, _) = succeeds(example("target").arg("--help"));
    for expected in ["500 at most", "from none", "--steps", "--seeds", "--markdown"] {
        assert!(help.contains(expected), "{expected}: {help}");
    }
    misused(example("target").args(["--steps", "1499"]));
    misused(example("target").args(["--seeds", "0"]));
}
