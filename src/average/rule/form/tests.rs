use proptest::prelude::*;

use super::*;
use crate::average::rule::tests::any_rule;

#[track_caller]
fn parsed(text: &str) -> Rule {
    text.parse().unwrap()
}

#[track_caller]
fn refused(text: &str) -> String {
    text.parse::<Rule>().unwrap_err().to_string()
}

#[test]
fn json_is_the_printed_form_and_checked() {
    let rule: Rule = serde_json::from_str("\"ema(0.5)\"").unwrap();
    assert_eq!(rule, Rule::ema(0.5));
    assert_eq!(serde_json::to_string(&rule).unwrap(), "\"ema(0.5)\"");
    let error = serde_json::from_str::<Rule>("\"ema(1.5)\"").unwrap_err().to_string();
    assert!(error.contains("decay is 1.5, expected a number in [0, 1)"), "{error}");
    let error = serde_json::from_str::<Rule>("\"of-nobody(1)\"").unwrap_err().to_string();
    assert!(error.contains("of-nobody"), "{error}");
}

#[test]
fn every_rule_has_its_form() {
    let forms = [
        (Rule::ema(0.99), "ema(0.99)"),
        (Rule::debiased(0.5), "ema(0.5, debias)"),
        (Rule::HalfLife { steps: 500.0 }, "half-life(500 steps)"),
        (Rule::HalfLifeSamples { samples: 64_000.0 }, "half-life(64000 samples)"),
        (Rule::HalfLifeEpochs { epochs: 0.5 }, "half-life(0.5 epochs)"),
        (Rule::WarmUp { warm_up: 10.0, max_decay: 0.9999 }, "warm-up(10, max=0.9999)"),
        (Rule::inverse_gamma(0.75, 0.9999), "inverse-gamma(1, power=0.75, max=0.9999)"),
        (
            Rule::InverseGamma { inv_gamma: 1.0, power: 1.0, min_decay: 0.5, max_decay: 1.0 },
            "inverse-gamma(1, power=1, max=1, min=0.5)",
        ),
        (Rule::annealing(0.9998), "annealing(100, max=0.9998)"),
        (Rule::exponential_ramp(0.9999), "exp-ramp(0.9999, tau=2000)"),
        (Rule::half_life_ramp(0.05), "half-life-ramp(0.05)"),
        (
            Rule::HalfLifeRamp { fraction: 0.09, max_half_life: Some(5e5) },
            "half-life-ramp(0.09, max=500000 steps)",
        ),
        (Rule::PowerFunction { sigma_rel: 0.05 }, "power(sigma_rel=0.05)"),
        (Rule::PowerFunctionGamma { gamma: 6.94 }, "power(gamma=6.94)"),
        (Rule::Equal, "equal"),
        (Rule::lawa(5, 100), "window(5 snapshots, 100 steps)"),
        (Rule::cosine(10_000.0), "cosine(0.996, end=1, steps=10000)"),
        (
            Rule::Linear { start: 0.999, end: 0.9999, steps: 30_000.0 },
            "linear(0.999, end=0.9999, steps=30000)",
        ),
        (Rule::bema(), "bema(rho=10, gamma=1, eta=0.2, kappa=0.5)"),
        (Rule::target(0.005), "target(tau=0.005)"),
        (Rule::copy(1000), "copy(every=1000)"),
    ];
    for (rule, form) in forms {
        assert_eq!(rule.to_string(), form);
        assert_eq!(parsed(form), rule);
    }
}

#[test]
fn every_example_of_an_error_parses_and_prints_itself() {
    for form in &FORMS {
        for example in form.example.split('`').skip(1).step_by(2) {
            assert_eq!(parsed(example).to_string(), example);
            assert!(example.starts_with(form.name));
        }
    }
}

#[test]
fn a_registered_rule_has_a_form() {
    Rule::register("formed_2", |_, _| 0.5).unwrap();
    let custom = |parameters| Rule::Custom { name: "formed_2".into(), parameters };
    for (rule, form) in
        [(custom(vec![1.0, 2.5, -3.0]), "formed_2(1, 2.5, -3)"), (custom(vec![]), "formed_2")]
    {
        assert_eq!(rule.to_string(), form);
        assert_eq!(parsed(form), rule);
    }
    assert_eq!(parsed(" Formed_2 ( ) "), custom(vec![]));
    let expected = "the rule is \"formed_2(1, x)\", expected numbers, not `x`, \
                    as in `formed_2(1, 2.5)`";
    assert_eq!(refused("formed_2(1, x)"), expected);
    assert!(refused("formed_2(inf)").starts_with("parameter 1 of the rule formed_2 is inf"));
}

#[test]
fn spaces_case_keys_and_positions_are_as_the_writer_likes() {
    for (text, form) in [
        ("  EMA ( 0.99 ,DEBIAS ) ", "ema(0.99, debias)"),
        ("ema(decay=0.99, debias=true)", "ema(0.99, debias)"),
        ("ema(debias, 0.99)", "ema(0.99, debias)"),
        ("ema(0.99, debias=False)", "ema(0.99)"),
        ("ema(9.9e-1)", "ema(0.99)"),
        ("half-life(500)", "half-life(500 steps)"),
        ("half-life(1 step)", "half-life(1 steps)"),
        ("half-life(500steps)", "half-life(500 steps)"),
        ("half-life(1e3 Samples)", "half-life(1000 samples)"),
        ("half-life(epochs=2)", "half-life(2 epochs)"),
        ("half-life(epochs = 2 epochs)", "half-life(2 epochs)"),
        ("warm-up(max=0.9, warm_up=5)", "warm-up(5, max=0.9)"),
        ("warm-up(5, 0.9)", "warm-up(5, max=0.9)"),
        ("warm-up(max=0.9, 5)", "warm-up(5, max=0.9)"),
        ("window(5 snapshots, 100)", "window(5 snapshots, 100 steps)"),
        ("inverse-gamma(1, 0.75, 0.9, 0.5)", "inverse-gamma(1, power=0.75, max=0.9, min=0.5)"),
        ("inverse-gamma(inv_gamma=1, max=1, power=2)", "inverse-gamma(1, power=2, max=1)"),
        ("annealing(gamma=1, 1)", "annealing(1, max=1)"),
        ("exp-ramp(0.9, 20 steps)", "exp-ramp(0.9, tau=20)"),
        ("half-life-ramp(0.1, 20)", "half-life-ramp(0.1, max=20 steps)"),
        ("half-life-ramp(fraction=0.1)", "half-life-ramp(0.1)"),
        ("power(0.1)", "power(sigma_rel=0.1)"),
        ("target(0.005)", "target(tau=0.005)"),
        ("copy(1000 steps)", "copy(every=1000)"),
        ("Equal()", "equal"),
        ("window(5, 100)", "window(5 snapshots, 100 steps)"),
        ("window(100 steps, 5 snapshots)", "window(5 snapshots, 100 steps)"),
        ("window(interval=100, snapshots=1)", "window(1 snapshots, 100 steps)"),
        ("cosine(0.5, 1, 10 steps)", "cosine(0.5, end=1, steps=10)"),
        ("linear(start=0.5, steps=10, end=1)", "linear(0.5, end=1, steps=10)"),
        ("bema(10, 1, .2, .5)", "bema(rho=10, gamma=1, eta=0.2, kappa=0.5)"),
    ] {
        assert_eq!(parsed(text).to_string(), form, "{text}");
    }
}

#[test]
fn an_unknown_name_lists_the_known_ones() {
    Rule::register("listed-too", |_, _| 0.5).unwrap();
    let error = refused("emma(0.9)");
    let expected = "the rule is \"emma(0.9)\", expected one of ema, half-life, warm-up, \
                    inverse-gamma, annealing, exp-ramp, half-life-ramp, power, equal, window, \
                    cosine, linear, bema, target, copy, or the registered ";
    assert!(error.starts_with(expected), "{error}");
    assert!(error.contains("listed-too"), "{error}");
    // Text from outside is shown escaped.
    assert!(refused("a/b\n").starts_with(r#"the rule is "a/b\n", expected one of"#));
}

#[test]
fn text_of_another_form_is_refused() {
    for text in ["", "()", "ema(0.9", "ema 0.9)(", "ema((0.9))", "(0.9)", "ema(0.9))"] {
        let expected = format!(
            "the rule is {text:?}, expected a name with arguments in parentheses, \
             such as `ema(0.999)`"
        );
        assert_eq!(refused(text), expected);
    }
}

#[test]
fn a_wrong_argument_is_named_and_the_form_is_shown() {
    let ema = "as in `ema(0.999)` or `ema(0.999, debias)`";
    let half_life = "as in `half-life(500 steps)`, `half-life(64000 samples)` or \
                     `half-life(2 epochs)`";
    let warm_up = "as in `warm-up(10, max=0.9999)`";
    let power = "as in `power(sigma_rel=0.05)` or `power(gamma=6.94)`";
    let window = "as in `window(5 snapshots, 100 steps)`";
    for (text, problem, form) in [
        ("ema", "the argument `decay`", ema),
        ("ema()", "the argument `decay`", ema),
        ("ema(debias)", "the argument `decay`", ema),
        ("warm-up(10)", "the argument `max`", warm_up),
        ("window(5)", "the argument `interval`", window),
        ("ema(alpha=0.9)", "no argument `alpha` beside `decay`, `debias`", ema),
        ("equal(a=1)", "no argument `a`", "as in `equal`"),
        ("equal(1)", "no argument", "as in `equal`"),
        ("ema(0.9, debias, 3)", "at most 2 arguments", ema),
        ("ema(0.9, decay=0.8)", "the argument `decay` only once", ema),
        ("warm-up(10, 0.8, max=0.9)", "the argument `max` only once", warm_up),
        ("window(5 steps, 100 steps)", "the argument `interval` only once", window),
        ("warm-up(10, 0.8, 0.9)", "at most 2 arguments", warm_up),
        ("ema(x)", "a number for `decay`, not `x`", ema),
        ("ema(0,9)", "`debias` or nothing, not `9`", ema),
        ("ema(0.9, )", "`debias` or nothing, not ``", ema),
        ("ema(0.9, no)", "`debias` or nothing, not `no`", ema),
        ("ema(0.9 steps)", "a number for `decay`, not `0.9 steps`", ema),
        ("warm-up(10, max=)", "a number for `max`, not ``", warm_up),
        ("warm-up(1 0, max=1)", "a number for `warm_up`, not `1 0`", warm_up),
        ("window(2.5, 100)", "a whole number for `snapshots`, not `2.5`", window),
        ("window(-1, 100)", "a whole number for `snapshots`, not `-1`", window),
        ("window(5 epochs, 100)", "`snapshots` in snapshots, not in `epochs`", window),
        ("window(5, interval=1 epoch)", "`interval` in steps, not in `epoch`", window),
        ("half-life(2 days)", "`steps` in steps, not in `days`", half_life),
        ("half-life(steps=2 epochs)", "`steps` in steps, not in `epochs`", half_life),
        ("half-life", "one of `steps`, `samples` and `epochs`", half_life),
        ("half-life(2 epochs, 5 steps)", "one of `steps`, `samples` and `epochs`", half_life),
        ("power(0.05, gamma=3)", "one of `sigma_rel` and `gamma`", power),
        ("power", "one of `sigma_rel` and `gamma`", power),
    ] {
        let expected = format!("the rule is {text:?}, expected {problem}, {form}");
        assert_eq!(refused(text), expected);
    }
}

#[test]
fn a_number_outside_its_range_does_not_parse() {
    assert_eq!(refused("ema(2)"), "decay is 2, expected a number in [0, 1)");
    assert_eq!(refused("ema(NaN)"), "decay is NaN, expected a number in [0, 1)");
    assert_eq!(refused("ema(-inf)"), "decay is -inf, expected a number in [0, 1)");
    let error = refused("half-life(0 epochs)");
    assert_eq!(error, "the half-life in epochs is 0, expected a finite number above 0");
    assert_eq!(refused("window(0, 1)"), "snapshots is 0, expected a whole number from 1");
}

proptest! {
    #[test]
    fn a_rule_is_the_same_after_printing_and_can_name_a_file(rule in any_rule()) {
        let text = rule.to_string();
        prop_assert!(!text.contains(|c: char| c == '/' || c == '\\' || c.is_control()));
        prop_assert_eq!(parsed(&text), rule.clone());
        prop_assert_eq!(parsed(&text.to_uppercase().replace(',', " , ")), rule);
    }

    #[test]
    fn a_half_life_is_the_same_after_printing(number in 1e-300..1e300f64) {
        for rule in [
            Rule::HalfLife { steps: number },
            Rule::HalfLifeSamples { samples: number },
            Rule::HalfLifeEpochs { epochs: number },
        ] {
            prop_assert_eq!(parsed(&rule.to_string()), rule);
        }
    }

    #[test]
    fn no_text_panics(text in "[a-z(=,) 0-9.-]{0,30}", name in 0..FORMS.len()) {
        let _ = text.parse::<Rule>();
        let _ = format!("{}({text})", FORMS[name].name).parse::<Rule>();
    }
}
