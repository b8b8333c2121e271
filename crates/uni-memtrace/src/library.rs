//! To which library a function belongs, by its name.
//!
//! Owns the reading of names: demangled Rust paths, OCaml's `Lib__Module.function`, and the addresses of Uni's guests. Knows no program: what is of
//! the language's own libraries or of an allocator serves whoever called it.

/// Whose a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// A library's, or the program's own: a crate, a module prefix, or a folder.
    Library(&'a str),
    /// The language's, or an allocator's: it works for its caller.
    Runtime(&'a str),
    /// The name does not say.
    Unknown,
}

/// Crates that every Rust program has, the container that `std` is made with, and allocators.
const RUST_RUNTIME: [&str; 19] = [
    "__rustc",
    "alloc",
    "buddy_system_allocator",
    "compiler_builtins",
    "core",
    "dlmalloc",
    "good_memory_allocator",
    "hashbrown",
    "jemallocator",
    "libmimalloc_sys",
    "linked_list_allocator",
    "mimalloc",
    "rlsf",
    "std",
    "talc",
    "test",
    "tikv_jemalloc_sys",
    "tikv_jemallocator",
    "wee_alloc",
];

/// Paths of allocators in crates that are more than that.
const RUST_ALLOCATORS: [&str; 2] = ["guest_runtime::heap", "uni_guest::heap"];

/// Functions without a path that hand out memory, and those around `main`.
const PLAIN_RUNTIME: [&str; 12] = [
    "__libc_start_main",
    "_start",
    "aligned_alloc",
    "calloc",
    "free",
    "main",
    "malloc",
    "mmap",
    "posix_memalign",
    "realloc",
    "rust_begin_unwind",
    "rust_panic",
];

/// Prefixes of OCaml's own modules.
const OCAML_RUNTIME: [&str; 5] =
    ["Stdlib", "CamlinternalFormat", "CamlinternalLazy", "CamlinternalOO", "Pervasives"];

/// Whose the function `name`, defined in `file`, is.
#[must_use]
pub fn owner<'a>(name: &'a str, file: &'a str) -> Owner<'a> {
    if name.is_empty() || name == "??" {
        return folder(file).map_or(Owner::Unknown, Owner::Library);
    }
    if is_address(name) && !file.contains(['/', '.']) {
        return guests_own(file);
    }
    if has_rust_path(name) {
        return rust(name);
    }
    if PLAIN_RUNTIME.contains(&name) || name.starts_with("__r") || name.starts_with("caml_") {
        return Owner::Runtime(name);
    }
    if file.ends_with(".rs") {
        return rust_package(file).map_or(Owner::Unknown, in_package);
    }
    if name.starts_with(|first: char| first.is_ascii_uppercase()) {
        return ocaml(name, file);
    }
    folder(file).map_or(Owner::Unknown, Owner::Library)
}

/// Whether a Rust name says its crate. That of an inlined function may be bare, `sum<core::ops::Range<u8>>`: its
/// arguments' crates are not its own.
pub(crate) fn has_rust_path(name: &str) -> bool {
    name.starts_with('<') || name.split('<').next().is_some_and(|path| path.contains("::"))
}

/// The folder of the package that a Rust file is in: `crates/uni-guest` of `crates/uni-guest/src/ring.rs`.
pub(crate) fn rust_package(file: &str) -> Option<&str> {
    file.strip_suffix(".rs").and_then(|file| file.rsplit_once("/src/")).map(|(package, _)| package)
}

/// Whose a package is, by its folder: `smoltcp` of `.../smoltcp-0.12.0`, the language's own of `library/core`.
fn in_package(package: &str) -> Owner<'_> {
    let folder = package.rsplit('/').next().unwrap_or(package);
    let versioned =
        |at: &usize| folder.get(at + 1..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let end = folder.match_indices('-').map(|(at, _)| at).find(versioned).unwrap_or(folder.len());
    match folder.get(..end).unwrap_or(folder) {
        "" => Owner::Unknown,
        name if RUST_RUNTIME.binary_search(&name).is_ok() => Owner::Runtime(name),
        name => Owner::Library(name),
    }
}

/// Uni's guests have no symbols: they say the address, and in place of the file the library.
fn guests_own(library: &str) -> Owner<'_> {
    match library {
        "" | "??" => Owner::Unknown,
        library if RUST_RUNTIME.binary_search(&library).is_ok() => Owner::Runtime(library),
        library => Owner::Library(library),
    }
}

fn is_address(name: &str) -> bool {
    name.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn rust(name: &str) -> Owner<'_> {
    let path = own_path(name);
    let crate_name = crate_of(path);
    let allocator = RUST_ALLOCATORS
        .iter()
        .any(|known| path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')));
    if crate_name.is_empty() {
        Owner::Unknown
    } else if allocator || RUST_RUNTIME.binary_search(&crate_name).is_ok() {
        Owner::Runtime(crate_name)
    } else {
        Owner::Library(crate_name)
    }
}

/// The path that says where a function is: of `<T as Trait>::f` it is that of `T`, if it has one, else the trait's.
fn own_path(name: &str) -> &str {
    let Some(inner) = name.strip_prefix('<') else { return name };
    let inner = inner.get(..closing(inner)).unwrap_or(inner);
    let (own, of_trait) = split_as(inner);
    let own = own_path(bare_type(own));
    // the type of a function is nobody's, even if its arguments are somebody's
    let has_path = own.contains("::") && !own.starts_with("fn(");
    if has_path { own } else { of_trait.map_or(own, own_path) }
}

/// Where the bracket closes that was open before `text`.
fn closing(text: &str) -> usize {
    let mut depth = 1_usize;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            // of an arrow
            '>' if before == '-' => {}
            '>' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
        before = c;
    }
    text.len()
}

/// `T as Trait` in two, where the `as` is in no bracket.
fn split_as(text: &str) -> (&str, Option<&str>) {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '<' | '(' | '[' => depth += 1,
            '>' | ')' | ']' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 => {
                if let Some(rest) = text.get(at..).and_then(|rest| rest.strip_prefix(" as ")) {
                    return (text.get(..at).unwrap_or(text), Some(rest));
                }
            }
            _ => {}
        }
    }
    (text, None)
}

/// A type without what only says how it is reached: `&mut dyn http::Page` is of `http`.
fn bare_type(text: &str) -> &str {
    const AROUND: [&str; 10] =
        ["&", "*const ", "*mut ", "mut ", "dyn ", "impl ", "[", "(", "unsafe ", "for<'_> "];
    let mut rest = text;
    while let Some(inner) = AROUND.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = inner.trim_start();
    }
    rest
}

/// `http` of `http::pages::f`, and of `http[0123456789abcdef]::pages::f`.
fn crate_of(path: &str) -> &str {
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(path.len());
    path.get(..end).unwrap_or_default()
}

fn ocaml<'a>(name: &'a str, file: &'a str) -> Owner<'a> {
    let module = name.split('.').next().unwrap_or(name);
    let module = module.strip_prefix("Dune__exe__").unwrap_or(module);
    let (prefix, inside) = module.split_once("__").map_or((module, false), |(prefix, _)| (prefix, true));
    if OCAML_RUNTIME.contains(&prefix) {
        Owner::Runtime(prefix)
    } else if inside {
        Owner::Library(prefix)
    } else {
        Owner::Library(folder(file).unwrap_or(prefix))
    }
}

/// The folder that tells a file's library: that of its package among foreign sources, else the innermost one above what
/// every package calls its own folders (`src`, `lib`). None of a path that begins with those: it is relative to a package
/// that it does not name.
fn folder(file: &str) -> Option<&str> {
    const FOREIGN: [&str; 5] = ["duniverse", "vendor", "vendors", "registry", "esy"];
    const OWN_FOLDERS: [&str; 3] = ["src", "lib", "bin"];
    const NO_NAME: [&str; 5] = ["_build", "default", ".", "..", "workspace_root"];
    let (folders, _) = file.rsplit_once('/')?;
    let parts = || folders.split('/').filter(|part| !part.is_empty());
    if let Some(package) = opam_package(parts()) {
        return Some(package);
    }
    let mut rest = parts();
    if rest.by_ref().any(|part| FOREIGN.contains(&part))
        && let Some(name) = rest.next()
    {
        return Some(name);
    }
    let is_own = |part: &&str| OWN_FOLDERS.contains(part);
    let mut named = parts().filter(|part| !NO_NAME.contains(part)).peekable();
    named.next_if(|part| !is_own(part)).map(|first| named.rfind(|part| !is_own(part)).unwrap_or(first))
}

/// The package of a file under opam's folders, without its version: `lwt` of `.opam/4.14.1/lib/lwt/unix/x.ml` and of
/// `.opam/4.14.1/.opam-switch/build/lwt.5.7.0/src/core/x.ml`.
fn opam_package<'a>(mut parts: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    parts.find(|part| matches!(*part, ".opam" | "_opam" | ".opam-switch"))?;
    parts.find(|part| matches!(*part, "lib" | "build" | "sources"))?;
    let package = parts.next()?;
    let is_version = |(_, version): &(&str, &str)| version.starts_with(|c: char| c.is_ascii_digit());
    Some(package.split_once('.').filter(is_version).map_or(package, |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_functions_belong_to_their_crate() {
        let library = [
            ("http::pages::render", "http"),
            ("<http::pages::Page as core::fmt::Display>::fmt", "http"),
            ("<&mut http::pages::Page as core::fmt::Write>::write_str", "http"),
            ("<http::Pages<alloc::vec::Vec<u8>> as smoltcp::phy::Device>::receive", "http"),
            ("<T as tokio::util::Any>::any", "tokio"),
            ("<[u8] as bytes::Buf>::chunk", "bytes"),
            ("<dyn http::Route>::call", "http"),
            ("<<http::A as http::B>::C as core::clone::Clone>::clone", "http"),
            ("smoltcp[5ab1ee]::iface::poll::{closure#0}", "smoltcp"),
            ("http::main::{{closure}}", "http"),
            ("<fn() -> http::A as leaky::Run>::run", "leaky"),
            ("uni_guest::agent::poll", "uni_guest"),
            ("guest_runtime::heaps::f", "guest_runtime"),
        ];
        for (name, expected) in library {
            assert_eq!(owner(name, ""), Owner::Library(expected), "{name}");
        }
        let runtime = [
            ("alloc::raw_vec::RawVecInner<A>::finish_grow", "alloc"),
            ("core::ptr::drop_in_place<http::pages::Page>", "core"),
            ("<alloc::vec::Vec<http::pages::Page> as core::clone::Clone>::clone", "alloc"),
            ("hashbrown::raw::RawTable<T>::reserve", "hashbrown"),
            ("linked_list_allocator::Heap::allocate_first_fit", "linked_list_allocator"),
            ("guest_runtime::heap::Sampled::alloc", "guest_runtime"),
            ("__rustc[1e2f]::__rust_alloc", "__rustc"),
            ("__rust_alloc", "__rust_alloc"),
            ("malloc", "malloc"),
        ];
        for (name, expected) in runtime {
            assert_eq!(owner(name, ""), Owner::Runtime(expected), "{name}");
        }
    }

    #[test]
    fn bare_names_of_inlined_functions_belong_to_their_files_package() {
        let cases = [
            (
                "sum<core::ops::Range<http::A>>",
                "library/core/src/iter/traits/accum.rs",
                Owner::Runtime("core"),
            ),
            (
                "reserve<alloc::alloc::Global>",
                "/rustc/59807616e1/library/alloc/src/raw_vec/mod.rs",
                Owner::Runtime("alloc"),
            ),
            ("push", "crates/uni-guest/src/ring.rs", Owner::Library("uni-guest")),
            (
                "poll",
                "/root/.cargo/registry/src/index-1949cf/smoltcp-0.12.0/src/iface/mod.rs",
                Owner::Library("smoltcp"),
            ),
            ("get", "/x/hashbrown-0.16.1/src/raw.rs", Owner::Runtime("hashbrown")),
            ("f", "a.rs", Owner::Unknown),
            ("http::sum", "library/core/src/x.rs", Owner::Library("http")),
        ];
        for (name, file, expected) in cases {
            assert_eq!(owner(name, file), expected, "{name} {file}");
        }
    }

    #[test]
    fn ocaml_functions_belong_to_their_module_prefix_or_folder() {
        let cases = [
            ("Cohttp__Header.add", "src/header.ml", Owner::Library("Cohttp")),
            ("Main.start", "main.ml", Owner::Library("Main")),
            ("Dune__exe__Unikernel.start", "unikernel.ml", Owner::Library("Unikernel")),
            ("Header.add", "duniverse/cohttp/src/header.ml", Owner::Library("cohttp")),
            ("M0.f0", "lib/m0.ml", Owner::Library("M0")),
            ("Lwt.bind", "src/core/lwt.ml", Owner::Library("Lwt")),
            ("Cstruct.create", "_build/default/lib/cstruct.ml", Owner::Library("Cstruct")),
            ("Dune__exe__Main.run", "/workspace_root/bin/main.ml", Owner::Library("Main")),
            ("Dune__exe__Main.run", "bin/main.ml", Owner::Library("Main")),
            ("Lwt.bind", "/home/u/.opam/4.14.1/lib/lwt/lwt.ml", Owner::Library("lwt")),
            ("Lwt.bind", "/u/.opam/x/.opam-switch/build/lwt.5.7.0/src/core/lwt.ml", Owner::Library("lwt")),
            ("Yojson.f", "_opam/lib/yojson/yojson.ml", Owner::Library("yojson")),
            ("Store.f", "shop/lib/store/store.ml", Owner::Library("store")),
            ("Pervasives.@", "pervasives.ml", Owner::Runtime("Pervasives")),
            ("Tcp.f", "mirage-tcpip/src/tcp.ml", Owner::Library("mirage-tcpip")),
            ("Stdlib__Hashtbl.replace", "hashtbl.ml", Owner::Runtime("Stdlib")),
            ("Stdlib.@", "stdlib.ml", Owner::Runtime("Stdlib")),
            ("??", "cstruct/lib/cstruct.ml", Owner::Library("cstruct")),
            ("??", "x.ml", Owner::Unknown),
            ("caml_alloc_shr", "", Owner::Runtime("caml_alloc_shr")),
        ];
        for (name, file, expected) in cases {
            assert_eq!(owner(name, file), expected, "{name} {file}");
        }
    }

    #[test]
    fn frames_of_unis_guests_have_their_library_for_a_file() {
        let cases = [
            ("http", Owner::Library("http")),
            ("alloc", Owner::Runtime("alloc")),
            ("??", Owner::Unknown),
            ("lib/x.ml", Owner::Unknown),
            ("shop/lib/x.ml", Owner::Library("shop")),
        ];
        for (file, expected) in cases {
            assert_eq!(owner("0x10a0f3", file), expected, "{file}");
        }
    }

    #[test]
    fn the_list_is_searched_by_halves() {
        assert!(RUST_RUNTIME.is_sorted());
    }

    #[test]
    fn strange_names_are_somebodys_or_nobodys() {
        for name in ["<", "<>", "<<<", "::", "<a as ", "<é as b::c>::d", "<&", ">", "-> ::", "<a> as b>::c"]
        {
            let _any = owner(name, "");
        }
    }
}
