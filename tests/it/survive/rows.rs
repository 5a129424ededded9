//! What can go wrong, and which tests show that it does not matter.
//!
//! Each test says how many cases it ran, none of which failed; `every_row_ran`, which the check
//! runs last, compares that with this table, test by test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::PathBuf,
    thread,
};

/// Tests, and how many cases each must have run.
type Tests = &'static [(&'static str, usize)];

/// A fault, and the tests of it.
const ROWS: [(usize, &str, Tests); 28] = [
    (1, "kill -9 at a random instant", &[("process::killed_at_random_instants", 60)]),
    (2, "kill -9 at every system call of a commit", &[("process::killed_at_every_call", 80)]),
    (
        3,
        "every system call of a commit fails",
        &[
            ("process::every_call_fails", 400),
            ("process::a_lost_byte_is_found_when_the_commit_is_read_back", 4),
        ],
    ),
    (4, "a disk that is full", &[("process::a_full_disk", 5)]),
    (5, "a limit of file sizes", &[("process::a_limit_of_file_sizes", 5)]),
    (
        6,
        "a directory that cannot be used",
        &[
            ("process::directories_that_cannot_be_used", 10),
            ("process::a_disk_that_is_read_only", 2),
        ],
    ),
    (7, "a file cut at every byte", &[("damage::every_file_cut_at_every_byte", 10_000)]),
    (
        8,
        "every single bit flipped, and more",
        &[
            ("damage::every_bit_of_every_file", 50_000),
            ("damage::every_bit_of_an_exported_model", 25_000),
            ("damage::every_bit_of_a_configuration", 5000),
            ("damage::many_bits_and_blocks", 10_000),
            ("damage::a_run_goes_on_before_the_damage", 256),
        ],
    ),
    (9, "files that claim too much", &[("damage::files_that_claim_too_much", 150)]),
    (10, "arbitrary bytes", &[("fuzz::arbitrary_bytes", 4000)]),
    (11, "another architecture", &[("damage::another_architecture", 10)]),
    (12, "another dtype", &[("damage::another_dtype", 19)]),
    (13, "files in each other's place", &[("damage::files_in_each_others_place", 60)]),
    (14, "missing and left-over files", &[("damage::missing_and_left_over_files", 26)]),
    (
        15,
        "numbers that are not finite",
        &[
            ("steps::a_refused_step_changes_nothing_wherever_the_number_comes_in", 432),
            ("steps::a_weight_or_moment_that_is_not_finite_ends_the_training", 81),
        ],
    ),
    (16, "a NaN in a file that is otherwise whole", &[("damage::not_finite_in_a_whole_file", 40)]),
    (
        17,
        "signals and stops at random instants",
        &[("process::signalled_at_random_instants", 100), ("process::stopped_anywhere", 20)],
    ),
    (18, "panics", &[("behaviour::panics", 6)]),
    (
        19,
        "two processes in one directory",
        &[
            ("process::two_processes_in_one_directory", 10),
            ("process::a_reader_beside_a_writer", 1000),
        ],
    ),
    (
        20,
        "the holder of the lock is killed",
        &[("lock::a_holder_that_is_killed_frees_the_lock", 5)],
    ),
    (
        21,
        "a file replaced after it was loaded",
        &[("damage::a_file_replaced_after_it_was_loaded", 10)],
    ),
    (22, "odd paths", &[("damage::odd_paths", 23)]),
    (
        23,
        "a resume with other settings",
        &[
            ("behaviour::a_resume_with_other_settings", 9),
            ("threads::their_number_decides_no_bit", 4),
        ],
    ),
    (
        24,
        "a resume from every commit, and twice",
        &[("behaviour::from_every_commit", 48), ("behaviour::what_is_done_is_not_done_again", 4)],
    ),
    (25, "another version of the form", &[("damage::another_version", 9)]),
    (
        26,
        "clocks, ids of processes and other contents in the lock",
        &[
            ("damage::clocks_that_jump", 5),
            ("lock::what_is_left_over_in_the_file_locks_nothing_and_is_not_shown", 11),
        ],
    ),
    (27, "a power loss", &[("process::names_follow_contents", 18)]),
    (
        28,
        "the same run in fresh processes",
        &[
            ("behaviour::the_same_run_in_fresh_processes", 20),
            ("threads::their_number_decides_no_bit", 6),
        ],
    ),
];

/// Says that the test that calls it ran so many cases of a row.
pub fn ran(row: usize, cases: usize) {
    let path = log();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    // The test harness names the thread of a test like the test.
    let thread = thread::current();
    let test = thread.name().unwrap();
    let test = test.strip_prefix("survive::").unwrap_or(test);
    // One write, since tests run beside each other.
    file.write_all(format!("{row} {test} {cases}\n").as_bytes()).unwrap();
}

fn log() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("rows.log")
}

/// Reads what the tests before it said: `rm -f target/tmp/rows.log` before them.
#[test]
#[ignore = "reads what the other tests left"]
fn every_row_ran() {
    let said = fs::read_to_string(log()).unwrap_or_default();
    // Of a test that ran twice, the last.
    let mut cases: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for line in said.lines() {
        let [row, test, count] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        cases.insert((row.parse().unwrap(), test), count.parse().unwrap());
    }
    println!("row   cases   least  fault");
    let mut short = Vec::new();
    let mut known = BTreeSet::new();
    for (row, fault, tests) in ROWS {
        for (test, least) in tests {
            let count = cases.get(&(row, *test)).copied().unwrap_or(0);
            println!("{row:3}  {count:6}  {least:6}  {fault} ({test})");
            if count < *least {
                short.push((row, *test));
            }
            known.insert((row, *test));
        }
    }
    assert!(short.is_empty(), "tests with too few cases: {short:#?}");
    let unknown: Vec<_> = cases.keys().filter(|test| !known.contains(test)).collect();
    assert!(unknown.is_empty(), "tests that are not in the table: {unknown:#?}");
}
