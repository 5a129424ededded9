//! A server of Burn's remote backend: it computes on this machine for trainings on others.
//!
//! ```text
//! cargo run --features remote --bin server
//! cargo run --features remote --example train -- --device ws://127.0.0.1:3000
//! ```

use std::{io::Write as _, net::TcpListener};

use anyhow::{Context, Result, ensure};
use burn::{
    server::{RemoteServer, TokenAuthorizer, WebSocketTransport},
    tensor::Device,
};
use clap::Parser;

#[derive(Parser)]
#[command(about = "Computes for trainings on other machines, until Ctrl+C")]
struct Args {
    /// The address to listen on; a port of 0 takes one that is free. The traffic is not encrypted:
    /// an address other than the loopback's is for networks that you trust
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: String,
    /// How many devices to serve; clients choose one by its number, from 0
    #[arg(long, default_value_t = 1)]
    devices: usize,
    /// The backend of the devices: flex, or ndarray where it is compiled in
    #[arg(long, default_value = "flex")]
    backend: String,
    /// The token that clients must show; programs of this repository take it from BURN_REMOTE_TOKEN
    #[arg(long)]
    token: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.devices > 0, "--devices: expected 1 or more, found 0");
    let device = device(&args.backend)?;
    let mut server = RemoteServer::new(vec![device; args.devices]);
    if let Some(token) = args.token {
        server = server.with_authorizer(TokenAuthorizer::new(token).context("--token")?);
    }
    let listener = TcpListener::bind(&args.listen)
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    // Whoever started the server may have read what it needs and be gone.
    let _ = writeln!(std::io::stdout(), "listening on ws://{}", listener.local_addr()?);
    server.serve(WebSocketTransport::from_listener(listener)).context("the server ended")
}

fn device(backend: &str) -> Result<Device> {
    match backend {
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated, reason = "a second CPU implementation to compare with")]
        "ndarray" => Ok(Device::ndarray()),
        other => anyhow::bail!(
            "--backend: expected flex, or ndarray with `--features remote,ndarray`, found {other}"
        ),
    }
}
