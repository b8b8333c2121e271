//! The monotonic clock: the time stamp counter, its rate measured once against the PIT and the LAPIC timer.
//! Where wall time comes from is [`crate::wall`]'s business; here it is only told.

use crate::interrupts;
use crate::port::{in8, out8, time_stamp};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PIT_HZ: u64 = 1_193_182;
const PIT_CHANNEL_0: u16 = 0x40;
const PIT_COMMAND: u16 = 0x43;
/// Channel 0, low then high byte, mode 2 (rate generator), reload 65536: wraps every 54.9 ms.
const PIT_RATE_GENERATOR: u8 = 0x34;
const PIT_LATCH_CHANNEL_0: u8 = 0;
const PIC_MASKS: [u16; 2] = [0x21, 0xa1];
/// PIT ticks to measure over: 10 ms.
const MEASURE_PIT_TICKS: u16 = 11_932;
const SAMPLES: u32 = 16;
const TRIES: u32 = 5;
/// The rate of the APIC timer in QEMU and KVM.
const EMULATED_LAPIC_KHZ: u64 = 1_000_000;
/// A measured rate this near the emulated one is the emulated one; further off, the PIT was misread.
const LAPIC_TRUST_KHZ: u64 = 20_000;
const LAPIC_GOOD_KHZ: u64 = 2_000;

static START: AtomicU64 = AtomicU64::new(0);
static TSC_KHZ: AtomicU64 = AtomicU64::new(0);
/// Wall time minus monotonic time.
static WALL_OFFSET_NS: AtomicU64 = AtomicU64::new(0);
static LAPIC_KHZ: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds per TSC tick, as a 32.32 fixed-point number.
static NANOSECONDS_PER_TICK: AtomicU64 = AtomicU64::new(0);

/// The three counters at one moment.
#[derive(Clone, Copy)]
struct Sample {
    tsc: u64,
    lapic: u32,
    pit: u16,
}

/// Measures the rates; takes 10 ms, more only where a measurement was disturbed.
pub(crate) fn initialise() {
    START.store(time_stamp(), Relaxed);
    start_pit();
    interrupts::start_count_down();
    for _ in 0..TRIES {
        let (tsc_khz, lapic_khz) = measure();
        let off_khz = lapic_khz.abs_diff(EMULATED_LAPIC_KHZ);
        let trusted = off_khz < LAPIC_TRUST_KHZ;
        LAPIC_KHZ.store(if trusted { EMULATED_LAPIC_KHZ } else { lapic_khz }, Relaxed);
        // The counters' ratio is exact even where the PIT was read late.
        let corrected_khz = tsc_khz * EMULATED_LAPIC_KHZ / lapic_khz.max(1);
        TSC_KHZ.store(if trusted { corrected_khz } else { tsc_khz }.max(1), Relaxed);
        if off_khz < LAPIC_GOOD_KHZ {
            break;
        }
    }
    interrupts::stop_count_down();
    NANOSECONDS_PER_TICK.store((1_000_000 << 32) / TSC_KHZ.load(Relaxed), Relaxed);
}

fn start_pit() {
    // SAFETY: the PIT and the PICs are at their fixed ports and touch no memory.
    unsafe {
        for port in PIC_MASKS {
            out8(port, 0xff);
        }
        out8(PIT_COMMAND, PIT_RATE_GENERATOR);
        out8(PIT_CHANNEL_0, 0);
        out8(PIT_CHANNEL_0, 0);
    }
}

/// Rates of TSC and LAPIC timer in kHz, over 10 ms of the PIT.
fn measure() -> (u64, u64) {
    let first = sample();
    let mut last = sample();
    while first.pit.wrapping_sub(last.pit) < MEASURE_PIT_TICKS {
        last = sample();
    }
    let pit_ticks = u64::from(first.pit.wrapping_sub(last.pit));
    let khz = |ticks: u64| ticks * PIT_HZ / pit_ticks / 1000;
    (khz(last.tsc - first.tsc), khz(u64::from(first.lapic.wrapping_sub(last.lapic))))
}

/// A sample is as good as the time it took: the tightest of a few.
fn sample() -> Sample {
    let mut best = (u64::MAX, Sample { tsc: 0, lapic: 0, pit: 0 });
    for _ in 0..SAMPLES {
        let before = time_stamp();
        let lapic = interrupts::count_down();
        // SAFETY: the PIT, as above.
        unsafe { out8(PIT_COMMAND, PIT_LATCH_CHANNEL_0) };
        let took = time_stamp() - before;
        // SAFETY: the PIT, as above.
        let pit = unsafe { u16::from_le_bytes([in8(PIT_CHANNEL_0), in8(PIT_CHANNEL_0)]) };
        if took < best.0 {
            best = (took, Sample { tsc: before + took / 2, lapic, pit });
        }
    }
    best.1
}

/// Nanoseconds since boot. Stands still while the machine is stopped by its monitor.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let ticks = time_stamp().saturating_sub(START.load(Relaxed));
    ((u128::from(ticks) * u128::from(NANOSECONDS_PER_TICK.load(Relaxed))) >> 32) as u64
}

/// Nanoseconds since 1970 (UTC); since boot on a machine without a real-time clock.
#[must_use]
pub fn wall_ns() -> u64 {
    WALL_OFFSET_NS.load(Relaxed) + monotonic_ns()
}

/// Sets what wall time is ahead of monotonic time.
pub(crate) fn set_wall_offset_ns(offset_ns: u64) {
    WALL_OFFSET_NS.store(offset_ns, Relaxed);
}

/// Rate of the time stamp counter in kHz, as measured.
#[must_use]
pub fn time_stamp_khz() -> u64 {
    TSC_KHZ.load(Relaxed)
}

/// Sleeps until an interrupt or until `deadline_ns` of [`monotonic_ns`] (`None`: no limit); returns the causes.
/// The timer holds 4.29 s at most: a later deadline ends the sleep early.
pub(crate) fn sleep_until(deadline_ns: Option<u64>) -> u32 {
    let Some(deadline_ns) = deadline_ns else { return interrupts::sleep(None) };
    let left_ns = deadline_ns.saturating_sub(monotonic_ns());
    let ticks = u128::from(left_ns) * u128::from(LAPIC_KHZ.load(Relaxed)) / 1_000_000;
    interrupts::sleep(Some(u32::try_from(ticks).unwrap_or(u32::MAX).max(1)))
}
