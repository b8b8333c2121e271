//! Defaults that daemon and CLI must agree on without asking each other.

use std::path::PathBuf;

/// File name of the control socket.
const SOCKET_NAME: &str = "unid.sock";

/// The control socket when `--socket` is absent: `/var/run/unid.sock` for root, else
/// `$XDG_RUNTIME_DIR/unid.sock`, else (no session directory) `unid.sock` in the state directory.
#[must_use]
pub fn socket_path() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/run").join(SOCKET_NAME);
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir).join(SOCKET_NAME),
        _ => state_dir().join(SOCKET_NAME),
    }
}

/// The state directory when `--state-dir` is absent: `~/.uni`, or `.uni` where there is no home.
#[must_use]
pub fn state_dir() -> PathBuf {
    std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default().join(".uni")
}
