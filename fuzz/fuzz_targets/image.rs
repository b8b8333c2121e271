//! Any bytes as an image and its unstripped twin, and any text as a console with a stack trace.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(symbols) = uni_vmm::symbols::Symbols::parse(bytes, bytes) {
        let _ = symbols.resolve(0x10_0000);
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = uni_vmm::trace::name_addresses(&text, |_| Vec::new());
    let _ = uni_vmm::trace::unfinished_from(bytes);
});
