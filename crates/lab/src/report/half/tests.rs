use super::*;
use crate::report::curves::Curves;
use burn_ema::runs::METRICS;

/// A run with the averages `a` and `b`, of which `a` validates, and these lines of validation.
fn run(lines: &[&str]) -> RunContent {
    let directory = tempfile::tempdir().unwrap();
    let lines: String = lines.iter().map(|line| format!("valid,{line},epoch\n")).collect();
    let text = "split,epoch,metric,value,count\n".to_owned() + &lines;
    std::fs::write(directory.path().join(METRICS), text).unwrap();
    RunContent {
        path: directory.path().to_owned(),
        config: None,
        settings: Vec::new(),
        averages: ["a", "b"].map(|name| (name.to_owned(), "ema(0.9)".to_owned())).to_vec(),
        report: None,
        summary: None,
        curves: Curves::read(directory.path()).unwrap(),
        notes: Vec::new(),
    }
}

fn spread(count: usize, mean: f64, worst: f64) -> Option<Spread> {
    Some(Spread { count, mean, worst })
}

#[test]
fn the_second_half_has_the_middle_epoch_too() {
    // Powers of two and their mean are exact.
    let losses = ["1,Loss,64", "2,Loss,32", "3,Loss,1", "4,Loss,2", "5,Loss,3"];
    let half = |epochs: usize| SecondHalf::of(&run(&losses[..epochs])).unwrap();
    let expected = [
        (1, [1, 1], spread(1, 64.0, 64.0)),
        (2, [2, 2], spread(1, 32.0, 32.0)),
        (3, [2, 3], spread(2, 16.5, 32.0)),
        (4, [3, 4], spread(2, 1.5, 2.0)),
        (5, [3, 5], spread(3, 2.0, 3.0)),
    ];
    for (count, epochs, loss) in expected {
        let half = half(count);
        assert_eq!((half.epochs, half.rows[1].loss), (epochs, loss), "of {count} epochs");
    }
    assert_eq!(SecondHalf::of(&run(&[])), None);
}

#[test]
fn the_worst_loss_is_the_greatest_and_the_worst_score_the_least() {
    let half = SecondHalf::of(&run(&[
        "1,Loss (live),9",
        "1,Accuracy (live),10",
        "2,Loss,0.25",
        "2,Loss (live),1",
        "2,Loss (b),2",
        "2,Accuracy,75",
        "2,Accuracy (live),50",
        "2,Accuracy (b),25",
        "3,Loss,0.75",
        "3,Loss (live),3",
        "3,Loss (b),3",
        "3,Accuracy,50",
        "3,Accuracy (live),25",
        "3,Accuracy (b),25",
    ]))
    .unwrap();
    assert_eq!((half.epochs, half.score), ([2, 3], Some(ScoreKind::Accuracy)));
    let [live, a, b] = &half.rows[..] else { panic!("{half:?}") };
    assert_eq!((live.loss, live.score), (spread(2, 2.0, 3.0), spread(2, 0.375, 0.25)));
    assert_eq!((a.loss, a.score), (spread(2, 0.5, 0.75), spread(2, 0.625, 0.5)));
    assert_eq!(half.changes(a), Some([-75.0, -75.0]));
    assert_eq!(half.changes(b), Some([25.0, 0.0]), "an average that loses");
    assert_eq!(half.changes(live), None);
    let expected = "\
in validation,                  loss            accuracy
epochs 2 to 3        mean      worst      mean     worst
live             2.000000   3.000000   37.50 %   25.00 %
a                0.500000   0.750000   62.50 %   50.00 %  loss -75.0 %, worst -75.0 %
b                2.500000   3.000000   25.00 %   25.00 %  loss +25.0 %, worst +0.0 %";
    assert_eq!(half.to_string(), expected);
}

#[test]
fn what_the_history_lacks_is_named() {
    let half = SecondHalf::of(&run(&[
        "1,Loss,4",
        "2,Loss,3",
        "3,Loss,2",
        "4,Loss,1",
        "3,R2,0.25",
        "4,R2,0.75",
        "4,Loss (b),5",
        "4,R2 (b),-0.5",
    ]))
    .unwrap();
    assert_eq!(half.score, Some(ScoreKind::R2));
    let [live, a, b] = &half.rows[..] else { panic!("{half:?}") };
    assert_eq!((live.loss, live.score), (None, None));
    assert_eq!((a.score, b.score), (spread(2, 0.5, 0.25), spread(1, -0.5, -0.5)));
    assert_eq!([live, a, b].map(|row| half.changes(row)), [None; 3]);
    let expected = "\
in validation,                  loss                  R2
epochs 3 to 4        mean      worst      mean     worst
live                    -          -         -         -  no loss in the history, no R2 in the history
a                1.500000   2.000000    0.5000    0.2500
b                5.000000   5.000000   -0.5000   -0.5000  loss of 1 of 2 epochs, R2 of 1 of 2 epochs";
    assert_eq!(half.to_string(), expected);
}

#[test]
fn a_nan_is_the_worst() {
    let half = SecondHalf::of(&run(&["3,Loss,1", "4,Loss,NaN", "3,Loss (live),inf"])).unwrap();
    let [live, a, _] = &half.rows[..] else { panic!("{half:?}") };
    let a = a.loss.unwrap();
    assert!(a.mean.is_nan() && a.worst.is_nan(), "{a:?}");
    assert_eq!(live.loss, spread(1, f64::INFINITY, f64::INFINITY));
}
