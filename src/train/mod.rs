//! Burn's Learner around models and averages: the hook, metrics beside each other, `fit`.

mod averaged;
mod fit;
mod metric;
mod progress;
mod step;

pub use averaged::Averaged;
pub use fit::fit;
pub use metric::Beside;
pub use progress::ProgressLines;
pub use step::Answers;
