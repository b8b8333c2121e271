//! `uni store`: what is saved comes back, damage is found and kept, and others read what is exported.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use black_box::influxd::{self, Influxd};
use black_box::{Daemon, bin_dir, eventually};
use serde_json::Value;

/// Lines of all types, with escapes and times to the nanosecond.
const LINES: &str = "weather,site=north\\ pole,a\\=b=c\\,d temperature=-12.75,count=7i,windy=true,note=\"say \\\"hi\\\", \\\\ and\ntwo lines\" 1700000000123456789\n\
    weather,site=north\\ pole,a\\=b=c\\,d temperature=1e300,count=-9223372036854775808i,windy=false 1700000000123456790\n\
    weather,site=south temperature=0.1,count=9223372036854775807i 1700086400000000001\n\
    meas\\ ure\\,ment f\\ ield=1.5,größe=2i -1\n\
    plain value=1 0\n\
    plain,vm=web value=2,big=18446744073709551615u 1700000000000000000\n";

fn state() -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::tempdir()?)
}

fn write(daemon: &Daemon, lines: &str) -> anyhow::Result<()> {
    influxd::write(&format!("http://{}", daemon.address("api")?), "uni", lines)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is text")
}

/// Runs `uni` without a daemon.
fn uni(args: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(bin_dir().join("uni")).args(args).output()?)
}

fn uni_ok(args: &[&str]) -> anyhow::Result<String> {
    let output = uni(args)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "uni {args:?}: {} {stderr}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// What a command that must fail says.
fn refused(output: &Output) -> anyhow::Result<String> {
    ensure!(output.status.code() == Some(1), "{output:?}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The lines that were exported, without what the daemon writes by itself, sorted.
fn exported(daemon: &Daemon, measurements: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for measurement in measurements {
        let text = daemon.uni_ok(&["store", "export", "--measurement", measurement])?;
        all.extend(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned));
    }
    all.sort();
    Ok(all)
}

/// The files below a folder, with their contents.
fn tree(dir: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(dir)?.to_path_buf(), std::fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

/// The whole number that a query answers with.
fn count_of(daemon: &Daemon, question: &str) -> anyhow::Result<u64> {
    let rows = daemon.rows(question)?;
    rows.first().and_then(|row| row.get(1)?.as_u64()).with_context(|| format!("{question}: {rows:?}"))
}

fn largest(dir: &Path) -> anyhow::Result<PathBuf> {
    let largest = tree(dir)?.into_iter().max_by_key(|(_, bytes)| bytes.len());
    Ok(dir.join(largest.context("no file")?.0))
}

fn find(dir: &Path, extension: &str) -> anyhow::Result<PathBuf> {
    let found = tree(dir)?.into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == extension));
    let largest = found.max_by_key(|(_, bytes)| bytes.len()).with_context(|| format!("no .{extension}"))?;
    Ok(dir.join(largest.0))
}

fn flip(path: &Path, at: usize) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(path)?;
    bytes[at] ^= 0x10;
    Ok(std::fs::write(path, bytes)?)
}

#[test]
fn a_backup_under_load_holds_what_was_acknowledged_and_answers_the_same() -> anyhow::Result<()> {
    let (dir, backup, again) = (state()?, state()?, state()?);
    let backup = backup.path().join("deep/backup");
    let mut daemon = Daemon::start(dir.path(), &[])?;
    write(&daemon, LINES)?;
    let url = format!("http://{}", daemon.address("api")?);
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = std::thread::spawn({
        let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        move || -> anyhow::Result<()> {
            for n in 0_u64.. {
                if stop.load(Ordering::SeqCst) {
                    return Ok(());
                }
                influxd::write(
                    &url,
                    "uni",
                    &format!("load,from=test n={n}i {}", 1_700_000_000_000_000_000 + n),
                )?;
                acknowledged.store(n + 1, Ordering::SeqCst);
            }
            Ok(())
        }
    });
    eventually("some load", || {
        ensure!(acknowledged.load(Ordering::SeqCst) > 20);
        Ok(())
    })?;
    let before = acknowledged.load(Ordering::SeqCst);
    let done = daemon.uni_json(&["store", "backup", text(&backup)?])?;
    let after = acknowledged.load(Ordering::SeqCst);
    stop.store(true, Ordering::SeqCst);
    writer.join().map_err(|_| anyhow::anyhow!("the writer"))??;
    ensure!(done["copied_files"] == done["files"], "{done}");

    // the running daemon's own directory is refused
    let running = daemon.uni(&["store", "restore", text(&backup)?, "--state-dir", text(dir.path())?])?;
    ensure!(refused(&running)?.contains("a daemon runs on"), "{running:?}");

    let questions = [
        "SELECT * FROM weather",
        "SELECT * FROM plain",
        "SELECT mean(temperature), count(windy) FROM weather GROUP BY site",
        "SHOW SERIES FROM weather",
    ];
    let answers = questions.iter().map(|q| daemon.query(q)).collect::<anyhow::Result<Vec<_>>>()?;
    daemon.terminate()?;
    uni_ok(&["store", "restore", text(&backup)?, "--state-dir", text(again.path())?])?;
    let restored = Daemon::start(again.path(), &[])?;
    let count = count_of(&restored, "SELECT count(n) FROM load")?;
    ensure!(
        (before..=after + 1).contains(&count),
        "{before} to {after} were acknowledged, {count} are there"
    );
    let last = count_of(&restored, "SELECT max(n) FROM load")?;
    ensure!(last + 1 == count, "none is missing before the last: {last}, {count}");
    for (question, answer) in questions.iter().zip(answers) {
        ensure!(restored.query(question)? == answer, "{question}: {answer}");
    }
    Ok(())
}

#[test]
fn a_second_backup_copies_what_is_new_and_a_failed_one_leaves_the_first() -> anyhow::Result<()> {
    let (dir, backup) = (state()?, state()?);
    let backup = backup.path();
    let daemon = Daemon::start(dir.path(), &[])?;
    let mut lines = String::new();
    for n in 0..20_000 {
        writeln!(
            lines,
            "bulk,vm=v{} a={},b=\"{n:x}\" {}",
            n % 50,
            n * 7919 % 1000,
            1_600_000_000_000_000_000_i64 + n * 1_000_003
        )?;
    }
    write(&daemon, &lines)?;
    let first = daemon.uni_json(&["store", "backup", text(backup)?])?;
    write(&daemon, LINES)?;
    let second = daemon.uni_json(&["store", "backup", text(backup)?])?;
    let bytes = |done: &Value, what: &str| done[what].as_u64().unwrap_or(u64::MAX);
    ensure!(bytes(&first, "copied_bytes") > 50_000, "{first}");
    ensure!(bytes(&second, "copied_bytes") * 5 < bytes(&first, "copied_bytes"), "{first} then {second}");
    ensure!(bytes(&second, "copied_files") < bytes(&second, "files"), "{second}");
    let checked = daemon.uni_ok(&["store", "check", "--backup", text(backup)?])?;
    ensure!(checked.contains("files"), "{checked}");

    // a directory of somebody else's is not touched
    let foreign = state()?;
    std::fs::write(foreign.path().join("thesis.txt"), "x")?;
    let output = daemon.uni(&["store", "backup", text(foreign.path())?])?;
    ensure!(refused(&output)?.contains("thesis.txt"), "{output:?}");

    // one that cannot go on: nothing of the backup changes that a restore would notice
    let whole = tree(backup)?;
    write(&daemon, "late value=1 1700000000000000000")?;
    let files = backup.join("files/data/uni");
    let moved = backup.join("files/data/uni.away");
    std::fs::rename(&files, &moved)?;
    std::fs::write(&files, "in the way")?;
    refused(&daemon.uni(&["store", "backup", text(backup)?])?)?;
    std::fs::remove_file(&files)?;
    std::fs::rename(&moved, &files)?;
    for (path, contents) in &whole {
        ensure!(path.ends_with("lock") || std::fs::read(backup.join(path))? == *contents, "{path:?} changed");
    }
    let again = state()?;
    uni_ok(&["store", "restore", text(backup)?, "--state-dir", text(again.path())?])?;
    let restored = Daemon::start(again.path(), &[])?;
    ensure!(restored.number("SELECT count(a) FROM bulk")? == 20_000.0);
    ensure!(exported(&restored, &["weather", "plain"])? == exported(&daemon, &["weather", "plain"])?);

    // a damaged backup is found, and not restored
    let segment = largest(&backup.join("files"))?;
    flip(&segment, 100)?;
    let output = daemon.uni(&["store", "check", "--backup", text(backup)?])?;
    ensure!(refused(&output)?.contains("1 file is damaged"), "{output:?}");
    let new = state()?;
    let output = uni(&["store", "restore", text(backup)?, "--state-dir", text(new.path())?])?;
    ensure!(refused(&output)?.contains("is damaged"), "{output:?}");
    ensure!(!new.path().join("store").exists(), "half a store");
    Ok(())
}

#[test]
fn a_store_that_is_in_the_way_is_kept() -> anyhow::Result<()> {
    let (dir, other, backup) = (state()?, state()?, state()?);
    let mut daemon = Daemon::start(dir.path(), &[])?;
    write(&daemon, LINES)?;
    // a daemon that does not run: its log is copied as it is
    daemon.terminate()?;
    let offline = ["store", "backup", text(backup.path())?, "--state-dir", text(dir.path())?];
    let said = uni_ok(&offline)?;
    ensure!(said.contains("copied"), "{said}");
    ensure!(uni_ok(&offline)?.contains("copied 0 files"), "nothing is new");
    let mut second = Daemon::start(other.path(), &[])?;
    write(&second, "mine value=1 1700000000000000000")?;
    second.terminate()?;
    let args = ["store", "restore", text(backup.path())?, "--state-dir", text(other.path())?];
    let output = uni(&args)?;
    ensure!(refused(&output)?.contains("--force"), "{output:?}");
    uni_ok(&[&args[..], &["--force"]].concat())?;
    second.restart()?;
    ensure!(second.rows("SELECT value FROM plain")?.len() == 2);
    ensure!(second.rows("SELECT value FROM mine").is_err());
    let kept = std::fs::read_dir(other.path())?.flatten();
    let kept = kept.filter(|entry| entry.file_name().to_string_lossy().starts_with("store.before-restore-"));
    ensure!(kept.count() == 1, "the store before is there");
    Ok(())
}

#[test]
fn flipped_bytes_are_found_in_log_segment_and_format_and_isolated() -> anyhow::Result<()> {
    let dir = state()?;
    let mut daemon = Daemon::start(dir.path(), &[])?;
    let mut lines = String::new();
    for n in 0..30_000 {
        writeln!(
            lines,
            "bulk,vm=v{} a={} {}",
            n % 20,
            n * 7919 % 1000,
            1_600_000_000_000_000_000_i64 + n * 1_000_003
        )?;
    }
    write(&daemon, &lines)?;
    let backup = state()?;
    daemon.uni_ok(&["store", "backup", text(backup.path())?])?;
    write(&daemon, "tail n=1 1")?;
    write(&daemon, "tail n=2 2")?;
    write(&daemon, "tail n=3 3")?;
    // while it runs, and whole
    let whole = daemon.uni_json(&["store", "check"])?;
    ensure!(whole["damaged"].as_array().is_some_and(Vec::is_empty), "{whole}");
    ensure!(whole["points"].as_u64() >= Some(30_003), "{whole}");
    daemon.kill()?;
    let store = dir.path().join("store");
    let state_dir = ["--state-dir", text(dir.path())?];
    uni_ok(&[&["store", "check"][..], &state_dir].concat())?;

    // every fourth byte of a small log, one at a time
    let log = find(&store, "wal")?;
    let good = std::fs::read(&log)?;
    for at in (0..good.len()).step_by(4) {
        flip(&log, at)?;
        let output = uni(&[&["store", "check"][..], &state_dir].concat())?;
        ensure!(!output.status.success(), "byte {at} of the log: {output:?}");
        std::fs::write(&log, &good)?;
    }
    let segment = find(&store.join("data"), "seg")?;
    let bytes = std::fs::read(&segment)?;
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        flip(&segment, at)?;
        let output = uni(&[&["store", "check"][..], &state_dir].concat())?;
        ensure!(!output.status.success(), "byte {at} of {} of the segment: {output:?}", bytes.len());
        std::fs::write(&segment, &bytes)?;
    }
    let format = store.join("format");
    flip(&format, 2)?;
    refused(&uni(&[&["store", "check"][..], &state_dir].concat())?)?;
    flip(&format, 2)?;

    // one block is lost, the others stay; of the log all before the fault
    flip(&segment, 1000)?;
    flip(&log, good.len() - 3)?;
    let before = tree(&store)?;
    let output = uni(&[&["--output", "json", "store", "check"][..], &state_dir].concat())?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(tree(&store)? == before, "a check changes nothing");
    let found = |path: &str| {
        let mut all = report["damaged"].as_array().into_iter().flatten();
        all.find(|file| file["path"].as_str().is_some_and(|p| p.ends_with(path))).cloned()
    };
    let (in_segment, in_log) = (found(".seg").context("segment")?, found(".wal").context("log")?);
    let lost = in_segment["damage"][0]["points"].as_u64().context("points")?;
    ensure!((1..=1024).contains(&lost), "{in_segment}");
    ensure!(
        in_segment["damage"][0]["series"].as_str().is_some_and(|s| s.starts_with("bulk,vm=v")),
        "{in_segment}"
    );
    ensure!(in_log["kind"] == "log", "{in_log}");
    let output = uni(&[&["store", "check", "--isolate"][..], &state_dir].concat())?;
    ensure!(refused(&output)?.contains("2 files are damaged"), "{output:?}");
    // nothing was deleted: the spoilt bytes are in `damaged`
    let kept = tree(&store.join("damaged"))?;
    let spoilt = &before[segment.strip_prefix(&store)?];
    ensure!(kept.values().any(|bytes| bytes == spoilt), "{:?}", kept.keys());
    ensure!(kept.len() == 2, "{:?}", kept.keys());
    uni_ok(&[&["store", "check"][..], &state_dir].concat())?;
    daemon.restart()?;
    let left = count_of(&daemon, "SELECT count(a) FROM bulk")?;
    let lost = report["lost_points"].as_u64().unwrap_or(0);
    ensure!(left + lost >= 30_000, "{left} are left, {lost} were said to be lost");
    ensure!(left >= 20_000, "what can be read stays: {left}");
    ensure!(daemon.number("SELECT count(n) FROM tail")? == 2.0);
    Ok(())
}

#[test]
fn what_is_exported_comes_back_and_influxdb_takes_it() -> anyhow::Result<()> {
    let (dir, other) = (state()?, state()?);
    let daemon = Daemon::start(dir.path(), &[])?;
    write(&daemon, LINES)?;
    let file = dir.path().join("points.lp.gz");
    let done = daemon.uni_json(&["store", "export", "-o", text(&file)?])?;
    ensure!(done["points"].as_u64() >= Some(6), "{done}");
    let second = Daemon::start(other.path(), &[])?;
    let imported = second.uni_json(&["store", "import", text(&file)?, "--database", "copy"])?;
    ensure!(imported["stored"] == done["points"], "{imported} {done}");
    ensure!((imported["bad"].as_u64(), imported["refused"].as_u64()) == (Some(0), Some(0)), "{imported}");
    for measurement in ["weather", "plain", "meas ure,ment"] {
        let from = daemon.uni_ok(&["store", "export", "--measurement", measurement])?;
        let to = second.uni_ok(&["store", "export", "--measurement", measurement, "--database", "copy"])?;
        ensure!(from.replace("DATABASE: uni", "DATABASE: copy") == to, "{from}\n{to}");
    }
    // its own words, nanoseconds and all
    let plain = daemon.uni_ok(&["store", "export", "--measurement", "plain", "--vm", "web"])?;
    ensure!(plain.ends_with("plain,vm=web big=18446744073709551615u,value=2 1700000000000000000"), "{plain}");
    let late = daemon.uni_ok(&["store", "export", "--measurement", "weather", "--from", "2023-11-15"])?;
    ensure!(late.lines().filter(|line| line.starts_with("weather")).count() == 1, "{late}");

    // InfluxDB: its own importer, and a write as curl does it
    let influxdb = Influxd::start()?;
    influxd::query(influxdb.url(), "", "ns", "CREATE DATABASE uni")?;
    let lines = dir.path().join("points.lp");
    daemon.uni_ok(&[
        "store",
        "export",
        "--measurement",
        "weather",
        "--unsigned",
        "integer",
        "-o",
        text(&lines)?,
    ])?;
    let (host, port) = influxdb.url().trim_start_matches("http://").split_once(':').context("host:port")?;
    let output = Command::new("influx")
        .args(["-host", host, "-port", port, "-import", "-precision", "ns", "-path", text(&lines)?])
        .output()
        .context("start influx; it is Debian's package influxdb-client")?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.contains("Failed 0 inserts"), "{said}");
    let question = "SELECT temperature, count, windy, site FROM weather";
    let there = influxd::query(influxdb.url(), "uni", "ns", question)?;
    let api = format!("http://{}", daemon.address("api")?);
    let here = influxd::query(&api, "uni", "ns", question)?;
    ensure!(influxd::same(&there, &here), "{there} {here}");
    influxd::query(influxdb.url(), "", "ns", "CREATE DATABASE curl")?;
    let all = daemon.uni_ok(&["store", "export", "--unsigned", "integer"])?;
    influxd::write(influxdb.url(), "curl", &all)?;
    let there = influxd::query(influxdb.url(), "curl", "ns", "SELECT note FROM weather")?;
    let here = influxd::query(&api, "uni", "ns", "SELECT note FROM weather")?;
    ensure!(there == here && there.to_string().contains("two lines"), "{there} {here}");
    Ok(())
}

#[test]
fn lines_that_are_none_are_counted_and_shown() -> anyhow::Result<()> {
    let dir = state()?;
    let daemon = Daemon::start(dir.path(), &[])?;
    let file = dir.path().join("mixed.lp");
    std::fs::write(
        &file,
        "# DDL\nCREATE DATABASE other\n# DML\n# CONTEXT-DATABASE: other\ngood v=1 1\nbad\ngood v=2i 2\n\ngood v=3 3",
    )?;
    let output = daemon.uni(&["store", "import", text(&file)?, "--precision", "s"])?;
    let said = refused(&output)?;
    ensure!(said.contains("unable to parse 'bad'") && said.contains("type conflict"), "{said}");
    ensure!(said.contains("lines 5 to 9") && said.contains("2 lines were not stored"), "{said}");
    ensure!(
        String::from_utf8_lossy(&output.stdout).contains("2 points stored, 1 refused, 1 lines"),
        "{output:?}"
    );
    let points = daemon.uni_ok(&["store", "export", "--database", "other"])?;
    ensure!(points.ends_with("good v=1 1000000000\ngood v=3 3000000000"), "{points}");
    let output =
        daemon.uni(&["store", "export", "--database", "nowhere", "-o", text(&dir.path().join("n"))?])?;
    ensure!(refused(&output)?.contains("database not found"), "{output:?}");
    ensure!(!dir.path().join("n").exists() && !dir.path().join("n.part").exists());
    Ok(())
}

#[test]
fn prometheus_takes_what_is_exported() -> anyhow::Result<()> {
    let dir = state()?;
    let daemon = Daemon::start(dir.path(), &[])?;
    let mut lines = String::from(LINES);
    for n in 0..500 {
        for vm in ["web", "db \\\"x"] {
            let vm = vm.replace(' ', "\\ ");
            writeln!(
                lines,
                "load,vm={vm},a-b=1 one={n},two={}i,text=\"t\" {}",
                n * 2,
                1_700_000_000_000_000_000_i64 + n * 10_000_000_000
            )?;
        }
    }
    write(&daemon, &lines)?;
    let file = dir.path().join("points.om");
    let done = daemon.uni_json(&[
        "store",
        "export",
        "--format",
        "prom",
        "--from",
        "2023-11-01",
        "--measurement",
        "load",
        "-o",
        text(&file)?,
    ])?;
    ensure!(done["points"] == 2000 && done["left_out_values"] == 1000, "{done}");
    let blocks = dir.path().join("blocks");
    let output = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics", text(&file)?, text(&blocks)?])
        .output()
        .context("start promtool; Debian has it in the package prometheus")?;
    ensure!(output.status.success(), "{output:?}");
    // it looks for one
    std::fs::create_dir(blocks.join("wal"))?;
    let dump = Command::new("promtool").args(["tsdb", "dump", text(&blocks)?]).output()?;
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    let of = |name: &str| dump.lines().filter(|line| line.contains(&format!("\"{name}\""))).count();
    ensure!((of("load_one"), of("load_two")) == (1000, 1000), "{}", &dump[..dump.len().min(500)]);
    ensure!(dump.contains("998 1700004990000"), "the last value at its time");
    ensure!(dump.contains("a_b=\"1\""), "{}", &dump[..dump.len().min(500)]);
    Ok(())
}

#[test]
fn a_large_export_takes_little_memory_and_ctrl_c_leaves_no_half() -> anyhow::Result<()> {
    let dir = state()?;
    let mut daemon = Daemon::start(dir.path(), &[])?;
    for body in 0..16 {
        let mut lines = String::new();
        for n in 0..20_000_i64 {
            let n = n + body * 20_000;
            writeln!(
                lines,
                "bulk,vm=v{} a={},b={}i,c=\"text of some length {n}\" {}",
                n % 100,
                n * 7919 % 1000,
                n,
                1_600_000_000_000_000_000 + n * 1_000_003
            )?;
        }
        write(&daemon, &lines)?;
    }
    let peak_kb = |pid: u32| -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    let before = peak_kb(daemon.pid())?;
    let file = dir.path().join("bulk.lp");
    let program = bin_dir().join("uni");
    // says what its only child took at most
    let script = "import resource,subprocess,sys\n\
        code = subprocess.call(sys.argv[1:])\n\
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n\
        sys.exit(code)";
    let export = |more: &[&str]| -> anyhow::Result<(u64, u64)> {
        let output = Command::new("python3")
            .args(["-c", script, text(&program)?, "--socket", text(&daemon.socket())?])
            .args(["store", "export", "--measurement", "bulk", "-o", text(&file)?])
            .args(more)
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout)?;
        let peak_kb = said.lines().last().context("a number")?.parse()?;
        Ok((peak_kb, std::fs::metadata(&file)?.len() >> 10))
    };
    let (part_kb, part_file_kb) = export(&["--to", "1600000080000000000"])?;
    let (whole_kb, whole_file_kb) = export(&[])?;
    ensure!(whole_file_kb - part_file_kb > 16 << 10, "{part_file_kb} and {whole_file_kb} kB");
    ensure!(
        whole_kb < part_kb + (4 << 10),
        "uni took {part_kb} kB for {part_file_kb} kB, {whole_kb} kB for {whole_file_kb} kB"
    );
    let grown = peak_kb(daemon.pid())?.saturating_sub(before);
    ensure!(grown < 20 << 10, "unid grew by {grown} kB for {whole_file_kb} kB");
    ensure!(std::fs::read_to_string(&file)?.lines().count() == 320_003);

    let cut = dir.path().join("cut.lp");
    let mut child = Command::new(&program)
        .arg("--socket")
        .arg(daemon.socket())
        .args(["store", "export", "--measurement", "bulk", "-o", text(&cut)?])
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    eventually("the export to begin", || {
        ensure!(dir.path().join("cut.lp.part").exists());
        Ok(())
    })?;
    Command::new("sh").args(["-c", "kill -INT $0", &child.id().to_string()]).status()?;
    ensure!(!child.wait()?.success());
    ensure!(!cut.exists() && !dir.path().join("cut.lp.part").exists());
    daemon.terminate()?;
    // the same from the folder of a daemon that does not run
    let offline = dir.path().join("offline.lp");
    let before = tree(&dir.path().join("store"))?;
    uni_ok(&[
        "store",
        "export",
        "--measurement",
        "bulk",
        "-o",
        text(&offline)?,
        "--state-dir",
        text(dir.path())?,
    ])?;
    ensure!(std::fs::read(&offline)? == std::fs::read(&file)?);
    ensure!(tree(&dir.path().join("store"))? == before, "an export changes nothing");
    Ok(())
}

#[test]
fn series_are_counted_by_what_makes_them_many() -> anyhow::Result<()> {
    let dir = state()?;
    let mut daemon = Daemon::start(dir.path(), &[])?;
    let mut lines = String::new();
    for n in 0..60 {
        writeln!(lines, "a,vm=v{},request=r{n} x=1,y=2 1\nb,vm=v0 z=1 1", n % 3)?;
    }
    influxd::write(&format!("http://{}", daemon.address("api")?), "lab", &lines)?;
    let counted = daemon.uni_json(&["store", "cardinality", "--top", "2"])?;
    let lab = counted["databases"].as_array().into_iter().flatten().find(|d| d["name"] == "lab");
    let lab = lab.context("lab")?.clone();
    ensure!(lab["series"] == 61, "{lab}");
    ensure!(
        lab["measurements"][0] == serde_json::json!({"name": "a", "series": 60, "columns": 120}),
        "{lab}"
    );
    ensure!(lab["tags"][0] == serde_json::json!({"key": "request", "values": 60, "series": 60}), "{lab}");
    ensure!(lab["vms"][0] == serde_json::json!({"name": "v0", "series": 21, "columns": 41}), "{lab}");
    ensure!(lab["vms_total"] == 3, "{lab}");
    let table = daemon.uni_ok(&["store", "cardinality", "--top", "2"])?;
    ensure!(table.contains("Database lab: 61 series") && table.contains("and 1 more"), "{table}");
    daemon.terminate()?;
    let offline = uni_ok(&["store", "cardinality", "--state-dir", text(dir.path())?])?;
    ensure!(offline.contains("Database lab: 61 series"), "{offline}");
    Ok(())
}

/// What pyarrow reads in the files.
const READ_PARQUET: &str = r#"
import pyarrow.parquet as pq, sys
weather = pq.read_table(sys.argv[1] + "/weather.parquet")
assert weather.num_rows == 3, weather
types = {field.name: str(field.type) for field in weather.schema}
assert types == {"time": "timestamp[ns, tz=UTC]", "a=b": "string", "site": "string", "count": "int64",
                 "note": "string", "temperature": "double", "windy": "bool"}, types
# Python has no nanoseconds
rows = weather.drop(["time"]).to_pydict()
assert weather["time"].cast("int64").to_pylist() == [
    1700000000123456789, 1700000000123456790, 1700086400000000001], rows
assert rows["temperature"] == [-12.75, 1e300, 0.1], rows
assert rows["count"] == [7, -2**63, 2**63 - 1], rows
assert rows["note"] == ['say "hi", \\ and\ntwo lines', None, None], rows
assert rows["windy"] == [True, False, None] and rows["a=b"] == ["c,d", "c,d", None], rows
plain = pq.read_table(sys.argv[1] + "/plain.parquet").drop(["time"]).to_pydict()
assert plain["big"] == [None, 2**64 - 1] and plain["vm"] == [None, "web"], plain
bulk = pq.read_table(sys.argv[1] + "/bulk.parquet")
assert bulk.num_rows == 150000 and sum(bulk["n"].to_pylist()) == sum(range(150000)), bulk
assert pq.ParquetFile(sys.argv[1] + "/bulk.parquet").num_row_groups == 3
assert pq.read_table(sys.argv[1] + "/one.parquet").num_rows == 1
"#;

#[test]
#[ignore = "needs `uni` with the feature `parquet`: cargo xtask parquet"]
fn pyarrow_reads_what_is_exported() -> anyhow::Result<()> {
    let (dir, out) = (state()?, state()?);
    let daemon = Daemon::start(dir.path(), &[])?;
    write(&daemon, LINES)?;
    let mut lines = String::new();
    for n in 0..150_000 {
        writeln!(lines, "bulk n={n}i {n}")?;
    }
    write(&daemon, &lines)?;
    let done = daemon.uni_json(&["store", "export", "--format", "parquet", "-o", text(out.path())?])?;
    ensure!(done["points"].as_u64() >= Some(150_006), "{done}");
    let one = out.path().join("one.parquet");
    let args = [
        "store",
        "export",
        "--format",
        "parquet",
        "--measurement",
        "plain",
        "--vm",
        "web",
        "-o",
        text(&one)?,
    ];
    daemon.uni_ok(&args)?;
    let python = black_box::python::venv(&["pyarrow==22.0.0"])?;
    let output = Command::new(python).args(["-c", READ_PARQUET, text(out.path())?]).output()?;
    ensure!(output.status.success(), "{output:?}");
    let output = daemon.uni(&["store", "export", "--format", "parquet"])?;
    ensure!(refused(&output)?.contains("-o FILE"), "{output:?}");
    Ok(())
}
