//! Live, a target network and an optimizer as one record.

use std::{fs, path::PathBuf};

use burn::{
    lr_scheduler::{LrSchedulerRecord, linear::LinearLrSchedulerConfig},
    module::Module,
    optim::{
        ModuleOptimizer, OptimizerRecord, lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    },
    store::{ModuleRecord, RecordError},
    tensor::Bytes,
    train::{
        TrainStep,
        checkpoint::{Checkpoint, Checkpointer as _, CheckpointerError, FileCheckpointer},
    },
};
use burn_ema::{
    Average, AverageConfig, Rule,
    train::{Bundle, BundlePart},
};

use crate::common::{Net, adam, assert_same, device, flat, points};

/// An agent's parts, in a loop of its own.
struct Agent {
    live: Net,
    target: Average<Net>,
    optimizer: ModuleOptimizer,
}

impl Agent {
    fn new(seed: u64) -> Self {
        let live = Net::new(seed, &device());
        let target = AverageConfig::new(Rule::target(0.1)).init(&live).unwrap();
        Self { live: live.train(), target, optimizer: adam() }
    }

    fn train(mut self) -> Self {
        for points in points(40, 3).iter() {
            let output = TrainStep::step(&self.live, points.unwrap());
            self.live =
                self.optimizer.step(ModuleLearningRate::from(0.05), self.live, output.grads);
            self.target.advance(&self.live).unwrap();
        }
        self
    }

    fn bundle(&self) -> Bundle {
        let bundle = Bundle::new()
            .with("live", self.live.valid().into_record())
            .and_then(|bundle| bundle.with("target", self.target.clone().into_record()));
        bundle.unwrap().with("optimizer", self.optimizer.to_record()).unwrap()
    }

    fn load(self, mut bundle: Bundle) -> Self {
        Self {
            live: self.live.load_record(bundle.take("live").unwrap()),
            target: self.target.try_load_record(bundle.take("target").unwrap()).unwrap(),
            optimizer: self.optimizer.load_record(bundle.take("optimizer").unwrap()),
        }
    }
}

#[test]
fn an_agent_goes_on_from_one_record_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    let whole = Agent::new(1).train();
    let bundle = || whole.bundle();
    let bytes = bundle().checkpoint_into_bytes().unwrap();
    let burns = FileCheckpointer::new(directory.path(), "agent");
    burns.save(3, bundle()).unwrap();
    bundle().save(directory.path().join("own")).unwrap();
    let loaded = [
        Bundle::checkpoint_from_bytes(bytes).unwrap(),
        burns.restore(3).unwrap(),
        Bundle::load(directory.path().join("own.bpk")).unwrap(),
        // A bundle in a bundle.
        Bundle::new().with("agent", bundle()).unwrap().take("agent").unwrap(),
    ];
    let loaded = loaded.map(|bundle| Agent::new(2).load(bundle).train());
    let whole = whole.train();
    for agent in loaded {
        assert_eq!(agent.target.last_step(), 10);
        assert_same(&flat(&agent.live.valid(), true), &flat(&whole.live.valid(), true));
        assert_same(&flat(&agent.target.module(), true), &flat(&whole.target.module(), true));
    }
}

#[test]
fn a_part_is_found_by_its_name_and_its_kind() {
    let agent = Agent::new(3);
    let again = agent.bundle().with("live", agent.live.clone().into_record());
    let expected = "the name of a part is \"live\", expected a name that no other part has";
    assert_eq!(again.map(drop).unwrap_err().to_string(), expected);
    assert!(Bundle::new().with("", agent.live.clone().into_record()).is_err());

    let missing = agent.bundle().take::<ModuleRecord>("critic").map(drop).unwrap_err();
    let expected = "critic: expected a part of this name, found [live, optimizer, target]";
    assert_eq!(missing.to_string(), expected);
    // A part that was taken is gone.
    let mut bundle = agent.bundle();
    drop(bundle.take::<ModuleRecord>("live").unwrap());
    assert!(bundle.take::<ModuleRecord>("live").is_err());
    // A part of another kind is named, and stays.
    let error = bundle.take::<Bundle>("target").map(drop).unwrap_err().to_string();
    let expected = "target: expected a record of the kind bundle, found one of the kind module";
    assert_eq!(error, expected);
    // The record of an average is no record of the network.
    let record = bundle.take::<ModuleRecord>("target").unwrap();
    assert!(agent.live.try_load_record(record).is_err());
}

/// A record of a program's own, whose bytes can be read from any others.
struct Notes(Vec<u8>);

impl Checkpoint for Notes {
    fn save(self, _: PathBuf) -> Result<(), CheckpointerError> {
        unimplemented!()
    }

    fn load(_: PathBuf) -> Result<Self, CheckpointerError> {
        unimplemented!()
    }

    fn checkpoint_from_bytes(bytes: Bytes) -> Result<Self, RecordError> {
        Ok(Self(bytes.to_vec()))
    }

    fn checkpoint_into_bytes(self) -> Result<Bytes, RecordError> {
        Ok(Bytes::from_bytes_vec(self.0))
    }
}

impl BundlePart for Notes {
    const KIND: &'static str = "notes";
}

/// All kinds, also after the bundle was a file; a part that was refused can still be taken.
#[test]
fn a_record_is_not_taken_for_one_of_another_kind() {
    fn refused<R: BundlePart>(bundle: &mut Bundle, kinds: &[&str]) {
        for found in kinds.iter().filter(|kind| **kind != R::KIND) {
            let error = bundle.take::<R>(found).map(drop).unwrap_err().to_string();
            let expected = R::KIND;
            assert_eq!(
                error,
                format!(
                    "{found}: expected a record of the kind {expected}, found one of the kind \
                     {found}"
                )
            );
        }
        drop(bundle.take::<R>(R::KIND).unwrap());
    }

    let agent = Agent::new(6).train();
    let schedule = LinearLrSchedulerConfig::new(0.1, 0.01, 10).init().unwrap();
    let bundle = || {
        Bundle::new()
            .with("module", agent.live.valid().into_record())
            .and_then(|bundle| bundle.with("optimizer", agent.optimizer.to_record()))
            .and_then(|bundle| bundle.with("learning-rate scheduler", schedule.to_record()))
            .and_then(|bundle| bundle.with("bundle", agent.bundle()))
            .and_then(|bundle| bundle.with("notes", Notes(vec![1, 2, 3])))
            .and_then(|bundle| bundle.with("stateless", ()))
            .unwrap()
    };
    // Burn reads the record of an optimizer from the bytes of any module's.
    let module = agent.live.valid().into_record().into_bytes().unwrap();
    assert!(OptimizerRecord::from_bytes(module).is_ok());

    let kinds = ["module", "optimizer", "learning-rate scheduler", "bundle", "notes", "stateless"];
    let bytes = bundle().checkpoint_into_bytes().unwrap();
    for mut bundle in [bundle(), Bundle::checkpoint_from_bytes(bytes).unwrap()] {
        refused::<ModuleRecord>(&mut bundle.clone(), &kinds);
        refused::<OptimizerRecord>(&mut bundle.clone(), &kinds);
        refused::<LrSchedulerRecord>(&mut bundle.clone(), &kinds);
        refused::<Bundle>(&mut bundle.clone(), &kinds);
        refused::<Notes>(&mut bundle.clone(), &kinds);
        refused::<()>(&mut bundle.clone(), &kinds);
        assert_eq!(bundle.take::<Notes>("notes").unwrap().0, [1, 2, 3]);
    }
}

#[test]
fn a_bundle_that_was_altered_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.bpk");
    Agent::new(4).bundle().save(path.clone()).unwrap();
    let whole = fs::read(&path).unwrap();
    for place in [whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = Bundle::load(path.clone()).map(drop).unwrap_err().to_string();
        assert!(error.contains("agent.bpk"), "{error}");
        assert!(Bundle::checkpoint_from_bytes(Bytes::from_bytes_vec(bytes)).is_err());
    }
    let plain = Net::new(0, &device()).into_record().into_bytes().unwrap();
    let error = Bundle::checkpoint_from_bytes(plain).map(drop).unwrap_err().to_string();
    assert!(error.contains("expected version 2 of a bundle, found another file"), "{error}");
    // The file of an average has a digest too, and is no bundle.
    let average = directory.path().join("average.bpk");
    Agent::new(5).target.save_file(&average, "here").unwrap();
    let error = Bundle::load(average).map(drop).unwrap_err().to_string();
    assert!(error.contains("average.bpk") && error.contains("version 2 of a bundle"), "{error}");
}
