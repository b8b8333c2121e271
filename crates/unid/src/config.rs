//! The daemon's flags and what they resolve to.
//!
//! Owns parsing and checking of flags; never opens a socket or a file.

mod store;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, ValueEnum};
use uni_store::TierRetention;

/// Run unikernels and small VMs on this host and show what happens in them, from inside and from outside
///
/// VMs outlive the daemon: SIGTERM, SIGINT and `uni daemon stop` end it, and the next one takes its VMs over. In the
/// state directory, which one daemon uses at a time, `vms` holds a directory for each VM and `store` the points. HTTP
/// flags that name the same address share one listener; beyond loopback, each needs TLS or a token.
#[derive(Clone, Debug, Parser)]
#[command(name = "unid", version, max_term_width = 100)]
pub(crate) struct Flags {
    /// Directory of VM records, consoles and the store [default: ~/.uni]
    #[arg(long, value_name = "DIR", env = "UNI_STATE_DIR")]
    state_dir: Option<PathBuf>,

    /// Control socket for `uni` [default: /var/run/unid.sock as root, else $XDG_RUNTIME_DIR/unid.sock]
    #[arg(long, value_name = "PATH", env = "UNI_SOCKET")]
    socket: Option<PathBuf>,

    /// Influx line protocol over TCP and UDP; empty turns it off, `:0` picks a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8094")]
    line_addr: String,

    /// Syslog of RFC 3164 and RFC 5424 over TCP and UDP; empty turns it off, `:0` picks a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5514")]
    syslog_addr: String,

    /// Syslog over TLS (RFC 5425), with --tls-cert; empty (the default) turns it off
    #[arg(long, value_name = "ADDR", default_value = "")]
    syslog_tls_addr: String,

    /// InfluxDB's /write (also of versions 2 and 3), /query and /ping, Prometheus' remote write, OTLP metrics by HTTP and
    /// gRPC, and /grafana.json; empty turns it off
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8086")]
    api_addr: String,

    /// The web page under /ui, its JSON API under /ui/api, and /grafana.json; empty (the default) turns it off
    #[arg(long, value_name = "ADDR", default_value = "")]
    ui_addr: String,

    /// Prometheus' /metrics, and /health; empty (the default) turns it off
    #[arg(long, value_name = "ADDR", default_value = "")]
    metrics_addr: String,

    /// OTLP collector that traces of VM operations are sent to: `HOST:PORT` for gRPC, `http://...` for HTTP; empty
    /// (the default) turns tracing off
    #[arg(long, value_name = "ADDR", default_value = "")]
    trace_addr: String,

    /// Where VM records are kept
    #[arg(long, value_enum, default_value_t = VmStore::File)]
    vm_store: VmStore,

    /// Certificate chain in PEM for the HTTP listeners and --syslog-tls-addr; with --tls-key
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Private key in PEM of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// File whose first line is the token that HTTP clients must give (`Authorization: Bearer TOKEN`)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Let the page change guests' log levels and metrics, and take heap traces; with --token-file, since whoever does must
    /// give the token
    #[arg(long)]
    ui_control: bool,

    /// Send what is measured of the VMs from outside to this Influx line protocol listener too; the port is 8094
    /// if none is named
    #[arg(long, value_name = "HOST[:PORT]")]
    influx: Option<String>,

    /// With --influx: tag `vm` with the whole name (`path:label`) instead of its last label
    #[arg(long, requires = "influx")]
    no_drop_path: bool,

    /// With --influx: the units and constant fields of albatross on Linux, for dashboards that depend on them
    #[arg(long, requires = "influx")]
    albatross_compat: bool,

    /// How often what is measured from outside is stored, 1s to 1h: `10s`, `1m30s`, or a bare number of seconds
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_interval)]
    interval: Duration,

    /// Forget points older than this, in whole days (`7d`, `12h`); again for a database (`uni=30d`) and for a measurement
    /// in it (`uni/http=7d`). A retention policy with a duration of its own comes first [default: keep everything]
    #[arg(long, value_name = "[DB[/MEASUREMENT]=]DURATION", value_parser = store::parse_retention)]
    retention: Vec<store::Retention>,

    /// Most bytes that the store takes on the disk (`500M`, `20G`): beyond it the oldest days are dropped, of all
    /// databases, and where only today is left, points are refused [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = store::parse_size)]
    max_disk: Option<u64>,

    /// Most series that one VM may bring
    #[arg(long, value_name = "COUNT", default_value_t = 20_000)]
    max_series_per_vm: usize,

    /// Most series of all databases together; each takes some hundred bytes of memory
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    max_series: usize,

    /// Keep what points add up to by the minute longer than `--retention`: `90d`, or `forever` [default: as long as the
    /// points]
    #[arg(long, value_name = "DURATION", value_parser = parse_tier_retention)]
    retention_1m: Option<TierRetention>,

    /// Keep what points add up to by the hour longer than `--retention`, as `--retention-1m`
    #[arg(long, value_name = "DURATION", value_parser = parse_tier_retention)]
    retention_1h: Option<TierRetention>,

    /// When an acknowledged HTTP write is on disk: `always` (before it is acknowledged), `interval=DURATION` (so much
    /// later at most, `interval` for a second) or `never` (when the kernel sees fit)
    #[arg(long, value_name = "WHEN", value_parser = parse_fsync, default_value = "always")]
    fsync: Fsync,

    /// Whether a write makes its database if there is none; else it is refused, and `CREATE DATABASE` makes one
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    auto_create: bool,

    /// QEMU's system emulator
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    qemu: PathBuf,

    /// Form of the log on stderr
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// What the log shows: `error`, `warn`, `info`, `debug`, `trace` or `off`, and per target (`info,unid::vms=debug`)
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "UNI_LOG")]
    pub(crate) log_level: String,

    /// Write the manual page unid.8 into this directory and end
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) write_man: Option<PathBuf>,
}

/// When written data is forced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fsync {
    /// Before an HTTP write is acknowledged.
    Always,
    /// This much later at most.
    Interval(Duration),
    /// When the kernel sees fit.
    Never,
}

/// The interval when none is named; upkeep looks once a second.
const FSYNC_INTERVAL: Duration = Duration::from_secs(1);

fn parse_fsync(text: &str) -> Result<Fsync, String> {
    match text.split_once('=') {
        None if text == "always" => Ok(Fsync::Always),
        None if text == "interval" => Ok(Fsync::Interval(FSYNC_INTERVAL)),
        None if text == "never" => Ok(Fsync::Never),
        Some(("interval", duration)) => Ok(Fsync::Interval(parse_duration(duration)?)),
        _ => Err(format!("{text:?}: write always, interval=DURATION or never")),
    }
}

/// Where VM records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum VmStore {
    /// `vms/<id>/state.json` in the state directory.
    File,
    /// The SQLite database `vms/vms.db`; takes over, once, what files there are.
    Sqlite,
}

/// Form of the log on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// `time=... level=INFO msg="..." key=value`
    Text,
    /// One JSON object a line: `ts`, `level`, `msg`, then the event's own fields.
    Json,
}

/// Whether a command line that cannot be parsed asks for a JSON log all the same.
pub(crate) fn wants_json(args: impl Iterator<Item = OsString>) -> bool {
    let args: Vec<_> = args.collect();
    let joined = args.iter().any(|arg| arg == "--log-format=json");
    joined || args.windows(2).any(|pair| pair[0] == "--log-format" && pair[1] == "json")
}

/// The resolved configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) state_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) line_addr: Option<SocketAddr>,
    pub(crate) syslog_addr: Option<SocketAddr>,
    pub(crate) syslog_tls_addr: Option<SocketAddr>,
    pub(crate) api_addr: Option<SocketAddr>,
    pub(crate) ui_addr: Option<SocketAddr>,
    pub(crate) metrics_addr: Option<SocketAddr>,
    pub(crate) collector: Option<Collector>,
    pub(crate) vm_store: VmStore,
    pub(crate) access: Access,
    /// Whether guests may be changed from the page.
    pub(crate) ui_control: bool,
    pub(crate) influx: Option<Influx>,
    pub(crate) interval: Duration,
    pub(crate) store: store::StoreLimits,
    pub(crate) retention_1m: TierRetention,
    pub(crate) retention_1h: TierRetention,
    pub(crate) fsync: Fsync,
    /// Whether writes make databases.
    pub(crate) auto_create: bool,
    pub(crate) qemu: PathBuf,
}

/// Who may use the HTTP listeners: whoever reaches them, or who has the token; in clear text or under TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// Certificate chain and private key, both PEM files.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    /// The file with the token.
    pub(crate) token_file: Option<PathBuf>,
}

impl Access {
    /// Whether a listener may be reached from elsewhere: nobody on the way reads along (TLS), or nobody without the token
    /// gets an answer. TLS alone keeps nobody out.
    fn is_guarded(&self) -> bool {
        self.tls.is_some() || self.token_file.is_some()
    }
}

/// Where traces are sent to, by OTLP in clear text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Collector {
    /// By gRPC, to `host:port`.
    Grpc(String),
    /// By HTTP with protobuf bodies, to a URL.
    Http(String),
}

impl std::fmt::Display for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Grpc(text) | Self::Http(text) => f.write_str(text),
        }
    }
}

/// Where the outside view is pushed to, and how it is spelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Influx {
    /// A name or an address.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) keep_path: bool,
    pub(crate) albatross_units: bool,
}

impl Flags {
    /// Writes the manual page, made from the flags' own help.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_man(dir: &Path) -> anyhow::Result<()> {
        let mut page = Vec::new();
        clap_mangen::Man::new(Self::command()).section("8").render(&mut page)?;
        let path = dir.join("unid.8");
        std::fs::write(&path, page).with_context(|| format!("write {}", path.display()))
    }

    /// Checks the flags together and fills in the defaults.
    ///
    /// # Errors
    /// Says which flag was wrong, what it held and what it may hold.
    pub(crate) fn resolve(self) -> anyhow::Result<Config> {
        let access = Access { tls: self.tls_cert.zip(self.tls_key), token_file: self.token_file };
        if self.ui_control && access.token_file.is_none() {
            anyhow::bail!(
                "--ui-control: needs a token, or anyone on this host could change guests; give --token-file FILE, whose \
                 first line is the token (`openssl rand -hex 32`)"
            );
        }
        if self.ui_control && self.ui_addr.is_empty() {
            anyhow::bail!(
                "--ui-control: there is no page to change guests from; give --ui-addr 127.0.0.1:PORT"
            );
        }
        let http_address = |flag, text: &str| http_address(flag, text, access.is_guarded());
        let influx = self.influx.as_deref().map(influx_target).transpose()?.map(|(host, port)| Influx {
            host,
            port,
            keep_path: self.no_drop_path,
            albatross_units: self.albatross_compat,
        });
        let state_dir = self.state_dir.unwrap_or_else(uni_api::defaults::state_dir);
        Ok(Config {
            state_dir: std::path::absolute(&state_dir)?,
            socket: self.socket.unwrap_or_else(uni_api::defaults::socket_path),
            line_addr: listen_address("--line-addr", &self.line_addr)?,
            syslog_addr: listen_address("--syslog-addr", &self.syslog_addr)?,
            syslog_tls_addr: tls_address("--syslog-tls-addr", &self.syslog_tls_addr, access.tls.is_some())?,
            api_addr: http_address("--api-addr", &self.api_addr)?,
            ui_addr: http_address("--ui-addr", &self.ui_addr)?,
            metrics_addr: http_address("--metrics-addr", &self.metrics_addr)?,
            collector: collector(&self.trace_addr)?,
            vm_store: self.vm_store,
            access,
            ui_control: self.ui_control,
            influx,
            interval: self.interval,
            store: store::StoreLimits::new(
                self.retention,
                self.max_disk,
                self.max_series,
                self.max_series_per_vm,
            ),
            retention_1m: self.retention_1m.unwrap_or_default(),
            retention_1h: self.retention_1h.unwrap_or_default(),
            fsync: self.fsync,
            auto_create: self.auto_create,
            qemu: self.qemu,
        })
    }
}

impl Config {
    /// Where the store lives.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.state_dir.join("store")
    }

    /// Where verdicts that cost time to reach are kept (does KVM work?).
    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.state_dir.join("cache")
    }
}

/// The file that one daemon holds locked for as long as it uses `state_dir`.
pub(crate) fn lock_path(state_dir: &Path) -> PathBuf {
    state_dir.join("unid.lock")
}

/// An address of the line or the syslog listener: `host:port`, `:port` (loopback) or empty (off). Beyond loopback it
/// is refused: its protocol has neither TLS nor tokens.
fn listen_address(flag: &str, text: &str) -> anyhow::Result<Option<SocketAddr>> {
    let address = parse_address(flag, text)?;
    if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
        anyhow::bail!(
            "{flag} {text}: refuses to listen beyond loopback, because it would take points from anyone; name a \
             loopback address such as 127.0.0.1:{}",
            address.port()
        );
    }
    Ok(address)
}

/// The same for an HTTP listener, which may be reached from elsewhere if TLS or a token guards it.
fn http_address(flag: &str, text: &str, guarded: bool) -> anyhow::Result<Option<SocketAddr>> {
    let address = parse_address(flag, text)?;
    if let Some(address) = address.filter(|address| !guarded && !address.ip().is_loopback()) {
        anyhow::bail!(
            "{flag} {text}: refuses to listen beyond loopback, because it would answer anyone; give --tls-cert and \
             --tls-key, or --token-file, or name a loopback address such as 127.0.0.1:{}",
            address.port()
        );
    }
    Ok(address)
}

/// The same for a listener that speaks nothing but TLS.
fn tls_address(flag: &str, text: &str, has_certificate: bool) -> anyhow::Result<Option<SocketAddr>> {
    let address = parse_address(flag, text)?;
    if address.is_some() && !has_certificate {
        anyhow::bail!("{flag} {text}: needs a certificate; give --tls-cert and --tls-key");
    }
    Ok(address)
}

fn parse_address(flag: &str, text: &str) -> anyhow::Result<Option<SocketAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = match text.strip_prefix(':') {
        Some(port) => port.parse().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)).ok(),
        None => text.replacen("localhost:", "127.0.0.1:", 1).parse().ok(),
    };
    let Some(address) = address else {
        anyhow::bail!(
            "{flag} {text:?}: not an address; write 127.0.0.1:PORT, :PORT, or nothing to turn it off"
        );
    };
    Ok(Some(address))
}

/// `HOST[:PORT]`, where an IPv6 address with a port stands in brackets; the port is 8094 unless named.
fn influx_target(text: &str) -> anyhow::Result<(String, u16)> {
    const PORT: u16 = 8094;
    let bad = || {
        anyhow::anyhow!("--influx {text:?}: write HOST or HOST:PORT, such as 192.168.42.14 or localhost:8094")
    };
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text.to_owned(), PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|&port| port != 0).ok_or_else(bad)?),
        None => (text, PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let known = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:".contains(c));
    if known { Ok((host.to_owned(), port)) } else { Err(bad()) }
}

/// `HOST:PORT` (gRPC), `http://HOST:PORT[/PATH]` (HTTP, the path is `/v1/traces` unless named), or nothing.
fn collector(text: &str) -> anyhow::Result<Option<Collector>> {
    if text.is_empty() {
        return Ok(None);
    }
    let found = match text.strip_prefix("http://") {
        Some(rest) => {
            let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
            let path = if path.is_empty() { "v1/traces" } else { path };
            let known = is_host_and_port(address) && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
            known.then(|| Collector::Http(format!("http://{address}/{path}")))
        }
        None => is_host_and_port(text).then(|| Collector::Grpc(text.to_owned())),
    };
    let clear_text = if text.starts_with("https:") { "; TLS to the collector is not supported" } else { "" };
    found.map(Some).with_context(|| {
        format!(
            "--trace-addr {text:?}: write HOST:PORT for OTLP over gRPC, such as 127.0.0.1:4317, http://HOST:PORT[/PATH] \
             for OTLP over HTTP, or nothing to turn traces off{clear_text}"
        )
    })
}

/// An IPv6 address stands in brackets.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)),
    };
    is_host && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// How long a tier stays: a duration, or for ever.
fn parse_tier_retention(text: &str) -> Result<TierRetention, String> {
    match text {
        "forever" => Ok(TierRetention::Forever),
        age => parse_duration(age).map(TierRetention::For).map_err(|why| format!("{why}, or forever")),
    }
}

/// A duration as `90s`, `500ms`, `1m30s`, `2h`, `7d`, `1w`, or a bare number of seconds; greater than zero.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || {
        format!(
            "{text:?} is not a duration; write for example 10s, 500ms, 1m30s, 2h, 7d or a number of seconds"
        )
    };
    if let Ok(seconds) = text.parse::<u64>() {
        return (seconds > 0).then(|| Duration::from_secs(seconds)).ok_or_else(bad);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|&n| n > 0).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        let unit = &rest[digits..];
        let letters = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let milliseconds: u64 = match &unit[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(bad()),
        };
        let part = number.checked_mul(milliseconds).ok_or_else(bad)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(bad)?;
        rest = &unit[letters..];
    }
    if total.is_zero() { Err(bad()) } else { Ok(total) }
}

/// A storing interval: a duration of 1 second to 1 hour.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = match text {
        "0" | "0s" => Duration::ZERO,
        _ => parse_duration(text)?,
    };
    if (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err(format!("{text:?} is out of range; the interval is 1s to 1h"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_units_sums_and_bare_seconds() {
        for (text, milliseconds) in [
            ("10s", 10_000),
            ("10", 10_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "0", "0s", "s", "10x", "-1s", "1.5s", "99999999999999999999d", "99999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tiers_stay_for_a_time_or_for_ever() {
        assert_eq!(parse_tier_retention("forever"), Ok(TierRetention::Forever));
        assert_eq!(parse_tier_retention("1w"), Ok(TierRetention::For(Duration::from_secs(604_800))));
        assert!(parse_tier_retention("long").is_err_and(|why| why.contains("or forever")));
    }

    #[test]
    fn fsync_is_always_never_or_an_interval() {
        assert_eq!(parse_fsync("always"), Ok(Fsync::Always));
        assert_eq!(parse_fsync("interval"), Ok(Fsync::Interval(Duration::from_secs(1))));
        assert_eq!(parse_fsync("interval=5s"), Ok(Fsync::Interval(Duration::from_secs(5))));
        for bad in ["", "sometimes", "interval=", "interval=soon", "always=1s"] {
            assert!(parse_fsync(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_interval_outside_its_range_is_refused() {
        assert!(parse_interval("500ms").is_err());
        assert!(parse_interval("2h").is_err());
        assert_eq!(parse_interval("1"), Ok(Duration::from_secs(1)));
    }

    #[test]
    fn a_bare_port_means_loopback_and_other_addresses_are_refused() {
        assert_eq!(listen_address("--x", ":8094").unwrap(), Some("127.0.0.1:8094".parse().unwrap()));
        assert_eq!(listen_address("--x", "localhost:1").unwrap(), Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!(listen_address("--x", "[::1]:1").unwrap(), Some("[::1]:1".parse().unwrap()));
        assert_eq!(listen_address("--x", "").unwrap(), None);
        for text in ["0.0.0.0:8094", "192.168.1.1:1", "nonsense", ":", ":99999"] {
            assert!(listen_address("--x", text).is_err(), "{text}");
            assert!(http_address("--x", text, false).is_err(), "{text}");
        }
        assert_eq!(http_address("--x", "0.0.0.0:1", true).unwrap(), Some("0.0.0.0:1".parse().unwrap()));
    }

    #[test]
    fn an_influx_target_is_a_host_with_or_without_a_port() {
        let target = |text| influx_target(text).map(|(host, port)| format!("{host} {port}"));
        for (text, expected) in [
            ("192.168.42.14", "192.168.42.14 8094"),
            ("collector.example:1", "collector.example 1"),
            ("::1", "::1 8094"),
            ("[::1]:9", "::1 9"),
        ] {
            assert_eq!(target(text).unwrap(), expected);
        }
        for text in ["", ":8094", "host:0", "host:x", "a b", "host:70000", "http://host"] {
            assert!(target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_collector_is_asked_by_grpc_or_by_http() {
        let grpc = |text: &str| Some(Collector::Grpc(text.to_owned()));
        let http = |text: &str| Some(Collector::Http(text.to_owned()));
        for (text, expected) in [
            ("", None),
            ("127.0.0.1:4317", grpc("127.0.0.1:4317")),
            ("otel-collector.example:4317", grpc("otel-collector.example:4317")),
            ("[::1]:4317", grpc("[::1]:4317")),
            ("http://localhost:4318", http("http://localhost:4318/v1/traces")),
            ("http://localhost:4318/", http("http://localhost:4318/v1/traces")),
            ("http://[::1]:4318/x/y?z=1", http("http://[::1]:4318/x/y?z=1")),
        ] {
            assert_eq!(collector(text).unwrap(), expected, "{text}");
        }
        for text in [
            "localhost",
            ":4317",
            "host:0",
            "host:+1",
            "host:70000",
            "::1:4317",
            "[host]:1",
            "a b:1",
            "http://host",
            "http://:4318",
            "http://u:p@host:1",
            "http://host:1/a b",
            "https://host:4318",
            "grpc://host:4317",
            " ",
        ] {
            let error = format!("{:#}", collector(text).unwrap_err());
            assert!(error.starts_with(&format!("--trace-addr {text:?}: ")), "{error}");
        }
    }
}
