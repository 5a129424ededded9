//! Files of the wrong kind that are often given by mistake, recognized by their first bytes.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    path::Path,
};

use crate::{Error, Result, regular};

/// The number of first bytes that show the kind of a file, and the number of further bytes that are
/// read of an index of shards.
const HEAD: u64 = 512;
const INDEX: u64 = 16 << 20;

/// The [description](describe) of a file. Reads 512 bytes of the file, and 16 MiB more if its text
/// begins with `{`. `None` under the conditions of [`describe`].
///
/// # Errors
///
/// A path that is no regular file; a file that cannot be read.
pub fn describe_file(path: &Path) -> Result<Option<String>> {
    let broken = |error: io::Error| Error::file("read", path, error);
    let mut bytes = Vec::new();
    let (file, _) = regular::open(path).map_err(broken)?;
    (&file).take(HEAD).read_to_end(&mut bytes).map_err(broken)?;
    if start_of_text(&bytes).starts_with(b"{") {
        (&file).take(INDEX).read_to_end(&mut bytes).map_err(broken)?;
    }
    Ok(describe(&bytes))
}

/// Describes a file that is neither weights nor a table, and how to proceed, by its first bytes.
///
/// Recognizes Git LFS pointers, web pages, indices of models in several files, other JSON and XML,
/// and formats with a magic number, such as gzip. Returns `None` for any other file.
///
/// PyTorch's files are zip archives and are described as such, so a caller that can read them must
/// check for them first.
pub fn describe(bytes: &[u8]) -> Option<String> {
    // A safetensors file begins with a length, whose bytes may equal the magic number of a format.
    if bytes.get(4..9) == Some(b"\0\0\0\0{") {
        return None;
    }
    if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        let way_on = "`git lfs pull` fetches the file itself";
        return Some(format!("a Git LFS pointer in place of the file: {way_on}"));
    }
    if let Some((_, what)) = FORMATS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some((*what).to_owned());
    }
    let text = start_of_text(bytes);
    if is_web_page(text) {
        let way_on = "download the file itself, which may need a login";
        return Some(format!("a web page: {way_on}"));
    }
    if text.starts_with(b"<?xml") {
        return Some("an XML text, perhaps an error of a server in place of the file".to_owned());
    }
    let Some(shards) = shards(text) else { return is_json(text).then(|| "a JSON text".to_owned()) };
    let named: Vec<_> = shards.iter().take(8).map(String::as_str).collect();
    let more = if shards.len() > named.len() { ", ..." } else { "" };
    let way_on = "join these files into one first";
    Some(format!("the index of a model in shards: {way_on}: {}{more}", named.join(", ")))
}

/// Magic numbers of formats, each with a description of the format and how to proceed.
const FORMATS: [(&[u8], &str); 13] = [
    (b"\x1f\x8b\x08", "a gzip file: unpack it first (`gunzip`)"),
    (b"BZh", "a bzip2 file: unpack it first (`bunzip2`)"),
    (b"\xfd7zXZ\0", "an xz file: unpack it first (`unxz`)"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file: unpack it first (`unzstd`)"),
    (b"PK\x03\x04", "a zip archive, as those of Excel (.xlsx) are too: unpack or export it first"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old file of Microsoft Office: export it first"),
    (b"PAR1", "a Parquet file: export it first"),
    (b"GGUF", "a GGUF file: convert it to safetensors first"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file: convert it first"),
    (b"\x93NUMPY", "an array of NumPy: convert it first"),
    (b"%PDF-", "a PDF document"),
    (b"\xff\xfe", "text in UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16: save it as UTF-8"),
];

/// The bytes after a byte-order mark and white space.
fn start_of_text(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start()
}

fn is_web_page(text: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&text[..text.len().min(512)]).to_ascii_lowercase();
    let begins = |beginnings: &[&str]| beginnings.iter().any(|it| head.starts_with(it));
    begins(&["<!doctype html", "<html", "<head", "<body"])
        || (begins(&["<?xml", "<!--", "<!doctype"]) && head.contains("<html"))
}

/// True for text that begins like a JSON object or a list of objects.
fn is_json(text: &[u8]) -> bool {
    let list = text.strip_prefix(b"[").map_or(text, <[u8]>::trim_ascii_start);
    let inside = list.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    inside.is_some_and(|inside| inside.starts_with(b"\"") || inside.starts_with(b"}"))
}

/// The files that an index of shards names: `{"metadata": {...}, "weight_map": {NAME: FILE, ...}}`.
/// `None` for text that is not such an index.
fn shards(text: &[u8]) -> Option<BTreeSet<String>> {
    let inside = text.strip_prefix(b"{")?.trim_ascii_start();
    if !inside.starts_with(b"\"") {
        return None;
    }
    let text = String::from_utf8_lossy(inside);
    if !text.contains("\"weight_map\"") {
        return None;
    }
    let is_file = |text: &&str| {
        [".safetensors", ".bin", ".pt", ".pth"].iter().any(|ending| text.ends_with(ending))
    };
    // The strings contain no escaped quotation marks, so that every other piece is a string.
    let texts = text.split('"').skip(1).step_by(2);
    Some(texts.filter(is_file).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(bytes: &[u8], expected: &str) {
        let found = describe(bytes);
        assert!(found.as_ref().is_some_and(|found| found.starts_with(expected)), "{found:?}");
    }

    #[test]
    fn files_that_are_given_in_place_of_others() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        is(pointer, "a Git LFS pointer");
        for page in [
            "<!DOCTYPE html><html lang=\"en\">",
            "<!doctype HTML>\n",
            "\n\n  <html>",
            "\u{feff}<HTML>",
            "<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC>\n<html xmlns=\"\">",
            "<!-- saved --><html>",
            "<head><title>Sign in</title>",
        ] {
            is(page.as_bytes(), "a web page");
        }
        is(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1], "a gzip file");
        is(&[0x1f, 0x8b, 8, 8, 1, 2, 3, 4, 2, 255], "a gzip file");
        is(b"<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code></Error>", "an XML text");
        for json in ["{\"error\": \"Entry not found\"}", "[{\n \"x\": 1}]", "{ }"] {
            is(json.as_bytes(), "a JSON text");
        }
        is(b"BZh91AY&SY", "a bzip2 file");
        is(b"PK\x03\x04\x14\0\x06\0", "a zip archive");
        is(b"GGUF\x03\0\0\0", "a GGUF file");
        is(b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file");
        is(b"PAR1\x15\x04", "a Parquet file");
        is(b"\xff\xfea\0,\0", "text in UTF-16");
    }

    #[test]
    fn an_index_names_its_shards() {
        let index = r#"{"metadata": {"total_size": 9}, "weight_map": {
            "model.embed.weight": "model-00001-of-00002.safetensors",
            "model.norm.weight": "model-00002-of-00002.safetensors",
            "head.weight": "model-00002-of-00002.safetensors"}}"#;
        let named = "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors";
        let start = "the index of a model in shards: join these files into one first: ";
        assert_eq!(describe(index.as_bytes()), Some(format!("{start}{named}")));
        // Of `torch.save`, without metadata.
        let index = "{\n\"weight_map\":{\"a\":\"pytorch_model-00001-of-00001.bin\"}}";
        assert_eq!(
            describe(index.as_bytes()),
            Some(format!("{start}pytorch_model-00001-of-00001.bin"))
        );
        let many: Vec<_> = (0..30).map(|i| format!("\"t{i}\":\"s-{i:02}.safetensors\"")).collect();
        let index = format!("{{\"weight_map\":{{{}}}}}", many.join(","));
        assert!(describe(index.as_bytes()).unwrap().ends_with("s-07.safetensors, ..."));
    }

    #[test]
    fn what_is_a_table_or_weights_is_neither() {
        // The header of safetensors of a length like the first bytes of gzip, and of a brace.
        let like_gzip = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0], &b"{\"w\":"[..]].concat();
        let like_json = [&[b'{', b'"', 0, 0, 0, 0, 0, 0], &b"{\"weight_map\":"[..]].concat();
        for bytes in [
            &b""[..],
            b"a,b\n1,2\n",
            b"html,body\n1,2\n",
            b"<5,>5\n1,2\n",
            b"version,https\n1,2\n",
            b"[1,2]\n",
            b"{a},b\n",
            b"NRUB\x01\0",
            &[0x80, 2, b'}'],
            &like_gzip,
            &like_json,
        ] {
            assert_eq!(describe(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
