//! Files that other programs may have changed. Only regular files are opened, and a file that grows
//! while it is read is refused.
//!
//! Opening a pipe blocks until its other end is opened, and a device can yield bytes without end.

use std::{
    fmt,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _},
    path::Path,
};

use crate::{Error, Result};

/// The length that a file may have, in bytes.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// Any length.
    Any,
    /// Exactly this many bytes.
    Exactly(u64),
    /// At most this many bytes.
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

/// Opens a file for reading. Returns the file and its length in bytes.
///
/// # Errors
///
/// A path that is no regular file; a file that cannot be opened.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    open_with(path, File::options().read(true))
}

/// Opens a file for reading. Returns `None` if the path does not exist.
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

/// Opens an existing file with these options. Returns the file and its length in bytes.
///
/// # Errors
///
/// A path that is no regular file; a file that cannot be opened.
pub fn open_with(path: &Path, options: &OpenOptions) -> io::Result<(File, u64)> {
    length(&fs::metadata(path)?)?;
    let file = options.open(path)?;
    // Another file may have replaced the one that was checked.
    let length = length(&file.metadata()?)?;
    Ok((file, length))
}

/// The final name of a file, from the temporary name under which Burn writes it:
/// `NAME.PROCESS-COUNT.tmp`, with the id of the process and a counter. `None` for any other name.
pub fn begun(name: &str) -> Option<&str> {
    let (file, rest) = name.strip_suffix(".tmp")?.rsplit_once('.')?;
    let (process, count) = rest.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(process) && is_number(count)).then_some(file)
}

/// Checks that a path is a regular file or does not exist, before the path is opened or written.
///
/// # Errors
///
/// A path that is something else than a regular file, or whose metadata cannot be read.
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

/// Reads a whole file into memory. Allocates the length of the file and no more.
///
/// # Errors
///
/// A path that is no regular file; a file that cannot be read, or for which there is not enough
/// memory; a file of another length than `expected`, or that grows while it is read. The error
/// about a length names `action` as the action that failed.
pub fn read(path: &Path, expected: Length, action: &'static str) -> Result<Vec<u8>> {
    let input = Input::open(path, expected, action)?;
    let mut bytes = Vec::new();
    let room = usize::try_from(input.length).map_err(io::Error::other);
    room.and_then(|room| Ok(bytes.try_reserve_exact(room)?))
        .map_err(|error| Error::file("read", path, error))?;
    input.visit(|piece| bytes.extend_from_slice(piece))?;
    Ok(bytes)
}

/// Reads a file in pieces of at most 64 KiB, and calls `each` with every piece, in order.
///
/// # Errors
///
/// The errors of [`read`]. `each` may have been called with some of the pieces before the error.
pub fn visit(
    path: &Path,
    expected: Length,
    action: &'static str,
    each: impl FnMut(&[u8]),
) -> Result<()> {
    Input::open(path, expected, action)?.visit(each)
}

/// An open file, with its length when it was opened, the length that the caller expects, and the
/// action that an error names.
struct Input<'a> {
    path: &'a Path,
    expected: Length,
    action: &'static str,
    file: File,
    length: u64,
}

impl<'a> Input<'a> {
    /// Opens a file and checks its length before anything is read, so that a file that is too long
    /// takes neither time nor memory.
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
                    // The file grows while it is read.
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
