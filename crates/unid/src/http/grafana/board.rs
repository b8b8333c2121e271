//! What the dashboard shows: panels, queries, variables and annotations, told once for every schema.
//!
//! Owns titles, units and InfluxQL. Fields and their units are those of `schema/`. Never knows how Grafana spells a
//! dashboard.

use std::time::Duration;

use serde_json::{Value, json};

/// The dashboard's identity in Grafana: importing it again replaces it.
pub(super) const UID: &str = "uni";
pub(super) const TITLE: &str = "Unikernels";
pub(super) const DESCRIPTION: &str = "Unikernels and small VMs, from inside and from outside";
/// The variable that holds the data source, and its kind.
pub(super) const SOURCE: &str = "datasource";
pub(super) const SOURCE_KIND: &str = "influxdb";
/// The range shown at first, and the choices of automatic refresh.
pub(super) const FROM: &str = "now-6h";
pub(super) const TO: &str = "now";
pub(super) const REFRESHES: [&str; 10] = ["5s", "10s", "30s", "1m", "5m", "15m", "30m", "1h", "2h", "1d"];
/// What "all" stands for in a regular expression: every series that has the tag.
pub(super) const ALL: &str = ".+";
/// A panel's size in Grafana's grid, 24 wide.
pub(super) const PANEL_WIDTH: usize = 12;
pub(super) const PANEL_HEIGHT: usize = 8;

/// Guests report every 10 s: narrower windows would be empty.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);
/// Gaps of up to so many intervals are drawn through; a longer one is an outage, and shows.
const SPANNED_INTERVALS: u32 = 3;

/// The whole dashboard.
pub(super) struct Board {
    pub(super) variables: Vec<Variable>,
    pub(super) panels: Vec<Panel>,
    pub(super) annotation: Annotation,
    /// The shortest window a query is grouped by.
    interval: Duration,
}

/// A choice above the panels: several values or all, read from the data.
pub(super) struct Variable {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) description: &'static str,
    pub(super) query: &'static str,
}

/// A picture, in reading order.
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    pub(super) look: Look,
    pub(super) unit: &'static str,
    pub(super) queries: Vec<Query>,
}

/// How a panel looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Curves.
    Curves,
    /// The newest value of each series as a number.
    Numbers,
}

/// A query of a panel; `legend` is Grafana's pattern for the names of its series.
pub(super) struct Query {
    pub(super) id: &'static str,
    pub(super) legend: &'static str,
    pub(super) text: String,
}

/// What is marked on the time axis.
pub(super) struct Annotation {
    pub(super) name: &'static str,
    pub(super) color: &'static str,
    pub(super) query: &'static str,
    pub(super) title_column: &'static str,
    pub(super) text_column: &'static str,
    pub(super) tags_column: &'static str,
}

impl Board {
    /// The dashboard of a daemon that stores the outside view every `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            variables: variables(),
            panels: panels(),
            annotation: Annotation {
                name: "Starts and ends",
                color: "orange",
                query: r#"SELECT "event", "text", "vm" FROM "lifecycle" WHERE "vm" =~ /^$vm$/ AND ("event" = 'start' OR "event" = 'stop' OR "event" = 'exit') AND $timeFilter"#,
                title_column: "event",
                text_column: "text",
                tags_column: "vm",
            },
            interval: interval.max(SHORTEST_INTERVAL),
        }
    }

    /// The shortest window, as Grafana writes durations.
    pub(super) fn interval(&self) -> String {
        format!("{}s", self.interval.as_secs())
    }

    /// Grafana's settings of a panel's drawing, the same in every schema.
    pub(super) fn field_config(&self, panel: &Panel) -> Value {
        let mut defaults = json!({
            "unit": panel.unit, "color": { "mode": "palette-classic" }, "min": 0, "mappings": [],
            "thresholds": { "mode": "absolute", "steps": [{ "color": "green", "value": null }] },
        });
        if panel.look == Look::Curves {
            let spanned = (self.interval * SPANNED_INTERVALS).as_millis();
            defaults["custom"] = json!({
                "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": 0,
                "showPoints": "auto", "pointSize": 5, "spanNulls": u64::try_from(spanned).unwrap_or(u64::MAX),
                "stacking": { "mode": "none", "group": "A" }, "axisPlacement": "auto", "axisLabel": "",
                "scaleDistribution": { "type": "linear" }, "thresholdsStyle": { "mode": "off" },
                "hideFrom": { "legend": false, "tooltip": false, "viz": false },
            });
        }
        json!({ "defaults": defaults, "overrides": [] })
    }
}

impl Panel {
    /// The name of Grafana's panel plugin.
    pub(super) const fn plugin(&self) -> &'static str {
        match self.look {
            Look::Curves => "timeseries",
            Look::Numbers => "stat",
        }
    }

    /// The plugin's options, the same in every schema.
    pub(super) fn options(&self) -> Value {
        match self.look {
            Look::Curves => json!({
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Look::Numbers => json!({
                "reduceOptions": { "values": false, "calcs": ["lastNotNull"], "fields": "" },
                "orientation": "auto", "textMode": "value_and_name", "colorMode": "none", "graphMode": "none",
                "justifyMode": "auto",
            }),
        }
    }
}

impl Query {
    /// The query as Grafana's InfluxQL data source stores it, the same in every schema.
    pub(super) fn spec(&self) -> Value {
        json!({
            "query": self.text, "rawQuery": true, "alias": self.legend, "resultFormat": "time_series",
            "orderByTime": "ASC", "policy": "default",
        })
    }
}

impl Annotation {
    /// The query as Grafana's InfluxQL data source stores it, the same in every schema.
    pub(super) fn spec(&self) -> Value {
        json!({
            "query": self.query, "rawQuery": true, "fromAnnotations": true, "queryType": "tags",
            "titleColumn": self.title_column, "textColumn": self.text_column, "tagsColumn": self.tags_column,
        })
    }
}

/// The place of the panel at `index`: two a row, left then right.
pub(super) const fn place(index: usize) -> (usize, usize) {
    (index % 2 * PANEL_WIDTH, index / 2 * PANEL_HEIGHT)
}

fn variables() -> Vec<Variable> {
    vec![
        Variable {
            name: "vm",
            label: "VM",
            description: "VMs to look at",
            query: r#"SHOW TAG VALUES WITH KEY = "vm""#,
        },
        Variable {
            name: "bridge",
            label: "Link",
            description: "Network links of these VMs to look at",
            query: r#"SHOW TAG VALUES FROM "interface" WITH KEY = "bridge" WHERE "vm" =~ /^$vm$/"#,
        },
    ]
}

fn panels() -> Vec<Panel> {
    let curves =
        |title, description, unit, queries| Panel { title, description, look: Look::Curves, unit, queries };
    vec![
        curves(
            "CPU",
            "Processor time per second, user and kernel mode; 100 % is one processor",
            "percentunit",
            vec![Query { id: "A", legend: "$tag_vm", text: cpu() }],
        ),
        curves(
            "Memory usage",
            "Resident on the host, and live inside the guest",
            "decbytes",
            vec![
                mean("A", "$tag_vm GC live", "gc", "live words", WORD),
                mean("B", "$tag_vm RSS", "kinfo_mem", "rss_bytes", ""),
                mean("C", "$tag_vm malloc live", "memory", "memory live words", WORD),
            ],
        ),
        curves(
            "Network Throughput",
            "Frames seen from outside",
            "bps",
            vec![
                link_rate("A", "$tag_vm $tag_bridge inbound", "host_to_vm_bytes"),
                link_rate("B", "$tag_vm $tag_bridge outbound", "vm_to_host_bytes"),
            ],
        ),
        curves(
            "HTTP Traffic",
            "Answers by class of status",
            "reqps",
            vec![
                rate("A", "$tag_vm 2xx", "http_response", "2xx"),
                rate("B", "$tag_vm 3xx", "http_response", "3xx"),
                rate("C", "$tag_vm 4xx", "http_response", "4xx"),
                rate("D", "$tag_vm 5xx", "http_response", "5xx"),
            ],
        ),
        curves(
            "Log rates",
            "Messages per second, shown on the console or not",
            "cps",
            vec![
                rate("A", "$tag_vm errors", "logs", "errors"),
                rate("B", "$tag_vm warnings", "logs", "warnings"),
            ],
        ),
        Panel {
            title: "Logs",
            description: "Messages since each VM started",
            look: Look::Numbers,
            unit: "short",
            queries: vec![
                newest("A", "$tag_vm errors", "logs", "errors"),
                newest("B", "$tag_vm warnings", "logs", "warnings"),
            ],
        },
    ]
}

/// Words of a guest have 8 bytes.
const WORD: &str = " * 8";
/// The VMs chosen, in the time shown.
const CHOSEN: &str = r#"WHERE "vm" =~ /^$vm$/ AND $timeFilter"#;
const BY_VM: &str = r#"GROUP BY time($__interval), "vm""#;

/// Seconds of processor time in a second: both modes are counters.
fn cpu() -> String {
    format!(
        r#"SELECT non_negative_derivative(last("utime"), 1s) + non_negative_derivative(last("stime"), 1s) FROM "resource_usage" {CHOSEN} {BY_VM}"#
    )
}

/// A gauge: its mean in each window.
fn mean(id: &'static str, legend: &'static str, measurement: &str, field: &str, scale: &str) -> Query {
    let text = format!(r#"SELECT mean("{field}"){scale} FROM "{measurement}" {CHOSEN} {BY_VM} fill(null)"#);
    Query { id, legend, text }
}

/// A counter: its growth per second. A restart, where it falls, leaves a hole.
fn rate(id: &'static str, legend: &'static str, measurement: &str, field: &str) -> Query {
    let text = format!(
        r#"SELECT non_negative_derivative(last("{field}"), 1s) FROM "{measurement}" {CHOSEN} {BY_VM}"#
    );
    Query { id, legend, text }
}

/// Bits per second on the links chosen.
fn link_rate(id: &'static str, legend: &'static str, field: &str) -> Query {
    let text = format!(
        r#"SELECT non_negative_derivative(last("{field}"), 1s) * 8 FROM "interface" WHERE "vm" =~ /^$vm$/ AND "bridge" =~ /^$bridge$/ AND $timeFilter {BY_VM}, "bridge""#
    );
    Query { id, legend, text }
}

/// A counter as it stands at the end of the time shown.
fn newest(id: &'static str, legend: &'static str, measurement: &str, field: &str) -> Query {
    let text = format!(r#"SELECT last("{field}") FROM "{measurement}" {CHOSEN} GROUP BY "vm""#);
    Query { id, legend, text }
}
