//! A tiny PVH kernel made in code: what the accelerator probe boots, and what tests boot.
//!
//! Owns the writing of such images only; reading images is for `image`.

/// Where the image is loaded, in bytes of guest memory.
const LOAD_ADDRESS: u64 = 0x10_0000;
const HEADER_LEN: usize = 64;
const PROGRAM_HEADER_LEN: usize = 56;
const NOTE_LEN: usize = 24;
const NOTE_OFFSET: usize = HEADER_LEN + 2 * PROGRAM_HEADER_LEN;
const CODE_OFFSET: usize = NOTE_OFFSET + NOTE_LEN;

/// Writes an ELF64 x86-64 executable with the PVH note (Xen, type 18: PHYS32_ENTRY) that QEMU's `-kernel`
/// boots. `code` starts in 32-bit protected mode without paging; it must be position independent.
#[must_use]
pub fn pvh_image(code: &[u8]) -> Vec<u8> {
    let entry = LOAD_ADDRESS + CODE_OFFSET as u64;
    let total = CODE_OFFSET + code.len();
    let mut image = Vec::with_capacity(total);
    push_header(&mut image, entry);
    push_segment(&mut image, &Segment { kind: 1, flags: 7, offset: 0, len: total, align: 0x1000 });
    push_segment(&mut image, &Segment { kind: 4, flags: 4, offset: NOTE_OFFSET, len: NOTE_LEN, align: 4 });
    push_note(&mut image, entry);
    image.extend_from_slice(code);
    image
}

/// A kernel that does nothing but end with `code` by the isa-debug-exit device at 0xf4, so QEMU's exit status
/// is `code * 2 + 1`.
#[must_use]
pub fn exit_image(code: u8) -> Vec<u8> {
    // mov dx, 0xf4; mov al, code; out dx, al; hlt; jmp to the hlt
    pvh_image(&[0x66, 0xba, 0xf4, 0x00, 0xb0, code, 0xee, 0xf4, 0xeb, 0xfd])
}

struct Segment {
    kind: u32,
    flags: u32,
    offset: usize,
    len: usize,
    align: u64,
}

fn push_header(image: &mut Vec<u8>, entry: u64) {
    image.extend_from_slice(b"\x7fELF\x02\x01\x01");
    image.resize(16, 0);
    push_u16s(image, &[2, 62]); // executable, x86-64
    push_u32s(image, &[1]);
    push_u64s(image, &[entry, HEADER_LEN as u64, 0]);
    push_u32s(image, &[0]);
    push_u16s(image, &[HEADER_LEN as u16, PROGRAM_HEADER_LEN as u16, 2, 0, 0, 0]);
}

fn push_segment(image: &mut Vec<u8>, segment: &Segment) {
    let Segment { kind, flags, offset, len, align } = *segment;
    let address = LOAD_ADDRESS + offset as u64;
    push_u32s(image, &[kind, flags]);
    push_u64s(image, &[offset as u64, address, address, len as u64, len as u64, align]);
}

fn push_note(image: &mut Vec<u8>, entry: u64) {
    push_u32s(image, &[4, 8, 18]);
    image.extend_from_slice(b"Xen\0");
    push_u64s(image, &[entry]);
}

fn push_u16s(image: &mut Vec<u8>, values: &[u16]) {
    values.iter().for_each(|value| image.extend_from_slice(&value.to_le_bytes()));
}

fn push_u32s(image: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|value| image.extend_from_slice(&value.to_le_bytes()));
}

fn push_u64s(image: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| image.extend_from_slice(&value.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_the_offsets_promise() {
        let image = exit_image(5);
        assert_eq!(&image[NOTE_OFFSET + 12..NOTE_OFFSET + 16], b"Xen\0");
        assert_eq!(image[CODE_OFFSET..].len(), 10);
    }
}
