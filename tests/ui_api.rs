//! The page's JSON API and the environment it must not tell: shapes, refusals, bounds, hostile bytes, and the OpenAPI
//! document checked by schemathesis.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::{Daemon, boot_sector, eventually, free_port, guest, guests_dir, python};
use serde_json::{Value, json};

/// A tester of APIs by their OpenAPI document.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
/// What no answer may hold.
const SECRET: &str = "hunter2,\"and\" <more>";

/// Status, content type and body of an answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    kind: String,
    allow: String,
    body: String,
}

impl Answer {
    fn json(&self) -> anyhow::Result<Value> {
        ensure!(self.kind == "application/json" && self.body.ends_with('\n'), "{self:?}");
        serde_json::from_str(&self.body).with_context(|| format!("{self:?}"))
    }
}

struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    fn of(daemon: &Daemon) -> anyhow::Result<Self> {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        // a connection each: unid may close one whose request had a body that it did not read
        let config =
            config.max_redirects(0).max_idle_connections(0).timeout_global(Some(black_box::PATIENCE));
        Ok(Self { agent: config.build().into(), base: format!("http://{}", daemon.address("ui")?) })
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let url = format!("{}{path}", self.base);
        let mut request = ureq::http::Request::builder().method(method).uri(&url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = self.agent.run(request.body(())?).context(url)?;
        let header = |name| {
            answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (kind, allow) = (header("content-type"), header("allow"));
        let body = answer.body_mut().with_config().limit(64 << 20).read_to_string()?;
        Ok(Answer { status: answer.status().as_u16(), kind, allow, body })
    }

    fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask("GET", path, &[])
    }

    /// The JSON of a path that must answer 200.
    fn json(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.get(path)?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
        answer.json()
    }

    /// A refusal of this status that says all of `words`.
    fn refused(&self, path: &str, status: u16, words: &[&str]) -> anyhow::Result<()> {
        let answer = self.get(path)?;
        let error = answer.json()?["error"].as_str().unwrap_or_default().to_owned();
        ensure!(answer.status == status, "{path}: {answer:?}");
        for word in words {
            ensure!(error.contains(word), "{path} does not say {word:?}: {error}");
        }
        Ok(())
    }
}

fn run(daemon: &Daemon, image: &Path, name: &str, more: &[&str]) -> anyhow::Result<String> {
    let image = image.display().to_string();
    daemon.uni_ok(&[&["run", &image, "--name", name, "--memory", "32M"], more].concat())
}

#[test]
fn the_api_has_the_shapes_of_the_contract() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let client = Client::of(&daemon)?;
    ensure!(client.get("/ui/api/vms")?.body == "[]\n");
    let port = free_port()?;
    let image = guests_dir().join("http.elf");
    let id = run(&daemon, &image, "web", &["-p", &format!("{port}:80"), "-e", "MODE=prod"])?;
    let image = image.display().to_string();

    let listed = client.get("/ui/api/vms")?;
    let expected = json!([{ "id": id, "name": "web", "state": "running", "image": image, "health": "" }]);
    ensure!(listed.json()? == expected && !listed.body.contains("\": "), "{listed:?}");

    for name in [&id, "web", &id[..5]] {
        let vm = client.json(&format!("/ui/api/vm/{name}"))?;
        for (key, value) in [
            ("id", json!(id)),
            ("name", json!("web")),
            ("state", json!("running")),
            ("image", json!(image)),
            ("memory", json!("32M")),
            ("cpus", json!(1)),
            ("health", json!("-")),
            ("restart_policy", json!("")),
            ("restart_count", json!(0)),
            ("stopped_at", json!("")),
            ("ip_address", json!("")),
            ("gateway_ip", json!("")),
            ("env", json!(["MODE=prod"])),
        ] {
            ensure!(vm[key] == value, "{key}: {vm}");
        }
        ensure!(
            vm["created_at"].as_str().is_some_and(|time| time.len() >= 20 && !time.contains('.')),
            "{vm}"
        );
        let published = &vm["ports"][0];
        ensure!(
            published["host_port"] == port && published["guest_port"] == 80 && published["protocol"] == "tcp",
            "{vm}"
        );
    }

    let stats = eventually("figures of the process", || {
        let stats = client.json("/ui/api/vm/web/stats")?;
        ensure!(stats["source"] == "proc", "{stats}");
        Ok(stats)
    })?;
    ensure!(
        stats["id"] == json!(id) && stats["state"] == "running" && stats["cpu_pct"].is_number(),
        "{stats}"
    );
    for key in ["mem_bytes", "net_rx_bytes", "net_tx_bytes"] {
        ensure!(stats[key].is_u64(), "{key}: {stats}");
    }
    let logs = eventually("the console", || {
        let logs = client.json("/ui/api/vm/web/logs")?;
        ensure!(logs["logs"].as_str().is_some_and(|text| text.contains("serving HTTP")), "{logs}");
        Ok(logs)
    })?;
    ensure!(logs["id"] == json!(id) && logs.as_object().is_some_and(|keys| keys.len() == 2), "{logs}");
    let text = logs["logs"].as_str().unwrap_or_default();
    let tail = client.json("/ui/api/vm/web/logs?tail=10")?;
    ensure!(text.ends_with(tail["logs"].as_str().unwrap_or("?")), "{tail}");

    run(&daemon, &guest("plain"), "bare", &[])?;
    let bare = client.json("/ui/api/vm/bare")?;
    ensure!(bare.get("env").is_none() && bare.get("ports").is_none(), "{bare}");
    Ok(())
}

#[test]
fn pages_stand_where_the_contract_says_and_tell_the_facts_without_javascript() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let client = Client::of(&daemon)?;
    ensure!(client.get("/ui")?.body.contains("No VMs registered"));
    let id = run(&daemon, &guest("plain"), "web", &["-e", "MODE=a<b>c"])?;
    let root = client.get("/")?;
    ensure!(root.status == 307, "{root:?}");
    for path in ["/ui", "/ui/"] {
        let page = client.get(path)?;
        ensure!(page.status == 200 && page.kind == "text/html; charset=utf-8", "{page:?}");
        ensure!(page.body.contains("<title>Uni — Dashboard</title>"), "{page:?}");
        ensure!(page.body.contains(&format!("<a href=\"/ui/vm/{id}\">{id}</a>")), "{page:?}");
    }
    for name in [&id, "web", &id[..6]] {
        let page = client.get(&format!("/ui/vm/{name}"))?;
        ensure!(page.status == 200 && page.kind == "text/html; charset=utf-8", "{page:?}");
        ensure!(page.body.contains(&format!("<title>Uni — VM {id}</title>")), "{page:?}");
        for element in ["stat-cpu", "stat-mem", "stat-rx", "stat-tx", "stat-source"] {
            ensure!(page.body.contains(&format!("id=\"{element}\"")), "{element}: {page:?}");
        }
        ensure!(page.body.contains("<li>MODE=a&lt;b&gt;c</li>") && !page.body.contains("a<b>"), "{page:?}");
    }
    let unknown = client.get("/ui/vm/nobody")?;
    ensure!(unknown.status == 404 && unknown.body == "vm not found\n", "{unknown:?}");
    ensure!(unknown.kind.starts_with("text/plain"), "{unknown:?}");
    ensure!(client.get("/nothing")?.status == 404 && client.get("/ui/nothing")?.status == 404);
    Ok(())
}

#[test]
fn what_cannot_be_answered_is_refused_in_json() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let client = Client::of(&daemon)?;
    run(&daemon, &guest("plain"), "web", &[])?;
    for path in [
        "/ui/api/vm/nobody",
        "/ui/api/vm/nobody/stats",
        "/ui/api/vm/nobody/logs?tail=abc",
        "/ui/api/vm/%2e%2e",
    ] {
        let answer = client.get(path)?;
        ensure!(
            answer.status == 404 && answer.body == "{\"error\":\"vm not found\"}\n",
            "{path}: {answer:?}"
        );
        answer.json()?;
    }
    for path in ["/ui/api/nothing", "/ui/api/vm/web/nothing", "/ui/api/vm/web/stats/more"] {
        client.refused(path, 404, &[path, "no such path"])?;
    }
    let most = 4 * 1024 * 1024;
    for tail in ["abc", "-1", "1.5", "", "99999999999999999999999", &(most + 1).to_string()] {
        let words = [&*format!("tail={tail}"), "0 to 4194304"];
        client.refused(&format!("/ui/api/vm/web/logs?tail={tail}"), 400, &words)?;
    }
    client.refused("/ui/api/vm/web/logs?tail=1&tail=2", 400, &["tail"])?;
    client.refused("/ui/api/vm/web/console?tail=2000000", 400, &["tail=2000000", "0 to 1048576"])?;
    client.refused("/ui/api/vm/web/charts?seconds=0", 400, &["seconds=0", "60 to"])?;
    client.refused("/ui/api/vm/%ff", 400, &["UTF-8"])?;
    client.json(&format!("/ui/api/vm/web/logs?tail={most}"))?;

    for (method, path) in [
        ("POST", "/ui/api/vms"),
        ("DELETE", "/ui/api/vm/web"),
        ("PUT", "/ui/vm/web"),
        ("OPTIONS", "/ui"),
        ("PATCH", "/ui/api/overview"),
    ] {
        let answer = client.ask(method, path, &[])?;
        ensure!(
            answer.status == 405 && answer.allow.contains("GET") && answer.allow.contains("HEAD"),
            "{answer:?}"
        );
        ensure!(answer.json()?["error"].as_str().is_some_and(|error| error.contains("GET")), "{answer:?}");
    }
    for path in ["/ui", "/ui/vm/web", "/ui/api/vms", "/ui/api/vm/web/logs?tail=4194304"] {
        let head = client.ask("HEAD", path, &[])?;
        ensure!(
            head.status == 200 && head.body.is_empty() && head.kind == client.get(path)?.kind,
            "{head:?}"
        );
    }
    ensure!(client.ask("HEAD", "/ui/api/vm/nobody", &[])?.status == 404);
    ensure!(daemon.uni_json(&["inspect", "web"])?["state"] == "running");
    let log = daemon.log().join("\n");
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

#[test]
fn other_sites_are_refused_by_host_and_origin() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let client = Client::of(&daemon)?;
    for path in ["/ui", "/ui/api/vms", "/ui/api/openapi.json"] {
        let foreign = client.ask("GET", path, &[("host", "evil.example.com")])?;
        ensure!(foreign.status == 403 && foreign.body.starts_with("this server answers to"), "{foreign:?}");
        ensure!(client.ask("GET", path, &[("host", "localhost:1")])?.status == 200);
    }
    let from_elsewhere = client.ask("POST", "/ui/api/vms", &[("origin", "http://evil.example.com")])?;
    ensure!(from_elsewhere.status == 403, "{from_elsewhere:?}");
    Ok(())
}

#[test]
fn the_beginning_of_several_ids_is_told_from_none() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    // records as an older daemon left them
    for id in ["aaaa00000001", "aaaa00000002"] {
        let dir = state.path().join("vms").join(id);
        std::fs::create_dir_all(&dir)?;
        let record = json!({
            "id": id, "state": "stopped", "created_at": "2026-05-15T21:40:02.118349201+02:00",
            "config": {
                "ImagePath": "/nonexistent/<b>disk</b>.img", "Memory": "256M", "CPUs": 1, "Name": format!("vm-{id}"),
                "Env": ["API_KEY=hunter2", "MODE=prod"], "Restart": { "Policy": "on-failure", "MaxRetries": 5 },
                "CPUShares": 512, "MemoryMax": 1_073_741_824, "DiskIOPS": 1000, "DiskBPS": 10_485_760,
            },
        });
        std::fs::write(dir.join("state.json"), record.to_string())?;
    }
    let daemon = Daemon::start(state.path(), &[])?;
    let client = Client::of(&daemon)?;
    client.refused("/ui/api/vm/aaaa", 409, &["aaaa", "several"])?;
    ensure!(client.get("/ui/vm/aaaa")?.status == 409);
    let vm = client.json("/ui/api/vm/aaaa00000002")?;
    ensure!(vm["restart_policy"] == "on-failure" && vm["env"] == json!(["API_KEY=***", "MODE=prod"]), "{vm}");
    let limits =
        json!({ "cpu_shares": 512, "memory_max": 1_073_741_824, "disk_iops": 1000, "disk_bps": 10_485_760 });
    ensure!(vm["limits"] == limits, "{vm}");
    let page = client.get("/ui")?.body;
    ensure!(page.contains("/nonexistent/&lt;b&gt;disk&lt;/b&gt;.img") && !page.contains("<b>disk"), "{page}");
    Ok(())
}

#[test]
fn console_bytes_come_as_text_and_a_flood_is_cut_to_its_end() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let client = Client::of(&daemon)?;
    let image = |name: &str, text: &[u8], for_ever| -> anyhow::Result<_> {
        let path = state.path().join(name);
        std::fs::write(&path, boot_sector(text, for_ever))?;
        Ok(path)
    };
    let hostile = b"</noscript><script>alert(1)</script>\x1b[31m\xff\xfe caf\xc3\xa9 \"\\\x01\r\nend\r\n";
    run(&daemon, &image("hostile.img", hostile, false)?, "hostile", &[])?;
    let expected = String::from_utf8_lossy(hostile).into_owned();
    ensure!(expected.matches('\u{fffd}').count() == 2);
    eventually("the console's text", || {
        let logs = client.json("/ui/api/vm/hostile/logs")?;
        ensure!(logs["logs"].as_str().is_some_and(|text| text.ends_with(&expected)), "{logs}");
        Ok(())
    })?;
    let page = client.get("/ui/vm/hostile")?.body;
    ensure!(
        page.contains("&lt;/noscript&gt;&lt;script&gt;alert(1)") && !page.contains("<script>alert"),
        "{page}"
    );
    ensure!(!page.contains('\x1b'), "{page}");

    run(&daemon, &image("flood.img", b"0123456789abcdef\r\n", true)?, "flood", &[])?;
    eventually("a console longer than the default tail", || {
        let long = client.json("/ui/api/vm/flood/logs?tail=4194304")?;
        let length = long["logs"].as_str().unwrap_or_default().len();
        ensure!(length > 100_000, "{length} bytes");
        Ok(())
    })?;
    let tail = client.json("/ui/api/vm/flood/logs")?;
    let text = tail["logs"].as_str().unwrap_or_default();
    ensure!(text.len() <= 65_536 && text.len() > 65_536 - 4, "{} bytes", text.len());
    let five = client.json("/ui/api/vm/flood/logs?tail=5")?;
    ensure!(five["logs"].as_str().is_some_and(|text| text.len() == 5), "{five}");
    Ok(())
}

/// The image of a disk whose boot sector prints on COM1 what QEMU's fw_cfg has in its first 32 files.
fn fw_cfg_printer() -> Vec<u8> {
    // cli; cld; mov bx, 0x20; next file: mov ax, bx; mov dx, 0x510; out dx, ax; mov cx, 256
    let mut sector = vec![0xfa, 0xfc, 0xbb, 0x20, 0x00, 0x89, 0xd8, 0xba, 0x10, 0x05, 0xef, 0xb9, 0x00, 0x01];
    // next byte: mov dx, 0x511; in al, dx; mov dx, 0x3f8; out dx, al; loop next byte
    sector.extend([0xba, 0x11, 0x05, 0xec, 0xba, 0xf8, 0x03, 0xee, 0xe2, 0xf6]);
    // inc bx; cmp bx, 0x40; jne next file; hlt; jmp -3
    sector.extend([0x43, 0x83, 0xfb, 0x40, 0x75, 0xe7, 0xf4, 0xeb, 0xfd]);
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

#[test]
fn the_environment_reaches_the_guest_whole_and_in_order() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let disk = state.path().join("disk.img");
    std::fs::write(&disk, fw_cfg_printer())?;
    let file = state.path().join("env");
    std::fs::write(&file, "# the file comes after the flags\n\nMODE=file\r\nURL=http://u:p@h/?a=b,c\n")?;
    let file = file.display().to_string();
    run(&daemon, &disk, "disk", &["-e", "MODE=flag", "--env", "LIST=a,b,,c=\"d\" 'é'", "--env-file", &file])?;
    eventually("the environment on the console", || {
        let logs = daemon.uni_ok(&["logs", "disk"])?;
        let expected = "MODE=flag\nLIST=a,b,,c=\"d\" 'é'\nMODE=file\nURL=http://u:p@h/?a=b,c";
        ensure!(logs.replace('\r', "").contains(expected), "{} bytes of console", logs.len());
        Ok(())
    })?;
    let env = &daemon.uni_json(&["inspect", "disk"])?["env"];
    ensure!(*env == json!(["MODE=flag", "LIST=a,b,,c=\"d\" 'é'", "MODE=file", "URL=***"]), "{env}");
    Ok(())
}

#[test]
fn a_secret_of_the_environment_is_shown_nowhere() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--log-level", "debug"])?;
    let client = Client::of(&daemon)?;
    let secret = |name: &str| format!("{name}={SECRET}");
    run(
        &daemon,
        &guest("hello"),
        "one",
        &["-e", &secret("DB_PASSWORD"), "-e", &secret("api_token"), "-e", "MODE=prod"],
    )?;
    let mut shown = daemon.uni_ok(&["inspect", "one"])?;
    ensure!(
        shown.contains("DB_PASSWORD=***") && shown.contains("api_token=***") && shown.contains("MODE=prod"),
        "{shown}"
    );
    for path in [
        "/ui",
        "/ui/vm/one",
        "/ui/api/vms",
        "/ui/api/vm/one",
        "/ui/api/vm/one/logs",
        "/ui/api/vm/one/stats",
        "/ui/api/vm/one/charts",
        "/ui/api/vm/one/console",
        "/ui/api/overview",
    ] {
        shown += &client.get(path)?.body;
    }
    for args in [&["ps"][..], &["status"], &["logs", "one"], &["stats", "one"]] {
        shown += &daemon.uni_ok(args)?;
    }
    // refusals repeat no value either
    for bad in [secret("1BAD"), secret("BAD") + "\nX=1", SECRET.replace('=', "")] {
        let output = daemon.uni(&["run", &guest("hello").display().to_string(), "-e", &bad])?;
        ensure!(output.status.code() == Some(1), "{bad:?} was taken");
        shown += &String::from_utf8_lossy(&output.stderr);
    }
    let vm = daemon.uni_json(&["inspect", "one"])?;
    let record =
        daemon.state_dir().join("vms").join(vm["id"].as_str().unwrap_or_default()).join("state.json");
    ensure!(std::fs::read_to_string(record)?.contains("hunter2"), "the record alone has it");
    let pid = vm["pid"].to_string();
    shown += &String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline"))?);
    shown += &daemon.log().join("\n");
    ensure!(!shown.contains("hunter2"), "the secret is in {shown}");
    Ok(())
}

#[test]
fn environments_that_guests_cannot_have_are_refused() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let image = guest("hello").display().to_string();
    let file = state.path().join("bad.env");
    std::fs::write(&file, "A=1\nno value\n")?;
    let (file, long) = (file.display().to_string(), format!("A={}", "x".repeat(70_000)));
    for (args, words) in [
        (["-e", "A"], "environment entry 1 has no \"=\""),
        (["-e", "=x"], "a name is letters, digits and _"),
        (["-e", "A-B=x"], "environment variable \"A-B\""),
        (["-e", "A=b\nC=d"], "environment variable \"A\" holds a line end"),
        (["-e", &long], "at most 65536"),
        (["--env-file", &file], "bad.env: line 2 is neither KEY=VALUE nor a comment"),
        (["--env-file", "/nonexistent/env"], "/nonexistent/env: No such file"),
    ] {
        let output = daemon.uni(&[&["run", &image][..], &args].concat())?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1) && stderr.contains(words), "{words:?}: {stderr}");
    }
    let many: Vec<String> = (0..1025).flat_map(|n| ["-e".to_owned(), format!("V{n}=x")]).collect();
    let args: Vec<&str> = ["run", &image].into_iter().chain(many.iter().map(String::as_str)).collect();
    let output = daemon.uni(&args)?;
    ensure!(String::from_utf8_lossy(&output.stderr).contains("at most 1024"), "{output:?}");
    ensure!(daemon.uni_json(&["ps"])? == json!([]));
    Ok(())
}

#[test]
fn schemathesis_finds_no_answer_that_the_document_does_not_describe() -> anyhow::Result<()> {
    let python = python::venv(&[SCHEMATHESIS])?;
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    run(&daemon, &guest("http"), "web", &["-e", "MODE=prod"])?;
    let base = format!("http://{}", daemon.address("ui")?);
    let config = |id: &str| -> anyhow::Result<String> {
        let path = state.path().join("schemathesis.toml");
        std::fs::write(&path, id)?;
        Ok(path.display().to_string())
    };
    // of the VM there is, then of whatever it makes up
    for (text, examples) in [("[parameters]\n\"path.id\" = \"web\"\n", "10"), ("", "10")] {
        let start = Instant::now();
        let output = Command::new(&python)
            .args(["-m", "schemathesis.cli", "--config-file", &config(text)?, "run"])
            .arg(format!("{base}/ui/api/openapi.json"))
            .args(["--url", &base, "--max-examples", examples, "--generation-deterministic", "--no-color"])
            .args(["--exclude-path-regex", "stream$", "--request-timeout", "30"])
            .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"])
            .current_dir(state.path())
            .output()
            .context("start schemathesis")?;
        let report = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && report.contains("Tested: 14"),
            "{report}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        ensure!(start.elapsed() < Duration::from_secs(120), "it took {:?}", start.elapsed());
    }
    Ok(())
}
