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

#[test]
fn a_clone_from_before_a_resume_says_that_its_averages_are_not_the_trainings() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan::new(directory.path());
    let launch = |epochs: usize, model: Averaged<Net>| {
        let training = Plan { epochs, ..plan.clone() }.training();
        let lr = burn::lr_scheduler::constant::ConstantLr::new(0.02);
        let commits = CommitConfig::new(directory.path().join("run"));
        let fit = fit(training, model, adam(), lr).with_commits(commits).unwrap();
        fit.resume().unwrap().launch().unwrap().model
    };
    launch(1, averaged(0));
    let model = averaged(0);
    let clone = model.clone();
    let trained = launch(2, model);
    assert_eq!(trained.steps(), 16);
    let error = clone.average(0).unwrap_err().to_string();
    assert!(error.contains("step 8") && error.contains("step 0"), "{error}");
    assert!(matches!(clone.take_warnings()[0], Warning::Replaced { step: 8, last: 0 }));
    assert!(trained.average(0).is_ok());

    // A clone that goes on by itself has a training of its own.
    let mut clone = clone;
    let grads = gradients(&clone);
    clone = clone.optimize(&mut adam(), 0.02.into(), grads);
    assert!(clone.average(0).is_ok());
    // A model with the averages of the record, or later ones, is no stale one.
    let later = trained.clone();
    let _ = trained.clone().load_record(later.clone().into_record());
    assert!(later.average(0).is_ok());
}
