//! Files that other programs may have changed. Only regular files are opened, and a file that grows
//! while it is read is refused.
//!
//! Opening a pipe blocks until its other end is opened, and a device can yield bytes without end.

use std::{
    fmt,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    time::SystemTime,
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

/// A file that is read in parts, by its path, and refused once it has changed.
#[derive(Clone, Debug)]
pub struct Parts {
    path: PathBuf,
    length: u64,
    /// The time of the last change; `None` on systems without it.
    modified: Option<SystemTime>,
}

impl Parts {
    /// The file as it is now.
    ///
    /// # Errors
    ///
    /// A path that is no regular file, or whose metadata cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).and_then(|found| length(&found).map(|_| found));
        let metadata = metadata.map_err(|error| Error::file("read", path, error))?;
        let modified = metadata.modified().ok();
        Ok(Self { path: path.to_owned(), length: metadata.len(), modified })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The length of the file in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Checks that the file has the length and the time of its last change that it had.
    ///
    /// # Errors
    ///
    /// A file that has changed, or that is gone.
    pub fn check(&self) -> Result<()> {
        let now = Self::of(&self.path)?;
        match (now.length, now.modified) == (self.length, self.modified) {
            true => Ok(()),
            false => {
                let error = Error::parameter("the file", "one that stays as it is", "a change");
                Err(Error::file("read", &self.path, error))
            }
        }
    }

    /// Reads the bytes of a range.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or that ends before the range does.
    pub fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let read = || {
            let (mut file, _) = open(&self.path)?;
            file.seek(SeekFrom::Start(range.start))?;
            let length = range.end.saturating_sub(range.start);
            let mut bytes = Vec::new();
            let room = usize::try_from(length.min(self.length)).map_err(io::Error::other)?;
            bytes.try_reserve_exact(room)?;
            let found = file.take(length).read_to_end(&mut bytes)? as u64;
            match found == length {
                true => Ok(bytes),
                false => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            }
        };
        read().map_err(|error| Error::file("read", &self.path, error))
    }
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
