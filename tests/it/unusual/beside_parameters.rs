//! Fields of a module beside its parameters.

use super::*;

/// Fields of all kinds beside a parameter.
#[derive(Module, Debug)]
struct Mixed {
    weight: Param<Tensor<1>>,
    offset: Tensor<1>,
    #[module(skip)]
    name: String,
    scale: usize,
    gate: Option<Tensor<2>>,
    position: PositionalEncoding,
}

impl Mixed {
    fn new(device: &Device) -> Self {
        Self {
            weight: Weights::new(&[1.0, 2.0], DTYPE, device).w,
            offset: Tensor::zeros([1], device),
            name: "start".into(),
            scale: 1,
            gate: None,
            position: PositionalEncodingConfig::new(4).init(device),
        }
    }

    fn changed(mut self, by: f32) -> Self {
        let device = self.offset.device();
        self.offset = Tensor::from_data([by], &device);
        self.name = format!("changed by {by}");
        self.scale = by as usize;
        self.gate = Some(Tensor::full([1, 1], by, &device));
        self
    }

    fn all(&self) -> (Vec<f32>, String, usize, Option<f32>) {
        let offset = self.offset.to_data().try_to_vec().unwrap();
        let gate = self.gate.clone().map(|gate| gate.into_scalar());
        (offset, self.name.clone(), self.scale, gate)
    }
}

#[test]
fn the_module_is_live_as_it_was_at_the_last_update() {
    let live = Mixed::new(&device());
    let mut averages = [
        copy_of_live().init(&live).unwrap(),
        AverageConfig::new(Rule::ema(0.9)).init(&live).unwrap(),
    ];
    for average in &averages {
        assert_eq!(average.module().all(), live.all());
    }
    for (step, by) in [(1, 5.0), (2, 7.0), (3, 2.0)] {
        let live = live.clone().changed(by);
        burn_ema::average::update_all(&mut averages, &live, step, None).unwrap();
        for average in &averages {
            assert_eq!(average.module().all(), live.all(), "step {step}");
            assert_eq!(average.module_like(&live).unwrap().all(), live.all());
            assert_eq!(average.module_as_kept().all(), live.all());
        }
    }
    // An update that is not due, and one that is refused, take nothing.
    let mut average = copy_of_live().with_every(2).init(&live).unwrap();
    average.update(&live.clone().changed(3.0), 1).unwrap();
    assert_eq!(average.module().all(), live.all());
    average.update(&live.clone().changed(4.0), 2).unwrap();
    let mut bad = live.clone().changed(9.0);
    bad.weight = Weights::new(&[f64::NAN, 1.0], DTYPE, &device()).w;
    average.update(&bad, 4).unwrap();
    assert_eq!(average.refused().count, 1);
    assert_eq!(average.module().all(), live.clone().changed(4.0).all());
}

#[test]
fn a_hook_gives_the_same_from_all_its_ways() {
    let mut model = averaged(0);
    let mut optimizer = adam();
    for _ in 0..3 {
        let grads = gradients(&model);
        model = model.optimize(&mut optimizer, 0.02.into(), grads);
        let one = model.average(0).unwrap();
        let other = model.averages()[0].module();
        assert_eq!(flat(&one, true), flat(&other, true));
    }
}

#[test]
fn a_loaded_average_is_the_module_that_it_was_loaded_into() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("average.bpk");
    let live = Mixed::new(&device());
    let mut average = copy_of_live().init(&live).unwrap();
    average.update(&live.clone().changed(5.0), 1).unwrap();
    average.save_file(&path, "a test").unwrap();
    let into = live.clone().changed(8.0);
    let loaded = copy_of_live().init(&into).unwrap().try_load_file(&path).unwrap();
    assert_eq!(loaded.module().all(), into.all());
}

#[cfg(feature = "ndarray")]
#[test]
fn all_of_the_module_is_on_lives_device() {
    #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
    let other = Device::ndarray();
    let forward = |module: &Mixed, device: &Device| {
        assert!(module.devices().iter().eq([device]));
        let x = Tensor::<3>::zeros([1, 2, 4], device) + module.offset.clone().unsqueeze();
        module.position.forward(x).into_data()
    };
    let live = Mixed::new(&device());
    let expected = forward(&live, &device());
    // Kept elsewhere, before and after an update.
    let mut average = copy_of_live().init(&live).unwrap().keep_on(&other);
    assert_eq!(forward(&average.module(), &device()), expected);
    forward(&average.module_as_kept(), &other);
    average.update(&live, 1).unwrap();
    assert_eq!(forward(&average.module(), &device()), expected);
    // Live moves.
    let there = live.clone().to_device(&other);
    for config in [copy_of_live(), copy_of_live().on("weight", Policy::LeaveOut)] {
        let mut average = config.init(&live).unwrap();
        forward(&average.module_like(&there).unwrap(), &other);
        average.update(&there, 1).unwrap();
        forward(&average.module(), &other);
        average.update(&live, 2).unwrap();
        forward(&average.module(), &device());
        let mut average = average.keep_on(&other);
        average.update(&there, 3).unwrap();
        forward(&average.module(), &other);
        average.update(&live, 4).unwrap();
        forward(&average.module(), &device());
    }
}
