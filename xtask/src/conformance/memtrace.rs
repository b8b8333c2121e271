//! Recorded heap traces against Uni's reader and writer.
//!
//! Owns the forms beside a trace: the text dump that the original's tool made of it, and the script of which the
//! original's writer made it. Each trace read, and each script written again, is a case.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use uni_wire::memtrace::{
    Alloc, Allocation, Busy, Decoder, DomainWriter, Fault, FaultKind, Info, Item, Locate, Mode, Position,
    Source, Version, Writer,
};

use super::Tally;

/// Frames of the last backtrace that the writer keeps: deeper than any program recurses.
const DEPTH: usize = 1 << 20;
/// Where a header has the format's version.
const VERSION_AT: std::ops::Range<usize> = 28..30;

/// Replays what is in `folder` and tells `failed` of each case that is not right.
pub(super) fn replay(folder: &Path, mut failed: impl FnMut(&str, &str)) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for path in files(folder)? {
        let outcome = match path.extension().and_then(|extension| extension.to_str()) {
            Some("ctf") => check_dump(&path),
            Some("script") => check_script(&path),
            _ => continue,
        };
        match outcome {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                tally.failed += 1;
                failed(&path.file_name().unwrap_or_default().to_string_lossy(), &format!("{error:#}"));
            }
        }
    }
    ensure!(tally != Tally::default(), "no heap trace in {}", folder.display());
    Ok(tally)
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// Both modes, and any cutting of the input, give the text of the original's tool. Of what that leaves out (a cut packet,
/// packets of another process) the lenient mode may read more.
fn check_dump(path: &Path) -> anyhow::Result<()> {
    let trace = read(path)?;
    let expected = read(&path.with_extension("txt"))?;
    let (text, left_out) = dump(&trace, Mode::Strict, usize::MAX).context("strict")?;
    same_lines(&text, &expected).context("strict")?;
    if left_out {
        return Ok(());
    }
    let (text, _) = dump(&trace, Mode::Lenient, 997).context("lenient")?;
    same_lines(&text, &expected).context("lenient")
}

fn same_lines(ours: &[u8], expected: &[u8]) -> anyhow::Result<()> {
    if ours == expected {
        return Ok(());
    }
    let [mut ours, mut theirs] = [ours, expected].map(|text| text.split(|byte| *byte == b'\n'));
    for number in 1.. {
        let pair = (ours.next(), theirs.next());
        if pair.0 != pair.1 {
            let [ours, theirs] = [pair.0, pair.1].map(|line| line.map(String::from_utf8_lossy));
            bail!("line {number} is {ours:?} instead of {theirs:?}");
        }
    }
    Ok(())
}

/// The trace as the original's tool prints it, and whether something was left out as that does.
fn dump(trace: &[u8], mode: Mode, piece: usize) -> anyhow::Result<(Vec<u8>, bool)> {
    let mut decoder = Decoder::new(mode);
    let mut dump = Dump::default();
    for bytes in trace.chunks(piece.min(trace.len().max(1))) {
        decoder.handle_bytes(bytes, |item| dump.item(&item))?;
    }
    decoder.finish(|item| dump.item(&item))?;
    ensure!(dump.faults.is_empty(), "{}", dump.faults);
    Ok((dump.out, dump.left_out))
}

#[derive(Default)]
struct Dump {
    start_micros: u64,
    /// The text of each frame, as it was said first.
    frames: HashMap<u64, Vec<u8>>,
    out: Vec<u8>,
    faults: String,
    left_out: bool,
}

impl Dump {
    fn item(&mut self, item: &Item<'_>) {
        match item {
            Item::Info(info) => self.start_micros = info.start_micros,
            Item::Packet(_) => {}
            Item::Location { code, positions } => {
                self.frames.entry(*code).or_insert_with(|| frame_text(*code, positions));
            }
            Item::Alloc(alloc) => self.alloc(alloc),
            Item::Promote(event) => self.line(event.time_micros, event.id, "promote\n"),
            Item::Collect(event) => self.line(event.time_micros, event.id, "collect\n"),
            Item::Fault(Fault { kind: FaultKind::OtherProcess(_) | FaultKind::CutPacket, .. }) => {
                self.left_out = true;
            }
            Item::Fault(fault) => {
                let _a_string_takes_all = write!(self.faults, "{fault}; ");
            }
        }
    }

    fn line(&mut self, time_micros: u64, id: u64, rest: &str) {
        let time = time_micros.wrapping_sub(self.start_micros).cast_signed();
        self.out.extend(format!("{time:010} {:010} {rest}", id.cast_signed()).into_bytes());
    }

    fn alloc(&mut self, alloc: &Alloc<'_>) {
        let source = match alloc.source {
            Source::Minor => "alloc",
            Source::Major => "alloc_major",
            Source::External => "alloc_ext",
        };
        let (samples, length) = (alloc.samples.cast_signed(), alloc.length_words.cast_signed());
        let prefix = alloc.common_prefix.cast_signed();
        let blank = if prefix < 0 { "" } else { " " };
        let prefix = format!("{blank}{prefix}");
        let rest = format!("{source} {samples} len={length} dom={} {prefix:>4}:", alloc.domain);
        self.line(alloc.time_micros, alloc.id, &rest);
        for code in alloc.backtrace {
            match self.frames.get(code) {
                Some(text) => self.out.extend_from_slice(text),
                None => {
                    let _a_string_takes_all = write!(self.faults, "frame {code:#x} has no location; ");
                }
            }
        }
        self.out.push(b'\n');
    }
}

fn frame_text(code: u64, positions: &[Position<'_>]) -> Vec<u8> {
    if positions.is_empty() {
        return format!(" ${}", code.cast_signed()).into_bytes();
    }
    let mut text = Vec::new();
    for Position { name, file, line, start_column, end_column } in positions {
        text.push(b' ');
        text.extend_from_slice(name);
        text.push(b'@');
        text.extend_from_slice(file);
        text.extend(format!(":{line}:{start_column}-{end_column}").into_bytes());
    }
    text
}

/// The script, written again, gives the trace byte for byte.
fn check_script(path: &Path) -> anyhow::Result<()> {
    let expected = read(&path.with_extension("ctf"))?;
    let version = match expected.get(VERSION_AT) {
        Some([2, 0]) => Version::V2,
        Some([3, 0]) => Version::V3,
        other => bail!("version {other:?} is not written"),
    };
    let ours = write_script(&read(path)?, version)?;
    let same = ours.iter().zip(&expected).take_while(|(ours, expected)| ours == expected).count();
    ensure!(
        ours == expected,
        "{} bytes instead of {}, different from byte {same} on",
        ours.len(),
        expected.len()
    );
    Ok(())
}

/// A column as bytes: names may be no UTF-8.
type Columns<'a> = Vec<&'a [u8]>;

/// The `loc` lines: columns of positions, by frame.
#[derive(Default)]
struct Symbols<'a>(HashMap<u64, Columns<'a>>);

impl Locate for Symbols<'_> {
    fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
        for columns in self.0.get(&code).map(|columns| columns.chunks_exact(5)).into_iter().flatten() {
            let &[file, line, start, end, name] = columns else { continue };
            let [line, start, end] = [line, start, end].map(|column| number(column).unwrap_or(-1));
            each(Position { name, file, line, start_column: start, end_column: end });
        }
    }
}

/// Either writer: the one of version 3 takes several domains.
enum AnyWriter {
    One(Box<Writer<Vec<u64>>>),
    Several(DomainWriter),
}

fn write_script(script: &[u8], version: Version) -> anyhow::Result<Vec<u8>> {
    let lines: Vec<Columns<'_>> = script
        .split(|byte| *byte == b'\n')
        // lines may end as a text editor of another system ends them
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !matches!(line.trim_ascii_start(), [] | [b'#', ..]))
        .map(|line| line.split(|byte| *byte == b'\t').collect())
        .collect();
    let mut symbols = Symbols::default();
    for line in lines.iter().filter(|line| line[0] == b"loc") {
        let code = line.get(1).copied().context("loc without a code").and_then(number)?;
        ensure!(line.len() % 5 == 2, "loc {code} has {} columns", line.len());
        symbols.0.insert(code.cast_unsigned(), line[2..].to_vec());
    }
    let info = script_info(&lines)?;
    let mut writer = match version {
        Version::V2 => {
            let mut writer = Box::new(Writer::new(vec![0; DEPTH]));
            writer.start(version, &info)?;
            AnyWriter::One(writer)
        }
        Version::V3 => AnyWriter::Several(DomainWriter::new(&info, DEPTH)?),
    };
    let mut out = Vec::new();
    for line in lines.iter().filter(|line| line[0] != b"loc" && line[0] != b"info") {
        script_event(line, version, &symbols, &mut writer, &mut out)
            .with_context(|| format!("line {:?}", String::from_utf8_lossy(&line.join(&b'\t'))))?;
    }
    writer.offer(&symbols, &mut out, AnyWriter::close)?;
    writer.drain(&symbols, &mut out);
    Ok(out)
}

fn script_info<'a>(lines: &[Columns<'a>]) -> anyhow::Result<Info<'a>> {
    let mut info = Info {
        sample_rate: 1.0,
        word_size_bits: 64,
        executable_name: b"",
        host_name: b"",
        runtime_params: b"",
        pid: u64::MAX,
        start_micros: 0,
        context: b"",
        initial_domain: 0,
    };
    for line in lines.iter().filter(|line| line[0] == b"info") {
        let (key, value) = match line[..] {
            [_, key] => (key, &b""[..]),
            [_, key, value] => (key, value),
            _ => bail!("info with {} columns", line.len()),
        };
        match key {
            b"sample_rate" => info.sample_rate = rate(value)?,
            b"word_size" => info.word_size_bits = u8::try_from(number(value)?)?,
            b"pid" => info.pid = number(value)?.cast_unsigned(),
            b"start_time" => info.start_micros = number(value)?.cast_unsigned(),
            b"initial_domain" => info.initial_domain = u16::try_from(number(value)?)?,
            b"executable_name" => info.executable_name = value,
            b"host_name" => info.host_name = value,
            b"ocaml_runtime_params" => info.runtime_params = value,
            b"context" => info.context = value,
            other => bail!("info {:?} is unknown", String::from_utf8_lossy(other)),
        }
    }
    Ok(info)
}

fn script_event(
    line: &[&[u8]],
    version: Version,
    symbols: &Symbols<'_>,
    writer: &mut AnyWriter,
    out: &mut Vec<u8>,
) -> anyhow::Result<()> {
    let (&verb, rest) = line.split_first().context("an empty line")?;
    let (&time, rest) = rest.split_first().context("no time")?;
    let time = number(time)?.cast_unsigned();
    let (domain, rest) = match (version, rest.split_first()) {
        (Version::V3, Some((&domain, rest))) => (u16::try_from(number(domain)?)?, rest),
        _ => (0, rest),
    };
    let (&id, rest) = rest.split_first().context("no id")?;
    let id = number(id)?.cast_unsigned();
    // an empty backtrace may be an empty column or none
    let backtraced = [rest, &[b""]].concat();
    let rest = if verb == b"alloc" && rest.len() == 3 { &backtraced } else { rest };
    match (verb, rest) {
        (b"alloc", &[length, samples, source, backtrace]) => {
            let backtrace = codes(backtrace)?;
            let alloc = Allocation {
                length_words: number(length)?.cast_unsigned(),
                samples: number(samples)?.cast_unsigned(),
                source: match source {
                    b"minor" => Source::Minor,
                    b"major" => Source::Major,
                    b"external" => Source::External,
                    _ => bail!("unknown source"),
                },
                backtrace: &backtrace,
            };
            let ours = writer.offer(symbols, out, |writer| match writer {
                AnyWriter::One(one) => one.handle_alloc(time, &alloc),
                AnyWriter::Several(all) => all.handle_alloc(domain, time, &alloc),
            })?;
            ensure!(ours == id, "the writer gave it the id {ours}");
            Ok(())
        }
        (b"promote", []) => writer.offer(symbols, out, |writer| match writer {
            AnyWriter::One(one) => one.handle_promote(time, id),
            AnyWriter::Several(all) => all.handle_promote(domain, time, id),
        }),
        (b"collect", []) => writer.offer(symbols, out, |writer| match writer {
            AnyWriter::One(one) => one.handle_collect(time, id),
            AnyWriter::Several(all) => all.handle_collect(domain, time, id),
        }),
        _ => bail!("no such event, or other columns than it has"),
    }
}

impl AnyWriter {
    /// Offers an event until it is taken, and takes packets in between.
    fn offer<T>(
        &mut self,
        symbols: &Symbols<'_>,
        out: &mut Vec<u8>,
        event: impl Fn(&mut Self) -> Result<T, Busy>,
    ) -> anyhow::Result<T> {
        // one flush for the turn of another domain, one for this event
        for _ in 0..3 {
            if let Ok(value) = event(self) {
                return Ok(value);
            }
            self.drain(symbols, out);
        }
        bail!("the writer is busy without a packet")
    }

    fn drain(&mut self, symbols: &Symbols<'_>, out: &mut Vec<u8>) {
        loop {
            let packet = match self {
                Self::One(one) => one.poll_packet(symbols),
                Self::Several(all) => all.poll_packet(symbols),
            };
            let Some(packet) = packet else { return };
            out.extend_from_slice(packet);
            let bytes = packet.len();
            match self {
                Self::One(one) => one.handle_sent(bytes),
                Self::Several(all) => all.handle_sent(bytes),
            }
        }
    }

    fn close(&mut self) -> Result<(), Busy> {
        match self {
            Self::One(one) => one.close(),
            Self::Several(all) => all.close(),
        }
    }
}

fn rate(column: &[u8]) -> anyhow::Result<f64> {
    let text = String::from_utf8_lossy(column);
    text.parse().with_context(|| format!("the sample_rate {text:?} is not a number"))
}

fn number(column: &[u8]) -> anyhow::Result<i64> {
    let text = String::from_utf8_lossy(column);
    text.parse().with_context(|| format!("{text:?} is not a number"))
}

/// `CODE` or `CODE*N`, separated by commas.
fn codes(column: &[u8]) -> anyhow::Result<Vec<u64>> {
    let mut codes = Vec::new();
    for part in column.split(|byte| *byte == b',').filter(|part| !part.is_empty()) {
        let mut halves = part.splitn(2, |byte| *byte == b'*');
        let code = number(halves.next().unwrap_or_default())?.cast_unsigned();
        let times = halves.next().map_or(Ok(1), number)?;
        codes.extend(std::iter::repeat_n(code, usize::try_from(times)?));
    }
    Ok(codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_dump_or_script_fails_and_says_where() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = black_box::workspace().join("crates/uni-wire/tests/data/memtrace");
        let put = |name: &str, edit: fn(String) -> String| {
            let text = std::fs::read_to_string(data.join(name)).expect("recorded");
            std::fs::write(folder.path().join(name), edit(text)).expect("written");
        };
        std::fs::copy(data.join("tiny-v2.ctf"), folder.path().join("tiny-v2.ctf")).expect("copied");
        put("tiny-v2.txt", |text| text.replace("len=300", "len=301"));
        put("tiny-v2.script", |text| text.replace("Buf.grow", "Buf.gros"));
        let mut told = Vec::new();
        let tally = replay(folder.path(), |name, why| told.push(format!("{name}: {why}")))
            .expect("a folder of traces");
        assert_eq!(tally.to_string(), "0 passed, 2 failed, 0 apart");
        assert!(told[0].contains("strict: line 2 is") && told[0].contains("len=301"), "{told:?}");
        assert!(told[1].contains("different from byte 283"), "{told:?}");
    }

    #[test]
    fn scripts_of_other_editors_are_read_and_other_files_are_no_cases() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = black_box::workspace().join("crates/uni-wire/tests/data/memtrace");
        for name in ["edges-v2", "domains-v3"] {
            let read =
                |ending: &str| std::fs::read(data.join(name).with_extension(ending)).expect("recorded");
            let write = |ending: &str, bytes: &[u8]| {
                std::fs::write(folder.path().join(name).with_extension(ending), bytes).expect("written");
            };
            ["ctf", "txt"].iter().for_each(|ending| write(ending, &read(ending)));
            let lines = read("script");
            let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let script: Vec<u8> = [&b"\t# of another system\r\n\r\n"[..]]
                .into_iter()
                .chain(lines.flat_map(|line| [line, b"\r\n"]))
                .flatten()
                .copied()
                .collect();
            write("script", &script);
        }
        std::fs::write(folder.path().join("alone.txt"), "no trace has this text").expect("written");
        std::fs::write(folder.path().join("README.md"), "about them").expect("written");
        let tally = replay(folder.path(), |name, why| panic!("{name}: {why}")).expect("a folder of traces");
        assert_eq!(tally.to_string(), "4 passed, 0 failed, 0 apart");
    }

    #[test]
    fn a_folder_without_traces_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(replay(folder.path(), |_, _| {}).is_err());
    }
}
