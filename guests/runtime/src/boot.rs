//! From the boot loader's hands to Rust: reads the PVH start info (Xen's `hvm_start_info`, as QEMU fills it),
//! gives the heap its memory and unmaps page 0. Runs once, before anything allocates.

use crate::{clock, heap, interrupts, serial};
use core::arch::{asm, global_asm};
use core::ffi::{CStr, c_char};

global_asm!(include_str!("boot.s"), options(att_syntax, raw));
global_asm!(include_str!("trap.s"), options(att_syntax, raw));
global_asm!(include_str!("mem.s"), options(att_syntax, raw));

const START_INFO_MAGIC: u32 = 0x336e_c578;
const MEMORY_TYPE_RAM: u32 = 1;
const PAGE_BYTES: u64 = 4096;
/// QEMU's own limit for `-append`.
const MAX_COMMAND_LINE_BYTES: usize = 4095;
/// More modules or map entries than any loader makes: a bound for a damaged count.
const MAX_ENTRIES: u32 = 128;

#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct MemoryRange {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

#[repr(C)]
struct Module {
    address: u64,
    size: u64,
    command_line: u64,
    reserved: u64,
}

unsafe extern "C" {
    static __image_end: u8;
    static mut p1_table: [u64; 512];
    fn guest_main() -> !;
}

static mut COMMAND_LINE: [u8; MAX_COMMAND_LINE_BYTES] = [0; MAX_COMMAND_LINE_BYTES];
static mut COMMAND_LINE_BYTES: usize = 0;

/// Called by `boot.s` on the main stack with interrupts off.
#[unsafe(no_mangle)]
extern "C" fn guest_boot(start_info: usize) -> ! {
    serial::initialise();
    interrupts::initialise();
    // SAFETY: the loader put the start info there, and page 0 is still mapped.
    let info = unsafe { &*core::ptr::with_exposed_provenance::<StartInfo>(start_info) };
    assert!(info.magic == START_INFO_MAGIC && info.version >= 1, "no PVH start info with a memory map");
    // SAFETY: runs once; the loader's tables are where the start info says.
    unsafe {
        copy_command_line(info);
        let (start, end) = heap_range(info);
        heap::initialise(start, end);
        unmap_null_page();
    }
    clock::initialise();
    // SAFETY: the symbol is defined by `entry!` in the guest.
    unsafe { guest_main() }
}

/// The words given to the guest (QEMU's `-append`), at most 4095 bytes; bytes that are not UTF-8 end it.
pub(crate) fn command_line() -> &'static str {
    let start = (&raw const COMMAND_LINE).cast::<u8>();
    // SAFETY: written once, before any caller runs, and no longer than the array.
    let bytes = unsafe { core::slice::from_raw_parts(start, COMMAND_LINE_BYTES) };
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// The command line may lie in page 0, which is about to go, or in memory the heap will own.
unsafe fn copy_command_line(info: &StartInfo) {
    if info.command_line == 0 {
        return;
    }
    // SAFETY: the loader ends it with a zero byte; nobody else refers to the statics yet.
    unsafe {
        let text = CStr::from_ptr(core::ptr::with_exposed_provenance::<c_char>(info.command_line as usize));
        let bytes = text.to_bytes();
        let kept = bytes.len().min(MAX_COMMAND_LINE_BYTES);
        let destination = (&raw mut COMMAND_LINE).cast::<u8>();
        destination.copy_from_nonoverlapping(bytes.as_ptr(), kept);
        COMMAND_LINE_BYTES = kept;
    }
}

/// From the image's end to the end of the RAM it lies in, cut below any module.
unsafe fn heap_range(info: &StartInfo) -> (usize, usize) {
    let start = ((&raw const __image_end).expose_provenance() as u64).next_multiple_of(PAGE_BYTES);
    // SAFETY: the caller vouches for the loader's tables.
    let (ranges, modules) = unsafe {
        (
            table::<MemoryRange>(info.memory_map, info.memory_map_entries),
            table::<Module>(info.modules, info.module_count),
        )
    };
    let ram = ranges.iter().find(|range| {
        range.kind == MEMORY_TYPE_RAM && (range.address..range.address + range.size).contains(&start)
    });
    let ram_end = ram.map_or(start, |range| range.address + range.size);
    let end = modules.iter().map(|module| module.address).filter(|at| *at >= start).fold(ram_end, u64::min);
    let end = end / PAGE_BYTES * PAGE_BYTES;
    assert!(end > start, "no memory left for a heap: give the guest more");
    (start as usize, end as usize)
}

unsafe fn table<T>(address: u64, count: u32) -> &'static [T] {
    if address == 0 {
        return &[];
    }
    let first = core::ptr::with_exposed_provenance::<T>(address as usize);
    // SAFETY: the caller vouches for the address and the count, which is bounded here.
    unsafe { core::slice::from_raw_parts(first, count.min(MAX_ENTRIES) as usize) }
}

/// From here on a null pointer faults.
unsafe fn unmap_null_page() {
    // SAFETY: the table maps the first 2 MiB by 4 KiB pages; nothing in page 0 is used any more.
    unsafe {
        p1_table[0] = 0;
        asm!("invlpg [{}]", in(reg) 0_usize, options(nostack, preserves_flags));
    }
}
