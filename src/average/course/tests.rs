use super::*;

const STEPS: Schedule = Schedule { samples: false, per_step: 1, start: 0, every: 1, copies: None };

fn at(step: u64) -> Clock {
    Clock { step, samples: 0 }
}

/// Goes to a clock and says what there was to do.
fn go(course: &mut Course, schedule: &Schedule, now: Clock) -> Due {
    let due = course.due(schedule, now).unwrap();
    course.advance(schedule, now, due);
    due
}

#[test]
fn an_average_is_live_until_its_start_and_averages_at_every_interval() {
    let schedule = Schedule { start: 3, every: 2, ..STEPS };
    let mut course = Course::new(&schedule, Clock::default());
    let dues: Vec<_> = (1..=8).map(|step| go(&mut course, &schedule, at(step))).collect();
    let update = |from, to| Due::Update { from, to };
    assert_eq!(dues[..3], [Due::Copy; 3]);
    let then = [Due::Nothing, update(0.0, 2.0), Due::Nothing, update(2.0, 4.0), Due::Nothing];
    assert_eq!(dues[3..], then);
    assert_eq!(course.runs, [Run { updates: 2, ticks: 2 }], "equal ones are one run");
    assert_eq!(course.times(&schedule).collect::<Vec<_>>(), [2.0, 4.0]);
    let numbers = [course.first(&schedule), course.last(&schedule), course.elapsed(&schedule)];
    assert_eq!(numbers, [3.0, 4.0, 5.0]);
}

#[test]
fn a_start_that_no_update_meets_is_the_first_one_after_it() {
    let schedule = Schedule { start: 3, ..STEPS };
    let mut course = Course::new(&schedule, Clock::default());
    assert_eq!(go(&mut course, &schedule, at(10)), Due::Copy);
    assert_eq!(go(&mut course, &schedule, at(12)), Due::Update { from: 0.0, to: 2.0 });
    // One that is made later begins where it is made.
    let mut course = Course::new(&schedule, at(5));
    assert_eq!(go(&mut course, &schedule, at(6)), Due::Update { from: 0.0, to: 1.0 });
}

#[test]
fn samples_are_the_time_where_they_are_counted() {
    let schedule = Schedule { samples: true, per_step: 10, ..STEPS };
    let mut course = Course::new(&schedule, Clock::default());
    let clock = Clock::default().after(10);
    assert_eq!(go(&mut course, &schedule, clock), Due::Update { from: 0.0, to: 1.0 });
    let clock = clock.after(5);
    assert_eq!(go(&mut course, &schedule, clock), Due::Update { from: 1.0, to: 1.5 });
    // A step without samples covers no time.
    assert_eq!(go(&mut course, &schedule, clock.after(0)), Due::Nothing);
    let back = Clock { step: 9, samples: 14 };
    let error = course.due(&schedule, back).unwrap_err().to_string();
    let expected =
        "the number of samples so far is 14, expected at least 15, as many as at the last step";
    assert_eq!(error, expected);
}

#[test]
fn the_same_step_is_nothing_and_a_step_back_an_error() {
    let mut course = Course::new(&STEPS, Clock::default());
    assert!(course.due(&STEPS, at(0)).is_err());
    go(&mut course, &STEPS, at(4));
    let before = course.clone();
    assert_eq!(go(&mut course, &STEPS, at(4)), Due::Nothing);
    assert_eq!(course, before);
    let error = course.due(&STEPS, at(3)).unwrap_err();
    assert!(matches!(error, Error::StepBack { step: 3, last: 4 }));
}

#[test]
fn runs_that_no_course_has_are_refused() {
    let of = |updated, begun, runs: Vec<Run>| Course::of(&STEPS, at(9), updated, begun, runs);
    let runs = vec![Run { updates: 3, ticks: 2 }, Run { updates: 1, ticks: 1 }];
    assert!(of(9, Some(2), runs.clone()).is_ok());
    assert!(of(10, Some(2), runs.clone()).is_err(), "an update to come");
    assert!(of(9, Some(3), runs.clone()).is_err(), "more time than there was");
    assert!(of(9, None, runs).is_err(), "updates before the start");
    assert!(of(9, Some(10), Vec::new()).is_err(), "a start to come");
    for run in [
        Run { updates: 0, ticks: 3 },
        Run { updates: 3, ticks: 0 },
        Run { updates: u64::MAX, ticks: 2 },
    ] {
        assert!(of(9, Some(0), vec![run]).is_err(), "{run:?}");
    }
}
