//! ICMP messages that say that a datagram did not arrive (RFC 792, type 3). Reads them and never sends any.
//!
//! A host quotes of the datagram its IP header and at least 8 bytes: the ports, not the whole, so that its checksum
//! cannot be verified. Such a message may be forged; it is good for a warning and nothing more.

use core::net::{Ipv4Addr, SocketAddrV4};

const DESTINATION_UNREACHABLE: u8 = 3;
const ICMP_HEADER_BYTES: usize = 8;
const UDP: u8 = 17;

/// Why a UDP datagram from the port `from` to `to` did not arrive, if that is what the IPv4 packet `packet` says.
#[must_use]
pub fn unreachable_reason(packet: &[u8], from: u16, to: SocketAddrV4) -> Option<&'static str> {
    let (_, message) = split_ipv4(packet)?;
    let [DESTINATION_UNREACHABLE, code, ..] = *message else { return None };
    let (header, datagram) = split_ipv4(message.get(ICMP_HEADER_BYTES..)?)?;
    let [.., UDP, _, _, _, _, _, _, a, b, c, d] = *header.first_chunk::<20>()? else { return None };
    let [from_high, from_low, to_high, to_low] = *datagram.first_chunk::<4>()?;
    let quoted = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([to_high, to_low]));
    let is_ours = quoted == to && u16::from_be_bytes([from_high, from_low]) == from;
    is_ours.then_some(reason(code))
}

/// RFC 792 and RFC 1812, 5.2.7.1.
const fn reason(code: u8) -> &'static str {
    match code {
        0 | 6 | 11 => "network unreachable",
        1 | 7 | 12 => "host unreachable",
        3 => "port unreachable, nobody listens there",
        9 | 10 | 13 => "forbidden on the way",
        _ => "destination unreachable",
    }
}

/// An IPv4 packet's header and what follows it.
fn split_ipv4(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = *packet.first()?;
    let header_bytes = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header_bytes < 20 {
        return None;
    }
    packet.split_at_checked(header_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SINK: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 3, 2), 514);

    /// An IPv4 header of `words` 32-bit words.
    fn ipv4(words: u8, protocol: u8, to: [u8; 4]) -> Vec<u8> {
        let mut header = vec![0; usize::from(words) * 4];
        header[0] = 0x40 | words;
        header[9] = protocol;
        header[16..20].copy_from_slice(&to);
        header
    }

    fn message(kind: u8, code: u8, protocol: u8, ports: [u16; 2], words: u8) -> Vec<u8> {
        let mut packet = ipv4(words, 1, [10, 0, 3, 15]);
        packet.extend([kind, code, 0, 0, 0, 0, 0, 0]);
        packet.extend(ipv4(words, protocol, [10, 0, 3, 2]));
        packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        packet.extend([0, 9, 0, 0]);
        packet
    }

    #[test]
    fn eight_bytes_of_the_datagram_are_enough() {
        for (code, reason) in [
            (3, "port unreachable, nobody listens there"),
            (1, "host unreachable"),
            (0, "network unreachable"),
        ] {
            let packet = message(3, code, 17, [514, 514], 5);
            assert_eq!(packet.len(), 20 + 8 + 20 + 8);
            assert_eq!(unreachable_reason(&packet, 514, SINK), Some(reason));
        }
        assert!(
            unreachable_reason(&message(3, 3, 17, [514, 514], 7), 514, SINK).is_some(),
            "with IP options"
        );
    }

    #[test]
    fn messages_about_something_else_are_passed_over() {
        for packet in [
            message(0, 0, 17, [514, 514], 5),
            message(3, 3, 6, [514, 514], 5),
            message(3, 3, 17, [515, 514], 5),
            message(3, 3, 17, [514, 515], 5),
        ] {
            assert_eq!(unreachable_reason(&packet, 514, SINK), None);
        }
        let elsewhere = SocketAddrV4::new(Ipv4Addr::new(10, 0, 3, 3), 514);
        assert_eq!(unreachable_reason(&message(3, 3, 17, [514, 514], 5), 514, elsewhere), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), words in 0_u8..16, cut in 0_usize..200) {
            let _ = unreachable_reason(&bytes, 514, SINK);
            let packet = message(3, 3, 17, [514, 514], words.max(5));
            let _ = unreachable_reason(&packet[..cut.min(packet.len())], 514, SINK);
        }
    }
}
