//! `uni memtrace`: recorded traces of OCaml programs, read without a daemon.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::daemon::{stderr, stdout, uni};

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../uni-wire/tests/data/memtrace").join(name)
}

fn memtrace(args: &[&str]) -> Output {
    let all: Vec<&str> = ["memtrace"].iter().chain(args).copied().collect();
    uni(Path::new("/nonexistent/unid.sock"), &all).output().expect("uni runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

#[test]
fn a_report_names_who_allocated() {
    let output = memtrace(&["report", text(&recorded("unikernel-v2.ctf"))]);
    let report = stdout(&output);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    for part in [
        "Host     mirage_unikernel\n",
        "Rate     1e-3 of all words\n",
        "Samples    68 allocations, 68 freed\n",
    ] {
        assert!(report.contains(part), "{report}");
    }
    let row = "0 B   0 B       421.9 KiB  421.9 KiB      54       Main       Main.build      main.ml:6\n";
    assert!(report.contains(row), "{report}");
    // live bytes over time, of the same names
    let (_, curves) = report.split_once("LIVE BYTES OF\n").expect("a table of moments");
    assert!(curves.contains("Main.build main.ml:6") && report.contains("AT "), "{report}");
    let by_library = stdout(&memtrace(&["report", text(&recorded("unikernel-v2.ctf")), "--by", "library"]));
    assert!(by_library.trim_end().ends_with("  Main"), "{by_library}");
}

#[test]
fn a_report_as_json_has_the_totals_the_rows_and_the_time() {
    let file = recorded("domains-v3.ctf");
    let output = memtrace(&["report", text(&file), "--output", "json", "--by", "library", "--top", "1"]);
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(report["info"]["host_name"], "host.example");
    assert_eq!(report["totals"]["sampled_allocations"], 235);
    assert_eq!(report["totals"]["sampled_frees"], 97);
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(1));
    let live = |part: &serde_json::Value| part["live_bytes"].as_u64().expect("bytes");
    // the modules of a package that their paths do not name
    let first = &report["rows"][0];
    assert!(first["name"].as_str().is_some_and(|name| name.starts_with('M')), "{first}");
    assert!(live(first) > 0 && live(first) < live(&report["totals"]), "{first}");
    assert!(report["timeline"]["libraries"][0][1].as_array().is_some_and(|steps| steps.len() > 100));
    let early = memtrace(&["report", text(&file), "--output", "json", "--at", "1ms"]);
    let early: serde_json::Value = serde_json::from_str(&stdout(&early)).expect("JSON");
    assert!(early["totals"]["sampled_allocations"].as_u64().is_some_and(|count| count < 10), "{early}");
}

#[test]
fn stdin_is_a_trace_too_and_a_cut_one_says_so() {
    let trace = std::fs::read(recorded("lists-v2.ctf")).expect("recorded");
    let mut child = Command::new(env!("CARGO_BIN_EXE_uni"))
        .args(["memtrace", "report", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("uni starts");
    child.stdin.take().expect("a pipe").write_all(&trace[..trace.len() - 7]).expect("taken");
    let output = child.wait_with_output().expect("uni ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("Lists"));
    let message = stderr(&output);
    assert!(message.starts_with("uni: -: the trace ends inside a packet, first at byte "), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn drawings_profiles_and_stacks_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let trace = recorded("edges-v2.ctf");
    for name in ["a.svg", "a.html"] {
        let path = file(name);
        let output = memtrace(&["report", text(&trace), "--flamegraph", text(&path)]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let drawing = std::fs::read_to_string(path).expect("written");
        assert!(drawing.contains("uniFlame.draw(") && drawing.contains("unikernel.hvt"));
    }
    let (pprof, folded) = (file("a.pb.gz"), file("a.folded"));
    let args = ["report", text(&trace), "--pprof", text(&pprof), "--folded", text(&folded)];
    assert_eq!(memtrace(&args).status.code(), Some(0));
    assert!(std::fs::read(pprof).expect("written").starts_with(&[0x1f, 0x8b]));
    let folded = std::fs::read_to_string(folded).expect("written");
    assert!(folded.lines().any(|line| line.starts_with("File00.fn")), "{folded}");
    let wrong = memtrace(&["report", text(&trace), "--flamegraph", "a.png"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert_eq!(
        stderr(&wrong),
        "uni: memtrace report: cannot draw a.png: its name must end in .svg or .html\n"
    );
}

#[test]
fn a_diff_shows_both_sides() {
    let (before, after) = (recorded("tiny-v2.ctf"), recorded("edges-v2.ctf"));
    let output = memtrace(&["diff", text(&before), text(&after), "--by", "library"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let diff = stdout(&output);
    assert!(diff.contains("LIVE CHANGE") && diff.contains("+1.5 MiB") && diff.contains("File38"), "{diff}");
    assert_eq!(stderr(&output), "uni: the traces are of two programs: demo and unikernel.hvt\n");
    let same = memtrace(&["diff", text(&after), text(&after), "--output", "json"]);
    assert_eq!(stderr(&same), "");
    let same: serde_json::Value = serde_json::from_str(&stdout(&same)).expect("JSON");
    assert!(same["rows"].as_array().expect("rows").iter().all(|row| row["live_change_bytes"] == 0));
}

#[test]
fn what_is_no_trace_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let nothing = folder.path().join("nothing.ctf");
    std::fs::write(&nothing, b"\x7fELF and other bytes").expect("written");
    let cases = [
        (text(&nothing).to_owned(), "is no heap trace, or nothing of it can be read"),
        ("/nonexistent/a.ctf".to_owned(), "No such file or directory"),
        (text(folder.path()).to_owned(), "Is a directory"),
    ];
    for (path, expected) in cases {
        let output = memtrace(&["report", &path]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).is_empty());
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    assert_eq!(memtrace(&["diff", "-", "-"]).status.code(), Some(1));
}

#[test]
fn a_profile_or_stacks_can_go_to_stdout_alone() {
    let trace = recorded("lists-v2.ctf");
    let folded = stdout(&memtrace(&["report", text(&trace), "--folded", "-"]));
    let is_stack = |line: &str| line.rsplit_once(' ').is_some_and(|(_, bytes)| bytes.parse::<u64>().is_ok());
    assert!(folded.lines().count() > 3 && folded.lines().all(is_stack), "{folded}");
    let pprof = memtrace(&["report", text(&trace), "--pprof", "-"]);
    assert!(pprof.status.success() && pprof.stdout.starts_with(&[0x1f, 0x8b]));
    assert_eq!(memtrace(&["report", text(&trace), "--pprof", "-", "--folded", "-"]).status.code(), Some(1));
    assert!(!Path::new("-").exists());
}

#[test]
fn what_lived_shortly_is_left_out_and_stdin_cannot_be_read_twice() {
    let trace = recorded("lists-v2.ctf");
    let report = |more: &[&str]| {
        let output = memtrace(&[&["report", text(&trace), "--output", "json"], more].concat());
        serde_json::from_str::<serde_json::Value>(&stdout(&output)).expect("JSON")
    };
    let live_long = report(&["--min-lifetime", "1ms"]);
    assert_eq!(report(&[])["totals"]["sampled_allocations"], 189);
    // Lists.fill keeps what it allocates
    assert_eq!(live_long["totals"]["sampled_allocations"], 15, "{live_long}");
    assert_eq!(live_long["rows"][0]["name"], "Lists.fill");
    let twice = memtrace(&["report", "-", "--min-lifetime", "1ms"]);
    assert_eq!(twice.status.code(), Some(1));
    assert!(stderr(&twice).contains("stdin cannot be, name a file"), "{}", stderr(&twice));
}

#[test]
fn what_is_shown_may_not_be_what_one_thinks() {
    let folder = tempfile::tempdir().expect("a folder");
    let headless = folder.path().join("headless.ctf");
    let trace = std::fs::read(recorded("tiny-v2.ctf")).expect("recorded");
    // the info packet has 101 bytes
    std::fs::write(&headless, &trace[101..]).expect("written");
    let told = memtrace(&["report", text(&headless)]);
    assert!(told.status.success() && stderr(&told).contains("its beginning is missing"), "{}", stderr(&told));
    let late = memtrace(&["report", text(&recorded("tiny-v2.ctf")), "--at", "1s"]);
    let nothing = "nothing happened from 0.005 s to 1.000 s after the start";
    assert!(late.status.success() && stderr(&late).contains(nothing), "{}", stderr(&late));
    for (file, words) in [
        ("/nonexistent", "there is no /nonexistent"),
        (text(&headless), "is no program with symbols, nor has it a twin"),
    ] {
        let output = memtrace(&["report", text(&headless), "--symbols", file]);
        assert!(!output.status.success() && stderr(&output).contains(words), "{}", stderr(&output));
    }
}
