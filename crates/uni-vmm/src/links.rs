//! Frame counters per link and direction: how frames are counted off a mirror's stream, and the file they are
//! kept in.
//!
//! Owns the stream parser and the file format `links.bin`; opens no sockets. The file is one block that is
//! overwritten in place, so it keeps working on a full disk; version and checksum let a reader see a block
//! that was half-way written.
//!
//! ```text
//! 0   8  magic "UNILINK1" (the last byte is the version)
//! 8   8  generation: which start of the VM, little-endian as all that follows
//! 16  96 four times {frames, bytes, multicast frames}: service from VM, service to VM, management from, management to
//! 112 8  console bytes dropped
//! 120 8  mirror bytes that could not be read as frames
//! 128 8  FNV-1a of bytes 0..128
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::id::Link;
use crate::paths::LINKS_FILE;
use crate::qemu::MIRRORS;

/// The file's length in bytes.
const BLOCK_LEN: usize = 136;
const CHECKED_LEN: usize = 128;
const MAGIC: &[u8; 8] = b"UNILINK1";
/// The longest frame QEMU passes on, generously: 64 KiB of offloaded segment and its headers.
pub const MAX_FRAME_BYTES: u32 = 256 * 1024;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Sent by the guest.
    FromVm,
    /// Received by the guest.
    ToVm,
}

/// What went over one link in one direction since the VM was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Ethernet frames.
    pub frames: u64,
    /// Their bytes: from the destination address to the end of the payload, no checksum.
    pub bytes: u64,
    /// Frames to a group address (multicast and broadcast).
    pub multicast: u64,
}

/// All counters of one VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// Which start of the VM these belong to.
    pub generation: u64,
    /// In the order of [`MIRRORS`].
    pub counts: [Counts; 4],
    /// Console bytes that could not be written (full disk).
    pub console_dropped_bytes: u64,
    /// Bytes of mirrors that stopped making sense; 0 unless QEMU's framing changed.
    pub unframed_bytes: u64,
}

impl Links {
    /// The counters of one link and direction.
    #[must_use]
    pub fn of(&self, link: Link, direction: Direction) -> Counts {
        let found = MIRRORS.iter().zip(self.counts).find(|(mirror, _)| **mirror == (link, direction));
        found.map(|(_, counts)| counts).unwrap_or_default()
    }

    /// The block of the file.
    #[must_use]
    pub fn emit(&self) -> [u8; BLOCK_LEN] {
        let mut block = [0; BLOCK_LEN];
        let counts = self.counts.iter().flat_map(|c| [c.frames, c.bytes, c.multicast]);
        let words = [self.generation].into_iter().chain(counts);
        let words = words.chain([self.console_dropped_bytes, self.unframed_bytes]);
        block[..8].copy_from_slice(MAGIC);
        for (field, word) in block[8..CHECKED_LEN].chunks_exact_mut(8).zip(words) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        let sum = checksum(&block[..CHECKED_LEN]);
        block[CHECKED_LEN..].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// Reads a block; nothing if it is not one, is of another version or was caught half-way written.
    #[must_use]
    pub fn parse(block: &[u8]) -> Option<Self> {
        let (checked, sum) = block.split_at_checked(CHECKED_LEN)?;
        if sum != checksum(checked).to_le_bytes() || !checked.starts_with(MAGIC) {
            return None;
        }
        let mut words =
            checked[8..].chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let mut next = || words.next().unwrap_or_default();
        let mut links = Self { generation: next(), ..Self::default() };
        for counts in &mut links.counts {
            *counts = Counts { frames: next(), bytes: next(), multicast: next() };
        }
        links.console_dropped_bytes = next();
        links.unframed_bytes = next();
        Some(links)
    }
}

/// FNV-1a, 64 bit: enough to tell a torn block from a whole one.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Reads the counters in a VM's directory. They are at most some 20 ms old while the VM runs.
///
/// # Errors
/// There are none (the VM never ran), or they stay unreadable.
pub fn read(dir: &Path) -> io::Result<Links> {
    let file = File::open(dir.join(LINKS_FILE))?;
    let mut block = [0; BLOCK_LEN];
    for _ in 0..16 {
        file.read_exact_at(&mut block, 0)?;
        if let Some(links) = Links::parse(&block) {
            return Ok(links);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("{LINKS_FILE} is damaged or of another version")))
}

/// Counts the frames in a mirror's byte stream, however it is cut: u32 big-endian length, frame, and so on.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCounter {
    counts: Counts,
    unframed_bytes: u64,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Length { read: u8, value: u32 },
    FirstByte { len: u32 },
    Rest { left: u32 },
    Lost,
}

impl Default for State {
    fn default() -> Self {
        Self::Length { read: 0, value: 0 }
    }
}

impl FrameCounter {
    /// What was counted so far: frames whose first byte has come.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes after an impossible length; from there on nothing can be counted.
    #[must_use]
    pub fn unframed_bytes(&self) -> u64 {
        self.unframed_bytes
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            bytes = match self.state {
                State::Length { read, value } => {
                    self.state = length_state(read + 1, value << 8 | u32::from(first));
                    rest
                }
                State::FirstByte { len } => {
                    self.count(first, len);
                    self.state = rest_state(len - 1);
                    rest
                }
                State::Rest { left } => {
                    let skipped = bytes.len().min(left as usize);
                    self.state = rest_state(left - skipped as u32);
                    &bytes[skipped..]
                }
                State::Lost => {
                    self.unframed_bytes = self.unframed_bytes.saturating_add(bytes.len() as u64);
                    return;
                }
            };
        }
    }

    fn count(&mut self, first: u8, len: u32) {
        self.counts.frames += 1;
        self.counts.bytes += u64::from(len);
        self.counts.multicast += u64::from(first & 1);
    }
}

fn length_state(read: u8, value: u32) -> State {
    match (read, value) {
        (0..4, _) => State::Length { read, value },
        (_, 0) => State::default(),
        (_, len) if len > MAX_FRAME_BYTES => State::Lost,
        (_, len) => State::FirstByte { len },
    }
}

fn rest_state(left: u32) -> State {
    if left == 0 { State::default() } else { State::Rest { left } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
        frames.iter().flat_map(|f| [&u32::try_from(f.len()).unwrap().to_be_bytes()[..], f].concat()).collect()
    }

    #[test]
    fn an_impossible_length_is_counted_and_not_believed() {
        let mut counter = FrameCounter::default();
        counter.push(&stream(&[vec![0; 60]]));
        counter.push(&[0xff; 10]);
        assert_eq!(counter.counts().frames, 1);
        assert_eq!(counter.unframed_bytes(), 6);
    }

    #[test]
    fn a_torn_block_is_no_block() {
        let block = Links { generation: 3, ..Links::default() }.emit();
        for at in 0..block.len() {
            let mut torn = block;
            torn[at] ^= 0x40;
            assert_eq!(Links::parse(&torn), None, "byte {at}");
            assert_eq!(Links::parse(&block[..at]), None, "length {at}");
        }
    }

    proptest! {
        #[test]
        fn counting_does_not_depend_on_how_the_stream_is_cut(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..80), 0..20), cut in 1usize..40,
        ) {
            let mut counter = FrameCounter::default();
            stream(&frames).chunks(cut).for_each(|piece| counter.push(piece));
            let expected = Counts {
                frames: frames.len() as u64,
                bytes: frames.iter().map(|f| f.len() as u64).sum(),
                multicast: frames.iter().filter(|f| f[0] & 1 == 1).count() as u64,
            };
            prop_assert_eq!(counter.counts(), expected);
        }

        #[test]
        fn counters_survive_the_file(words: [u64; 15]) {
            let counts = |at: usize| Counts { frames: words[at], bytes: words[at + 1], multicast: words[at + 2] };
            let links = Links {
                generation: words[12],
                counts: [counts(0), counts(3), counts(6), counts(9)],
                console_dropped_bytes: words[13],
                unframed_bytes: words[14],
            };
            prop_assert_eq!(Links::parse(&links.emit()), Some(links));
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Links::parse(&bytes);
            let mut counter = FrameCounter::default();
            counter.push(&bytes);
        }
    }
}
