//! The bytes of rtnetlink(7): the one question asked, and what is used of the answers.
//!
//! Owns the layouts of `nlmsghdr`, `ifinfomsg` and `rtnl_link_stats64` (linux/netlink.h, linux/if_link.h), in
//! the machine's byte order as the kernel writes them. Never touches a socket, never allocates, never panics
//! on any bytes.

/// Largest name of a link, its final zero included (`IFNAMSIZ`).
pub(crate) const NAME_BYTES: usize = 16;
/// Length of the question made by [`ask_for_links`].
pub(crate) const QUESTION_BYTES: usize = HEADER_BYTES + IFINFO_BYTES;

const HEADER_BYTES: usize = 16;
const IFINFO_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Messages and attributes start at multiples of this.
const ALIGNMENT: usize = 4;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// The two highest bits of an attribute's type are flags.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_STATS64: u16 = 23;

/// What a link of the host has carried since it was made. Bytes are those of whole frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostLink {
    pub(crate) name: [u8; NAME_BYTES],
    /// The kernel's number of the link, unique until the host restarts.
    pub index: u32,
    /// Largest payload of a frame, bytes.
    pub mtu_bytes: u32,
    /// What the host received on it; on a VM's tap, what the VM sent.
    pub received: HostLinkDirection,
    /// What the host sent on it; on a VM's tap, what was sent to the VM.
    pub sent: HostLinkDirection,
    /// Of the frames received, those to a group.
    pub received_multicast: u64,
    /// Collisions.
    pub collisions: u64,
}

impl HostLink {
    /// The name, at most 15 bytes. The kernel takes any but `/`, `:` and white space, UTF-8 or not.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let length = self.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
        &self.name[..length]
    }
}

/// One direction of a link of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostLinkDirection {
    /// Frames.
    pub packets: u64,
    /// Bytes of the frames.
    pub bytes: u64,
    /// Frames that were malformed or could not be carried.
    pub errors: u64,
    /// Frames that were thrown away for want of room.
    pub dropped: u64,
}

/// One message of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A link of the host.
    Link(HostLink),
    /// There are no more.
    Done,
    /// The kernel refuses the question, with this error number.
    Refused(i32),
    /// Of a kind that was not asked for, or to an earlier question.
    Other,
}

/// The bytes are not a sequence of netlink messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The question for all links.
pub(crate) fn ask_for_links(sequence: u32) -> [u8; QUESTION_BYTES] {
    let mut out = [0; QUESTION_BYTES];
    out[0] = QUESTION_BYTES as u8;
    out[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    out[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    out[8..12].copy_from_slice(&sequence.to_ne_bytes());
    out
}

/// The messages in what one read of the socket gave; ends after the first that is malformed.
pub(crate) fn answers(bytes: &[u8], sequence: u32) -> impl Iterator<Item = Result<Answer, Malformed>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let answer = take_message(&mut rest).and_then(|message| understand(message, sequence));
        if answer.is_none() {
            rest = &[];
        }
        Some(answer.ok_or(Malformed))
    })
}

/// Cuts the first message off, its header included.
fn take_message<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = usize::try_from(u32_at(rest, 0)?).ok()?;
    take(rest, length, HEADER_BYTES)
}

/// Cuts `length` bytes and the padding behind them off, if they are there and at least `least`.
fn take<'b>(rest: &mut &'b [u8], length: usize, least: usize) -> Option<&'b [u8]> {
    if length < least {
        return None;
    }
    let taken = rest.get(..length)?;
    *rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
    Some(taken)
}

fn understand(message: &[u8], sequence: u32) -> Option<Answer> {
    if u32_at(message, 8)? != sequence {
        return Some(Answer::Other);
    }
    match u16_at(message, 4)? {
        RTM_NEWLINK => Some(link(message.get(HEADER_BYTES..)?)?.map_or(Answer::Other, Answer::Link)),
        NLMSG_DONE => Some(Answer::Done),
        // the kernel sends the number negated
        NLMSG_ERROR => Some(Answer::Refused(i32_at(message, HEADER_BYTES)?.saturating_neg())),
        _ => Some(Answer::Other),
    }
}

/// Reads `ifinfomsg` and its attributes; `Some(None)` for a link without name or counters.
fn link(body: &[u8]) -> Option<Option<HostLink>> {
    let mut link = HostLink { index: u32_at(body, 4)?, ..HostLink::default() };
    let mut attributes = body.get(IFINFO_BYTES..)?;
    let mut counted = false;
    while attributes.len() >= ATTRIBUTE_HEADER_BYTES {
        let (length, kind) = (usize::from(u16_at(attributes, 0)?), u16_at(attributes, 2)?);
        let value = take(&mut attributes, length, ATTRIBUTE_HEADER_BYTES)?.get(ATTRIBUTE_HEADER_BYTES..)?;
        match kind & ATTRIBUTE_TYPE {
            IFLA_IFNAME => link.name = padded(value)?,
            IFLA_MTU => link.mtu_bytes = u32_at(value, 0)?,
            IFLA_STATS64 => {
                read_counters(value, &mut link)?;
                counted = true;
            }
            _ => {}
        }
    }
    Some((counted && link.name[0] != 0).then_some(link))
}

/// The first ten numbers of `rtnl_link_stats64`; newer kernels append more.
fn read_counters(stats: &[u8], link: &mut HostLink) -> Option<()> {
    let counter = |n: usize| Some(u64::from_ne_bytes(*stats.get(n * 8..)?.first_chunk()?));
    let direction = |first: usize| {
        Some(HostLinkDirection {
            packets: counter(first)?,
            bytes: counter(first + 2)?,
            errors: counter(first + 4)?,
            dropped: counter(first + 6)?,
        })
    };
    link.received = direction(0)?;
    link.sent = direction(1)?;
    link.received_multicast = counter(8)?;
    link.collisions = counter(9)?;
    Some(())
}

/// A name with zeros behind it; `None` when it is too long for a link's.
pub(crate) fn padded(name: &[u8]) -> Option<[u8; NAME_BYTES]> {
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    let mut out = [0; NAME_BYTES];
    out[..NAME_BYTES - 1].get_mut(..name.len())?.copy_from_slice(name);
    Some(out)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::{LinkAttribute, LinkMessage, Stats64};
    use proptest::prelude::*;

    /// A link as the reference implementation writes it.
    fn written(name: &str, mtu: u32, stats: Stats64, sequence: u32) -> Vec<u8> {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::TxQueueLen(1000),
            LinkAttribute::Stats64(stats),
        ];
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewLink(link));
        message.header.sequence_number = sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn all(bytes: &[u8], sequence: u32) -> Vec<Result<Answer, Malformed>> {
        answers(bytes, sequence).collect()
    }

    #[test]
    fn the_question_is_what_the_reference_implementation_understands() {
        let bytes = ask_for_links(0x0102_0304);
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).unwrap();
        assert_eq!((message.header.sequence_number, message.header.flags), (0x0102_0304, 0x301));
        assert!(matches!(message.payload, NetlinkPayload::InnerMessage(RouteNetlinkMessage::GetLink(_))));
    }

    #[test]
    fn done_and_refusals_are_told() {
        let mut bytes = vec![0; 20];
        bytes[..4].copy_from_slice(&20_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&NLMSG_DONE.to_ne_bytes());
        assert_eq!(all(&bytes, 0), [Ok(Answer::Done)]);
        bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes[16..].copy_from_slice(&(-16_i32).to_ne_bytes());
        assert_eq!(all(&bytes, 0), [Ok(Answer::Refused(16))]);
        assert_eq!(all(&bytes, 1), [Ok(Answer::Other)], "an answer to an earlier question");
    }

    #[test]
    fn a_message_that_was_cut_is_malformed_and_the_last() {
        let whole = written("tap0", 1500, Stats64::default(), 1);
        for length in 1..whole.len() {
            assert_eq!(all(&whole[..length], 1), [Err(Malformed)], "{length}");
        }
        let two = [&whole[..], &whole[..40]].concat();
        assert_eq!(all(&two, 1).len(), 2);
    }

    #[test]
    fn names_have_fifteen_bytes_at_most() {
        assert!(padded(b"fifteen-bytes-x").is_some());
        assert!(padded(b"sixteen-bytes-xx").is_none());
        assert_eq!(padded(b"lo\0"), padded(b"lo"));
    }

    proptest! {
        #[test]
        fn what_the_reference_implementation_writes_is_read(
            name in "[a-z][a-z0-9.-]{0,14}",
            mtu: u32,
            n: [u64; 10],
        ) {
            let mut stats = Stats64::default();
            (stats.rx_packets, stats.tx_packets, stats.rx_bytes, stats.tx_bytes) = (n[0], n[1], n[2], n[3]);
            (stats.rx_errors, stats.tx_errors, stats.rx_dropped, stats.tx_dropped) = (n[4], n[5], n[6], n[7]);
            (stats.multicast, stats.collisions) = (n[8], n[9]);
            let bytes = [written(&name, mtu, stats, 9), written("other", 1, stats, 9)].concat();
            let expected = HostLink {
                name: padded(name.as_bytes()).unwrap(),
                index: 7,
                mtu_bytes: mtu,
                received: HostLinkDirection { packets: n[0], bytes: n[2], errors: n[4], dropped: n[6] },
                sent: HostLinkDirection { packets: n[1], bytes: n[3], errors: n[5], dropped: n[7] },
                received_multicast: n[8],
                collisions: n[9],
            };
            let read = all(&bytes, 9);
            prop_assert_eq!(read.len(), 2);
            prop_assert_eq!(read[0], Ok(Answer::Link(expected)));
            prop_assert_eq!(expected.name(), name.as_bytes());
        }

        #[test]
        fn no_bytes_make_it_panic_or_run_forever(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
            length in 0_u32..320,
        ) {
            if let Some(first) = bytes.first_chunk_mut() {
                *first = length.to_ne_bytes();
            }
            prop_assert!(all(&bytes, 0).len() <= bytes.len());
        }

        #[test]
        fn a_link_with_any_byte_changed_does_not_make_it_panic(at in 0_usize..300, byte: u8) {
            let mut bytes = written("tap0", 1500, Stats64::default(), 0);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = all(&bytes, 0);
        }
    }
}
