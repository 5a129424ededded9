//! The lock of a run: one process at a time writes there.

use std::{
    fs::{File, TryLockError},
    io::{Read as _, Write as _},
    path::Path,
    process,
};

use burn_ema_base::regular;

use crate::{Error, Result};

/// The lock of a run's directory, held until it is dropped.
///
/// The operating system keeps it, on the file `LOCK`, and frees it when the process ends, however
/// that ends.
/// The file stays; what it says is for people alone, so a file that is left over locks nothing.
#[derive(Debug)]
#[must_use = "the lock is held for as long as this lives"]
pub struct RunLock {
    file: File,
}

impl RunLock {
    /// Takes the lock of the run in a directory that exists.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] with the holder, where another has the lock, be it in this process;
    /// a `LOCK` that cannot be opened, locked (some file systems have no locks) or written.
    pub fn take(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let path = directory.join("LOCK");
        // Not truncated: the text is the holder's for as long as there is one.
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let opened = regular::check(&path).and_then(|()| options.open(&path));
        let mut file = opened.map_err(|error| Error::file("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut file).unwrap_or_else(|| "another process".into());
                return Err(Error::Locked { path: directory.into(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(Error::file("lock", path, error)),
        }
        let line = format!("pid {} on {}\n", process::id(), host());
        let mut lock = Self { file }; // from here on a drop frees it
        let written = lock.file.set_len(0).and_then(|()| lock.file.write_all(line.as_bytes()));
        written.map_err(|error| Error::file("write", path, error))?;
        Ok(lock)
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        // Closing the file is not enough while a child that is being started has it open too.
        let _ = self.file.unlock();
    }
}

/// The line of the lock's holder; none where the file holds anything else.
fn holder(file: &mut File) -> Option<String> {
    const MOST_BYTES: u64 = 200;
    let mut text = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut text).ok()?;
    let line = String::from_utf8(text).ok()?.strip_suffix('\n')?.to_string();
    (line.starts_with("pid ") && !line.contains(char::is_control)).then_some(line)
}

fn host() -> String {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "an unknown host".into())
}
