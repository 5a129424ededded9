//! Files and directories that are written whole and durably, or not at all.
//!
//! A file's bytes are durable once the file is synced, and its name once its directory is synced
//! (Pillai et al. 2014, "All File Systems Are Not Created Equal").

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Creates a file, writes `bytes` to it and syncs it; the file's name is not synced.
///
/// # Errors
///
/// A path that exists already; a file that cannot be written, which may then be incomplete.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| Error::file("write", path, error))
}

/// Replaces a file, or creates it, whole or not at all, through a temporary file `PATH.tmp`.
///
/// # Errors
///
/// A file that cannot be written or renamed: the old file is unchanged. A directory that cannot be
/// synced: the new file is in place, but its name may not be durable.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let unfinished = with_ending(path, ".tmp");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file("remove", unfinished, error));
        }
        _ => {}
    }
    let written = write_new(&unfinished, bytes).and_then(|()| rename(&unfinished, path));
    if written.is_err() {
        // A later call would replace an incomplete file, but until then it takes space on the disk.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Renames a file or directory, and syncs the directory of the new name. An existing file at `to`
/// is replaced. The contents are not synced here: sync them first.
///
/// # Errors
///
/// A name that cannot be changed, or a directory that cannot be synced after the change.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| Error::file("write", to, error))?;
    sync_directory(to.parent().unwrap_or(Path::new(".")))
}

/// Renames a file or directory to its name with `.aside-1`, or the next number that is free.
///
/// # Errors
///
/// The errors of [`rename`].
pub fn set_aside(path: &Path) -> Result<()> {
    rename(path, &aside(path))
}

/// Copies a file, synced, to its name with `.aside-1`, or the next number that is free.
///
/// # Errors
///
/// A file that cannot be read, or a copy that cannot be written.
pub fn copy_aside(path: &Path) -> Result<()> {
    let aside = aside(path);
    let unfinished = with_ending(&aside, ".tmp");
    let copied = fs::copy(path, &unfinished).and_then(|_| File::open(&unfinished)?.sync_all());
    let copied = copied.map_err(|error| Error::file("write", &unfinished, error));
    let copied = copied.and_then(|()| rename(&unfinished, &aside));
    if copied.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    copied
}

/// The path with the first of the endings `.aside-1`, `.aside-2` and so on that does not exist.
fn aside(path: &Path) -> PathBuf {
    let mut others = (1_u64..).map(|count| with_ending(path, &format!(".aside-{count}")));
    others.find(|other| !other.exists()).unwrap_or_else(|| path.to_owned())
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// Creates a directory and its missing parents, and syncs their names. Does nothing if the
/// directory exists.
///
/// # Errors
///
/// A directory that cannot be created or synced; a path that is a file.
pub fn create_directory(path: &Path) -> Result<()> {
    let create = || match fs::create_dir(path) {
        // A directory that exists is left as it is; a file of this name is an error.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        created => created.map(|()| true),
    };
    let created = match (create(), path.parent()) {
        // A path that is only a name has an empty parent, which cannot be created.
        (Err(error), Some(parent))
            if error.kind() == io::ErrorKind::NotFound && !parent.as_os_str().is_empty() =>
        {
            create_directory(parent)?;
            create()
        }
        (created, _) => created,
    };
    match created.map_err(|error| Error::file("create", path, error))? {
        true => sync_directory(path.parent().unwrap_or(Path::new("."))),
        false => Ok(()),
    }
}

/// Makes the names in a directory durable, by an `fsync` of the directory. Does nothing on systems
/// other than Unix.
///
/// # Errors
///
/// A directory that cannot be opened or synced.
pub fn sync_directory(path: &Path) -> Result<()> {
    // A path without a parent of its own is in the current directory.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    if cfg!(not(unix)) {
        return Ok(());
    }
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|error| Error::file("sync", path, error))
}
