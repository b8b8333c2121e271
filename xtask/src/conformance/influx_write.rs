//! Recorded answers of InfluxDB 1.6 to `/write`, and what was stored then, against a daemon.
//!
//! Owns the meaning of a case (the request; `status`, `body` and `then_select_all_epoch_ns`) and the models of the
//! deliberate differences. Each case has a database of its own; others are made by nobody (`--auto-create=false`).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use black_box::Daemon;
use serde_json::{Value as Json, json};
use uni_wire::line::{LineErrorKind, Mode, Point, Precision, lines, parse_point};
use uni_wire::{FieldType, FieldValue, Timestamp};

use super::{Explanation, Rule, Verdict, list, text, weigh};

const UNSIGNED: usize = 0;
const TIME_TAG: usize = 1;
const CONFLICT: usize = 2;
const BAD_GZIP: usize = 3;

/// The deliberate differences, by the numbers above.
pub(super) static RULES: [Rule; 4] = [
    Rule {
        name: "unsigned",
        reason: "`5u` is an unsigned integer, as in later versions; there an invalid number",
    },
    Rule {
        name: "time tag",
        reason: "a tag `time` is told of with its line; there without, as a dropped point",
    },
    Rule {
        name: "type conflict",
        reason: "in a batch at odds with itself only the points that come too late are refused; there the whole batch",
    },
    Rule {
        name: "bad gzip",
        reason: "says what could not be read; there that the body has ended or begins wrongly",
    },
];

/// The database that cases write to.
const DATABASE: &str = "wdb";

/// A daemon that cases are replayed on.
#[derive(Debug)]
pub(super) struct Session {
    daemon: Daemon,
    agent: ureq::Agent,
    databases: u32,
    _state: tempfile::TempDir,
}

/// What a request led to.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    body: Json,
    /// The series of `SELECT * FROM /.*/` afterwards.
    stored: Json,
}

impl Session {
    /// # Errors
    /// When there is no built daemon, or it does not start.
    pub(super) fn start() -> anyhow::Result<Self> {
        let state = tempfile::tempdir()?;
        let daemon = Daemon::start(state.path(), &["--auto-create=false", "--fsync=never"])?;
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Ok(Self { daemon, agent, databases: 0, _state: state })
    }

    pub(super) fn judge(&mut self, case: &Json) -> anyhow::Result<Verdict> {
        let number = |key: &str| case.get(key).with_context(|| format!("{key:?} is missing"));
        let recorded = Answer {
            status: u16::try_from(number("status")?.as_u64().context("\"status\" is not a number")?)?,
            body: number("body")?.clone(),
            stored: Json::from(list(case, "then_select_all_epoch_ns")?),
        };
        let data = data(case)?;
        let ours = self.replay(case, &data)?;
        let models = explain(case, &data, &recorded);
        let (same, explained) = (ours == recorded, models.original == recorded);
        Ok(weigh(&ours, same, explained, models))
    }

    fn replay(&mut self, case: &Json, data: &[u8]) -> anyhow::Result<Answer> {
        self.databases += 1;
        let fresh = format!("{DATABASE}{}", self.databases);
        self.ask(&[("q", &format!("CREATE DATABASE {fresh}"))])?;
        let mut request = self.agent.post(format!("http://{}/write", self.daemon.address("api")?));
        for (key, value) in case.get("params").and_then(Json::as_object).context("\"params\" is missing")? {
            let value = value.as_str().context("a parameter is not a string")?;
            request = request.query(key, if key == "db" && value == DATABASE { &fresh } else { value });
        }
        for (key, value) in case.get("headers").and_then(Json::as_object).into_iter().flatten() {
            request = request.header(key, value.as_str().context("a header is not a string")?);
        }
        let mut answer = request.send(data)?;
        let body = answer.body_mut().read_to_string()?;
        let body = if body.is_empty() { Json::Null } else { serde_json::from_str(&body)? };
        let found = self.ask(&[("q", "SELECT * FROM /.*/"), ("epoch", "ns"), ("db", &fresh)])?;
        let stored = found.pointer("/results/0/series").cloned().unwrap_or_else(|| json!([]));
        Ok(Answer { status: answer.status().as_u16(), body, stored })
    }

    fn ask(&self, parameters: &[(&str, &str)]) -> anyhow::Result<Json> {
        let mut request = self.agent.post(format!("http://{}/query", self.daemon.address("api")?));
        for (key, value) in parameters {
            request = request.query(key, value);
        }
        let mut answer = request.send_empty()?;
        let answer: Json = answer.body_mut().read_json()?;
        match answer.pointer("/results/0/error").or_else(|| answer.get("error")) {
            Some(error) => bail!("{parameters:?}: {error}"),
            None => Ok(answer),
        }
    }
}

/// The body of the request.
fn data(case: &Json) -> anyhow::Result<Vec<u8>> {
    let Ok(base64) = text(case, "data_base64") else { return Ok(text(case, "data")?.as_bytes().to_vec()) };
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Ok(byte - b'A'),
        b'a'..=b'z' => Ok(byte - b'a' + 26),
        b'0'..=b'9' => Ok(byte - b'0' + 52),
        b'+' => Ok(62),
        b'/' => Ok(63),
        _ => bail!("\"data_base64\" is not base64"),
    };
    let (mut out, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for byte in base64.trim_end_matches('=').bytes() {
        held = held << 6 | u32::from(digit(byte)?);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(held >> bits & 0xff)?);
        }
    }
    Ok(out)
}

/// What the two programs make of a body, by the rules that make a difference there.
fn explain(case: &Json, data: &[u8], recorded: &Answer) -> Explanation<Answer> {
    let untouched =
        |status, error: &str| Answer { status, body: json!({ "error": error }), stored: json!([]) };
    let as_recorded =
        || Answer { status: recorded.status, body: recorded.body.clone(), stored: recorded.stored.clone() };
    let params =
        |key: &str| case.pointer(&format!("/params/{key}")).and_then(Json::as_str).unwrap_or_default();
    let gzip = case.pointer("/headers/Content-Encoding").is_some_and(|encoding| encoding == "gzip");
    if gzip && !data.starts_with(&[0x1f, 0x8b]) {
        return Explanation {
            original: untouched(400, if data.len() < 10 { "unexpected EOF" } else { "gzip: invalid header" }),
            documented: untouched(400, "read the body: Invalid gzip header"),
            covering: vec![&RULES[BAD_GZIP]],
        };
    }
    let addressed = params("db") == DATABASE && matches!(params("rp"), "" | "autogen") && !gzip;
    let lines = if addressed {
        Lines::read(data, Precision::from_query(params("precision")))
    } else {
        Lines::default()
    };
    let covering: Vec<_> = lines.covering.iter().map(|&n| &RULES[n]).collect();
    if covering.is_empty() {
        return Explanation { original: as_recorded(), documented: as_recorded(), covering };
    }
    Explanation { original: lines.original(), documented: lines.documented(), covering }
}

/// The lines of a body as the models see them.
#[derive(Default)]
struct Lines {
    covering: BTreeSet<usize>,
    good: Vec<Point>,
    /// What either program complains of.
    complaints: Vec<String>,
    /// What only the original does, and how many points it calls dropped.
    original_complaints: Vec<String>,
    original_good: Vec<Point>,
    original_dropped: usize,
    at_odds: bool,
    refused: Vec<String>,
}

impl Lines {
    fn read(body: &[u8], precision: Precision) -> Self {
        let mut read = Self::default();
        let mut types: BTreeMap<(Box<str>, Box<str>), FieldType> = BTreeMap::new();
        for line in lines(body) {
            let text = String::from_utf8_lossy(line);
            match parse_point(line, Mode::Strict, Timestamp(0), precision) {
                Ok(point) => read.good_line(&text, point, &mut types),
                Err(error) => {
                    let complaint = format!("unable to parse '{text}': {}", error.reason(line));
                    if error.kind == LineErrorKind::TimeTag {
                        read.covering.insert(TIME_TAG);
                        let measurement = text.split(',').next().unwrap_or_default();
                        read.original_complaints.push(format!(
                            "invalid tag key: input tag \"time\" on measurement \"{measurement}\" is invalid"
                        ));
                        read.original_dropped += 1;
                    } else {
                        read.original_complaints.push(complaint.clone());
                    }
                    read.complaints.push(complaint);
                }
            }
        }
        read
    }

    fn good_line(&mut self, text: &str, point: Point, types: &mut BTreeMap<(Box<str>, Box<str>), FieldType>) {
        let clash = point.fields.iter().find_map(|(name, value)| {
            let key = (point.measurement.clone(), name.clone());
            let known = *types.entry(key).or_insert_with(|| value.field_type());
            (known != value.field_type()).then(|| {
                format!(
                    "field type conflict: input field \"{name}\" on measurement \"{}\" is type {}, already exists as \
                     type {}",
                    point.measurement,
                    value.field_type().name(),
                    known.name()
                )
            })
        });
        if point.fields.iter().any(|(_, value)| matches!(value, FieldValue::Unsigned(_))) {
            self.covering.insert(UNSIGNED);
            self.original_complaints.push(format!("unable to parse '{text}': invalid number"));
        } else {
            self.original_good.push(point.clone());
        }
        match clash {
            Some(complaint) => {
                self.covering.insert(CONFLICT);
                self.at_odds = true;
                self.refused.push(complaint);
            }
            None => self.good.push(point),
        }
    }

    fn original(&self) -> Answer {
        if self.at_odds {
            return Answer {
                status: 400,
                body: json!({ "error": "field type conflict" }),
                stored: json!([]),
            };
        }
        let seen = self.original_good.len() + self.original_dropped;
        answer(&self.original_complaints, seen, self.original_dropped, &self.original_good)
    }

    fn documented(&self) -> Answer {
        let complaints = [self.complaints.clone(), self.refused.clone()].concat();
        answer(&complaints, self.good.len() + self.refused.len(), self.refused.len(), &self.good)
    }
}

/// The answer to a body of which `seen` lines were points.
fn answer(complaints: &[String], seen: usize, dropped: usize, good: &[Point]) -> Answer {
    let stored = series(good);
    if complaints.is_empty() {
        return Answer { status: 204, body: Json::Null, stored };
    }
    let complaints = complaints.join("\n");
    let error = if seen == 0 { complaints } else { format!("partial write: {complaints} dropped={dropped}") };
    Answer { status: 400, body: json!({ "error": error }), stored }
}

/// Points as `SELECT *` shows them.
fn series(points: &[Point]) -> Json {
    let mut measurements: BTreeMap<&str, Vec<&Point>> = BTreeMap::new();
    for point in points {
        measurements.entry(&point.measurement).or_default().push(point);
    }
    let shown = measurements.into_iter().map(|(name, points)| {
        let keys = points.iter().flat_map(|point| {
            point.tags.iter().map(|(key, _)| &**key).chain(point.fields.iter().map(|(key, _)| &**key))
        });
        let columns: BTreeSet<&str> = keys.collect();
        let mut rows: BTreeMap<_, BTreeMap<&str, Json>> = BTreeMap::new();
        for point in points {
            let row = rows.entry((point.time, &point.tags)).or_default();
            row.extend(point.tags.iter().map(|(key, value)| (&**key, json!(value))));
            row.extend(point.fields.iter().map(|(key, value)| (&**key, shown_value(value))));
        }
        let values: Vec<Json> = rows
            .into_iter()
            .map(|((time, _), row)| {
                let cells = columns.iter().map(|column| row.get(column).cloned().unwrap_or_default());
                std::iter::once(json!(time.nanos())).chain(cells).collect()
            })
            .collect();
        let columns: Vec<_> = std::iter::once("time").chain(columns).collect();
        json!({ "name": name, "columns": columns, "values": values })
    });
    shown.collect()
}

fn shown_value(value: &FieldValue) -> Json {
    match value {
        // a whole number is shown without a fraction
        FieldValue::Float(v) => serde_json::from_str(&v.to_string()).unwrap_or_default(),
        FieldValue::Integer(v) => json!(v),
        FieldValue::Unsigned(v) => json!(v),
        FieldValue::Boolean(v) => json!(v),
        FieldValue::String(v) => json!(v),
    }
}
