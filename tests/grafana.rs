//! `/grafana.json`: both documents have the shape Grafana imports, and every query in them, and in Mollymawk's own
//! dashboard, is answered by `unid` as a real InfluxDB answers it over the same points.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use black_box::influxd::{Influxd, query, same, write};
use black_box::{Daemon, workspace};
use serde_json::Value;

const DATABASE: &str = "telegraf";
/// The recorded points begin here, 10 s apart for 20 minutes, with a hole of 5 minutes.
const START_MS: i64 = 1_600_000_000_000;
/// VMs of the recorded points, and one whose name begins like a number.
const VMS: [&str; 4] = ["retreat.mirageos.org", "dns.example:primary", "robur:web-1", "9p.example"];

/// A query as a document holds it: what it is for, its id, its text.
type Found = (String, String, String);

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, path: &str) -> anyhow::Result<&'a Vec<Value>> {
    value.pointer(path).and_then(Value::as_array).with_context(|| format!("no list at {path}: {value}"))
}

fn document(daemon: &Daemon, listener: &str, schema: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&daemon.get(listener, &format!("/grafana.json{schema}"))?)?)
}

/// The queries of panels, variables and annotations of a v2 document.
fn v2_queries(document: &Value) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for panel in document["spec"]["elements"].as_object().context("no elements")?.values() {
        for query in list(panel, "/spec/data/spec/queries")? {
            let (spec, data) = (&query["spec"], &query["spec"]["query"]);
            ensure!(query["kind"] == "PanelQuery" && data["kind"] == "DataQuery", "{query}");
            ensure!(data["group"] == "influxdb" && data["version"] == "v0", "{query}");
            ensure!(data["datasource"]["name"] == "${datasource}", "{query}");
            ensure!(data["spec"]["rawQuery"] == true && spec["hidden"] == false, "{query}");
            found.push((text(&panel["spec"]["title"]), text(&spec["refId"]), text(&data["spec"]["query"])));
        }
    }
    for variable in list(document, "/spec/variables")?.iter().filter(|v| v["kind"] == "QueryVariable") {
        let spec = &variable["spec"];
        ensure!(spec["query"]["datasource"]["name"] == "${datasource}", "{variable}");
        found.push(("variable".to_owned(), text(&spec["name"]), text(&spec["query"]["spec"]["query"])));
    }
    for annotation in list(document, "/spec/annotations")?.iter().filter(|a| a["spec"]["builtIn"] != true) {
        let data = &annotation["spec"]["query"];
        ensure!(data["datasource"]["name"] == "${datasource}", "{annotation}");
        found.push((
            "annotation".to_owned(),
            text(&annotation["spec"]["name"]),
            text(&data["spec"]["query"]),
        ));
    }
    found.sort();
    Ok(found)
}

/// The same of a classic document.
fn classic_queries(document: &Value) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    let by_variable = |value: &Value| {
        value["datasource"]["uid"] == "${datasource}" && value["datasource"]["type"] == "influxdb"
    };
    for panel in list(document, "/panels")? {
        for target in list(panel, "/targets")? {
            ensure!(by_variable(target) && target["rawQuery"] == true && target["hide"] == false, "{target}");
            found.push((text(&panel["title"]), text(&target["refId"]), text(&target["query"])));
        }
    }
    for variable in list(document, "/templating/list")?.iter().filter(|v| v["type"] == "query") {
        ensure!(by_variable(variable), "{variable}");
        found.push(("variable".to_owned(), text(&variable["name"]), text(&variable["query"])));
    }
    for annotation in list(document, "/annotations/list")?.iter().filter(|a| a["builtIn"] != 1) {
        ensure!(by_variable(annotation), "{annotation}");
        ensure!(annotation["query"] == annotation["target"]["query"], "{annotation}");
        found.push(("annotation".to_owned(), text(&annotation["name"]), text(&annotation["query"])));
    }
    found.sort();
    Ok(found)
}

/// What is chosen above the panels: the values, or all as the document's own word for it.
struct Choice {
    vms: Chosen,
    bridges: Chosen,
    from_ms: i64,
    to_ms: i64,
    step: &'static str,
}

enum Chosen {
    All,
    These(&'static [&'static str]),
}

/// Puts values into a query as Grafana does.
fn render(text: &str, choice: &Choice) -> String {
    let time = format!("time >= {}ms and time <= {}ms", choice.from_ms, choice.to_ms);
    text.replace("$timeFilter", &time)
        .replace("$__interval", choice.step)
        .replace("$interval", choice.step)
        .replace("$vm", &pattern(&choice.vms))
        .replace("$bridge", &pattern(&choice.bridges))
}

fn pattern(chosen: &Chosen) -> String {
    match chosen {
        Chosen::All => ".+".to_owned(),
        Chosen::These([one]) => escaped(one),
        Chosen::These(several) => {
            format!("({})", several.iter().map(|v| escaped(v)).collect::<Vec<_>>().join("|"))
        }
    }
}

/// A value inside a regular expression; one that begins like a number is left as it is.
fn escaped(value: &str) -> String {
    if value.starts_with(|c: char| c.is_ascii_digit()) {
        return value.to_owned();
    }
    value.chars().fold(String::new(), |mut out, c| {
        if r"\^$*+?.()[]{}/|".contains(c) {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

fn choices() -> Vec<Choice> {
    let choice = |vms, bridges, from_s: i64, to_s: i64, step| Choice {
        vms,
        bridges,
        from_ms: START_MS + from_s * 1000,
        to_ms: START_MS + to_s * 1000 + 5,
        step,
    };
    vec![
        choice(Chosen::All, Chosen::All, -600, 3000, "10s"),
        choice(Chosen::These(&["retreat.mirageos.org"]), Chosen::These(&["private"]), 95, 905, "20s"),
        choice(
            Chosen::These(&["dns.example:primary", "9p.example"]),
            Chosen::These(&["service", "0"]),
            0,
            1500,
            "1m",
        ),
        choice(Chosen::These(&["9p.example"]), Chosen::All, 301, 1111, "30s"),
        choice(Chosen::All, Chosen::All, 90_000, 91_000, "10s"),
    ]
}

/// Points that the recorded ones lack: what `unid` measures from outside, answers of every class, events.
fn more_points() -> anyhow::Result<String> {
    let mut lines = String::new();
    for (n, vm) in (1_i64..).zip(VMS) {
        for k in (0_i64..120).filter(|k| !(40..70).contains(k)) {
            let time = START_MS * 1_000_000 + k * 10_000_000_000 + n * 1_234_567;
            // counters start anew at the 80th point
            let since = if k < 80 { k } else { k - 80 };
            let cpu = format!("utime={}.{:02},stime=0.{:02}", since * n, (since * 37) % 100, since);
            writeln!(lines, "resource_usage,vm={vm} {cpu} {time}")?;
            writeln!(lines, "kinfo_mem,vm={vm} rss_bytes={}i {time}", 4096 * (1000 + (k * 7919) % 977))?;
            let classes = format!("3xx={}i,4xx={}i,5xx={}i", since * 3, since / 2 * n, since / 7);
            writeln!(lines, "http_response,vm={vm} {classes} {time}")?;
        }
        let time = START_MS * 1_000_000 + n * 1_000_000_000;
        for (k, event) in ["create", "start", "exit", "start", "stop", "remove"].iter().enumerate() {
            let at = time + i64::try_from(k)? * 200_000_000_000;
            writeln!(lines, "lifecycle,vm={vm} event=\"{event}\",text=\"a \\\"{event}\\\" of {vm}\" {at}")?;
        }
    }
    writeln!(lines, "logs,vm=9p.example errors=3i,warnings=4i {}", START_MS * 1_000_000)?;
    writeln!(lines, "gc,vm=9p.example live\\ words=1000i {}", START_MS * 1_000_000)?;
    Ok(lines)
}

/// A query of Mollymawk's panels as Grafana's builder keeps it: measurement, field, steps, arithmetic, grouping, and
/// whether the link is chosen too.
const MOLLYMAWK: [(&str, &str, bool, &str, &str, bool); 11] = [
    ("interface", "host_to_vm_bytes", true, " * 8", "time($interval)", true),
    ("interface", "vm_to_host_bytes", true, " * 8", "time($interval)", true),
    ("logs", "errors", false, "", "time($__interval) fill(null)", false),
    ("logs", "warnings", false, "", "time($__interval) fill(null)", false),
    ("gc", "live words", false, " * 8", "time($__interval) fill(null)", false),
    ("kinfo_mem", "rss", false, " * 4096", "time($__interval) fill(null)", false),
    ("memory", "memory live words", false, " * 8", "time($__interval) fill(null)", false),
    ("http_response", "2xx", true, "", "time($interval)", false),
    ("http_response", "3xx", true, "", "time($interval)", false),
    ("http_response", "4xx", true, "", "time($interval)", false),
    ("http_response", "5xx", true, "", "time($interval)", false),
];
const MOLLYMAWK_VARIABLES: [&str; 2] =
    [r#"SHOW TAG VALUES WITH KEY = "vm""#, r#"SHOW TAG VALUES WITH KEY = "bridge""#];

/// What Grafana makes of Mollymawk's panels: newer versions, and older ones (no casts, no order).
fn mollymawk() -> Vec<String> {
    let panels = MOLLYMAWK.iter().flat_map(|(measurement, field, is_rate, math, group, by_link)| {
        let select = match is_rate {
            true => format!("non_negative_derivative(last(\"{field}\"), 1s){math}"),
            false => format!("mean(\"{field}\"){math}"),
        };
        ["::tag", ""].map(|cast| {
            let vm = format!("\"vm\"{cast} =~ /^$vm$/");
            let condition = match by_link {
                true => format!("({vm} AND \"bridge\"{cast} =~ /^$bridge$/)"),
                false => vm,
            };
            let order = if cast.is_empty() { "" } else { " ORDER BY time ASC" };
            format!("SELECT {select} FROM \"{measurement}\" WHERE {condition} AND $timeFilter GROUP BY {group}{order}")
        })
    });
    panels.chain(MOLLYMAWK_VARIABLES.map(str::to_owned)).collect()
}

#[test]
fn every_query_of_both_documents_and_of_mollymawks_is_answered_as_influxdb_does() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let influxd = Influxd::start()?;
    let unid = format!("http://{}", daemon.address("api")?);
    query(influxd.url(), "", "ms", &format!("CREATE DATABASE {DATABASE}"))?;
    let recorded =
        std::fs::read_to_string(workspace().join("crates/uni-query/tests/data/influxql-dataset.lp"))?;
    for lines in [recorded, more_points()?] {
        for server in [&unid, influxd.url()] {
            write(server, DATABASE, &lines)?;
        }
    }
    let mut queries = v2_queries(&document(&daemon, "api", "")?)?;
    ensure!(
        queries == classic_queries(&document(&daemon, "api", "?schema=classic")?)?,
        "the documents differ"
    );
    let ours = queries.len();
    queries.extend(mollymawk().into_iter().map(|q| ("Mollymawk".to_owned(), String::new(), q)));
    let mut series_found = BTreeMap::new();
    for choice in choices() {
        for (n, (title, id, template)) in queries.iter().enumerate() {
            let q = render(template, &choice);
            ensure!(!q.contains('$') || q.contains("$/"), "something was not put in: {q}");
            let (ours, theirs) =
                (query(&unid, DATABASE, "ms", &q)?, query(influxd.url(), DATABASE, "ms", &q)?);
            ensure!(theirs["results"][0]["error"].is_null() && theirs["error"].is_null(), "{q}: {theirs}");
            ensure!(same(&ours, &theirs), "{title} {id}: {q}\n unid: {ours}\n influxd: {theirs}");
            let series = theirs["results"][0]["series"].as_array().map_or(0, Vec::len);
            *series_found.entry(n).or_insert(0) += series;
        }
    }
    for (n, (title, id, template)) in queries.iter().enumerate() {
        ensure!(series_found[&n] > 0, "{title} {id} never had an answer that tells anything: {template}");
    }
    ensure!(ours >= 17, "{ours} queries of our own");
    Ok(())
}

#[test]
fn several_vms_are_told_apart_and_links_are_those_of_the_chosen_ones() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let unid = format!("http://{}", daemon.address("api")?);
    write(&unid, DATABASE, &more_points()?)?;
    let lines = "interface,vm=9p.example,bridge=only f=1i 1\ninterface,vm=robur:web-1,bridge=other f=1i 1\n";
    write(&unid, DATABASE, lines)?;
    let queries = v2_queries(&document(&daemon, "api", "")?)?;
    let of = |title: &str, id: &str| -> anyhow::Result<&str> {
        let found = queries.iter().find(|(t, i, _)| t == title && i == id);
        Ok(found.with_context(|| format!("no {title} {id}"))?.2.as_str())
    };
    let choice = &choices()[2];
    let answer = query(&unid, DATABASE, "ms", &render(of("CPU", "A")?, choice))?;
    let vms: Vec<_> = list(&answer, "/results/0/series")?.iter().map(|s| text(&s["tags"]["vm"])).collect();
    ensure!(vms == ["9p.example", "dns.example:primary"], "{answer}");
    let one = Choice { vms: Chosen::These(&["9p.example"]), ..choices().remove(0) };
    let answer = query(&unid, DATABASE, "ms", &render(of("variable", "bridge")?, &one))?;
    ensure!(
        answer["results"][0]["series"][0]["values"] == serde_json::json!([["bridge", "only"]]),
        "{answer}"
    );
    Ok(())
}

#[test]
fn the_documents_have_the_shapes_that_grafana_imports() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--interval", "30s"])?;
    let v2 = document(&daemon, "api", "")?;
    ensure!(v2 == document(&daemon, "ui", "?schema=v2")?, "both listeners serve the same");
    check_v2(&v2)?;
    check_classic(&document(&daemon, "ui", "?schema=classic")?)?;
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("http://{}/grafana.json", daemon.address("api")?);
    let answer = agent.get(&url).call()?;
    ensure!(answer.headers()["content-type"] == "application/json", "{answer:?}");
    let mut answer = agent.get(format!("{url}?schema=v1")).call()?;
    let body = answer.body_mut().read_to_string()?;
    ensure!(answer.status() == 400 && body.contains("v1") && body.contains("schema=classic"), "{body}");
    Ok(())
}

fn check_v2(document: &Value) -> anyhow::Result<()> {
    ensure!(document["apiVersion"] == "dashboard.grafana.app/v2" && document["kind"] == "Dashboard");
    ensure!(document["metadata"]["name"] == "uni" && document["spec"]["title"] == "Unikernels");
    let spec = &document["spec"];
    ensure!(spec["timeSettings"]["from"] == "now-6h" && spec["timeSettings"]["timezone"] == "browser");
    for variable in list(spec, "/variables")? {
        check_variable(&variable["spec"], variable["kind"] == "DatasourceVariable", "pluginId")?;
    }
    let elements = spec["elements"].as_object().context("no elements")?;
    ensure!(spec["layout"]["kind"] == "GridLayout");
    let mut cells = Cells::default();
    let items = list(spec, "/layout/spec/items")?;
    for item in items {
        ensure!(item["kind"] == "GridLayoutItem", "{item}");
        let at = &item["spec"];
        cells.take([&at["x"], &at["y"], &at["width"], &at["height"]])?;
        let panel = &elements[at["element"]["name"].as_str().context("no element")?];
        ensure!(panel["kind"] == "Panel", "{panel}");
        let (data, viz) = (&panel["spec"]["data"], &panel["spec"]["vizConfig"]);
        ensure!(data["kind"] == "QueryGroup" && viz["kind"] == "VizConfig", "{panel}");
        ensure!(data["spec"]["queryOptions"]["interval"] == "30s", "{panel}");
        ensure!(data["spec"]["transformations"].is_array() && viz["version"].is_string(), "{panel}");
        check_drawing(&text(&panel["spec"]["title"]), &text(&viz["group"]), &viz["spec"]["fieldConfig"])?;
    }
    ensure!(items.len() == elements.len() && elements.len() == 6, "{} panels", elements.len());
    Ok(())
}

fn check_classic(document: &Value) -> anyhow::Result<()> {
    ensure!(document["schemaVersion"].as_u64() >= Some(36) && document["id"].is_null());
    ensure!(document["uid"] == "uni" && document["title"] == "Unikernels");
    ensure!(document.get("__inputs").is_none() && document["time"]["from"] == "now-6h");
    for variable in list(document, "/templating/list")? {
        check_variable(variable, variable["type"] == "datasource", "query")?;
    }
    let mut cells = Cells::default();
    for panel in list(document, "/panels")? {
        let at = &panel["gridPos"];
        cells.take([&at["x"], &at["y"], &at["w"], &at["h"]])?;
        ensure!(panel["interval"] == "30s", "{panel}");
        check_drawing(&text(&panel["title"]), &text(&panel["type"]), &panel["fieldConfig"])?;
    }
    ensure!(list(document, "/panels")?.len() == 6);
    Ok(())
}

/// The data source is chosen by its kind; VMs and links are chosen several at a time, or all.
fn check_variable(variable: &Value, is_source: bool, kind_key: &str) -> anyhow::Result<()> {
    if is_source {
        ensure!(variable["name"] == "datasource" && variable[kind_key] == "influxdb", "{variable}");
    } else {
        ensure!(variable["multi"] == true && variable["includeAll"] == true, "{variable}");
        ensure!(variable["allValue"] == ".+" && variable["current"]["value"][0] == "$__all", "{variable}");
    }
    Ok(())
}

fn check_drawing(title: &str, kind: &str, field_config: &Value) -> anyhow::Result<()> {
    let unit = match title {
        "CPU" => "percentunit",
        "Memory usage" => "decbytes",
        "Network Throughput" => "bps",
        "HTTP Traffic" => "reqps",
        "Log rates" => "cps",
        _ => "short",
    };
    let defaults = &field_config["defaults"];
    ensure!(defaults["unit"] == unit, "{title}: {defaults}");
    match kind {
        "timeseries" => ensure!(defaults["custom"]["spanNulls"] == 90_000, "{title}: {defaults}"),
        "stat" => ensure!(title == "Logs", "{title}"),
        other => anyhow::bail!("{title}: {other}"),
    }
    Ok(())
}

/// The cells of the grid that panels have taken.
#[derive(Default)]
struct Cells(std::collections::BTreeSet<(u64, u64)>);

impl Cells {
    fn take(&mut self, place: [&Value; 4]) -> anyhow::Result<()> {
        let [x, y, width, height] = place.map(|value| value.as_u64().unwrap_or(u64::MAX));
        ensure!(width > 0 && height > 0 && x + width <= 24, "{place:?}");
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            ensure!(self.0.insert(cell), "two panels on {cell:?}");
        }
        Ok(())
    }
}
