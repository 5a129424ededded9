//! The lock of a run, by which one process at a time writes to the run.

use std::{
    fs::{File, TryLockError},
    io::{Read as _, Write as _},
    path::Path,
    process,
};

use burn_ema_base::regular;

use crate::{Error, Result};

/// The lock of a run's directory, held until this value is dropped.
///
/// The lock is one of the operating system on the file `LOCK`, which is released when the process
/// ends, however it ends. The file is never removed. Its text, the holder, is only for messages: a
/// `LOCK` file that is left over locks nothing.
#[derive(Debug)]
#[must_use = "the lock is held for as long as this lives"]
pub struct RunLock {
    file: File,
}

impl RunLock {
    /// Takes the lock of the run in this directory, which must exist. Does not wait for another
    /// holder. Writes the process id and the host to `LOCK`.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] with the holder, if the lock is held already, even by this process; a
    /// `LOCK` that cannot be opened, locked (some file systems have no locks) or written.
    pub fn take(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let path = directory.join("LOCK");
        // Not truncated, since the file may hold the line of the present holder.
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
        // Closing the file does not release the lock while a child process that is being started
        // has the file open too.
        let _ = self.file.unlock();
    }
}

/// The line of the lock's holder; `None` if the file cannot be read or contains anything else.
fn holder(file: &mut File) -> Option<String> {
    const MAX_BYTES: u64 = 200;
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    let line = String::from_utf8(text).ok()?.strip_suffix('\n')?.to_string();
    (line.starts_with("pid ") && !line.contains(char::is_control)).then_some(line)
}

fn host() -> String {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "an unknown host".into())
}
