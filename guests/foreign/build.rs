//! Links the guest as a bootable image, by the arguments the runtime's build script hands over.

fn main() {
    let arguments =
        std::env::var("DEP_GUEST_RUNTIME_LINK_ARGS").expect("guest-runtime hands its link arguments");
    for argument in arguments.split(' ') {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    let script =
        std::env::var("DEP_GUEST_RUNTIME_LINK_SCRIPT").expect("guest-runtime names its linker script");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rerun-if-changed=build.rs");
}
