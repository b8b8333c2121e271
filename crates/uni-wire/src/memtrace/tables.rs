//! The reader's side of the tables of file and function names.
//!
//! Owns the names. A reader that missed a part of the trace may be asked for an entry it has not: it is entered without
//! a name, so that those before it keep their indices.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use super::{Position, TABLE};

/// A name that was given out, or one that was missed.
type Name = Option<Arc<[u8]>>;

/// What a move-to-front table did with an index.
enum Found {
    /// The entry is at the front.
    Known,
    /// A placeholder is at the front.
    Missing,
    /// The index says that a new name follows.
    New,
}

#[derive(Debug)]
struct Table<T>(VecDeque<T>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Default> Table<T> {
    fn find(&mut self, index: usize) -> Found {
        if index == TABLE {
            return Found::New;
        }
        let entry = self.0.remove(index);
        let known = entry.is_some();
        self.push(entry.unwrap_or_default());
        if known { Found::Known } else { Found::Missing }
    }

    /// Puts `entry` at the front. What was the last of a full table is given back.
    fn push(&mut self, entry: T) -> Option<T> {
        self.0.push_front(entry);
        if self.0.len() > TABLE { self.0.pop_back() } else { None }
    }
}

#[derive(Debug, Default)]
struct File {
    name: Name,
    names: Table<Name>,
}

/// The names of a position, and whether one of them was missed.
#[derive(Debug)]
pub(super) struct Names {
    file: Name,
    name: Name,
}

/// The table of files, each with the names defined in it.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: Table<File>,
    text_bytes: usize,
}

fn bytes_of(name: &Name) -> usize {
    name.as_ref().map_or(0, |name| name.len())
}

impl Files {
    /// Bytes of all names that are kept, at most: of one that a placeholder displaced it is not known.
    pub(super) const fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// Resolves the two indices; `new` reads a name that follows. `None` if that fails.
    pub(super) fn decode(
        &mut self,
        file_index: usize,
        name_index: usize,
        mut new: impl FnMut() -> Option<Arc<[u8]>>,
    ) -> Option<Names> {
        if let Found::New = self.files.find(file_index) {
            let name = Some(new()?);
            self.text_bytes += bytes_of(&name);
            let dropped = self.files.push(File { name, names: Table::default() });
            // Version 1's writer counts on it that the new file inherits the names of the one that it displaces.
            if let (Some(dropped), Some(front)) = (dropped, self.files.0.front_mut()) {
                self.text_bytes = self.text_bytes.saturating_sub(bytes_of(&dropped.name));
                front.names = dropped.names;
            }
        }
        let file = self.files.0.front_mut()?;
        if let Found::New = file.names.find(name_index) {
            let name = Some(new()?);
            self.text_bytes += bytes_of(&name);
            let dropped = file.names.push(name).flatten();
            self.text_bytes = self.text_bytes.saturating_sub(bytes_of(&dropped));
        }
        Some(Names { file: file.name.clone(), name: file.names.0.front().cloned().flatten() })
    }
}

impl Names {
    /// Whether one of the names was never given.
    pub(super) const fn are_missing(&self) -> bool {
        self.file.is_none() || self.name.is_none()
    }

    pub(super) fn position(&self, line: i64, start_column: i64, end_column: i64) -> Position<'_> {
        let name = self.name.as_deref().unwrap_or(Position::UNKNOWN.name);
        let file = self.file.as_deref().unwrap_or(Position::UNKNOWN.file);
        Position { name, file, line, start_column, end_column }
    }
}
