//! The command line's shape. Owns names, defaults and help texts; never acts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use uni_api::vm::PortMap;

use crate::{duration, ports, sizes};

mod memtrace;
mod store;
mod take;

pub(crate) use memtrace::{MemtraceBy, MemtraceCommand, MemtraceDiffArgs, MemtraceReportArgs, MemtraceRows};
pub(crate) use store::{
    BackupArgs, CardinalityArgs, CheckArgs, ExportArgs, ExportFormat, ImportArgs, RestoreArgs, StoreCommand,
    Unsigned,
};
pub(crate) use take::{MemtraceArgs, TakeArgs};

/// Run unikernels and see them from inside and outside
///
/// Asks the daemon, unid(8), over its control socket. The exit status is 0, or 1 with one message on stderr. Where the
/// variables TRACEPARENT and TRACESTATE name a trace (W3C Trace Context), what a command makes the daemon do becomes a
/// part of that trace, if the daemon sends traces.
#[derive(Debug, Parser)]
#[command(name = "uni", version = concat!("version ", env!("CARGO_PKG_VERSION")))]
pub(crate) struct Cli {
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,

    /// The daemon's control socket [default: /var/run/unid.sock, or unid.sock in $XDG_RUNTIME_DIR]
    // Not a PathBuf: an empty value, as of an empty variable, means the default.
    #[arg(long, global = true, env = "UNI_SOCKET", value_name = "PATH", hide_env_values = true)]
    socket: Option<OsString>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The socket to talk to.
    pub(crate) fn socket(&self) -> PathBuf {
        match &self.socket {
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ => uni_api::defaults::socket_path(),
        }
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // For people.
    Table,
    // For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a VM from an image and start it; prints the VM's id
    Run(RunArgs),
    /// List all VMs, stopped ones too
    Ps,
    /// Show everything about a VM, as JSON
    Inspect(VmArg),
    /// Print a VM's serial console, or its syslog messages
    Logs(LogsArgs),
    /// Show processor, memory and network use of a VM
    Stats(StatsArgs),
    /// Show the log levels of a guest, or change them while it runs
    ///
    /// SPEC is LEVEL or SOURCE:LEVEL, joined by commas; levels are quiet, app, error, warning, info, debug. A bare level
    /// (or *:LEVEL) is that of all sources. A MirageOS guest resets the sources that SPEC does not name.
    LogLevel(GuestControlArgs),
    /// Show which metrics of a guest are on, or turn them on and off while it runs
    ///
    /// SPEC is on, off, SOURCE:on, SOURCE:off or tag:KEY:off, joined by commas. A bare on or off is for all sources.
    Metrics(MetricsArgs),
    /// Take a heap trace of a guest, or say from one which library holds the memory
    ///
    /// Takes and reads what OCaml's memtrace library, MirageOS's and Uni's guests write. Sizes are estimates from samples.
    Memtrace(MemtraceArgs),
    /// Stop a VM
    Stop(StopArgs),
    /// Remove a stopped VM
    Rm(RmArgs),
    /// Count VMs by state and list them
    Status,
    /// Save, check, export and import what the daemon has stored
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Ask or change the daemon itself
    Daemon {
        #[command(subcommand)]
        command: DaemonCommand,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// An existing directory
        dir: PathBuf,
    },
}

impl Command {
    /// The subcommand as typed, for messages.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Ps => "ps",
            Self::Inspect(_) => "inspect",
            Self::Logs(_) => "logs",
            Self::Stats(_) => "stats",
            Self::LogLevel(_) => "log-level",
            Self::Metrics(_) => "metrics",
            Self::Memtrace(args) => args.name(),
            Self::Stop(_) => "stop",
            Self::Rm(_) => "rm",
            Self::Status => "status",
            Self::Store { command } => command.name(),
            Self::Daemon { command } => command.name(),
            Self::Completions { .. } => "completions",
            Self::Man { .. } => "man",
        }
    }
}

/// What is asked of the daemon itself.
#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Show what the daemon's log shows, or change it while it runs
    LogLevel {
        /// A level (error, warn, info, debug, trace, off), and per target: info,unid::vms=debug
        #[arg(value_name = "SPEC", value_parser = NonEmptyStringValueParser::new())]
        spec: Option<String>,
    },
    /// Shut the daemon down; VMs go on, and the next daemon takes them over
    Stop(DaemonStopArgs),
}

impl DaemonCommand {
    const fn name(&self) -> &'static str {
        match self {
            Self::LogLevel { .. } => "daemon log-level",
            Self::Stop(_) => "daemon stop",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DaemonStopArgs {
    /// Stop all VMs first
    #[arg(long)]
    pub(crate) vms: bool,

    /// With --vms: how long the guests may take before they are killed
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "vms", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) time: u64,
}

/// Names one VM.
#[derive(Debug, Args)]
pub(crate) struct VmArg {
    /// The VM's id, its name, or the beginning of its id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) vm: String,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Image file to boot; its name must contain a slash, as in ./hello.elf
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) image: String,

    #[arg(
        help = "Publish a port: [ADDR:]HOST:GUEST[/tcp|udp], ADDR is 127.0.0.1 if absent; may be repeated"
    )]
    #[arg(short = 'p', long = "port", value_name = "PORTS", value_parser = ports::parse)]
    pub(crate) ports: Vec<PortMap>,

    // Not checked here: the parser would repeat a wrong entry, secret and all.
    /// Set an environment variable of the guest; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,

    /// Take environment variables from a file, one KEY=VALUE a line; blank lines and # lines are skipped
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,

    /// Guest memory, e.g. 256M or 1G [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) memory: Option<String>,

    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) cpus: u32,

    /// Weight of processor time against other VMs, 1 to 10000 (cgroup v2; others have 100); 0 is none
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub(crate) cpu_shares: u64,

    /// Most memory of the VM's process, e.g. 1G (cgroup v2); 0 is no limit
    #[arg(long, value_name = "SIZE", default_value = "0", hide_default_value = true, value_parser = sizes::parse_bytes)]
    pub(crate) memory_max: u64,

    /// Operations of the boot disk in a second; 0 is no limit
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) disk_iops: u64,

    /// Bytes from and to the boot disk in a second, e.g. 10M; 0 is no limit
    #[arg(long, value_name = "SIZE", default_value = "0", hide_default_value = true, value_parser = sizes::parse_bytes)]
    pub(crate) disk_bps: u64,

    /// QEMU's machine for a kernel; a disk image always runs on pc [default: microvm]
    #[arg(long, value_name = "TYPE", value_parser = ["microvm", "q35"])]
    pub(crate) machine: Option<String>,

    /// The VM's name [default: made from the image's name]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: Option<String>,

    /// Remove the VM once it has stopped
    #[arg(long)]
    pub(crate) rm: bool,

    /// Do not pass --name, --monitor and the like to the guest
    #[arg(long)]
    pub(crate) no_add_name: bool,

    /// Let the guest open connections over its service link: to the world, and to this host's loopback
    #[arg(long)]
    pub(crate) outbound: bool,

    /// Return as soon as the VM runs (the default)
    #[arg(short = 'd', long)]
    detach: bool,

    /// Show the serial console until the VM ends; Ctrl-C leaves the VM running
    #[arg(long)]
    pub(crate) attach: bool,

    /// Arguments for the guest, after --
    #[arg(last = true, value_name = "GUEST ARGS")]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The VM's id, its name, or the beginning of its id; with --source syslog all VMs where it is left out
    #[arg(value_parser = NonEmptyStringValueParser::new(), required_unless_present = "source")]
    pub(crate) vm: Option<String>,

    /// What is shown: the serial console, or the messages that came as syslog
    #[arg(long, value_enum, default_value_t = LogSource::Console)]
    pub(crate) source: LogSource,

    /// Go on until the VM ends
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Only this run of the VM: its number, `last` or `previous`
    #[arg(long, value_name = "N|last|previous", default_value = "", hide_default_value = true)]
    pub(crate) run: String,

    /// Begin with the last N lines or messages instead of the earliest kept
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "tail_bytes")]
    pub(crate) tail: Option<usize>,

    /// Begin with the last N bytes
    #[arg(long, value_name = "N")]
    pub(crate) tail_bytes: Option<u64>,

    /// With --source syslog: only messages of this severity and of worse ones
    #[arg(long, value_enum)]
    pub(crate) level: Option<Level>,

    /// With --source syslog: only messages of the last so much time, e.g. 90s, 15m, 1h
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub(crate) since: Option<Duration>,

    /// With --source syslog: only messages in whose text this regular expression is found
    #[arg(long, visible_alias = "regex", value_name = "RE", value_parser = NonEmptyStringValueParser::new(), allow_hyphen_values = true)]
    pub(crate) grep: Option<String>,

    /// With --source syslog: only messages in whose text this word stands, whole and in any case; may be repeated
    #[arg(long, value_name = "WORD", value_parser = NonEmptyStringValueParser::new(), allow_hyphen_values = true)]
    pub(crate) word: Vec<String>,

    /// With --source syslog: only messages older than this, e.g. 90s, 15m, 1h
    #[arg(long, value_name = "D", value_parser = duration::parse, conflicts_with = "follow")]
    pub(crate) until: Option<Duration>,
}

/// Where what `logs` shows comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogSource {
    // What the guest wrote to its serial port.
    Console,
    // What it, or somebody in its name, sent as syslog.
    Syslog,
}

/// Severities of syslog, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    #[value(alias = "emergency")]
    Emerg,
    Alert,
    #[value(alias = "critical")]
    Crit,
    #[value(alias = "error")]
    Err,
    #[value(alias = "warn")]
    Warning,
    Notice,
    #[value(alias = "informational")]
    Info,
    Debug,
}

impl Level {
    /// The severity as the daemon spells it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Emerg => "emerg",
            Self::Alert => "alert",
            Self::Crit => "crit",
            Self::Err => "err",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl LogsArgs {
    /// The first flag given that is not for the source.
    pub(crate) fn misfit(&self) -> Option<&'static str> {
        let given = match self.source {
            LogSource::Console => vec![
                ("--level", self.level.is_some()),
                ("--since", self.since.is_some()),
                ("--until", self.until.is_some()),
                ("--grep", self.grep.is_some()),
                ("--word", !self.word.is_empty()),
            ],
            LogSource::Syslog => {
                vec![("--run", !self.run.is_empty()), ("--tail-bytes", self.tail_bytes.is_some())]
            }
        };
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    pub(crate) vm: VmArg,

    /// Go on, one measurement an interval; with --output json one object a line
    #[arg(short, long)]
    pub(crate) watch: bool,

    /// Time between two measurements, e.g. 500ms, 5s, 1m; a bare number is seconds; at least 1s
    #[arg(short, long, value_name = "D", default_value = "3s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) interval: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct GuestControlArgs {
    /// The VM's id, its name, or the beginning of its id; or a pattern such as 'web-*' for all running VMs with such names
    /// (* stands for any characters, ? for one; nothing else is special). None with --addr
    #[arg(required_unless_present = "addr", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) vm: Option<String>,

    /// What to change, as http:debug or net:off, joined by commas; http:debug@10m ends by itself, as all does with --for.
    /// Without it, what is in force is shown
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) spec: Option<String>,

    /// Let the change end after this time, e.g. 30s, 10m, 1h; at most 24h
    #[arg(long = "for", value_name = "TIME", value_parser = duration::whole_seconds)]
    pub(crate) time: Option<u32>,

    /// The control port of a guest that Uni does not run, instead of a VM
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub(crate) addr: Option<String>,

    /// A file with the token that the guest wants (its --monitor-token)
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Checks the form only.
fn host_and_port(text: &str) -> Result<String, String> {
    let is_address =
        |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0);
    let given = text.rsplit_once(':').filter(|parts| is_address(*parts));
    given.map(|_| text.to_owned()).ok_or_else(|| format!("`{text}` is not HOST:PORT, as 10.0.0.5:2323"))
}

#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    #[command(flatten)]
    pub(crate) guest: GuestControlArgs,

    /// Print the metrics themselves, as the guest tells them to Prometheus at its management link
    #[arg(long, conflicts_with_all = ["spec", "time", "addr", "token_file"])]
    pub(crate) scrape: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) vm: VmArg,

    /// Kill it at once
    #[arg(long)]
    pub(crate) force: bool,

    /// How long the guest may take before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) time: u64,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    pub(crate) vm: VmArg,

    /// Kill it first if it runs
    #[arg(long)]
    pub(crate) force: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_after_the_subcommand() {
        let cli = parsed("uni stats web --output json --socket /s").unwrap();
        assert_eq!((cli.output, cli.socket()), (Format::Json, PathBuf::from("/s")));
    }

    #[test]
    fn guest_arguments_stand_after_two_dashes_and_are_left_alone() {
        let Command::Run(run) = parsed("uni run ./a.elf -p 1:2 -d -- --hello -p 3").unwrap().command else {
            panic!("not run")
        };
        assert_eq!((run.ports.len(), run.args.len(), run.cpus), (1, 3, 1));
        assert!(parsed("uni run ./a.elf --hello").is_err());
    }

    #[test]
    fn an_empty_vm_is_refused() {
        for command in ["inspect", "logs", "stats", "log-level", "metrics", "stop", "rm"] {
            assert!(Cli::try_parse_from(["uni", command, ""]).is_err(), "{command}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for line in
            ["uni run ./a --cpus 0", "uni stop a --time -1", "uni stats a -i never", "uni run ./a -p 0:1"]
        {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
