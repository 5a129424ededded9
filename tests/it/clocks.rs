//! Time in the hook: samples, epochs, a late start, several steps an update.

use burn::{module::Module, train::MultiDeviceOptim};
use burn_ema::{Average, AverageConfig, Clock, Rule, train::Averaged};

use crate::{
    common::{Net, Plan, Points, assert_close, assert_same, device, flat, lerp},
    hand::Diary,
};

fn of_batch(points: &Points) -> u64 {
    points.x.dims()[0] as u64
}

/// Sixty samples counted and a number per step are two clocks; where steps are the time it does
/// not matter.
#[test]
fn a_count_that_is_there_in_one_run_alone_is_refused() {
    let uncounted = || Averaged::new(Diary::new(0), configs()).unwrap();
    let load = |target: Averaged<Diary>, from: Averaged<Diary>| {
        target.try_load_record(from.into_record()).map(|_| ()).map_err(|error| error.to_string())
    };
    let error = load(counted(1), uncounted()).unwrap_err();
    assert!(error.contains("step: expected samples counted by a function, found no count"));
    let error = load(uncounted(), counted(1)).unwrap_err();
    assert!(error.contains("step: expected no count, found samples counted by a function"));
    load(counted(1), counted(0)).unwrap();

    let in_steps = || Averaged::new(Diary::new(0), [AverageConfig::new(Rule::ema(0.8))]).unwrap();
    load(in_steps(), in_steps().with_samples(of_batch)).unwrap();
}

/// Rules whose time runs in samples, and one that counts steps.
fn configs() -> [AverageConfig; 4] {
    let in_samples = |rule| AverageConfig::new(rule).with_samples_per_step(Some(8));
    [
        in_samples(Rule::HalfLifeSamples { samples: 100.0 }),
        in_samples(Rule::debiased(0.9)).with_count_samples(true),
        in_samples(Rule::power_function(0.1)).with_count_samples(true).with_every(3),
        AverageConfig::new(Rule::ema(0.8)),
    ]
}

fn counted(seed: u64) -> Averaged<Diary> {
    Averaged::new(Diary::new(seed), configs()).unwrap().with_samples(of_batch)
}

/// The averages of what the diary holds, each step with its clock.
fn by_hand(seed: u64, pages: &[(Clock, Diary)]) -> Vec<Average<Diary>> {
    let start = Diary::new(seed);
    let averages = configs().map(|config| {
        let mut average = config.init(&start).unwrap();
        for (clock, live) in pages {
            average.update_at(live, *clock).unwrap();
        }
        average
    });
    averages.into()
}

#[track_caller]
fn assert_same_averages<M: Module>(found: &[Average<M>], expected: &[Average<M>]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_same(&flat(&found.module(), true), &flat(&expected.module(), true));
        assert_eq!(found.clock(), expected.clock());
        assert_eq!(found.profile(), expected.profile());
        assert_eq!(found.mass().to_bits(), expected.mass().to_bits());
    }
    assert_eq!(found.len(), expected.len());
}

/// Sixty points are seven batches of eight and one of four; accumulated by three the last step of
/// an epoch has two batches; two devices have thirty points each, whose last batch is six.
#[test]
fn samples_are_counted_under_every_plan() {
    let several = |optim| (1, vec![device(); 2], optim);
    let main = MultiDeviceOptim::OptimMainDevice;
    let plans = [
        ((1, vec![device()], main), vec![8, 8, 8, 8, 8, 8, 8, 4]),
        ((3, vec![device()], main), vec![24, 24, 12]),
        (several(main), vec![16, 16, 16, 12]),
        (several(MultiDeviceOptim::OptimSharded), vec![16, 16, 16, 12]),
    ];
    for seed in 0..2 {
        for ((accumulate, devices, optim), epoch) in &plans {
            let directory = tempfile::tempdir().unwrap();
            let plan = Plan {
                points: 60,
                accumulate: *accumulate,
                devices: devices.clone(),
                optim: *optim,
                ..Plan::new(directory.path())
            };
            let model = plan.launch(counted(seed)).model;
            assert!(model.error().is_none());
            let pages = model.live().pages();
            let of_steps = pages.iter().scan(0, |before, (clock, _)| {
                let samples = clock.samples - *before;
                *before = clock.samples;
                Some(samples)
            });
            assert_eq!(of_steps.collect::<Vec<_>>(), epoch.repeat(2));
            assert_eq!((model.samples(), model.steps()), (120, 2 * epoch.len() as u64));
            assert_same_averages(&model.averages(), &by_hand(seed, &pages));

            // The first rule as one writes it: half of the past is left after 100 samples.
            let (mut average, mut before) = (flat(&Diary::new(seed), false), 0);
            for (clock, live) in &pages {
                let samples = (clock.samples - before) as f64;
                before = clock.samples;
                lerp(&mut average, &flat(live, false), 1.0 - 0.5f64.powf(samples / 100.0));
            }
            assert_close(&flat(&model.average(0).unwrap(), false), &average, 1e-6);
        }
    }
}

#[test]
fn samples_go_on_after_a_resume_bit_for_bit() {
    for devices in [1, 2] {
        let [straight, stopped] = [0, 1].map(|_| tempfile::tempdir().unwrap());
        let plan = |directory: &tempfile::TempDir| Plan {
            points: 60,
            checkpoints: true,
            devices: vec![device(); devices],
            ..Plan::new(directory.path())
        };
        let straight = Plan { epochs: 4, ..plan(&straight) }.launch(counted(3)).model;
        let half = plan(&stopped).launch(counted(3)).model;
        assert_eq!(half.samples(), 120);
        let resumed = Plan { epochs: 4, resume: Some(2), ..plan(&stopped) };
        let resumed = resumed.launch(counted(9)).model;
        assert_eq!((resumed.samples(), resumed.steps()), (240, straight.steps()));
        assert_same_averages(&resumed.averages(), &straight.averages());
        assert_same_averages(&resumed.averages(), &by_hand(3, &straight.live().pages()));
    }
}

/// A snapshot keeps its own count; a clone, as the Learner's workers have it, adds to one count.
#[test]
fn clones_count_together_and_snapshots_apart() {
    let device = device().autodiff();
    let model = Averaged::new(Net::new(0, &device), configs()).unwrap().with_samples(of_batch);
    let batch = crate::common::points(8, 1).to_device(&device).iter().next().unwrap().unwrap();
    let snapshot = model.valid();
    burn::train::TrainStep::step(&model.clone(), batch.clone());
    burn::train::TrainStep::step(&model, batch);
    assert_eq!((model.samples(), model.clone().samples(), snapshot.samples()), (16, 16, 0));
}

#[test]
fn without_a_counter_a_step_has_samples_per_step() {
    let directory = tempfile::tempdir().unwrap();
    let model = Averaged::new(Diary::new(0), configs()).unwrap();
    let model = Plan { points: 60, ..Plan::new(directory.path()) }.launch(model).model;
    assert_eq!(model.samples(), 0);
    let averages = model.averages();
    let clocks: Vec<_> = averages.iter().map(|average| average.clock().samples).collect();
    assert_eq!(clocks, [128, 128, 128, 0], "sixteen steps of eight");
    // The same rules in steps.
    let in_steps = [
        AverageConfig::new(Rule::half_life(12.5)),
        AverageConfig::new(Rule::debiased(0.9)),
        AverageConfig::new(Rule::power_function(0.1)).with_every(3),
        AverageConfig::new(Rule::ema(0.8)),
    ];
    for (found, config) in averages.iter().zip(in_steps) {
        let mut expected = config.init(&Diary::new(0)).unwrap();
        for (clock, live) in model.live().pages() {
            expected.update(&live, clock.step).unwrap();
        }
        assert_same(&flat(&found.module(), true), &flat(&expected.module(), true));
        assert_eq!(found.profile(), expected.profile());
    }
}

/// An average that joins a run starts where the run is, whether samples are counted or not.
#[test]
fn an_average_that_is_added_later_starts_at_the_clock_of_the_run() {
    for counts in [false, true] {
        let [one, two] = [0, 1].map(|_| tempfile::tempdir().unwrap());
        let plan = |directory: &tempfile::TempDir| Plan {
            points: 60,
            epochs: 1,
            ..Plan::new(directory.path())
        };
        let averaged = |configs: &[AverageConfig]| {
            let model = Averaged::new(Diary::new(0), configs.to_vec()).unwrap();
            if counts { model.with_samples(of_batch) } else { model }
        };
        let all = configs();
        let first = plan(&one).launch(averaged(&all[3..])).model;
        let added = averaged(&all).allow_added(true).load_record(first.clone().into_record());
        // Live's ids and weights are those of the record, and the diary is blank.
        let start = Diary::new(0).load_record(added.live().clone().into_record());
        let model = plan(&two).launch(added).model;
        assert!(model.error().is_none(), "{:?}", model.error());
        let per_epoch = if counts { 60 } else { 64 };
        for (config, found) in all.iter().zip(model.averages()).take(3) {
            // An average by hand starts at a clock if it is live up to it.
            let mut expected = config.clone().with_start(8).init(&start).unwrap();
            expected.update_at(&start, Clock { step: 8, samples: per_epoch }).unwrap();
            for (clock, live) in model.live().pages() {
                let samples = if counts { clock.samples } else { clock.step * 8 };
                let clock = Clock { step: clock.step + 8, samples: per_epoch + samples };
                expected.update_at(&live, clock).unwrap();
            }
            assert_same(&flat(&found.module(), true), &flat(&expected.module(), true));
            assert_eq!(found.mass().to_bits(), expected.mass().to_bits());
            assert_eq!(found.clock(), Clock { step: 16, samples: 2 * per_epoch });
        }
    }
}

#[test]
fn time_without_its_measure_is_an_error_that_names_it() {
    let net = Net::new(0, &device());
    let message = |config: AverageConfig| {
        let average = config.init(&net).map(|_| ()).unwrap_err().to_string();
        let hook = Averaged::new(net.clone(), [config]).map(|_| ()).unwrap_err().to_string();
        assert_eq!(average, hook);
        average
    };
    let samples = message(AverageConfig::new(Rule::HalfLifeSamples { samples: 100.0 }));
    assert!(samples.starts_with("samples_per_step is not set"), "{samples}");
    let counted = message(AverageConfig::new(Rule::ema(0.9)).with_count_samples(true));
    assert_eq!(
        counted,
        "samples_per_step is none, expected a number of 1 or more, for time in samples"
    );
    let epochs = message(AverageConfig::new(Rule::HalfLifeEpochs { epochs: 2.0 }));
    assert!(epochs.starts_with("steps_per_epoch is not set"), "{epochs}");
    let start = message(AverageConfig::new(Rule::ema(0.9)).with_start_epoch(Some(2)));
    assert_eq!(
        start,
        "steps_per_epoch is none, expected a number of 1 or more, for a start in epochs"
    );
    let both = AverageConfig::new(Rule::ema(0.9)).with_start(5).with_start_epoch(Some(2));
    assert_eq!(
        message(both.with_steps_per_epoch(Some(8))),
        "start is 5, expected none beside a `start_epoch`"
    );
    // Also of a rule for single paths.
    let own = burn_ema::Policy::Rule(Rule::HalfLifeSamples { samples: 100.0 });
    let own = message(AverageConfig::new(Rule::ema(0.9)).on("first.*", own));
    assert!(own.starts_with("samples_per_step is not set"), "{own}");
}

#[test]
fn a_half_life_in_epochs_is_one_in_steps() {
    let directory = tempfile::tempdir().unwrap();
    let in_epochs = AverageConfig::new(Rule::HalfLifeEpochs { epochs: 0.5 });
    let configs =
        [in_epochs.with_steps_per_epoch(Some(8)), AverageConfig::new(Rule::half_life(4.0))];
    let model = Averaged::new(Net::new(0, &device()), configs).unwrap();
    let model = Plan::new(directory.path()).launch(model).model;
    let [epochs, steps] = [0, 1].map(|index| flat(&model.average(index).unwrap(), true));
    assert_eq!(epochs, steps);
    let profile = model.averages()[0].profile();
    assert_close(&[profile.mass_on_start()], &[1.0 / 16.0], 1e-12);
}

/// How often an average is updated changes neither its width nor what the start weighs in it.
#[test]
fn several_steps_an_update_count_all_of_them() {
    let (every, start) = (3, 4);
    let directory = tempfile::tempdir().unwrap();
    let configs = [Rule::ema(0.9), Rule::debiased(0.9), Rule::Equal].map(|rule| {
        [every, 1].map(|every| {
            let name = format!("{rule} every {every}");
            let config = AverageConfig::new(rule.clone()).with_name(Some(name));
            config.with_every(every).with_start(start)
        })
    });
    let model = Averaged::new(Diary::new(0), configs.concat()).unwrap();
    let model = Plan::new(directory.path()).launch(model).model;
    let pages = model.live().pages();
    let live = |step: u64| flat(&pages[step as usize - 1].1, false);

    // As one writes it: the updates are at 7, 10, 13 and 16, of three steps each.
    let (mut ema, mut debiased, mut equal) = (live(start), live(start), live(start));
    for (index, step) in [7, 10, 13, 16].into_iter().enumerate() {
        let kept = 0.9f64.powi(3);
        let mass = 1.0 - kept.powi(index as i32 + 1);
        lerp(&mut ema, &live(step), 1.0 - kept);
        lerp(&mut debiased, &live(step), (1.0 - kept) / mass);
        lerp(&mut equal, &live(step), 1.0 / (index as f64 + 1.0));
    }
    for (index, expected) in [(0, &ema), (2, &debiased), (4, &equal)] {
        let found = flat(&model.average(index).unwrap(), false);
        assert_close(&found, expected, 1e-6);
    }
    let profiles: Vec<_> = model.averages().iter().map(Average::profile).collect();
    for pair in profiles.chunks(2) {
        let [sparse, dense] = pair else { unreachable!("two of each rule") };
        assert_close(&[sparse.mass_on_start()], &[dense.mass_on_start()], 1e-12);
        // Weights stand at the end of the steps that an update covers: one step of two to late.
        let late = dense.mean_age() - sparse.mean_age();
        assert!((0.0..=1.1).contains(&late), "{late}");
        assert_close(&[sparse.half_life()], &[dense.half_life()], 0.05);
    }
    // Before the first update after the start an average stays at the start.
    let config = AverageConfig::new(Rule::ema(0.9)).with_every(every).with_start(start);
    let mut average = config.init(&Diary::new(0)).unwrap();
    for (clock, page) in &pages[..6] {
        average.update(page, clock.step).unwrap();
        let expected = live(clock.step.min(start));
        assert_eq!(flat(&average.module(), false), expected, "step {}", clock.step);
    }
}

/// A step without a count follows the counted ones at the pace of the configuration.
#[test]
fn counted_and_uncounted_steps_follow_each_other() {
    let config = AverageConfig::new(Rule::HalfLifeSamples { samples: 1000.0 })
        .with_samples_per_step(Some(100));
    let (start, live) = (Net::new(0, &device()), Net::new(1, &device()));
    let mut average = config.init(&start).unwrap();
    let mut clock = Clock::default();
    for _ in 0..10 {
        clock = clock.after(95);
        average.update_at(&start, clock).unwrap();
    }
    average.update(&live, 11).unwrap();
    assert_eq!(average.clock(), Clock { step: 11, samples: 950 + 100 });
    let mut expected = flat(&start, false);
    lerp(&mut expected, &flat(&live, false), 1.0 - 2f64.powf(-0.1));
    assert_close(&flat(&average.module(), false), &expected, 1e-6);
}

#[test]
fn a_switch_at_epochs_needs_their_steps() {
    let model = |steps| {
        let config = AverageConfig::new(Rule::ema(0.5)).with_steps_per_epoch(steps);
        Averaged::new(Net::new(0, &device()), [config]).unwrap()
    };
    let error = model(None).with_switch_at_epochs(1, 1.0).map(|_| ()).unwrap_err().to_string();
    let expected =
        "steps_per_epoch is none, expected a number of 1 or more, for a switch at epochs";
    assert_eq!(error, expected);
    assert!(model(Some(8)).with_switch_at_epochs(0, 1.0).is_err());

    // Eight steps an epoch: after two epochs live is the average, bit for bit.
    let directory = tempfile::tempdir().unwrap();
    let trained =
        Plan::new(directory.path()).launch(model(Some(8)).with_switch_at_epochs(2, 1.0).unwrap());
    assert_eq!(trained.model.steps(), 16);
    let [live, average] =
        [trained.model.live().clone(), trained.model.average(0).unwrap()].map(|m| flat(&m, false));
    assert_eq!(live, average);
}
