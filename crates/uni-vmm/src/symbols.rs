//! Which function, file and line an address of a guest is: by the unstripped twin beside the image
//! (`web.elf` and `web.debug.elf`), or by the image itself if it was never stripped.
//!
//! Owns the finding, the check that the twin belongs to the image, and the look-up. The DWARF is read by
//! `addr2line`; nothing here runs, changes or keeps open a file. Whatever a damaged or hostile file says costs
//! at most its names.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::{Context, demangle_auto};
use gimli::{DW_LANG_Rust, Dwarf, EndianArcSlice, RunTimeEndian};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SectionKind};

/// The largest image or twin that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// The most frames that one address is resolved to: the function and what was inlined there.
pub const MAX_FRAMES: usize = 16;
/// The longest function name or path given, in characters.
const MAX_NAME_CHARS: usize = 256;
/// The most directories that units were built in.
const MAX_BUILD_DIRS: usize = 64;
/// Where each ELF file has its header.
const ELF_HEADER_BYTES: usize = 64;

type Bytes = EndianArcSlice<RunTimeEndian>;

/// A place in the source. Displays as `function at file:line`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The function, demangled, without hash; `??` if unknown.
    pub function: String,
    /// The file as seen from the workspace, the package or the Rust sources; empty if unknown.
    pub file: String,
    /// The line, from 1; 0 if unknown.
    pub line: u32,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => f.write_str(&self.function),
            (file, 0) => write!(f, "{} at {file}", self.function),
            (file, line) => write!(f, "{} at {file}:{line}", self.function),
        }
    }
}

/// Why an image's addresses cannot be named although there is a file that should know.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsError {
    /// A file is there, but cannot be read.
    #[error("read symbols from {}", path.display())]
    Unreadable {
        /// The twin or the image.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Larger than [`MAX_FILE_BYTES`], or no regular file.
    #[error("read symbols from {}: not a file of at most {MAX_FILE_BYTES} bytes; build it with `debug = \"line-tables-only\"`", .0.display())]
    Unfit(PathBuf),
    /// The file is not what it should be.
    #[error("read symbols from {}: {fault}", path.display())]
    Fault {
        /// The twin or the image.
        path: PathBuf,
        /// What is wrong and what to do.
        fault: SymbolsFault,
    },
}

/// What is wrong with a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SymbolsFault {
    /// Other code or data than the image.
    #[error("it is not the twin of this image (their segments differ); strip the image from it again")]
    NotTheTwin,
    /// No ELF file, or one that contradicts itself.
    #[error("a damaged ELF file or damaged debug information; build it again")]
    Damaged,
    /// Compressed sections.
    #[error("its debug information is compressed; link it without --compress-debug-sections")]
    Compressed,
}

impl From<object::Error> for SymbolsFault {
    fn from(_: object::Error) -> Self {
        Self::Damaged
    }
}

impl From<gimli::Error> for SymbolsFault {
    fn from(_: gimli::Error) -> Self {
        Self::Damaged
    }
}

/// What is known of one image's code.
pub struct Symbols {
    context: Context<Bytes>,
    bytes: Arc<[u8]>,
    functions: Vec<Function>,
    build_dirs: Vec<String>,
}

/// One entry of the symbol table; the name is in the file's bytes.
struct Function {
    address: u64,
    end: u64,
    name: Range<usize>,
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, functions) = (self.bytes.len(), self.functions.len());
        f.debug_struct("Symbols")
            .field("bytes", &bytes)
            .field("functions", &functions)
            .finish_non_exhaustive()
    }
}

/// The twin's place: beside the image, `.elf` replaced by `.debug.elf`.
#[must_use]
pub fn twin_path(image: &Path) -> PathBuf {
    image.with_extension("debug.elf")
}

impl Symbols {
    /// Finds and reads what names the addresses of `image`; none if there is neither a twin nor debug
    /// information in the image itself.
    ///
    /// # Errors
    /// When there is a twin, but it cannot be read, is too large, damaged, or another image's.
    pub fn load(image: &Path) -> Result<Option<Self>, SymbolsError> {
        let twin = twin_path(image);
        let Some(image_bytes) = read(image)? else { return Ok(None) };
        let (path, twin_bytes) = match read(&twin)? {
            Some(bytes) => (twin.as_path(), bytes),
            None if !has_debug_information(&image_bytes) => return Ok(None),
            None => (image, image_bytes.clone()),
        };
        match Self::parse(&image_bytes, &twin_bytes) {
            Ok(symbols) => Ok(Some(symbols)),
            Err(fault) => Err(SymbolsError::Fault { path: path.to_owned(), fault }),
        }
    }

    /// Reads a twin's bytes.
    ///
    /// # Errors
    /// When it is not the twin of `image`, or not readable.
    pub fn parse(image: &[u8], twin: &[u8]) -> Result<Self, SymbolsFault> {
        if loaded(image)? != loaded(twin)? {
            return Err(SymbolsFault::NotTheTwin);
        }
        let bytes: Arc<[u8]> = Arc::from(twin);
        let file = object::File::parse(&*bytes)?;
        let dwarf = Dwarf::load(|section| debug_section(&file, &bytes, section.name()))?;
        let build_dirs = build_dirs(&dwarf)?;
        let functions = functions(&file, &bytes);
        let context = Context::from_dwarf(dwarf)?;
        Ok(Self { context, bytes, functions, build_dirs })
    }

    /// Whether there is a symbol table: without one, and without debug information, nothing has a name.
    #[must_use]
    pub fn has_functions(&self) -> bool {
        !self.functions.is_empty()
    }

    /// The frames at `address`, the innermost first: what was inlined there, and the function itself last.
    /// Empty if nothing is known. A return address is to be given less 1, so that it names the call.
    #[must_use]
    pub fn resolve(&self, address: u64) -> Vec<Frame> {
        let mut frames = Vec::new();
        // the last address has no next one, which the look-up counts with; no code is there
        if address == u64::MAX {
            return frames;
        }
        let function = self.function(address);
        let Ok(mut found) = self.context.find_frames(address).skip_all_loads() else {
            return function.into_iter().map(Frame::unplaced).collect();
        };
        while frames.len() < MAX_FRAMES
            && let Ok(Some(frame)) = found.next()
        {
            frames.push(self.frame(&frame));
        }
        // line tables have bare names; the symbol table has the whole path, of functions that were not inlined
        match (frames.last_mut(), function) {
            (Some(last), Some(name)) if matches!(found.next(), Ok(None)) => last.function = name,
            (None, Some(name)) => frames.push(Frame::unplaced(name)),
            _ => {}
        }
        frames
    }

    fn frame(&self, found: &addr2line::Frame<'_, Bytes>) -> Frame {
        let name = found.function.as_ref().and_then(|function| function.demangle().ok());
        let place = found.location.as_ref();
        Frame {
            function: clean(name.as_deref().unwrap_or("??")),
            file: place
                .and_then(|place| place.file)
                .map_or_else(String::new, |file| clean(shorten(file, &self.build_dirs))),
            line: place.and_then(|place| place.line).unwrap_or(0),
        }
    }

    /// The function that covers `address`, by the symbol table.
    fn function(&self, address: u64) -> Option<String> {
        let after = self.functions.partition_point(|function| function.address <= address);
        let function = self.functions[..after].last().filter(|function| address < function.end)?;
        let name = String::from_utf8_lossy(self.bytes.get(function.name.clone())?);
        let demangled = demangle_auto(Cow::Borrowed(&name), Some(DW_LANG_Rust));
        Some(clean(&demangled))
    }
}

impl Frame {
    fn unplaced(function: String) -> Self {
        Self { function, ..Self::default() }
    }
}

/// A whole file, if there is one.
fn read(path: &Path) -> Result<Option<Vec<u8>>, SymbolsError> {
    let unreadable = |source| SymbolsError::Unreadable { path: path.to_owned(), source };
    // a pipe in the twin's place must not hold up whoever asks
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(SymbolsError::Unfit(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Some(bytes))
}

/// Whether a file names lines itself.
fn has_debug_information(bytes: &[u8]) -> bool {
    object::File::parse(bytes).is_ok_and(|file| file.section_by_name(".debug_line").is_some())
}

/// What of an image comes into memory.
#[derive(PartialEq)]
struct Loaded<'a> {
    entry: u64,
    /// Address and bytes of each segment.
    segments: Vec<(u64, &'a [u8])>,
}

/// What is loaded of an image. The ELF header may lie in a segment; it is left out, as it tells of the sections
/// too, which differ.
fn loaded(bytes: &[u8]) -> Result<Loaded<'_>, SymbolsFault> {
    let file = object::File::parse(bytes)?;
    let mut segments = Vec::new();
    for segment in file.segments() {
        let (offset, _) = segment.file_range();
        let header = if offset == 0 { ELF_HEADER_BYTES } else { 0 };
        let data = segment.data()?;
        segments.push((segment.address(), data.get(header..).unwrap_or_default()));
    }
    if segments.is_empty() {
        return Err(SymbolsFault::NotTheTwin);
    }
    Ok(Loaded { entry: file.entry(), segments })
}

/// A section as `gimli` reads it; an absent one is empty.
fn debug_section(file: &object::File<'_>, bytes: &Arc<[u8]>, name: &str) -> Result<Bytes, SymbolsFault> {
    let endian = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let whole = Bytes::new(Arc::clone(bytes), endian);
    let Some(section) = file.section_by_name(name) else { return Ok(whole.range(0..0)) };
    let place = section.compressed_file_range()?;
    if place.format != object::CompressionFormat::None {
        return Err(SymbolsFault::Compressed);
    }
    let start = usize::try_from(place.offset).map_err(|_| SymbolsFault::Damaged)?;
    let len = usize::try_from(place.compressed_size).map_err(|_| SymbolsFault::Damaged)?;
    let end = start.checked_add(len).filter(|end| *end <= bytes.len()).ok_or(SymbolsFault::Damaged)?;
    Ok(whole.range(start..end))
}

/// Where the units were built, to be left out of paths: the workspace, and each package from elsewhere.
fn build_dirs(dwarf: &Dwarf<Bytes>) -> Result<Vec<String>, SymbolsFault> {
    let mut dirs: Vec<String> = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        // a unit that cannot be read has no names to give; the others have
        let Ok(unit) = dwarf.unit(header) else { continue };
        let Some(dir) = unit.comp_dir else { continue };
        let dir = String::from_utf8_lossy(dir.bytes()).trim_end_matches('/').to_owned();
        if dirs.len() < MAX_BUILD_DIRS && dir.len() > 1 && !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    Ok(dirs)
}

/// The functions of the symbol table by address. A label of assembly has no size: it reaches to the next one.
fn functions(file: &object::File<'_>, bytes: &[u8]) -> Vec<Function> {
    let code: HashMap<_, _> = file
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .map(|section| (section.index(), section.address().saturating_add(section.size())))
        .collect();
    let mut functions: Vec<_> = file
        .symbols()
        .filter(object::ObjectSymbol::is_definition)
        .filter_map(|symbol| {
            let section_end = *code.get(&symbol.section_index()?)?;
            let name = symbol.name_bytes().ok().filter(|name| !name.is_empty())?;
            let start = name.as_ptr().addr().checked_sub(bytes.as_ptr().addr())?;
            let end = match symbol.size() {
                0 => section_end,
                size => symbol.address().saturating_add(size),
            };
            Some(Function { address: symbol.address(), end, name: start..start + name.len() })
        })
        .collect();
    // of several at one address the smallest is found, which is last
    functions.sort_by_key(|function| (function.address, Reverse(function.end)));
    functions
}

/// The part of a path that says something away from the machine that built it: `library/core/src/...`,
/// `smoltcp-0.14.0/src/...`, and what is below the directory that a unit was built in.
fn shorten<'a>(path: &'a str, build_dirs: &[String]) -> &'a str {
    if let Some((_, rest)) = path.strip_prefix("/rustc/").and_then(|rest| rest.split_once('/')) {
        return rest;
    }
    if let Some((_, rest)) = path.split_once("/lib/rustlib/src/rust/") {
        return rest;
    }
    let below = path.split_once("/registry/src/").or_else(|| path.split_once("/git/checkouts/"));
    if let Some((_, rest)) = below.and_then(|(_, rest)| rest.split_once('/')) {
        return rest;
    }
    let below_dir = |dir: &String| path.strip_prefix(dir.as_str())?.strip_prefix('/');
    build_dirs.iter().find_map(below_dir).unwrap_or(path)
}

/// A name that is safe to show and bounded.
fn clean(name: &str) -> String {
    let safe = |c: char| if c.is_control() { '?' } else { c };
    let mut shown: String = name.chars().take(MAX_NAME_CHARS).map(safe).collect();
    if name.chars().nth(MAX_NAME_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    /// A program as guests are: `leaf` is called by `middle`, which is inlined into `outer`.
    const PROGRAM: &str = r#"
#![no_std]
#![no_main]
#[inline(never)]
fn leaf(x: u64) -> u64 { core::hint::black_box(x) + 1 }
#[inline(always)]
fn middle(x: u64) -> u64 {
    core::hint::black_box(leaf(x)) + 2
}
#[inline(never)]
fn outer(x: u64) -> u64 {
    core::hint::black_box(middle(x)) + 3
}
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    outer(1);
    unsafe { label() };
    loop {}
}
unsafe extern "C" { fn label(); }
core::arch::global_asm!(".section .text.label,\"ax\"", ".global label", "label:", "nop", "ret", ".text");
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }
"#;

    /// The program's image and twin, made by the compiler that builds us.
    static BUILT: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        std::fs::write(dir.path().join("src/main.rs"), PROGRAM).unwrap();
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let flags = ["--edition=2024", "-Cdebuginfo=line-tables-only", "-Copt-level=s", "-Cpanic=abort"];
        let link = ["-Crelocation-model=static", "-Clink-args=-nostartfiles -nostdlib -static -no-pie"];
        run(dir.path(), Command::new(rustc).args(["src/main.rs", "-o", "twin"]).args(flags).args(link));
        run(dir.path(), Command::new("strip").args(["-s", "-o", "image", "twin"]));
        let built = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        (built("image"), built("twin"))
    });

    fn run(dir: &Path, command: &mut Command) {
        let output = command.current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn place(dir: &Path, image: &[u8], twin: Option<&[u8]>) -> PathBuf {
        let path = dir.join("web.elf");
        std::fs::write(&path, image).unwrap();
        twin.iter().for_each(|twin| std::fs::write(dir.join("web.debug.elf"), twin).unwrap());
        path
    }

    /// What is found at each address of the program's code.
    fn everything(symbols: &Symbols) -> Vec<Vec<Frame>> {
        let (first, last) = (symbols.functions[0].address, symbols.functions.last().unwrap().end);
        (first..last.min(first.saturating_add(4096))).map(|address| symbols.resolve(address)).collect()
    }

    #[test]
    fn addresses_are_named_with_what_was_inlined_there() {
        let (image, twin) = &*BUILT;
        let dir = tempfile::tempdir().unwrap();
        let symbols = Symbols::load(&place(dir.path(), image, Some(twin))).unwrap().unwrap();
        let found: Vec<Vec<String>> = everything(&symbols)
            .iter()
            .map(|frames| frames.iter().map(ToString::to_string).collect())
            .collect();
        for expected in [
            vec!["main::leaf at src/main.rs:5"],
            vec!["middle at src/main.rs:8", "main::outer at src/main.rs:12"],
            vec!["_start at src/main.rs:16"],
            vec!["label"],
        ] {
            assert!(found.iter().any(|frames| *frames == expected), "{expected:?}: {found:#?}");
        }
        assert_eq!(symbols.resolve(0), []);
        assert_eq!(symbols.resolve(u64::MAX), []);
    }

    #[test]
    fn an_image_with_neither_twin_nor_lines_has_no_symbols_and_an_unstripped_one_its_own() {
        let (image, twin) = &*BUILT;
        let dir = tempfile::tempdir().unwrap();
        assert!(Symbols::load(&dir.path().join("web.elf")).unwrap().is_none());
        assert!(Symbols::load(&place(dir.path(), image, None)).unwrap().is_none());
        assert!(Symbols::load(&place(dir.path(), twin, None)).unwrap().is_some());
        assert!(Symbols::load(&place(dir.path(), b"no ELF", None)).unwrap().is_none());
    }

    #[test]
    fn a_twin_of_another_image_is_refused() {
        let (image, twin) = &*BUILT;
        let dir = tempfile::tempdir().unwrap();
        let mut other = image.clone();
        let file = object::File::parse(&**twin).unwrap();
        let code = file.section_by_name(".text").unwrap().file_range().unwrap().0;
        other[usize::try_from(code).unwrap()] ^= 1;
        let refused = Symbols::load(&place(dir.path(), &other, Some(twin))).unwrap_err();
        assert!(refused.to_string().contains("not the twin of this image"), "{refused}");
        let refused = Symbols::load(&place(dir.path(), image, Some(b"no ELF"))).unwrap_err();
        assert!(refused.to_string().contains("damaged"), "{refused}");
    }

    #[test]
    fn a_pipe_or_a_giant_in_the_twins_place_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let image = place(dir.path(), &BUILT.0, None);
        let twin = twin_path(&image);
        rustix::fs::mknodat(rustix::fs::CWD, &twin, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(Symbols::load(&image), Err(SymbolsError::Unfit(_))));
        std::fs::remove_file(&twin).unwrap();
        std::fs::File::create(&twin).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(matches!(Symbols::load(&image), Err(SymbolsError::Unfit(_))));
    }

    #[test]
    fn paths_say_nothing_of_the_machine_that_built_them() {
        let dirs = ["/home/me/uni".to_owned()];
        for (path, shown) in [
            ("/home/me/uni/guests/http/src/main.rs", "guests/http/src/main.rs"),
            ("/rustc/0123abcd/library/core/src/panicking.rs", "library/core/src/panicking.rs"),
            ("/x/lib/rustlib/src/rust/library/core/src/str.rs", "library/core/src/str.rs"),
            ("/c/registry/src/index-1/smoltcp-0.14.0/src/lib.rs", "smoltcp-0.14.0/src/lib.rs"),
            ("/home/me/unix/a.rs", "/home/me/unix/a.rs"),
        ] {
            assert_eq!(shorten(path, &dirs), shown);
        }
        assert_eq!(clean("a\n\x1b[2J"), "a??[2J");
        assert_eq!(clean(&"x".repeat(300)).len(), MAX_NAME_CHARS + 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn a_damaged_twin_costs_at_most_its_names(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40), end in any::<prop::sample::Index>(),
            cut in proptest::bool::weighted(0.2),
        ) {
            let mut twin = BUILT.1.clone();
            damage.iter().for_each(|(at, byte)| twin[at.index(BUILT.1.len())] = *byte);
            if cut {
                twin.truncate(end.index(twin.len()));
            }
            // as if it were the image's own, or the check would end it
            if let Ok(symbols) = Symbols::parse(&twin, &twin) {
                for address in [0, 0x20_1000, 0x40_0000, 0x40_1000, 0x40_1010, u64::MAX] {
                    prop_assert!(symbols.resolve(address).len() <= MAX_FRAMES);
                }
                if !symbols.functions.is_empty() {
                    everything(&symbols);
                }
            }
        }
    }
}
