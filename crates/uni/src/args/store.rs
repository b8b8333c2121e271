//! The shape of `uni store`: the daemon's store saved, looked at, and carried from place to place.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};

use crate::moment::{self, Moment};

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Copy the whole store into a directory; again into the same one, only what is new
    ///
    /// The running daemon is asked, and goes on meanwhile. Every point that it had acknowledged when the backup began is
    /// in it. The directory is yours: the daemon writes nothing there. A backup that is cut short leaves the one before
    /// as it was.
    #[command(
        after_help = "Examples:\n  uni store backup /backup/uni\n  uni store backup /backup/uni --state-dir /var/lib/uni   (unid is stopped)\n  uni store check --backup /backup/uni"
    )]
    Backup(BackupArgs),
    /// Make a store from a backup, for a daemon that does not run
    #[command(
        after_help = "Examples:\n  uni store restore /backup/uni --state-dir /var/lib/uni\n  uni store restore /backup/uni --state-dir /var/lib/uni --force   (the store there is set aside)"
    )]
    Restore(RestoreArgs),
    /// Read all of the store and say what is damaged; exit status 1 if anything is
    ///
    /// Nothing is changed unless --isolate is given, and nothing is ever deleted.
    #[command(
        after_help = "Examples:\n  uni store check\n  uni store check --state-dir /var/lib/uni --isolate   (unid is stopped)\n  uni store check --backup /backup/uni"
    )]
    Check(CheckArgs),
    /// Write points as line protocol, OpenMetrics text or Parquet
    #[command(
        after_help = "Examples:\n  uni store export -o uni.lp.gz\n  uni store export --measurement memory --vm web --from -1h | grep used\n  uni store export --format prom -o uni.om && promtool tsdb create-blocks-from openmetrics uni.om data\n  influx -import -compressed -path uni.lp.gz   (into InfluxDB 1, with --unsigned integer)"
    )]
    Export(ExportArgs),
    /// Store line protocol from a file, as a write over HTTP does
    #[command(
        after_help = "Examples:\n  uni store import uni.lp.gz\n  influx_inspect export -lponly -out - | uni store import -\n  uni store import --database lab --precision s measured.lp"
    )]
    Import(ImportArgs),
    /// Count series by database, measurement, tag and VM
    #[command(
        after_help = "Examples:\n  uni store cardinality\n  uni store cardinality --top 50 --output json"
    )]
    Cardinality(CardinalityArgs),
}

impl StoreCommand {
    /// As typed, for messages.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Backup(_) => "store backup",
            Self::Restore(_) => "store restore",
            Self::Check(_) => "store check",
            Self::Export(_) => "store export",
            Self::Import(_) => "store import",
            Self::Cardinality(_) => "store cardinality",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Where the backup is; made if it is missing
    pub(crate) dir: PathBuf,

    /// The state directory of a daemon that does not run, instead of asking a daemon
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Where the backup is
    pub(crate) dir: PathBuf,

    /// The state directory of the daemon, which must not run; made if it is missing
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: PathBuf,

    /// Although there is a store with points: it is renamed to store.before-restore-TIME, beside the new one
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The state directory of a daemon that does not run, instead of asking a daemon
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Check a backup instead: each file against the checksum in its manifest
    #[arg(long, value_name = "DIR", conflicts_with_all = ["state_dir", "isolate"])]
    pub(crate) backup: Option<PathBuf>,

    /// Move what is damaged into the folder `damaged` of the store; what is readable of such files stays in use
    #[arg(long, requires = "state_dir")]
    pub(crate) isolate: bool,
}

/// How exported points are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Line protocol: everything, for `uni store import`, `/write`, `influx -import`
    Lp,
    /// OpenMetrics text with time stamps: numbers, to the millisecond, for `promtool tsdb create-blocks-from openmetrics`
    Prom,
    /// Apache Parquet, a table a measurement
    #[cfg(feature = "parquet")]
    Parquet,
}

/// What becomes of unsigned integers in line protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unsigned {
    /// As they are (`5u`)
    Keep,
    /// As integers (`5i`), as InfluxDB 1 wants it; those above 9223372036854775807 are left out, and counted
    Integer,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// How points are written
    #[arg(long, value_enum, default_value_t = ExportFormat::Lp)]
    pub(crate) format: ExportFormat,

    /// The file, compressed if its name ends in .gz; - is stdout. Until it is whole it is called FILE.part
    #[arg(short = 'o', value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,

    /// Points of this database
    #[arg(long, value_name = "NAME", default_value = "uni", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) database: String,

    /// Only points of this measurement
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) measurement: Option<String>,

    /// Only points of this VM: whose tag `vm` has this value
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) vm: Option<String>,

    /// Only points from this time on: 2026-11-21T20:00:00Z, nanoseconds since 1970 (or with a unit: 1795291200s), or -1h
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true)]
    pub(crate) from: Option<Moment>,

    /// Only points before this time
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true)]
    pub(crate) to: Option<Moment>,

    /// What becomes of unsigned integers in line protocol
    #[arg(long, value_enum, default_value_t = Unsigned::Keep)]
    pub(crate) unsigned: Unsigned,

    /// The state directory of a daemon that does not run, instead of asking a daemon
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file, which may be compressed with gzip; - is stdin
    pub(crate) file: PathBuf,

    /// Where the points go, unless the file says so (# CONTEXT-DATABASE)
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) database: Option<String>,

    /// Unit of the time stamps
    #[arg(long, value_name = "UNIT", default_value = "ns", value_parser = ["ns", "us", "u", "ms", "s", "m", "h"])]
    pub(crate) precision: String,
}

#[derive(Debug, Args)]
pub(crate) struct CardinalityArgs {
    /// Most lines of each list
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,

    /// The state directory of a daemon that does not run, instead of asking a daemon
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}
