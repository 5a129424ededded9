//! What can go wrong, and which test shows that it does not matter.
//!
//! Each test says how many cases it ran, none of which failed; `every_row_ran`, which the check
//! runs last, compares that with this table.

use std::{collections::BTreeMap, fs, io::Write as _, path::PathBuf};

/// A fault, the tests of it, and how many cases they must have run.
const ROWS: [(usize, &str, &str, usize); 28] = [
    (1, "kill -9 at a random instant", "process::killed_at_random_instants", 60),
    (2, "kill -9 at every system call of a commit", "process::killed_at_every_call", 80),
    (3, "every system call of a commit fails", "process::every_call_fails", 300),
    (4, "a disk that is full", "process::a_full_disk", 5),
    (5, "a limit of file sizes", "process::a_limit_of_file_sizes", 5),
    (6, "a directory that cannot be used", "process::directories_that_cannot_be_used", 6),
    (7, "a file cut at every byte", "damage::every_file_cut_at_every_byte", 10_000),
    (8, "every single bit flipped", "damage::every_bit_of_every_file", 100_000),
    (9, "files that claim too much", "damage::files_that_claim_too_much", 10),
    (10, "arbitrary bytes", "fuzz::arbitrary_bytes", 4000),
    (11, "another architecture", "damage::another_architecture", 6),
    (12, "another dtype", "damage::another_dtype", 4),
    (13, "files in each other's place", "damage::files_in_each_others_place", 12),
    (14, "missing and left-over files", "damage::missing_and_left_over_files", 8),
    (15, "numbers that are not finite", "steps", 500),
    (16, "a NaN in a file that is otherwise whole", "damage::not_finite_in_a_whole_file", 6),
    (17, "signals and stops at random instants", "process::signalled_at_random_instants", 60),
    (18, "panics", "behaviour::panics", 6),
    (19, "two processes in one directory", "process::two_processes_in_one_directory", 1000),
    (20, "the holder of the lock is killed", "lock::a_holder_that_is_killed_frees_the_lock", 5),
    (21, "a file replaced after it was loaded", "damage::a_file_replaced_after_it_was_loaded", 4),
    (22, "odd paths", "damage::odd_paths", 8),
    (23, "a resume with other settings", "behaviour::a_resume_with_other_settings", 10),
    (24, "a resume from every commit, and twice", "behaviour::from_every_commit", 48),
    (25, "another version of the form", "damage::another_version", 3),
    (26, "ids of processes and other contents in the lock", "lock::what_is_left_over", 11),
    (27, "a power loss", "process::names_follow_contents", 3),
    (28, "the same run in fresh processes", "behaviour::the_same_run_in_fresh_processes", 10),
];

/// Says that a test of a row ran so many cases.
pub fn ran(row: usize, cases: usize) {
    let path = log();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    // One write, since tests run beside each other.
    file.write_all(format!("{row} {cases}\n").as_bytes()).unwrap();
}

fn log() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("rows.log")
}

/// Reads what the tests before it said: `rm -f target/tmp/rows.log` before them.
#[test]
#[ignore = "reads what the other tests left"]
fn every_row_ran() {
    let mut cases: BTreeMap<usize, usize> = BTreeMap::new();
    for line in fs::read_to_string(log()).unwrap_or_default().lines() {
        let (row, count) = line.split_once(' ').unwrap();
        *cases.entry(row.parse().unwrap()).or_insert(0) += count.parse::<usize>().unwrap();
    }
    println!("row  cases  least  fault");
    let mut short = Vec::new();
    for (row, fault, test, least) in ROWS {
        let count = cases.get(&row).copied().unwrap_or(0);
        println!("{row:3}  {count:5}  {least:5}  {fault} ({test})");
        if count < least {
            short.push(row);
        }
    }
    assert!(short.is_empty(), "rows with too few cases: {short:?}");
}
