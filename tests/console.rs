//! The console: bounded on disk, cheap and never in the guest's way at full speed, followed by several readers of
//! whom a stopped one delays nobody, readable by run after death and restart, harmless on a terminal.

use std::io::{BufRead as _, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::{Daemon, bin_dir, boot_sector, eventually, free_port, guest};

/// How much console unid keeps of a VM.
const LIMIT_BYTES: u64 = 16 * 1024 * 1024;
/// What the flooding guest prints again and again.
const PATTERN: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n";

/// A PVH kernel that says `first` and ends with status 64 when it is given arguments, and says `second` and stays
/// when it is given none: unid starts it twice.
fn runs_twice() -> Vec<u8> {
    const BASE: u32 = 0x10_0000;
    const CODE: u32 = 0x100;
    let [first, second] = [BASE + 0x180, BASE + 0x1a0].map(u32::to_le_bytes);
    let mut code = vec![0x8b, 0x73, 0x18, 0xb3, 0x00]; // mov esi, [ebx+24] (the command line); mov bl, 0
    code.extend([0x85, 0xf6, 0x74, 0x0e, 0x80, 0x3e, 0x00, 0x74, 0x09]); // none or empty: second
    code.extend([0xb3, 64, 0xbe, first[0], first[1], first[2], first[3], 0xeb, 0x05]); // mov bl, 64; mov esi, first
    code.extend([0xbe, second[0], second[1], second[2], second[3]]); // second: mov esi, second
    code.extend([0x66, 0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8]); // print
    code.extend([0x84, 0xdb, 0x74, 0x04, 0x88, 0xd8, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd]); // exit with bl, or halt
    let header = |kind: u32, offset: u64, len: u64| {
        let address = u64::from(BASE) + offset;
        let words = [offset, address, address, len, len, 4].map(u64::to_le_bytes).concat();
        [&kind.to_le_bytes()[..], &7_u32.to_le_bytes(), &words].concat()
    };
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    elf.extend([u64::from(BASE + CODE), 64, 0].map(u64::to_le_bytes).concat());
    elf.extend([0_u16, 0, 64, 56, 2, 0, 0, 0].map(u16::to_le_bytes).concat());
    elf.extend(header(1, 0, 0x200));
    elf.extend(header(4, 0xb0, 20));
    elf.extend([4, 4, 18, u32::from_le_bytes(*b"Xen\0"), BASE + CODE].map(u32::to_le_bytes).concat());
    for (at, bytes) in [(0x100, &code[..]), (0x180, b"first\r\n"), (0x1a0, b"second\r\n")] {
        elf.resize(at, 0);
        elf.extend(bytes);
    }
    elf.resize(0x200, 0);
    elf
}

fn image(dir: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<String> {
    let path = dir.join(name);
    std::fs::write(&path, bytes)?;
    Ok(path.display().to_string())
}

/// A running `uni logs -f` and what it has printed.
struct Follower {
    child: Child,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
}

impl Follower {
    fn start(daemon: &Daemon, vm: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(bin_dir().join("uni"))
            .arg("--socket")
            .arg(daemon.socket())
            .args(["logs", "-f", "--tail-bytes", "0", vm])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = collect(child.stdout.take().context("stdout")?);
        let err = collect(child.stderr.take().context("stderr")?);
        Ok(Self { child, out, err })
    }

    fn bytes(&self) -> usize {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn errors(&self) -> String {
        String::from_utf8_lossy(&self.err.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let status = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status()?;
        ensure!(status.success(), "kill {signal}");
        Ok(())
    }

    /// Whether what it printed is the pattern from wherever it began, without a hole.
    fn is_unbroken(&self) -> bool {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(shift) = out.first().and_then(|byte| PATTERN.iter().position(|b| b == byte)) else {
            return false;
        };
        out.iter().enumerate().all(|(at, byte)| *byte == PATTERN[(at + shift) % PATTERN.len()])
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&kept);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            to.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
        }
    });
    kept
}

/// User and system time of a process, in ticks of 10 ms (`proc(5)`, fields 14 and 15 of stat).
fn cpu_ticks(pid: u64) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    Ok(fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?)
}

/// CPU of some processes together over a while, in percent of a core.
fn cpu_percent(pids: &[u64], over: Duration) -> anyhow::Result<u64> {
    let sum = || pids.iter().map(|pid| cpu_ticks(*pid)).sum::<anyhow::Result<u64>>();
    let before = sum()?;
    std::thread::sleep(over);
    Ok((sum()? - before) / over.as_secs())
}

/// The console's files of the only VM: where the console ends, and how much of it is on disk.
fn on_disk(daemon: &Daemon) -> anyhow::Result<(u64, u64)> {
    let vms = std::fs::read_dir(daemon.state_dir().join("vms"))?;
    let dir: PathBuf = vms.flatten().next().context("a VM's directory")?.path();
    let (mut end, mut kept) = (0, 0);
    for file in std::fs::read_dir(dir)?.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let start = name.strip_prefix("console.").and_then(|rest| rest.strip_suffix(".log"));
        let (Some(start), Ok(metadata)) = (start.and_then(|s| s.parse::<u64>().ok()), file.metadata()) else {
            continue;
        };
        kept += metadata.len();
        end = end.max(start + metadata.len());
    }
    Ok((end, kept))
}

#[test]
fn a_flood_is_bounded_cheap_and_a_stopped_reader_delays_nobody() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let image = image(state.path(), "flood.img", &boot_sector(PATTERN, true))?;
    daemon.uni_ok(&["run", &image, "--name", "flood", "--memory", "32M"])?;
    let shim = daemon.uni_json(&["inspect", "flood"])?["shim_pid"].as_u64().context("shim_pid")?;
    let both = [shim, u64::from(daemon.pid())];

    let begin = on_disk(&daemon)?.0;
    let alone = cpu_percent(&both, Duration::from_secs(3))?;
    let printed = (on_disk(&daemon)?.0 - begin) / 3 / 1024;
    let (one, two) = (Follower::start(&daemon, "flood")?, Follower::start(&daemon, "flood")?);
    let stopped = Follower::start(&daemon, "flood")?;
    for follower in [&one, &two, &stopped] {
        eventually("the follower's first bytes", || {
            ensure!(follower.bytes() > 64 * 1024, "{} bytes, {}", follower.bytes(), follower.errors());
            Ok(())
        })?;
    }
    stopped.signal("-STOP")?;
    let position = on_disk(&daemon)?.0;
    let followed = cpu_percent(&both, Duration::from_secs(3))?;
    eprintln!(
        "flood of {printed} KiB/s: shim and unid take {alone} % of a core, with two followers {followed} %"
    );
    ensure!(alone <= 25 && followed <= 25, "shim and unid take {alone} %, followed {followed} % of a core");

    // until what the stopped one wanted is no longer kept
    let start = Instant::now();
    while on_disk(&daemon)?.0 < position + LIMIT_BYTES + LIMIT_BYTES / 4 {
        ensure!(start.elapsed() < 3 * black_box::PATIENCE, "the guest prints too slowly for this test");
        let before = (one.bytes(), two.bytes());
        std::thread::sleep(Duration::from_millis(500));
        ensure!(one.bytes() > before.0 && two.bytes() > before.1, "a follower stands still");
        let (_, kept) = on_disk(&daemon)?;
        ensure!(kept <= LIMIT_BYTES, "{kept} bytes of console on disk");
        let asked = Instant::now();
        daemon.uni_json(&["ps"])?;
        ensure!(asked.elapsed() < Duration::from_secs(2), "uni ps took {:?}", asked.elapsed());
    }
    for follower in [&one, &two] {
        ensure!(follower.is_unbroken() && follower.errors().is_empty(), "{}", follower.errors());
    }
    // what the stopped one would ask for now is answered with how much it missed
    let answer = ask(&daemon, "VM.Logs", &serde_json::json!({ "id": "flood", "from": position }))?;
    ensure!(answer["result"]["missed_bytes"].as_u64() > Some(0), "{}", answer["result"]["missed_bytes"]);
    stopped.signal("-CONT")?;

    let stopping = Instant::now();
    daemon.uni_ok(&["stop", "flood", "--force"])?;
    ensure!(stopping.elapsed() < Duration::from_secs(5), "stop took {:?}", stopping.elapsed());
    for mut follower in [one, two] {
        eventually("the followers to end", || follower.child.try_wait()?.context("still running"))?;
        ensure!(follower.is_unbroken(), "the end is torn");
    }
    Ok(())
}

/// One call over the control socket.
fn ask(daemon: &Daemon, method: &str, params: &serde_json::Value) -> anyhow::Result<serde_json::Value> {
    let mut stream = UnixStream::connect(daemon.socket())?;
    stream.set_read_timeout(Some(black_box::PATIENCE))?;
    let request = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    std::io::BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

#[test]
fn a_client_that_does_not_read_its_answers_is_cut_and_counted() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let image = image(state.path(), "flood.img", &boot_sector(PATTERN, true))?;
    daemon.uni_ok(&["run", &image, "--name", "flood", "--memory", "32M"])?;
    eventually("more console than fits into a socket", || {
        let (end, _) = on_disk(&daemon)?;
        ensure!(end > 1024 * 1024, "{end} bytes");
        Ok(())
    })?;
    daemon.uni_ok(&["stop", "flood", "--force"])?;
    let mut silent = UnixStream::connect(daemon.socket())?;
    silent.write_all(
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"VM.Logs\",\"params\":{\"id\":\"flood\"}}\n",
    )?;
    let start = Instant::now();
    let cut = loop {
        let status = daemon.uni_json(&["status"])?;
        if status["cut_clients_total"] == 1 {
            break start.elapsed();
        }
        ensure!(status["cut_clients_total"] == 0 && start.elapsed() < Duration::from_secs(60), "{status}");
        std::thread::sleep(Duration::from_millis(200));
    };
    ensure!(cut > Duration::from_secs(25), "cut after {cut:?} already");
    daemon.logged(&["did not read its answer"])?;
    Ok(())
}

#[test]
fn each_run_is_read_alone_also_after_the_end_and_a_restart() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(&state.path().join("s"), &[])?;
    let image = image(state.path(), "twice.elf", &runs_twice())?;
    daemon.uni_ok(&["run", &image, "--name", "twice", "--memory", "32M"])?;
    let check = |daemon: &Daemon| -> anyhow::Result<()> {
        for (run, text) in [
            ("1", "first"),
            ("previous", "first"),
            ("2", "second"),
            ("last", "second"),
            ("", "first\r\nsecond"),
        ] {
            let logs = daemon.uni_ok(&["logs", "twice", "--run", run])?;
            ensure!(logs == text, "run {run:?}: {logs:?}");
        }
        // a run that is over ends by itself, also for who follows it
        ensure!(daemon.uni_ok(&["logs", "-f", "--run", "previous", "twice"])? == "first");
        for (run, words) in [("7", "runs 1 to 2"), ("first", "`previous`")] {
            let refused = daemon.uni(&["logs", "twice", "--run", run])?;
            let stderr = String::from_utf8_lossy(&refused.stderr);
            ensure!(refused.status.code() == Some(1) && stderr.contains(words), "{stderr}");
        }
        Ok(())
    };
    eventually("both runs", || check(&daemon))?;
    daemon.kill()?;
    daemon.restart()?;
    check(&daemon)?;
    daemon.uni_ok(&["stop", "twice", "--force"])?;
    check(&daemon)?;
    daemon.restart()?;
    check(&daemon)
}

#[test]
fn escape_sequences_reach_a_file_as_they_are_and_a_terminal_as_text() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let hostile = b"\x1b[2J\x1b]0;title\x07\x1b[31mred\x9b31m\x08\r\nend\r\n";
    let image = image(state.path(), "hostile.img", &boot_sector(hostile, false))?;
    daemon.uni_ok(&["run", &image, "--name", "hostile", "--memory", "32M"])?;
    eventually("the guest's words", || {
        let logs = daemon.uni_ok(&["logs", "hostile"])?;
        ensure!(logs.ends_with("end") && logs.contains("\x1b]0;title\x07"), "{logs:?}");
        Ok(())
    })?;
    // script(1) of every Linux gives its command a terminal
    let command =
        format!("{} --socket {} logs hostile", bin_dir().join("uni").display(), daemon.socket().display());
    let output =
        Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output()?;
    let shown = String::from_utf8_lossy(&output.stdout);
    ensure!(shown.contains("^[[2J^[]0;title^G^[[31mred") && shown.contains("end"), "{shown:?}");
    let obeyed = |c: char| c.is_control() && !matches!(c, '\r' | '\n' | '\t');
    ensure!(!shown.contains(obeyed), "{shown:?}");
    Ok(())
}

#[test]
fn a_line_is_shown_to_a_follower_at_once() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let (image, port) = (guest("http").display().to_string(), free_port()?);
    daemon.uni_ok(&["run", &image, "--name", "web", "--memory", "32M", "-p", &format!("{port}:80")])?;
    let follower = Follower::start(&daemon, "web")?;
    let shown = || follower.text().matches("answered 500").count();
    let fail = || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /fail HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains(" 500 "), "{answer:?}");
        Ok(())
    };
    eventually("the follower to follow", || {
        fail()?;
        ensure!(shown() > 0, "nothing shown");
        Ok(())
    })?;
    // what was asked while it did not follow yet may still come
    std::thread::sleep(Duration::from_millis(300));
    let mut took = Vec::new();
    for round in 0..6 {
        let before = shown();
        eventually("an answer of the guest", fail)?;
        let start = Instant::now();
        while shown() <= before {
            ensure!(start.elapsed() < black_box::PATIENCE, "round {round}: {:?}", follower.text());
            std::thread::sleep(Duration::from_millis(1));
        }
        took.push(start.elapsed());
        std::thread::sleep(Duration::from_millis(300));
    }
    took.sort();
    let median = took[took.len() / 2];
    eprintln!("from the guest's answer to the line in `uni logs -f`: {median:?} (median), {took:?}");
    ensure!(median < Duration::from_millis(250), "{took:?}");
    Ok(())
}
