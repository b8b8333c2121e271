//! A packet in the making: a buffer of the size of the largest, and how numbers and texts go into it.
//!
//! Owns the bounds: what does not fit is not written. The writer's rules see to it that everything fits.

use super::{Info, MAGIC, NO_VERIFIER, TIME_MASK, Version, event};

/// The largest packet that is written, in bytes; the original reader takes no larger one.
pub const MAX_PACKET_BYTES: usize = 1 << 15;

/// Where in the header the fields lie that are known last.
const SIZE_AT: usize = 4;
const BEGIN_AT: usize = 8;
const END_AT: usize = 16;

/// Bytes of a packet. Needs no memory but its own.
#[derive(Debug)]
pub(super) struct Packet {
    bytes: [u8; MAX_PACKET_BYTES],
    len: usize,
    /// Where `alloc_id_begin` lies: the header's length depends on the version.
    ids_at: usize,
}

/// What a header says that is known when the packet begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) version: Version,
    pub(super) pid: u64,
    pub(super) domain: u16,
    /// Slot, prediction and code.
    pub(super) verifier: Option<(u16, u16, u64)>,
}

/// What a header says that is known when the packet is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub(super) begin_micros: u64,
    pub(super) end_micros: u64,
    pub(super) first_id: u64,
    pub(super) next_id: u64,
}

impl Packet {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; MAX_PACKET_BYTES], len: 0, ids_at: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn remaining(&self) -> usize {
        MAX_PACKET_BYTES - self.len
    }

    /// Starts over with a header whose last fields are yet to come.
    pub(super) fn begin(&mut self, head: &Head) {
        self.len = 0;
        self.put(&MAGIC.to_le_bytes());
        self.put(&[0; END_AT + 8 + 4 - SIZE_AT]);
        let version: u16 = match head.version {
            Version::V2 => 2,
            Version::V3 => 3,
        };
        self.put_u16(version);
        self.put_u64(head.pid);
        if head.version == Version::V3 {
            self.put_u16(head.domain);
        }
        let (slot, prediction, code) = head.verifier.unwrap_or((NO_VERIFIER, 0, 0));
        self.put_u16(slot);
        self.put_u16(prediction);
        self.put_u64(code);
        self.ids_at = self.len;
        self.put(&[0; 16]);
    }

    pub(super) fn finish(&mut self, tail: &Tail) {
        let bits = u32::try_from(self.len * 8).unwrap_or(u32::MAX);
        self.patch(SIZE_AT, &bits.to_le_bytes());
        self.patch(BEGIN_AT, &tail.begin_micros.to_le_bytes());
        self.patch(END_AT, &tail.end_micros.to_le_bytes());
        self.patch(self.ids_at, &tail.first_id.to_le_bytes());
        self.patch(self.ids_at + 8, &tail.next_id.to_le_bytes());
    }

    pub(super) fn put_event(&mut self, code: u32, time_micros: u64) {
        let time = u32::try_from(time_micros & TIME_MASK).unwrap_or_default();
        self.put(&(code << super::TIME_BITS | time).to_le_bytes());
    }

    pub(super) fn put_info(&mut self, info: &Info<'_>) {
        self.put_event(event::INFO, info.start_micros);
        self.put(&info.sample_rate.to_le_bytes());
        self.put(&[info.word_size_bits]);
        self.put_text(info.executable_name);
        self.put_text(info.host_name);
        self.put_text(info.runtime_params);
        self.put_u64(info.pid);
        self.put_text(info.context);
    }

    pub(super) fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    pub(super) fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// The smallest form that holds `value`.
    pub(super) fn put_vint(&mut self, value: i64) {
        if let Ok(small @ 0..=252) = u8::try_from(value) {
            self.put(&[small]);
        } else if let Ok(value) = u16::try_from(value) {
            self.put(&[253]);
            self.put(&value.to_le_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.put(&[254]);
            self.put(&value.to_le_bytes());
        } else {
            self.put(&[255]);
            self.put(&value.to_le_bytes());
        }
    }

    /// A text up to its first NUL byte, and one.
    pub(super) fn put_text(&mut self, text: &[u8]) {
        self.put(text.split(|byte| *byte == 0).next().unwrap_or_default());
        self.put(&[0]);
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
            self.len = end;
        }
    }

    /// Overwrites what lies at `at`.
    pub(super) fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }
}
