//! The harness: starts the real `unid` on a state directory of its own and drives the real `uni`.
//!
//! Owns processes it started (all are ended with it) and free ports. Shared by the black-box tests and by
//! `cargo xtask demo`. Never looks inside a program: it uses what a user has.

pub mod by_hand;
pub mod control;
pub mod crash;
pub mod influxd;
pub mod line_sink;
pub mod otlp;
pub mod overheard;
pub mod prometheus;
pub mod python;
pub mod rsyslog;

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// How long anything here may take before it is called stuck. Software emulation on a busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where the built programs are: `UNI_BIN_DIR`, else `target/release` of this checkout.
#[must_use]
pub fn bin_dir() -> PathBuf {
    std::env::var_os("UNI_BIN_DIR").map_or_else(|| workspace().join("target/release"), PathBuf::from)
}

/// Where the guests are: `UNI_GUESTS_DIR`, else `target/guests` of this checkout.
#[must_use]
pub fn guests_dir() -> PathBuf {
    std::env::var_os("UNI_GUESTS_DIR").map_or_else(|| workspace().join("target/guests"), PathBuf::from)
}

/// The image of a guest.
#[must_use]
pub fn guest(name: &str) -> PathBuf {
    guests_dir().join(format!("{name}.elf"))
}

/// The checkout's root.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new(".")).to_path_buf()
}

/// A TCP port of the loopback that was free a moment ago.
///
/// # Errors
/// When the machine has none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A UDP port of the loopback that was free a moment ago.
///
/// # Errors
/// When the machine has none.
pub fn free_udp_port() -> anyhow::Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Asks `check` again and again until it gives a value.
///
/// # Errors
/// After [`PATIENCE`], with `what` was waited for and the last reason why it was not there.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > PATIENCE => {
                return Err(error.context(format!("waited {PATIENCE:?} for {what}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The image of a disk whose boot sector prints `text` (at most 480 bytes, no NUL) on COM1, once or for ever.
#[must_use]
pub fn boot_sector(text: &[u8], for_ever: bool) -> Vec<u8> {
    // 16-bit code at 0x7c00: cli; cld; xor ax, ax; mov ds, ax; mov dx, 0x3f8
    let mut sector = vec![0xfa, 0xfc, 0x31, 0xc0, 0x8e, 0xd8, 0xba, 0xf8, 0x03];
    // again: mov si, text; next: lodsb; test al, al; jz end (or again); out dx, al; jmp next; end: hlt; jmp end
    let end = if for_ever { 0xf8 } else { 0x03 };
    let at = u16::try_from(0x7c00 + sector.len() + 14).unwrap_or(0);
    let [low, high] = at.to_le_bytes();
    sector.extend([0xbe, low, high, 0xac, 0x84, 0xc0, 0x74, end, 0xee, 0xeb, 0xf8, 0xf4, 0xeb, 0xfd]);
    sector.extend(text);
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// Listeners that a daemon has on free ports unless its flags say otherwise.
const LISTENERS: [&str; 4] = ["--line-addr", "--syslog-addr", "--api-addr", "--ui-addr"];

/// A running `unid`; dropped, it and its VMs are ended.
#[derive(Debug)]
pub struct Daemon {
    state_dir: PathBuf,
    /// Where `unid` is to find the state directory by itself.
    home: Option<PathBuf>,
    flags: Vec<String>,
    child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Starts `unid` on `state_dir` with free ports and `flags` after them, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start; with its log.
    pub fn start(state_dir: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_in(state_dir.to_path_buf(), None, flags)
    }

    /// Starts `unid` for a user whose home directory is `home`: its state is in `~/.uni`.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_at_home(home: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_in(home.join(".uni"), Some(home.to_path_buf()), flags)
    }

    /// Starts `unid` with `flag` (`--metrics-addr`, ...) on `:port`, or on a free one if another program has that.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_at(state_dir: &Path, flag: &str, port: u16) -> anyhow::Result<Self> {
        Self::start(state_dir, &[flag, &format!(":{port}")])
            .or_else(|_| Self::start(state_dir, &[flag, ":0"]))
    }

    fn start_in(state_dir: PathBuf, home: Option<PathBuf>, flags: &[&str]) -> anyhow::Result<Self> {
        let mut daemon = Self {
            state_dir,
            home,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            child: None,
            log: Arc::default(),
        };
        daemon.spawn()?;
        Ok(daemon)
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join("unid.sock")
    }

    /// The state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// `unid`'s process id, 0 when it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Kills `unid` with SIGKILL; its VMs go on.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends `unid` as an operator does, with SIGTERM, and says how it ended; its VMs go on.
    ///
    /// # Errors
    /// When it does not end.
    pub fn terminate(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let pid = self.pid().to_string();
        let sent = Command::new("sh").args(["-c", "kill -TERM $0", &pid]).status()?;
        ensure!(sent.success(), "SIGTERM to {pid}: {sent}");
        let mut child = self.child.take().context("unid does not run")?;
        let ended = eventually("unid to end", || child.try_wait()?.context("it still runs"));
        if ended.is_err() {
            self.child = Some(child);
        }
        ended
    }

    /// Starts `unid` again on the same state directory (other free ports).
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.spawn()
    }

    /// The same with other flags.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn restart_with(&mut self, flags: &[&str]) -> anyhow::Result<()> {
        self.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        self.restart()
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let program = bin_dir().join("unid");
        let mut command = Command::new(&program);
        match &self.home {
            Some(home) => command.env("HOME", home).env_remove("UNI_STATE_DIR"),
            None => command.arg("--state-dir").arg(&self.state_dir),
        };
        for listener in LISTENERS.iter().filter(|&&flag| !self.flags.iter().any(|given| given == flag)) {
            command.args([listener, "127.0.0.1:0"]);
        }
        let mut child = command
            .arg("--socket")
            .arg(self.socket())
            .args(&self.flags)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C at a terminal goes to a whole process group: whoever runs us ends unid in order
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}; build it with `cargo xtask build`", program.display()))?;
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&self.log);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            });
        }
        self.child = Some(child);
        let ended = eventually("unid to answer on its control socket", || {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_none() {
                self.uni_json(&["status"])?;
            }
            Ok(ended)
        })?;
        if let Some(status) = ended {
            // the reader of stderr may still be at it
            std::thread::sleep(Duration::from_millis(50));
            bail!("unid ended with {status}: {}", self.log().join("\n"));
        }
        Ok(())
    }

    /// What `unid` has written to stderr so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first line of the log that holds all of `words`. `unid` writes its log by a thread of its own, so a line may come
    /// a moment after the answer it tells of.
    ///
    /// # Errors
    /// When none came.
    pub fn logged(&self, words: &[&str]) -> anyhow::Result<String> {
        eventually(&format!("a log line with {words:?}"), || {
            let log = self.log();
            let line = log.iter().find(|line| words.iter().all(|word| line.contains(word))).cloned();
            line.with_context(|| format!("{log:#?}"))
        })
    }

    /// The address that `unid` announced for a listener (`line`, `api`, `ui`, `metrics`).
    ///
    /// # Errors
    /// When it announced none.
    pub fn address(&self, what: &str) -> anyhow::Result<String> {
        let prefix = format!("listening {what} ");
        eventually(&format!("the line {prefix:?}"), || {
            let log = self.log();
            let address = log.iter().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned);
            address.with_context(|| format!("unid's log: {log:#?}"))
        })
    }

    /// Runs `uni` with `args` against this daemon.
    ///
    /// # Errors
    /// When the program cannot be started; its failure is in the output.
    pub fn uni(&self, args: &[&str]) -> anyhow::Result<Output> {
        let program = bin_dir().join("uni");
        Command::new(&program)
            .arg("--socket")
            .arg(self.socket())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start {}", program.display()))
    }

    /// Runs `uni` and gives its stdout, trimmed.
    ///
    /// # Errors
    /// When it fails, with its stderr.
    pub fn uni_ok(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.uni(args)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "uni {args:?}: {} {}", output.status, stderr.trim());
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Runs `uni` with `--output json`.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub fn uni_json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.uni_ok(&[&["--output", "json"], args].concat())?;
        serde_json::from_str(&text).with_context(|| format!("uni {args:?} printed {text:?}"))
    }

    /// GETs a path of a listener.
    ///
    /// # Errors
    /// On anything but 200.
    pub fn get(&self, listener: &str, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{}{path}", self.address(listener)?);
        Ok(ureq::get(&url).call().with_context(|| url.clone())?.body_mut().read_to_string()?)
    }

    /// Asks `/query` on database `uni`, times in milliseconds.
    ///
    /// # Errors
    /// On anything but 200 and JSON.
    pub fn query(&self, q: &str) -> anyhow::Result<Value> {
        let url = format!("http://{}/query", self.address("api")?);
        let mut answer = ureq::get(&url).query("db", "uni").query("epoch", "ms").query("q", q).call()?;
        let answer: Value = answer.body_mut().read_json()?;
        if let Some(error) = answer["results"][0]["error"].as_str() {
            bail!("{q}: {error}");
        }
        Ok(answer)
    }

    /// The rows of the first series of the answer to `q`.
    ///
    /// # Errors
    /// When there is none.
    pub fn rows(&self, q: &str) -> anyhow::Result<Vec<Vec<Value>>> {
        let mut answer = self.query(q)?;
        let rows = answer.pointer_mut("/results/0/series/0/values").map(Value::take).unwrap_or_default();
        serde_json::from_value(rows).with_context(|| format!("no rows: {q}: {answer}"))
    }

    /// The second column of the first row of the answer to `q`.
    ///
    /// # Errors
    /// When there is none, or it is no number.
    pub fn number(&self, q: &str) -> anyhow::Result<f64> {
        let rows = self.rows(q)?;
        rows.first().and_then(|row| row.get(1)?.as_f64()).with_context(|| format!("no number: {q}: {rows:?}"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_none() && self.spawn().is_err() {
            return;
        }
        // best effort: a failing test must not leave guests behind
        if let Ok(Value::Array(vms)) = self.uni_json(&["ps"]) {
            for id in vms.iter().filter(|vm| vm["state"] != "stopped").filter_map(|vm| vm["id"].as_str()) {
                let _ = self.uni(&["stop", id, "--force"]);
            }
        }
        let _ = self.kill();
    }
}
