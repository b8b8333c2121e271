//! The command line, as MirageOS unikernels take it.
//!
//! Owns the options every guest has, those a program adds, and the texts about them. Never prints and never exits:
//! the caller does, with [`EXIT_USAGE`] after an error.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};

use uni_wire::control::LogItems;
use uni_wire::syslog::{Format, Framing, MAX_MESSAGE_BYTES};

use crate::control::Token;
use crate::heap::SamplingRate;
use crate::logs::Logs;
use crate::syslog::DEFAULT_STREAM_MESSAGE_BYTES;

/// The exit code after a bad command line (`EX_USAGE` of BSD's sysexits).
pub const EXIT_USAGE: u8 = 64;

/// Port of the collector where `--monitor` names none.
pub const DEFAULT_MONITOR_PORT: u16 = 8094;

/// Port of the control listener.
pub const DEFAULT_CONTROL_PORT: u16 = 2323;

/// Port on the management link at which Prometheus finds `/metrics`.
pub const DEFAULT_METRICS_PORT: u16 = 9464;

/// Port at which a trace of the heap is taken, on the management link.
pub const DEFAULT_MEMTRACE_PORT: u16 = 4242;

/// Port of the syslog sink where `--syslog` names none.
pub const DEFAULT_SYSLOG_PORT: u16 = 514;

/// Messages are not cut shorter than so many bytes: nothing would be left of them but the time.
pub const MIN_TRUNCATION_BYTES: usize = 64;

/// Seconds between two reports.
pub const DEFAULT_INTERVAL_SECONDS: u32 = 10;

/// Longest interval: a day.
pub const MAX_INTERVAL_SECONDS: u32 = 86_400;

/// The name of a guest that was given none, as MirageOS has it.
pub const DEFAULT_NAME: &str = "no-name";

/// An address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The guest's own address.
    pub address: Ipv4Addr,
    /// 0 to 32.
    pub prefix_len: u8,
}

/// How messages go to the syslog sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyslogTransport {
    /// A message a datagram.
    #[default]
    Udp,
    /// TCP, messages counted in octets (RFC 6587).
    Tcp,
    /// TCP, messages ended by newlines.
    TcpNewline,
    /// TLS (RFC 5425): only where there is an operating system.
    Tls,
}

impl SyslogTransport {
    /// How a message is set off from the next.
    #[must_use]
    pub const fn framing(self) -> Framing {
        match self {
            Self::Udp => Framing::Datagram,
            Self::Tcp | Self::Tls => Framing::OctetCounting,
            Self::TcpNewline => Framing::Newline,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "udp" => Some(Self::Udp),
            "tcp" => Some(Self::Tcp),
            "tcp-newline" => Some(Self::TcpNewline),
            "tls" => Some(Self::Tls),
            _ => None,
        }
    }
}

/// What `--syslog-transport` takes.
const TRANSPORTS: &str = "udp, tcp, tcp-newline or, in a program that has it, tls";

/// The same where there is no TLS.
const CLEAR_TRANSPORTS: &str = "udp, tcp or tcp-newline";

/// An option that a program adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// The name without dashes.
    pub name: &'static str,
    /// What the value is called in the usage text; `None` for a flag without a value.
    pub value: Option<&'static str>,
    /// What it does, in a few words.
    pub help: &'static str,
}

/// A good command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// `--name`: the guest's name in metrics and logs.
    pub name: String,
    /// `--ipv4`: the address on the service link.
    pub ipv4: Option<Cidr>,
    /// `--ipv4-gateway`: the way out of the service link.
    pub ipv4_gateway: Option<Ipv4Addr>,
    /// `--management-ipv4`: the address on the management link.
    pub management_ipv4: Option<Cidr>,
    /// `--monitor`: the collector.
    pub monitor: Option<SocketAddrV4>,
    /// `--monitor-adjust`: the port of the control listener; `None` turns it off.
    pub control_port: Option<u16>,
    /// `--monitor-token`: who gives commands must know it; `None`: anybody may.
    pub control_token: Option<Token>,
    /// `--metrics-port`: where Prometheus asks, on the management link only; `None` turns it off.
    pub metrics_port: Option<u16>,
    /// `--memtrace-port`: where a trace of the heap is taken, on the management link only; `None` turns it off.
    pub memtrace_port: Option<u16>,
    /// `--memtrace-rate`: how much such a trace samples, until somebody says otherwise at the control port.
    pub memtrace_rate: SamplingRate,
    /// `--heap-profile`: whether `heap_by_library` is made.
    pub heap_profile: bool,
    /// `--syslog`: the syslog sink.
    pub syslog: Option<SocketAddrV4>,
    /// `--syslog-format`: how messages are written.
    pub syslog_format: Format,
    /// `--syslog-truncate`: bytes after which a message is cut, 0 for none; `None`: as the transport has it.
    pub syslog_truncate: Option<usize>,
    /// `--syslog-transport`: how they go.
    pub syslog_transport: SyslogTransport,
    /// `--interval`: seconds between two reports.
    pub interval_seconds: u32,
    names_syslog_port: bool,
    syslog_port: Option<u16>,
    logs: Vec<String>,
    extra: Vec<(&'static str, String)>,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.to_string(),
            ipv4: None,
            ipv4_gateway: None,
            management_ipv4: None,
            monitor: None,
            control_port: Some(DEFAULT_CONTROL_PORT),
            control_token: None,
            metrics_port: Some(DEFAULT_METRICS_PORT),
            memtrace_port: Some(DEFAULT_MEMTRACE_PORT),
            memtrace_rate: SamplingRate::DEFAULT,
            heap_profile: true,
            syslog: None,
            syslog_format: Format::default(),
            syslog_truncate: None,
            syslog_transport: SyslogTransport::default(),
            interval_seconds: DEFAULT_INTERVAL_SECONDS,
            names_syslog_port: false,
            syslog_port: None,
            logs: Vec::new(),
            extra: Vec::new(),
        }
    }
}

impl Arguments {
    /// The value of an option of the program's own; of one given twice the last. Empty for a flag.
    #[must_use]
    pub fn extra(&self, name: &str) -> Option<&str> {
        self.extra.iter().rev().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    /// For a program that has no TLS.
    ///
    /// # Errors
    /// `--syslog-transport=tls`.
    pub fn refuse_tls(&self) -> Result<(), ArgumentsError> {
        if self.syslog_transport != SyslogTransport::Tls {
            return Ok(());
        }
        let (option, value) = ("--syslog-transport".to_string(), "tls".to_string());
        Err(ArgumentsError::BadValue { option, value, expected: CLEAR_TRANSPORTS })
    }

    /// Moves the syslog sink to `port` if neither `--syslog` nor `--syslog-port` named one: for a transport that has
    /// another one.
    pub fn set_default_syslog_port(&mut self, port: u16) {
        if let Some(sink) = &mut self.syslog
            && !self.names_syslog_port
        {
            sink.set_port(self.syslog_port.unwrap_or(port));
        }
    }

    /// The bytes after which a message to the syslog sink is cut, for [`SyslogQueue::set_truncation`]. A datagram holds
    /// at most `max_datagram_bytes`.
    ///
    /// [`SyslogQueue::set_truncation`]: crate::SyslogQueue::set_truncation
    #[must_use]
    pub fn syslog_truncation(&self, max_datagram_bytes: usize) -> usize {
        match (self.syslog_transport, self.syslog_truncate) {
            (SyslogTransport::Udp, Some(0)) => max_datagram_bytes,
            (SyslogTransport::Udp, bytes) => bytes.unwrap_or(MAX_MESSAGE_BYTES).min(max_datagram_bytes),
            (_, bytes) => bytes.unwrap_or(DEFAULT_STREAM_MESSAGE_BYTES),
        }
    }

    /// Sets the levels of `--logs`. To be called before sources are made or after: both work.
    pub fn apply_logs(&self, logs: &Logs) {
        // Each was parsed before it was kept.
        self.logs
            .iter()
            .filter_map(|text| LogItems::parse(text).ok())
            .for_each(|items| logs.apply_at_boot(&items));
    }

    /// What a program should warn of at boot: it will not be seen or heard.
    pub fn warnings(&self) -> impl Iterator<Item = &'static str> {
        let monitor = self.monitor.is_none().then_some("no monitor specified, not outputting statistics");
        let syslog = self.syslog.is_none().then_some("no syslog specified, dumping on stdout");
        monitor.into_iter().chain(syslog)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), &'static str> {
        match option {
            "name" if value.is_empty() => return Err("a name"),
            "name" => self.name = value.to_string(),
            "ipv4" => self.ipv4 = Some(cidr(value)?),
            "ipv4-gateway" => self.ipv4_gateway = Some(value.parse().map_err(|_| "an IPv4 address")?),
            "management-ipv4" => self.management_ipv4 = Some(cidr(value)?),
            "monitor" => self.monitor = Some(endpoint(value, DEFAULT_MONITOR_PORT)?),
            "monitor-adjust" => self.control_port = port(value)?,
            "metrics-port" => self.metrics_port = port(value)?,
            "memtrace-port" => self.memtrace_port = port(value)?,
            "memtrace-rate" => {
                self.memtrace_rate =
                    SamplingRate::parse(value).ok_or("a probability above 0 and at most 1")?;
            }
            "heap-profile" => self.heap_profile = on_or_off(value)?,
            "monitor-token" => self.control_token = Some(Token::new(value).ok_or("a token")?),
            "syslog-format" => {
                self.syslog_format = Format::from_name(value).ok_or("rfc3164, rfc5424 or mirage")?;
            }
            "syslog" => {
                self.syslog = Some(endpoint(value, DEFAULT_SYSLOG_PORT)?);
                self.names_syslog_port = value.contains(':');
            }
            "syslog-transport" => {
                self.syslog_transport = SyslogTransport::from_name(value).ok_or(TRANSPORTS)?;
            }
            "syslog-port" => {
                let port = port(value).ok().flatten();
                self.syslog_port = Some(port.ok_or("a port from 1 to 65535")?);
            }
            "syslog-truncate" => {
                let bytes = value.parse().ok().filter(|bytes| *bytes == 0 || *bytes >= MIN_TRUNCATION_BYTES);
                self.syslog_truncate = Some(bytes.ok_or("a number of bytes from 64, or 0 for no limit")?);
            }
            "ipv4-only" if value != "true" => return Err("true: there is no IPv6 here"),
            "ipv4-only" => {}
            "interval" => self.interval_seconds = interval(value)?,
            _ => {
                LogItems::parse(value).map_err(|_| "LEVEL or SOURCE:LEVEL, joined by commas")?;
                self.logs.push(value.to_string());
            }
        }
        Ok(())
    }
}

/// Options of every guest: name, what the value is called, help.
const COMMON: [OptionSpec; 19] = [
    option("name", "NAME", "name in metrics and logs"),
    option("ipv4", "CIDR", "address on the service link"),
    option("ipv4-gateway", "IP", "gateway of the service link"),
    option("ipv4-only", "true", "taken for MirageOS's sake: there is no IPv6"),
    option("management-ipv4", "CIDR", "address on the management link"),
    option("monitor", "IP[:PORT]", "collector of metrics; port 8094"),
    option("monitor-adjust", "PORT", "control port; 2323, 0 for none"),
    option("monitor-token", "TOKEN", "what the control port asks for first"),
    option("metrics-port", "PORT", "Prometheus, on the management link; 9464, 0 for none"),
    option("memtrace-port", "PORT", "heap traces, on the management link; 4242, 0 for none"),
    option("memtrace-rate", "RATE", "sampled share of a heap trace's words; 1e-4"),
    option("heap-profile", "on|off", "heap by library; on"),
    option("syslog", "IP[:PORT]", "syslog sink; port 514"),
    option("syslog-port", "PORT", "its port where --syslog names none"),
    option("syslog-truncate", "BYTES", "cut messages; 1024 over udp, else 8192; 0 for not at all"),
    option("syslog-format", "FORMAT", "rfc3164, rfc5424 or mirage; rfc3164"),
    option("syslog-transport", "TRANSPORT", "udp, tcp (octet counting), or tcp-newline; udp"),
    option("interval", "SECONDS", "time between two reports; 10"),
    option("logs", "LEVELS", "log levels, as *:info,dns:debug; also -l"),
];

const fn option(name: &'static str, value: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, value: Some(value), help }
}

/// Why there is no command line to go by. `Display` is one line for the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentsError {
    /// `--help` or `-h`: not an error, but not a start either. Print the usage text and exit with 0.
    Help,
    /// An argument that is no option of this program.
    Unknown(String),
    /// An option without its value.
    MissingValue(String),
    /// A flag with a value.
    UnexpectedValue(String),
    /// A value that is not what the option takes.
    BadValue {
        /// The option, with dashes.
        option: String,
        /// Its value.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A value of the right form that does not serve; the text names the option and says why.
    Unusable(String),
}

impl fmt::Display for ArgumentsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Help => f.write_str("usage asked for"),
            Self::Unknown(argument) => write!(f, "unknown argument '{argument}'"),
            Self::MissingValue(option) => write!(f, "option '{option}' needs a value"),
            Self::UnexpectedValue(option) => write!(f, "option '{option}' takes no value"),
            Self::BadValue { option, value, expected } => {
                write!(f, "option '{option}': '{value}' is not {expected}")
            }
            Self::Unusable(text) => f.write_str(text),
        }
    }
}

impl core::error::Error for ArgumentsError {}

/// Parses the arguments of a guest: `--option=value`, `--option value`, `-l LEVELS`. `extra` are the program's own
/// options. Of an option given twice the last counts, but of `--logs` all do.
///
/// # Errors
/// The first bad argument.
pub fn parse<'a>(
    tokens: impl IntoIterator<Item = &'a str>,
    extra: &[OptionSpec],
) -> Result<Arguments, ArgumentsError> {
    let mut arguments = Arguments::default();
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        if matches!(token, "--help" | "-h") {
            return Err(ArgumentsError::Help);
        }
        let (shown, name, attached) =
            split(token).ok_or_else(|| ArgumentsError::Unknown(token.to_string()))?;
        let own = extra.iter().find(|spec| spec.name == name);
        let Some(spec) = own.or_else(|| COMMON.iter().find(|spec| spec.name == name)) else {
            return Err(ArgumentsError::Unknown(token.to_string()));
        };
        let value = match (spec.value, attached) {
            (None, None) => "",
            (None, Some(_)) => return Err(ArgumentsError::UnexpectedValue(shown.to_string())),
            (Some(_), Some(value)) => value,
            (Some(_), None) => {
                tokens.next().ok_or_else(|| ArgumentsError::MissingValue(shown.to_string()))?
            }
        };
        if own.is_some() {
            arguments.extra.push((spec.name, value.to_string()));
        } else {
            arguments.set(name, value).map_err(|expected| ArgumentsError::BadValue {
                option: shown.to_string(),
                value: value.to_string(),
                expected,
            })?;
        }
    }
    arguments.set_default_syslog_port(DEFAULT_SYSLOG_PORT);
    Ok(arguments)
}

/// The option as written, its name, and the value attached to it.
fn split(token: &str) -> Option<(&str, &str, Option<&str>)> {
    if let Some(long) = token.strip_prefix("--") {
        return Some(match long.split_once('=') {
            Some((name, value)) => (token.get(..name.len() + 2)?, name, Some(value)),
            None => (token, long, None),
        });
    }
    let attached = token.strip_prefix("-l")?;
    let value = attached.strip_prefix('=').unwrap_or(attached);
    Some(("-l", "logs", (!attached.is_empty()).then_some(value)))
}

fn on_or_off(value: &str) -> Result<bool, &'static str> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off"),
    }
}

/// Splits a command line at blanks. Double quotes hold a word together, a backslash takes the next character as it
/// is.
#[must_use]
pub fn split_command_line(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The usage text of a program with the options `extra`.
#[must_use]
pub fn usage(program: &str, extra: &[OptionSpec]) -> String {
    let mut text = format!("usage: {program} [OPTION]...\n");
    for spec in COMMON.iter().chain(extra) {
        let value = spec.value.map_or_else(String::new, |value| format!("={value}"));
        let option = format!("--{}{value}", spec.name);
        text.push_str(&format!("  {option:<26} {}\n", spec.help));
    }
    text
}

fn port(text: &str) -> Result<Option<u16>, &'static str> {
    Ok(Some(text.parse().map_err(|_| "a port, or 0 for none")?).filter(|port| *port != 0))
}

fn cidr(text: &str) -> Result<Cidr, &'static str> {
    const EXPECTED: &str = "an address with a prefix length, as 10.0.0.2/24";
    let (address, prefix_len) = text.split_once('/').ok_or(EXPECTED)?;
    let prefix_len = prefix_len.parse().map_err(|_| EXPECTED)?;
    let address = address.parse().map_err(|_| EXPECTED)?;
    if prefix_len > 32 { Err(EXPECTED) } else { Ok(Cidr { address, prefix_len }) }
}

fn endpoint(text: &str, default_port: u16) -> Result<SocketAddrV4, &'static str> {
    let address = text.parse().map(|ip| SocketAddrV4::new(ip, default_port));
    let address = address.or_else(|_| text.parse()).map_err(|_| "IP or IP:PORT");
    address.and_then(|a| if a.port() == 0 { Err("IP or IP:PORT") } else { Ok(a) })
}

fn interval(text: &str) -> Result<u32, &'static str> {
    const EXPECTED: &str = "a whole number of seconds from 1 to 86400";
    let seconds = text.strip_suffix('s').unwrap_or(text).parse().map_err(|_| EXPECTED)?;
    if (1..=MAX_INTERVAL_SECONDS).contains(&seconds) { Ok(seconds) } else { Err(EXPECTED) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uni_wire::control::LogLevel;

    const EXTRA: [OptionSpec; 2] = [
        OptionSpec { name: "hello", value: Some("TEXT"), help: "what to say" },
        OptionSpec { name: "loud", value: None, help: "say it loud" },
    ];

    fn parse_text(text: &str) -> Result<Arguments, ArgumentsError> {
        parse(text.split_whitespace(), &EXTRA)
    }

    fn message(text: &str) -> String {
        parse_text(text).expect_err(text).to_string()
    }

    #[test]
    fn both_forms_of_an_option_mean_the_same() {
        let with_equals =
            parse_text("--name=web --monitor=10.0.0.1 --interval=1s --hello=x=y").expect("good");
        let apart = parse_text("--name web --monitor 10.0.0.1:8094 --interval 1 --hello x=y").expect("good");
        assert_eq!(with_equals, apart);
        assert_eq!(apart.extra("hello"), Some("x=y"));
        assert_eq!(apart.extra("loud"), None);
    }

    #[test]
    fn defaults_are_those_of_mirage() {
        let none = parse_text("").expect("good");
        assert_eq!((none.control_port, none.interval_seconds), (Some(2323), 10));
        assert_eq!(none.warnings().count(), 2);
        let some =
            parse_text("--syslog=10.0.0.1 --monitor=10.0.0.1:99 --monitor-adjust=0 --loud").expect("good");
        assert_eq!(some.syslog.map(|a| a.port()), Some(514));
        assert_eq!(some.monitor.map(|a| a.port()), Some(99));
        assert_eq!((some.control_port, some.extra("loud")), (None, Some("")));
        assert_eq!(some.warnings().count(), 0);
    }

    #[test]
    fn what_mirages_syslog_and_network_devices_take_is_taken() {
        let line = "--ipv4-only=true --syslog-port=1514 --syslog=10.0.0.1 --syslog-truncate=0";
        let mut arguments = parse_text(line).expect("good");
        arguments.set_default_syslog_port(6514);
        assert_eq!(arguments.syslog.map(|a| a.port()), Some(1514));
        assert_eq!(arguments.syslog_truncation(1472), 1472);
        let named = parse_text("--syslog=10.0.0.1:99 --syslog-port=1514").expect("good");
        assert_eq!(named.syslog.map(|a| a.port()), Some(99));
        for (line, bytes) in [
            ("", 1024),
            ("--syslog-truncate=2000", 1472),
            ("--syslog-truncate=100", 100),
            ("--syslog-transport=tcp", 8192),
            ("--syslog-transport=tcp --syslog-truncate=0", 0),
            ("--syslog-transport=tls --syslog-truncate=70000", 70_000),
        ] {
            assert_eq!(parse_text(line).expect(line).syslog_truncation(1472), bytes, "{line}");
        }
        for bad in ["--ipv4-only=false", "--syslog-port=0", "--syslog-truncate=63", "--syslog-truncate=-1"] {
            assert!(matches!(parse_text(bad), Err(ArgumentsError::BadValue { .. })), "{bad}");
        }
    }

    #[test]
    fn log_levels_come_in_every_spelling() {
        for text in ["-l *:error,a:debug", "-l*:error -l=a:debug", "--logs=error --logs a:debug"] {
            let logs = Logs::default();
            parse_text(text).expect(text).apply_logs(&logs);
            assert_eq!(logs.default_level(), LogLevel::Error);
            assert!(logs.source("a", "").shows(LogLevel::Debug), "{text}");
        }
    }

    #[test]
    fn a_bad_argument_is_named() {
        assert_eq!(message("--nope=1"), "unknown argument '--nope=1'");
        assert_eq!(message("web"), "unknown argument 'web'");
        assert_eq!(message("--name"), "option '--name' needs a value");
        assert_eq!(message("--loud=1"), "option '--loud' takes no value");
        assert_eq!(
            message("--ipv4=10.0.0.1"),
            "option '--ipv4': '10.0.0.1' is not an address with a prefix length, as 10.0.0.2/24"
        );
        for bad in [
            "--ipv4=1.2.3.4/33",
            "--interval=0",
            "--interval=1.5",
            "--monitor=a:1",
            "--syslog=1.2.3.4:0",
            "-l x:y:z",
        ] {
            assert!(matches!(parse_text(bad), Err(ArgumentsError::BadValue { .. })), "{bad}");
        }
        assert_eq!(parse_text("--help"), Err(ArgumentsError::Help));
        assert_eq!(parse_text("--name=web -h"), Err(ArgumentsError::Help));
        assert!(usage("hello", &EXTRA).contains("  --hello=TEXT               what to say\n"));
    }

    #[test]
    fn quotes_hold_a_word_together() {
        assert_eq!(split_command_line(r#" --a="b c" d\ e "" "#), ["--a=b c", "d e", ""]);
    }

    proptest! {
        #[test]
        fn no_command_line_makes_it_panic(text in ".{0,40}", tail in "(--|-l|=|[a-z0-9./:*,]){0,8}") {
            for text in [&text, &tail] {
                let words = split_command_line(text);
                let _ = parse(words.iter().map(String::as_str), &EXTRA);
            }
        }

        #[test]
        fn a_quoted_word_comes_back(words in prop::collection::vec(".{0,8}", 0..4)) {
            let quote = |w: &String| format!("\"{}\"", w.replace('\\', "\\\\").replace('"', "\\\""));
            let line = words.iter().map(quote).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split_command_line(&line), words);
        }
    }
}
