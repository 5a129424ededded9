//! Two servers in Burn's strategies for several devices: the bits, and the bytes on the wire.

use burn::{
    module::Module,
    nn::{Linear, LinearConfig},
    remote::RemoteHost,
    tensor::{Device, Tensor, activation},
    train::{InferenceStep, MultiDeviceOptim, RegressionOutput, TrainOutput, TrainStep},
};
use burn_ema::{AverageConfig, Rule, train::Averaged};

use crate::{
    common::{Net, Plan, Points, assert_same, flat, lerp, randomized},
    hand::{ByHand, Pages},
    parts,
    proxy::Proxy,
    server::{Server, device, on_servers},
};

const MODES: [MultiDeviceOptim; 2] =
    [MultiDeviceOptim::OptimMainDevice, MultiDeviceOptim::OptimSharded];

const DECAYS: [f64; 2] = [0.9, 0.99];

/// Two servers with one device each.
const TWO: [&[&str]; 2] = [&[]; 2];

fn configs() -> [AverageConfig; 2] {
    DECAYS.map(|decay| AverageConfig::new(Rule::ema(decay)))
}

/// Averages by the hook, and by hand of live after each step, of the same training; and live of a
/// training without the hook.
#[test]
fn averages_are_those_of_a_loop_by_hand() {
    for optim in MODES {
        for seed in 0..3 {
            on_servers(TWO, |servers| by_hand(servers, optim, seed));
        }
    }
}

fn by_hand(servers: &[Server; 2], optim: MultiDeviceOptim, seed: u64) {
    let devices = servers.each_ref().map(Server::device);
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan { devices: devices.to_vec(), optim, ..Plan::new(directory.path()) };
    let written = || ByHand::of(Net::new(seed, &devices[0]), Pages::default());

    let start = flat(&written(), false);
    let model = plan.launch(Averaged::new(written(), configs()).unwrap()).model;
    let pages = model.live().pages().into_iter();
    let pages: Vec<_> = pages.map(|(_, page)| flat(&page, false)).collect();
    assert_eq!(pages.len(), 8, "one page for each step");
    for (index, decay) in DECAYS.into_iter().enumerate() {
        let mut average = start.clone();
        for live in &pages {
            lerp(&mut average, live, 1.0 - decay);
        }
        // Workers write the statistics of a batch norm in any order.
        assert_same(&flat(&model.average(index).unwrap(), false), &average);
    }
    let plain = plan.launch(written()).model;
    assert_same(&flat(&plain, false), &flat(model.live(), false));
}

/// A network without batch norm has no statistics whose order is chance.
#[test]
fn two_servers_and_one_with_two_devices_compute_the_same() {
    for optim in MODES {
        let trained = |devices: &[Device]| {
            let directory = tempfile::tempdir().unwrap();
            let model = Averaged::new(Wide::new(&devices[0]), configs()).unwrap();
            let plan = Plan { devices: devices.to_vec(), optim, ..Plan::new(directory.path()) };
            let model = plan.launch(model).model;
            [flat(model.live(), true), flat(&model.average(1).unwrap(), true)].concat()
        };
        let two = on_servers(TWO, |servers| trained(&servers.each_ref().map(Server::device)));
        let both = on_servers([&["--devices", "2"]], |[server]| {
            let host = RemoteHost::websocket(&server.address);
            trained(&host.devices().unwrap().into_iter().collect::<Vec<_>>())
        });
        assert_same(&both, &two);
        assert_same(&trained(&[Device::flex(), Device::flex()]), &two);
    }
}

/// Averages move once: to the device of their weight, and the first one to that of each validation.
#[test]
fn a_step_sends_no_average() {
    // Three times each: which weight is whose shard is chance.
    let printed = parts::each("several::a_step_sends_no_average", 6, |part| {
        let optim = MODES[part % 2];
        let wide = Wide::new(&Device::flex());
        let model = 4 * wide.num_params() as u64;
        let [plain, averaged] = [false, true].map(|it| sent(TWO, &wide, optim, it));
        let more = averaged as f64 / plain as f64;
        println!("{optim:?}: {plain} bytes a step, {averaged} with two averages, {more:.4} times");
        assert!(plain > 2 * model, "weights go to the other server, and gradients come");
        assert!(more <= 1.02, "{optim:?}: {averaged} against {plain}");
    });
    printed.iter().for_each(|printed| print!("{printed}"));
}

/// Not the weights either: they are on the server.
#[test]
fn a_step_on_one_server_sends_operations_alone() {
    let wide = Wide::new(&Device::flex());
    let of = |averaged| sent([&[]], &wide, MODES[0], averaged);
    let [plain, averaged] = [false, true].map(of);
    println!("one server: {plain} bytes a step, {averaged} with two averages");
    assert!(averaged < plain + 16_000, "{averaged} against {plain}");
    assert!(averaged < 4 * wide.num_params() as u64 / 10, "{averaged}");
}

/// Bytes to and from all servers in a step, by a plain model or with two averages.
///
/// Trainings of as many epochs with other numbers of steps tell the bytes of a step from those
/// of the start and of validations.
fn sent<const N: usize>(
    options: [&[&str]; N],
    wide: &Wide,
    optim: MultiDeviceOptim,
    averaged: bool,
) -> u64 {
    let [shorter, longer] = [4, 12].map(|steps| {
        on_servers(options, |servers| {
            // Other addresses, so that each training has sessions of its own.
            let proxies = servers.each_ref().map(|server| Proxy::before(&server.address));
            let devices: Vec<_> = proxies.iter().map(|proxy| device(&proxy.address)).collect();
            let directory = tempfile::tempdir().unwrap();
            // Each device has a batch of eight in a step.
            let plan = Plan { optim, points: 8 * N * steps, ..Plan::new(directory.path()) };
            let plan = Plan { devices: devices.clone(), ..plan };
            // One list of ids, so that the shards of all trainings are the same.
            let model = wide.clone().fork(&devices[0]);
            match averaged {
                true => drop(plan.launch(Averaged::new(model, configs()).unwrap())),
                false => drop(plan.launch(model)),
            }
            // Operations are still on their way until then.
            devices.iter().for_each(|device| device.sync().unwrap());
            proxies.iter().flat_map(Proxy::bytes).sum::<u64>()
        })
    });
    // Eight steps more in each of two epochs.
    (longer - shorter) / 16
}

/// Some 264,000 weights, about 1 MB.
#[derive(Module, Debug)]
struct Wide {
    layers: Vec<Linear>,
}

impl Wide {
    fn new(device: &Device) -> Self {
        let layer = |sizes: &[usize]| LinearConfig::new(sizes[0], sizes[1]).init(device);
        let layers = [2, 512, 510, 3].windows(2).map(layer).collect();
        randomized(Self { layers }, 7)
    }

    fn output(&self, points: Points) -> RegressionOutput {
        let layer = |x: Tensor<2>, layer: &Linear| activation::sigmoid(layer.forward(x));
        let output = self.layers.iter().fold(points.x, layer);
        let error = output.clone() - points.y.clone();
        RegressionOutput::new((error.clone() * error).mean(), output, points.y)
    }
}

impl TrainStep for Wide {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        let output = self.output(points);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Wide {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> RegressionOutput {
        self.output(points)
    }
}
