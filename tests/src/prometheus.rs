//! A real Prometheus that scrapes with a configuration of the test's.
//!
//! Owns the process; it ends with it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use serde_json::Value;

use crate::free_port;

/// A running Prometheus; dropped, it is ended.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    /// Starts one with its files in `dir`, scraping every second what `scrape_configs` (YAML) says.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn start(dir: &Path, scrape_configs: &str) -> anyhow::Result<Self> {
        let (config, port) = (dir.join("prometheus.yml"), free_port()?);
        std::fs::write(&config, format!("global:\n  scrape_interval: 1s\n{scrape_configs}"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(dir.join("prometheus.log"))?)
            .spawn()
            .context("start prometheus; Debian has it in the package of that name")?;
        Ok(Self { child, port })
    }

    /// The value of the first series that an instant query finds.
    ///
    /// # Errors
    /// When there is none.
    pub fn ask(&self, query: &str) -> anyhow::Result<f64> {
        let url = format!("http://127.0.0.1:{}/api/v1/query", self.port);
        let answer: Value = ureq::get(&url).query("query", query).call()?.body_mut().read_json()?;
        let value = answer["data"]["result"][0]["value"][1].as_str();
        Ok(value.with_context(|| format!("{query}: {answer}"))?.parse()?)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
