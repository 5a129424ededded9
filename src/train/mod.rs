//! Burn's Learner around models and averages: the hook, metrics beside each other, `fit`.

mod averaged;
mod fit;
mod gauge;
mod metric;
mod progress;
mod rank;
mod step;

pub use averaged::{Averaged, Switch};
pub use fit::fit;
pub use gauge::{DistanceMetric, Gap};
pub use metric::Beside;
pub use progress::ProgressLines;
pub use rank::Ranking;
pub use step::Answers;
