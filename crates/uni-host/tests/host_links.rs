//! The table of links against the real kernel: its loopback, which every host has.

use std::net::UdpSocket;

use uni_host::{HostLink, LinkTable};

fn loopback(table: &mut LinkTable) -> HostLink {
    table.refresh().expect("the kernel lists its links");
    *table.get("lo").expect("there is a loopback")
}

/// `/sys` tells the same counters, a file each.
fn from_sys(file: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/sys/class/net/lo/{file}")).expect("sysfs");
    text.trim().parse().expect("a number")
}

#[test]
fn traffic_makes_both_directions_of_the_loopback_grow() {
    let mut table = LinkTable::new();
    let before = loopback(&mut table);
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..100 {
        sender.send_to(&[7; 1000], receiver.local_addr().unwrap()).unwrap();
    }
    let after = loopback(&mut table);
    for (before, after) in [(before.received, after.received), (before.sent, after.sent)] {
        assert!(after.packets >= before.packets + 100, "{before:?} then {after:?}");
        assert!(after.bytes >= before.bytes + 100 * 1000, "{before:?} then {after:?}");
    }
}

#[test]
fn the_values_are_those_of_sysfs() {
    let mut table = LinkTable::new();
    let (low, link) = (from_sys("statistics/rx_bytes"), loopback(&mut table));
    let high = from_sys("statistics/rx_bytes");
    assert!((low..=high).contains(&link.received.bytes), "{low} <= {} <= {high}", link.received.bytes);
    assert_eq!(u64::from(link.mtu_bytes), from_sys("mtu"));
    assert_eq!(u64::from(link.index), from_sys("ifindex"));
}

#[test]
fn all_links_are_there_in_order_and_others_are_not() {
    let mut table = LinkTable::new();
    assert!(table.get("lo").is_none(), "nothing was read yet");
    table.refresh().unwrap();
    let mut expected: Vec<_> = std::fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        // a plain file, not a link
        .filter(|name| name != "bonding_masters")
        .map(|name| name.into_encoded_bytes())
        .collect();
    expected.sort();
    let names: Vec<_> = table.links().iter().map(|link| link.name().to_vec()).collect();
    assert_eq!(names, expected);
    assert!(table.get("no-such-link").is_none() && table.get("a-name-longer-than-any-link").is_none());
    assert!(table.get("").is_none());
    assert_eq!(table.left_out(), 0);
}

#[test]
fn a_second_round_does_not_keep_the_first() {
    let mut table = LinkTable::new();
    table.refresh().unwrap();
    let first = table.links().len();
    table.refresh().unwrap();
    assert_eq!(table.links().len(), first);
}
