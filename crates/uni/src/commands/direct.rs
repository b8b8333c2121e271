//! A heap trace straight from where a guest gives it (TCP), without the daemon.
//!
//! Owns the connection: its waits, and its end by a half-close, after which the guest sends what it still holds.

use std::io::{self, Read as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use uni_api::heap_trace::TraceEnd;
use uni_wire::memtrace::{Decoder, FaultKind, Item, Mode};

use super::take::{LOOK, Sink, Stop};
use crate::text::one_line;

const CONNECT_TIME: Duration = Duration::from_secs(5);
/// The guest's first packet comes at once.
const FIRST_TIME: Duration = Duration::from_secs(10);
/// From the half-close to the end.
const END_TIME: Duration = Duration::from_secs(15);
/// Longer traces are ended.
const MAX_BYTES: u64 = 1 << 30;
/// Each packet begins so.
const MAGIC: [u8; 4] = 0xC1FC_1FC1_u32.to_le_bytes();
/// As much of a refusal as is shown.
const SHOWN_BYTES: usize = 200;

/// Takes a trace from `address` for `time`, or until it is to stop.
///
/// # Errors
/// When nobody gives one there, or it breaks.
pub(super) fn take(
    address: &str,
    time: Option<Duration>,
    stop: &Stop,
    sink: &mut Sink,
) -> anyhow::Result<TraceEnd> {
    taken(address, time, stop, sink).with_context(|| format!("take a heap trace from {}", one_line(address)))
}

fn taken(address: &str, time: Option<Duration>, stop: &Stop, sink: &mut Sink) -> anyhow::Result<TraceEnd> {
    let mut stream = connect(address)?;
    stream.set_read_timeout(Some(LOOK)).context("set a time for reading")?;
    let begun = Instant::now();
    let mut count = Count::default();
    let mut ending: Option<(Instant, &str)> = None;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let due = match (stop.is_wanted(), time.is_some_and(|time| begun.elapsed() >= time)) {
            (true, _) => Some("it was stopped"),
            (_, true) => Some("its time is over"),
            _ => (count.bytes >= MAX_BYTES).then_some("it is as long as traces may be"),
        };
        if let (None, Some(why)) = (ending, due) {
            stream.shutdown(Shutdown::Write).context("tell the guest to end")?;
            ending = Some((Instant::now(), why));
        }
        let cut = |why: &str| Ok(TraceEnd { whole: false, why: why.to_owned() });
        if ending.is_some_and(|(since, _)| since.elapsed() >= END_TIME) {
            return cut("the guest does not end it");
        }
        match stream.read(&mut buffer) {
            Ok(0) => {
                ensure!(count.bytes > 0, "the guest closed the connection without a trace");
                if count.ends_within_packet() {
                    return cut("the guest closed the connection within a packet");
                }
                let why = ending.map_or("the guest ended it", |(_, why)| why);
                return Ok(TraceEnd { whole: true, why: why.to_owned() });
            }
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                check_beginning(&count, bytes)?;
                count.take(bytes);
                sink.take(bytes, count.events)?;
            }
            Err(error) if is_momentary(&error) => {
                let silent = count.bytes == 0 && begun.elapsed() >= FIRST_TIME;
                ensure!(
                    !silent,
                    "nothing came within {} s; is that the port of heap traces?",
                    FIRST_TIME.as_secs()
                );
            }
            Err(error) if count.bytes == 0 => return Err(error).context("read"),
            Err(error) => return cut(&error.to_string()),
        }
    }
}

fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let found = address.to_socket_addrs().context("look up the address; it is HOST:PORT")?;
    let mut last = None;
    for one in found {
        match TcpStream::connect_timeout(&one, CONNECT_TIME) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).context("connect; the guest must give heap traces there"),
        None => bail!("the name has no address"),
    }
}

/// What is no trace is told: a guest that gives one already says so.
fn check_beginning(count: &Count, bytes: &[u8]) -> anyhow::Result<()> {
    let is_trace = count.bytes > 0 || bytes.iter().zip(MAGIC).all(|(byte, wanted)| *byte == wanted);
    let said = String::from_utf8_lossy(bytes.get(..SHOWN_BYTES).unwrap_or(bytes));
    ensure!(is_trace, "it says {:?} instead of a trace", one_line(said.trim()));
    Ok(())
}

fn is_momentary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// How much came, and whether it ends with a packet.
struct Count {
    decoder: Decoder,
    bytes: u64,
    events: u64,
}

impl Default for Count {
    fn default() -> Self {
        Self { decoder: Decoder::new(Mode::Lenient), bytes: 0, events: 0 }
    }
}

impl Count {
    fn take(&mut self, bytes: &[u8]) {
        let events = &mut self.events;
        // a lenient reader has no errors
        let _none = self.decoder.handle_bytes(bytes, |item| {
            *events += u64::from(matches!(item, Item::Alloc(_) | Item::Promote(_) | Item::Collect(_)));
        });
        self.bytes += bytes.len() as u64;
    }

    fn ends_within_packet(mut self) -> bool {
        let mut cut = false;
        let _none = self.decoder.finish(|item| {
            if let Item::Fault(fault) = item {
                cut |= matches!(fault.kind, FaultKind::CutHeader | FaultKind::CutPacket);
            }
        });
        cut
    }
}
