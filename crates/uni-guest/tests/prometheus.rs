//! Whatever sources there are, what Prometheus is given it can read: checked by a strict little reader of the text
//! format.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uni_guest::prometheus::Prometheus;
use uni_guest::{Counter, Field, Gauge, Histogram, Periodic, Registry, Source, Timer, source};

static MAILS: Counter = Counter::new();
static OPEN: Gauge = Gauge::new();
static SIZES: Histogram = Histogram::new();
static DELIVERY: Timer = Timer::new();

source! {
    static MAIL: Source = Source::new("mail").doc("mails \\ that\nleave").tags(&[("way", "o\"u\\t\n"), ("on", "")]).fields(&[
        Field::counter("sent", &MAILS).unit("mails").doc("taken by a server"),
        Field::gauge("open", &OPEN),
        Field::histogram("size", &SIZES).unit("bytes"),
        Field::timer("delivery", &DELIVERY),
    ]);
}

type Labels = Vec<(String, String)>;

#[derive(Debug, Default)]
struct Family {
    kind: String,
    /// Name of a line and its labels, to the value.
    series: BTreeMap<(String, Labels), f64>,
}

/// Reads the text, or panics.
fn read(text: &str) -> BTreeMap<String, Family> {
    assert!(text.is_empty() || text.ends_with('\n'));
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut current, mut helped) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, _) = rest.split_once(' ').expect("a text");
            assert!(
                is_name(name) && helped.insert(name.to_owned()) && !families.contains_key(name),
                "{line}"
            );
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert!(is_name(name) && ["counter", "gauge", "histogram", "untyped"].contains(&kind), "{line}");
            current = name.to_owned();
            let family = Family { kind: kind.to_owned(), ..Family::default() };
            assert!(families.insert(current.clone(), family).is_none(), "{name} comes twice");
        } else {
            let family = families.get_mut(&current).expect("a type comes first");
            let (name, labels, value) = read_sample(line);
            let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} is not of {current}"));
            let suffixes: &[&str] =
                if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            assert!(family.series.insert((name, labels), value).is_none(), "{line} comes twice");
        }
    }
    families.iter().filter(|(_, family)| family.kind == "histogram").for_each(|f| check_histogram(f.0, f.1));
    families
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

fn read_sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let (name, mut rest) = line.split_once('{').expect("labels");
    assert!(is_name(name), "{line}");
    let mut labels: Vec<(String, String)> = Vec::new();
    loop {
        let (key, after) = rest.split_once("=\"").expect("a label");
        assert!(is_name(key) && !key.contains(':') && labels.iter().all(|(k, _)| k != key), "{line}");
        let (mut value, mut chars) = (String::new(), after.chars());
        loop {
            match chars.next().expect("a closing quote") {
                '"' => break,
                '\\' => value.push(match chars.next() {
                    Some('n') => '\n',
                    Some(c @ ('\\' | '"')) => c,
                    other => panic!("{line}: escaped {other:?}"),
                }),
                c => value.push(c),
            }
        }
        labels.push((key.to_owned(), value));
        match chars.next() {
            Some(',') => rest = chars.as_str(),
            Some('}') => {
                let value = chars.as_str().strip_prefix(' ').expect("a space");
                return (name.to_owned(), labels, value.parse().expect("a number"));
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}

/// Buckets grow to `+Inf`, which is the count; bounds of several histograms are alike as far as both go.
fn check_histogram(name: &str, family: &Family) {
    let mut all: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for ((line, labels), value) in &family.series {
        if *line == format!("{name}_bucket") {
            let (le, rest): (Vec<_>, Vec<_>) = labels.iter().cloned().partition(|(key, _)| key == "le");
            all.entry(rest).or_default().push((le[0].1.parse().expect("a bound"), *value));
        }
    }
    for (labels, mut buckets) in all {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name}: {buckets:?}");
        let (bound, last) = *buckets.last().expect("buckets");
        assert!(bound.is_infinite());
        assert_eq!(family.series.get(&(format!("{name}_count"), labels.clone())), Some(&last));
        assert!(family.series.contains_key(&(format!("{name}_sum"), labels)));
        let mut expected = 0.0;
        for (bound, _) in buckets.iter().take(buckets.len() - 1) {
            assert!((bound - expected).abs() <= expected * 1e-9, "{name}: {bound} is not 2^n - 1");
            expected = expected * 2.0 + 1.0;
        }
    }
}

fn render(registry: &mut Registry, vm: &str) -> (String, u64) {
    let mut text = String::new();
    let lost = Prometheus::render(registry, vm, &mut text).expect("a string");
    (text, lost)
}

fn counting(name: &str) -> Periodic {
    Periodic::new(name, |fields| {
        fields.total("bytes", 5);
    })
}

#[test]
fn a_key_that_says_the_sources_name_does_not_say_it_twice() {
    let mut registry = Registry::new();
    registry.register(Periodic::new("he ap", |fields| {
        fields.total("he ap bytes", 1).total("2xx", 2).total("he apart", 3).total("total", 4);
    }));
    let names: Vec<String> = read(&render(&mut registry, "v").0).into_keys().collect();
    assert_eq!(names, ["he_ap_2xx_total", "he_ap_bytes_total", "he_ap_he_apart_total", "he_ap_total"]);
}

#[test]
fn every_instrument_has_its_form() {
    let mut registry = Registry::of_program();
    registry.set_reporting(true);
    for link in ["service", "management"] {
        registry.register(counting("net").tag("link", link));
    }
    MAILS.add(3);
    OPEN.add(-2);
    [0, 3, 4, u64::MAX].into_iter().for_each(|size| SIZES.record(size));
    DELIVERY.record(5, true);
    let (text, lost) = render(&mut registry, "we b");
    assert_eq!(lost, 0);
    assert!(
        text.starts_with(
            r#"# HELP mail_delivery mails \\ that\nleave [ns]
# TYPE mail_delivery histogram
mail_delivery_bucket{vm="we b",way="o\"u\\t\n",le="0"} 0
mail_delivery_bucket{vm="we b",way="o\"u\\t\n",le="1"} 0
mail_delivery_bucket{vm="we b",way="o\"u\\t\n",le="3"} 0
mail_delivery_bucket{vm="we b",way="o\"u\\t\n",le="7"} 1
mail_delivery_bucket{vm="we b",way="o\"u\\t\n",le="+Inf"} 1
mail_delivery_sum{vm="we b",way="o\"u\\t\n"} 5
mail_delivery_count{vm="we b",way="o\"u\\t\n"} 1
# HELP mail_delivery_calls_total mails \\ that\nleave [ns]
# TYPE mail_delivery_calls_total counter
mail_delivery_calls_total{vm="we b",way="o\"u\\t\n",status="error"} 0
mail_delivery_calls_total{vm="we b",way="o\"u\\t\n",status="ok"} 1
# HELP mail_open mails \\ that\nleave
# TYPE mail_open gauge
mail_open{vm="we b",way="o\"u\\t\n"} -2
# HELP mail_sent_total taken by a server [mails]
# TYPE mail_sent_total counter
mail_sent_total{vm="we b",way="o\"u\\t\n"} 3
"#
        ),
        "{text}"
    );
    let families = read(&text);
    assert_eq!(families["net_bytes_total"].series.len(), 2, "series of two sources stand together");
    assert_eq!(
        families["mail_size"].series.len(),
        65 + 3,
        "a bucket for each doubling of 64 bits, 0 and +Inf"
    );
}

proptest! {
    #[test]
    fn any_names_make_a_text_that_can_be_read(
        sources in prop::collection::vec(
            (".{0,4}", prop::collection::vec((".{0,3}", ".{0,3}"), 0..3), prop::collection::vec((".{0,4}", 0..5), 0..4)),
            0..6,
        ),
        vm in "(?s).{0,4}",
    ) {
        let mut registry = Registry::new();
        let mut made = 0;
        for (name, tags, fields) in sources {
            made += fields.len() as u64;
            let source = Periodic::new(&name, move |f| {
                for (key, kind) in &fields {
                    match kind {
                        0 => f.total(key, u64::MAX),
                        1 => f.float(key, 1e300),
                        2 => f.boolean(key, true),
                        3 => f.integer(key, i64::MIN),
                        _ => f.count(key, 1),
                    };
                }
            });
            registry.register(tags.iter().fold(source, |source, (key, value)| source.tag(key, value)));
        }
        let (text, lost) = render(&mut registry, &vm);
        let series: usize = read(&text).values().map(|family| family.series.len()).sum();
        prop_assert_eq!(series as u64 + lost, made);
    }
}
