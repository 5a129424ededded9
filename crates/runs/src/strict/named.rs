//! A module of one parameter, under the path of the parameter in its own module.

use burn::{
    module::{Devices, Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Device, Tensor},
};

/// A module of a single parameter. Visitors and mappers get the whole path of the parameter in its
/// own module, so that the parameter groups of an optimizer match it as they do there.
#[derive(Clone, Debug)]
pub(super) struct NamedParameter<const D: usize> {
    path: String,
    param: Param<Tensor<D>>,
}

impl<const D: usize> NamedParameter<D> {
    pub fn new(path: String, param: Param<Tensor<D>>) -> Self {
        Self { path, param }
    }
}

impl<const D: usize> Module for NamedParameter<D> {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.enter_module(&self.path, "Held");
        self.param.visit(visitor);
        visitor.exit_module(&self.path, "Held");
    }

    fn map<P: ModuleMapper>(self, mapper: &mut P) -> Self {
        mapper.enter_module(&self.path, "Held");
        let param = Module::map(self.param, mapper);
        mapper.exit_module(&self.path, "Held");
        Self { param, ..self }
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.param.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self { param: self.param.fork(device), ..self }
    }

    fn to_device(self, device: &Device) -> Self {
        Self { param: self.param.to_device(device), ..self }
    }

    fn train(self) -> Self {
        Self { param: self.param.train(), ..self }
    }

    fn valid(&self) -> Self {
        Self { path: self.path.clone(), param: self.param.valid() }
    }

    fn materialize(self) -> Self {
        Self { param: self.param.materialize(), ..self }
    }
}
