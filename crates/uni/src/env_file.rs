//! Files of environment variables: one `KEY=VALUE` a line, blank lines and `#` lines skipped.
//!
//! Owns the lines. Never shows one in a message, for it may be a secret; what a name may be is for the daemon to say.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};

/// The longest file read; the daemon takes less than this.
const MAX_BYTES: u64 = 1024 * 1024;

/// The entries of a file, in its order.
///
/// # Errors
/// A file that cannot be read, is too long or holds a line that is no entry, by number.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<String>> {
    let mut bytes = Vec::new();
    let reading = || format!("environment file {}", path.display());
    File::open(path)
        .with_context(reading)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(reading)?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("{}: it is longer than {MAX_BYTES} bytes", reading());
    }
    let text = String::from_utf8(bytes).ok().context("it is not UTF-8 text").with_context(reading)?;
    entries(&text).with_context(reading)
}

fn entries(text: &str) -> anyhow::Result<Vec<String>> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.contains('=') {
            bail!("line {} is neither KEY=VALUE nor a comment", index + 1);
        }
        entries.push(line.to_owned());
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_and_comments_are_skipped_and_values_left_alone() {
        let text = "# comment\n\nA=1\r\n  B = x # y \n \t\nC=\n  # D=2";
        assert_eq!(entries(text).unwrap(), ["A=1", "B = x # y ", "C="]);
    }

    #[test]
    fn a_line_without_a_value_is_named_by_number_and_not_shown() {
        let error = format!("{:#}", entries("A=1\nhunter2\n").unwrap_err());
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn files_that_are_missing_too_long_or_no_text_are_refused_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        let refusal = || format!("{:#}", read(&path).unwrap_err());
        assert!(refusal().contains("env: No such file"), "{}", refusal());
        std::fs::write(&path, b"A=\xff\n").unwrap();
        assert!(refusal().contains("not UTF-8"), "{}", refusal());
        std::fs::write(&path, vec![b'\n'; 1024 * 1024 + 1]).unwrap();
        assert!(refusal().contains("longer than"), "{}", refusal());
    }
}
