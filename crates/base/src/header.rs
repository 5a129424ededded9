//! The header of Burn's record bytes, checked before Burn allocates memory for its metadata.
//!
//! The metadata, which holds names, shapes and offsets of tensors, takes up to forty times as much
//! space in memory as in a file. In a real file, the numbers of the tensors are longer than the
//! metadata. A file that is mostly metadata is refused by the number of its metadata items, so that
//! reading a file takes little more memory than twice its length.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Range,
    path::Path,
};

use crate::{Error, Result, regular};

/// The length of the header in bytes: a magic number (4), a version (2) and the length of the
/// metadata (4).
const HEADER: usize = 10;

/// The number of metadata items that even the shortest file may have, enough for about four
/// thousand tensors. A file may have one more for each [`BYTES_OF_ITEM`] bytes of its length.
const FREE: u64 = 1 << 16;

/// The least number of bytes that a real file has for each metadata item. The entry of a tensor of
/// rank 2 has fourteen items and takes 80 bytes and its name, and its numbers take 256 bytes or
/// more.
const BYTES_OF_ITEM: u64 = 24;

/// Refuses record bytes whose metadata has more items than tensors of this total length could have.
///
/// # Errors
///
/// More items than 65,536 plus one for each 24 of `bytes`. Other defects are left to Burn's parser.
pub fn check(bytes: &[u8]) -> Result<()> {
    check_items(&bytes[metadata(bytes)], bytes.len() as u64)
}

/// The range of the metadata in `bytes`, the bytes of a record or the first part of them. It begins
/// after the header and has the length that the header states, but ends at the end of `bytes` at
/// the latest. It is empty if `bytes` is shorter than a header.
pub fn metadata(bytes: &[u8]) -> Range<usize> {
    let start = HEADER.min(bytes.len());
    let claimed = claim(bytes).map_or(0, |claimed| claimed as usize);
    start..bytes.len().min(start.saturating_add(claimed))
}

/// The number of first bytes of a file that are its header and its metadata, by the length in the
/// header; at most the length of the file.
///
/// # Errors
///
/// A path that is no regular file; a file that cannot be read or is shorter than a header.
pub fn end_of_metadata(path: &Path) -> Result<u64> {
    let (header, length, _) = begin(path)?;
    Ok(length.min(HEADER as u64 + claim(&header).map_or(0, u64::from)))
}

/// Opens a file and reads its header. Returns the header, the length of the file and the file.
fn begin(path: &Path) -> Result<([u8; HEADER], u64, File)> {
    let read = || {
        let (mut file, length) = regular::open(path)?;
        let mut header = [0; HEADER];
        file.read_exact(&mut header)?;
        Ok((header, length, file))
    };
    read().map_err(|error: io::Error| Error::file("read", path, error))
}

/// Like [`check`], for a file. Reads only the header and the metadata of the file.
///
/// # Errors
///
/// A path that is no regular file; a file that cannot be read or is shorter than a header; a length
/// of the metadata in the header that is larger than the file; the errors of [`check`].
pub fn check_file(path: &Path) -> Result<()> {
    let broken = |error: io::Error| Error::file("read", path, error);
    let (header, length, file) = begin(path)?;
    let claimed = claim(&header).map_or(0, u64::from);
    if claimed > length {
        let expected = format!("{claimed} bytes of metadata, as the file claims");
        let error = Error::parameter(PLACE, expected, format!("a file of {length} bytes"));
        return Err(Error::file("read", path, error));
    }
    let mut metadata = Vec::new();
    file.take(claimed).read_to_end(&mut metadata).map_err(broken)?;
    check_items(&metadata, length).map_err(|error| Error::file("read", path, error))
}

/// The path that errors of this module name.
const PLACE: &str = "the header";

/// The length of the metadata that the header states; `None` if the header is incomplete.
fn claim(header: &[u8]) -> Option<u32> {
    let length = header.get(..HEADER)?.last_chunk::<4>()?;
    Some(u32::from_le_bytes(*length))
}

fn check_items(metadata: &[u8], length: u64) -> Result<()> {
    let most = FREE + length / BYTES_OF_ITEM;
    let found = items(metadata);
    if found <= most {
        return Ok(());
    }
    let expected = format!("at most {most} items of metadata, in {length} bytes");
    Err(Error::parameter(PLACE, expected, found))
}

/// The number of data items in CBOR, nested items included, which is the number of their heads.
fn items(mut cbor: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((&head, rest)) = cbor.split_first() {
        count += 1;
        // The major type of the item, and its number or a code for the width of its number.
        let (kind, short) = (head >> 5, usize::from(head & 31));
        let width = if let 24..28 = short { 1 << (short - 24) } else { 0 };
        let long = rest.iter().take(width).fold(0, |number, &byte| number << 8 | usize::from(byte));
        let number = if width > 0 { long } else { short };
        // For byte and text strings, the number is that of the bytes that follow. A string of
        // indefinite length (31) consists of items of its own.
        let follow = if let (2 | 3, 0..28) = (kind, short) { number } else { 0 };
        cbor = rest.get(width.saturating_add(follow)..).unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests;
