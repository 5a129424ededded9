//! A standard output that may be closed, as after `| head`: the rest is dropped, and the program
//! goes on to its end.

#![allow(dead_code, unused_macros)] // each example uses some

use std::{
    io::{ErrorKind, Result, Write, stdout},
    path::Path,
};

/// A path as a word of a shell, to copy.
pub fn word(path: &Path) -> String {
    let path = path.display().to_string();
    let harmless = |c: char| c.is_alphanumeric() || "/._-=+,:@".contains(c);
    match path.chars().all(harmless) {
        true => path,
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

/// The character between the cells of a CSV, as an option names it.
pub fn delimiter(text: &str) -> std::result::Result<char, String> {
    match text {
        "tab" | r"\t" => Ok('\t'),
        "space" => Ok(' '),
        _ => match text.chars().collect::<Vec<_>>()[..] {
            [one] if one.is_ascii() && !"\"\r\n".contains(one) => Ok(one),
            _ => Err("expected one ASCII character that is no quotation mark, tab or space".into()),
        },
    }
}

/// The standard output, for as long as someone reads it.
pub struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match stdout().write(bytes) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> Result<()> {
        match stdout().flush() {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}

/// The standard library's panics where nobody reads.
macro_rules! print {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!($crate::shared::Out, $($text)*);
    }};
}

/// The standard library's panics where nobody reads.
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!($crate::shared::Out, $($text)*);
    }};
}
