//! Points as Apache Parquet: of a measurement one table, with a column for the time, each tag and each field.
//!
//! Owns the columns and how many rows are kept before they are written. Rows stand by series, and by time in each.

use std::collections::BTreeSet;
use std::fs::File;
use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use parquet::basic::{Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use uni_api::rpc::method;
use uni_api::store::SchemaParams;
use uni_store::{ExportSelection, MeasurementSchema};
use uni_wire::FieldValue;
use uni_wire::line::Point;

use super::export::{Written, finish, points};
use super::lines::Pages;
use super::manifest;
use crate::args::{ExportArgs, Format};
use crate::client::{ANSWER_WAIT, Client};
use crate::commands::take::Stop;

/// Rows of a row group: what is kept in memory.
const GROUP_ROWS: usize = 64 << 10;

/// Exports a measurement into a file, or all into a directory, a file each.
///
/// # Errors
/// What failed, or that it was interrupted.
pub(super) fn run(
    client: &mut Client,
    args: &ExportArgs,
    selection: &ExportSelection,
    stop: &Stop,
    format: Format,
) -> anyhow::Result<()> {
    ensure!(
        args.file != Path::new("-"),
        "parquet is written to a file: -o FILE with --measurement, or -o DIR"
    );
    let mut schemas: Vec<MeasurementSchema> = match &args.state_dir {
        None => {
            let params = SchemaParams { database: args.database.clone() };
            client.call(method::STORE_SCHEMA, &params, ANSWER_WAIT)?
        }
        Some(state_dir) => super::read_only(state_dir)?.schema(&args.database)?,
    };
    schemas.retain(|schema| args.measurement.as_ref().is_none_or(|wanted| *wanted == schema.name));
    ensure!(
        !schemas.is_empty(),
        "there are no points{}",
        args.measurement.as_ref().map_or_else(String::new, |m| format!(" of {m}"))
    );
    if args.measurement.is_none() {
        super::backup::make_dir(&args.file)?;
    }
    let (mut written, mut damaged) = (Written::default(), BTreeSet::new());
    for schema in &schemas {
        let path = match args.measurement {
            Some(_) => args.file.clone(),
            None => args.file.join(file_name(&schema.name)),
        };
        let selection = ExportSelection { measurement: Some(schema.name.clone()), ..selection.clone() };
        let mut pages = Pages::open(client, args.state_dir.as_deref(), selection)?;
        let mut table = Table::create(&path, schema)?;
        while let Some(page) = pages.next()? {
            ensure!(!stop.is_wanted(), "interrupted");
            for point in points(&page) {
                table.put(&point?, &mut written)?;
            }
            damaged.extend(page.damaged);
        }
        written.bytes += table.finish()?;
    }
    finish(&args.file, false, &written, &damaged, format)
}

/// `name.parquet`, with `%` and two digits for bytes that are no letter, digit, `_`, `-` or `.`.
fn file_name(measurement: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let escaped = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    measurement.bytes().map(escaped).collect::<String>() + ".parquet"
}

/// Values of a column that are not written yet; a value that is missing has level 0.
struct Column {
    name: String,
    values: Values,
    levels: Vec<i16>,
}

enum Values {
    Float(Vec<f64>),
    /// Unsigned ones too: the same 64 bits.
    Integer(Vec<i64>),
    Boolean(Vec<bool>),
    Text(Vec<ByteArray>),
}

struct Table {
    path: PathBuf,
    part: PathBuf,
    writer: SerializedFileWriter<File>,
    times: Vec<i64>,
    tags: Vec<Column>,
    fields: Vec<Column>,
}

impl Table {
    fn create(path: &Path, schema: &MeasurementSchema) -> anyhow::Result<Self> {
        let part = path.with_added_extension("part");
        let file = manifest::create(&part).with_context(|| format!("make {}", part.display()))?;
        let mut taken = BTreeSet::from(["time".to_owned()]);
        let mut columns = vec![Arc::new(time_column()?)];
        let (mut tags, mut fields) = (Vec::new(), Vec::new());
        for key in &schema.tags {
            columns.push(Arc::new(column(&unique(key, &mut taken), "string")?));
            tags.push(Column::new(key, "string"));
        }
        for (name, kind) in &schema.fields {
            columns.push(Arc::new(column(&unique(name, &mut taken), kind)?));
            fields.push(Column::new(name, kind));
        }
        let root = Type::group_type_builder("points").with_fields(columns).build()?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_column_encoding("time".into(), Encoding::DELTA_BINARY_PACKED)
            .set_column_dictionary_enabled("time".into(), false)
            .build();
        let writer = SerializedFileWriter::new(file, Arc::new(root), Arc::new(properties))?;
        Ok(Self { path: path.to_path_buf(), part, writer, times: Vec::new(), tags, fields })
    }

    fn put(&mut self, point: &Point, written: &mut Written) -> anyhow::Result<()> {
        self.times.push(point.time.nanos());
        for tag in &mut self.tags {
            tag.put(point.tag(&tag.name).map(|value| FieldValue::String(value.into())).as_ref(), written);
        }
        for field in &mut self.fields {
            field.put(point.field(&field.name), written);
        }
        written.points += 1;
        if self.times.len() >= GROUP_ROWS { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> anyhow::Result<()> {
        let mut group = self.writer.next_row_group()?;
        let times = take(&mut self.times);
        let mut column = group.next_column()?.context("a column for the time")?;
        column.typed::<Int64Type>().write_batch(&times, None, None)?;
        column.close()?;
        for source in self.tags.iter_mut().chain(&mut self.fields) {
            let mut column = group.next_column()?.context("a column of the table")?;
            let levels = take(&mut source.levels);
            let levels = Some(&levels[..]);
            let _count = match &mut source.values {
                Values::Float(all) => column.typed::<DoubleType>().write_batch(&take(all), levels, None)?,
                Values::Integer(all) => column.typed::<Int64Type>().write_batch(&take(all), levels, None)?,
                Values::Boolean(all) => column.typed::<BoolType>().write_batch(&take(all), levels, None)?,
                Values::Text(all) => column.typed::<ByteArrayType>().write_batch(&take(all), levels, None)?,
            };
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// Gives the file its name; its size.
    fn finish(mut self) -> anyhow::Result<u64> {
        if !self.times.is_empty() {
            self.write_group()?;
        }
        self.writer.finish()?;
        let file = self.writer.inner();
        let at = || format!("write {}", self.path.display());
        file.sync_all().with_context(at)?;
        let bytes = file.metadata().with_context(at)?.len();
        std::fs::rename(&self.part, &self.path).with_context(at)?;
        Ok(bytes)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // gone already if it was finished
        let _ = std::fs::remove_file(&self.part);
    }
}

impl Column {
    fn new(name: &str, kind: &str) -> Self {
        let values = match kind {
            "float" => Values::Float(Vec::new()),
            "integer" | "unsigned" => Values::Integer(Vec::new()),
            "boolean" => Values::Boolean(Vec::new()),
            _ => Values::Text(Vec::new()),
        };
        Self { name: name.to_owned(), values, levels: Vec::new() }
    }

    /// A field whose type changed since the columns were chosen has no place.
    fn put(&mut self, value: Option<&FieldValue>, written: &mut Written) {
        let is_put = match (&mut self.values, value) {
            (Values::Float(values), Some(FieldValue::Float(value))) => {
                values.push(*value);
                true
            }
            (Values::Integer(values), Some(FieldValue::Integer(value))) => {
                values.push(*value);
                true
            }
            (Values::Integer(values), Some(FieldValue::Unsigned(value))) => {
                values.push(value.cast_signed());
                true
            }
            (Values::Boolean(values), Some(FieldValue::Boolean(value))) => {
                values.push(*value);
                true
            }
            (Values::Text(values), Some(FieldValue::String(value))) => {
                values.push(ByteArray::from(&**value));
                true
            }
            (_, None) => false,
            _ => {
                written.left_out_values += 1;
                false
            }
        };
        self.levels.push(i16::from(is_put));
    }
}

/// A name that no other column has: a tag and a field may be called the same.
fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = name.to_owned();
    while !taken.insert(name.clone()) {
        name.push('_');
    }
    name
}

fn time_column() -> anyhow::Result<Type> {
    let nanos = LogicalType::timestamp(true, TimeUnit::NANOS);
    let time = Type::primitive_type_builder("time", Physical::INT64).with_logical_type(Some(nanos));
    Ok(time.with_repetition(Repetition::REQUIRED).build()?)
}

fn column(name: &str, kind: &str) -> anyhow::Result<Type> {
    let (physical, logical) = match kind {
        "float" => (Physical::DOUBLE, None),
        "integer" => (Physical::INT64, None),
        "unsigned" => (Physical::INT64, Some(LogicalType::integer(64, false))),
        "boolean" => (Physical::BOOLEAN, None),
        _ => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
    };
    let column = Type::primitive_type_builder(name, physical).with_logical_type(logical);
    Ok(column.with_repetition(Repetition::OPTIONAL).build()?)
}
