//! Files that others may have changed: opened where they are files at all, and read by a length
//! that is known before.
//!
//! A pipe waits for its other side when it is opened, and a device gives bytes without end.

use std::{
    fmt,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _},
    path::Path,
};

use crate::{Error, Result};

/// How long a file may be, in bytes.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// Of any length.
    Any,
    /// Of exactly this many bytes.
    Exactly(u64),
    /// Of at most this many bytes.
    AtMost(u64),
}

impl Length {
    fn fits(self, bytes: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(expected) => bytes == expected,
            Self::AtMost(most) => bytes <= most,
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => write!(f, "any number of bytes"),
            Self::Exactly(expected) => write!(f, "{expected} bytes"),
            Self::AtMost(most) => write!(f, "at most {most} bytes"),
        }
    }
}

/// Opens a file to read it, and says how long it is.
///
/// # Errors
///
/// A path that is no regular file; a file that cannot be opened.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    open_with(path, File::options().read(true))
}

/// Opens a file to read it; none where there is nothing of its name.
///
/// # Errors
///
/// A path that is no regular file; a file that cannot be opened.
pub fn open_if_there(path: &Path) -> Result<Option<File>> {
    match open(path) {
        Ok((file, _)) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path, error)),
    }
}

/// Opens a file that is there, with these options, and says how long it is.
///
/// # Errors
///
/// A path that is no regular file; a file that cannot be opened.
pub fn open_with(path: &Path, options: &OpenOptions) -> io::Result<(File, u64)> {
    length(&fs::metadata(path)?)?;
    let file = options.open(path)?;
    // Another may have taken its place.
    let length = length(&file.metadata()?)?;
    Ok((file, length))
}

/// The final name of a file from the temporary name under which Burn writes it, with the id of the
/// process and a count. None for any other name.
pub fn begun(name: &str) -> Option<&str> {
    let (file, rest) = name.strip_suffix(".tmp")?.rsplit_once('.')?;
    let (process, count) = rest.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(process) && is_number(count)).then_some(file)
}

/// Checks that there is a regular file at a path, or nothing, before something opens or writes it.
///
/// # Errors
///
/// A path that is no regular file, or that cannot be looked at.
#[cfg(feature = "train")]
pub fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        metadata => length(&metadata?).map(drop),
    }
}

fn length(metadata: &Metadata) -> io::Result<u64> {
    match metadata.is_file() {
        true => Ok(metadata.len()),
        false => Err(io::Error::other("it is no file")),
    }
}

/// Reads a file into memory, of which it takes no more than the file has.
///
/// # Errors
///
/// A path that is no regular file; a file that cannot be read; one of another length than expected,
/// with `action` as what could not be done.
pub fn read(path: &Path, expected: Length, action: &'static str) -> Result<Vec<u8>> {
    let input = Input::open(path, expected, action)?;
    let mut bytes = Vec::new();
    let room = usize::try_from(input.length).map_err(io::Error::other);
    room.and_then(|room| Ok(bytes.try_reserve_exact(room)?))
        .map_err(|error| Error::file("read", path, error))?;
    input.visit(|piece| bytes.extend_from_slice(piece))?;
    Ok(bytes)
}

/// Reads a file in pieces of at most 64 KiB, and calls `each` on every piece, in order.
///
/// # Errors
///
/// The errors of [`read`]; `each` may have had some of the pieces by then.
pub fn visit(
    path: &Path,
    expected: Length,
    action: &'static str,
    each: impl FnMut(&[u8]),
) -> Result<()> {
    Input::open(path, expected, action)?.visit(each)
}

/// An open file with its length when it was opened, the length that the caller expects, and the
/// action that an error names.
struct Input<'a> {
    path: &'a Path,
    expected: Length,
    action: &'static str,
    file: File,
    length: u64,
}

impl<'a> Input<'a> {
    /// Checks the length before anything is read, so that an overgrown file takes no time and
    /// memory.
    fn open(path: &'a Path, expected: Length, action: &'static str) -> Result<Self> {
        let (file, length) = open(path).map_err(|error| Error::file("read", path, error))?;
        let input = Self { path, expected, action, file, length };
        if expected.fits(length) { Ok(input) } else { Err(input.refuse(expected, length)) }
    }

    fn visit(mut self, mut each: impl FnMut(&[u8])) -> Result<()> {
        let (mut bytes, mut piece) = (0, vec![0; 1 << 16]);
        loop {
            match self.file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    bytes += count as u64;
                    // It grows while it is read.
                    if bytes > self.length {
                        return Err(self.refuse(Length::Exactly(self.length), bytes));
                    }
                    each(&piece[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::file("read", self.path, error)),
            }
        }
        match self.expected.fits(bytes) {
            true => Ok(()),
            false => Err(self.refuse(self.expected, bytes)),
        }
    }

    fn refuse(&self, expected: Length, found: u64) -> Error {
        let error = Error::parameter("its length", expected, Length::Exactly(found));
        Error::file(self.action, self.path, error)
    }
}
