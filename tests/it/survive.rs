//! Runs that are killed, filled, damaged, doubled and fed NaNs, and go on as if undisturbed.

mod behaviour; // resumes of every kind, panics, settings
mod damage; // files that are cut, altered, swapped, of another kind or gone
mod fuzz; // bytes of any kind in the place of files
#[cfg(target_os = "linux")]
mod process; // kills, calls that fail, full disks, signals, other processes
pub mod rows; // what can go wrong, and which test shows that it does not matter
mod threads; // matrices that threads share
#[cfg(target_os = "linux")]
mod trace; // the system calls of a run, and faults in one of them
mod workload; // the training that all of it happens to, as a process of its own
