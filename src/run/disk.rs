//! Files that are there whole and for good, or not at all.
//!
//! A file's bytes are durable when the file was synced, and its name when its directory was
//! (Pillai et al. 2014, "All File Systems Are Not Created Equal").

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use crate::{Error, Result};

/// Writes a file that is not there yet, and syncs it.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| Error::file("write", path, error))
}

/// Writes a file in place of the one of this name, whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let unfinished = path.with_file_name(name);
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
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| Error::file("write", to, error))?;
    sync_directory(to.parent().unwrap_or(Path::new(".")))
}

/// Gives a file or directory another name beside its own, under which it stays.
pub(crate) fn set_aside(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    let mut others = (1..).map(|count| {
        let mut other = name.to_owned();
        other.push(format!(".aside-{count}"));
        path.with_file_name(other)
    });
    others.find(|other| !other.exists()).map_or(Ok(()), |other| rename(path, &other))
}

/// Makes a directory, and those above it that are missing, and syncs their names.
pub(crate) fn create_directory(path: &Path) -> Result<()> {
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

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    // A path without a parent of its own is in the current directory.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    if cfg!(not(unix)) {
        return Ok(());
    }
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|error| Error::file("sync", path, error))
}
