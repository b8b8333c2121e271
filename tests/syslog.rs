//! Syslog into `unid` from `logger`, `rsyslogd`, guests and senders that behave badly; `uni logs --source syslog`; and
//! `rsyslogd` as the sink of a guest.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use black_box::by_hand::{MACHINES, Qemu};
use black_box::rsyslog::Rsyslogd;
use black_box::{Daemon, bin_dir, eventually, free_port, free_udp_port, guest};
use serde_json::Value;

const ADDRESSES: &str =
    "--name=web --ipv4=10.0.2.15/24 --ipv4-gateway=10.0.2.2 --management-ipv4=10.0.3.15/24";

/// The messages of `vm` that `flags` ask for.
fn messages(daemon: &Daemon, vm: &str, flags: &[&str]) -> anyhow::Result<Vec<Value>> {
    let answer = daemon.uni_json(&[&["logs", vm, "--source", "syslog"], flags].concat())?;
    answer.as_array().cloned().with_context(|| format!("no array: {answer}"))
}

fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().filter_map(|message| message["message"].as_str()).collect()
}

/// Waits for the message with `text` of `vm`.
fn arrived(daemon: &Daemon, vm: &str, text: &str) -> anyhow::Result<Value> {
    eventually(text, || {
        let all = messages(daemon, vm, &[])?;
        let found = all.iter().find(|message| message["message"] == text).cloned();
        found.with_context(|| format!("{all:#?}"))
    })
}

/// A counter of `uni status`.
fn counted(daemon: &Daemon, counter: &str) -> anyhow::Result<u64> {
    let status = daemon.uni_json(&["status"])?;
    status["ingest"][counter].as_u64().with_context(|| format!("no {counter}: {status}"))
}

/// This machine's name as programs here put it into their messages.
fn host() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(name.trim().to_owned())
}

/// Sends a message as the host `web`, which is no VM here.
fn send(daemon: &Daemon, message: &str) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.send_to(message.as_bytes(), daemon.address("syslog-udp")?)?;
    Ok(())
}

#[test]
fn logger_speaks_both_formats_over_both_transports() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--metrics-addr", ":0"])?;
    let address = daemon.address("syslog")?;
    ensure!(daemon.address("syslog-udp")? == address, "one port for both");
    let port = address.rsplit_once(':').context("a port")?.1;
    let ways: [(&str, &[&str]); 6] = [
        ("udp 3164", &["-d", "--rfc3164"]),
        ("udp 5424", &["-d", "--rfc5424"]),
        ("tcp 3164", &["-T", "--rfc3164"]),
        ("tcp 5424", &["-T", "--rfc5424"]),
        ("tcp 3164 counted", &["-T", "--rfc3164", "--octet-count"]),
        ("tcp 5424 counted", &["-T", "--rfc5424", "--octet-count"]),
    ];
    let host = host()?;
    for (text, flags) in ways {
        let sent = Command::new("logger")
            .args(["-n", "127.0.0.1", "-P", port, "-p", "daemon.warning", "-t", "probe", "--id=42"])
            .args(flags)
            .args(["--", text])
            .status()
            .context("start logger (Debian package bsdutils)")?;
        ensure!(sent.success(), "logger {flags:?}: {sent}");
        let message = arrived(&daemon, &host, text)?;
        ensure!(message["severity"] == "warning" && message["facility_code"] == 3, "{message}");
        ensure!(message["appname"] == "probe" && message["procid"] == "42", "{message}");
        ensure!(message["hostname"].as_str() == Some(&host), "{message}");
        let data = message["structured_data"].as_str().unwrap_or_default();
        ensure!(text.contains("3164") || data.starts_with("[timeQuality tzKnown=\"1\""), "{message}");
    }
    ensure!(counted(&daemon, "syslog_messages_total")? == 6);
    let metrics = daemon.get("metrics", "/metrics")?;
    ensure!(metrics.contains("\nuni_ingest_syslog_messages_total 6\n"), "{metrics}");
    Ok(())
}

#[test]
fn rsyslogd_forwards_over_both_transports() -> anyhow::Result<()> {
    let (state, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let daemon = Daemon::start(state.path(), &[])?;
    let (_, port) = daemon
        .address("syslog")?
        .rsplit_once(':')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .context("a port")?;
    let forms = [
        ("tcp", "protocol=\"tcp\" TCP_Framing=\"octet-counted\" template=\"RSYSLOG_SyslogProtocol23Format\""),
        ("lines", "protocol=\"tcp\" template=\"RSYSLOG_TraditionalForwardFormat\""),
        ("udp", "protocol=\"udp\" template=\"RSYSLOG_ForwardFormat\""),
    ];
    for (name, form) in forms {
        let inlet = free_udp_port()?;
        let _relay = Rsyslogd::start(
            dir.path(),
            &format!(
                "module(load=\"imudp\")\ninput(type=\"imudp\" address=\"127.0.0.1\" port=\"{inlet}\")\n\
                 action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{port}\" {form})\n"
            ),
        )?;
        let source = UdpSocket::bind("127.0.0.1:0")?;
        let text = format!("through {name}");
        let message = format!("<11>1 2024-06-08T09:05:07.25Z relayed-{name} app 7 ID - {text}");
        eventually(&text, || {
            // sent again until the relay listens
            source.send_to(message.as_bytes(), ("127.0.0.1", inlet))?;
            let all = messages(&daemon, &format!("relayed-{name}"), &[])?;
            let found = all.iter().find(|message| message["message"] == text.as_str()).cloned();
            let found = found.with_context(|| format!("{all:#?}"))?;
            ensure!(found["severity"] == "err" && found["appname"] == "app", "{found}");
            ensure!(found["procid"] == "7", "{found}");
            // the traditional format has neither year nor zone: that is stamped at arrival
            let own_time =
                found["time"].as_str().is_some_and(|time| time.starts_with("2024-06-08T09:05:07.25"));
            ensure!(own_time == (name != "lines"), "{found}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_guest_writes_to_rsyslogd_in_both_formats_over_every_transport() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let ways = [("rfc3164", "udp"), ("rfc5424", "udp"), ("rfc3164", "tcp-newline"), ("rfc5424", "tcp")];
    for (format, transport) in ways {
        let (input, port) =
            if transport == "udp" { ("imudp", free_udp_port()?) } else { ("imtcp", free_port()?) };
        let sink = Rsyslogd::start(
            dir.path(),
            &format!(
                "module(load=\"{input}\")\ninput(type=\"{input}\" address=\"127.0.0.1\" port=\"{port}\")\n\
                 template(name=\"parts\" type=\"string\" \
                 string=\"%syslogfacility-text%.%syslogseverity-text%|%hostname%|%app-name%|%timereported:::date-rfc3339%|%msg:::sp-if-no-1st-sp%%msg%\\n\")\n\
                 action(type=\"omfile\" file=\"DIR/out\" template=\"parts\")\n"
            ),
        )?;
        let args = format!(
            "{ADDRESSES} --syslog=10.0.3.2:{port} --syslog-format={format} --syslog-transport={transport}"
        );
        let management = format!("net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:{}-:2323", free_port()?);
        let _guest = Qemu::boot(dir.path(), MACHINES[0], "hello", &management, &args)?;
        eventually("messages of the guest in rsyslogd's file", || {
            let out = sink.written("out");
            let line = out.lines().find(|line| line.starts_with("daemon.info|web|runtime|"));
            let line = line.with_context(|| format!("{format} {transport}: {out}"))?;
            let parts: Vec<&str> = line.split('|').collect();
            ensure!(parts.len() == 5 && parts[3].starts_with("20") && parts[4].len() > 5, "{format}: {line}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_vms_messages_are_its_own_whatever_it_or_others_say() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let image = guest("hello").display().to_string();
    let run = |name: &str, args: &[&str]| {
        daemon.uni_ok(&[&["run", &image, "--name", name, "--memory", "32M"], args].concat())
    };
    run("greeter", &["--", "--syslog=10.99.0.1"])?;
    let liar = ["--no-add-name", "--", "--name=greeter", "--syslog=10.99.0.1"];
    let addresses = ["--ipv4=10.0.2.15/24", "--management-ipv4=10.99.0.2/24"];
    run("liar", &[&liar[..], &addresses].concat())?;
    for vm in ["greeter", "liar"] {
        eventually(vm, || {
            let all = messages(&daemon, vm, &["--level", "info"])?;
            ensure!(all.iter().any(|message| message["appname"] == "runtime"), "{all:?}");
            ensure!(all.iter().all(|message| message["hostname"] == "greeter"), "{all:?}");
            Ok(())
        })?;
    }
    eventually("the corrections to be counted", || {
        ensure!(counted(&daemon, "renamed_points_total")? > 0);
        Ok(())
    })?;
    // a sender on loopback does not speak for a VM that is run here
    send(&daemon, "<11>1 - greeter forged - - - I am the greeter")?;
    eventually("the forged message, under nobody's name", || {
        let rows = daemon.rows("SELECT message, vm FROM syslog WHERE appname = 'forged'")?;
        ensure!(rows.len() == 1 && rows[0][2].is_null(), "{rows:?}");
        Ok(())
    })?;
    let all = messages(&daemon, "greeter", &[])?;
    ensure!(!texts(&all).contains(&"I am the greeter"), "{all:?}");
    // who follows sees the end
    let mut follower = Command::new(bin_dir().join("uni"))
        .arg("--socket")
        .arg(daemon.socket())
        .args(["logs", "greeter", "--source", "syslog", "--follow"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(follower.stdout.take().context("its stdout")?).lines();
    let first = lines.next().context("a line")??;
    ensure!(first.contains("Z info    ") && first.contains(": "), "{first}");
    daemon.uni_ok(&["stop", "greeter"])?;
    let ended = eventually("the follower to end", || follower.try_wait()?.context("it goes on"))?;
    ensure!(ended.success(), "{ended}");
    Ok(())
}

#[test]
fn messages_are_filtered_and_shown_harmlessly() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    // one clock tick for all: none may take another's place
    for (priority, text) in
        [(11, "first"), (12, "no answer from 1"), (12, "no answer from 2"), (14, "fine"), (15, "step")]
    {
        send(&daemon, &format!("<{priority}>1 2024-06-08T09:05:07Z web dns - - - {text}"))?;
        arrived(&daemon, "web", text)?;
    }
    send(&daemon, "<12>late: \x1b[2J\u{202e}x\0\n")?;
    send(&daemon, "<12>Jun  8 09:05:07 web late: \x1b[2J\u{202e}x\ny\0\n")?;
    eventually("the last one", || {
        ensure!(messages(&daemon, "web", &[])?.len() == 6);
        Ok(())
    })?;
    let shown = |flags: &[&str]| -> anyhow::Result<Vec<String>> {
        let all = messages(&daemon, "web", flags)?;
        Ok(texts(&all).into_iter().map(str::to_owned).collect())
    };
    let old = ["first", "no answer from 1", "no answer from 2", "fine", "step"];
    ensure!(shown(&[])?[..5] == old, "{:?}", shown(&[])?);
    ensure!(shown(&["--level", "warning"])?.len() == 4);
    ensure!(shown(&["--level", "error"])? == ["first"]);
    ensure!(shown(&["--grep", "answer from [2-9]$"])? == ["no answer from 2"]);
    ensure!(shown(&["--since", "1h"])?.len() == 1, "only the one stamped at arrival");
    ensure!(shown(&["--tail", "3", "--level", "info"])?[..2] == ["no answer from 2", "fine"]);
    ensure!(shown(&["--tail", "0"])?.is_empty());
    let table = daemon.uni_ok(&["logs", "web", "--source", "syslog"])?;
    let lines: Vec<&str> = table.lines().collect();
    ensure!(lines[0] == "2024-06-08T09:05:07.000Z err     dns: first", "{table}");
    ensure!(lines[5].ends_with("Z warning late: ^[[2J<U+202E>x^Jy"), "{table}");
    let refused: [(&[&str], &str); 12] = [
        (&["--source", "console"], "whose console"),
        (&["web", "--word", "x"], "--source syslog"),
        (&["web", "--until", "1h"], "--source syslog"),
        (&[], "VM"),
        (&["web", "--source", "syslog", "--grep", "("], "pattern"),
        (&["web", "--source", "syslog", "--level", "loud"], "warning"),
        (&["web", "--source", "syslog", "--run", "last"], "--source console"),
        (&["web", "--source", "syslog", "--tail-bytes", "9"], "--source console"),
        (&["web", "--source", "syslog", "--tail", "100001"], "100000"),
        (&["web", "--level", "err"], "--source syslog"),
        (&["web", "--since", "1h"], "--source syslog"),
        (&["nobody", "--source", "syslog"], "nobody"),
    ];
    for (args, word) in refused {
        let output = daemon.uni(&[&["logs"], args].concat())?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && stderr.contains(word), "{args:?}: {stderr}");
    }
    Ok(())
}

#[test]
fn who_follows_sees_what_arrives_whatever_its_time() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    send(&daemon, "<12>1 2024-06-08T09:05:07Z web app - - - before")?;
    arrived(&daemon, "web", "before")?;
    let mut follower = Command::new(bin_dir().join("uni"))
        .arg("--socket")
        .arg(daemon.socket())
        .args(["logs", "web", "--source", "syslog", "-f", "--level", "warning", "--output", "json"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(follower.stdout.take().context("its stdout")?).lines();
    let mut next = || -> anyhow::Result<String> {
        let message: Value = serde_json::from_str(&lines.next().context("it ended")??)?;
        Ok(message["message"].as_str().unwrap_or_default().to_owned())
    };
    ensure!(next()? == "before");
    for text in ["<12>1 2024-06-08T09:05:09Z web app - - - newer", "<14>1 - web app - - - below the level"] {
        send(&daemon, text)?;
    }
    ensure!(next()? == "newer");
    send(&daemon, "<12>1 2023-06-08T09:05:08Z web app - - - older")?;
    send(&daemon, "<12>1 - else app - - - another host's")?;
    ensure!(next()? == "older");
    send(&daemon, "<12>web app - - - no header")?;
    send(&daemon, "<12>1 - web app - - - last")?;
    ensure!(next()? == "last");
    follower.kill()?;
    follower.wait()?;
    Ok(())
}

#[test]
fn many_messages_come_whole_and_in_order() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let mut stream = TcpStream::connect(daemon.address("syslog")?)?;
    let mut expected = Vec::new();
    for n in 0..2500 {
        // two series, one second: pages end between them
        let (severity, text) = (11 + n % 2, format!("message {n}"));
        writeln!(stream, "<{severity}>1 2024-06-08T09:05:07Z web app - - - {text}")?;
        expected.push(text);
    }
    eventually("all of them", || {
        let all = messages(&daemon, "web", &[])?;
        ensure!(texts(&all) == expected, "{} of {}", all.len(), expected.len());
        Ok(())
    })?;
    let tail = messages(&daemon, "web", &["--tail", "1500"])?;
    ensure!(texts(&tail) == expected[1000..], "{}", tail.len());
    Ok(())
}

#[test]
fn bad_senders_are_counted_and_harm_nobody() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let address = daemon.address("syslog")?;
    // half a frame each, and silence
    let mut slow = Vec::new();
    for n in 0..100 {
        let mut stream = TcpStream::connect(&address)?;
        stream.write_all(if n % 2 == 0 { b"40 <13>1 - web half" } else { b"<13>1 - web ha" })?;
        slow.push(stream);
    }
    // garbage, bytes that are no text among it, and a line without end
    let mut garbage = TcpStream::connect(&address)?;
    garbage.write_all(b"\x00\xff\xfe<999>\n99999999999999 <1>\n<13>1 - web raw - - - a\xffb\n")?;
    let mut endless = TcpStream::connect(&address)?;
    endless.write_all(b"<13>1 - web endless - - - ")?;
    for _ in 0..64 {
        endless.write_all(&[b'x'; 64 * 1024])?;
    }
    endless.write_all(b"\n<13>1 - web endless - - - after\n")?;
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    for datagram in [&[b'u'; 20_000][..], b"", b"\n\0", b"<", b"<13>"] {
        udp.send_to(datagram, daemon.address("syslog-udp")?)?;
    }
    send(&daemon, "<13>1 - web good - - - still here")?;
    arrived(&daemon, "web", "still here")?;
    arrived(&daemon, "web", "after")?;
    arrived(&daemon, "web", "a\\xffb")?;
    let all = messages(&daemon, "web", &["--grep", "^x+$"])?;
    ensure!(texts(&all)[0].len() == 8192 - "<13>1 - web endless - - - ".len(), "cut at the limit");
    // the endless line and the long datagram
    ensure!(counted(&daemon, "syslog_truncated_total")? == 2);
    drop(slow);
    eventually("the broken frames to be counted", || {
        ensure!(counted(&daemon, "syslog_truncated_total")? == 52);
        Ok(())
    })?;
    // the others still hold a place each; let them go first
    drop((garbage, endless));
    let many: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(&address)).collect::<Result<_, _>>()?;
    eventually("the refusals to be counted", || {
        ensure!(counted(&daemon, "syslog_refused_connections_total")? >= 44);
        Ok(())
    })?;
    drop(many);
    eventually("a newcomer's message, now that there is room", || {
        let mut newcomer = TcpStream::connect(&address)?;
        newcomer.write_all(b"<13>1 - web new - - - newcomer\n")?;
        std::thread::sleep(std::time::Duration::from_millis(100));
        let all = messages(&daemon, "web", &["--grep", "newcomer"])?;
        ensure!(!all.is_empty());
        Ok(())
    })
}

#[test]
fn under_tls_messages_are_counted_in_octets() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let path = |name: &str| state.path().join(name).display().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let tls = ["--tls-cert", &cert, "--tls-key", &key, "--api-addr", "", "--syslog-tls-addr", ":0"];
    let daemon = Daemon::start(&state.path().join("s"), &tls)?;
    let address = daemon.address("syslog-tls")?;
    let text = "<11>1 2024-06-08T09:05:07Z secured app - - - two\nlines";
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-CAfile", &cert, "-connect", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start openssl")?;
    let mut stdin = client.stdin.take().context("its stdin")?;
    write!(stdin, "{} {text}", text.len())?;
    let came = arrived(&daemon, "secured", "two\nlines");
    drop(stdin);
    client.kill()?;
    client.wait()?;
    came?;
    // clear text is refused, and counted
    TcpStream::connect(&address)?.write_all(b"<11>1 - secured app - - - in clear\n")?;
    eventually("the refusal to be counted", || {
        ensure!(counted(&daemon, "syslog_refused_connections_total")? == 1);
        Ok(())
    })?;
    ensure!(messages(&daemon, "secured", &[])?.len() == 1);
    Ok(())
}

#[test]
fn the_listener_is_refused_beyond_loopback_and_says_when_its_port_is_taken() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    let no_certificate = Daemon::start(&state.path().join("tls"), &["--syslog-tls-addr", ":0"]);
    let refusal = format!("{:#}", no_certificate.err().context("it started")?);
    ensure!(refusal.contains("--syslog-tls-addr") && refusal.contains("--tls-cert"), "{refusal}");
    for (address, words) in [
        ("0.0.0.0:0", ["--syslog-addr", "loopback"]),
        (taken.as_str(), ["--syslog-addr", ":0 for a free one"]),
    ] {
        let output = Command::new(bin_dir().join("unid"))
            .arg("--state-dir")
            .arg(state.path())
            .arg("--socket")
            .arg(state.path().join("unid.sock"))
            .args(["--line-addr", "", "--api-addr", "", "--syslog-addr", address])
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{address}: {:?} {stderr}", output.status);
        ensure!(words.iter().all(|word| stderr.contains(word)), "{address}: {stderr}");
    }
    Ok(())
}

#[test]
fn a_guests_lines_are_found_after_a_restart_by_vm_word_level_time_and_pattern() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &[])?;
    let image = guest("hello").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", "greeter", "--memory", "32M", "--", "--syslog=10.99.0.1"])?;
    eventually("lines of the guest", || {
        ensure!(!messages(&daemon, "greeter", &["--level", "info"])?.is_empty());
        Ok(())
    })?;
    send(&daemon, "<11>1 2024-06-08T09:05:07Z web dns - - - No ANSWER from 10.0.0.7: gave up")?;
    arrived(&daemon, "web", "No ANSWER from 10.0.0.7: gave up")?;
    daemon.uni_ok(&["stop", "greeter", "--force"])?;
    let before = messages(&daemon, "greeter", &[])?;
    daemon.terminate()?;
    drop(daemon);
    let daemon = Daemon::start(state.path(), &[])?;
    ensure!(messages(&daemon, "greeter", &[])? == before, "{before:?}");
    let text = before[0]["message"].as_str().context("a text")?;
    let word =
        text.split(|c: char| !c.is_ascii_alphanumeric()).max_by_key(|word| word.len()).context("a word")?;
    ensure!(word.len() > 3, "{text}");
    let first = |flags: &[&str]| -> anyhow::Result<bool> {
        Ok(messages(&daemon, "greeter", flags)?.contains(&before[0]))
    };
    ensure!(first(&["--word", &word.to_uppercase()])? && first(&["--regex", &word[1..]])?, "{word}");
    ensure!(!first(&["--word", &word[1..]])? && !first(&["--word", word, "--word", "zebra"])?, "{word}");
    ensure!(first(&["--since", "1h"])? && !first(&["--until", "1h"])? && !first(&["--level", "emerg"])?);
    let old = |flags: &[&str]| -> anyhow::Result<usize> { Ok(messages(&daemon, "web", flags)?.len()) };
    ensure!(old(&["--until", "1h", "--word", "no answer", "--level", "err"])? == 1);
    ensure!(old(&["--word", "answe"])? == 0 && old(&["--grep", "gave up$", "--until", "1h"])? == 1);
    // of all at once, each with its name
    let all = daemon.uni_json(&["logs", "--source", "syslog", "--level", "info"])?;
    let vms: Vec<&str> =
        all.as_array().context("an array")?.iter().filter_map(|m| m["vm"].as_str()).collect();
    ensure!(vms.first() == Some(&"web") && vms.contains(&"greeter"), "{vms:?}");
    let table = daemon.uni_ok(&["logs", "--source", "syslog", "-n", "100", "--word", "answer"])?;
    ensure!(table == "2024-06-08T09:05:07.000Z err     web dns: No ANSWER from 10.0.0.7: gave up", "{table}");
    // and by the query language, as panels of logs and of their rates ask
    let rows = daemon
        .rows("SELECT message, appname, severity FROM syslog WHERE vm = 'web' AND severity_code <= 3")?;
    ensure!(
        rows.len() == 1 && rows[0][1] == "No ANSWER from 10.0.0.7: gave up" && rows[0][3] == "err",
        "{rows:?}"
    );
    let count = daemon.number("SELECT count(message) FROM syslog WHERE vm = 'greeter'")?;
    ensure!(count == before.len() as f64, "{count} of {}", before.len());
    let events = daemon.rows("SELECT event, text FROM lifecycle WHERE vm = 'greeter'")?;
    ensure!(events.iter().any(|row| row[1] == "start"), "{events:?}");
    Ok(())
}
