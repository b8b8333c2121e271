//! Which library an address of the program's code belongs to.
//!
//! Owns the form of the table and the look-up in it. Never makes one: `symbols` does, when an image is built or an
//! ordinary program starts. The table, little endian, packed:
//!
//! ```text
//! u32 ranges, u32 libraries
//! ranges times    u32  where it begins, counted from the base; ascending; it ends where the next begins
//! ranges times    u16  its library, counted from 0; the highest bit: memory is taken there on behalf of a caller
//! libraries times u8 length, then the name
//! ```

use core::str;

/// A range where memory is taken on behalf of whoever called: `alloc`, `std`, the allocator.
pub(super) const ON_BEHALF: u16 = 0x8000;
/// Most libraries of a table.
pub(super) const MAX_LIBRARIES: usize = 4096;

const HEADER_BYTES: usize = 8;
const START_BYTES: usize = 4;
const ID_BYTES: usize = 2;

/// A table, and where the code lies.
#[derive(Clone, Copy, Debug)]
pub struct LibraryMap {
    base: usize,
    starts: &'static [u8],
    ids: &'static [u8],
    names: &'static [u8],
    libraries: usize,
}

/// Whose code an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A library, by number.
    Library(u16),
    /// One that takes memory on behalf of its callers.
    OnBehalf(u16),
    /// Nobody in the table.
    Unknown,
}

impl LibraryMap {
    /// A table of code whose base lies at `base`. Bytes after its end are ignored.
    ///
    /// `None`: no table (an image that none was put into), or a damaged one.
    #[must_use]
    pub fn new(table: &'static [u8], base: usize) -> Option<Self> {
        let ranges = number(table, 0)?;
        let libraries = number(table, 4)?;
        if ranges == 0 || libraries > MAX_LIBRARIES {
            return None;
        }
        let (starts, rest) = table.get(HEADER_BYTES..)?.split_at_checked(ranges.checked_mul(START_BYTES)?)?;
        let (ids, names) = rest.split_at_checked(ranges * ID_BYTES)?;
        let map = Self { base, starts, ids, names, libraries };
        (map.names().count() == libraries).then_some(map)
    }

    pub(super) fn owner(&self, address: usize) -> Owner {
        let found = address
            .checked_sub(self.base)
            .and_then(|offset| u32::try_from(offset).ok())
            .and_then(|offset| self.range(offset));
        match found {
            Some(id) if usize::from(id & !ON_BEHALF) >= self.libraries => Owner::Unknown,
            Some(id) if id & ON_BEHALF != 0 => Owner::OnBehalf(id & !ON_BEHALF),
            Some(id) => Owner::Library(id),
            None => Owner::Unknown,
        }
    }

    /// The library of the range that `offset` is in.
    fn range(&self, offset: u32) -> Option<u16> {
        let (starts, _) = self.starts.as_chunks::<START_BYTES>();
        let after = starts.partition_point(|start| u32::from_le_bytes(*start) <= offset);
        let (ids, _) = self.ids.as_chunks::<ID_BYTES>();
        ids.get(after.checked_sub(1)?).copied().map(u16::from_le_bytes)
    }

    /// The names of the libraries, by number.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let mut rest = self.names;
        (0..self.libraries).map_while(move |_| {
            let (length, after) = rest.split_first()?;
            let (name, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            str::from_utf8(name).ok()
        })
    }

    /// The library of an address as the program's file counts them.
    pub(super) fn name_at(&self, offset: usize) -> Option<&'static str> {
        let id = self.range(u32::try_from(offset).ok()?)?;
        self.names().nth(usize::from(id & !ON_BEHALF))
    }

    /// An address as the program's file counts them, whatever it was loaded to.
    pub(super) const fn offset(&self, address: usize) -> usize {
        address.wrapping_sub(self.base)
    }
}

fn number(table: &[u8], at: usize) -> Option<usize> {
    let bytes = table.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn table() -> Vec<u8> {
        let mut table = Vec::new();
        table.extend([3_u32, 2].into_iter().flat_map(u32::to_le_bytes));
        table.extend([16_u32, 32, 64].into_iter().flat_map(u32::to_le_bytes));
        table.extend([1_u16, ON_BEHALF, u16::MAX].into_iter().flat_map(u16::to_le_bytes));
        table.extend(b"\x05alloc\x04shop");
        table
    }

    #[test]
    fn an_address_belongs_to_the_range_it_is_in() {
        let map = LibraryMap::new(table().leak(), 1000).expect("a table");
        assert_eq!(map.names().collect::<Vec<_>>(), ["alloc", "shop"]);
        let owners = [999, 1015, 1016, 1031, 1032, 1063, 1064, usize::MAX].map(|address| map.owner(address));
        let (shop, alloc, unknown) = (Owner::Library(1), Owner::OnBehalf(0), Owner::Unknown);
        assert_eq!(owners, [unknown, unknown, shop, shop, alloc, alloc, unknown, unknown]);
    }

    #[test]
    fn an_image_without_a_table_has_none() {
        assert!(LibraryMap::new(&[0; 64], 0).is_none());
        for cut in 0..table().len() {
            assert!(LibraryMap::new(table()[..cut].to_vec().leak(), 0).is_none(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn no_table_makes_it_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..64), addresses in prop::collection::vec(any::<usize>(), 8),
        ) {
            if let Some(first) = bytes.first_chunk_mut::<8>() {
                [1, 2, 3, 5, 6, 7].into_iter().for_each(|at| first[at] = 0);
            }
            if let Some(map) = LibraryMap::new(bytes.leak(), 3) {
                for address in addresses {
                    if let Owner::Library(id) | Owner::OnBehalf(id) = map.owner(address) {
                        prop_assert!(map.names().nth(usize::from(id)).is_some());
                    }
                }
            }
        }
    }
}
