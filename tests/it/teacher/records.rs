//! The settings of a teacher in records: what a resumed training must have again.

use std::{collections::BTreeMap, fs, path::Path};

use super::*;

/// Without a teacher, and with each of two averages as the teacher in each mode.
type Chosen = Option<(usize, bool)>;
const CHOICES: [Chosen; 5] =
    [None, Some((0, false)), Some((1, false)), Some((0, true)), Some((1, true))];

fn model(seed: u64, teacher: Chosen) -> Averaged<Net> {
    let configs = [Rule::ema(DECAY), Rule::ema(0.5)].map(AverageConfig::new);
    let model = Averaged::new(Net::new(seed, &device()), configs).unwrap();
    let model = match teacher {
        None => Ok(model),
        Some((index, false)) => model.with_teacher(index, learn),
        Some((index, true)) => model.with_teacher_in_training_mode(index, learn),
    };
    model.unwrap().train()
}

fn described(teacher: Chosen) -> String {
    match teacher {
        None => "no teacher".to_owned(),
        Some((index, trains)) => {
            let (name, mode) = (["ema(0.9)", "ema(0.5)"][index], ["validation", "training"]);
            format!("the average {name} in {} mode", mode[usize::from(trains)])
        }
    }
}

/// The error of a load into a module with the teacher `own` of a record with the teacher `saved`.
fn refusal(own: Chosen, saved: Chosen) -> String {
    let remedy = match saved {
        None => "leave out the teacher".to_owned(),
        Some((index, false)) => format!("call `with_teacher({index}, ..)` first"),
        Some((index, true)) => format!("call `with_teacher_in_training_mode({index}, ..)` first"),
    };
    let (own, saved) = (described(own), described(saved));
    format!(
        "teacher: expected {own}, found {saved} in the record ({remedy}; the change can be \
         allowed: `allow_other_teacher`)"
    )
}

#[test]
fn a_record_of_another_teacher_is_refused_unless_that_is_allowed() {
    let mut optimizer = SgdConfig::new().init();
    for saved in CHOICES {
        let mut trained = model(20, saved);
        for number in 1..=3 {
            trained = step(trained, &mut optimizer, batch(number));
        }
        let load = |target: Averaged<Net>| target.try_load_record(trained.clone().into_record());
        for own in CHOICES {
            let target = model(21, own);
            let kept = target.clone();
            let before = flat(kept.live(), true);
            let loaded = load(target);
            if own == saved {
                let loaded = step(loaded.unwrap(), &mut SgdConfig::new().init(), batch(4));
                assert_eq!((loaded.steps(), loaded.error().is_none()), (4, true));
                continue;
            }
            let error = loaded.map(drop).unwrap_err().to_string();
            assert!(error.ends_with(&refusal(own, saved)), "{error}");
            assert_eq!((kept.steps(), kept.averages()[0].last_step()), (0, 0));
            assert_same(&flat(kept.live(), true), &before);

            let loaded = load(model(21, own).allow_other_teacher(true)).unwrap();
            assert_eq!(loaded.steps(), 3);
            assert_same(&flat(loaded.live(), true), &flat(trained.live(), true));
            // From here on, records hold the teacher that the module has now.
            let record = loaded.into_record();
            assert_eq!(model(22, own).try_load_record(record).unwrap().steps(), 3);
        }
    }
}

/// An average of this name is at another place, or nowhere.
#[test]
fn a_teacher_is_recorded_by_name() {
    let [one, other] = [Rule::ema(DECAY), Rule::ema(0.5)].map(AverageConfig::new);
    let record = || model(23, Some((1, false))).into_record();
    let new = |configs: &[AverageConfig]| {
        Averaged::new(Net::new(24, &device()), configs.iter().cloned()).unwrap()
    };
    let swapped = new(&[other.clone(), one.clone()]).with_teacher(0, learn).unwrap();
    assert!(swapped.try_load_record(record()).is_ok());
    let swapped = new(&[other, one.clone()]).try_load_record(record()).map(drop);
    let error = swapped.unwrap_err().to_string();
    assert!(error.contains("(call `with_teacher(0, ..)` first"), "{error}");
    let dropped = new(&[one]).allow_dropped(true).try_load_record(record()).map(drop);
    let error = dropped.unwrap_err().to_string();
    assert!(error.contains("(add an average "), "{error}");
}

/// All files below a directory, by path.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => _ = found.insert(path.display().to_string(), fs::read(&path).unwrap()),
        }
    }
    found
}

#[test]
fn a_run_with_another_teacher_is_not_resumed_and_loses_nothing() {
    let taught = Some((0, false));
    let train = |run: &Path, epochs, teacher| {
        let plan = Plan { epochs, ..Plan::new(run) };
        let fit = fit(plan.training(), model(25, teacher), adam(), ConstantLr::new(0.02));
        let fit = fit.with_commits(CommitConfig::new(run))?.resume()?;
        Ok::<_, Error>(fit.launch()?.model)
    };
    for (saved, own) in [(taught, None), (None, taught), (taught, Some((0, true)))] {
        let directory = tempfile::tempdir().unwrap();
        let [whole, run] = ["whole", "run"].map(|name| directory.path().join(name));
        train(&run, 1, saved).unwrap();
        let before = files(&run);
        let error = train(&run, 2, own).map(drop).unwrap_err();
        assert!(error.to_string().contains("cannot resume from"), "{error}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, refusal(own, saved));
        assert_eq!(files(&run), before);
        // It goes on with the teacher that it had.
        let (resumed, whole) = (train(&run, 2, saved).unwrap(), train(&whole, 2, saved).unwrap());
        assert_eq!((resumed.steps(), whole.steps()), (16, 16));
        assert_same(&flat(resumed.live(), true), &flat(whole.live(), true));
    }
}

/// Burn panics where its own checkpoint cannot be loaded, and `fit` returns that as an error.
#[test]
fn a_checkpoint_of_burn_with_another_teacher_is_not_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan { checkpoints: true, epochs: 1, ..Plan::new(directory.path()) };
    let taught = Some((0, false));
    plan.launch(model(26, taught));
    let resumed = Plan { epochs: 2, resume: Some(1), ..plan };
    let launch = |teacher| {
        let other = model(27, teacher);
        fit(resumed.training(), other, adam(), ConstantLr::new(0.02)).launch()
    };
    let error = launch(None).map(drop).unwrap_err().to_string();
    assert!(error.contains(&refusal(None, taught)), "{error}");
    assert_eq!(launch(taught).unwrap().model.steps(), 16);
}
