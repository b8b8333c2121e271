//! `uni logs` and the console of `uni run --attach`.

use std::io::IsTerminal as _;
use std::time::Duration;

use serde_json::Value;
use uni_api::rpc::method;
use uni_api::vm::{Logs, LogsParams, VmInfo};

use crate::args::{Format, LogsArgs};
use crate::client::{ANSWER_WAIT, CallError, Client};
use crate::{output, text};

/// How long the daemon may hold a request of `--follow` that has nothing to tell.
const FOLLOW_WAIT_MILLIS: u64 = 10_000;
/// Without `--follow`, stop here even if the guest writes faster than we read.
const MAX_LOGS_BYTES: usize = 64 * 1024 * 1024;

/// Prints a console, and with `--follow` what comes, until the VM ends.
pub(super) fn logs(client: &mut Client, args: LogsArgs, format: Format) -> anyhow::Result<()> {
    let first = LogsParams {
        id: args.vm.unwrap_or_default(),
        tail_bytes: args.tail_bytes,
        run: args.run,
        ..LogsParams::default()
    };
    let mut kept = read_kept(client, first)?;
    if let Some(lines) = args.tail {
        let tail = text::last_lines(&kept.logs, lines).to_owned();
        kept.from = kept.next.saturating_sub(tail.len() as u64);
        kept.logs = tail;
    }
    if !args.follow {
        return match format {
            Format::Table => print(&kept, format),
            Format::Json => {
                tell_missed(&kept);
                output::json(&kept)
            }
        };
    }
    print(&kept, format)?;
    follow(client, &kept, format)
}

/// Prints the console of a VM from its beginning until it ends.
pub(super) fn attach(client: &mut Client, id: String, format: Format) -> anyhow::Result<()> {
    let start = Logs { id, logs: String::new(), from: 0, next: 0, missed_bytes: 0, run: 0, ended: false };
    follow(client, &start, format)
}

/// All that is kept from the place asked for on, joined.
fn read_kept(client: &mut Client, mut params: LogsParams) -> Result<Logs, CallError> {
    let mut all: Logs = client.call(method::VM_LOGS, &params, ANSWER_WAIT)?;
    params.id.clone_from(&all.id);
    params.run = run_text(&all);
    while !all.ended && all.logs.len() < MAX_LOGS_BYTES {
        params.from = Some(all.next);
        let more: Logs = client.call(method::VM_LOGS, &params, ANSWER_WAIT)?;
        (all.next, all.ended) = (more.next, more.ended);
        all.missed_bytes += more.missed_bytes;
        if more.logs.is_empty() {
            break;
        }
        all.logs.push_str(&more.logs);
    }
    Ok(all)
}

fn follow(client: &mut Client, seen: &Logs, format: Format) -> anyhow::Result<()> {
    let wait = ANSWER_WAIT + Duration::from_millis(FOLLOW_WAIT_MILLIS);
    let mut params = LogsParams { id: seen.id.clone(), wait_ms: FOLLOW_WAIT_MILLIS, ..LogsParams::default() };
    (params.from, params.run) = (Some(seen.next), run_text(seen));
    let mut ended = seen.ended;
    while !ended {
        let piece: Logs = match client.call_patiently(method::VM_LOGS, &params, wait) {
            Ok(piece) => piece,
            Err(CallError::Refused(_)) if is_removed(client, &params.id)? => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        print(&piece, format)?;
        params.from = Some(piece.next);
        ended = piece.ended;
    }
    Ok(())
}

/// A VM of `run --rm` may be gone before its last words were fetched; that is an end, not an error.
pub(super) fn is_removed(client: &mut Client, id: &str) -> Result<bool, CallError> {
    let vms: Vec<VmInfo> = client.call(method::VM_LIST, &Value::Null, ANSWER_WAIT)?;
    Ok(vms.iter().all(|vm| vm.id != id))
}

/// The run that the first answer was about, by number: what `last` means may change.
fn run_text(first: &Logs) -> String {
    if first.run == 0 { String::new() } else { first.run.to_string() }
}

/// One piece: raw, but harmless on a terminal; with `--output json` an object a line.
fn print(piece: &Logs, format: Format) -> anyhow::Result<()> {
    tell_missed(piece);
    if piece.logs.is_empty() {
        return Ok(());
    }
    match format {
        Format::Json => output::json_line(piece),
        Format::Table if std::io::stdout().is_terminal() => output::text(&text::harmless(&piece.logs)),
        Format::Table => output::text(&piece.logs),
    }
}

/// Who reads slower than the guest writes is told what is lost; the guest never waits for a reader.
fn tell_missed(piece: &Logs) {
    if piece.missed_bytes > 0 {
        eprintln!("uni: {} bytes of the console are no longer kept and were left out", piece.missed_bytes);
    }
}
