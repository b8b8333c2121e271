//! What has been learnt about lines of line protocol.
//!
//! Owns routes, from the bytes of a series key to the series, and layouts, the sequences of field keys that lines had.
//! Both are caches: they may be forgotten at any time. Never parses a line.

use crate::catalog::SeriesId;
use crate::prefetch::prefetch;
use crate::row::ShapeFields;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use std::hash::BuildHasher;
use std::ops::RangeInclusive;
use uni_wire::FieldType;

/// Most routes: spellings of series keys. Beyond it all are forgotten and learnt again.
const MAX_ROUTES: usize = 1 << 20;
/// Most layouts, for the same reason.
const MAX_LAYOUTS: usize = 1 << 12;
/// Most ways: databases, and VMs with a link of their own.
const MAX_WAYS: usize = 1 << 14;
/// The start of a chain: no route.
const NONE: u32 = u32::MAX;

/// From a spelling of a series key to the series.
#[derive(Debug)]
pub(crate) struct Route {
    way: u32,
    key: Box<[u8]>,
    pub(crate) series: SeriesId,
    pub(crate) layout: u32,
    /// The line had claimed another value for the tag it was given.
    pub(crate) renamed: bool,
    /// The route of the line that came after this one the last time: mostly it comes next again.
    next: u32,
}

/// The fields of a line, in order.
#[derive(Debug)]
pub(crate) struct Layout {
    /// `key=` of all fields, one after the other.
    pub(crate) keys: Vec<u8>,
    /// For each field where its key ends, and its type.
    pub(crate) ends: Vec<(u32, FieldType)>,
    pub(crate) measurement: u32,
    pub(crate) fields: ShapeFields,
    /// The number of the shape in the head of this epoch.
    pub(crate) shape: u32,
    pub(crate) epoch: u64,
}

/// What has been learnt about lines.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    table: HashTable<u32>,
    pub(crate) list: Vec<Route>,
    pub(crate) layouts: Vec<Layout>,
    /// Database and given tag to a number.
    ways: HashMap<(String, Option<String>), u32>,
    /// The route of the line before.
    pub(crate) last: Option<u32>,
    /// The partition of the line before, in a database: known to exist.
    pub(crate) span: Option<(u32, RangeInclusive<i64>)>,
    hasher: FixedState,
}

impl Routes {
    /// Forgets everything; to be called when series or fields may have lost their numbers.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn way(&mut self, database: &str, tag: Option<(&str, &str)>) -> u32 {
        if self.ways.len() >= MAX_WAYS || self.list.len() >= MAX_ROUTES || self.layouts.len() >= MAX_LAYOUTS {
            self.clear();
        }
        // Neither keys nor values of tags hold a newline that the other could borrow: they are one text.
        let key = (database.to_owned(), tag.map(|(key, value)| format!("{key}\n{value}")));
        let next = self.ways.len() as u32;
        *self.ways.entry(key).or_insert(next)
    }

    fn hash(&self, way: u32, key: &[u8]) -> u64 {
        self.hasher.hash_one((way, key))
    }

    fn find(&self, way: u32, key: &[u8]) -> Option<u32> {
        let same = |at: &u32| {
            let route = &self.list[*at as usize];
            route.way == way && *route.key == *key
        };
        self.table.find(self.hash(way, key), same).copied()
    }

    /// The route of the line at the start of `rest`, and the length of its key. First the one that came next the last
    /// time is tried.
    #[inline]
    pub(crate) fn route_of(&self, way: u32, rest: &[u8]) -> Option<(u32, usize)> {
        let guess = self.last.and_then(|last| self.list.get(last as usize)).map_or(NONE, |last| last.next);
        if let Some(route) = self.list.get(guess as usize) {
            let length = route.key.len();
            if route.way == way && rest.get(length) == Some(&b' ') && begins(rest, &route.key) {
                return Some((guess, length));
            }
        }
        let end = key_end(rest)?;
        Some((self.find(way, &rest[..end])?, end))
    }

    /// The series whose lines probably come next and after that; begins to load the keys they will be known by.
    #[inline]
    pub(crate) fn expected(&self, route: u32) -> Option<(SeriesId, SeriesId)> {
        let next = self.list.get(self.list.get(route as usize)?.next as usize)?;
        let after = self.list.get(next.next as usize)?;
        prefetch(&after.key);
        if let Some(later) = self.list.get(after.next as usize) {
            prefetch(std::slice::from_ref(later));
        }
        Some((next.series, after.series))
    }

    /// Remembers that this route's line came after the last one.
    #[inline]
    pub(crate) fn follow(&mut self, route: u32) {
        if let Some(last) = self.last
            && let Some(last) = self.list.get_mut(last as usize)
            && last.next != route
        {
            last.next = route;
        }
        self.last = Some(route);
    }

    pub(crate) fn learn(&mut self, way: u32, key: &[u8], series: SeriesId, renamed: bool, layout: u32) {
        if let Some(at) = self.find(way, key) {
            let route = &mut self.list[at as usize];
            (route.series, route.layout, route.renamed) = (series, layout, renamed);
            return self.follow(at);
        }
        let at = self.list.len() as u32;
        self.list.push(Route { way, key: key.into(), series, layout, renamed, next: NONE });
        let (list, hasher) = (&self.list, &self.hasher);
        let hash = hasher.hash_one((way, key));
        self.table.insert_unique(hash, at, |at| {
            let route = &list[*at as usize];
            hasher.hash_one((route.way, &*route.key))
        });
        self.follow(at);
    }

    pub(crate) fn layout(
        &mut self,
        keys: Vec<u8>,
        ends: Vec<(u32, FieldType)>,
        measurement: u32,
        numbers: &[u32],
    ) -> u32 {
        let fields: ShapeFields =
            numbers.iter().zip(&ends).map(|(number, (_, field_type))| (*number, *field_type)).collect();
        let same = |layout: &Layout| {
            layout.measurement == measurement && layout.keys == keys && layout.fields == fields
        };
        if let Some(at) = self.layouts.iter().position(same) {
            return at as u32;
        }
        self.layouts.push(Layout { keys, ends, measurement, fields, shape: 0, epoch: 0 });
        self.layouts.len() as u32 - 1
    }
}

/// The end of the series key: the first space that no backslash stands before. `None` where the line ends first.
fn key_end(rest: &[u8]) -> Option<usize> {
    for at in memchr::memchr2_iter(b' ', b'\n', rest) {
        match rest[at] {
            b' ' if at > 0 && rest[at - 1] != b'\\' => return Some(at),
            b' ' if at > 0 => {}
            _ => return None,
        }
    }
    None
}

/// Whether `rest` starts with `key`. Keys are short: words at a time beat the call of a library.
#[inline]
pub(crate) fn begins(rest: &[u8], key: &[u8]) -> bool {
    let Some(start) = rest.get(..key.len()) else { return false };
    let (words, ends) = (start.chunks_exact(8), key.chunks_exact(8));
    let same_end = words.remainder().iter().zip(ends.remainder()).all(|(a, b)| a == b);
    same_end && words.zip(ends).all(|(a, b)| word(a) == word(b))
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}
