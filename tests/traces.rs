//! What is seen of a guest that dies: a stack trace with function, file and line, by its image's unstripped twin.
//!
//! Owns nothing: lets `faulty` die in each of its ways and reads what a user reads.

use std::path::Path;

use anyhow::{Context as _, ensure};
use black_box::{Daemon, eventually, guest};

/// The guest's own source, where each trace has to lead.
const SOURCE: &str = "guests/faulty/src/main.rs";
/// QEMU's exit code of a panic and of a CPU exception, as `guests/runtime` defines them.
const PANIC: i64 = 0x7f;
const FAULT: i64 = 0x7d;

/// A way to die: what the console says first, the exit code, and the functions in the trace, innermost first.
struct Death {
    kind: &'static str,
    words: &'static str,
    code: i64,
    functions: &'static [&'static str],
}

const DEATHS: [Death; 5] = [
    Death {
        kind: "panic",
        words: "no guests to divide the bill by",
        code: PANIC,
        functions: &["divide_the_bill", "carry_out", "take_order"],
    },
    Death {
        kind: "null",
        words: "(page fault) error=0x0",
        code: FAULT,
        functions: &["follow_null_pointer", "carry_out", "take_order"],
    },
    Death { kind: "stack", words: "(page fault) error=0x2", code: FAULT, functions: &["descend", "descend"] },
    Death {
        kind: "ud2",
        words: "(invalid opcode)",
        code: FAULT,
        functions: &["run_invalid_opcode", "carry_out", "take_order"],
    },
    Death {
        kind: "oom",
        words: "memory allocation of 1048576 bytes failed",
        code: PANIC,
        functions: &["hoard", "carry_out", "take_order"],
    },
];

/// The number of the line in the guest's source that has `text`.
fn line_of(text: &str) -> anyhow::Result<usize> {
    let source = std::fs::read_to_string(black_box::workspace().join(SOURCE))?;
    source.lines().position(|line| line.contains(text)).map(|at| at + 1).context(text.to_owned())
}

/// Each frame of the guest's own functions in a console: the function's name and the line.
fn own_frames(console: &str) -> Vec<(String, usize)> {
    let frame = |line: &str| {
        let (before, place) = line.split_once(&format!(" at {SOURCE}:"))?;
        let function = before.rsplit(' ').next()?.strip_prefix("faulty::")?;
        Some((function.to_owned(), place.parse().ok()?))
    };
    console.lines().filter_map(frame).collect()
}

fn run(daemon: &Daemon, image: &Path, kind: &str, after: &str) -> anyhow::Result<std::process::Output> {
    let (image, fault) = (image.display().to_string(), format!("--fault={kind}"));
    daemon.uni(&["run", &image, "--name", kind, "--memory", "32M", "--", &fault, after])
}

/// `uni logs` once the guest has died.
fn console(daemon: &Daemon, vm: &str) -> anyhow::Result<String> {
    eventually("the guest to die", || {
        let detail = daemon.uni_json(&["inspect", vm])?;
        ensure!(detail["state"] == "stopped", "{detail}");
        Ok(())
    })?;
    daemon.uni_ok(&["logs", vm])
}

#[test]
fn each_death_leaves_a_trace_with_function_file_and_line() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    for death in &DEATHS {
        let output = run(&daemon, &guest("faulty"), death.kind, "--after=2")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for death in &DEATHS {
        let text = console(&daemon, death.kind)?;
        ensure!(text.contains(death.words), "{}: {text}", death.kind);
        let frames = own_frames(&text);
        let names: Vec<_> = frames.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(names.starts_with(death.functions), "{}: {text}", death.kind);
        let detail = daemon.uni_json(&["inspect", death.kind])?;
        ensure!(detail["exit_code"] == death.code, "{}: {detail}", death.kind);
    }
    Ok(())
}

#[test]
fn the_lines_are_those_of_the_calls_and_the_kept_console_has_addresses_only() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let output = run(&daemon, &guest("faulty"), "panic", "--after=2")?;
    let id = String::from_utf8(output.stdout)?.trim().to_owned();
    // a reader that follows sees the trace as it is printed
    let followed = daemon.uni_ok(&["logs", "panic", "-f"])?;
    let text = console(&daemon, "panic")?;
    let page = daemon.get("ui", "/ui/api/vm/panic/console")?;
    for shown in [&followed, &text, &page.replace("\\n", "\n")] {
        let frames = own_frames(shown);
        let (at, call) = (line_of("None => panic!(")?, line_of("=> divide_the_bill(")?);
        ensure!(frames.starts_with(&[("divide_the_bill".into(), at), ("carry_out".into(), call)]), "{shown}");
        ensure!(shown.contains(" at library/core/src/panicking.rs:"), "{shown}");
        ensure!(!shown.contains("/rustc/") && !shown.contains("::h"), "{shown}");
    }
    ensure!(followed == text, "{followed}\n---\n{text}");
    let kept = state.path().join("vms").join(&id).join("console.00000000000000000000.log");
    let kept = std::fs::read_to_string(&kept).with_context(|| kept.display().to_string())?;
    ensure!(
        kept.lines().filter(|line| line.starts_with("stack 0x")).all(|line| !line.contains(" at ")),
        "{kept}"
    );
    ensure!(kept.lines().any(|line| line.starts_with("stack 0x")), "{kept}");
    Ok(())
}

#[test]
fn a_guest_that_panics_at_once_fails_the_run_with_its_trace() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let output = run(&daemon, &guest("faulty"), "panic", "--after=0")?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{}: {stderr}", output.status);
    ensure!(stderr.contains("died at once") && stderr.contains("PANIC "), "{stderr}");
    let at = line_of("None => panic!(")?;
    ensure!(stderr.contains(&format!("faulty::divide_the_bill at {SOURCE}:{at}\n")), "{stderr}");
    ensure!(daemon.uni_json(&["ps"])?.as_array().is_some_and(Vec::is_empty), "a VM is left behind");
    Ok(())
}

#[test]
fn without_a_twin_or_with_another_images_the_addresses_stay() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let images = tempfile::tempdir()?;
    let image = images.path().join("faulty.elf");
    std::fs::copy(guest("faulty"), &image)?;
    let daemon = Daemon::start(state.path(), &[])?;
    run(&daemon, &image, "panic", "--after=2")?;
    let bare = console(&daemon, "panic")?;
    ensure!(bare.contains("stack 0x") && own_frames(&bare).is_empty(), "{bare}");
    std::fs::copy(guest("hello").with_extension("debug.elf"), images.path().join("faulty.debug.elf"))?;
    run(&daemon, &image, "ud2", "--after=2")?;
    let text = console(&daemon, "ud2")?;
    ensure!(text.contains("stack 0x") && own_frames(&text).is_empty(), "{text}");
    let reason = "it is not the twin of this image";
    eventually("the reason in unid's log", || {
        ensure!(daemon.log().iter().any(|line| line.contains(reason)), "{:#?}", daemon.log());
        Ok(())
    })
}
