//! The words of a block as a filter: it says which blocks need not be unpacked to find a word.
//!
//! Owns what a word is, how it is hashed and the filter's bits (a split-block Bloom filter: all bits of a word lie in one
//! group of 32 bytes). Never says that a word is missing which is there.

use hashbrown::HashSet;

/// Bits for each different word: about one block in a hundred is unpacked in vain.
const BITS_PER_WORD: usize = 10;
/// A group has eight words of 32 bits.
const GROUP_BYTES: usize = 32;
/// Odd numbers that spread one hash to a bit in each of them (those of Apache Parquet's filter).
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Whether a byte is part of a word: letters and digits of ASCII, `_`, and whatever is beyond ASCII.
pub(crate) const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || (byte >= 0x80 && byte != super::rows::SEPARATOR)
}

/// The words of a text, as they stand there.
pub(crate) fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| !is_word(*byte)).filter(|word| !word.is_empty())
}

/// FNV-1a over the word in lower case (ASCII), then mixed: part of the format.
pub(crate) fn hash(word: &[u8]) -> u64 {
    let fnv = word.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

/// The filter for the words of `text`, of at most a sixteenth of its size.
pub(crate) fn of(text: &[u8]) -> Vec<u8> {
    let hashes: HashSet<u64> = words(text).map(hash).collect();
    let wanted = (hashes.len() * BITS_PER_WORD).div_ceil(8);
    let groups = wanted.min(text.len() / 16).div_ceil(GROUP_BYTES).max(1);
    let mut filter = vec![0; groups * GROUP_BYTES];
    for hash in hashes {
        let start = group_of(hash, groups) * GROUP_BYTES;
        for (at, bit) in bits(hash) {
            filter[start + at] |= bit;
        }
    }
    filter
}

/// Whether the word with this hash may be among those of the filter. A filter of no whole group says yes.
pub(crate) fn may_have(filter: &[u8], hash: u64) -> bool {
    let groups = filter.len() / GROUP_BYTES;
    if groups == 0 {
        return true;
    }
    let start = group_of(hash, groups) * GROUP_BYTES;
    bits(hash).all(|(at, bit)| filter[start + at] & bit > 0)
}

const fn group_of(hash: u64, groups: usize) -> usize {
    (((hash >> 32) * groups as u64) >> 32) as usize
}

/// For each bit of a hash: which byte of the group, and the bit in it.
fn bits(hash: u64) -> impl Iterator<Item = (usize, u8)> {
    SALTS.iter().enumerate().map(move |(word, salt)| {
        let bit = (hash as u32).wrapping_mul(*salt) >> 27;
        (word * 4 + bit as usize / 8, 1 << (bit % 8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_word_that_is_there_is_denied(text in "\\PC{0,200}") {
            let filter = of(text.as_bytes());
            for word in words(text.as_bytes()) {
                prop_assert!(may_have(&filter, hash(word)));
                prop_assert!(may_have(&filter, hash(&word.to_ascii_uppercase())));
            }
        }
    }

    #[test]
    fn most_words_that_are_not_there_are_denied() {
        let text: String = (0..20_000).map(|n| format!("word{n} ")).collect::<String>().repeat(3);
        let filter = of(text.as_bytes());
        assert!(filter.len() <= text.len() / 16 + GROUP_BYTES);
        let wrong = (0..20_000).filter(|n| may_have(&filter, hash(format!("other{n}").as_bytes()))).count();
        assert!(wrong < 600, "{wrong} of 20000");
        assert!(may_have(&[], 7) && !may_have(&of(b""), 7));
    }

    #[test]
    fn a_hash_is_the_same_for_ever() {
        assert_eq!(hash(b"Error"), hash(b"error"));
        assert_eq!(hash(b"error"), 0x77ae_c4ab_6fb3_542f, "it is part of the format");
    }
}
