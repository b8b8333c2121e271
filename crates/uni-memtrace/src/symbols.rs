//! What frames are called.
//!
//! Owns the names, each once, the functions with their owners, and the sites. Bounded: beyond the limit a name is
//! `(too many names)`.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use uni_wire::memtrace::Position;

use crate::library::{Owner, has_rust_path, owner, rust_package};
use crate::names::Names;

/// A function and where it is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Function {
    pub(crate) name: u32,
    pub(crate) file: u32,
    /// Its library; or its crate if it is the language's own.
    pub(crate) library: u32,
    /// Whether it works for its caller: it is the language's own, or nobody knows.
    pub(crate) serves: bool,
}

/// A line of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) function: u32,
    pub(crate) line: u32,
}

/// Who is said to have allocated: the innermost line of a library, or the innermost of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    pub(crate) place: Place,
    /// A library was found.
    pub(crate) named: bool,
}

/// Names of libraries that are none.
const UNKNOWN: &str = "(unknown)";
const TOO_MANY: &str = "(too many names)";
const NOWHERE: &str = "(no stack)";

/// What a name takes besides its letters, which are kept twice: its places in the list and in the table, and what the
/// allocator adds.
const TEXT_BYTES: usize = 128;

#[derive(Debug, Default)]
struct Texts {
    numbers: HashMap<Box<str>, u32, RandomState>,
    texts: Vec<Box<str>>,
    bytes: usize,
}

impl Texts {
    fn number(&mut self, text: &str, limit_bytes: usize) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        if self.bytes > limit_bytes && text != TOO_MANY {
            return self.number(TOO_MANY, limit_bytes);
        }
        self.bytes += 2 * text.len() + TEXT_BYTES;
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.texts.push(text.into());
        self.numbers.insert(text.into(), number);
        number
    }
}

#[derive(Debug)]
pub(crate) struct Symbols {
    texts: Texts,
    limit_bytes: usize,
    functions: Vec<Function>,
    function_numbers: HashMap<(u32, u32), u32, RandomState>,
    sites: Vec<Site>,
    site_numbers: HashMap<Site, u32, RandomState>,
    /// Places of frames, outermost first.
    frames: Vec<Box<[Place]>>,
    /// How many these are.
    place_count: usize,
    by_code: HashMap<u64, u32, RandomState>,
    /// The crate of a package's folder, as names with a path have told it.
    crates: HashMap<Box<str>, u32, RandomState>,
    limit_frames: usize,
    /// Who is asked what the trace does not name.
    names: Option<Names>,
}

/// Packages whose crate is remembered, at most.
const MAX_PACKAGES: usize = 4096;

impl Symbols {
    /// Names of at most `limit_bytes` bytes, of frames with at most `limit_frames` places.
    pub(crate) fn new(limit_bytes: usize, limit_frames: usize) -> Self {
        let mut symbols = Self {
            texts: Texts::default(),
            limit_bytes,
            functions: Vec::new(),
            function_numbers: HashMap::default(),
            sites: Vec::new(),
            site_numbers: HashMap::default(),
            frames: Vec::new(),
            place_count: 0,
            by_code: HashMap::default(),
            crates: HashMap::default(),
            limit_frames,
            names: None,
        };
        // site 0 is that of the empty stack
        let function = symbols.function(NOWHERE, "");
        symbols.site(Site { place: Place { function, line: 0 }, named: false });
        symbols
    }

    /// Asks `names` for what the trace does not name.
    pub(crate) fn with_names(self, names: Option<Names>) -> Self {
        Self { names, ..self }
    }

    pub(crate) fn text(&self, number: u32) -> &str {
        self.texts.texts.get(number as usize).map_or(TOO_MANY, |text| text)
    }

    pub(crate) fn functions(&self) -> &[Function] {
        &self.functions
    }

    pub(crate) fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Numbers of texts are below this.
    pub(crate) fn text_count(&self) -> usize {
        self.texts.texts.len()
    }

    /// Numbers of frames are below this.
    pub(crate) fn frame_count(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// The places of a frame, outermost first; at least one.
    pub(crate) fn places(&self, frame: u32) -> &[Place] {
        self.frames.get(frame as usize).map_or(&[], |places| places)
    }

    /// The positions of a frame are known. Those that came first stay.
    pub(crate) fn locate(&mut self, code: u64, positions: &[Position<'_>]) {
        if self.by_code.contains_key(&code) || self.place_count >= self.limit_frames {
            return;
        }
        let mut places = self.looked_up(code, positions);
        if places.is_empty() {
            places = positions.iter().map(|position| self.place(position)).collect();
        }
        self.frame_of(code, places);
    }

    /// What is known of a frame that the trace does not name.
    fn looked_up(&mut self, code: u64, told: &[Position<'_>]) -> Vec<Place> {
        let mut places = Vec::new();
        if let Some(names) = self.names.clone() {
            names.locate(code, told, |position| places.push(self.place(&position)));
        }
        places
    }

    /// The frame of a code.
    #[inline]
    pub(crate) fn frame(&mut self, code: u64) -> u32 {
        match self.by_code.get(&code) {
            Some(frame) => *frame,
            None => {
                let places = self.looked_up(code, &[]);
                self.frame_of(code, places)
            }
        }
    }

    fn frame_of(&mut self, code: u64, mut places: Vec<Place>) -> u32 {
        if self.place_count >= self.limit_frames {
            // the last frame is everybody else's
            return u32::try_from(self.frames.len().saturating_sub(1)).unwrap_or(u32::MAX);
        }
        if places.is_empty() {
            let name = if code == 0 { "(lost)".to_owned() } else { format!("{code:#x}") };
            places.push(Place { function: self.function(&name, ""), line: 0 });
        }
        let frame = u32::try_from(self.frames.len()).unwrap_or(u32::MAX);
        self.place_count += places.len();
        self.frames.push(places.into_boxed_slice());
        self.by_code.insert(code, frame);
        frame
    }

    fn place(&mut self, position: &Position<'_>) -> Place {
        let name = String::from_utf8_lossy(position.name);
        let file = String::from_utf8_lossy(position.file);
        let function = self.function(&format!("{:#}", rustc_demangle::demangle(&name)), &file);
        Place { function, line: u32::try_from(position.line).unwrap_or(u32::MAX) }
    }

    fn function(&mut self, name: &str, file: &str) -> u32 {
        let limit = self.limit_bytes;
        let (name_number, file_number) = (self.texts.number(name, limit), self.texts.number(file, limit));
        if let Some(function) = self.function_numbers.get(&(name_number, file_number)) {
            return *function;
        }
        let (library, serves) = self.library(name, file);
        let number = u32::try_from(self.functions.len()).unwrap_or(u32::MAX);
        self.functions.push(Function { name: name_number, file: file_number, library, serves });
        self.function_numbers.insert((name_number, file_number), number);
        number
    }

    /// The library of a function, and whether it works for its caller. A package may be called otherwise than its crate:
    /// what a name with a path has told of a file's package serves bare names as well.
    fn library(&mut self, name: &str, file: &str) -> (u32, bool) {
        let limit = self.limit_bytes;
        match (owner(name, file), rust_package(file)) {
            (Owner::Library(library), Some(package)) if has_rust_path(name) => {
                let library = self.texts.number(library, limit);
                if self.crates.len() < MAX_PACKAGES && !self.crates.contains_key(package) {
                    self.crates.insert(package.into(), library);
                }
                (library, false)
            }
            (Owner::Library(folder), Some(package)) => match self.crates.get(package) {
                Some(library) => (*library, false),
                None => (self.texts.number(&folder.replace('-', "_"), limit), false),
            },
            (Owner::Library(library), None) => (self.texts.number(library, limit), false),
            (Owner::Runtime(runtime), _) => (self.texts.number(runtime, limit), true),
            (Owner::Unknown, _) => (self.texts.number(UNKNOWN, limit), true),
        }
    }

    /// All names are known: bare ones that came before their crate's get it, too.
    pub(crate) fn settle(&mut self) {
        for function in &mut self.functions {
            let [name, file] = [function.name, function.file]
                .map(|number| self.texts.texts.get(number as usize).map_or("", |text| &**text));
            if !function.serves
                && !has_rust_path(name)
                && let Some(library) = rust_package(file).and_then(|package| self.crates.get(package))
            {
                function.library = *library;
            }
        }
    }

    /// The site of a stack whose innermost frame is `frame` and whose callers' is `callers`.
    pub(crate) fn site_of(&mut self, callers: u32, frame: u32) -> u32 {
        let places = self.places(frame);
        let own = places.iter().rev().find(|place| !self.serves(place.function)).copied();
        let innermost = places.last().copied();
        let callers_named = self.sites.get(callers as usize).is_some_and(|site| site.named);
        match (own, innermost) {
            (Some(place), _) => self.site(Site { place, named: true }),
            (None, Some(place)) if !callers_named => self.site(Site { place, named: false }),
            _ => callers,
        }
    }

    fn serves(&self, function: u32) -> bool {
        self.functions.get(function as usize).is_none_or(|function| function.serves)
    }

    fn site(&mut self, site: Site) -> u32 {
        if let Some(number) = self.site_numbers.get(&site) {
            return *number;
        }
        let number = u32::try_from(self.sites.len()).unwrap_or(u32::MAX);
        self.sites.push(site);
        self.site_numbers.insert(site, number);
        number
    }
}
