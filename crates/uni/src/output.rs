//! Stdout. Owns writing to it, and telling "nobody reads any more" from an error.

use std::io::{self, Write as _};

use serde::Serialize;

/// Writing to stdout failed.
#[derive(Debug, thiserror::Error)]
#[error("writing the output")]
struct StdoutError(#[source] io::Error);

/// Writes text as it is, at once.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    bytes(text.as_bytes())
}

/// Writes bytes as they are, at once.
pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    Ok(stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(StdoutError)?)
}

/// Writes one value, indented by two spaces.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Writes one value on one line.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    text(&(serde_json::to_string(value)? + "\n"))
}

/// Whether the error is that the reader of stdout has gone, as `head` does.
pub(crate) fn reader_left(error: &anyhow::Error) -> bool {
    error.downcast_ref::<StdoutError>().is_some_and(|error| error.0.kind() == io::ErrorKind::BrokenPipe)
}
