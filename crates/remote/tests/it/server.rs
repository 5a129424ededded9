//! A server as a child process.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead as _, BufReader},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use burn::{remote::RemoteHost, tensor::Device};

/// A server on a free port of loopback, killed when dropped.
pub struct Server {
    process: Mutex<Child>,
    /// The address for clients.
    pub address: String,
    /// The standard error of the server.
    log: tempfile::NamedTempFile,
}

/// The addresses so far: to a client, a new server at the address of a dead one is dead as well.
static ADDRESSES: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server with these options.
    pub fn with(options: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_server"))
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").map(|it| it.trim().to_owned());
        let address = address.unwrap_or_else(|| panic!("{line}"));
        let is_new = ADDRESSES.lock().unwrap().insert(address.clone());
        let server = Self { address, process: Mutex::new(process), log };
        if is_new { server } else { Self::with(options) }
    }

    /// The first device of the server.
    pub fn device(&self) -> Device {
        device(&self.address)
    }

    /// True if a session of the server ended since an operation named a tensor that was freed.
    fn lost_a_tensor(&self) -> bool {
        let log = fs::read_to_string(self.log.path()).unwrap();
        log.contains("Should have handle for tensor")
    }

    /// Kills the server as `kill -9` does.
    pub fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Far longer than a training takes.
const LIMIT: Duration = Duration::from_secs(120);

/// The result of a training on new servers with these options.
///
/// In about one of a hundred trainings on several devices, of plain models too, a session of a
/// server of Burn 0.22.1 ends with a panic: where two threads drop the last uses of one tensor at a
/// time, the operation that frees it can reach the server before the other. More rarely, a transfer
/// between two servers does not end, and a read waits for it until the servers are killed. A
/// training that one of these happened to is repeated on other servers.
pub fn on_servers<const N: usize, T>(
    options: [&[&str]; N],
    training: impl Fn(&[Server; N]) -> T,
) -> T {
    for _ in 0..5 {
        let servers = options.map(Server::with);
        let (done, watched) = mpsc::channel::<()>();
        let (result, hung) = thread::scope(|scope| {
            let servers = &servers;
            let watch = scope.spawn(move || {
                let hung = watched.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
                if hung {
                    servers.iter().for_each(Server::kill);
                }
                hung
            });
            let result = catch_unwind(AssertUnwindSafe(|| training(servers)));
            drop(done);
            (result, watch.join().unwrap())
        });
        match result {
            Ok(result) => return result,
            Err(_) if hung || servers.iter().any(Server::lost_a_tensor) => {
                println!("a session ended by a fault of Burn's, hung: {hung}; again");
            }
            Err(panic) => resume_unwind(panic),
        }
    }
    panic!("five trainings in a row met a fault of Burn's");
}

/// The first device at an address.
pub fn device(address: &str) -> Device {
    Device::remote_options(&RemoteHost::websocket(address)).init().unwrap()
}
