//! What someone who has a step made can watch of it: which weights came out small, and averages
//! that ride along.
//!
//! Burn calls an optimizer for one tensor at a time and hands nothing else through, so that both
//! meet in a place of the thread.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use burn::backend::DispatchTensor;

use crate::average::{Known, Rider, Spot, spot};

/// The largest learning rate, weight decay or magnitude of a gradient with which a step is known
/// beforehand to make no number infinite; see [`Formula::is_sure`](super::pass::Formula::is_sure).
pub(crate) const LARGEST_RATE: f64 = 1e3;
pub(crate) const LARGEST_GRADIENT: f64 = 1e9;

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// What is seen of a step.
#[derive(Default)]
struct Watch {
    /// In the order in which an optimizer most likely comes to their weights.
    waiting: VecDeque<Rider>,
    arrived: Vec<Rider>,
    /// Held, since what has another owner is not changed where it is.
    known: HashMap<Spot, DispatchTensor>,
}

/// What became of a step that was watched.
pub(crate) struct Watched<R> {
    /// What it returned, or with what it panicked.
    pub result: thread::Result<R>,
    /// All riders, whether they were moved or not, those of the same live next to each other.
    pub riders: Vec<Rider>,
    /// New weights that are small, and from whose state the next step is sure to be finite.
    pub known: Known,
}

/// Has a step made on this thread, and watches it.
pub(crate) fn watched<R>(riders: Vec<Rider>, step: impl FnOnce() -> R) -> Watched<R> {
    let watch = Watch { waiting: riders.into(), ..Watch::default() };
    let outer = WATCH.replace(Some(watch));
    let result = catch_unwind(AssertUnwindSafe(step));
    let Watch { waiting, mut arrived, known } = WATCH.replace(outer).unwrap_or_default();
    arrived.extend(waiting);
    Watched { result, riders: arrived, known: Known::new(known.into_keys()) }
}

/// Whether someone watches.
pub(super) fn is_on() -> bool {
    WATCH.with_borrow(Option::is_some)
}

/// The riders that go towards these weights, which are not kept for what was known of them.
pub(super) fn riders(weights: &DispatchTensor) -> Vec<Rider> {
    let find = |watch: &mut Option<Watch>| {
        let Watch { waiting, known, .. } = watch.as_mut()?;
        let place = spot(weights)?;
        known.remove(&place);
        let is_theirs = |rider: &Rider| rider.spot() == Some(place);
        let first = waiting.iter().position(is_theirs)?;
        let count = waiting.iter().skip(first).take_while(|rider| is_theirs(rider)).count();
        Some(waiting.drain(first..first + count).collect())
    };
    WATCH.with_borrow_mut(find).unwrap_or_default()
}

/// Takes back riders, moved or not.
pub(super) fn arrived(riders: Vec<Rider>) {
    WATCH.with_borrow_mut(|watch| {
        if let Some(watch) = watch {
            watch.arrived.extend(riders);
        }
    });
}

/// Tells of weights that came out small.
pub(super) fn known(weights: DispatchTensor) {
    WATCH.with_borrow_mut(|watch| {
        if let Some(watch) = watch
            && let Some(spot) = spot(&weights)
        {
            watch.known.insert(spot, weights);
        }
    });
}

#[cfg(test)]
mod tests {
    use burn::{
        optim::GradientsParams,
        tensor::{Device, Tensor},
    };

    use crate::{
        Average, AverageConfig, Rule,
        average::{Known, Late, arrive, update_late},
        model::{Mlp, MlpConfig},
        optim::{AdamConfig, Watched, watched},
    };

    /// All that can ride does, and is moved on the way; what was not known does not.
    #[test]
    fn averages_ride_in_the_steps_of_ours_alone() {
        let device = Device::flex().autodiff();
        let configs = [Rule::ema(0.9), Rule::Equal].map(AverageConfig::new);
        let ours = AdamConfig::new().init();
        let burns = burn::optim::AdamConfig::new().init();
        for (mut optimizer, rides) in [(ours, true), (burns, false)] {
            let mut mlp = MlpConfig::new(vec![3, 4, 2]).init(&device).unwrap();
            let mut averages: Vec<Average<Mlp>> =
                configs.iter().map(|config| config.init(&mlp).unwrap()).collect();
            let mut late = Late::default();
            for step in 1..=3 {
                let loss = mlp.forward(Tensor::ones([1, 3], &device)).sum();
                let gradients = GradientsParams::from_grads(loss.backward(), &mlp);
                let riders = late.ride(&mut averages);
                let rides = rides && !cfg!(feature = "portable");
                let expected = if rides && step > 1 { 8 } else { 0 };
                assert_eq!(riders.len(), expected, "two averages of four parameters");
                let Watched { result, riders, known } =
                    watched(riders, || optimizer.step(0.01, mlp, gradients));
                assert_eq!(riders.len(), expected);
                assert!(riders.iter().all(|rider| rider.spot().is_none()), "moved on the way");
                mlp = result.unwrap();
                arrive(&mut averages, riders);
                assert_eq!(known.is_empty(), !rides);
                late = update_late(&mut averages, &mlp, step, None, &known).unwrap();
            }
            assert!(update_late(&mut averages, &mlp, 4, None, &Known::default()).is_ok());
        }
    }
}
