//! What must hold for any bytes from QEMU, from an image's builder and from a VM's directory: shared by the replay of
//! seeds here and by the fuzz targets in `fuzz/`.

use uni_vmm::links::Links;
use uni_vmm::qmp::{QmpError, parse_reply};
use uni_vmm::symbols::Symbols;
use uni_vmm::trace::{has_addresses, name_addresses, unfinished_from};

/// A line from QEMU's control socket: an answer, or an error that quotes a short piece of it.
pub(crate) fn check_reply(line: &[u8]) {
    match parse_reply(line) {
        Err(QmpError::Malformed(piece)) => assert!(piece.chars().count() <= 80),
        Err(QmpError::TooLong) => assert!(line.len() > 80),
        other => drop(other),
    }
}

/// An image and its unstripped twin; and a console with a stack trace.
pub(crate) fn check_image(bytes: &[u8]) {
    if let Ok(symbols) = Symbols::parse(bytes, bytes) {
        for address in [0, 0x10_0000, u64::MAX] {
            drop(symbols.resolve(address));
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let named = name_addresses(&text, |_| Vec::new());
    assert!(named.len() >= text.len(), "names are added, nothing is taken away");
    if !has_addresses(&text) {
        assert_eq!(named, text);
    }
    let unfinished = unfinished_from(bytes);
    assert!(unfinished <= bytes.len() && !bytes[unfinished..].contains(&b'\n'));
}

/// The shim's block of counters: what is one is written as it was read.
pub(crate) fn check_links(block: &[u8]) {
    if let Some(links) = Links::parse(block) {
        assert_eq!(links.emit(), block);
    }
}
