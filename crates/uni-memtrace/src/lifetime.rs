//! Which blocks of a trace died young.
//!
//! Owns the first of two readings of a trace: how long each block lived is known when it was freed, so whoever wants
//! to leave out the short-lived ones reads a trace twice. Bounded: what is beyond counts as long-lived.

use std::io::Read;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use uni_wire::memtrace::{Decoder, Item, Mode};

use crate::read::each_piece;

/// Blocks alive at one time whose birth is known: some 20 bytes each.
const MAX_ALIVE: usize = 3_600_000;
/// Ids of one page.
const PAGE_IDS: u64 = 4096;
/// Pages of ids, of 512 bytes each.
const MAX_PAGES: usize = 1 << 16;

type Page = Box<[u64; (PAGE_IDS / 64) as usize]>;

/// The blocks of one trace that lived less than some time. One that is alive at the end lived until then.
#[derive(Clone, Debug)]
pub struct ShortLived(Arc<Ids>);

#[derive(Debug, Default)]
struct Ids(HashMap<u64, Page, RandomState>);

impl ShortLived {
    /// Reads a whole trace. `progress` is told how many bytes were read so far.
    ///
    /// # Errors
    /// When reading fails. A damaged trace is read as far as possible.
    pub fn find(input: impl Read, min_micros: u64, progress: impl FnMut(u64)) -> std::io::Result<Self> {
        let mut lives = Lives { min_micros, born: HashMap::default(), end_micros: 0, short: Ids::default() };
        let mut decoder = Decoder::new(Mode::Lenient);
        each_piece(input, progress, |bytes| {
            // a lenient reader has no errors
            let _none = decoder.handle_bytes(bytes, |item| lives.take(&item));
        })?;
        let _none = decoder.finish(|item| lives.take(&item));
        Ok(Self(Arc::new(lives.finish())))
    }

    /// Whether the block did.
    #[inline]
    pub(crate) fn has(&self, id: u64) -> bool {
        let page = self.0.0.get(&(id / PAGE_IDS));
        page.and_then(|page| page.get(word_of(id))).is_some_and(|word| word & bit_of(id) != 0)
    }
}

impl Ids {
    fn insert(&mut self, id: u64) {
        let page = id / PAGE_IDS;
        if self.0.len() >= MAX_PAGES && !self.0.contains_key(&page) {
            return;
        }
        let page = self.0.entry(page).or_insert_with(|| Box::new([0; (PAGE_IDS / 64) as usize]));
        if let Some(word) = page.get_mut(word_of(id)) {
            *word |= bit_of(id);
        }
    }
}

const fn word_of(id: u64) -> usize {
    (id % PAGE_IDS / 64) as usize
}

const fn bit_of(id: u64) -> u64 {
    1 << (id % 64)
}

/// The lives of blocks while the trace is read.
struct Lives {
    min_micros: u64,
    born: HashMap<u64, u64, RandomState>,
    end_micros: u64,
    short: Ids,
}

impl Lives {
    fn take(&mut self, item: &Item<'_>) {
        match item {
            Item::Alloc(alloc) => {
                self.end_micros = self.end_micros.max(alloc.time_micros);
                if self.born.len() < MAX_ALIVE {
                    self.born.insert(alloc.id, alloc.time_micros);
                }
            }
            Item::Collect(freed) => {
                self.end_micros = self.end_micros.max(freed.time_micros);
                if let Some(born) = self.born.remove(&freed.id)
                    && freed.time_micros.saturating_sub(born) < self.min_micros
                {
                    self.short.insert(freed.id);
                }
            }
            Item::Promote(event) => self.end_micros = self.end_micros.max(event.time_micros),
            _ => {}
        }
    }

    fn finish(self) -> Ids {
        let Self { min_micros, born, end_micros, mut short } = self;
        for (id, born) in born {
            if end_micros.saturating_sub(born) < min_micros {
                short.insert(id);
            }
        }
        short
    }
}
