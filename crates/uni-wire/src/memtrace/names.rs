//! The writer's side of the tables of file and function names.
//!
//! Owns which names the reader has at which index. Keeps 128-bit hashes in place of names, so that it needs no memory
//! but its own.

use super::TABLE;

/// FNV-1a.
const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

fn hash(name: &[u8]) -> u128 {
    name.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// A move-to-front table of names. Its entries are those before `len`.
#[derive(Clone, Copy, Debug)]
struct Names {
    hashes: [u128; TABLE],
    len: usize,
}

impl Names {
    const EMPTY: Self = Self { hashes: [0; TABLE], len: 0 };

    /// The index of `hash`, which moves to the front; [`TABLE`] if it is new.
    fn encode(&mut self, hash: u128) -> usize {
        let found = self.hashes.iter().take(self.len).position(|known| *known == hash);
        if found.is_none() {
            self.len = (self.len + 1).min(TABLE);
        }
        let from = found.unwrap_or(self.len - 1);
        self.hashes[..=from].rotate_right(1);
        self.hashes[0] = hash;
        found.unwrap_or(TABLE)
    }
}

/// The table of files. Each file owns a table of the names defined in it.
#[derive(Debug)]
pub(super) struct Files {
    files: Names,
    /// Where in `names` a file's table lies: moving one to the front moves no table.
    order: [u8; TABLE],
    names: [Names; TABLE],
}

impl Files {
    pub(super) const fn new() -> Self {
        Self { files: Names::EMPTY, order: [0; TABLE], names: [Names::EMPTY; TABLE] }
    }

    pub(super) fn reset(&mut self) {
        self.files.len = 0;
    }

    /// The indices of `file` and of `name` in it, in the order in which a reader looks them up.
    pub(super) fn encode(&mut self, file: &[u8], name: &[u8]) -> (usize, usize) {
        let known = self.files.len;
        let file_index = self.files.encode(hash(file));
        let from = if file_index < TABLE { file_index } else { self.files.len - 1 };
        if known < self.files.len {
            self.order[from] = u8::try_from(known).unwrap_or_default();
        }
        self.order[..=from].rotate_right(1);
        let names = &mut self.names[usize::from(self.order[0]) % TABLE];
        if file_index == TABLE {
            names.len = 0;
        }
        (file_index, names.encode(hash(name)))
    }
}
