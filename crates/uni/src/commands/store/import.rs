//! `uni store import`: line protocol from a file, in batches that the daemon takes as it takes a write over HTTP.
//!
//! Owns where a batch ends, and the account of what became of the lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::bufread::MultiGzDecoder;
use indicatif::ProgressBar;
use serde::Serialize;
use uni_api::rpc::method;
use uni_api::store::{ImportParams, Imported};
use uni_wire::line::next_line;

use crate::args::{Format, ImportArgs};
use crate::client::{ANSWER_WAIT, Client};
use crate::commands::take::Stop;
use crate::output;
use crate::text::one_line;

/// Lines sent at once; as base64 it stays below the longest request.
const BATCH_BYTES: usize = 256 << 10;
/// The longest line. A quote that is never closed looks like a line without end.
const MAX_LINE_BYTES: usize = 512 << 10;
/// Where points go if nobody says.
const DEFAULT_DATABASE: &str = "uni";
/// Complaints that are shown.
const MAX_COMPLAINTS: usize = 20;

/// What became of the lines, for programs.
#[derive(Debug, Default, Serialize)]
struct Account {
    stored: u64,
    refused: u64,
    bad: u64,
    complaints: Vec<String>,
}

/// Imports.
///
/// # Errors
/// What failed, and how much was stored by then; or that lines were refused.
pub(super) fn run(client: &mut Client, args: &ImportArgs, format: Format) -> anyhow::Result<()> {
    let stop = Stop::watch()?;
    let (reader, bar) = open(&args.file)?;
    let mut import = Import {
        client,
        precision: &args.precision,
        database: args.database.clone().unwrap_or_else(|| DEFAULT_DATABASE.to_owned()),
        may_change: args.database.is_none(),
        is_definition: false,
        batch: Vec::new(),
        account: Account::default(),
        lines: 0,
        batch_line: 1,
    };
    let outcome = import.all(reader, &stop, &bar);
    bar.finish_and_clear();
    let Account { stored, refused, bad, complaints } = &import.account;
    if format == Format::Table {
        complaints.iter().for_each(|complaint| crate::complain(&format!("uni: store import: {complaint}")));
    }
    outcome.with_context(|| format!("after {stored} points had been stored"))?;
    match format {
        Format::Json => output::json(&import.account)?,
        Format::Table => {
            let text = format!("{stored} points stored, {refused} refused, {bad} lines not understood\n");
            output::text(&text)?;
        }
    }
    ensure!(refused + bad == 0, "{} lines were not stored", refused + bad);
    Ok(())
}

/// Opens a file, unpacking it if it is packed.
fn open(path: &Path) -> anyhow::Result<(Box<dyn Read>, ProgressBar)> {
    let (raw, bar): (Box<dyn Read>, _) = if path == Path::new("-") {
        (Box::new(io::stdin()), super::spinner())
    } else {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        (Box::new(file), super::bytes_bar(length, "import"))
    };
    let mut raw = BufReader::with_capacity(BATCH_BYTES, bar.wrap_read(raw));
    let is_packed = raw.fill_buf().context("read the lines")?.starts_with(&[0x1f, 0x8b]);
    Ok((if is_packed { Box::new(MultiGzDecoder::new(raw)) } else { Box::new(raw) }, bar))
}

struct Import<'a> {
    client: &'a mut Client,
    precision: &'a str,
    database: String,
    /// Whether comments may name another database.
    may_change: bool,
    /// Between `# DDL` and `# DML`: statements, no points.
    is_definition: bool,
    batch: Vec<u8>,
    account: Account,
    /// Lines before the one at hand.
    lines: u64,
    /// The batch's first line, from 1.
    batch_line: u64,
}

impl Import<'_> {
    fn all(&mut self, mut reader: Box<dyn Read>, stop: &Stop, bar: &ProgressBar) -> anyhow::Result<()> {
        let mut buffer = Vec::new();
        let mut is_end = false;
        while !is_end {
            ensure!(!stop.is_wanted(), "interrupted");
            let read = (&mut reader).take(BATCH_BYTES as u64).read_to_end(&mut buffer);
            is_end = read.context("read the lines")? == 0;
            let used = self.lines_of(&buffer, is_end)?;
            buffer.drain(..used);
            ensure!(
                buffer.len() <= MAX_LINE_BYTES,
                "line {} is longer than {MAX_LINE_BYTES} bytes; is a quote not closed?",
                self.lines + 1
            );
            bar.tick();
        }
        self.send()
    }

    /// Takes the whole lines of a buffer; says how many bytes they are. The last one may go on in the next buffer.
    fn lines_of(&mut self, buffer: &[u8], is_end: bool) -> anyhow::Result<usize> {
        let mut rest = buffer;
        while let Some(first) = rest.first() {
            let is_text = matches!(first, b'#' | b'\n') || self.is_definition;
            let (line, after) =
                if is_text { plain_line(rest) } else { next_line(rest).unwrap_or((b"", b"")) };
            if after.is_empty() && !is_end {
                break;
            }
            self.line(line)?;
            let used = &rest[..rest.len() - after.len()];
            // the last line of a file may have no end
            self.lines += used.iter().filter(|byte| **byte == b'\n').count().max(1) as u64;
            rest = after;
        }
        Ok(buffer.len() - rest.len())
    }

    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        if line.starts_with(b"#") {
            return self.comment(&String::from_utf8_lossy(line));
        }
        if self.is_definition || line.is_empty() {
            return Ok(());
        }
        if self.batch.len() + line.len() >= BATCH_BYTES {
            self.send()?;
        }
        if self.batch.is_empty() {
            self.batch_line = self.lines + 1;
        }
        self.batch.extend_from_slice(line);
        self.batch.push(b'\n');
        Ok(())
    }

    /// What InfluxDB's exports say in comments.
    fn comment(&mut self, line: &str) -> anyhow::Result<()> {
        match line.trim_end() {
            "# DDL" => self.is_definition = true,
            "# DML" => self.is_definition = false,
            _ => {}
        }
        if let Some(database) = line.strip_prefix("# CONTEXT-DATABASE:").filter(|_| self.may_change) {
            self.send()?;
            database.trim().clone_into(&mut self.database);
        }
        Ok(())
    }

    fn send(&mut self) -> anyhow::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let params = ImportParams {
            database: self.database.clone(),
            precision: self.precision.to_owned(),
            data: STANDARD.encode(&self.batch),
        };
        self.batch.clear();
        let imported: Imported = self.client.call(method::STORE_IMPORT, &params, ANSWER_WAIT)?;
        let account = &mut self.account;
        account.stored += imported.stored;
        account.refused += imported.refused;
        account.bad += imported.bad;
        let room = MAX_COMPLAINTS.saturating_sub(account.complaints.len());
        let (from, to) = (self.batch_line, self.lines);
        let told = imported.complaints.iter().take(room);
        account.complaints.extend(told.map(|text| format!("lines {from} to {to}: {}", one_line(text))));
        Ok(())
    }
}

/// The bytes up to the first newline, and those after it.
fn plain_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}
