//! The text of a table's file: unpacked and checked to be UTF-8. For a file of another kind, the
//! error names the kind.

use std::io::Read;
use std::path::Path;

use burn_ema_base::foreign;
use flate2::read::MultiGzDecoder;

use crate::{Error, Result};

/// The first bytes of a gzip file.
const GZIP: &[u8] = b"\x1f\x8b";

/// The text in a file, which may be compressed by gzip.
pub(super) fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|error| Error::file("read", path, error))?;
    text(path, bytes)
}

/// The text in the content of a file, which may be compressed by gzip; the path is only for errors.
pub(super) fn text(path: &Path, mut bytes: Vec<u8>) -> Result<String> {
    if bytes.starts_with(GZIP) {
        let mut unpacked = Vec::new();
        let read = MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked);
        read.map_err(|error| Error::file("decompress", path, error))?;
        bytes = unpacked;
    }
    if let Some(kind) = other_kind(&bytes) {
        return Err(Error::table(path, "the file", "a table as CSV", kind));
    }
    match String::from_utf8(bytes) {
        // Some programs write a byte order mark first.
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(error) => {
            let (good, bad) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
            let row = format!("row {}", row_ends(good) + 1);
            let found = format!("the byte 0x{:02X}; save it as UTF-8", bad[0]);
            Err(Error::table(path, row, "UTF-8 text", found))
        }
    }
}

/// The kind of a file that is no table, by its first bytes, with what to do about it. `None` for a
/// file that may be a table.
fn other_kind(bytes: &[u8]) -> Option<String> {
    match bytes.starts_with(GZIP) {
        true => Some("a file that gzip has packed twice: unpack it once (`gunzip`)".to_owned()),
        false => foreign::describe(bytes),
    }
}

/// The number of rows that end in a text: at `\n`, `\r\n` or a lone `\r`.
pub(super) fn row_ends(text: &[u8]) -> usize {
    let ends = |(i, byte): (usize, &u8)| match byte {
        b'\n' => true,
        b'\r' => text.get(i + 1) != Some(&b'\n'),
        _ => false,
    };
    text.iter().enumerate().filter(|&item| ends(item)).count()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn parse(bytes: &[u8]) -> Result<String> {
        text(Path::new("t.csv"), bytes.to_vec())
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_is_known_by_its_first_bytes() {
        assert_eq!(parse(b"a,b\n").unwrap(), "a,b\n");
        assert_eq!(parse(&packed("\u{feff}a,b\n".as_bytes())).unwrap(), "a,b\n");
        // Two members, as `cat a.gz b.gz` makes them.
        let members = [packed(b"a,b\n"), packed(b"1,2\n")].concat();
        assert_eq!(parse(&members).unwrap(), "a,b\n1,2\n");
        let cut = &packed(b"a,b\n1,2\n")[..20];
        let error = parse(cut).unwrap_err().to_string();
        assert_eq!(error, "cannot decompress t.csv");
    }

    #[test]
    fn what_is_no_table_is_called_by_its_name() {
        for (bytes, name) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"[..], "a Git LFS"),
            (b"\n<!DOCTYPE html>\n<html>", "a web page"),
            (b"<html lang=\"en\">", "a web page"),
            (b"PK\x03\x04\x14\0", "a zip archive"),
            (b"PAR1\x15", "a Parquet file"),
            (b"\xff\xfea\0", "text in UTF-16"),
            (b"[{\"x\": 1}]", "a JSON text"),
            (b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<html xmlns=\"\">", "a web page"),
            (b"<head><title>Sign in</title>", "a web page"),
            (b"<?xml version=\"1.0\"?>\n<Error>", "an XML text"),
            (b"BZh91AY&SY", "a bzip2 file: unpack it first"),
            (b"\xfd7zXZ\0\0", "an xz file: unpack it first"),
            (b"\x28\xb5\x2f\xfd\x04", "a Zstandard file: unpack it first"),
            (b"{\"weight_map\": {\"w\": \"a.safetensors\"}}", "the index of a model in shards"),
            (&packed(b"\n<!doctype html>"), "a web page"),
            (&packed(&packed(b"a,b\n")), "a file that gzip has packed twice"),
        ] {
            let error = parse(bytes).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!(
                    "t.csv: the file: expected a table as CSV, found {name}"
                )),
                "{error}"
            );
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_with_its_row() {
        let error = parse(b"a,b\n1,caf\xe9\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "t.csv: row 2: expected UTF-8 text, found the byte 0xE9; save it as UTF-8"
        );
    }
}
