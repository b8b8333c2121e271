//! What the reader knows of one domain: its cache of frames, its tables of names, its last backtrace, its clock.
//!
//! Owns the decoding of backtraces. After a part of the trace was missed it gives out code 0, an unknown frame, where
//! it would else have to guess.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::SLOTS;
use super::read::Bytes;
use super::tables::Files;

/// The slot of a frame that is not known.
const UNKNOWN: u16 = SLOTS as u16;

#[derive(Debug)]
pub(super) struct Domain {
    /// One more than there are slots: the unknown one has no code and is followed by itself.
    codes: Box<[u64; SLOTS + 1]>,
    predictions: Box<[u16; SLOTS + 1]>,
    pub(super) files: Files,
    pub(super) backtrace: Vec<u64>,
    /// The time of its last event.
    pub(super) last_micros: u64,
    /// The id that its next allocation gets if nothing is missing.
    pub(super) next_id: u64,
    /// Something was missed: what is not known may be anything.
    missed: bool,
}

/// How a backtrace came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Leading frames that are those of the backtrace before.
    pub(super) shared: usize,
    /// Frames were left out.
    pub(super) cut: bool,
}

impl Domain {
    pub(super) fn new(start_micros: u64) -> Self {
        Self {
            codes: Box::new([0; SLOTS + 1]),
            predictions: Box::new(core::array::from_fn(|slot| if slot < SLOTS { 0 } else { UNKNOWN })),
            files: Files::default(),
            backtrace: Vec::new(),
            last_micros: start_micros,
            next_id: 0,
            missed: false,
        }
    }

    /// Forgets what events that were missed may have changed.
    pub(super) fn forget(&mut self) {
        self.codes.fill(0);
        self.predictions.fill(UNKNOWN);
        self.files = Files::default();
        self.backtrace.clear();
        self.missed = true;
    }

    /// Whether something was missed.
    pub(super) const fn has_missed(&self) -> bool {
        self.missed
    }

    /// Whether the slot is as the writer says, or was not known.
    pub(super) fn verify(&mut self, slot: u16, prediction: u16, code: u64) -> bool {
        let at = usize::from(slot);
        let (Some(known_code), Some(known_prediction)) =
            (self.codes[..SLOTS].get_mut(at), self.predictions[..SLOTS].get_mut(at))
        else {
            return false;
        };
        let unknown = self.missed && (*known_prediction == UNKNOWN || *known_code == 0);
        if unknown && usize::from(prediction) < SLOTS {
            (*known_code, *known_prediction) = (code, prediction);
        }
        (*known_code, *known_prediction) == (code, prediction)
    }

    /// Reads `count` codes; the result is `self.backtrace`, of at most `limit` frames. `None` if the bytes end before.
    #[inline]
    pub(super) fn decode(
        &mut self,
        bytes: &mut Bytes<'_>,
        prefix: u64,
        count: u16,
        limit: usize,
    ) -> Option<Decoded> {
        let known = self.backtrace.len();
        let prefix = usize::try_from(prefix).unwrap_or(usize::MAX);
        if prefix <= known {
            self.backtrace.truncate(prefix);
            let cut = self.decode_codes(bytes, count, limit)?;
            return Some(Decoded { shared: prefix, cut });
        }
        if self.missed {
            // The frames between are not known; what follows them is.
            self.backtrace.resize(prefix.min(limit), 0);
            let cut = self.decode_codes(bytes, count, limit)?;
            return Some(Decoded { shared: known, cut });
        }
        // After a backtrace that was cut by its writer: the codes matter for the cache only.
        let backtrace = core::mem::take(&mut self.backtrace);
        let decoded = self.decode_codes(bytes, count, limit);
        self.backtrace = backtrace;
        decoded.map(|_| Decoded { shared: known, cut: false })
    }

    #[inline]
    fn decode_codes(&mut self, bytes: &mut Bytes<'_>, count: u16, limit: usize) -> Option<bool> {
        let mut last: u16 = 0;
        let mut room = limit.saturating_sub(self.backtrace.len());
        let mut cut = false;
        for _ in 0..count {
            let word = bytes.u16()?;
            let slot = word >> 2;
            if let Some(prediction) = self.predictions[..SLOTS].get_mut(usize::from(last)) {
                *prediction = slot;
            }
            let predicted = match word & 3 {
                tag @ (0 | 1) => tag,
                2 => u16::from(bytes.u8()?),
                _ => {
                    *self.codes.get_mut(usize::from(slot))? = bytes.code()?;
                    0
                }
            };
            last = slot;
            if predicted == 0 && room > 0 {
                room -= 1;
                self.backtrace.push(self.codes.get(usize::from(slot)).copied().unwrap_or_default());
                continue;
            }
            let frames = usize::from(predicted) + 1;
            cut |= frames > room;
            let kept = frames.min(room);
            room -= kept;
            let Self { codes, predictions, backtrace, .. } = self;
            let code = |slot: u16| codes.get(usize::from(slot)).copied().unwrap_or_default();
            let next = |slot: u16| predictions.get(usize::from(slot)).copied().unwrap_or(UNKNOWN);
            if kept > 0 {
                backtrace.push(code(slot));
            }
            backtrace.extend((1..kept).map(|_| {
                last = next(last);
                code(last)
            }));
            for _ in kept.max(1)..frames {
                last = next(last);
            }
        }
        Some(cut)
    }
}
