//! All settings together: which average is best over them, and how steady the suggested one is.

use super::{
    results::{EARLY, LIVE, Line, POST_HOC},
    statistics::mean,
    table::distinct,
};

/// A sentence about a table, its head and its rows.
pub type About = (&'static str, Vec<&'static str>, Vec<Vec<String>>);

/// For each model, the mean over all settings of the difference of its mean loss from that of live;
/// for the averages chosen beforehand, how often each has the least and the greatest loss of them,
/// and by how much it is above the least at most.
pub fn averages(settings: &[Vec<Line>]) -> About {
    let head = vec![
        "model",
        "loss, %, mean over settings",
        "above live in",
        "least in",
        "greatest in",
        "above the least at most, %",
    ];
    let names = settings.iter().flatten().flat_map(|line| &line.judged);
    let names = distinct(names.map(|judged| judged.name.as_str()));
    let loss = |lines: &Vec<Line>, name: &str| {
        let judged = lines.iter().flat_map(|line| &line.judged);
        let losses = judged.filter(|judged| judged.name == name).map(|judged| judged.test_loss);
        mean(&losses.collect::<Vec<_>>())
    };
    let losses = |name: &str| settings.iter().map(|lines| loss(lines, name)).collect::<Vec<_>>();
    let live = losses(LIVE);
    let is_beforehand = |name: &str| ![LIVE, EARLY, POST_HOC].contains(&name);
    // The least and the greatest loss of each setting.
    let extremes: Vec<_> = settings
        .iter()
        .map(|lines| {
            let all = names.iter().filter(|name| is_beforehand(name));
            let all = all.map(|name| loss(lines, name));
            all.fold([f64::INFINITY, 0.0], |[a, b], loss| [loss.min(a), loss.max(b)])
        })
        .collect();
    let row = |name: &&str| {
        let own = losses(name);
        let changes: Vec<_> = own.iter().zip(&live).map(|(own, live)| own / live - 1.0).collect();
        let above_live = changes.iter().filter(|change| **change > 0.0).count().to_string();
        let of_all = || own.iter().zip(&extremes);
        let [least, greatest] =
            [0, 1].map(|which| of_all().filter(|(own, all)| **own == all[which]).count());
        let above = of_all().map(|(own, [least, _])| 100.0 * (own / least - 1.0));
        let above = format!("{:.1}", above.fold(0.0, f64::max));
        let [least, greatest, above] = match is_beforehand(name) {
            true => [least.to_string(), greatest.to_string(), above],
            false => Default::default(),
        };
        let change = format!("{:+.1}", 100.0 * mean(&changes));
        vec![(*name).to_owned(), change, above_live, least, greatest, above]
    };
    let about = "Over all settings, the mean loss of each model; of the averages chosen beforehand, \
                 in how many settings it is the least and the greatest";
    (about, head, names.iter().filter(|name| **name != LIVE).map(row).collect())
}

/// For each setting, the mean and the greatest validation loss over the second half of the epochs,
/// of live and of the suggested average: means over the seeds, and in how many seeds the greatest
/// of the average is below that of live.
pub fn second_halves(settings: &[Vec<Line>]) -> About {
    let head = vec![
        "setting",
        "live, mean",
        "live, worst",
        "average, mean",
        "average, worst",
        "mean, %",
        "worst, %",
        "worst is better in",
    ];
    let row = |lines: &Vec<Line>| {
        let of = |line: &Line| -> Option<[[f64; 2]; 2]> {
            let mut halves = line.judged.iter().filter_map(|judged| judged.second_half);
            Some([halves.next()?, halves.next()?])
        };
        let halves = lines.iter().map(of).collect::<Option<Vec<_>>>()?;
        let over = |model: usize, measure: usize| {
            mean(&halves.iter().map(|half| half[model][measure]).collect::<Vec<_>>())
        };
        let [live, average] = [0, 1].map(|model| [over(model, 0), over(model, 1)]);
        let change = |measure: usize| 100.0 * (average[measure] / live[measure] - 1.0);
        let better = halves.iter().filter(|[live, average]| average[1] < live[1]).count();
        let [live, average] = [live, average].map(|losses| losses.map(|loss| format!("{loss:.4}")));
        let mut cells = vec![lines.first()?.setting.clone()];
        cells.extend([live, average].into_iter().flatten());
        cells.extend([format!("{:+.1}", change(0)), format!("{:+.1}", change(1))]);
        cells.push(format!("{better} of {}", halves.len()));
        Some(cells)
    };
    let about = "In validation, over the second half of the epochs, the mean and the worst loss of \
                 live and of the suggested average, means over the seeds";
    (about, head, settings.iter().filter_map(row).collect())
}
