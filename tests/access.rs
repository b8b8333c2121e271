//! Who may reach the HTTP listeners and how: loopback, TLS, tokens, shared addresses, and what a bad flag gets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::{bin_dir, eventually, free_port};
use serde_json::Value;

const TOKEN: &str = "correct-horse-battery-staple";

/// A `unid` with the flags of the test and no others; dropped, it is ended.
struct Unid {
    child: Child,
    socket: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
}

fn command(state: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(bin_dir().join("unid"));
    command.arg("--state-dir").arg(state.join("s")).args(flags);
    for flag in ["--line-addr", "--syslog-addr"] {
        if !flags.contains(&flag) {
            command.args([flag, ""]);
        }
    }
    command.stdin(Stdio::null());
    command
}

impl Unid {
    fn start(state: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let socket = state.join("unid.sock");
        let mut child = command(state, flags).arg("--socket").arg(&socket).stderr(Stdio::piped()).spawn()?;
        let log = Arc::<Mutex<Vec<String>>>::default();
        let (stderr, lines) = (child.stderr.take().context("its stderr")?, Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let this = Self { child, socket, log };
        // the control socket is announced last
        this.logged("listening control ")?;
        Ok(this)
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The rest of the first line that begins with `prefix`.
    fn logged(&self, prefix: &str) -> anyhow::Result<String> {
        eventually(prefix, || {
            let log = self.log();
            let rest = log.iter().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
            rest.with_context(|| format!("{log:#?}"))
        })
    }

    /// `127.0.0.1:PORT` of a listener, wherever it is bound.
    fn address(&self, what: &str) -> anyhow::Result<String> {
        Ok(self.logged(&format!("listening {what} "))?.replace("0.0.0.0", "127.0.0.1"))
    }

    fn status(&self) -> anyhow::Result<Value> {
        let mut uni = Command::new(bin_dir().join("uni"));
        let output = uni.arg("--socket").arg(&self.socket).args(["--output", "json", "status"]).output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Drop for Unid {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `unid`, which must end with status 1 and a message that holds all of `words`.
fn refused(state: &Path, flags: &[&str], words: &[&str]) -> anyhow::Result<()> {
    let socket = state.join("unid.sock");
    let mut command = command(state, flags);
    if !flags.contains(&"--socket") {
        command.arg("--socket").arg(socket);
    }
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let ended = eventually("unid to refuse", || child.try_wait()?.context("it runs"));
    let _ = child.kill();
    let mut stderr = String::new();
    child.stderr.take().context("its stderr")?.read_to_string(&mut stderr)?;
    ensure!(ended?.code() == Some(1), "{flags:?}: {stderr}");
    for word in words {
        ensure!(stderr.contains(word), "{flags:?} does not say {word:?}: {stderr}");
    }
    ensure!(!stderr.contains(TOKEN), "the token is in the message: {stderr}");
    Ok(())
}

fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<String> {
    let path = dir.join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

#[test]
fn what_cannot_be_listened_on_is_named_with_its_flag_and_a_way_out() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let dir = state.path();
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    for flag in ["--api-addr", "--ui-addr", "--metrics-addr"] {
        refused(dir, &[flag, "0.0.0.0:0"], &[flag, "--tls-cert", "--token-file", "loopback"])?;
        let api_off: &[&str] = if flag == "--api-addr" { &[] } else { &["--api-addr", ""] };
        refused(dir, &[&[flag, &taken], api_off].concat(), &[flag, &taken, ":0 for a free one"])?;
        refused(dir, &[flag, "nonsense"], &[flag, "nonsense", "127.0.0.1:PORT"])?;
    }
    let off = ["--api-addr", ""];
    refused(
        dir,
        &[&off[..], &["--line-addr", &taken]].concat(),
        &["--line-addr", &taken, ":0 for a free one"],
    )?;
    // below the ports that `:0` picks from, so that the TCP port of the same number is free
    let held = (20_000..30_000)
        .find_map(|port| std::net::UdpSocket::bind(("127.0.0.1", port)).ok())
        .context("a UDP port")?;
    let half = held.local_addr()?.to_string();
    refused(
        dir,
        &[&off[..], &["--line-addr", &half]].concat(),
        &["--line-addr", &half, "udp", ":0 for a free one"],
    )?;
    refused(dir, &[&off[..], &["--line-addr", "0.0.0.0:0"]].concat(), &["--line-addr", "loopback"])?;
    let missing = dir.join("no/such/dir/unid.sock").display().to_string();
    refused(dir, &[&off[..], &["--socket", &missing]].concat(), &["--socket", &missing, "directory"])?;
    let file = write(dir, "file", "")?;
    refused(dir, &[&off[..], &["--socket", &file]].concat(), &[&file, "not a socket"])?;
    Ok(())
}

#[test]
fn tokens_and_certificates_that_are_no_good_end_the_start() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let dir = state.path();
    let missing = dir.join("missing").display().to_string();
    let short = write(dir, "short", "too-short\n")?;
    let spaced = write(dir, "spaced", "sixteen letters and spaces\n")?;
    for file in [&missing, &short, &spaced] {
        refused(dir, &["--token-file", file], &["--token-file", file])?;
    }
    let (cert, key) = certificate(dir, "a")?;
    let (_, other_key) = certificate(dir, "b")?;
    let empty = write(dir, "empty.pem", "nothing\n")?;
    refused(dir, &["--tls-cert", &cert], &["--tls-key"])?;
    refused(dir, &["--tls-cert", &missing, "--tls-key", &key], &["--tls-cert", &missing])?;
    refused(dir, &["--tls-cert", &empty, "--tls-key", &key], &["--tls-cert", &empty, "no certificate"])?;
    refused(dir, &["--tls-cert", &cert, "--tls-key", &missing], &["--tls-key", &missing])?;
    refused(dir, &["--tls-cert", &cert, "--tls-key", &empty], &["--tls-key", &empty, "no private key"])?;
    refused(dir, &["--tls-cert", &cert, "--tls-key", &other_key], &[&cert, &other_key, "belong together"])?;
    ensure!(!dir.join("s").exists(), "something was left behind");
    Ok(())
}

#[test]
fn flags_with_one_address_share_a_listener() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let shared = format!("127.0.0.1:{}", free_port()?);
    let flags = ["--api-addr", &shared, "--ui-addr", &shared, "--metrics-addr", &shared];
    let unid = Unid::start(state.path(), &flags)?;
    for what in ["api", "ui", "metrics"] {
        ensure!(unid.address(what)? == shared);
    }
    let get = |path: &str| -> anyhow::Result<String> {
        Ok(ureq::get(format!("http://{shared}{path}")).call()?.body_mut().read_to_string()?)
    };
    ensure!(get("/health")? == "ok");
    // the connections of the requests before may still be ending
    eventually("only this request's connection", || {
        ensure!(get("/metrics")?.contains("uni_http_connections{listener=\"api+ui+metrics\"} 1"));
        Ok(())
    })?;
    ensure!(get("/query?q=SHOW+DATABASES")?.contains("uni"));
    ensure!(get("/ui/api/vms")? == "[]\n");
    let status = unid.status()?;
    let announced = status["listeners"].as_array().context("listeners")?;
    let of = |what: &str| announced.iter().find(|listener| listener["what"] == what);
    ensure!(
        ["api", "ui", "metrics"].iter().all(|what| of(what).is_some_and(|l| l["address"] == *shared)),
        "{status}"
    );
    drop(unid);

    let free = ["--api-addr", ":0", "--ui-addr", ":0", "--metrics-addr", ":0"];
    let unid = Unid::start(state.path(), &free)?;
    let (api, ui, metrics) = (unid.address("api")?, unid.address("ui")?, unid.address("metrics")?);
    ensure!(api != ui && ui != metrics && api != metrics, "{api} {ui} {metrics}");
    let health = ureq::get(format!("http://{api}/health")).call()?.body_mut().read_to_string()?;
    ensure!(health.contains("influxdb"), "{health}");
    Ok(())
}

/// Status, body and `WWW-Authenticate` of a GET.
fn get(url: &str, header: Option<(&str, &str)>) -> anyhow::Result<(u16, String, String)> {
    let mut request = ureq::get(url).config().http_status_as_error(false).build();
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let mut answer = request.call().with_context(|| url.to_owned())?;
    let asked = answer.headers().get("WWW-Authenticate").and_then(|value| value.to_str().ok());
    let asked = asked.unwrap_or_default().to_owned();
    Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?, asked))
}

#[test]
fn beyond_loopback_every_request_needs_the_token() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let file = write(state.path(), "token", &format!("  {TOKEN} \nnot part of it\n"))?;
    let flags = [
        "--api-addr",
        "0.0.0.0:0",
        "--ui-addr",
        "0.0.0.0:0",
        "--metrics-addr",
        "0.0.0.0:0",
        "--token-file",
        &file,
    ];
    let unid = Unid::start(state.path(), &flags)?;
    ensure!(
        unid.log().iter().any(|line| line.contains("level=WARN") && line.contains("chmod 0600")),
        "{:?}",
        unid.log()
    );
    let url =
        |what: &str, path: &str| Ok::<_, anyhow::Error>(format!("http://{}{path}", unid.address(what)?));
    let metrics = url("metrics", "/metrics")?;
    let query = url("api", "/query?q=SHOW+DATABASES")?;
    let page = url("ui", "/ui/api/vms")?;

    let (unparsed, failed) = (
        "{\"error\":\"unable to parse authentication credentials\"}\n",
        "{\"error\":\"authorization failed\"}\n",
    );
    for (address, text, asked) in [
        (&metrics, failed, "Bearer"),
        (&query, unparsed, "Bearer"),
        (&page, failed, "Basic realm=\"uni\", charset=\"UTF-8\""),
        (&url("ui", "/ui")?, failed, "Basic realm=\"uni\", charset=\"UTF-8\""),
    ] {
        let (status, body, asks) = get(address, None)?;
        ensure!((status, &*body, &*asks) == (401, text, asked), "{address}: {status} {body} {asks}");
    }
    let (status, body, _) = get(&query, Some(("Authorization", "Bearer wrong-wrong-wrong-wrong")))?;
    ensure!((status, &*body) == (401, failed), "{status} {body}");
    ensure!(get(&format!("{query}&u=any&p=wrong"), None)?.0 == 401);
    let posted = ureq::post(url("api", "/write?db=uni")?)
        .config()
        .http_status_as_error(false)
        .build()
        .send("m f=1")?;
    ensure!(posted.status() == 401, "{posted:?}");

    // printf 'any:TOKEN' | base64
    let basic = "Basic YW55OmNvcnJlY3QtaG9yc2UtYmF0dGVyeS1zdGFwbGU=";
    for given in [&format!("Bearer {TOKEN}"), &format!("Token {TOKEN}"), &format!("Token any:{TOKEN}"), basic]
    {
        for address in [&metrics, &query, &page] {
            let (status, body, _) = get(address, Some(("Authorization", given)))?;
            ensure!(status == 200, "{address} with {given}: {status} {body}");
        }
    }
    ensure!(get(&format!("{query}&u=any&p={TOKEN}"), None)?.0 == 200);
    ensure!(get(&url("api", "/ping")?, None)?.0 == 204);
    ensure!(get(&url("api", "/health")?, None)?.0 == 200 && get(&url("metrics", "/health")?, None)?.0 == 200);
    // a name of this host that it does not know: the token is what counts
    let by_name = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: unid.example:9090", "-H"])
        .args([&format!("Authorization: Bearer {TOKEN}"), &metrics])
        .output()?;
    ensure!(by_name.stdout == b"200", "{by_name:?}");
    // a page of another site may not write, even in a browser that knows the token
    let posted = ureq::post(url("api", "/write?db=uni")?)
        .config()
        .http_status_as_error(false)
        .build()
        .header("Authorization", basic)
        .header("Origin", "http://evil.example")
        .send("m f=1")?;
    ensure!(posted.status() == 403, "{posted:?}");

    let refusals = |text: &str| {
        text.lines().find_map(|line| line.strip_prefix("uni_http_unauthorized_total ")?.parse::<u64>().ok())
    };
    let text = get(&metrics, Some(("Authorization", basic)))?.1;
    ensure!(refusals(&text) == Some(7), "{:?}", refusals(&text));

    // a new token, and one that is no good
    std::fs::write(&file, "another-good-token-0123456789\n")?;
    eventually("the new token to be taken", || {
        ensure!(get(&metrics, Some(("Authorization", "Bearer another-good-token-0123456789")))?.0 == 200);
        Ok(())
    })?;
    ensure!(get(&metrics, Some(("Authorization", basic)))?.0 == 401);
    std::fs::write(&file, "short\n")?;
    eventually("the warning about the bad token", || {
        ensure!(
            unid.log().iter().any(|line| line.contains("level=WARN") && line.contains("the old one stays"))
        );
        Ok(())
    })?;
    ensure!(get(&metrics, Some(("Authorization", "Bearer another-good-token-0123456789")))?.0 == 200);
    let log = unid.log().join("\n");
    ensure!(!log.contains(TOKEN) && !log.contains("another-good"), "{log}");
    Ok(())
}

/// A self-signed certificate for loopback and its key, as files.
fn certificate(dir: &Path, name: &str) -> anyhow::Result<(String, String)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let cert = write(dir, &format!("{name}.crt"), &made.cert.pem())?;
    Ok((cert, write(dir, &format!("{name}.key"), &made.signing_key.serialize_pem())?))
}

/// Body of a GET by curl that trusts `cert` alone.
fn curl(cert: &str, url: &str, more: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new("curl").args(["-sS", "--max-time", "20", "--cacert", cert, url]).args(more).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn under_tls_nobody_waits_for_anothers_handshake_and_certificates_are_renewed() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let dir = state.path();
    let (cert, key) = certificate(dir, "a")?;
    let flags = ["--api-addr", "", "--metrics-addr", "0.0.0.0:0", "--tls-cert", &cert, "--tls-key", &key];
    let unid = Unid::start(dir, &flags)?;
    let address = unid.address("metrics")?;
    let url = format!("https://{}/health", address.replace("127.0.0.1", "localhost"));
    ensure!(curl(&cert, &url, &[])? == "ok");
    let version =
        curl(&cert, &url, &["--http2", "--tls-max", "1.2", "-o", "/dev/null", "-w", "%{http_version}"])?;
    ensure!(version == "1.1", "{version}");
    ensure!(curl(&cert, &url, &["--tlsv1.3"])? == "ok");
    let (stranger, _) = certificate(dir, "stranger")?;
    ensure!(curl(&stranger, &url, &[]).is_err(), "a stranger's certificate was trusted");

    // plain HTTP: closed in order, without rubbish
    let mut plain = TcpStream::connect(&address)?;
    plain.set_read_timeout(Some(Duration::from_secs(5)))?;
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).context("the connection was reset")?;
    ensure!(answer.is_empty(), "{answer:?}");

    // clients that never finish, or never begin, their handshake
    let mut dawdlers: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(&address)).collect::<Result<_, _>>()?;
    for dawdler in dawdlers.iter_mut().step_by(2) {
        dawdler.write_all(&[22, 3, 1])?;
    }
    let start = Instant::now();
    ensure!(curl(&cert, &url, &[])? == "ok");
    ensure!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());

    // renewed on disk, first the certificate alone, which does not fit the old key
    let (new_cert, new_key) = certificate(dir, "new")?;
    std::fs::copy(&new_cert, &cert)?;
    eventually("the warning about the half renewal", || {
        ensure!(
            unid.log().iter().any(|line| line.contains("level=WARN") && line.contains("the old one stays"))
        );
        Ok(())
    })?;
    ensure!(curl(&new_cert, &url, &[]).is_err(), "the new certificate is used with the old key");
    std::fs::copy(&new_key, &key)?;
    eventually("the new certificate", || curl(&new_cert, &url, &[]).map(drop))?;
    // ten seconds after they came, the dawdlers are let go
    for dawdler in &mut dawdlers {
        dawdler.set_read_timeout(Some(Duration::from_secs(15)))?;
        let mut rest = Vec::new();
        let _ = dawdler.read_to_end(&mut rest).context("a dawdler is kept")?;
    }
    let text = curl(&new_cert, &url.replace("health", "metrics"), &[])?;
    let prefix = "uni_http_refused_connections_total{listener=\"metrics\",reason=\"handshake\"} ";
    let refused: Option<u64> = text.lines().find_map(|line| line.strip_prefix(prefix)?.parse().ok());
    // the dawdlers and the one with plain HTTP; those who did not trust the certificate come on top
    ensure!(refused.is_some_and(|refused| refused >= 41), "{refused:?}");
    Ok(())
}
