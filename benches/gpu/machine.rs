//! The card, the driver and the versions that figures were measured with.

use std::{fs, process::Command, thread};

use burn_ema_lab::device::Selected;

use crate::peer::Peer;

/// The versions that this program was built of.
const LOCK: &str = include_str!("../../Cargo.lock");

/// True if the device is the CPU, by itself or through a driver in software.
pub fn is_software(selected: &Selected) -> bool {
    #[cfg(feature = "wgpu")]
    if let Some(setup) = selected.wgpu() {
        use burn::tensor::wgpu::wgpu::DeviceType;
        return setup.adapter.get_info().device_type == DeviceType::Cpu;
    }
    let label = selected.to_string();
    ["flex", "ndarray", "cpu"].into_iter().any(|name| label.starts_with(name))
}

/// All of it, each with what it is.
pub fn facts(selected: &Selected, peer: &Peer, small: bool) -> Vec<(&'static str, String)> {
    let unknown = || "unknown".to_owned();
    let driver = match selected.driver() {
        "" => unknown(),
        driver => driver.to_owned(),
    };
    let query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit";
    let size = match small {
        true => "small: a test of this program, no figures of a GPU",
        false => "full",
    };
    vec![
        ("device", selected.to_string()),
        ("driver", driver),
        ("nvidia-smi", output("nvidia-smi", &[query, "--format=csv,noheader"])),
        ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("size", size.to_owned()),
        ("build", option_env!("BURN_EMA_BUILD").map_or_else(unknown, str::to_owned)),
        ("versions", ["burn", "cubecl", "wgpu"].map(version).join(", ")),
        ("PyTorch", peer.to_string()),
        ("CPU", cpu().unwrap_or_else(unknown)),
        ("threads", thread::available_parallelism().map_or_else(|_| unknown(), |n| n.to_string())),
    ]
}

/// The output of a program, in one line.
fn output(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().replace('\n', "; ")
        }
        Ok(output) => format!("unknown: {program} failed, {}", output.status),
        Err(error) => format!("unknown: {program} cannot be started: {error}"),
    }
}

/// A package and its version.
fn version(package: &str) -> String {
    let name = format!("name = \"{package}\"\nversion = \"");
    let version = LOCK.split_once(&name).and_then(|(_, rest)| rest.split_once('"'));
    format!("{package} {}", version.map_or("unknown", |(version, _)| version))
}

/// The model of the processor, on Linux.
fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
