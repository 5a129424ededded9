//! How often the host waits for numbers of the device, counted in the log of wgpu.
//!
//! A read of a tensor is a submission of work that ends with a copy into a buffer, and the mapping
//! of this buffer. One read may map several buffers, so what is counted are submissions that
//! mappings follow. Whoever reads is counted: this crate, Burn or CubeCL.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor};
use log::{LevelFilter, Log, Metadata, Record};

use crate::{
    contest::{Claim, Contest, Contestant},
    figures::{Bar, Unit},
    step::trainings,
    workload::{Network, OPTIMIZERS},
};

/// Steps before the first that counts, in which kernels are chosen by their times.
const WARM_UP: usize = 5;

/// Steps that count, in a turn.
const STEPS: usize = 10;

/// Counts of what the log has shown.
struct Counter {
    /// True between a submission of work and the first mapping after it.
    is_submitted: AtomicBool,
    waits: AtomicUsize,
}

static COUNTER: Counter =
    Counter { is_submitted: AtomicBool::new(false), waits: AtomicUsize::new(0) };

impl Log for Counter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("wgpu_core::device")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        if text == "Queue::submit" {
            self.is_submitted.store(true, SeqCst);
        } else if text.starts_with("Buffer::map_async") && text.contains("host: Read") {
            let is_first = self.is_submitted.swap(false, SeqCst);
            self.waits.fetch_add(is_first.into(), SeqCst);
        }
    }

    fn flush(&self) {}
}

/// Makes the counter the log of this program, which is silent until something is counted.
pub fn listen() {
    // Fails only where a log is set already, and then reads of a known number are not counted.
    let _ = log::set_logger(&COUNTER);
}

/// How often the host waits in a function and until the device is done with it.
fn count(device: &Device, run: impl FnOnce() -> Result<()>) -> Result<usize> {
    device.sync()?;
    COUNTER.waits.store(0, SeqCst);
    log::set_max_level(LevelFilter::Trace);
    let ran = run().and_then(|()| Ok(device.sync()?));
    log::set_max_level(LevelFilter::Off);
    ran.map(|()| COUNTER.waits.load(SeqCst))
}

/// Compares known numbers of reads with those that are counted.
pub fn can_be_counted(device: &Device) -> Result<()> {
    let tensor = Tensor::<1>::ones([8], device);
    for reads in 0..3 {
        let counted = count(device, || {
            let _ = tensor.clone() + 1.0;
            (0..reads)
                .try_for_each(|_| (tensor.clone() * 2.0).try_into_vec_as::<f32>().map(drop))?;
            Ok(())
        })?;
        let why = "the log of wgpu does not show reads on this device";
        ensure!(counted == reads, "{why}: it has {counted} of {reads}");
    }
    Ok(())
}

/// Waits for each training step, with and without the hook.
pub fn of_steps(name: &str, network: &Network, device: &Device) -> Result<Contest> {
    let [_, by] = OPTIMIZERS;
    let rows = network.rows(device);
    let mut contestants = Vec::new();
    for (name, mut step) in trainings(network, by, device)? {
        (0..WARM_UP).try_for_each(|_| step(rows.clone()))?;
        let (device, rows) = (device.clone(), rows.clone());
        contestants.push(Contestant::once(name, move || {
            let waits = count(&device, || (0..STEPS).try_for_each(|_| step(rows.clone())))?;
            Ok(waits as f64 / STEPS as f64)
        }));
    }
    let waits =
        |what, most, place: usize| Claim::new(what, Bar::AtMost(most), move |waits| waits[place]);
    Ok(Contest {
        name: name.to_owned(),
        unit: Unit::Waits,
        contestants,
        claims: vec![
            waits("waits a step, the hook in a loop of one's own", 1.0, 0),
            waits("waits a step, the hook in Burn's Learner", 1.0, 1),
            waits("waits a step, the hook without its checks", 0.0, 2),
            waits("waits a step, without average", 0.0, 3),
        ],
    })
}
