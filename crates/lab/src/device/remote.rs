//! A device of a server of Burn's remote backend.

use std::ffi::OsString;

use burn::{
    remote::{ConnectError, RemoteHost},
    tensor::Device,
};

use super::{Selected, unusable};
use crate::Result;

/// Opens the first device of the server at an address, such as `ws://gpu:3000`.
pub(super) fn open(address: &str, token: Option<OsString>) -> Result<Selected> {
    let port = address.strip_prefix("ws://").and_then(|rest| rest.rsplit_once(':'));
    if !port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(unusable(address, "expected ws://HOST:PORT, such as ws://127.0.0.1:3000"));
    }
    let mut host = RemoteHost::websocket(address);
    if let Some(token) = &token {
        host = host.with_credential(token.to_string_lossy().into_owned());
    }
    let device = Device::remote_options(&host).init().map_err(|error| {
        let remedy = match &error {
            ConnectError::Unreachable { .. } => "start it, or correct its address",
            ConnectError::Unauthorized if token.is_none() => {
                "set BURN_REMOTE_TOKEN to the server's token"
            }
            ConnectError::Unauthorized => "BURN_REMOTE_TOKEN holds another token",
            _ => "client and server must be built with the same release of Burn",
        };
        unusable(address, format!("{error} ({remedy})"))
    })?;
    Ok(Selected::new(device, format!("remote: {address}")))
}
