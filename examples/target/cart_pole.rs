//! A pole on a cart that is pushed to the left or to the right (Barto, Sutton and Anderson 1983,
//! "Neuronlike adaptive elements that can solve difficult learning control problems"), with the
//! numbers of Gymnasium's CartPole-v1.

use std::f64::consts::PI;

use rand::{Rng, RngExt as _};

/// An episode ends after so many steps.
pub const MOST_STEPS: usize = 500;
/// An episode ends where the cart is further than this from the middle, in metres.
pub const EDGE: f64 = 2.4;
/// An episode ends where the pole leans further than this, in radians: 12 degrees.
pub const LEAN: f64 = 12.0 * PI / 180.0;

/// In m/s^2, kg, m, N and s. The length is from the joint to the middle of the pole.
const GRAVITY: f64 = 9.8;
const CART: f64 = 1.0;
const POLE: f64 = 0.1;
const LENGTH: f64 = 0.5;
const FORCE: f64 = 10.0;
const SECONDS: f64 = 0.02;

/// The end of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The cart or the pole is beyond its limit: nothing follows.
    Fell,
    /// The steps are over; the pole still stands.
    Time,
}

/// An episode. Each of its steps is rewarded with 1, so that its return is its steps.
#[derive(Clone, Debug)]
pub struct CartPole {
    /// Place and speed of the cart, to the right; angle and angular speed of the pole, 0 upright
    /// and to the right.
    pub state: [f64; 4],
    /// The steps so far.
    pub steps: usize,
}

impl CartPole {
    /// A new episode, each number of whose state is drawn evenly from [-0.05, 0.05).
    pub fn new(random: &mut impl Rng) -> Self {
        Self { state: std::array::from_fn(|_| random.random_range(-0.05..0.05)), steps: 0 }
    }

    /// The state as the inputs of a network.
    pub fn inputs(&self) -> [f32; 4] {
        self.state.map(|number| number as f32)
    }

    /// Pushes the cart for one step of Euler's method; `None` where the episode goes on.
    pub fn push(&mut self, right: bool) -> Option<End> {
        let [_, speed, angle, turn] = self.state;
        let (sin, cos) = angle.sin_cos();
        let (mass, moment) = (CART + POLE, POLE * LENGTH);
        let force = if right { FORCE } else { -FORCE };
        let pushed = (force + moment * turn * turn * sin) / mass;
        let turned =
            (GRAVITY * sin - cos * pushed) / (LENGTH * (4.0 / 3.0 - POLE * cos * cos / mass));
        let moved = pushed - moment * turned * cos / mass;
        let change = [speed, moved, turn, turned];
        for (number, change) in self.state.iter_mut().zip(change) {
            *number += SECONDS * change;
        }
        self.steps += 1;
        let [place, _, angle, _] = self.state;
        match () {
            () if place.abs() > EDGE || angle.abs() > LEAN => Some(End::Fell),
            () if self.steps >= MOST_STEPS => Some(End::Time),
            () => None,
        }
    }
}
