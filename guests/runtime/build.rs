//! Hands the linker arguments of a bootable image to the build scripts of the guests.
//!
//! A library cannot set link arguments of the programs that use it, so they travel as metadata: a guest's
//! own build script finds them, space separated, in `DEP_GUEST_RUNTIME_LINK_ARGS`.

/// No start files, no dynamic linking, one fixed address. rustc itself passes `-pie -z relro`; later
/// arguments win, and the code, position independent or not, needs no relocation where it is linked.
const LINK_ARGS: [&str; 11] = [
    "-nostartfiles",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,-z,max-page-size=0x1000",
    "-Wl,-z,norelro",
    "-Wl,-z,noexecstack",
    "-Wl,--gc-sections",
    "-Wl,--no-eh-frame-hdr",
    "-Wl,--orphan-handling=warn",
];

fn main() {
    let directory = std::env::var("CARGO_MANIFEST_DIR").expect("cargo names the package's directory");
    assert!(
        !directory.contains(' '),
        "linker arguments are split at spaces, move the tree out of {directory}"
    );
    println!("cargo::metadata=LINK_ARGS={} -Wl,-T,{directory}/link.ld", LINK_ARGS.join(" "));
    println!("cargo::metadata=LINK_SCRIPT={directory}/link.ld");
    println!("cargo::rerun-if-changed=link.ld");
    println!("cargo::rerun-if-changed=build.rs");
}
