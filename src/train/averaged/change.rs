//! A mapper that finds out whether another one has changed a weight.

use burn::{
    backend::TensorMetadata,
    module::{Flag, ModuleMapper, Param},
    tensor::{Bool, Int, Tensor},
};

use crate::{Result, kernel};

/// Wraps a mapper, and finds out whether it has changed a floating-point parameter, as an optimizer
/// does, or has left all unchanged, as freezing does.
///
/// To compare, it holds each parameter while the parameter is mapped, so that the inner mapper
/// cannot write in place. After the first change or error it only passes parameters on.
pub(super) struct ChangeFinder<'a, P> {
    pub mapper: &'a mut P,
    /// True after a change; an error if a parameter could not be read back to be compared.
    pub has_changed: Result<bool>,
}

impl<P: ModuleMapper> ModuleMapper for ChangeFinder<'_, P> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.mapper.enter_module(name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.mapper.exit_module(name, container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !matches!(self.has_changed, Ok(false)) || !param.is_initialized() {
            return self.mapper.map_float(param);
        }
        let before = param.base().without_autodiff().into_dispatch();
        let mapped = self.mapper.map_float(param);
        let after = mapped.base().without_autodiff().into_dispatch();
        // A change of dtype alone, as by quantization, is no step.
        if before.dtype() == after.dtype() {
            self.has_changed = kernel::are_equal(before, after).map(|equal| !equal);
        }
        mapped
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        self.mapper.map_int(param)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        self.mapper.map_bool(param)
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.mapper.map_flag(flag)
    }
}
