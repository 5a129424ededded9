use crate::average::rule::Rule;

fn refused(name: &str) -> String {
    Rule::register(name, |_, _| 0.5).unwrap_err().to_string()
}

#[test]
fn a_name_is_taken_once_and_never_from_a_built_in_rule() {
    Rule::register("taken-once", |_, _| 0.5).unwrap();
    let expected = "the name of a rule is \"taken-once\", \
                    expected a name that is not registered yet";
    assert_eq!(refused("taken-once"), expected);
    for name in ["ema", "half-life", "power", "equal", "bema", "window"] {
        let expected =
            format!("the name of a rule is {name:?}, expected a name that no built-in rule has");
        assert_eq!(refused(name), expected);
    }
}

#[test]
fn a_name_that_would_not_parse_back_is_refused() {
    for name in ["", "Mine", "1st", "-a", "_a", "a b", "a/b", "a(1)", "\u{e4}", "a=b", "a,b"] {
        let expected = format!(
            "the name of a rule is {name:?}, expected a lower-case letter, \
             then lower-case letters, digits, `-` and `_`"
        );
        assert_eq!(refused(name), expected);
    }
    Rule::register("a-name_of-2", |_, _| 0.5).unwrap();
}

#[test]
fn a_rule_that_is_not_registered_is_named_with_the_way_to_register_it() {
    let rule = Rule::Custom { name: "never-added".into(), parameters: vec![] };
    for error in [rule.check().unwrap_err(), rule.update(1.0, 0.0, 1.0).unwrap_err()] {
        let error = error.to_string();
        assert!(error.contains("\"never-added\""), "{error}");
        assert!(error.contains("`Rule::register`"), "{error}");
    }
}

#[test]
fn a_parameter_that_is_not_finite_is_refused_by_its_place() {
    Rule::register("of-two", |_, _| 0.5).unwrap();
    let rule = Rule::Custom { name: "of-two".into(), parameters: vec![1.0, f64::NAN] };
    let expected = "parameter 2 of the rule of-two is NaN, expected a finite number";
    assert_eq!(rule.check().unwrap_err().to_string(), expected);
}

#[test]
fn the_function_receives_the_parameters_and_every_step_from_one() {
    Rule::register("of-a-step", |parameters, step| parameters[0] * step).unwrap();
    let rule = Rule::Custom { name: "of-a-step".into(), parameters: vec![0.1] };
    let update = rule.update(1.0, 0.0, 1.0).unwrap();
    assert_eq!(update.alpha, 1.0 - 0.1);
    let update = rule.update(1.0, 2.0, 4.0).unwrap();
    assert!((update.alpha - (1.0 - 0.3 * 0.4)).abs() < 1e-15);
}

#[test]
fn steps_before_one_that_keeps_nothing_are_not_asked_for() {
    Rule::register("forgets-at-5", |_, step| if step < 5.0 { f64::NAN } else { 5.0 - step })
        .unwrap();
    let rule = Rule::Custom { name: "forgets-at-5".into(), parameters: vec![] };
    assert_eq!(rule.update(1.0, 0.0, 5.0).unwrap().alpha, 1.0);
    rule.update(1.0, 0.0, 4.0).unwrap_err();
}

#[test]
fn a_decay_outside_its_range_names_rule_step_and_value() {
    Rule::register("wild", |parameters, step| if step < 3.0 { 0.5 } else { parameters[0] })
        .unwrap();
    for decay in [1.5, -0.1, f64::INFINITY] {
        let rule = Rule::Custom { name: "wild".into(), parameters: vec![decay] };
        rule.update(1.0, 0.0, 2.0).unwrap();
        let error = rule.update(1.0, 1.0, 3.0).unwrap_err().to_string();
        let expected = format!(
            "the decay of the rule wild({decay}) at step 3 is {decay}, \
             expected a number in [0, 1]"
        );
        assert_eq!(error, expected);
    }
    Rule::register("not-a-number", |_, _| f64::NAN).unwrap();
    let rule = Rule::Custom { name: "not-a-number".into(), parameters: vec![] };
    let error = rule.update(1.0, 0.0, 1.0).unwrap_err().to_string();
    assert!(error.starts_with("the decay of the rule not-a-number at step 1 is NaN"));
}
