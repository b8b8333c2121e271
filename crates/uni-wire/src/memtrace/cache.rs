//! The writer's side of the cache of frames: which slot a code has, what is predicted to follow it, when it was used.
//!
//! Owns the choice of slots and of forms, which is the original's. Never knows what a code stands for.

use super::SLOTS;
use super::packet::Packet;

/// Most bytes of a backtrace's codes, less the largest code: where it is cut.
const MAX_CODE_BYTES: usize = 4096 - 10;
/// Most frames that one code says are predicted.
const MAX_PREDICTED: u8 = 255;
/// Slots between two that are verified.
const VERIFY_STEP: u16 = 5413;
const FIRST_VERIFIED: u16 = 4242;

/// The most codes one backtrace can add to those that were not in the cache.
pub(super) const MAX_MISSES: usize = MAX_CODE_BYTES / 10 + 1;

#[derive(Debug)]
pub(super) struct Cache {
    codes: [u64; SLOTS],
    /// The allocation that used a slot last.
    dates: [u64; SLOTS],
    predictions: [u16; SLOTS],
    verified: u16,
}

/// What one of the frames yet to be written is.
struct Rest<'a> {
    frames: &'a [u64],
    start: usize,
    written: u16,
}

impl<'a> Rest<'a> {
    fn next(&mut self) -> Option<u64> {
        let (first, rest) = self.frames.split_first()?;
        self.frames = rest;
        Some(*first)
    }

    const fn bytes(&self, packet: &Packet) -> usize {
        packet.len() - self.start
    }

    fn first(&self) -> Option<&'a u64> {
        self.frames.first()
    }
}

impl Cache {
    pub(super) const fn new() -> Self {
        Self { codes: [0; SLOTS], dates: [0; SLOTS], predictions: [0; SLOTS], verified: FIRST_VERIFIED }
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.codes.fill(0);
        self.dates.fill(0);
        self.predictions.fill(0);
        self.verified = FIRST_VERIFIED;
    }

    /// The slot that the next packet verifies, its prediction and its code.
    pub(super) fn take_verifier(&mut self) -> (u16, u16, u64) {
        let slot = self.verified;
        self.verified = (slot + VERIFY_STEP) & SLOT_MASK;
        (slot, self.predictions[at(slot)], self.codes[at(slot)])
    }

    /// Writes codes for `frames`, new to this backtrace, of the allocation `id`, and calls `miss` for those that the
    /// reader may not know. Returns how many codes were written; frames beyond 4 KiB of codes are dropped.
    pub(super) fn put_backtrace(
        &mut self,
        packet: &mut Packet,
        id: u64,
        frames: &[u64],
        mut miss: impl FnMut(u64),
    ) -> u16 {
        let mut rest = Rest { frames, start: packet.len(), written: 0 };
        let mut last = 0;
        while rest.bytes(packet) <= MAX_CODE_BYTES {
            let Some(code) = rest.next() else { break };
            last = match self.find(code) {
                Some(slot) => self.put_hit(packet, id, last, slot, &mut rest),
                None => {
                    miss(code);
                    self.put_miss(packet, id, last, code, &mut rest)
                }
            };
        }
        rest.written
    }

    fn find(&self, code: u64) -> Option<u16> {
        slots_of(code).into_iter().find(|slot| self.codes[at(*slot)] == code)
    }

    fn put_miss(&mut self, packet: &mut Packet, id: u64, last: u16, code: u64, rest: &mut Rest<'_>) -> u16 {
        let [first, second] = slots_of(code);
        let slot = if self.dates[at(first)] < self.dates[at(second)] { first } else { second };
        self.codes[at(slot)] = code;
        self.dates[at(slot)] = id;
        self.predictions[at(last)] = slot;
        packet.put_u16(slot << 2 | 3);
        packet.put_u64(code);
        rest.written += 1;
        slot
    }

    /// Writes a hit and all that is predicted after it. Returns the slot of the last frame written.
    fn put_hit(&mut self, packet: &mut Packet, id: u64, last: u16, slot: u16, rest: &mut Rest<'_>) -> u16 {
        let (mut last, mut slot) = (last, slot);
        loop {
            self.dates[at(slot)] = id;
            self.predictions[at(last)] = slot;
            rest.written += 1;
            let mut reached = slot;
            let mut predicted: u8 = 0;
            let more = loop {
                let room = rest.bytes(packet) + 2 <= MAX_CODE_BYTES;
                let Some(&next) = rest.first().filter(|_| room) else {
                    // Nothing can follow: the outer loop, too, has to stop here.
                    rest.frames = &[];
                    break None;
                };
                let follower = self.predictions[at(reached)];
                if self.codes[at(follower)] != next {
                    break None;
                }
                rest.next();
                if predicted == MAX_PREDICTED {
                    break Some(follower);
                }
                predicted += 1;
                reached = follower;
            };
            match predicted {
                0 | 1 => packet.put_u16(slot << 2 | u16::from(predicted)),
                n => {
                    packet.put_u16(slot << 2 | 2);
                    packet.put(&[n]);
                }
            }
            let Some(next) = more else { return reached };
            (last, slot) = (reached, next);
        }
    }
}

const SLOT_MASK: u16 = (SLOTS - 1) as u16;

/// A slot as an index; the mask tells the compiler that it is one.
fn at(slot: u16) -> usize {
    usize::from(slot & SLOT_MASK)
}

/// The two slots in which a code may be.
fn slots_of(code: u64) -> [u16; 2] {
    let hash = |factor: u64, shift: u32| (code.wrapping_mul(factor) >> shift) as u16 & SLOT_MASK;
    [hash(0x0498_3723, 11), hash(0x0FDE_A731, 21)]
}
