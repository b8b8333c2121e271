//! The Ethernet device behind the host's end of a management link.
//!
//! Owns QEMU's stream framing (a big-endian u32 length, then the frame) and two bounded queues of frames.
//! Never touches a socket: bytes come in by [`FrameDevice::feed`] and leave by [`FrameDevice::outgoing`].

use std::collections::VecDeque;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Frames waiting in either direction; more are dropped, as a network card does.
const QUEUE_FRAMES: usize = 256;
/// The longest frame a link may carry: an Ethernet frame, generously. QEMU itself allows 68 KiB.
const MAX_FRAME_BYTES: usize = 2048;
/// Bytes of the length in front of each frame.
const HEADER_BYTES: usize = 4;
/// MTU of the link, Ethernet header included.
const MTU_BYTES: usize = 1514;

/// The peer sent something that is not a frame; the stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of {length} bytes announced on the management link, where {MAX_FRAME_BYTES} is the most")]
pub(crate) struct FrameTooLong {
    length: usize,
}

/// A smoltcp device fed from a byte stream.
#[derive(Debug, Default)]
pub(crate) struct FrameDevice {
    partial: Vec<u8>,
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
    dropped_frames: u64,
}

impl FrameDevice {
    /// Takes bytes as they came from the stream; whole frames become receivable.
    ///
    /// # Errors
    /// [`FrameTooLong`] when the stream is out of step; the link must then be opened anew.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), FrameTooLong> {
        self.partial.extend_from_slice(bytes);
        let mut rest = self.partial.as_slice();
        while let Some((header, body)) = rest.split_first_chunk::<HEADER_BYTES>() {
            let length = u32::from_be_bytes(*header) as usize;
            if length > MAX_FRAME_BYTES {
                return Err(FrameTooLong { length });
            }
            let Some((frame, next)) = body.split_at_checked(length) else { break };
            if self.incoming.len() < QUEUE_FRAMES {
                self.incoming.push_back(frame.to_vec());
            } else {
                self.dropped_frames += 1;
            }
            rest = next;
        }
        let consumed = self.partial.len() - rest.len();
        self.partial.drain(..consumed);
        Ok(())
    }

    /// The next frame to write to the stream, its length in front.
    pub(crate) fn outgoing(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// Frames dropped because a queue was full.
    pub(crate) const fn dropped_frames(&self) -> u64 {
        self.dropped_frames
    }
}

impl Device for FrameDevice {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Rx(frame), Tx(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        (self.outgoing.len() < QUEUE_FRAMES).then_some(Tx(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU_BYTES;
        capabilities
    }
}

/// A received frame.
#[derive(Debug)]
pub(crate) struct Rx(Vec<u8>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a frame to send.
#[derive(Debug)]
pub(crate) struct Tx<'a>(&'a mut FrameDevice);

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut framed = vec![0; HEADER_BYTES + length];
        // smoltcp never asks for more than the MTU
        framed[..HEADER_BYTES].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        let result = f(&mut framed[HEADER_BYTES..]);
        if self.0.outgoing.len() < QUEUE_FRAMES {
            self.0.outgoing.push_back(framed);
        } else {
            // an answer to a received frame may come on top of a full queue
            self.0.dropped_frames += 1;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let stream = [framed(b"first"), framed(b""), framed(b"third")].concat();
        for cut in 0..stream.len() {
            let mut device = FrameDevice::default();
            device.feed(&stream[..cut]).unwrap();
            device.feed(&stream[cut..]).unwrap();
            let frames: Vec<_> = device.incoming.iter().map(Vec::as_slice).collect();
            assert_eq!(frames, [&b"first"[..], b"", b"third"], "cut at {cut}");
        }
    }

    #[test]
    fn a_stream_out_of_step_is_refused() {
        assert_eq!(FrameDevice::default().feed(&[0xff; 8]), Err(FrameTooLong { length: 0xffff_ffff }));
    }

    #[test]
    fn full_queues_drop_and_count() {
        let mut device = FrameDevice::default();
        for _ in 0..QUEUE_FRAMES + 3 {
            device.feed(&framed(b"x")).unwrap();
        }
        assert_eq!(device.dropped_frames(), 3);
        for _ in 0..QUEUE_FRAMES {
            device.transmit(Instant::ZERO).unwrap().consume(1, |_| ());
        }
        assert!(device.transmit(Instant::ZERO).is_none());
    }
}
