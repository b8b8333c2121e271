//! What a file is that a VM shall boot: a PVH kernel, a bootable raw disk, or neither and why.
//!
//! Owns the detection. Reads a bounded part of the file, whatever its headers claim; never changes it and
//! never follows what it says beyond [`MAX_NOTES_BYTES`]. Formats: System V ABI (ELF), Xen `elfnote.h` (type
//! 18, PHYS32_ENTRY), Solo5's notes, the boot signature of a PC boot sector.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The most bytes of one note segment that are looked at.
pub const MAX_NOTES_BYTES: usize = 64 * 1024;
/// The most program headers that are looked at.
const MAX_PROGRAM_HEADERS: usize = 256;
const SECTOR: u64 = 512;
const PT_NOTE: u32 = 4;
const XEN_PHYS32_ENTRY: u32 = 18;

/// An image that can be booted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The file, as given.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub bytes: u64,
}

/// How an image boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An ELF kernel with a PVH entry note: `-kernel`.
    PvhElf,
    /// A raw disk with a boot sector.
    RawDisk,
}

/// Why a file cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such file.
    #[error("image {}: no such file; give the path of a PVH ELF kernel or a raw disk image", .0.display())]
    Missing(PathBuf),
    /// A directory, socket, device...
    #[error("image {}: is a {found}, not a regular file", path.display())]
    NotAFile {
        /// The path given.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// No bytes.
    #[error("image {}: the file is empty", .0.display())]
    Empty(PathBuf),
    /// The kernel refused to read it.
    #[error("image {}: cannot be read", path.display())]
    Unreadable {
        /// The path given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Readable, but nothing that boots here.
    #[error("image {}: not bootable: {fault}", path.display())]
    NotBootable {
        /// The path given.
        path: PathBuf,
        /// What was found and what to do.
        fault: Fault,
    },
}

/// What was found in a file that does not boot, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An ELF file without the note.
    #[error(
        "an ELF file ({class}-bit, {machine}{}) without a PVH entry note (Xen, type 18); {}",
        found_notes(notes),
        advice(notes)
    )]
    NoPvhNote {
        /// 32 or 64.
        class: u8,
        /// The processor by name.
        machine: String,
        /// `owner type` of each note found, at most eight.
        notes: Vec<String>,
    },
    /// A PVH kernel for another processor.
    #[error("a PVH kernel for {0}; build it for x86-64")]
    OtherMachine(String),
    /// An ELF file that ends or contradicts itself.
    #[error("a damaged ELF file ({0}); build or copy it again")]
    DamagedElf(&'static str),
    /// A known format that is not a raw disk.
    #[error("{format}; {advice}")]
    OtherFormat {
        /// What it is.
        format: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// Not whole sectors.
    #[error("{bytes} bytes are neither an ELF file nor whole 512-byte sectors of a raw disk")]
    NotSectors {
        /// The file's length.
        bytes: u64,
    },
    /// Whole sectors, but no boot signature.
    #[error(
        "a raw disk without boot signature (55 AA at byte 510 of the first sector); install a boot loader"
    )]
    NoBootSignature,
}

fn found_notes(notes: &[String]) -> String {
    if notes.is_empty() { ", no notes".to_owned() } else { format!(", notes: {}", notes.join(", ")) }
}

fn advice(notes: &[String]) -> &'static str {
    if notes.iter().any(|note| note.starts_with("Solo5")) {
        "it is a Solo5 unikernel: build it for the virtio target with a PVH note, or run it with a Solo5 tender"
    } else {
        "link the unikernel with the PVH note, as the guests of this project do"
    }
}

/// Finds out what the file at `path` is.
///
/// # Errors
/// One message that says what was found and what to do.
pub fn detect(path: &Path) -> Result<Image, ImageError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ImageError::Missing(path.to_owned()),
        _ => ImageError::Unreadable { path: path.to_owned(), source },
    };
    check_kind(path, &std::fs::metadata(path).map_err(unreadable)?)?;
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    check_kind(path, &metadata)?;
    let bytes = metadata.len();
    if bytes == 0 {
        return Err(ImageError::Empty(path.to_owned()));
    }
    let kind = match classify(&file, bytes) {
        Ok(kind) => kind,
        Err(Refusal::Io(source)) => return Err(unreadable(source)),
        Err(Refusal::Fault(fault)) => return Err(ImageError::NotBootable { path: path.to_owned(), fault }),
    };
    Ok(Image { path: path.to_owned(), kind, bytes })
}

fn check_kind(path: &Path, metadata: &std::fs::Metadata) -> Result<(), ImageError> {
    let found = match metadata.file_type() {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "directory",
        _ => "device, pipe or socket",
    };
    Err(ImageError::NotAFile { path: path.to_owned(), found })
}

enum Refusal {
    Io(io::Error),
    Fault(Fault),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Something with bytes at offsets: a file, or a test's slice.
trait Source {
    /// Reads up to `len` bytes at `offset`; fewer only at the end.
    fn bytes_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>>;
}

impl Source for File {
    fn bytes_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.read_at(&mut bytes[filled..], offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An offset beyond what the kernel can count is beyond the end of every file.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

fn classify(source: &impl Source, bytes: u64) -> Result<Kind, Refusal> {
    let head = source.bytes_at(0, 1024)?;
    if head.starts_with(b"\x7fELF") {
        return classify_elf(source, &head);
    }
    if let Some(fault) = other_format(&head) {
        return Err(fault.into());
    }
    if bytes < SECTOR || !bytes.is_multiple_of(SECTOR) {
        return Err(Fault::NotSectors { bytes }.into());
    }
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
        return Err(Fault::NoBootSignature.into());
    }
    Ok(Kind::RawDisk)
}

fn other_format(head: &[u8]) -> Option<Fault> {
    let (format, advice) = if head.starts_with(b"QFI\xfb") {
        ("a qcow2 disk image", "convert it: qemu-img convert -O raw IN OUT")
    } else if head.starts_with(b"KDMV") {
        ("a VMDK disk image", "convert it: qemu-img convert -O raw IN OUT")
    } else if head.get(0x202..0x206) == Some(b"HdrS") {
        ("a compressed Linux kernel (bzImage)", "use an uncompressed vmlinux that has a PVH note")
    } else if head.starts_with(&[0x1f, 0x8b]) {
        ("a gzip file", "unpack it first")
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        ("a zstd file", "unpack it first")
    } else if head.starts_with(b"#!") {
        ("a script", "give the image that it starts")
    } else {
        return None;
    };
    Some(Fault::OtherFormat { format, advice })
}

/// The few header fields that matter, in either class.
struct Header {
    class: u8,
    machine: u16,
    program_headers_at: u64,
    entry_len: u64,
    entries: usize,
}

fn classify_elf(source: &impl Source, head: &[u8]) -> Result<Kind, Refusal> {
    let (class, read) = match (head.get(4), head.get(5)) {
        (Some(class @ (1 | 2)), Some(1)) => (*class, Reader { big_endian: false }),
        (Some(class @ (1 | 2)), Some(2)) => (*class, Reader { big_endian: true }),
        _ => return Err(Fault::DamagedElf("its class or byte order is unknown").into()),
    };
    let header = read.header(head, class).ok_or(Fault::DamagedElf("it ends inside its header"))?;
    let notes = read.notes(source, &header)?;
    let machine = machine_name(header.machine);
    if !notes.iter().any(|(owner, kind)| owner == "Xen" && *kind == XEN_PHYS32_ENTRY) {
        let class = if class == 1 { 32 } else { 64 };
        return Err(Fault::NoPvhNote { class, machine, notes: describe(&notes) }.into());
    }
    match header.machine {
        3 | 62 if !read.big_endian => Ok(Kind::PvhElf),
        _ => Err(Fault::OtherMachine(machine).into()),
    }
}

/// ELF `e_machine` by name, as in the System V ABI's list.
fn machine_name(machine: u16) -> String {
    match machine {
        3 => "x86".to_owned(),
        40 => "ARM".to_owned(),
        62 => "x86-64".to_owned(),
        183 => "AArch64".to_owned(),
        243 => "RISC-V".to_owned(),
        21 => "PowerPC 64".to_owned(),
        22 => "S/390".to_owned(),
        other => format!("machine {other}"),
    }
}

fn describe(notes: &[(String, u32)]) -> Vec<String> {
    notes.iter().take(8).map(|(owner, kind)| format!("{owner} {}", note_name(owner, *kind))).collect()
}

fn note_name(owner: &str, kind: u32) -> String {
    match (owner, kind) {
        ("Solo5", 0x3154_464d) => "manifest".to_owned(),
        ("Solo5", 0x3149_4241) => "ABI".to_owned(),
        ("GNU", 1) => "ABI tag".to_owned(),
        ("GNU", 3) => "build id".to_owned(),
        ("GNU", 5) => "property".to_owned(),
        _ => format!("type {kind}"),
    }
}

#[derive(Clone, Copy)]
struct Reader {
    big_endian: bool,
}

impl Reader {
    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let raw = bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u16::from_be_bytes(*raw) } else { u16::from_le_bytes(*raw) })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let raw = bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u32::from_be_bytes(*raw) } else { u32::from_le_bytes(*raw) })
    }

    /// A word of the class's width.
    fn word(self, bytes: &[u8], at: usize, class: u8) -> Option<u64> {
        if class == 1 {
            return self.u32(bytes, at).map(u64::from);
        }
        let raw = bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u64::from_be_bytes(*raw) } else { u64::from_le_bytes(*raw) })
    }

    fn header(self, head: &[u8], class: u8) -> Option<Header> {
        let (table_at, sizes_at) = if class == 1 { (28, 42) } else { (32, 54) };
        Some(Header {
            class,
            machine: self.u16(head, 18)?,
            program_headers_at: self.word(head, table_at, class)?,
            entry_len: u64::from(self.u16(head, sizes_at)?),
            entries: usize::from(self.u16(head, sizes_at + 2)?),
        })
    }

    fn notes(self, source: &impl Source, header: &Header) -> Result<Vec<(String, u32)>, Refusal> {
        let mut notes = Vec::new();
        for index in 0..header.entries.min(MAX_PROGRAM_HEADERS) {
            let offset = header.program_headers_at.saturating_add(index as u64 * header.entry_len);
            let entry = source.bytes_at(offset, 56)?;
            let Some(segment) = self.note_segment(&entry, header.class) else { continue };
            let len = usize::try_from(segment.len).map_or(MAX_NOTES_BYTES, |len| len.min(MAX_NOTES_BYTES));
            let bytes = source.bytes_at(segment.offset, len)?;
            self.parse_notes(&bytes, segment.align, &mut notes);
        }
        Ok(notes)
    }

    fn note_segment(self, entry: &[u8], class: u8) -> Option<NoteSegment> {
        let (offset_at, len_at, align_at) = if class == 1 { (4, 16, 28) } else { (8, 32, 48) };
        let segment = NoteSegment {
            offset: self.word(entry, offset_at, class)?,
            len: self.word(entry, len_at, class)?,
            align: if self.word(entry, align_at, class)? == 8 { 8 } else { 4 },
        };
        (self.u32(entry, 0)? == PT_NOTE).then_some(segment)
    }

    fn parse_notes(self, bytes: &[u8], align: usize, notes: &mut Vec<(String, u32)>) {
        let mut rest = bytes;
        while let Some((note, used)) = self.parse_note(rest, align) {
            notes.push(note);
            rest = rest.get(used..).unwrap_or_default();
        }
    }

    /// One note and how many bytes it takes; nothing once the bytes run out.
    fn parse_note(self, bytes: &[u8], align: usize) -> Option<((String, u32), usize)> {
        let name_len = usize::try_from(self.u32(bytes, 0)?).ok()?;
        let data_len = usize::try_from(self.u32(bytes, 4)?).ok()?;
        let kind = self.u32(bytes, 8)?;
        let name_end = 12usize.checked_add(name_len)?;
        let name = bytes.get(12..name_end)?;
        let data_at = name_end.checked_next_multiple_of(align)?;
        let data_end = data_at.checked_add(data_len)?;
        bytes.get(data_at.min(bytes.len())..data_end)?;
        Some(((printable(name), kind), data_end.checked_next_multiple_of(align)?))
    }
}

struct NoteSegment {
    offset: u64,
    len: u64,
    align: usize,
}

/// A note owner's name without its NUL, bounded and safe to print.
fn printable(name: &[u8]) -> String {
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    name.iter().take(32).map(|&b| if b.is_ascii_graphic() { char::from(b) } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::elf;

    impl Source for &[u8] {
        fn bytes_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
            Ok(self[start..start.saturating_add(len).min(self.len())].to_vec())
        }
    }

    fn classify_bytes(bytes: &[u8]) -> Result<Kind, Fault> {
        classify(&bytes, bytes.len() as u64).map_err(|refusal| match refusal {
            Refusal::Fault(fault) => fault,
            Refusal::Io(error) => panic!("{error}"),
        })
    }

    fn boot_sector() -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    #[test]
    fn a_kernel_with_the_xen_note_boots() {
        assert_eq!(classify_bytes(&elf::exit_image(1)), Ok(Kind::PvhElf));
    }

    #[test]
    fn whole_sectors_with_a_signature_are_a_disk() {
        assert_eq!(classify_bytes(&boot_sector()), Ok(Kind::RawDisk));
        assert_eq!(classify_bytes(&[0; 1024]), Err(Fault::NoBootSignature));
        assert_eq!(classify_bytes(&boot_sector()[..511]), Err(Fault::NotSectors { bytes: 511 }));
        assert_eq!(classify_bytes(b"hello"), Err(Fault::NotSectors { bytes: 5 }));
    }

    #[test]
    fn an_elf_without_the_note_is_described() {
        let mut image = elf::exit_image(1);
        let note = image.windows(4).position(|w| w == b"Xen\0").unwrap();
        image[note - 4..note].copy_from_slice(&4u32.to_le_bytes());
        let message = classify_bytes(&image).unwrap_err().to_string();
        assert!(message.contains("64-bit, x86-64, notes: Xen type 4"), "{message}");
        image[18..20].copy_from_slice(&183u16.to_le_bytes());
        assert!(classify_bytes(&image).unwrap_err().to_string().contains("AArch64"));
    }

    #[test]
    fn a_solo5_image_is_called_so() {
        let note = {
            let mut note = Vec::new();
            for word in [6u32, 8, 0x3154_464d] {
                note.extend_from_slice(&word.to_le_bytes());
            }
            note.extend_from_slice(b"Solo5\0\0\0\0\0\0\0\0\0\0\0");
            note
        };
        let mut image = elf::pvh_image(&note);
        let at = image.len() - note.len();
        image[64 + 56 + 8..64 + 56 + 16].copy_from_slice(&(at as u64).to_le_bytes());
        image[64 + 56 + 32..64 + 56 + 40].copy_from_slice(&(note.len() as u64).to_le_bytes());
        let message = classify_bytes(&image).unwrap_err().to_string();
        assert!(message.contains("Solo5 manifest") && message.contains("tender"), "{message}");
    }

    #[test]
    fn a_pvh_kernel_for_another_processor_is_refused() {
        let mut image = elf::exit_image(1);
        image[18..20].copy_from_slice(&183u16.to_le_bytes());
        assert_eq!(classify_bytes(&image), Err(Fault::OtherMachine("AArch64".to_owned())));
    }

    #[test]
    fn known_formats_get_advice() {
        let mut kernel = boot_sector();
        kernel.resize(1024, 0);
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(classify_bytes(&kernel).unwrap_err().to_string().contains("vmlinux"));
        assert!(classify_bytes(b"QFI\xfb").unwrap_err().to_string().contains("qemu-img"));
    }

    #[test]
    fn files_that_are_no_images_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(matches!(detect(&at("missing")), Err(ImageError::Missing(_))));
        assert!(matches!(detect(dir.path()), Err(ImageError::NotAFile { found: "directory", .. })));
        assert!(matches!(detect(Path::new("/dev/null")), Err(ImageError::NotAFile { .. })));
        std::fs::write(at("empty"), b"").unwrap();
        assert!(matches!(detect(&at("empty")), Err(ImageError::Empty(_))));
        std::fs::write(at("kernel"), elf::exit_image(0)).unwrap();
        assert_eq!(detect(&at("kernel")).unwrap().kind, Kind::PvhElf);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_detection_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = classify_bytes(&bytes);
        }

        #[test]
        fn no_damage_to_a_kernel_makes_the_detection_panic(
            damage in proptest::collection::vec((0usize..210, any::<u8>()), 1..12), cut in 0usize..210,
        ) {
            let mut image = elf::exit_image(1);
            for (at, byte) in damage {
                if let Some(target) = image.get_mut(at) {
                    *target = byte;
                }
            }
            let _ = classify_bytes(&image);
            let _ = classify_bytes(&image[..cut.min(image.len())]);
        }
    }
}
