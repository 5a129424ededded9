//! Digests as text, and bytes that contain their own digest.

use std::{ops::Range, path::Path};

use sha2::{Digest, Sha256};

use crate::{
    Result,
    regular::{self, Length},
};

/// The SHA-256 of bytes, as 64 lowercase hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(Sha256::digest(bytes))
}

/// The bytes of a digest as lowercase hexadecimal digits, two for each byte.
pub fn hexadecimal(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The placeholder, 64 zeros, that stands for a digest while the digest is computed.
pub const UNSEALED: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Writes the SHA-256 of `bytes` over the 64 bytes that follow `mark`.
///
/// The digest is computed with [`UNSEALED`] in those 64 bytes, whatever they hold.
/// Returns `None` and changes nothing unless the range `within` lies in `bytes` and contains `mark`
/// exactly once, followed by 64 bytes.
///
/// # Panics
///
/// Panics if `mark` is empty.
#[must_use]
pub fn seal(bytes: &mut [u8], within: Range<usize>, mark: &[u8]) -> Option<()> {
    let place = place(bytes, within, mark)?;
    let digest = around(bytes, &place);
    bytes[place].copy_from_slice(digest.as_bytes());
    Some(())
}

/// Returns the 64 bytes after `mark` as text, and the digest that [`seal`] would write there. The
/// two are equal if `bytes` is unaltered since it was sealed.
///
/// Returns `None` unless the range `within` lies in `bytes` and contains `mark` exactly once,
/// followed by 64 bytes.
///
/// # Panics
///
/// Panics if `mark` is empty.
pub fn sealed(bytes: &[u8], within: Range<usize>, mark: &[u8]) -> Option<[String; 2]> {
    let place = place(bytes, within, mark)?;
    let found = around(bytes, &place);
    Some([String::from_utf8_lossy(&bytes[place]).into_owned(), found])
}

/// The SHA-256 of a file, and what [`sealed`] returns for its bytes. The file is read in pieces.
///
/// `head` is the first part of the file, and contains the range `within`.
///
/// # Errors
///
/// A path that is no regular file; a file that cannot be read, or that grows while it is read.
///
/// # Panics
///
/// Panics if `mark` is empty.
pub fn sealed_file(
    path: &Path,
    head: &[u8],
    within: Range<usize>,
    mark: &[u8],
) -> Result<(String, Option<[String; 2]>)> {
    let place = place(head, within, mark);
    let (mut whole, mut around, mut start) = (Sha256::new(), Sha256::new(), 0);
    regular::visit(path, Length::Any, "read", |piece| {
        whole.update(piece);
        if let Some(place) = &place {
            let [from, to] =
                [place.start, place.end].map(|at| at.clamp(start, start + piece.len()));
            around.update(&piece[..from - start]);
            around.update(&UNSEALED[..to - from]);
            around.update(&piece[to - start..]);
        }
        start += piece.len();
    })?;
    let written = |place| String::from_utf8_lossy(&head[place]).into_owned();
    let sealed = place.map(|place| [written(place), hexadecimal(around.finalize())]);
    Ok((hexadecimal(whole.finalize()), sealed))
}

/// The range of the 64 bytes after `mark`; `None` unless `within` contains the mark exactly once
/// and these 64 bytes.
fn place(bytes: &[u8], within: Range<usize>, mark: &[u8]) -> Option<Range<usize>> {
    let searched = bytes.get(within.clone())?;
    let mut marks = searched.windows(mark.len()).enumerate().filter(|(_, window)| *window == mark);
    let ((at, _), None) = (marks.next()?, marks.next()) else { return None };
    let start = within.start + at + mark.len();
    let place = start..start + UNSEALED.len();
    (place.end <= within.end).then_some(place)
}

/// The SHA-256 of the bytes with [`UNSEALED`] in `place`, the range of the digest.
fn around(bytes: &[u8], place: &Range<usize>) -> String {
    let mut hash = Sha256::new();
    hash.update(&bytes[..place.start]);
    hash.update(UNSEALED);
    hash.update(&bytes[place.end..]);
    hexadecimal(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of [`sealed`] for a text with the mark `is `: the digest in it, and the right one.
    fn held(text: &str) -> Option<[String; 2]> {
        sealed(text.as_bytes(), 0..text.len(), b"is ")
    }

    #[test]
    fn what_is_sealed_holds_the_digest_of_the_rest() {
        let text = format!("it is {UNSEALED}, and so on");
        let mut bytes = text.clone().into_bytes();
        seal(&mut bytes, 0..text.len(), b"is ").unwrap();
        let whole = String::from_utf8(bytes).unwrap();
        let digest = sha256(text.as_bytes());
        assert_eq!(whole, text.replace(UNSEALED, &digest));
        assert_eq!(held(&whole), Some([digest.clone(), digest.clone()]));
        for other in [whole.replace("so", "SO"), whole.clone() + " ", whole.replace("it", "itt")] {
            let [written, found] = held(&other).unwrap();
            assert!(written == digest && found != digest, "{other}");
        }
    }

    #[test]
    fn a_file_in_pieces_has_the_digests_of_its_bytes() {
        let directory = std::env::temp_dir().join(format!("burn-ema-base-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        // The digest lies in one piece of the file, across two, and nowhere.
        for (before, mark) in [(100, "is "), ((1 << 16) - 20, "is "), (100, "was ")] {
            let text = format!("{}is {UNSEALED}{}", "a".repeat(before), "b".repeat(1 << 17));
            let mut bytes = text.into_bytes();
            let within = before..before + 67;
            seal(&mut bytes, within.clone(), b"is ").unwrap();
            let path = directory.join(before.to_string() + mark);
            std::fs::write(&path, &bytes).unwrap();
            let head = &bytes[..before + 80];
            let found = sealed_file(&path, head, within.clone(), mark.as_bytes()).unwrap();
            let expected = (sha256(&bytes), sealed(&bytes, within, mark.as_bytes()));
            assert_eq!(found, expected, "{before}");
            assert_eq!(found.1.is_some(), mark == "is ");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn without_one_place_for_it_there_is_no_digest() {
        let digits = UNSEALED;
        for text in
            [digits.into(), format!("is {}", &digits[1..]), format!("is {digits}, is {digits}")]
        {
            let mut bytes = text.clone().into_bytes();
            assert_eq!(seal(&mut bytes, 0..text.len(), b"is "), None);
            assert_eq!(bytes, text.as_bytes());
            assert_eq!(held(&text), None);
        }
        // Neither the mark nor the digits may lie outside of where they are searched.
        let text = format!("is {digits} and more");
        for within in [1..text.len(), 0..66, 0..text.len() + 1] {
            assert_eq!(sealed(text.as_bytes(), within, b"is "), None);
        }
        assert!(sealed(text.as_bytes(), 0..67, b"is ").is_some());
    }
}
