//! The copy bandwidth of the card: two buffers of wgpu, without a kernel.

use burn_ema_lab::device::Selected;

use crate::contest::Contestant;

/// Copies that move 12 bytes a weight, one half of them each way, as an update does.
#[cfg(feature = "wgpu")]
pub fn contestant(name: &str, weights: usize, selected: &Selected) -> Contestant {
    use std::time::Instant;

    use anyhow::anyhow;
    use burn::tensor::wgpu::wgpu::{BufferDescriptor, BufferUsages, PollType};

    /// Copies in one submission.
    const AT_ONCE: usize = 64;

    let Some(setup) = selected.wgpu().cloned() else {
        return Contestant::new(name, |_| Err(anyhow!("the device is not of wgpu")));
    };
    let (device, queue) = (setup.device, setup.queue);
    let bytes = (weights * 6).next_multiple_of(4) as u64;
    let buffer = |usage| {
        let label = Some("copy");
        device.create_buffer(&BufferDescriptor {
            label,
            size: bytes,
            usage,
            mapped_at_creation: false,
        })
    };
    let (source, target) = (buffer(BufferUsages::COPY_SRC), buffer(BufferUsages::COPY_DST));
    Contestant::new(name, move |repeat| {
        let start = Instant::now();
        for first in (0..repeat).step_by(AT_ONCE) {
            let mut encoder = device.create_command_encoder(&Default::default());
            for _ in first..repeat.min(first + AT_ONCE) {
                encoder.copy_buffer_to_buffer(&source, 0, &target, 0, bytes);
            }
            queue.submit([encoder.finish()]);
        }
        device.poll(PollType::wait_indefinitely())?;
        Ok(start.elapsed().as_secs_f64() * 1e9)
    })
}

/// Without wgpu there is nothing to copy with.
#[cfg(not(feature = "wgpu"))]
pub fn contestant(name: &str, _: usize, _: &Selected) -> Contestant {
    Contestant::new(name, |_| Err(anyhow::anyhow!("this build has no wgpu")))
}
