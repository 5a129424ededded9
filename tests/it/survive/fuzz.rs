//! Arbitrary bytes in the place of each file of a commit, whose digests are made to fit, so that
//! what reads them gets to see them.
//!
//! For `BURN_EMA_FUZZ_SECONDS` a file, 1 by default; `BURN_EMA_FUZZ_SEED` repeats a run.

use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use burn_ema::runs::Progress;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::{
    rows,
    workload::{Plan, chain, scratch},
};

#[test]
fn arbitrary_bytes() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seconds = number("BURN_EMA_FUZZ_SECONDS").unwrap_or(1);
    let seed = number("BURN_EMA_FUZZ_SEED").unwrap_or_else(rand_seed);
    println!("BURN_EMA_FUZZ_SEED={seed}");
    let scratch = scratch();
    let whole = Plan { epochs: 1, every_steps: None, ..Plan::new(scratch.path().join("a")) };
    whole.golden();
    let mut cases = 0;
    for file in ["MANIFEST.json", "model.bpk", "optimizer.bpk", "scheduler.bpk"] {
        let plan = Plan { run: scratch.path().join(file), ..whole.clone() };
        whole.copy_until(&plan.run, Progress::after(1));
        let commit = plan.run.join("commits/epoch-0001");
        let corpus =
            [file, "model.bpk", "optimizer.bpk"].map(|name| fs::read(commit.join(name)).unwrap());
        let metrics = fs::read(plan.run.join("metrics.csv")).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let until = Instant::now() + Duration::from_secs(seconds);
        let (mut refused, mut count) = (0, 0);
        while Instant::now() < until {
            let bytes = mutated(&mut rng, &corpus);
            put(&commit, file, &bytes, &corpus[0]);
            // What a resume truncates or sets aside.
            fs::write(plan.run.join("metrics.csv"), &metrics).unwrap();
            if let Err(error) = plan.fit().and_then(|fit| fit.resume()) {
                let text = chain(&error);
                assert!(text.contains("commits") || text.contains("config"), "{text}");
                refused += 1;
            }
            count += 1;
        }
        println!("{file}: {count} inputs, {refused} refused");
        assert!(refused > 0);
        cases += count;
    }
    rows::ran(10, cases);
}

fn rand_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_nanos() as u64
}

/// Writes the file, and a manifest that says it is as it was written.
fn put(commit: &Path, file: &str, bytes: &[u8], whole: &[u8]) {
    let sha256 = |bytes: &[u8]| {
        let digest = Sha256::digest(bytes);
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let manifest = commit.join("MANIFEST.json");
    let signed = |json: &str| format!("{json}sha256 {}\n", sha256(json.as_bytes()));
    if file == "MANIFEST.json" {
        let text = String::from_utf8_lossy(bytes);
        let json = text.rsplit_once("sha256 ").map_or(&*text, |(json, _)| json);
        let json = if json.ends_with('\n') { json.to_owned() } else { json.to_owned() + "\n" };
        return fs::write(manifest, signed(&json)).unwrap();
    }
    let path = commit.join(file);
    let before = fs::read(&path).unwrap_or_else(|_| whole.to_vec());
    fs::write(&path, bytes).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    let mut json: serde_json::Value =
        serde_json::from_str(text.rsplit_once("sha256 ").unwrap().0).unwrap();
    let entry = &mut json["files"][file];
    assert_eq!(entry["sha256"], sha256(&before));
    entry["sha256"] = sha256(bytes).into();
    entry["bytes"] = bytes.len().into();
    let json = serde_json::to_string_pretty(&json).unwrap() + "\n";
    fs::write(manifest, signed(&json)).unwrap();
}

/// A file of the corpus, the first most often, with a few damages.
fn mutated(rng: &mut ChaCha8Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let other = corpus.choose(rng).unwrap();
    let mut bytes = if rng.random_ratio(7, 8) { corpus[0].clone() } else { other.clone() };
    for _ in 0..rng.random_range(1..4) {
        if bytes.is_empty() {
            return bytes;
        }
        // Names and numbers stand at the beginning, and decide more than the tensors behind them.
        let most = if rng.random_ratio(3, 4) { bytes.len().min(1500) } else { bytes.len() };
        let at = rng.random_range(0..most);
        let to = rng.random_range(at..=bytes.len().min(at + 64));
        match rng.random_range(0..8) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = *[0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b'-'].choose(rng).unwrap(),
            2 => bytes[at] = rng.random(),
            3 => bytes.truncate(at),
            4 => bytes[at..to].fill(0),
            5 => _ = bytes.drain(at..to),
            6 => {
                let block = bytes[at..to].to_vec();
                bytes.splice(at..at, block);
            }
            _ => {
                let from = rng.random_range(0..other.len());
                let block = other[from..other.len().min(from + 64)].to_vec();
                bytes.splice(at..to, block);
            }
        }
    }
    bytes
}
