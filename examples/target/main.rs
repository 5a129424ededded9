//! What a target network gains, and an average as the actor: a deep Q-network (Mnih et al. 2015,
//! "Human-level control through deep reinforcement learning") that balances a pole, over several
//! seeds: `cargo run --example target`.

#[macro_use]
#[path = "../shared/mod.rs"]
mod shared; // `println!` to a reader that may leave
mod cart_pole; // the environment
#[path = "../shared/uses.rs"]
mod uses; // jobs, random numbers, statistics, tables

use std::{array, collections::VecDeque};

use anyhow::Result;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_ema::average::update_all;
use burn_ema::model::{Activation, Mlp, MlpConfig};
use burn_ema::{Average, AverageConfig, Rule, fast::AdamConfig};
use burn_ema_lab::device;
use clap::Parser;
use rand::RngExt as _;

use self::cart_pole::{CartPole, End};
use self::uses::{Interval, Options, deviation, interval, mean, over_seeds, random, table};

/// Tensors come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A reward of the next step counts so much today: no value can be above 1 / (1 - 0.99) = 100.
const DISCOUNT: f64 = 0.99;
/// The network learns after each step but the first ones, from steps drawn from the last ones.
const FIRST: usize = 500;
const LAST: usize = 10_000;
const BATCH: usize = 64;
/// The actors are judged at ten moments of the last third, in so many episodes each.
const EPISODES: usize = 20;

#[derive(Parser)]
#[command(about = "Balance a pole by Q-learning, with several target networks and with none")]
#[command(after_help = "\
Returns are steps per episode, 500 at most; deviations are over the seeds, and intervals of 95 %
are Student's t of differences by seed.
return     of the episodes in the last third of the training, which explores at 5 % of its steps
worst      the return of the worst seed
from none  the difference from the training that bootstraps from live
value      the network's own estimate of what is ahead at the end; 100 is the most that there is
live       the return of live without exploration, at ten moments of the last third
The last columns are differences from `live`, when an average of live chooses the actions instead,
from the same starts.
The last row has the mean of the four trainings with a target, by seed.")]
struct Args {
    #[command(flatten)]
    uses: Options,
    /// The steps of the environment in each training
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1500..=10_000_000))]
    steps: u64,
}

/// The return, the value, and the returns of live and of two averages without exploration.
type Scores = [f64; 5];
/// A step: the inputs before it, the action, the inputs after it, and 1 where something follows.
type Step = ([f32; 4], bool, [f32; 4], f32);

fn tensor<const N: usize>(rows: impl Iterator<Item = [f32; N]>, device: &Device) -> Tensor<2> {
    let rows: Vec<_> = rows.collect();
    let shape = [rows.len(), N];
    Tensor::from_data(TensorData::new(rows.into_flattened(), shape), device)
}

/// True for each input where the push to the right has the higher value.
fn choose(net: &Mlp, inputs: impl Iterator<Item = [f32; 4]>, device: &Device) -> Vec<bool> {
    let values: Vec<f32> = net.forward(tensor(inputs, device)).into_data().iter().collect();
    values.chunks(2).map(|values| values[1] > values[0]).collect()
}

/// The mean return of a network without exploration; the seed and the moment decide the starts.
fn play(net: &Mlp, seed: u64, moment: u64, device: &Device) -> f64 {
    let mut random = random(seed, moment);
    let mut carts: Vec<_> = (0..EPISODES).map(|_| CartPole::new(&mut random)).collect();
    let mut steps = 0;
    while !carts.is_empty() {
        steps += carts.len();
        let mut actions = choose(net, carts.iter().map(CartPole::inputs), device).into_iter();
        carts.retain_mut(|cart| actions.next().is_some_and(|right| cart.push(right).is_none()));
    }
    steps as f64 / EPISODES as f64
}

/// Trains with a target network of the rule.
fn run(steps: u64, device: &Device, (rule, seed, mut live): (&Rule, u64, Mlp)) -> Result<Scores> {
    let mut target = AverageConfig::new(rule.clone()).init(&live)?;
    let actors = [AverageConfig::new(Rule::debiased(0.999)), AverageConfig::suggest(steps)];
    let mut actors = actors.iter().map(|one| one.init(&live)).collect::<Result<Vec<_>, _>>()?;
    let (mut optimizer, mut random) = (AdamConfig::new().init(), random(seed, 0));
    let (mut cart, mut memory) = (CartPole::new(&mut random), VecDeque::<Step>::new());
    let (mut returns, mut judged, mut value) = (vec![], [(); 3].map(|()| vec![]), 0.0);
    for step in 1..=steps {
        // From drawing all actions to 5 % in the first fifth.
        let explores = f64::max(1.0 - 0.95 * step as f64 / (0.2 * steps as f64), 0.05);
        let before = cart.inputs();
        let right = match random.random::<f64>() < explores {
            true => random.random(),
            false => choose(&live.valid(), [before].into_iter(), device)[0],
        };
        let end = cart.push(right);
        let follows = if end == Some(End::Fell) { 0.0 } else { 1.0 };
        memory.push_back((before, right, cart.inputs(), follows));
        memory.drain(..memory.len().saturating_sub(LAST));
        let last_third = step > steps / 3 * 2;
        if end.is_some() {
            returns.extend(last_third.then_some(cart.steps as f64));
            cart = CartPole::new(&mut random);
        }
        if memory.len() < FIRST {
            continue;
        }

        let batch: [_; BATCH] = array::from_fn(|_| memory[random.random_range(0..memory.len())]);
        let ahead = target.module().forward(tensor(batch.iter().map(|it| it.2), device));
        let follows = tensor(batch.iter().map(|it| [it.3]), device);
        let expected = ahead.max_dim(1) * follows * DISCOUNT + 1;
        let actions = Tensor::<2, Int>::from_data(batch.map(|it| [i32::from(it.1)]), device);
        let values = live.forward(tensor(batch.iter().map(|it| it.0), device)).gather(1, actions);
        let off = values - expected;
        let gradients = (off.clone() * off).mean().backward();
        let gradients = GradientsParams::from_grads(gradients, &live);
        live = optimizer.step(1e-3, live, gradients);
        target.advance(&live)?;
        update_all(&mut actors, &live, step, None)?;

        if last_third && step % (steps / 30) == 0 {
            let nets = [live.valid()].into_iter().chain(actors.iter().map(Average::module));
            for (returns, net) in judged.iter_mut().zip(nets) {
                returns.push(play(&net, seed, step, device));
            }
            let values = live.valid().forward(tensor(batch.iter().map(|it| it.0), device));
            value = values.max_dim(1).mean().into_scalar::<f32>().into();
        }
    }
    let [live, first, second] = judged.map(|returns| mean(&returns));
    Ok([mean(&returns), value, live, first, second])
}

/// A row of the table, beside the trainings of the same seeds without a target.
fn line(name: &str, runs: &[Scores], none: &[Scores]) -> Vec<String> {
    let spread = |score: usize| {
        let all: Vec<_> = runs.iter().map(|run| run[score]).collect();
        match all.len() {
            1 => format!("{:.0}", all[0]),
            _ => format!("{:.0} ± {:.0}", mean(&all), deviation(&all)),
        }
    };
    let difference = |score: usize, others: &[Scores], other: usize| {
        let pairs = runs.iter().zip(others);
        let all: Vec<_> = pairs.map(|(run, others)| run[score] - others[other]).collect();
        let interval = interval(&all).filter(|_| all.iter().any(|difference| *difference != 0.0));
        let text = |it: Interval| format!("{:+.0} [{:+.0}, {:+.0}]", it.mean, it.low, it.high);
        interval.map_or(String::new(), text)
    };
    let worst = runs.iter().map(|run| run[0]).fold(f64::INFINITY, f64::min);
    let [first, second] = [3, 4].map(|actor| difference(actor, runs, 2));
    let (worst, gain) = (format!("{worst:.0}"), difference(0, none, 0));
    [name.to_owned(), spread(0), worst, gain, spread(1), spread(2), first, second].into()
}

fn main() -> Result<()> {
    let Args { uses, steps } = Args::parse();
    let device = device::select(uses.device.as_deref())?.device;
    // A copy after each update is live.
    let settings = [
        ("none", &Rule::copy(1)),
        ("target(tau=0.005)", &Rule::target(0.005)),
        ("target(tau=0.02)", &Rule::target(0.02)),
        ("copy(every=100)", &Rule::copy(100)),
        ("copy(every=400)", &Rule::copy(400)),
    ];
    let config = MlpConfig::new(vec![4, 64, 64, 2]).with_hidden(Activation::Relu);
    let start = (&config.with_output(Activation::Identity), &device);
    let runs = over_seeds(settings, uses.seeds, start, |it| run(steps, &device, it))?;

    let suggested = AverageConfig::suggest(steps).label();
    let titles = ["target", "return", "worst", "from none", "value", "live", "ema(0.999, debias)"];
    let mut lines = vec![titles.into_iter().chain([&*suggested]).map(str::to_owned).collect()];
    let none = &runs[0].1;
    lines.extend(runs.iter().map(|(name, runs)| line(name, runs, none)));
    let means = (0..none.len()).map(|seed| {
        array::from_fn(|score| runs[1..].iter().map(|it| it.1[seed][score]).sum::<f64>() / 4.0)
    });
    lines.push(line("mean of the four", &means.collect::<Vec<_>>(), none));
    print!("{}", table(&lines, uses.markdown));
    Ok(())
}
