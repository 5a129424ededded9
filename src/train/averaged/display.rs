//! How the hook is shown: alone, and in a module that contains it.

use std::fmt;

use burn::{
    module::{Content, ModuleDisplay, ModuleDisplayDefault},
    train::LearnerModel,
};

use super::Averaged;

impl<M: LearnerModel> fmt::Debug for Averaged<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Averaged")
            .field("live", &self.live)
            .field("step", &self.steps())
            .field("averages", &self.names())
            .finish_non_exhaustive()
    }
}

impl<M: LearnerModel> fmt::Display for Averaged<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\naverages: {}", self.live, self.names().join(", "))
    }
}

impl<M: LearnerModel + ModuleDisplay> ModuleDisplayDefault for Averaged<M> {
    fn content(&self, content: Content) -> Option<Content> {
        content
            .set_top_level_type("Averaged")
            .add("live", &self.live)
            .add_debug_attribute("averages", &format_args!("{}", self.names().join(", ")))
            .optional()
    }

    fn num_params(&self) -> usize {
        burn::module::Module::num_params(&self.live)
    }
}

impl<M: LearnerModel + ModuleDisplay> ModuleDisplay for Averaged<M> {}
