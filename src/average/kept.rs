//! One parameter of an average: its tensors, its treatment, and its part in an update.

use std::collections::VecDeque;

use burn::{
    backend::{DispatchDevice, DispatchTensor, TensorMetadata},
    tensor::DType,
};

use super::{
    numbers::{Move, Moved},
    walk::{Parameter, ParameterKind},
};
use crate::kernel::{self, Borrowed, Towards};

/// A parameter of the module, with the tensors that the average keeps for it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The parameter, with an id and a tensor of its own.
    pub parameter: Parameter,
    pub how: Treatment,
    /// The device of live's parameter at the last update, if the average keeps its own on another
    /// one; else `None`.
    pub live_device: Option<DispatchDevice>,
    /// Further tensors that some rules keep: for a window its snapshots, oldest first; for BEMA
    /// live at the start and live at the last update.
    pub beside: VecDeque<DispatchTensor>,
}

/// The average's treatment of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Averaged by the group of this index.
    Averaged(usize),
    Copied,
    Frozen,
    LeftOut,
}

impl Treatment {
    /// The largest magnitude that the average may take from live for a parameter; `None` if the
    /// average takes nothing from it, or takes any number. `kept` is the dtype in which the average
    /// keeps the parameter, and `begun` is true once the average has started.
    ///
    /// For an averaged parameter the bound is half of the largest number of `kept`, since the
    /// difference of average and live must be finite too; for a copied or frozen one it is the
    /// largest number of the parameter's own dtype.
    pub fn most(self, parameter: &Parameter, kept: DType, begun: bool) -> Option<f64> {
        let largest = |dtype: DType| dtype.finfo().map_or(f64::INFINITY, |info| info.max);
        match self {
            _ if parameter.kind == ParameterKind::Constant => None,
            Self::Averaged(_) => Some(0.5 * largest(kept)),
            Self::Frozen if begun => None,
            Self::Copied | Self::Frozen => Some(largest(parameter.dtype)),
            Self::LeftOut => None,
        }
    }
}

impl Kept {
    /// The share of the way to live by which the update moves the tensor; `None` if the update does
    /// anything else, such as to copy the parameter, to keep it, or to change a tensor beside it.
    pub fn mixes(&self, moves: &[Move]) -> Option<f64> {
        let Treatment::Averaged(group) = self.how else { return None };
        match moves[group].how {
            Moved::Mixed { alpha, beside: false } => Some(alpha),
            _ => None,
        }
    }

    /// The pair of average and live that the kernels mix; `None` if the update does not only
    /// [mix](Self::mixes) them.
    ///
    /// Both must be on one device: the average is moved to live's device or, if it `stays` on its
    /// own, live is copied to the average's device.
    pub fn towards<'a>(
        &'a mut self,
        live: &'a DispatchTensor,
        moves: &[Move],
        stays: bool,
    ) -> Option<Towards<'a>> {
        let alpha = self.mixes(moves)?;
        let average = &mut self.parameter.tensor;
        if !stays {
            kernel::move_to_device_of(average, live);
        }
        let live = match kernel::are_on_same_device(live, average) {
            true => Borrowed::Tensor(live),
            false => Borrowed::Own(Box::new(kernel::on_device_of(live.clone(), average))),
        };
        Some(Towards { average, live, alpha })
    }

    /// Updates a parameter that the kernels do not [mix](Self::mixes): a copied or frozen one, or
    /// one with snapshots or other tensors beside it. For any parameter it notes live's device, if
    /// the average is kept on another one.
    pub fn take(&mut self, live: &DispatchTensor, moves: &[Move], stays: bool) {
        let apart = stays && !kernel::are_on_same_device(&self.parameter.tensor, live);
        self.live_device = apart.then(|| live.device());
        if self.mixes(moves).is_some() {
            return;
        }
        if !stays {
            kernel::move_to_device_of(&mut self.parameter.tensor, live);
            self.beside.iter_mut().for_each(|tensor| kernel::move_to_device_of(tensor, live));
        }
        let here =
            |tensor: &DispatchTensor| kernel::on_device_of(tensor.clone(), &self.parameter.tensor);
        let group = match self.how {
            Treatment::LeftOut => return,
            Treatment::Copied => {
                self.parameter.tensor = here(live);
                return;
            }
            Treatment::Frozen => {
                // The average starts when its first group does.
                if let Moved::Copied { .. } = moves[0].how {
                    self.parameter.tensor = here(live);
                }
                return;
            }
            Treatment::Averaged(group) => group,
        };
        let live = kernel::cast(here(live), self.parameter.tensor.dtype());
        match moves[group].how {
            Moved::Kept => {}
            Moved::Copied { beside } => {
                self.beside.clear();
                if beside {
                    self.beside.extend([live.clone(), live.clone()]);
                }
                self.parameter.tensor = live;
            }
            Moved::Mixed { alpha, beside } => {
                kernel::lerp(&mut self.parameter.tensor, &live, alpha);
                if beside && let Some(latest) = self.beside.back_mut() {
                    *latest = live;
                }
            }
            Moved::Snapshot { left } => {
                self.beside.push_back(live.clone());
                self.beside.drain(..left);
                // The start, or the mean so far, is not needed any more.
                self.parameter.tensor = live;
            }
        }
    }
}
