//! What Linux tells of the machine that a process is on, for programs that are no unikernels: its network links, and
//! TCP. Where the process has a network namespace of its own, it is that which is told of.
//!
//! Owns the meaning of two files of `/proc`, and the names: those of MirageOS's `net-*` and `tcp`, as far as the files
//! tell. Never reads a file; a closure brings the text.

use alloc::string::String;

use crate::metrics::{Fields, Periodic, Registry};
use crate::sources::{LinkFigures, write_link};

/// Registers `net` with the tag `link` for the link called `name`. `read` brings `/proc/self/net/dev`; while the link
/// is not in it, nothing is reported.
///
/// ```
/// use uni_guest::{Registry, machine};
/// let mut registry = Registry::new();
/// let read = || std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
/// machine::busy_links(&read()).for_each(|name| machine::register_link(&mut registry, name, read));
/// ```
pub fn register_link(registry: &mut Registry, name: &str, read: impl Fn() -> String + 'static) {
    let wanted = String::from(name);
    let source = Periodic::new("net", move |fields| {
        if let Some((_, figures)) = links(&read()).find(|(name, _)| *name == wanted) {
            write_link(fields, figures);
        }
    });
    registry.register(source.doc("packets of a network link of the machine").tag("link", name));
}

/// The links in `/proc/self/net/dev` that have carried something: most machines have some that never do.
pub fn busy_links(dev: &str) -> impl Iterator<Item = &str> {
    links(dev)
        .filter(|(_, figures)| figures.received_packets > 0 || figures.transmitted_packets > 0)
        .map(|(name, _)| name)
}

/// The links in `/proc/self/net/dev`; a line that is none is left out, as the two of the heading are.
fn links(dev: &str) -> impl Iterator<Item = (&str, LinkFigures)> {
    dev.lines().filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let number = |place| numbers.split_ascii_whitespace().nth(place)?.parse().ok();
        let figures = LinkFigures {
            received_bytes: number(0)?,
            received_packets: number(1)?,
            transmitted_bytes: number(8)?,
            transmitted_packets: number(9)?,
        };
        Some((name.trim(), figures))
    })
}

/// Registers `tcp`: what RFC 4022 counts, under the names of MirageOS's source. `read` brings `/proc/self/net/snmp`.
/// Connections that are only begun are in no file that is cheap to read, so those fields are left out.
pub fn register_tcp(registry: &mut Registry, read: impl Fn() -> String + 'static) {
    let source = Periodic::new("tcp", move |fields| write_tcp(&read(), fields));
    registry.register(source.doc("TCP connections of the machine"));
}

fn write_tcp(snmp: &str, fields: &mut Fields<'_>) {
    let number = |name| tcp_number(snmp, name);
    if let Some(open) = number("CurrEstab") {
        fields.count("established state", open);
    }
    for (key, name) in [("total syn-rcvd", "PassiveOpens"), ("total client", "ActiveOpens")] {
        if let Some(number) = number(name) {
            fields.total(key, number);
        }
    }
}

/// A number of the group `Tcp`: a line of names, and one of values in the same order.
fn tcp_number(snmp: &str, name: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split_ascii_whitespace().position(|of| of == name)?;
    values.split_ascii_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uni_wire::Timestamp;

    const DEV: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 400       4    0    0    0     0          0         0      500       5    0    0    0     0       0          0
  ifb0:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
eth0.7:18446744073709551615 9    0    0    0     0          0         0      0       0    0    0    0     0       0          0
";
    const SNMP: &str = "Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab
Tcp: 1 200 120000 -1 31 22 3 4 11
";

    fn lines(dev: &'static str, snmp: &'static str) -> String {
        let mut registry = Registry::new();
        busy_links(dev).for_each(|name| register_link(&mut registry, name, move || dev.into()));
        register_link(&mut registry, "gone0", move || dev.into());
        register_tcp(&mut registry, move || snmp.into());
        let mut lines = String::new();
        registry.collect("v", Timestamp(1), |line| lines.push_str(&String::from_utf8_lossy(line)));
        lines
    }

    #[test]
    fn fields_are_spelled_as_mirage_spells_them() {
        let expected = r"net,vm=v,link=lo received\ bytes=400i,received\ packets=4i,transmitted\ bytes=500i,transmitted\ packets=5i 1
net,vm=v,link=eth0.7 received\ bytes=9223372036854775807i,received\ packets=9i,transmitted\ bytes=0i,transmitted\ packets=0i 1
tcp,vm=v established\ state=11i,total\ syn-rcvd=22i,total\ client=31i 1
";
        assert_eq!(lines(DEV, SNMP), expected);
    }

    #[test]
    fn broken_texts_make_no_line() {
        for text in [
            "",
            ":",
            "lo:",
            "lo: 1 2 3 4 5 6 7 8 9",
            "lo: x 1 1 1 1 1 1 1 1 1",
            "Tcp:\n",
            "Tcp: CurrEstab\nTcp:",
        ] {
            assert_eq!(lines(text, text), "", "{text}");
        }
    }
}
