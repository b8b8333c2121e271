//! A trace of a Rust program: whose the memory is, and names that want to be more than names.

use uni_memtrace::{Analysis, Diff, FlameGraph, Grouping, Names, Options, read};
use uni_wire::memtrace::{Allocation, Info, Locate, Position, Source, Version, Writer};

const HOSTILE: &str = "evil::</script><script>alert(1)</script>]]>\"'&;\u{1}f";

/// Codes from 1 on are these functions.
const FUNCTIONS: [&str; 7] = [
    "hello::main",
    "http::server::Server::poll",
    "<http::pages::Page as core::fmt::Display>::fmt",
    "alloc::raw_vec::RawVec<T,A>::grow_one",
    "__rust_alloc",
    "smoltcp::socket::tcp::Socket::send",
    HOSTILE,
];

struct Symbols;

impl Locate for Symbols {
    fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
        let name = FUNCTIONS[code as usize - 1].as_bytes();
        let line = code.cast_signed() * 10;
        each(Position { name, file: b"src/x.rs", line, start_column: 0, end_column: 0 });
    }
}

/// As Uni's guests say it: the address, and the library for a file.
struct GuestSymbols;

impl Locate for GuestSymbols {
    fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
        let library = ["hello", "http", "http", "alloc", "__rustc", "smoltcp", "??"][code as usize - 1];
        let name = format!("{code:#x}");
        let (name, file) = (name.as_bytes(), library.as_bytes());
        each(Position { name, file, line: 0, start_column: 0, end_column: 0 });
    }
}

/// A trace of these stacks, each of a block of one sample; of the first `freed` the blocks are freed.
fn trace(stacks: &[&[u64]], freed: usize) -> Vec<u8> {
    trace_with(stacks, freed, &Symbols)
}

fn trace_with(stacks: &[&[u64]], freed: usize, symbols: &impl Locate) -> Vec<u8> {
    let info = Info {
        sample_rate: 0.5,
        word_size_bits: 64,
        executable_name: HOSTILE.as_bytes(),
        host_name: b"vm",
        runtime_params: b"",
        pid: u64::MAX,
        start_micros: 1_000_000,
        context: b"",
        initial_domain: 0,
    };
    let mut writer = Box::new(Writer::new([0; 64]));
    writer.start(Version::V2, &info).expect("short");
    for (n, backtrace) in stacks.iter().enumerate() {
        let alloc = Allocation { length_words: 4, samples: 1, source: Source::Minor, backtrace };
        writer.handle_alloc(1_000_000 + n as u64 * 1000, &alloc).expect("room");
    }
    for id in 0..freed {
        writer.handle_collect(2_000_000, id as u64).expect("room");
    }
    writer.close().expect("no packet waits");
    let mut trace = Vec::new();
    while let Some(packet) = writer.poll_packet(symbols) {
        trace.extend_from_slice(packet);
        let taken = packet.len();
        writer.handle_sent(taken);
    }
    trace
}

fn analysis(trace: &[u8]) -> Analysis {
    read(trace, &Options::default(), |_| {}).expect("memory")
}

const STACKS: [&[u64]; 6] =
    [&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5], &[1, 2, 6, 4, 5], &[1, 4, 5], &[4, 5], &[1, 2, 7, 4]];

#[test]
fn memory_belongs_to_the_library_that_asked_for_it() {
    let report = analysis(&trace(&STACKS, 1)).report(Grouping::Library, 10);
    let rows: Vec<_> =
        report.rows.iter().map(|row| (row.name.as_str(), row.live_bytes, row.allocated_bytes)).collect();
    // one sample stands for two words of eight bytes
    let expected = [
        ("http", 16, 32),
        ("evil", 16, 16),
        ("hello", 16, 16),
        ("smoltcp", 16, 16),
        ("__rust_alloc", 16, 16),
    ];
    assert_eq!(rows.len(), expected.len() + 1, "{rows:?}");
    assert!(expected.iter().all(|row| rows.contains(row)), "{rows:?}");
    let of = |name: &str| report.rows.iter().find(|row| row.name == name).expect("a row");
    assert_eq!(of("http").cumulative_live_bytes, 48);
    assert_eq!(of("hello").cumulative_allocated_bytes, 80);
    assert_eq!((of("alloc").allocated_bytes, of("alloc").cumulative_allocated_bytes), (0, 96));
}

#[test]
fn a_guest_without_symbols_names_the_libraries_itself() {
    let report = analysis(&trace_with(&STACKS, 1, &GuestSymbols)).report(Grouping::Library, 10);
    let of = |name: &str| report.rows.iter().find(|row| row.name == name).map(|row| row.allocated_bytes);
    // the last stack's innermost frame but one is of no library that is known: it counts for its caller
    assert_eq!((of("http"), of("hello"), of("smoltcp")), (Some(48), Some(16), Some(16)));
    assert_eq!(of("__rustc"), Some(16), "{:?}", report.rows);
}

#[test]
fn addresses_get_names_from_whoever_knows_them_and_names_stay() {
    /// Knows all but the last.
    struct Program;
    impl Locate for Program {
        fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
            if code < 7 {
                Symbols.locate(code, each);
            }
        }
    }
    let options = Options { names: Some(Names::new(Program)), ..Options::default() };
    let named = |trace: &[u8]| {
        let analysis = read(trace, &options, |_| {}).expect("memory");
        analysis.report(Grouping::Function, 10).rows
    };
    let bare = named(&trace_with(&STACKS, 1, &GuestSymbols));
    for name in &FUNCTIONS[..6] {
        assert!(bare.iter().any(|row| row.name == *name && row.file == "src/x.rs"), "{name}: {bare:?}");
    }
    assert!(bare.iter().any(|row| row.name == "0x7"), "{bare:?}");
    /// Other names than the program's.
    struct Told;
    impl Locate for Told {
        fn locate(&self, _code: u64, each: &mut dyn FnMut(Position<'_>)) {
            each(Position { name: b"told::f", file: b"", line: 1, start_column: 0, end_column: 0 });
        }
    }
    assert!(named(&trace_with(&STACKS, 1, &Told)).iter().all(|row| row.name == "told::f"));
}

#[test]
fn a_bare_name_has_its_crate_even_if_that_is_told_later() {
    /// The package's folder is not called as its crate, which only the second name tells.
    struct Boot;
    impl Locate for Boot {
        fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
            let name = [&b"turn<http::Web>"[..], b"guest_runtime::system::run"][code as usize - 1];
            let file = b"guests/runtime/src/system.rs";
            each(Position { name, file, line: 7, start_column: 0, end_column: 0 });
        }
    }
    let report = analysis(&trace_with(&[&[1], &[2]], 0, &Boot)).report(Grouping::Library, 10);
    let names: Vec<&str> = report.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["guest_runtime"]);
}

#[test]
fn a_site_is_the_innermost_line_of_a_library() {
    let report = analysis(&trace(&STACKS, 0)).report(Grouping::Site, 10);
    let first = &report.rows[0];
    assert_eq!((first.name.as_str(), first.line, first.live_bytes), (FUNCTIONS[2], 30, 32));
    assert_eq!(first.library, "http");
}

#[test]
fn a_diff_shows_who_grew() {
    let (before, after) = (analysis(&trace(&STACKS, 2)), analysis(&trace(&STACKS, 0)));
    let diff = Diff::new(&before, &after, Grouping::Library, 1);
    assert_eq!((diff.rows[0].name.as_str(), diff.rows[0].live_change_bytes), ("http", 32));
    assert_eq!(diff.rows_left_out, 4);
    let back = Diff::new(&after, &before, Grouping::Library, 1);
    assert_eq!(back.rows[0].live_change_bytes, -32);
}

#[test]
fn folded_stacks_are_one_a_line() {
    let folded = analysis(&trace(&STACKS[..3], 0)).folded(true);
    let lines: Vec<&str> = folded.lines().collect();
    assert_eq!(lines.len(), 2, "{folded}");
    assert!(lines.iter().all(|line| line.starts_with("hello::main;http::server::Server::poll;")));
    assert!(lines.iter().any(|line| line.ends_with(";__rust_alloc 32")));
}

#[test]
fn drawings_are_well_formed_and_names_stay_names() {
    let graph = FlameGraph::new(&analysis(&trace(&STACKS, 1)));
    let (svg, html) = (uni_memtrace::svg(&graph).expect("json"), uni_memtrace::html(&graph).expect("json"));
    let document = roxmltree::Document::parse(&svg).expect("well-formed");
    let scripts: Vec<_> = document.descendants().filter(|node| node.has_tag_name("script")).collect();
    assert_eq!(scripts.len(), 1);
    assert!(scripts[0].attribute("href").is_none());
    let shown = document.descendants().filter(|node| node.has_tag_name("title")).any(|node| {
        node.text().is_some_and(|text| text.contains("evil::</script><script>alert(1)</script>"))
    });
    assert!(shown, "the hostile name is a text");
    for text in [&svg, &html] {
        assert_eq!(text.matches("</script").count(), 1);
        assert!(!text.contains("<script>alert"));
        assert!(!text.contains("http://") || !text.contains("src=\"http"));
        assert!(text.contains("prefers-color-scheme: dark"));
    }
    assert!(!uni_memtrace::FLAME_SCRIPT.contains("innerHTML") && !uni_memtrace::FLAME_SCRIPT.contains("]]>"));
}

#[test]
fn mangled_names_are_read() {
    let mut trace = trace(&[&[1]], 0);
    let name = FUNCTIONS[0].as_bytes();
    let at = trace.windows(name.len()).position(|window| window == name).expect("the name");
    // a name of the same length keeps the packet whole
    trace[at..at + name.len()].copy_from_slice(b"_ZN1a1bE...");
    let report = analysis(&trace).report(Grouping::Function, 1);
    assert_eq!(report.rows[0].library, "a", "{:?}", report.rows);
}
