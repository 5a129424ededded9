//! Burn's Learner around models and averages: the hook, and metrics beside each other.

mod averaged;
mod bundle;
#[cfg(feature = "tui")]
mod dashboard;
mod gauge;
mod metric;
mod rank;
mod trace;

#[cfg(feature = "runs")]
pub use averaged::AveragedCommit;
pub use averaged::{Averaged, Switch};
pub use bundle::{Bundle, BundlePart};
#[cfg(feature = "tui")]
pub use dashboard::Dashboard;
pub use gauge::{DistanceMetric, Gap};
pub use metric::SourceMetric;
pub use rank::Ranking;
pub use trace::{Trace, TraceMetric};
