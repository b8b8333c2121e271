//! The files of heap traces: `<state>/traces/<VM's id>/<start>.ctf`.
//!
//! Owns their names, which are checked before they become paths, their mode (0600), and how many are kept.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use uni_wire::Timestamp;

/// Traces of one VM that are kept.
pub(super) const MAX_KEPT: usize = 8;
const EXTENSION: &str = "ctf";
/// What names look like: `d` is a digit.
const PATTERN: &str = "ddddddddTdddddd.dddZ";

/// The name of a trace that is begun at `time`.
pub(super) fn name_of(time: Timestamp) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(i128::from(time.nanos())).ok()?;
    let name = time.strftime("%Y%m%dT%H%M%S%.3fZ").to_string();
    is_name(&name).then_some(name)
}

/// Whether it is the name of a trace, and so no way out of the directory.
pub(super) fn is_name(text: &str) -> bool {
    text.len() == PATTERN.len()
        && text.bytes().zip(PATTERN.bytes()).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            wanted => byte == wanted,
        })
}

/// When a trace was begun, milliseconds since the Unix epoch; 0 if its name is no time.
pub(super) fn started_ms(name: &str) -> i64 {
    let parsed = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S%.fZ", name);
    let time = parsed.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC));
    time.map_or(0, |time| time.timestamp().as_millisecond())
}

fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(name).with_added_extension(EXTENSION)
}

/// A new trace's file; the oldest ones make room.
///
/// # Errors
/// When it cannot be made, or there is one.
pub(super) fn create(dir: &Path, name: &str) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let kept = list(dir)?;
    let too_many = (kept.len() + 1).saturating_sub(MAX_KEPT);
    for (oldest, _) in kept.iter().take(too_many) {
        std::fs::remove_file(path(dir, oldest))?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path(dir, name))
}

/// Names and sizes, the oldest first. What has no such name is none of ours.
///
/// # Errors
/// When the directory cannot be read; that there is none is no error.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut kept = Vec::new();
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".ctf")).filter(|name| is_name(name));
        if let Some(name) = name {
            kept.push((name.to_owned(), entry.metadata()?.len()));
        }
    }
    kept.sort();
    Ok(kept)
}

/// Opens a trace for reading.
///
/// # Errors
/// When it cannot be; `NotFound` also for what is no name.
pub(super) fn open(dir: &Path, name: &str) -> io::Result<File> {
    if !is_name(name) {
        return Err(io::ErrorKind::NotFound.into());
    }
    OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path(dir, name))
}

/// Up to `max` bytes from `from` on.
///
/// # Errors
/// As [`open`].
pub(super) fn read(dir: &Path, name: &str, from: u64, max: u64) -> io::Result<Vec<u8>> {
    let mut file = open(dir, name)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_times_and_nothing_else_is_a_name() {
        let time = Timestamp(1_700_000_000_123_000_000);
        let name = name_of(time).unwrap();
        assert_eq!(name, "20231114T221320.123Z");
        assert_eq!(started_ms(&name), 1_700_000_000_123);
        for bad in
            ["", "..", "../../x", "20231114T221320.123", "20231114T221320/123Z", "2023111eT221320.123Z"]
        {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn of_too_many_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("traces/1");
        for second in 0..10_i64 {
            let name = name_of(Timestamp::from_seconds(second)).unwrap();
            create(&dir, &name).unwrap();
            assert!(create(&dir, &name).is_err(), "the same again");
        }
        std::fs::write(dir.join("notes.txt"), "").unwrap();
        let kept = list(&dir).unwrap();
        assert!(kept.len() <= MAX_KEPT && kept.last().unwrap().0 == "19700101T000009.000Z", "{kept:?}");
        assert!(open(&dir, "../1/19700101T000009.000Z").is_err());
    }
}
