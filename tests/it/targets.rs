//! Target networks: of a part, of two critics, from other weights, asked for at each step.

use burn::{
    module::{Module, ParamId},
    nn::{Linear, LinearConfig},
    tensor::{Device, Tensor},
};
use burn_ema::{Average, AverageConfig, NonFinite, Rule, average::Updated};

use crate::common::{assert_same, device, flat, floats, lerp, randomized};

/// An agent with two critics and an actor.
#[derive(Module, Debug)]
struct Agent {
    actor: Linear,
    critics: Vec<Linear>,
}

impl Agent {
    fn new(seed: u64) -> Self {
        let linear = |outputs| LinearConfig::new(3, outputs).init(&device());
        randomized(Self { actor: linear(2), critics: vec![linear(1), linear(1)] }, seed)
    }
}

#[test]
fn each_critic_has_a_target_and_the_actor_has_none() {
    for seed in 0..3 {
        let agent = Agent::new(seed);
        let target = |critic| AverageConfig::new(Rule::target(0.1)).init(critic).unwrap();
        let mut targets: Vec<_> = agent.critics.iter().map(target).collect();
        let mut by_hand: Vec<_> = agent.critics.iter().map(|critic| flat(critic, true)).collect();
        for step in 1..=20 {
            let agent = Agent::new(100 * seed + step);
            // The second critic is updated every other step.
            for (index, critic) in agent.critics.iter().enumerate() {
                if index == 0 || step % 2 == 0 {
                    assert_eq!(targets[index].advance(critic).unwrap(), Updated::Moved);
                    lerp(&mut by_hand[index], &flat(critic, true), 0.1);
                }
            }
        }
        for (target, by_hand) in targets.iter().zip(&by_hand) {
            assert_same(&flat(&target.module(), true), by_hand);
        }
        assert_eq!(targets.iter().map(Average::last_step).collect::<Vec<_>>(), [20, 10]);
    }
}

/// The parameters of both have the same paths and other ids, as after loading a saved network.
#[test]
fn a_target_can_start_from_other_weights_than_live() {
    let (live, start) = (Agent::new(1), Agent::new(2));
    let ids = |agent: &Agent| floats(agent).iter().map(|(_, id, _)| *id).collect::<Vec<ParamId>>();
    assert_ne!(ids(&live), ids(&start));
    let mut target = AverageConfig::new(Rule::target(0.25)).init(&start).unwrap();
    assert_same(&flat(&target.module(), true), &flat(&start, true));
    target.update(&live, 1).unwrap();
    let mut by_hand = flat(&start, true);
    lerp(&mut by_hand, &flat(&live, true), 0.25);
    assert_same(&flat(&target.module(), true), &by_hand);
}

/// A module whose parameters keep their values and get new ids: by these alone nothing is paired.
#[test]
fn a_target_follows_a_live_whose_parameters_get_new_ids() {
    let agent = |seed| Agent::new(seed);
    let mut target = AverageConfig::new(Rule::target(0.5)).init(&agent(0)).unwrap();
    let mut by_hand = flat(&agent(0), true);
    for seed in 1..=5 {
        let live = agent(seed); // made anew, so with new ids
        target.advance(&live).unwrap();
        lerp(&mut by_hand, &flat(&live, true), 0.5);
        let module = target.module();
        assert_same(&flat(&module, true), &by_hand);
        // What is handed out has ids of its own, the same each time.
        let ids = |agent: &Agent| floats(agent).iter().map(|(_, id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(&module), ids(&target.module()));
        assert!(ids(&module).iter().all(|id| !ids(&live).contains(id)));
    }
}

#[test]
fn the_look_at_numbers_can_be_left_out() {
    let bad = || {
        let mut agent = Agent::new(1);
        agent.actor.weight = agent.actor.weight.map(|weight| weight * f32::NAN);
        agent
    };
    let target = |policy| {
        let config = AverageConfig::new(Rule::target(0.5)).with_non_finite(policy);
        config.init(&Agent::new(0)).unwrap()
    };
    let mut kept = target(NonFinite::Auto);
    assert_eq!(kept.advance(&bad()).unwrap(), Updated::Refused);
    assert_eq!(kept.refused().count, 1);
    assert_same(&flat(&kept.module(), true), &flat(&Agent::new(0), true));
    let mut taken = target(NonFinite::Take);
    assert_eq!(taken.advance(&bad()).unwrap(), Updated::Moved);
    assert!(flat(&taken.module(), true).iter().any(|number| number.is_nan()));
}

/// A target that is asked for before each update shares its weights with what is handed out; the
/// next update then leaves that as it is.
#[test]
fn a_module_that_is_held_does_not_move() {
    let mut target = AverageConfig::new(Rule::target(0.5)).init(&Agent::new(0)).unwrap();
    let mut held = Vec::new();
    for seed in 1..=4 {
        let module = target.module();
        held.push((flat(&module, true), module));
        target.advance(&Agent::new(seed)).unwrap();
    }
    for (before, module) in held {
        assert_eq!(flat(&module, true), before);
    }
    let rows = Tensor::<2>::ones([2, 3], &Device::flex());
    if device() == Device::flex() {
        assert_eq!(target.module().actor.forward(rows).dims(), [2, 2]);
    }
}
