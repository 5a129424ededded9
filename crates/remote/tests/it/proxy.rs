//! A proxy in front of a server, which counts bytes.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// Passes on the bytes of all connections to a server, in both directions.
///
/// Its threads end with their connections; the one that accepts them ends with the process.
#[derive(Clone)]
pub struct Proxy {
    /// The address for clients and other servers.
    pub address: String,
    counted: Arc<Counted>,
}

#[derive(Default)]
struct Counted {
    /// The bytes to the server, and from it.
    to: AtomicU64,
    from: AtomicU64,
    fuse: Mutex<Option<Fuse>>,
}

/// Something that is done once the server has sent more than so many bytes.
struct Fuse(u64, Box<dyn FnOnce() + Send>);

impl Proxy {
    /// A proxy on a free port of loopback, in front of the server at an address.
    pub fn before(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = format!("ws://{}", listener.local_addr().unwrap());
        let server = address.strip_prefix("ws://").unwrap().to_owned();
        let counted = Arc::new(Counted::default());
        let proxy = Self { address: own, counted: counted.clone() };
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                // The server may be dead.
                let Ok(server) = TcpStream::connect(&server) else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (client_too, server_too) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (counted_to, counted_from) = (counted.clone(), counted.clone());
                thread::spawn(move || {
                    pass_on(client, server_too, |count| {
                        counted_to.to.fetch_add(count, Ordering::Relaxed);
                    });
                });
                thread::spawn(move || {
                    pass_on(server, client_too, |count| counted_from.sent(count));
                });
            }
        });
        proxy
    }

    /// The bytes that went to the server and came from it so far.
    pub fn bytes(&self) -> [u64; 2] {
        [&self.counted.to, &self.counted.from].map(|count| count.load(Ordering::Relaxed))
    }

    /// Calls `then` once the server has sent so many bytes more; the last of them are not passed on
    /// before.
    pub fn after(&self, bytes: u64, then: impl FnOnce() + Send + 'static) {
        *self.counted.fuse.lock().unwrap() = Some(Fuse(bytes, Box::new(then)));
    }
}

impl Counted {
    fn sent(&self, count: u64) {
        self.from.fetch_add(count, Ordering::Relaxed);
        let mut fuse = self.fuse.lock().unwrap();
        if let Some(Fuse(left, _)) = &mut *fuse {
            *left = left.saturating_sub(count);
            if *left == 0
                && let Some(Fuse(_, then)) = fuse.take()
            {
                then();
            }
        }
    }
}

/// Passes bytes on until one side closes, and then closes both.
fn pass_on(mut from: TcpStream, mut to: TcpStream, counted: impl Fn(u64)) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                counted(count as u64);
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
