//! The table of a program's libraries, from the symbols in its file.
//!
//! Owns which library a symbol belongs to, and the table's encoding; [`LibraryMap`] has its form. Used when an image
//! is built, and by ordinary programs of themselves, once, when they start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::vec::Vec;

use alloc::format;
use alloc::string::String;

use object::read::ReadCache;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, ReadRef, SectionKind};

use super::libraries::{LibraryMap, MAX_LIBRARIES, ON_BEHALF};

/// The name of the section of an image that holds the table; zeros until it is put there.
pub const SECTION: &str = ".uni_libraries";

/// Libraries whose code takes memory on behalf of whoever called it.
const ON_BEHALF_OF_CALLERS: [&str; 6] = ["__rustc", "alloc", "compiler_builtins", "core", "hashbrown", "std"];
/// So does this crate's allocator.
const OWN_ALLOCATOR: [&str; 2] = ["uni_guest::heap::", "<uni_guest::heap::"];
/// Symbols that are read of one file.
const MAX_SYMBOLS: usize = 4_000_000;

/// The table of the program that runs, which is leaked. Reads its file.
///
/// # Errors
/// The file cannot be read, or has no symbols: it was stripped.
pub fn of_own_program() -> io::Result<LibraryMap> {
    let path = "/proc/self/exe";
    let told = |error: &dyn core::fmt::Display| {
        io::Error::other(format!("read the symbols of {path}: {error}; do not strip the program's symbols"))
    };
    let cache = ReadCache::new(File::open(path).map_err(|error| told(&error))?);
    let table = table_of(&cache).map_err(|error| told(&error))?;
    LibraryMap::new(table.leak(), own_base()).ok_or_else(|| told(&"there are none of functions"))
}

/// Where this program was loaded, less where its file says.
fn own_base() -> usize {
    unsafe extern "C" {
        /// By the linker: the file's header, which is at 0 in a program that may be loaded anywhere.
        static __ehdr_start: object::elf::FileHeader64<object::Endianness>;
    }
    // SAFETY: the header is part of the program and is only read.
    let (header, kind) = unsafe { (&raw const __ehdr_start, __ehdr_start.e_type) };
    let is_movable = kind.get(object::Endianness::default()) == object::elf::ET_DYN;
    if is_movable { header.addr() } else { 0 }
}

/// The table of the ELF file `data`: of each function that its symbols name, the library.
///
/// # Errors
/// No ELF file.
pub fn table_of<'data, R: ReadRef<'data>>(data: R) -> object::Result<Vec<u8>> {
    let file = object::File::parse(data)?;
    let is_code = |section: &object::Section<'data, '_, R>| section.kind() == SectionKind::Text;
    let ends: BTreeMap<_, _> = file
        .sections()
        .filter(is_code)
        .map(|section| (section.index().0, section.address() + section.size()))
        .collect();
    let mut functions = BTreeMap::new();
    for symbol in file.symbols().filter(object::ObjectSymbol::is_definition).take(MAX_SYMBOLS) {
        let (Some(section), Ok(name)) = (symbol.section_index(), symbol.name()) else { continue };
        if let Some(end) = ends.get(&section.0)
            && let Ok(start) = u32::try_from(symbol.address())
            && let Ok(end) = u32::try_from(*end)
        {
            // Of several names of one function, one that is Rust's.
            let known = functions.entry(start).or_insert_with(|| (None, end));
            known.0 = known.0.take().or_else(|| library_of(name));
        }
    }
    Ok(encode(&functions))
}

/// The library of a symbol; none if it is not of a Rust library.
fn library_of(symbol: &str) -> Option<String> {
    let name = format!("{:#}", rustc_demangle::try_demangle(symbol).ok()?);
    if OWN_ALLOCATOR.iter().any(|start| name.starts_with(start)) {
        return Some("alloc".into());
    }
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = name.as_str();
    // The first path of the name: `<&mut shop::Till as core::fmt::Debug>::fmt` is `shop`'s.
    while let Some(start) = rest.find(is_in_name) {
        let word = rest.get(start..)?;
        let length = word.find(|c| !is_in_name(c)).unwrap_or(word.len());
        let (word, after) = word.split_at(length);
        if after.starts_with("::") {
            return Some(word.into());
        }
        rest = after;
    }
    // Of a plain type: `<str>::find`.
    Some("core".into())
}

/// Neighbours of one library are one range. The functions by address, with their library and their section's end.
fn encode(functions: &BTreeMap<u32, (Option<String>, u32)>) -> Vec<u8> {
    const NOBODY: u16 = u16::MAX;
    let mut names: Vec<&str> = functions.values().filter_map(|(library, _)| library.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(MAX_LIBRARIES);
    let id = |library: &str| {
        let id = names.binary_search(&library).ok().and_then(|id| u16::try_from(id).ok());
        let on_behalf = if ON_BEHALF_OF_CALLERS.contains(&library) { ON_BEHALF } else { 0 };
        id.map_or(NOBODY, |id| id | on_behalf)
    };
    let mut ranges: Vec<(u32, u16)> = Vec::new();
    let mut add = |start, id| {
        if ranges.last().is_none_or(|(_, last)| *last != id) {
            ranges.push((start, id));
        }
    };
    let mut last_end = None;
    for (start, (library, end)) in functions {
        if let Some(passed) = last_end.filter(|last_end| last_end <= start) {
            add(passed, NOBODY);
        }
        add(*start, library.as_deref().map_or(NOBODY, id));
        last_end = Some(*end);
    }
    if let Some(end) = last_end {
        add(end, NOBODY);
    }
    let mut table = Vec::new();
    let sizes = [ranges.len(), names.len()].map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    table.extend(sizes.into_iter().flat_map(u32::to_le_bytes));
    table.extend(ranges.iter().flat_map(|(start, _)| start.to_le_bytes()));
    table.extend(ranges.iter().flat_map(|(_, id)| id.to_le_bytes()));
    for name in names {
        let name = name.get(..usize::from(u8::MAX)).unwrap_or(name);
        table.extend(u8::try_from(name.len()));
        table.extend(name.as_bytes());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::libraries::Owner;
    use super::*;

    #[test]
    fn a_symbol_belongs_to_the_library_whose_code_it_is() {
        for (symbol, library) in [
            ("_RNvCs1234_4shop4sell", Some("shop")),
            ("_RNvMs2_NtCsgEmfK2I1SDS_4core3numNtB5_8Big32x4010mul_digits", Some("core")),
            ("_RNvCsfLfy6EI15iL_7___rustc14___rust_realloc", Some("__rustc")),
            ("_ZN4shop4sell17h0123456789abcdefE", Some("shop")),
            ("_ZN44_$LT$$RF$T$u20$as$u20$core..fmt..Display$GT$3fmt17h0123456789abcdefE", Some("core")),
            (
                "_ZN52_$LT$uni_guest..heap..Sampled$u20$as$u20$core..A$GT$5alloc17h0123456789abcdefE",
                Some("alloc"),
            ),
            ("malloc", None),
            ("", None),
        ] {
            assert_eq!(library_of(symbol).as_deref(), library, "{symbol}");
        }
    }

    #[test]
    fn neighbours_are_one_range_and_code_ends_with_its_section() {
        let function = |library: Option<&str>, end| (library.map(String::from), end);
        let functions = BTreeMap::from([
            (10, function(Some("shop"), 50)),
            (20, function(Some("shop"), 50)),
            (30, function(Some("alloc"), 50)),
            (40, function(None, 50)),
            (90, function(Some("till"), 99)),
        ]);
        let map = LibraryMap::new(encode(&functions).leak(), 0).expect("a table");
        let owners = [9, 10, 29, 30, 40, 50, 89, 90, 98, 99].map(|address| map.owner(address));
        let (nobody, alloc) = (Owner::Unknown, Owner::OnBehalf(0));
        let (shop, till) = (Owner::Library(1), Owner::Library(2));
        assert_eq!(owners, [nobody, shop, shop, alloc, nobody, nobody, nobody, till, till, nobody]);
    }

    #[test]
    fn a_program_finds_its_own_code() {
        let map = of_own_program().expect("tests have symbols");
        let name = |address: usize| match map.owner(address) {
            Owner::Library(id) | Owner::OnBehalf(id) => map.names().nth(usize::from(id)),
            Owner::Unknown => None,
        };
        let own: fn(&str) -> Option<String> = library_of;
        assert_eq!(name(own as usize), Some("alloc"), "this module is of the allocator");
        let other: fn() -> crate::logs::Logs = crate::logs::Logs::default;
        assert_eq!(name(other as usize), Some("uni_guest"));
    }
}
