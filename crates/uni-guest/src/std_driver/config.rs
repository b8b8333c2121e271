//! What the driver has to know, and reading it from a command line and an environment.
//!
//! Owns the options and variables of a process, which are those of a guest but for its links. Never prints and never
//! exits: the caller does.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::connection::Connection;
use super::flow::OpenFn;
#[cfg(feature = "tls")]
use super::tls::SinkTls;
#[cfg(feature = "tls")]
use super::tls_options;
use crate::agent::DEFAULT_RING_BYTES;
#[cfg(any(test, feature = "tls"))]
use crate::args::SyslogTransport;
use crate::args::{self, Arguments, ArgumentsError, DEFAULT_NAME, OptionSpec};
use crate::metrics::Registry;
use crate::sources::HeapStats;

/// A variable is called so, followed by the option in capitals: `UNI_AGENT_MONITOR` for `--monitor`.
pub const VARIABLE_PREFIX: &str = "UNI_AGENT_";

/// Options of a guest that mean nothing to a process; the last does no harm.
const OF_LINKS: [&str; 4] = ["ipv4", "ipv4-gateway", "management-ipv4", "ipv4-only"];

/// Options that may come as variables, beside those of TLS.
const VARIABLES: [&str; 15] = [
    "name",
    "monitor",
    "monitor-adjust",
    "monitor-token",
    "metrics-port",
    "memtrace-port",
    "memtrace-rate",
    "heap-profile",
    "syslog",
    "syslog-format",
    "syslog-port",
    "syslog-truncate",
    "syslog-transport",
    "interval",
    "logs",
];

type Setup = Box<dyn FnOnce(&mut Registry) + Send>;
type HeapFn = Box<dyn Fn() -> HeapStats + Send>;

/// What [`Reporting::start`](super::Reporting::start) has to know.
pub struct Config {
    /// Name, collector, interval, ports, token, syslog sink, levels.
    pub arguments: Arguments,
    /// What is said to the syslog sink before `SyslogTransport::Tls` says anything.
    #[cfg(feature = "tls")]
    pub syslog_tls: Option<SinkTls>,
    /// Where the control port listens. Anywhere but on a loopback address it must have a token.
    pub control_ip: IpAddr,
    /// Most bytes of points kept while the collector is away.
    pub ring_bytes: usize,
    /// Whether messages are written to standard error too.
    pub console: bool,
    pub(super) setup: Option<Setup>,
    pub(super) heap: Option<HeapFn>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("arguments", &self.arguments)
            .field("control_ip", &self.control_ip)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// What `arguments` say; ports on loopback, messages also to standard error.
    #[must_use]
    pub fn new(arguments: Arguments) -> Self {
        Self {
            arguments,
            #[cfg(feature = "tls")]
            syslog_tls: None,
            control_ip: Ipv4Addr::LOCALHOST.into(),
            ring_bytes: DEFAULT_RING_BYTES,
            console: true,
            setup: None,
            heap: None,
        }
    }

    /// What the command line and the environment of this process say. `extra` are the program's own options, to be
    /// asked for by [`Arguments::extra`].
    ///
    /// # Errors
    /// The first bad variable or argument.
    pub fn of_process(extra: &[OptionSpec]) -> Result<Self, ArgumentsError> {
        let words: Vec<_> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::read(&words, variable, extra)
    }

    /// What `words` (the first is the program) and variables say. An option counts more than a variable; `--logs` and
    /// its variable add up. A program that is given no name has that of its file.
    ///
    /// # Errors
    /// The first bad variable or argument.
    pub fn read(
        words: &[String],
        variable: impl Fn(&str) -> Option<String>,
        extra: &[OptionSpec],
    ) -> Result<Self, ArgumentsError> {
        let extra = [OWN, extra].concat();
        let mut all = from_variables(variable, &extra)?;
        all.extend(words.iter().skip(1).cloned());
        let mut arguments = args::parse(all.iter().map(String::as_str), &extra)?;
        refuse_links(&arguments)?;
        if arguments.name == DEFAULT_NAME
            && let Some(name) = words.first().and_then(|word| Path::new(word).file_stem()?.to_str())
        {
            arguments.name = name.to_string();
        }
        #[cfg(feature = "tls")]
        if arguments.syslog_transport == SyslogTransport::Tls {
            arguments.set_default_syslog_port(tls_options::DEFAULT_PORT);
            let syslog_tls = Some(tls_options::read(&arguments)?);
            return Ok(Self { syslog_tls, ..Self::new(arguments) });
        }
        arguments.refuse_tls()?;
        Ok(Self::new(arguments))
    }

    /// What opens connections to the syslog sink.
    pub(super) fn sink_opener(&self) -> OpenFn {
        #[cfg(feature = "tls")]
        if let Some(tls) = self.syslog_tls.clone() {
            return Box::new(move |to| tls.open(to));
        }
        Box::new(|to| Ok(Box::new(Connection::start(to)?)))
    }

    /// Reports what the program's own allocator counts. Without it, `heap` is what the kernel knows: see
    /// [`process::register_heap`](crate::process::register_heap).
    #[must_use]
    pub fn heap(mut self, stats: impl Fn() -> HeapStats + Send + 'static) -> Self {
        self.heap = Some(Box::new(stats));
        self
    }

    /// Adds sources made at run time: `setup` runs once, on the agent's thread, before the first report. Sources
    /// declared with [`source!`](macro@crate::source) need none of this.
    #[must_use]
    pub fn sources(mut self, setup: impl FnOnce(&mut Registry) + Send + 'static) -> Self {
        self.setup = Some(Box::new(setup));
        self
    }
}

/// The usage text of a process with the options `extra`.
#[must_use]
pub fn usage(program: &str, extra: &[OptionSpec]) -> String {
    let text = args::usage(program, &[OWN, extra].concat());
    let is_of_process =
        |line: &&str| !OF_LINKS.iter().any(|name| line.trim_start().starts_with(&format!("--{name}=")));
    let text: String = text.split_inclusive('\n').filter(is_of_process).collect();
    let mut text = if cfg!(feature = "tls") {
        text.replace("or tcp-newline; udp", "tcp-newline or tls; udp")
    } else {
        text
    };
    text.push_str(&format!("Variables do the same, as {VARIABLE_PREFIX}MONITOR; an option counts more.\n"));
    text
}

fn from_variables(
    variable: impl Fn(&str) -> Option<String>,
    extra: &[OptionSpec],
) -> Result<Vec<String>, ArgumentsError> {
    let mut words = Vec::new();
    for option in VARIABLES.into_iter().chain(OWN.iter().map(|spec| spec.name)) {
        let name = format!("{VARIABLE_PREFIX}{}", option.to_uppercase().replace('-', "_"));
        let Some(value) = variable(&name) else { continue };
        let word = format!("--{option}={value}");
        args::parse([word.as_str()], extra).map_err(|error| naming(error, &name))?;
        words.push(word);
    }
    Ok(words)
}

/// The error of a variable names the variable.
fn naming(error: ArgumentsError, variable: &str) -> ArgumentsError {
    match error {
        ArgumentsError::BadValue { value, expected, .. } => {
            ArgumentsError::BadValue { option: variable.to_string(), value, expected }
        }
        other => other,
    }
}

fn refuse_links(arguments: &Arguments) -> Result<(), ArgumentsError> {
    let given =
        [arguments.ipv4.is_some(), arguments.ipv4_gateway.is_some(), arguments.management_ipv4.is_some()];
    match OF_LINKS.iter().zip(given).find(|(_, given)| *given) {
        Some((name, _)) => Err(ArgumentsError::Unknown(format!("--{name}"))),
        None => Ok(()),
    }
}

/// The options that a process has beside those of a guest: for TLS.
#[cfg(feature = "tls")]
const OWN: &[OptionSpec] = &tls_options::OPTIONS;
#[cfg(not(feature = "tls"))]
const OWN: &[OptionSpec] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, variables: &[(&str, &str)]) -> Result<Config, ArgumentsError> {
        let words: Vec<_> = line.split(' ').map(String::from).collect();
        let variable = |name: &str| {
            variables
                .iter()
                .find(|(n, _)| name.strip_prefix(VARIABLE_PREFIX) == Some(n))
                .map(|(_, v)| v.to_string())
        };
        Config::read(&words, variable, &[OptionSpec { name: "port", value: Some("PORT"), help: "HTTP" }])
    }

    #[test]
    fn options_count_more_than_variables_and_the_file_gives_the_name() {
        let variables = [("MONITOR", "10.0.0.1"), ("INTERVAL", "3"), ("SYSLOG_TRANSPORT", "tcp")];
        let config = read("/bin/shop --interval=1 --port=80", &variables).expect("good");
        let Config { arguments, .. } = config;
        assert_eq!((arguments.name.as_str(), arguments.interval_seconds), ("shop", 1));
        assert_eq!(arguments.monitor.map(|at| at.port()), Some(8094));
        assert_eq!((arguments.extra("port"), arguments.syslog_transport), (Some("80"), SyslogTransport::Tcp));
        assert_eq!(read("shop", &[("NAME", "till")]).expect("good").arguments.name, "till");
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls_has_a_port_of_its_own_and_needs_an_authority() {
        let dir = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["a".to_string()]).expect("a certificate");
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, made.cert.pem()).expect("a file");
        let ca = ca.display().to_string();
        for (sink, port) in [("10.0.0.1", 6514), ("10.0.0.1:514", 514)] {
            let line = format!("shop --syslog={sink} --syslog-transport=tls");
            let config = read(&line, &[("SYSLOG_CA", &ca)]).expect("good");
            assert_eq!(config.arguments.syslog.map(|at| at.port()), Some(port), "{sink}");
            assert!(config.syslog_tls.is_some());
        }
        for (line, word) in [
            ("shop --syslog-transport=tls", "needs --syslog-ca"),
            ("shop --syslog-transport=tls --syslog-ca=/nowhere", "--syslog-ca: read /nowhere: "),
            (&*format!("shop --syslog-transport=tls --syslog-ca={ca} --syslog-key={ca}"), "need each other"),
        ] {
            let error = read(line, &[]).expect_err(line).to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_bad_variable_or_argument_is_named() {
        for (line, variables, message) in [
            (
                "shop",
                [("INTERVAL", "0")],
                "option 'UNI_AGENT_INTERVAL': '0' is not a whole number of seconds from 1 to 86400",
            ),
            ("shop --ipv4=10.0.0.2/24", [("", "")], "unknown argument '--ipv4'"),
            (
                "shop --syslog-transport=sctp",
                [("", "")],
                "option '--syslog-transport': 'sctp' is not udp, tcp, tcp-newline or, in a program that has it, tls",
            ),
        ] {
            assert_eq!(read(line, &variables).expect_err(line).to_string(), message);
        }
        let text = usage("shop", &[]);
        assert!(text.contains("--syslog-transport") && text.contains("--monitor="), "{text}");
        assert!(!text.contains("ipv4"), "{text}");
        assert_eq!(text.contains("tcp-newline or tls; udp"), cfg!(feature = "tls"), "{text}");
        assert_eq!(
            read("shop --syslog-port=1514 --syslog=10.0.0.1", &[])
                .map(|c| c.arguments.syslog.map(|at| at.port())),
            Ok(Some(1514))
        );
    }
}
