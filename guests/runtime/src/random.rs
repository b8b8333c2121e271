//! Random numbers for ports and sequence numbers: RDRAND where the CPU has it, else a mix of the time stamp
//! counter. Never for keys: without RDRAND the result can be guessed.

use crate::port::time_stamp;
use core::arch::asm;
use core::arch::x86_64::__cpuid;

const CPUID_FEATURES: u32 = 1;
const RDRAND_BIT: u32 = 1 << 30;
/// Intel's advice: ten failures in a row mean a broken generator.
const RDRAND_TRIES: u32 = 10;

/// A number for seeding ports and sequence numbers.
#[must_use]
pub fn random_seed() -> u64 {
    if __cpuid(CPUID_FEATURES).ecx & RDRAND_BIT != 0 {
        for _ in 0..RDRAND_TRIES {
            if let Some(value) = rdrand() {
                return value;
            }
        }
    }
    mix(time_stamp())
}

fn rdrand() -> Option<u64> {
    let (value, valid): (u64, u8);
    // SAFETY: the CPU has the instruction (asked by the caller); it touches no memory.
    unsafe { asm!("rdrand {0}", "setc {1}", out(reg) value, out(reg_byte) valid, options(nomem, nostack)) }
    (valid == 1).then_some(value)
}

/// The finaliser of SplitMix64: near counters give far numbers.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
