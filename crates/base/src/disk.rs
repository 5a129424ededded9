//! Files that are there whole and for good, or not at all.
//!
//! A file's bytes are durable when the file was synced, and its name when its directory was
//! (Pillai et al. 2014, "All File Systems Are Not Created Equal").

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Writes a file that is not there yet, and syncs it.
///
/// # Errors
///
/// A file that is there, or that cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| Error::file("write", path, error))
}

/// Writes a file in place of the one of this name, whole or not at all.
///
/// # Errors
///
/// A file that cannot be written; the old one is as it was then.
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
        // What is half there would be in the way of nothing, but takes room on a full disk.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Renames a file or directory whose contents are synced, and syncs the new name.
///
/// # Errors
///
/// A name that cannot be changed or synced.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| Error::file("write", to, error))?;
    sync_directory(to.parent().unwrap_or(Path::new(".")))
}

/// Gives a file or directory another name beside its own, under which it stays.
///
/// # Errors
///
/// The errors of [`rename`].
pub fn set_aside(path: &Path) -> Result<()> {
    rename(path, &aside(path))
}

/// Copies a file under another name beside its own, under which the copy stays.
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

/// The path with the first ending `.aside-1`, `.aside-2` and so on whose name is free.
fn aside(path: &Path) -> PathBuf {
    let mut others = (1_u64..).map(|count| with_ending(path, &format!(".aside-{count}")));
    others.find(|other| !other.exists()).unwrap_or_else(|| path.to_owned())
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// Makes a directory, and those above it that are missing, and syncs their names.
///
/// # Errors
///
/// A directory that cannot be made; a file of its name.
pub fn create_directory(path: &Path) -> Result<()> {
    let create = || match fs::create_dir(path) {
        // One that is there stays as it is; a file of the name is none.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        created => created.map(|()| true),
    };
    let created = match (create(), path.parent()) {
        // The parent of a name alone is the current directory, and an empty path is none.
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
