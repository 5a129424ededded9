//! Clones of the hook from before a training or a resume.

use super::*;

/// The running variances of the network's batch norm.
fn variances(net: &Net) -> Vec<f64> {
    net.norm.running_var.value_sync().into_data().iter::<f64>().collect()
}

#[test]
fn a_clone_from_before_the_training_has_the_averages_statistics() {
    let model = averaged(0);
    let clone = model.clone();
    let directory = tempfile::tempdir().unwrap();
    let mut training = model;
    let mut optimizer = adam();
    for _ in 0..20 {
        let grads = gradients(&training);
        training = training.optimize(&mut optimizer, 0.02.into(), grads);
    }
    drop(directory);
    let (ours, theirs) = (clone.average(0).unwrap(), training.average(0).unwrap());
    assert_eq!(flat(&ours, true), flat(&theirs, true));
    assert_ne!(variances(&ours), vec![1.0; 16]);
    let answers = |model: Averaged<Net>| {
        let loader = points(24, 2).to_device(&device());
        let outputs = loader.iter().map(|batch| InferenceStep::step(&model, batch.unwrap()).output);
        outputs.map(|output| output.into_data()).collect::<Vec<_>>()
    };
    assert_eq!(answers(clone.valid()), answers(training.valid()));
}

fn step(model: Averaged<Net>) -> Averaged<Net> {
    let grads = gradients(&model);
    model.optimize(&mut adam(), 0.02.into(), grads)
}

#[test]
fn a_clone_from_before_a_resume_says_that_its_averages_are_not_the_trainings() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan::new(directory.path());
    let begun = |epochs: usize, model: Averaged<Net>| {
        let training = Plan { epochs, ..plan.clone() }.training();
        let commits = CommitConfig::new(directory.path().join("run")).with_keep_last(9);
        fit(training, model, adam(), ConstantLr::new(0.02)).with_commits(commits).unwrap()
    };
    begun(1, averaged(0)).launch().unwrap();
    let model = averaged(0);
    let clone = model.clone();
    let trained = begun(2, model).resume().unwrap().launch().unwrap().model;
    assert_eq!(trained.steps(), 16);
    let error = clone.average(0).unwrap_err().to_string();
    assert!(error.contains("step 16") && error.contains("step 0"), "{error}");
    assert!(matches!(clone.take_warnings()[0], Warning::Replaced { step: 16, last: 0 }));
    assert!(trained.average(0).is_ok());

    // A clone that goes on by itself has a training of its own.
    assert!(step(clone).average(0).is_ok());

    // A result stays one after a training that went on from an earlier commit, until that one has
    // seen later steps.
    let earlier = |epochs| {
        let fit = begun(epochs, trained.clone()).resume_from(Progress::after(1)).unwrap();
        fit.launch().unwrap().model.steps()
    };
    assert_eq!(earlier(2), 16);
    assert!(trained.average(0).is_ok());
    assert_eq!(earlier(3), 24);
    assert!(trained.average(0).is_err());
}

#[test]
fn a_model_with_other_averages_in_its_place_makes_its_clones_stale_once_it_goes_on() {
    let device = device();
    let kept = |model: Averaged<Net>| model.keep_average_on(0, &device).unwrap();
    let loaded = |model: Averaged<Net>| {
        let record = model.clone().into_record();
        model.load_record(record)
    };
    check(kept);
    check(Averaged::materialize);
    check(loaded);

    fn check(other: impl Fn(Averaged<Net>) -> Averaged<Net>) {
        let clone = step(averaged(0));
        let model = other(clone.clone());
        assert!(clone.average(0).is_ok(), "both are at step 1");
        let model = step(model);
        assert!(clone.average(0).is_err());
        assert!(model.average(0).is_ok());
    }
}
