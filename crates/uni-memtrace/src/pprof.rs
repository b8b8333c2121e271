//! A trace as a pprof profile, compressed.
//!
//! Owns the fields of `profile.proto` that are used. Values of a sample are allocated objects and bytes, and those in
//! use, as the heap profiles of Go have them.

use std::collections::HashMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use crate::analysis::Analysis;
use crate::symbols::Place;

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// Texts by number; the first is empty.
struct Strings {
    texts: Vec<String>,
    numbers: HashMap<String, i64>,
}

impl Strings {
    fn number(&mut self, text: &str) -> i64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = i64::try_from(self.texts.len()).unwrap_or(i64::MAX);
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

/// The profile, as the file that `pprof` reads.
///
/// # Errors
/// Never in practice: memory takes all that is written.
pub fn pprof(analysis: &Analysis) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&profile(analysis).encode_to_vec())?;
    encoder.finish()
}

fn profile(analysis: &Analysis) -> Profile {
    let mut strings = Strings { texts: vec![String::new()], numbers: HashMap::from([(String::new(), 0)]) };
    let mut value_type =
        |kind: &str, unit: &str| ValueType { kind: strings.number(kind), unit: strings.number(unit) };
    let sample_type = vec![
        value_type("alloc_objects", "count"),
        value_type("alloc_space", "bytes"),
        value_type("inuse_space", "bytes"),
    ];
    let period_type = Some(value_type("space", "bytes"));
    let default_sample_type = strings.number("inuse_space");
    let function = functions(analysis, &mut strings);
    let scale = analysis.scale();
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let info = analysis.info.as_ref();
    Profile {
        sample_type,
        sample: samples(analysis),
        location: locations(analysis),
        function,
        string_table: strings.texts,
        time_nanos: signed(info.map_or(0, |info| info.start_micros)).saturating_mul(1000),
        duration_nanos: signed(analysis.sums.last_micros).saturating_mul(1000),
        period_type,
        period: signed(scale.bytes(1)),
        default_sample_type,
    }
}

fn functions(analysis: &Analysis, strings: &mut Strings) -> Vec<Function> {
    let symbols = &analysis.symbols;
    let functions = symbols.functions().iter().zip(1_u64..);
    functions
        .map(|(function, id)| {
            let name = strings.number(symbols.text(function.name));
            Function { id, name, system_name: name, filename: strings.number(symbols.text(function.file)) }
        })
        .collect()
}

/// A location for each frame; its lines begin with the innermost.
fn locations(analysis: &Analysis) -> Vec<Location> {
    let line =
        |place: &Place| Line { function_id: u64::from(place.function) + 1, line: i64::from(place.line) };
    (0..analysis.symbols.frame_count())
        .map(|frame| Location {
            id: u64::from(frame) + 1,
            line: analysis.symbols.places(frame).iter().rev().map(line).collect(),
        })
        .collect()
}

fn samples(analysis: &Analysis) -> Vec<Sample> {
    let (nodes, scale) = (analysis.trie.nodes(), analysis.scale());
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let all = (0..nodes.len()).map(|at| (at, analysis.trie.sums(at)));
    all.filter(|(_, sums)| sums.allocations > 0)
        .map(|(at, sums)| {
            let mut location_id = Vec::new();
            let mut here = at;
            while here != 0 {
                location_id.push(u64::from(nodes[here].frame) + 1);
                here = nodes[here].parent as usize;
            }
            let value = [u64::from(sums.allocations), scale.bytes(sums.allocated), scale.bytes(sums.live)];
            Sample { location_id, value: value.map(signed).to_vec() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use uni_wire::memtrace::Position;

    #[test]
    fn a_profile_is_read_back() {
        let mut analysis = Analysis::new(&crate::Options::default());
        let position = Position { name: b"http::f", file: b"f.rs", line: 7, start_column: 0, end_column: 0 };
        analysis.symbols.locate(5, &[position]);
        let frame = analysis.symbols.frame(5);
        let node = analysis.trie.child(0, 5, frame, |_| 0);
        let at = analysis.trie.stack_of(node);
        let entry = analysis.trie.stacks.get_mut(at).expect("a node");
        (entry.allocations, entry.allocated, entry.live) = (2, 3, 1);
        let mut bytes = Vec::new();
        let packed = pprof(&analysis).expect("memory");
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).expect("gzip");
        let profile = Profile::decode(&bytes[..]).expect("a profile");
        assert_eq!(profile.sample[0].value, [2, 24, 8]);
        let location = &profile.location[profile.sample[0].location_id[0] as usize - 1];
        assert_eq!(location.line[0].line, 7);
        let function = profile.function[location.line[0].function_id as usize - 1];
        let text = |number: i64| &profile.string_table[usize::try_from(number).expect("a number")];
        assert_eq!(
            (text(function.name).as_str(), text(profile.sample_type[2].kind).as_str()),
            ("http::f", "inuse_space")
        );
    }
}
