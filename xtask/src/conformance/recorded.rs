//! What the recordings made of bytes outside ASCII.
//!
//! The recorder printed the original's bytes as an OCaml literal, where such a byte is a backslash and three decimal
//! digits, and read that as octal digits. So `ü`, bytes 195 and 188, became `\x01` `95` `\x01` `88`.

/// Whether `recorded` stands for `bytes`, as they are or as the recorder garbled them.
pub(super) fn stands_for(recorded: &str, bytes: &[u8]) -> bool {
    recorded.as_bytes() == bytes || recorded == garbled(bytes)
}

fn garbled(bytes: &[u8]) -> String {
    let mut out = String::new();
    for &byte in bytes {
        match byte {
            b'\n' | b'\t' | b'\r' | 8 | b' '..=b'~' => out.push(char::from(byte)),
            _ => read_as_octal(&format!("{byte:03}"), &mut out),
        }
    }
    out
}

/// The leading digits that are octal make a character, the others stay.
fn read_as_octal(decimal: &str, out: &mut String) {
    let end = decimal.find(['8', '9']).unwrap_or(decimal.len());
    let (octal, rest) = decimal.split_at(end);
    out.extend(u32::from_str_radix(octal, 8).ok().and_then(char::from_u32));
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_stand_for_the_same_bytes() {
        let bytes = "Übér\n".as_bytes();
        assert!(stands_for("Übér\n", bytes));
        assert!(stands_for("\u{1}95nb\u{1}95\u{e}9r\n", bytes));
        assert!(!stands_for("Ubér\n", bytes));
    }
}
