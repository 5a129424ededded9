//! Addresses and tokens that are refused.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use burn_ema_lab::device::select;

use crate::server::Server;

fn refusal(address: &str) -> String {
    select(Some(address)).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_server_is_a_device_by_its_address() {
    let server = Server::start();
    let selected = select(Some(&server.address)).unwrap();
    assert_eq!(selected.to_string(), format!("remote: {}", server.address));
}

#[test]
fn a_token_is_asked_for() {
    let server = Server::with(&["--token", "open sesame"]);
    let error = refusal(&server.address);
    assert!(error.contains("rejected the credential"), "{error}");
    assert!(error.contains("set BURN_REMOTE_TOKEN to the server's token"), "{error}");
}

#[test]
fn a_server_refuses_devices_that_it_does_not_have() {
    for (options, expected) in [
        (["--devices", "0"], "--devices: expected 1 or more, found 0"),
        (["--backend", "abacus"], "--backend: expected flex, or ndarray with"),
    ] {
        let mut server = Command::new(env!("CARGO_BIN_EXE_server"));
        let output = server.args(["--listen", "127.0.0.1:0"]).args(options).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(expected), "{error}");
    }
}

#[test]
fn an_address_is_checked_before_anything_is_dialed() {
    for address in ["ws://", "ws://gpu", "http://gpu:3000", "ws://:3000", "ws://gpu:three"] {
        let start = Instant::now();
        let error = refusal(address);
        assert!(error.contains("expected ws://HOST:PORT"), "{address}: {error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

/// Burn tries again for 15 seconds, and the error says so.
#[test]
fn no_server_is_an_error_with_the_time_that_burn_tried() {
    let server = Server::start();
    let address = server.address.clone();
    drop(server);
    let error = refusal(&address);
    assert!(
        error.contains("cannot be reached: nothing answered after trying for 15.75s"),
        "{error}"
    );
    assert!(error.contains("start it, or correct its address"), "{error}");
}
