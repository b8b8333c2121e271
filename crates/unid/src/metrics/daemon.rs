//! The daemon's own metrics: who is asked for what.
//!
//! Owns names and help of the families; the numbers are counted by the parts they belong to.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::Semaphore;

use super::polled::{Counts, Process};
use super::{Family, Polled, Registry, seconds, vms};
use crate::control::Control;
use crate::http::{Figures, Limits};
use crate::ingest::Ingest;
use crate::sampler;
use crate::vms::Manager;

/// The parts that are asked.
pub(crate) struct Sources {
    pub(crate) manager: Arc<Manager>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) http: Arc<Figures>,
    pub(crate) control: Arc<Control>,
    pub(crate) sampler: Arc<sampler::Figures>,
    pub(crate) polled: Arc<Polled>,
}

/// Shows what every `unid` has.
pub(crate) fn register(registry: &Registry, sources: Sources) {
    let Sources { manager, ingest, limits, http, control, sampler, polled } = sources;
    let of = |number: fn(Counts) -> u64| {
        let polled = Arc::clone(&polled);
        move || number(polled.vms())
    };
    registry.gauge("uni_vms_total", "Registered VMs.", of(|vms| vms.total));
    registry.gauge("uni_vms_running", "VMs that run.", of(|vms| vms.running));
    registry.gauge("uni_vms_stopped", "VMs that are stopped.", of(|vms| vms.stopped));
    // there is no image registry yet; who watches these two finds them all the same
    registry.counter("uni_registry_push_total", "Images pushed to a registry.", || 0);
    registry.counter("uni_registry_pull_total", "Images pulled from a registry.", || 0);
    let frames = Arc::clone(&ingest);
    let of_control = Arc::clone(&control);
    registry.collector(move |families| {
        families.extend(told(&of_control));
        families.extend(of_control.heap_traces.families());
    });
    registry.collector(move |families| {
        families.extend([build(), manager.lifecycle().family()]);
        vms::collect(&manager, &sampler, families);
        families.extend(taken_in(&ingest));
        families.extend(store(&polled));
        families.extend(super::logs::families(&polled.host().logs));
        families.extend(slots(&limits));
        families.extend(sampling(&sampler));
        families.extend(http.families());
        families.extend(process(polled.host().process));
    });
    registry.counter(
        "uni_management_dropped_frames_total",
        "Frames of VMs' management links that were dropped because a queue was full.",
        move || frames.counters.dropped_frames.load(Relaxed),
    );
    registry.counter(
        "uni_control_clients_cut_total",
        "Clients of the control socket that were cut because they did not read their answer.",
        move || control.cut_clients.load(Relaxed),
    );
}

/// What became of spans and log lines; zeros where no traces are made.
fn told(control: &Control) -> [Family; 3] {
    let traces = control.tracing.counters().map_or_else(Default::default, |counters| counters.snapshot());
    let dropped = traces.spans_dropped_total;
    [
        Family::counter("uni_trace_spans_exported_total", "Spans that the collector of traces took.")
            .with(&[], traces.spans_exported_total),
        Family::counter(
            "uni_trace_spans_dropped_total",
            "Spans that were lost, by reason: queue_full, export_failed.",
        )
        .with(&[("reason", "queue_full")], dropped.queue_full)
        .with(&[("reason", "export_failed")], dropped.export_failed),
        Family::counter(
            "uni_log_dropped_lines_total",
            "Log lines that were left out because nobody read unid's stderr.",
        )
        .with(&[], control.log.dropped_lines()),
    ]
}

fn build() -> Family {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    Family::gauge("uni_build_info", "1, with unid's version as a label.").with(&version, 1)
}

fn taken_in(ingest: &Ingest) -> [Family; 8] {
    let totals = ingest.counters.snapshot();
    let mut refused = Family::counter(
        "uni_ingest_refused_points_total",
        "Points that the store refused, by reason: type_conflict, series_limit, field_limit, vm_series_limit, tag_limit, too_old, malformed.",
    );
    for (reason, count) in ingest.counters.refused_points() {
        refused.add(&[("reason", reason)], count);
    }
    [
        Family::counter("uni_ingest_points_total", "Points stored, over every wire.")
            .with(&[], totals.points_total),
        refused,
        Family::counter(
            "uni_ingest_refused_lines_total",
            "Lines of line protocol that were no points, by reason: bad (it cannot be parsed), long.",
        )
        .with(&[("reason", "bad")], totals.bad_lines_total)
        .with(&[("reason", "long")], totals.long_lines_total),
        Family::counter(
            "uni_ingest_renamed_points_total",
            "Points that came over a VM's own link and claimed another VM's name; it was corrected.",
        )
        .with(&[], totals.renamed_points_total),
        Family::counter(
            "uni_ingest_refused_connections_total",
            "Connections of line protocol that were refused because the limit was reached.",
        )
        .with(&[], totals.refused_connections_total),
        Family::counter("uni_ingest_syslog_messages_total", "Syslog messages taken in, over every wire.")
            .with(&[], totals.syslog_messages_total),
        Family::counter(
            "uni_ingest_syslog_truncated_total",
            "Syslog messages of which only the beginning was kept: too long, or the connection ended in them.",
        )
        .with(&[], totals.syslog_truncated_total),
        Family::counter(
            "uni_ingest_syslog_refused_connections_total",
            "Connections of syslog that were refused: the limit was reached, or the TLS handshake failed.",
        )
        .with(&[], totals.syslog_refused_connections_total),
    ]
}

fn store(polled: &Polled) -> [Family; 14] {
    let stats = polled.host().store;
    let gauge = |name, help, value: u64| Family::gauge(name, help).with(&[], value);
    [
        gauge("uni_store_databases", "Databases of the store.", stats.databases),
        gauge("uni_store_series", "Series of all databases.", stats.series),
        gauge(
            "uni_store_head_points",
            "Points that are in memory and in the log only.",
            stats.points_in_head,
        ),
        gauge("uni_store_head_bytes", "Bytes of memory that these points take.", stats.head_bytes),
        gauge("uni_store_wal_bytes", "Bytes of the write-ahead log.", stats.wal_bytes),
        gauge("uni_store_segments", "Segments on disk.", stats.segments),
        gauge("uni_store_segment_bytes", "Bytes of segments on disk.", stats.segment_bytes),
        gauge(
            "uni_store_tier_bytes",
            "Bytes of what points add up to by the minute and by the hour.",
            stats.tier_bytes,
        ),
        gauge("uni_store_partitions", "Partitions that have segments, of all databases.", stats.partitions),
        gauge(
            "uni_store_disk_bytes",
            "Bytes of log, segments and tiers together.",
            stats.wal_bytes.saturating_add(stats.segment_bytes).saturating_add(stats.tier_bytes),
        ),
        Family::counter(
            "uni_store_damaged_reads_total",
            "Reads of the store that met a place they could not read.",
        )
        .with(&[], stats.damaged_reads_total),
        Family::counter(
            "uni_store_refused_batches_total",
            "Batches refused because memory is full and segments cannot be written, or the disk has all it may.",
        )
        .with(&[], stats.refused_batches_total),
        gauge(
            "uni_store_disk_limit_bytes",
            "Most bytes of log and segments together, 0 for no limit.",
            stats.max_disk_bytes,
        ),
        Family::counter(
            "uni_store_dropped_partitions_total",
            "Partitions dropped, by reason: age (retention), disk (the limit of bytes).",
        )
        .with(&[("reason", "age")], stats.aged_partitions_total)
        .with(&[("reason", "disk")], stats.disk_partitions_total),
    ]
}

/// What is worked on at one time, and how much may be.
fn slots(limits: &Limits) -> [Family; 2] {
    let mut used = Family::gauge(
        "uni_http_slots_used",
        "Places taken of those that bound the work at one time, by kind of work.",
    );
    let mut all = Family::gauge("uni_http_slots", "Places that bound the work at one time, by kind of work.");
    let kinds: [(_, &Semaphore, _); 4] = [
        ("event_stream", &limits.streams, Limits::STREAMS),
        ("query", &limits.queries, Limits::QUERIES),
        ("write", &limits.writes, Limits::WRITES),
        ("scrape", &limits.scrapes, Limits::SCRAPES),
    ];
    for (kind, places, capacity) in kinds {
        let taken = capacity.saturating_sub(places.available_permits());
        used.add(&[("kind", kind)], taken as u64);
        all.add(&[("kind", kind)], capacity as u64);
    }
    [used, all]
}

fn sampling(figures: &sampler::Figures) -> [Family; 2] {
    let (rounds, nanos, late) = figures.rounds();
    let mut duration = Family::summary(
        "uni_sampler_round_duration_seconds",
        "Rounds in which all VMs were looked at from outside, and the time they took.",
    );
    duration.add_sum(&[], seconds(nanos), rounds);
    let late = Family::counter(
        "uni_sampler_late_rounds_total",
        "Rounds that were not done when the next one was due.",
    )
    .with(&[], late);
    [duration, late]
}

/// Unid's own process under the names that every Prometheus client library gives them.
fn process(process: Option<Process>) -> [Family; 6] {
    let mut families = [
        Family::counter(
            "process_cpu_seconds_total",
            "Processor time of unid in user and system mode, in seconds.",
        ),
        Family::gauge("process_resident_memory_bytes", "Memory of unid that is in RAM."),
        Family::gauge("process_virtual_memory_bytes", "Address space of unid."),
        Family::gauge("process_start_time_seconds", "When unid started, in seconds since 1970."),
        Family::gauge("process_open_fds", "Files that unid has open."),
        Family::gauge("process_max_fds", "Files that unid may have open."),
    ];
    if let Some(process) = process {
        let [cpu, resident, virtual_size, start, open, max] = &mut families;
        cpu.add(&[], (process.sample.user + process.sample.system).as_secs_f64());
        resident.add(&[], process.sample.rss_bytes);
        virtual_size.add(&[], process.sample.vsize_bytes);
        start.add(&[], process.start_time);
        open.add(&[], process.open_files);
        max.add(&[], process.max_files);
    }
    families
}
