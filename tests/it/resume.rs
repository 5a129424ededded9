//! Records of the hooked module: resume bit for bit, refusals, added and dropped averages.

use burn::{
    module::Module,
    store::ModuleRecord,
    tensor::DType,
    train::{LearningResult, MultiDeviceOptim},
};
use burn_ema::{AverageConfig, Rule, train::Averaged};

use crate::common::{Net, Plan, device, flat};

const SLOW: Rule = Rule::Constant { decay: 0.99, debias: true };
const FAST: Rule = Rule::Constant { decay: 0.5, debias: false };

fn averaged(seed: u64, rules: &[Rule]) -> Averaged<Net> {
    let configs = rules.iter().map(|rule| AverageConfig::new(rule.clone()));
    Averaged::new(Net::new(seed, &device()), configs).unwrap()
}

#[track_caller]
fn assert_same_state(found: &Averaged<Net>, expected: &Averaged<Net>) {
    assert_same(found, expected, true);
}

/// The same; without the statistics of batch norms if two workers trained it, since they share
/// these and write them in any order.
#[track_caller]
fn assert_same(found: &Averaged<Net>, expected: &Averaged<Net>, statistics: bool) {
    assert_eq!(found.steps(), expected.steps());
    assert!(found.names().len() >= expected.names().len());
    assert_eq!(flat(found.live(), statistics), flat(expected.live(), statistics));
    for (index, (from, to)) in found.averages().iter().zip(expected.averages()).enumerate() {
        let handed_out =
            [found, expected].map(|model| flat(&model.average(index).unwrap(), statistics));
        assert_eq!(handed_out[0], handed_out[1]);
        let (found, expected) = (from, to);
        assert_eq!(found.last_step(), expected.last_step());
        assert_eq!(found.mass().to_bits(), expected.mass().to_bits());
    }
}

/// Four epochs, and two epochs with two more after a resume from Burn's own checkpoints.
#[test]
fn four_epochs_are_two_and_two_bit_for_bit() {
    for seed in 0..3 {
        for devices in [1, 2] {
            let [straight, stopped] = [0, 1].map(|_| tempfile::tempdir().unwrap());
            let optim = MultiDeviceOptim::OptimMainDevice;
            let plan = |directory: &tempfile::TempDir| Plan {
                checkpoints: true,
                devices: vec![device(); devices],
                optim,
                ..Plan::new(directory.path())
            };
            let straight =
                Plan { epochs: 4, ..plan(&straight) }.launch(averaged(seed, &[SLOW, FAST])).model;
            plan(&stopped).launch(averaged(seed, &[SLOW, FAST]));
            // Other objects with other weights, as a new process has them.
            let resumed: LearningResult<_> = Plan { epochs: 4, resume: Some(2), ..plan(&stopped) }
                .launch(averaged(seed + 100, &[SLOW, FAST]));
            assert_same(&resumed.model, &straight, devices == 1);
        }
    }
}

fn trained() -> Averaged<Net> {
    let directory = tempfile::tempdir().unwrap();
    Plan::new(directory.path()).launch(averaged(0, &[SLOW, FAST])).model
}

#[test]
fn a_record_travels_through_a_file_and_no_longer_needs_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.bpk");
    let model = trained();
    model.clone().save_file(&path).unwrap();
    let loaded = averaged(9, &[SLOW, FAST]).try_load_file(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_same_state(&loaded, &model);
}

#[test]
fn a_failed_load_leaves_the_model_as_it_was() {
    let record = trained().into_record();
    let target = averaged(5, &[SLOW, Rule::ema(0.9)]);
    let (kept, before) = (target.clone(), flat(&target.average(0).unwrap(), true));
    let error = target.try_load_record(record).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("averages.ema(0.5): expected no average of this name"), "{error}");
    assert_eq!(flat(&kept.average(0).unwrap(), true), before);
    assert_eq!(flat(kept.live(), true), flat(&Net::new(5, &device()), true));
    assert_eq!(kept.averages()[0].last_step(), 0);
}

#[test]
fn a_load_makes_a_new_handle() {
    let model = averaged(5, &[SLOW, FAST]);
    let clone = model.clone();
    let loaded = model.load_record(trained().into_record());
    assert_eq!(loaded.averages()[0].last_step(), 16);
    assert_eq!(clone.averages()[0].last_step(), 0, "the clone kept its averages");
}

#[test]
fn a_record_of_other_averages_is_refused_unless_asked_for() {
    let model = trained();
    let load = |target: Averaged<Net>| target.try_load_record(model.clone().into_record());
    let refusal = |target| load(target).map(|_| ()).unwrap_err().to_string();

    let other_rule = AverageConfig::new(Rule::ema(0.7)).with_name(Some(SLOW.to_string()));
    let target = Averaged::new(Net::new(1, &device()), [other_rule, AverageConfig::new(FAST)]);
    let message = refusal(target.unwrap());
    let expected = "averages.ema(0.99, debias).state: expected the rule ema(0.7), \
                    found ema(0.99, debias)";
    assert!(message.contains(expected), "{message}");

    let added = || averaged(1, &[SLOW, FAST, Rule::ema(0.9)]);
    let message = refusal(added());
    assert!(message.contains("averages.ema(0.9): expected ema(0.9), found no average"));
    let loaded = load(added().allow_added(true)).unwrap();
    assert_same_state(&loaded, &model);
    let new = &loaded.averages()[2];
    let handed_out = loaded.average(2).unwrap();
    assert_eq!(flat(&handed_out, true), flat(model.live(), true), "it starts at live");
    assert_eq!((new.last_step(), new.mass()), (16, 1.0));

    let dropped = || averaged(1, &[FAST]);
    let message = refusal(dropped());
    assert!(message.contains("averages.ema(0.99, debias): expected no average"), "{message}");
    let loaded = load(dropped().allow_dropped(true)).unwrap();
    assert_eq!(loaded.names(), ["ema(0.5)"]);
    assert_eq!(flat(&loaded.average(0).unwrap(), true), flat(&model.average(1).unwrap(), true));
}

#[test]
fn plain_and_hooked_records_differ() {
    let plain = Net::new(3, &device());
    let error = averaged(0, &[SLOW]).try_load_record(plain.clone().into_record());
    let error = error.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("found a record of a plain module; load it into the module"), "{error}");
    assert!(plain.clone().try_load_record(averaged(0, &[SLOW]).into_record()).is_err());

    // From a plain record: the averages start there.
    let start = Net::new(4, &device()).load_record(plain.clone().into_record());
    let model = Averaged::new(start, [AverageConfig::new(SLOW)]).unwrap();
    assert_eq!(flat(&model.average(0).unwrap(), true), flat(&plain, true));

    // An average is a plain module again.
    let exported = model.average(0).unwrap().into_record();
    let loaded = Net::new(5, &device()).load_record(exported);
    assert_eq!(flat(&loaded, true), flat(&plain, true));
}

#[test]
fn a_record_of_another_dtype_or_shape_is_refused_by_path() {
    if cfg!(feature = "wgpu") {
        return; // no double precision there
    }
    struct Double;
    impl burn::module::ModuleMapper for Double {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<burn::tensor::Tensor<D>>,
        ) -> burn::module::Param<burn::tensor::Tensor<D>> {
            param.map(|tensor| tensor.cast(DType::F64))
        }
    }
    let double = Net::new(0, &device()).map(&mut Double);
    let record = Averaged::new(double, [AverageConfig::new(SLOW)]).unwrap().into_record();
    let error = averaged(0, &[SLOW]).try_load_record(record).map(|_| ()).unwrap_err();
    let expected =
        "averages.ema(0.99, debias).weights.first.bias: expected f32 [16], found f64 [16]";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn damaged_bytes_are_an_error() {
    let bytes = trained().into_record().into_bytes().unwrap();
    for cut in [0, 10, 200, bytes.len() / 2, bytes.len() - 1] {
        let bytes = burn::tensor::Bytes::from_bytes_vec(bytes[..cut].to_vec());
        let loaded = ModuleRecord::from_bytes(bytes)
            .and_then(|record| averaged(0, &[SLOW, FAST]).try_load_record(record));
        assert!(loaded.is_err(), "cut to {cut} bytes");
    }
}
