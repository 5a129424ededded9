//! Servers that are killed: the training ends with an error soon, and goes on from its commits on
//! another server as if nothing had been.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use burn::tensor::{Device, Tensor};
use burn_ema::{Average, AverageConfig, NonFinite, Rule};

use crate::{
    common::{Net, assert_same},
    digits::{BATCHES, COMMIT_EVERY, STEPS, Traps, trained},
    parts,
    proxy::Proxy,
    server::{Server, device},
    trap::AtBatch,
};

/// Each kind of death so many times, each at another place.
const KILLS: usize = 20;

/// The longest time from a death to the error.
const LIMIT: Duration = Duration::from_secs(10);

/// A server behind a proxy, and when it was killed.
struct Victim {
    server: Server,
    proxy: Proxy,
    killed: Mutex<Option<Instant>>,
}

impl Victim {
    fn start() -> Arc<Self> {
        let server = Server::start();
        let proxy = Proxy::before(&server.address);
        Arc::new(Self { server, proxy, killed: Mutex::default() })
    }

    fn kill(&self) {
        self.server.kill();
        self.killed.lock().unwrap().get_or_insert_with(Instant::now);
    }
}

const SEED: u64 = 5;

/// Each kill of a test, and the longest time from a death to the error.
fn kills(test: &str, traps: impl Fn(usize, &Arc<Victim>) -> Traps) {
    let printed = parts::each(test, KILLS, |number| {
        let time = check(number, |victim| traps(number, victim));
        println!("{TIME}{}", time.as_secs_f64());
    });
    let times = printed.iter().map(|printed| {
        let line = printed.lines().find_map(|line| line.strip_prefix(TIME));
        line.unwrap_or_else(|| panic!("no time: {printed}")).parse::<f64>().unwrap()
    });
    let longest = times.fold(0.0, f64::max);
    println!("{} times {test}: at most {longest:.3} s to the error", printed.len());
}

/// Begins the line with the seconds from a death to the error.
const TIME: &str = "seconds from the death to the error: ";

/// Trains on a server that dies as the traps have it, goes on upon another one, and compares with
/// an undisturbed training on Flex. Returns the time from the death to the error.
fn check(number: usize, traps: impl Fn(&Arc<Victim>) -> Traps) -> Duration {
    let [run, whole] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let victim = Victim::start();
    let error = trained(run.path(), SEED, &device(&victim.proxy.address), &traps(&victim));
    let time = victim.killed.lock().unwrap().expect("killed").elapsed();
    let error = error.map(|_| ()).expect_err("a training on a dead server");
    assert!(time < LIMIT, "kill {number}: {time:?} to {error}");
    println!("kill {number}: {error}");

    let server = Server::start();
    let resumed = trained(run.path(), SEED, &server.device(), &Traps::none()).unwrap();
    let whole = trained(whole.path(), SEED, &Device::flex(), &Traps::none()).unwrap();
    assert_same(&resumed, &whole);
    time
}

/// Kills the server at a batch.
fn kill_at(victim: &Arc<Victim>, at: usize) -> AtBatch {
    let victim = victim.clone();
    Arc::new(move |batch| {
        if batch == at {
            victim.kill()
        }
    })
}

#[test]
fn a_server_that_dies_within_an_epoch() {
    kills("deaths::a_server_that_dies_within_an_epoch", |number, victim| {
        let train = kill_at(victim, 1 + number % (2 * STEPS));
        Traps { train, ..Traps::none() }
    });
}

#[test]
fn a_server_that_dies_within_a_validation() {
    kills("deaths::a_server_that_dies_within_a_validation", |number, victim| {
        let valid = kill_at(victim, 1 + number % (2 * BATCHES));
        Traps { valid, ..Traps::none() }
    });
}

/// After the batch before a commit, the server is killed once it has sent more than the step itself
/// reads back: the records of the commit are on their way then.
#[test]
fn a_server_that_dies_within_a_commit() {
    let record = 4 * (64 * 32 + 32 + 32 * 10 + 10) as u64;
    kills("deaths::a_server_that_dies_within_a_commit", |number, victim| {
        let victim = victim.clone();
        let at = COMMIT_EVERY * (1 + number % 2);
        // Live, two averages and two moments of Adam.
        let bytes = record / 2 + 4 * record * number as u64 / KILLS as u64;
        let train = move |batch| {
            if batch == at {
                let killed = victim.clone();
                victim.proxy.after(bytes, move || killed.kill());
            }
        };
        Traps { train: Arc::new(train), ..Traps::none() }
    });
}

/// In a loop of one's own that reads nothing, an update that checks the numbers finds the death,
/// and one that takes them as they are does not.
#[test]
fn a_loop_that_reads_nothing() {
    let updates = |policy: NonFinite| {
        let server = Server::start();
        let device = server.device();
        let live = Net::new(1, &device);
        let config = AverageConfig::new(Rule::ema(0.9)).with_non_finite(policy);
        let mut average = config.init(&live).unwrap();
        average.update(&live, 1).unwrap();
        server.kill();
        let start = Instant::now();
        let updates: Vec<_> = (2..9).map(|step| average.update(&live, step).map(|_| ())).collect();
        assert!(start.elapsed() < LIMIT);
        (updates, device.sync(), read(&average))
    };

    let (checked, sync, _) = updates(NonFinite::Auto);
    let error = checked[0].as_ref().unwrap_err().to_string();
    println!("{error}");
    assert!(checked.iter().all(Result::is_err));
    assert!(sync.is_err());

    let (taken, sync, read) = updates(NonFinite::Take);
    assert!(taken.iter().all(Result::is_ok), "nothing is read");
    println!("{}", sync.unwrap_err());
    assert!(read.is_err());
}

/// The numbers of the first parameter of an average.
fn read(average: &Average<Net>) -> Result<Vec<f64>, String> {
    let weight: Tensor<2> = average.module().first.weight.val();
    weight.try_into_vec_as::<f64>().map_err(|error| error.to_string())
}
