//! The header of a packet. Owns the checks that need nothing but its bytes.

use super::read::Bytes;
use super::{FaultKind, MAGIC};

/// Bytes up to and with the version.
const VERSION_END: usize = 30;
/// Length of a header up to version 2, in bytes.
const BYTES: usize = 66;
/// The field that version 3 has more, in bytes.
const DOMAIN_BYTES: usize = 2;
/// The newest version.
const NEWEST: u16 = 3;

/// What a packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketHeader {
    /// Its length with the header, in bytes.
    pub size_bytes: usize,
    /// The header's length, in bytes.
    pub header_bytes: usize,
    /// Its events are not before this, in microseconds since the Unix epoch.
    pub begin_micros: u64,
    /// Its events are not after this.
    pub end_micros: u64,
    /// The format's version, 1 to 3.
    pub version: u16,
    /// The process that wrote it.
    pub pid: u64,
    /// The domain that wrote it; 0 before version 3.
    pub domain: u16,
    /// A slot of the writer's cache with its prediction and its code, for a check.
    pub verifier: (u16, u16, u64),
    /// The id that the first allocation in it gets.
    pub first_id: u64,
    /// That id and the number of allocations in it.
    pub next_id: u64,
}

/// What bytes at the beginning of a packet are.
pub(super) enum Parsed {
    /// A well-formed header.
    Packet(PacketHeader),
    /// Not enough of one: so many are needed.
    Needs(usize),
    /// None.
    Wrong(FaultKind),
}

/// Reads the header at the beginning of `bytes`.
pub(super) fn parse(bytes: &[u8], limit_bytes: usize) -> Parsed {
    let magic = MAGIC.to_le_bytes();
    if bytes.iter().zip(magic).any(|(byte, expected)| *byte != expected) {
        return Parsed::Wrong(FaultKind::NoPacket);
    }
    let Some(&[low, high]) = bytes.get(VERSION_END - 2..VERSION_END) else {
        return Parsed::Needs(VERSION_END);
    };
    let version = u16::from_le_bytes([low, high]);
    if version > NEWEST {
        return Parsed::Wrong(FaultKind::Version(version));
    }
    let header_bytes = if version < NEWEST { BYTES } else { BYTES + DOMAIN_BYTES };
    match read(bytes, version, header_bytes) {
        Some((_, bits)) if !(header_bytes..=limit_bytes).contains(&size(bits)) => {
            Parsed::Wrong(FaultKind::PacketSize(bits))
        }
        Some((header, _)) if header.begin_micros > header.end_micros => Parsed::Wrong(FaultKind::PacketTimes),
        Some((header, _)) if header.first_id > header.next_id => Parsed::Wrong(FaultKind::PacketIds),
        Some((header, _)) => Parsed::Packet(header),
        None => Parsed::Needs(header_bytes),
    }
}

const fn size(bits: u32) -> usize {
    (bits / 8) as usize
}

fn read(bytes: &[u8], version: u16, header_bytes: usize) -> Option<(PacketHeader, u32)> {
    let mut bytes = Bytes(bytes);
    bytes.u32()?;
    let bits = bytes.u32()?;
    let (begin_micros, end_micros) = (bytes.u64()?, bytes.u64()?);
    bytes.u32()?;
    bytes.u16()?;
    let pid = bytes.u64()?;
    let domain = if version < NEWEST { 0 } else { bytes.u16()? };
    let verifier = (bytes.u16()?, bytes.u16()?, bytes.code()?);
    let (first_id, next_id) = (bytes.u64()?, bytes.u64()?);
    let size_bytes = size(bits);
    let header = PacketHeader {
        size_bytes,
        header_bytes,
        begin_micros,
        end_micros,
        version,
        pid,
        domain,
        verifier,
        first_id,
        next_id,
    };
    Some((header, bits))
}
