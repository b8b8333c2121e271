//! Results as text for people. Owns columns, units and alignment; writes nothing.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use uni_api::daemon::Status;
use uni_api::guest::{ControlKind, SourceState};
use uni_api::vm::{Stats, VmInfo};

use crate::commands::guest_control::Outcome;
use crate::text::one_line;

/// The table of `uni ps`.
pub(crate) fn vms(vms: &[VmInfo]) -> String {
    let rows = vms.iter().map(|vm| {
        [vm.id.as_str(), or_dash(&vm.name), &vm.state, or_dash(&vm.health), &vm.image].map(one_line)
    });
    columns(std::iter::once(["ID", "NAME", "STATE", "HEALTH", "IMAGE"].map(str::to_owned)).chain(rows))
}

/// The lines and the table of `uni status`. `Other` only when there are such.
pub(crate) fn status(status: &Status) -> String {
    let mut out = String::new();
    let mut line = |name: &str, count: u64| {
        let _a_string_takes_all = writeln!(out, "{name}: {count}");
    };
    line("Total", status.total);
    line("Running", status.running);
    line("Stopped", status.stopped);
    if status.other > 0 {
        line("Other", status.other);
    }
    line("Healthy", status.healthy);
    line("Unhealthy", status.unhealthy);
    out.push('\n');
    out + &vms(&status.vms)
}

/// One measurement, a line a value. `Disk` only when there was any.
pub(crate) fn stats(stats: &Stats) -> String {
    let mut rows = vec![
        ["ID".to_owned(), one_line(&stats.id)],
        ["State".to_owned(), one_line(&stats.state)],
        ["CPU".to_owned(), format!("{:.1}%", stats.cpu_pct)],
        ["Memory".to_owned(), bytes(stats.mem_bytes)],
        ["Net RX".to_owned(), bytes(stats.net_rx_bytes)],
        ["Net TX".to_owned(), bytes(stats.net_tx_bytes)],
    ];
    if stats.disk_bytes > 0 {
        rows.push(["Disk".to_owned(), bytes(stats.disk_bytes)]);
    }
    rows.push(["Source".to_owned(), one_line(&stats.source)]);
    columns(rows)
}

/// A guest's sources, one a line.
pub(crate) fn sources(kind: ControlKind, sources: &[SourceState]) -> String {
    let head = match kind {
        ControlKind::Logs => "LEVEL",
        ControlKind::Metrics => "STATE",
    };
    let rows = sources.iter().map(|source| [&source.source, &source.state].map(|text| one_line(text)));
    columns(std::iter::once(["SOURCE", head].map(str::to_owned)).chain(rows))
}

/// How it went with several guests, one a line: the default and what differs from it, or the error.
pub(crate) fn outcomes(outcomes: &[Outcome]) -> String {
    let rows = outcomes.iter().map(|outcome| {
        let result = match &outcome.error {
            None => in_short(outcome.sources.as_deref().unwrap_or_default()),
            Some(error) => format!("failed: {error}"),
        };
        [one_line(&outcome.guest), one_line(&result)]
    });
    columns(std::iter::once(["VM", "RESULT"].map(str::to_owned)).chain(rows))
}

fn in_short(sources: &[SourceState]) -> String {
    let default = sources.first().map(|source| source.state.as_str());
    let shown =
        sources.iter().enumerate().filter(|(at, source)| *at == 0 || Some(source.state.as_str()) != default);
    shown.map(|(_, source)| format!("{}:{}", source.source, source.state)).collect::<Vec<_>>().join(", ")
}

/// `512 B`, `1.5 KiB`, ... `1.0 PiB`: one decimal, never `1024.0` of a unit that has a larger one.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut scaled = count as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// Aligned columns, two spaces apart, without borders. Rows are never wrapped: one line is one row.
pub(crate) fn columns<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uni_api::daemon::Ingest;

    fn vm(id: &str, name: &str, state: &str, image: &str) -> VmInfo {
        let [id, name, state, image] = [id, name, state, image].map(str::to_owned);
        VmInfo { id, state, image, name, health: String::new() }
    }

    fn sample() -> Stats {
        Stats {
            id: "9f2c41d07ab3".to_owned(),
            state: "running".to_owned(),
            cpu_pct: 12.5,
            mem_bytes: 268_435_456,
            net_rx_bytes: 1536,
            net_tx_bytes: 3277,
            disk_bytes: 0,
            timestamp: "2026-05-15T12:00:00Z".to_owned(),
            source: "proc".to_owned(),
            links: Vec::new(),
        }
    }

    #[test]
    fn ps_aligns_its_columns_and_shows_dashes_for_nothing() {
        let list = [
            vm("9f2c41d07ab3", "web", "running", "/srv/http.elf"),
            vm("00000000000a", "", "stopped", "/tmp/a\nb 漢.elf"),
        ];
        assert_eq!(
            vms(&list),
            "ID            NAME  STATE    HEALTH  IMAGE\n\
             9f2c41d07ab3  web   running  -       /srv/http.elf\n\
             00000000000a  -     stopped  -       /tmp/a^Jb 漢.elf\n"
        );
        assert_eq!(vms(&[]), "ID  NAME  STATE  HEALTH  IMAGE\n");
    }

    #[test]
    fn sources_are_a_table_and_several_guests_a_line_each() {
        let source = |source: &str, state: &str| SourceState { source: source.into(), state: state.into() };
        let some = vec![source("*", "info"), source("dns", "info"), source("a\u{1b}", "debug")];
        assert_eq!(
            sources(ControlKind::Logs, &some),
            "SOURCE  LEVEL\n*       info\ndns     info\na^[     debug\n"
        );
        let failed =
            Outcome { guest: "web-2".into(), sources: None, error: Some("it is stopped\nfor good".into()) };
        let good = Outcome { guest: "web-1".into(), sources: Some(some), error: None };
        assert_eq!(
            outcomes(&[good, failed]),
            "VM     RESULT\nweb-1  *:info, a^[:debug\nweb-2  failed: it is stopped^Jfor good\n"
        );
    }

    #[test]
    fn stats_is_the_block_of_the_contract() {
        let expected = "ID      9f2c41d07ab3\nState   running\nCPU     12.5%\nMemory  256.0 MiB\n\
                        Net RX  1.5 KiB\nNet TX  3.2 KiB\nSource  proc\n";
        assert_eq!(stats(&sample()), expected);
        let with_disk = stats(&Stats { disk_bytes: 4096, ..sample() });
        assert_eq!(with_disk, expected.replace("Source", "Disk    4.0 KiB\nSource"));
    }

    #[test]
    fn status_leaves_out_other_when_there_is_none() {
        let mut answer = Status {
            total: 1,
            running: 1,
            stopped: 0,
            other: 0,
            healthy: 0,
            unhealthy: 0,
            vms: vec![vm("9f2c41d07ab3", "web", "running", "/i")],
            version: "0.1.0".to_owned(),
            pid: 1,
            state_dir: "/s".to_owned(),
            listeners: Vec::new(),
            ingest: Ingest::default(),
            cut_clients_total: 0,
            dropped_log_lines_total: 0,
            traces: None,
            influx_push: None,
        };
        assert_eq!(
            status(&answer),
            "Total: 1\nRunning: 1\nStopped: 0\nHealthy: 0\nUnhealthy: 0\n\n\
             ID            NAME  STATE    HEALTH  IMAGE\n9f2c41d07ab3  web   running  -       /i\n"
        );
        answer.other = 2;
        assert!(status(&answer).contains("Stopped: 0\nOther: 2\nHealthy"));
    }

    #[test]
    fn bytes_have_one_decimal_and_the_right_unit() {
        let cases = [
            (0, "0 B"),
            (512, "512 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (1 << 20, "1.0 MiB"),
            (1 << 30, "1.0 GiB"),
            (1 << 40, "1.0 TiB"),
            (u64::MAX, "16384.0 PiB"),
        ];
        for (count, expected) in cases {
            assert_eq!(bytes(count), expected);
        }
    }
}
