//! Tied parameters.

use super::*;

/// A head that is its embedding.
#[derive(Module, Debug)]
struct Tied {
    embedding: Param<Tensor<2>>,
    head: Param<Tensor<2>>,
    other: Param<Tensor<2>>,
}

fn tied(seed: u64) -> Tied {
    let device = device();
    let drawn = || LinearConfig::new(3, 2).init(&device).weight;
    let (embedding, other) = (drawn(), drawn());
    let module = Tied { head: embedding.clone(), embedding, other };
    let mut module = randomized(module, seed);
    module.head = module.embedding.clone();
    module
}

fn ids(module: &Tied) -> [ParamId; 3] {
    [module.embedding.id, module.head.id, module.other.id]
}

fn is_tied([embedding, head, other]: [ParamId; 3]) -> bool {
    embedding == head && embedding != other
}

#[test]
fn tied_parameters_have_one_id_in_the_module_and_after_a_load() {
    let directory = tempfile::tempdir().unwrap();
    let live = tied(0);
    assert!(is_tied(ids(&live)));
    let mut average = AverageConfig::new(Rule::ema(0.5)).init(&live).unwrap();
    average.update(&tied(1), 1).unwrap();
    let module = average.module();
    assert!(is_tied(ids(&module)));
    assert_ne!(module.embedding.id, live.embedding.id, "an average has ids of its own");
    assert_eq!(module.embedding.to_data(), module.head.to_data());

    let path = directory.path().join("tied.bpk");
    average.save_file(&path, "a test").unwrap();
    let loaded =
        AverageConfig::new(Rule::ema(0.5)).init(&live).unwrap().try_load_file(&path).unwrap();
    assert!(is_tied(ids(&loaded.module())));
    assert_eq!(flat(&loaded.module(), true), flat(&module, true));
    let record = module.clone().into_record();
    assert!(is_tied(ids(&tied(2).load_record(record))));
}

#[test]
fn burns_optimizers_move_one_of_two_tied_parameters() {
    let device = device().autodiff();
    let live = tied(0).train();
    let x = Tensor::<2>::ones([4, 3], &device);
    let loss = x.matmul(live.embedding.val()).matmul(live.head.val().transpose()).sum();
    let grads = GradientsParams::from_grads(loss.backward(), &live);
    let moved = sgd().step(0.1, live.clone(), grads);
    let has_moved = |now: &Param<Tensor<2>>, before: &Param<Tensor<2>>| {
        now.val().into_data() != before.val().into_data()
    };
    let moves = [has_moved(&moved.embedding, &live.embedding), has_moved(&moved.head, &live.head)];
    assert_eq!(moves.iter().filter(|moved| **moved).count(), 1);
}
