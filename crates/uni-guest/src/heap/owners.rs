//! Whose code an address is, remembered: the same few calls allocate again and again.
//!
//! Owns a small table, each place for many addresses, which holds the last of them. Never says anything but what the
//! library map said: a place holds address and owner in one word, so that threads may write as they like.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::libraries::{MAX_LIBRARIES, ON_BEHALF, Owner};

/// Places: 2 KiB.
const PLACES: usize = 256;
/// Of whom nobody knows.
const UNKNOWN: u16 = u16::MAX;
/// An address has 48 bits at most; of more, nothing is remembered.
const ADDRESS_BITS: u32 = 48;
const _: () = assert!(MAX_LIBRARIES < (UNKNOWN & !ON_BEHALF) as usize, "no library has that number");

/// See the module's page.
#[derive(Debug)]
pub(super) struct Owners {
    places: [AtomicU64; PLACES],
}

impl Owners {
    pub(super) const fn new() -> Self {
        Self { places: [const { AtomicU64::new(0) }; PLACES] }
    }

    /// Whose `address` is; `look` says it if it is not remembered.
    pub(super) fn find(&self, address: usize, look: impl FnOnce(usize) -> Owner) -> Owner {
        let key = address as u64;
        let place = &self.places[(address ^ (address >> 8)) % PLACES];
        let word = place.load(Relaxed);
        if word >> u16::BITS == key && word != 0 {
            return unpack(word as u16);
        }
        let owner = look(address);
        if key >> ADDRESS_BITS == 0 {
            place.store(key << u16::BITS | u64::from(pack(owner)), Relaxed);
        }
        owner
    }

    /// There is another map. What others look up meanwhile may still be of the old one.
    pub(super) fn clear(&self) {
        self.places.iter().for_each(|place| place.store(0, Relaxed));
    }
}

const fn pack(owner: Owner) -> u16 {
    match owner {
        Owner::Library(id) => id,
        Owner::OnBehalf(id) => id | ON_BEHALF,
        Owner::Unknown => UNKNOWN,
    }
}

const fn unpack(word: u16) -> Owner {
    match word {
        UNKNOWN => Owner::Unknown,
        id if id & ON_BEHALF != 0 => Owner::OnBehalf(id & !ON_BEHALF),
        id => Owner::Library(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn owner(address: usize) -> Owner {
        let id = (address / 5 % 700) as u16;
        match address % 3 {
            0 => Owner::Library(id),
            1 => Owner::OnBehalf(id),
            _ => Owner::Unknown,
        }
    }

    #[test]
    fn what_was_asked_before_is_remembered_until_the_map_is_another() {
        let owners = Owners::new();
        assert_eq!(owners.find(4711, owner), owner(4711));
        assert_eq!(owners.find(4711, |_| Owner::Unknown), owner(4711));
        owners.clear();
        assert_eq!(owners.find(4711, |_| Owner::Unknown), Owner::Unknown);
    }

    proptest! {
        /// Whatever shares a place with whatever.
        #[test]
        fn it_says_what_the_map_says(addresses in prop::collection::vec(prop_oneof![0..3000_usize, any::<usize>()], 0..600)) {
            let owners = Owners::new();
            let found: Vec<_> = addresses.iter().map(|address| owners.find(*address, owner)).collect();
            let expected: Vec<_> = addresses.iter().map(|address| owner(*address)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
