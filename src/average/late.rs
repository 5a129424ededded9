//! Updates whose numbers move later: in the pass in which the optimizer makes its next step.
//!
//! That pass reads live's numbers anyway, so that an average costs the reading and writing of its
//! own, and no walk through live.
//! Everything else of such an update, and all that can fail in it, is done at once.

use std::mem;

use burn::{
    backend::DispatchTensor,
    module::Module,
    tensor::{Device, Tensor},
};

use super::{
    lerp::{self, Borrowed, Real, Towards},
    state::Average,
};

/// The magnitude up to which numbers of live are known to be small.
pub(crate) const SMALL: f64 = 1e9;

/// Tensors of which every number is known to be small, by where they are.
///
/// Until this is made, whoever tells of them holds them, so that a change of one goes to a copy
/// elsewhere; after that it holds as long as live is neither changed nor dropped.
#[derive(Default)]
pub(crate) struct Known(Vec<lerp::Spot>);

impl Known {
    pub fn new(spots: impl Iterator<Item = lerp::Spot>) -> Self {
        let mut spots: Vec<_> = spots.collect();
        spots.sort_unstable();
        Self(spots)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, tensor: &DispatchTensor) -> bool {
        lerp::spot(tensor).is_some_and(|spot| self.0.binary_search(&spot).is_ok())
    }
}

/// What is left of an update.
#[derive(Clone, Default)]
pub(crate) struct Late(pub(super) Vec<Waiting>);

/// A parameter of an average that has yet to move.
#[derive(Clone)]
pub(super) struct Waiting {
    pub at: At,
    pub live: DispatchTensor,
    pub alpha: f64,
}

/// The index of an average, and of its parameter.
pub(super) type At = [usize; 2];

impl Late {
    /// Moves what is left.
    pub fn finish<M: Module>(&mut self, averages: &mut [Average<M>]) {
        if !self.0.is_empty() {
            let riders = self.ride(averages);
            arrive(averages, riders);
        }
    }

    /// The parameters that have yet to move, out of their averages until they
    /// [arrive](self::arrive).
    pub fn ride<M: Module>(&mut self, averages: &mut [Average<M>]) -> Vec<Rider> {
        let ride = |Waiting { at, live, alpha }| {
            let place = &mut averages[at[0]].kept[at[1]].parameter.tensor;
            Rider { at, average: mem::replace(place, nothing()), live: Some(live), alpha }
        };
        mem::take(&mut self.0).into_iter().map(ride).collect()
    }
}

/// What stands in the place of a tensor that is on its way.
fn nothing() -> DispatchTensor {
    thread_local! {
        static NOTHING: DispatchTensor = Tensor::<1>::empty([0], &Device::flex()).into_dispatch();
    }
    NOTHING.with(DispatchTensor::clone)
}

/// Takes parameters back into their averages, and moves those that were not moved on their way.
pub(crate) fn arrive<M: Module>(averages: &mut [Average<M>], mut riders: Vec<Rider>) {
    lerp::lerp_all(riders.iter_mut().filter_map(Rider::towards).collect());
    for Rider { at, average, .. } in riders {
        averages[at[0]].kept[at[1]].parameter.tensor = average;
    }
}

/// A parameter of an average on its way.
pub(crate) struct Rider {
    at: At,
    average: DispatchTensor,
    /// What it goes towards, until it was moved there.
    live: Option<DispatchTensor>,
    alpha: f64,
}

impl Rider {
    /// Where the numbers are that it goes towards.
    pub fn spot(&self) -> Option<lerp::Spot> {
        self.live.as_ref().and_then(lerp::spot)
    }

    /// Its numbers and its share, to be moved by the caller towards live, which is let go.
    pub fn board<T: Real>(&mut self, count: usize) -> Option<(&mut [T], f64)> {
        let numbers = T::numbers_mut(&mut self.average)?;
        if numbers.len() != count {
            return None;
        }
        self.live = None;
        Some((numbers, self.alpha))
    }

    fn towards(&mut self) -> Option<Towards<'_>> {
        let live = Borrowed::Own(Box::new(self.live.take()?));
        let Self { average, alpha, .. } = self;
        Some(Towards { average, live, alpha: *alpha, most: f64::INFINITY })
    }
}
