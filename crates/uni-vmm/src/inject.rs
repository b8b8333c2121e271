//! The arguments that the daemon adds to a guest's own, so that it reports under its name without being told
//! how.
//!
//! Owns which they are and the rule that what the user gave himself is never added.

use crate::spec::Spec;

/// The guest's address on the service link: QEMU's user-mode network hands out 10.0.2.0/24.
pub const SERVICE_ADDRESS: &str = "10.0.2.15/24";
/// The user-mode network's gateway, which is this machine's loopback as the guest sees it.
pub const SERVICE_GATEWAY: &str = "10.0.2.2";
/// The guest's address on the management link. Each VM has a link of its own, so every guest may have the
/// same.
pub const MANAGEMENT_ADDRESS: &str = "10.99.0.2/24";
/// The daemon's address on the management link.
pub const MANAGEMENT_HOST: &str = "10.99.0.1";
/// The daemon's port for line protocol on the management link.
pub const LINE_PORT: u16 = 8094;

/// The status by which a guest says that it does not understand its arguments (`EX_USAGE` of sysexits.h).
pub const USAGE_EXIT_CODE: u8 = 64;

/// The arguments to put before the user's own. Empty when `--no-add-name` was said.
#[must_use]
pub fn arguments(spec: &Spec) -> Vec<String> {
    if !spec.add_name {
        return Vec::new();
    }
    let additions = [
        ("--name", spec.name.to_string()),
        ("--ipv4", SERVICE_ADDRESS.to_owned()),
        ("--ipv4-gateway", SERVICE_GATEWAY.to_owned()),
        ("--management-ipv4", MANAGEMENT_ADDRESS.to_owned()),
        ("--monitor", format!("{MANAGEMENT_HOST}:{LINE_PORT}")),
        ("--syslog", MANAGEMENT_HOST.to_owned()),
    ];
    let missing = additions.into_iter().filter(|(flag, _)| !gives(&spec.args, flag));
    missing.map(|(flag, value)| format!("{flag}={value}")).collect()
}

fn gives(args: &[String], flag: &str) -> bool {
    args.iter().any(|arg| arg.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn spec(args: &[&str]) -> Spec {
        let spec = Spec::new("web".parse().unwrap(), PathBuf::from("/i.elf"));
        Spec { args: args.iter().map(|&a| a.to_owned()).collect(), ..spec }
    }

    #[test]
    fn a_plain_guest_gets_all() {
        let expected = [
            "--name=web",
            "--ipv4=10.0.2.15/24",
            "--ipv4-gateway=10.0.2.2",
            "--management-ipv4=10.99.0.2/24",
            "--monitor=10.99.0.1:8094",
            "--syslog=10.99.0.1",
        ];
        assert_eq!(arguments(&spec(&[])), expected);
    }

    #[test]
    fn what_the_user_gave_is_not_added() {
        let added = arguments(&spec(&["--name", "x", "--ipv4=1.2.3.4/8", "--monitor-adjust=0"]));
        assert!(!added.iter().any(|a| a.starts_with("--name") || a.starts_with("--ipv4=")), "{added:?}");
        assert!(added.iter().any(|a| a.starts_with("--monitor=")), "{added:?}");
        assert!(added.iter().any(|a| a.starts_with("--ipv4-gateway=")), "{added:?}");
    }

    #[test]
    fn nothing_is_added_when_the_user_says_so() {
        assert!(arguments(&Spec { add_name: false, ..spec(&[]) }).is_empty());
    }
}
