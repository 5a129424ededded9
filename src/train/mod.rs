//! Burn's Learner around models and averages: the hook, metrics beside each other, `fit`.

mod averaged;
mod commit;
#[cfg(feature = "tui")]
mod dashboard;
mod fit;
mod gauge;
mod metric;
mod progress;
mod rank;
mod signals;
mod strategy;
mod strict;
mod trace;

pub use averaged::{Averaged, Switch};
pub use commit::CommitConfig;
#[cfg(feature = "tui")]
pub use dashboard::Dashboard;
pub use fit::{Fit, Resumed, fit};
pub use gauge::{DistanceMetric, Gap};
pub use metric::Beside;
pub use progress::ProgressLines;
pub use rank::Ranking;
pub use signals::{Signal, Signals};
pub use trace::{Trace, TraceMetric};
