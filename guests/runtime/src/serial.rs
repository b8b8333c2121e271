//! The console: COM1, polled, whole lines. It never blocks for long and never lets a control character of
//! some message through.

use crate::port::{in8, out8};
use core::fmt::{self, Write};

const DATA: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = 0x3f9;
const FIFO_CONTROL: u16 = 0x3fa;
const LINE_CONTROL: u16 = 0x3fb;
const LINE_STATUS: u16 = 0x3fd;
const TRANSMITTER_EMPTY: u8 = 0x20;
/// Polls of the line status before a byte is sent regardless: a dead port must not stop the guest.
const MAX_POLLS: u32 = 5_000_000;

/// Writes one line to the console: `console!("{} frames", n)`.
#[macro_export]
macro_rules! console {
    ($($argument:tt)*) => { $crate::console_line(::core::format_args!($($argument)*)) };
}

/// Sets the port to 8 data bits, FIFO on, no interrupts.
pub(crate) fn initialise() {
    // SAFETY: COM1 is at its fixed place on every PC-like machine and does no DMA.
    unsafe {
        out8(INTERRUPT_ENABLE, 0);
        out8(LINE_CONTROL, 3);
        out8(FIFO_CONTROL, 7);
    }
}

/// Writes `arguments` and a line end. Line feeds and other control characters inside become `?`, so one call
/// is one line whatever the text.
pub fn console_line(arguments: fmt::Arguments<'_>) {
    // Writing to the port cannot fail; a formatter that fails has written what it could.
    let _ = OneLine.write_fmt(arguments);
    send_byte(b'\n');
}

/// The port as it is, for writers that see to their lines themselves.
pub(crate) struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(send_byte);
        Ok(())
    }
}

struct OneLine;

impl Write for OneLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            send_byte(if byte.is_ascii_control() && byte != b'\t' { b'?' } else { byte });
        }
        Ok(())
    }
}

fn send_byte(byte: u8) {
    // SAFETY: COM1 as in `initialise`.
    unsafe {
        let mut polls = 0;
        while in8(LINE_STATUS) & TRANSMITTER_EMPTY == 0 && polls < MAX_POLLS {
            polls += 1;
        }
        out8(DATA, byte);
    }
}
