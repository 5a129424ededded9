//! Digests as text, and bytes that hold their own.

use std::ops::Range;

use sha2::{Digest, Sha256};

/// The SHA-256 of bytes, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(Sha256::digest(bytes))
}

/// The digits of a digest.
pub fn hexadecimal(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The placeholder for a digest while it is computed.
pub const UNSEALED: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Writes the SHA-256 of all the bytes over the [`UNSEALED`] placeholder that follows `mark`.
///
/// The mark is searched in the range `within`. The digest is that of the bytes with the
/// placeholder. `None`, and nothing changes, unless the range is within the bytes, and has the mark
/// exactly once and 64 bytes after it.
///
/// # Panics
///
/// An empty mark.
#[must_use]
pub fn seal(bytes: &mut [u8], within: Range<usize>, mark: &[u8]) -> Option<()> {
    let place = place(bytes, within, mark)?;
    let digest = around(bytes, &place);
    bytes[place].copy_from_slice(digest.as_bytes());
    Some(())
}

/// The digest that the bytes hold after a mark, and the one that they ought to hold.
///
/// None where the mark is not there, or is there twice.
pub fn sealed(bytes: &[u8], within: Range<usize>, mark: &[u8]) -> Option<[String; 2]> {
    let place = place(bytes, within, mark)?;
    let found = around(bytes, &place);
    Some([String::from_utf8_lossy(&bytes[place]).into_owned(), found])
}

/// The range of the 64 digits after `mark`; `None` unless the range `within` has the mark once, and
/// the digits too.
fn place(bytes: &[u8], within: Range<usize>, mark: &[u8]) -> Option<Range<usize>> {
    let searched = bytes.get(within.clone())?;
    let mut marks = searched.windows(mark.len()).enumerate().filter(|(_, window)| *window == mark);
    let ((at, _), None) = (marks.next()?, marks.next()) else { return None };
    let start = within.start + at + mark.len();
    let place = start..start + UNSEALED.len();
    (place.end <= within.end).then_some(place)
}

/// The SHA-256 of the bytes with [`UNSEALED`] in `place`, the range of the digest that they hold.
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

    /// What [`sealed`] returns for a text with the mark `is `: the digest in it, and the right one.
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
