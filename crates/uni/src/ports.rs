//! Published ports: `[ADDR:]HOST:GUEST[/tcp|udp]`, an IPv6 ADDR in brackets.
//!
//! Owns the syntax. Never looks whether a port is free: that is the daemon's to find out.

use std::net::IpAddr;

use uni_api::vm::PortMap;

/// Reads one `-p`.
///
/// # Errors
/// Which part is wrong, and the syntax.
pub(crate) fn parse(text: &str) -> Result<PortMap, String> {
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp") {
        return Err(format!("protocol `{protocol}` is neither tcp nor udp"));
    }
    let (rest, guest) = ports
        .rsplit_once(':')
        .ok_or_else(|| format!("`{text}` is not [ADDR:]HOST:GUEST[/tcp|udp], e.g. 8080:80"))?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (host_address(address)?, host),
        None => (String::new(), rest),
    };
    Ok(PortMap {
        host_addr: address,
        host_port: port(host, "host")?,
        guest_port: port(guest, "guest")?,
        protocol: protocol.to_owned(),
    })
}

fn port(text: &str, side: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse::<u16>().ok() } else { None };
    number.filter(|port| *port > 0).ok_or_else(|| format!("{side} port `{text}` is not between 1 and 65535"))
}

fn host_address(text: &str) -> Result<String, String> {
    let in_brackets = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match in_brackets {
        Some(inner) => inner.parse().map(IpAddr::V6).ok(),
        None => text.parse().map(IpAddr::V4).ok(),
    };
    address
        .map(|address| address.to_string())
        .ok_or_else(|| format!("`{text}` is not an address of this host, such as 127.0.0.1 or [::1]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(host_addr: &str, host_port: u16, guest_port: u16, protocol: &str) -> PortMap {
        PortMap { host_addr: host_addr.to_owned(), host_port, guest_port, protocol: protocol.to_owned() }
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(parse("8080:80"), Ok(map("", 8080, 80, "tcp")));
        assert_eq!(parse("53:53/udp"), Ok(map("", 53, 53, "udp")));
        assert_eq!(parse("0.0.0.0:1:65535/tcp"), Ok(map("0.0.0.0", 1, 65535, "tcp")));
        assert_eq!(parse("[::1]:8080:80"), Ok(map("::1", 8080, 80, "tcp")));
    }

    #[test]
    fn wrong_parts_are_named() {
        let cases = [
            ("80", "HOST:GUEST"),
            ("", "HOST:GUEST"),
            (":80", "host port ``"),
            ("80:", "guest port ``"),
            ("0:80", "host port `0`"),
            ("80:65536", "guest port `65536`"),
            ("+80:80", "host port `+80`"),
            ("80:80/sctp", "protocol `sctp`"),
            ("80:80/", "protocol ``"),
            (":80:80", "`` is not an address"),
            ("localhost:80:80", "`localhost` is not an address"),
            ("::1:80:80", "`::1` is not an address"),
        ];
        for (text, expected) in cases {
            let message = parse(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_reads_back(host in 1_u16.., guest in 1_u16.., udp: bool) {
            let protocol = if udp { "udp" } else { "tcp" };
            prop_assert_eq!(parse(&format!("{host}:{guest}/{protocol}")), Ok(map("", host, guest, protocol)));
        }
    }
}
