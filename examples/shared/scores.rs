//! Scores of models over seeds as a table: means, deviations, and what is more than chance.

use super::{
    statistics::{Interval, deviation, holm, interval, mean, student},
    table::table,
};

/// The models of a training, each with its name and its scores; the others are compared with the
/// first.
pub type Judged = Vec<(String, Vec<f64>)>;

/// The direction in which a score is better.
#[derive(Clone, Copy, PartialEq)]
pub enum Better {
    /// An error, a loss or a distance.
    Less,
    /// A share of right answers, a return.
    More,
}

/// A score: its title, the digits after its point, and its better direction.
pub type Column<'a> = (&'a str, usize, Better);

/// The table of all models in all settings, each by its name and with a training of every seed, of
/// which `judged` has the scores.
///
/// A score is the mean over the seeds, with the standard deviation, and `gain` or `harm` where it
/// differs by more than chance from that of the first model of the same setting: the adjusted p is
/// below 0.05 (Student's t test of the differences by seed, Holm's correction over the table).
/// The last column has the mean difference of the first score from that of the first model of the
/// last setting, with its 95 % interval; that model has none.
pub fn compare<R>(
    settings: &[(&str, Vec<R>)],
    judged: impl Fn(&R) -> &Judged,
    columns: &[Column],
    markdown: bool,
) -> String {
    let last = settings.last().map(|(name, runs)| (*name, &runs[..]));
    compared(settings, judged, columns, last, markdown)
}

/// Like [`compare`], for settings of different tasks: the last column has the difference from the
/// first model of the same setting.
pub fn compare_each<R>(
    settings: &[(&str, Vec<R>)],
    judged: impl Fn(&R) -> &Judged,
    columns: &[Column],
    markdown: bool,
) -> String {
    compared(settings, judged, columns, None, markdown)
}

/// The table with differences from the first model of `common`, or else of the same setting.
fn compared<R>(
    settings: &[(&str, Vec<R>)],
    judged: impl Fn(&R) -> &Judged,
    columns: &[Column],
    common: Option<(&str, &[R])>,
    markdown: bool,
) -> String {
    let scores = |runs: &[R], model: usize, column: usize| -> Vec<f64> {
        runs.iter().map(|run| judged(run)[model].1[column]).collect()
    };
    let from = |runs: &[R], model, column, others: &[R]| -> Vec<f64> {
        let pairs = scores(runs, model, column).into_iter().zip(scores(others, 0, column));
        pairs.map(|(own, other)| own - other).collect()
    };
    let models = settings.iter().flat_map(|(setting, runs)| {
        (0..runs.first().map_or(0, |run| judged(run).len()))
            .map(move |model| (setting, runs, model))
    });
    let tests = models.clone().filter(|(_, _, model)| *model > 0).flat_map(|(_, runs, model)| {
        (0..columns.len()).map(move |column| student(&from(runs, model, column, runs)))
    });
    let mut adjusted = holm(&tests.collect::<Vec<_>>()).into_iter();

    let first = ["setting", "model"].into_iter().chain(columns.iter().map(|column| column.0));
    let live = || settings.first()?.1.first().map(|run| judged(run)[0].0.as_str());
    let other = common.map(|(name, _)| name).or_else(live).unwrap_or_default();
    let last = format!("{} from {other}", columns[0].0);
    let mut lines = vec![first.map(str::to_owned).chain([last]).collect()];
    for (setting, runs, model) in models {
        let mut line = vec![setting.to_string(), judged(&runs[0])[model].0.clone()];
        for (column, &(_, digits, better)) in columns.iter().enumerate() {
            let all = scores(runs, model, column);
            let mut cell = format!("{:.digits$}", mean(&all));
            if all.len() > 1 {
                cell += &format!(" ± {:.digits$}", deviation(&all));
            }
            if model > 0 && adjusted.next().is_some_and(|p| p < 0.05) {
                let less = mean(&from(runs, model, column, runs)) < 0.0;
                cell += if less == (better == Better::Less) { " gain" } else { " harm" };
            }
            line.push(cell);
        }
        let others = common.map_or(&runs[..], |(_, runs)| runs);
        let (all, digits) = (from(runs, model, 0, others), columns[0].1);
        line.push(match interval(&all) {
            _ if all.iter().all(|difference| *difference == 0.0) => String::new(),
            Some(Interval { mean, low, high }) => {
                format!("{mean:+.digits$} [{low:+.digits$}, {high:+.digits$}]")
            }
            None => format!("{:+.digits$}", mean(&all)),
        });
        lines.push(line);
    }
    table(&lines, markdown)
}
