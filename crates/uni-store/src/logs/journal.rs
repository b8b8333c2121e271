//! Entries as a frame of the write-ahead log carries them.
//!
//! Owns the payload (`docs/format/logs.md`, section *Write-ahead log*). A frame needs no other frame to be read.

use crate::bytes::{Damaged, Reader, put_bytes, put_zigzag};
use crate::logs::entry::{LogEntry, LogKind};
use crate::logs::rows::{kind_of, severity_of};
use uni_wire::Timestamp;

/// Appends an entry.
pub(crate) fn put(out: &mut Vec<u8>, entry: &LogEntry) {
    put_zigzag(out, entry.time.nanos());
    let own_time = u8::from(entry.own_time.is_some());
    out.extend([(entry.kind == LogKind::Event) as u8 * 16 + own_time * 8 + entry.severity, entry.facility]);
    if let Some(own_time) = entry.own_time {
        put_zigzag(out, own_time.nanos().wrapping_sub(entry.time.nanos()));
    }
    for text in [&entry.vm, &entry.app, &entry.host, &entry.process, &entry.id, &entry.data, &entry.text] {
        put_bytes(out, text.as_bytes());
    }
}

/// Reads the entries of a payload, front to back.
pub(crate) fn read(payload: &[u8], mut each: impl FnMut(LogEntry)) -> Result<(), Damaged> {
    let mut reader = Reader::new(payload);
    // no entries of the kinds that a log of points has
    if reader.u8()? != 0 {
        return Err(Damaged("a frame of another log"));
    }
    while !reader.is_empty() {
        each(entry(&mut reader)?);
    }
    Ok(())
}

fn entry(reader: &mut Reader<'_>) -> Result<LogEntry, Damaged> {
    let time = reader.zigzag()?;
    let (head, facility) = (reader.u8()?, reader.u8()?);
    let own_time = (head & 8 > 0).then(|| reader.zigzag()).transpose()?;
    let mut text = || Ok(reader.text()?.into());
    Ok(LogEntry {
        time: Timestamp(time),
        vm: text()?,
        app: text()?,
        host: text()?,
        process: text()?,
        id: text()?,
        data: text()?,
        text: text()?,
        kind: kind_of(head >> 4)?,
        severity: severity_of(head & 7)?,
        facility,
        own_time: own_time.map(|difference| Timestamp(time.wrapping_add(difference))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::rows::tests::entry;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_is_read_back(entries in prop::collection::vec(entry(), 0..9)) {
            let mut payload = vec![0];
            entries.iter().for_each(|entry| put(&mut payload, entry));
            let mut back = Vec::new();
            read(&payload, |entry| back.push(entry)).unwrap();
            prop_assert_eq!(back, entries);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = read(&bytes, drop);
        }
    }
}
