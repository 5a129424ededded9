use proptest::prelude::*;

use super::super::feature::{FeatureKind, Texts};
use super::*;

fn feature(name: &str, offset: f64, divisor: f64) -> Feature {
    Feature::number(name, Scale { offset, divisor })
}

fn classification(labels: &[&str]) -> Task {
    Task::Classification { labels: labels.iter().map(|&label| label.into()).collect() }
}

fn regression(offset: f64, divisor: f64) -> Task {
    Task::Regression { scale: Scale { offset, divisor } }
}

fn preparation(task: Task) -> Preparation {
    let features = vec![feature("a", 1.0, 2.0), feature("b", 0.0, 1e-3)];
    Preparation::new("y".into(), features, task).unwrap()
}

fn refusal(result: Result<impl std::fmt::Debug>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn rows_are_scaled_column_by_column() {
    let preparation = preparation(regression(0.0, 1.0));
    let inputs = preparation.encode(&[vec![3.0, 0.001], vec![-1.0, -0.002]]).unwrap();
    assert_eq!(inputs, [1.0, 1.0, -1.0, -2.0]);
    assert_eq!((preparation.inputs(), preparation.columns()), (2, vec!["a", "b"]));
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let preparation = preparation(regression(0.0, 1.0));
    assert_eq!(
        refusal(preparation.encode(&[vec![1.0, 2.0], vec![1.0]])),
        "the length of row 1 is 1, expected 2"
    );
    for bad in [f64::NAN, f64::INFINITY, 1e38] {
        let error = refusal(preparation.encode(&[vec![1.0, bad]]));
        assert!(error.starts_with("feature \"b\" of row 0 is "), "{error}");
    }
}

/// Two texts that were trained and one that was not, between a number and a truth.
fn with_texts(missing: Missing) -> Preparation {
    let texts = Texts {
        trained: vec!["red".into(), "blue".into()],
        shares: vec![0.75, 0.25],
        untrained: vec!["grey".into()],
    };
    let plain = Scale { offset: 0.0, divisor: 1.0 };
    let features = vec![
        feature("a", 1.0, 2.0),
        Feature { name: "c".into(), scale: plain, kind: FeatureKind::Texts(texts) },
        Feature { name: "t".into(), scale: plain, kind: FeatureKind::Truth },
    ];
    let preparation = Preparation::new("y".into(), features, regression(0.0, 1.0)).unwrap();
    preparation.with_reading(Reading { missing, ..Reading::default() }, 4)
}

#[test]
fn a_text_is_one_and_zeros() {
    let preparation = with_texts(Missing::Error);
    assert_eq!(preparation.inputs(), 4);
    let rows = [[3.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 2.0, 0.0]].map(Vec::from);
    let inputs = preparation.encode(&rows).unwrap();
    assert_eq!(inputs, [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    for bad in [3.0, -1.0, 0.5, f64::NAN] {
        let error = refusal(preparation.encode(&[vec![1.0, bad, 0.0]]));
        assert!(error.contains("expected the index of a text, below 3"), "{error}");
    }
}

#[test]
fn a_missing_value_is_the_mean_where_it_was_asked_for() {
    let row = [vec![f64::NAN; 3]];
    assert_eq!(with_texts(Missing::Mean).encode(&row).unwrap(), [0.0, 0.75, 0.25, 0.0]);
    assert!(with_texts(Missing::Error).encode(&row).is_err());
    assert!(with_texts(Missing::Drop).encode(&row).is_err());
}

#[test]
fn classes_become_one_and_zeros() {
    let preparation = preparation(classification(&["no", "yes", "maybe"]));
    let labels = vec!["no".into(), "yes".into(), "maybe".into()];
    let targets = Targets::Classes { labels: labels.clone(), of_row: vec![2, 0] };
    assert_eq!(preparation.encode_targets(&targets).unwrap(), [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]);
    let beyond = Targets::Classes { labels, of_row: vec![0, 3] };
    assert_eq!(
        refusal(preparation.encode_targets(&beyond)),
        "the class of row 1 is 3, expected below 3"
    );
    let others = Targets::Classes { labels: vec!["no".into(), "yes".into()], of_row: vec![0] };
    assert_eq!(
        refusal(preparation.encode_targets(&others)),
        "the labels of the targets is no, yes, expected no, yes, maybe"
    );
    assert!(preparation.encode_targets(&Targets::Numbers(vec![1.0])).is_err());
}

#[test]
fn numbers_go_to_the_network_and_back() {
    let preparation = preparation(regression(100.0, 10.0));
    let targets = Targets::Numbers(vec![120.0, 95.0]);
    assert_eq!(preparation.encode_targets(&targets).unwrap(), [[2.0], [-0.5]]);
    assert_eq!(
        preparation.decode(&[2.0, -0.5]).unwrap(),
        [Answer::Number(120.0), Answer::Number(95.0)]
    );
    let classes = Targets::Classes { labels: vec![], of_row: vec![] };
    assert!(preparation.encode_targets(&classes).is_err());
    assert!(preparation.encode_targets(&Targets::Numbers(vec![f64::NAN])).is_err());
}

#[test]
fn the_most_probable_class_is_the_answer() {
    let preparation = preparation(classification(&["no", "yes"]));
    let answers = preparation.decode(&[0.1, 0.3, 1.0, 0.0, 0.5, 0.5, 0.0, 0.0]).unwrap();
    for (answer, (expected, first)) in
        answers.iter().zip([("yes", 0.25), ("no", 1.0), ("no", 0.5), ("no", 0.5)])
    {
        let Answer::Class { label, probabilities } = answer else { panic!("not a class") };
        assert_eq!(label, expected);
        assert!((probabilities[0] - first).abs() < 1e-6);
        assert!((probabilities[0] + probabilities[1] - 1.0).abs() < 1e-6);
    }
}

#[test]
fn outputs_that_are_no_answers_are_refused() {
    let preparation = preparation(classification(&["no", "yes"]));
    assert_eq!(
        refusal(preparation.decode(&[1.0; 3])),
        "the number of outputs is 3, expected a multiple of 2"
    );
    assert_eq!(
        refusal(preparation.decode(&[1.0, 1.0, 1.0, f32::NAN])),
        "output 1 of row 1 is NaN, expected a finite number"
    );
    assert!(preparation.decode(&[]).unwrap().is_empty());
}

#[test]
fn what_is_saved_comes_back() {
    let unnamed = Reading { header: false, delimiter: ';', ..Reading::default() };
    for saved in [
        preparation(classification(&["a", "b"])),
        preparation(regression(0.1, 1.0 / 3.0)),
        preparation(regression(0.0, 1.0)).with_reading(unnamed, 3),
        with_texts(Missing::Mean),
    ] {
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(serde_json::from_str::<Preparation>(&text).unwrap(), saved);
    }
}

#[test]
fn what_was_spoilt_is_refused_by_name() {
    let good = serde_json::to_string(&preparation(regression(5.0, 4.0))).unwrap();
    let spoil = |from: &str, to: &str| {
        assert!(good.contains(from), "{good}");
        serde_json::from_str::<Preparation>(&good.replace(from, to)).unwrap_err().to_string()
    };
    let error = spoil("\"divisor\":2.0", "\"divisor\":0.0");
    assert!(error.starts_with("the divisor of feature \"a\" is 0, expected"), "{error}");
    let error = spoil("\"divisor\":4.0", "\"divisor\":-4.0");
    assert!(error.starts_with("the divisor of target \"y\" is -4, expected"), "{error}");
    let error = spoil("\"name\":\"b\"", "\"name\":\"a\"");
    assert!(error.starts_with("the name of a feature is \"a\" twice"), "{error}");
    let texts = serde_json::to_string(&with_texts(Missing::Mean)).unwrap();
    for (from, to, expected) in [
        ("\"blue\"", "\"red\"", "the name of a text of feature \"c\" is \"red\" twice"),
        ("[\"red\",\"blue\"]", "[]", "the number of texts of feature \"c\" is 0"),
        ("[0.75,0.25]", "[0.75]", "the number of shares of feature \"c\" is 1, expected 2"),
        ("0.75", "1.75", "a share of feature \"c\" is 1.75, expected 0 to 1"),
        ("\"mean\"", "\"most\"", "unknown variant `most`"),
    ] {
        let spoilt = texts.replace(from, to);
        let error = serde_json::from_str::<Preparation>(&spoilt).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(spoil("\"offset\":1.0", "\"offset\":null").contains("null"));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let new = |features, task| Preparation::new("y".into(), features, task);
    let one = || vec![feature("a", 0.0, 1.0)];
    assert!(new(one(), classification(&["a", "b"])).is_ok());
    assert!(refusal(new(vec![], regression(0.0, 1.0))).contains("number of features"));
    assert!(refusal(new(one(), classification(&["a"]))).contains("number of labels"));
    assert!(refusal(new(one(), classification(&["a", "b", "a"]))).contains("name of a label"));
    for bad in [f64::NAN, f64::INFINITY] {
        assert!(refusal(new(one(), regression(bad, 1.0))).contains("offset of target \"y\""));
        let features = vec![feature("a", 0.0, bad)];
        let error = refusal(new(features, regression(0.0, 1.0)));
        assert!(error.contains("divisor of feature \"a\""), "{error}");
    }
}

proptest! {
    #[test]
    fn a_number_survives_the_way_there_and_back(
        offset in -1e6..1e6, divisor in 1e-3..1e6, value in -1e6..1e6
    ) {
        let preparation = preparation(regression(offset, divisor));
        let there = preparation.encode_targets(&Targets::Numbers(vec![value])).unwrap();
        let back = preparation.decode(&there[0]).unwrap();
        let Answer::Number(back) = back[0] else { panic!("not a number") };
        prop_assert!((back - value).abs() <= 1e-6 * (value - offset).abs() + 1e-9);
    }

    #[test]
    fn probabilities_are_probabilities(outputs in prop::collection::vec(-1e38f32..1e38, 2..9)) {
        let probabilities = shares(&outputs);
        prop_assert!(probabilities.iter().all(|p| (0.0..=1.0).contains(p)));
        prop_assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
}
