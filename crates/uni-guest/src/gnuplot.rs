//! A reporter that writes files to be drawn (MirageOS: `metrics-unix`'s gnuplot reporter).
//!
//! Owns a folder: for every source and set of tags a table `NAME.data`, one line a round (seconds since 1970, then
//! the numbers, tab separated, `?` for one that is missing), and at the end a script for each graph and one for each
//! source's other fields. The columns are those of the first round. Texts are left out. Never deletes.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use uni_wire::{Timestamp, Value};

use crate::report::{Lost, Point, Reporter, Rounds};
use crate::source::Graph;

/// Tables that are written; points of further ones are lost, and counted by who reports.
pub const MAX_TABLES: usize = 256;

/// See the module's page.
#[derive(Debug)]
pub struct Gnuplot {
    folder: PathBuf,
    now: fn() -> Timestamp,
    tables: BTreeMap<String, Table>,
    rounds: Rounds,
    failure: Option<io::Error>,
}

#[derive(Debug)]
struct Table {
    file: BufWriter<File>,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    key: String,
    unit: String,
    graph: Option<&'static Graph>,
}

impl Gnuplot {
    /// Writes into `folder`, with the system's time.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(folder: &Path) -> io::Result<Self> {
        Self::with_clock(folder, || {
            let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
        })
    }

    /// Writes into `folder`, with the time that `now` tells.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn with_clock(folder: &Path, now: fn() -> Timestamp) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let folder = folder.to_path_buf();
        Ok(Self { folder, now, tables: BTreeMap::new(), rounds: Rounds::default(), failure: None })
    }

    /// Why the first point that was lost, or a file at the end, could not be written.
    #[must_use]
    pub const fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    fn write(&mut self, name: &str, time: Timestamp, cells: &[(Column, String)]) -> io::Result<()> {
        if !self.tables.contains_key(name) {
            if self.tables.len() == MAX_TABLES {
                return Err(io::Error::other(format!("{name}: there are {MAX_TABLES} tables already")));
            }
            self.tables.insert(name.into(), new_table(&self.folder, name, cells)?);
        }
        let Some(table) = self.tables.get_mut(name) else { return Ok(()) };
        write!(table.file, "{}", time.nanos() as f64 / 1e9)?;
        for column in &table.columns {
            let cell = cells.iter().find(|(Column { key, .. }, _)| *key == column.key);
            write!(table.file, "\t{}", cell.map_or("?", |(_, number)| number))?;
        }
        writeln!(table.file)
    }

    fn finish(&mut self) -> io::Result<()> {
        for table in self.tables.values_mut() {
            table.file.flush()?;
        }
        let mut graphs: BTreeMap<String, (Option<&Graph>, Vec<String>)> = BTreeMap::new();
        for (name, table) in &self.tables {
            for (place, Column { key, unit, graph }) in table.columns.iter().enumerate() {
                let title = graph.map_or(name.as_str(), |graph| graph.title);
                let unit = if unit.is_empty() { String::new() } else { format!(" [{unit}]") };
                let line = format!(
                    "'{name}.data' using 1:{} with linespoints title {}",
                    place + 2,
                    quoted(&format!("{name} {key}{unit}"))
                );
                graphs.entry(title.into()).or_insert((*graph, Vec::new())).1.push(line);
            }
        }
        for (title, (graph, lines)) in &graphs {
            fs::write(self.folder.join(format!("{}.gp", file_name(title))), script(title, *graph, lines))?;
        }
        Ok(())
    }
}

fn new_table(folder: &Path, name: &str, cells: &[(Column, String)]) -> io::Result<Table> {
    let mut file = BufWriter::new(File::create(folder.join(format!("{name}.data")))?);
    write!(file, "# seconds")?;
    let mut columns = Vec::new();
    for (Column { key, unit, graph }, _) in cells {
        write!(file, "\t{}", key.replace(char::is_control, " "))?;
        columns.push(Column { key: key.clone(), unit: unit.clone(), graph: *graph });
    }
    writeln!(file)?;
    Ok(Table { file, columns })
}

fn script(title: &str, graph: Option<&Graph>, lines: &[String]) -> String {
    let mut script =
        format!("set title {}\nset xdata time\nset timefmt '%s'\nset datafile missing '?'\n", quoted(title));
    if let Some(Graph { label, unit, .. }) = graph {
        script.push_str(&format!("set ylabel {}\n", quoted(&format!("{label} [{unit}]"))));
    }
    script.push_str(&format!("plot {}\npause -1\n", lines.join(", \\\n     ")));
    script
}

/// A string of gnuplot's in which nothing has a meaning but the quote.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace(char::is_control, " ").replace('\'', "''"))
}

/// Letters, digits and what is harmless; never a path.
fn file_name(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '=');
    let name: String = text.chars().take(100).map(|c| if harmless(c) { c } else { '_' }).collect();
    if name.is_empty() { "_".into() } else { name }
}

fn number(value: Value<'_>) -> Option<String> {
    match value {
        Value::Float(v) => Some(v.to_string()),
        Value::Integer(v) => Some(v.to_string()),
        Value::Unsigned(v) => Some(v.to_string()),
        Value::Boolean(v) => Some(u8::from(v).to_string()),
        Value::String(_) => None,
    }
}

impl Reporter for Gnuplot {
    fn now(&self) -> Timestamp {
        (self.now)()
    }

    fn report(&mut self, point: &mut Point<'_>, time: Timestamp) -> Result<(), Lost> {
        let mut name = file_name(point.name());
        for (key, value) in point.tags() {
            name.push_str(&file_name(&format!("-{key}={value}")));
        }
        let mut cells = Vec::new();
        point.read(|reading| {
            reading.sample.expand(&mut self.rounds, |suffix, value| {
                if let Some(number) = number(value) {
                    let key = format!("{}{suffix}", reading.key);
                    cells.push((Column { key, unit: reading.unit.into(), graph: reading.graph }, number));
                }
            });
        });
        if cells.is_empty() {
            return Ok(());
        }
        self.write(&name, time, &cells).map_err(|error| {
            self.failure.get_or_insert(error);
            Lost
        })
    }

    fn at_exit(&mut self) {
        if let Err(error) = self.finish() {
            self.failure.get_or_insert(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Field, Gauge, Periodic, Registry, Source};

    #[test]
    fn a_table_for_each_source_and_a_script_for_each_graph() {
        static LEVELS: Graph = Graph { title: "it's high", label: "level", unit: "m" };
        static LEVEL: Gauge = Gauge::new();
        static POND: Source =
            Source::new("pond").fields(&[Field::gauge("level", &LEVEL).unit("m").graph(&LEVELS)]);
        let folder = tempfile::tempdir().expect("a folder");
        let mut gnuplot = Gnuplot::with_clock(folder.path(), || Timestamp(1_500_000_000)).expect("a folder");
        let mut registry = Registry::new();
        let mut declared = Some(&POND);
        registry.discover(move || declared.take());
        registry.register(
            Periodic::new("../x", |f| {
                f.text("s", "no").boolean("b", true);
            })
            .tag("t", "/"),
        );
        LEVEL.add(-3);
        assert_eq!(registry.report(&mut gnuplot), 0);
        gnuplot.at_exit();
        assert!(gnuplot.failure().is_none());
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect(name);
        assert_eq!(read("pond.data"), "# seconds\tlevel\n1.5\t-3\n");
        assert_eq!(read("___x-t=_.data"), "# seconds\tb\n1.5\t1\n");
        assert_eq!(
            read("it_s_high.gp"),
            "set title 'it''s high'\nset xdata time\nset timefmt '%s'\nset datafile missing '?'\n\
             set ylabel 'level [m]'\nplot 'pond.data' using 1:2 with linespoints title 'pond level [m]'\npause -1\n"
        );
    }
}
