//! A real InfluxDB 1.x beside the real programs, and its HTTP API as a client sees it.
//!
//! Owns the `influxd` it started and its directory; both end with it. The calls take any server that speaks the API,
//! so that the same ones ask `unid`.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{eventually, free_port};

/// A running `influxd` (Debian's package `influxdb`).
#[derive(Debug)]
pub struct Influxd {
    child: Child,
    url: String,
    dir: tempfile::TempDir,
}

impl Influxd {
    /// Starts one on free ports with an empty directory, and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        let (http, rpc) = (free_port()?, free_port()?);
        let child = Command::new("influxd")
            .args(["run", "-config", "/dev/null"])
            .env("INFLUXDB_HTTP_BIND_ADDRESS", format!("127.0.0.1:{http}"))
            .env("INFLUXDB_BIND_ADDRESS", format!("127.0.0.1:{rpc}"))
            .env("INFLUXDB_META_DIR", at("meta"))
            .env("INFLUXDB_DATA_DIR", at("data"))
            .env("INFLUXDB_DATA_WAL_DIR", at("wal"))
            .env("INFLUXDB_REPORTING_DISABLED", "true")
            .env("INFLUXDB_MONITOR_STORE_ENABLED", "false")
            .env("INFLUXDB_HTTP_LOG_ENABLED", "false")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(at("log"))?)
            .spawn()
            .context("start influxd; it is Debian's package influxdb")?;
        let mut influxd = Self { child, url: format!("http://127.0.0.1:{http}"), dir };
        influxd.until_ready()?;
        Ok(influxd)
    }

    fn until_ready(&mut self) -> anyhow::Result<()> {
        let ping = format!("{}/ping", self.url);
        eventually("influxd to answer", || {
            if let Some(status) = self.child.try_wait()? {
                bail!("influxd ended with {status}: {}", log(self.dir.path()));
            }
            Ok(ureq::get(&ping).call().map(drop)?)
        })
    }

    /// `http://address:port`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

impl Drop for Influxd {
    fn drop(&mut self) {
        // best effort: a test is over either way
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes line protocol to database `db` of the server at `url`.
///
/// # Errors
/// On anything but success.
pub fn write(url: &str, db: &str, lines: &str) -> anyhow::Result<()> {
    ureq::post(format!("{url}/write")).query("db", db).send(lines).context("write")?;
    Ok(())
}

/// Asks the server at `url`; times in the answer are in `epoch`'s unit. Errors of InfluxQL are in the answer.
///
/// # Errors
/// On anything but JSON.
pub fn query(url: &str, db: &str, epoch: &str, q: &str) -> anyhow::Result<Value> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let asked = agent.post(format!("{url}/query")).query("db", db).query("epoch", epoch);
    Ok(asked.send_form([("q", q)])?.body_mut().read_json()?)
}

/// Whether two answers are equal, floats to 1e-12 of their size.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}
