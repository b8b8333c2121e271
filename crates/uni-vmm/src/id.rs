//! The identity of a VM: six bytes, written as twelve lower-case hex digits, and the addresses derived from
//! it.
//!
//! Owns the text form and the derivation; never draws random bytes itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A VM's identity, stable over restarts. Text form: twelve lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmId([u8; 6]);

/// The two network links every VM has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// The guest's own traffic: published ports, connections out.
    Service,
    /// The private link to the daemon: points, syslog, control.
    Management,
}

/// A text that is not a VM id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a VM id: twelve hexadecimal digits (0-9, a-f) are expected")]
pub struct IdError {
    text: String,
}

impl VmId {
    /// Makes an id of six bytes that the caller has drawn at random.
    #[must_use]
    pub fn from_random(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The hardware address of one of this VM's network cards: `02:75:6e` ("un", locally administered), 00
    /// for the service link or 01 for the management link, then the last two bytes of the id. The cards never
    /// share a wire with another VM's, so two bytes suffice.
    #[must_use]
    pub fn mac(&self, link: Link) -> String {
        let kind = match link {
            Link::Service => 0,
            Link::Management => 1,
        };
        let [.., a, b] = self.0;
        format!("02:75:6e:{kind:02x}:{a:02x}:{b:02x}")
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VmId({self})")
    }
}

impl FromStr for VmId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse(text).map(Self).ok_or_else(|| IdError { text: text.chars().take(40).collect() })
    }
}

fn parse(text: &str) -> Option<[u8; 6]> {
    let digits = text.as_bytes();
    if digits.len() != 12 {
        return None;
    }
    let mut bytes = [0; 6];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl TryFrom<String> for VmId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<VmId> for String {
    fn from(id: VmId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_printed_as_it_is_parsed() {
        let id = VmId::from_random([0x9f, 0x2c, 0x41, 0xd0, 0x7a, 0xb3]);
        assert_eq!(id.to_string(), "9f2c41d07ab3");
        assert_eq!("9f2c41d07ab3".parse(), Ok(id));
    }

    #[test]
    fn only_twelve_lower_case_digits_are_an_id() {
        for bad in ["", "9F2C41D07AB3", "9f2c41d07ab", "9f2c41d07ab33", "../../../../", "9f2c41d07aé"] {
            assert!(bad.parse::<VmId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn links_differ_in_the_fourth_byte_of_their_address() {
        let id = VmId::from_random([1, 2, 3, 4, 0xaa, 0xbb]);
        assert_eq!(id.mac(Link::Service), "02:75:6e:00:aa:bb");
        assert_eq!(id.mac(Link::Management), "02:75:6e:01:aa:bb");
    }
}
