//! Hostile records of models, optimizers and schedulers.

use std::ops::Range;

use super::{
    tests::{Layers, Remembering, layers, optimizers, schedulers, trained},
    *,
};
use crate::commits::{checked, plain_model};

#[path = "../../../../tests/shared/hostile.rs"]
mod hostile;

use hostile::{Corpus, among, fixed, fuzz};

/// Records as they are saved.
struct Records {
    optimizers: Vec<Probe>,
    schedulers: Vec<ModuleLrScheduler>,
    /// Of the optimizers, then of the schedulers, of a module, and then others.
    corpus: Corpus,
}

impl Records {
    fn new() -> Self {
        let module = live();
        let (mut probes, mut started, mut corpus) = (Vec::new(), Vec::new(), Corpus::default());
        let remembering = ("remembering", Remembering { first: false }.into());
        for (_, fresh) in optimizers().into_iter().chain([remembering]) {
            probes.push(Probe::new(&fresh, Parameters::of(&module)).unwrap());
            let (optimizer, _) = trained(fresh, module.clone(), 3);
            corpus.add(optimizer.into_bytes().unwrap());
        }
        for (_, mut scheduler) in schedulers() {
            started.push(scheduler.clone());
            scheduler.step();
            corpus.add(scheduler.to_record().into_bytes().unwrap());
        }
        corpus.add(module.into_record().into_bytes().unwrap());
        corpus.add(fixed(layers(&[3, 2])).into_record().into_bytes().unwrap());
        corpus.add_hostile();
        Self { optimizers: probes, schedulers: started, corpus }
    }

    fn of_optimizers(&self) -> Range<usize> {
        0..self.optimizers.len()
    }

    fn of_schedulers(&self) -> Range<usize> {
        let start = self.of_optimizers().end;
        start..start + self.schedulers.len()
    }

    fn of_module(&self) -> Range<usize> {
        let start = self.of_schedulers().end;
        start..start + 1
    }
}

fn live() -> Layers {
    fixed(layers(&[3, 4, 2]))
}

#[test]
fn fuzz_optimizer_record() {
    let records = Records::new();
    fuzz("optimizer_record", &records.corpus, records.of_optimizers(), |index, bytes| {
        records.optimizers[index % records.optimizers.len()].record(bytes, 3).map(drop)
    });
}

#[test]
fn fuzz_scheduler_record() {
    let records = Records::new();
    fuzz("scheduler_record", &records.corpus, records.of_schedulers(), |index, bytes| {
        let index = among(&records.of_schedulers(), index);
        scheduler_record(bytes, &records.schedulers[index]).map(drop)
    });
}

/// As [`Commit::model`](crate::Commit::model) reads it.
#[test]
fn fuzz_plain_record() {
    let records = Records::new();
    fuzz("plain_record", &records.corpus, records.of_module(), |_, bytes| {
        checked(bytes.shared(), |record| plain_model(record, live())).map(drop)
    });
}

#[test]
fn fuzz_check_finite() {
    let records = Records::new();
    let all = 0..records.of_module().end;
    fuzz("check_finite", &records.corpus, all, |_, bytes| check_finite(bytes));
}
