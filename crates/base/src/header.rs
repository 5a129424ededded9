//! The header of Burn's bytes, checked before Burn makes room for what it claims.
//!
//! At worst, names, shapes and places of tensors take forty times as much room in memory as in a
//! file.
//! In a real file they come with the numbers of the tensors. A file of little else is refused by
//! the number of its metadata items, so that reading one takes little more memory than twice its
//! length.

use std::{
    io::{self, Read as _},
    ops::Range,
    path::Path,
};

use crate::{Error, Result, regular};

/// The header: a magic number, a version, and last the length of the metadata.
const HEADER: usize = 10;

/// The number of metadata items that even the shortest file may have: enough for about four
/// thousand tensors.
const FREE: u64 = 1 << 16;

/// The bytes of a file that come with an item, at least: an entry has fourteen items where its
/// tensor has two dimensions, takes 80 bytes and its name, and its numbers 256 or more.
const BYTES_OF_ITEM: u64 = 24;

/// Refuses bytes whose metadata has more items than tensors of their length could have.
///
/// # Errors
///
/// More items than 65,536 plus one per 24 bytes. Bytes that are no metadata are left to the parser.
pub fn check(bytes: &[u8]) -> Result<()> {
    check_items(&bytes[metadata(bytes)], bytes.len() as u64)
}

/// Where the metadata is, as far as it is there.
pub fn metadata(bytes: &[u8]) -> Range<usize> {
    let start = HEADER.min(bytes.len());
    let claimed = claim(bytes).map_or(0, |claimed| claimed as usize);
    start..bytes.len().min(start.saturating_add(claimed))
}

/// Like [`check`] for a file, of which it reads the metadata alone.
///
/// # Errors
///
/// A file that cannot be read; one that claims more metadata than it has bytes; those of
/// [`check`].
pub fn check_file(path: &Path) -> Result<()> {
    let broken = |error: io::Error| Error::file("read", path, error);
    let (mut file, length) = regular::open(path).map_err(broken)?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(broken)?;
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

/// Where errors place what they found.
const PLACE: &str = "the header";

/// The length of the metadata that the header claims.
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

/// The number of data items in CBOR, nested ones included: it counts their heads.
fn items(mut cbor: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((&head, rest)) = cbor.split_first() {
        count += 1;
        // The kind of the item, and a small number or how many bytes its number takes.
        let (kind, short) = (head >> 5, usize::from(head & 31));
        let width = if let 24..28 = short { 1 << (short - 24) } else { 0 };
        let long = rest.iter().take(width).fold(0, |number, &byte| number << 8 | usize::from(byte));
        let number = if width > 0 { long } else { short };
        // Bytes and texts: the number is that of the bytes that follow, but where they come in
        // pieces.
        let follow = if let (2 | 3, 0..28) = (kind, short) { number } else { 0 };
        cbor = rest.get(width.saturating_add(follow)..).unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests;
