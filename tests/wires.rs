//! The wires in: line protocol over TCP and UDP with everything senders do to it, `/write`, and durability.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::ensure;
use black_box::{Daemon, eventually};

fn daemon(state: &tempfile::TempDir) -> anyhow::Result<Daemon> {
    Daemon::start(state.path(), &[])
}

#[test]
fn lines_arrive_however_they_are_cut_ended_and_mixed_with_bad_ones() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = daemon(&state)?;
    let mut stream = TcpStream::connect(daemon.address("line")?)?;
    stream.set_nodelay(true)?;
    let pieces: [&[u8]; 8] = [
        b"# a comment\n\ncpu,vm=x busy=1 1600000000000000000\ncpu,vm=x bu",
        b"sy=2 1600000001000000000\r\n",
        b"cpu, busy=3 1600000002000000000\n",
        b"this is not a line\n",
        b"cpu,vm=x busy= 1600000003000000000\n",
        b"cpu,vm=x busy=4 1600000004000000000\ncpu,vm=x now",
        b"=5\n",
        b"cpu,vm=x busy=6 1600000006000000000",
    ];
    for piece in pieces {
        stream.write_all(piece)?;
        std::thread::sleep(Duration::from_millis(30));
    }
    // the last line has no newline: it counts once the sender is done
    stream.shutdown(Shutdown::Write)?;
    eventually("the good lines", || {
        let count = daemon.number("SELECT count(busy) FROM cpu")?;
        ensure!((count - 5.0).abs() < 0.5, "{count} of 5");
        Ok(())
    })?;
    // without a timestamp: stamped at arrival
    let count = daemon.number("SELECT count(now) FROM cpu WHERE time > now() - 1m")?;
    ensure!((count - 1.0).abs() < 0.5, "{count}");
    let status = daemon.uni_json(&["status"])?;
    ensure!(status["ingest"]["bad_lines_total"] == 2, "{status}");
    let log = daemon.log().join("\n");
    ensure!(
        log.contains("this is not a line") && log.contains("at byte"),
        "position and reason are logged: {log}"
    );
    Ok(())
}

#[test]
fn datagrams_and_overlong_lines() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = daemon(&state)?;
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    udp.send_to(
        b"u,vm=x f=1 1600000000000000000\nu,vm=x f=2 1600000001000000000",
        daemon.address("line-udp")?,
    )?;
    let mut stream = TcpStream::connect(daemon.address("line")?)?;
    stream.write_all(&vec![b'x'; 300 * 1024])?;
    stream.write_all(b"\nu,vm=x f=3 1600000002000000000\n")?;
    eventually("the good lines around", || {
        let count = daemon.number("SELECT count(f) FROM u")?;
        ensure!((count - 3.0).abs() < 0.5, "{count} of 3");
        Ok(())
    })?;
    let status = daemon.uni_json(&["status"])?;
    ensure!(status["ingest"]["long_lines_total"] == 1, "{status}");
    Ok(())
}

#[test]
fn half_open_and_silent_connections_delay_nobody() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = daemon(&state)?;
    let address = daemon.address("line")?;
    let mut silent = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(&address)?;
        // half of them hold half a line
        if n % 2 == 0 {
            stream.write_all(b"h,vm=x f=")?;
        }
        silent.push(stream);
    }
    let mut good = TcpStream::connect(&address)?;
    good.write_all(b"h,vm=x f=1 1600000000000000000\n")?;
    eventually("the good sender's line", || daemon.number("SELECT count(f) FROM h"))?;
    Ok(())
}

#[test]
fn what_write_acknowledged_survives_kill_9() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = daemon(&state)?;
    let url = format!("http://{}/write?db=uni&precision=s", daemon.address("api")?);
    for second in 0..500 {
        let answer = ureq::post(&url).send(format!("w,vm=x n={second}i {}\n", 1_600_000_000 + second))?;
        ensure!(answer.status() == 204, "{answer:?}");
    }
    daemon.kill()?;
    daemon.restart()?;
    let count = daemon.number("SELECT count(n) FROM w")?;
    ensure!((count - 500.0).abs() < 0.5, "{count} of 500");
    Ok(())
}

#[test]
fn write_answers_as_influxdb_does() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = daemon(&state)?;
    let api = daemon.address("api")?;
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let post = |query: &str, body: &str| -> anyhow::Result<(u16, String)> {
        let mut answer = agent.post(format!("http://{api}/write{query}")).send(body)?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    };
    ensure!(post("?db=uni", "m,a=b f=1 1\n")? == (204, String::new()));
    ensure!(post("", "m f=1 1\n")?.0 == 400, "no database");
    let (status, body) = post("?db=uni", "m,a=b f=2 2\nrubbish\n")?;
    ensure!(status == 400 && body.contains("partial write") && body.contains("rubbish"), "{status} {body}");
    let (status, body) = post("?db=uni", "m,a=b f=\"text\" 3\n")?;
    ensure!(status == 400 && body.contains("field type conflict"), "{status} {body}");
    let count = daemon.number("SELECT count(f) FROM m")?;
    ensure!((count - 2.0).abs() < 0.5, "the good line beside the bad one is stored: {count}");
    let mut answer =
        agent.get(format!("http://{api}/query")).query("db", "uni").query("q", "SELEC 1").call()?;
    let body = answer.body_mut().read_to_string()?;
    ensure!(answer.status() == 400 && body.contains("error parsing query"), "{body}");
    let answer = agent.get(format!("http://{api}/ping")).call()?;
    ensure!(
        answer.status() == 204 && answer.headers()["x-influxdb-version"].to_str()?.starts_with("1."),
        "{answer:?}"
    );
    Ok(())
}

/// One request on an open connection: the answer's status and head.
fn exchange(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<String> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let n = stream.read(&mut piece)?;
        ensure!(n > 0, "the connection ended after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Ok(head.to_ascii_lowercase());
        }
    }
}

#[test]
fn a_refused_write_leaves_its_connection_usable_or_says_that_it_ends() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let post = |length: usize| {
        let head = format!("POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; length]].concat()
    };
    let mut stream = TcpStream::connect(daemon.address("api")?)?;
    stream.set_read_timeout(Some(black_box::PATIENCE))?;
    for _ in 0..20 {
        // no database is named: answered without a look at the body
        let head = exchange(&mut stream, &post(100_000))?;
        ensure!(head.starts_with("http/1.1 400") && !head.contains("connection: close"), "{head}");
    }
    let mut stream = TcpStream::connect(daemon.address("api")?)?;
    stream.set_read_timeout(Some(black_box::PATIENCE))?;
    let head = post(10_000_000);
    let head = exchange(&mut stream, &head[..300_000])?;
    ensure!(head.starts_with("http/1.1 400") && head.contains("connection: close"), "{head}");
    Ok(())
}
