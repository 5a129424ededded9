//! A terminal of its own for a program.

use std::{
    ffi::OsString,
    fs::File,
    os::unix::{ffi::OsStringExt as _, fs::OpenOptionsExt as _},
    path::PathBuf,
};

use rustix::{
    fs::OFlags,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};

/// The key that a terminal makes SIGINT of.
pub const CTRL_C: [u8; 1] = [3];

/// A new terminal: the side that a person has, and the one for programs.
pub fn terminal() -> (File, impl Fn() -> File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let path = PathBuf::from(OsString::from_vec(name.into_bytes()));
    let programs = move || {
        // Or it would become the terminal of a test that has none.
        let flags = OFlags::NOCTTY.bits() as i32;
        File::options().read(true).write(true).custom_flags(flags).open(&path).unwrap()
    };
    (person.into(), programs)
}

/// Whether the terminal makes signals of keys, and whether it hands keys on one by one.
pub fn modes(terminal: &File) -> (bool, bool) {
    let modes = tcgetattr(terminal).unwrap().local_modes;
    (modes.contains(LocalModes::ISIG), !modes.intersects(LocalModes::ICANON | LocalModes::ECHO))
}
