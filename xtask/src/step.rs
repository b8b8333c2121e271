//! Running a command as one step: what it is, that it goes on, how long it took, its output when it fails.
//!
//! Owns the display of progress. On a terminal a spinner with the last line of output; elsewhere plain lines.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Lines of a failed command's output that are shown.
const SHOWN_LINES: usize = 400;

/// Runs `command`, showing `what` and the last line of its output while it runs.
///
/// # Errors
/// When it cannot be started or fails; its last output is printed first.
pub(crate) fn run(what: &str, command: &mut Command) -> anyhow::Result<()> {
    let start = Instant::now();
    let bar = std::io::stderr().is_terminal().then(|| spinner(what));
    if bar.is_none() {
        eprintln!("-> {what}");
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        // a failing test's message is worth more than the path through the test runner
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{what}: start {program}"))?;
    let (sender, lines) = channel();
    let mut readers = Vec::new();
    for stream in [child.stdout.take().map(boxed), child.stderr.take().map(boxed)].into_iter().flatten() {
        let sender = sender.clone();
        readers.push(std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                // the receiver lives as long as the step
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        }));
    }
    drop(sender);
    let mut last = VecDeque::new();
    for line in lines {
        if let Some(bar) = &bar {
            bar.set_message(line.trim().to_owned());
        }
        if last.len() == SHOWN_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    let status = child.wait()?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if !status.success() {
        for line in &last {
            eprintln!("{line}");
        }
        bail!("{what}: {program} ended with {status}");
    }
    summaries(&last);
    eprintln!("ok {what} ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(())
}

fn boxed(stream: impl std::io::Read + Send + 'static) -> Box<dyn std::io::Read + Send> {
    Box::new(stream)
}

/// What test runners say at their end is worth keeping in a log.
fn summaries(lines: &VecDeque<String>) {
    for line in lines.iter().filter(|line| line.starts_with("test result:") || line.starts_with("# pass")) {
        println!("   {line}");
    }
}

fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_prefix(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
