//! Burn's Learner around models and averages: the hook, and metrics beside each other.

mod averaged;
#[cfg(feature = "tui")]
mod dashboard;
mod gauge;
mod metric;
mod rank;
mod step;
mod trace;

#[cfg(feature = "runs")]
pub use averaged::AveragedCommit;
pub use averaged::{Averaged, Switch};
#[cfg(feature = "tui")]
pub use dashboard::Dashboard;
pub use gauge::{DistanceMetric, Gap};
pub use metric::Beside;
pub use rank::Ranking;
pub use step::Answers;
pub use trace::TraceMetric;
#[cfg(feature = "runs")]
pub(crate) use trace::{Sample, TRACE};
