//! The CMOS real-time clock: one consistent reading in whole seconds, UTC. Ports as in the MC146818 and its
//! descendants; the century is taken as 20.

use crate::clock::monotonic_ns;
use crate::port::{in8, out8};
use crate::wall::{Reading, unix_seconds};

const INDEX_PORT: u16 = 0x70;
const DATA_PORT: u16 = 0x71;
/// Keeps the non-maskable interrupt off while a register is chosen.
const NMI_OFF: u8 = 0x80;
const SECONDS: u8 = 0;
const MINUTES: u8 = 2;
const HOURS: u8 = 4;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const STATUS_A: u8 = 0xa;
const STATUS_B: u8 = 0xb;
const STATUS_D: u8 = 0xd;
const UPDATE_IN_PROGRESS: u8 = 0x80;
const BINARY: u8 = 4;
const VALID: u8 = 0x80;
/// What a port reads where no device is.
const NOBODY: u8 = 0xff;
/// Polls for a quiet moment; an update takes 2 ms at most.
const MAX_POLLS: u32 = 100_000;

/// One reading, or `None` without a working clock.
pub(crate) fn read() -> Option<Reading> {
    let validity = register(STATUS_D);
    if validity == NOBODY || validity & VALID == 0 {
        return None;
    }
    for _ in 0..MAX_POLLS {
        let before_ns = monotonic_ns();
        if register(STATUS_A) & UPDATE_IN_PROGRESS != 0 {
            continue;
        }
        let first = date_registers();
        if first == date_registers() {
            let second = unix_seconds(first, register(STATUS_B) & BINARY != 0)?;
            return Some(Reading { second, before_ns, after_ns: monotonic_ns() });
        }
    }
    None
}

fn date_registers() -> [u8; 6] {
    [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR].map(register)
}

fn register(index: u8) -> u8 {
    // SAFETY: the clock's ports are fixed and touch no memory; the registers read have no side effect.
    unsafe {
        out8(INDEX_PORT, index | NMI_OFF);
        in8(DATA_PORT)
    }
}
