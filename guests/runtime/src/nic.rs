//! One virtio network card: rings of buffers of its own, smoltcp's view of them, and the exact count of what
//! went through. It knows nothing of addresses or roles.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::cell::RefCell;
use core::fmt;
use core::ptr::NonNull;
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use uni_guest::Tally;
use uni_guest::sources::LinkCounters;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::{InterruptStatus, SomeTransport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Buffers each way.
const RING_SLOTS: usize = 32;
/// An Ethernet frame without its checksum.
const FRAME_BYTES: usize = 1514;
/// The longest virtio-net header.
const MAX_HEADER_BYTES: usize = 12;
/// A frame and the longest virtio header, rounded up.
const BUFFER_BYTES: usize = 1536;

/// What crossed a link since boot. A frame counts with its Ethernet header, without checksum and virtio header.
#[derive(Debug, Default)]
pub(crate) struct NicCounters {
    /// Frames received, and frames handed to the device.
    pub(crate) carried: LinkCounters,
    /// Frames lost in the guest, either way: a ring or the device refused them.
    pub(crate) dropped_frames: Tally,
}

/// Addresses are the same for the CPU and the device: memory is mapped one to one.
pub(crate) struct OneToOne;

// SAFETY: DMA memory comes from the heap, page aligned and zeroed, and stays there until it is returned.
unsafe impl Hal for OneToOne {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let layout = dma_layout(pages);
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc::alloc::alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { alloc::alloc::handle_alloc_error(layout) };
        (memory.as_ptr().expose_provenance() as u64, memory)
    }

    unsafe fn dma_dealloc(_address: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the memory came from `dma_alloc` with as many pages.
        unsafe { alloc::alloc::dealloc(memory.as_ptr(), dma_layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _bytes: usize) -> NonNull<u8> {
        let pointer = core::ptr::with_exposed_provenance_mut(address as usize);
        NonNull::new(pointer).expect("no device lies at address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr().expose_provenance() as u64
    }

    unsafe fn unshare(_address: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

fn dma_layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).expect("queues are small")
}

type Buffer = Box<[u8]>;

/// The device and where each buffer is: with the device (by its token) or here.
struct Rings {
    device: VirtIONetRaw<OneToOne, SomeTransport<'static>, RING_SLOTS>,
    receiving: Vec<Option<Buffer>>,
    sending: Vec<Option<Sending>>,
    spare: Vec<Buffer>,
    header_bytes: usize,
    counters: &'static NicCounters,
}

impl Rings {
    fn offer_for_receiving(&mut self, mut buffer: Buffer) {
        // SAFETY: the buffer stays in `receiving` until the device has returned it.
        match unsafe { self.device.receive_begin(&mut buffer) } {
            Ok(token) => self.receiving[usize::from(token)] = Some(buffer),
            Err(_) => self.counters.dropped_frames.increment(),
        }
    }

    /// The next frame received, in its buffer, with its place there.
    fn take_received(&mut self) -> Option<Received> {
        while let Some(token) = self.device.poll_receive() {
            let mut buffer = self.receiving[usize::from(token)].take()?;
            // SAFETY: the buffer is the one offered under this token.
            match unsafe { self.device.receive_complete(token, &mut buffer) } {
                Ok((start, bytes)) if start + bytes <= buffer.len() => {
                    self.counters.carried.received(bytes);
                    return Some(Received { buffer, start, bytes });
                }
                _ => {
                    self.counters.dropped_frames.increment();
                    self.offer_for_receiving(buffer);
                }
            }
        }
        None
    }

    fn reclaim_sent(&mut self) {
        while let Some(token) = self.device.poll_transmit() {
            let Some(sent) = self.sending[usize::from(token)].take() else { return };
            // SAFETY: the bytes are those sent under this token.
            if unsafe { self.device.transmit_complete(token, &sent.buffer[..sent.bytes]) }.is_err() {
                self.counters.dropped_frames.increment();
            }
            self.spare.push(sent.buffer);
        }
    }

    fn can_send(&mut self) -> bool {
        self.reclaim_sent();
        self.device.can_send() && !self.spare.is_empty()
    }

    fn send(&mut self, frame: Sending) {
        let frame_bytes = frame.bytes - self.header_bytes;
        // SAFETY: the buffer stays in `sending`, untouched, until the device has returned it.
        match unsafe { self.device.transmit_begin(&frame.buffer[..frame.bytes]) } {
            Ok(token) => {
                self.sending[usize::from(token)] = Some(frame);
                self.counters.carried.transmitted(frame_bytes);
            }
            Err(_) => {
                self.counters.dropped_frames.increment();
                self.spare.push(frame.buffer);
            }
        }
    }
}

/// A buffer whose first `bytes` (virtio header and frame) are with the device.
struct Sending {
    buffer: Buffer,
    bytes: usize,
}

struct Received {
    buffer: Buffer,
    start: usize,
    bytes: usize,
}

/// A network card with all its buffers.
pub(crate) struct Nic {
    /// On the heap: moving a few KiB about would need a larger stack.
    rings: Box<RefCell<Rings>>,
}

impl fmt::Debug for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nic").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Nic {
    /// Starts the card, its receive ring full.
    pub(crate) fn new(transport: SomeTransport<'static>) -> Result<Self, virtio_drivers::Error> {
        let device = VirtIONetRaw::new(transport)?;
        let mut header = [0; MAX_HEADER_BYTES];
        let mut rings = Rings {
            header_bytes: device.fill_buffer_header(&mut header)?,
            device,
            receiving: (0..RING_SLOTS).map(|_| None).collect(),
            sending: (0..RING_SLOTS).map(|_| None).collect(),
            spare: (0..RING_SLOTS).map(|_| new_buffer()).collect(),
            counters: Box::leak(Box::default()),
        };
        for _ in 0..RING_SLOTS {
            rings.offer_for_receiving(new_buffer());
        }
        rings.device.enable_interrupts();
        Ok(Self { rings: Box::new(RefCell::new(rings)) })
    }

    pub(crate) fn mac_address(&self) -> [u8; 6] {
        self.rings.borrow().device.mac_address()
    }

    /// The card's counters, which live as long as the guest.
    pub(crate) fn counters(&self) -> &'static NicCounters {
        self.rings.borrow().counters
    }

    /// Withdraws the card's interrupt; true if there was one. To be called before looking at the rings, so that
    /// none is missed.
    pub(crate) fn acknowledge(&self) -> bool {
        self.rings.borrow_mut().device.ack_interrupt() != InterruptStatus::empty()
    }

    pub(crate) fn has_received(&self) -> bool {
        self.rings.borrow().device.poll_receive().is_some()
    }

    /// Whether the device takes no further frame before it has finished an earlier one.
    pub(crate) fn is_full(&self) -> bool {
        !self.rings.borrow_mut().can_send()
    }
}

fn new_buffer() -> Buffer {
    vec![0; BUFFER_BYTES].into_boxed_slice()
}

/// A received frame; its buffer goes back to the device when this ends.
pub(crate) struct RxToken<'a> {
    rings: &'a RefCell<Rings>,
    received: Received,
}

/// The right to send one frame.
pub(crate) struct TxToken<'a> {
    rings: &'a RefCell<Rings>,
}

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, use_frame: F) -> R {
        let Received { buffer, start, bytes } = self.received;
        let result = use_frame(&buffer[start..start + bytes]);
        self.rings.borrow_mut().offer_for_receiving(buffer);
        result
    }
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, frame_bytes: usize, fill: F) -> R {
        let (spare, start) = {
            let mut rings = self.rings.borrow_mut();
            (rings.spare.pop(), rings.header_bytes)
        };
        let mut buffer = spare.unwrap_or_else(new_buffer);
        let bytes = start + frame_bytes;
        // The header is all zero: no offloading is asked of the device.
        buffer[..start].fill(0);
        let result = fill(&mut buffer[start..bytes]);
        self.rings.borrow_mut().send(Sending { buffer, bytes });
        result
    }
}

impl phy::Device for Nic {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    /// A frame is taken only while an answer to it could be sent.
    fn receive(&mut self, _now: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        let rings = self.rings.get_mut();
        if !rings.can_send() {
            return None;
        }
        let received = rings.take_received()?;
        let rings = &self.rings;
        Some((RxToken { rings, received }, TxToken { rings }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<TxToken<'_>> {
        self.rings.get_mut().can_send().then_some(TxToken { rings: &self.rings })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities.max_burst_size = Some(RING_SLOTS);
        capabilities
    }
}
