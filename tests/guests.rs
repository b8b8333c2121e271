//! The guests by themselves, on QEMU started by hand: boot, exit codes, power button, control port, points
//! that outlive an absent collector, and collectors and syslog sinks that are not there.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::by_hand::{MACHINES, OnMachine, Qemu};
use black_box::control::{asks_too_fast, control, says_everything, until_answering};
use black_box::line_sink::LineSink;
use black_box::prometheus::Prometheus;
use black_box::{PATIENCE, eventually, free_port, free_udp_port};

/// Runs one test on every machine.
fn on_each(test: impl Fn(OnMachine, &Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    MACHINES.into_iter().try_for_each(|on| {
        let dir = tempfile::tempdir()?;
        test(on, dir.path()).with_context(|| format!("on {}", on.machine))
    })
}

/// A guest whose control port is `control` on this machine.
fn boot(dir: &Path, on: OnMachine, image: &str, control: u16, args: &str) -> anyhow::Result<Qemu> {
    let management = format!("net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:{control}-:2323");
    Qemu::boot(dir, on, image, &management, args)
}

const ADDRESSES: &str =
    "--name=web --ipv4=10.0.2.15/24 --ipv4-gateway=10.0.2.2 --management-ipv4=10.0.3.15/24";

#[test]
fn the_power_button_ends_a_guest_in_order() -> anyhow::Result<()> {
    on_each(|on, dir| {
        for image in ["hello", "http", "leaky", "plain"] {
            let mut qemu = boot(dir, on, image, free_port()?, ADDRESSES)?;
            qemu.wait_for("service link is up")?;
            qemu.press_power_button()?;
            ensure!(qemu.status()? == 0, "console: {}", qemu.console());
            ensure!(qemu.console().ends_with("web: stopped\n"), "console: {}", qemu.console());
        }
        Ok(())
    })
}

/// Even before the guest is up: microvm keeps a press, q35 forgets it, so the host repeats it.
#[test]
fn a_power_button_pressed_again_and_again_ends_a_guest_that_is_only_booting() -> anyhow::Result<()> {
    on_each(|on, dir| {
        let mut qemu = boot(dir, on, "hello", free_port()?, ADDRESSES)?;
        let status = eventually("QEMU to end by its button", || {
            // no socket yet, or no QEMU any more
            let _ = qemu.press_power_button();
            qemu.try_wait()?.context("still running")
        })?;
        ensure!(status.code() == Some(0), "{status}; console: {}", qemu.console());
        Ok(())
    })
}

#[test]
fn unknown_arguments_end_with_64_and_a_message() -> anyhow::Result<()> {
    on_each(|on, dir| {
        for (image, argument) in
            [("hello", "--bogus=1"), ("hello", "--leak-rate=1"), ("leaky", "--leak-rate=x")]
        {
            let mut qemu = boot(dir, on, image, free_port()?, &format!("--name=web {argument}"))?;
            // isa-debug-exit: (64 << 1) | 1
            ensure!(qemu.status()? == 129, "console: {}", qemu.console());
            let option = argument.split('=').next().unwrap_or_default();
            ensure!(qemu.console().contains(option), "{}", qemu.console());
        }
        Ok(())
    })
}

#[test]
fn the_control_port_answers_and_changes_what_is_sent() -> anyhow::Result<()> {
    on_each(|on, dir| {
        let port = free_port()?;
        let qemu = boot(dir, on, "http", port, ADDRESSES)?;
        qemu.wait_for("no monitor")?;
        let levels = eventually("an answer", || {
            let answer = control(port, "l*")?;
            ensure!(!answer.is_empty());
            Ok(answer)
        })?;
        ensure!(levels.starts_with("ok: *:info,"), "{levels}");
        let sources = control(port, "m*")?;
        for source in ["gc:enabled", "memory:enabled", "logs:enabled", "net:enabled", "http_response:enabled"]
        {
            ensure!(sources.contains(source), "{source}: {sources}");
        }
        ensure!(control(port, "M*:disable,gc:enable\n")? == "ok");
        ensure!(control(port, "m\r\n")? == "ok: *:disabled,gc:enabled");
        ensure!(control(port, "L*:debug")? == "ok");
        ensure!(control(port, "l")? == "ok: *:debug");
        ensure!(control(port, "lnosuch")? == "error: unknown source: nosuch");
        ensure!(control(port, "x")?.starts_with("error: "), "unknown command");
        Ok(())
    })
}

#[test]
fn every_command_is_answered_and_too_many_are_not() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let _qemu = boot(dir.path(), MACHINES[0], "http", port, ADDRESSES)?;
    until_answering(port)?;
    says_everything(port)?;
    asks_too_fast(port)
}

#[test]
fn a_real_prometheus_asks_on_the_management_link() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (control, metrics) = (free_port()?, free_port()?);
    let management = format!(
        "net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:{control}-:2323,hostfwd=tcp:127.0.0.1:{metrics}-:9464"
    );
    let _qemu = Qemu::boot(dir.path(), MACHINES[0], "http", &management, ADDRESSES)?;
    until_answering(control)?;
    let config = format!(
        "scrape_configs:\n  - job_name: guest\n    static_configs:\n      - targets: ['127.0.0.1:{metrics}']\n"
    );
    let prometheus = Prometheus::start(dir.path(), &config)?;
    eventually("the guest's figures", || {
        ensure!(prometheus.ask("up")? > 0.5, "it does not answer");
        let heap_bytes = prometheus.ask("heap_bytes{vm=\"web\"}")?;
        ensure!(heap_bytes > 1e6, "{heap_bytes}");
        Ok(())
    })
}

#[test]
fn an_interval_is_one_segment_where_it_fits() -> anyhow::Result<()> {
    /// What a frame of Ethernet carries of a TCP segment without options.
    const SEGMENT_BYTES: usize = 1460;
    let dir = tempfile::tempdir()?;
    let collector = LineSink::start(0)?;
    // a heap by library has a line for each library, and together they are more than a segment
    let args = format!("{ADDRESSES} --interval=1 --heap-profile=off --monitor=10.0.3.2:{}", collector.port());
    let qemu = boot(dir.path(), MACHINES[0], "hello", free_port()?, &args)?;
    let time = |line: &str| line.trim_end().rsplit(' ').next().unwrap_or_default().to_owned();
    eventually("five intervals", || {
        let mut times: Vec<_> = collector.lines().iter().map(|line| time(line)).collect();
        times.dedup();
        ensure!(times.len() > 5, "{times:?}");
        Ok(())
    })?;
    let segments = qemu.segments_to(collector.port());
    let texts: Vec<_> = segments.iter().map(|segment| String::from_utf8_lossy(segment)).collect();
    let whole = texts.concat();
    // the first may be what waited for the connection
    let mut times: Vec<_> = whole.lines().map(time).collect();
    times.dedup();
    for of in &times[1..5] {
        let interval: String = whole.split_inclusive('\n').filter(|line| time(line) == *of).collect();
        let carrying = texts.iter().filter(|text| text.lines().any(|line| time(line) == *of)).count();
        ensure!(
            interval.len() <= SEGMENT_BYTES,
            "the interval of a small guest is {} bytes: {interval}",
            interval.len()
        );
        ensure!(carrying == 1, "{} bytes in {carrying} segments: {texts:#?}", interval.len());
    }
    Ok(())
}

#[test]
fn messages_wait_for_a_syslog_sink_over_tcp() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    for (transport, start) in
        [("tcp", &b"dd <30>"[..]), ("tcp-newline", b"<30>MMM DD dd:dd:dd web runtime: ")]
    {
        let port = free_port()?;
        let args = format!(
            "{ADDRESSES} --syslog=10.0.3.2:{port} --syslog-transport={transport} --syslog-format=rfc3164"
        );
        let qemu = boot(dir.path(), MACHINES[0], "hello", free_port()?, &args)?;
        qemu.wait_for(&format!(
            "[WARNING] [syslog] syslog sink 10.0.3.2:{port} is not reachable: connection"
        ))?;
        let sink = TcpListener::bind(("127.0.0.1", port))?;
        // taken and closed at once: nobody has read what was sent
        drop(sink.accept()?);
        let (mut stream, _) = sink.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut bytes = [0; 256];
        stream.read_exact(&mut bytes[..64])?;
        ensure!(has_shape(&bytes[..64], start), "{transport}: {}", bytes.escape_ascii());
    }
    let qemu =
        boot(dir.path(), MACHINES[0], "hello", free_port()?, "--syslog=10.0.3.2 --syslog-transport=tls")?;
    qemu.wait_for("option '--syslog-transport': 'tls' is not udp, tcp or tcp-newline")
}

#[test]
fn commands_in_lines_need_the_token_and_changes_end_with_their_time() -> anyhow::Result<()> {
    on_each(|on, dir| {
        let port = free_port()?;
        let qemu = boot(dir, on, "hello", port, &format!("{ADDRESSES} --monitor-token=sesame"))?;
        qemu.wait_for("no monitor")?;
        eventually("a refusal", || {
            ensure!(control(port, "l")? == "error: authentication required");
            Ok(())
        })?;
        ensure!(control(port, "T wrong\nlnosuch\n")? == "error: authentication required");
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        for piece in ["T ses", "ame\r\nLcont", "rol:debug@3s\nl\n", "", "h\n"] {
            stream.write_all(piece.as_bytes())?;
            std::thread::sleep(Duration::from_millis(50));
        }
        // the client keeps its side open: the guest closes when no more comes
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let help = answer.strip_prefix("ok\nok\nok: *:info,control:debug\nok: l").context(answer.clone())?;
        ensure!(help.ends_with('\n') && help.matches('\n').count() == 1, "{answer}");
        qemu.wait_for("time limit is over: control:info")?;
        ensure!(control(port, "T sesame\nl")? == "ok\nok: *:info");
        ensure!(!qemu.console().contains("sesame"), "console: {}", qemu.console());
        Ok(())
    })
}

#[test]
fn points_made_while_the_collector_is_away_are_sent_later_with_their_own_time() -> anyhow::Result<()> {
    on_each(|on, dir| {
        let collector = free_port()?;
        let args = format!("{ADDRESSES} --monitor=10.0.3.2:{collector} --interval=1");
        let qemu = boot(dir, on, "hello", free_port()?, &args)?;
        // nobody listens: the guest says so once
        qemu.wait_for("not reachable")?;
        std::thread::sleep(Duration::from_secs(4));
        let listener = TcpListener::bind(("127.0.0.1", collector))?;
        let (stream, _) = listener.accept()?;
        let times = heap_times(stream)?;
        // made a second apart although they arrived together
        for pair in times.windows(2) {
            let apart = pair[1] - pair[0];
            ensure!((500_000_000..2_500_000_000).contains(&apart), "{times:?}");
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        let newest = times.last().copied().unwrap_or_default();
        ensure!((i128::try_from(now)? - i128::from(newest)).abs() < 10_000_000_000, "wall clock: {newest}");
        Ok(())
    })
}

/// The time stamps of the first five points of `heap`.
fn heap_times(stream: TcpStream) -> anyhow::Result<Vec<i64>> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut times = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.starts_with("heap,") {
            ensure!(line.contains("vm=web"), "{line}");
            times.push(line.rsplit(' ').next().context("timestamp")?.parse::<i64>()?);
        }
        if times.len() >= 5 {
            break;
        }
    }
    Ok(times)
}

/// Takes a connection and the lines that come first on it, and closes it.
fn take_and_close(listener: &TcpListener) -> anyhow::Result<Option<String>> {
    let mut stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            std::thread::sleep(Duration::from_millis(10));
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut bytes = [0; 16 * 1024];
    let read = stream.read(&mut bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[..read]);
    // no half line
    Ok(Some(text.rsplit_once('\n').map_or_else(String::new, |(lines, _)| format!("{lines}\n"))))
}

#[test]
fn a_collector_that_closes_every_connection_is_tried_seldom_reported_once_and_given_everything_at_last()
-> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let args = format!("{ADDRESSES} --monitor=10.0.3.2:{} --interval=1", listener.local_addr()?.port());
    let qemu = boot(dir.path(), MACHINES[0], "hello", free_port()?, &args)?;
    let mut taken = eventually("a connection", || take_and_close(&listener)?.context("none yet"))?;
    let end = Instant::now() + Duration::from_secs(10);
    let mut connections = 1;
    while Instant::now() < end {
        if let Some(more) = take_and_close(&listener)? {
            taken.push_str(&more);
            connections += 1;
        }
    }
    // waits of 0.1 s or more, doubled up to 2.5 s or more
    ensure!((3..=9).contains(&connections), "{connections} connections in 10 s");
    let said = |what: &str| qemu.console().matches(what).count();
    ensure!((said("is not reachable"), said("is back")) == (1, 0), "console: {}", qemu.console());
    listener.set_nonblocking(false)?;
    let (stream, _) = listener.accept()?;
    let first = taken.lines().find(|line| line.starts_with("heap,")).context("no point of heap")?;
    let first = first.rsplit(' ').next().context("timestamp")?.parse::<i64>()?;
    ensure!(heap_times(stream.try_clone()?)?.first() == Some(&first), "acknowledged points are lost");
    // the same connection, held and read
    std::thread::spawn(move || std::io::copy(&mut &stream, &mut std::io::sink()));
    qemu.wait_for("collector is back after")?;
    ensure!((said("is not reachable"), said("is back")) == (1, 1), "console: {}", qemu.console());
    Ok(())
}

#[test]
fn a_dead_syslog_sink_is_reported_on_the_console_once() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    // a host where nobody listens (QEMU says of a second datagram that the network is unreachable), and an address
    // nobody has
    let nobody_listens = format!("10.0.3.2:{}", free_udp_port()?);
    let reasons: [(&str, &[&str]); 2] = [
        (&nobody_listens, &["port unreachable, nobody listens there;", "network unreachable;"]),
        ("10.0.3.99:514", &["no way to it is found;"]),
    ];
    for (sink, reasons) in reasons {
        let port = free_port()?;
        let qemu = boot(dir.path(), MACHINES[0], "hello", port, &format!("{ADDRESSES} --syslog={sink}"))?;
        let warning = format!("[WARNING] [syslog] syslog sink {sink} is not reachable: ");
        qemu.wait_for(&warning)?;
        let is_said = |reason: &&str| qemu.console().contains(&format!("{warning}{reason}"));
        ensure!(reasons.iter().any(is_said), "console: {}", qemu.console());
        // it keeps nobody else from being answered
        for _ in 0..5 {
            ensure!(control(port, "M*:enable")? == "ok");
            std::thread::sleep(Duration::from_millis(200));
        }
        ensure!(qemu.console().matches("[syslog]").count() == 1, "console: {}", qemu.console());
    }
    Ok(())
}

#[test]
fn a_syslog_sink_that_lives_is_not_warned_of() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let sink = std::net::UdpSocket::bind("127.0.0.1:0")?;
    sink.set_read_timeout(Some(PATIENCE))?;
    let args = format!("{ADDRESSES} --syslog=10.0.3.2:{}", sink.local_addr()?.port());
    let qemu = boot(dir.path(), MACHINES[0], "hello", free_port()?, &args)?;
    let mut bytes = [0; 2048];
    let (len, _) = sink.recv_from(&mut bytes)?;
    ensure!(bytes[..len].starts_with(b"<30>"), "{}", bytes[..len].escape_ascii());
    std::thread::sleep(Duration::from_secs(7));
    ensure!(!qemu.console().contains("[syslog]"), "console: {}", qemu.console());
    Ok(())
}

#[test]
fn a_guest_that_does_not_ask_for_monitoring_reports_nothing_and_opens_no_port() -> anyhow::Result<()> {
    on_each(|on, dir| {
        let (collector, port) = (TcpListener::bind("127.0.0.1:0")?, free_port()?);
        collector.set_nonblocking(true)?;
        let args = format!("{ADDRESSES} --monitor=10.0.3.2:{} --interval=1", collector.local_addr()?.port());
        let qemu = boot(dir, on, "plain", port, &args)?;
        qemu.wait_for("hello from web")?;
        std::thread::sleep(Duration::from_secs(2));
        let came = collector.accept().map(|(stream, _)| stream);
        let nobody = matches!(&came, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        ensure!(nobody, "a connection to the collector: {came:?}");
        // QEMU takes the connection and drops it when the guest refuses
        let answer = control(port, "l*");
        ensure!(answer.as_deref().unwrap_or_default().is_empty(), "an answer: {answer:?}");
        Ok(())
    })
}

#[test]
fn syslog_is_written_in_the_format_asked_for() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let formats = [
        ("rfc3164", "<30>MMM DD dd:dd:dd web runtime: "),
        ("rfc5424", "<30>1 20dd-dd-ddTdd:dd:dd.ddddddZ web runtime - - - "),
        ("mirage", "<30>MMM dd dd:dd:dd web runtime "),
    ];
    for (format, shape) in formats {
        let sink = std::net::UdpSocket::bind("127.0.0.1:0")?;
        sink.set_read_timeout(Some(PATIENCE))?;
        let args =
            format!("{ADDRESSES} --syslog=10.0.3.2:{} --syslog-format={format}", sink.local_addr()?.port());
        let _qemu = boot(dir.path(), MACHINES[0], "hello", free_port()?, &args)?;
        let mut bytes = [0; 2048];
        let (len, _) = sink.recv_from(&mut bytes)?;
        ensure!(has_shape(&bytes[..len], shape.as_bytes()), "{format}: {}", bytes[..len].escape_ascii());
    }
    Ok(())
}

/// Whether a message starts as `shape` says: `d` stands for a digit, `D` for a digit or a blank, `M` for a letter.
fn has_shape(message: &[u8], shape: &[u8]) -> bool {
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'd' => byte.is_ascii_digit(),
        b'D' => byte.is_ascii_digit() || *byte == b' ',
        b'M' => byte.is_ascii_alphabetic(),
        _ => byte == shape,
    };
    message.len() > shape.len() && message.iter().zip(shape).all(fits)
}
