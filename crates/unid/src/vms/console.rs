//! Reading a VM's console as text, from where a client left off.
//!
//! Owns the cut at UTF-8 boundaries and before unfinished lines of a stack trace. The bytes are kept by the shim;
//! nothing here writes.

use std::path::Path;

use anyhow::Context as _;
use uni_vmm::console::{CONSOLE, Piece, Reader};
use uni_vmm::shim::runs::{self, Which};
use uni_vmm::trace;

/// The most console bytes in one piece; who wants more asks for the next piece.
const MAX_BYTES: usize = 1024 * 1024;
/// The longest tail: there is no next piece to ask for.
pub(crate) const MAX_TAIL_BYTES: u64 = 4 * 1024 * 1024;

/// Which part of a console is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// From this byte on; wins over `tail_bytes`.
    pub(super) from: Option<u64>,
    /// From so many bytes before the end on.
    pub(super) tail_bytes: Option<u64>,
    /// Nothing but this run's.
    pub(super) run: Option<Which>,
}

/// A piece of console.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) from: u64,
    pub(super) next: u64,
    /// Bytes between the place asked for and `from` that are no longer kept.
    pub(super) missed_bytes: u64,
    /// The run asked for; 0 when none was.
    pub(super) run: u64,
    /// Nothing will follow `next`.
    pub(super) ended: bool,
}

/// The piece that is `wanted`, as far as one answer may be long; `down` says that nothing more will be written.
///
/// # Errors
/// When the files cannot be read, or there is no such run.
pub(super) fn wanted(dir: &Path, wanted: Wanted, down: bool) -> anyhow::Result<Text> {
    let run = wanted.run.map(|which| runs::find(dir, which)).transpose()?;
    let (first, last) = run.map_or((0, None), |run| (run.start, run.end));
    let asked = match (wanted.from, wanted.tail_bytes) {
        (Some(from), _) => from.max(first),
        (None, Some(bytes)) => last.unwrap_or_else(|| end(dir)).saturating_sub(bytes).max(first),
        (None, None) => first,
    };
    let mut piece = Reader::read_from(dir, CONSOLE, asked, MAX_BYTES).context("read the console")?;
    if let Some(last) = last {
        cut(&mut piece, last);
    }
    let ended = (down || last.is_some()) && piece.next_offset >= last.unwrap_or_else(|| end(dir));
    // who asks for the earliest there is misses nothing
    let asked_for_it = wanted.from.is_some() || run.is_some();
    let missed_bytes = if asked_for_it { piece.offset.saturating_sub(asked) } else { 0 };
    let text = text(&piece, ended);
    Ok(Text { missed_bytes, run: run.map_or(0, |run| run.number), ended, ..text })
}

/// Takes away what lies at or after `last`.
fn cut(piece: &mut Piece, last: u64) {
    piece.offset = piece.offset.min(last);
    piece.next_offset = piece.next_offset.min(last);
    let kept = usize::try_from(piece.next_offset - piece.offset).unwrap_or(usize::MAX);
    piece.bytes.truncate(kept);
}

/// The console from byte `from` on; `whole` says that nothing will follow, so what is torn is shown as it is.
///
/// # Errors
/// When the files cannot be read.
pub(super) fn read(dir: &Path, from: u64, max: u64, whole: bool) -> anyhow::Result<Text> {
    let max = usize::try_from(max).unwrap_or(MAX_BYTES).min(MAX_BYTES);
    let piece = Reader::read_from(dir, CONSOLE, from, max).context("read the console")?;
    // a piece as long as may be is not known to be the last
    let last = piece.bytes.len() < max;
    Ok(text(&piece, whole && last))
}

/// The last `max` bytes of the console; `whole` as in [`read`].
///
/// # Errors
/// When the files cannot be read.
pub(super) fn tail(dir: &Path, max: u64, whole: bool) -> anyhow::Result<Text> {
    let max = usize::try_from(max.min(MAX_TAIL_BYTES)).unwrap_or(MAX_BYTES);
    let piece = Reader::tail(dir, CONSOLE, max).context("read the console")?;
    Ok(text(&piece, whole))
}

/// Where the console ends now; 0 when it cannot be read.
pub(super) fn end(dir: &Path) -> u64 {
    Reader::tail(dir, CONSOLE, 0).map_or(0, |piece| piece.next_offset)
}

fn text(piece: &Piece, whole: bool) -> Text {
    let used = if whole { piece.bytes.len() } else { settled(&piece.bytes) };
    let text = String::from_utf8_lossy(&piece.bytes[..used]).into_owned();
    Text { text, from: piece.offset, next: piece.offset + used as u64, ..Text::default() }
}

/// How many bytes can be shown before it is known what follows.
fn settled(bytes: &[u8]) -> usize {
    let characters = complete(bytes);
    trace::unfinished_from(&bytes[..characters])
}

/// How many bytes are left when a character that has only begun is left out. Only the last three are looked
/// at: a guest may print anything, and much of it.
fn complete(bytes: &[u8]) -> usize {
    let is_begin = |at: &usize| bytes[*at] & 0xc0 != 0x80;
    let last_begin = (bytes.len().saturating_sub(3)..bytes.len()).rev().find(is_begin);
    let torn =
        |at: &usize| std::str::from_utf8(&bytes[*at..]).is_err_and(|error| error.error_len().is_none());
    last_begin.filter(torn).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_has_only_begun_waits_for_its_rest() {
        let euro = "a€".as_bytes();
        assert_eq!(complete(euro), 4);
        assert_eq!(complete(&euro[..3]), 1);
        assert_eq!(complete(&[0xff, b'a', 0xe2]), 2);
        assert_eq!(complete("\u{1f600}".as_bytes().split_at(3).0), 0);
        assert_eq!((complete(b""), complete(&[0x80; 9]), complete(&[0xff; 9])), (0, 9, 9));
        let piece = Piece { bytes: euro[..3].to_vec(), offset: 10, ..Piece::default() };
        assert_eq!(text(&piece, true).text, "a\u{fffd}");
        assert_eq!(text(&piece, false).next, 11);
    }

    #[test]
    fn a_line_of_a_trace_that_has_only_begun_waits_for_its_rest() {
        let piece = Piece { bytes: b"PANIC\nstack 0x10".to_vec(), offset: 10, ..Piece::default() };
        assert_eq!((text(&piece, false).text.as_str(), text(&piece, false).next), ("PANIC\n", 16));
        assert_eq!(text(&piece, true).next, 26);
    }

    #[test]
    fn of_an_ended_console_the_last_piece_alone_is_shown_torn() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = uni_vmm::console::Writer::open(dir.path(), CONSOLE, 4096).unwrap();
        writer.append(b"a\nstack 0x10\nstack 0x2");
        let read = |from, max| read(dir.path(), from, max, true).unwrap();
        assert_eq!(read(0, 8).text, "a\n");
        assert_eq!(read(2, 100).text, "stack 0x10\nstack 0x2");
        assert_eq!(tail(dir.path(), 9, false).unwrap().text, "");
        assert_eq!(tail(dir.path(), 9, true).unwrap().text, "stack 0x2");
    }

    #[test]
    fn a_run_is_shown_alone_and_what_is_dropped_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        std::fs::write(
            dir.join("console.runs"),
            r#"[{"number":1,"console_offset":0,"started_unix_ns":1},{"number":2,"console_offset":6,"started_unix_ns":2}]"#,
        )
        .unwrap();
        std::fs::write(dir.join("console.00000000000000000002.log"), "rst\nsecond\n").unwrap();
        let show = |run: &str, from: Option<u64>, down: bool| {
            let run = (!run.is_empty()).then(|| run.parse().unwrap());
            let text = wanted(dir, Wanted { from, tail_bytes: None, run }, down).unwrap();
            (text.text, text.missed_bytes, text.run, text.ended)
        };
        assert_eq!(show("1", None, false), ("rst\n".to_owned(), 2, 1, true));
        assert_eq!(show("previous", Some(4), false), ("t\n".to_owned(), 0, 1, true));
        assert_eq!(show("last", None, false), ("second\n".to_owned(), 0, 2, false));
        assert_eq!(show("2", Some(13), true), (String::new(), 0, 2, true));
        assert_eq!(show("", None, true), ("rst\nsecond\n".to_owned(), 0, 0, true));
        assert_eq!(show("", Some(0), false).1, 2);
        let last = wanted(dir, Wanted { tail_bytes: Some(3), ..Wanted::default() }, true).unwrap();
        assert_eq!((&*last.text, last.missed_bytes), ("nd\n", 0));
        let gone = wanted(dir, Wanted { run: Some(Which::Number(9)), ..Wanted::default() }, true);
        assert!(gone.unwrap_err().to_string().contains("runs 1 to 2"));
    }
}
