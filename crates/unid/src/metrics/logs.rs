//! The figures of logs and events: how much there is, in memory and on disk, and what was refused or could not be read.

use uni_store::LogStats;

use super::Family;

/// The figures of one moment.
pub(super) fn families(stats: &LogStats) -> [Family; 8] {
    let gauge = |name, help, value: u64| Family::gauge(name, help).with(&[], value);
    [
        gauge(
            "uni_logs_entries",
            "Messages and events that are kept.",
            stats.entries_in_files.saturating_add(stats.entries_in_head),
        ),
        gauge(
            "uni_logs_head_bytes",
            "Bytes of memory that those take which are in the log only.",
            stats.head_bytes,
        ),
        gauge(
            "uni_logs_wal_bytes",
            "Bytes of the write-ahead log of messages and events.",
            stats.journal_bytes,
        ),
        gauge("uni_logs_files", "Files of messages and events.", stats.files),
        gauge("uni_logs_file_bytes", "Bytes of these files.", stats.file_bytes),
        gauge("uni_logs_text_bytes", "Bytes of the texts in them, unpacked.", stats.raw_bytes),
        Family::counter(
            "uni_logs_damaged_reads_total",
            "Readings of messages and events that met a place they could not read.",
        )
        .with(&[], stats.damaged_reads_total),
        Family::counter(
            "uni_logs_refused_batches_total",
            "Batches of messages and events refused because memory is full and files cannot be written.",
        )
        .with(&[], stats.refused_batches_total),
    ]
}
