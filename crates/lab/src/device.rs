//! The device that a program runs on: chosen by name, environment or Cargo features, then checked.

mod check;
#[cfg(feature = "remote")]
mod remote;

use std::{env, fmt};

use burn::tensor::Device;
#[cfg(any(feature = "cuda", feature = "rocm"))]
use burn::tensor::DeviceType;
#[cfg(feature = "wgpu")]
use burn::tensor::{
    DeviceKind,
    wgpu::{WgpuBackend, WgpuInitError, WgpuSetup},
};

use crate::{Error, Result};

/// The names of all devices, and whether this build has them.
///
/// Where no device is named, the first one of the build is used. The order is Burn's, except that
/// ndarray comes before flex, since flex is a default feature and ndarray is not.
const DEVICES: [(&str, bool); 9] = [
    ("cuda", cfg!(feature = "cuda")),
    ("metal", cfg!(feature = "metal")),
    ("rocm", cfg!(feature = "rocm")),
    ("vulkan", cfg!(feature = "vulkan")),
    ("webgpu", cfg!(feature = "webgpu")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("cpu", cfg!(feature = "cpu")),
    ("ndarray", cfg!(feature = "ndarray")),
    // Burn's training crate depends on flex.
    ("flex", cfg!(feature = "flex")),
];

/// A device that was checked to work.
///
/// The `Display` of a device is a few words, such as `flex (CPU)` or
/// `wgpu: SwiftShader Device (Subzero), Vulkan`.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The device, for a model and its data.
    pub device: Device,
    label: String,
    /// The driver and its version, for the error about wrong results; empty if unknown.
    driver: String,
    /// The handles of wgpu behind the device.
    #[cfg(feature = "wgpu")]
    setup: Option<WgpuSetup>,
}

impl Selected {
    fn new(device: Device, label: String) -> Self {
        Self {
            device,
            label,
            driver: String::new(),
            #[cfg(feature = "wgpu")]
            setup: None,
        }
    }

    /// The driver and its version; empty if unknown.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The handles of wgpu behind the device; `None` for a device that is not of wgpu, and for one
    /// that was in use before it was selected.
    #[cfg(feature = "wgpu")]
    pub fn wgpu(&self) -> Option<&WgpuSetup> {
        self.setup.as_ref()
    }
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

/// Opens a device, and checks that its results are right.
///
/// The device is that of `name`, such as a program's `--device` option. If `name` is `None`, it is
/// that of the environment variable `BURN_DEVICE`. If the variable is not set or empty, it is the
/// first of the devices that the Cargo features compile in: a GPU before a CPU, and the default
/// `flex` last.
/// Names are those of the Cargo features, in upper or lower case. With the feature `remote`, the
/// address of a server of Burn's remote backend, such as `ws://gpu:3000`, is a name too: its first
/// device is opened, with the token in the environment variable `BURN_REMOTE_TOKEN` if it is set.
///
/// The check takes a few milliseconds on a CPU, and as long as compiling a few kernels on a GPU.
///
/// # Errors
///
/// [`Error::Device`] if there is no such device, if this build or this machine does not have it,
/// or if its results are wrong.
pub fn select(name: Option<&str>) -> Result<Selected> {
    // A value that is not Unicode becomes an unknown name; an empty value counts as unset.
    let variable = env::var_os("BURN_DEVICE").map(|value| value.to_string_lossy().into_owned());
    let variable = variable.as_deref().filter(|value| !value.is_empty());
    let compiled: Vec<_> =
        DEVICES.iter().filter(|(_, compiled)| *compiled).map(|(name, _)| *name).collect();

    let selected = match name.or(variable) {
        Some(address) if address.contains("://") => server(address)?,
        _ => open(choose(name, variable, &compiled)?)?,
    };
    check::check(&selected.device).map_err(|problem| wrong(&selected, &problem))?;
    Ok(selected)
}

/// The name of the device to open: `explicit`, else `variable`, else the first of `compiled`.
fn choose(
    explicit: Option<&str>,
    variable: Option<&str>,
    compiled: &[&'static str],
) -> Result<&'static str> {
    let names = || DEVICES.map(|(name, _)| name).join(", ");
    let Some(wanted) = explicit.or(variable) else {
        return compiled.first().copied().ok_or_else(|| {
            let problem = format!("none is compiled in: add a Cargo feature, one of {}", names());
            unusable("(default)", problem)
        });
    };
    let wanted = wanted.to_lowercase();
    let Some(&(name, _)) = DEVICES.iter().find(|(name, _)| *name == wanted) else {
        return Err(unusable(&wanted, format!("unknown, expected one of {}", names())));
    };
    if !compiled.contains(&name) {
        return Err(unusable(name, format!("not compiled in: build with `--features {name}`")));
    }
    Ok(name)
}

/// Opens the first device of a server.
fn server(address: &str) -> Result<Selected> {
    #[cfg(feature = "remote")]
    return remote::open(address, env::var_os("BURN_REMOTE_TOKEN"));
    #[cfg(not(feature = "remote"))]
    return Err(unusable(address, "not compiled in: build with `--features remote`"));
}

/// Opens a device that is compiled in.
fn open(name: &'static str) -> Result<Selected> {
    match name {
        #[cfg(feature = "cuda")]
        "cuda" => card(name, DeviceType::Cuda, "no NVIDIA GPU with a CUDA driver was found"),
        #[cfg(feature = "metal")]
        "metal" => graphics(name, WgpuBackend::Metal, Device::metal(DeviceKind::DefaultDevice)),
        #[cfg(feature = "rocm")]
        "rocm" => card(name, DeviceType::Rocm, "no AMD GPU with a ROCm driver was found"),
        #[cfg(feature = "vulkan")]
        "vulkan" => graphics(name, WgpuBackend::Vulkan, Device::vulkan(DeviceKind::DefaultDevice)),
        // Burn's WebGPU device is the browser's; elsewhere the feature means wgpu, as in Burn's
        // default device.
        #[cfg(feature = "wgpu")]
        "webgpu" | "wgpu" => {
            graphics(name, WgpuBackend::Auto, Device::wgpu(DeviceKind::DefaultDevice))
        }
        #[cfg(feature = "cpu")]
        "cpu" => Ok(named(name, Device::cpu())),
        #[cfg(feature = "ndarray")]
        "ndarray" => {
            #[allow(deprecated, reason = "a second CPU implementation to compare with")]
            let device = Device::ndarray();
            Ok(Selected::new(device, format!("{name} (CPU)")))
        }
        #[cfg(feature = "flex")]
        "flex" => Ok(Selected::new(Device::flex(), format!("{name} (CPU)"))),
        _ => unreachable!("{name} is not compiled in"),
    }
}

/// Opens the first GPU of one vendor.
///
/// Burn panics on opening a GPU that is not there, so the GPUs are listed first.
#[cfg(any(feature = "cuda", feature = "rocm"))]
fn card(name: &'static str, kind: DeviceType, missing: &str) -> Result<Selected> {
    match Device::enumerate(kind).into_iter().next() {
        Some(device) => Ok(named(name, device)),
        None => Err(unusable(name, missing)),
    }
}

/// Opens a device of the wgpu family.
///
/// Without an adapter Burn panics on the first tensor, so wgpu's runtime is started here, which
/// returns an error in this case.
#[cfg(feature = "wgpu")]
fn graphics(name: &'static str, api: WgpuBackend, device: Device) -> Result<Selected> {
    match Device::wgpu_options().graphics_api(api).init_with_setup() {
        Ok((device, setup)) => {
            let adapter = setup.adapter.get_info();
            Ok(Selected {
                device,
                label: format!("{name}: {}, {:?}", adapter.name, adapter.backend),
                driver: format!("{} {}", adapter.driver, adapter.driver_info).trim().into(),
                setup: Some(setup),
            })
        }
        // The runtime runs already, from an earlier selection or an earlier tensor.
        Err(WgpuInitError::Registration { .. }) => Ok(named(name, device)),
        Err(error @ WgpuInitError::AdapterUnavailable { .. }) => {
            let problem = format!(
                "no graphics adapter was found: install the driver of the GPU; \
                 on Debian, libvulkan1 with mesa-vulkan-drivers or the vendor's driver, \
                 or without a GPU, libvulkan1 with chromium-common and \
                 VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json ({error})"
            );
            Err(unusable(name, problem))
        }
        Err(error) => Err(unusable(name, error.to_string())),
    }
}

/// A device with the name of its hardware in its label.
#[cfg(any(feature = "cuda", feature = "rocm", feature = "wgpu", feature = "cpu"))]
fn named(name: &str, device: Device) -> Selected {
    let hardware = device.identity().map_or_else(|| "unnamed".into(), |identity| identity.name);
    Selected::new(device, format!("{name}: {hardware}"))
}

/// The error of a device that computes wrongly.
fn wrong(selected: &Selected, problem: &str) -> Error {
    let driver = match selected.driver.as_str() {
        "" => String::new(),
        driver => format!(" (driver {driver})"),
    };
    let problem = format!(
        "its results are wrong{driver}: {problem}; update the driver or choose another device"
    );
    unusable(&selected.label, problem)
}

/// The error of a device that cannot be used.
fn unusable(device: &str, problem: impl Into<String>) -> Error {
    Error::Device { device: device.into(), problem: problem.into() }
}

#[cfg(test)]
mod tests;
