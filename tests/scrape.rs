//! A guest's metrics as it tells them to Prometheus (TCP 9464 of its management link), fetched by `uni metrics --scrape`:
//! a real guest, judged by `promtool` and by a real Prometheus; and guests that have none.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::prometheus::Prometheus;
use black_box::{Daemon, boot_sector, eventually, free_port, guest};

fn run(daemon: &Daemon, image: &str, name: &str, flags: &[&str], args: &[&str]) -> anyhow::Result<()> {
    let image = guest(image).display().to_string();
    daemon.uni_ok(&[&["run", &image, "--name", name, "--memory", "32M"], flags, &["--"], args].concat())?;
    Ok(())
}

/// The value of the first series of this name.
fn value(exposition: &str, name: &str) -> anyhow::Result<f64> {
    let line = exposition.lines().find(|line| line.starts_with(&format!("{name}{{")));
    let line = line.with_context(|| format!("no {name}: {exposition}"))?;
    Ok(line.split_whitespace().nth(1).with_context(|| line.to_owned())?.parse()?)
}

/// Promtool's complaints, less those about names, which are the guest's measurements.
fn faults(exposition: &str) -> anyhow::Result<Vec<String>> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start promtool; Debian has it in the package prometheus")?;
    promtool.stdin.take().context("stdin")?.write_all(exposition.as_bytes())?;
    let complaints = String::from_utf8(promtool.wait_with_output()?.stderr)?;
    let is_fault = |line: &&str| line.contains("error") || line.contains("parsing");
    Ok(complaints.lines().filter(is_fault).map(str::to_owned).collect())
}

#[test]
fn a_guests_exposition_comes_over_its_management_link() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let port = free_port()?;
    run(&daemon, "http", "web", &["-p", &format!("{port}:80")], &["--interval=1"])?;
    run(&daemon, "hello", "moved", &[], &["--metrics-port=9100"])?;
    // as it is printed, which is trimmed here, and its last line end
    let scrape = |vm: &str| Ok(daemon.uni_ok(&["metrics", vm, "--scrape"])? + "\n");
    let first = eventually("an exposition", || scrape("web"))?;
    ensure!(first.contains("# TYPE ") && first.contains("vm=\"web\""), "{first}");
    ensure!(faults(&first)?.is_empty(), "{:?}: {first}", faults(&first)?);

    // it is of now: what was asked in between shows
    let before = value(&first, "http_response_2xx_total")?;
    for _ in 0..5 {
        eventually("an answer", || Ok(ureq::get(format!("http://127.0.0.1:{port}/")).call()?))?;
    }
    let now = value(&scrape("web")?, "http_response_2xx_total")?;
    ensure!(now >= before + 5.0, "{before} and then {now}");

    let json = daemon.uni_json(&["metrics", "web", "--scrape"])?;
    ensure!(
        json["guest"] == "web" && json["text"].as_str().is_some_and(|text| text.ends_with('\n')),
        "{json}"
    );
    eventually("a guest with another port", || scrape("moved"))?;

    // twelve at one time, of which eight may wait
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            (0..12).map(|_| scope.spawn(|| daemon.uni(&["metrics", "web", "--scrape"]))).collect();
        for asked in asked {
            let output = asked.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            let complaint = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success() || complaint.contains("busy"), "{complaint}");
        }
        Ok::<_, anyhow::Error>(())
    })?;
    daemon.uni_ok(&["log-level", "web"]).map(drop)
}

/// As an operator wires it up where the guest cannot be reached: the exposition as a file that is served.
#[test]
fn a_real_prometheus_takes_what_is_printed() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    run(&daemon, "hello", "web", &[], &["--interval=1"])?;
    let text = eventually("an exposition", || daemon.uni_ok(&["metrics", "web", "--scrape"]))? + "\n";
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let served = text.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(served.as_bytes()));
        }
    });
    let config =
        format!("scrape_configs:\n- job_name: guest\n  static_configs:\n  - targets: ['{address}']\n");
    let prometheus = Prometheus::start(state.path(), &config)?;
    let series = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    eventually("Prometheus to take all of it", || {
        let taken = prometheus.ask("scrape_samples_scraped")?;
        #[expect(clippy::cast_precision_loss, reason = "some dozens")]
        let all = series as f64;
        ensure!((taken - all).abs() < 0.5, "{taken} of {series}");
        Ok(())
    })
}

#[test]
fn guests_without_metrics_are_told_and_hold_up_nobody() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let image = state.path().join("mute.img");
    std::fs::write(&image, boot_sector(b"no network", false))?;
    daemon.uni_ok(&["run", &image.display().to_string(), "--name", "mute"])?;
    run(&daemon, "hello", "off", &[], &["--metrics-port=0"])?;
    let fails = |args: &[&str], words: &[&str]| -> anyhow::Result<()> {
        let start = Instant::now();
        let output = daemon.uni(args)?;
        let complaint = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{args:?}: {complaint}");
        ensure!(words.iter().all(|word| complaint.contains(word)), "{args:?}: {complaint}");
        ensure!(start.elapsed() < Duration::from_secs(7), "it took {:?}", start.elapsed());
        Ok(())
    };
    eventually("the guest to answer", || daemon.uni_ok(&["metrics", "off"]).map(drop))?;
    fails(
        &["metrics", "off", "--scrape"],
        &["off", "refuses connections to its TCP port 9464", "--metrics-port=0"],
    )?;
    fails(&["metrics", "mute", "--scrape"], &["mute", "in time"])?;
    fails(&["metrics", "nosuch", "--scrape"], &["vm \"nosuch\" not found"])?;
    fails(&["metrics", "m*", "--scrape"], &["one VM"])?;
    daemon.uni_ok(&["stop", "off", "--force"])?;
    fails(&["metrics", "off", "--scrape"], &["stopped"])?;
    let output = daemon.uni(&["metrics", "off", "gc:off", "--scrape"])?;
    ensure!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("--scrape"),
        "{output:?}"
    );
    Ok(())
}
