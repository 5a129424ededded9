use super::*;

const GPU: [&str; 3] = ["vulkan", "wgpu", "flex"];

fn problem(result: Result<&'static str>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn explicit_name_wins_over_variable_and_features() {
    assert_eq!(choose(Some("flex"), Some("wgpu"), &GPU).unwrap(), "flex");
    assert_eq!(choose(None, Some("wgpu"), &GPU).unwrap(), "wgpu");
    assert_eq!(choose(None, None, &GPU).unwrap(), "vulkan");
}

#[test]
fn flex_comes_last_and_gpus_come_in_the_order_of_burn() {
    let order = DEVICES.map(|(name, _)| name);
    assert_eq!(
        order,
        ["cuda", "metal", "rocm", "vulkan", "webgpu", "wgpu", "cpu", "ndarray", "flex"]
    );
}

#[test]
fn case_does_not_matter() {
    assert_eq!(choose(Some("FleX"), None, &GPU).unwrap(), "flex");
}

#[test]
fn unknown_name_lists_the_names() {
    let problem = problem(choose(None, Some("tpu"), &GPU));
    assert!(problem.contains("device tpu: unknown"), "{problem}");
    assert!(problem.contains("cuda, metal, rocm"), "{problem}");
}

#[test]
fn missing_feature_is_named() {
    let problem = problem(choose(Some("CUDA"), None, &GPU));
    assert!(problem.contains("`--features cuda`"), "{problem}");
}

#[test]
fn build_without_devices_says_so() {
    let problem = problem(choose(None, None, &[]));
    assert!(problem.contains("none is compiled in"), "{problem}");
}

#[test]
#[cfg(feature = "flex")]
fn flex_opens_and_prints() {
    let selected = select(Some("flex")).unwrap();
    assert_eq!(selected.to_string(), "flex (CPU)");
    assert_eq!(selected.device, Device::flex());
}

#[test]
#[cfg(feature = "flex")]
fn wrong_results_name_adapter_and_driver() {
    let selected = Selected {
        driver: "Mesa 1.2".into(),
        ..Selected::new(Device::flex(), "wgpu: some adapter, Vulkan".into())
    };
    let problem = wrong(&selected, "a matrix product gives 1 instead of 2").to_string();
    assert!(problem.contains("some adapter, Vulkan: its results are wrong"), "{problem}");
    assert!(problem.contains("(driver Mesa 1.2): a matrix product gives 1"), "{problem}");
}

#[test]
#[cfg(feature = "ndarray")]
fn ndarray_opens_and_prints() {
    assert_eq!(select(Some("ndarray")).unwrap().to_string(), "ndarray (CPU)");
}

/// Needs a graphics driver, as a build with a GPU feature does in general.
#[test]
#[cfg(feature = "wgpu")]
fn wgpu_opens_twice_and_names_its_adapter() {
    let first = select(Some("wgpu")).unwrap();
    let second = select(Some("wgpu")).unwrap();
    assert!(first.to_string().starts_with("wgpu: "), "{first}");
    assert!(first.to_string().starts_with(&second.to_string()), "{first}, then {second}");
    // The handles of a runtime that runs already are not to be had.
    assert!(second.wgpu().is_none());
}

/// In a process of its own, in which wgpu is sent to an adapter that no machine has.
#[test]
#[cfg(feature = "wgpu")]
fn missing_adapter_is_an_error_that_says_what_to_install() {
    const VARIABLE: &str = "CUBECL_WGPU_DEFAULT_DEVICE";
    const NOWHERE: &str = "VirtualGpu(4242)";
    if env::var(VARIABLE).is_ok_and(|value| value == NOWHERE) {
        let problem = select(Some("wgpu")).unwrap_err().to_string();
        assert!(problem.contains("mesa-vulkan-drivers"), "{problem}");
        return;
    }
    let test = "device::tests::missing_adapter_is_an_error_that_says_what_to_install";
    let child = std::process::Command::new(env::current_exe().unwrap())
        .args(["--exact", test])
        .env(VARIABLE, NOWHERE)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&child.stdout);
    assert!(report.contains("1 passed"), "{report}");
}
