//! Which floats of a module are running states, such as the statistics of a batch norm.

use std::collections::BTreeSet;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Shape, Tensor},
};

/// The paths of the module's running states (`RunningState` of Burn): floats that a forward pass
/// changes and that no optimizer moves.
///
/// A traversal shows them as parameters like any other.
/// But clones of a module share them, and `map` writes through to all clones. So this function maps
/// a clone of a copy of the module, and finds the floats of the copy that have changed.
pub(crate) fn running_states<M: Module>(module: &M) -> BTreeSet<String> {
    // `valid`, unlike `clone`, shares no state with the module.
    let copy = module.valid();
    let before = Shapes::of(&copy);
    drop(copy.clone().map(&mut Reshape));
    let after = Shapes::of(&copy);
    let both = before.found.into_iter().zip(after.found);
    both.filter(|(before, after)| before.1 != after.1).map(|((path, _), _)| path).collect()
}

/// The path and shape of every float.
#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    found: Vec<(String, Shape)>,
}

impl Shapes {
    fn of<M: Module>(module: &M) -> Self {
        let mut shapes = Self::default();
        module.visit(&mut shapes);
        shapes
    }
}

impl ModuleVisitor for Shapes {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push((self.path.join("."), param.base().shape()));
    }
}

/// Gives every float another shape.
struct Reshape;

impl ModuleMapper for Reshape {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let mut shape = [1; D];
        if let (Some(first), 1) = (shape.first_mut(), tensor.shape().num_elements()) {
            *first = 2;
        }
        Param::from_mapped_value(id, Tensor::zeros(shape, &tensor.device()), mapper)
    }
}
